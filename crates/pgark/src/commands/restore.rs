//! `pgark restore`.

use crate::cli::{Format, RestoreArgs};
use crate::progress::Progress;
use crate::{output, talk};
use pg_ark_contract::units::human_bytes;
use pg_ark_contract::{Error, ErrorKind, Result};
use pg_ark_engine::repository::Cluster;
use pg_ark_engine::restore::facts::State;
use pg_ark_engine::restore::start::{self, Started};
use pg_ark_engine::restore::{self, Plan, Request, Restored, config};
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
    let request = Request {
        backup: arguments.backup.clone(),
        pgdata: arguments.pgdata.clone(),
        tablespaces: arguments.tablespaces.clone(),
        waldir: arguments.waldir.clone(),
        config: arguments.config.map(Into::into).unwrap_or_default(),
        jobs: arguments.jobs.map_or(0, usize::from),
        bindir: arguments.bindir.clone(),
        start: arguments.start,
        target: arguments.recovery.target(),
        exclusive: arguments.recovery.exclusive,
        timeline: arguments.recovery.target_timeline,
        action: arguments.recovery.target_action.into(),
        standby: arguments.recovery.standby,
        archive_mode: arguments.archive_mode.map(Into::into),
        analyze: arguments.analyze,
        replace: arguments.replace,
        keep_wal: arguments.keep_wal.clone(),
        program: None,
    };
    let prepared = restore::prepare(cluster, &request)?;
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
            output::json(&Report { plan, restored: &restored, seconds, started: started.as_ref() })
        }
        (Format::Text, Some(started)) => output::lines(&started_text(plan, started)),
        (Format::Text, None) => output::lines(&format!("{done}\n{}", next_text(plan))),
    }
}

fn unfinished(error: Error, plan: &Plan) -> Error {
    match error.kind {
        ErrorKind::Cancelled => error.hint(format!(
            "\"{}\" holds an unfinished restore, which no server starts from. Remove it before you try again.",
            plan.data_directory.display()
        )),
        _ => error,
    }
}

/// The plan for people.
fn plan_text(plan: &Plan) -> String {
    let state = match plan.data_directory_state {
        State::Absent => "to be created",
        _ => "an empty folder",
    };
    let owner = plan.access.owner.as_ref().map(|owner| match &owner.user {
        Some(name) => name.clone(),
        None => owner.uid.to_string(),
    });
    let free = |f: &pg_ark_engine::restore::check::Filesystem| {
        let folders: Vec<String> = f.folders.iter().map(|path| path.display().to_string()).collect();
        format!(
            "{} of {} free at {}",
            human_bytes(f.needed_bytes),
            human_bytes(f.free_bytes),
            folders.join(", ")
        )
    };
    let finished = plan
        .finished_at
        .as_deref()
        .map_or_else(String::new, |t| format!(", finished {} UTC", output::time(t)));
    let mut text = output::pairs(&[
        ("Backup", Some(format!("{} of cluster {}{finished}", plan.backup, plan.cluster))),
        ("System", Some(format!("identifier {}", plan.system_identifier))),
        ("Server", Some(format!("PostgreSQL {}", plan.server_version))),
        ("Programs", plan.server.as_ref().map(|server| server.bindir.display().to_string())),
        ("Data directory", Some(format!("{} ({state})", plan.data_directory.display()))),
        ("WAL directory", plan.wal_directory.as_ref().map(|path| path.display().to_string())),
        ("Owner", owner),
        ("Reads", Some(format!("{} with {} threads", human_bytes(plan.read_bytes), plan.jobs))),
        ("Writes", Some(format!("{} in {} files", human_bytes(plan.write_bytes), plan.files))),
        ("Space", Some(plan.filesystems.iter().map(free).collect::<Vec<_>>().join("; "))),
    ]);
    for line in plan_lines(plan) {
        text.push('\n');
        text.push_str(&output::indented(&line, 4));
    }
    text
}

