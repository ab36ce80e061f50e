//! `ark.backup_start` and `ark.backup_stop`.
//!
//! The session only starts the worker and waits: everything is checked here before anything is touched, and the
//! backup itself runs in [`crate::workers::job`].

use super::standoff::Standoff;
use super::{list, logical};
use crate::engine::Target;
use crate::postgres::shared::{Channel, State};
use crate::postgres::text::Text;
use crate::postgres::worker::{Entry, Handle, Life};
use crate::postgres::{database, guc, interrupts, latch};
use crate::workers::job;
use crate::workers::request::Request;
use crate::{archiving, settings, sql, translate, version};
use pg_ark_contract::conversation::{BackupKind, LogicalChoice};
use pg_ark_contract::rows::BackupRow;
use pg_ark_contract::{Error, ErrorKind, Result};
use pgrx::prelude::*;
use std::time::{Duration, Instant};

/// `pg_backup_start` takes no longer one (`MAXPGPATH`, pg_config_manual.h).
const LABEL_MAX: usize = 1024;
/// How often the state of a starting backup is looked at.
const STARTING: Duration = Duration::from_millis(10);
/// How often the state of a running backup is looked at.
const RUNNING: Duration = Duration::from_millis(20);
/// How long a worker that was told to stop may take before the caller hears about it.
const STOPPING: Duration = Duration::from_secs(30);

/// Starts a backup in the background; gives its name once it runs, or once it is complete with `wait`.
#[pg_extern(name = "backup_start", volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::too_many_arguments)] // The arguments of DESIGN's SQL surface.
pub fn start_backup(
    kind: default!(Option<Text>, "'full'"),
    label: default!(Option<Text>, "NULL"),
    fast: default!(Option<bool>, true),
    wait: default!(Option<bool>, false),
    include_wal: default!(Option<bool>, "NULL"),
    databases: default!(Option<Vec<Option<Text>>>, "NULL"),
    exclude_databases: default!(Option<Vec<Option<Text>>>, "NULL"),
    skip_failed: default!(Option<bool>, false),
) -> String {
    version::require();
    let skip_failed = skip_failed.filter(|is_asked| *is_asked);
    let logical = logical::Asked { databases, exclude_databases, skip_failed };
    let asked = Asked { kind, label, fast: fast.unwrap_or(true), include_wal, logical };
    let request = translate::or_raise(asked.request());
    translate::or_raise(start(&request, wait.unwrap_or(false)))
}

/// What the SQL of version 0.1.0 calls, with fewer arguments: it is told to be updated.
#[pg_extern(sql = false)]
pub fn backup_start() -> String {
    version::require();
    translate::or_raise(Err(Error::new(
        ErrorKind::VersionMismatch,
        "the SQL of pg_ark is older than its library",
    )
    .hint("Run ALTER EXTENSION pg_ark UPDATE in this database.")))
}

/// The arguments of [`start_backup`] as they came.
struct Asked {
    kind: Option<Text>,
    label: Option<Text>,
    fast: bool,
    include_wal: Option<bool>,
    logical: logical::Asked,
}

impl Asked {
    /// Judges all of it before anything is touched. The worker and the engine look again.
    fn request(self) -> Result<Request> {
        let kind = parse_kind(&self.kind.map_or(Ok(String::new()), |kind| kind.decode())?)?;
        let label = self.label.map(|label| label.decode()).transpose()?;
        check_one_line("label", label.as_deref())?;
        let choice = check_choice(kind, self.include_wal, &self.logical)?;
        Target::from_settings()?;
        match kind {
            BackupKind::Logical => logical::check_existence(&choice)?,
            BackupKind::Full | BackupKind::Incremental => check_wal(self.include_wal)?,
        }
        Ok(Request {
            label,
            fast: self.fast,
            database: database()?,
            include_wal: self.include_wal,
            logical: choice,
            ..Request::from_settings(kind)?
        })
    }
}

