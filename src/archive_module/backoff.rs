//! When an engine that could not be started, or died, is started again.

use pg_ark_contract::{Error, Result};
use std::time::{Duration, Instant};

/// The server goes through its files once a minute when nothing wakes it (`PGARCH_AUTOWAKE_INTERVAL`, pgarch.c): each
/// time, an engine shall be tried.
const MAX: Duration = Duration::from_secs(55);

/// At once after the first failure, then after 1 s, 2 s, 4 s and so on.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    last: Option<(Instant, Error)>,
}

impl Backoff {
    /// Counts a failure; true when an engine may be started again at once.
    pub(super) fn failed(&mut self, why: &Error) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.last = Some((Instant::now(), why.clone()));
        self.delay().is_zero()
    }

    fn delay(&self) -> Duration {
        match self.failures {
            0 | 1 => Duration::ZERO,
            more => Duration::from_secs(1_u64.checked_shl(more - 2).unwrap_or(u64::MAX)).min(MAX),
        }
    }

    /// May an engine be started now?
    ///
    /// # Errors
    /// Why the last one failed, as long as it is too early.
    pub(super) fn permit(&self) -> Result<()> {
        match &self.last {
            Some((when, error)) if when.elapsed() < self.delay() => Err(error.clone()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_ark_contract::ErrorKind;

    #[test]
    fn the_first_failure_costs_nothing_and_the_next_ones_ever_more() {
        let why = Error::new(ErrorKind::Io, "no");
        let mut backoff = Backoff::default();
        assert!(backoff.permit().is_ok());
        assert!(backoff.failed(&why));
        assert!(backoff.permit().is_ok());
        let mut delays = Vec::new();
        for _ in 0..9 {
            assert!(!backoff.failed(&why));
            assert_eq!(backoff.permit(), Err(why.clone()));
            delays.push(backoff.delay().as_secs());
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 55, 55, 55]);
        backoff.failures = u32::MAX;
        assert_eq!(backoff.delay(), MAX);
    }
}
