//! `ark.enable(..., protect => true)`: plan, do, and say what is left.
//!
//! 1. [`check_place`] and [`refuse_faults`]: nothing is changed on a server where it could not work. Whether it could is
//!    tried on the repository itself, which may be new then.
//! 2. [`plan`]: from the settings as they will act after a restart, what is to be set and what only people can decide.
//! 3. [`run`]: writes the settings, makes the jobs that are not there yet, and names what is left.
//!
//! It may be called again: what is as it should be stays as it is, and so does what somebody else decided (another
//! archiver, a retention window, a job of the same name).

use super::schedule::{self, Job};
use super::{archiving, check};
use crate::archiving::{Archiver, Settings};
use crate::engine::Target;
use crate::postgres::{guc, wal};
use crate::settings::{self, LIBRARY};
use crate::sql;
use pg_ark_contract::conversation::{Level, LogicalChoice};
use pg_ark_contract::rows::{CheckRow, CheckStatus};
use pg_ark_contract::schedule::JobKind;
use pg_ark_contract::{Error, ErrorKind, Result};
use serde::Deserialize;
use std::collections::BTreeMap;

type Row = (String, String, Option<String>);

/// The window that is written where none was chosen.
const WINDOW: &str = "7d";

/// What a server needs that is left alone: names and moments that people can remember and change.
const JOBS: [(&str, JobKind, &str); 4] = [
    ("daily full", JobKind::Full, "0 2 * * *"),
    ("prune", JobKind::Prune, "@hourly"),
    ("verify archive", JobKind::VerifyArchive, "30 5 * * *"),
    ("verify", JobKind::Verify, "0 6 * * 0"),
];

/// Checks that this call mends, or that the restart does.
const MENDED: [&str; 9] = [
    "pg_ark.repository",
    "shared_preload_libraries",
    "wal_level",
    "archive_mode",
    "archive_library",
    "archive_command",
    "archiver",
    "max_replication_slots",
    "scheduler",
];

/// Refuses where jobs cannot be made.
///
/// # Errors
/// `ServerNotReady` on a standby, and in a database that the scheduler does not look at.
pub(super) fn check_place() -> Result<()> {
    if wal::in_recovery() {
        return Err(Error::new(ErrorKind::ServerNotReady, "protect => true cannot be used on a standby").hint(
            "Use it on the primary, whose schedule comes here by itself. Here call ark.enable without protect, set \
             shared_preload_libraries, archive_mode and archive_library as on the primary, and restart: then this \
             server goes on when it is promoted.",
        ));
    }
    schedule::check_place()
}

/// The jobs, with cron texts and time zone that were looked at.
///
/// # Errors
/// `InvalidArgument` when `pg_ark.timezone` is none.
pub(super) fn jobs() -> Result<Vec<Job>> {
    let mut timezone = settings::timezone();
    let mut jobs = Vec::new();
    for (name, kind, cron) in JOBS {
        let (_, proper) = schedule::instants(cron, &timezone)?;
        timezone = proper;
        jobs.push(Job {
            name: name.into(),
            kind,
            cron: cron.into(),
            timezone: timezone.clone(),
            label: None,
            enabled: true,
            level: (kind == JobKind::Verify).then_some(Level::Data),
            deep: false,
            logical: LogicalChoice::default(),
        });
    }
    Ok(jobs)
}

/// Refuses on what `ark.check` calls an error and neither this call nor a restart mends; gives its other remarks.
///
/// # Errors
/// `ServerNotReady` with the first of them, the others in its detail.
pub(super) fn refuse_faults(target: &Target) -> Result<Vec<Row>> {
    let rows = check::server_and_repository(Some(target))?;
    let rows: Vec<_> = rows.into_iter().filter(|row| !MENDED.contains(&row.item.as_str())).collect();
    // Backups do not wait for a clock by which nothing may be removed.
    let is_fault = |row: &&CheckRow| row.status == CheckStatus::Error && row.item != "clock";
    let faults: Vec<_> = rows.iter().filter(is_fault).collect();
    let Some(first) = faults.first() else {
        let advised = rows.into_iter().filter(|row| row.status != CheckStatus::Ok);
        return Ok(advised.map(|row| (row.item, "advised".into(), row.hint.or(Some(row.detail)))).collect());
    };
    let others: Vec<_> = faults.iter().skip(1).map(|row| format!("{}: {}", row.item, row.detail)).collect();
    let message = format!("this server cannot be protected yet: {}: {}", first.item, first.detail);
    let error = Error::new(ErrorKind::ServerNotReady, message);
    let error = if others.is_empty() { error } else { error.detail(others.join("; ")) };
    Err(error.hint(first.hint.clone().unwrap_or_else(|| "SELECT * FROM ark.check() says more.".into())))
}

