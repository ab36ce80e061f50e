//! How far a backup is, told to the server a few times per second; and how fast it may go.

use crate::session::Session;
use pg_ark_contract::Result;
use pg_ark_contract::conversation::{Event, Phase};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two progress events.
const EVERY: Duration = Duration::from_millis(250);

/// Counts what is done.
pub struct Progress<'a> {
    session: &'a Session,
    total: u64,
    total_tablespaces: u32,
    done: AtomicU64,
    done_tablespaces: AtomicU32,
    last: Mutex<Option<Instant>>,
    rate: Option<Rate>,
}

struct Rate {
    bytes_per_second: u64,
    next: Mutex<Instant>,
}

impl<'a> Progress<'a> {
    /// `max_rate` is in bytes per second, 0 for no limit.
    pub fn new(session: &'a Session, total: u64, total_tablespaces: u32, max_rate: u64) -> Self {
        let rate =
            (max_rate > 0).then(|| Rate { bytes_per_second: max_rate, next: Mutex::new(Instant::now()) });
        Progress {
            session,
            total,
            total_tablespaces,
            done: AtomicU64::new(0),
            done_tablespaces: AtomicU32::new(0),
            last: Mutex::new(None),
            rate,
        }
    }

    /// Waits until `bytes` may be read.
    ///
    /// # Errors
    /// When ordered to stop.
    pub fn admit(&self, bytes: u64) -> Result<()> {
        let Some(rate) = &self.rate else { return Ok(()) };
        let wait = {
            let mut next = rate.next.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let start = (*next).max(now);
            *next = start + Duration::from_secs_f64(bytes as f64 / rate.bytes_per_second as f64);
            start - now
        };
        if wait.is_zero() { Ok(()) } else { self.session.pause(wait) }
    }

    /// Adds bytes of source data.
    pub fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|at| at.elapsed() >= EVERY) {
            *last = Some(Instant::now());
            drop(last);
            self.tell(Phase::Copy);
        }
    }

    /// Counts a tablespace as done.
    pub fn tablespace_done(&self) {
        self.done_tablespaces.fetch_add(1, Ordering::Relaxed);
        self.tell(Phase::Copy);
    }

    /// Tells the server now.
    pub fn tell(&self, phase: Phase) {
        self.session.emit(Event::Progress {
            phase,
            done_bytes: self.done.load(Ordering::Relaxed),
            total_bytes: self.total,
            done_tablespaces: self.done_tablespaces.load(Ordering::Relaxed),
            total_tablespaces: self.total_tablespaces,
        });
    }
}
