//! What a session hands to the worker it starts.
//!
//! The choices are the session's (a superuser may `SET pg_ark.compression` for one backup); facts about the server
//! are collected by the worker, which may read what the caller may not.

use crate::engine::Target;
use pg_ark_contract::conversation::BackupKind;
use pg_ark_contract::settings::{Checksum, Compression};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// One backup, as it was asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// Kind of backup.
    pub kind: BackupKind,
    /// The user's label.
    pub label: Option<String>,
    /// Checkpoint at once, not spread out.
    pub fast: bool,
    /// Database that the worker connects to.
    pub database: String,
    /// The engine.
    pub program: PathBuf,
    /// URL of the repository.
    pub repository: String,
    /// Name of the cluster in it.
    pub cluster: String,
    /// Codec and level.
    pub compression: Compression,
    /// Checksum of each file.
    pub checksum: Checksum,
    /// Threads, 0 for one per core.
    pub jobs: u32,
    /// Bytes per second, 0 for no limit.
    pub max_rate: u64,
    /// Largest object in bytes.
    pub volume_size: u64,
}

impl Request {
    /// Which engine, and what it works on.
    pub fn target(&self) -> Target {
        Target {
            program: self.program.clone(),
            repository: self.repository.clone(),
            cluster: self.cluster.clone(),
        }
    }
}
