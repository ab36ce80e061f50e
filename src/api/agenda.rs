//! The view `ark.jobs` and the function `ark.job_runs`: the schedule, and how runs went.
//!
//! The view answers also when the repository is not set, away or hanging: what is not known then is null, and
//! `last_error` says why.

use super::PATIENCE;
use super::list::time;
use super::schedule::{is_jobs_database, job_name};
use crate::engine::{self, Target};
use crate::postgres::text::Text;
use crate::postgres::wal;
use crate::{jobs, not_begun, settings, translate, version};
use pg_ark_contract::conversation::{Answer, Task};
use pg_ark_contract::schedule::{JobSpec, JobState, RunRow, RunStatus};
use pg_ark_contract::{Error, ErrorKind, Result};
use pgrx::prelude::*;

/// Most runs of a job that [`job_runs`] can be asked for; the repository keeps fewer.
const RUNS_MAX: i32 = 100_000;

/// The jobs of this database with the state of each, as far as it is known.
#[derive(Debug)]
pub struct Agenda {
    /// The rows of `ark.job`, by name.
    pub jobs: Vec<JobSpec>,
    /// What the engine says about each, in the same order; empty when it could not be asked.
    pub states: Vec<JobState>,
    /// Why the repository or the engine could not be asked.
    pub error: Option<Error>,
}

impl Agenda {
    /// As it is now. Asks nobody when there are no jobs.
    ///
    /// # Errors
    /// As [`jobs::read_soon`].
    pub fn read() -> Result<Agenda> {
        let jobs = jobs::read_soon()?;
        if jobs.is_empty() {
            return Ok(Agenda { jobs, states: Vec::new(), error: None });
        }
        let unset = settings::repository().err();
        let (mut states, error) = match ask(&jobs) {
            Ok((states, error)) => (states, unset.or(error)),
            Err(error) => (Vec::new(), Some(error)),
        };
        if is_jobs_database() {
            not_begun::add_to(&mut states, &jobs);
        }
        Ok(Agenda { jobs, states, error })
    }

    /// What is known of a job.
    pub fn state(&self, name: &str) -> Option<&JobState> {
        self.states.iter().find(|state| state.name == name)
    }
}

fn ask(jobs: &[JobSpec]) -> Result<(Vec<JobState>, Option<Error>)> {
    // When it is not set, the cron texts still tell when the next runs are.
    let target = Target::for_repository(settings::repository().unwrap_or_default())?;
    let task = Task::Agenda {
        system_identifier: wal::system_identifier(),
        jobs: jobs.to_vec(),
        missed_runs: settings::missed_runs(),
    };
    match engine::ask_within(&target, task, Some(PATIENCE))? {
        Answer::Agenda { jobs, error, .. } => Ok((jobs, error)),
        other => Err(engine::unexpected(&other)),
    }
}

/// The rows of the view `ark.jobs`.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)] // The columns of DESIGN's SQL surface.
pub fn server_jobs() -> TableIterator<
    'static,
    (
        name!(name, Text),
        name!(kind, Text),
        name!(cron, Text),
        name!(timezone, Text),
        name!(enabled, bool),
        name!(next_run, Option<TimestampWithTimeZone>),
        name!(running_since, Option<TimestampWithTimeZone>),
        name!(last_run, Option<TimestampWithTimeZone>),
        name!(last_status, Option<Text>),
        name!(last_result, Option<Text>),
        name!(last_error, Option<Text>),
        name!(failures, Option<i32>),
    ),
> {
    version::require();
    let agenda = translate::or_raise(Agenda::read());
    let elsewhere = elsewhere();
    let rows: Vec<_> = agenda.jobs.iter().map(|job| row(&agenda, job, elsewhere.as_deref())).collect();
    TableIterator::new(rows)
}

type Row = (
    Text,
    Text,
    Text,
    Text,
    bool,
    Option<TimestampWithTimeZone>,
    Option<TimestampWithTimeZone>,
    Option<TimestampWithTimeZone>,
    Option<Text>,
    Option<Text>,
    Option<Text>,
    Option<i32>,
);