/// What a logical backup dumps; refuses what belongs to the other kinds.
fn check_choice(
    kind: BackupKind,
    include_wal: Option<bool>,
    logical: &logical::Asked,
) -> Result<LogicalChoice> {
    if kind == BackupKind::Logical {
        if include_wal == Some(true) {
            let message = "a logical backup holds no WAL";
            return Err(Error::new(ErrorKind::InvalidArgument, message)
                .hint("Leave include_wal out, or take a full backup: it can be brought to any moment."));
        }
        return logical.choice();
    }
    match logical.stray() {
        None => Ok(LogicalChoice::default()),
        Some(argument) => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("a backup of kind {} has no {argument}: it holds the whole cluster", kind.as_str()),
        )
        .hint(format!("Leave {argument} out, or use kind => 'logical'."))),
    }
}

fn check_wal(include_wal: Option<bool>) -> Result<()> {
    if guc::wal_level_is_minimal() {
        return Err(Error::new(ErrorKind::ServerNotReady, "wal_level = minimal does not allow backups")
            .hint("ALTER SYSTEM SET wal_level = 'replica', then restart the server."));
    }
    if archiving::include_wal(include_wal)? {
        check_slots()?;
    }
    Ok(())
}

/// A backup with its own WAL needs a slot: without a free one it would only leave a failed record.
fn check_slots() -> Result<()> {
    let free = sql::text(
        "SELECT (count(*) < current_setting('max_replication_slots')::bigint)::text FROM pg_get_replication_slots()",
        &[],
    )?;
    if free.as_deref() == Some("true") {
        return Ok(());
    }
    Err(Error::new(ErrorKind::ServerNotReady, "every replication slot is taken").hint(
        "A backup needs a free one unless pg_ark archives the WAL: drop a slot that nobody uses, or raise \
         max_replication_slots and restart the server.",
    ))
}

fn parse_kind(kind: &str) -> Result<BackupKind> {
    match kind {
        "full" => Ok(BackupKind::Full),
        "logical" => Ok(BackupKind::Logical),
        "incremental" => Err(Error::new(
            ErrorKind::Unsupported,
            format!("{kind} backups are not available in this version"),
        )
        .hint("Use kind => 'full'.")),
        _ => Err(Error::new(ErrorKind::InvalidArgument, format!("unknown kind of backup: \"{kind}\"")).hint(
            "The kinds are full, incremental and logical; this version takes full and logical backups.",
        )),
    }
}

/// Checks a `label` or a `reason`.
///
/// # Errors
/// `InvalidArgument` for more than one line, and for a line that is too long.
pub(super) fn check_one_line(what: &str, text: Option<&str>) -> Result<()> {
    let bad = |why: String| {
        Error::new(ErrorKind::InvalidArgument, format!("invalid {what}: {why}"))
            .hint(format!("Use one line of at most {LABEL_MAX} bytes, or leave it out."))
    };
    match text {
        Some(text) if text.len() > LABEL_MAX => Err(bad(format!("it has {} bytes", text.len()))),
        Some(text) if text.chars().any(breaks_line) => Err(bad("it holds control characters".into())),
        _ => Ok(()),
    }
}

