//! The archive module (`archive_library = 'pg_ark'`): what the archiver process does with one WAL file.
//!
//! The archiver keeps one engine ([`Task::Archive`]) and asks it for a file at a time; the engine looks ahead and
//! stores those that wait as well. [`archive`] says true only when the engine said that the file is stored.
//!
//! * The engine is started when there is none, with [`backoff`] after failures, and anew when a setting that it was
//!   started with has changed.
//! * While a file is waited for, the archiver still hears: a stop, a reload, other processes that wait for it, the
//!   postmaster's death, and the shutdown of the server, which [`wait`] keeps from lasting for ever.
//! * An engine of another version means that pg_ark was upgraded under the running server: the archiver ends, and the
//!   postmaster starts another one, with the new library. One that was preloaded stays until the server is restarted.
//! * Whatever fails is one WARNING and [`crate::last_failure`], never an ERROR: the server tries the file again.
//!
//! The server's side of this is [`crate::postgres::archive`].

mod backoff;
mod wait;

use crate::engine::{Engine, Target};
use crate::last_failure::Notes;
use crate::postgres::{archive as server, interrupts};
use crate::{settings, translate};
use backoff::Backoff;
use pg_ark_contract::conversation::{ArchiveTask, Event, Reply, Task};
use pg_ark_contract::settings::Compression;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::cell::Cell;
use std::time::Duration;
use wait::Wait;

/// How long one wait for an event lasts.
const TICK: Duration = Duration::from_millis(500);

thread_local! {
    /// Taken out while a callback uses it: a process that ends in the middle finds nothing to tidy up, and the kernel
    /// closes the engine's pipe.
    static ARCHIVER: Cell<Archiver> = Cell::default();
}

/// Stores one file of `pg_wal`; false when it has to be asked for again. Never raises.
pub fn archive(file: &str) -> bool {
    let mut archiver = ARCHIVER.take();
    let result = interrupts::catching(|| Ok(archiver.archive(file))).unwrap_or_else(|raised| {
        // The server raised something, or we did: the conversation with the engine may be anywhere.
        archiver.running = None;
        archiver.backoff.failed(&raised);
        Err(Refusal::Failed(raised))
    });
    let stored = result.is_ok();
    let outdated = matches!(&result, Err(Refusal::Failed(error)) if error.kind == ErrorKind::VersionMismatch);
    let context = || format!("pg_ark: could not archive \"{file}\"");
    match result {
        Ok(()) => archiver.notes.clear(),
        Err(Refusal::Failed(error)) => {
            translate::warn_error(&context(), &error);
            archiver.notes.write(file, &error);
        }
        Err(Refusal::Interrupted(error)) => translate::warn_error(&context(), &error),
        Err(Refusal::GivenUp) => {}
    }
    ARCHIVER.set(archiver);
    // One that the postmaster loaded comes again with the next archiver.
    if outdated && !settings::is_preloaded() {
        server::end_archiver(
            "pg_ark: the archiver ends, so that the next one loads the library installed now",
        );
    }
    stored
}

/// What keeps the archiver from working at all; None when it can be asked for a file.
pub fn missing() -> Option<Error> {
    let mut archiver = ARCHIVER.take();
    let missing = archiver.wanted().err();
    if missing.is_none() {
        archiver.warned = None;
    }
    ARCHIVER.set(archiver);
    missing
}

/// A WARNING for what [`missing`] found, when it was not the last one already.
pub fn warn_once(error: &Error) {
    let mut archiver = ARCHIVER.take();
    if archiver.warned.as_ref() != Some(error) {
        translate::warn_error("pg_ark cannot archive", error);
        archiver.warned = Some(error.clone());
    }
    ARCHIVER.set(archiver);
}

/// Ends the engine.
pub fn close() {
    drop(ARCHIVER.take());
}

/// What an engine is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    target: Target,
    compression: Compression,
    jobs: u32,
}

impl Wanted {
    fn from_settings() -> Result<Wanted> {
        let target = Target::from_settings()?;
        Ok(Wanted { target, compression: settings::compression()?, jobs: settings::jobs() })
    }

    fn start(&self) -> Result<Engine> {
        let task = ArchiveTask {
            data_directory: settings::data_directory()?,
            server_version_num: server::server_version_num(),
            compression: self.compression,
            jobs: self.jobs,
        };
        Engine::start(&self.target, Task::Archive(task))
    }
}

