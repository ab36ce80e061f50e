//! What `pgark restore` tells people: the plan, what was restored, how to go on, what came of recovery.

use super::restore_words::{
    NO_REPOSITORY, config_text, connect_command, owner_text, quoted, space_text, start_command, state_text,
};
use crate::output;
use pg_ark_contract::units::human_bytes;
use pg_ark_engine::restore::course::Point;
use pg_ark_engine::restore::start::{ServerState, Started};
use pg_ark_engine::restore::{ArchiveMode, Plan, Restored, Target, TargetAction};
use std::path::PathBuf;

/// The plan.
pub fn plan_text(plan: &Plan) -> String {
    let state = state_text(&plan.data_directory_state);
    let finished = plan
        .finished_at
        .as_deref()
        .map_or_else(String::new, |t| format!(", finished {} UTC", output::time(t)));
    let mut text = output::pairs(&[
        ("Backup", Some(format!("{} of cluster {}{finished}", plan.backup, plan.cluster))),
        ("System", Some(format!("identifier {}", plan.system_identifier))),
        ("Server", Some(format!("PostgreSQL {}", plan.server_version))),
        ("Programs", plan.server.as_ref().map(|server| server.bindir.display().to_string())),
        ("Recovers to", Some(target_text(plan))),
        ("Known end of WAL", Some(point_text(&plan.recovery.end))),
        ("Then", then_text(plan)),
        ("Timeline", Some(timeline_text(plan))),
        ("WAL", Some(wal_text(plan))),
        ("Archiving", Some(archiving_text(plan))),
        ("Port", plan.recovery.port.map(|port| port.to_string())),
        ("Data directory", Some(format!("{} ({state})", plan.data_directory.display()))),
        ("WAL directory", plan.wal_directory.as_ref().map(|path| path.display().to_string())),
        ("Owner", owner_text(&plan.access)),
        ("Reads", Some(format!("{} with {} threads", human_bytes(plan.read_bytes), plan.jobs))),
        ("Writes", Some(format!("{} in {} files", human_bytes(plan.write_bytes), plan.files))),
        ("Space", Some(space_text(&plan.filesystems))),
    ]);
    for line in plan_lines(plan) {
        text.push('\n');
        text.push_str(&output::indented(&line, 4));
    }
    text
}

/// Whether the restored server archives, and where to.
fn archiving_text(plan: &Plan) -> String {
    let is_copy = plan.data_directory != plan.old_data_directory;
    match plan.recovery.archive_mode {
        ArchiveMode::Off if is_copy => {
            "off, and no repository: it is a copy (--archive-mode keep)".to_string()
        }
        ArchiveMode::Off => "off (--archive-mode keep)".to_string(),
        ArchiveMode::Keep if plan.recovery.program.is_none() => {
            "as its settings say; nothing of it is stored".to_string()
        }
        ArchiveMode::Keep => {
            let promoted = if plan.recovery.standby { ", once it is promoted" } else { "" };
            format!("on, as its settings say: into cluster {}{promoted} (--archive-mode off)", plan.cluster)
        }
    }
}

/// Columns before the values of the plan: those of its longest name.
const NAMES: usize = "Known end of WAL:".len();

/// A line `Name: value` with the value below the others.
fn aligned(line: &str) -> String {
    match line.split_once(": ") {
        Some((name, value)) => format!("{:<NAMES$}  {}", format!("{name}:"), value.trim_start()),
        None => line.to_string(),
    }
}

/// Where recovery ends.
fn target_text(plan: &Plan) -> String {
    let recovery = &plan.recovery;
    let without = if recovery.exclusive { ", not included" } else { "" };
    let stop = recovery.stop.as_ref().map_or_else(String::new, |stop| format!(" ({})", stop.lsn));
    format!("{}{without}{stop}", recovery.target.shown())
}

