//! The rules that keep backups.

use super::calendar;
use super::dumps::{self, Dump, Holders};
use super::facts::{Facts, is_complete};
use super::window::Window;
use crate::retention::model::BackupState;
use chrono_tz::Tz;
use pg_ark_contract::Timeline;
use pg_ark_contract::conversation::BackupKind;
use pg_ark_contract::retention::Policy;
use std::collections::BTreeMap;

/// Why a backup is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Its writer may be alive.
    Running,
    /// Nobody knows what it needs.
    Unreadable,
    /// Somebody said so.
    Pinned,
    /// It stopped inside the window, or nobody knows that it did not.
    Window,
    /// Moments of the window are recovered from it.
    Base,
    /// Moments of the window would be recovered from it, if it were whole: no good one leads there.
    BrokenBase,
    /// No good one is newer.
    NewestGood,
    /// Of an older system whose server was there inside the window, no good one is newer.
    NewestOfLiving,
    /// No good one without damage is newer.
    NewestClean,
    /// A logical backup that is kept lacks the database at this place of its own, and so many others.
    NewestDump { place: usize, others: usize },
    /// The newest so many.
    Count(u32),
    /// The newest so many that hold one of its databases.
    CountOfDatabase(u32),
    /// A day, week, month, year.
    Period(&'static str),
    /// The history of a timeline of its system is missing: it may be what leads there.
    LostHistory(Timeline),
    /// There is no good backup: what is broken is all there is.
    NothingGood,
    /// It failed not long ago.
    FailedLately,
    /// A backup that is kept needs it, and so many others.
    Parent { of: usize, others: usize },
}

/// What is kept, and why.
pub struct Kept {
    rules: Vec<Vec<Rule>>,
    /// Of each backup: all WAL from its start on is kept.
    followed: Vec<bool>,
    /// The newest good backup of each system.
    newest: BTreeMap<u64, usize>,
}

impl Kept {
    pub fn of(facts: &Facts<'_>, window: &Window, policy: &Policy, zone: Tz) -> Kept {
        let rules = vec![Vec::new(); facts.order.len()];
        let followed = vec![false; facts.order.len()];
        let mut kept = Kept { rules, followed, newest: BTreeMap::new() };
        facts.all().for_each(|index| kept.by_itself(facts, window, index));
        for index in window.ways.iter().flat_map(|way| &way.bases) {
            kept.add(*index, if facts.is_good(*index) { Rule::Base } else { Rule::BrokenBase });
        }
        let (logical, physical): (Vec<usize>, Vec<usize>) =
            facts.order.iter().partition(|&&index| facts.backup(index).kind == BackupKind::Logical);
        kept.of_class(facts, &physical, policy, zone);
        kept.of_class(facts, &logical, policy, zone);
        kept.of_databases(facts, &logical, policy, zone);
        kept.newest_of_systems(facts, &physical);
        kept.dumps(facts, &logical);
        kept.parents(facts);
        kept
    }

    pub fn is(&self, index: usize) -> bool {
        !self.rules[index].is_empty()
    }

    pub fn rules(&self, index: usize) -> &[Rule] {
        &self.rules[index]
    }

    /// All WAL from its start on is kept, on every timeline that it can be recovered to.
    pub fn is_followed(&self, index: usize) -> bool {
        self.followed[index]
    }

    /// The newest good backup of a system that WAL follows.
    pub fn newest(&self, system: u64) -> Option<usize> {
        self.newest.get(&system).copied()
    }

    fn add(&mut self, index: usize, rule: Rule) {
        if !self.rules[index].contains(&rule) {
            self.rules[index].push(rule);
        }
    }

    /// Rules that look at one backup alone.
    fn by_itself(&mut self, facts: &Facts<'_>, window: &Window, index: usize) {
        let backup = facts.backup(index);
        let failed = |index| {
            let time = facts.backup(index).stopped_at.or(facts.backup(index).started_at);
            time.is_some_and(|time| time > facts.failed_since)
        };
        match backup.state {
            BackupState::Running => {
                self.add(index, Rule::Running);
                self.followed[index] = true;
            }
            BackupState::Unreadable => self.add(index, Rule::Unreadable),
            BackupState::Failed if failed(index) => self.add(index, Rule::FailedLately),
            BackupState::Failed | BackupState::Expiring => {}
            BackupState::Good | BackupState::Broken(_) => {
                if facts.is_inside(index) {
                    self.add(index, Rule::Window);
                    self.followed[index] = window.holds(index);
                }
                let lost = facts.lost_history(backup.system).filter(|_| backup.kind != BackupKind::Logical);
                if let Some(timeline) = lost {
                    self.add(index, Rule::LostHistory(timeline));
                }
            }
        }
        if backup.pinned.is_some() {
            self.add(index, Rule::Pinned);
        }
    }

