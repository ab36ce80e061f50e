//! Taking one backup: the conversation with the engine, for whoever asked ([`super::job`], [`super::run`]).
//!
//! 1. [`take`] collects facts about the server, starts the engine and follows its events: name, `Need` (slot and
//!    backup mode), progress, warnings.
//! 2. When the engine is done, it drops the slot and logs one line.
//! 3. When anything fails it tells the engine why, so that the record says it; when the engine itself died, a second
//!    engine marks the record ([`Task::Abandon`]).
//!
//! A logical backup runs the same way, without slot, backup mode and WAL: its engine asks for none of them.
//!
//! No transaction is open while files are copied, so that vacuum is not held back. A stop (SIGTERM, SIGINT) reaches
//! the engine within a second with its reason. What must not outlive this process never does: see [`super::server`].

use super::limit::Limit;
use super::request::Request;
use super::{damage, job, server};
use crate::engine::{self, Engine, Target};
use crate::postgres::{guc, interrupts, progress, transaction, wal, worker};
use crate::{settings, translate};
use pg_ark_contract::conversation::{Answer, BackupKind, Event, Need, Phase, Reply, Task};
use pg_ark_contract::rows::BackupRow;
use pg_ark_contract::{Bytes, Error, ErrorKind, Lsn, Result};
use std::time::{Duration, Instant};

/// Name and type of the workers, as `pg_stat_activity.backend_type` shows it.
pub const WORKER: &str = "pg_ark backup";

/// How often the engine hears how far WAL is durable.
const TICK: Duration = Duration::from_secs(1);
/// How long the engine may take to mark its record when it is told to stop: the stop must be over in a second.
pub const STOP_TIMEOUT: Duration = Duration::from_millis(800);
/// How long it may take when nobody waits for this process to end.
pub const FAIL_TIMEOUT: Duration = Duration::from_secs(10);

/// Takes a backup; the worker is connected. `on_start` hears its name once it runs.
///
/// # Errors
/// What went wrong: the backup's record says it too, and nothing but the record is left.
pub fn take(request: &Request, limit: Option<Limit>, on_start: &dyn Fn(&str)) -> Result<BackupRow> {
    progress::activity("pg_ark: backup is starting");
    let task = transaction::run(|| server::backup_task(request))?;
    let include_wal = task.include_wal;
    let target = Target::from_settings()?;
    let engine = Engine::start(&target, Task::Backup(Box::new(task)))?;
    let mut backup = Backup {
        on_start,
        request,
        limit,
        target,
        engine,
        progress: progress::Row::start(),
        name: String::new(),
        include_wal,
        slot: None,
        copying: false,
        on_standby: false,
        told: None,
        max_rate: settings::max_rate(),
        answered: false,
    };
    match interrupts::catching(|| backup.drive()) {
        Ok(row) => {
            backup.finish(&row);
            Ok(row)
        }
        Err(error) => Err(backup.fail(error)),
    }
}

/// A running backup.
struct Backup<'a> {
    on_start: &'a dyn Fn(&str),
    request: &'a Request,
    limit: Option<Limit>,
    target: Target,
    engine: Engine,
    progress: progress::Row,
    /// Empty until the engine said it.
    name: String,
    /// The backup stores its WAL itself; else it waits for the archive.
    include_wal: bool,
    /// Holds back WAL for a backup that stores it.
    slot: Option<String>,
    /// Between pg_backup_start and the end: the engine wants to hear about WAL.
    copying: bool,
    /// The server was a standby when the backup started: its promotion ends the backup.
    on_standby: bool,
    /// When it last heard.
    told: Option<Instant>,
    /// The server's `pg_ark.max_rate`: a change of it acts on the running backup, whatever it began with.
    max_rate: u64,
    /// The engine gave its last event.
    answered: bool,
}

