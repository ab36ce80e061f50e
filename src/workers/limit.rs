//! How long a run may take.

use pg_ark_contract::{Error, ErrorKind, Result};
use std::time::{Duration, Instant};

/// The end of a run, from its beginning on.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    began: Instant,
    seconds: u32,
}

impl Limit {
    /// So many seconds from now on.
    pub fn from_now(seconds: u32) -> Limit {
        Limit { began: Instant::now(), seconds }
    }

    /// What is left of it.
    pub fn left(&self) -> Duration {
        Duration::from_secs(self.seconds.into()).saturating_sub(self.began.elapsed())
    }

    /// Is it over?
    ///
    /// # Errors
    /// `Cancelled` when it is.
    pub fn check(&self) -> Result<()> {
        if !self.left().is_zero() {
            return Ok(());
        }
        let limit = in_words(self.seconds);
        Err(Error::new(ErrorKind::Cancelled, format!("the run took longer than its limit of {limit}")).hint(
            "See what it waits for (the repository's storage, pg_ark.max_rate), or give it a larger time_limit with \
             ark.schedule.",
        ))
    }
}

/// `1 day`, `90 s`.
pub fn in_words(seconds: u32) -> String {
    let (count, unit) = match seconds {
        s if s >= 86_400 && s % 86_400 == 0 => (s / 86_400, "day"),
        s if s >= 3_600 && s % 3_600 == 0 => (s / 3_600, "hour"),
        s if s >= 60 && s % 60 == 0 => (s / 60, "minute"),
        s => return format!("{s} s"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_over_when_its_time_is() {
        assert!(Limit::from_now(3_600).check().is_ok());
        let error = Limit::from_now(0).check().expect_err("over");
        assert!(error.kind == ErrorKind::Cancelled && error.hint.is_some());
    }

    #[test]
    fn limits_read_as_they_were_given() {
        for (seconds, words) in [
            (1, "1 s"),
            (90, "90 s"),
            (60, "1 minute"),
            (7_200, "2 hours"),
            (86_400, "1 day"),
            (172_800, "2 days"),
        ] {
            assert_eq!(in_words(seconds), words);
        }
    }
}
