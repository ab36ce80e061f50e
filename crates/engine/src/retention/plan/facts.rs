//! What follows from the backups alone: their order, and which are good.

use super::jump;
use crate::retention::model::{BackupState, Stored, StoredBackup};
use chrono::{DateTime, TimeDelta, Utc};
use pg_ark_contract::conversation::BackupKind;
use pg_ark_contract::{Lsn, Timeline};
use std::collections::{BTreeMap, HashMap};

/// A failed backup holds no data, and is shown for as long as the window, but at least for so many seconds.
const FAILED_SHOWN: u64 = 7 * 86_400;

/// Where a backup lies in the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub timeline: Timeline,
    pub start: Lsn,
    pub stop: Lsn,
}

/// What is stored, and what follows from it. Backups are named by their places in [`Stored::backups`].
pub struct Facts<'a> {
    pub stored: &'a Stored,
    pub now: DateTime<Utc>,
    /// Where the window ends: `now`, or before what may be a jump of clocks.
    pub judged_at: DateTime<Utc>,
    /// Where the window begins.
    pub begins: DateTime<Utc>,
    /// Where it would begin if it ended now.
    lately: DateTime<Utc>,
    /// Failed backups are shown when they are younger.
    pub failed_since: DateTime<Utc>,
    /// All backups by stop time, oldest first; those without one come last.
    pub order: Vec<usize>,
    /// Of each backup: it can be restored, and without a damaged page.
    good: Vec<Good>,
    /// Of each backup: the backups that have its parent's name.
    parents: Vec<Vec<usize>>,
    /// Systems with a timeline that has segments and, though it branched off, no history: the oldest such.
    lost: BTreeMap<u64, Timeline>,
}

/// How good a backup is, alone or with its parents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Good {
    usable: bool,
    clean: bool,
}

impl<'a> Facts<'a> {
    pub fn of(stored: &'a Stored, window: u64, now: DateTime<Utc>) -> Self {
        let order = order(&stored.backups);
        let parents = parents(&stored.backups);
        let good = chains(&stored.backups, &parents);
        let failed_since = before(now, window.max(FAILED_SHOWN));
        let lost =
            stored.wal.iter().filter_map(|(system, wal)| Some((*system, wal.lost_history()?))).collect();
        let lately = before(now, window);
        Facts {
            stored,
            now,
            judged_at: now,
            begins: lately,
            lately,
            failed_since,
            order,
            good,
            parents,
            lost,
        }
    }

    /// Finds where the window ends. `stopped_by` says by when each backup had stopped.
    pub fn judge(&mut self, stopped_by: &[Option<DateTime<Utc>>], window: u64) {
        let of = |is: &dyn Fn(usize) -> bool| -> Vec<_> {
            let physical = self.all().filter(|index| self.backup(*index).kind.is_physical() && is(*index));
            physical.filter_map(|index| stopped_by[index]).collect()
        };
        let (all, good) = (of(&|_| true), of(&|index| self.is_good(index)));
        self.judged_at = jump::judged_at(self.stored, &all, &good, window, self.now);
        self.begins = before(self.judged_at, window);
    }

    /// Whether the window keeps a complete backup. Nothing says of dumps that a clock jumped: those that go on where no WAL
    /// and no physical backup does are kept for as long as ever.
    pub fn is_inside(&self, index: usize) -> bool {
        let backup = self.backup(index);
        backup.stopped_at.is_none_or(|time| {
            let was_inside = self.begins < time && (backup.kind.is_physical() || time <= self.judged_at);
            was_inside || time > self.lately
        })
    }