/// Without a scheduler that looks at this database nothing is next.
fn row(agenda: &Agenda, job: &JobSpec, elsewhere: Option<&str>) -> Row {
    let state = agenda.state(&job.name);
    let last = state.and_then(|state| state.last_run.as_ref());
    let failed = last.filter(|run| run.status == RunStatus::Failed).and_then(|run| run.error.as_ref());
    let error = state.and_then(|state| state.error.as_ref()).or(agenda.error.as_ref()).or(failed);
    let next = state.and_then(|state| state.next_run.as_deref()).filter(|_| job.enabled);
    (
        job.name.as_str().into(),
        job.kind.as_str().into(),
        job.cron.as_str().into(),
        job.timezone.as_str().into(),
        job.enabled,
        time(next.filter(|_| elsewhere.is_none())),
        state.and_then(|state| time(Some(&state.running.as_ref()?.started_at))),
        last.and_then(|run| time(Some(&run.started_at))),
        last.map(|run| run.status.as_str().into()),
        last.and_then(|run| run.result.as_deref()).map(Text::from),
        elsewhere.map(Text::from).or_else(|| error.map(|error| error.to_string().into())),
        // Not known while the repository is away, which is not the same as none.
        state
            .filter(|_| agenda.error.is_none())
            .map(|state| i32::try_from(state.failures).unwrap_or(i32::MAX)),
    )
}

/// Why nothing of this database's jobs is done; none when it is the one that the scheduler looks at.
pub fn elsewhere() -> Option<String> {
    let database = settings::database();
    (!is_jobs_database())
        .then(|| format!("the scheduler looks at database \"{}\" alone", database.escape_debug()))
}

/// The attempts at each job, or at one, newest first.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)] // The columns of DESIGN's SQL surface.
pub fn job_runs(
    name: default!(Option<Text>, "NULL"),
    max_runs: default!(Option<i32>, 100),
) -> TableIterator<
    'static,
    (
        name!(job, Text),
        name!(kind, Text),
        name!(due_at, Option<TimestampWithTimeZone>),
        name!(attempt, i32),
        name!(status, Text),
        name!(started_at, Option<TimestampWithTimeZone>),
        name!(finished_at, Option<TimestampWithTimeZone>),
        name!(host, Text),
        name!(backup, Option<Text>),
        name!(result, Option<Text>),
        name!(error, Option<Text>),
    ),
> {
    version::require();
    let rows = translate::or_raise(runs(name, max_runs.unwrap_or(100)));
    TableIterator::new(rows.into_iter().map(|run| {
        (
            run.id.job.into(),
            run.kind.as_str().into(),
            time(Some(&run.id.due_at)),
            i32::try_from(run.id.attempt).unwrap_or(i32::MAX),
            run.status.as_str().into(),
            time(Some(&run.started_at)),
            time(run.finished_at.as_deref()),
            run.host.into(),
            run.backup.map(Text::from),
            run.result.map(Text::from),
            run.error.map(|error| error.to_string().into()),
        )
    }))
}

fn runs(name: Option<Text>, limit: i32) -> Result<Vec<RunRow>> {
    let job = name.map(|name| job_name(Some(name))).transpose()?;
    if !(1..=RUNS_MAX).contains(&limit) {
        return Err(Error::new(ErrorKind::InvalidArgument, format!("max_runs is {limit}"))
            .hint(format!("Ask for 1 to {RUNS_MAX} runs of each job, or leave it out for 100.")));
    }
    // Also what the cluster was before an upgrade.
    let task = Task::Runs { system_identifier: None, job, limit: limit.unsigned_abs() };
    match engine::ask(&Target::from_settings()?, task)? {
        Answer::Runs(rows) => Ok(rows),
        other => Err(engine::unexpected(&other)),
    }
}
