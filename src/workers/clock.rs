//! Times as the engine gives them: RFC 3339, UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds: a time further ahead was written by a clock that was wrong. The engine, which decides what is due, has the same
/// limit (`schedule::runs::is_ahead`).
const AHEAD: u64 = 3600;

/// Since 1970.
fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// How long it is until `time`; zero when it is over, None when it is no time.
pub fn until(time: &str) -> Option<Duration> {
    Some(Duration::from_secs(seconds(time)?).saturating_sub(since_epoch()))
}

/// Seconds since 1970, now.
pub fn now() -> u64 {
    since_epoch().as_secs()
}

/// As [`seconds`]; None also for a time that only a clock that was wrong can have written.
pub fn passed(time: &str, now: u64) -> Option<u64> {
    seconds(time).filter(|time| *time <= now.saturating_add(AHEAD))
}

/// Seconds since 1970 of `2026-11-22T02:00:00Z`; a fraction is left out.
pub fn seconds(time: &str) -> Option<u64> {
    let (date, clock) = time.strip_suffix('Z')?.split_once('T')?;
    let clock = clock.split_once('.').map_or(clock, |(whole, _)| whole);
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(clock, ':')?;
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) {
        return None;
    }
    // Years begin in March here, so that the leap day is the last one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day.checked_sub(1)?;
    // Days from the first of March of the year 0 to the first of January 1970.
    Some(days.checked_sub(719_468)? * 86_400 + hour * 3_600 + minute * 60 + second)
}

fn numbers<const N: usize>(text: &str, separator: char) -> Option<[u64; N]> {
    let numbers: Vec<u64> = text.split(separator).map_while(|part| part.parse().ok()).collect();
    numbers.try_into().ok().filter(|numbers: &[u64; N]| numbers.iter().all(|number| *number <= 9999))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds() {
        for (time, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2026-11-22T02:00:00.123456Z", 1_795_312_800),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
        ] {
            assert_eq!(seconds(time), Some(expected), "{time}");
        }
        for bad in ["", "Z", "2026-11-22", "2026-11-22T02:00Z", "2026-13-01T00:00:00Z", "x-y-zTa:b:cZ"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
        assert_eq!(until("2000-01-01T00:00:00Z"), Some(Duration::ZERO));
        let ahead = |now| passed("2000-02-29T12:00:00Z", now);
        assert_eq!(ahead(951_825_600 - 3600), Some(951_825_600));
        assert_eq!((ahead(951_825_600 - 3601), passed("x", now())), (None, None));
    }
}
