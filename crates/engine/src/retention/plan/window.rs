//! Which backups are inside the window, and the ways into it.
//!
//! Along a line, in the order of its WAL, the moments between a backup that stopped before the window and one that
//! stopped inside it may be inside. So the newest good backup before each backup inside the window is a base, and the
//! newest of all before the window is one when the line goes on inside it. From its bases on, every moment of the window
//! that could be recovered can be.

use super::facts::Facts;
use super::lines::{Lines, Part};
use chrono::{DateTime, Utc};
use pg_ark_contract::Timeline;
use std::collections::BTreeSet;

/// A line, and the backups from which it is recovered to moments of the window.
#[derive(Debug)]
pub struct Way {
    pub system: u64,
    pub parts: Vec<Part>,
    /// The newest good backups that stopped before moments of the window, and the newest of those without damage. Where
    /// none is good, the newest broken ones.
    pub bases: Vec<usize>,
}

/// The window, and the ways into it.
#[derive(Debug)]
pub struct Window {
    /// Of each backup: the WAL that follows it leads through the window.
    inside: Vec<bool>,
    pub ways: Vec<Way>,
    /// Lines that go on inside the window, or may.
    reaching: BTreeSet<(u64, Timeline)>,
}

impl Window {
    /// `stopped_by` is what [`stopped_by`] said.
    pub fn of(facts: &Facts<'_>, lines: &Lines<'_>, stopped_by: &[Option<DateTime<Utc>>]) -> Window {
        let is_inside = |index: usize| {
            let told = facts.backup(index).stopped_at;
            told.is_some_and(|time| facts.begins < time && time <= facts.now)
                || stopped_by[index].is_none_or(|time| time > facts.begins)
        };
        let inside: Vec<bool> = facts.all().map(is_inside).collect();
        let covered = covered(facts);
        let (mut ways, mut reaching) = (Vec::new(), BTreeSet::new());
        for (system, tip) in lines.tips() {
            let parts = lines.parts(system, tip);
            let mut search = Search::default();
            for index in lines.along(system, &parts) {
                if inside[index] {
                    search.found();
                }
                if stopped_by[index].is_some_and(|time| time <= facts.begins) {
                    match facts.is_good_base(index) {
                        true => search.pass(index, facts.is_clean(index)),
                        false => search.broken = Some(index),
                    }
                }
            }
            let own = lines.on(system, tip).iter().any(|(_, index)| inside[*index]);
            if own || goes_on(facts, lines, (system, tip), covered) {
                search.found();
                reaching.insert((system, tip));
            }
            let bases: Vec<usize> = search.bases.into_iter().collect();
            if !bases.is_empty() {
                ways.push(Way { system, parts, bases });
            }
        }
        Window { inside, ways, reaching }
    }

    /// Whether the WAL that follows the backup leads through the window.
    pub fn holds(&self, index: usize) -> bool {
        self.inside[index]
    }

    /// Whether the line of a timeline goes on inside the window, or may.
    pub fn is_reached_by(&self, system: u64, tip: Timeline) -> bool {
        self.reaching.contains(&(system, tip))
    }
}

/// By when each backup had stopped: no later than those that follow it on a line, whatever the clock said.
pub fn stopped_by(facts: &Facts<'_>, lines: &Lines<'_>) -> Vec<Option<DateTime<Utc>>> {
    let mut times: Vec<_> = facts.stored.backups.iter().map(|backup| backup.stopped_at).collect();
    for (system, tip) in lines.tips() {
        let parts = match lines.is_known(system, tip) {
            true => lines.parts(system, tip),
            false => vec![Part { timeline: tip, end: None }],
        };
        let mut earliest: Option<DateTime<Utc>> = None;
        for index in lines.along(system, &parts).into_iter().rev() {
            let told = facts.backup(index).stopped_at;
            earliest = [earliest, told].into_iter().flatten().min();
            times[index] = [earliest, times[index]].into_iter().flatten().min();
        }
    }
    times
}

/// The newest system that has a good backup from before the window: what older ones hold is not needed for the window,
/// unless it is known to lie inside.
fn covered(facts: &Facts<'_>) -> Option<usize> {
    let is_before = |index: &usize| {
        facts.is_good_base(*index) && facts.backup(*index).stopped_at.is_some_and(|t| t <= facts.begins)
    };
    facts.all().filter(is_before).filter_map(|index| facts.place_of(facts.backup(index).system)).max()
}

/// Whether the line has WAL inside the window, or may have: it is where the cluster is now, or nobody knows.
fn goes_on(
    facts: &Facts<'_>,
    lines: &Lines<'_>,
    (system, tip): (u64, Timeline),
    covered: Option<usize>,
) -> bool {
    let is_present = facts.place_of(system).is_none_or(|place| covered.is_none_or(|newer| newer <= place));
    if is_present && lines.newest(system) == Some(tip) {
        return true;
    }
    let wal = facts.stored.wal.get(&system);
    match wal.and_then(|wal| wal.written_by.get(&tip)) {
        _ if wal.is_none_or(|wal| wal.segments.get(&tip).is_none_or(Vec::is_empty)) => false,
        Some(written_by) => *written_by > facts.begins,
        None => is_present,
    }
}

/// The newest good backups before the window that were passed along a line.
#[derive(Debug, Default)]
struct Search {
    newest: Option<usize>,
    newest_clean: Option<usize>,
    /// The newest that is not good: what it lacks may be stored yet.
    broken: Option<usize>,
    bases: BTreeSet<usize>,
}

impl Search {
    fn pass(&mut self, index: usize, clean: bool) {
        self.newest = Some(index);
        if clean {
            self.newest_clean = Some(index);
        }
    }

    /// A moment of the window follows.
    fn found(&mut self) {
        self.bases.extend(self.newest.or(self.broken).into_iter().chain(self.newest_clean));
    }
}