/// What the server does then, where it is not the usual.
fn then_text(plan: &Plan) -> Option<String> {
    let text = match plan.recovery.action {
        _ if plan.recovery.standby => "it is a standby, and goes on",
        TargetAction::Promote => return None,
        TargetAction::Pause => "it pauses, and lets clients read",
        TargetAction::Shutdown => "it shuts down",
    };
    Some(text.to_string())
}

fn point_text(point: &Point) -> String {
    match &point.time {
        Some(time) => format!("{}, last transaction {} UTC", point.lsn, output::time(time)),
        None => point.lsn.to_string(),
    }
}

fn timeline_text(plan: &Plan) -> String {
    let recovery = &plan.recovery;
    match recovery.timelines.contains(',') {
        true => format!("{} (history {})", recovery.timeline, recovery.timelines),
        false => recovery.timeline.to_string(),
    }
}

/// Where the WAL comes from.
fn wal_text(plan: &Plan) -> String {
    let recovery = &plan.recovery;
    let own = if recovery.wal_included { "the backup's own" } else { "" };
    match (&recovery.first_segment, &recovery.last_segment) {
        (Some(first), Some(last)) => {
            let and = if own.is_empty() { "" } else { ", then " };
            let range = if first == last { first.clone() } else { format!("{first} to {last}") };
            let many = if recovery.segments == 1 { "" } else { "s" };
            format!("{own}{and}{} segment{many}: {range}", recovery.segments)
        }
        _ => own.to_string(),
    }
}

/// The parts of the plan of which there may be many.
fn plan_lines(plan: &Plan) -> Vec<String> {
    let mut lines = plan.replaced.lines();
    lines.extend(plan.old_wal.iter().flat_map(|old| old.lines()));
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
    lines.extend(plan.config.files.iter().map(|file| format!("Configuration:  {}", config_text(file))));
    let mut lines: Vec<String> = lines.iter().map(|line| aligned(line)).collect();
    lines.extend(plan.warnings.iter().map(|warning| format!("warning: {warning}")));
    lines
}

pub fn restored_text(plan: &Plan, restored: &Restored, seconds: f64) -> String {
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
    for folder in &restored.saved_wal {
        text.push_str(&format!(
            "\nThe old server's WAL is kept in {}. Remove it when the server is seen to be right.",
            quoted(&folder.display().to_string())
        ));
    }
    text
}

/// How to go on by hand.
pub fn next_text(plan: &Plan) -> String {
    let bindir = plan.server.as_ref().map(|server| &server.bindir);
    let start = start_command(bindir.map(PathBuf::as_path), &plan.data_directory, &plan.config, &plan.access);
    let recovery = &plan.recovery;
    let then = match (recovery.standby, &recovery.target, recovery.action) {
        (true, ..) => STANDBY.to_string(),
        (_, _, TargetAction::Pause) => PAUSED.to_string(),
        (_, _, TargetAction::Shutdown) => STOPPED.to_string(),
        (_, target, _) => format!(
            "It recovers to {}, and goes on on a new timeline.\nThen the block marked \"pg_ark restore\" in \
             postgresql.auto.conf can go.",
            target.shown()
        ),
    };
    let own = match (recovery.standby, recovery.archive_mode) {
        (false, ArchiveMode::Off) => format!("\n{}", output::wrapped(NO_REPOSITORY, 0)),
        _ => String::new(),
    };
    format!("{start}\n{then}{own}")
}

/// How a server that waits at its target goes on.
const PAUSED: &str =
    "It waits at the target and lets clients read. SELECT pg_wal_replay_resume() makes it a primary.
Then the block marked \"pg_ark restore\" in postgresql.auto.conf can go.";
/// How a server that stops at its target goes on.
const STOPPED: &str =
    "It stops at the target, and again after each start, as long as the block marked \"pg_ark restore\"
in postgresql.auto.conf says so: name another target or recovery_target_action there (to pause it
needs hot_standby = on). Do not remove recovery.signal before recovery is over.";
/// What a standby needs.
const STANDBY: &str = "It follows the archive until it is promoted. The block marked \"pg_ark restore\" in
postgresql.auto.conf stays until then: restore_command is in it.";

