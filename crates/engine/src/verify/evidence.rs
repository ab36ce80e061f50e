//! What must have been stored, though the listing alone does not tell: segments that an index names, those that a
//! complete backup needs, and those before a `.partial` or before the place where a timeline was left.
//!
//! The newest segments of a timeline leave no hole when they are lost. Without this the archive would just seem to end
//! before them. What retention removed is told, and is no gap.

use super::chains::without;
use super::windows::{missing, removed};
use crate::repository::Record;
use crate::wal::line::Line;
use crate::wal::survey::{Run, Survey, joined};
use pg_ark_contract::rows::BackupStatus;
use pg_ark_contract::{SegmentSize, Timeline};
use std::collections::{BTreeMap, BTreeSet};

/// What is missing, and how that is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Missing segments as ascending runs.
    pub gaps: BTreeMap<Timeline, Vec<Run>>,
    /// Of these, what an index names.
    indexed: BTreeMap<Timeline, Vec<Run>>,
    /// Segments that a complete backup needs and that are not all there.
    needed: Vec<(Timeline, Run, String)>,
    /// What retention removed, and no complete backup needs: no gaps.
    pub pruned: BTreeMap<Timeline, Vec<Run>>,
}

impl Evidence {
    /// Weighs what the survey holds against `indexed`, segments that an index names and the survey lacks, and against
    /// the backups.
    pub fn weigh(survey: &Survey, indexed: BTreeMap<Timeline, Vec<Run>>, records: &[Record]) -> Evidence {
        let lines = Line::all(survey);
        let needed = needed(survey, &lines, records);
        let lost = || {
            let indexed =
                indexed.iter().flat_map(|(timeline, runs)| runs.iter().map(|run| (*timeline, *run)));
            indexed.chain(needed.iter().map(|(timeline, run, _)| (*timeline, *run)))
        };
        let whole = as_it_was(survey, lost());
        let mut gaps: BTreeMap<Timeline, Vec<Run>> = BTreeMap::new();
        for (timeline, run) in lost() {
            gaps.entry(timeline).or_default().push(run);
        }
        for line in Line::all(&whole).iter().chain(&lines) {
            for part in line.holes.iter().flat_map(|hole| line.parts(hole.run, survey.segment_size)) {
                gaps.entry(part.timeline).or_default().push(part.run);
            }
        }
        let held =
            |timeline: &Timeline| survey.timelines.get(timeline).map_or(&[][..], |content| &content.runs);
        let needed_of = |timeline: &Timeline| {
            let of = needed.iter().filter(|(other, ..)| other == timeline).map(|(_, run, _)| *run);
            cut(joined(of.collect()), held(timeline))
        };
        for (timeline, runs) in &mut gaps {
            let mut left =
                cut(cut(joined(std::mem::take(runs)), held(timeline)), survey.pruned.runs(*timeline));
            // Retention removes nothing that a backup needs: that is lost, whoever removed it.
            left.extend(needed_of(timeline));
            *runs = joined(left);
        }
        gaps.retain(|_, runs| !runs.is_empty());
        let unneeded = |(timeline, runs): (&Timeline, &Vec<Run>)| {
            let left = cut(cut(runs.clone(), held(timeline)), &needed_of(timeline));
            (!left.is_empty()).then_some((*timeline, left))
        };
        let pruned = survey.pruned.segments.iter().filter_map(unneeded).collect();
        Evidence { gaps, indexed, needed, pruned }
    }

    /// In words: that segments which are not there are missing, or that retention removed them.
    pub fn absence(&self, timeline: Timeline, run: Run, size: SegmentSize) -> String {
        let pruned = self.pruned.get(&timeline).map_or(&[][..], Vec::as_slice);
        match cut(vec![run], pruned).is_empty() {
            true => removed(timeline, run, size),
            false => missing(timeline, run, size),
        }
    }

    /// The gap that begins with a segment.
    pub fn gap_at(&self, timeline: Timeline, first: u64) -> Option<Run> {
        self.gaps.get(&timeline)?.iter().copied().find(|gap| gap.first == first)
    }

    /// How it is known that a segment of a gap was there.
    pub fn why(&self, timeline: Timeline, gap: Run) -> Vec<String> {
        let meets = |run: &Run| run.first <= gap.last && gap.first <= run.last;
        let mut why = Vec::new();
        if self.indexed.get(&timeline).is_some_and(|runs| runs.iter().any(meets)) {
            let (one, many) = ("the index says that it was stored", "the index says that they were stored");
            why.push(if gap.count() == 1 { one } else { many }.to_string());
        }
        let backups: BTreeSet<&str> = self
            .needed
            .iter()
            .filter(|(other, run, _)| *other == timeline && meets(run))
            .map(|(_, _, backup)| &backup[..])
            .collect();
        let (first, more) = (backups.first(), backups.len().saturating_sub(1));
        why.extend(first.map(|first| match more {
            0 => format!("backup \"{first}\" needs WAL of it"),
            more => format!("backup \"{first}\" and {more} more need WAL of it"),
        }));
        why
    }
}

/// What of `runs` is in none of `known`; both ascend.
fn cut(runs: Vec<Run>, known: &[Run]) -> Vec<Run> {
    runs.into_iter().flat_map(|run| without(run, known)).collect()
}

/// The survey with what is lost, and with the ends to which the archive must have been whole.
fn as_it_was(survey: &Survey, lost: impl Iterator<Item = (Timeline, Run)>) -> Survey {
    let one = |number: u64| Run { first: number, last: number };
    let mut whole = survey.clone();
    for (timeline, run) in lost {
        whole.timelines.entry(timeline).or_default().runs.push(run);
    }
    for history in survey.histories.values() {
        let left = history.entries.last().map(|entry| survey.segment_size.segment_of(entry.switch_lsn));
        // It begins with a copy of the segment in which its parent was left.
        whole.timelines.entry(history.timeline).or_default().runs.extend(left.map(one));
    }
    for content in whole.timelines.values_mut() {
        content.runs.extend(content.partials.iter().copied().map(one));
        content.runs = joined(std::mem::take(&mut content.runs));
    }
    whole
}

/// For each complete backup without WAL of its own whose WAL is not whole on any line: where it should be.
fn needed(survey: &Survey, lines: &[Line], records: &[Record]) -> Vec<(Timeline, Run, String)> {
    let size = survey.segment_size;
    let lacks = |record: &&Record| {
        let (Some(start), Some(stop), Some(timeline)) = (record.start_lsn, record.stop_lsn, record.timeline)
        else {
            return false;
        };
        let mut lines = lines.iter().filter(|line| line.history.reaches(timeline, stop));
        !lines.any(|line| line.stretches.iter().any(|stretch| stretch.holds(start, stop, size)))
    };
    let leans = |record: &&Record| {
        record.status == BackupStatus::Complete
            && record.kind.is_physical()
            && !record.wal_included
            && record.wal_segment_size == size
    };
    let run = |record: &Record| {
        let (start, stop) = (record.start_lsn?, record.stop_lsn?);
        let run = Run { first: size.segment_of(start), last: size.last_segment_before(stop) };
        (run.first <= run.last).then_some((record.timeline?, run, record.backup.clone()))
    };
    records.iter().filter(leans).filter(lacks).filter_map(run).collect()
}

/// The size of the segments that complete backups of an empty archive need.
pub fn size_in(records: &[Record]) -> Option<SegmentSize> {
    let complete =
        records.iter().filter(|record| record.status == BackupStatus::Complete && record.kind.is_physical());
    complete.map(|record| record.wal_segment_size).next_back()
}

#[cfg(test)]
#[path = "evidence_tests.rs"]
mod tests;
