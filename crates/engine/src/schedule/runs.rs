//! The objects of attempts: FORMAT.md, section "Jobs".
//!
//! What: `<cluster>/<system identifier>/jobs/<job>/<instant>.<attempt>.json`, made before the work begins and only if it is
//! not there yet, rewritten when it ends.
//! Why: of servers that come together one makes it. Whoever made one looks again, and gives way when another attempt at the
//! same job goes on.
//! Nothing here is trusted: an object that cannot be read is an attempt that failed, and ends no schedule.

use super::history::{self, Judge};
use crate::repository::catalog::STALE;
use crate::repository::record::FORMAT;
use crate::repository::{Cluster, Storage, layout, process, sealed};
use chrono::{DateTime, Duration, NaiveDateTime, SecondsFormat, SubsecRound, Utc};
use pg_ark_contract::schedule::{JobKind, JobSpec, RunId, RunOutcome, RunStatus, check_job_name};
use pg_ark_contract::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Attempts that are kept of each job.
pub const KEEP: usize = 100;
/// Largest object that is read, in bytes.
const MAX_RUN: u64 = 64 << 10;
/// Most characters of a text that an object holds.
const MAX_TEXT: usize = 2000;
/// An instant further ahead, in hours, was computed by a clock that was wrong: it counts for nothing.
const AHEAD: i64 = 1;
/// How the instant is written in a name.
const STAMP: &str = "%Y%m%dT%H%M%SZ";

/// Which attempt of a job: by instant, then by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The instant, in whole seconds.
    pub due: DateTime<Utc>,
    /// 1 for the first.
    pub attempt: u32,
}

impl Key {
    /// What `run` says.
    ///
    /// # Errors
    /// `InvalidArgument` for an instant that is none, or no attempt.
    pub fn of(run: &RunId) -> Result<Self> {
        let due = DateTime::parse_from_rfc3339(&run.due_at).ok().map(|due| due.to_utc());
        let key = due.map(|due| Key { due: due.trunc_subsecs(0), attempt: run.attempt });
        key.filter(|key| Key::from_name(&key.name()) == Some(*key)).ok_or_else(|| {
            let due: String = run.due_at.chars().take(100).flat_map(char::escape_debug).collect();
            Error::new(ErrorKind::InvalidArgument, format!("\"{due}\", attempt {}, is no run", run.attempt))
                .hint("Give an instant such as \"2026-11-22T02:00:00Z\", and attempts from 1.")
        })
    }

    /// The run's name in the conversation.
    pub fn run(self, job: &str) -> RunId {
        RunId { job: job.to_string(), due_at: text(self.due), attempt: self.attempt }
    }

    /// Name of its object.
    pub fn name(self) -> String {
        format!("{}.{}.json", self.due.format(STAMP), self.attempt)
    }

    /// The attempt whose object is called so.
    pub fn from_name(name: &str) -> Option<Self> {
        let (stamp, attempt) = name.strip_suffix(".json")?.split_once('.')?;
        let due = NaiveDateTime::parse_from_str(stamp, STAMP).ok()?.and_utc();
        let key = Key { due, attempt: attempt.parse().ok().filter(|attempt| *attempt > 0)? };
        (due.timestamp_subsec_nanos() == 0 && key.name() == name).then_some(key)
    }
}

/// A time as it is written everywhere.
pub fn text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Content of an attempt's object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Major version of the format.
    pub format: u32,
    /// Name of the job.
    pub job: String,
    /// What it does.
    pub kind: JobKind,
    /// RFC 3339, UTC.
    pub due_at: String,
    /// 1 for the first.
    pub attempt: u32,
    /// What its writer knew.
    pub status: RunStatus,
    /// Attempts before this one that failed, one after the other.
    pub failures: u32,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// RFC 3339, UTC; none while running.
    pub finished_at: Option<String>,
    /// Seconds after which it is ended.
    pub time_limit: u32,
    /// Machine, for people.
    pub host: String,
    /// As in a ticket of the lease: with `pid` and `pid_start` the server's process that does it.
    pub machine: String,
    /// Process ID.
    pub pid: u32,
    /// Start time of that process in clock ticks since boot.
    pub pid_start: u64,
    /// The backup that it took.
    pub backup: Option<String>,
    /// What came of it.
    pub result: Option<String>,
    /// Why it failed.
    pub error: Option<Error>,
    /// Fields of a later minor version.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// An object as it was read.
pub struct Found {
    /// Which.
    pub key: Key,
    /// What it says, or why it says nothing.
    pub content: Result<RunRecord>,
    /// When it was written, by the store's clock.
    pub written: DateTime<Utc>,
}

/// The folder of a job's attempts.
///
/// # Errors
/// `InvalidArgument` for a name that can be none.
pub fn folder(cluster: &Cluster, system: u64, job: &str) -> Result<String> {
    check_job_name(job)?;
    Ok(format!("{}/{job}", layout::jobs(cluster.name(), system)))
}

/// The attempts in `folder`, newest first.
///
/// # Errors
/// What the store said.
pub fn keys(storage: &Storage, folder: &str) -> Result<Vec<Key>> {
    let files = storage.files(folder)?;
    let mut keys: Vec<Key> =
        files.iter().filter_map(|path| Key::from_name(path.rsplit('/').next()?)).collect();
    keys.sort_unstable_by(|a, b| b.cmp(a));
    Ok(keys)
}

/// Whether an instant can be one of a clock that is right.
pub fn is_plausible(key: Key, now: DateTime<Utc>) -> bool {
    !is_ahead(key.due, now)
}

