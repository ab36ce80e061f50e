//! The new cluster as `initdb` makes it, with the options that the old one was made with.

use crate::logical::child::Keeper;
use crate::repository::Record;
use crate::repository::logical_record::{LocaleRecord, LogicalRecord};
use crate::restore::access::Access;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::path::Path;

/// Most bytes of what initdb says.
const MAX_WORDS: usize = 1 << 20;

/// Options of `initdb` of PostgreSQL `major` (15 to 18) for a cluster like the recorded one; where it goes is not among them.
pub fn options(record: &Record, logical: &LogicalRecord, major: u32, group_access: bool) -> Vec<String> {
    let LocaleRecord { encoding, provider, collate, ctype, locale, icu_rules, .. } = &logical.initdb.locale;
    let mut options = vec![
        format!("--username={}", logical.initdb.username),
        format!("--encoding={encoding}"),
        format!("--locale-provider={provider}"),
        format!("--lc-collate={collate}"),
        format!("--lc-ctype={ctype}"),
    ];
    match (&provider[..], locale) {
        ("icu", Some(locale)) => options.push(format!("--icu-locale={locale}")),
        ("builtin", Some(locale)) => options.push(format!("--builtin-locale={locale}")),
        _ => {}
    }
    options.extend(icu_rules.as_ref().map(|rules| format!("--icu-rules={rules}")));
    options.push(format!("--wal-segsize={}", record.wal_segment_size.bytes() >> 20));
    match record.data_checksums {
        true => options.push("--data-checksums".to_string()),
        // They are on from there unless told otherwise.
        false if major >= 18 => options.push("--no-data-checksums".to_string()),
        false => {}
    }
    if group_access {
        options.push("--allow-group-access".to_string());
    }
    let search = logical.initdb.text_search_config.as_deref().unwrap_or_default();
    let search = search.strip_prefix("pg_catalog.").unwrap_or(search);
    if !search.is_empty() && search.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        options.push(format!("--text-search-config={search}"));
    }
    options
}

/// Runs `initdb` with these options in `data`, which must not exist.
///
/// # Errors
/// `RestoreIncomplete` with its words; the order to stop.
pub fn run(
    keeper: &Keeper<'_>,
    bindir: &Path,
    data: &Path,
    options: &[String],
    access: &Access,
) -> Result<()> {
    let mut command = keeper.command(&bindir.join("initdb"), Some(access))?;
    // Everything is made durable once, at the end. Whoever is not told otherwise by a restored pg_hba.conf needs a password.
    command.args(["--no-sync", "--no-instructions", "--auth-local=peer", "--auth-host=scram-sha-256"]);
    command.args(options).arg("--pgdata").arg(data);
    let (_, ended) = keeper.output(command, MAX_WORDS)?;
    if ended.success {
        return Ok(());
    }
    let said = ended.said();
    let error = Error::new(
        ErrorKind::RestoreIncomplete,
        format!("initdb could not make a cluster in \"{}\"", data.display()),
    );
    let error = error.detail(&said);
    Err(match said.contains("locale") {
        true => error.hint("The locale of the original must be known here: install it (Debian: dpkg-reconfigure locales), then try again."),
        false => error.hint("Mend the cause, remove what the restore left, and try again."),
    })
}

/// In what the new cluster differs from the recorded one, as `template0` shows it.
pub fn differences(recorded: &LocaleRecord, made: &LocaleRecord) -> Vec<String> {
    let icu = |locale: &LocaleRecord| locale.locale.clone().unwrap_or_default();
    let pairs = [
        ("encoding", recorded.encoding.clone(), made.encoding.clone()),
        ("locale provider", recorded.provider.clone(), made.provider.clone()),
        ("LC_COLLATE", recorded.collate.clone(), made.collate.clone()),
        ("LC_CTYPE", recorded.ctype.clone(), made.ctype.clone()),
        ("locale", icu(recorded), icu(made)),
    ];
    let differ = pairs.into_iter().filter(|(_, was, is)| was != is);
    differ
        .map(|(what, was, is)| {
            format!(
                "the {what} of the new cluster is \"{is}\", that of the old one was \"{was}\"; databases keep their own"
            )
        })
        .collect()
}

/// The locale of `template0`, as JSON; columns that only some versions have are read from the row: `daticulocale` (15, 16),
/// `datlocale` (from 17).
pub const TEMPLATE0: &str = "SELECT jsonb_build_object('encoding', pg_catalog.pg_encoding_to_char(d.encoding), \
    'provider', CASE d.datlocprovider WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END, \
    'collate', d.datcollate, 'ctype', d.datctype, \
    'locale', coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale'))::text \
    FROM pg_catalog.pg_database d WHERE d.datname = 'template0'";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::logical_record::InitdbRecord;
    use crate::restore::fixture::{Fixture, Recipe};

    fn made(provider: &str, locale: Option<&str>, major: u32) -> String {
        let locale = LocaleRecord {
            encoding: "UTF8".into(),
            provider: provider.into(),
            collate: "C".into(),
            ctype: "de_DE.UTF-8".into(),
            locale: locale.map(Into::into),
            ..LocaleRecord::default()
        };
        let initdb = InitdbRecord {
            username: "boss".into(),
            locale,
            text_search_config: Some("pg_catalog.german".into()),
        };
        let logical = LogicalRecord { initdb, ..LogicalRecord::default() };
        let mut record = Fixture::new(&Recipe::default()).record;
        record.data_checksums = false;
        record.wal_segment_size = pg_ark_contract::SegmentSize::new(16 << 20).unwrap();
        options(&record, &logical, major, provider == "icu").join(" ")
    }

    #[test]
    fn every_version_gets_the_options_that_it_knows() {
        let libc = made("libc", None, 15);
        let expected = "--username=boss --encoding=UTF8 --locale-provider=libc --lc-collate=C --lc-ctype=de_DE.UTF-8 \
                        --wal-segsize=16 --text-search-config=german";
        assert_eq!(libc, expected);
        let icu = made("icu", Some("de"), 18);
        assert!(icu.contains(" --icu-locale=de ") && icu.contains(" --no-data-checksums "), "{icu}");
        assert!(icu.contains(" --allow-group-access"), "{icu}");
        assert!(made("builtin", Some("C.UTF-8"), 17).contains(" --builtin-locale=C.UTF-8 "));
    }

    #[test]
    fn another_locale_is_told() {
        let one = LocaleRecord { encoding: "UTF8".into(), collate: "C".into(), ..LocaleRecord::default() };
        assert!(differences(&one, &one).is_empty());
        let other = LocaleRecord { collate: "de_DE".into(), ..one.clone() };
        let told = differences(&one, &other);
        assert!(told.len() == 1 && told[0].starts_with("the LC_COLLATE of the new cluster is \"de_DE\""));
    }
}
