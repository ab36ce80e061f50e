//! The record in itself, its objects by name and size, and what it knows of damage.

use super::pages::shown;
use super::{Subject, wal};
use crate::postgres::control_file::{CONTROL_FILE, ControlFile};
use crate::repository::record::{ArchiveContent, ArchiveRecord, ObjectRecord};
use crate::repository::{Record, layout};
use crate::stored::expected::Expected;
use crate::stored::faults::Fault;
use crate::stored::names;
use crate::stored::objects::hex_crc;
use crate::verify::findings::Finding;
use pg_ark_contract::Result;
use pg_ark_contract::rows::Severity;
use std::collections::{BTreeMap, BTreeSet};

/// Damaged files that a record lists at the most (backup/books.rs).
const MAX_DAMAGED_FILES: usize = 1000;
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
    let mut faults = Vec::new();
    archives(record, &mut faults);
    if record.manifest.as_ref().is_none_or(|manifest| manifest.name != layout::MANIFEST) {
        faults.push("it names no manifest".to_string());
    }
    if wal::Needed::of(record).is_none() {
        faults.push("it does not say which WAL the backup needs".to_string());
    }
    let sum = all_objects(record).fold(0u64, |sum, object| sum.saturating_add(object.size));
    if sum != record.stored_bytes {
        faults.push(format!("its objects have {sum} bytes instead of {}", record.stored_bytes));
    }
    if let Some(object) = all_objects(record).find(|object| hex_crc(&object.crc32c).is_none()) {
        faults.push(format!("it has no valid checksum of \"{}\"", object.name.escape_debug()));
    }
    for fault in faults.into_iter().take(20) {
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

fn archives(record: &Record, faults: &mut Vec<String>) {
    let mut contents = BTreeSet::new();
    for archive in &record.archives {
        let stem = match archive.content {
            ArchiveContent::Base => "base".to_string(),
            ArchiveContent::Tablespace(oid) => oid.to_string(),
            ArchiveContent::Wal => "pg_wal".to_string(),
            ArchiveContent::Config => "config".to_string(),
        };
        let name = format!("{stem}.tar{}", record.compression.codec.suffix());
        if archive.name != name || !names_are_right(archive) {
            faults.push(format!("archive \"{}\" has names that it cannot have", archive.name.escape_debug()));
        }
        if !contents.insert(stem) {
            faults.push(format!("archive \"{name}\" is there twice"));
        }
        if let ArchiveContent::Tablespace(oid) = archive.content
            && !record.tablespaces.iter().any(|tablespace| tablespace.oid == oid)
        {
            faults.push(format!("archive \"{name}\" belongs to no tablespace"));
        }
    }
    for tablespace in &record.tablespaces {
        if record.archive(ArchiveContent::Tablespace(tablespace.oid)).is_none() {
            faults.push(format!("tablespace {} has no archive", tablespace.oid));
        }
    }
    if record.archive(ArchiveContent::Base).is_none() {
        faults.push("it names no archive of the data directory".to_string());
    }
    if record.archive(ArchiveContent::Wal).is_some() != record.wal_included {
        faults.push("it does not agree with itself about WAL of its own".to_string());
    }
    if record.archive(ArchiveContent::Config).is_none() && !record.config_files.is_empty() {
        faults.push("it names configuration files and no archive of them".to_string());
    }
}

fn names_are_right(archive: &ArchiveRecord) -> bool {
    let volumes = (0..).zip(&archive.volumes);
    let index = archive.index.as_ref().map(|index| &index.name[..]);
    !archive.volumes.is_empty()
        && volumes.into_iter().all(|(n, volume): (u32, _)| volume.name == layout::volume(&archive.name, n))
        && index.is_none_or(|index| index.strip_suffix(".index") == Some(&archive.name))
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
        Ok(match subject.storage.size(&subject.path(&object.name))? {
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
    if let Some(manifest) = &subject.record.manifest
        && let Some(fault) = look(manifest)?
    {
        subject.findings.add(Finding::fault(subject.path(&manifest.name), &fault));
    }
    strangers(subject)?;
    Ok(volumes)
}

/// Objects in the backup's folder that the record does not know.
fn strangers(subject: &Subject<'_>) -> Result<()> {
    let record = subject.path(layout::RECORD);
    let known: BTreeSet<String> =
        all_objects(subject.record).map(|object| subject.path(&object.name)).chain([record]).collect();
    for object in subject.storage.list(subject.folder)? {
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
    match ControlFile::parse(bytes) {
        Err(error) => Some(Fault::other(&error)),
        Ok(control) if control.system_identifier.to_string() == record.system_identifier => None,
        Ok(_) => Some(Fault {
            what: format!("{CONTROL_FILE} in the backup belongs to another cluster"),
            detail: None,
            hint: "Restore another backup.",
        }),
    }
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
