//! Fetches ahead of a running recovery, in a process of its own, so that `wal-get` finds the next segment in the spool.
//!
//! What: workers fetch the segments behind the one that was asked for last, on its timeline, into the spool, which never
//! holds more than its bound. Who asks tells so through the spool's fifo, and wakes the workers.
//! Why a process: restore_command runs once for each file; threads would end with it.
//! Rejected: going on to the next timeline, which only PostgreSQL can decide.
//!
//! It decides nothing: a segment that is not there, a fault or a full disk only end its work, and `wal-get` asks the
//! repository itself. It ends, and removes the spool, when nobody asked for [`IDLE`], when the postmaster is gone, and when
//! recovery is over.

use super::archive::Archive;
use super::get::history_of;
use super::spool::{Filling, Part, Recovery, Spool};
use crate::postgres::timeline::TimelineHistory;
use crate::postgres::wal_segment::{ExpectedSegment, SegmentName};
use crate::repository::Cluster;
use pg_ark_contract::{Error, ErrorKind, Result, Timeline};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Nobody asked for so long: a standby that streams, or a recovery that waits.
const IDLE: Duration = Duration::from_secs(30);

/// What is fetched ahead, for whom.
#[derive(Debug, Clone)]
pub struct Ahead {
    /// The data directory.
    pub data: PathBuf,
    /// Its recovery.
    pub recovery: Recovery,
    /// Where to.
    pub spool: Spool,
    /// The segment that was asked for, and what every segment must be.
    pub asked: ExpectedSegment,
    /// Most bytes in the spool.
    pub bytes: u64,
    /// Segments fetched at the same time.
    pub jobs: usize,
}

/// A repository's UUID and a cluster in it.
pub type Opened = (String, Cluster);

/// Fetches ahead until recovery is over.
///
/// # Errors
/// What kept it from beginning, or ended it. Nobody needs to hear: the segments are asked for again.
pub fn run(ahead: &Ahead, open: &(dyn Fn() -> Result<Opened> + Sync)) -> Result<()> {
    let Some(filling) = ahead.spool.fill()? else { return Ok(()) };
    let fifo = filling.listen()?;
    let watch = Watch::begin(ahead)?;
    let (id, _) = open()?;
    let work = Work {
        ahead,
        filling: &filling,
        open,
        repository: id,
        state: Mutex::new(State::new(ahead.asked.name)),
        changed: Condvar::new(),
        history: Mutex::new(None),
    };
    work.adopt();
    std::thread::scope(|scope| {
        for _ in 0..ahead.jobs.max(1) {
            scope.spawn(|| work.run());
        }
        let ended = work.listen(fifo, &watch);
        work.end();
        ended
    })
}

/// What the workers share.
struct State {
    asked: SegmentName,
    /// Complete segments, by number.
    done: BTreeSet<u64>,
    /// Segments that are being fetched.
    flying: BTreeSet<u64>,
    /// The first segment that is not there, or could not be had; until somebody asks again.
    barrier: Option<u64>,
    ended: bool,
}

impl State {
    fn new(asked: SegmentName) -> Self {
        State { asked, done: BTreeSet::new(), flying: BTreeSet::new(), barrier: None, ended: false }
    }
}

struct Work<'a> {
    ahead: &'a Ahead,
    filling: &'a Filling,
    open: &'a (dyn Fn() -> Result<Opened> + Sync),
    repository: String,
    state: Mutex<State>,
    changed: Condvar,
    history: Mutex<Option<Arc<TimelineHistory>>>,
}

