//! Clocks that are wrong: this machine's against the repository's own, and times in the future.
//!
//! Retention goes by this machine's clock. One that is ahead takes what is inside the window for old, so nothing is
//! removed by it. One that is behind keeps more, and is told by `ark.check` alone.

use crate::repository::Storage;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use pg_ark_contract::{Error, ErrorKind, Result};

/// Seconds by which clocks may differ: half of what a lease allows.
pub const MAX_SKEW: i64 = 60;
/// Seconds by which this machine's clock may be ahead where something is removed.
pub const MAX_AHEAD: i64 = 3600;
/// Seconds: a time further ahead was written by a clock that is wrong, unless the clock that it is compared with is.
pub const MAX_FUTURE: i64 = 600;

/// This machine's clock and the repository's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// This machine's, when the repository's was read.
    pub here: DateTime<Utc>,
    /// The repository's.
    pub repository: DateTime<Utc>,
    /// By how many seconds this machine's is ahead at least; less than 0 where it is behind.
    pub ahead: i64,
}

impl Clocks {
    /// Reads the repository's. `now` is what this machine's said just before. An object is written for that, and removed.
    ///
    /// # Errors
    /// What the store said.
    pub fn read(storage: &Storage, now: DateTime<Utc>) -> Result<Clocks> {
        let repository = storage.clock()?;
        Ok(Clocks::of(now, repository, Utc::now()))
    }

    /// `repository` is when the repository says that something was written between `before` and `after`.
    pub fn of(before: DateTime<Utc>, repository: DateTime<Utc>, after: DateTime<Utc>) -> Clocks {
        // First: a clock that was ahead may have been set right in between.
        let (here, ahead) = match before > repository {
            true => (before, before - repository),
            false => (after, (after - repository).min(TimeDelta::zero())),
        };
        Clocks { here, repository, ahead: ahead.num_seconds() }
    }

    /// Whether something may be removed because it is old by this machine's clock.
    ///
    /// # Errors
    /// `ServerNotReady` when that is too far ahead.
    pub fn may_judge_age(&self) -> Result<()> {
        if self.ahead <= MAX_AHEAD {
            return Ok(());
        }
        let (here, repository) = (shown(self.here), shown(self.repository));
        Err(Error::new(
            ErrorKind::ServerNotReady,
            format!("this machine's clock says {here}, and the repository's {repository}: nothing is removed by a clock that is ahead"),
        )
        .hint("What is inside the recovery window would seem to be old. Set this machine's clock right, or that of the machine that holds the repository (chrony, ntpd), then try again."))
    }
}

/// Whether a time lies so far ahead of `now` that one of the two clocks was wrong.
pub fn is_future(time: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    (time - now).num_seconds() > MAX_FUTURE
}

fn shown(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn a_clock_that_is_ahead_removes_nothing_and_one_that_is_behind_may() {
        for (repository, ahead, may) in [
            (0, 0, true),
            (5, 0, true),
            (9, -4, true),
            (40_000, -39_995, true),
            (-1, 1, true),
            (-3600, 3600, true),
            (-3601, 3601, false),
            (-40_000_000, 40_000_000, false),
        ] {
            let clocks = Clocks::of(at(0), at(repository), at(5));
            assert_eq!((clocks.ahead, clocks.may_judge_age().is_ok()), (ahead, may), "{repository}");
        }
        let set_right = Clocks::of(at(40_000_000), at(9), at(5));
        assert!(set_right.may_judge_age().is_err());
        let error = Clocks::of(at(0), at(-7200), at(5)).may_judge_age().unwrap_err();
        assert_eq!(error.kind, ErrorKind::ServerNotReady);
        let told =
            "this machine's clock says 1970-01-12T13:46:40Z, and the repository's 1970-01-12T11:46:40Z";
        assert!(error.message.starts_with(told) && error.hint.is_some(), "{error:?}");
    }

    #[test]
    fn what_is_a_little_ahead_is_no_future() {
        assert!(!is_future(at(0), at(5)) && !is_future(at(600), at(0)) && is_future(at(601), at(0)));
    }
}
