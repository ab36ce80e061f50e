//! Tells the server how much of the reading is done: a few times per second, and when all of it is.

use super::Watch;
use crate::session::Session;
use pg_ark_contract::Result;
use pg_ark_contract::conversation::Event;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time between two events, at the least.
const EVERY: Duration = Duration::from_millis(300);

/// A conversation that hears about progress.
pub struct Telling<'a> {
    session: &'a Session,
    state: Mutex<State>,
}

struct State {
    done: u64,
    total: u64,
    told: Instant,
}

impl<'a> Telling<'a> {
    /// Nothing read yet.
    pub fn new(session: &'a Session) -> Self {
        Telling { session, state: Mutex::new(State { done: 0, total: 0, told: Instant::now() }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, state: &State) {
        let total_bytes = state.total.max(state.done);
        self.session.emit(Event::Verified { done_bytes: state.done, total_bytes });
    }
}

impl Watch for Telling<'_> {
    fn check(&self) -> Result<()> {
        self.session.check()
    }

    fn total(&self, bytes: u64) {
        let mut state = self.lock();
        state.total = state.total.saturating_add(bytes);
        self.tell(&state);
    }

    fn advance(&self, bytes: u64) {
        let mut state = self.lock();
        state.done = state.done.saturating_add(bytes);
        if state.told.elapsed() >= EVERY {
            state.told = Instant::now();
            self.tell(&state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn progress_is_told_and_seldom() {
        let heard: Arc<Mutex<Vec<Event>>> = Arc::default();
        let ear = Arc::clone(&heard);
        let session = Session::new(move |event| ear.lock().unwrap().push(event));
        let telling = Telling::new(&session);
        telling.total(100);
        telling.total(20);
        (0..1000).for_each(|_| telling.advance(1));
        let told = heard.lock().unwrap().len();
        assert!(told < 100, "{told} events");
        telling.state.lock().unwrap().told -= EVERY;
        telling.advance(1);
        let last = heard.lock().unwrap().last().cloned();
        assert_eq!(last, Some(Event::Verified { done_bytes: 1001, total_bytes: 1001 }));
    }
}
