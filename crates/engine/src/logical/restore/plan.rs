//! The plan of a restore into a cluster that it makes. It can be shown before anything is touched.

use super::choose::choose;
use super::config_back;
use super::databases::ALWAYS;
use super::initdb;
use super::request::FreshRequest;
use super::room::{self, Found};
use crate::logical::programs::Programs;
use crate::logical::stored;
use crate::repository::logical_record::{DatabaseRecord, LogicalRecord};
use crate::repository::{Cluster, Record};
use crate::restore::access::Access;
use crate::restore::check::{self, Filesystem};
use crate::restore::config::{self, ConfigPlan};
use crate::restore::config_archive::{self, ConfigMember};
use crate::restore::facts::State;
use crate::restore::request::Request;
use crate::restore::server::{self, Server};
use crate::restore::{ArchiveMode, ConfigChoice, owner, plan as physical, port, warnings};
use pg_ark_contract::{Error, ErrorKind, Result};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Oldest version whose dumps this program makes.
const OLDEST: u32 = 15;

/// A database and its dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedDatabase {
    /// Name.
    pub name: String,
    /// Its size when it was dumped.
    pub data_bytes: u64,
    /// Bytes of the dump.
    pub stored_bytes: u64,
    /// Number of tables.
    pub tables: u64,
    /// Planner statistics come along; else they are gathered.
    pub statistics: bool,
}

/// A tablespace and where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedTablespace {
    /// Name.
    pub name: String,
    /// Where it was; empty for one inside the data directory.
    pub from: String,
    /// Where it goes; none for one inside the data directory.
    pub to: Option<PathBuf>,
}

/// What will be done.
#[derive(Debug, Clone, Serialize)]
pub struct FreshPlan {
    /// The backup.
    pub backup: String,
    /// Its cluster.
    pub cluster: String,
    /// System identifier of its server; the new cluster has another one.
    pub system_identifier: String,
    /// When it finished: RFC 3339, UTC.
    pub finished_at: Option<String>,
    /// `server_version` of the server it was taken from.
    pub server_version: String,
    /// The data directory to make.
    pub data_directory: PathBuf,
    /// What stands there now.
    pub data_directory_state: State,
    /// Where the data directory was.
    pub old_data_directory: PathBuf,
    /// The databases, in the order of their names.
    pub databases: Vec<PlannedDatabase>,
    /// Databases of the backup that were not asked for.
    pub left_out: Vec<String>,
    /// Tablespaces.
    pub tablespaces: Vec<PlannedTablespace>,
    /// Bytes to be read from the repository.
    pub read_bytes: u64,
    /// Bytes that the databases had.
    pub data_bytes: u64,
    /// What each file system must take at least.
    pub filesystems: Vec<Filesystem>,
    /// Configuration from outside the old data directory.
    pub config: ConfigPlan,
    /// Configuration from inside it, where it goes.
    pub config_inside: Vec<PathBuf>,
    /// Whether the new cluster archives.
    pub archive_mode: ArchiveMode,
    /// Its port; none: as its settings say.
    pub port: Option<u16>,
    /// Owner and permissions.
    pub access: Access,
    /// Jobs at once.
    pub jobs: usize,
    /// The server's programs.
    pub server: Server,
    /// Its major version.
    pub server_major: u32,
    /// Options of `initdb`.
    pub initdb: Vec<String>,
    /// Libraries that are loaded while the dumps are restored: extensions may insist on it.
    pub libraries: Vec<String>,
    /// What the user should know before.
    pub warnings: Vec<String>,
}

/// A plan with all that carrying it out needs.
#[derive(Debug, Clone)]
pub struct FreshPrepared {
    /// The plan.
    pub plan: FreshPlan,
    /// The backup.
    pub record: Record,
    /// Its folder in the repository.
    pub folder: String,
    /// Configuration from outside the old data directory.
    pub outside: Vec<ConfigMember>,
    /// Configuration from inside it.
    pub inside: Vec<ConfigMember>,
    /// The programs that restore.
    pub programs: Programs,
}

