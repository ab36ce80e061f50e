//! Rows that SQL functions return and `--format json` prints. Names are columns of DESIGN's SQL surface.

use crate::conversation::BackupKind;
use crate::errors::Error;
use crate::schedule::JobState;
use crate::units::{Lsn, Timeline};
use serde::{Deserialize, Serialize};
use std::fmt;

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
    /// Why it is pinned.
    #[serde(default)]
    pub pin_reason: Option<String>,
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
    /// What a logical backup contains, in words: `3 databases: app, postgres, template1`.
    #[serde(default)]
    pub contents: Option<String>,
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

/// What a row of `ark.verify_archive()` says about a range of segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArchiveStatus {
    /// Every segment is there; after a deep check also: every record is whole.
    Ok,
    /// Segments that must have existed are not there.
    Gap,
    /// A segment cannot be read, belongs elsewhere, or its records do not follow one another.
    Damaged,
    /// An object that no part of pg_ark stored under this name.
    Stranger,
    /// A timeline has segments but no history file.
    NoHistory,
    /// Segments that retention removed.
    Pruned,
}

impl ArchiveStatus {
    /// The word used in SQL and text.
    pub fn as_str(self) -> &'static str {
        match self {
            ArchiveStatus::Ok => "ok",
            ArchiveStatus::Gap => "gap",
            ArchiveStatus::Damaged => "damaged",
            ArchiveStatus::Stranger => "stranger",
            ArchiveStatus::NoHistory => "no_history",
            ArchiveStatus::Pruned => "pruned",
        }
    }

    /// Whether somebody has to do something.
    pub fn is_fault(self) -> bool {
        !matches!(self, ArchiveStatus::Ok | ArchiveStatus::Pruned)
    }
}

/// A row of `ark.verify_archive()` and `pgark verify-archive`: a gap-free range, a gap, a damaged segment, a stranger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveRow {
    /// Timeline; none for an object that belongs to none.
    pub timeline: Option<Timeline>,
    /// Name of the range's first segment.
    pub first_segment: Option<String>,
    /// Name of its last segment.
    pub last_segment: Option<String>,
    /// LSN of its first byte.
    pub start_lsn: Option<Lsn>,
    /// LSN after its last byte.
    pub end_lsn: Option<Lsn>,
    /// Commit time of the first transaction in it: RFC 3339, UTC.
    pub start_time: Option<String>,
    /// Commit time of the last transaction in it.
    pub end_time: Option<String>,
    /// How many segments the range has.
    pub segments: u64,
    /// Verdict.
    pub status: ArchiveStatus,
    /// What was found, in words.
    pub detail: Option<String>,
}

/// A row of `ark.recovery_windows()` and `pgark windows`: every moment from one to the other can be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowRow {
    /// The oldest backup from which the window can be reached.
    pub backup: String,
    /// The line of timelines, oldest first, such as `1,2,5`.
    pub timelines: String,
    /// When the backup became consistent: RFC 3339, UTC.
    pub from_time: Option<String>,
    /// Commit time of the last transaction in the window.
    pub to_time: Option<String>,
    /// Where the backup is consistent.
    pub from_lsn: Lsn,
    /// End of the last whole record.
    pub to_lsn: Lsn,
    /// Why the window ends there.
    pub note: String,
}

/// What the engine contributes to `ark.status` and `ark.metrics`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StatusRow {
    /// The complete backup that finished last. Not a logical one: those are told in [`StatusRow::last_logical`] alone. No
    /// row counts one that says that it finished in the future: see [`StatusRow::future`].
    pub last_backup: Option<BackupRow>,
    /// The complete backup without damaged pages that finished last.
    pub last_clean_backup: Option<BackupRow>,
    /// The complete logical backup that finished last.
    #[serde(default)]
    pub last_logical: Option<BackupRow>,
    /// Databases without a dump since a complete logical backup had to go on without them, by name.
    #[serde(default)]
    pub missing_dumps: Vec<MissingDump>,
    /// The newest stored segment of the newest timeline that has any.
    pub last_segment: Option<String>,
    /// LSN after that segment's last byte.
    pub archive_end_lsn: Option<Lsn>,
    /// Commit time of the last transaction in the archive: RFC 3339, UTC.
    pub archive_end_time: Option<String>,
    /// The recovery window on the newest timeline that has one. It may begin earlier than is told, never later: how far
    /// back the archive is looked at is bounded.
    pub window: Option<WindowRow>,
    /// Why the window does not reach the end of the archive.
    #[serde(default)]
    pub gap: Option<String>,
    /// The archive is so large that only its newest part was looked at, or the look took too long.
    #[serde(default)]
    pub partial: bool,
    /// When the complete backup finished that finished first, logical ones aside: RFC 3339, UTC.
    #[serde(default)]
    pub first_backup_at: Option<String>,
    /// Complete backups that say that they finished in the future, logical ones included.
    #[serde(default)]
    pub future: Option<FutureBackups>,
    /// The newest failed backup, if it failed after the last complete one of its class, physical or logical, finished.
    pub failed_backup: Option<BackupRow>,
    /// Free bytes of the repository, where that is known.
    pub free_bytes: Option<u64>,
    /// Stored bytes of all complete backups, logical ones included.
    pub backup_bytes: u64,
    /// Complete backups, logical ones included.
    pub backups: u64,
    /// Whether the repository was pruned, when: RFC 3339, UTC.
    pub pruned_at: Option<String>,
    /// Why the repository gives no answer: then nothing else is known but what is next of [`StatusRow::jobs`].
    #[serde(default)]
    pub error: Option<Error>,
    /// Another server has taken the cluster's name over: nothing more of this one is stored or removed.
    #[serde(default)]
    pub foreign: Option<Error>,
    /// State of the jobs that were asked about, in their order.
    #[serde(default)]
    pub jobs: Vec<JobState>,
    /// For each of them the longest time between two of the next moments at which it is due, in seconds.
    #[serde(default)]
    pub periods: Vec<Option<u64>>,
}

/// Backups that say that they finished in the future.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FutureBackups {
    /// That which says the latest time.
    pub backup: String,
    /// The time: RFC 3339, UTC.
    pub finished_at: String,
    /// So many more.
    pub others: u64,
}

impl fmt::Display for FutureBackups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FutureBackups { backup, finished_at, others } = self;
        match others {
            0 => write!(f, "backup {backup} says that it finished at {finished_at}, in the future")?,
            _ => write!(
                f,
                "backup {backup} and {others} more say that they finished in the future, it at {finished_at}"
            )?,
        }
        f.write_str(": the clock was or is wrong")
    }
}

/// A database that the last logical backup which should hold it is without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingDump {
    /// The database.
    pub database: String,
    /// The backup.
    pub backup: String,
    /// Why.
    pub reason: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Nothing is lost, but somebody should look: an index that only makes reading faster, pages that were damaged at
    /// the source.
    Warning,
    /// A restore would fail, or lose or change data.
    Error,
}

impl Severity {
    /// The word used in SQL and text.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// A row of `ark.validate()` and `pgark verify`: something that is not as it should be. No row: all is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingRow {
    /// The backup; none for what belongs to no single one: the repository's own records, the WAL archive.
    pub backup: Option<String>,
    /// How bad it is.
    pub severity: Severity,
    /// Path of the object in the repository, and where they can be known the file and the relation in it:
    /// `main/7…/backups/…/base.tar.zst: base/5/16384 (public.orders)`.
    pub object: String,
    /// What was found.
    pub finding: String,
    /// What to do.
    pub hint: Option<String>,
    /// It is archived WAL, and the repository does not have it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub missing_wal: bool,
}
