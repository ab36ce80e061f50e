//! What no plan may do, looked at apart from whoever made the plan: promise 4 is kept twice.

use super::model::{BackupState, Plan, Stored, StoredBackup, WalVerdict};
use crate::wal::survey::Run;
use chrono::{DateTime, Utc};
use pg_ark_contract::retention::Verdict;
use pg_ark_contract::{Error, ErrorKind, Result, SegmentSize};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Fails when the plan would drop a way back that it must not.
///
/// # Errors
/// `Internal`, naming what it would drop.
pub fn check(stored: &Stored, plan: &Plan) -> Result<()> {
    let refuse = |what: String| {
        Err(Error::new(ErrorKind::Internal, format!("retention would remove {what}: nothing is removed"))
            .hint(
                "This is a fault of pg_ark. Please report it with the output of pgark list and of a dry run.",
            ))
    };
    let mut kept: Vec<Option<bool>> = vec![None; stored.backups.len()];
    for verdict in &plan.backups {
        match kept.get_mut(verdict.index) {
            Some(place @ None) => *place = Some(verdict.verdict == Verdict::Keep),
            _ => return refuse("what is not there, or something twice".to_string()),
        }
    }
    // What nobody judged stays.
    let is_kept = |index: usize| kept.get(index).copied().flatten().unwrap_or(true);
    let all = || stored.backups.iter().enumerate();
    let named = |backup: &StoredBackup| {
        format!("backup \"{}\" of system identifier {}", backup.backup, backup.system)
    };
    for (index, backup) in all().filter(|(index, _)| !is_kept(*index)) {
        let is_pinned = backup.pinned.is_some() && backup.state != BackupState::Expiring;
        let why = match backup.state {
            BackupState::Running => Some("is running"),
            BackupState::Unreadable => Some("cannot be judged"),
            _ if is_pinned => Some("is pinned"),
            _ => None,
        };
        if let Some(why) = why {
            return refuse(format!("{}, which {why}", named(backup)));
        }
        let child = all().find(|(other, child)| {
            *other != index
                && is_kept(*other)
                && child.system == backup.system
                && child.parent.as_ref() == Some(&backup.backup)
        });
        if let Some((_, child)) = child {
            return refuse(format!("{}, the parent of \"{}\"", named(backup), child.backup));
        }
    }
    for (physical, clean) in [(true, false), (true, true), (false, false)] {
        let is_way = |backup: &&StoredBackup| {
            backup.state == BackupState::Good
                && backup.kind.is_physical() == physical
                && (!clean || backup.damaged_pages == 0)
        };
        let ways = || stored.backups.iter().filter(is_way);
        // One without a time may be the newest, and so may any of the same time.
        let newest = ways().map(|backup| backup.stopped_at).max();
        let is_safe = all()
            .any(|(index, backup)| is_kept(index) && is_way(&backup) && Some(backup.stopped_at) == newest);
        if let Some(lost) = ways().find(|backup| Some(backup.stopped_at) == newest).filter(|_| !is_safe) {
            let what = match (physical, clean) {
                (true, true) => "the newest good one without damaged pages",
                (true, false) => "the newest good one",
                (false, _) => "the newest good logical one",
            };
            return refuse(format!("{}, {what}", named(lost)));
        }
    }
    if let Some(lost) = lost_dump(stored, &is_kept) {
        return refuse(lost);
    }
    for (_, backup) in all().filter(|(index, _)| is_kept(*index)) {
        if let Some(what) = lost_wal(stored, plan, backup) {
            return refuse(format!("{what}, which {} needs", named(backup)));
        }
    }
    for (system, wal) in &stored.wal {
        let lost_backup = || {
            all().find(|(index, b)| {
                let is_complete = matches!(b.state, BackupState::Good | BackupState::Broken(_));
                b.system == *system && !is_kept(*index) && is_complete && b.kind.is_physical()
            })
        };
        if let Some(timeline) = wal.lost_history() {
            let dropped = dropped(plan, *system).next().map(shown);
            if let Some(what) = dropped.or_else(|| lost_backup().map(|(_, backup)| named(backup))) {
                let why =
                    format!("which may lead to timeline {timeline}, whose history is not in the archive");
                return refuse(format!("{what}, {why}"));
            }
        }
    }
    Ok(())
}

