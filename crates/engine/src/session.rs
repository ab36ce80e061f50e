//! The engine's end of the conversation with the server: events out, replies in, and the order to stop.
//!
//! Whoever reads stdin calls [`Session::deliver`] and [`Session::stop`]; every loop of the engine calls
//! [`Session::check`], so that a stop acts within one frame.

use pg_ark_contract::conversation::{Event, Need, Reply};
use pg_ark_contract::{Bytes, Error, ErrorKind, Lsn, Result, Timeline};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most warnings remembered.
const MAX_WARNINGS: usize = 100;

/// One conversation.
pub struct Session {
    emit: Box<dyn Fn(Event) + Send + Sync>,
    inbox: Mutex<Inbox>,
    arrived: Condvar,
    stopped: AtomicBool,
}

#[derive(Default)]
struct Inbox {
    started: Option<(Lsn, Timeline)>,
    flushed: Option<(Lsn, Timeline)>,
    backup_stopped: Option<BackupStopped>,
    files: VecDeque<String>,
    max_rate: Option<u64>,
    stop: Option<Error>,
    warnings: Vec<String>,
}

/// What pg_backup_stop returned.
#[derive(Debug, Clone, PartialEq)]
pub struct BackupStopped {
    /// WAL up to here makes the backup consistent.
    pub stop_lsn: Lsn,
    /// The server's timeline.
    pub timeline: Timeline,
    /// Content of `backup_label`.
    pub backup_label: Bytes,
    /// Content of `tablespace_map`.
    pub tablespace_map: Bytes,
}

/// How far WAL is known to be finished.
#[derive(Debug, Clone, PartialEq)]
pub struct WalState {
    /// Durable up to here.
    pub flushed: Option<Lsn>,
    /// The server's timeline, when known.
    pub timeline: Option<Timeline>,
    /// Set when pg_backup_stop returned: nothing after it is needed.
    pub stop_lsn: Option<Lsn>,
}

impl Session {
    /// `emit` sends an event to the server; it must not block for long.
    pub fn new(emit: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Session {
            emit: Box::new(emit),
            inbox: Mutex::new(Inbox::default()),
            arrived: Condvar::new(),
            stopped: AtomicBool::new(false),
        }
    }

    /// Sends an event.
    pub fn emit(&self, event: Event) {
        (self.emit)(event);
    }

    /// Sends a warning and remembers it for the record.
    pub fn warn(&self, message: impl Into<String>, hint: Option<String>) {
        let message = message.into();
        let mut inbox = self.lock();
        if inbox.warnings.len() < MAX_WARNINGS {
            inbox.warnings.push(message.clone());
        }
        drop(inbox);
        self.emit(Event::Warning { message, hint });
    }

    /// The first warnings so far.
    pub fn warnings(&self) -> Vec<String> {
        self.lock().warnings.clone()
    }

    /// Takes a reply from the server.
    pub fn deliver(&self, reply: Reply) {
        let mut inbox = self.lock();
        match reply {
            Reply::BackupStarted { start_lsn, timeline } => inbox.started = Some((start_lsn, timeline)),
            Reply::WalFlushed { lsn, timeline } => inbox.flushed = Some((lsn, timeline)),
            Reply::BackupStopped { stop_lsn, timeline, backup_label, tablespace_map } => {
                inbox.backup_stopped =
                    Some(BackupStopped { stop_lsn, timeline, backup_label, tablespace_map });
            }
            Reply::MaxRate { bytes } => inbox.max_rate = Some(bytes),
            Reply::Archive { file } => inbox.files.push_back(file),
            Reply::Stop { reason } => {
                drop(inbox);
                self.stop(Error::new(ErrorKind::Cancelled, reason));
                return;
            }
        }
        self.arrived.notify_all();
    }

    /// Orders everything to stop; the first reason counts.
    pub fn stop(&self, reason: Error) {
        self.lock().stop.get_or_insert(reason);
        self.stopped.store(true, Ordering::Release);
        self.arrived.notify_all();
    }

    /// # Errors
    /// The reason, once the work was ordered to stop.
    pub fn check(&self) -> Result<()> {
        if !self.stopped.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(self
            .lock()
            .stop
            .clone()
            .unwrap_or_else(|| Error::new(ErrorKind::Cancelled, "the work was stopped")))
    }

    /// The rate that the server has set since the work began, in bytes per second.
    pub fn max_rate(&self) -> Option<u64> {
        self.lock().max_rate
    }

    /// Sleeps as [`Session::pause`] does, but no longer than the rate is `rate`.
    ///
    /// # Errors
    /// When ordered to stop.
    pub fn pause_at_rate(&self, rate: Option<u64>, duration: Duration) -> Result<()> {
        self.pause_while(duration, |inbox| inbox.max_rate == rate)
    }

    /// Asks the server to start backup mode and waits for it.
    ///
    /// # Errors
    /// When ordered to stop.
    pub fn start_backup(&self) -> Result<(Lsn, Timeline)> {
        self.emit(Event::Need(Need::BackupStart));
        self.wait(|inbox| inbox.started)
    }

    /// Asks the server to end backup mode and waits for it.
    ///
    /// # Errors
    /// When ordered to stop.
    pub fn stop_backup(&self) -> Result<BackupStopped> {
        self.emit(Event::Need(Need::BackupStop));
        self.wait(|inbox| inbox.backup_stopped.clone())
    }

    /// Waits until WAL is durable up to `lsn`, or pg_backup_stop has returned.
    ///
    /// # Errors
    /// When ordered to stop.
    pub fn wait_for_wal(&self, lsn: Lsn) -> Result<WalState> {
        self.wait(|inbox| {
            let state = WalState {
                flushed: inbox.flushed.map(|(lsn, _)| lsn),
                timeline: match &inbox.backup_stopped {
                    Some(stopped) => Some(stopped.timeline),
                    None => inbox.flushed.map(|(_, timeline)| timeline),
                },
                stop_lsn: inbox.backup_stopped.as_ref().map(|s| s.stop_lsn),
            };
            (state.stop_lsn.is_some() || state.flushed >= Some(lsn)).then_some(state)
        })
    }

    /// The next file that the archiver asks for, in the order of asking.
    ///
    /// # Errors
    /// When ordered to stop.
    pub fn next_file(&self) -> Result<String> {
        let mut inbox = self.lock();
        loop {
            if let Some(reason) = &inbox.stop {
                return Err(reason.clone());
            }
            if let Some(file) = inbox.files.pop_front() {
                return Ok(file);
            }
            inbox = self.arrived.wait(inbox).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Sleeps, but ends at once when ordered to stop.
    ///
    /// # Errors
    /// When ordered to stop.
    pub fn pause(&self, duration: Duration) -> Result<()> {
        self.pause_while(duration, |_| true)
    }

    fn pause_while(&self, duration: Duration, goes_on: impl Fn(&Inbox) -> bool) -> Result<()> {
        let until = Instant::now() + duration;
        let mut inbox = self.lock();
        loop {
            if let Some(reason) = &inbox.stop {
                return Err(reason.clone());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || !goes_on(&inbox) {
                return Ok(());
            }
            inbox = self.arrived.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn wait<T>(&self, ready: impl Fn(&Inbox) -> Option<T>) -> Result<T> {
        let mut inbox = self.lock();
        loop {
            if let Some(reason) = &inbox.stop {
                return Err(reason.clone());
            }
            if let Some(value) = ready(&inbox) {
                return Ok(value);
            }
            inbox = self.arrived.wait(inbox).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
