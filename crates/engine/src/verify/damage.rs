//! Segments with a fault, of an archive that may hold millions of them.

use crate::postgres::wal_segment::SegmentName;
use crate::wal::survey::Run;
use pg_ark_contract::Timeline;
use std::collections::BTreeMap;

/// Damaged segments whose reason is remembered; they have a row of their own.
const MAX_DAMAGED: usize = 1000;

/// Segments that cannot be read or do not follow one another, and why.
#[derive(Debug, Default)]
pub struct Damage {
    /// Without a reason when there are more than a reader would read.
    segments: BTreeMap<SegmentName, Option<String>>,
    reasons: usize,
}

impl Damage {
    /// Remembers what is wrong with a segment; the first reason counts.
    pub fn add(&mut self, name: SegmentName, why: String) {
        let room = self.reasons < MAX_DAMAGED;
        self.segments.entry(name).or_insert_with(|| {
            self.reasons += usize::from(room);
            room.then_some(why)
        });
    }

    /// Whether the segment is one of them.
    pub fn holds(&self, name: SegmentName) -> bool {
        self.segments.contains_key(&name)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.segments.len()
    }

    /// Why a segment is one of them, where there is room for reasons.
    pub fn why(&self, name: SegmentName) -> Option<&str> {
        self.segments.get(&name)?.as_deref()
    }

    /// Those of a run, ascending, with their reasons.
    pub fn of(&self, timeline: Timeline, run: Run) -> impl Iterator<Item = (u64, Option<&str>)> {
        let named = |number| SegmentName { timeline, number };
        let range = self.segments.range(named(run.first)..=named(run.last));
        range.map(|(name, why)| (name.number, why.as_deref()))
    }
}
