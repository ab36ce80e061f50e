//! Jobs: when they are due ([`cron`]), and what the repository remembers of their runs ([`runs`]).
//!
//! What: a job is due at the instants of its cron text. An attempt at one is an object that is made before the work
//! begins, only if it is not there yet.
//! Why: of several servers that share a repository exactly one makes it, and every server knows what the others did.
//! Rejected: runs in a table, which a standby cannot write and a restore brings back old.

use crate::repository::Cluster;
use chrono::{DateTime, Utc};
use pg_ark_contract::schedule::{JobSpec, JobState, MissedRuns, RunId, RunOutcome, RunRow};
use pg_ark_contract::{Error, ErrorKind, Result};

/// The answer to [`Task::Agenda`](pg_ark_contract::conversation::Task::Agenda).
#[derive(Debug, Clone, PartialEq)]
pub struct Agenda {
    /// Each job's state, in the order of the jobs.
    pub jobs: Vec<JobState>,
    /// When to ask again at the latest.
    pub wake_at: Option<String>,
    /// Why the repository could not be asked.
    pub error: Option<Error>,
}

/// What is due at `now`, and when the next thing is.
pub fn agenda(
    _cluster: Result<Cluster>,
    _system: u64,
    _jobs: &[JobSpec],
    _missed: MissedRuns,
    _now: DateTime<Utc>,
) -> Agenda {
    Agenda { jobs: Vec::new(), wake_at: None, error: Some(later()) }
}

/// The next instants of a cron text after `now`, and the time zone's proper name.
///
/// # Errors
/// `InvalidArgument` for a text or a time zone that cannot be understood, or a text that never comes.
pub fn instants(_cron: &str, _timezone: &str, _now: DateTime<Utc>) -> Result<(Vec<String>, String)> {
    Err(later())
}

/// Makes the attempt's object in the name of process `pid`; false, with the reason, when it is not to be done.
///
/// # Errors
/// `InvalidArgument` for a name that can be none; what the store said.
pub fn begin(
    _cluster: &Cluster,
    _system: u64,
    _job: &JobSpec,
    _run: &RunId,
    _pid: u32,
) -> Result<(bool, Option<String>)> {
    Err(later())
}

/// Writes down how an attempt ended, and removes what is too old to be shown.
///
/// # Errors
/// What the store said.
pub fn end(_cluster: &Cluster, _system: u64, _run: &RunId, _outcome: &RunOutcome) -> Result<()> {
    Err(later())
}

/// The attempts at each job, newest first.
///
/// # Errors
/// What the store said.
pub fn runs(
    _cluster: &Cluster,
    _system: Option<u64>,
    _job: Option<&str>,
    _limit: u32,
) -> Result<Vec<RunRow>> {
    Err(later())
}

fn later() -> Error {
    Error::new(ErrorKind::Unsupported, "schedules are not available yet")
}
