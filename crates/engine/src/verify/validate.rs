//! `validate`: what of the stored backups is not as it should be.

use super::Watch;
use super::backup::Subject;
use super::findings::{Finding, Findings};
use super::loose;
use super::strangers::strangers;
use crate::names::{Namer, StoredBackup};
use crate::repository::{Cluster, Record, layout};
use crate::stored::lost;
use crate::wal::Archive;
use pg_ark_contract::conversation::Level;
use pg_ark_contract::rows::{BackupStatus, FindingRow, Severity};
use pg_ark_contract::{Error, ErrorKind, Result};
use std::collections::BTreeSet;

/// Most threads.
const MAX_JOBS: usize = 256;

/// What to look at.
#[derive(Debug, Clone)]
pub struct Request {
    /// Name of the backup; none: every complete backup, the archive and the repository's own records.
    pub backup: Option<String>,
    /// How much is read.
    pub level: Level,
    /// Threads; 0 means one per core.
    pub jobs: usize,
}

/// Looks at backups; no row means that all is well.
///
/// # Errors
/// `BackupNotFound`, `BackupNotUsable` for one that is not complete; what keeps the work itself from being done.
/// Damage of what is stored is a row.
pub fn validate(cluster: &Cluster, request: &Request, watch: &dyn Watch) -> Result<Vec<FindingRow>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = if request.jobs == 0 { cores } else { request.jobs }.clamp(1, MAX_JOBS);
    let work = Work { cluster, level: request.level, jobs, watch, records: cluster.backups()? };
    match &request.backup {
        Some(name) => work.one(name),
        None => work.everything(),
    }
}

/// Backups that would be the latest instead of `chosen`, if what says so were not damaged or gone.
///
/// # Errors
/// `BackupNotFound`; what the store said.
pub fn passed_over(cluster: &Cluster, chosen: &str) -> Result<Vec<FindingRow>> {
    let (record, _) = cluster.backup(chosen)?;
    let system = crate::backup::system_of(&record)?;
    let mut rows = Vec::new();
    for lost in lost::later(cluster, system, chosen)? {
        let findings = Findings::default();
        let what = format!("cannot be used, and is later than \"{chosen}\": {}", lost.why);
        let hint = "Get backup.json back from a copy; else take a backup now.";
        findings.add(Finding::new(Severity::Error, &lost.folder, what).hint(hint));
        rows.extend(findings.into_rows(Some(&lost.backup), &lost.folder, &mut |_| None));
    }
    Ok(rows)
}

struct Work<'a> {
    cluster: &'a Cluster,
    level: Level,
    jobs: usize,
    watch: &'a dyn Watch,
    records: Vec<Record>,
}

