//! Segments that were stored and are not there: what the index of each folder names, and the listing lacks.

use super::breaks::MAY_BREAK;
use super::index::MAX_INDEX;
use super::index_line::{self, LineSeal};
use super::moments::{Moments, is_unreadable};
use super::survey::{Run, Survey, joined};
use crate::postgres::wal_segment::SegmentName;
use pg_ark_contract::{Result, Timeline};
use serde::Deserialize;
use std::collections::BTreeMap;

/// How the lines of an index begin as pg_ark writes them; others are parsed.
const LINE: &[u8] = b"{\"segment\":\"";
/// Digits of a segment's name.
const NAME: usize = 24;
/// Segments that are looked for once more: they may have been stored after the listing.
const MAX_LOOKS: u32 = 1000;
/// Runs that are remembered.
const MAX_RUNS: usize = 10_000;

#[derive(Deserialize)]
struct Line {
    segment: String,
}

impl Moments<'_> {
    /// Reads the index of every folder once: which segments it names that the survey does not hold, as ascending runs
    /// by timeline. What [`Moments::breaks`] looks for is remembered on the way.
    ///
    /// # Errors
    /// What the store said.
    pub fn gone(&mut self, survey: &Survey) -> Result<BTreeMap<Timeline, Vec<Run>>> {
        let mut gone = BTreeMap::new();
        let (mut looks, mut room) = (MAX_LOOKS, MAX_RUNS);
        for timeline in self.archive.timelines()? {
            let mut numbers = Vec::new();
            for log in self.archive.logs(timeline)? {
                for number in self.lacking(survey, timeline, log)? {
                    let name = SegmentName { timeline, number }.file_name(self.size);
                    looks = looks.saturating_sub(1);
                    if looks == 0 || self.archive.find(&name)?.is_none() {
                        numbers.push(Run { first: number, last: number });
                    }
                }
                numbers = joined(numbers);
                numbers.truncate(room);
            }
            room -= numbers.len();
            if !numbers.is_empty() {
                gone.insert(timeline, numbers);
            }
        }
        Ok(gone)
    }

    /// Numbers of the segments that an index names and the survey does not hold.
    fn lacking(&mut self, survey: &Survey, timeline: Timeline, log: u32) -> Result<Vec<u64>> {
        self.check()?;
        let path = self.archive.index_path(timeline, log);
        let bytes = match self.archive.storage().get(&path, MAX_INDEX) {
            Ok(bytes) => bytes.unwrap_or_default(),
            // It can be lost; the segments are the truth.
            Err(e) if is_unreadable(&e) => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let folder = format!("{:08X}{log:08X}", timeline.0);
        let content = survey.timelines.get(&timeline);
        let mut may_break = false;
        let mut lacking = Vec::new();
        for line in bytes.split(|byte| *byte == b'\n') {
            may_break |= line.windows(MAY_BREAK.len()).any(|word| word == MAY_BREAK);
            let named = named(line).filter(|name| name.starts_with(&folder));
            if let Some(name) = named.and_then(|name| SegmentName::parse(&name, self.size))
                && content.is_none_or(|content| !content.holds(name.number))
            {
                lacking.push(name.number);
            }
        }
        self.may_break.insert((timeline, log), may_break);
        Ok(lacking)
    }
}

/// The segment that a line of an index is about. One whose seal is broken could name any.
fn named(line: &[u8]) -> Option<String> {
    if index_line::check(line) == LineSeal::Broken {
        return None;
    }
    match line.strip_prefix(LINE).and_then(|rest| rest.split_at_checked(NAME)) {
        Some((name, [b'"', ..])) => String::from_utf8(name.to_vec()).ok(),
        _ => serde_json::from_slice::<Line>(line).ok().map(|line| line.segment),
    }
}

#[cfg(test)]
#[path = "gone_tests.rs"]
mod tests;
