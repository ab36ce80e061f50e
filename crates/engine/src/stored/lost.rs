//! Backups that are stored and cannot be chosen, because what says what they are is damaged or gone: whoever asks for the
//! latest backup must hear of those that are later than the one he gets.

use crate::repository::{Cluster, layout};
use pg_ark_contract::{Error, ErrorKind, Result};

/// Backups that are named one by one.
pub const NAMED: usize = 5;

/// What helps.
const REMEDY: &str = "Get its backup.json back from a copy, or mend what keeps it from being read: \"pgark verify\" tells what is wrong. \
     A folder that nobody can mend may be moved out of the repository.";

/// A backup without a record that can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Its name, which is that of its folder.
    pub backup: String,
    /// Its folder in the repository.
    pub folder: String,
    /// What is wrong with its record.
    pub why: String,
    /// Of which kind that is.
    pub kind: ErrorKind,
    /// What to do about it.
    pub hint: String,
}

impl Lost {
    /// Its name, and what is wrong.
    pub fn shown(&self) -> String {
        format!("\"{}\" ({})", self.backup, self.why)
    }

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
    let of = |backup: String, kind: ErrorKind, why: String, hint: Option<&String>| {
        let folder = cluster.backup_folder(system_identifier, &backup);
        // Only of what is damaged is more known here.
        let own = hint.filter(|_| kind != ErrorKind::Corrupt).cloned();
        Lost { backup, folder, why, kind, hint: own.unwrap_or_else(|| REMEDY.to_string()) }
    };
    let records = ours.backups()?;
    let mut found = Vec::new();
    let storage = cluster.storage();
    for name in storage.folders(&layout::backups(cluster.name(), system_identifier))? {
        let known = records.iter().find(|record| record.backup == name);
        if let Some(record) = known {
            let unreadable = record.unreadable.as_ref();
            found.extend(
                unreadable
                    .map(|e| of(name, e.kind, format!("its record cannot be read: {e}"), e.hint.as_ref())),
            );
        } else if layout::is_backup_name(&name) {
            let folder = cluster.backup_folder(system_identifier, &name);
            let record = format!("{folder}/{}", layout::RECORD);
            // A backup begins with its record, so one that has just begun has it after its first objects were seen.
            if !storage.list(&folder)?.is_empty() && matches!(storage.size(&record), Ok(None)) {
                let why = format!("its record {} is missing", layout::RECORD);
                found.push(of(name, ErrorKind::Corrupt, why, None));
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

/// The error for a cluster whose newest system identifier has no complete backup of a class, when it has lost ones. `elsewhere`
/// says where else there are backups.
///
/// # Errors
/// As [`lost`].
pub fn instead(cluster: &Cluster, logical: bool, elsewhere: Option<&str>) -> Result<Option<Error>> {
    let Some(system) = cluster.systems().last() else { return Ok(None) };
    let mut all = lost(cluster, *system)?;
    all.retain(|lost| lost.is_logical() == logical);
    let more = if all.len() > 1 { " and others" } else { "" };
    Ok(all.pop().map(|lost| {
        let message = format!(
            "cluster \"{}\" has no complete {} backup that can be read; \"{}\"{more} cannot be used",
            cluster.name(),
            if logical { "logical" } else { "physical" },
            cluster.storage().display(&lost.folder)
        );
        let hint = [Some(&lost.hint[..]), elsewhere].into_iter().flatten().collect::<Vec<_>>().join(" ");
        Error::new(lost.kind, message).detail(lost.why).hint(hint)
    }))
}

/// The error for a newest backup that is not the latest: later ones are lost.
pub fn not_the_latest(chosen: &str, lost: &[Lost], reason: &str, remedy: &str) -> Error {
    let list: Vec<String> = lost.iter().take(NAMED).map(|lost| format!("\"{}\"", lost.backup)).collect();
    let more = if lost.len() > list.len() { " and others" } else { "" };
    let message = format!(
        "backup \"{chosen}\" is not the latest: {}{more} began later and cannot be used{reason}",
        list.join(", ")
    );
    let (kind, hint) = lost.last().map_or((ErrorKind::Corrupt, REMEDY), |last| (last.kind, &last.hint));
    Error::new(kind, message)
        .detail(lost.iter().take(NAMED).map(Lost::shown).collect::<Vec<_>>().join("; "))
        .hint(format!("{hint} {remedy}"))
}

fn is_logical(backup: &str) -> bool {
    backup.ends_with("-logical")
}
