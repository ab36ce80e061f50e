//! Jobs: when they are due, and what the repository remembers of their runs.
//!
//! What: a job is due at the instants of its cron text. An attempt at one is an object that is made before the work
//! begins, only if it is not there yet.
//! Why: of several servers that share a repository exactly one makes it, and every server knows what the others did.
//! Rejected: runs in a table, which a standby cannot write and a restore brings back old.
//!
//! * [`zone`], [`cron`]: from a text to instants.
//! * [`runs`]: the objects of attempts: made, ended, read.
//! * [`history`]: what became of a job's attempts, as a reader judges it.
//! * [`agenda`](mod@agenda): what is due; no I/O.

pub mod agenda;
pub mod cron;
pub mod history;
pub mod runs;
pub mod zone;

use crate::repository::{Cluster, layout};
use agenda::Known;
use chrono::{DateTime, Utc};
use history::{History, Judge};
use pg_ark_contract::conversation::BackupKind;
use pg_ark_contract::rows::BackupStatus;
use pg_ark_contract::schedule::{JobSpec, JobState, MissedRuns, RunId, RunOutcome, RunRow, check_job_name};
use pg_ark_contract::{Error, ErrorKind, Result};

/// Instants that [`instants`] tells.
const INSTANTS: usize = 5;

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
    cluster: Result<Cluster>,
    system: u64,
    jobs: &[JobSpec],
    missed: MissedRuns,
    now: DateTime<Utc>,
) -> Agenda {
    let known: Vec<Known<'_>> = match &cluster {
        Ok(cluster) => {
            let judge = Judge::new(cluster, system, now);
            jobs.iter().map(|job| Known { job, history: history_of(&judge, cluster, system, job) }).collect()
        }
        Err(error) => jobs.iter().map(|job| Known { job, history: Err(error.clone()) }).collect(),
    };
    let mut error = cluster.as_ref().err().cloned();
    // When not one of them can be seen, it is not about one of them.
    if let (None, Some(Err(first))) = (&error, known.first().map(|known| &known.history))
        && first.kind != ErrorKind::InvalidArgument
        && known.iter().all(|known| known.history.is_err())
    {
        error = Some(first.clone());
    }
    let first = match (&cluster, agenda::first_of(&known)) {
        (Ok(cluster), Some(first)) => match is_protected(cluster, system) {
            Ok(is_protected) => (!is_protected).then_some(first),
            Err(why) => {
                error.get_or_insert(why);
                None
            }
        },
        _ => None,
    };
    let (mut states, wake) = agenda::decide(&known, first, missed, now);
    // It is told once.
    states.iter_mut().filter(|state| state.error == error).for_each(|state| state.error = None);
    Agenda { jobs: states, wake_at: wake.map(runs::text), error }
}

fn history_of(judge: &Judge<'_>, cluster: &Cluster, system: u64, job: &JobSpec) -> Result<History> {
    history::of(judge, &runs::folder(cluster, system, &job.name)?, job.kind, None)
}

/// Whether the system has a complete backup, or one that is running.
fn is_protected(cluster: &Cluster, system: u64) -> Result<bool> {
    // One that the repository has never seen has none.
    let Ok(cluster) = cluster.clone().only_system(system) else { return Ok(false) };
    let names = cluster.storage().folders(&layout::backups(cluster.name(), system))?;
    for name in names.iter().rev().filter(|name| layout::is_backup_name(name)) {
        // One that cannot be read protects nobody.
        let Ok((record, _)) = cluster.backup(name) else { continue };
        let counts = matches!(record.status, BackupStatus::Complete | BackupStatus::Running);
        if counts && record.kind != BackupKind::Logical {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The next instants of a cron text after `now`, and the time zone's proper name.
///
/// # Errors
/// `InvalidArgument` for a text or a time zone that cannot be understood, or a text that never comes.
pub fn instants(cron: &str, timezone: &str, now: DateTime<Utc>) -> Result<(Vec<String>, String)> {
    let schedule = cron::Schedule::chosen(cron, timezone, now)?;
    let next = std::iter::successors(schedule.next(now), |last| schedule.next(*last));
    Ok((next.take(INSTANTS).map(runs::text).collect(), schedule.timezone().to_string()))
}

/// Makes the attempt's object in the name of process `pid`; false, with the reason, when it is not to be done.
///
/// # Errors
/// `InvalidArgument` for a run that is none of this job; what the store said: then nothing is to be done either.
pub fn begin(
    cluster: &Cluster,
    system: u64,
    job: &JobSpec,
    run: &RunId,
    pid: u32,
) -> Result<(bool, Option<String>)> {
    runs::begin(cluster, system, job, run, pid, Utc::now())
}

/// Writes down how an attempt ended, and removes what is too old to be shown.
///
/// # Errors
/// What the store said; `Corrupt` when the attempt's object is gone or cannot be read.
pub fn end(cluster: &Cluster, system: u64, run: &RunId, outcome: &RunOutcome) -> Result<()> {
    runs::end(cluster, system, run, outcome, Utc::now())
}

/// At most `limit` attempts at each job, newest first.
///
/// # Errors
/// What the store said.
pub fn runs(cluster: &Cluster, system: Option<u64>, job: Option<&str>, limit: u32) -> Result<Vec<RunRow>> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let systems = system.map_or_else(|| cluster.systems().to_vec(), |system| vec![system]);
    let mut rows = Vec::new();
    for system in systems {
        let judge = Judge::new(cluster, system, Utc::now());
        let names = match job {
            Some(name) => vec![name.to_string()],
            None => cluster.storage().folders(&layout::jobs(cluster.name(), system))?,
        };
        for name in names.iter().filter(|name| job.is_some() || check_job_name(name).is_ok()) {
            let folder = runs::folder(cluster, system, name)?;
            rows.extend(history::rows(&judge, &folder, limit)?);
        }
    }
    rows.sort_by(|a, b| {
        let key = |row: &RunRow| (row.started_at.clone(), row.id.due_at.clone(), row.id.attempt);
        key(b).cmp(&key(a))
    });
    Ok(rows)
}
