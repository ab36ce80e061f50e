//! The plan of a restore: what will be read, written and created. It can be shown before anything is touched.

use super::access::Access;
use super::check::{self, Filesystem, Mapped};
use super::config::{self, ConfigPlan, OldPlace};
use super::config_archive::{self, ConfigMember};
use super::course::{self, Chosen, RecoveryPlan};
use super::facts::{Facts, Folder, State};
use super::hold;
use super::old_place;
use super::owner;
use super::port;
use super::recorded_places;
use super::replace::{self, Replaced};
use super::request::{ArchiveMode, Request};
use super::run_as;
use super::salvage::{self, Road, Salvage};
use super::server::{self, Server};
use super::target::TimelineChoice;
use super::warnings;
use crate::repository::lease::host_name;
use crate::repository::record::ArchiveContent;
use crate::repository::{Cluster, Record, layout};
use crate::wal::Archive;
use pg_ark_contract::{Error, ErrorKind, Lsn, Result};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Most threads.
const MAX_JOBS: usize = 256;

/// What will be done.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The backup.
    pub backup: String,
    /// Its cluster.
    pub cluster: String,
    /// The server's system identifier.
    pub system_identifier: String,
    /// When it finished: RFC 3339, UTC.
    pub finished_at: Option<String>,
    /// `server_version` of the server it was taken from.
    pub server_version: String,
    /// Recovery starts here.
    pub start_lsn: Option<Lsn>,
    /// Recovery must reach this.
    pub stop_lsn: Option<Lsn>,
    /// The data directory to make.
    pub data_directory: PathBuf,
    /// What stands there now.
    pub data_directory_state: State,
    /// Where the data directory was.
    pub old_data_directory: PathBuf,
    /// Tablespaces.
    pub tablespaces: Vec<Mapped>,
    /// Empty folders for tablespaces that recovery will create.
    pub new_tablespaces: Vec<PathBuf>,
    /// Folder for the WAL, when `pg_wal` becomes a link.
    pub wal_directory: Option<PathBuf>,
    /// What is removed first.
    pub replaced: Replaced,
    /// What becomes of an old server's WAL.
    pub old_wal: Option<Salvage>,
    /// How far recovery goes.
    pub recovery: RecoveryPlan,
    /// Bytes to be read from the repository.
    pub read_bytes: u64,
    /// Bytes to be written, in the size of the archives' tars.
    pub write_bytes: u64,
    /// Files to be created.
    pub files: u64,
    /// What each file system must take.
    pub filesystems: Vec<Filesystem>,
    /// Configuration from outside the data directory.
    pub config: ConfigPlan,
    /// Owner and permissions.
    pub access: Access,
    /// Threads.
    pub jobs: usize,
    /// The server's programs, when they were found.
    pub server: Option<Server>,
    /// What the user should know before.
    pub warnings: Vec<String>,
}

/// A plan with all that carrying it out needs.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The plan.
    pub plan: Plan,
    /// The backup.
    pub record: Record,
    /// Its folder in the repository.
    pub folder: String,
    /// Configuration from outside the data directory.
    pub config: Vec<ConfigMember>,
    /// The cluster's WAL.
    pub archive: Archive,
}

/// Everything that a plan is built from.
struct Inputs<'a> {
    request: &'a Request,
    record: &'a Record,
    facts: &'a Facts,
    mapped: Vec<Mapped>,
    config: &'a [ConfigMember],
    old_places: Vec<OldPlace>,
    server: Result<Server>,
    replaced: Replaced,
    old_wal: Option<Salvage>,
    recovery: RecoveryPlan,
    told: Vec<String>,
}

