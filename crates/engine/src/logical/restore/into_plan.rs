//! What a restore into a running server will do: values that `--dry-run` shows.

use serde::Serialize;

/// The plan.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct IntoPlan {
    /// The backup.
    pub backup: String,
    /// When it was begun: RFC 3339, UTC.
    pub taken_at: String,
    /// Version of the server that was dumped: `15.10`.
    pub dumped_version: String,
    /// Major version of the server that it goes into.
    pub server_version: u32,
    /// The role that does it there.
    pub user: String,
    /// The `pg_restore` that is used.
    pub programs: String,
    /// Roles and tablespaces, where the whole backup is restored.
    pub globals: Option<GlobalsStep>,
    /// Whole databases.
    pub databases: Vec<DatabaseStep>,
    /// Databases of the backup that are not restored, and why.
    pub skipped: Vec<String>,
    /// Tables and schemas.
    pub objects: Option<ObjectsStep>,
    /// Stored bytes that are read.
    pub dump_bytes: u64,
    /// What the user should know before.
    pub warnings: Vec<String>,
}

/// Roles and tablespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GlobalsStep {
    /// Roles that are created.
    pub roles: Vec<String>,
    /// Tablespaces that are created.
    pub tablespaces: Vec<String>,
    /// What exists and stays as it is: `role "a"`.
    pub kept: Vec<String>,
}

/// A whole database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DatabaseStep {
    /// Its name in the backup.
    pub name: String,
    /// Its name on the server.
    pub target: String,
    /// One of that name exists and is dropped when the new one is filled.
    pub replaces: bool,
}

/// Tables and schemas of one database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ObjectsStep {
    /// The database of the backup.
    pub name: String,
    /// The database that they go into.
    pub target: String,
    /// Tables, views and sequences: `sales.orders`.
    pub tables: Vec<String>,
    /// Schemas.
    pub schemas: Vec<String>,
    /// The name that the only one of them gets.
    pub rename: Option<String>,
    /// What exists there and is dropped first.
    pub replaced: Vec<String>,
    /// What belongs to it there, as triggers and privileges do, and does not come back.
    pub goes_with: Vec<String>,
    /// What they need and the database lacks: restored too.
    pub also: Vec<String>,
    /// What also needs other objects, as foreign keys do: tried at the end, told when it fails.
    pub afterwards: Vec<String>,
    /// What does not come along.
    pub left_out: Vec<String>,
    /// All of it, as `pg_restore --list` tells it.
    pub contents: Vec<String>,
    /// What the user should know before; told with the plan's own.
    #[serde(skip)]
    pub warnings: Vec<String>,
}