/// A setting: as it acts now, and as it will after a restart.
#[derive(Debug, Clone, Default, Deserialize)]
struct Known {
    now: String,
    later: String,
    /// It stands on the command line that starts the server, above every file.
    fixed: bool,
    /// Somebody chose its value.
    chosen: bool,
}

/// The last line of the files is the one that acts. They are read again each time, so what was written and not reloaded
/// counts.
const KNOWN: &str = r#"
SELECT json_object_agg(s.name, json_build_object('now', s.setting,
    'later', CASE WHEN s.source = 'command line' THEN s.setting ELSE coalesce(f.setting, s.boot_val, '') END,
    'fixed', s.source = 'command line', 'chosen', s.source = 'command line' OR f.setting IS NOT NULL))::text
FROM pg_settings s LEFT JOIN LATERAL (SELECT f.setting FROM pg_file_settings f WHERE lower(f.name) = s.name
    ORDER BY f.seqno DESC LIMIT 1) f ON true
WHERE s.name IN ('shared_preload_libraries', 'wal_level', 'archive_mode', 'archive_library', 'archive_command',
    'pg_ark.retention_window')"#;

/// What becomes of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// It is as it should be.
    Keep,
    /// It is written: the elements of a list, or one value.
    Set(Vec<String>),
    /// It is left to people, with the reason and what to do.
    ByHand(String),
}

/// What becomes of each setting, in the order in which it is told.
fn plan(known: &BTreeMap<String, Known>) -> Vec<(&'static str, Step)> {
    let of = |name: &str| known.get(name).cloned().unwrap_or_default();
    let set = |name: &str, value: &str| match of(name).fixed {
        true => Step::ByHand(format!("Set {name} = '{value}' {ON_COMMAND_LINE}")),
        false => Step::Set(vec![value.into()]),
    };
    let (library, command) = (of("archive_library").later, of("archive_command").later);
    let archiver = Settings { mode: "on".into(), library, command }.archiver();
    let window = if of("pg_ark.retention_window").chosen {
        Step::Keep
    } else {
        set("pg_ark.retention_window", WINDOW)
    };
    let minimal = of("wal_level").later == "minimal";
    let mut steps = vec![
        ("shared_preload_libraries", preload(&of("shared_preload_libraries"))),
        ("wal_level", if minimal { set("wal_level", "replica") } else { Step::Keep }),
    ];
    let off = is_off(&of("archive_mode").later);
    match archiver {
        Archiver::Other | Archiver::Both => {
            let hint = format!(
                "Another program is set up to archive the WAL. For pg_ark: {}",
                archiving::USE_OURS_ONLY
            );
            steps.push(("archive_library", Step::ByHand(hint)));
            // Turned on, it would start the other program.
            if off {
                steps.push(("archive_mode", Step::ByHand(archiving::TURN_ON.into())));
            }
        }
        ours => {
            let unset = !ours.is_ours();
            steps.push(("archive_library", if unset { set("archive_library", LIBRARY) } else { Step::Keep }));
            steps.push(("archive_mode", if off { set("archive_mode", "on") } else { Step::Keep }));
        }
    }
    steps.push(("pg_ark.retention_window", window));
    steps
}

const ON_COMMAND_LINE: &str =
    "on the command line that starts the server: what stands there is above every file.";

/// Appends pg_ark to the libraries, which are loaded in this order.
fn preload(known: &Known) -> Step {
    let by_hand = |place: &str| {
        let list = if known.later.trim().is_empty() { String::new() } else { format!("{}, ", known.later) };
        Step::ByHand(format!("Set shared_preload_libraries to {list}{LIBRARY} {place}"))
    };
    match libraries(&known.later) {
        Some(list) if list.iter().any(|library| settings::is_our_library(library)) => Step::Keep,
        _ if known.fixed => by_hand(ON_COMMAND_LINE),
        Some(mut list) => {
            list.push(LIBRARY.into());
            Step::Set(list)
        }
        None => by_hand("in postgresql.conf: its value there is not a list that PostgreSQL reads."),
    }
}

