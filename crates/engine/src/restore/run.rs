//! Carries a plan out.
//!
//! A marker says "unfinished" from the first to the last moment, and `global/pg_control`, without which no server
//! starts, gets its name only when everything else is durable.

use super::access::{Access, NEW_FILE, sync_folder};
use super::config;
use super::config_in_data;
use super::link;
use super::marker::{MARKER, Marker};
use super::old_place::{self, Taken};
use super::own_wal;
use super::plan::{Plan, Prepared, total};
use super::recovery;
use super::request::ConfigChoice;
use super::tree::{CONTROL_FILE_HELD_BACK, Roots};
use super::unpack::Unpack;
use super::warnings;
use super::watch::{self, Stage, Watch};
use crate::bounded;
use crate::postgres::backup_label::TABLESPACE_MAP;
use crate::postgres::control_file::{CONTROL_FILE, ControlFile};
use crate::postgres::manifest::BACKUP_MANIFEST;
use crate::repository::record::ArchiveContent;
use crate::repository::{Record, Storage, catalog};
use crate::stored::expected::Expected;
use pg_ark_contract::{Error, ErrorKind, Result};
use serde::Serialize;
use std::fs::{DirBuilder, File, Permissions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What a restore made.
#[derive(Debug, Clone, Serialize)]
pub struct Restored {
    /// The data directory.
    pub data_directory: PathBuf,
    /// When the origin wrote its control file last before the backup copied it: seconds since 1970.
    pub control_time: i64,
    /// What in the data directory is not as in the backup, so that `pg_verifybackup` must `-i`gnore it.
    pub changed: Vec<String>,
    /// Folders that keep the old server's WAL.
    pub saved_wal: Vec<PathBuf>,
}

/// Restores. Afterwards everything is durable and a server can be started.
///
/// # Errors
/// `Corrupt` for damage, `DiskFull`, `Cancelled`, what the store or the file systems said. The marker then stays.
pub fn run(storage: &Storage, prepared: &Prepared, watch: &dyn Watch) -> Result<Restored> {
    let Prepared { plan, record, folder, config: members, archive } = prepared;
    let data = &plan.data_directory;
    let roots = Roots {
        data: data.clone(),
        wal: plan.wal_directory.clone(),
        tablespaces: plan.tablespaces.iter().map(|t| (t.oid, t.to.clone())).collect(),
    };
    own_wal::archived(record, archive, watch)?;
    let taken = match &plan.old_wal {
        Some(salvage) => old_place::take(plan, record, archive, salvage, watch)?,
        None => Taken::default(),
    };
    let opened = create_roots(plan, &roots, &taken, watch)?;
    let expected = load_manifest(storage, folder, record, plan)?;
    if let Some(what) = warnings::disagreement(record, &expected) {
        watch.warn(&what);
    }
    watch.stage(Stage::Unpack, tar_bytes(record));
    let unpack = Unpack {
        storage,
        folder,
        record,
        roots: &roots,
        access: &plan.access,
        expected: &expected,
        jobs: plan.jobs,
        watch,
    };
    unpack.run()?;
    own_wal::check(record, &roots.wal.clone().unwrap_or_else(|| data.join("pg_wal")))?;
    drop(expected);
    let control = check_control(data, record)?;
    link::wal(&roots, record.server_version_num / 10_000, &plan.access)?;
    if let Some(salvage) = &plan.old_wal {
        old_place::give(&taken, salvage, record, archive, &data.join("pg_wal"), &plan.access, watch)?;
    }
    let map = link::tablespaces(data, &plan.tablespaces, &plan.access)?;
    config::apply(&plan.config, record, members, data, &plan.access, watch)?;
    let moved = *data != plan.old_data_directory;
    let rest = plan.config.main.is_none() && (moved || plan.config.choice == ConfigChoice::Pgdata);
    let detached = rest && config_in_data::detach(record, members, data, &plan.access, watch)?;
    if recovery::prepare(data, &plan.recovery, &plan.access)? && !plan.recovery.standby {
        watch.warn("the backup is of a standby; it will start as a server of its own");
    }
    watch::check(watch)?;
    watch.stage(Stage::Sync, 0);
    commit(data, &opened)?;
    Ok(Restored {
        data_directory: data.clone(),
        control_time: control.time,
        changed: changed(plan, map, detached),
        saved_wal: taken.folders,
    })
}

/// Paths below the data directory that the restore changed and `pg_verifybackup` would not expect.
fn changed(plan: &Plan, map: bool, detached: bool) -> Vec<String> {
    let mut changed = Vec::new();
    let mut add = |path: &str| {
        if !changed.iter().any(|known| known == path) {
            changed.push(path.to_string());
        }
    };
    if map {
        add(TABLESPACE_MAP);
    }
    if detached {
        add("postgresql.conf");
    }
    for file in &plan.config.files {
        let Ok(below) = file.to.strip_prefix(&plan.data_directory) else { continue };
        let Some(top) = below.iter().next().and_then(|top| top.to_str()) else { continue };
        add(top);
        let aside = format!("{top}.unused");
        if plan.data_directory.join(&aside).exists() {
            add(&aside);
        }
    }
    changed
}

/// Bytes that are unpacked.
fn tar_bytes(record: &Record) -> u64 {
    let unpacked = record.archives.iter().filter(|archive| archive.content != ArchiveContent::Config);
    total(unpacked.map(|archive| archive.tar_bytes))
}

/// Writes the marker, clears what is replaced, creates the folders, and opens each of them, so that errors of writeback
/// are noticed later.
fn create_roots(
    plan: &Plan,
    roots: &Roots,
    taken: &Taken,
    watch: &dyn Watch,
) -> Result<Vec<(PathBuf, File)>> {
    let mut folders = vec![roots.data.clone()];
    folders.extend(roots.wal.clone());
    folders.extend(roots.tablespaces.values().cloned());
    folders.extend(plan.new_tablespaces.iter().cloned());
    let mut marker = Marker::new(&plan.backup, &catalog::now(), folders.clone());
    old_place::mark(&mut marker, plan, taken);
    let json = marker.json()?;
    let mut opened = vec![(roots.data.clone(), old_place::lock(plan)?)];
    old_place::write_marker(plan, &json)?;
    old_place::clear(plan, taken, watch)?;
    for folder in folders.into_iter().skip(1) {
        create_folder(&folder, &plan.access)?;
        let file = File::open(&folder)
            .map_err(|e| Error::io(format!("could not open folder \"{}\"", folder.display()), &e))?;
        opened.push((folder, file));
    }
    Ok(opened)
}

/// Creates a folder, and those above it as `mkdir -p` does; one that exists gets its mode and owner.
pub(crate) fn create_folder(path: &Path, access: &Access) -> Result<()> {
    let create = || -> std::io::Result<()> {
        if path.is_dir() {
            return access.adopt_folder(path);
        }
        let mut missing = path.ancestors().skip(1).take_while(|p| !p.exists()).collect::<Vec<_>>();
        while let Some(parent) = missing.pop() {
            DirBuilder::new().mode(0o755).create(parent)?;
            std::fs::set_permissions(parent, Permissions::from_mode(0o755))?;
            sync_folder(parent.parent().unwrap_or(Path::new("/")))?;
        }
        access.create_folder(path)
    };
    create().map_err(|e| Error::io(format!("could not create folder \"{}\"", path.display()), &e))
}

/// Reads the manifest, and keeps a copy in the data directory, where `pg_verifybackup` looks for it.
fn load_manifest(storage: &Storage, folder: &str, record: &Record, plan: &Plan) -> Result<Expected> {
    let path = plan.data_directory.join(BACKUP_MANIFEST);
    let failed = |e: std::io::Error| Error::io(format!("could not write \"{}\"", path.display()), &e);
    let mut copy = BufWriter::new(plan.access.create_file(&path, NEW_FILE).map_err(failed)?);
    let expected = Expected::load(storage, folder, record, &mut copy)?;
    copy.flush().map_err(failed)?;
    Ok(expected)
}

fn check_control(data: &Path, record: &Record) -> Result<ControlFile> {
    let path = data.join(CONTROL_FILE_HELD_BACK);
    let bytes = match bounded::read(&path, bounded::MAX_CONTROL) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::new(ErrorKind::Corrupt, format!("the backup has no {CONTROL_FILE}")));
        }
        Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
            return Err(
                Error::new(ErrorKind::Corrupt, format!("the backup has no valid {CONTROL_FILE}")).detail(e)
            );
        }
        read => read.map_err(|e| Error::io(format!("could not read \"{}\"", path.display()), &e))?,
    };
    let control = ControlFile::parse(&bytes)?;
    match control.system_identifier.to_string() == record.system_identifier {
        true => Ok(control),
        false => Err(Error::new(
            ErrorKind::Corrupt,
            format!("{CONTROL_FILE} in the backup belongs to another cluster"),
        )),
    }
}

