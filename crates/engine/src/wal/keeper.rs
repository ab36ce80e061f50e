//! Keeps the index of what is stored (`index.jsonl`), in batches and beside the storing: it saves time later and may
//! cost none now. What it cannot write is a warning, once, and nothing else.

use super::ahead::{Route, check_repository, remove_from_nowhere};
use super::archive::Archive;
use super::completion::Round;
use super::index::Index;
use super::index_line::FileFacts;
use super::store::Outcome;
use super::summary::Summary;
use crate::postgres::wal_segment::SegmentName;
use crate::session::Session;
use pg_ark_contract::{Error, ErrorKind, Result, SegmentSize};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;
use std::time::{Duration, Instant};

/// Segments after which the index is written, at the latest.
const BATCH: usize = 32;
/// Time without another segment after which it is written.
const QUIET: Duration = Duration::from_secs(1);
/// Time after which what was entered is written, whatever else comes.
const LATEST: Duration = Duration::from_secs(2);
/// Time without anything to do after which indexes are looked at again: one may have been lost or damaged.
const AGAIN: Duration = Duration::from_secs(3600);

/// The keeper of one archive's index.
pub struct Keeper<'a> {
    route: &'a Route,
    pub(super) archive: &'a Archive,
    pub(super) size: SegmentSize,
    state: Mutex<State>,
    changed: Condvar,
    closed: AtomicBool,
    warned: AtomicBool,
}

#[derive(Default)]
struct State {
    entered: Vec<Entered>,
    /// When the oldest of them was.
    since: Option<Instant>,
    /// What a writer that was killed did not write is to be looked for.
    complete: bool,
}

/// What an index is to say, and which.
pub(super) struct Entered {
    pub(super) path: String,
    pub(super) content: Content,
}

pub(super) enum Content {
    Segment(SegmentName, Box<Summary>),
    File(String, FileFacts),
}

impl<'a> Keeper<'a> {
    /// For what goes this way. No thread runs yet.
    pub fn new(route: &'a Route) -> Self {
        Keeper {
            route,
            archive: &route.archive,
            size: route.source.segment_size,
            state: Mutex::default(),
            changed: Condvar::new(),
            closed: AtomicBool::new(false),
            warned: AtomicBool::new(false),
        }
    }

    /// Starts the thread that writes. Warnings go to `session`.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        session: &'scope Session,
    ) -> Result<()> {
        std::thread::Builder::new()
            .name("index".into())
            .spawn_scoped(scope, || self.work(session))
            .map(drop)
            .map_err(|e| Error::io("could not start a thread", &e))
    }

    /// Remembers a file that was stored.
    pub fn enter(&self, name: &str, outcome: &Outcome) {
        let segment = || {
            let summary = outcome.summary.as_ref()?;
            Some(Content::Segment(SegmentName::parse(name, self.size)?, Box::new(summary.clone())))
        };
        let file = || Some(Content::File(name.to_string(), outcome.file?));
        let (Some(content), Ok(path)) = (segment().or_else(file), self.archive.index_beside(name)) else {
            return;
        };
        let mut state = self.lock();
        state.since.get_or_insert_with(Instant::now);
        state.entered.push(Entered { path, content });
        drop(state);
        self.changed.notify_all();
    }

    /// Looks for lines about segments that indexes lack, when there is nothing better to do.
    pub fn complete(&self) {
        self.lock().complete = true;
        self.changed.notify_all();
    }

    /// Lets the thread write what is left, and end.
    pub fn close(&self) {
        let state = self.lock();
        self.closed.store(true, Ordering::Release);
        drop(state);
        self.changed.notify_all();
    }

    fn work(&self, session: &Session) {
        let warn = |result: Result<()>| {
            // That a repository vanished is told for each file that is not stored.
            if let Err(e) = result
                && e.kind != ErrorKind::RepositoryNotFound
                && !self.warned.swap(true, Ordering::Relaxed)
            {
                let hint = "The archive is complete without it; only looking for times in it takes longer.";
                session.warn(format!("could not write an index of the WAL archive: {e}"), Some(hint.into()));
            }
        };
        let mut round = Round::default();
        while let Some((batch, complete)) = self.next_batch() {
            warn(self.write(batch));
            if complete {
                warn(round.go_on(self));
            }
        }
    }

    /// What is to be written now; `None` at the end.
    fn next_batch(&self) -> Option<(Vec<Entered>, bool)> {
        let mut state = self.lock();
        loop {
            let count = state.entered.len();
            let closed = self.is_closed();
            if closed && count == 0 {
                return None;
            }
            let late = state.since.is_some_and(|since| since.elapsed() >= LATEST);
            let folders = state.entered.windows(2).any(|pair| matches!(pair, [a, b] if a.path != b.path));
            let due = count >= BATCH || folders || late || closed;
            if !due && count == 0 && !state.complete {
                let (after, timeout) =
                    self.changed.wait_timeout(state, AGAIN).unwrap_or_else(PoisonError::into_inner);
                state = after;
                state.complete |= timeout.timed_out();
                continue;
            }
            if !due {
                let (after, timeout) =
                    self.changed.wait_timeout(state, QUIET).unwrap_or_else(PoisonError::into_inner);
                state = after;
                if !timeout.timed_out() || state.entered.len() > count {
                    continue;
                }
            }
            let complete = !due && std::mem::take(&mut state.complete);
            state.since = None;
            return Some((std::mem::take(&mut state.entered), complete));
        }
    }

    pub(super) fn write(&self, batch: Vec<Entered>) -> Result<()> {
        let mut folders: BTreeMap<String, Vec<Content>> = BTreeMap::new();
        for Entered { path, content } in batch {
            folders.entry(path).or_default().push(content);
        }
        let mut written = Ok(());
        for (path, contents) in folders {
            let mut index = self.load(&path)?;
            let mut is_new = false;
            for content in contents {
                is_new |= match content {
                    Content::File(name, facts) => index.insert_file(&name, facts),
                    Content::Segment(name, summary) => {
                        index.insert(name, *summary);
                        true
                    }
                };
            }
            if is_new {
                written = written.and(self.save(&index, &path));
            }
        }
        written
    }

    /// Writes the index, unless the repository is gone: where it was there must be no folders.
    pub(super) fn save(&self, index: &Index, path: &str) -> Result<()> {
        check_repository(&self.route.repository)?;
        index.save(self.archive.storage(), path)?;
        check_repository(&self.route.repository).inspect_err(|e| {
            if e.kind == ErrorKind::RepositoryNotFound {
                remove_from_nowhere(self.archive.storage(), path);
            }
        })
    }

    /// The index at `path`; a damaged one is made anew.
    pub(super) fn load(&self, path: &str) -> Result<Index> {
        match Index::load(self.archive.storage(), path, self.size) {
            Err(e) if e.kind == ErrorKind::Corrupt => {
                self.archive.storage().delete(path)?;
                Index::load(self.archive.storage(), path, self.size)
            }
            loaded => loaded,
        }
    }

    /// Whether there is something better to do than to complete indexes. They are completed later then.
    pub(super) fn is_disturbed(&self) -> bool {
        let mut state = self.lock();
        let disturbed = !state.entered.is_empty();
        state.complete |= disturbed;
        disturbed || self.is_closed()
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
