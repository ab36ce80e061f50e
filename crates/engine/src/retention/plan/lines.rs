//! The timelines of each system, and the backups along each line.

use super::facts::Facts;
use crate::retention::model::StoredWal;
use pg_ark_contract::{Lsn, Timeline};
use std::collections::{BTreeMap, BTreeSet};

/// A timeline of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub timeline: Timeline,
    /// Where the line leaves it; none for its tip, and where nobody knows.
    pub end: Option<Lsn>,
}

impl Part {
    /// Whether WAL up to `lsn` (exclusive) is on the line.
    pub fn reaches(&self, lsn: Lsn) -> bool {
        self.end.is_none_or(|end| lsn <= end)
    }
}

/// All timelines, by system.
pub struct Lines<'a> {
    stored: &'a BTreeMap<u64, StoredWal>,
    /// Every timeline of a system of which anything is stored.
    timelines: BTreeMap<u64, BTreeSet<Timeline>>,
    /// Complete backups whose place in the WAL is known, by stop LSN.
    on: BTreeMap<(u64, Timeline), Vec<(Lsn, usize)>>,
}

impl<'a> Lines<'a> {
    pub fn of(facts: &Facts<'a>) -> Self {
        let mut timelines: BTreeMap<u64, BTreeSet<Timeline>> = BTreeMap::new();
        for (system, wal) in &facts.stored.wal {
            let with_wal =
                wal.segments.iter().filter(|(_, runs)| !runs.is_empty()).map(|(timeline, _)| timeline);
            timelines.entry(*system).or_default().extend(with_wal.chain(wal.histories.keys()).copied());
        }
        let mut on: BTreeMap<(u64, Timeline), Vec<(Lsn, usize)>> = BTreeMap::new();
        for &index in &facts.order {
            let Some(span) = facts.span(index) else { continue };
            let system = facts.backup(index).system;
            timelines.entry(system).or_default().insert(span.timeline);
            on.entry((system, span.timeline)).or_default().push((span.stop, index));
        }
        // Stable: backups that end at the same place stay in the order of their times.
        on.values_mut().for_each(|backups| backups.sort_by_key(|(stop, _)| *stop));
        Lines { stored: &facts.stored.wal, timelines, on }
    }

    /// Every line: system and tip.
    pub fn tips(&self) -> impl Iterator<Item = (u64, Timeline)> + '_ {
        self.timelines.iter().flat_map(|(system, tips)| tips.iter().map(|tip| (*system, *tip)))
    }

    /// The newest timeline of a system.
    pub fn newest(&self, system: u64) -> Option<Timeline> {
        self.timelines.get(&system)?.last().copied()
    }

    /// Whether it is known from where the timeline branched off. Timeline 1 did not.
    pub fn is_known(&self, system: u64, tip: Timeline) -> bool {
        tip.0 <= 1 || self.stored.get(&system).is_some_and(|wal| wal.histories.contains_key(&tip))
    }

    /// The line of a timeline, oldest part first. One without a history may have branched off from any place of any
    /// older timeline; nothing is dropped by such a guess: see [`Facts::lost_history`].
    pub fn parts(&self, system: u64, tip: Timeline) -> Vec<Part> {
        let history = self.stored.get(&system).and_then(|wal| wal.histories.get(&tip));
        let mut parts = vec![Part { timeline: tip, end: None }];
        match history {
            Some(history) => {
                // What is behind a place where a later ancestor was left is not on the line.
                let mut end = Lsn(u64::MAX);
                for entry in history.entries.iter().rev() {
                    end = end.min(entry.switch_lsn);
                    parts.push(Part { timeline: entry.timeline, end: Some(end) });
                }
            }
            None => {
                let older = self.timelines.get(&system).into_iter().flatten().rev().filter(|t| **t < tip);
                parts.extend(older.map(|timeline| Part { timeline: *timeline, end: None }));
            }
        }
        parts.reverse();
        parts
    }

    /// Complete backups of a timeline, by stop LSN.
    pub fn on(&self, system: u64, timeline: Timeline) -> &[(Lsn, usize)] {
        self.on.get(&(system, timeline)).map_or(&[], |backups| backups)
    }

    /// Complete backups from which the parts can be recovered, in the order of the WAL.
    pub fn along(&self, system: u64, parts: &[Part]) -> Vec<usize> {
        let of_part = |part: &Part| {
            let backups = self.on(system, part.timeline);
            let count = backups.partition_point(|(stop, _)| part.reaches(*stop));
            backups.iter().take(count).map(|(_, index)| *index)
        };
        parts.iter().flat_map(of_part).collect()
    }
}