impl FreshPrepared {
    /// The databases that are restored.
    pub fn databases(&self) -> Vec<&DatabaseRecord> {
        let planned = |name: &str| self.plan.databases.iter().any(|database| database.name == name);
        let all = self.record.logical.iter().flat_map(|logical| &logical.databases);
        all.filter(|database| planned(&database.name)).collect()
    }
}

/// Chooses the backup, looks at this machine, refuses what cannot work, and plans. Touches nothing.
///
/// # Errors
/// As [`choose`]; `InvalidArgument` for a database that the backup does not have and for options that do not fit;
/// `TargetNotEmpty`, `ServerRunning`, `PermissionDenied`, `NotEnoughSpace`; `Unsupported` when no server fits; what the store
/// said.
pub fn prepare_fresh(cluster: &Cluster, request: &FreshRequest) -> Result<FreshPrepared> {
    let (record, folder) = choose(cluster, &request.backup)?;
    let logical = stored::check(&record)?;
    let chosen = databases(&record, logical, &request.databases)?;
    let (server, major) =
        server::find_at_least(request.bindir.as_deref(), (record.server_version_num / 10_000).max(OLDEST))?;
    let programs = Programs::for_restore(Some(&server.bindir), record.server_version_num / 10_000)?;
    let Found { facts, mapped, request: physical } = room::look(cluster, &record, logical, request, major)?;
    let moved = facts.data.path != facts.old_data;
    let archive_mode = archive_mode(request, moved);
    let mut told = warnings::about(&record, Some(&server), moved.then_some(archive_mode));
    let access = owner::choose(&record, &facts, &mut told);
    runnable(&access, facts.is_root)?;
    room::reachable(&facts, &access)?;
    let members = match request.config {
        ConfigChoice::Skip => Vec::new(),
        _ => config_archive::load(cluster.storage(), &folder, &record)?,
    };
    let (inside, outside) = config_back::split(members, Path::new(&record.data_directory.path));
    let config_inside = config_back::places(&inside, &record, &facts.data.path)?;
    let places = config::survey(&outside, facts.is_root);
    let owned = access.owner.as_ref().is_some_and(|owner| owner.uid != 0);
    let target = config::Target { data: &facts.data.path, moved, is_root: facts.is_root, owned };
    let config = config::plan(&record, &outside, &places, request.config, target, &mut told)?;
    told.extend(losses(logical));
    let data_bytes = physical::total(chosen.iter().map(|database| database.data_bytes));
    let filesystems = room::filesystems(&facts, &chosen, data_bytes, &mut told);
    check::space(&filesystems)?;
    port::check(&physical, Some(Path::new(&record.data_directory.path)).filter(|_| moved))?;
    let stored = |database: &DatabaseRecord| physical::total(database.volumes.iter().map(|v| v.size));
    let globals = physical::total(logical.globals.iter().map(|object| object.size));
    let left_out = logical.databases.iter().filter(|d| !chosen.iter().any(|c| c.name == d.name));
    let planned = |database: &&DatabaseRecord| PlannedDatabase {
        name: database.name.clone(),
        data_bytes: database.data_bytes,
        stored_bytes: stored(database),
        tables: database.tables,
        statistics: database.statistics && major >= 18,
    };
    let plan = FreshPlan {
        backup: record.backup.clone(),
        cluster: record.cluster.clone(),
        system_identifier: record.system_identifier.clone(),
        finished_at: record.finished_at.clone(),
        server_version: record.server_version.clone(),
        data_directory: facts.data.path.clone(),
        data_directory_state: facts.data.state.clone(),
        old_data_directory: PathBuf::from(&record.data_directory.path),
        databases: chosen.iter().map(planned).collect(),
        left_out: left_out.map(|database| database.name.clone()).collect(),
        tablespaces: room::tablespaces(logical, &mapped),
        read_bytes: physical::total(chosen.iter().map(|d| stored(d)).chain([globals])),
        data_bytes,
        filesystems,
        config,
        config_inside,
        archive_mode,
        port: request.port,
        jobs: physical::jobs(request.jobs),
        initdb: initdb::options(&record, logical, major, access.group_access),
        libraries: config_back::libraries(&server, &record),
        access,
        server,
        server_major: major,
        warnings: told,
    };
    Ok(FreshPrepared { plan, folder, outside, inside, programs, record })
}

