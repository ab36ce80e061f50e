//! How fast files may be read: a line of bytes that drains at the rate.
//!
//! What: whoever wants to read takes a place at the end of the line and goes when the line has drained up to it, so
//! threads take turns. A change of the rate changes how fast the line drains from that moment on, for those who wait
//! in it too; without a rate it is empty.
//! Why: no bytes are saved up while nobody reads, so a pause is not followed by a burst.
//! Time is a parameter: it counts from any moment that stays the same.

use std::time::Duration;

/// Most bytes that are let through at once.
pub const LARGEST: u64 = 1 << 20;
/// Fewest: a page.
const SMALLEST: u64 = 8 << 10;
/// Parts of a second whose bytes are let through at once, so that the rate also holds within a second.
const PARTS: u64 = 16;
/// Seconds that somebody who wakes too late may catch up; more would be a burst.
const CATCH_UP: f64 = 0.025;
/// Longest wait before a look at the clock.
const LONGEST: Duration = Duration::from_secs(60);

/// The line.
pub struct Rate {
    /// Bytes per second, 0 for no limit.
    limit: u64,
    /// Bytes that ever took a place.
    taken: f64,
    /// Up to where the line has drained at time `at`; may be a little past its end.
    drained: f64,
    at: Duration,
}

/// A place in the line.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    from: f64,
    /// How many bytes may be read when it is reached.
    pub bytes: u64,
}

impl Rate {
    /// `limit` is in bytes per second, 0 for no limit.
    pub fn new(limit: u64, now: Duration) -> Self {
        Rate { limit, taken: 0.0, drained: 0.0, at: now }
    }

    /// Goes on with another limit.
    pub fn change(&mut self, limit: u64, now: Duration) {
        if limit != self.limit {
            self.drain(now);
            self.limit = limit;
            if limit == 0 {
                self.drained = self.taken;
            }
        }
    }

    /// Takes a place for up to `wanted` bytes.
    pub fn enter(&mut self, wanted: u64, now: Duration) -> Place {
        self.drain(now);
        if self.limit == 0 {
            return Place { from: self.taken, bytes: wanted.min(LARGEST) };
        }
        let slice = (self.limit / PARTS / SMALLEST * SMALLEST).clamp(SMALLEST, LARGEST);
        let place = Place { from: self.taken, bytes: wanted.min(slice) };
        self.taken += place.bytes as f64;
        place
    }

    /// How long it takes until the place is reached, at this rate; `None` when it is.
    pub fn wait(&mut self, place: &Place, now: Duration) -> Option<Duration> {
        self.drain(now);
        let left = place.from - self.drained;
        if left <= 0.0 || self.limit == 0 {
            return None;
        }
        // Rounded up: who wakes a nanosecond early would wait for none.
        let wait = Duration::try_from_secs_f64(left / self.limit as f64).unwrap_or(LONGEST);
        Some(wait.saturating_add(Duration::from_nanos(1)).min(LONGEST))
    }

    fn drain(&mut self, now: Duration) {
        let seconds = now.saturating_sub(self.at).as_secs_f64();
        let limit = self.limit as f64;
        self.at = self.at.max(now);
        self.drained = (self.drained + limit * seconds).min(self.taken + limit * CATCH_UP);
    }
}

#[cfg(test)]
#[path = "rate_tests.rs"]
mod tests;
