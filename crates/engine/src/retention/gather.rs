//! What is stored, as values: promise 4 rests on this being the truth.
//!
//! What is damaged or cannot be read is never taken for something that nobody needs: a backup whose record cannot be read is
//! told as such, and a fault of the store, an unreadable history or an unknown segment size end the work before anything
//! is judged. What is not there counts as missing only when the store answered.

use super::model::{BackupState, Stored, StoredBackup, StoredWal};
use super::written::written;
use crate::backup::finish::objects;
use crate::logical::stored;
use crate::postgres::wal_segment::SegmentName;
use crate::repository::logical_record::LogicalRecord;
use crate::repository::record::ArchiveContent;
use crate::repository::{Cluster, Record, layout, pins};
use crate::wal::Pruned;
use crate::wal::archive::Archive;
use crate::wal::survey::Content;
use chrono::{DateTime, Utc};
use pg_ark_contract::conversation::BackupKind;
use pg_ark_contract::rows::BackupStatus;
use pg_ark_contract::{ErrorKind, Result, Timeline};
use std::collections::{BTreeMap, BTreeSet};

/// Why a backup counts as pinned whose folder retention may not clear.
pub(super) const LINK: &str = "its folder is a link, behind which nothing is removed";

/// What to do about a history that cannot be read.
const NO_HISTORY: &str = "Without it nobody knows which WAL the backups need, so nothing is removed. Get the object back from a copy, or from pg_wal of a server that has this timeline.";

/// Everything that is stored, and what retention began and did not end.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    /// What the plan is made of.
    pub stored: Stored,
    /// Backups that were pinned while retention began to remove them, and are whole: system and name.
    pub restorable: Vec<(u64, String)>,
    /// The archive of each system in [`Stored::wal`].
    pub archives: BTreeMap<u64, Beside>,
}

/// What lies beside the segments of an archive.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// What retention removed, as was noted.
    pub pruned: Pruned,
    /// `.partial` and `.backup` files: timeline and number of the segment.
    pub files: Vec<(Timeline, u64)>,
    /// Folders that hold neither segments nor such files: timeline and log.
    pub hollow: Vec<(Timeline, u32)>,
    /// Timelines whose folder holds no such folder.
    pub empty: Vec<Timeline>,
}

/// Reads records, objects' sizes, and the names in the archives of every system of the cluster.
///
/// # Errors
/// What the store or `check` said; `Corrupt` for an archive whose histories or segment size cannot be read.
pub fn gather(cluster: &Cluster, check: &dyn Fn() -> Result<()>) -> Result<Stored> {
    inventory(cluster, check).map(|found| found.stored)
}

/// As [`gather`], with what was begun and not ended.
pub(super) fn inventory(cluster: &Cluster, check: &dyn Fn() -> Result<()>) -> Result<Inventory> {
    let mut found = Inventory::default();
    found.stored.systems = cluster.systems().to_vec();
    for &system in cluster.systems() {
        check()?;
        // Before the WAL: of a backup that becomes complete meanwhile it would seem to be missing.
        let records = cluster.clone().only_system(system)?.backups()?;
        wal(cluster, system, &mut found, check)?;
        let pins = pins::all(cluster.storage(), cluster.name(), system)?;
        for record in &records {
            check()?;
            backup(cluster, system, record, pins.get(&record.backup), &mut found)?;
        }
        without_record(cluster, system, &records, &pins, &mut found)?;
    }
    keep_parents_of_unreadable(&mut found.stored);
    break_orphans(&mut found.stored);
    Ok(found)
}

/// Nobody knows the parent of an incremental backup whose record cannot be read: it may be any of its system.
fn keep_parents_of_unreadable(stored: &mut Stored) {
    let is_orphan =
        |b: &&StoredBackup| b.state == BackupState::Unreadable && b.kind == BackupKind::Incremental;
    let orphans = stored.backups.iter().filter(is_orphan);
    let orphans: BTreeMap<u64, String> = orphans.map(|b| (b.system, b.backup.clone())).collect();
    let complete = |b: &&mut StoredBackup| matches!(b.state, BackupState::Good | BackupState::Broken(_));
    let physical = stored.backups.iter_mut().filter(|backup| backup.kind.is_physical());
    for backup in physical.filter(complete) {
        if let Some(orphan) = orphans.get(&backup.system) {
            backup
                .pinned
                .get_or_insert_with(|| format!("{orphan}, whose record cannot be read, may need it"));
        }
    }
}

