//! The short worker that looks what is due: it connects to `pg_ark.database`, reads the table of jobs, asks the engine,
//! and answers the scheduler, which connects to no database.
//!
//! Nearly every look finds the jobs as they were and nothing due: that is a query, and no engine is started for it.

use super::{clock, job, server};
use crate::engine::{self, Target};
use crate::postgres::shared::{ANSWER_SIZE, Channel, State};
use crate::postgres::{interrupts, process, progress, transaction, wal, worker};
use crate::{jobs, settings, sql, version};
use pg_ark_contract::conversation::{Answer, Task};
use pg_ark_contract::schedule::{JobKind, JobSpec, JobState, RunId};
use pg_ark_contract::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// Name and type of the worker, as `pg_stat_activity.backend_type` shows it.
pub const WORKER: &str = "pg_ark agenda";

/// How long the engine may take.
const ENGINE_LIMIT: Duration = Duration::from_secs(30);
/// Characters of a problem's texts that reach the scheduler.
const TEXT_MAX: usize = 500;
/// Characters of the texts about one job.
const JOB_TEXT_MAX: usize = 150;
/// Jobs with a problem that are named; the others are counted.
pub const NAMED_MAX: usize = 3;
/// Runs that reach the scheduler whatever else there is to say: more than it starts at once.
const DUE_MIN: usize = 8;

/// What the scheduler asks.
#[derive(Debug, Serialize, Deserialize)]
pub struct Question {
    /// OID of the database.
    pub database: u32,
    /// What the last look found.
    pub known: Option<Known>,
    /// Jobs that could not begin.
    pub refused: Vec<String>,
}

/// What a look found, for the next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Of the jobs and of the settings that decide about them.
    pub fingerprint: u64,
    /// When the engine has to be asked again though nothing changed: RFC 3339.
    pub wake_at: Option<String>,
    /// A run goes on somewhere, which may end in any way at any time.
    pub running: bool,
    /// When the engine was asked: RFC 3339. In the future when the clock was set back since.
    pub asked_at: String,
}

/// A run that is due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    /// Which.
    pub run: RunId,
    /// What it does.
    pub kind: JobKind,
    /// Seconds after which it is ended.
    pub time_limit: u32,
}

/// The answer.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// There are jobs to look at.
    pub jobs: bool,
    /// What it found; None when the engine or the repository could not be asked.
    pub known: Option<Known>,
    /// To be started now, the longest due first.
    pub due: Vec<Due>,
    /// What is wrong with the server or the repository.
    pub problems: Vec<Error>,
    /// What is wrong with jobs; None when that is as the last look found it.
    pub of_jobs: Option<Vec<Error>>,
    /// Those of [`Question::refused`] that are still scheduled.
    pub scheduled: Vec<String>,
}

/// The worker; `handle` is the one of its [`Channel`].
pub fn main(handle: u32) {
    worker::take_signals();
    // The scheduler tells what went wrong; when it is gone, the next one looks for itself.
    let _ = interrupts::catching(|| {
        let channel = Channel::attach(handle)?;
        match interrupts::catching(|| look(&channel)) {
            Ok(report) => channel.publish(State::Complete, &fitting(report)),
            Err(error) => {
                worker::calm();
                job::publish_error(&channel, &error);
            }
        }
        Ok(())
    });
}

/// The answer as text. What does not fit is found again by the next look.
fn fitting(mut report: Report) -> String {
    report.problems.iter_mut().for_each(|problem| cut(problem, TEXT_MAX));
    report.of_jobs.iter_mut().flatten().for_each(|problem| cut(problem, JOB_TEXT_MAX));
    // One problem tells most; what is due comes before the others.
    let mut more = report.problems.split_off(report.problems.len().min(1));
    let mut due = std::mem::take(&mut report.due);
    let mut later = due.split_off(due.len().min(DUE_MIN));
    let mut of_jobs = report.of_jobs.as_mut().map(std::mem::take);
    let least = serde_json::to_string(&report).unwrap_or_default();
    let mut room = ANSWER_SIZE.saturating_sub(least.len());
    keep_fitting(&mut due, &mut room);
    of_jobs.iter_mut().for_each(|list| keep_fitting(list, &mut room));
    keep_fitting(&mut more, &mut room);
    keep_fitting(&mut later, &mut room);
    due.extend(later);
    report.problems.extend(more);
    (report.due, report.of_jobs) = (due, of_jobs);
    serde_json::to_string(&report).unwrap_or_default()
}