/// Makes everything durable, then names the control file, then removes the marker.
pub(crate) fn commit(data: &Path, opened: &[(PathBuf, File)]) -> Result<()> {
    let failed =
        |path: &Path, e: std::io::Error| Error::io(format!("could not sync \"{}\"", path.display()), &e);
    let mut synced = Vec::new();
    for (folder, file) in opened {
        let device = file
            .metadata()
            .map(|meta| std::os::unix::fs::MetadataExt::dev(&meta))
            .map_err(|e| failed(folder, e))?;
        if !synced.contains(&device) {
            rustix::fs::syncfs(file).map_err(|e| failed(folder, e.into()))?;
            synced.push(device);
        }
        if let Some(parent) = folder.parent() {
            sync_folder(parent).map_err(|e| failed(parent, e))?;
        }
    }
    let name = || -> std::io::Result<()> {
        std::fs::rename(data.join(CONTROL_FILE_HELD_BACK), data.join(CONTROL_FILE))?;
        sync_folder(&data.join("global"))?;
        // A restore that was killed may have left half a marker.
        match std::fs::remove_file(data.join(MARKER).with_added_extension("pg_ark_new")) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        std::fs::remove_file(data.join(MARKER))?;
        sync_folder(data)
    };
    name().map_err(|e| Error::io(format!("could not finish \"{}\"", data.display()), &e))
}
