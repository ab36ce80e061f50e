//! `validate`: what of the stored backups is not as it should be.

use super::Watch;
use crate::repository::Cluster;
use pg_ark_contract::Result;
use pg_ark_contract::conversation::Level;
use pg_ark_contract::rows::{BackupStatus, FindingRow, Severity};

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
    let mut rows = Vec::new();
    for record in cluster.backups()? {
        watch.check()?;
        if record.status != BackupStatus::Complete
            || request.backup.as_ref().is_some_and(|name| *name != record.backup)
        {
            continue;
        }
        let system = crate::backup::system_of(&record)?;
        let folder = cluster.backup_folder(system, &record.backup);
        for object in crate::backup::finish::objects(&record) {
            let path = format!("{folder}/{}", object.name);
            let finding = match cluster.storage().size(&path)? {
                Some(size) if size == object.size => continue,
                Some(size) => format!("has {size} bytes instead of {}", object.size),
                None => "is missing".to_string(),
            };
            rows.push(FindingRow {
                backup: Some(record.backup.clone()),
                severity: Severity::Error,
                object: path,
                finding,
                hint: None,
            });
        }
    }
    Ok(rows)
}
