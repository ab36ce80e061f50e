//! `ark.check`: is this server able to back itself up, and what is missing?

use super::{archiving, scheduling, waiting};
use crate::engine::{self, Target};
use crate::postgres::text::Text;
use crate::postgres::{guc, wal};
use crate::{settings, sql, translate};
use pg_ark_contract::conversation::{Answer, Task};
use pg_ark_contract::rows::{CheckRow, CheckStatus};
use pg_ark_contract::{Error, Result, VERSION};
use pgrx::prelude::*;
use serde::Deserialize;
use std::time::Duration;

/// How long the engine may take to look at the repository: a check of one that hangs shall say so.
const PATIENCE: Duration = Duration::from_secs(30);

/// One row per thing that a backup needs: what was found, and what to do about it.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)] // The columns of DESIGN's SQL surface.
pub fn check() -> TableIterator<
    'static,
    (name!(item, Text), name!(status, Text), name!(detail, Text), name!(hint, Option<Text>)),
> {
    let rows = translate::or_raise(rows());
    TableIterator::new(rows.into_iter().map(|row| {
        (row.item.into(), row.status.as_str().into(), row.detail.into(), row.hint.map(Text::from))
    }))
}

const FACTS: &str = r#"
SELECT json_build_object(
    'extension', (SELECT extversion FROM pg_extension WHERE extname = 'pg_ark'),
    'slots', current_setting('max_replication_slots')::int,
    'slots_used', (SELECT count(*) FROM pg_replication_slots),
    'workers', current_setting('max_worker_processes')::int,
    'workers_used', (SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE backend_type NOT IN ('client backend',
        'autovacuum launcher', 'autovacuum worker', 'archiver', 'background writer', 'checkpointer', 'startup',
        'walreceiver', 'walsender', 'walwriter', 'walsummarizer', 'slotsync worker', 'io worker')),
    'wal_level', current_setting('wal_level'),
    'data_checksums', current_setting('data_checksums'),
    'full_page_writes', current_setting('full_page_writes'),
    'caller', current_user,
    'may_back_up', has_function_privilege((SELECT p.oid FROM pg_proc p JOIN pg_extension e
        ON e.extnamespace = p.pronamespace WHERE e.extname = 'pg_ark' AND p.proname = 'backup_start'), 'execute')
)::text"#;

#[derive(Deserialize)]
struct Facts {
    extension: Option<String>,
    slots: i64,
    slots_used: i64,
    workers: i64,
    workers_used: i64,
    wal_level: String,
    data_checksums: String,
    full_page_writes: String,
    caller: String,
    may_back_up: Option<bool>,
}

fn rows() -> Result<Vec<CheckRow>> {
    let mut rows = server_and_repository(None)?;
    rows.extend(scheduling::checks()?);
    waiting::advise_restart(&mut rows)?;
    Ok(rows)
}

/// The rows about the server and the repository: that of the settings, or `target`, which shall become it.
///
/// # Errors
/// `Internal` when the server's answers have an unexpected shape.
pub(super) fn server_and_repository(target: Option<&Target>) -> Result<Vec<CheckRow>> {
    let mut rows = Vec::new();
    let facts: Facts = sql::json(FACTS, &[])?;
    rows.push(version(&facts));
    rows.push(match settings::repository() {
        Ok(url) => row("pg_ark.repository", CheckStatus::Ok, url, None),
        Err(error) => failed("pg_ark.repository", &error),
    });
    rows.push(secrecy(settings::left_open()));
    rows.push(match engine::locate() {
        Ok(path) => row("engine", CheckStatus::Ok, path.display().to_string(), None),
        Err(error) => failed("engine", &error),
    });
    rows.extend(server_rows(&facts));
    rows.extend(configuration()?);
    rows.extend(archiving::checks()?);
    if let Some(target) = target.cloned().or_else(|| Target::from_settings().ok()) {
        rows.extend(repository_rows(&target));
    }
    Ok(rows)
}

fn version(facts: &Facts) -> CheckRow {
    let sql = facts.extension.clone().unwrap_or_default();
    let detail = format!("library {VERSION}, SQL {sql}");
    match crate::version::check() {
        Ok(()) => row("version", CheckStatus::Ok, detail, None),
        Err(error) => row("version", CheckStatus::Error, detail, error.hint),
    }
}

