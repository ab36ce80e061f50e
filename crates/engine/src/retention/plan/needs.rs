//! Which WAL the kept backups of a system need.

use super::backups::Kept;
use super::facts::{Facts, is_complete};
use super::lines::Lines;
use super::window::Window;
use super::words;
use crate::retention::model::{BackupState, StoredWal};
use crate::wal::survey::Run;
use pg_ark_contract::{Lsn, SegmentSize, Timeline};
use std::collections::BTreeMap;

/// Why segments are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Every moment from this backup on can be recovered.
    From(usize),
    /// These backups, and more, need them to become consistent.
    StartToStop { of: Vec<usize>, count: usize },
    /// Nobody knows what this backup needs.
    Unknown(usize),
    /// The history of a timeline is missing: any WAL of its system may lead there.
    LostHistory(Timeline),
    /// The newest system has no good backup.
    NothingGood,
    /// An older system's server was there inside the window, and no good backup leads here.
    Living,
    /// A timeline that is newer than the newest backup's, and no history leads to it.
    Newer,
}

/// Segments that are needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    pub run: Run,
    pub why: Why,
}

/// What a system's kept backups need.
pub struct Needs<'a> {
    facts: &'a Facts<'a>,
    lines: &'a Lines<'a>,
    window: &'a Window,
    system: u64,
    size: SegmentSize,
    newest: Option<usize>,
    /// Everything is needed.
    whole: Option<Why>,
    /// Of each timeline: where the first backup starts that is followed, and which it is.
    followed: BTreeMap<Timeline, (Lsn, usize)>,
    /// Of each timeline: first and last LSN of backups, by last.
    spans: BTreeMap<Timeline, Vec<(Lsn, Lsn, usize)>>,
    /// Of each timeline: segments that a way through the window uses, before it leaves the timeline.
    passed: BTreeMap<Timeline, Vec<Need>>,
    /// Of each tip of a way: its first segment.
    tips: BTreeMap<Timeline, (u64, usize)>,
}

impl<'a> Needs<'a> {
    pub fn of(
        facts: &'a Facts<'a>,
        lines: &'a Lines<'a>,
        window: &'a Window,
        kept: &Kept,
        (system, wal): (u64, &StoredWal),
    ) -> Self {
        let mut needs = Needs {
            facts,
            lines,
            window,
            system,
            size: wal.segment_size,
            newest: kept.newest(system),
            whole: None,
            followed: BTreeMap::new(),
            spans: BTreeMap::new(),
            passed: BTreeMap::new(),
            tips: BTreeMap::new(),
        };
        if let Some(timeline) = facts.lost_history(system) {
            needs.whole = Some(Why::LostHistory(timeline));
        } else if needs.newest.is_none() && facts.is_newest(system) {
            needs.whole = Some(Why::NothingGood);
        } else if needs.newest.is_none() && facts.is_alive(system) {
            needs.whole = Some(Why::Living);
        }
        let own = facts.order.iter().copied().filter(|index| facts.backup(*index).system == system);
        own.filter(|index| kept.is(*index)).for_each(|index| needs.enter(index, kept.is_followed(index)));
        needs.spans.values_mut().for_each(|spans| spans.sort_by_key(|(_, last, _)| *last));
        needs.enter_ways();
        needs
    }

    fn enter(&mut self, index: usize, followed: bool) {
        let backup = self.facts.backup(index);
        // No dump needs WAL, not even one whose record cannot be read: its folder says what it is.
        if !backup.kind.is_physical() {
            return;
        }
        if backup.state == BackupState::Unreadable {
            self.whole = Some(Why::Unknown(index));
        }
        if backup.state == BackupState::Failed {
            return;
        }
        // One that is being removed has no way back, unless all of it is there.
        let lives = is_complete(backup) || backup.state == BackupState::Running;
        let timeline = backup.timeline.filter(|timeline| timeline.0 > 0);
        let Some((timeline, start)) = timeline.zip(backup.start_lsn) else {
            if lives {
                self.whole.get_or_insert(Why::Unknown(index));
            }
            return;
        };
        let first = backup.stop_lsn.map_or(start, |stop| stop.min(start));
        if followed || lives && backup.stop_lsn.is_none() {
            let before = self.followed.entry(timeline).or_insert((first, index));
            *before = (*before).min((first, index));
        }
        if let Some(stop) = backup.stop_lsn {
            self.spans.entry(timeline).or_default().push((first, stop.max(start), index));
        }
    }

