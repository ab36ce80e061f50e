//! Recovery settings of a restored cluster.
//!
//! What: `recovery.signal` or `standby.signal`, and a marked block at the end of `postgresql.auto.conf`, which the
//! server reads last. Targets and commands that the origin was once given are cleared. The timeline is a number: what
//! `latest` means was settled when the plan was made.
//! `restore_command` asks the archive; where there is none it is `false`, which answers "not there" to every question,
//! so that recovery takes the WAL that came with the backup from pg_wal.
//! A second block turns archiving off in a copy, which would write a timeline of its own into its origin's archive, and takes
//! the repository away, since its scheduler would at once act in its origin's name. A port of its own is there too. It stays, while the first goes when recovery is over.

use super::access::{Access, NEW_FILE};
use super::config_text::{BLOCK_BEGIN, BLOCK_END};
use super::course::RecoveryPlan;
use super::request::{ArchiveMode, Request};
use super::target::{Target, TargetAction, setting_time};
use crate::bounded;
use crate::repository::Cluster;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

/// The file that holds the blocks.
pub const AUTO_CONF: &str = "postgresql.auto.conf";
/// `restore_command` where nothing is archived.
pub const NO_ARCHIVE: &str = "false";
const SIGNAL: &str = "recovery.signal";
const STANDBY_SIGNAL: &str = "standby.signal";
/// First and last line of the block that stays.
const COPY_BEGIN: &str = "# pg_ark copy: begin";
const COPY_END: &str = "# pg_ark copy: end";

/// Every setting that names a target.
const TARGETS: [&str; 5] = [
    "recovery_target",
    "recovery_target_time",
    "recovery_target_xid",
    "recovery_target_name",
    "recovery_target_lsn",
];

/// Commands of the origin that a restored server must not run.
const CLEARED: &str = "archive_cleanup_command = ''
recovery_end_command = ''
";

/// Reading ahead asks for segments behind the target (xlogprefetcher.c). Where one of them is missing, behind a gap or
/// because retention removed it, recovery would end though it never needs it.
const NO_READING_AHEAD: &str = "recovery_prefetch = off\n";

/// Without it, recovery takes the folder of an in-place tablespace for damage (xlogrecovery.c,
/// CheckTablespaceDirectory).
const IN_PLACE: &str = "allow_in_place_tablespaces = on\n";

/// The program that the server calls: this one, if no other was named.
///
/// # Errors
/// `Unsupported` when the path of this program is not known.
pub fn program(request: &Request) -> Result<PathBuf> {
    let own = || std::env::current_exe();
    request
        .program
        .clone()
        .map_or_else(own, Ok)
        .map_err(|e| Error::new(ErrorKind::Unsupported, "the path of this program is not known").detail(e))
}

/// The `restore_command` that asks the archive of a cluster.
///
/// # Errors
/// `InvalidArgument` for a path that is not UTF-8 or has a line break.
pub fn command(program: &Path, cluster: &Cluster, system_identifier: u64) -> Result<String> {
    let program = program.to_str().ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidArgument,
            format!("the path of this program is not UTF-8: \"{}\"", program.display()),
        )
        .hint("Install pgark at a path in plain letters.")
    })?;
    let system = system_identifier.to_string();
    let words = [
        program,
        "--repo",
        cluster.storage().url(),
        "--cluster",
        cluster.name(),
        "--system-identifier",
        &system,
    ];
    if words.iter().any(|word| word.contains(['\n', '\r', '\0'])) {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            "a path with a line break cannot be used in a setting",
        )
        .hint("Use a repository and a program whose paths have none."));
    }
    // The server replaces %f and %p, and takes %% for one sign (BuildRestoreCommand, common/archive.c).
    let words: Vec<String> = words.iter().map(|word| for_shell(word).replace('%', "%%")).collect();
    Ok(format!("{} wal-get \"%f\" \"%p\"", words.join(" ")))
}

