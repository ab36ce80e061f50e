//! What is due: a pure function over the jobs, what is known about their attempts, and the time.
//!
//! * A job is due at the last instant that passed since it was made and since its newest attempt. Older ones are passed
//!   over: what was missed is made up once.
//! * An attempt that failed is made again, later each time, until an instant comes that supersedes it.
//! * While an attempt goes on, its job is not due.
//! * A server without a backup does not wait for the first instant.
//! * A job that was made in the future, by a clock that was wrong, counts as one made long ago.
//!
//! Each job is looked at alone: none can delay another.

use super::cron::Schedule;
use super::history::{Attempt, History};
use super::runs::{self, Key, text};
use chrono::{DateTime, Duration, SubsecRound, Utc};
use pg_ark_contract::schedule::{JobKind, JobSpec, JobState, MissedRuns, RunStatus, retry_pause};
use pg_ark_contract::{Error, ErrorKind, Result};

/// An instant that passed longer ago, in seconds, was missed.
const MISSED: i64 = 300;

/// When a job was made of which nobody knows when.
const LONG_AGO: DateTime<Utc> = DateTime::UNIX_EPOCH;

/// What is known about one job.
pub struct Known<'a> {
    /// The job.
    pub job: &'a JobSpec,
    /// Its attempts; an error when they cannot be seen.
    pub history: Result<History>,
}

/// Position of the job that may take the server's first backup: the first of those that take backups, when none of
/// them was ever run.
pub fn first_of(known: &[Known<'_>]) -> Option<usize> {
    let takes = |known: &Known<'_>| {
        known.job.enabled && matches!(known.job.kind, JobKind::Full | JobKind::Incremental)
    };
    let never = |known: &Known<'_>| known.history.as_ref().is_ok_and(|history| history.newest.is_none());
    let mut taking = known.iter().enumerate().filter(|(_, known)| takes(known));
    let (first, _) = taking.next()?;
    known.iter().filter(|known| takes(known)).all(never).then_some(first)
}

/// The state of each job at `now`, and when to look again. `first` is the job that takes the first backup.
pub fn decide(
    known: &[Known<'_>],
    first: Option<usize>,
    missed: MissedRuns,
    now: DateTime<Utc>,
) -> (Vec<JobState>, Option<DateTime<Utc>>) {
    let decided: Vec<Decision> = known
        .iter()
        .enumerate()
        .map(|(at, known)| decide_one(known, first == Some(at), missed, now))
        .collect();
    let wake = decided.iter().filter_map(|decision| decision.wake).min();
    (decided.into_iter().map(|decision| decision.state).collect(), wake)
}

struct Decision {
    state: JobState,
    wake: Option<DateTime<Utc>>,
}

fn decide_one(known: &Known<'_>, is_first: bool, missed: MissedRuns, now: DateTime<Utc>) -> Decision {
    let Known { job, history } = known;
    let nothing = History::default();
    let seen = history.as_ref().unwrap_or(&nothing);
    let running = seen.newest.as_ref().filter(|newest| newest.status == RunStatus::Running);
    let mut state = JobState {
        name: job.name.clone(),
        error: history.as_ref().err().cloned(),
        due: None,
        next_run: None,
        running: running.map(|running| running.row.clone()),
        last_run: seen.ended.as_ref().map(|ended| ended.row.clone()),
        failures: seen.failures,
    };
    let (schedule, since) = match understood(job, now) {
        Ok(understood) => understood,
        Err(error) => {
            state.error = Some(error);
            return Decision { state, wake: None };
        }
    };
    if !job.enabled {
        return Decision { state, wake: None };
    }
    let newest = seen.newest.as_ref().map(|newest| newest.key.due);
    let reference = newest.map_or(since, |newest| newest.max(since));
    let next = schedule.next(reference.max(now));
    let (due, at) = match (history, running) {
        (Err(_), _) => (None, next),
        (Ok(_), Some(running)) => {
            state.next_run = next.map(text);
            let limit = running.limit.filter(|limit| *limit > now);
            return Decision { state, wake: limit.into_iter().chain(next).min() };
        }
        (Ok(_), None) if is_first && LONG_AGO < since && since <= now => {
            (Some(Key { due: since, attempt: 1 }), Some(since))
        }
        (Ok(_), None) => match schedule.last(now).filter(|last| *last > reference) {
            Some(last) if missed == MissedRuns::Skip && (now - last).num_seconds() >= MISSED => (None, next),
            Some(last) => (Some(Key { due: last, attempt: 1 }), Some(last)),
            None => again(seen.newest.as_ref(), since, next, now),
        },
    };
    state.due = due.map(|key| key.run(&job.name));
    state.next_run = at.map(text);
    Decision { state, wake: at }
}

/// The schedule of a job, and the instant up to which it was never due.
fn understood(job: &JobSpec, now: DateTime<Utc>) -> Result<(Schedule, DateTime<Utc>)> {
    let schedule = Schedule::parse(&job.cron, &job.timezone)?;
    let since = DateTime::parse_from_rfc3339(&job.since).map_err(|_| {
        let shown: String = job.since.chars().take(100).flat_map(char::escape_debug).collect();
        Error::new(ErrorKind::InvalidArgument, format!("\"{shown}\" is no time"))
            .hint("Schedule the job again with ark.schedule.")
    })?;
    let since = since.to_utc().trunc_subsecs(0);
    // Else nothing would be due until then.
    Ok((schedule, if runs::is_ahead(since, now) { LONG_AGO } else { since }))
}

/// The next attempt at what failed, and when it or the `next` instant is due.
fn again(
    newest: Option<&Attempt>,
    since: DateTime<Utc>,
    next: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> (Option<Key>, Option<DateTime<Utc>>) {
    let failed = newest.filter(|newest| newest.status == RunStatus::Failed && newest.key.due >= since);
    let retry = failed.and_then(|failed| {
        let key = Key { attempt: failed.key.attempt.checked_add(1)?, ..failed.key };
        let pause = Duration::seconds(retry_pause(failed.key.attempt).into());
        Some((key, failed.ended.checked_add_signed(pause)?))
    });
    match retry {
        Some((key, at)) if at <= now => (Some(key), Some(at)),
        Some((_, at)) => (None, next.map_or(Some(at), |next| Some(next.min(at)))),
        None => (None, next),
    }
}

#[cfg(test)]
#[path = "agenda_tests.rs"]
mod tests;