/// Whether a time can only be one of a clock that is wrong.
pub fn is_ahead(time: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    time.signed_duration_since(now) > Duration::hours(AHEAD)
}

/// Reads one object; `None` when it is gone.
pub fn read(storage: &Storage, folder: &str, key: Key) -> Option<Found> {
    let path = format!("{folder}/{}", key.name());
    let read = match storage.is_link(&path) {
        true => Err(Error::new(ErrorKind::Corrupt, format!("\"{}\" is a link", storage.display(&path)))),
        // A store may fail for a moment.
        false => match storage.get_dated(&path, MAX_RUN) {
            Err(e) if e.kind != ErrorKind::Corrupt => storage.get_dated(&path, MAX_RUN),
            other => other,
        },
    };
    let parsed = read.and_then(|found| {
        let Some((bytes, written)) = found else { return Ok(None) };
        let (record, _) = sealed::read::<RunRecord>(&bytes, &storage.display(&path))?;
        let job = folder.rsplit('/').next().unwrap_or_default();
        let is_own = record.job == job && record.attempt == key.attempt && record.due_at == text(key.due);
        match is_own {
            true => Ok(Some((record, written))),
            false => Err(Error::new(
                ErrorKind::Corrupt,
                format!("\"{}\" is that of another attempt", storage.display(&path)),
            )),
        }
    });
    match parsed {
        Ok(found) => found.map(|(record, written)| Found { key, content: Ok(record), written }),
        Err(error) => {
            let written = storage.changed(&path).ok().flatten().unwrap_or(key.due);
            Some(Found { key, content: Err(error), written })
        }
    }
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
    now: DateTime<Utc>,
) -> Result<(bool, Option<String>)> {
    let key = Key::of(run)?;
    if run.job != job.name || !is_plausible(key, now) {
        let what = format!("the run due at {} is none of job \"{}\"", text(key.due), job.name.escape_debug());
        return Err(Error::new(ErrorKind::InvalidArgument, what));
    }
    let folder = folder(cluster, system, &job.name)?;
    let storage = cluster.storage();
    let look = || history::of(&Judge::new(cluster, system, now), &folder, job.kind, Some(key));
    let before = look()?;
    if let Some(why) = before.in_the_way(key) {
        return Ok((false, Some(why)));
    }
    let record = RunRecord::begun(job, key, pid, before.failures, now);
    let path = format!("{folder}/{}", key.name());
    if !storage.create(&path, sealed::to_json(&record)?)? {
        return Ok((false, Some("this attempt was made already".to_string())));
    }
    // Another may have been begun since: of the two at least one sees the other now.
    let why = match look().map(|others| others.in_the_way(key)) {
        Ok(None) => return Ok((true, None)),
        Ok(Some(why)) => Ok((false, Some(why))),
        Err(error) => Err(error),
    };
    // What stays when this fails belongs to a process that does nothing and ends.
    storage.delete(&path)?;
    why
}

/// Writes down how an attempt ended, and removes what is too old to be shown.
///
/// # Errors
/// What the store said; `Corrupt` when the attempt's object is gone or cannot be read.
pub fn end(
    cluster: &Cluster,
    system: u64,
    run: &RunId,
    outcome: &RunOutcome,
    now: DateTime<Utc>,
) -> Result<()> {
    let (key, folder) = (Key::of(run)?, folder(cluster, system, &run.job)?);
    let storage = cluster.storage();
    let path = format!("{folder}/{}", key.name());
    let found = read(storage, &folder, key).ok_or_else(|| {
        Error::new(ErrorKind::Corrupt, format!("\"{}\" is missing", storage.display(&path)))
    })?;
    let mut record = found.content?;
    if record.status == RunStatus::Running {
        record.status = if outcome.error.is_some() { RunStatus::Failed } else { RunStatus::Done };
        record.finished_at = Some(text(now));
        record.backup = outcome.backup.as_deref().map(cut);
        record.result = outcome.result.as_deref().map(cut);
        record.error = outcome.error.as_ref().map(|error| Error {
            message: cut(&error.message),
            detail: error.detail.as_deref().map(cut),
            hint: error.hint.as_deref().map(cut),
            ..error.clone()
        });
        storage.put(&path, sealed::to_json(&record)?)?;
    }
    tidy(storage, &folder, key, now);
    Ok(())
}

/// Removes the oldest attempts, and what writers that were killed left. What cannot be removed is left to the next.
fn tidy(storage: &Storage, folder: &str, own: Key, now: DateTime<Utc>) {
    let Ok(mut keys) = keys(storage, folder) else { return };
    // Those of a clock that was wrong would stay for ever.
    keys.sort_by_key(|key| !is_plausible(*key, now));
    for key in keys.into_iter().skip(KEEP).filter(|key| *key != own) {
        let _ = storage.delete(&format!("{folder}/{}", key.name()));
    }
    storage.sweep(folder, STALE, |_| false);
}

impl RunRecord {
    fn begun(job: &JobSpec, key: Key, pid: u32, failures: u32, now: DateTime<Utc>) -> Self {
        let (machine, pid_start) = process::identity(pid);
        RunRecord {
            format: FORMAT,
            job: job.name.clone(),
            kind: job.kind,
            due_at: text(key.due),
            attempt: key.attempt,
            status: RunStatus::Running,
            failures,
            started_at: text(now),
            finished_at: None,
            time_limit: job.time_limit,
            host: process::host_name(),
            machine,
            pid,
            pid_start,
            backup: None,
            result: None,
            error: None,
            other: BTreeMap::new(),
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

#[cfg(test)]
#[path = "runs_tests.rs"]
mod tests;