fn wal(cluster: &Cluster, system: u64, found: &mut Inventory, check: &dyn Fn() -> Result<()>) -> Result<()> {
    let archive = Archive::of(cluster, system);
    let segment_size = archive.segment_size()?.unwrap_or_default();
    let (histories, _) = archive.histories().map_err(|e| match e.kind {
        ErrorKind::Corrupt => e.hint(NO_HISTORY),
        _ => e,
    })?;
    let mut wal = StoredWal { segment_size, histories, ..StoredWal::default() };
    let mut beside = Beside::default();
    let per_log = (1u64 << 32) / segment_size.bytes();
    for timeline in archive.timelines()? {
        let mut content = Content::default();
        let logs = archive.logs(timeline)?;
        beside.empty.extend(logs.is_empty().then_some(timeline));
        for log in logs {
            check()?;
            let folder = archive.list(timeline, log)?;
            let numbers = |lows: &[u32]| {
                let fitting = lows.iter().filter(|low| u64::from(**low) < per_log);
                fitting.map(|low| u64::from(log) * per_log + u64::from(*low)).collect::<Vec<u64>>()
            };
            numbers(&folder.segments).into_iter().for_each(|number| content.add(number));
            let low = |name: &String| u32::from_str_radix(name.get(16..24)?, 16).ok();
            let backups: Vec<u32> = folder.backups.iter().filter_map(low).collect();
            let files = numbers(&folder.partials).into_iter().chain(numbers(&backups));
            beside.files.extend(files.map(|number| (timeline, number)));
            if [&folder.segments, &folder.partials].iter().all(|lows| lows.is_empty())
                && [&folder.backups, &folder.strangers].iter().all(|names| names.is_empty())
            {
                beside.hollow.push((timeline, log));
            }
        }
        if let Some(number) = content.newest() {
            let newest = archive.find(&SegmentName { timeline, number }.file_name(segment_size))?;
            let stored_at = newest.map(|found| cluster.storage().changed(&found.path)).transpose()?.flatten();
            wal.written_by.extend(stored_at.map(|time| (timeline, time)));
            wal.written.extend(written(&archive, segment_size, (timeline, &content.runs), check)?);
            wal.segments.insert(timeline, content.runs);
        }
    }
    // After the listing: what was removed meanwhile was noted before.
    beside.pruned = Pruned::load(&archive, segment_size)?;
    if wal.segments.is_empty()
        && wal.histories.is_empty()
        && beside.files.is_empty()
        && beside.hollow.is_empty()
    {
        return Ok(());
    }
    found.stored.wal.insert(system, wal);
    found.archives.insert(system, beside);
    Ok(())
}

fn backup(
    cluster: &Cluster,
    system: u64,
    record: &Record,
    pin: Option<&String>,
    found: &mut Inventory,
) -> Result<()> {
    let folder = cluster.backup_folder(system, &record.backup);
    let wal = found.stored.wal.get(&system);
    let judge = || {
        Ok(match lacks(cluster, &folder, record)? {
            Some(what) => BackupState::Broken(what),
            None => lacking_wal(record, wal).map_or(BackupState::Good, BackupState::Broken),
        })
    };
    let mut pinned = pin.cloned();
    let state = match record.status {
        _ if record.unreadable.is_some() => BackupState::Unreadable,
        BackupStatus::Running => BackupState::Running,
        BackupStatus::Complete => judge()?,
        BackupStatus::Failed if !record.is_expiring() => BackupState::Failed,
        BackupStatus::Failed => match is_restorable(cluster, &folder, record, pinned.is_some())? {
            true => {
                found.restorable.push((system, record.backup.clone()));
                judge()?
            }
            // It was pinned too late, or by nobody.
            false => {
                pinned = None;
                BackupState::Expiring
            }
        },
    };
    if cluster.storage().is_link(&folder) {
        pinned.get_or_insert_with(|| LINK.to_string());
    }
    found.stored.backups.push(StoredBackup { pinned, ..as_stored(system, record, state) });
    Ok(())
}

fn as_stored(system: u64, record: &Record, state: BackupState) -> StoredBackup {
    let time = |text: &str| DateTime::parse_from_rfc3339(text).ok().map(|time| time.with_timezone(&Utc));
    let logical = record.logical.as_ref();
    StoredBackup {
        backup: record.backup.clone(),
        system,
        kind: record.kind,
        state,
        parent: record.parent.clone(),
        pinned: None,
        started_at: time(&record.started_at),
        stopped_at: record.finished_at.as_deref().and_then(time),
        start_lsn: record.start_lsn,
        stop_lsn: record.stop_lsn,
        timeline: record.timeline,
        wal_included: record.wal_included,
        damaged_pages: record.damaged_pages,
        bytes: record.stored_bytes,
        databases: logical.map(held).unwrap_or_default(),
        lacks: logical.map(LogicalRecord::lacks).unwrap_or_default(),
    }
}

fn held(logical: &LogicalRecord) -> Vec<String> {
    logical.databases.iter().map(|database| database.name.clone()).collect()
}

/// Whether an expiring backup that was pinned can be made complete again: it was complete, and nothing of it is gone.
pub(super) fn is_restorable(cluster: &Cluster, folder: &str, record: &Record, pinned: bool) -> Result<bool> {
    let lists_all =
        if record.kind.is_physical() { record.manifest.is_some() } else { record.logical.is_some() };
    let was_complete = lists_all && record.finished_at.is_some();
    Ok(pinned && record.is_expiring() && was_complete && lacks(cluster, folder, record)?.is_none())
}