/// Chooses the backup, looks at this machine, refuses what cannot work, and plans. Touches nothing.
///
/// # Errors
/// See [`hold`], [`course`] and [`check`]; `Corrupt` for a record that contradicts itself.
pub fn prepare(cluster: &Cluster, request: &Request) -> Result<Prepared> {
    // Before anybody looks for old WAL in what another restore writes.
    hold::free(&Folder::look(&request.pgdata)?)?;
    let stock = course::look(cluster, request)?;
    let Chosen { record, folder, mut recovery, remarks: mut told } =
        course::choose(&stock, cluster, request)?;
    check_record(&record)?;
    told.extend(warnings::contradictions(&record));
    let mapped = check::map_tablespaces(&record, request)?;
    let targets: Vec<PathBuf> = mapped.iter().map(|m| m.to.clone()).collect();
    let old_data = Path::new(&record.data_directory.path);
    let mut facts =
        Facts::collect(request, &targets, &record.new_tablespaces, cluster.storage().folder(), old_data)?;
    let replaced = replace::judge(request, &record, &mapped, &mut facts)?;
    check::targets(request, &facts)?;
    told.extend(replaced.remark(&facts.data.path, request.waldir.as_deref()));
    told.extend(salvage::remark(request, &facts.data.path, stock.system_identifier));
    let (target, newest) = (&request.target, request.timeline == TimelineChoice::Latest);
    let road = Road { timeline: recovery.timeline, target, newest, data: &facts.data.path };
    let decide = |old| salvage::decide(old, &stock.survey, &record, &road, &mut told);
    let old_wal = stock.old.as_ref().map(decide).transpose()?.flatten();
    let moved = facts.data.path != facts.old_data;
    recovery.for_copy(request, moved && !request.standby);
    recovery.wal_keep_size = old_wal.as_ref().and_then(|old| old.keep_size(record.wal_segment_size));
    old_place::account(&replaced, old_wal.as_ref(), &mut facts)?;
    recorded_places::check(&mapped, request, &facts)?;
    let config = match request.config {
        super::request::ConfigChoice::Skip => Vec::new(),
        _ => config_archive::load(cluster.storage(), &folder, &record)?,
    };
    let plan = build(Inputs {
        old_places: config::survey(&config, facts.is_root),
        server: server::find(request.bindir.as_deref(), record.server_version_num / 10_000),
        request,
        record: &record,
        facts: &facts,
        mapped,
        config: &config,
        replaced,
        old_wal,
        recovery,
        told,
    })?;
    check::space(&plan.filesystems)?;
    run_as::check(&plan, &stock.archive)?;
    port::check(request, Some(old_data).filter(|_| facts.data.path != facts.old_data))?;
    Ok(Prepared { plan, record, folder, config, archive: stock.archive })
}

