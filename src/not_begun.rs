//! Jobs that are due and could not begin: a file that the scheduler writes, and that `ark.jobs`, `ark.status` and their
//! kin read. The repository, where runs are written down, is what did not take them.
//!
//! It lies where [`crate::last_failure`] has its own, and is a courtesy as that one is: the server's log says everything.

use crate::last_failure::replace;
use crate::settings;
use crate::workers::clock::{self, passed, seconds};
use pg_ark_contract::Error;
use pg_ark_contract::schedule::{JobSpec, JobState, RunId, RunRow, RunStatus};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read;

/// Path of the file below the data directory.
const PATH: &str = "pg_stat_tmp/pg_ark_jobs.json";
/// Bytes that a reader takes of the file at the most.
const SIZE_MAX: u64 = 1 << 20;

/// A run that could not begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotBegun {
    /// Which.
    pub run: RunId,
    /// How often it was tried.
    pub times: u32,
    /// When it was tried last: RFC 3339, UTC.
    pub at: String,
    /// Why it could not.
    pub error: Error,
}

/// The writing side.
#[derive(Debug, Default)]
pub struct Notes {
    /// What the file says; None when that is not known, because an earlier process may have left one.
    written: Option<Vec<NotBegun>>,
}

impl Notes {
    /// These are the runs now.
    pub fn are(&mut self, now: Vec<NotBegun>) {
        if self.written.as_ref() == Some(&now) {
            return;
        }
        let done = match now.is_empty() {
            true => std::fs::remove_file(PATH),
            false => serde_json::to_vec(&now).map_err(Into::into).and_then(|json| replace(PATH, &json)),
        };
        let is_so = done.is_ok() || now.is_empty();
        self.written = is_so.then_some(now);
    }
}

/// What the scheduler left; nothing when it is not there, or what lies there is not understood.
fn read() -> Vec<NotBegun> {
    // Without the library no scheduler runs, and none takes away what an earlier one left.
    if !settings::is_preloaded() {
        return Vec::new();
    }
    let mut json = Vec::new();
    let read = File::open(PATH).and_then(|file| file.take(SIZE_MAX).read_to_end(&mut json));
    read.ok().and_then(|_| serde_json::from_slice(&json).ok()).unwrap_or_default()
}

/// Makes a failed run of each that could not begin: it is one for whoever looks. For the database with the jobs.
pub fn add_to(states: &mut [JobState], jobs: &[JobSpec]) {
    merge(states, jobs, read(), clock::now());
}

fn merge(states: &mut [JobState], jobs: &[JobSpec], runs: Vec<NotBegun>, now: u64) {
    for NotBegun { run, times, at, error } in runs {
        let Some(job) = jobs.iter().find(|job| job.enabled && job.name == run.job) else { continue };
        let Some(state) = states.iter_mut().find(|state| state.name == run.job) else { continue };
        // Made again since, or begun, perhaps by another server; but not in the future, by a clock that was wrong.
        let began = state.last_run.as_ref().and_then(|run| passed(&run.started_at, now));
        let is_news = seconds(&at).is_some_and(|at| {
            passed(&job.since, now).is_none_or(|since| since <= at) && began.is_none_or(|began| began <= at)
        });
        if state.running.is_some() || !is_news {
            continue;
        }
        state.failures = state.failures.saturating_add(times);
        state.last_run = Some(RunRow {
            id: run,
            kind: job.kind,
            status: RunStatus::Failed,
            started_at: at.clone(),
            finished_at: Some(at),
            host: String::new(),
            backup: None,
            result: None,
            error: Some(told(&error)),
        });
    }
}

/// The error of a run that could not begin, as all hear of it.
pub fn told(error: &Error) -> Error {
    Error { message: format!("could not begin: {error}"), detail: None, ..error.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_ark_contract::ErrorKind;

    fn job(name: &str, since: &str) -> JobSpec {
        serde_json::from_value(serde_json::json!({
            "name": name, "kind": "prune", "cron": "@hourly", "timezone": "UTC", "enabled": true,
            "since": since, "time_limit": 60,
        }))
        .expect("a job")
    }

    fn state(name: &str) -> JobState {
        let (error, due, next_run, running, last_run) = (None, None, None, None, None);
        JobState { name: name.into(), error, due, next_run, running, last_run, failures: 2 }
    }

    fn refused(name: &str, at: &str) -> NotBegun {
        let run = RunId { job: name.into(), due_at: "2026-11-22T02:00:00Z".into(), attempt: 1 };
        let error = Error::new(ErrorKind::Io, "could not write \"x\"").detail("Read-only file system");
        NotBegun { run, times: 3, at: at.into(), error }
    }

    #[test]
    fn what_could_not_begin_is_a_run_that_failed() {
        let jobs = [job("a", "2026-11-01T00:00:00Z")];
        let now = seconds("2026-11-24T00:00:00Z").expect("a time");
        let mut states = [state("a")];
        merge(&mut states, &jobs, vec![refused("a", "2026-11-22T02:00:10Z"), refused("gone", "x")], now);
        let run = states[0].last_run.as_ref().expect("a run");
        assert_eq!((states[0].failures, run.status), (5, RunStatus::Failed));
        let error = run.error.as_ref().expect("an error").to_string();
        assert_eq!(error, "could not begin: could not write \"x\": Read-only file system");

        // A run has begun since, whoever did it; and a job that was made later is another one.
        merge(&mut states, &jobs, vec![refused("a", "2026-11-22T01:00:00Z")], now);
        assert_eq!(states[0].failures, 5);
        let mut states = [state("a")];
        let notes = || vec![refused("a", "2026-11-22T02:00:10Z")];
        merge(&mut states, &[job("a", "2026-11-23T00:00:00Z")], notes(), now);
        assert_eq!(states, [state("a")]);

        // One that was made, or begun, in the future is not: a clock was wrong.
        let made = [job("a", "2029-01-31T00:00:00Z")];
        merge(&mut states, &made, notes(), now);
        assert_eq!(states[0].failures, 5);
        states[0].last_run.as_mut().expect("a run").started_at = "2029-01-31T00:00:00Z".into();
        merge(&mut states, &made, notes(), now);
        assert_eq!(states[0].failures, 8);
    }
}
