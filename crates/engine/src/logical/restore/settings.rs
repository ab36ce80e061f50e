//! Settings that the new server does not know or take: an older one's configuration may hold them, and no server starts with
//! them. The server's own `postgres -C` tells which; they are commented out.

use super::plan::FreshPrepared;
use crate::bounded;
use crate::logical::child::{Ended, Keeper};
use crate::restore::Watch;
use crate::restore::access::NEW_FILE;
use crate::restore::config::Action;
use crate::restore::config_text::{COMMENT, parse_line};
use pg_ark_contract::{Error, Result};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Most times that the server is asked: it tells all that are unknown at once, and values that it does not take one after the
/// other at worst.
const ROUNDS: usize = 20;
/// Most bytes of its answer.
const MAX_ANSWER: usize = 1 << 20;
/// Settings that name files without which a server with `ssl` does not start (`be_tls_init`, libpq/be-secure-openssl.c).
const FILES: [&str; 5] =
    ["ssl_cert_file", "ssl_key_file", "ssl_ca_file", "ssl_crl_file", "ssl_dh_params_file"];

/// Comments out what the new server does not take. Gives its words when it still does not take the configuration.
///
/// # Errors
/// What the system said; the order to stop.
pub fn adapt(keeper: &Keeper<'_>, prepared: &FreshPrepared, watch: &dyn Watch) -> Result<Option<String>> {
    let mut done = BTreeSet::new();
    for _ in 0..ROUNDS {
        let (_, ended) = ask(keeper, prepared, "port")?;
        if ended.success {
            return Ok(None);
        }
        let named: BTreeSet<String> = ended.errors.iter().filter_map(|line| parameter(line)).collect();
        let new: Vec<&String> = named.difference(&done).collect();
        let mut changed = false;
        for name in &new {
            for path in files(prepared) {
                changed |= comment_out(&path, name, prepared, watch)?;
            }
        }
        if !changed {
            let last = ended.errors.iter().rev().take(3).rev().cloned().collect::<Vec<_>>();
            return Ok(Some(if last.is_empty() { ended.status } else { last.join("; ") }));
        }
        done.extend(named);
    }
    Ok(Some("there is no end of settings that it does not take".to_string()))
}

/// Files for encrypted connections that the server wants and that are not there: they were in the old data directory, and a
/// private key belongs into no backup. Told, and not mended: whether clients may connect in the clear is not for a restore to say.
///
/// # Errors
/// The order to stop.
pub fn missing_files(keeper: &Keeper<'_>, prepared: &FreshPrepared) -> Result<Option<String>> {
    let value = |name: &str| -> Result<String> {
        let (answer, _) = ask(keeper, prepared, name)?;
        Ok(String::from_utf8_lossy(&answer).trim().to_string())
    };
    if value("ssl")? != "on" {
        return Ok(None);
    }
    let mut missing = Vec::new();
    for name in FILES {
        let path = value(name)?;
        if !path.is_empty() && !prepared.plan.data_directory.join(&path).exists() {
            missing.push(format!("\"{path}\" ({name})"));
        }
    }
    Ok((!missing.is_empty()).then(|| {
        format!(
            "ssl is on, and the server will not start without {}: put it there, or set ssl = off",
            missing.join(", ")
        )
    }))
}

/// Lets the new server read its configuration; its answer is the value of one setting.
fn ask(keeper: &Keeper<'_>, prepared: &FreshPrepared, setting: &str) -> Result<(Vec<u8>, Ended)> {
    let plan = &prepared.plan;
    let mut command = keeper.command(&plan.server.bindir.join("postgres"), Some(&plan.access))?;
    command.arg("-D").arg(&plan.data_directory);
    let set = |name: &str, path: &Path| {
        let mut text = OsString::from(format!("{name}="));
        text.push(path);
        text
    };
    if let Some(main) = &plan.config.main {
        command.arg("-c").arg(set("config_file", main));
        command.arg("-c").arg(set("data_directory", &plan.data_directory));
    }
    command.args(["-C", setting]);
    keeper.output(command, MAX_ANSWER)
}

