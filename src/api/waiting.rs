//! Settings that are written and wait for a restart: `ark.check` then asks for the restart alone.

use super::protect::is_off;
use crate::postgres::guc;
use crate::{settings, sql};
use pg_ark_contract::Result;
use pg_ark_contract::rows::{CheckRow, CheckStatus};
use std::collections::BTreeMap;

/// The last line of the files is the one that acts, unless the command line that starts the server says otherwise.
const WRITTEN: &str = "SELECT coalesce(json_object_agg(s.name, f.setting), '{}')::text FROM pg_settings s, LATERAL \
    (SELECT f.setting FROM pg_file_settings f WHERE lower(f.name) = s.name ORDER BY f.seqno DESC LIMIT 1) f \
    WHERE s.name IN ('shared_preload_libraries', 'wal_level', 'archive_mode') AND s.source <> 'command line' \
    AND f.setting <> s.setting";

/// The same for who may not see the files: that there is a new value, not which.
const PENDING: &str = "SELECT coalesce(json_object_agg(name, NULL::text), '{}')::text FROM pg_settings \
    WHERE name IN ('shared_preload_libraries', 'wal_level', 'archive_mode') AND pending_restart";

/// Puts the restart in the place of advice to set what is set.
///
/// # Errors
/// `Internal` when the server refuses a question.
pub fn advise_restart(rows: &mut [CheckRow]) -> Result<()> {
    let waiting = sql::json(if guc::is_superuser() { WRITTEN } else { PENDING }, &[])?;
    replace(rows, &waiting);
    Ok(())
}

/// `waiting` holds the value of each setting that will change, where that is known.
fn replace(rows: &mut [CheckRow], waiting: &BTreeMap<String, Option<String>>) {
    for row in rows.iter_mut().filter(|row| row.status != CheckStatus::Ok) {
        let setting = match row.item.as_str() {
            "scheduler" if !settings::is_preloaded() => "shared_preload_libraries",
            item => item,
        };
        if waiting
            .get(setting)
            .is_some_and(|value| value.as_deref().is_none_or(|value| mends(setting, value)))
        {
            row.hint = Some(format!("{setting} is set, and waits for a restart of the server."));
        }
    }
}

/// Whether this value of a setting is what a server needs that backs itself up.
fn mends(setting: &str, value: &str) -> bool {
    match setting {
        "shared_preload_libraries" => value.split(',').any(settings::is_our_library),
        "wal_level" => !value.eq_ignore_ascii_case("minimal"),
        "archive_mode" => !is_off(value),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_not_advised_again() {
        let row = |item: &str, status| CheckRow {
            item: item.into(),
            status,
            detail: String::new(),
            hint: Some("Set it.".into()),
        };
        let set = |pairs: &[(&str, Option<&str>)]| {
            pairs.iter().map(|(name, value)| (name.to_string(), value.map(str::to_string))).collect()
        };
        let told = |item: &str, status, pairs: &[(&str, Option<&str>)]| {
            let mut rows = [row(item, status)];
            replace(&mut rows, &set(pairs));
            rows[0].hint.as_deref().is_some_and(|hint| hint.contains("waits for a restart"))
        };
        use CheckStatus::{Error, Ok, Warning};
        let libraries = "shared_preload_libraries";
        for (item, status, pairs, expected) in [
            (libraries, Warning, [(libraries, Some("auto_explain, \"pg_ark\""))], true),
            (libraries, Warning, [(libraries, Some("auto_explain"))], false),
            (libraries, Warning, [(libraries, None)], true),
            (libraries, Ok, [(libraries, Some("pg_ark"))], false),
            ("scheduler", Warning, [(libraries, Some("pg_ark"))], true),
            ("scheduler", Warning, [("archive_mode", Some("on"))], false),
            ("archive_mode", Warning, [("archive_mode", Some("on"))], true),
            ("archive_mode", Warning, [("archive_mode", Some("off"))], false),
            ("wal_level", Error, [("wal_level", Some("logical"))], true),
            ("wal_level", Error, [("wal_level", Some("Minimal"))], false),
            ("engine", Error, [("archive_mode", Some("on"))], false),
        ] {
            assert_eq!(told(item, status, &pairs), expected, "{item} {status:?} {pairs:?}");
        }
    }
}