impl Backup<'_> {
    fn drive(&mut self) -> Result<BackupRow> {
        loop {
            if let Some(error) = stopped() {
                return Err(error);
            }
            self.limit.map_or(Ok(()), |limit| limit.check())?;
            guc::reload_if_asked();
            self.tell_rate()?;
            interrupts::check();
            if let Some(event) = self.engine.poll(TICK)?
                && let Some(row) = self.on_event(event)?
            {
                return Ok(row);
            }
            self.tell_wal()?;
        }
    }

    fn on_event(&mut self, event: Event) -> Result<Option<BackupRow>> {
        match event {
            Event::Hello { .. } | Event::Ready | Event::Archived { .. } | Event::ArchiveFailed { .. } => {}
            Event::Started { backup } => self.on_started(backup),
            Event::Need(Need::BackupStart) => self.start_backup_mode()?,
            Event::Need(Need::BackupStop) => self.stop_backup_mode()?,
            Event::Progress { phase, done_bytes, total_bytes, done_tablespaces, total_tablespaces } => {
                self.show(phase, (done_bytes, total_bytes), (done_tablespaces, total_tablespaces));
            }
            Event::FileDamaged { path, relation, database, blocks, damaged_pages } => {
                let relation = damage::described(relation.as_deref(), database.as_deref());
                damage::warn(&path, &relation, &blocks, damaged_pages);
            }
            Event::Verified { .. } => {}
            Event::Warning { message, hint } => translate::warn(message, hint),
            Event::WalStored { lsn } => self.release_wal(lsn),
            Event::Done { answer: Answer::Backup(row) } => {
                self.answered = true;
                return Ok(Some(*row));
            }
            Event::Done { answer } => {
                self.answered = true;
                return Err(engine::unexpected(&answer));
            }
            Event::Failed { error } => {
                self.answered = true;
                return Err(error);
            }
        }
        Ok(None)
    }

    fn on_started(&mut self, backup: String) {
        // ark.backup_stop finds this process by its application_name.
        guc::set_for_process(c"application_name", &backup);
        progress::activity(&format!("pg_ark: backup {backup}"));
        (self.on_start)(&backup);
        self.name = backup;
    }

    fn start_backup_mode(&mut self) -> Result<()> {
        self.progress.phase(progress::Phase::WaitCheckpoint);
        if self.include_wal {
            let slot = format!("pg_ark_{}", std::process::id());
            transaction::run(|| server::create_slot(&slot)).map_err(|error| no_slot(error, &slot))?;
            self.slot = Some(slot);
        }
        let label = self.request.label.clone().unwrap_or_else(|| format!("pg_ark {}", self.name));
        let fast = self.request.fast;
        let (start_lsn, timeline) = transaction::run(|| server::backup_start(&label, fast))?;
        self.copying = true;
        self.on_standby = wal::in_recovery();
        self.engine.reply(&Reply::BackupStarted { start_lsn, timeline })
    }

    fn stop_backup_mode(&mut self) -> Result<()> {
        let stopped = transaction::run(server::backup_stop)?;
        let (_, timeline) = wal::durable_position();
        self.engine.reply(&Reply::BackupStopped {
            stop_lsn: stopped.lsn,
            timeline,
            backup_label: Bytes(stopped.labelfile),
            tablespace_map: Bytes(stopped.spcmapfile),
        })?;
        self.told = None; // The last segment is complete now: say so at once.
        self.tell_wal()
    }

    fn tell_rate(&mut self) -> Result<()> {
        let bytes = settings::max_rate();
        if bytes == self.max_rate {
            return Ok(());
        }
        self.max_rate = bytes;
        self.engine.reply(&Reply::MaxRate { bytes })
    }

    fn tell_wal(&mut self) -> Result<()> {
        if !self.copying || self.told.is_some_and(|told| told.elapsed() < TICK) {
            return Ok(());
        }
        self.told = Some(Instant::now());
        // pg_backup_stop would say so too, after all has been copied.
        if self.on_standby && !wal::in_recovery() {
            let message = "the standby was promoted while it was backed up";
            return Err(Error::new(ErrorKind::ServerNotReady, message).hint("Start the backup again."));
        }
        let (lsn, timeline) = wal::durable_position();
        self.engine.reply(&Reply::WalFlushed { lsn, timeline })
    }

    /// A slot that does not advance keeps more WAL than needed, nothing worse: so a failure is no end.
    fn release_wal(&self, lsn: Lsn) {
        let Some(slot) = &self.slot else { return };
        if let Err(error) = transaction::run(|| server::advance_slot(slot, lsn)) {
            translate::warn_error("pg_ark: could not release stored WAL", &error);
        }
    }

    fn show(&self, phase: Phase, bytes: (u64, u64), tablespaces: (u32, u32)) {
        self.progress.phase(match phase {
            Phase::Estimate => progress::Phase::EstimateSize,
            Phase::Copy => progress::Phase::Stream,
            Phase::Wal if !self.include_wal => progress::Phase::WaitArchive,
            // Dumps need no WAL, and nothing else says that the end is near.
            Phase::Finish if self.request.kind == BackupKind::Logical => progress::Phase::Stream,
            Phase::Wal | Phase::Finish => progress::Phase::TransferWal,
        });
        self.progress.amount(bytes, tablespaces);
    }

    /// The backup is complete: leave nothing behind, say so.
    fn finish(mut self, row: &BackupRow) {
        if let Some(slot) = self.slot.take()
            && let Err(error) = transaction::run(|| server::drop_slot(&slot))
        {
            // It is a temporary one, so it goes with this process.
            translate::warn_error("pg_ark: could not drop the replication slot", &error);
        }
        translate::log(format!("pg_ark: {}", job::completion(row)));
    }

    /// The backup failed: see that its record says why. Gives the error back for the session and the log.
    fn fail(mut self, error: Error) -> Error {
        worker::calm();
        let stop = if self.answered { None } else { stopped() };
        let stopped = stop.is_some();
        // The server only says that a statement was cancelled; the signal is the reason.
        let error = stop.unwrap_or(error);
        let reason = error.to_string();
        if !self.answered {
            let timeout = if stopped { STOP_TIMEOUT } else { FAIL_TIMEOUT };
            self.answered = error.kind != ErrorKind::EngineDied && self.tell_stop(&reason, timeout);
            if !self.answered {
                self.engine.kill();
            }
        }
        let (name, target, answered) = (self.name.clone(), self.target.clone(), self.answered);
        drop(self);
        let ours = !matches!(error.kind, ErrorKind::EngineMissing | ErrorKind::VersionMismatch);
        if !answered && ours {
            let backup = (!name.is_empty()).then_some(name);
            let limit = if stopped { STOP_TIMEOUT } else { FAIL_TIMEOUT };
            let abandon = Task::Abandon { backup, reason };
            let done = interrupts::catching(|| engine::ask_within(&target, abandon, Some(limit)));
            if let Err(error) = done {
                translate::warn_error("pg_ark: could not mark the backup as failed", &error);
            }
        }
        error
    }

    /// True when the engine confirmed.
    fn tell_stop(&mut self, reason: &str, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        if self.engine.reply(&Reply::Stop { reason: reason.into() }).is_err() {
            return false;
        }
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            match interrupts::catching(|| self.engine.poll(left)) {
                Ok(Some(Event::Failed { .. })) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }
}

/// The error of a backup whose worker was told to stop.
fn stopped() -> Option<Error> {
    let reason = worker::stop_reason()?;
    Some(Error::new(ErrorKind::Cancelled, format!("the backup was {reason}")))
}

fn no_slot(error: Error, slot: &str) -> Error {
    let hint = error.hint.clone().unwrap_or_else(|| {
        "A backup needs one free replication slot: drop an unused one or raise max_replication_slots.".into()
    });
    Error { message: format!("could not create replication slot \"{slot}\": {}", error.message), ..error }
        .hint(hint)
}
