//! Turns: workers finish their frames in any order and commit them in the order of their numbers.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Grants access to `T` in the order 0, 1, 2, ...
pub struct Turns<T> {
    state: Mutex<State<T>>,
    moved: Condvar,
}

struct State<T> {
    next: u64,
    stopped: bool,
    value: T,
}

impl<T> Turns<T> {
    /// The first turn is number `first`.
    pub fn new(first: u64, value: T) -> Self {
        Turns { state: Mutex::new(State { next: first, stopped: false, value }), moved: Condvar::new() }
    }

    /// Waits for turn `number`, runs `commit`, and passes the turn on. `None` once [`Turns::stop`] was called;
    /// a worker that fails must call it, or the others wait for ever.
    pub fn commit<R>(&self, number: u64, commit: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut state = self.lock();
        while state.next != number && !state.stopped {
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.stopped {
            return None;
        }
        let result = commit(&mut state.value);
        state.next += 1;
        drop(state);
        self.moved.notify_all();
        Some(result)
    }

    /// Ends all waiting, now and later.
    pub fn stop(&self) {
        self.lock().stopped = true;
        self.moved.notify_all();
    }

    /// Takes the value back when all workers are done.
    pub fn into_inner(self) -> T {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).value
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn commits_come_in_order() {
        let turns = Turns::new(0, Vec::new());
        let next = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        if n >= 1000 {
                            break;
                        }
                        turns.commit(n, |v| v.push(n)).unwrap();
                    }
                });
            }
        });
        assert_eq!(turns.into_inner(), (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn stop_frees_those_who_wait() {
        let turns = Turns::new(0, ());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| turns.commit(5, |_| ()));
            turns.stop();
            assert_eq!(waiting.join().unwrap(), None);
        });
    }
}
