//! Which segments must be read one after another, so that every segment is read once and every boundary is crossed.

use crate::wal::line::{Line, Piece, Stretch};
use crate::wal::survey::{Run, Survey};
use pg_ark_contract::Timeline;
use std::collections::BTreeMap;

/// A gap-free row of segments whose records must follow one another.
pub struct Chain {
    /// Its segments.
    pub stretch: Stretch,
    /// It ends where a line ends: its records may end anywhere in its last segment.
    pub is_end: bool,
}

/// Every chain of the archive, and the runs of each that no earlier chain has: together every segment.
pub fn chains(survey: &Survey) -> (Vec<Chain>, Vec<(usize, Run)>) {
    let mut chains = Vec::new();
    let mut runs = Vec::new();
    let mut seen: BTreeMap<Timeline, Vec<Run>> = BTreeMap::new();
    let mut enter = |stretch: Stretch, is_end: bool| {
        let mut last: Option<Run> = None;
        for piece in &stretch.pieces {
            for new in without(piece.run, seen.entry(piece.timeline).or_default()) {
                match &mut last {
                    Some(before) if before.last + 1 == new.first => before.last = new.last,
                    // The chain must be followed into it from the segment before.
                    _ => {
                        runs.extend(last.map(|run| (chains.len(), run)));
                        let first = new.first.saturating_sub(1).max(stretch.first());
                        last = Some(Run { first, last: new.last });
                    }
                }
            }
            let known = seen.entry(piece.timeline).or_default();
            known.push(piece.run);
            known.sort_unstable_by_key(|run| run.first);
        }
        runs.extend(last.map(|run| (chains.len(), run)));
        chains.push(Chain { stretch, is_end });
    };
    for line in Line::all(survey) {
        let count = line.stretches.len();
        for (index, stretch) in line.stretches.into_iter().enumerate() {
            enter(stretch, index + 1 == count);
        }
    }
    // Recovery never reads these, but they are there.
    for (timeline, content) in &survey.timelines {
        for run in &content.runs {
            enter(Stretch { pieces: vec![Piece { timeline: *timeline, run: *run }] }, true);
        }
    }
    (chains, runs)
}

/// The parts of a run that are in none of `known`, which ascend.
pub(super) fn without(run: Run, known: &[Run]) -> Vec<Run> {
    let mut parts = Vec::new();
    let mut first = run.first;
    for known in known {
        if known.first > first && first <= run.last {
            parts.push(Run { first, last: run.last.min(known.first - 1) });
        }
        first = first.max(known.last.saturating_add(1));
    }
    if first <= run.last {
        parts.push(Run { first, last: run.last });
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_cut_out() {
        let run = |first, last| Run { first, last };
        let cases = [
            (run(3, 9), vec![], vec![run(3, 9)]),
            (run(3, 9), vec![run(3, 9)], vec![]),
            (run(3, 9), vec![run(1, 4), run(6, 6), run(9, 12)], vec![run(5, 5), run(7, 8)]),
            (run(3, 9), vec![run(0, 1), run(12, u64::MAX)], vec![run(3, 9)]),
        ];
        for (run, known, left) in cases {
            assert_eq!(without(run, &known), left, "{run:?} {known:?}");
        }
    }
}