    /// The segments along each way, from its first base on.
    fn enter_ways(&mut self) {
        for way in self.window.ways.iter().filter(|way| way.system == self.system) {
            let mut first: Option<(u64, usize)> = None;
            for (place, part) in way.parts.iter().enumerate() {
                for &base in &way.bases {
                    let span = self.facts.span(base).filter(|span| span.timeline == part.timeline);
                    let own = span.map(|span| (self.size.segment_of(span.start), base));
                    first = [first, own].into_iter().flatten().min();
                }
                let Some((from, base)) = first else { continue };
                if part.end.is_none() && place + 1 == way.parts.len() {
                    self.tips.insert(part.timeline, (from, base));
                    continue;
                }
                // Where nobody knows where it was left, all is needed.
                let last = part.end.map_or(u64::MAX, |end| self.size.segment_of(end));
                let need = Need { run: Run { first: from, last }, why: Why::From(base) };
                self.passed.entry(part.timeline).or_default().push(need);
            }
        }
    }

    /// What is needed of a timeline whose first stored segment is `first`: disjoint, ascending.
    pub fn on(&self, timeline: Timeline, first: u64) -> Vec<Need> {
        let everything = Run { first: 0, last: u64::MAX };
        if let Some(why) = &self.whole {
            return vec![Need { run: everything, why: why.clone() }];
        }
        let parts = self.lines.parts(self.system, timeline);
        let mut open = self.tips.get(&timeline).copied();
        let mut needs = Vec::new();
        for part in &parts {
            if let Some((start, index)) = self.followed.get(&part.timeline)
                && part.reaches(*start)
            {
                let from = (self.size.segment_of(*start), *index);
                open = Some(open.map_or(from, |open| open.min(from)));
            }
            let spans = self.spans.get(&part.timeline).map_or(&[][..], |spans| spans);
            let later = spans.partition_point(|(_, last, _)| self.size.last_segment_before(*last) < first);
            for (start, last, index) in spans.iter().skip(later).filter(|(start, ..)| part.reaches(*start)) {
                let (first, last) = (self.size.segment_of(*start), self.size.last_segment_before(*last));
                let why = Why::StartToStop { of: vec![*index], count: 1 };
                needs.push(Need { run: Run { first, last: last.max(first) }, why });
            }
        }
        if open.is_none() && self.is_newer(timeline) {
            return vec![Need { run: everything, why: Why::Newer }];
        }
        let is_older = !self.facts.is_newest(self.system);
        if open.is_none() && is_older && self.facts.is_written_on(self.system, timeline) {
            return vec![Need { run: everything, why: Why::Living }];
        }
        needs.extend(self.passed.get(&timeline).into_iter().flatten().cloned());
        if let Some((first, index)) = open {
            needs.retain(|need| need.run.first < first);
            needs.push(Need { run: Run { first, last: u64::MAX }, why: Why::From(index) });
        }
        disjoint(needs)
    }

    /// The newest system's WAL that comes after its newest backup, though no history says so.
    fn is_newer(&self, timeline: Timeline) -> bool {
        let newest = self.newest.and_then(|newest| self.facts.span(newest));
        self.facts.is_newest(self.system)
            && newest.is_some_and(|newest| newest.timeline < timeline)
            && self.window.is_reached_by(self.system, timeline)
    }
}

/// Merges needs that share segments. Where everything from a backup on is kept, that is told.
fn disjoint(mut needs: Vec<Need>) -> Vec<Need> {
    needs.sort_by_key(|need| (need.run.first, need.run.last));
    let mut disjoint: Vec<Need> = Vec::new();
    for mut need in needs {
        let Some(before) = disjoint.last_mut().filter(|before| need.run.first <= before.run.last) else {
            disjoint.push(need);
            continue;
        };
        let last = before.run.last.max(need.run.last);
        match (&mut before.why, &need.why) {
            (Why::StartToStop { of, count }, Why::StartToStop { of: more, count: others }) => {
                more.iter().for_each(|index| words::tell(of, *index));
                *count += others;
                before.run.last = last;
            }
            (Why::StartToStop { .. }, _) if before.run.first < need.run.first => {
                before.run.last = need.run.first - 1;
                need.run.last = last;
                disjoint.push(need);
            }
            (Why::StartToStop { .. }, _) => *before = Need { run: Run { last, ..before.run }, why: need.why },
            _ => before.run.last = last,
        }
    }
    disjoint
}
