//! What whoever archives WAL leaves for `ark.status`: why the last file failed.
//!
//! The archive module and `pgark wal-push` write the file when a WAL file fails, and remove it when the next one is
//! stored. It lies where the server keeps what is true of this run alone, so no backup holds it.

use crate::errors::Error;
use serde::{Deserialize, Serialize};

/// Path of the file below the data directory (`PG_STAT_TMP_DIR`, pgstat.h, which is left to extensions
/// since PostgreSQL 15).
pub const LAST_FAILURE_PATH: &str = "pg_stat_tmp/pg_ark_archiver.json";

/// Bytes that a reader takes of the file at the most.
pub const LAST_FAILURE_MAX: u64 = 64 << 10;

/// Content of the file, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastFailure {
    /// Name of the WAL file that could not be stored.
    pub file: String,
    /// When: RFC 3339, UTC.
    pub at: String,
    /// Why.
    pub error: Error,
    /// `pgark wal-push` left it, not the archive module: somebody may have called it by hand.
    #[serde(default)]
    pub by_command: bool,
}
