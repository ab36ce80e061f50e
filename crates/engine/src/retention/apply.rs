//! Removes what the plan drops.
//!
//! A dry run reads and plans, no more. To apply, the leases of all systems are taken, and everything is read and planned
//! again under them: what was seen before may have changed. Backups go first, children before parents; whoever is pinned
//! meanwhile is spared, with its parents, and then the plan is made once more, since its WAL is needed. WAL comes after
//! the backups that needed it, histories last. Every step can be the last: the next prune goes on.

use super::gather::{Inventory, inventory};
use super::leases::Leases;
use super::model::{Plan, Stored};
use super::removal::{Fate, Removal, restore};
use super::rows::rows;
use super::wal_removal::WalRemoval;
use super::{plan, safety};
use crate::clocks::Clocks;
use crate::repository::{Cluster, Record, layout, reserve};
use crate::session::Session;
use crate::wal::Archive;
use chrono::{DateTime, Utc};
use pg_ark_contract::retention::{Policy, PruneObject, PruneRow, Verdict};
use pg_ark_contract::{Error, ErrorKind, Result};
use std::collections::{BTreeMap, BTreeSet};

/// Plans that are made at the most: one more for each time that somebody pins what is being removed.
const MOST_PLANS: u32 = 10;

/// Makes a plan of what is stored.
type Planner<'a> = dyn Fn(&Stored) -> Result<Plan> + 'a;

/// The verdict on everything that is stored; with `apply`, what was dropped is gone, also from a full disk ([`reserve`]).
/// Nothing is removed when this machine's clock is ahead of the repository's, by which all that is stored would seem old.
///
/// # Errors
/// `ServerNotReady` for such a clock. `Busy` when somebody else holds the lease of one of the cluster's systems; what the
/// store said. `Internal` when the plan would drop what must not be dropped: then nothing is removed.
pub fn prune(cluster: &Cluster, policy: &Policy, apply: bool, session: &Session) -> Result<Vec<PruneRow>> {
    let now = Utc::now();
    let clocks = || Clocks::read(cluster.storage(), now);
    if apply {
        reserve::spend(cluster, &|time| session.pause(time), clocks)?.may_judge_age()?;
    } else if let Some(error) = clocks().ok().and_then(|clocks| clocks.may_judge_age().err()) {
        session.warn(error.message, error.hint);
    }
    let rows = prune_at(cluster, policy, apply, now, session)?;
    if apply {
        // Where there was no room for a look at the clock, there is some now.
        reserve::make(cluster);
    }
    Ok(rows)
}

/// As [`prune`], as if it were `now`.
///
/// # Errors
/// As there, but for the clock.
pub fn prune_at(
    cluster: &Cluster,
    policy: &Policy,
    apply: bool,
    now: DateTime<Utc>,
    session: &Session,
) -> Result<Vec<PruneRow>> {
    let pause = |time| session.pause(time);
    let work = || prune_by(cluster, &|stored| plan::plan(stored, policy, now), apply, now, session);
    if apply { reserve::spend(cluster, &pause, work) } else { work() }
}

/// As [`prune`], with any plan.
pub(super) fn prune_by(
    cluster: &Cluster,
    planner: &Planner<'_>,
    apply: bool,
    now: DateTime<Utc>,
    session: &Session,
) -> Result<Vec<PruneRow>> {
    if let Some(damage) = cluster.damage().filter(|_| apply) {
        // Which system is the newest is not known.
        return Err(damage.clone().hint(
            "Which server of the cluster is the newest is not known, so nothing is removed. Get the object back from a copy, or mend it by hand.",
        ));
    }
    let check = || session.check();
    let planned = Planned::make(cluster, planner, &check)?;
    let is_needed = apply && planned.is_needed(cluster);
    if !is_needed {
        if apply {
            // A new one that this hits is made again by its writer.
            for folder in unborn(cluster)? {
                cluster.storage().remove_empty(&folder);
            }
            // One that was killed when all was done left its ticket.
            cluster.release_dead_leases()?;
        }
        return rows(cluster, &planned.found.stored, &planned.plan, &check);
    }
    let leases = Leases::take(cluster, session)?;
    leases.keep(|| Work { cluster, planner, leases: &leases, session, now }.run())
}

/// What is stored, and what is to become of it.
struct Planned {
    found: Inventory,
    plan: Plan,
}

impl Planned {
    fn make(cluster: &Cluster, planner: &Planner<'_>, check: &dyn Fn() -> Result<()>) -> Result<Self> {
        let found = inventory(cluster, check)?;
        let plan = planner(&found.stored)?;
        safety::check(&found.stored, &plan)?;
        Ok(Planned { found, plan })
    }

    fn is_needed(&self, cluster: &Cluster) -> bool {
        !self.found.restorable.is_empty()
            || self.plan.backups.iter().any(|verdict| verdict.verdict == Verdict::Drop)
            || self.archives(cluster).any(|removal| removal.is_needed())
    }

