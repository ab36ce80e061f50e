//! What the plan must say, asked in the slowest and plainest way: each backup, each segment and each moment alone,
//! looking at everything anew. [`super::reference_wal`] asks about WAL and moments.

use crate::postgres::timeline::TimelineHistory;
use crate::retention::model::{BackupState, Stored, StoredBackup};
use crate::retention::plan::calendar;
use chrono::{DateTime, TimeDelta, Utc};
use pg_ark_contract::conversation::BackupKind;
use pg_ark_contract::retention::Policy;
use pg_ark_contract::{Lsn, Timeline};
use std::collections::{BTreeMap, BTreeSet};

/// A repository, looked at slowly.
pub struct Slow<'a> {
    pub(super) stored: &'a Stored,
    policy: &'a Policy,
    now: DateTime<Utc>,
    begins: DateTime<Utc>,
    // Asked so often that the answers are written down.
    good: Vec<bool>,
    clean: Vec<bool>,
    stopped_by: Vec<Option<DateTime<Utc>>>,
    lines: BTreeMap<(u64, Timeline), Vec<usize>>,
    holders: Vec<Vec<usize>>,
}

/// Timeline, start and stop.
type Span = (Timeline, Lsn, Lsn);

impl<'a> Slow<'a> {
    pub fn new(stored: &'a Stored, policy: &'a Policy, now: DateTime<Utc>) -> Slow<'a> {
        let begins = now;
        let (good, clean, stopped_by) = (Vec::new(), Vec::new(), Vec::new());
        let (lines, holders) = (BTreeMap::new(), Vec::new());
        let mut slow = Slow { stored, policy, now, begins, good, clean, stopped_by, lines, holders };
        slow.good = slow.all().map(|index| slow.find_good(index)).collect();
        slow.stopped_by = slow.all().map(|index| slow.find_stopped_by(index)).collect();
        slow.begins = slow.judged_at() - TimeDelta::seconds(i64::try_from(policy.window).unwrap());
        slow.clean = slow.all().map(|index| slow.find_clean(index)).collect();
        slow.holders = slow.find_holders();
        slow.lines = slow.tips().into_iter().map(|line| (line, slow.along(line.0, line.1))).collect();
        slow
    }

    /// The last moment behind which nothing is known for longer than the window and a day, unless a backup has stood for
    /// a day since.
    pub fn judged_at(&self) -> DateTime<Utc> {
        let (window, day) =
            (TimeDelta::seconds(i64::try_from(self.policy.window).unwrap()), TimeDelta::days(1));
        let stored: Vec<_> = self.stored.wal.values().flat_map(|wal| wal.written.clone()).collect();
        let physical = |index: &usize| !self.is_logical(*index);
        let stopped = self.all().filter(physical).filter_map(|index| self.stopped_by[index]);
        let known: BTreeSet<_> =
            stored.iter().copied().chain(stopped).filter(|time| *time <= self.now).collect();
        let next = |time| known.iter().copied().find(|other| *other > time).unwrap_or(self.now);
        let silent = known.iter().rfind(|time| next(**time) - **time > window && next(**time) - **time > day);
        let Some(&last) = silent.filter(|_| stored.iter().any(|time| *time <= self.now)) else {
            return self.now;
        };
        let stood = self.all().filter(physical).filter(|index| self.is_good(*index)).any(|index| {
            let stopped = self.stopped_by[index];
            stopped.is_some_and(|time| time >= next(last) && time + day <= self.now)
        });
        if stood { self.now } else { last }
    }

    pub(super) fn all(&self) -> std::ops::Range<usize> {
        0..self.stored.backups.len()
    }

    pub(super) fn backup(&self, index: usize) -> &'a StoredBackup {
        &self.stored.backups[index]
    }

    pub(super) fn is_logical(&self, index: usize) -> bool {
        self.backup(index).kind == BackupKind::Logical
    }

    fn parent(&self, index: usize) -> Option<usize> {
        let child = self.backup(index);
        self.all().find(|other| {
            let other = self.backup(*other);
            other.system == child.system && Some(&other.backup) == child.parent.as_ref()
        })
    }

    pub(super) fn is_complete(&self, index: usize) -> bool {
        matches!(self.backup(index).state, BackupState::Good | BackupState::Broken(_))
    }

    pub fn is_good(&self, index: usize) -> bool {
        self.good[index]
    }

    pub fn is_clean(&self, index: usize) -> bool {
        self.clean[index]
    }

    fn find_good(&self, index: usize) -> bool {
        let backup = self.backup(index);
        backup.state == BackupState::Good
            && (backup.kind != BackupKind::Incremental
                || self.parent(index).is_some_and(|parent| self.find_good(parent)))
    }

    fn find_clean(&self, index: usize) -> bool {
        let of_parent = || self.parent(index).is_none_or(|parent| self.find_clean(parent));
        let has_parent = self.backup(index).kind == BackupKind::Incremental;
        self.is_good(index) && self.backup(index).damaged_pages == 0 && (!has_parent || of_parent())
    }

    pub(super) fn span(&self, index: usize) -> Option<Span> {
        let backup = self.backup(index);
        let span = (backup.timeline?, backup.start_lsn?, backup.stop_lsn?);
        self.is_complete(index).then_some(span)
    }

    /// `a` is newer than `b`.
    fn is_newer(&self, a: usize, b: usize) -> bool {
        let key = |index: usize| {
            let b = self.backup(index);
            (b.stopped_at.is_none(), b.stopped_at, b.stop_lsn, b.started_at, &b.backup, b.system)
        };
        key(a) > key(b)
    }

    fn is_past(&self, index: usize) -> bool {
        self.backup(index).stopped_at.is_some_and(|time| time <= self.now)
    }

    pub(super) fn is_newest_system(&self, system: u64) -> bool {
        self.stored.systems.last() == Some(&system)
    }

    /// The history that is stored, or what can be said without.
    pub(super) fn history(&self, system: u64, timeline: Timeline) -> TimelineHistory {
        let stored = self.stored.wal.get(&system).and_then(|wal| wal.histories.get(&timeline));
        stored.cloned().unwrap_or(TimelineHistory::without_ancestors(timeline))
    }

    /// Whether WAL up to `lsn` of `from` may belong to the line of `tip`.
    pub(super) fn leads(&self, system: u64, from: Timeline, lsn: Lsn, tip: Timeline) -> bool {
        let stored = self.stored.wal.get(&system).is_some_and(|wal| wal.histories.contains_key(&tip));
        match stored || tip.0 == 1 {
            true => self.history(system, tip).reaches(from, lsn),
            false => from <= tip,
        }
    }

    /// Whether nobody knows where a timeline of which WAL is stored branched off.
    pub(super) fn lacks_a_history(&self, system: u64) -> bool {
        self.stored.wal.get(&system).is_some_and(|wal| {
            wal.segments.keys().any(|timeline| timeline.0 > 1 && !wal.histories.contains_key(timeline))
        })
    }

    pub(super) fn is_written_on(&self, system: u64, timeline: Timeline) -> bool {
        let wal = self.stored.wal.get(&system).filter(|wal| wal.segments.contains_key(&timeline));
        wal.and_then(|wal| wal.written_by.get(&timeline)).is_some_and(|time| *time > self.begins)
    }

    /// Whether an older system's server was there inside the window.
    pub(super) fn lives_on(&self, system: u64) -> bool {
        let backup = self.all().map(|index| self.backup(index)).any(|backup| {
            let time = backup.stopped_at.or(backup.started_at);
            backup.system == system
                && backup.state != BackupState::Expiring
                && (backup.state == BackupState::Running || time.is_some_and(|time| time > self.begins))
        });
        let written = (1..99).any(|timeline| self.is_written_on(system, Timeline(timeline)));
        !self.is_newest_system(system) && (backup || written)
    }

    fn tips(&self) -> BTreeSet<(u64, Timeline)> {
        let of_backups =
            self.all().filter_map(|index| Some((self.backup(index).system, self.span(index)?.0)));
        let mut tips: BTreeSet<(u64, Timeline)> = of_backups.collect();
        for (system, wal) in &self.stored.wal {
            let timelines = wal.segments.keys().chain(wal.histories.keys());
            tips.extend(timelines.map(|timeline| (*system, *timeline)));
        }
        tips
    }

    /// Whether `a` comes before `b` in the WAL of a line.
    fn precedes(&self, a: usize, b: usize) -> bool {
        let key = |index: usize| self.span(index).map(|(timeline, _, stop)| (timeline, stop));
        key(a) < key(b) || key(a) == key(b) && self.is_newer(b, a)
    }

    /// Backups along a line, in any order.
    fn along(&self, system: u64, tip: Timeline) -> Vec<usize> {
        let is_on = |index: &usize| {
            let span = self.span(*index).filter(|_| self.backup(*index).system == system);
            span.is_some_and(|(timeline, _, stop)| self.leads(system, timeline, stop, tip))
        };
        self.all().filter(is_on).collect()
    }

    /// Its time, or that of the earliest that follows it.
    fn find_stopped_by(&self, index: usize) -> Option<DateTime<Utc>> {
        let mut times = vec![self.backup(index).stopped_at];
        if let Some((timeline, _, stop)) = self.span(index) {
            for later in self.all().filter(|later| self.backup(*later).system == self.backup(index).system) {
                let Some((tip, ..)) = self.span(later) else { continue };
                let history = self.history(self.backup(index).system, tip);
                if history.reaches(timeline, stop) && self.precedes(index, later) {
                    times.push(self.backup(later).stopped_at);
                }
            }
        }
        times.into_iter().flatten().min()
    }

    fn is_inside(&self, index: usize) -> bool {
        let told = self.backup(index).stopped_at;
        told.is_some_and(|time| self.begins < time && time <= self.now)
            || self.stopped_by[index].is_none_or(|time| time > self.begins)
    }

    fn is_before(&self, index: usize) -> bool {
        self.is_good(index) && self.is_old(index)
    }

    fn is_old(&self, index: usize) -> bool {
        !self.is_logical(index) && self.stopped_by[index].is_some_and(|time| time <= self.begins)
    }

    pub(super) fn reaches_window(&self, system: u64, tip: Timeline) -> bool {
        let own = |index: usize| {
            self.backup(index).system == system && self.span(index).is_some_and(|span| span.0 == tip)
        };
        if self.all().any(|index| own(index) && self.is_inside(index)) {
            return true;
        }
        let place = |system: u64| self.stored.systems.iter().position(|other| *other == system);
        let covered = self.all().any(|index| {
            place(self.backup(index).system) > place(system)
                && self.is_good(index)
                && !self.is_logical(index)
                && self.backup(index).stopped_at.is_some_and(|time| time <= self.begins)
        });
        let is_last = self.lines.keys().filter(|other| other.0 == system).max() == Some(&(system, tip));
        let wal = self.stored.wal.get(&system).filter(|wal| wal.segments.contains_key(&tip));
        let told = wal.and_then(|wal| wal.written_by.get(&tip));
        is_last && !covered
            || told.is_some_and(|time| *time > self.begins)
            || wal.is_some() && told.is_none() && !covered
    }

    /// Whether moments of the window along this line are recovered from it.
    fn is_base(&self, index: usize, system: u64, tip: Timeline) -> bool {
        let along = &self.lines[&(system, tip)];
        if !along.contains(&index) || !self.is_old(index) {
            return false;
        }
        let in_time = |other: usize, upto: Option<usize>| upto.is_none_or(|upto| self.precedes(other, upto));
        let better = |other: usize, upto: Option<usize>| {
            self.is_before(other) && self.precedes(index, other) && in_time(other, upto)
        };
        let newest_before = |upto: Option<usize>| {
            if !self.is_good(index) {
                let good = along.iter().any(|&other| self.is_before(other) && in_time(other, upto));
                let newer = |&other: &usize| self.is_old(other) && self.precedes(index, other);
                return !good && !along.iter().any(|other| newer(other) && in_time(*other, upto));
            }
            let any = along.iter().any(|&other| better(other, upto));
            let clean = along.iter().any(|&other| better(other, upto) && self.is_clean(other));
            !any || self.is_clean(index) && !clean
        };
        let follows = |event: &usize| self.is_inside(*event) && self.precedes(index, *event);
        along.iter().filter(|event| follows(event)).any(|event| newest_before(Some(*event)))
            || self.reaches_window(system, tip) && newest_before(None)
    }

    /// None of `among` is newer; none of those that stopped by now when it did.
    pub(super) fn is_newest_of(&self, index: usize, among: &[usize]) -> bool {
        let past: Vec<usize> = among.iter().copied().filter(|other| self.is_past(*other)).collect();
        let among = if past.is_empty() { among } else { &past[..] };
        among.contains(&index) && !among.iter().any(|other| self.is_newer(*other, index))
    }

    fn class(&self, index: usize) -> Vec<usize> {
        self.all().filter(|other| self.is_logical(*other) == self.is_logical(index)).collect()
    }

    fn is_newest_good(&self, index: usize) -> bool {
        let good: Vec<usize> = self.class(index).into_iter().filter(|other| self.is_good(*other)).collect();
        let system = self.backup(index).system;
        let own: Vec<usize> = good.iter().copied().filter(|o| self.backup(*o).system == system).collect();
        self.is_newest_of(index, &good)
            || !self.is_logical(index)
                && (self.is_newest_system(system) || self.lives_on(system))
                && self.is_newest_of(index, &own)
    }

    /// For each database that the newest good logical backup holds or lacks: the backups that hold it.
    fn find_holders(&self) -> Vec<Vec<usize>> {
        let logical = || self.all().filter(|index| self.is_logical(*index));
        let good: Vec<usize> = logical().filter(|index| self.is_good(*index)).collect();
        let newest = good.iter().copied().find(|other| self.is_newest_of(*other, &good));
        let names = newest.map(|newest| self.backup(newest)).into_iter();
        let holders =
            |name: &String| logical().filter(|other| self.backup(*other).databases.contains(name)).collect();
        names.flat_map(|newest| newest.databases.iter().chain(&newest.lacks)).map(holders).collect()
    }

    /// The class of a backup; of a logical one also those that hold one database.
    fn groups(&self, index: usize) -> Vec<Vec<usize>> {
        let mut groups = if self.is_logical(index) { self.holders.clone() } else { Vec::new() };
        groups.push(self.class(index));
        groups
    }

    /// Whether it is a good dump of something that `lister` lacks and none is newer; or any dump of it where none is good.
    fn is_dump_for(&self, index: usize, lister: usize) -> bool {
        let (backup, lister) = (self.backup(index), self.backup(lister));
        let complete = matches!(lister.state, BackupState::Good | BackupState::Broken(_));
        let is_for = |name: &String| {
            let holders = self.all().filter(|other| self.backup(*other).databases.contains(name));
            let holders: Vec<usize> = holders.filter(|other| self.is_complete(*other)).collect();
            let good: Vec<usize> = holders.iter().copied().filter(|other| self.is_good(*other)).collect();
            let own = good.iter().copied().filter(|other| self.backup(*other).system == lister.system);
            let own: Vec<usize> = own.collect();
            match (&own[..], &good[..]) {
                ([], []) => holders.contains(&index),
                ([], good) => self.is_newest_of(index, good),
                (own, _) => self.is_newest_of(index, own),
            }
        };
        complete && backup.databases.iter().filter(|name| lister.lacks.contains(name)).any(is_for)
    }

    fn stands_for_a_period(&self, index: usize) -> bool {
        self.groups(index).into_iter().any(|group| self.stands_for_a_period_of(index, &group))
    }

    fn stands_for_a_period_of(&self, index: usize, group: &[usize]) -> bool {
        let zone = calendar::zone(&self.policy.timezone).unwrap();
        let among: Vec<usize> =
            group.iter().copied().filter(|o| self.is_good(*o) && self.is_past(*o)).collect();
        among.contains(&index)
            && calendar::rules(self.policy).into_iter().any(|(_, period, count)| {
                let of = |index: usize| period(calendar::date(zone, self.backup(index).stopped_at.unwrap()));
                let better = |other: usize| match (self.is_clean(other), self.is_clean(index)) {
                    (true, false) => true,
                    (false, true) => false,
                    _ => self.is_newer(other, index),
                };
                let first = !among.iter().any(|o| of(*o) == of(index) && better(*o));
                let newer: BTreeSet<_> = among.iter().map(|o| of(*o)).filter(|p| *p > of(index)).collect();
                first && newer.len() < count as usize
            })
    }

    fn is_counted(&self, index: usize) -> bool {
        let counts =
            |o: usize| self.is_good(o) && self.is_past(o) && self.backup(o).kind != BackupKind::Incremental;
        self.groups(index).into_iter().any(|group| {
            let newer = group.iter().filter(|o| counts(**o) && self.is_newer(**o, index)).count();
            group.contains(&index) && counts(index) && newer < self.policy.min_full as usize
        })
    }

    fn is_kept_alone(&self, index: usize) -> bool {
        let backup = self.backup(index);
        let good: Vec<usize> = self.class(index).into_iter().filter(|o| self.is_good(*o)).collect();
        let clean: Vec<usize> = good.iter().copied().filter(|o| self.is_clean(*o)).collect();
        let own: Vec<usize> = good.iter().copied().filter(|o| self.backup(*o).damaged_pages == 0).collect();
        let window = TimeDelta::seconds(i64::try_from(self.policy.window).unwrap());
        let lately = self.now - window.max(TimeDelta::days(7));
        let by_state = match backup.state {
            BackupState::Running | BackupState::Unreadable => true,
            BackupState::Failed => backup.stopped_at.or(backup.started_at).is_some_and(|time| time > lately),
            BackupState::Expiring => false,
            BackupState::Good | BackupState::Broken(_) => good.is_empty() || self.is_in_the_window(index),
        };
        by_state
            || backup.pinned.is_some()
            || self.is_complete(index) && !self.is_logical(index) && self.lacks_a_history(backup.system)
            || self.is_newest_good(index)
            || self.is_newest_of(index, &clean)
            || self.is_newest_of(index, &own)
            || self.is_counted(index)
            || self.stands_for_a_period(index)
            || self.lines.keys().any(|&(system, tip)| self.is_base(index, system, tip))
    }

    /// Every backup that must be kept.
    pub fn kept(&self) -> BTreeSet<usize> {
        let mut kept: BTreeSet<usize> = self.all().filter(|index| self.is_kept_alone(*index)).collect();
        loop {
            let parents: Vec<usize> = kept.iter().filter_map(|index| self.parent(*index)).collect();
            let before = kept.len();
            kept.extend(parents);
            let dumps = |index: &usize| kept.iter().any(|lister| self.is_dump_for(*index, *lister));
            let dumps: Vec<usize> = self.all().filter(dumps).collect();
            kept.extend(dumps);
            if kept.len() == before {
                return kept;
            }
        }
    }

    /// Whether all WAL from its start on is kept, wherever it leads.
    pub(super) fn is_followed(&self, index: usize) -> bool {
        let backup = self.backup(index);
        let no_good = !self.class(index).into_iter().any(|other| self.is_good(other));
        backup.state == BackupState::Running
            || self.is_newest_good(index)
            || self.is_complete(index) && no_good
            || self.is_complete(index) && self.is_in_the_window(index) && self.is_inside(index)
    }

    /// By its own time; a dump that came after what may be a jump of clocks only while it is younger than the window.
    fn is_in_the_window(&self, index: usize) -> bool {
        let Some(time) = self.backup(index).stopped_at else { return true };
        let window = TimeDelta::seconds(i64::try_from(self.policy.window).unwrap());
        match self.is_logical(index) && time > self.judged_at() {
            true => time + window > self.now,
            false => time > self.begins,
        }
    }

    /// Every way into the window: its first base and its tip.
    pub fn bases(&self) -> Vec<(usize, Timeline)> {
        let of_tip = |(system, tip): (u64, Timeline)| {
            let bases = self.all().filter(move |index| self.is_base(*index, system, tip));
            bases.map(move |index| (index, tip)).collect::<Vec<_>>()
        };
        self.tips().into_iter().flat_map(of_tip).collect()
    }
}