/// What of a complete backup's objects is not there as its record says, without reading them; the first counts.
fn lacks(cluster: &Cluster, folder: &str, record: &Record) -> Result<Option<String>> {
    let storage = cluster.storage();
    if !record.kind.is_physical()
        && let Some(fault) = stored::faults(record).into_iter().next()
    {
        return Ok(Some(format!("its record contradicts itself: {fault}")));
    }
    // A backup does without indexes.
    let indexes: BTreeSet<&str> = record
        .archives
        .iter()
        .filter_map(|archive| archive.index.as_ref())
        .map(|index| &index.name[..])
        .collect();
    for object in objects(record).filter(|object| !indexes.contains(&object.name[..])) {
        let path = format!("{folder}/{}", object.name);
        let what = match storage.size(&path) {
            Ok(Some(size)) if size == object.size => continue,
            Ok(Some(size)) => format!("{} has {size} bytes instead of {}", object.name, object.size),
            Ok(None) => format!("{} is missing", object.name),
            // A record may name anything; whatever else the store says is no fact about the backup.
            Err(e) if matches!(e.kind, ErrorKind::Corrupt | ErrorKind::InvalidArgument) => e.to_string(),
            Err(e) => return Err(e),
        };
        return Ok(Some(what));
    }
    let has_data = !record.kind.is_physical() || record.archive(ArchiveContent::Base).is_some();
    Ok((!has_data).then(|| "its record names no data".to_string()))
}

/// What of the WAL from start to stop is not there.
fn lacking_wal(record: &Record, wal: Option<&StoredWal>) -> Option<String> {
    if !record.kind.is_physical() {
        return None;
    }
    let (Some(start), Some(stop), Some(timeline)) = (record.start_lsn, record.stop_lsn, record.timeline)
    else {
        return Some("its record does not say which WAL it needs".to_string());
    };
    if stop <= start {
        return Some(format!("its record says that it ends at {stop}, and begins at {start}"));
    }
    if record.wal_included {
        let has_own = record.archive(ArchiveContent::Wal).is_some();
        return (!has_own).then(|| "its record names no WAL".to_string());
    }
    let size = record.wal_segment_size;
    let (first, last) = (size.segment_of(start), size.last_segment_before(stop));
    let runs = wal.filter(|wal| wal.segment_size == size).and_then(|wal| wal.segments.get(&timeline));
    let holds = runs.is_some_and(|runs| runs.iter().any(|run| run.first <= first && last <= run.last));
    if !holds || first > last {
        return Some(format!(
            "its WAL from {start} to {stop} on timeline {timeline} is not whole in the archive"
        ));
    }
    let has_history = timeline.0 <= 1 || wal.is_some_and(|wal| wal.histories.contains_key(&timeline));
    (!has_history).then(|| format!("the history of timeline {timeline} is not in the archive"))
}

/// Folders among the backups that hold objects and no record: it may come back from a copy.
fn without_record(
    cluster: &Cluster,
    system: u64,
    records: &[Record],
    pins: &BTreeMap<String, String>,
    found: &mut Inventory,
) -> Result<()> {
    let storage = cluster.storage();
    for name in storage.folders(&layout::backups(cluster.name(), system))? {
        if !layout::is_backup_name(&name) || records.iter().any(|record| record.backup == name) {
            continue;
        }
        let folder = cluster.backup_folder(system, &name);
        // A backup that began meanwhile has its record by now; without WAL of the past.
        if !storage.list(&folder)?.is_empty()
            && storage.size(&format!("{folder}/{}", layout::RECORD))?.is_none()
        {
            let why =
                pg_ark_contract::Error::new(ErrorKind::Corrupt, format!("{} is missing", layout::RECORD));
            let record = Record::unreadable(&name, cluster.name(), system, why);
            let pinned = pins.get(&name).cloned();
            let backup = as_stored(system, &record, BackupState::Unreadable);
            found.stored.backups.push(StoredBackup { pinned, ..backup });
        }
    }
    Ok(())
}

/// A backup without a good parent is none.
fn break_orphans(stored: &mut Stored) {
    loop {
        let good: BTreeSet<(u64, String)> = stored
            .backups
            .iter()
            .filter(|backup| backup.state == BackupState::Good)
            .map(|backup| (backup.system, backup.backup.clone()))
            .collect();
        let mut changed = false;
        for backup in stored.backups.iter_mut().filter(|backup| backup.state == BackupState::Good) {
            let parent =
                backup.parent.as_ref().filter(|parent| !good.contains(&(backup.system, (*parent).clone())));
            if let Some(parent) = parent {
                backup.state = BackupState::Broken(format!(
                    "its parent \"{}\" cannot be restored",
                    parent.escape_debug()
                ));
                changed = true;
            }
        }
        if !changed {
            return;
        }
    }
}
