//! Why the last WAL file failed: a file that the archiver writes and `ark.status` reads
//! ([`pg_ark_contract::archiver`]).
//!
//! It is a courtesy: when it cannot be written, the server's log still says everything. Every process of the server
//! works in the data directory, so the path is used as it is.

use crate::postgres::process;
use pg_ark_contract::Error;
use pg_ark_contract::archiver::{LAST_FAILURE_MAX, LAST_FAILURE_PATH, LastFailure};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

/// How often the file is written at the most.
const INTERVAL: Duration = Duration::from_secs(1);

/// The writing side.
#[derive(Debug, Default)]
pub struct Notes {
    written: Option<Instant>,
    /// There is no file, also none of an earlier process.
    clear: bool,
}

impl Notes {
    /// Keeps why `file` failed.
    pub fn write(&mut self, file: &str, error: &Error) {
        if self.written.is_some_and(|written| written.elapsed() < INTERVAL) {
            return;
        }
        self.written = Some(Instant::now());
        self.clear = false;
        let failure = LastFailure {
            file: file.into(),
            at: process::utc_now(),
            error: error.clone(),
            by_command: false,
        };
        let Ok(json) = serde_json::to_vec(&failure) else { return };
        let _ = replace(LAST_FAILURE_PATH, &json);
    }

    /// A file was stored: whatever failed before is over.
    pub fn clear(&mut self) {
        if !self.clear {
            let _ = std::fs::remove_file(LAST_FAILURE_PATH);
            self.clear = true;
            self.written = None;
        }
    }
}

/// Writes a file below the data directory, whole or not at all.
///
/// # Errors
/// What the file system says.
pub fn replace(path: &str, content: &[u8]) -> io::Result<()> {
    let new = format!("{path}.new");
    create(&new, content).and_then(|()| std::fs::rename(&new, path)).inspect_err(|_| {
        let _ = std::fs::remove_file(&new);
    })
}

/// It may hold paths, so it is the server's alone, also where the group may read the data directory.
fn create(path: &str, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(content)
}

/// What the archiver left; None when it works, or what lies there is not understood.
pub fn read() -> Option<LastFailure> {
    let mut json = Vec::new();
    File::open(LAST_FAILURE_PATH).ok()?.take(LAST_FAILURE_MAX).read_to_end(&mut json).ok()?;
    serde_json::from_slice(&json).ok()
}
