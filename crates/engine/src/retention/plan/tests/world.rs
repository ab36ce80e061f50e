//! Random histories of clusters: they write, are backed up, fail over, are recovered to old moments, upgraded, lose WAL,
//! and their clocks are set.

use super::repo::{day, history, lsn, size};
use crate::postgres::timeline::{Entry, TimelineHistory};
use crate::retention::model::{BackupState, Stored, StoredBackup, StoredWal};
use crate::wal::survey::{Run, joined};
use chrono::{DateTime, TimeDelta, Utc};
use pg_ark_contract::conversation::BackupKind;
use pg_ark_contract::retention::Policy;
use pg_ark_contract::{Lsn, Timeline};
use std::collections::BTreeMap;

/// Numbers that look random and are the same for the same seed (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Less than `count`.
    pub fn below(&mut self, count: u64) -> u64 {
        self.next() % count
    }

    /// True in one of so many cases.
    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub fn pick<'t, T>(&mut self, from: &'t [T]) -> Option<&'t T> {
        let len = u64::try_from(from.len()).unwrap();
        (len > 0).then(|| &from[usize::try_from(self.below(len)).unwrap()])
    }
}

/// A moment that was, and where in the WAL.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    pub system: u64,
    pub timeline: Timeline,
    pub lsn: Lsn,
    pub time: DateTime<Utc>,
}

