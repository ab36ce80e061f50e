//! The record in itself, its objects by name and size, and what it knows of damage.

use super::contradictions::contradictions;
use super::pages::shown;
use super::{Subject, still_there, wal};
use crate::postgres::control_file::{CONTROL_FILE, ControlFile};
use crate::repository::logical_record::LogicalRecord;
use crate::repository::record::ObjectRecord;
use crate::repository::{Record, layout};
use crate::stored::expected::Expected;
use crate::stored::faults::Fault;
use crate::stored::names;
use crate::verify::findings::Finding;
use pg_ark_contract::Result;
use pg_ark_contract::rows::Severity;
use std::collections::{BTreeMap, BTreeSet};

/// Damaged files that a record lists at the most (backup/books.rs).
const MAX_DAMAGED_FILES: usize = 1000;
const STRANGE_FOLDER: &str = "Look whether something in it belongs to another user, or its disk is damaged.";
const SOURCE: &str = "They were damaged in the server before the backup. Restore an older backup of what is in them, or mend it in the server.";

/// Tells whatever in the record contradicts itself.
pub fn consistent(subject: &Subject<'_>) {
    let record = subject.record;
    let path = subject.path(layout::RECORD);
    if record.unsealed {
        let what = "has no seal: it was written by an early version, or changed by hand";
        let hint = "Look whether what it says is right. The next backup has one.";
        subject.findings.add(Finding::new(Severity::Warning, &path, what).hint(hint));
    }
    let (shown, own) = (record.cluster.escape_debug(), subject.cluster);
    if record.cluster != own {
        let what = format!("says that it is of cluster \"{shown}\", and is stored as one of \"{own}\"");
        let hint = "Look whether the folder was moved or renamed, and whose backup it is.";
        subject.findings.add(Finding::new(Severity::Warning, &path, what).hint(hint));
    }
    for fault in contradictions(record).into_iter().take(20) {
        let finding = Finding::new(Severity::Error, &path, format!("contradicts itself: {fault}"));
        subject
            .findings
            .add(finding.hint("It was changed or made by something else. Restore another backup."));
    }
}

fn all_objects(record: &Record) -> impl Iterator<Item = &ObjectRecord> {
    crate::backup::finish::objects(record)
}

/// Whether the names of all objects are those of files in the backup's folder.
pub fn names_are_plain(record: &Record) -> bool {
    let plain = |name: &str| !name.contains('/') && names::safe_path(name.as_bytes()).is_ok();
    let archives = record.archives.iter().map(|archive| &archive.name);
    all_objects(record).map(|object| &object.name).chain(archives).all(|name| plain(name))
}

/// Looks whether every object is there with its size. Volumes that are not are returned, by the number of their archive
/// and their own, since more can be told of them; anything else is told.
///
/// # Errors
/// What the store or the watch said.
pub fn objects(subject: &Subject<'_>) -> Result<BTreeMap<(usize, u32), Fault>> {
    let mut volumes = BTreeMap::new();
    let look = |object: &ObjectRecord| -> Result<Option<Fault>> {
        subject.watch.check()?;
        let size = match subject.storage.size(&subject.path(&object.name)) {
            Err(error) if wal::is_own(&error) => {
                still_there(subject.storage, &error)?;
                return Ok(Some(Fault::other(&error)));
            }
            size => size?,
        };
        Ok(match size {
            Some(size) if size == object.size => None,
            Some(size) => Some(Fault::size(size, object.size)),
            None => Some(Fault::missing()),
        })
    };
    for (number, archive) in subject.record.archives.iter().enumerate() {
        for (volume, object) in (0..).zip(&archive.volumes) {
            volumes.extend(look(object)?.map(|fault| ((number, volume), fault)));
        }
        match &archive.index {
            Some(index) => {
                if let Some(fault) = look(index)? {
                    subject.tell_index(&index.name, &fault.sentence());
                }
            }
            None => subject.tell_index(&format!("{}.index", archive.name), "was never written"),
        }
    }
    let dumps = subject.record.logical.iter().flat_map(LogicalRecord::objects);
    for object in subject.record.manifest.iter().chain(dumps) {
        if let Some(fault) = look(object)? {
            subject.findings.add(Finding::fault(subject.path(&object.name), &fault));
        }
    }
    strangers(subject)?;
    Ok(volumes)
}

