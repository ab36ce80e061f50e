//! Stores files of `pg_wal` with several threads: each file is prepared by any of them, and they are stored one after
//! another, in the order in which they are to be.
//!
//! What: [`Ahead::submit`] names the file that is asked for, [`Ahead::extend`] those that will be; [`Ahead::wait`] gives
//! what became of the first. Why in order: were a later segment stored first, a machine that burns down in between
//! leaves an archive with a gap. Compression takes most of the time, and that is shared.
//! Memory: at most [`WINDOW`] bytes of segments are prepared and not yet stored, but always one.

use super::archive::Archive;
use super::store::{self, Outcome, Prepared, Source};
use crate::repository::catalog::{self, STALE};
use crate::repository::{Repository, Storage};
use pg_ark_contract::settings::Compression;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;
use std::time::Duration;

/// Bytes of segments that are held in memory at the same time at the most.
const WINDOW: u64 = 256 << 20;
/// Most files that are stored, or being stored, before they are asked for.
pub const MAX_AHEAD: usize = 64;
/// How often a waiting caller looks whether it must stop.
const LOOK: Duration = Duration::from_millis(100);

/// Where files go, and from where.
#[derive(Debug, Clone)]
pub struct Route {
    /// The repository, as it was opened.
    pub repository: Repository,
    /// The archive in it.
    pub archive: Archive,
    /// The server.
    pub source: Source,
    /// Codec and level.
    pub compression: Compression,
    /// Threads, at least 1.
    pub jobs: usize,
}

/// Hears of a file that is in the archive now.
pub type Stored<'a> = dyn Fn(&str, &Outcome) + Sync + 'a;

/// Threads that store files. [`Ahead::start`] starts them, [`Ahead::close`] lets them end.
pub struct Ahead<'a> {
    route: &'a Route,
    /// Hears what became of each file that is in the archive now.
    stored: &'a Stored<'a>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// In the order of storing.
    line: VecDeque<Slot>,
    next_id: u64,
    /// The file that somebody waits for, and what became of it.
    asked: Option<(String, Option<Result<()>>)>,
    /// Stored before anybody asked.
    stored: BTreeSet<String>,
    /// The folder that was swept and made durable.
    settled: String,
    closed: bool,
}

struct Slot {
    id: u64,
    name: String,
    stage: Stage,
}

enum Stage {
    Waiting,
    Preparing,
    Prepared(Result<Box<Prepared>>),
    Storing,
}

enum Job {
    Prepare(u64, String),
    Store(u64, String, Result<Box<Prepared>>),
}

