//! `pgark restore` of a logical backup.

use crate::cli::Format;
use pg_ark_contract::{Error, ErrorKind, Result};
use pg_ark_engine::logical::restore::{FreshRequest, IntoRequest};
use pg_ark_engine::repository::Cluster;

/// Into a cluster that the restore makes.
pub fn fresh(_: &Cluster, _: &FreshRequest, _: bool, _: Format) -> Result<()> {
    Err(Error::new(ErrorKind::Unsupported, "this version restores full backups"))
}

/// Into a running server.
pub fn into(_: &Cluster, _: &IntoRequest, _: bool, _: Format) -> Result<()> {
    Err(Error::new(ErrorKind::Unsupported, "this version restores full backups"))
}
