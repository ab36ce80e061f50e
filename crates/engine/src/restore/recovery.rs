//! Recovery settings of a restored cluster.
//!
//! What: `recovery.signal`, and a marked block at the end of `postgresql.auto.conf`, which the server reads last.
//! Why: `restore_command = 'false'` answers "not there" to every question, so that recovery takes the WAL that came
//! with the backup from pg_wal, ends where that ends, and goes on on a new timeline: a copy never writes into its
//! origin's. The timeline is `latest`, since a backup of a standby may cross to another one, whose history file came
//! with it. Targets that the origin was once restored to are cleared.

use super::access::{Access, NEW_FILE};
use super::config_text::{BLOCK_BEGIN, BLOCK_END};
use pg_ark_contract::{Error, Result};
use std::path::Path;

/// The file that holds the block.
pub const AUTO_CONF: &str = "postgresql.auto.conf";
const SIGNAL: &str = "recovery.signal";
const STANDBY_SIGNAL: &str = "standby.signal";

const SETTINGS: &str = "restore_command = 'false'
recovery_target_timeline = 'latest'
recovery_target = ''
recovery_target_time = ''
recovery_target_xid = ''
recovery_target_name = ''
recovery_target_lsn = ''
archive_cleanup_command = ''
recovery_end_command = ''
recovery_min_apply_delay = '0'
";

/// Without it, recovery takes the folder of an in-place tablespace for damage (xlogrecovery.c,
/// CheckTablespaceDirectory).
const IN_PLACE: &str = "allow_in_place_tablespaces = on\n";

/// Prepares a data directory for recovery. Says whether it was a standby's.
///
/// # Errors
/// What the system said.
pub fn prepare(data: &Path, access: &Access) -> Result<bool> {
    let standby = data.join(STANDBY_SIGNAL);
    let was_standby = match std::fs::remove_file(&standby) {
        Ok(()) => true,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
        Err(e) => return Err(Error::io(format!("could not remove \"{}\"", standby.display()), &e)),
    };
    let path = data.join(AUTO_CONF);
    let mut text = read(&path)?;
    text = without_block(&text).unwrap_or(text);
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    let in_place = if has_tablespace_in_place(data)? { IN_PLACE } else { "" };
    text.extend_from_slice(format!("{BLOCK_BEGIN}\n{SETTINGS}{in_place}{BLOCK_END}\n").as_bytes());
    access.replace_file(&path, &text, NEW_FILE)?;
    access.replace_file(&data.join(SIGNAL), b"", NEW_FILE)?;
    Ok(was_standby)
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

/// Removes the block once the server is up.
///
/// # Errors
/// What the system said.
pub fn clean_up(data: &Path, access: &Access) -> Result<()> {
    let path = data.join(AUTO_CONF);
    match without_block(&read(&path)?) {
        Some(text) => access.replace_file(&path, &text, NEW_FILE),
        None => Ok(()),
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    match std::fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.map_err(|e| Error::io(format!("could not read \"{}\"", path.display()), &e)),
    }
}

/// The text without marked blocks; `None` when it has none.
fn without_block(text: &[u8]) -> Option<Vec<u8>> {
    let is = |line: &[u8], mark: &str| line.trim_ascii() == mark.as_bytes();
    let mut out = Vec::with_capacity(text.len());
    let (mut inside, mut found) = (false, false);
    for line in text.split_inclusive(|b| *b == b'\n') {
        match inside {
            false if is(line, BLOCK_BEGIN) => (inside, found) = (true, true),
            false => out.extend_from_slice(line),
            true => inside = !is(line, BLOCK_END),
        }
    }
    (found && !inside).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_block_comes_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let access = Access { owner: None, group_access: false };
        let path = dir.path().join(AUTO_CONF);
        std::fs::write(&path, "work_mem = '8MB'").unwrap();
        std::fs::write(dir.path().join(STANDBY_SIGNAL), "").unwrap();
        assert!(prepare(dir.path(), &access).unwrap());
        assert!(!prepare(dir.path(), &access).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches("restore_command = 'false'").count(), 1, "{text}");
        assert!(dir.path().join(SIGNAL).exists() && !dir.path().join(STANDBY_SIGNAL).exists());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!text.contains("allow_in_place_tablespaces"), "{text}");
        std::fs::create_dir_all(dir.path().join("pg_tblspc/16384")).unwrap();
        prepare(dir.path(), &access).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("allow_in_place_tablespaces = on"));
        clean_up(dir.path(), &access).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "work_mem = '8MB'\n");
        clean_up(dir.path(), &access).unwrap();
    }

    #[test]
    fn a_block_without_end_is_left_alone() {
        assert_eq!(without_block(format!("a\n{BLOCK_BEGIN}\nb\n").as_bytes()), None);
    }
}