/// A copy beside its origin does not archive, unless that was asked for.
fn archive_mode(request: &FreshRequest, moved: bool) -> ArchiveMode {
    let usual = if moved { ArchiveMode::Off } else { ArchiveMode::Keep };
    request.archive_mode.unwrap_or(usual)
}

/// A server must run to take the dumps, and none runs as root.
fn runnable(access: &Access, is_root: bool) -> Result<()> {
    let owned = access.owner.as_ref().is_some_and(|owner| owner.uid != 0);
    if !is_root || owned {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::PermissionDenied,
        "a server cannot be run as root, and dumps go into a running one",
    )
    .hint("Run pgark as the user who shall own the server, or create the user postgres."))
}

/// The databases that were asked for.
fn databases<'a>(
    record: &Record,
    logical: &'a LogicalRecord,
    names: &[String],
) -> Result<Vec<&'a DatabaseRecord>> {
    let unknown: Vec<String> = names
        .iter()
        .filter(|name| logical.database(name).is_none())
        .map(|name| format!("\"{}\"", name.escape_debug()))
        .collect();
    if !unknown.is_empty() {
        let known: Vec<String> =
            logical.databases.iter().map(|d| format!("\"{}\"", d.name.escape_debug())).collect();
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("backup \"{}\" has no database {}", record.backup, unknown.join(", ")),
        )
        .hint(format!("It has {}.", known.join(", "))));
    }
    let wanted = |name: &String| names.is_empty() || names.contains(name);
    Ok(logical.databases.iter().filter(|database| wanted(&database.name)).collect())
}

/// What no dump takes along.
fn losses(logical: &LogicalRecord) -> Vec<String> {
    let mut told = Vec::new();
    let list = |names: Vec<String>| names.join(", ");
    if !logical.missing.is_empty() {
        let names = logical.missing.iter().map(|d| format!("\"{}\"", d.name.escape_debug())).collect();
        told.push(format!("databases that could not be dumped are not in the backup: {}", list(names)));
    }
    let known = |name: &str| {
        let mut others = logical.missing.iter().map(|d| &d.name).chain(&logical.left_out);
        logical.database(name).is_some() || others.any(|other| other == name)
    };
    let made: Vec<String> =
        ALWAYS.iter().filter(|(name, _)| !known(name)).map(|(name, _)| format!("\"{name}\"")).collect();
    if !made.is_empty() {
        told.push(format!("initdb makes {}, which the original did not have", list(made)));
    }
    if !logical.replication_slots.is_empty() {
        let names =
            logical.replication_slots.iter().map(|s| format!("\"{}\"", s.name.escape_debug())).collect();
        told.push(format!("replication slots are not restored; the original had {}", list(names)));
    }
    let enabled: Vec<String> = logical
        .subscriptions
        .iter()
        .filter(|subscription| subscription.enabled)
        .map(|s| format!("\"{}\" in database \"{}\"", s.name.escape_debug(), s.database.escape_debug()))
        .collect();
    if !enabled.is_empty() {
        told.push(format!("subscriptions come back disabled; the original had enabled {}", list(enabled)));
    }
    told
}

/// The request as the physical restore's checks take it.
pub(super) fn as_physical(request: &FreshRequest, tablespaces: Vec<(String, PathBuf)>) -> Request {
    Request {
        backup: request.backup.clone(),
        pgdata: request.pgdata.clone(),
        tablespaces,
        start: request.start,
        port: request.port,
        ..Request::default()
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
