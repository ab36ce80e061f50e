//! What a server keeps, as it told the repository when it last pruned: `<cluster>/retention.json` (FORMAT.md, "Retention").
//! `pgark prune` goes by it, since the server's settings are out of its reach.

use crate::repository::record::FORMAT;
use crate::repository::{Cluster, layout, sealed};
use chrono::{DateTime, Utc};
use pg_ark_contract::Result;
use pg_ark_contract::retention::Policy;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Content of `retention.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredPolicy {
    format: u32,
    /// What is kept.
    pub policy: Policy,
    /// When a server last pruned by it, whether anything was dropped or not.
    pub pruned_at: DateTime<Utc>,
    /// That server's machine.
    #[serde(default)]
    pub host: String,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

impl StoredPolicy {
    /// Reads what is shown as `path`.
    ///
    /// # Errors
    /// `Corrupt`; `FormatTooNew`.
    pub fn parse(bytes: &[u8], path: &str) -> Result<StoredPolicy> {
        sealed::read(bytes, path).map(|(stored, _)| stored)
    }
}

/// What the cluster's server last pruned by; none when it never did.
///
/// # Errors
/// `Corrupt`; `FormatTooNew`; what the store said.
pub fn load(cluster: &Cluster) -> Result<Option<StoredPolicy>> {
    let path = layout::retention(cluster.name());
    let bytes = cluster.storage().get(&path, layout::MAX_RECORD)?;
    bytes.map(|bytes| StoredPolicy::parse(&bytes, &cluster.storage().display(&path))).transpose()
}

/// Writes what the server has just pruned by. A cluster that the repository has never seen stays unseen.
///
/// # Errors
/// What the store said.
pub fn save(cluster: &Cluster, policy: &Policy, now: DateTime<Utc>) -> Result<()> {
    if !cluster.exists() {
        return Ok(());
    }
    let host = crate::repository::lease::host_name();
    let stored =
        StoredPolicy { format: FORMAT, policy: policy.clone(), pruned_at: now, host, other: BTreeMap::new() };
    cluster.storage().put(&layout::retention(cluster.name()), sealed::to_json(&stored)?)
}
