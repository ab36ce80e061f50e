//! What the user asked for.

use crate::restore::{ArchiveMode, ConfigChoice};
use std::path::PathBuf;

/// The word for the newest logical backup, where a name is asked for.
pub const LATEST: &str = "latest-logical";

/// Into a cluster that the restore makes.
#[derive(Debug, Clone, Default)]
pub struct FreshRequest {
    /// Name of a logical backup, or [`LATEST`].
    pub backup: String,
    /// The data directory to make.
    pub pgdata: PathBuf,
    /// Databases; empty: all of the backup.
    pub databases: Vec<String>,
    /// Tablespaces that go elsewhere: old path, new path.
    pub tablespaces: Vec<(String, PathBuf)>,
    /// Where configuration from outside the old data directory goes.
    pub config: ConfigChoice,
    /// Whether the new cluster archives; none: off for a copy beside its origin, else as it was.
    pub archive_mode: Option<ArchiveMode>,
    /// Folder of the server's programs.
    pub bindir: Option<PathBuf>,
    /// Port of the new server; none: as its settings say.
    pub port: Option<u16>,
    /// The server is to be started at the end.
    pub start: bool,
    /// Threads; 0 means one per core.
    pub jobs: usize,
}

/// Into a running server.
#[derive(Debug, Clone, Default)]
pub struct IntoRequest {
    /// Name of a logical backup, or [`LATEST`].
    pub backup: String,
    /// How the server is reached: libpq's keywords or URI.
    pub conninfo: String,
    /// The database of the backup; none: all, or the only one that has what is selected.
    pub database: Option<String>,
    /// Schemas of it.
    pub schemas: Vec<String>,
    /// Tables of it: `orders`, `sales.orders`.
    pub tables: Vec<String>,
    /// Another name for the one thing that is selected.
    pub rename: Option<String>,
    /// What exists there under the same name is dropped first.
    pub clean: bool,
    /// Folder of the programs `pg_restore` and `psql`.
    pub bindir: Option<PathBuf>,
    /// Threads; 0 means one per core.
    pub jobs: usize,
}