/// Who can see what only superusers should.
fn secrecy(left_open: Option<String>) -> CheckRow {
    let item = "shared_preload_libraries";
    match left_open {
        None => {
            row(item, CheckStatus::Ok, "only superusers and pg_monitor see where backups go".into(), None)
        }
        Some(to_do) => {
            let detail = "every role can SHOW pg_ark.repository before its session uses pg_ark";
            row(item, CheckStatus::Warning, detail.into(), Some(to_do))
        }
    }
}

fn server_rows(facts: &Facts) -> Vec<CheckRow> {
    use CheckStatus::{Error, Warning};
    let slots = format!("{} of {} in use", facts.slots_used, facts.slots);
    let workers = format!("{} of {} in use", facts.workers_used, facts.workers);
    vec![
        ok_or(
            !guc::wal_level_is_minimal(),
            "wal_level",
            facts.wal_level.clone(),
            Error,
            "ALTER SYSTEM SET wal_level = 'replica', then restart the server.",
        ),
        ok_or(
            facts.slots_used < facts.slots,
            "max_replication_slots",
            slots,
            Error,
            "A backup needs one free slot: drop an unused one, or raise max_replication_slots and restart.",
        ),
        ok_or(
            facts.workers_used < facts.workers,
            "max_worker_processes",
            workers,
            Error,
            "A backup runs in one background worker: raise max_worker_processes and restart.",
        ),
        ok_or(
            facts.data_checksums == "on",
            "data_checksums",
            facts.data_checksums.clone(),
            Warning,
            "Without page checksums a backup cannot see damaged pages: run pg_checksums --enable while the server \
             is stopped.",
        ),
        ok_or(
            facts.full_page_writes == "on",
            "full_page_writes",
            facts.full_page_writes.clone(),
            Warning,
            "A backup of a standby fails when it is off, and a crash may tear pages: turn it on.",
        ),
        ok_or(
            facts.may_back_up == Some(true),
            "caller",
            facts.caller.clone(),
            Warning,
            "This role may not start backups: GRANT EXECUTE ON FUNCTION ark.backup_start, or use the extension's \
             owner.",
        ),
    ]
}

/// The first line of the server's files that it cannot take. A setting that needs a restart is told in the same words as
/// one that cannot be, so those are left out.
const FAULTY_LINE: &str = "SELECT coalesce((SELECT format('%s, line %s: %s', f.sourcefile, f.sourceline, \
    concat_ws(': ', f.name, f.error)) FROM pg_file_settings f LEFT JOIN pg_settings s ON s.name = lower(f.name) \
    WHERE f.error IS NOT NULL AND s.context IS DISTINCT FROM 'postmaster' ORDER BY f.seqno LIMIT 1), '')";

/// Whether the server can read its files; they are shown to superusers alone.
fn configuration() -> Result<Option<CheckRow>> {
    if !guc::is_superuser() {
        return Ok(None);
    }
    let faulty = sql::text(FAULTY_LINE, &[])?.unwrap_or_default();
    let hint =
        "Correct the line: until then the server takes no change of its files, and may not start again.";
    let detail = if faulty.is_empty() { "its files can be read".into() } else { faulty.clone() };
    Ok(Some(ok_or(faulty.is_empty(), "configuration", detail, CheckStatus::Error, hint)))
}

/// What the engine finds, or why it could not be asked.
fn repository_rows(target: &Target) -> Vec<CheckRow> {
    let answer = settings::data_directory()
        .and_then(|data_directory| {
            let system_identifier = Some(wal::system_identifier());
            engine::ask_within(target, Task::Check { data_directory, system_identifier }, Some(PATIENCE))
        })
        .and_then(|answer| match answer {
            Answer::Checks(rows) => Ok(rows),
            other => Err(engine::unexpected(&other)),
        });
    answer.unwrap_or_else(|error| vec![failed("repository", &error)])
}

fn row(item: &str, status: CheckStatus, detail: String, hint: Option<String>) -> CheckRow {
    CheckRow { item: item.into(), status, detail, hint }
}

fn ok_or(ok: bool, item: &str, detail: String, otherwise: CheckStatus, hint: &str) -> CheckRow {
    if ok {
        row(item, CheckStatus::Ok, detail, None)
    } else {
        row(item, otherwise, detail, Some(hint.into()))
    }
}

fn failed(item: &str, error: &Error) -> CheckRow {
    row(item, CheckStatus::Error, error.to_string(), error.hint.clone())
}
