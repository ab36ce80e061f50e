//! What belongs to no single backup: the records above them, folders without a record, the archive.

use super::Watch;
use super::archive::{Depth, Verified, verify};
use super::backup::wal::is_own;
use super::findings::{Finding, Findings};
use super::ranges::STRANGER;
use crate::postgres::timeline::history_file_name;
use crate::repository::sealed::Seal;
use crate::repository::{Cluster, Record, Storage, layout};
use crate::wal::Archive;
use crate::wal::audit::GONE;
use pg_ark_contract::conversation::Level;
use pg_ark_contract::rows::{ArchiveRow, ArchiveStatus, BackupStatus, FindingRow, Severity};
use pg_ark_contract::{Error, ErrorKind, Result};

/// A finding about an object that cannot be read.
pub fn of_error(object: impl Into<String>, error: &Error) -> Finding {
    let finding = Finding::new(Severity::Error, object, error.to_string());
    match &error.hint {
        Some(hint) => finding.hint(hint),
        None => finding,
    }
}

/// The records of the repository and of the cluster.
///
/// # Errors
/// What the store said.
pub fn records(cluster: &Cluster) -> Result<Vec<FindingRow>> {
    let findings = Findings::default();
    for (path, seal) in cluster.seals() {
        match seal {
            Ok(Some(Seal::Sealed)) => {}
            Ok(Some(Seal::Unsealed)) => {
                let what = "has no seal: it was written by an early version, or changed by hand";
                let hint = "Look whether what it says is right.";
                findings.add(Finding::new(Severity::Warning, path, what).hint(hint));
            }
            Ok(None) if cluster.exists() => {
                let hint = "The order of the cluster's system identifiers is lost. Get the file back from a copy; the next backup makes a new one.";
                findings.add(Finding::new(Severity::Warning, path, "is missing").hint(hint));
            }
            Ok(None) => {}
            Err(error) if is_own(&error) || error.kind == ErrorKind::FormatTooNew => {
                findings.add(of_error(path, &error));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(findings.into_rows(None, layout::REPOSITORY, &mut |_| None))
}

/// What is gone altogether: backups, or a system's folder.
///
/// # Errors
/// What the store said.
pub fn nothing_to_restore(cluster: &Cluster, records: &[Record]) -> Result<Vec<FindingRow>> {
    let findings = Findings::default();
    let folders = cluster.storage().folders(cluster.name())?;
    for system in cluster.systems().iter().map(u64::to_string).filter(|system| !folders.contains(system)) {
        let what = "is missing: cluster.json lists this system identifier, and nothing is stored for it";
        let hint = "If it was not removed on purpose, get the folder back from a copy.";
        let folder = format!("{}/{system}", cluster.name());
        findings.add(Finding::new(Severity::Warning, folder, what).hint(hint));
    }
    if cluster.exists() && !records.iter().any(|record| record.status == BackupStatus::Complete) {
        let what = "has no complete backup: there is nothing to restore";
        let hint = "Take a backup now. \"pgark list\" shows backups that run or failed.";
        findings.add(Finding::new(Severity::Error, cluster.name(), what).hint(hint));
    }
    Ok(findings.into_rows(None, cluster.name(), &mut |_| None))
}

/// Folders among the backups that hold objects and no record; of one name, or of any. `None` when there is none.
///
/// # Errors
/// What the store said.
pub fn without_record(cluster: &Cluster, only: Option<&str>) -> Result<Option<Vec<FindingRow>>> {
    let storage = cluster.storage();
    let mut rows = Vec::new();
    for system in cluster.systems() {
        let backups = layout::backups(cluster.name(), *system);
        for name in storage.folders(&backups)? {
            if only.is_some_and(|only| only != name) {
                continue;
            }
            let folder = format!("{backups}/{name}");
            let is_backup = layout::is_backup_name(&name);
            let record = format!("{folder}/{}", layout::RECORD);
            // One that cannot be looked at is there.
            let has_record = || !matches!(storage.size(&record), Ok(None));
            if is_backup && has_record() {
                continue;
            }
            let findings = Findings::default();
            let found = match storage.list(&folder) {
                Ok(objects) => Ok(objects.len()),
                Err(error) if is_own(&error) => Err(error),
                Err(error) => return Err(error),
            };
            // A backup that began meanwhile has its record by now.
            if matches!(found, Ok(0)) || is_backup && has_record() {
                continue;
            }
            findings.add(if let Err(error) = found {
                of_error(&folder, &error)
            } else if is_backup {
                let what = "has no record: backup.json is missing, so there is no backup";
                let hint = match name.ends_with("-logical") {
                    true => "Get backup.json back from a copy. pg_restore reads dumps that are whole, psql the expanded globals (FORMAT.md).",
                    false => "Get backup.json back from a copy. Archives that are whole can be unpacked with tar and their decompressor (FORMAT.md).",
                };
                Finding::new(Severity::Error, &folder, what).hint(hint)
            } else {
                let what = "is among the backups, and its name is not that of a backup";
                Finding::new(Severity::Warning, &folder, what).hint("Look what it is. pg_ark does not read it.")
            });
            let backup = is_backup.then_some(&name[..]);
            rows.extend(findings.into_rows(backup, &folder, &mut |_| None));
        }
    }
    Ok((!rows.is_empty()).then_some(rows))
}

/// What of the archive is not as it should be.
///
/// # Errors
/// What the store or the watch said.
pub fn archive(
    archive: &Archive,
    records: &[Record],
    level: Level,
    jobs: usize,
    watch: &dyn Watch,
) -> Result<Vec<FindingRow>> {
    let depth = if level == Level::Record { Depth::Names } else { Depth::Everything(jobs) };
    let findings = Findings::default();
    let Verified { rows, remarks } = verify(archive, records, depth, true, watch)?;
    for row in rows.into_iter().filter(|row| row.status.is_fault()) {
        findings.add(of_row(archive, row)?);
    }
    for remark in remarks {
        let gone = remark.severity == Severity::Error && remark.finding == GONE;
        let finding = Finding::new(remark.severity, remark.path, remark.finding).hint(&remark.hint);
        findings.add(finding.missing_wal(gone));
    }
    Ok(findings.into_rows(None, &archive.folder(), &mut |_| None))
}

fn of_row(archive: &Archive, row: ArchiveRow) -> Result<Finding> {
    let detail = row.detail.unwrap_or_default();
    let named = object_in(archive.storage(), &detail);
    let first = row.first_segment.as_deref();
    let stored = match first {
        Some(first) => archive.find(first).ok().flatten().map(|found| found.path),
        None => None,
    };
    let by_name = first.and_then(|first| archive.path(first).ok());
    let history = row.timeline.and_then(|timeline| archive.path(&history_file_name(timeline)).ok());
    let (object, severity) = match row.status {
        ArchiveStatus::Stranger => {
            let path = detail.strip_prefix(STRANGER).map(str::to_string);
            let what = if path.is_some() { "was not stored by pg_ark".to_string() } else { detail };
            let object = path.unwrap_or_else(|| archive.folder());
            let hint = "Look what it is. pg_ark neither reads nor removes it.";
            return Ok(Finding::new(Severity::Warning, object, what).hint(hint));
        }
        ArchiveStatus::Gap => (by_name, Severity::Error),
        ArchiveStatus::NoHistory => (history, Severity::Error),
        ArchiveStatus::Damaged | ArchiveStatus::Ok | ArchiveStatus::Pruned => {
            (stored.or(by_name).or(named).or(history), Severity::Error)
        }
    };
    let hint = match row.status {
        ArchiveStatus::Gap => {
            "Look for the segments on the server and its standbys and store them with pgark wal-push; else take a backup now."
        }
        _ => {
            "Get the object back from a copy; else take a backup now. pgark windows shows what can be recovered."
        }
    };
    let missing = matches!(row.status, ArchiveStatus::Gap | ArchiveStatus::NoHistory);
    let finding = Finding::new(severity, object.unwrap_or_else(|| archive.folder()), detail).hint(hint);
    Ok(finding.missing_wal(missing))
}

/// The object of the repository that a text names.
fn object_in(storage: &Storage, text: &str) -> Option<String> {
    let root = format!("{}/", storage.display("").trim_end_matches('/'));
    let (_, rest) = text.split_once(&root)?;
    rest.split('"').next().filter(|object| !object.is_empty()).map(str::to_string)
}
