//! Clocks that jump ahead, the repository's with them: no other clock says so, but nothing is known of the time between.
//!
//! Where nothing at all is known of a time longer than the window, and of more than a day, what the window held before stays
//! until a backup has stood for a day after it. Then somebody had the time to see that the clock is wrong. The rule looks at
//! archives alone: from what is stored in them every moment is known.

use crate::retention::model::Stored;
use chrono::{DateTime, TimeDelta, Utc};

/// A day: for so long a backup shall have stood.
const DAY: TimeDelta = TimeDelta::days(1);

/// The moment by which the window is judged: `now`, or the last before such a time. `physical` is by when each physical
/// backup had stopped, `good` those of them that can be restored. What an earlier jump wrote stopped no later than what
/// follows it, so it neither ends the time of which nothing is known nor has stood.
pub fn judged_at(
    stored: &Stored,
    physical: &[DateTime<Utc>],
    good: &[DateTime<Utc>],
    window: u64,
    now: DateTime<Utc>,
) -> DateTime<Utc> {
    let written = || stored.wal.values().flat_map(|wal| wal.written.iter().copied());
    if !written().any(|time| time <= now) {
        return now;
    }
    let told = physical.iter().copied().chain(written());
    let mut known: Vec<DateTime<Utc>> = told.filter(|time| *time <= now).chain([now]).collect();
    known.sort();
    let window = i64::try_from(window).ok().and_then(TimeDelta::try_seconds).unwrap_or(TimeDelta::MAX);
    let unknown = known.windows(2).rev().find(|pair| pair[1] - pair[0] > window.max(DAY));
    let Some(&[last, next]) = unknown else { return now };
    let has_stood = |stopped: &DateTime<Utc>| *stopped >= next && *stopped <= now && now - *stopped >= DAY;
    if good.iter().any(has_stood) { now } else { last }
}
