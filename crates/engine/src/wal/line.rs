//! A timeline with its ancestors: which segments recovery reads along it, and where they are missing.
//!
//! Recovery along a timeline reads each segment from the newest timeline of its history that has begun by then: the
//! segment in which a timeline branched off is read from the branch, whose file begins with a copy of its parent's
//! (`XLogFileReadAnyTLI` in access/transam/xlogrecovery.c).

use super::survey::{Run, Survey};
use crate::postgres::timeline::TimelineHistory;
use crate::postgres::wal_segment::SegmentName;
use pg_ark_contract::{Lsn, SegmentSize, Timeline};

/// Segments of one timeline without a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The timeline that the files belong to.
    pub timeline: Timeline,
    /// Their numbers.
    pub run: Run,
}

/// A gap-free part of a line: pieces that follow one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// Oldest first; never empty.
    pub pieces: Vec<Piece>,
}

impl Stretch {
    /// Number of the first segment.
    pub fn first(&self) -> u64 {
        self.pieces.first().map_or(0, |piece| piece.run.first)
    }

    /// Number of the last segment.
    pub fn last(&self) -> u64 {
        self.pieces.last().map_or(0, |piece| piece.run.last)
    }

    /// The file that recovery reads for a segment.
    pub fn segment(&self, number: u64) -> Option<SegmentName> {
        let piece = self.pieces.iter().find(|p| (p.run.first..=p.run.last).contains(&number))?;
        Some(SegmentName { timeline: piece.timeline, number })
    }

    /// Its segments from number `first` to number `last`.
    pub fn slice(&self, first: u64, last: u64) -> Stretch {
        let cut = |piece: &Piece| {
            let run = Run { first: piece.run.first.max(first), last: piece.run.last.min(last) };
            (run.first <= run.last).then_some(Piece { run, ..*piece })
        };
        Stretch { pieces: self.pieces.iter().filter_map(cut).collect() }
    }

    /// Whether the bytes from `start` to `end` (exclusive) are in it.
    pub fn holds(&self, start: Lsn, end: Lsn, size: SegmentSize) -> bool {
        self.first() <= size.segment_of(start) && size.last_segment_before(end) <= self.last()
    }
}

/// Segments that are missing between two that are there. They can belong to several timelines: see [`Line::parts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// The timeline that the first would belong to.
    pub timeline: Timeline,
    /// Their numbers.
    pub run: Run,
}

/// A timeline with its ancestors, over what the archive holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The timeline and its ancestors.
    pub history: TimelineHistory,
    /// Oldest first.
    pub stretches: Vec<Stretch>,
    /// Between the stretches, oldest first.
    pub holes: Vec<Hole>,
}

impl Line {
    /// The line of `timeline`.
    pub fn of(survey: &Survey, timeline: Timeline) -> Line {
        let history = survey.history(timeline);
        let mut line = Line { stretches: Vec::new(), holes: Vec::new(), history };
        let wanted = wanted(&line.history, survey.segment_size);
        for piece in &wanted {
            let runs = survey.timelines.get(&piece.timeline).map(|content| &content.runs[..]);
            for run in runs.unwrap_or_default() {
                let (first, last) = (run.first.max(piece.run.first), run.last.min(piece.run.last));
                if first <= last {
                    line.append(Piece { run: Run { first, last }, ..*piece }, &wanted);
                }
            }
        }
        line
    }

    /// One line for each timeline that no other continues; oldest timeline first. Together they cover the archive.
    pub fn all(survey: &Survey) -> Vec<Line> {
        let size = survey.segment_size;
        let tips: Vec<_> =
            survey.timelines.iter().filter_map(|(tip, content)| Some((*tip, content.newest()?))).collect();
        let histories: Vec<_> = tips.iter().map(|(tip, _)| survey.history(*tip)).collect();
        let mut lines = Vec::new();
        for (tip, newest) in tips {
            // A timeline whose last segment comes before a branch is part of the branch's line.
            let continued = histories.iter().filter(|other| other.timeline != tip).any(|other| {
                let left = other.end_of(tip);
                left.is_some_and(|left| newest < size.segment_of(left))
            });
            if !continued {
                lines.push(Line::of(survey, tip));
            }
        }
        lines
    }

    /// The timeline at its end.
    pub fn timeline(&self) -> Timeline {
        self.history.timeline
    }

    /// The stretch that holds a segment.
    pub fn stretch_of(&self, number: u64) -> Option<&Stretch> {
        self.stretches.iter().find(|stretch| (stretch.first()..=stretch.last()).contains(&number))
    }

    /// Numbers of the timelines, oldest first: `1,2,5`.
    pub fn shown(&self) -> String {
        let ancestors = self.history.entries.iter().map(|entry| entry.timeline);
        let numbers: Vec<String> =
            ancestors.chain([self.history.timeline]).map(|timeline| timeline.to_string()).collect();
        numbers.join(",")
    }

    /// A hole, or any other range of its segments, by the timelines that recovery would read them from.
    pub fn parts(&self, run: Run, size: SegmentSize) -> Vec<Hole> {
        let part = |piece: Piece| {
            let (first, last) = (run.first.max(piece.run.first), run.last.min(piece.run.last));
            (first <= last).then_some(Hole { timeline: piece.timeline, run: Run { first, last } })
        };
        wanted(&self.history, size).into_iter().filter_map(part).collect()
    }

    /// Pieces come in the order of `wanted`, which are disjoint.
    fn append(&mut self, piece: Piece, wanted: &[Piece]) {
        let Some(stretch) = self.stretches.last_mut() else {
            return self.stretches.push(Stretch { pieces: vec![piece] });
        };
        let next = stretch.last() + 1;
        if piece.run.first == next {
            return stretch.pieces.push(piece);
        }
        let run = Run { first: next, last: piece.run.first - 1 };
        let owner = wanted.iter().find(|w| (w.run.first..=w.run.last).contains(&next));
        self.holes.push(Hole { timeline: owner.map_or(piece.timeline, |w| w.timeline), run });
        self.stretches.push(Stretch { pieces: vec![piece] });
    }
}

/// For each timeline of a history, oldest first, the segments that recovery reads from it: disjoint and ascending.
fn wanted(history: &TimelineHistory, size: SegmentSize) -> Vec<Piece> {
    // From the newest on: each takes what it has begun by then and no newer one has.
    let begins = history.entries.iter().rev().map(|entry| size.segment_of(entry.switch_lsn)).chain([0]);
    let newest_first = [history.timeline].into_iter().chain(history.entries.iter().rev().map(|e| e.timeline));
    let mut wanted = Vec::new();
    let mut upto = None;
    for (timeline, first) in newest_first.zip(begins) {
        match upto {
            None => wanted.push(Piece { timeline, run: Run { first, last: u64::MAX } }),
            Some(upto) if first < upto => {
                wanted.push(Piece { timeline, run: Run { first, last: upto - 1 } });
            }
            // It was left before it began.
            Some(_) => continue,
        }
        upto = Some(first);
    }
    wanted.reverse();
    wanted
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
