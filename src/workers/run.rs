//! The worker that does one scheduled run.
//!
//! 1. It reads its job's row, and makes the attempt in the repository ([`Task::RunBegin`]): of several workers that want
//!    to, in whatever server, one succeeds. The others end without a word.
//! 2. It does the work ([`super::work`]) within the job's limit.
//! 3. It writes down what came of it ([`Task::RunEnd`]), and says so: in the log, a WARNING when it failed, and to those
//!    who LISTEN.
//!
//! When this process is killed the attempt reads as failed, because its process is gone, and is tried again.

use super::backup::{FAIL_TIMEOUT, STOP_TIMEOUT};
use super::limit::Limit;
use super::notice::{self, Event};
use super::problems::tried_again;
use super::{clock, job, server, work};
use crate::engine::{self, Target};
use crate::postgres::shared::{Channel, State};
use crate::postgres::{guc, interrupts, progress, transaction, wal, worker};
use crate::{jobs, not_begun, settings, translate};
use pg_ark_contract::conversation::{Answer, Task};
use pg_ark_contract::schedule::{JobSpec, RunId, RunOutcome, retry_pause};
use pg_ark_contract::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Name and type of the workers that take no backup, as `pg_stat_activity.backend_type` shows it.
pub const WORKER: &str = "pg_ark job";

/// How long the engine may take to make an attempt.
const BEGIN_LIMIT: Duration = Duration::from_secs(60);

/// What the scheduler hands to the worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// The attempt.
    pub run: RunId,
    /// OID of the database with the jobs.
    pub database: u32,
    /// The scheduler's process, which hears when the run has begun.
    pub scheduler: u32,
}

/// The worker; `handle` is the one of its [`Channel`].
pub fn main(handle: u32) {
    worker::take_signals();
    let outcome = interrupts::catching(|| {
        // Without the scheduler nothing is lost: the next one finds the run still due.
        let Ok(channel) = Channel::attach(handle) else { return Ok(()) };
        if let Err(error) = interrupts::catching(|| run(&channel)) {
            worker::calm();
            job::publish_error(&channel, &error);
        }
        Ok(())
    });
    if let Err(error) = outcome {
        translate::warn_error("pg_ark: a run failed", &error);
    }
}

/// Gives an error for the scheduler alone, and only before the run has begun.
fn run(channel: &Channel) -> Result<()> {
    let order: Order = serde_json::from_slice(&channel.request())
        .map_err(|e| Error::new(ErrorKind::Internal, "the scheduler's order is not understood").detail(e))?;
    server::connect(order.database);
    let Some(spec) = transaction::run(|| wanted(&order.run.job))? else { return give_way(channel) };
    guc::set_for_process(c"application_name", &spec.name);
    progress::activity(&format!("pg_ark: begins job {}", spec.name));
    let limit = Limit::from_now(spec.time_limit);
    let target = match interrupts::catching(|| begin(&spec, &order.run, limit)) {
        Ok(Some(target)) => target,
        Ok(None) => return give_way(channel),
        Err(error) => {
            worker::calm();
            if matches!(transaction::run(|| wanted(&spec.name)), Ok(None)) {
                return give_way(channel);
            }
            notice::send_failure(Some(&spec.name), None, &not_begun::told(&error));
            return Err(error);
        }
    };
    channel.publish(State::Started, "");
    worker::wake(order.scheduler);
    progress::activity(&format!("pg_ark: job {}", spec.name));
    let mut done = work::Done::default();
    let result = interrupts::catching(|| work::run(&spec, &target, limit, &mut done));
    worker::calm();
    let error = result.err().map(|error| reason(error, limit));
    end(&target, &order.run, &done, error.as_ref());
    say(&spec, &order.run, &done, error.as_ref());
    Ok(())
}

/// The job as the table has it now, if this server is to do it.
fn wanted(name: &str) -> Result<Option<JobSpec>> {
    let spec = jobs::read()?.into_iter().find(|job| job.name == name && job.enabled);
    Ok(spec.filter(|_| settings::run_on().allows(wal::in_recovery())))
}

/// There is nothing to do: somebody else does it, or nobody is to do it any more.
fn give_way(channel: &Channel) -> Result<()> {
    channel.publish(State::Complete, "");
    Ok(())
}

/// Makes the attempt; none when somebody else made it.
fn begin(spec: &JobSpec, run: &RunId, limit: Limit) -> Result<Option<Target>> {
    let target = Target::from_settings()?;
    let task = Task::RunBegin {
        system_identifier: wal::system_identifier(),
        job: Box::new(spec.clone()),
        run: run.clone(),
    };
    match engine::ask_within(&target, task, Some(limit.left().min(BEGIN_LIMIT)))? {
        Answer::RunBegun { begun, .. } => Ok(begun.then_some(target)),
        other => Err(engine::unexpected(&other)),
    }
}

/// Why it really failed: the server only says that a statement was cancelled, the engine that it takes too long.
fn reason(error: Error, limit: Limit) -> Error {
    match (limit.check(), worker::stop_reason()) {
        (Err(over), _) => over,
        (Ok(()), Some(reason)) => Error::new(ErrorKind::Cancelled, format!("the run was {reason}")),
        (Ok(()), None) => error,
    }
}

/// Writes down how it ended. When that fails, the attempt reads as failed as soon as this process is gone.
fn end(target: &Target, run: &RunId, done: &work::Done, error: Option<&Error>) {
    let outcome =
        RunOutcome { backup: done.backup.clone(), result: done.result.clone(), error: error.cloned() };
    let task = Task::RunEnd { system_identifier: wal::system_identifier(), run: run.clone(), outcome };
    let limit = if worker::stop_reason().is_some() { STOP_TIMEOUT } else { FAIL_TIMEOUT };
    if let Err(error) = interrupts::catching(|| engine::ask_within(target, task, Some(limit))) {
        let job = run.job.escape_debug();
        translate::warn_error(&format!("pg_ark: could not write down how job \"{job}\" ended"), &error);
    }
}

fn say(spec: &JobSpec, run: &RunId, done: &work::Done, error: Option<&Error>) {
    let (name, backup) = (spec.name.escape_debug(), done.backup.as_deref());
    let Some(error) = error else {
        let result = done.result.as_deref().unwrap_or("done");
        translate::log(format!("pg_ark: job \"{name}\": {result}"));
        notice::send(Event::Finished, Some(&spec.name), backup, result);
        for (event, message) in &done.events {
            notice::send(*event, Some(&spec.name), backup, message);
        }
        return;
    };
    let attempt = run.attempt;
    let told = match is_tried_again(spec, run) {
        true => tried_again(error, retry_pause(attempt)),
        false => error.clone(),
    };
    translate::warn_error(&format!("pg_ark: job \"{name}\" failed (attempt {attempt})"), &told);
    notice::send_failure(Some(&spec.name), backup, error);
}

/// Whether there will be another attempt: not when the job is gone by now, or its schedule another one.
fn is_tried_again(spec: &JobSpec, run: &RunId) -> bool {
    let now = transaction::run(|| wanted(&spec.name)).ok().flatten();
    let since = |job: &JobSpec| clock::passed(&job.since, clock::now());
    now.is_some_and(|now| since(&now).is_none_or(|since| Some(since) <= clock::seconds(&run.due_at)))
}
