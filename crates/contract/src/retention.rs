//! Retention: what is kept, and the verdict on everything that is stored.

use crate::units::{Lsn, Timeline};
use serde::{Deserialize, Serialize};

/// What is kept (`pg_ark.retention_*`). Every rule keeps; what no rule keeps is dropped. Pins, parents of what is kept,
/// running backups and the newest good backup are kept whatever this says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Every moment of the last so many seconds stays restorable.
    pub window: u64,
    /// So many of the newest full backups are kept.
    pub min_full: u32,
    /// The newest backup of each of the last so many days that have one.
    pub daily: u32,
    /// Of each of so many weeks (ISO 8601: from Monday).
    pub weekly: u32,
    /// Of each of so many months.
    pub monthly: u32,
    /// Of each of so many years.
    pub yearly: u32,
    /// Name of the time zone of days, weeks, months and years.
    pub timezone: String,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            window: 7 * 86_400,
            min_full: 2,
            daily: 0,
            weekly: 0,
            monthly: 0,
            yearly: 0,
            timezone: "UTC".into(),
        }
    }
}

/// What a row of `ark.prune()` is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PruneObject {
    /// A backup.
    Backup,
    /// A run of WAL segments, with what lies beside them.
    Wal,
    /// A timeline history file.
    History,
}

impl PruneObject {
    /// The word used in SQL and text.
    pub fn as_str(self) -> &'static str {
        match self {
            PruneObject::Backup => "backup",
            PruneObject::Wal => "wal",
            PruneObject::History => "history",
        }
    }
}

/// Keep or drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It stays.
    Keep,
    /// It goes, or is gone.
    Drop,
}

impl Verdict {
    /// The word used in SQL and text.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Keep => "keep",
            Verdict::Drop => "drop",
        }
    }
}

/// A row of `ark.prune()` and `pgark prune`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneRow {
    /// Name of the backup; `FIRST..LAST` segment names for WAL (one name when they are equal); name of the history.
    pub object: String,
    /// What it is.
    pub kind: PruneObject,
    /// Keep or drop.
    pub verdict: Verdict,
    /// The rules that keep it, or why none does, in words: `window; daily`, `older than the window`.
    pub rule: String,
    /// Stored size; none where it is not known.
    pub bytes: Option<u64>,
    /// The system identifier it belongs to.
    pub system_identifier: u64,
    /// For WAL.
    #[serde(default)]
    pub timeline: Option<Timeline>,
    /// Where it begins, for WAL: first byte.
    #[serde(default)]
    pub start_lsn: Option<Lsn>,
    /// Where it ends, for WAL: after the last byte.
    #[serde(default)]
    pub end_lsn: Option<Lsn>,
}
