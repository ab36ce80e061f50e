//! Hands a file over: complete under its name, or not there at all.
//!
//! PostgreSQL makes the file durable itself before it relies on it (`KeepFileRestoredFromArchive`), so nothing is synced
//! here. The temporary name is always the same: whoever is killed leaves one file, which the next one takes over.

use pg_ark_contract::{Error, Result};
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Mode of what is handed over: PostgreSQL's own for files in pg_wal.
const MODE: u32 = 0o600;

/// What a destination must be.
const WHERE: &str =
    "The destination is a file in a folder that exists: restore_command passes %p, in the data directory.";

/// A file that is being written. Dropped before [`Delivery::finish`], it leaves nothing.
pub struct Delivery {
    destination: PathBuf,
    temporary: PathBuf,
    file: File,
    finished: bool,
}

impl Delivery {
    /// Begins to write `destination`, under another name in the same folder.
    ///
    /// # Errors
    /// What the system said.
    pub fn begin(destination: &Path) -> Result<Self> {
        let name = destination.file_name().ok_or_else(|| {
            let shown = destination.display();
            Error::new(
                pg_ark_contract::ErrorKind::InvalidArgument,
                format!("\"{shown}\" is not the name of a file"),
            )
            .hint(WHERE)
        })?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(".pg_ark");
        let temporary = destination.with_file_name(hidden);
        let file = claim(&temporary).map_err(|e| failed("create", &temporary, &e))?;
        let delivery = Delivery { destination: destination.to_path_buf(), temporary, file, finished: false };
        delivery
            .file
            .set_len(0)
            .and_then(|()| delivery.file.set_permissions(Permissions::from_mode(MODE)))
            .map_err(|e| failed("write", &delivery.temporary, &e))?;
        Ok(delivery)
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// `DiskFull`, or what else the system said.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| failed("write", &self.temporary, &e))
    }

    /// Gives the file its name, in place of any other.
    ///
    /// # Errors
    /// What the system said.
    pub fn finish(mut self) -> Result<()> {
        std::fs::rename(&self.temporary, &self.destination)
            .map_err(|e| failed("write", &self.destination, &e))?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if !self.finished {
            // One that stays is taken over by the next.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// Opens the temporary file for this process alone: another that delivers to the same place is waited for.
fn claim(path: &Path) -> std::io::Result<File> {
    loop {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(MODE)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)?;
        file.lock()?;
        // The one that held the lock has renamed or removed it.
        let ours = file.metadata()?;
        if std::fs::symlink_metadata(path).is_ok_and(|now| now.ino() == ours.ino() && now.dev() == ours.dev())
        {
            return Ok(file);
        }
    }
}

fn failed(verb: &str, path: &Path, error: &std::io::Error) -> Error {
    let error = Error::io(format!("could not {verb} \"{}\"", path.display()), error);
    match error.hint {
        Some(_) => error,
        None => error.hint(WHERE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_ark_contract::ErrorKind;

    #[test]
    fn a_file_is_complete_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("RECOVERYXLOG");
        let names = || std::fs::read_dir(folder.path()).unwrap().count();
        let mut given_up = Delivery::begin(&path).unwrap();
        given_up.write(b"half").unwrap();
        drop(given_up);
        assert_eq!(names(), 0);

        // What a killed one left is taken over, mode and all.
        let left = folder.path().join(".RECOVERYXLOG.pg_ark");
        std::fs::write(&left, b"longer than what comes").unwrap();
        std::fs::set_permissions(&left, Permissions::from_mode(0o644)).unwrap();
        std::fs::write(&path, b"old").unwrap();
        let mut delivery = Delivery::begin(&path).unwrap();
        delivery.write(b"whole").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        delivery.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(names(), 1);
    }

    #[test]
    fn two_that_deliver_to_one_place_wait_for_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let deliver = |byte: u8| {
            let mut delivery = Delivery::begin(&path).unwrap();
            for _ in 0..100 {
                delivery.write(&[byte; 1000]).unwrap();
            }
            delivery.finish().unwrap();
        };
        std::thread::scope(|scope| {
            for byte in 0..8 {
                scope.spawn(move || deliver(byte));
            }
        });
        let content = std::fs::read(&path).unwrap();
        assert_eq!(content.len(), 100_000);
        assert!(content.iter().all(|byte| *byte == content[0]));
    }

    #[test]
    fn what_cannot_be_written_is_an_error_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let error = Delivery::begin(&folder.path().join("no/such")).err().unwrap();
        assert_eq!(error.kind, ErrorKind::Io);
        assert!(error.message.contains("no/.such.pg_ark") && error.hint.is_some(), "{error}");
        let mut onto_a_folder = Delivery::begin(folder.path().join("is_a_folder").as_path()).unwrap();
        onto_a_folder.write(b"x").unwrap();
        std::fs::create_dir(folder.path().join("is_a_folder")).unwrap();
        assert!(onto_a_folder.finish().unwrap_err().hint.is_some());
        assert_eq!(Delivery::begin(Path::new("/")).err().unwrap().kind, ErrorKind::InvalidArgument);
        // Nothing is written through a link that somebody put there.
        let target = folder.path().join("precious");
        std::fs::write(&target, b"mine").unwrap();
        std::os::unix::fs::symlink(&target, folder.path().join(".y.pg_ark")).unwrap();
        assert!(Delivery::begin(&folder.path().join("y")).is_err());
        assert_eq!(std::fs::read(&target).unwrap(), b"mine");
    }
}
