//! The file that an unfinished restore leaves in the data directory.

use crate::repository::process::{self, Life};
use pg_ark_contract::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Its name.
pub const MARKER: &str = "pg_ark_restore.unfinished";
/// No marker is larger.
const MAX_MARKER: u64 = 1 << 20;

/// Its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The backup being restored.
    pub backup: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// Every folder that the restore writes to, the data directory first.
    pub folders: Vec<PathBuf>,
    /// System identifier of the backup, and of what was there before.
    #[serde(default)]
    pub system_identifier: Option<String>,
    /// Places of tablespaces that are younger than the backup, which are to be cleared.
    #[serde(default)]
    pub younger: Vec<PathBuf>,
    /// Folders with the WAL of the server that was there before.
    #[serde(default)]
    pub saved_wal: Vec<PathBuf>,
    /// The process that restores.
    #[serde(default)]
    pub writer: Option<Writer>,
}

/// A process, as [`process::identity`] names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// Its number.
    pub pid: u32,
    /// The machine that it runs on.
    pub machine: String,
    /// When it began, in clock ticks since that machine's boot.
    pub start: u64,
}

impl Writer {
    fn this() -> Option<Writer> {
        let pid = std::process::id();
        let (machine, start) = process::identity(pid);
        (!machine.is_empty()).then_some(Writer { pid, machine, start })
    }
}

impl Marker {
    /// Says that a restore of `backup` to these folders began.
    pub fn new(backup: &str, started_at: &str, folders: Vec<PathBuf>) -> Marker {
        Marker {
            backup: backup.to_string(),
            started_at: started_at.to_string(),
            folders,
            system_identifier: None,
            younger: Vec::new(),
            saved_wal: Vec::new(),
            writer: Writer::this(),
        }
    }

    /// As it is written.
    ///
    /// # Errors
    /// `Unsupported` for a path that is no text: JSON takes only UTF-8.
    pub fn json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(self).map_err(|e| {
            Error::new(ErrorKind::Unsupported, "could not write down the folders of the restore")
                .detail(e)
                .hint("Use folders whose names are UTF-8.")
        })
    }

    /// What is left of a restore of this process that did not come to its end, in words to go on from.
    pub fn left(data: &Path) -> Option<String> {
        let marker = Marker::read(data).filter(Marker::is_ours)?;
        let mut there = marker.clone();
        there.folders.retain(|folder| folder.exists());
        Some(there.shown())
    }

    /// Whether this process wrote it.
    pub fn is_ours(&self) -> bool {
        self.writer.is_some() && self.writer == Writer::this()
    }

    /// What is known of the process that wrote it.
    pub fn life(&self) -> Life {
        let life = |writer: &Writer| process::life(&writer.machine, writer.pid, writer.start);
        self.writer.as_ref().map_or(Life::Elsewhere, life)
    }

    /// The folders, in a line.
    pub fn shown(&self) -> String {
        let shown =
            self.folders.iter().map(|folder| format!("\"{}\"", folder.display().to_string().escape_debug()));
        shown.collect::<Vec<_>>().join(", ")
    }

    /// The marker in a data directory, if there is one that can be read.
    pub fn read(data: &Path) -> Option<Marker> {
        let path = data.join(MARKER);
        let meta = std::fs::symlink_metadata(&path).ok()?;
        if !meta.is_file() || meta.len() > MAX_MARKER {
            return None;
        }
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }
}