impl Work<'_> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Segments that the spool may hold.
    fn window(&self) -> u64 {
        self.ahead.bytes / self.ahead.asked.segment_size.bytes()
    }

    fn file_name(&self, name: SegmentName) -> String {
        name.file_name(self.ahead.asked.segment_size)
    }

    /// Keeps what a process that died had fetched for the same recovery.
    fn adopt(&self) {
        let mut state = self.state();
        for name in self.filling.found() {
            match SegmentName::parse(&name, self.ahead.asked.segment_size) {
                Some(found) if found.timeline == state.asked.timeline => {
                    state.done.insert(found.number);
                }
                _ => self.filling.remove(&name),
            }
        }
        self.drop_others(&mut state);
    }

    /// Removes what is not ahead of the asked segment, or too far.
    fn drop_others(&self, state: &mut State) {
        let asked = state.asked;
        let last = asked.number.saturating_add(self.window());
        state.done.retain(|&number| {
            let keep = (asked.number..=last).contains(&number);
            if !keep {
                self.filling.remove(&self.file_name(SegmentName { number, ..asked }));
            }
            keep
        });
    }

    /// Somebody asked for a segment.
    fn ask(&self, name: SegmentName) {
        let mut state = self.state();
        if name.timeline != state.asked.timeline {
            for number in std::mem::take(&mut state.done) {
                self.filling.remove(&self.file_name(SegmentName { number, ..state.asked }));
            }
        }
        state.asked = name;
        state.barrier = None;
        // It was taken before this was told; or it could not be used.
        if state.done.remove(&name.number) {
            self.filling.remove(&self.file_name(name));
        }
        self.drop_others(&mut state);
        drop(state);
        self.changed.notify_all();
    }

    fn end(&self) {
        self.state().ended = true;
        self.changed.notify_all();
    }

    fn run(&self) {
        while let Some((name, part)) = self.next() {
            let result = self.fetch(name, part);
            let mut state = self.state();
            state.flying.remove(&name.number);
            if result.is_ok() && name.timeline == state.asked.timeline {
                state.done.insert(name.number);
                self.drop_others(&mut state);
            } else if result.is_ok() {
                self.filling.remove(&self.file_name(name));
            } else if name.timeline == state.asked.timeline && name.number > state.asked.number {
                // What was passed meanwhile stands in nobody's way.
                let first = state.barrier.map_or(name.number, |barrier| barrier.min(name.number));
                state.barrier = Some(first);
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    /// The next segment to fetch, begun; waits for one. `None` at the end.
    fn next(&self) -> Option<(SegmentName, Part)> {
        let mut state = self.state();
        loop {
            if state.ended {
                return None;
            }
            if let Some(number) = self.candidate(&state) {
                let name = SegmentName { number, ..state.asked };
                match self.filling.begin(&self.file_name(name)) {
                    Ok(part) => {
                        state.flying.insert(number);
                        return Some((name, part));
                    }
                    Err(_) => state.barrier = Some(number),
                }
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn candidate(&self, state: &State) -> Option<u64> {
        let held = state.done.union(&state.flying).count() as u64;
        let first = state.asked.number.saturating_add(1);
        let number = (first..first.saturating_add(self.window()))
            .find(|number| !state.done.contains(number) && !state.flying.contains(number))?;
        let size = self.ahead.asked.segment_size;
        let wanted = held < self.window()
            && state.barrier.is_none_or(|barrier| number < barrier)
            && self.ahead.spool.has_room(state.flying.len() as u64 + 1, size);
        wanted.then_some(number)
    }

    fn fetch(&self, name: SegmentName, mut part: Part) -> Result<()> {
        let (id, cluster) = (self.open)()?;
        if id != self.repository {
            self.end();
            return Err(Error::new(ErrorKind::RepositoryNotFound, "the repository is another one"));
        }
        let expected = ExpectedSegment { name, ..self.ahead.asked };
        let archive = Archive::of(&cluster, expected.system_identifier);
        let missing = || Error::new(ErrorKind::WalMissing, "there is no such segment");
        let found = archive.find(&self.file_name(name))?.ok_or_else(missing)?;
        let history = self.history(&archive, name.timeline)?;
        archive.read_segment_on(&found, &expected, history.as_deref(), &mut |piece| {
            let state = self.state();
            if state.ended || state.asked.timeline != name.timeline {
                return Err(Error::new(ErrorKind::Cancelled, "nobody wants the segment any more"));
            }
            drop(state);
            part.write(piece)
        })?;
        part.finish()
    }

    /// The history of a timeline, looked for once: whoever is handed a segment from the spool does not look at it again.
    fn history(&self, archive: &Archive, timeline: Timeline) -> Result<Option<Arc<TimelineHistory>>> {
        let mut known = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(history) = known.as_ref().filter(|history| history.timeline == timeline) {
            return Ok(Some(Arc::clone(history)));
        }
        let history = history_of(archive, &self.ahead.data, timeline)?.map(Arc::new);
        known.clone_from(&history);
        Ok(history)
    }

    /// Hears who asks, until recovery is over.
    fn listen(&self, mut fifo: File, watch: &Watch) -> Result<()> {
        let mut asked = Instant::now();
        let mut heard = Vec::new();
        loop {
            let Some(left) = IDLE.checked_sub(asked.elapsed()) else { return Ok(()) };
            if !watch.wait(&fifo, left)?
                || Recovery::of(&self.ahead.data).as_ref() != Some(&self.ahead.recovery)
            {
                return Ok(());
            }
            let mut bytes = [0; 4096];
            match fifo.read(&mut bytes) {
                Ok(count) => heard.extend_from_slice(bytes.get(..count).unwrap_or_default()),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::io("could not read the spool's fifo", &e)),
            }
            if let Some(name) = last_name(&mut heard, self.ahead.asked.segment_size) {
                if !self.ahead.spool.has_room(0, self.ahead.asked.segment_size) {
                    return Ok(());
                }
                asked = Instant::now();
                self.ask(name);
            }
        }
    }
}

/// The last whole name that was heard; what follows it stays.
fn last_name(heard: &mut Vec<u8>, size: pg_ark_contract::SegmentSize) -> Option<SegmentName> {
    let end = heard.iter().rposition(|byte| *byte == b'\n')?;
    let rest = heard.split_off(end + 1);
    let lines = std::mem::replace(heard, rest);
    let text = String::from_utf8_lossy(&lines);
    text.lines().rev().find_map(|line| SegmentName::parse(line, size))
}

/// What ends the work besides silence.
struct Watch {
    postmaster: OwnedFd,
    signals: OwnedFd,
}

impl Watch {
    fn begin(ahead: &Ahead) -> Result<Self> {
        let failed = |e: rustix::io::Errno| Error::io("could not watch the server", &e.into());
        let gone = || Error::new(ErrorKind::ParentGone, "the recovery is over");
        let pid = Pid::from_raw(ahead.recovery.postmaster).ok_or_else(gone)?;
        let postmaster = pidfd_open(pid, PidfdFlags::empty()).map_err(failed)?;
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let signals = inotify::init(flags).map_err(failed)?;
        let removed = inotify::WatchFlags::DELETE | inotify::WatchFlags::MOVED_FROM;
        inotify::add_watch(&signals, &ahead.data, removed).map_err(failed)?;
        // The number may be another process's by now.
        if Recovery::of(&ahead.data).as_ref() != Some(&ahead.recovery) {
            return Err(gone());
        }
        Ok(Watch { postmaster, signals })
    }

    /// Waits for something to hear, for a file that is removed from the data directory, or for `limit`. False when the
    /// postmaster is gone.
    fn wait(&self, fifo: &File, limit: Duration) -> Result<bool> {
        let mut fds = [
            PollFd::new(fifo, PollFlags::IN),
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.postmaster, PollFlags::IN),
        ];
        let limit = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: limit.subsec_nanos().into() };
        match poll(&mut fds, Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Error::io("could not wait for the server", &e.into())),
        }
        let [_, signals, postmaster] = &fds;
        if !signals.revents().is_empty() {
            // What was removed does not matter: the files that do are looked at.
            let _ = rustix::io::read(&self.signals, &mut [0_u8; 4096][..]);
        }
        Ok(postmaster.revents().is_empty())
    }
}

#[cfg(test)]
#[path = "prefetch_tests.rs"]
mod tests;
