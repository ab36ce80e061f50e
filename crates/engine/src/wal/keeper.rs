//! Keeps the index of what is stored (`index.jsonl`), in batches and beside the storing: it saves time later and may
//! cost none now. What it cannot write is a warning, once, and nothing else.

use super::ahead::{Route, check_repository, remove_from_nowhere};
use super::archive::Archive;
use super::index::Index;
use super::summary::{Summarizer, Summary};
use crate::postgres::wal_segment::{ExpectedSegment, SegmentName};
use crate::session::Session;
use pg_ark_contract::{Error, ErrorKind, Result, SegmentSize, Timeline};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;
use std::time::Duration;

/// Segments after which the index is written, at the latest.
const BATCH: usize = 32;
/// Time without another segment after which it is written.
const QUIET: Duration = Duration::from_secs(1);
/// Most segments that are read to complete the index of a writer that was killed.
const COMPLETED: usize = 16;

/// The keeper of one archive's index.
pub struct Keeper<'a> {
    route: &'a Route,
    archive: &'a Archive,
    size: SegmentSize,
    state: Mutex<State>,
    changed: Condvar,
    closed: AtomicBool,
    warned: AtomicBool,
}

#[derive(Default)]
struct State {
    entered: Vec<(SegmentName, Summary)>,
    /// What a writer that was killed did not write is to be looked for.
    complete: bool,
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

    /// Remembers what a segment holds that was stored.
    pub fn enter(&self, name: SegmentName, summary: Summary) {
        self.lock().entered.push((name, summary));
        self.changed.notify_all();
    }

    /// Looks for lines that the newest folder's index lacks, when there is nothing better to do.
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
        while let Some((batch, complete)) = self.next_batch() {
            warn(self.write(batch));
            if complete {
                warn(self.complete_newest());
            }
        }
    }

    /// What is to be written now; `None` at the end.
    fn next_batch(&self) -> Option<(Vec<(SegmentName, Summary)>, bool)> {
        let mut state = self.lock();
        loop {
            let count = state.entered.len();
            let closed = self.is_closed();
            if closed && count == 0 {
                return None;
            }
            let due = count >= BATCH || self.folders(&state) > 1 || closed;
            if !due && count == 0 && !state.complete {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
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
            return Some((std::mem::take(&mut state.entered), complete));
        }
    }

    fn folders(&self, state: &State) -> usize {
        let mut folders: Vec<(Timeline, u32)> =
            state.entered.iter().map(|(name, _)| self.folder(*name)).collect();
        folders.dedup();
        folders.len()
    }

    /// Timeline and log of the folder that a segment is in.
    fn folder(&self, name: SegmentName) -> (Timeline, u32) {
        (name.timeline, (name.start(self.size).0 >> 32) as u32)
    }

    fn write(&self, mut batch: Vec<(SegmentName, Summary)>) -> Result<()> {
        batch.sort_by_key(|(name, _)| *name);
        let mut written = Ok(());
        for group in batch.chunk_by(|(a, _), (b, _)| self.folder(*a) == self.folder(*b)) {
            let Some((first, _)) = group.first() else { continue };
            let (timeline, log) = self.folder(*first);
            let path = self.archive.index_path(timeline, log);
            let mut index = self.load(&path)?;
            for (name, summary) in group {
                index.insert(*name, summary.clone());
            }
            written = written.and(self.save(&index, &path));
        }
        written
    }

    /// Writes the index, unless the repository is gone: where it was there must be no folders.
    fn save(&self, index: &Index, path: &str) -> Result<()> {
        check_repository(&self.route.repository)?;
        index.save(self.archive.storage(), path)?;
        check_repository(&self.route.repository).inspect_err(|e| {
            if e.kind == ErrorKind::RepositoryNotFound {
                remove_from_nowhere(self.archive.storage(), path);
            }
        })
    }

    /// The index at `path`; a damaged one is made anew.
    fn load(&self, path: &str) -> Result<Index> {
        match Index::load(self.archive.storage(), path, self.size) {
            Err(e) if e.kind == ErrorKind::Corrupt => {
                self.archive.storage().delete(path)?;
                Index::load(self.archive.storage(), path, self.size)
            }
            loaded => loaded,
        }
    }

    /// Enters the newest segments of the newest folder that its index lacks.
    fn complete_newest(&self) -> Result<()> {
        let Some(timeline) = self.archive.timelines()?.pop() else { return Ok(()) };
        let Some(log) = self.archive.logs(timeline)?.pop() else { return Ok(()) };
        let index = self.load(&self.archive.index_path(timeline, log))?;
        let mut found = Vec::new();
        for low in self.archive.list(timeline, log)?.segments.into_iter().rev().take(COMPLETED) {
            let name = format!("{:08X}{log:08X}{low:08X}", timeline.0);
            let Some(name) = SegmentName::parse(&name, self.size) else { continue };
            if self.is_closed() {
                break;
            }
            // A segment that cannot be read is for verify-archive to tell.
            if index.get(name.number).is_none()
                && let Ok(Some(summary)) = self.read(name)
            {
                found.push((name, summary));
            }
        }
        if found.is_empty() { Ok(()) } else { self.write(found) }
    }

    fn read(&self, name: SegmentName) -> Result<Option<Summary>> {
        let Some(found) = self.archive.find(&name.file_name(self.size))? else { return Ok(None) };
        let expected = ExpectedSegment {
            name,
            segment_size: self.size,
            system_identifier: self.archive.system_identifier(),
            server_major: None,
        };
        let mut summarizer = Summarizer::new(name, self.size);
        self.archive.read_segment(&found, &expected, &mut |piece| {
            summarizer.feed(piece);
            Ok(())
        })?;
        Ok(Some(summarizer.finish()))
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
