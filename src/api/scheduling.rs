//! How scheduling goes on this server: rows of `ark.check`.

use super::agenda::{Agenda, elsewhere};
use super::schedule::instants;
use crate::engine::{self, Target};
use crate::workers::{self, scheduler};
use crate::{settings, sql};
use pg_ark_contract::conversation::{Answer, LogicalChoice, Task};
use pg_ark_contract::rows::{CheckRow, CheckStatus};
use pg_ark_contract::schedule::{JobKind, JobSpec};
use pg_ark_contract::settings::RunOn;
use pg_ark_contract::{ErrorKind, Result};
use std::time::Duration;

/// How long the engine may take to look at the server: one that hangs shall be told.
const PATIENCE: Duration = Duration::from_secs(30);

/// Rows of `ark.check`. A table that cannot be read is a row of its own: the check goes on.
///
/// # Errors
/// `Internal` when the server refuses a question.
pub fn checks() -> Result<Vec<CheckRow>> {
    let agenda = match Agenda::read() {
        Ok(agenda) => agenda,
        Err(error) if error.kind == ErrorKind::PermissionDenied => {
            return Ok(vec![row("jobs", CheckStatus::Warning, error.to_string(), error.hint)]);
        }
        Err(error) => return Ok(vec![row("jobs", CheckStatus::Error, error.to_string(), error.hint)]),
    };
    let elsewhere = elsewhere();
    let mut rows = Vec::new();
    rows.extend(process(running()?, &agenda.jobs));
    rows.push(run_on(settings::run_on(), crate::postgres::wal::in_recovery()));
    rows.push(database(elsewhere, is_template()?));
    rows.push(timezone());
    rows.extend(jobs(&agenda));
    rows.extend(logical(&agenda.jobs)?);
    rows.push(retention(&agenda.jobs));
    Ok(rows)
}

/// Where the schedule takes logical backups: whether the server's programs are there and let in.
fn logical(jobs: &[JobSpec]) -> Result<Vec<CheckRow>> {
    let jobs: Vec<JobSpec> =
        jobs.iter().filter(|job| job.enabled && job.kind == JobKind::Logical).cloned().collect();
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let logical = workers::logical::task(LogicalChoice::default())?;
    let server_version_num = sql::json("SELECT current_setting('server_version_num')", &[])?;
    let answer = Target::for_repository(settings::repository().unwrap_or_default()).and_then(|target| {
        let task = Task::CheckLogical { logical, server_version_num, jobs };
        engine::ask_within(&target, task, Some(PATIENCE))
    });
    match answer {
        Ok(Answer::Checks(rows)) => Ok(rows),
        Ok(other) => Err(engine::unexpected(&other)),
        Err(error) => Ok(vec![row("logical backups", CheckStatus::Error, error.to_string(), error.hint)]),
    }
}

/// Whether the scheduler runs; None for a role that may not see it.
fn running() -> Result<Option<bool>> {
    let found = sql::text(
        "SELECT CASE WHEN pg_has_role(current_user, 'pg_read_all_stats', 'usage') THEN (SELECT count(*) > 0 \
         FROM pg_stat_get_activity(NULL) WHERE backend_type = $1)::text END",
        &[scheduler::WORKER],
    )?;
    Ok(found.map(|found| found == "true"))
}

fn process(runs: Option<bool>, jobs: &[JobSpec]) -> Option<CheckRow> {
    let item = "scheduler";
    if runs? {
        return Some(row(item, CheckStatus::Ok, "runs".into(), None));
    }
    let status = if jobs.iter().any(|job| job.enabled) { CheckStatus::Error } else { CheckStatus::Warning };
    let hint = match settings::is_preloaded() {
        true => {
            "The library was preloaded, so the server log says why its worker ended; raise max_worker_processes if \
                 every slot is taken."
        }
        false => {
            "It starts with the server: add pg_ark to shared_preload_libraries and restart. SELECT * FROM \
                  ark.enable('URL of the repository', protect => true) sets that, and the jobs."
        }
    };
    Some(row(item, status, "does not run, so nothing happens by itself".into(), Some(hint.into())))
}

/// Which server acts is a choice, not a fault.
fn run_on(choice: RunOn, in_recovery: bool) -> CheckRow {
    let here = if in_recovery { "a standby" } else { "the primary" };
    let acts = if choice.allows(in_recovery) { "runs the jobs" } else { "leaves the jobs to another server" };
    row(
        "pg_ark.run_on",
        CheckStatus::Ok,
        format!("{}: this server is {here} and {acts}", choice.as_str()),
        None,
    )
}

