//! Pins: backups that retention never removes. Each is an object of its own, `pins/<backup>.json` (FORMAT.md, "Pins"), so
//! that pinning never rewrites a record that somebody else may be rewriting.
//!
//! Whatever stands where a pin would be is one: a pin that cannot be read keeps its backup too.

use super::layout;
use super::record::FORMAT;
use super::sealed::{self, Seal};
use super::storage::Storage;
use pg_ark_contract::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Content of a pin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pin {
    /// Major version of the format.
    pub format: u32,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// RFC 3339, UTC.
    pub pinned_at: String,
    /// Fields of a later minor version.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Pin {
    /// A pin that begins now.
    pub fn new(reason: Option<&str>) -> Self {
        Pin {
            format: FORMAT,
            reason: reason.map(str::to_string),
            pinned_at: super::catalog::now(),
            other: BTreeMap::new(),
        }
    }

    /// Reads the pin that is shown as `path`.
    ///
    /// # Errors
    /// `Corrupt`; `FormatTooNew`.
    pub fn parse(bytes: &[u8], path: &str) -> Result<Pin> {
        let (pin, _): (Pin, Seal) = sealed::read(bytes, path)?;
        Ok(pin)
    }

    /// Writes it durably.
    ///
    /// # Errors
    /// What the store said.
    pub fn save(&self, storage: &Storage, path: &str) -> Result<()> {
        storage.put(path, sealed::to_json(self)?)
    }
}

/// The pinned backups of a system, each with the reason, which may be empty.
///
/// # Errors
/// When the store does not say which there are.
pub fn all(storage: &Storage, cluster: &str, system_identifier: u64) -> Result<BTreeMap<String, String>> {
    let folder = layout::pins(cluster, system_identifier);
    let files = storage.files(&folder)?;
    let names = files.iter().filter_map(|path| path.rsplit('/').next()).map(str::to_string);
    let mut found = BTreeMap::new();
    for name in names.chain(storage.folders(&folder)?) {
        if let Some(backup) = name.strip_suffix(".json").filter(|backup| layout::is_backup_name(backup)) {
            let reason = reason(storage, &layout::pin(cluster, system_identifier, backup));
            found.insert(backup.to_string(), reason.unwrap_or_default());
        }
    }
    Ok(found)
}

/// Why a backup is pinned; none when it is not.
///
/// # Errors
/// When the store does not say whether it is.
pub fn one(storage: &Storage, cluster: &str, system_identifier: u64, backup: &str) -> Result<Option<String>> {
    let path = layout::pin(cluster, system_identifier, backup);
    Ok(storage.changed(&path)?.and_then(|_| reason(storage, &path)))
}

/// The reason in a pin that was seen at `path`; none when it is gone.
fn reason(storage: &Storage, path: &str) -> Option<String> {
    let read = storage.get(path, layout::MAX_RECORD).and_then(|bytes| match bytes {
        Some(bytes) => Pin::parse(&bytes, &storage.display(path)).map(Some),
        None => Ok(None),
    });
    match read {
        Ok(Some(pin)) => Some(pin.reason.unwrap_or_default()),
        // A folder is nothing that the store can read.
        Ok(None) => {
            storage.changed(path).is_ok_and(|there| there.is_some()).then(|| "its pin cannot be read".into())
        }
        Err(why) => Some(format!("its pin cannot be read: {}", why.to_string().replace('\n', " "))),
    }
}
