//! When the segments of an archive were stored, as the store says: a few of them, so that between two times that are known
//! lies no more than a day, or no other segment. What follows in the WAL was stored later, whatever the clock said.

use crate::postgres::wal_segment::SegmentName;
use crate::wal::archive::Archive;
use crate::wal::survey::Run;
use chrono::{DateTime, TimeDelta, Utc};
use pg_ark_contract::{Result, SegmentSize, Timeline};
use std::collections::BTreeMap;

/// Segments of a timeline that are looked at, at the most: some years of days. What is not known keeps more.
const MAX_LOOKS: usize = 4096;

/// Times of the stored segments `runs` of a timeline, which ascend, in any order.
///
/// # Errors
/// What the store or `check` said.
pub(super) fn written(
    archive: &Archive,
    size: SegmentSize,
    (timeline, runs): (Timeline, &[Run]),
    check: &dyn Fn() -> Result<()>,
) -> Result<Vec<DateTime<Utc>>> {
    sampled(runs, &mut |number| {
        check()?;
        let found = archive.find(&SegmentName { timeline, number }.file_name(size))?;
        Ok(found.map(|found| archive.storage().changed(&found.path)).transpose()?.flatten())
    })
}

/// Halves what lies between two segments until their times are near each other, the newest first. `time` tells when one was
/// stored.
fn sampled(
    runs: &[Run],
    time: &mut dyn FnMut(u64) -> Result<Option<DateTime<Utc>>>,
) -> Result<Vec<DateTime<Utc>>> {
    let (mut told, mut looks) = (BTreeMap::new(), 0);
    for run in runs.iter().rev() {
        let mut between = vec![(run.first, time(run.first)?, run.last, time(run.last)?)];
        looks += 2;
        while let Some((first, from, last, to)) = between.pop() {
            told.extend([(first, from), (last, to)]);
            let is_near = from.zip(to).is_some_and(|(from, to)| (to - from).abs() <= TimeDelta::days(1));
            let middle = first.midpoint(last);
            if is_near || middle <= first || looks > MAX_LOOKS {
                continue;
            }
            let at = time(middle)?;
            looks += 1;
            between.push((first, from, middle, at));
            between.push((middle, at, last, to));
        }
        if looks > MAX_LOOKS {
            break;
        }
    }
    let mut times: Vec<DateTime<Utc>> = Vec::new();
    for time in told.into_values().rev().flatten() {
        if times.last().is_none_or(|earliest| time < *earliest) {
            times.push(time);
        }
    }
    times.reverse();
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_segments_tell_of_every_day() {
        let hour = |hours: u64| DateTime::from_timestamp(i64::try_from(hours).unwrap() * 3600, 0).unwrap();
        // One each hour for a year, with silence of 40 days in between, and a hole.
        let stored_at = |number: u64| if number < 5000 { hour(number) } else { hour(number + 960) };
        let mut looks = 0;
        let runs = [Run { first: 0, last: 6999 }, Run { first: 7010, last: 8760 }];
        let times = sampled(&runs, &mut |number| {
            looks += 1;
            Ok(Some(stored_at(number)))
        });
        let times = times.unwrap();
        let wide = |pair: &&[DateTime<Utc>]| pair[1] - pair[0] > TimeDelta::days(1);
        let silent: Vec<_> = times.windows(2).filter(wide).collect();
        assert_eq!(silent, [[hour(4999), hour(5960)]]);
        assert!((365..2 * 512 + 40).contains(&looks), "{looks}");
        // A clock that was wrong for a while says nothing where WAL of before follows.
        let runs = [Run { first: 0, last: 9 }];
        let wrong = |number: u64| Ok(Some(hour(if number == 5 { 90_000 } else { number * 30 })));
        let expected: Vec<_> =
            (0..10).filter(|number| *number != 5).map(|number| hour(number * 30)).collect();
        assert_eq!(sampled(&runs, &mut { wrong }).unwrap(), expected);
        // Times that are nonsense end, too.
        let mut odd = 0;
        let far = [Run { first: 0, last: u64::MAX }];
        sampled(&far, &mut |_| {
            odd += 1;
            Ok(Some(hour((odd % 2) * 10_000)))
        })
        .unwrap();
        assert!(sampled(&far, &mut |_| Ok(None)).unwrap().is_empty());
    }
}