/// The setting that a line complains about: `unrecognized configuration parameter "x" in file "f" line 1`, `invalid value for
/// parameter "x": "y"`, `0 is outside the valid range for parameter "x" (1 .. 2)`.
fn parameter(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("parameter \"")?;
    let (name, _) = rest.split_once('"')?;
    Some(name.to_ascii_lowercase())
}

/// Files of configuration that the restore wrote; others are left alone.
fn files(prepared: &FreshPrepared) -> Vec<PathBuf> {
    let plan = &prepared.plan;
    let outside = plan.config.files.iter().filter(|file| file.action == Action::Write).map(|file| &file.to);
    let own = ["postgresql.conf", "postgresql.auto.conf"].map(|name| plan.data_directory.join(name));
    let mut all: Vec<PathBuf> = plan.config_inside.iter().chain(outside).cloned().chain(own).collect();
    all.sort();
    all.dedup();
    // Rules of who may connect are no settings, whatever their lines look like.
    all.retain(|path| path.is_file() && !path.ends_with("pg_hba.conf") && !path.ends_with("pg_ident.conf"));
    all
}

/// Comments a setting out wherever the file has it; says whether it had.
fn comment_out(path: &Path, name: &str, prepared: &FreshPrepared, watch: &dyn Watch) -> Result<bool> {
    let text = bounded::read(path, bounded::MAX_TEXT)
        .map_err(|e| Error::io(format!("could not read \"{}\"", path.display()), &e))?;
    let Some(new) = without(&text, name) else { return Ok(false) };
    let mode = std::fs::metadata(path)
        .map_or(NEW_FILE, |meta| std::os::unix::fs::PermissionsExt::mode(&meta.permissions()));
    prepared.plan.access.replace_file(path, &new, mode & 0o777)?;
    watch.warn(&format!(
        "commented out in \"{}\", because PostgreSQL {} does not take it: {name}",
        path.display(),
        prepared.plan.server_major
    ));
    Ok(true)
}

/// The text with every line of this setting commented out; none when there is none.
fn without(text: &[u8], name: &str) -> Option<Vec<u8>> {
    let mut found = false;
    let mut out = Vec::with_capacity(text.len() + COMMENT.len());
    for line in text.split_inclusive(|b| *b == b'\n') {
        let shown = String::from_utf8_lossy(line);
        if parse_line(&shown).is_some_and(|(key, _)| key.eq_ignore_ascii_case(name)) {
            found = true;
            out.extend_from_slice(COMMENT.as_bytes());
        }
        out.extend_from_slice(line);
    }
    found.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_names_what_it_does_not_take() {
        let lines = [
            "2026 LOG:  unrecognized configuration parameter \"old_snapshot_threshold\" in file \"/x\" line 7",
            "2026 LOG:  invalid value for parameter \"lc_messages\": \"de_DE\"",
            "2026 LOG:  0 is outside the valid range for parameter \"Work_Mem\" (64 .. 2147483647)",
        ];
        let named: Vec<String> = lines.iter().filter_map(|line| parameter(line)).collect();
        assert_eq!(named, ["old_snapshot_threshold", "lc_messages", "work_mem"]);
        assert_eq!(parameter("FATAL:  configuration file \"x\" contains errors"), None);
    }

    #[test]
    fn every_line_of_a_setting_is_commented_out() {
        let text = b"port = 1\nOld_Snapshot_Threshold = 5min # x\n#old_snapshot_threshold = 1\nold_snapshot_threshold 6\n";
        let new = String::from_utf8(without(text, "old_snapshot_threshold").unwrap()).unwrap();
        assert_eq!(
            new,
            "port = 1\n#pg_ark# Old_Snapshot_Threshold = 5min # x\n#old_snapshot_threshold = 1\n#pg_ark# old_snapshot_threshold 6\n"
        );
        assert_eq!(without(text, "work_mem"), None);
    }
}
