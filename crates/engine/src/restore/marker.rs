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
}

impl Marker {
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
