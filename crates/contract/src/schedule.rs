//! Scheduled jobs: what the server's table says, what the engine makes of it, and what the repository remembers.
//!
//! A job is due at an *instant* that follows from its cron text. An *attempt* to do it is one object in the repository,
//! `<cluster>/<system identifier>/jobs/<job>/<instant>.<attempt>.json`, made before the work begins and only if it is not
//! there yet: so of several servers one does it, and nothing about a run is kept in SQL.

use crate::conversation::{BackupKind, Level, LogicalChoice};
use crate::errors::{Error, ErrorKind, Result};
use crate::settings::is_name;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// A full backup.
    Full,
    /// An incremental backup; a full one where there is no parent.
    Incremental,
    /// A logical backup.
    Logical,
    /// Removes what the retention settings do not keep.
    Prune,
    /// Checks what is stored.
    Verify,
    /// Checks the WAL archive.
    VerifyArchive,
}

impl JobKind {
    /// Every kind.
    pub const ALL: &'static [JobKind] = &[
        JobKind::Full,
        JobKind::Incremental,
        JobKind::Logical,
        JobKind::Prune,
        JobKind::Verify,
        JobKind::VerifyArchive,
    ];

    /// The word used in SQL and records.
    pub fn as_str(self) -> &'static str {
        match self {
            JobKind::Full => "full",
            JobKind::Incremental => "incremental",
            JobKind::Logical => "logical",
            JobKind::Prune => "prune",
            JobKind::Verify => "verify",
            JobKind::VerifyArchive => "verify_archive",
        }
    }

    /// The kind with this word.
    pub fn find(word: &str) -> Option<JobKind> {
        JobKind::ALL.iter().copied().find(|known| known.as_str() == word)
    }

    /// The kind of backup that it takes, if it takes one.
    pub fn backup(self) -> Option<BackupKind> {
        match self {
            JobKind::Full => Some(BackupKind::Full),
            JobKind::Incremental => Some(BackupKind::Incremental),
            JobKind::Logical => Some(BackupKind::Logical),
            JobKind::Prune | JobKind::Verify | JobKind::VerifyArchive => None,
        }
    }

    /// Whether it takes backups that can be brought to any moment: see [`BackupKind::is_physical`].
    pub fn protects(self) -> bool {
        self.backup().is_some_and(BackupKind::is_physical)
    }

    /// Whether two runs of this kind cannot go on at once in one repository: they need the lease.
    pub fn needs_lease(self) -> bool {
        self.backup().is_some() || self == JobKind::Prune
    }
}

/// Checks a job's name, which becomes a folder.
///
/// # Errors
/// `InvalidArgument` for what [`is_name`] does not take.
pub fn check_job_name(name: &str) -> Result<()> {
    if is_name(name) {
        return Ok(());
    }
    let shown: String = name.chars().take(100).flat_map(char::escape_debug).collect();
    Err(Error::new(ErrorKind::InvalidArgument, format!("invalid name of a job: \"{shown}\""))
        .hint("Use up to 63 bytes of letters, digits, spaces, \"-\", \"_\" and \".\"."))
}

/// A row of the server's table of jobs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// Its name: what may name a cluster may name a job.
    pub name: String,
    /// What it does.
    pub kind: JobKind,
    /// Five fields, or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
    pub cron: String,
    /// Name of the time zone in which the fields count: `UTC`, `Europe/Berlin`.
    pub timezone: String,
    /// Not looked at when false.
    pub enabled: bool,
    /// RFC 3339: instants up to this one were never due. When the job was made, or its schedule changed.
    pub since: String,
    /// Seconds after which a run is ended.
    pub time_limit: u32,
    /// Label of the backups it takes.
    #[serde(default)]
    pub label: Option<String>,
    /// For [`JobKind::Verify`].
    #[serde(default)]
    pub level: Option<Level>,
    /// For [`JobKind::VerifyArchive`].
    #[serde(default)]
    pub deep: bool,
    /// For [`JobKind::Logical`].
    #[serde(default)]
    pub logical: LogicalChoice,
}

/// What `pg_ark.missed_runs` says about instants that passed while nobody was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissedRuns {
    /// The last of them is made up, once.
    #[default]
    Once,
    /// They are left out.
    Skip,
}

impl MissedRuns {
    /// The word used by the setting.
    pub fn as_str(self) -> &'static str {
        match self {
            MissedRuns::Once => "once",
            MissedRuns::Skip => "skip",
        }
    }
}

impl FromStr for MissedRuns {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        match s {
            "once" => Ok(MissedRuns::Once),
            "skip" => Ok(MissedRuns::Skip),
            _ => Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("invalid value \"{s}\" of pg_ark.missed_runs"),
            )
            .hint("Use once or skip.")),
        }
    }
}

/// State of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// It goes on.
    Running,
    /// It did what it should.
    Done,
    /// It did not: an error, or its process is gone.
    Failed,
}

impl RunStatus {
    /// The word used in records and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            RunStatus::Running => "running",
            RunStatus::Done => "done",
            RunStatus::Failed => "failed",
        }
    }
}

/// Names one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunId {
    /// Name of the job.
    pub job: String,
    /// The instant: RFC 3339, UTC, whole seconds.
    pub due_at: String,
    /// 1 for the first.
    pub attempt: u32,
}

/// A row of `ark.job_runs()`: one attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRow {
    /// Which.
    #[serde(flatten)]
    pub id: RunId,
    /// What it does.
    pub kind: JobKind,
    /// State now.
    pub status: RunStatus,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// RFC 3339, UTC; none while running.
    pub finished_at: Option<String>,
    /// Host that does it.
    pub host: String,
    /// The backup that it took.
    pub backup: Option<String>,
    /// What came of it, in words.
    pub result: Option<String>,
    /// Why it failed.
    pub error: Option<Error>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunOutcome {
    /// The backup that it took.
    pub backup: Option<String>,
    /// What came of it, in words: `3 backups and 120 segments removed, 4.1 GB`.
    pub result: Option<String>,
    /// Why it failed; none when it is done.
    pub error: Option<Error>,
}

/// Seconds from the end of a failed attempt to the next one: a minute after the first, twice as long after each more, at
/// the longest an hour.
pub fn retry_pause(attempt: u32) -> u32 {
    60 * 1_u32
        .checked_shl(attempt.saturating_sub(1))
        .filter(|minutes| (1..=60).contains(minutes))
        .unwrap_or(60)
}

/// What the engine says about one job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobState {
    /// Its name.
    pub name: String,
    /// Why its cron text or time zone cannot be understood.
    pub error: Option<Error>,
    /// To be started now; the caller then makes a [`Task::RunBegin`](crate::conversation::Task::RunBegin) of it.
    pub due: Option<RunId>,
    /// When it is next due, a retry included: RFC 3339, UTC. In the past when it is due now.
    pub next_run: Option<String>,
    /// An attempt that goes on.
    pub running: Option<RunRow>,
    /// The attempt that ended last.
    pub last_run: Option<RunRow>,
    /// Attempts that failed since the last that did not.
    pub failures: u32,
}
