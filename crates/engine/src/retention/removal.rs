//! Removes a backup, so that at no moment half of one counts as complete, and none that was pinned is lost.
//!
//! 1. The record says `failed` and `"expiring": true`, durably; it still lists what the backup consists of.
//! 2. A pin that is there now came in time: the record becomes complete again.
//! 3. The objects go, then the record, then the folder. What pg_ark did not store stays, and the record with it.
//!
//! Killed after any step, the next prune goes on: an expiring backup is dropped whatever the rules say, or restored if it
//! was pinned and is whole.

use super::gather::is_restorable;
use super::leases::Leases;
use super::model::StoredBackup;
use super::pins::is_pinned;
use crate::backup::finish::objects;
use crate::repository::record::EXPIRING;
use crate::repository::{Cluster, Record, layout};
use crate::session::Session;
use pg_ark_contract::Result;
use pg_ark_contract::rows::BackupStatus;
use serde_json::Value;
use std::collections::BTreeSet;

/// The error in the record of a backup that is being removed.
const EXPIRES: &str = "retention is removing it";

/// What became of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is gone.
    Gone,
    /// It was pinned meanwhile, and is complete again.
    Spared,
    /// Its folder holds what is not ours: the record stays, and says so.
    Left,
}

/// Removes backups of a cluster, under its leases.
pub(super) struct Removal<'a> {
    pub cluster: &'a Cluster,
    pub leases: &'a Leases<'a>,
    pub session: &'a Session,
}

impl Removal<'_> {
    /// Removes one backup.
    ///
    /// # Errors
    /// What the store said; `Busy` when a lease is lost.
    pub(super) fn remove(&self, backup: &StoredBackup) -> Result<Fate> {
        self.leases.prove()?;
        let storage = self.cluster.storage();
        let folder = self.cluster.backup_folder(backup.system, &backup.backup);
        if storage.is_link(&folder) {
            let what = format!("\"{}\" is a link: nothing in it is removed", storage.display(&folder));
            self.session
                .warn(what, Some("Look what it leads to, and remove the link if nobody needs it.".into()));
            return Ok(Fate::Left);
        }
        let Some(mut record) = Record::load(storage, &folder)? else { return Ok(Fate::Gone) };
        if !record.is_expiring() {
            if record.status == BackupStatus::Complete {
                record.error = Some(EXPIRES.to_string());
            }
            record.status = BackupStatus::Failed;
            record.other.insert(EXPIRING.to_string(), Value::Bool(true));
            record.save(storage, &folder)?;
        }
        let pinned = is_pinned(self.cluster, backup.system, &backup.backup)?;
        if is_restorable(self.cluster, &folder, &record, pinned)? {
            restore(self.cluster, &folder, record)?;
            return Ok(Fate::Spared);
        }
        self.remove_objects(&folder, record, backup)
    }

    fn remove_objects(&self, folder: &str, mut record: Record, backup: &StoredBackup) -> Result<Fate> {
        let storage = self.cluster.storage();
        self.leases.check()?;
        let listed: BTreeSet<String> = objects(&record).map(|object| object.name.clone()).collect();
        let is_ours =
            |name: &str| name != layout::RECORD && (listed.contains(name) || layout::is_backup_object(name));
        storage.remove_ours(folder, is_ours)?;
        if let Some(stranger) = storage.anything_but(folder, layout::RECORD)? {
            let place = storage.display(&format!("{folder}/{stranger}"));
            let error = format!(
                "retention removed it; \"{}\" was not stored by pg_ark and is left",
                stranger.escape_debug()
            );
            if record.error.as_ref() != Some(&error) {
                record.error = Some(error);
                record.save(storage, folder)?;
            }
            let what = format!(
                "backup \"{}\" was removed but for \"{place}\", which pg_ark did not store",
                backup.backup
            );
            self.session
                .warn(what, Some("Look what it is, and move it away: the folder then goes too.".into()));
            return Ok(Fate::Left);
        }
        // Without its record, what comes back after a power failure would be a backup that lost it.
        storage.sync_folders(folder)?;
        storage.delete(&format!("{folder}/{}", layout::RECORD))?;
        storage.remove_unborn(folder, layout::RECORD);
        // A pin that came too late was refused; one that could not be taken back goes with the backup.
        storage.delete(&layout::pin(self.cluster.name(), backup.system, &backup.backup))?;
        Ok(Fate::Gone)
    }
}

/// Lets the record of an expiring backup, of which nothing is gone, say `complete` again.
///
/// # Errors
/// What the store said.
pub(super) fn restore(cluster: &Cluster, folder: &str, mut record: Record) -> Result<()> {
    record.status = BackupStatus::Complete;
    record.error = None;
    record.other.remove(EXPIRING);
    record.save(cluster.storage(), folder)
}