/// The parts of the plan of which there may be many.
fn plan_lines(plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    for tablespace in &plan.tablespaces {
        let was = match tablespace.to.to_str() == Some(&tablespace.from) {
            true => String::new(),
            false => format!(" (was {})", tablespace.from),
        };
        lines.push(format!("Tablespace {}: {}{was}", tablespace.oid, tablespace.to.display()));
    }
    for path in &plan.new_tablespaces {
        lines.push(format!("New tablespace: {} (recovery will create it)", path.display()));
    }
    for file in &plan.config.files {
        let action = match file.action {
            config::Action::Write if file.from == file.to => "written",
            config::Action::Write => "written, from the backup's",
            config::Action::Same => "there already, equal",
            config::Action::KeepOther => "another one is there, which is kept",
        };
        let from = if file.from == file.to { String::new() } else { format!(" {}", file.from.display()) };
        lines.push(format!("Configuration:  {}: {action}{from}", file.to.display()));
    }
    lines.extend(plan.warnings.iter().map(|warning| format!("warning: {warning}")));
    lines
}

fn restored_text(plan: &Plan, restored: &Restored, seconds: f64) -> String {
    let rate = human_bytes((plan.write_bytes as f64 / seconds.max(0.001)) as u64);
    let mut text =
        format!("Restored {} in {seconds:.1} s ({rate}/s), durable.", human_bytes(plan.write_bytes));
    if !restored.changed.is_empty() {
        let ignored: Vec<String> =
            restored.changed.iter().map(|path| format!("-i {}", quoted(path))).collect();
        text.push_str(&format!(
            "\nThe restore changed files, which pg_verifybackup has to ignore: {}",
            ignored.join(" ")
        ));
    }
    text
}

/// How to go on by hand.
fn next_text(plan: &Plan) -> String {
    let mut command = match &plan.server {
        Some(server) => format!("{}/pg_ctl", server.bindir.display()),
        None => "pg_ctl".to_string(),
    };
    command.push_str(&format!(" start -D {}", quoted(&plan.data_directory.display().to_string())));
    if let Some(main) = &plan.config.main {
        command.push_str(&format!(
            " -o {}",
            quoted(&format!("-c config_file={}", quoted(&main.display().to_string())))
        ));
    }
    let user = plan.access.owner.as_ref().and_then(|owner| owner.user.as_deref());
    let user = user.map_or_else(String::new, |name| format!(" as {name}"));
    format!(
        "Start it{user}: {command}\nIt recovers to the end of the backup on a new timeline. Then the block marked \
         \"pg_ark restore\" in postgresql.auto.conf can go."
    )
}

/// A word for the shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=+:".contains(c);
    if text.chars().all(plain) { text.to_string() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

fn started_text(plan: &Plan, started: &Started) -> String {
    let utc = |time: &String| format!("{} UTC", output::time(time));
    let reached = started.reached_lsn.map(|reached| match started.stop_lsn {
        Some(stop) if reached >= stop => format!("{reached}, at or past the backup's end {stop}"),
        Some(stop) => format!("{reached}, BEFORE the backup's end {stop}"),
        None => reached.to_string(),
    });
    let last = started.last_transaction_at.as_ref().map(utc);
    let host = if started.socket_folder.is_empty() { "localhost" } else { &started.socket_folder };
    output::pairs(&[
        ("Interrupted at", started.interrupted_at.as_ref().map(utc)),
        ("Last transaction", last.or_else(|| started.last_transaction_note.clone())),
        ("Recovered to", reached),
        ("Timeline", Some(format!("{} (new)", started.timeline))),
        ("Log", Some(started.log.display().to_string())),
        ("Ready", Some(format!("process {} in {}", started.pid, plan.data_directory.display()))),
        ("Connect", Some(format!("psql -h {} -p {} postgres", quoted(host), started.port))),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_the_shell() {
        assert_eq!(quoted("/a/b"), "/a/b");
        assert_eq!(quoted("/a b"), "'/a b'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
    }
}