/// What came of recovery.
pub fn started_text(plan: &Plan, started: &Started) -> String {
    let utc = |time: &String| format!("{} UTC", output::time(time));
    let last = started.last_transaction_at.as_deref().map(transaction_time);
    let timeline = match started.state {
        ServerState::Primary => format!("{} (new), after {}", started.timeline, started.followed_timeline),
        _ => started.timeline.to_string(),
    };
    let connect = match (&started.socket_folder, started.port) {
        (Some(folder), Some(port)) => Some(connect_command(folder, port)),
        _ => None,
    };
    let ready = match (started.state, started.pid) {
        (ServerState::Stopped, _) | (_, None) => "no: it shut down at the target".to_string(),
        (state, Some(pid)) => {
            let what = match state {
                ServerState::Paused => "paused, read-only, ",
                ServerState::Standby => "standby, read-only, ",
                _ => "",
            };
            format!("{what}process {pid} in {}", plan.data_directory.display())
        }
    };
    let statistics = started.analyzed.map(|done| match (done, &started.analyze_error) {
        (true, _) => "gathered".to_string(),
        (false, why) => format!("NOT gathered: {}", why.as_deref().unwrap_or("vacuumdb failed")),
    });
    let table = output::pairs(&[
        ("Interrupted at", started.interrupted_at.as_ref().map(utc)),
        ("Last transaction", last.or_else(|| started.last_transaction_note.clone())),
        ("Recovered to", started.reached_lsn.map(|lsn| lsn.to_string())),
        ("Stopped", started.server_said.clone()),
        ("Known end of WAL", Some(point_text(&started.known_end))),
        ("Complete", Some(complete(plan, started))),
        ("Timeline", Some(timeline)),
        ("Statistics", statistics),
        ("Log", Some(started.log.display().to_string())),
        ("Ready", Some(ready)),
        ("Connect", connect),
    ]);
    match started.state {
        ServerState::Primary => table,
        ServerState::Standby => format!("{table}\n{STANDBY}"),
        ServerState::Paused => format!("{table}\n{PAUSED}"),
        ServerState::Stopped => format!("{table}\n{STOPPED}"),
    }
}

/// A time from the server's log brings its own zone.
fn transaction_time(time: &str) -> String {
    if time.ends_with('Z') { format!("{} UTC", output::time(time)) } else { time.to_string() }
}

/// Whether recovery went as far as it had to.
fn complete(plan: &Plan, started: &Started) -> String {
    let behind = started.not_replayed_bytes.unwrap_or(0);
    let more = match behind {
        0 => String::new(),
        bytes => format!("; {} of WAL behind it not replayed", human_bytes(bytes)),
    };
    match (started.complete, started.reached_lsn, started.stop_lsn) {
        (_, Some(reached), Some(stop)) if reached < stop => {
            format!("NO: {reached} is before the backup's end {stop}")
        }
        (Some(false), ..) => format!("NO: {} before the known end are missing", human_bytes(behind)),
        (Some(true), ..) if plan.recovery.target == Target::Latest => "yes: all that is known".to_string(),
        (Some(true), ..) => format!("yes: {}{more}", plan.recovery.target.shown()),
        (None, ..) if started.state == ServerState::Standby => {
            "it follows the archive and goes on".to_string()
        }
        (None, ..) => {
            started.complete_note.as_ref().map_or("unknown".to_string(), |note| format!("unknown: {note}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_told_once() {
        assert_eq!(transaction_time("2026-11-22T13:30:00.5Z"), "2026-11-22 13:30:00.5 UTC");
        assert_eq!(transaction_time("2026-11-22 13:30:00.5+00"), "2026-11-22 13:30:00.5+00");
    }

    #[test]
    fn values_are_below_each_other() {
        assert_eq!(aligned("Old WAL:  saves a: b"), "Old WAL:           saves a: b");
        assert_eq!(aligned("Known end of WAL: 0/1"), "Known end of WAL:  0/1");
    }
}