/// A cluster, its repository, and the moments that it went through.
pub struct World {
    pub random: Random,
    pub stored: Stored,
    pub now: DateTime<Utc>,
    pub moments: Vec<Moment>,
    /// Every history that was ever stored or lost.
    histories: BTreeMap<(u64, Timeline), TimelineHistory>,
    /// Its clock is set now and then.
    pub odd_clock: bool,
    /// The store tells when WAL was stored.
    told: bool,
    timeline: u32,
    /// The segment that is being written.
    segment: u64,
    backups: u64,
    /// The system before the newest, and its segment.
    older: Option<(u64, u64)>,
    /// Where to go back to: timeline and segment.
    left: Option<(u32, u64)>,
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut random = Random(seed);
        let (odd_clock, told) = (random.one_in(3), !random.one_in(3));
        let stored = Stored { systems: vec![1], ..Stored::default() };
        World {
            random,
            stored,
            now: day(0),
            moments: Vec::new(),
            histories: BTreeMap::new(),
            odd_clock,
            told,
            timeline: 1,
            segment: 1,
            backups: 0,
            older: None,
            left: None,
        }
    }

    fn system(&self) -> u64 {
        *self.stored.systems.last().unwrap()
    }

    fn archive(&mut self) -> &mut StoredWal {
        let empty = StoredWal { segment_size: size(), ..StoredWal::default() };
        self.stored.wal.entry(self.system()).or_insert(empty)
    }

    fn pass(&mut self, hours: u64) {
        self.now += TimeDelta::hours(i64::try_from(hours).unwrap());
    }

    /// The segment is full.
    fn store(&mut self) {
        let (timeline, segment, now, told) = (Timeline(self.timeline), self.segment, self.now, self.told);
        self.segment += 1;
        if self.random.one_in(40) {
            return;
        }
        let wal = self.archive();
        let runs = wal.segments.entry(timeline).or_default();
        runs.push(Run { first: segment, last: segment });
        *runs = joined(std::mem::take(runs));
        if told {
            wal.written.push(now);
            let before = wal.written_by.entry(timeline).or_insert(now);
            *before = now.max(*before);
        }
    }

    /// Something happens.
    pub fn step(&mut self) {
        match self.random.below(24) {
            0..=8 => self.work(),
            9..=17 => self.backup(),
            18..=19 => self.fail_over(),
            20 => self.recover_to_the_past(),
            21 if self.random.one_in(3) => self.upgrade(),
            21 => self.an_older_system_writes(),
            22 if self.random.one_in(6) => self.lose_the_newest_history(),
            22 => self.change_a_backup(),
            _ => self.go_back(),
        }
    }

    fn work(&mut self) {
        for _ in 0..=self.random.below(3) {
            let hours = self.random.below(16);
            // Sometimes the clock jumps.
            self.pass(if hours == 15 && self.segment.is_multiple_of(4) { 2400 } else { hours });
            let (system, timeline) = (self.system(), Timeline(self.timeline));
            self.moments.push(Moment { system, timeline, lsn: lsn(self.segment), time: self.now });
            self.store();
        }
    }

    fn backup(&mut self) {
        self.backups += 1;
        let (first, started_at) = (self.segment, self.now);
        if self.random.one_in(3) {
            self.store();
        }
        let hours = 1 + self.random.below(5);
        self.pass(hours);
        let (last, system, timeline) = (self.segment, self.system(), Timeline(self.timeline));
        self.store();
        let wal_included = self.random.one_in(8);
        let mut backup = StoredBackup {
            backup: format!("b{}", self.backups),
            system,
            kind: BackupKind::Full,
            state: BackupState::Good,
            parent: None,
            pinned: self.random.one_in(12).then(String::new),
            started_at: Some(started_at),
            stopped_at: Some(self.now),
            start_lsn: Some(lsn(first)),
            stop_lsn: Some(lsn(last)),
            timeline: Some(timeline),
            wal_included,
            damaged_pages: if self.random.one_in(6) { 1 } else { 0 },
            bytes: 1,
            databases: Vec::new(),
            lacks: Vec::new(),
        };
        self.vary(&mut backup);
        let runs = self.archive().segments.get(&timeline).cloned().unwrap_or_default();
        let whole = wal_included || runs.iter().any(|run| run.first <= first && last <= run.last);
        if !whole && backup.state == BackupState::Good && backup.kind != BackupKind::Logical {
            backup.state = BackupState::Broken("WAL is missing".into());
        }
        let is_seen =
            backup.start_lsn.is_some() && matches!(backup.state, BackupState::Good | BackupState::Broken(_));
        self.stored.backups.push(backup);
        if self.odd_clock && is_seen && self.random.one_in(5) {
            let hours = i64::try_from(self.random.below(200)).unwrap() - 80;
            self.now += TimeDelta::hours(hours);
        }
    }

    fn vary(&mut self, backup: &mut StoredBackup) {
        match self.random.below(24) {
            0..=6 => {
                let of_system = |other: &&StoredBackup| {
                    other.system == backup.system && other.kind != BackupKind::Logical
                };
                let names: Vec<String> =
                    self.stored.backups.iter().filter(of_system).map(|other| other.backup.clone()).collect();
                if let Some(parent) = self.random.pick(&names) {
                    (backup.kind, backup.parent) = (BackupKind::Incremental, Some(parent.clone()));
                }
            }
            7..=8 => {
                backup.kind = BackupKind::Logical;
                (backup.start_lsn, backup.stop_lsn, backup.timeline) = (None, None, None);
                self.dump(backup);
                match self.random.below(12) {
                    0 => backup.state = BackupState::Failed,
                    1 => backup.state = BackupState::Broken("a dump is missing".into()),
                    2 => (backup.state, backup.stopped_at) = (BackupState::Running, None),
                    3 => backup.state = BackupState::Expiring,
                    4 => backup.state = BackupState::Unreadable,
                    _ => {}
                }
            }
            9 => backup.state = BackupState::Failed,
            10 => backup.state = BackupState::Broken("an object is missing".into()),
            11 if self.random.one_in(4) => {
                (backup.state, backup.stopped_at, backup.stop_lsn) = (BackupState::Running, None, None);
            }
            12 if self.random.one_in(4) => backup.state = BackupState::Expiring,
            13 if self.random.one_in(8) => backup.state = BackupState::Unreadable,
            _ => {}
        }
    }

    /// Each database is dumped, or not, or not there.
    fn dump(&mut self, backup: &mut StoredBackup) {
        for name in ["app", "little", "shop"] {
            match self.random.below(12) {
                0..=5 => backup.databases.push(name.into()),
                6..=10 => backup.lacks.push(name.into()),
                _ => {}
            }
        }
    }

    /// Somebody pins one or takes a pin away; one that ran fails; one whose record could not be read can be read.
    fn change_a_backup(&mut self) {
        let count = u64::try_from(self.stored.backups.len()).unwrap().max(1);
        let chosen = usize::try_from(self.random.below(count)).unwrap();
        for (index, backup) in self.stored.backups.iter_mut().enumerate() {
            if matches!(backup.state, BackupState::Running | BackupState::Unreadable) {
                backup.state = BackupState::Failed;
            }
            if index == chosen {
                backup.pinned = if backup.pinned.is_some() { None } else { Some("why not".into()) };
            }
        }
    }

    fn lose_the_newest_history(&mut self) {
        let histories = &mut self.archive().histories;
        histories.pop_last();
    }

    /// The same repository after somebody brought back the histories that `lost` lacks.
    pub fn mended(&self, stored: &Stored, lost: &Stored) -> Stored {
        let mut mended = stored.clone();
        for ((system, timeline), history) in &self.histories {
            let is_lost = lost.wal.get(system).is_some_and(|wal| {
                wal.segments.contains_key(timeline) && !wal.histories.contains_key(timeline)
            });
            if let Some(wal) = mended.wal.get_mut(system).filter(|_| is_lost) {
                wal.histories.insert(*timeline, history.clone());
            }
        }
        mended
    }

    fn history_of(&self, timeline: u32) -> Option<TimelineHistory> {
        match timeline {
            1 => Some(history(1, &[])),
            _ => self.stored.wal.get(&self.system())?.histories.get(&Timeline(timeline)).cloned(),
        }
    }

    /// A new timeline begins in a segment of another.
    fn branch(&mut self, from: u32, segment: u64) {
        let Some(history) = self.history_of(from) else { return };
        // A standby can stop before the place where the timeline that it follows began.
        let begins = history.entries.last().map_or(0, |entry| size().segment_of(entry.switch_lsn));
        if segment < begins && !self.random.one_in(3) {
            return;
        }
        let wal = self.stored.wal.get(&self.system());
        let newest = wal.and_then(|wal| wal.histories.keys().chain(wal.segments.keys()).max().copied());
        let timeline = newest.map_or(1, |newest| newest.0).max(self.timeline) + 1;
        let offset = if self.random.one_in(2) { 0x40 } else { 0 };
        let switch_lsn = Lsn(lsn(segment).0 + offset);
        let mut entries = history.entries;
        entries.push(Entry { timeline: Timeline(from), switch_lsn, reason: String::new() });
        let number = Timeline(timeline);
        let history = TimelineHistory { timeline: number, entries };
        self.histories.insert((self.system(), number), history.clone());
        if !self.random.one_in(25) {
            self.archive().histories.insert(number, history);
        }
        (self.timeline, self.segment) = (timeline, segment);
    }

    fn fail_over(&mut self) {
        // The standby may have lagged.
        let lag = self.random.below(4);
        self.branch(self.timeline, self.segment.saturating_sub(lag).max(1));
        self.left = None;
    }

    fn recover_to_the_past(&mut self) {
        let system = self.system();
        let known = |backup: &&StoredBackup| backup.system == system && backup.state == BackupState::Good;
        let places: Vec<_> = self
            .stored
            .backups
            .iter()
            .filter(known)
            .filter_map(|backup| Some((backup.timeline?.0, size().segment_of(backup.stop_lsn?))))
            .collect();
        let Some(&(timeline, segment)) = self.random.pick(&places) else { return };
        let before = (self.timeline, self.segment);
        let further = self.random.below(3);
        self.branch(timeline, segment + further);
        // It may have been somebody who only looked.
        if self.random.one_in(2) {
            self.left = Some(before);
        }
    }

    fn go_back(&mut self) {
        if let Some((timeline, segment)) = self.left.take() {
            (self.timeline, self.segment) = (timeline, segment);
        }
    }

    /// An older system's server still writes, and may be backed up: somebody gave two servers one name.
    fn an_older_system_writes(&mut self) {
        let Some((old, segment)) = self.older else { return };
        let (now, told) = (self.now, self.told);
        let Some(wal) = self.stored.wal.get_mut(&old) else { return };
        let timeline = wal.segments.keys().next_back().copied().unwrap_or(Timeline(1));
        let last =
            wal.segments.get(&timeline).and_then(|runs| runs.last()).map_or(segment, |run| run.last + 1);
        let runs = wal.segments.entry(timeline).or_default();
        runs.push(Run { first: last, last });
        *runs = joined(std::mem::take(runs));
        if told {
            wal.written.push(now);
            let before = wal.written_by.entry(timeline).or_insert(now);
            *before = now.max(*before);
        }
        // Where the store does not tell, nobody knows that it lives.
        let moment = Moment { system: old, timeline, lsn: lsn(last), time: now };
        self.moments.extend(told.then_some(moment));
    }

    fn upgrade(&mut self) {
        self.older = Some((self.system(), self.segment));
        self.stored.systems.push(self.system() + 1);
        (self.timeline, self.left) = (1, None);
        if self.random.one_in(2) {
            self.segment = 1;
        }
    }

    /// Any policy.
    pub fn policy(&mut self) -> Policy {
        let mut few = |count: u64| if self.random.one_in(2) { 0 } else { self.random.below(count) };
        let number = |few: u64| u32::try_from(few).unwrap();
        Policy {
            window: few(15) * 86_400,
            min_full: number(few(4)),
            daily: number(few(8)),
            weekly: number(few(5)),
            monthly: number(few(4)),
            yearly: number(few(3)),
            timezone: ["UTC", "Europe/Berlin", "America/New_York"][usize::try_from(few(3)).unwrap()].into(),
        }
    }
}
