//! Rows that SQL functions return and `--format json` prints. Names are columns of DESIGN's SQL surface.

use crate::conversation::BackupKind;
use crate::units::{Lsn, Timeline};
use serde::{Deserialize, Serialize};

/// State of a backup as a reader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupStatus {
    /// Its writer is alive.
    Running,
    /// Restorable.
    Complete,
    /// It failed, was cancelled, or its writer is gone.
    Failed,
}

impl BackupStatus {
    /// The word used in records, SQL and text.
    pub fn as_str(self) -> &'static str {
        match self {
            BackupStatus::Running => "running",
            BackupStatus::Complete => "complete",
            BackupStatus::Failed => "failed",
        }
    }
}

/// A row of `ark.list_backups()` and `pgark list`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackupRow {
    /// Name: start time in UTC plus kind.
    pub backup: String,
    /// Kind of backup.
    pub kind: BackupKind,
    /// State now.
    pub status: BackupStatus,
    /// Name of the parent, for an incremental backup.
    pub parent: Option<String>,
    /// The user's label.
    pub label: Option<String>,
    /// Never pruned.
    pub pinned: bool,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// RFC 3339, UTC; none while running.
    pub finished_at: Option<String>,
    /// Where recovery starts.
    pub start_lsn: Option<Lsn>,
    /// Recovery must reach this.
    pub stop_lsn: Option<Lsn>,
    /// Timeline at the start.
    pub timeline: Option<Timeline>,
    /// `server_version_num`.
    pub server_version: u32,
    /// Size of the source data in bytes.
    pub data_bytes: Option<u64>,
    /// Size of the stored objects in bytes.
    pub stored_bytes: Option<u64>,
    /// The WAL it needs is in the backup itself.
    pub wal_included: bool,
    /// Pages whose checksum failed at the source.
    pub damaged_pages: u64,
    /// Why it failed.
    pub error: Option<String>,
}

/// Verdict of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    /// As it should be.
    Ok,
    /// Works, but should be looked at.
    Warning,
    /// Does not work.
    Error,
}

impl CheckStatus {
    /// The word used in SQL and text.
    pub fn as_str(self) -> &'static str {
        match self {
            CheckStatus::Ok => "ok",
            CheckStatus::Warning => "warning",
            CheckStatus::Error => "error",
        }
    }
}

/// A row of `ark.check()` and `pgark check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRow {
    /// What was looked at.
    pub item: String,
    /// Verdict.
    pub status: CheckStatus,
    /// What was found.
    pub detail: String,
    /// What to do, when something is.
    pub hint: Option<String>,
}