/// Builds the plan. Pure but for the libraries that [`warnings::about`] looks for.
fn build(inputs: Inputs<'_>) -> Result<Plan> {
    let Inputs {
        request,
        record,
        facts,
        mapped,
        config: members,
        old_places,
        server,
        replaced,
        old_wal,
        recovery,
        mut told,
    } = inputs;
    let access = owner::choose(record, facts, &mut told);
    let server = match server {
        Ok(server) => Some(server),
        Err(error) if request.start || request.bindir.is_some() => return Err(error),
        Err(error) => {
            told.push(error.to_string());
            None
        }
    };
    let data = facts.data.path.clone();
    let moved = data != facts.old_data;
    // A standby is no cluster of its own.
    let copy = if recovery.standby { ArchiveMode::Keep } else { recovery.archive_mode };
    told.extend(warnings::about(record, server.as_ref(), moved.then_some(copy)));
    if recovery.program.is_some() && recovery.archive_mode == ArchiveMode::Keep && !recovery.standby {
        told.extend(warnings::other_host(record, &host_name()));
    }
    let owned = access.owner.as_ref().is_some_and(|owner| owner.uid != 0);
    let target = config::Target { data: &data, moved, is_root: facts.is_root, owned };
    let config = config::plan(record, members, &old_places, request.config, target, &mut told)?;
    let size = |content: ArchiveContent| record.archive(content).map_or(0, |a| a.tar_bytes);
    let manifest = record.manifest.as_ref().map_or(0, |manifest| manifest.size);
    let base = total([size(ArchiveContent::Base), size(ArchiveContent::Config), manifest]);
    let wal = total([size(ArchiveContent::Wal), old_wal.as_ref().map_or(0, |old| old.fed_bytes)]);
    let mut sizes = vec![(&facts.data, if facts.wal.is_some() { base } else { total([base, wal]) })];
    sizes.extend(facts.wal.iter().map(|folder| (folder, wal)));
    for (folder, mapped) in facts.tablespaces.iter().zip(&mapped) {
        sizes.push((folder, size(ArchiveContent::Tablespace(mapped.oid))));
    }
    let volumes =
        record.archives.iter().flat_map(|a| a.volumes.iter().chain(&a.index)).chain(&record.manifest);
    Ok(Plan {
        backup: record.backup.clone(),
        cluster: record.cluster.clone(),
        system_identifier: record.system_identifier.clone(),
        finished_at: record.finished_at.clone(),
        server_version: record.server_version.clone(),
        start_lsn: record.start_lsn,
        stop_lsn: record.stop_lsn,
        data_directory: data,
        data_directory_state: facts.data.state.clone(),
        old_data_directory: PathBuf::from(&record.data_directory.path),
        tablespaces: mapped,
        new_tablespaces: facts.new_tablespaces.iter().map(|folder| folder.path.clone()).collect(),
        wal_directory: facts.wal.as_ref().map(|folder| folder.path.clone()),
        replaced,
        old_wal,
        recovery,
        read_bytes: total(volumes.map(|object| object.size)),
        write_bytes: total(sizes.iter().map(|(_, bytes)| *bytes)),
        files: record.files,
        filesystems: check::filesystems(&sizes),
        config,
        access,
        jobs: jobs(request.jobs),
        server,
        warnings: told,
    })
}

/// A sum of numbers from a record, which may be anything.
pub(crate) fn total(numbers: impl IntoIterator<Item = u64>) -> u64 {
    numbers.into_iter().fold(0, u64::saturating_add)
}

pub(crate) fn jobs(wanted: usize) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    if wanted == 0 { cores() } else { wanted }.min(MAX_JOBS)
}

/// Names and contents of a record must be what this program would have written: they become paths.
fn check_record(record: &Record) -> Result<()> {
    let bad = |what: String| {
        Err(Error::new(ErrorKind::Corrupt, format!("the record of backup \"{}\" {what}", record.backup)))
    };
    let suffix = record.compression.codec.suffix();
    let mut seen: Vec<ArchiveContent> = Vec::new();
    for archive in &record.archives {
        let stem = archive.content.stem();
        if archive.name != format!("{stem}.tar{suffix}")
            || !archive.names_fit()
            || seen.contains(&archive.content)
        {
            return bad(format!("has an archive \"{}\" that it cannot have", archive.name.escape_debug()));
        }
        if let ArchiveContent::Tablespace(oid) = archive.content
            && !record.tablespaces.iter().any(|t| t.oid == oid)
        {
            return bad(format!("has an archive of tablespace {oid} but no such tablespace"));
        }
        seen.push(archive.content);
    }
    let tablespaces = record.tablespaces.iter().map(|t| ArchiveContent::Tablespace(t.oid));
    let wal = record.wal_included.then_some(ArchiveContent::Wal);
    for needed in [ArchiveContent::Base].into_iter().chain(wal).chain(tablespaces) {
        if !seen.contains(&needed) {
            return bad(format!("has no archive for {needed:?}"));
        }
    }
    if record.logical.is_some() {
        return bad("names dumps, which belong to a logical backup".to_string());
    }
    // Relative to what? It would be made in the folder that pgark was started in.
    if let Some(place) = record.new_tablespaces.iter().find(|place| !Path::new(place).is_absolute()) {
        return bad(format!(
            "has a place for a tablespace that is no absolute path: \"{}\"",
            place.escape_debug()
        ));
    }
    match &record.manifest {
        Some(manifest) if manifest.name == layout::MANIFEST => Ok(()),
        _ => bad("has no backup manifest".to_string()),
    }
}
