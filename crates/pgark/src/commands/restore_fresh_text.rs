//! What `pgark restore` tells of a logical backup that goes into a cluster of its own.

use super::restore_words::{
    NO_REPOSITORY, config_text, connect_command, owner_text, space_text, start_command, state_text,
};
use super::verify_archive::counted;
use crate::output;
use pg_ark_contract::units::human_bytes;
use pg_ark_engine::logical::restore::{
    FreshPlan, FreshPrepared, PlannedDatabase, PlannedTablespace, Running,
};
use pg_ark_engine::restore::ArchiveMode;

/// The plan.
pub fn plan_text(plan: &FreshPlan) -> String {
    let finished = plan
        .finished_at
        .as_deref()
        .map_or_else(String::new, |t| format!(", finished {} UTC", output::time(t)));
    let mut pairs = vec![
        ("Backup", Some(format!("{} of cluster {}{finished}", plan.backup, plan.cluster))),
        ("Dumped from", Some(format!("PostgreSQL {}", plan.server_version))),
        ("Restored into", Some(format!("PostgreSQL {}, a new cluster", plan.server_major))),
        ("Programs", Some(plan.server.bindir.display().to_string())),
        ("Made with", Some(format!("initdb {}", plan.initdb.join(" ")))),
        ("Archiving", Some(archiving_text(plan))),
        ("Port", plan.port.map(|port| port.to_string())),
        (
            "Data directory",
            Some(format!("{} ({})", plan.data_directory.display(), state_text(&plan.data_directory_state))),
        ),
        ("Owner", owner_text(&plan.access)),
        ("Reads", Some(format!("{}, {} at once", human_bytes(plan.read_bytes), counted(plan.jobs, "job")))),
        ("Writes", Some(format!("about {}", human_bytes(plan.data_bytes)))),
        ("Space", Some(space_text(&plan.filesystems)).filter(|text| !text.is_empty())),
        ("Statistics", Some(statistics_text(plan).to_string())),
    ];
    pairs.extend(plan.databases.iter().map(|database| ("Database", Some(database_text(database)))));
    pairs.push(("Left out", Some(plan.left_out.join(", ")).filter(|names| !names.is_empty())));
    pairs.extend(plan.tablespaces.iter().map(|tablespace| ("Tablespace", Some(tablespace_text(tablespace)))));
    pairs.extend(plan.config.files.iter().map(|file| ("Configuration", Some(config_text(file)))));
    let inside = |path: &std::path::PathBuf| ("Configuration", Some(path.display().to_string()));
    pairs.extend(plan.config_inside.iter().map(inside));
    let mut text = output::pairs(&pairs);
    for warning in &plan.warnings {
        text.push_str(&format!("\nwarning: {}", output::indented(warning, 9)));
    }
    text
}

/// Whether the new cluster archives.
fn archiving_text(plan: &FreshPlan) -> String {
    let is_copy = plan.data_directory != plan.old_data_directory;
    match plan.archive_mode {
        ArchiveMode::Off if is_copy => {
            "off, and no repository: it goes to another place (--archive-mode keep)".to_string()
        }
        ArchiveMode::Off => "off (--archive-mode keep)".to_string(),
        ArchiveMode::Keep => "as its settings say (--archive-mode off)".to_string(),
    }
}

fn statistics_text(plan: &FreshPlan) -> &'static str {
    match plan.databases.iter().all(|database| database.statistics) {
        true => "come along",
        false => "gathered at the end, in stages",
    }
}

fn database_text(database: &PlannedDatabase) -> String {
    format!(
        "{}: {}, {}, from a dump of {}",
        database.name,
        counted(usize::try_from(database.tables).unwrap_or(usize::MAX), "table"),
        human_bytes(database.data_bytes),
        human_bytes(database.stored_bytes)
    )
}

fn tablespace_text(tablespace: &PlannedTablespace) -> String {
    match &tablespace.to {
        None => format!("{}: in the data directory", tablespace.name),
        Some(to) if to.to_str() == Some(&tablespace.from) => format!("{}: {}", tablespace.name, to.display()),
        Some(to) => format!("{}: {} (was {})", tablespace.name, to.display(), tablespace.from),
    }
}

/// What was done.
pub fn restored_text(plan: &FreshPlan, seconds: f64) -> String {
    format!(
        "Restored {} in {seconds:.1} s from {} of dumps, durable.",
        counted(plan.databases.len(), "database"),
        human_bytes(plan.read_bytes)
    )
}

/// How to go on by hand.
pub fn next_text(prepared: &FreshPrepared) -> String {
    let plan = &prepared.plan;
    let bindir = Some(plan.server.bindir.as_path());
    let start = start_command(bindir, &plan.data_directory, &plan.config, &plan.access);
    format!("{start}\n{}", left_text(prepared))
}

/// The server that runs.
pub fn started_text(prepared: &FreshPrepared, running: &Running) -> String {
    let data = prepared.plan.data_directory.display();
    let table = output::pairs(&[
        ("Log", Some(running.log.display().to_string())),
        ("Ready", Some(format!("process {} in {data}", running.pid))),
        ("Connect", Some(connect_command(&running.socket_folder, running.port))),
    ]);
    format!("{table}\n{}", left_text(prepared))
}

/// What is left to do in a cluster that was made of dumps.
fn left_text(prepared: &FreshPrepared) -> String {
    let logical = prepared.record.logical.iter();
    let restored = |name: &str| prepared.plan.databases.iter().any(|database| database.name == name);
    let mut lines = vec![
        "It is a new cluster, with a system identifier of its own: take a full backup of it.".to_string(),
    ];
    if prepared.plan.archive_mode == ArchiveMode::Off {
        lines.push(NO_REPOSITORY.to_string());
    }
    for slot in logical.clone().flat_map(|logical| &logical.replication_slots) {
        lines.push(format!(
            "Replication slot {} ({}) is not there: make it anew if it is needed.",
            slot.name, slot.kind
        ));
    }
    for subscription in logical.flat_map(|logical| &logical.subscriptions).filter(|s| restored(&s.database)) {
        lines.push(format!(
            "Subscription {} of database {} is disabled: ALTER SUBSCRIPTION ... ENABLE, then REFRESH PUBLICATION.",
            subscription.name, subscription.database
        ));
    }
    lines.iter().map(|line| output::wrapped(line, 0)).collect::<Vec<_>>().join("\n")
}