/// Whether `pg_ark.database` is one that others are made of.
fn is_template() -> Result<bool> {
    let found = sql::text(
        "SELECT datistemplate::text FROM pg_database WHERE datname = $1",
        &[&settings::database()],
    )?;
    Ok(found.as_deref() == Some("true"))
}

fn database(elsewhere: Option<String>, is_template: bool) -> CheckRow {
    if is_template {
        let detail = format!("\"{}\" is a template database", settings::database().escape_debug());
        let hint = "Databases made of it get the schedule too, and CREATE DATABASE fails while pg_ark is connected to it: \
                    name another one in pg_ark.database.";
        return row("pg_ark.database", CheckStatus::Warning, detail, Some(hint.into()));
    }
    match elsewhere {
        None => row("pg_ark.database", CheckStatus::Ok, settings::database(), None),
        Some(why) => {
            let hint = "Connect to that database to see and change the schedule, or set pg_ark.database to this one.";
            row("pg_ark.database", CheckStatus::Warning, why, Some(hint.into()))
        }
    }
}

/// Only the engine knows zones, so the server takes any text for the setting.
fn timezone() -> CheckRow {
    let (item, zone) = ("pg_ark.timezone", settings::timezone());
    match instants("@daily", &zone) {
        Ok(_) => row(item, CheckStatus::Ok, zone, None),
        Err(error) => row(item, CheckStatus::Error, error.to_string(), error.hint),
    }
}

/// One row for all jobs, or one for each that has something to say.
fn jobs(agenda: &Agenda) -> Vec<CheckRow> {
    let enabled: Vec<_> = agenda.jobs.iter().filter(|job| job.enabled).collect();
    if !enabled.iter().any(|job| job.kind.protects()) {
        let detail = match enabled.iter().any(|job| job.kind == JobKind::Logical) {
            true => "the scheduled jobs take logical backups alone, which restore no moment after them",
            false => "no scheduled job takes backups",
        };
        let detail = detail.into();
        let hint = "SELECT ark.schedule('daily full', '0 2 * * *'); takes one each night.";
        return vec![row("jobs", CheckStatus::Warning, detail, Some(hint.into()))];
    }
    let mut rows = Vec::new();
    for job in &enabled {
        let Some(state) = agenda.state(&job.name) else { continue };
        let item = format!("job {}", job.name);
        if let Some(error) = &state.error {
            let hint = error.hint.clone().unwrap_or_else(|| "Call ark.schedule with this name again.".into());
            rows.push(row(&item, CheckStatus::Error, error.to_string(), Some(hint)));
        } else if state.failures > 0 {
            let why = state.last_run.as_ref().and_then(|run| run.error.as_ref());
            let cause = why.map(|error| format!(": {error}")).unwrap_or_default();
            let detail = format!("failed since its last success: {} times{cause}", state.failures);
            let hint = why.and_then(|error| error.hint.clone());
            let hint =
                hint.unwrap_or_else(|| "SELECT * FROM ark.job_runs() and the server log say more.".into());
            rows.push(row(&item, CheckStatus::Error, detail, Some(hint)));
        }
    }
    if let Some(error) = &agenda.error {
        let hint = error.hint.clone().unwrap_or_else(|| "The jobs go on when the repository is back.".into());
        rows.push(row(
            "jobs",
            CheckStatus::Warning,
            format!("their runs are not known: {error}"),
            Some(hint),
        ));
    }
    if rows.is_empty() {
        let next =
            agenda.states.iter().filter_map(|state| state.next_run.as_deref()).min().unwrap_or("unknown");
        rows.push(row("jobs", CheckStatus::Ok, format!("{} enabled, next at {next}", enabled.len()), None));
    }
    rows
}

/// A repository that nobody prunes grows until its disk is full.
fn retention(jobs: &[JobSpec]) -> CheckRow {
    let policy = settings::retention();
    let kept = format!("{} h of every moment, {} full backups", policy.window / 3600, policy.min_full);
    if jobs.iter().any(|job| job.enabled && job.kind == JobKind::Prune) {
        return row("retention", CheckStatus::Ok, kept, None);
    }
    let detail = format!("nothing is removed by itself; the settings keep {kept}");
    let hint = "SELECT ark.schedule('prune', '@hourly', 'prune'); removes what they do not keep. SELECT * FROM ark.prune() \
                shows that first.";
    row("retention", CheckStatus::Warning, detail, Some(hint.into()))
}

fn row(item: &str, status: CheckStatus, detail: String, hint: Option<String>) -> CheckRow {
    CheckRow { item: item.into(), status, detail, hint }
}

#[cfg(test)]
#[path = "scheduling_tests.rs"]
mod tests;
