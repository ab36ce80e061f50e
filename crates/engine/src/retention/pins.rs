//! Backups that nobody may remove: pinning and unpinning.
//!
//! A pin may come while retention works, without a lease. Who pins writes the pin first, then looks whether the record is
//! still complete; who removes lets the record say so first, then looks for a pin ([`removal`](super::removal)). Of the
//! two at least one sees the other, and then the backup stays or the pin is refused.

use crate::repository::layout;
use crate::repository::pins::{self, Pin};
use crate::repository::{Cluster, Record};
use pg_ark_contract::rows::BackupStatus;
use pg_ark_contract::{Error, ErrorKind, Result};

/// Most bytes of a reason.
const MAX_REASON: usize = 1000;

/// Pins a backup; false when it is pinned already (the reason is then replaced).
///
/// # Errors
/// `BackupNotFound`; `BackupNotUsable` when it is not complete, or being removed; what the store said.
pub fn pin(cluster: &Cluster, backup: &str, reason: Option<&str>) -> Result<bool> {
    if reason.is_some_and(|reason| reason.len() > MAX_REASON || reason.contains(char::is_control)) {
        let message = format!("a reason is one line of at most {MAX_REASON} bytes");
        return Err(Error::new(ErrorKind::InvalidArgument, message).hint("Give a shorter reason."));
    }
    let (record, folder) = cluster.backup(backup)?;
    refuse_unless_complete(&record)?;
    let storage = cluster.storage();
    let path = layout::pin(cluster.name(), crate::backup::system_of(&record)?, backup);
    let was_pinned = storage.changed(&path)?.is_some();
    Pin::new(reason).save(storage, &path)?;
    let found = Record::load(storage, &folder)?;
    let kept = found.as_ref().is_some_and(|record| record.status == BackupStatus::Complete);
    if kept {
        return Ok(!was_pinned);
    }
    if !was_pinned {
        storage.delete(&path)?;
    }
    refuse_unless_complete(&found.unwrap_or(Record { status: BackupStatus::Failed, ..record }))?;
    Ok(false)
}

fn refuse_unless_complete(record: &Record) -> Result<()> {
    if record.status == BackupStatus::Complete {
        return Ok(());
    }
    let what = match record.is_expiring() {
        true => "being removed by retention".to_string(),
        false => record.status.as_str().to_string(),
    };
    Err(Error::new(ErrorKind::BackupNotUsable, format!("backup \"{}\" is {what}", record.backup))
        .hint("Only a complete backup can be pinned. \"pgark list\" or ark.list_backups() shows them."))
}

/// Takes the pin away; false when there is none.
///
/// # Errors
/// `BackupNotFound`; `InvalidArgument` when backups of two systems have that name and a pin; what the store said.
pub fn unpin(cluster: &Cluster, backup: &str) -> Result<bool> {
    let mut found = Vec::new();
    for system in cluster.systems().iter().filter(|_| layout::is_backup_name(backup)) {
        let path = layout::pin(cluster.name(), *system, backup);
        if cluster.storage().changed(&path)?.is_some() {
            found.push((*system, path));
        }
    }
    match &found[..] {
        // A backup whose record cannot be read can lose its pin, and has none here.
        [] => match cluster.backup(backup) {
            Err(e) if e.kind == ErrorKind::Corrupt => Ok(false),
            other => other.map(|_| false),
        },
        [(_, path)] => cluster.storage().delete(path).map(|()| true),
        [(one, _), (other, _), ..] => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("system identifiers {one} and {other} both have a pinned backup \"{backup}\""),
        )
        .hint("Choose one with --system-identifier.")),
    }
}

/// Whether a backup is pinned, as of now.
///
/// # Errors
/// What the store said.
pub fn is_pinned(cluster: &Cluster, system_identifier: u64, backup: &str) -> Result<bool> {
    Ok(pins::one(cluster.storage(), cluster.name(), system_identifier, backup)?.is_some())
}
