//! The file that an unfinished restore leaves in the data directory.

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
        }
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