    fn archives<'a>(&'a self, cluster: &'a Cluster) -> impl Iterator<Item = WalRemoval<'a>> {
        self.found.stored.wal.iter().filter_map(|(system, wal)| {
            let beside = self.found.archives.get(system)?;
            Some(WalRemoval::of(Archive::of(cluster, *system), wal, beside, &self.plan))
        })
    }
}

struct Work<'a> {
    cluster: &'a Cluster,
    planner: &'a Planner<'a>,
    leases: &'a Leases<'a>,
    session: &'a Session,
    now: DateTime<Utc>,
}

impl Work<'_> {
    fn run(&self) -> Result<Vec<PruneRow>> {
        let check = || self.leases.check();
        let mut gone = Vec::new();
        for _ in 0..MOST_PLANS {
            let planned = Planned::make(self.cluster, self.planner, &check)?;
            self.restore(&planned.found.restorable)?;
            for folder in unborn(self.cluster)? {
                self.cluster.storage().remove_unborn(&folder, layout::RECORD);
            }
            let mut rows = rows(self.cluster, &planned.found.stored, &planned.plan, &check)?;
            if self.backups(&planned, &rows, &mut gone)? {
                continue;
            }
            for removal in planned.archives(self.cluster) {
                removal.run(self.leases, self.session, self.now)?;
            }
            self.cluster.systems().iter().for_each(|system| self.cluster.sweep(*system));
            let known: BTreeSet<(u64, String)> = rows.iter().map(key).collect();
            rows.extend(gone.into_iter().filter(|row| !known.contains(&key(row))));
            return Ok(rows);
        }
        Err(Error::new(ErrorKind::Busy, "backups are pinned while retention removes them")
            .hint("What was dropped before is gone. Try again."))
    }

    /// Backups that were pinned in time when a prune was killed.
    fn restore(&self, restorable: &[(u64, String)]) -> Result<()> {
        for (system, backup) in restorable {
            self.leases.check()?;
            let folder = self.cluster.backup_folder(*system, backup);
            if let Some(record) = Record::load(self.cluster.storage(), &folder)?.filter(Record::is_expiring) {
                restore(self.cluster, &folder, record)?;
            }
        }
        Ok(())
    }

    /// Removes the backups that are dropped; says whether one was pinned meanwhile.
    fn backups(&self, planned: &Planned, rows: &[PruneRow], gone: &mut Vec<PruneRow>) -> Result<bool> {
        let removal = Removal { cluster: self.cluster, leases: self.leases, session: self.session };
        let stored = &planned.found.stored;
        let mut spared = BTreeSet::new();
        let mut is_spared = false;
        for index in children_first(stored, &planned.plan) {
            let Some(backup) = stored.backups.get(index) else { continue };
            let name = (backup.system, backup.backup.clone());
            let fate = match spared.contains(&name) {
                true => Fate::Spared,
                false => removal.remove(backup)?,
            };
            let row = || rows.iter().find(|row| key(row) == name && row.kind == PruneObject::Backup);
            match fate {
                Fate::Gone => gone.extend(row().cloned()),
                Fate::Left => {}
                Fate::Spared => {
                    is_spared = true;
                    spared.extend(backup.parent.clone().map(|parent| (backup.system, parent)));
                }
            }
        }
        Ok(is_spared)
    }
}

/// Folders of backups without a record. One that lost it last, when a prune was killed, is empty.
fn unborn(cluster: &Cluster) -> Result<Vec<String>> {
    let storage = cluster.storage();
    let mut found = Vec::new();
    for system in cluster.systems() {
        let backups = layout::backups(cluster.name(), *system);
        for name in storage.folders(&backups)?.into_iter().filter(|name| layout::is_backup_name(name)) {
            let folder = format!("{backups}/{name}");
            let is_unborn = matches!(storage.size(&format!("{folder}/{}", layout::RECORD)), Ok(None));
            found.extend(is_unborn.then_some(folder));
        }
    }
    Ok(found)
}

fn key(row: &PruneRow) -> (u64, String) {
    (row.system_identifier, row.object.clone())
}

/// The backups that are dropped: those with more ancestors first, else as the plan has them, oldest first.
fn children_first(stored: &Stored, plan: &Plan) -> Vec<usize> {
    let by_name: BTreeMap<(u64, &str), usize> =
        stored.backups.iter().enumerate().map(|(index, b)| ((b.system, &b.backup[..]), index)).collect();
    let depth = |index: usize| {
        let mut seen = BTreeSet::from([index]);
        let mut at = index;
        while let Some(backup) = stored.backups.get(at)
            && let Some(parent) = &backup.parent
            && let Some(parent) = by_name.get(&(backup.system, &parent[..]))
            && seen.insert(*parent)
        {
            at = *parent;
        }
        seen.len()
    };
    let dropped = plan.backups.iter().filter(|verdict| verdict.verdict == Verdict::Drop);
    let mut dropped: Vec<usize> = dropped.map(|verdict| verdict.index).collect();
    dropped.sort_by_cached_key(|index| std::cmp::Reverse(depth(*index)));
    dropped
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
