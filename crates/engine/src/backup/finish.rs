//! The end of a backup, good or bad.

use super::books::Books;
use crate::repository::catalog;
use crate::repository::layout;
use crate::repository::record::{ObjectRecord, Record};
use crate::repository::storage::Storage;
use pg_ark_contract::rows::BackupStatus;
use pg_ark_contract::{Error, ErrorKind, Lsn, Result, Timeline};

/// Writes the manifest, proves that every object is there with its size, then lets the record say `complete`.
///
/// # Errors
/// What the store said; the record does not say `complete` then.
pub fn complete(
    storage: &Storage,
    folder: &str,
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
    let objects: Vec<ObjectRecord> = objects(&record).cloned().collect();
    for object in &objects {
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
    record.stored_bytes = objects.iter().map(|o| o.size).sum();
    record.finished_at = Some(catalog::now());
    record.status = BackupStatus::Complete;
    record.save(storage, folder)?;
    Ok(record)
}

/// Every object of a backup but the record itself.
pub fn objects(record: &Record) -> impl Iterator<Item = &ObjectRecord> {
    record.archives.iter().flat_map(|a| a.volumes.iter().chain(&a.index)).chain(&record.manifest)
}

/// Lets the record say `failed` and removes everything else that the backup stored.
///
/// # Errors
/// What the store said.
pub fn mark_failed(storage: &Storage, folder: &str, mut record: Record) -> Result<()> {
    let keep = format!("{folder}/{}", layout::RECORD);
    if storage.size(&keep)?.is_none() {
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
    match record.save(storage, folder) {
        // What the backup stored takes the room that its record needs.
        Err(e) if e.kind == ErrorKind::DiskFull => {
            storage.remove_all(folder, &[&keep])?;
            record.save(storage, folder)
        }
        Err(e) => Err(e),
        Ok(()) => storage.remove_all(folder, &[&keep]),
    }
}
