//! `pgark restore`.

use super::restore_args::{RestoreArgs, Wish};
use super::restore_logical;
use super::restore_text::{next_text, plan_text, restored_text, started_text};
use crate::cli::Format;
use crate::progress::Progress;
use crate::{output, talk};
use pg_ark_contract::{Error, ErrorKind, Result};
use pg_ark_engine::repository::Cluster;
use pg_ark_engine::restore::marker::Marker;
use pg_ark_engine::restore::start::{self, Started};
use pg_ark_engine::restore::{self, Plan, Request, Restored};
use serde::Serialize;
use std::time::Instant;

/// What `--format json` prints after a restore.
#[derive(Serialize)]
struct Report<'a> {
    plan: &'a Plan,
    restored: &'a Restored,
    seconds: f64,
    started: Option<&'a Started>,
}

/// Plans, restores, and starts the server when asked to.
pub fn run(cluster: &Cluster, arguments: &RestoreArgs, format: Format) -> Result<()> {
    match arguments.wish()? {
        Wish::Physical(request) => physical(cluster, &request, arguments, format),
        Wish::Fresh(request) => restore_logical::fresh(cluster, &request, arguments.dry_run, format),
        Wish::Into(request) => restore_logical::into(cluster, &request, arguments.dry_run, format),
    }
}

fn physical(cluster: &Cluster, request: &Request, arguments: &RestoreArgs, format: Format) -> Result<()> {
    let prepared = restore::prepare(cluster, request)?;
    let plan = &prepared.plan;
    if arguments.dry_run {
        return match format {
            Format::Json => output::json(plan),
            Format::Text => output::lines(&plan_text(plan)),
        };
    }
    talk::say(&plan_text(plan));
    let progress = Progress::new(talk::stop_flag()?);
    let began = Instant::now();
    let restored = restore::run(cluster.storage(), &prepared, &progress);
    progress.finish();
    let restored = restored.map_err(|e| unfinished(e, plan))?;
    let seconds = began.elapsed().as_secs_f64();
    let done = restored_text(plan, &restored, seconds);
    let started = if arguments.start {
        talk::say(&done);
        let started = start::start(&prepared, &restored, &progress);
        match &started {
            Ok(_) => progress.complete(),
            Err(_) => progress.finish(),
        }
        Some(started?)
    } else {
        None
    };
    match (format, &started) {
        (Format::Json, _) => {
            output::json(&Report { plan, restored: &restored, seconds, started: started.as_ref() })?;
        }
        (Format::Text, Some(started)) => output::lines(&started_text(plan, started))?,
        (Format::Text, None) => output::lines(&format!("{done}\n{}", next_text(plan)))?,
    }
    // What was reached is told first, then that it is not enough.
    match started.as_ref().and_then(Started::short) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn unfinished(error: Error, plan: &Plan) -> Error {
    match (error.kind, Marker::left(&plan.data_directory)) {
        (ErrorKind::Cancelled, Some(left)) => error.hint(format!(
            "No server starts from what the unfinished restore left. Try again with --replace, or remove it: {left}."
        )),
        _ => error,
    }
}