/// A word for the shell.
fn for_shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=+:,@".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_string(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// A value for a configuration file, where a backslash escapes (`DeescapeQuotedString` in utils/misc/guc-file.l).
fn for_setting(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// Lines of the block.
fn settings(plan: &RecoveryPlan) -> String {
    let mut lines = format!("restore_command = {}\n", for_setting(&plan.restore_command));
    let timeline = if plan.standby { "latest".to_string() } else { plan.timeline.to_string() };
    lines.push_str(&format!("recovery_target_timeline = '{timeline}'\n"));
    let set = |lines: &mut String, name: &str, value: &str| {
        lines.push_str(&format!("{name} = {}\n", for_setting(value)));
    };
    let (own, value) = match plan.given.as_ref().unwrap_or(&plan.target) {
        Target::Latest => ("", String::new()),
        Target::Immediate => ("recovery_target", "immediate".to_string()),
        Target::Time(time) => ("recovery_target_time", setting_time(*time)),
        Target::Xid(xid) => ("recovery_target_xid", xid.to_string()),
        Target::Name(name) => ("recovery_target_name", name.clone()),
        Target::Lsn(lsn) => ("recovery_target_lsn", lsn.to_string()),
    };
    // The server takes even an empty one for a second target once it has one, so the others come first.
    for name in TARGETS.iter().filter(|name| **name != own) {
        set(&mut lines, name, "");
    }
    if !own.is_empty() {
        set(&mut lines, own, &value);
    }
    let inclusive = if plan.exclusive { "off" } else { "on" };
    set(&mut lines, "recovery_target_inclusive", inclusive);
    set(&mut lines, "recovery_target_action", plan.action.as_str());
    lines.push_str(CLEARED);
    if !own.is_empty() {
        lines.push_str(NO_READING_AHEAD);
    }
    if !plan.standby {
        lines.push_str("recovery_min_apply_delay = '0'\n");
    }
    match plan.action {
        _ if plan.standby => {}
        // A server that does not let clients in cannot wait for them (StartupXLOG takes pause for shutdown then).
        TargetAction::Pause => lines.push_str("hot_standby = on\n"),
        // One that does pauses for ever where a setting such as max_connections was raised behind the backup
        // (CheckRequiredParameterValues in access/transam/xlogrecovery.c). It matters in recovery only.
        TargetAction::Promote | TargetAction::Shutdown => lines.push_str("hot_standby = off\n"),
    }
    if let Some(megabytes) = plan.wal_keep_size {
        lines.push_str(&format!("wal_keep_size = '{megabytes}MB'\n"));
    }
    lines
}

/// Prepares a data directory for recovery. Says whether it was a standby's.
///
/// # Errors
/// What the system said.
pub fn prepare(data: &Path, plan: &RecoveryPlan, access: &Access) -> Result<bool> {
    let (signal, other) = if plan.standby { (STANDBY_SIGNAL, SIGNAL) } else { (SIGNAL, STANDBY_SIGNAL) };
    let was_standby = data.join(STANDBY_SIGNAL).exists();
    let other = data.join(other);
    match std::fs::remove_file(&other) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io(format!("could not remove \"{}\"", other.display()), &e));
        }
        _ => {}
    }
    let path = data.join(AUTO_CONF);
    let mut text = with_own(read(&path)?, plan.archive_mode, !plan.standby, plan.port);
    let in_place = if has_tablespace_in_place(data)? { IN_PLACE } else { "" };
    let block = format!("{BLOCK_BEGIN}\n{}{in_place}{BLOCK_END}\n", settings(plan));
    text.extend_from_slice(block.as_bytes());
    access.replace_file(&path, &text, NEW_FILE)?;
    access.replace_file(&data.join(signal), b"", NEW_FILE)?;
    Ok(was_standby)
}

/// The text without an older restore's settings of recovery, and with those that stay. A standby goes on to know the
/// repository: it is no other cluster.
fn with_own(text: Vec<u8>, archive_mode: ArchiveMode, is_own: bool, port: Option<u16>) -> Vec<u8> {
    let mut text = without_block(&text, BLOCK_BEGIN, BLOCK_END).unwrap_or(text);
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    let mut stays = String::new();
    if archive_mode == ArchiveMode::Off {
        stays.push_str("archive_mode = off\n");
        if is_own {
            stays.push_str("pg_ark.repository = ''\n");
        }
    }
    if let Some(port) = port {
        stays.push_str(&format!("port = {port}\n"));
    }
    if !stays.is_empty() {
        text = without_block(&text, COPY_BEGIN, COPY_END).unwrap_or(text);
        text.extend_from_slice(format!("{COPY_BEGIN}\n{stays}{COPY_END}\n").as_bytes());
    }
    text
}

/// The settings of a cluster that does not recover: whether it archives and takes backups, and its port.
///
/// # Errors
/// What the system said.
pub fn settle(data: &Path, archive_mode: ArchiveMode, port: Option<u16>, access: &Access) -> Result<()> {
    let path = data.join(AUTO_CONF);
    let old = read(&path)?;
    let new = with_own(old.clone(), archive_mode, true, port);
    match new == old {
        true => Ok(()),
        false => access.replace_file(&path, &new, NEW_FILE),
    }
}

/// Whether `pg_tblspc` holds a folder that is no link.
fn has_tablespace_in_place(data: &Path) -> Result<bool> {
    let folder = data.join("pg_tblspc");
    let look = || -> std::io::Result<bool> {
        for entry in std::fs::read_dir(&folder)? {
            if entry?.file_type()?.is_dir() {
                return Ok(true);
            }
        }
        Ok(false)
    };
    match look() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        look => look.map_err(|e| Error::io(format!("could not look at \"{}\"", folder.display()), &e)),
    }
}

/// Removes the block of recovery settings once the server is up.
///
/// # Errors
/// What the system said.
pub fn clean_up(data: &Path, access: &Access) -> Result<()> {
    let path = data.join(AUTO_CONF);
    match without_block(&read(&path)?, BLOCK_BEGIN, BLOCK_END) {
        Some(text) => access.replace_file(&path, &text, NEW_FILE),
        None => Ok(()),
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    match bounded::read(path, bounded::MAX_TEXT) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.map_err(|e| Error::io(format!("could not read \"{}\"", path.display()), &e)),
    }
}

/// The text without blocks between these marks; `None` when it has none.
fn without_block(text: &[u8], begin: &str, end: &str) -> Option<Vec<u8>> {
    let is = |line: &[u8], mark: &str| line.trim_ascii() == mark.as_bytes();
    let mut out = Vec::with_capacity(text.len());
    let (mut inside, mut found) = (false, false);
    for line in text.split_inclusive(|b| *b == b'\n') {
        match inside {
            false if is(line, begin) => (inside, found) = (true, true),
            false => out.extend_from_slice(line),
            true => inside = !is(line, end),
        }
    }
    (found && !inside).then_some(out)
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
pub(super) mod tests;