fn cut(problem: &mut Error, characters: usize) {
    let cut = |text: &str| text.chars().take(characters).collect::<String>();
    problem.message = problem.message.chars().take(characters).collect();
    problem.detail = problem.detail.as_deref().map(cut);
    problem.hint = problem.hint.as_deref().map(cut);
}

/// Drops from the end what there is no room for, in bytes of JSON.
fn keep_fitting<T: Serialize>(list: &mut Vec<T>, room: &mut usize) {
    let mut fits = |item: &&T| {
        // With the comma.
        let left = serde_json::to_string(item).ok().and_then(|text| room.checked_sub(text.len() + 1));
        left.map(|left| *room = left).is_some()
    };
    let count = list.iter().take_while(|item| fits(item)).count();
    list.truncate(count);
}

fn look(channel: &Channel) -> Result<Report> {
    let question: Question = serde_json::from_slice(&channel.request()).map_err(|e| {
        Error::new(ErrorKind::Internal, "the scheduler's question is not understood").detail(e)
    })?;
    server::connect(question.database);
    progress::activity("pg_ark: looks which jobs are due");
    let (problem, jobs) = transaction::run(|| {
        check_installed()?;
        Ok((version::check().err(), jobs::read()))
    })?;
    let problems: Vec<Error> = problem.into_iter().collect();
    // The reason why an old table cannot be read is the version.
    let jobs = match (jobs, problems.first()) {
        (Ok(jobs), _) => jobs,
        (Err(_), Some(problem)) => return Err(problem.clone()),
        (Err(error), None) => return Err(error),
    };
    if jobs.iter().all(|job| !job.enabled) {
        return Ok(Report { jobs: false, of_jobs: Some(Vec::new()), problems, ..Report::default() });
    }
    let target = Target::from_settings()?;
    let fingerprint = fingerprint(&target, &jobs);
    let mut scheduled = question.refused;
    scheduled.retain(|name| jobs.iter().any(|job| job.enabled && job.name == *name));
    if let Some(known) = question.known.filter(|known| is_as_it_was(known, fingerprint)) {
        return Ok(Report { jobs: true, known: Some(known), problems, scheduled, ..Report::default() });
    }
    Ok(Report { scheduled, ..ask(&target, jobs, fingerprint, problems)? })
}

fn check_installed() -> Result<()> {
    if sql::text("SELECT extversion FROM pg_extension WHERE extname = 'pg_ark'", &[])?.is_some() {
        return Ok(());
    }
    let message = format!("extension pg_ark is not in database \"{}\"", settings::database());
    Err(Error::new(ErrorKind::ServerNotReady, message)
        .hint("CREATE EXTENSION pg_ark there, or name its database in pg_ark.database."))
}

fn is_as_it_was(known: &Known, fingerprint: u64) -> bool {
    let due = known.wake_at.as_deref().is_some_and(|at| clock::until(at).is_none_or(|left| left.is_zero()));
    let set_back = clock::until(&known.asked_at).is_none_or(|left| !left.is_zero());
    known.fingerprint == fingerprint && !known.running && !due && !set_back
}

fn fingerprint(target: &Target, jobs: &[JobSpec]) -> u64 {
    let mut hasher = DefaultHasher::new();
    // Equal in two processes of one program; as text, because a specification is no key.
    serde_json::to_string(jobs).unwrap_or_default().hash(&mut hasher);
    (&target.repository, &target.cluster, &target.program).hash(&mut hasher);
    settings::missed_runs().as_str().hash(&mut hasher);
    hasher.finish()
}

fn ask(target: &Target, jobs: Vec<JobSpec>, fingerprint: u64, mut problems: Vec<Error>) -> Result<Report> {
    progress::activity("pg_ark: asks the engine which jobs are due");
    let asked_at = process::utc_now();
    let specs: Vec<_> = jobs.iter().map(|job| (job.name.clone(), job.kind, job.time_limit)).collect();
    let task = Task::Agenda {
        system_identifier: wal::system_identifier(),
        jobs,
        missed_runs: settings::missed_runs(),
    };
    let (states, wake_at, error) = match engine::ask_within(target, task, Some(ENGINE_LIMIT))? {
        Answer::Agenda { jobs, wake_at, error } => (jobs, wake_at, error),
        other => return Err(engine::unexpected(&other)),
    };
    let of_jobs = Some(never_due(&states));
    let running = states.iter().any(|state| state.running.is_some());
    let known = error.is_none().then_some(Known { fingerprint, wake_at, running, asked_at });
    problems.extend(error);
    let of = |run: RunId| {
        let (_, kind, time_limit) = specs.iter().find(|(name, ..)| *name == run.job)?;
        Some(Due { kind: *kind, time_limit: *time_limit, run })
    };
    let mut due: Vec<Due> = states.into_iter().filter_map(|state| of(state.due?)).collect();
    due.sort_by_cached_key(|due| (due.run.due_at.clone(), due.kind.backup().is_none()));
    Ok(Report { jobs: true, known, due, problems, of_jobs, scheduled: Vec::new() })
}

