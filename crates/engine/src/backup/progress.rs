//! How far a backup is, told to the server a few times per second; and how fast it may go.

use super::rate::Rate;
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
    /// Bytes per second, until the server says otherwise.
    max_rate: u64,
    rate: Mutex<Rate>,
    began: Instant,
}

impl<'a> Progress<'a> {
    /// `max_rate` is in bytes per second, 0 for no limit.
    pub fn new(session: &'a Session, total: u64, total_tablespaces: u32, max_rate: u64) -> Self {
        Progress {
            session,
            total,
            total_tablespaces,
            done: AtomicU64::new(0),
            done_tablespaces: AtomicU32::new(0),
            last: Mutex::new(None),
            max_rate,
            rate: Mutex::new(Rate::new(max_rate, Duration::ZERO)),
            began: Instant::now(),
        }
    }

    /// Waits until bytes may be read, and says how many: at least one of those that are `wanted`.
    ///
    /// # Errors
    /// When ordered to stop.
    pub fn admit(&self, wanted: u64) -> Result<u64> {
        let place = self.at_rate(|rate, now| rate.enter(wanted, now)).0;
        loop {
            match self.at_rate(|rate, now| rate.wait(&place, now)) {
                (None, _) => return Ok(place.bytes),
                (Some(wait), limit) => self.session.pause_at_rate(limit, wait)?,
            }
        }
    }

    /// Works on the rate as the server wants it now; gives what the server said last, too.
    fn at_rate<T>(&self, work: impl FnOnce(&mut Rate, Duration) -> T) -> (T, Option<u64>) {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = self.session.max_rate();
        let now = self.began.elapsed();
        rate.change(limit.unwrap_or(self.max_rate), now);
        (work(&mut rate, now), limit)
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

#[cfg(test)]
mod tests {
    use super::*;
    use pg_ark_contract::ErrorKind;
    use pg_ark_contract::conversation::Reply;
    use std::sync::mpsc::channel;

    #[test]
    fn those_who_wait_hear_of_a_change_and_of_the_end() {
        let session = Session::new(|_| {});
        // So little that the second byte would wait for hours.
        let progress = Progress::new(&session, 0, 1, 1);
        progress.admit(1 << 20).unwrap();
        let (done, results) = channel();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| done.send(progress.admit(1 << 20)).unwrap());
            }
            assert!(results.try_recv().is_err());
            session.deliver(Reply::MaxRate { bytes: 0 });
            for _ in 0..3 {
                // All that is wanted, for those who came after the change.
                assert!([8 << 10, 1 << 20].contains(&results.recv().unwrap().unwrap()));
            }
            session.deliver(Reply::MaxRate { bytes: 1 });
            progress.admit(1).unwrap();
            progress.admit(1 << 20).unwrap();
            scope.spawn(|| done.send(progress.admit(1 << 20)).unwrap());
            session.deliver(Reply::Stop { reason: "enough".into() });
            let error = results.recv().unwrap().unwrap_err();
            assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Cancelled, "enough"));
        });
    }
}
