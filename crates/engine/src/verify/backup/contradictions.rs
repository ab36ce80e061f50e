//! What in a record contradicts itself, or cannot be.

use super::wal;
use crate::logical::stored;
use crate::repository::record::ArchiveContent;
use crate::repository::{Record, layout};
use crate::stored::objects::hex_crc;
use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use pg_ark_contract::conversation::BackupKind;
use std::collections::BTreeSet;
use std::path::Path;

/// A backup begins so soon after it got its name, unless somebody sets the clock.
const LONGEST_BEGIN: TimeDelta = TimeDelta::days(1);

/// Sentences without the path of the record; none when all is well.
pub fn contradictions(record: &Record) -> Vec<String> {
    let mut faults = Vec::new();
    times(record, &mut faults);
    let kind = record.kind.as_str();
    if record.backup.split_once('-').is_none_or(|(_, named)| named != kind) {
        faults.push(format!("its kind is {kind}, which is not in its name"));
    }
    match record.kind {
        BackupKind::Full | BackupKind::Incremental => physical(record, &mut faults),
        BackupKind::Logical => logical(record, &mut faults),
    }
    places(record, &mut faults);
    let objects = || crate::backup::finish::objects(record);
    let sum = objects().fold(0u64, |sum, object| sum.saturating_add(object.size));
    if sum != record.stored_bytes {
        faults.push(format!("its objects have {sum} bytes instead of {}", record.stored_bytes));
    }
    if let Some(object) = objects().find(|object| hex_crc(&object.crc32c).is_none()) {
        faults.push(format!("it has no valid checksum of \"{}\"", object.name.escape_debug()));
    }
    faults
}

fn physical(record: &Record, faults: &mut Vec<String>) {
    archives(record, faults);
    if record.manifest.as_ref().is_none_or(|manifest| manifest.name != layout::MANIFEST) {
        faults.push("it names no manifest".to_string());
    }
    needed_wal(record, faults);
    if record.logical.is_some() {
        faults.push("it names dumps, and is not that of a logical backup".to_string());
    }
}

fn logical(record: &Record, faults: &mut Vec<String>) {
    faults.extend(stored::faults(record));
    let Some(logical) = &record.logical else { return };
    if record.archives.is_empty() && !record.config_files.is_empty() {
        faults.push("it names configuration files and no archive of them".to_string());
    }
    if record.parent.is_some() || record.timeline.is_some() || !record.tablespaces.is_empty() {
        faults.push("it says what only a physical backup has".to_string());
    }
    if logical.databases.is_empty() {
        faults.push("it names no database".to_string());
    }
    let bytes = logical.databases.iter().fold(0u64, |sum, database| sum.saturating_add(database.data_bytes));
    if bytes != record.data_bytes {
        faults.push(format!("its databases have {bytes} bytes instead of {}", record.data_bytes));
    }
    if let Some(both) = logical.missing.iter().find(|missing| logical.database(&missing.name).is_some()) {
        faults.push(format!("database \"{}\" is there and missing", both.name.escape_debug()));
    }
}

/// `latest` is chosen by these times.
fn times(record: &Record, faults: &mut Vec<String>) {
    let read = |text: &str| DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc());
    let named = record.backup.split_once('-').map(|(stamp, _)| stamp);
    let named: Option<DateTime<Utc>> = named
        .and_then(|s| NaiveDateTime::parse_from_str(s, "%Y%m%dT%H%M%SZ").ok())
        .map(|time| time.and_utc());
    match (read(&record.started_at), named) {
        (None, _) => faults.push("it does not say when it was started".to_string()),
        (Some(started), Some(named)) if (started - named).abs() > LONGEST_BEGIN => {
            faults.push(format!("it was started at {}, which is not in its name", started.to_rfc3339()));
        }
        _ => {}
    }
    if record.finished_at.as_deref().and_then(read).is_none() {
        faults.push("it does not say when it was finished".to_string());
    }
}

fn archives(record: &Record, faults: &mut Vec<String>) {
    let mut contents = BTreeSet::new();
    for archive in &record.archives {
        let stem = archive.content.stem();
        let name = format!("{stem}.tar{}", record.compression.codec.suffix());
        if archive.name != name || archive.volumes.is_empty() || !archive.names_fit() {
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

/// Tablespaces, and where they and the data directory were.
fn places(record: &Record, faults: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for tablespace in &record.tablespaces {
        if !seen.insert(tablespace.oid) {
            faults.push(format!("tablespace {} is there twice", tablespace.oid));
        }
        if record.archive(ArchiveContent::Tablespace(tablespace.oid)).is_none() {
            faults.push(format!("tablespace {} has no archive", tablespace.oid));
        }
    }
    let own = record.tablespaces.iter().map(|tablespace| &tablespace.path);
    let all = own.chain(&record.new_tablespaces).chain([&record.data_directory.path]);
    for place in all.filter(|place| !Path::new(place).is_absolute()) {
        let shown: String = place.chars().take(300).flat_map(char::escape_debug).collect();
        faults.push(format!("\"{shown}\" is no absolute path"));
    }
}

fn needed_wal(record: &Record, faults: &mut Vec<String>) {
    let Some(needed) = wal::Needed::stated(record) else {
        return faults.push("it does not say which WAL the backup needs".to_string());
    };
    if needed.is_too_much_for(record) {
        let what = "the WAL that it needs is more than its own archive of WAL can hold";
        faults.push(format!("{what}: it ends at {}", needed.stop));
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::validate_fixture::{Form, Stored};
    use super::*;

    /// What is changed, and what is told then.
    type Change = (fn(&mut Record), &'static str);

    #[test]
    fn whatever_a_record_cannot_say_is_told() {
        let good = Stored::new(Form::default()).record;
        assert_eq!(contradictions(&good), Vec::<String>::new());
        let changes: [Change; 9] = [
            (|r| r.started_at = "yesterday".into(), "when it was started"),
            (|r| r.started_at = "2020-01-01T00:00:00Z".into(), "not in its name"),
            (|r| r.finished_at = Some(String::new()), "when it was finished"),
            (|r| r.tablespaces.extend(r.tablespaces.clone()), "is there twice"),
            (|r| r.tablespaces[0].path = "ts".into(), "\"ts\" is no absolute path"),
            (|r| r.new_tablespaces = vec!["../x".into()], "\"../x\" is no absolute path"),
            (|r| r.stop_lsn.as_mut().unwrap().0 += 1 << 40, "more than its own archive of WAL"),
            (|r| r.stop_lsn = r.start_lsn, "which WAL the backup needs"),
            (|r| r.stored_bytes += 1, "its objects have"),
        ];
        for (change, expected) in changes {
            let mut record = good.clone();
            change(&mut record);
            let [fault] = &contradictions(&record)[..] else {
                panic!("{expected}: {:?}", contradictions(&record))
            };
            assert!(fault.contains(expected), "{fault}");
        }
    }
}