impl Work<'_> {
    fn one(&self, name: &str) -> Result<Vec<FindingRow>> {
        let record = match self.cluster.backup(name) {
            Ok((record, _)) => record,
            Err(error) => {
                let unreadable = self.records.iter().find(|r| r.backup == name && r.unreadable.is_some());
                let rows = match unreadable {
                    Some(record) => self.unreadable(record)?,
                    None if error.kind == ErrorKind::BackupNotFound => {
                        loose::without_record(self.cluster, Some(name))?
                    }
                    None => None,
                };
                return rows.ok_or(error);
            }
        };
        if record.status != BackupStatus::Complete {
            return Err(Error::new(
                ErrorKind::BackupNotUsable,
                format!("backup \"{name}\" is {}", record.status.as_str()),
            )
            .hint("Only a complete backup can be verified."));
        }
        let system = crate::backup::system_of(&record)?;
        self.total(std::iter::once(&record));
        self.backup(&record, system, true)
    }

    fn everything(&self) -> Result<Vec<FindingRow>> {
        let mut rows = loose::records(self.cluster)?;
        rows.extend(loose::without_record(self.cluster, None)?.unwrap_or_default());
        let complete = |record: &&Record| record.status == BackupStatus::Complete;
        self.total(self.records.iter().filter(complete));
        rows.extend(loose::nothing_to_restore(self.cluster, &self.records)?);
        rows.extend(strangers(self.cluster)?);
        for record in &self.records {
            self.watch.check()?;
            if record.unreadable.is_some() {
                rows.extend(self.unreadable(record)?.unwrap_or_default());
            } else if complete(&record) {
                let system = crate::backup::system_of(record)?;
                rows.extend(self.backup(record, system, false)?);
            }
        }
        for system in self.cluster.systems() {
            let archive = Archive::of(self.cluster, *system);
            let id = system.to_string();
            let records: Vec<Record> =
                self.records.iter().filter(|record| record.system_identifier == id).cloned().collect();
            rows.extend(loose::archive(&archive, &records, self.level, self.jobs, self.watch)?);
        }
        rows.sort_by(|a, b| (&a.backup, &a.object, &a.finding).cmp(&(&b.backup, &b.object, &b.finding)));
        Ok(rows)
    }

    fn total<'r>(&self, records: impl Iterator<Item = &'r Record>) {
        if self.level > Level::Record {
            let bytes = records.flat_map(crate::backup::finish::objects).map(|object| object.size);
            self.watch.total(bytes.fold(0, u64::saturating_add));
        }
    }

    /// One complete backup; `alone` when the archive is not looked at as a whole.
    fn backup(&self, record: &Record, system: u64, alone: bool) -> Result<Vec<FindingRow>> {
        let findings = Findings::default();
        let storage = self.cluster.storage();
        let folder = self.cluster.backup_folder(system, &record.backup);
        let subject = Subject {
            storage,
            cluster: self.cluster.name(),
            folder: &folder,
            record,
            level: self.level,
            jobs: self.jobs,
            findings: &findings,
            watch: self.watch,
        };
        subject.look(&Archive::of(self.cluster, system), alone)?;
        self.parents(record, &subject.path(layout::RECORD), &findings);
        let mut namer = Namer::new(StoredBackup::new(storage, &folder, record));
        let mut name = |file: &str| {
            let known = record.damage.iter().find(|damage| damage.path == file);
            let known = known.and_then(|damage| {
                let named = crate::names::Named {
                    relation: Some(damage.relation.clone()?),
                    database: damage.database.clone(),
                };
                Some(named.to_string())
            });
            known.or_else(|| namer.name(file).map(|named| named.to_string()))
        };
        Ok(findings.into_rows(Some(&record.backup), &folder, &mut name))
    }

    /// Every parent must be there and complete.
    fn parents(&self, record: &Record, path: &str, findings: &Findings) {
        let mut seen = BTreeSet::from([record.backup.clone()]);
        let mut parent = record.parent.clone();
        while let Some(name) = parent {
            let shown = name.escape_debug();
            let found = self
                .records
                .iter()
                .find(|other| other.backup == name && other.system_identifier == record.system_identifier);
            let what = match found {
                _ if !seen.insert(name.clone()) => {
                    Some(format!("its parents run in a circle at \"{shown}\""))
                }
                None => Some(format!("its parent \"{shown}\" is missing")),
                Some(found) if found.status != BackupStatus::Complete => {
                    Some(format!("its parent \"{shown}\" is not complete but {}", found.status.as_str()))
                }
                Some(found) if !found.kind.is_physical() => {
                    Some(format!("its parent \"{shown}\" is a logical backup"))
                }
                Some(_) => None,
            };
            if let Some(what) = what {
                let hint = "An incremental backup is nothing without its parents. Restore another backup.";
                findings.add(Finding::new(Severity::Error, path, what).hint(hint));
                return;
            }
            parent = found.and_then(|found| found.parent.clone());
        }
    }

    fn unreadable(&self, record: &Record) -> Result<Option<Vec<FindingRow>>> {
        let Some(error) = &record.unreadable else { return Ok(None) };
        let system = crate::backup::system_of(record)?;
        let folder = self.cluster.backup_folder(system, &record.backup);
        let findings = Findings::default();
        findings.add(loose::of_error(format!("{folder}/{}", layout::RECORD), error));
        Ok(Some(findings.into_rows(Some(&record.backup), &folder, &mut |_| None)))
    }
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
