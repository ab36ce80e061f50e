//! `pgark restore` of a logical backup.

use super::{restore_fresh_text as fresh_text, restore_into_text as into_text};
use crate::cli::Format;
use crate::progress::Progress;
use crate::{output, talk};
use pg_ark_contract::{Error, ErrorKind, Result};
use pg_ark_engine::logical::contents::{Listed, contents};
use pg_ark_engine::logical::restore::{
    FreshPlan, FreshRequest, IntoPlan, IntoRequest, LogicalRestored, Running, prepare_fresh, prepare_into,
    run_fresh, run_into, start_fresh,
};
use pg_ark_engine::repository::Cluster;
use pg_ark_engine::restore::marker::Marker;
use serde::Serialize;
use std::time::Instant;

/// What `--format json` prints of a restore that is only planned.
#[derive(Serialize)]
struct Planned<'a, P> {
    #[serde(flatten)]
    plan: &'a P,
    contents: &'a [Listed],
}

/// What `--format json` prints after a restore.
#[derive(Serialize)]
struct Report<'a, P> {
    plan: &'a P,
    restored: &'a LogicalRestored,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<&'a Running>,
}

/// Into a cluster that the restore makes.
pub fn fresh(cluster: &Cluster, request: &FreshRequest, dry_run: bool, format: Format) -> Result<()> {
    let prepared = prepare_fresh(cluster, request)?;
    let plan = &prepared.plan;
    if dry_run {
        let names: Vec<String> = plan.databases.iter().map(|database| database.name.clone()).collect();
        let listed = contents(cluster.storage(), &prepared.folder, &prepared.record, &names)?;
        return show_plan(plan, &fresh_text::plan_text(plan), &listed, format);
    }
    talk::say(&fresh_text::plan_text(plan));
    let progress = Progress::new(talk::stop_flag()?);
    let began = Instant::now();
    let restored = run_fresh(cluster.storage(), &prepared, &progress);
    progress.finish();
    let restored = restored.map_err(|e| unfinished(e, plan))?;
    let seconds = began.elapsed().as_secs_f64();
    tell_problems(&restored);
    let done = fresh_text::restored_text(plan, seconds);
    let running = match request.start {
        true => {
            talk::say(&done);
            let running = start_fresh(&prepared, &progress);
            progress.finish();
            Some(running?)
        }
        false => None,
    };
    match (format, &running) {
        (Format::Json, _) => {
            output::json(&Report { plan, restored: &restored, seconds, started: running.as_ref() })?;
        }
        (Format::Text, Some(running)) => output::lines(&fresh_text::started_text(&prepared, running))?,
        (Format::Text, None) => output::lines(&format!("{done}\n{}", fresh_text::next_text(&prepared)))?,
    }
    restored.short().map_or(Ok(()), Err)
}

/// Into a running server.
pub fn into(cluster: &Cluster, request: &IntoRequest, dry_run: bool, format: Format) -> Result<()> {
    let progress = Progress::new(talk::stop_flag()?);
    let prepared = prepare_into(cluster, request, &progress);
    progress.finish();
    let prepared = prepared?;
    let plan = &prepared.plan;
    if dry_run {
        return show_plan(plan, &into_text::plan_text(plan), &listed(cluster, plan)?, format);
    }
    talk::say(&into_text::plan_text(plan));
    let come_along = with_statistics(cluster, plan)?;
    let began = Instant::now();
    let restored = run_into(cluster.storage(), &prepared, &progress);
    progress.finish();
    let restored = restored?;
    let seconds = began.elapsed().as_secs_f64();
    tell_problems(&restored);
    match format {
        Format::Json => output::json(&Report { plan, restored: &restored, seconds, started: None })?,
        Format::Text => {
            let next = into_text::next_text(plan, &restored, &come_along);
            let next = next.map_or_else(String::new, |next| format!("\n{next}"));
            output::lines(&format!("{}{next}", into_text::restored_text(plan, &restored, seconds)))?;
        }
    }
    restored.short().map_or(Ok(()), Err)
}

/// Databases of the backup whose dump holds statistics.
fn with_statistics(cluster: &Cluster, plan: &IntoPlan) -> Result<Vec<String>> {
    let (record, _) = cluster.backup(&plan.backup)?;
    let databases = record.logical.into_iter().flat_map(|logical| logical.databases);
    Ok(databases.filter(|database| database.statistics).map(|database| database.name).collect())
}

/// What would be restored.
fn listed(cluster: &Cluster, plan: &IntoPlan) -> Result<Vec<Listed>> {
    if let Some(objects) = &plan.objects {
        return Ok(vec![Listed { database: objects.name.clone(), lines: objects.contents.clone() }]);
    }
    let (record, folder) = cluster.backup(&plan.backup)?;
    let names: Vec<String> = plan.databases.iter().map(|step| step.name.clone()).collect();
    match names.is_empty() {
        true => Ok(Vec::new()),
        false => contents(cluster.storage(), &folder, &record, &names),
    }
}

fn show_plan<P: Serialize>(plan: &P, text: &str, contents: &[Listed], format: Format) -> Result<()> {
    match format {
        Format::Json => output::json(&Planned { plan, contents }),
        Format::Text => output::lines(&format!("{text}{}", contents_text(contents))),
    }
}

/// What the dumps contain, in lines as `pg_restore --list` prints them.
fn contents_text(contents: &[Listed]) -> String {
    let one = |listed: &Listed| {
        let lines: String = listed.lines.iter().map(|line| format!("\n{line}")).collect();
        format!("\n\n; database {}: {} entries{lines}", listed.database.escape_debug(), listed.lines.len())
    };
    contents.iter().map(one).collect()
}

/// What could not be restored, each with its database.
fn tell_problems(restored: &LogicalRestored) {
    for problem in &restored.problems {
        let place = match &problem.database {
            Some(name) => format!("database {}", name.escape_debug()),
            None => "roles, tablespaces and settings".to_string(),
        };
        talk::say(&output::indented(&format!("error: {place}: {}", problem.message), 7));
    }
}

fn unfinished(error: Error, plan: &FreshPlan) -> Error {
    let Some(left) = Marker::left(&plan.data_directory) else { return error };
    let hint = match (error.kind, &error.hint) {
        (ErrorKind::Cancelled, _) => {
            "No server starts from what the unfinished restore left. Remove it, then try again: "
        }
        (_, Some(hint)) => &format!("{hint} What it left: "),
        (_, None) => "Mend the cause, remove what the restore left, then try again: ",
    };
    let hint = format!("{hint}{left}.");
    error.hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_can_be_given_to_pg_restore() {
        let line = "216; 1259 16442 TABLE public orders postgres".to_string();
        let listed = [
            Listed { database: "my\nshop".into(), lines: vec![line.clone(), line] },
            Listed { database: "empty".into(), lines: Vec::new() },
        ];
        let text = contents_text(&listed);
        assert_eq!(text.lines().count(), 7);
        // A line of pg_restore's list begins with a number; a semicolon begins a comment.
        let comment = |line: &&str| line.is_empty() || line.starts_with(';');
        assert_eq!(text.lines().filter(|line| !comment(line)).count(), 2, "{text}");
    }
}