    /// Rules that look at all physical, or all logical backups: `class`, oldest first.
    fn of_class(&mut self, facts: &Facts<'_>, class: &[usize], policy: &Policy, zone: Tz) {
        let good: Vec<usize> = class.iter().copied().filter(|index| facts.is_good(*index)).collect();
        if good.is_empty() {
            for &index in class.iter().filter(|index| is_complete(facts.backup(**index))) {
                self.add(index, Rule::NothingGood);
                self.followed[index] = true;
            }
        }
        if let Some(&newest) = newest(facts, &good) {
            self.add(newest, Rule::NewestGood);
            self.followed[newest] = true;
        }
        // A clean one can have parents that are not: then the newest is kept whose parents are clean as well.
        let own = |index: &usize| facts.backup(*index).damaged_pages == 0;
        let clean: [Vec<usize>; 2] = [
            good.iter().copied().filter(own).collect(),
            good.iter().copied().filter(|index| facts.is_clean(*index)).collect(),
        ];
        for &newest in clean.iter().filter_map(|clean| newest(facts, clean)) {
            self.add(newest, Rule::NewestClean);
        }
        let counted =
            good.iter().copied().filter(|index| facts.backup(*index).kind != BackupKind::Incremental);
        let counted: Vec<usize> = counted.collect();
        self.newest_ones(facts, &counted, policy.min_full, Rule::Count(policy.min_full));
        self.of_periods(facts, &good, policy, zone);
    }

    /// The newest so many of these good ones. Those that stopped in the future are kept anyway, and are no reason to drop
    /// another.
    fn newest_ones(&mut self, facts: &Facts<'_>, good: &[usize], count: u32, rule: Rule) {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        for &index in up_to_now(facts, good).iter().rev().take(count) {
            self.add(index, rule);
        }
    }

    fn of_periods(&mut self, facts: &Facts<'_>, good: &[usize], policy: &Policy, zone: Tz) {
        let past = up_to_now(facts, good);
        for rule in calendar::rules(policy) {
            for index in calendar::chosen(facts, &past, zone, rule) {
                self.add(index, Rule::Period(rule.0));
            }
        }
    }

    /// Dumps of one database every hour do not stand for those of all each night.
    fn of_databases(&mut self, facts: &Facts<'_>, logical: &[usize], policy: &Policy, zone: Tz) {
        let good: Vec<usize> = logical.iter().copied().filter(|index| facts.is_good(*index)).collect();
        for holders in dumps::histories(facts, &good).into_iter().filter(|holders| *holders != good) {
            self.newest_ones(facts, &holders, policy.min_full, Rule::CountOfDatabase(policy.min_full));
            self.of_periods(facts, &holders, policy, zone);
        }
    }

    /// What a kept one lacks is held by another that is kept.
    fn dumps(&mut self, facts: &Facts<'_>, logical: &[usize]) {
        let kept: Vec<usize> = facts.all().filter(|index| self.is(*index)).collect();
        let mut told: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
        for Dump { backup, place } in Holders::of(facts, logical).needed(facts, kept) {
            told.entry(backup).and_modify(|(_, others)| *others += 1).or_insert((place, 0));
        }
        for (backup, (place, others)) in told {
            self.add(backup, Rule::NewestDump { place, others });
        }
    }

    /// The newest system can have backups whose times say that they are older than another system's. An older one may
    /// live on, when two servers were given one cluster name.
    fn newest_of_systems(&mut self, facts: &Facts<'_>, physical: &[usize]) {
        let mut good: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for &index in physical.iter().filter(|index| facts.is_good(**index)) {
            good.entry(facts.backup(index).system).or_default().push(index);
        }
        for (system, good) in good {
            let Some(&newest) = newest(facts, &good) else { continue };
            self.newest.insert(system, newest);
            if facts.is_newest(system) {
                self.add(newest, Rule::NewestGood);
                self.followed[newest] = true;
            } else if facts.is_alive(system) {
                self.add(newest, Rule::NewestOfLiving);
                self.followed[newest] = true;
            }
        }
    }

    /// Nothing that is kept loses its parent, or its parent's parent.
    fn parents(&mut self, facts: &Facts<'_>) {
        let mut todo: Vec<usize> =
            facts.order.iter().rev().copied().filter(|index| self.is(*index)).collect();
        let mut children: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
        let mut seen: Vec<bool> = facts.all().map(|index| self.is(index)).collect();
        while let Some(child) = todo.pop() {
            for &parent in facts.parents(child) {
                children.entry(parent).and_modify(|(_, others)| *others += 1).or_insert((child, 0));
                if !std::mem::replace(&mut seen[parent], true) {
                    todo.push(parent);
                }
            }
        }
        for (parent, (of, others)) in children {
            self.add(parent, Rule::Parent { of, others });
        }
    }
}

/// Those that stopped by now.
fn up_to_now(facts: &Facts<'_>, ordered: &[usize]) -> Vec<usize> {
    let is_past = |index: &usize| facts.backup(*index).stopped_at.is_some_and(|time| time <= facts.now);
    ordered.iter().copied().filter(is_past).collect()
}

/// The newest that stopped by now, or the newest of all when none did.
pub fn newest<'b>(facts: &Facts<'_>, ordered: &'b [usize]) -> Option<&'b usize> {
    let is_past = |index: &&usize| facts.backup(**index).stopped_at.is_some_and(|time| time <= facts.now);
    ordered.iter().rev().find(is_past).or(ordered.last())
}

/// The same order for all: those that stopped by now come first.
pub fn newest_first(facts: &Facts<'_>, ordered: &[usize]) -> Vec<usize> {
    let is_past = |index: &usize| facts.backup(*index).stopped_at.is_some_and(|time| time <= facts.now);
    let (past, future): (Vec<usize>, Vec<usize>) = ordered.iter().rev().copied().partition(is_past);
    past.into_iter().chain(future).collect()
}