/// The elements of a list of files; None when it is none. Names may stand in double quotes, in which a double one is one
/// (`SplitDirectoriesString`, utils/adt/varlena.c).
fn libraries(list: &str) -> Option<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = list.trim_start();
    while !rest.is_empty() {
        let mut name = String::new();
        if let Some(quoted) = rest.strip_prefix('"') {
            rest = quoted;
            loop {
                let (part, after) = rest.split_once('"')?;
                name.push_str(part);
                rest = after;
                let Some(again) = rest.strip_prefix('"') else { break };
                name.push('"');
                rest = again;
            }
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            let (part, after) = rest.split_at(end);
            name.push_str(part.trim_end());
            rest = after;
        }
        if name.is_empty() {
            return None;
        }
        found.push(name);
        rest = rest.trim_start();
        match rest.strip_prefix(',') {
            Some(after) if !after.trim_start().is_empty() => rest = after.trim_start(),
            None if rest.is_empty() => {}
            _ => return None,
        }
    }
    Some(found)
}

/// As the server reads an enum that takes words for false (`archive_mode_options`, access/transam/xlog.c).
pub(super) fn is_off(mode: &str) -> bool {
    ["off", "false", "no", "0"].iter().any(|word| mode.eq_ignore_ascii_case(word))
}

/// Does it; gives what was done, and what is left to do.
///
/// # Errors
/// `Internal` when the server's answers have an unexpected shape. What the server objects to is raised.
pub(super) fn run(jobs: &[Job]) -> Result<Vec<Row>> {
    let known: BTreeMap<String, Known> = sql::json(KNOWN, &[])?;
    let mut rows = Vec::new();
    let mut waiting = if settings::is_preloaded() { vec![] } else { vec!["shared_preload_libraries"] };
    let mut by_hand = false;
    for (name, step) in plan(&known) {
        let later = match &step {
            Step::Set(values) => {
                guc::alter_system(name, values)?;
                values.join(", ")
            }
            _ => known.get(name).map(|known| known.later.clone()).unwrap_or_default(),
        };
        by_hand |= matches!(step, Step::ByHand(_));
        rows.push(told(name, &step, &later));
        let now = known.get(name).map(|known| known.now.as_str()).unwrap_or_default();
        let differs = match name {
            "archive_mode" => is_off(now) != is_off(&later),
            "wal_level" => now == "minimal" && later != "minimal",
            _ => false,
        };
        if differs {
            waiting.push(name);
        }
    }
    sql::text("SELECT pg_reload_conf()::text", &[])?;
    for job in jobs {
        let made = schedule::put_new(job)?;
        let what = format!("{} at {} ({})", job.kind.as_str(), job.cron, job.timezone);
        let (status, hint) = match made {
            true => ("scheduled", what),
            false => ("left as it is", "A job of this name was there already: see ark.jobs.".into()),
        };
        rows.push((format!("job {}", job.name), status.into(), Some(hint)));
    }
    rows.push(left(&waiting, by_hand));
    Ok(rows)
}

fn told(name: &str, step: &Step, later: &str) -> Row {
    let (status, hint) = match step {
        Step::Keep => ("left as it is", (!later.is_empty()).then(|| later.to_owned())),
        Step::Set(_) => ("set", Some(later.to_owned())),
        Step::ByHand(hint) => ("to do", Some(hint.clone())),
    };
    (name.into(), status.into(), hint)
}

/// The last row: the restart, or that nothing is left.
fn left(waiting: &[&str], by_hand: bool) -> Row {
    let first = "The first backup then starts by itself.";
    if waiting.is_empty() {
        let rest = if by_hand {
            "Only what is listed above as \"to do\"."
        } else {
            "Nothing: SELECT * FROM ark.check()."
        };
        return ("restart".into(), "not needed".into(), Some(rest.into()));
    }
    let before = if by_hand { "Do what is listed above as \"to do\", then restart" } else { "Restart" };
    let hint = format!("{before} the server: {} acts at its start. {first}", waiting.join(", "));
    ("restart".into(), "to do".into(), Some(hint))
}

#[cfg(test)]
#[path = "protect_tests.rs"]
mod tests;
