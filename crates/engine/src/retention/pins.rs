//! Backups that nobody may remove.

use crate::repository::Cluster;
use pg_ark_contract::{Error, ErrorKind, Result};

/// Pins a backup; false when it is pinned already (the reason is then replaced).
///
/// # Errors
/// `BackupNotFound`; `BackupNotUsable` when it is not complete, or being removed; what the store said.
pub fn pin(_cluster: &Cluster, _backup: &str, _reason: Option<&str>) -> Result<bool> {
    Err(Error::new(ErrorKind::Unsupported, "pins are not available yet"))
}

/// Takes the pin away; false when there is none.
///
/// # Errors
/// As [`pin`].
pub fn unpin(_cluster: &Cluster, _backup: &str) -> Result<bool> {
    Err(Error::new(ErrorKind::Unsupported, "pins are not available yet"))
}