impl<'a> Ahead<'a> {
    /// No thread runs yet. `stored` is called after each file that was stored, by several threads.
    pub fn new(route: &'a Route, stored: &'a Stored<'a>) -> Self {
        Ahead { route, stored, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Starts the threads.
    ///
    /// # Errors
    /// When the system has none left.
    pub fn start<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) -> Result<()> {
        // One more than prepare at a time: storing is waiting for a disk.
        for _ in 0..=self.route.jobs {
            std::thread::Builder::new()
                .name("wal".into())
                .spawn_scoped(scope, || self.work())
                .map_err(|e| Error::io("could not start a thread", &e))?;
        }
        Ok(())
    }

    /// Ends the threads when they have done what they do now.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Asks for `name`: before all that was not asked for, but after what is being stored already.
    pub fn submit(&self, name: &str) {
        let mut state = self.lock();
        state.asked = Some((name.to_string(), None));
        if state.stored.remove(name) {
            // It was durable then; a repository can vanish.
            drop(state);
            let there = matches!(self.route.archive.find(name), Ok(Some(_)));
            state = self.lock();
            if there {
                state.asked = Some((name.to_string(), Some(Ok(()))));
                return;
            }
        }
        if let Some(slot) = state.line.iter_mut().find(|slot| slot.name == name) {
            // What kept it from being prepared may be over.
            if matches!(slot.stage, Stage::Prepared(Err(_))) {
                slot.stage = Stage::Waiting;
            }
        } else {
            let storing = state.line.iter().take_while(|slot| matches!(slot.stage, Stage::Storing)).count();
            let slot = state.slot(name);
            state.line.insert(storing, slot);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// How many files may be added by [`Ahead::extend`].
    pub fn room(&self) -> usize {
        let state = self.lock();
        MAX_AHEAD.saturating_sub(state.line.len() + state.stored.len())
    }

    /// Whether the file is stored, or being stored, without having been asked for.
    pub fn is_taken(&self, name: &str) -> bool {
        let state = self.lock();
        state.stored.contains(name) || state.line.iter().any(|slot| slot.name == name)
    }

    /// Forgets files that were stored, for which the server waits no longer: somebody else took them out of its queue.
    pub fn forget(&self, waits: impl Fn(&str) -> bool) {
        self.lock().stored.retain(|name| waits(name));
    }

    /// Files that will be asked for later, in that order.
    pub fn extend(&self, names: Vec<String>) {
        let mut state = self.lock();
        for name in names {
            let slot = state.slot(&name);
            state.line.push_back(slot);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Waits for what becomes of the file that was submitted last. When it fails, all that was not asked for is
    /// forgotten: it is as likely to fail. `check` may end the waiting.
    ///
    /// # Errors
    /// Why it is not stored; what `check` said.
    pub fn wait(&self, check: &dyn Fn() -> Result<()>) -> Result<()> {
        let mut state = self.lock();
        loop {
            check()?;
            match &mut state.asked {
                None => return Err(Error::new(ErrorKind::Internal, "no WAL file was asked for")),
                Some((_, answer @ Some(_))) => {
                    let answer = answer.take();
                    state.asked = None;
                    return answer.unwrap_or(Ok(()));
                }
                Some((_, None)) => {}
            }
            state = self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until nothing is left to do.
    pub fn drain(&self) {
        let mut state = self.lock();
        while !state.line.is_empty() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work(&self) {
        let mut state = self.lock();
        while !state.closed {
            match state.next_job(self.route) {
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(job) => {
                    drop(state);
                    match job {
                        Job::Prepare(id, name) => self.prepare(id, &name),
                        Job::Store(id, name, prepared) => self.store(id, &name, prepared),
                    }
                    self.changed.notify_all();
                    state = self.lock();
                }
            }
        }
    }

    fn prepare(&self, id: u64, name: &str) {
        let Route { archive, source, compression, .. } = self.route;
        let prepared = guarded(|| store::prepare(archive, source, name, *compression).map(Box::new));
        let mut state = self.lock();
        // Forgotten meanwhile, when another one failed.
        if let Some(slot) = state.line.iter_mut().find(|slot| slot.id == id) {
            slot.stage = Stage::Prepared(prepared);
        }
    }

    fn store(&self, id: u64, name: &str, prepared: Result<Box<Prepared>>) {
        let result = guarded(|| self.try_store(name, *prepared?));
        if let Ok(outcome) = &result {
            (self.stored)(name, outcome);
        }
        let mut state = self.lock();
        state.line.retain(|slot| slot.id != id);
        let result = result.map(|_| ());
        let failed = result.is_err();
        let asked = state.asked.as_ref().map(|(asked, _)| asked.clone());
        if failed {
            state.line.retain(|slot| Some(&slot.name) == asked.as_ref());
        }
        if asked.as_deref() == Some(name) {
            state.asked = Some((name.to_string(), Some(result)));
        } else if !failed {
            state.stored.insert(name.to_string());
        }
    }

    fn try_store(&self, name: &str, prepared: Prepared) -> Result<Outcome> {
        let Route { repository, archive, .. } = self.route;
        check_repository(repository)?;
        let path = archive.path(name)?;
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let outcome = store::commit(archive, prepared)?;
        if self.lock().settled != folder {
            store::settle(archive, name)?;
            archive.storage().sweep(folder, STALE, |_| false);
            self.lock().settled = folder.to_string();
        }
        // A file system that was unmounted in between: what lies below its mount point now is no archive.
        if let Err(e) = check_repository(repository) {
            if outcome.created
                && e.kind == ErrorKind::RepositoryNotFound
                && let Ok(Some(found)) = archive.find(name)
            {
                remove_from_nowhere(archive.storage(), &found.path);
            }
            return Err(e);
        }
        Ok(outcome)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn slot(&mut self, name: &str) -> Slot {
        self.next_id += 1;
        Slot { id: self.next_id, name: name.to_string(), stage: Stage::Waiting }
    }

    /// The first in line is stored as soon as it is prepared; others are prepared meanwhile.
    fn next_job(&mut self, route: &Route) -> Option<Job> {
        let first = self.line.front_mut()?;
        if matches!(first.stage, Stage::Prepared(_))
            && let Stage::Prepared(prepared) = std::mem::replace(&mut first.stage, Stage::Storing)
        {
            return Some(Job::Store(first.id, first.name.clone(), prepared));
        }
        let room = usize::try_from(WINDOW / route.source.segment_size.bytes()).unwrap_or(1);
        let held = self.line.iter().filter(|slot| !matches!(slot.stage, Stage::Waiting)).count();
        let preparing = self.line.iter().filter(|slot| matches!(slot.stage, Stage::Preparing)).count();
        // The first in line is never held up by what was prepared for later.
        let first_waits = matches!(self.line.front()?.stage, Stage::Waiting);
        if !first_waits && (held >= room || preparing >= route.jobs) {
            return None;
        }
        let slot = self.line.iter_mut().find(|slot| matches!(slot.stage, Stage::Waiting))?;
        slot.stage = Stage::Preparing;
        Some(Job::Prepare(slot.id, slot.name.clone()))
    }
}

/// Opens the repository that WAL goes to.
///
/// # Errors
/// `RepositoryNotFound` ([`was_there`]); what the store said.
pub fn open_repository(storage: Storage) -> Result<Repository> {
    Repository::on(storage).map_err(was_there)
}

/// A server archives where a repository was: when there is none, it is away. One that is made in its place, below its
/// mount point, would hide that.
pub fn was_there(error: Error) -> Error {
    let hint = "It was there before: mount it or bring it back. The server keeps its WAL until it is stored.";
    catalog::absent(error, hint)
}

/// Fails unless the repository is still the one that was opened: a disk that was unmounted leaves an empty folder,
/// which must not be filled.
///
/// # Errors
/// `RepositoryNotFound`; what the store said.
pub fn check_repository(repository: &Repository) -> Result<()> {
    let url = repository.storage().url();
    let now = open_repository(repository.storage().clone())?;
    if now.id() == repository.id() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::RepositoryNotFound,
        format!(
            "repository \"{url}\" was replaced by another: its id was {}, now {}",
            repository.id(),
            now.id()
        ),
    ))
}

/// Removes an object that was created where there is no repository any more, and folders that hold nothing else.
pub(super) fn remove_from_nowhere(storage: &Storage, path: &str) {
    // What cannot be removed stays and is seen by whoever uses the place next.
    let _ = storage.delete(path);
    storage.remove_remains(path);
}

/// A panic in a thread must not leave others waiting for ever.
fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "a thread that stores WAL panicked")))
}

#[cfg(test)]
#[path = "ahead_tests.rs"]
mod tests;