/// Why a file is not stored.
enum Refusal {
    /// Something is wrong.
    Failed(Error),
    /// The archiver has something else to do first.
    Interrupted(Error),
    /// As the file before it, while the server shuts down: nothing more to say.
    GivenUp,
}

/// Why the engine has no answer.
enum Silence {
    /// It answered, or need not answer now; it can be asked again.
    Kept(Refusal),
    /// It is of no more use.
    Lost(Error),
}

#[derive(Default)]
struct Archiver {
    running: Option<(Wanted, Engine)>,
    /// What the back-off is about.
    tried: Option<Wanted>,
    backoff: Backoff,
    notes: Notes,
    /// A file was given up because the server shuts down.
    gave_up: bool,
    warned: Option<Error>,
}

impl Archiver {
    fn archive(&mut self, file: &str) -> std::result::Result<(), Refusal> {
        if self.gave_up && server::server_shuts_down() {
            return Err(Refusal::GivenUp);
        }
        self.gave_up = false;
        loop {
            self.prepare().map_err(Refusal::Failed)?;
            match self.store(file) {
                Ok(()) => return Ok(()),
                Err(Silence::Kept(refusal)) => return Err(refusal),
                Err(Silence::Lost(error)) => {
                    self.running = None;
                    let at_once = self.backoff.failed(&error);
                    if !at_once || error.kind != ErrorKind::EngineDied || server::told_to_stop() {
                        return Err(Refusal::Failed(error));
                    }
                    translate::log(format!("pg_ark: {error}; the archiver starts it again"));
                }
            }
        }
    }

    /// The settings as they are now. A program that is being replaced is no reason to give up the one that runs.
    fn wanted(&self) -> Result<Wanted> {
        match (Wanted::from_settings(), &self.running) {
            (Err(error), Some((wanted, _))) if error.kind == ErrorKind::EngineMissing => Ok(wanted.clone()),
            (wanted, _) => wanted,
        }
    }

    /// Sees to it that an engine runs with the settings as they are now.
    fn prepare(&mut self) -> Result<()> {
        let wanted = self.wanted()?;
        if self.tried.as_ref() != Some(&wanted) {
            self.running = None;
            self.backoff = Backoff::default();
            self.tried = Some(wanted.clone());
        }
        if self.running.is_none() {
            self.backoff.permit()?;
            let engine = wanted.start().inspect_err(|error| {
                self.backoff.failed(error);
            })?;
            self.running = Some((wanted, engine));
        }
        Ok(())
    }

    fn store(&mut self, file: &str) -> std::result::Result<(), Silence> {
        let Some((_, engine)) = &mut self.running else {
            return Err(Silence::Lost(Error::new(ErrorKind::Internal, "there is no engine")));
        };
        engine.reply(&Reply::Archive { file: file.into() }).map_err(Silence::Lost)?;
        let mut wait = Wait::new();
        loop {
            match engine.poll(TICK).map_err(Silence::Lost)? {
                Some(Event::Archived { file: stored }) if stored == file => {
                    self.backoff = Backoff::default();
                    return Ok(());
                }
                Some(Event::ArchiveFailed { file: refused, error }) if refused == file => {
                    self.backoff = Backoff::default();
                    return Err(Silence::Kept(Refusal::Failed(error)));
                }
                Some(Event::Failed { error }) => return Err(Silence::Lost(error)),
                Some(Event::Done { answer }) => {
                    return Err(Silence::Lost(crate::engine::unexpected(&answer)));
                }
                Some(Event::Warning { message, hint }) => {
                    wait.heard();
                    translate::warn(message, hint);
                }
                // Another file of the engine's look-ahead, which the server will ask for.
                Some(_) => wait.heard(),
                None => {}
            }
            server::let_others_go_on().map_err(Silence::Lost)?;
            if let Some(over) = wait.over(file) {
                self.gave_up = over.shutdown;
                return Err(over.silence);
            }
        }
    }
}

/// An error as one text, for a place that takes no more.
pub fn in_words(error: &Error) -> String {
    let hint = error.hint.as_deref().map(|hint| format!(". {hint}")).unwrap_or_default();
    format!("{error}{hint}")
}