/// Why jobs cannot be scheduled.
fn never_due(states: &[JobState]) -> Vec<Error> {
    let wrong = || states.iter().filter_map(|state| Some((&state.name, state.error.clone()?)));
    let named = wrong().take(NAMED_MAX).map(|(name, error)| {
        let message = format!("job \"{}\" is never due: {}", name.escape_debug(), error.message);
        Error { message, ..error }
    });
    named.chain(others(wrong().count(), "never due")).collect()
}

/// The jobs beyond those that are named, of so many.
pub fn others(count: usize, what: &str) -> Option<Error> {
    let more = count.checked_sub(NAMED_MAX).filter(|more| *more > 0)?;
    let message =
        if more == 1 { format!("1 more job is {what}") } else { format!("{more} more jobs are {what}") };
    Some(Error::new(ErrorKind::InvalidArgument, message).hint("SELECT * FROM ark.jobs shows each."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(wake_at: Option<&str>, running: bool) -> Known {
        let asked_at = "2026-11-22T02:00:00Z".into();
        Known { fingerprint: 7, wake_at: wake_at.map(str::to_string), running, asked_at }
    }

    #[test]
    fn the_engine_is_asked_when_something_changed_or_is_due() {
        assert!(is_as_it_was(&known(None, false), 7));
        assert!(is_as_it_was(&known(Some("9000-01-01T00:00:00Z"), false), 7));
        assert!(!is_as_it_was(&known(None, false), 8), "other jobs");
        assert!(!is_as_it_was(&known(None, true), 7), "a run goes on");
        assert!(!is_as_it_was(&known(Some("2000-01-01T00:00:00Z"), false), 7), "due");
        assert!(!is_as_it_was(&known(Some("nonsense"), false), 7), "not understood");
        let ahead = Known { asked_at: "9000-01-01T00:00:00Z".into(), ..known(None, false) };
        assert!(!is_as_it_was(&ahead, 7), "the clock was set back");
    }

    #[test]
    fn an_answer_fits_whatever_is_wrong_and_however_much_is_due() {
        let problem = Error::new(ErrorKind::Io, "x".repeat(100_000)).hint("\u{1}".repeat(100_000));
        let run = RunId { job: "j".repeat(63), due_at: "2026-11-22T02:00:00Z".into(), attempt: u32::MAX };
        let report = Report {
            jobs: true,
            known: Some(known(None, true)),
            due: vec![Due { run, kind: JobKind::VerifyArchive, time_limit: u32::MAX }; 10_000],
            problems: vec![problem.clone(); 100],
            of_jobs: Some(vec![problem; 100]),
            scheduled: vec!["j".repeat(63); 50],
        };
        let text = fitting(report);
        assert!(text.len() <= ANSWER_SIZE, "{}", text.len());
        let back: Report = serde_json::from_str(&text).expect("whole");
        assert!(back.due.len() >= DUE_MIN && !back.problems.is_empty());
        assert!(back.of_jobs.is_some_and(|list| list.len() > NAMED_MAX));
    }

    #[test]
    fn jobs_that_are_never_due_are_named_up_to_three() {
        let state = |number: u32| JobState {
            name: format!("job {number}"),
            error: Some(Error::new(ErrorKind::InvalidArgument, "no such zone")),
            due: None,
            next_run: None,
            running: None,
            last_run: None,
            failures: 0,
        };
        let messages = |count: u32| -> Vec<String> {
            never_due(&(0..count).map(state).collect::<Vec<_>>()).into_iter().map(|e| e.message).collect()
        };
        assert!(messages(0).is_empty());
        assert_eq!(messages(3).len(), 3);
        assert_eq!(messages(3)[2], "job \"job 2\" is never due: no such zone");
        assert_eq!(messages(4)[3..], ["1 more job is never due"]);
        assert_eq!(messages(5_000)[3..], ["4997 more jobs are never due"]);
    }
}
