//! One restore at a time to a data directory.
//!
//! Who restores holds a lock on the folder, and names itself in the marker. Both tell a restore that is at work from one that
//! did not finish: not every file system has locks, and of a process in another container nothing is seen but its lock.

use super::access::Access;
use super::facts::{Folder, State};
use super::run::create_folder;
use crate::repository::process::Life;
use pg_ark_contract::{Error, ErrorKind, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::File;
use std::path::Path;

/// Makes the data directory and keeps other restores away from it while the handle is open. `replaced`: what it holds is to be
/// replaced; otherwise it must be empty still, whatever time went by since the plan was made.
///
/// # Errors
/// `Busy`; `TargetNotEmpty`; what the system said.
pub fn take(data: &Path, replaced: bool, access: &Access) -> Result<File> {
    let empty = || if replaced { Ok(()) } else { still_empty(data) };
    empty()?;
    create_folder(data, access)?;
    let file = File::open(data)
        .map_err(|e| Error::io(format!("could not open folder \"{}\"", data.display()), &e))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
        return Err(at_work(&Folder::look(data)?).unwrap_or_else(|| busy(data, None)));
    }
    empty()?;
    Ok(file)
}

/// Refuses a folder in which somebody wrote since the plan was made.
fn still_empty(data: &Path) -> Result<()> {
    let folder = Folder::look(data)?;
    match &folder.state {
        State::Absent | State::Empty => Ok(()),
        _ => Err(at_work(&folder).unwrap_or_else(|| {
            Error::new(
                ErrorKind::TargetNotEmpty,
                format!("\"{}\" is no empty folder any more", data.display()),
            )
            .detail("Something was written there since the restore was planned.")
            .hint("Nothing was touched. Look at what it holds, or name another folder.")
        })),
    }
}

/// Refuses a data directory to which a restore is at work.
///
/// # Errors
/// `Busy`.
pub fn free(data: &Folder) -> Result<()> {
    at_work(data).map_or(Ok(()), Err)
}

fn at_work(data: &Folder) -> Option<Error> {
    let marker = data.unfinished.as_ref()?;
    // In a copy of the folder it names who restores to the other one.
    let life = match marker.folders.first() == Some(&data.path) && !marker.is_ours() {
        true => marker.life(),
        false => Life::Elsewhere,
    };
    match life {
        Life::Alive => Some(busy(&data.path, marker.writer.as_ref().map(|writer| writer.pid))),
        Life::Elsewhere if is_locked(&data.path) => Some(busy(&data.path, None)),
        Life::Elsewhere | Life::Dead => None,
    }
}

fn is_locked(data: &Path) -> bool {
    let locked = |file: File| flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK);
    File::open(data).is_ok_and(locked)
}

fn busy(data: &Path, pid: Option<u32>) -> Error {
    let process = pid.map_or_else(String::new, |pid| format!(" (process {pid})"));
    Error::new(ErrorKind::Busy, format!("another restore to \"{}\" is at work{process}", data.display()))
        .hint("Wait until it has ended, or restore to another folder.")
}

#[cfg(test)]
mod tests {
    use super::super::marker::{MARKER, Marker};
    use super::*;
    use std::path::PathBuf;

    const ACCESS: Access = Access { owner: None, group_access: false };

    fn root() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        (dir, root)
    }

    fn mark(data: &Path, change: impl FnOnce(&mut Marker)) -> Option<Error> {
        let mut marker = Marker::new("b", "2026-11-23T02:00:00Z", vec![data.to_path_buf()]);
        change(&mut marker);
        std::fs::write(data.join(MARKER), marker.json().unwrap()).unwrap();
        at_work(&Folder::look(data).unwrap())
    }

    #[test]
    fn a_restore_at_work_is_told_from_one_that_did_not_finish() {
        let (_dir, data) = root();
        // The process that runs this test's: alive as long as it is.
        let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get().cast_unsigned();
        let (machine, start) = crate::repository::process::identity(parent);
        let by = |marker: &mut Marker, start: u64| {
            marker.writer =
                Some(super::super::marker::Writer { pid: parent, machine: machine.clone(), start });
        };
        let error = mark(&data, |marker| by(marker, start)).unwrap();
        assert_eq!(error.kind, ErrorKind::Busy);
        assert!(error.message.contains(&format!("process {parent}")), "{error}");
        assert!(mark(&data, |marker| by(marker, start + 1)).is_none(), "another process by now");
        let copied = |marker: &mut Marker| {
            by(marker, start);
            marker.folders = vec!["/elsewhere".into()];
        };
        assert!(mark(&data, copied).is_none(), "a copy");
        assert!(mark(&data, |_| ()).is_none(), "this process does not wait for itself");
        assert!(mark(&data, |marker| marker.writer = None).is_none(), "an older version's");
    }

    #[test]
    fn a_lock_speaks_for_a_process_that_nobody_sees() {
        let (_dir, root) = root();
        let data = root.join("data");
        let held = take(&data, false, &ACCESS).unwrap();
        assert_eq!(take(&data, false, &ACCESS).unwrap_err().kind, ErrorKind::Busy);
        let unseen = |marker: &mut Marker| marker.writer.as_mut().unwrap().machine = "other".into();
        assert_eq!(mark(&data, unseen).unwrap().kind, ErrorKind::Busy);
        drop(held);
        assert!(mark(&data, unseen).is_none());
        assert_eq!(take(&data, false, &ACCESS).unwrap_err().kind, ErrorKind::TargetNotEmpty);
        take(&data, true, &ACCESS).unwrap();
    }

    #[test]
    fn what_was_filled_meanwhile_is_left_alone() {
        use std::os::unix::fs::PermissionsExt;
        let (_dir, data) = root();
        std::fs::write(data.join("letter"), "mine").unwrap();
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(take(&data, false, &ACCESS).unwrap_err().kind, ErrorKind::TargetNotEmpty);
        assert_eq!(data.metadata().unwrap().permissions().mode() & 0o777, 0o755);
    }
}