/// Characters that end a line somewhere, or turn the order of what follows: none may reach a terminal or a log.
fn breaks_line(character: char) -> bool {
    matches!(character, '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
        || character.is_control()
}

/// The database that the worker connects to: `pg_ark.database` where that can be, else the caller's.
fn database() -> Result<u32> {
    let Some(named) = database::named(&settings::database()) else { return Ok(database::own()) };
    let open =
        sql::text("SELECT datallowconn::text FROM pg_database WHERE oid = $1::oid", &[&named.to_string()])?;
    Ok(if open.as_deref() == Some("true") { named } else { database::own() })
}

/// A worker whose backup does not run yet: it is stopped when the session gives up.
struct Starting {
    handle: Handle,
    keep: bool,
}

impl Drop for Starting {
    fn drop(&mut self) {
        if !self.keep {
            self.handle.terminate();
        }
    }
}

fn start(request: &Request, wait: bool) -> Result<String> {
    let text = serde_json::to_vec(request)
        .map_err(|error| Error::new(ErrorKind::Internal, "could not write the request").detail(error))?;
    let channel = Channel::create(&text);
    let handle = Handle::register(job::WORKER, Entry::Backup, channel.handle()).ok_or_else(|| {
        Error::new(ErrorKind::ServerNotReady, "could not start a background worker: every slot is taken")
            .hint("Raise max_worker_processes and restart the server, or try again when other workers are done.")
    })?;
    let mut worker = Starting { handle, keep: false };
    let mut name = String::new();
    let mut standoff = Standoff::begin();
    loop {
        let ended = worker.handle.life() == Life::Ended;
        match channel.read() {
            (State::Failed, error) => return Err(failure(&worker, &error)),
            (State::Started, started) => {
                worker.keep = true;
                name = started;
                if !wait {
                    return Ok(name);
                }
            }
            (State::Complete, row) => {
                worker.keep = true;
                return Ok(complete(&row, name));
            }
            (State::Requested, _) => {}
        }
        if ended {
            return Err(vanished());
        }
        if interrupts::dying() && !worker.keep {
            worker.handle.terminate(); // This session ends without running destructors.
        }
        interrupts::check();
        if worker.keep {
            standoff.check(&name)?;
        }
        latch::sleep(if worker.keep { RUNNING } else { STARTING });
    }
}

/// The worker's error, once the worker is gone: then slot and backup mode are gone too.
fn failure(worker: &Starting, error: &str) -> Error {
    let deadline = Instant::now() + STOPPING;
    while worker.handle.life() != Life::Ended && Instant::now() < deadline {
        interrupts::check();
        latch::sleep(STARTING);
    }
    serde_json::from_str(error).unwrap_or_else(|_| vanished())
}

fn vanished() -> Error {
    Error::new(ErrorKind::EngineDied, "the backup's worker ended without an answer")
        .hint("The server log says why.")
}

fn complete(row: &str, name: String) -> String {
    let Ok(row) = serde_json::from_str::<BackupRow>(row) else { return name };
    let record = list::record(&row.backup).unwrap_or_default();
    let warnings = record["warnings"].as_array().into_iter().flatten().filter_map(|one| one.as_str());
    warnings.for_each(|warning| translate::warn(warning, None));
    if row.damaged_pages > 0 {
        translate::warn(
            format!("backup {} holds damaged pages: {} in all", row.backup, row.damaged_pages),
            Some("The server log names the relations.".into()),
        );
    }
    row.backup
}

/// Cancels a running backup; false when it does not run.
///
/// Runs with the rights of the extension's owner, because a worker's process belongs to the bootstrap superuser:
/// who may EXECUTE this function may stop any backup of pg_ark, and nothing else.
#[pg_extern(volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
pub fn backup_stop(backup: Option<Text>) -> bool {
    version::require();
    translate::or_raise(list::name(backup).and_then(|name| stop(&name)))
}

const WORKERS: &str = "FROM pg_stat_get_activity(NULL) WHERE backend_type = $1 AND application_name = $2";

fn stop(backup: &str) -> Result<bool> {
    let terminate = format!("SELECT bool_or(pg_terminate_backend(pid))::text {WORKERS}");
    let found = sql::text(&terminate, &[job::WORKER, backup])?;
    if found.as_deref() != Some("true") {
        let record = list::record(backup)?; // An unknown name is an error.
        let text = |name: &str| record[name].as_str().unwrap_or_default();
        if text("status") == "running" {
            let host = text("host").escape_debug().to_string();
            return Err(Error::new(
                ErrorKind::Busy,
                format!("backup \"{backup}\" is being written by another server, on host \"{host}\""),
            )
            .hint("Call ark.backup_stop there."));
        }
        return Ok(false);
    }
    let deadline = Instant::now() + STOPPING;
    while runs(backup)? {
        if Instant::now() > deadline {
            return Err(Error::new(
                ErrorKind::Busy,
                format!("backup \"{backup}\" was told to stop but still runs"),
            )
            .hint("Look for it in pg_stat_activity."));
        }
        interrupts::check();
        latch::sleep(STARTING);
    }
    Ok(true)
}

fn runs(backup: &str) -> Result<bool> {
    // What a transaction once saw of other sessions, it keeps seeing.
    sql::text("SELECT pg_stat_clear_snapshot()::text", &[])?;
    let found = sql::text(&format!("SELECT count(*)::text {WORKERS}"), &[job::WORKER, backup])?;
    Ok(found.as_deref() != Some("0"))
}
