//! Backups that are stored and cannot be chosen, because what says what they are is damaged or gone: whoever asks for the
//! latest backup must hear of those that are later than the one he gets.

use crate::repository::{Cluster, layout};
use pg_ark_contract::Result;

/// A backup without a record that can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Its name, which is that of its folder.
    pub backup: String,
    /// Its folder in the repository.
    pub folder: String,
    /// What is wrong with its record.
    pub why: String,
}

impl Lost {
    /// Whether it is, by its name, one of dumps.
    pub fn is_logical(&self) -> bool {
        is_logical(&self.backup)
    }
}

/// Those of a system identifier, oldest first: records that cannot be read, and folders of backups that hold objects
/// and no record.
///
/// # Errors
/// What the store said.
pub fn lost(cluster: &Cluster, system_identifier: u64) -> Result<Vec<Lost>> {
    let ours = cluster.clone().only_system(system_identifier)?;
    let of = |backup: String, why: String| {
        let folder = cluster.backup_folder(system_identifier, &backup);
        Lost { backup, folder, why }
    };
    let records = ours.backups()?;
    let mut found = Vec::new();
    let storage = cluster.storage();
    for name in storage.folders(&layout::backups(cluster.name(), system_identifier))? {
        let known = records.iter().find(|record| record.backup == name);
        if let Some(record) = known {
            let why = record.unreadable.as_ref().map(|why| format!("its record cannot be read: {why}"));
            found.extend(why.map(|why| of(name, why)));
        } else if layout::is_backup_name(&name) {
            let folder = cluster.backup_folder(system_identifier, &name);
            let record = format!("{folder}/{}", layout::RECORD);
            // A backup begins with its record, so one that has just begun has it after its first objects were seen.
            if !storage.list(&folder)?.is_empty() && matches!(storage.size(&record), Ok(None)) {
                found.push(of(name, format!("its record {} is missing", layout::RECORD)));
            }
        }
    }
    found.sort_by(|a, b| a.backup.cmp(&b.backup));
    Ok(found)
}

/// Those that began later than the backup called `chosen`, as far as names tell. Dumps and the files of a cluster cannot stand
/// for one another: only those of its class count.
///
/// # Errors
/// As [`lost`].
pub fn later(cluster: &Cluster, system_identifier: u64, chosen: &str) -> Result<Vec<Lost>> {
    let mut found = lost(cluster, system_identifier)?;
    let is_logical = is_logical(chosen);
    found.retain(|lost| *lost.backup > *chosen && lost.is_logical() == is_logical);
    Ok(found)
}

fn is_logical(backup: &str) -> bool {
    backup.ends_with("-logical")
}