    pub fn backup(&self, index: usize) -> &'a StoredBackup {
        &self.stored.backups[index]
    }

    pub fn all(&self) -> std::ops::Range<usize> {
        0..self.stored.backups.len()
    }

    /// It can be restored.
    pub fn is_good(&self, index: usize) -> bool {
        self.good[index].usable
    }

    /// It can be restored without a damaged page.
    pub fn is_clean(&self, index: usize) -> bool {
        self.good[index].usable && self.good[index].clean
    }

    /// The backups that have its parent's name: at most one in a repository that is sound.
    pub fn parents(&self, index: usize) -> &[usize] {
        &self.parents[index]
    }

    /// A good one that is followed by WAL.
    pub fn is_good_base(&self, index: usize) -> bool {
        self.is_good(index) && self.backup(index).kind != BackupKind::Logical
    }

    /// A timeline of the system from which nobody knows where it branched off, so that any backup may lead to it.
    pub fn lost_history(&self, system: u64) -> Option<Timeline> {
        self.lost.get(&system).copied()
    }

    /// Whether a timeline of the system was written on inside the window.
    pub fn is_written_on(&self, system: u64, timeline: Timeline) -> bool {
        let wal = self.stored.wal.get(&system);
        let held = wal.filter(|wal| wal.segments.get(&timeline).is_some_and(|runs| !runs.is_empty()));
        held.and_then(|wal| wal.written_by.get(&timeline)).is_some_and(|time| *time > self.begins)
    }

    /// Whether a server of the system was there inside the window: it wrote WAL, or was backed up or tried to be. Then it
    /// may be alive, though another system is newer. What retention removes is no sign.
    pub fn is_alive(&self, system: u64) -> bool {
        let backups = self.stored.backups.iter().filter(|backup| backup.system == system);
        let lately = backups.filter(|backup| backup.state != BackupState::Expiring).any(|backup| {
            let time = backup.stopped_at.or(backup.started_at);
            backup.state == BackupState::Running || time.is_some_and(|time| time > self.begins)
        });
        let wal = self.stored.wal.get(&system);
        lately
            || wal
                .is_some_and(|wal| wal.segments.keys().any(|timeline| self.is_written_on(system, *timeline)))
    }

    /// Its place among the systems; none for one that the list lacks.
    pub fn place_of(&self, system: u64) -> Option<usize> {
        self.stored.systems.iter().rposition(|listed| *listed == system)
    }

    /// Whether it is the newest system. One that the list lacks may be it.
    pub fn is_newest(&self, system: u64) -> bool {
        self.place_of(system).is_none_or(|place| place + 1 == self.stored.systems.len())
    }

    /// Where a complete backup lies in the WAL; none when the record does not say, or makes no sense.
    pub fn span(&self, index: usize) -> Option<Span> {
        span(self.backup(index)).filter(|_| is_complete(self.backup(index)))
    }
}

/// Good or broken: nothing says that its data are not whole, or not needed.
pub fn is_complete(backup: &StoredBackup) -> bool {
    matches!(backup.state, BackupState::Good | BackupState::Broken(_))
}

fn span(backup: &StoredBackup) -> Option<Span> {
    let (start, stop) = (backup.start_lsn?, backup.stop_lsn?);
    let timeline = backup.timeline.filter(|timeline| timeline.0 > 0)?;
    (start <= stop && backup.kind != BackupKind::Logical).then_some(Span { timeline, start, stop })
}

fn before(now: DateTime<Utc>, seconds: u64) -> DateTime<Utc> {
    let span = i64::try_from(seconds).ok().and_then(TimeDelta::try_seconds);
    span.and_then(|span| now.checked_sub_signed(span)).unwrap_or(DateTime::<Utc>::MIN_UTC)
}

/// Ties are broken by what is stored, not by the order in which it was listed.
fn order(backups: &[StoredBackup]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..backups.len()).collect();
    order.sort_by_key(|&index| {
        let b = &backups[index];
        (b.stopped_at.is_none(), b.stopped_at, b.stop_lsn, b.started_at, &b.backup, b.system, index)
    });
    order
}

fn parents(backups: &[StoredBackup]) -> Vec<Vec<usize>> {
    let mut named: HashMap<(u64, &str), Vec<usize>> = HashMap::new();
    for (index, backup) in backups.iter().enumerate() {
        named.entry((backup.system, &backup.backup)).or_default().push(index);
    }
    let parents = |backup: &StoredBackup| {
        let parent = backup.parent.as_deref().and_then(|parent| named.get(&(backup.system, parent)));
        parent.cloned().unwrap_or_default()
    };
    backups.iter().map(parents).collect()
}

/// Follows each incremental backup to its full one. A chain that is broken, or goes in a circle, leads to nothing good.
fn chains(backups: &[StoredBackup], parents: &[Vec<usize>]) -> Vec<Good> {
    let bad = Good { usable: false, clean: false };
    let mut known: Vec<Option<Good>> = vec![None; backups.len()];
    let mut seen = vec![false; backups.len()];
    for first in 0..backups.len() {
        let mut way = Vec::new();
        let mut at = first;
        let mut good = loop {
            match known[at] {
                Some(good) => break good,
                None if seen[at] => break bad,
                None => {}
            }
            seen[at] = true;
            way.push(at);
            match (backups[at].kind, &parents[at][..]) {
                (BackupKind::Full | BackupKind::Logical, _) => break Good { usable: true, clean: true },
                (BackupKind::Incremental, [parent]) if backups[*parent].kind != BackupKind::Logical => {
                    at = *parent;
                }
                (BackupKind::Incremental, _) => break bad,
            }
        };
        for index in way.into_iter().rev() {
            let own = &backups[index];
            let whole = own.kind == BackupKind::Logical || span(own).is_some();
            good.usable &= own.state == BackupState::Good && whole;
            good.clean &= own.damaged_pages == 0;
            known[index] = Some(good);
        }
    }
    known.into_iter().map(|good| good.unwrap_or(bad)).collect()
}