/// When the newest backups that hold a database were finished, whether one of them is kept, and the name of one.
type Holder<'a> = (Option<DateTime<Utc>>, bool, &'a str);

/// The newest good dump of a database that a kept logical backup lacks; of its own system before any other's.
fn lost_dump(stored: &Stored, is_kept: &dyn Fn(usize) -> bool) -> Option<String> {
    let is_logical = |backup: &StoredBackup| !backup.kind.is_physical() && backup.state == BackupState::Good;
    let all = || stored.backups.iter().enumerate().filter(|(_, backup)| is_logical(backup));
    // The first name is that of a system, or of none for all.
    let mut newest: BTreeMap<(Option<u64>, &str), Holder<'_>> = BTreeMap::new();
    for (index, backup) in all() {
        let found = (backup.stopped_at, is_kept(index), &backup.backup[..]);
        for (system, name) in
            backup.databases.iter().flat_map(|name| [(Some(backup.system), name), (None, name)])
        {
            let held = newest.entry((system, name)).or_insert(found);
            match found.0.cmp(&held.0) {
                Ordering::Greater => *held = found,
                Ordering::Equal => held.1 |= found.1,
                Ordering::Less => {}
            }
        }
    }
    let lost = |backup: &StoredBackup, name: &str| {
        let held = newest.get(&(Some(backup.system), name)).or_else(|| newest.get(&(None, name)))?;
        (!held.1).then(|| {
            let name = name.escape_debug();
            let (holder, lister) = (held.2, &backup.backup);
            format!("\"{holder}\", the newest good dump of database \"{name}\", which \"{lister}\" lacks")
        })
    };
    all()
        .filter(|(index, _)| is_kept(*index))
        .find_map(|(_, backup)| backup.lacks.iter().find_map(|name| lost(backup, name)))
}

fn dropped(plan: &Plan, system: u64) -> impl Iterator<Item = &WalVerdict> {
    plan.wal.iter().filter(move |wal| wal.verdict == Verdict::Drop && wal.system == system)
}

fn shown(wal: &WalVerdict) -> String {
    format!("WAL of timeline {} ({} segments)", wal.timeline, wal.run.count())
}

/// WAL or a history that a kept backup needs and the plan drops.
fn lost_wal(stored: &Stored, plan: &Plan, backup: &StoredBackup) -> Option<String> {
    let mut dropped = dropped(plan, backup.system);
    if !backup.kind.is_physical() {
        return None;
    }
    if backup.state == BackupState::Unreadable {
        return dropped.next().map(shown);
    }
    let is_used = matches!(backup.state, BackupState::Good | BackupState::Broken(_) | BackupState::Running);
    let (timeline, start) = (backup.timeline?, backup.start_lsn?);
    if !is_used {
        return None;
    }
    let history = plan.histories.iter().find(|history| {
        history.verdict == Verdict::Drop && history.system == backup.system && history.timeline == timeline
    });
    if history.is_some() {
        return Some(format!("the history of timeline {timeline}"));
    }
    let size = stored.wal.get(&backup.system)?.segment_size;
    let run = needed(start, backup, size).filter(|_| !backup.wal_included)?;
    let meets = |wal: &&WalVerdict| {
        wal.timeline == timeline && wal.run.first <= run.last && run.first <= wal.run.last
    };
    dropped.find(meets).map(shown)
}

/// From start to stop; to the end of all WAL for one that is not stopped yet.
fn needed(start: pg_ark_contract::Lsn, backup: &StoredBackup, size: SegmentSize) -> Option<Run> {
    let last = match (&backup.state, backup.stop_lsn) {
        (BackupState::Running, _) => u64::MAX,
        (_, Some(stop)) => size.last_segment_before(stop),
        (_, None) => return None,
    };
    Some(Run { first: size.segment_of(start), last })
}

#[cfg(test)]
#[path = "safety_tests.rs"]
mod tests;