/// Objects in the backup's folder that the record does not know.
fn strangers(subject: &Subject<'_>) -> Result<()> {
    let record = subject.path(layout::RECORD);
    let known: BTreeSet<String> =
        all_objects(subject.record).map(|object| subject.path(&object.name)).chain([record]).collect();
    let objects = match subject.storage.list(subject.folder) {
        Ok(objects) => objects,
        Err(error) => {
            return subject.tolerate(error, |error| {
                Finding::new(Severity::Warning, subject.folder, error.to_string()).hint(STRANGE_FOLDER)
            });
        }
    };
    for object in objects {
        if !known.contains(&object.path) {
            let what = "is in the backup's folder, and the record does not know it";
            let finding = Finding::new(Severity::Warning, object.path, what);
            subject.findings.add(finding.hint("Look what it is. pg_ark neither reads nor removes it."));
        }
    }
    Ok(())
}

/// Compares record and manifest.
pub fn agrees(subject: &Subject<'_>, expected: &Expected) {
    let record = subject.record;
    let mut faults = Vec::new();
    if expected.len() as u64 != record.files {
        faults.push(format!("lists {} files instead of the {} of the record", expected.len(), record.files));
    }
    let bytes = (0..expected.len()).fold(0u64, |sum, number| sum.saturating_add(expected.file(number).size));
    if bytes != record.data_bytes {
        faults.push(format!("lists {bytes} bytes instead of the {} of the record", record.data_bytes));
    }
    let newest = expected.wal_ranges.first();
    let oldest = expected.wal_ranges.last();
    if newest.map(|range| range.end) != record.stop_lsn
        || oldest.map(|range| (range.timeline, range.start)) != record.timeline.zip(record.start_lsn)
    {
        faults.push("needs other WAL than the record says".to_string());
    }
    for fault in faults {
        let finding = Finding::new(Severity::Error, subject.path(layout::MANIFEST), fault);
        subject.findings.add(finding.hint("One of them was changed. Restore another backup."));
    }
}

/// What is wrong with `pg_control`, if anything.
pub fn control_fault(record: &Record, bytes: &[u8]) -> Option<Fault> {
    let control = match ControlFile::parse(bytes) {
        Ok(control) => control,
        Err(error) => return Some(Fault::other(&error)),
    };
    let what = if control.system_identifier.to_string() != record.system_identifier {
        "belongs to another cluster"
    } else if control.block_size != record.block_size {
        "has another page size than the record says"
    } else if control.has_page_checksums() != record.data_checksums {
        "does not agree with the record about data checksums"
    } else if control.wal_segment_size != record.wal_segment_size {
        "has another size of WAL segments than the record says"
    } else {
        return None;
    };
    let what = format!("{CONTROL_FILE} in the backup {what}");
    Some(Fault { what, detail: None, hint: "Restore another backup." })
}

/// Tells about pages that were damaged when they were backed up, as the record knows.
pub fn tell_source_damage(subject: &Subject<'_>) {
    let record = subject.record;
    let mut told = 0u64;
    for damage in record.damage.iter().take(MAX_DAMAGED_FILES) {
        told = told.saturating_add(damage.damaged_pages);
        let archive = subject.archive_of(damage.path.as_bytes()).and_then(|at| record.archives.get(at));
        let object = archive.map_or(layout::RECORD, |archive| &archive.name);
        let what = format!(
            "{} damaged at the source when the backup was taken: {}",
            pages(damage.damaged_pages, "was", "were"),
            shown(&damage.blocks, damage.damaged_pages)
        );
        let finding = Finding::new(Severity::Warning, subject.path(object), what).hint(SOURCE);
        subject.findings.add(finding.file(damage.path.as_bytes()));
    }
    if record.damaged_pages > told {
        let what = format!(
            "{} damaged at the source in files that are not listed",
            pages(record.damaged_pages - told, "more was", "more were")
        );
        subject
            .findings
            .add(Finding::new(Severity::Warning, subject.path(layout::RECORD), what).hint(SOURCE));
    }
}

fn pages(count: u64, one: &str, many: &str) -> String {
    if count == 1 { format!("1 page {one}") } else { format!("{count} pages {many}") }
}

/// Tells about blocks of a file whose checksum is wrong, unless the record knows them.
pub fn tell_pages(subject: &Subject<'_>, object: &str, file: &[u8], damaged: &[u32]) {
    let shown_path = String::from_utf8_lossy(file);
    let known = subject.record.damage.iter().find(|damage| damage.path == shown_path);
    let is_known = |block: &u32| {
        known.is_some_and(|known| {
            known.blocks.contains(block) || known.damaged_pages > known.blocks.len() as u64
        })
    };
    let new: Vec<u32> = damaged.iter().copied().filter(|block| !is_known(block)).collect();
    if new.is_empty() || known.is_none() && subject.record.damage.len() >= MAX_DAMAGED_FILES {
        return;
    }
    let count = new.len() as u64;
    let what = format!(
        "{} checksum, and nobody noticed when the backup was taken: {}",
        pages(count, "fails its", "fail their"),
        shown(&new, count)
    );
    subject.findings.add(Finding::new(Severity::Error, object, what).hint(SOURCE).file(file));
}
