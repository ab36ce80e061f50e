//! Clocks that jump ahead, the repository's with them: no other clock says so, but nothing is known of the time between.
//!
//! Where nothing at all is known of a time longer than the window, and of more than a day, what the window held before stays
//! until a backup has stood for a day after it. Then somebody had the time to see that the clock is wrong. The rule looks at
//! archives alone: from what is stored in them every moment is known.

use crate::retention::model::Stored;
use chrono::{DateTime, TimeDelta, Utc};

/// A day: for so long a backup shall have stood.
const DAY: TimeDelta = TimeDelta::days(1);

/// The moment by which the window is judged: `now`, or the last before such a time. `good` are the stop times of the
/// physical backups that can be restored.
pub fn judged_at(stored: &Stored, good: &[DateTime<Utc>], window: u64, now: DateTime<Utc>) -> DateTime<Utc> {
    let written = || stored.wal.values().flat_map(|wal| wal.written.iter().copied());
    if !written().any(|time| time <= now) {
        return now;
    }
    let physical = stored.backups.iter().filter(|backup| backup.kind.is_physical());
    let told = physical.filter_map(|backup| backup.stopped_at).chain(written());
    let mut known: Vec<DateTime<Utc>> = told.filter(|time| *time <= now).chain([now]).collect();
    known.sort();
    let window = i64::try_from(window).ok().and_then(TimeDelta::try_seconds).unwrap_or(TimeDelta::MAX);
    let unknown = known.windows(2).rev().find(|pair| pair[1] - pair[0] > window.max(DAY));
    let Some(&[last, next]) = unknown else { return now };
    let has_stood = |stopped: &DateTime<Utc>| *stopped >= next && *stopped <= now && now - *stopped >= DAY;
    if good.iter().any(has_stood) { now } else { last }
}
