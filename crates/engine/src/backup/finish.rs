//! The end of a backup, good or bad.

use super::begin::Begun;
use super::books::Books;
use crate::repository::catalog;
use crate::repository::layout;
use crate::repository::logical_record::LogicalRecord;
use crate::repository::record::{ObjectRecord, Record};
use crate::repository::sealed;
use crate::repository::storage::Storage;
use pg_ark_contract::rows::BackupStatus;
use pg_ark_contract::{Error, ErrorKind, Lsn, Result, Timeline};

/// Writes the manifest of a physical backup, then [`seal`]s it.
///
/// # Errors
/// What the store said; as [`seal`].
pub fn complete(
    begun: &Begun,
    mut record: Record,
    books: Books,
    (timeline, start, stop): (Timeline, Lsn, Lsn),
) -> Result<Record> {
    record.files = books.files;
    record.data_bytes = books.data_bytes;
    record.damaged_pages = books.damaged_pages;
    record.damage = books.damage.clone();
    record.stop_lsn = Some(stop);
    let manifest = books.close(timeline, start, stop)?.finish()?;
    record.manifest = Some(ObjectRecord::new(&manifest));
    seal(begun, record)
}

/// Proves that every object is there with its size and that the lease is still held, then lets the record say `complete`.
///
/// # Errors
/// What the store said; `Busy` when somebody else may have cleared the backup away meanwhile. The caller then lets the
/// record say `failed`.
pub fn seal(begun: &Begun, mut record: Record) -> Result<Record> {
    let (storage, folder) = (begun.cluster.storage(), &begun.folder);
    check_objects(storage, folder, &record)?;
    record.stored_bytes = objects(&record).map(|o| o.size).sum();
    record.finished_at = Some(catalog::now());
    record.status = BackupStatus::Complete;
    must_be_readable(&record)?;
    begun.lease.prove()?;
    record.save(storage, folder)?;
    if let Err(e) = begun.lease.prove()
        && (e.kind == ErrorKind::Busy || begun.lease.is_expired())
    {
        // Whoever took over found a record that said `running`, or one that says `complete`.
        match Record::load(storage, folder)? {
            Some(now) if now.status == BackupStatus::Complete => check_objects(storage, folder, &record)?,
            _ => return Err(e),
        }
    }
    Ok(record)
}

fn check_objects(storage: &Storage, folder: &str, record: &Record) -> Result<()> {
    for object in objects(record) {
        let path = format!("{folder}/{}", object.name);
        let found = storage.size(&path)?;
        if found != Some(object.size) {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "\"{}\" was stored with {} bytes and now has {}",
                    storage.display(&path),
                    object.size,
                    found.map_or("none".to_string(), |n| n.to_string())
                ),
            ));
        }
    }
    Ok(())
}

/// A record that nobody reads back makes no complete backup.
fn must_be_readable(record: &Record) -> Result<()> {
    let size = sealed::to_json(record)?.len() as u64;
    if size <= layout::MAX_RECORD {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        format!(
            "the record of the backup would have {size} bytes, more than the {} that are read",
            layout::MAX_RECORD
        ),
    )
    .hint(
        "Set pg_ark.volume_size higher, so that there are fewer objects; or dump fewer databases at a time.",
    ))
}

/// Every object of a backup but the record itself.
pub fn objects(record: &Record) -> impl Iterator<Item = &ObjectRecord> {
    let dumps = record.logical.iter().flat_map(LogicalRecord::objects);
    record.archives.iter().flat_map(|a| a.volumes.iter().chain(&a.index)).chain(&record.manifest).chain(dumps)
}

/// Ends a backup whose writer is known to be dead. A complete one stays, and so does one that retention was removing: it may
/// have been pinned, and is retention's to end. What is behind a link stays too: it may be anybody's.
///
/// # Errors
/// What the store said; as for [`Record::load`]: what cannot be read may be a complete backup.
pub fn end_dead(storage: &Storage, folder: &str, reason: Option<&str>) -> Result<()> {
    if storage.is_link(folder) {
        return Err(Error::new(
            ErrorKind::RepositoryUnusable,
            format!("\"{}\" is a link: nothing in it is cleared up", storage.display(folder)),
        )
        .hint("Look what it leads to, and remove the link if nobody needs it."));
    }
    // The writer may have finished since the caller last looked.
    let Some(mut record) = Record::load(storage, folder)? else { return Ok(()) };
    match record.status {
        BackupStatus::Complete => return Ok(()),
        BackupStatus::Failed if record.is_expiring() => return Ok(()),
        BackupStatus::Running => record.error = reason.map(str::to_string).or(record.error),
        BackupStatus::Failed => {
            return storage.remove_all(folder, &[&format!("{folder}/{}", layout::RECORD)]);
        }
    }
    mark_failed(storage, folder, record)
}

/// Lets the record say `failed` and removes everything else that the backup stored. Only for who wrote the backup, or
/// knows that its writer is dead ([`end_dead`]).
///
/// # Errors
/// What the store said; as for [`Record::load`]: a record that cannot be read may be that of something else.
pub fn mark_failed(storage: &Storage, folder: &str, mut record: Record) -> Result<()> {
    let keep = format!("{folder}/{}", layout::RECORD);
    if Record::load(storage, folder)?.is_none() {
        return Err(Error::new(
            ErrorKind::RepositoryNotFound,
            format!("\"{}\" is not there any more", storage.display(&keep)),
        ));
    }
    record.status = BackupStatus::Failed;
    record.error.get_or_insert_with(|| "the process that wrote it is gone".to_string());
    record.finished_at.get_or_insert_with(catalog::now);
    record.archives.clear();
    record.manifest = None;
    record.logical = None;
    match record.save(storage, folder) {
        // What the backup stored takes the room that its record needs. Saving `complete` may have seemed to fail: such a
        // backup must not lose its objects.
        Err(e) if e.kind == ErrorKind::DiskFull && !is_complete(storage, folder) => {
            storage.remove_all(folder, &[&keep])?;
            record.save(storage, folder)
        }
        Err(e) => Err(e),
        Ok(()) => storage.remove_all(folder, &[&keep]),
    }
}

/// Whether the stored record says `complete`, or cannot be asked.
fn is_complete(storage: &Storage, folder: &str) -> bool {
    !matches!(Record::load(storage, folder), Ok(Some(record)) if record.status != BackupStatus::Complete)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::record::{ArchiveContent, ArchiveRecord};

    #[test]
    fn promise_1_a_record_that_nobody_could_read_is_not_complete() {
        let mut record = Record::begun("20260101T000000Z-full".into(), "main", 7);
        must_be_readable(&record).unwrap();
        let volume = ObjectRecord { name: "base.tar.zst.0001".into(), size: 8 << 20, crc32c: "0".repeat(8) };
        record.archives = vec![ArchiveRecord {
            name: "base.tar.zst".into(),
            content: ArchiveContent::Base,
            volumes: vec![volume; 200_000],
            frames: 1,
            tar_bytes: 1,
            index: None,
        }];
        assert_eq!(must_be_readable(&record).unwrap_err().kind, ErrorKind::Unsupported);
    }
}
