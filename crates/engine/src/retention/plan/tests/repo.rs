//! What a repository holds, said in few words.

use crate::postgres::timeline::{Entry, TimelineHistory};
use crate::retention::model::{BackupState, Plan, Stored, StoredBackup, StoredWal, WalVerdict};
use crate::retention::plan::plan;
use crate::wal::survey::{Run, joined};
use chrono::{DateTime, TimeDelta, Utc};
use pg_ark_contract::conversation::BackupKind;
use pg_ark_contract::retention::{Policy, Verdict};
use pg_ark_contract::{Lsn, SegmentSize, Timeline};

/// The system of tests that need one.
pub const SYSTEM: u64 = 7;

/// A moment by its text.
pub fn at(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

/// Midnight, so many days after New Year's Day of 2026.
pub fn day(number: i64) -> DateTime<Utc> {
    at("2026-01-01T00:00:00Z") + TimeDelta::days(number)
}

/// A policy that keeps a window of so many days, and nothing else.
pub fn days(window: u64) -> Policy {
    Policy { window: window * 86_400, min_full: 0, ..Policy::default() }
}

/// Segments of tests have 1 MiB.
pub fn size() -> SegmentSize {
    SegmentSize::new(1 << 20).unwrap()
}

/// In the middle of a segment.
pub fn lsn(segment: u64) -> Lsn {
    Lsn(segment * size().bytes() + 0x80)
}

/// A good full backup on timeline 1 that begins in segment `segment` and stops in the next.
pub fn full(name: &str, stopped_at: DateTime<Utc>, segment: u64) -> StoredBackup {
    StoredBackup {
        backup: name.into(),
        system: SYSTEM,
        kind: BackupKind::Full,
        state: BackupState::Good,
        parent: None,
        pinned: None,
        started_at: Some(stopped_at - TimeDelta::hours(1)),
        stopped_at: Some(stopped_at),
        start_lsn: Some(lsn(segment)),
        stop_lsn: Some(lsn(segment + 1)),
        timeline: Some(Timeline(1)),
        wal_included: false,
        damaged_pages: 0,
        bytes: 1000,
        databases: Vec::new(),
        lacks: Vec::new(),
    }
}

/// An incremental backup.
pub fn incremental(name: &str, parent: &str, stopped_at: DateTime<Utc>, segment: u64) -> StoredBackup {
    StoredBackup {
        kind: BackupKind::Incremental,
        parent: Some(parent.into()),
        ..full(name, stopped_at, segment)
    }
}

/// A logical backup.
pub fn logical(name: &str, stopped_at: DateTime<Utc>) -> StoredBackup {
    let none = (None, None, None);
    let (start_lsn, stop_lsn, timeline) = none;
    StoredBackup { kind: BackupKind::Logical, start_lsn, stop_lsn, timeline, ..full(name, stopped_at, 0) }
}

/// The history of a timeline: its ancestors, and the segments in which they were left.
pub fn history(timeline: u32, ancestors: &[(u32, u64)]) -> TimelineHistory {
    let entry = |(timeline, segment): &(u32, u64)| Entry {
        timeline: Timeline(*timeline),
        switch_lsn: lsn(*segment),
        reason: "no recovery target specified".into(),
    };
    TimelineHistory { timeline: Timeline(timeline), entries: ancestors.iter().map(entry).collect() }
}

/// What is stored of one or more systems.
#[derive(Debug, Clone, Default)]
pub struct Repo(pub Stored);

impl Repo {
    /// With these backups of system [`SYSTEM`].
    pub fn new(backups: impl IntoIterator<Item = StoredBackup>) -> Repo {
        let backups: Vec<StoredBackup> = backups.into_iter().collect();
        Repo(Stored { systems: vec![SYSTEM], backups, ..Stored::default() })
    }

    fn archive(&mut self, system: u64) -> &mut StoredWal {
        self.0.wal.entry(system).or_insert_with(|| StoredWal { segment_size: size(), ..StoredWal::default() })
    }

    /// With these segments of a timeline.
    pub fn wal(mut self, timeline: u32, first: u64, last: u64) -> Repo {
        let runs = self.archive(SYSTEM).segments.entry(Timeline(timeline)).or_default();
        runs.push(Run { first, last });
        self
    }

    /// With these segments of timeline 1 of another system.
    pub fn wal_of(mut self, system: u64, first: u64, last: u64) -> Repo {
        self.archive(system).segments.entry(Timeline(1)).or_default().push(Run { first, last });
        self
    }

    /// With the history of a timeline.
    pub fn history(mut self, timeline: u32, ancestors: &[(u32, u64)]) -> Repo {
        self.archive(SYSTEM).histories.insert(Timeline(timeline), history(timeline, ancestors));
        self
    }

    /// Nothing was written on a timeline since.
    pub fn written_by(mut self, timeline: u32, time: DateTime<Utc>) -> Repo {
        self.archive(SYSTEM).written_by.insert(Timeline(timeline), time);
        self
    }

    /// The verdict.
    pub fn plan(&self, policy: &Policy, now: DateTime<Utc>) -> Shown {
        Shown { stored: self.0.clone(), plan: plan(&self.0, policy, now).unwrap() }
    }
}

/// A plan, and what it is about.
#[derive(Debug)]
pub struct Shown {
    pub stored: Stored,
    pub plan: Plan,
}

impl Shown {
    /// What the plan says about a backup: `keep: window`.
    pub fn backup(&self, name: &str) -> String {
        let of = |index: usize| self.stored.backups[index].backup == name;
        let found = self.plan.backups.iter().find(|verdict| of(verdict.index)).expect("a verdict");
        format!("{}: {}", found.verdict.as_str(), found.rule)
    }

    /// Names of the backups that are kept, oldest first.
    pub fn kept(&self) -> Vec<&str> {
        let kept = self.plan.backups.iter().filter(|verdict| verdict.verdict == Verdict::Keep);
        kept.map(|verdict| &self.stored.backups[verdict.index].backup[..]).collect()
    }

    /// What the plan says about segments of a timeline: `1-4 drop: no backup needs it`.
    pub fn wal(&self, timeline: u32) -> Vec<String> {
        self.wal_of(SYSTEM, timeline)
    }

    /// Of any system.
    pub fn wal_of(&self, system: u64, timeline: u32) -> Vec<String> {
        let of = |wal: &&WalVerdict| wal.system == system && wal.timeline == Timeline(timeline);
        let shown = |wal: &WalVerdict| {
            format!("{}-{} {}: {}", wal.run.first, wal.run.last, wal.verdict.as_str(), wal.rule)
        };
        self.plan.wal.iter().filter(of).map(shown).collect()
    }

    /// Timelines whose histories are kept.
    pub fn histories(&self) -> Vec<u32> {
        let kept = self.plan.histories.iter().filter(|history| history.verdict == Verdict::Keep);
        kept.map(|history| history.timeline.0).collect()
    }
}

/// What is left when the plan was carried out.
pub fn pruned(stored: &Stored, plan: &Plan) -> Stored {
    let mut left = Stored { systems: stored.systems.clone(), ..Stored::default() };
    let mut kept: Vec<usize> =
        plan.backups.iter().filter(|v| v.verdict == Verdict::Keep).map(|v| v.index).collect();
    kept.sort_unstable();
    left.backups = kept.into_iter().map(|index| stored.backups[index].clone()).collect();
    for (system, wal) in &stored.wal {
        let empty = StoredWal { segment_size: wal.segment_size, ..StoredWal::default() };
        left.wal.insert(*system, empty);
    }
    for verdict in plan.wal.iter().filter(|verdict| verdict.verdict == Verdict::Keep) {
        let (from, wal) = (&stored.wal[&verdict.system], left.wal.get_mut(&verdict.system).unwrap());
        let runs = wal.segments.entry(verdict.timeline).or_default();
        runs.push(verdict.run);
        *runs = joined(std::mem::take(runs));
        wal.written.clone_from(&from.written);
        wal.written_by.extend(from.written_by.get_key_value(&verdict.timeline));
    }
    for verdict in plan.histories.iter().filter(|verdict| verdict.verdict == Verdict::Keep) {
        let history = stored.wal[&verdict.system].histories[&verdict.timeline].clone();
        left.wal.get_mut(&verdict.system).unwrap().histories.insert(verdict.timeline, history);
    }
    left
}
