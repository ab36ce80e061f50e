//! Before anything is copied: checks, the lease, clearing up after writers that died, and a record that says `running`.

use super::finish::end_dead;
use crate::bounded;
use crate::postgres::control_file::{CONTROL_FILE, ControlFile};
use crate::repository::Storage;
use crate::repository::catalog::{self, Cluster, Repository};
use crate::repository::layout;
use crate::repository::lease::{self, HeldLease};
use crate::repository::record::{DataDirectoryRecord, Record};
use crate::session::Session;
use crate::wal::archiver;
use pg_ark_contract::conversation::{BackupKind, BackupTask};
use pg_ark_contract::rows::BackupStatus;
use pg_ark_contract::settings::{JOBS_MAX, VOLUME_SIZE_MIN};
use pg_ark_contract::units::human_bytes;
use pg_ark_contract::{Error, ErrorKind, Result, VERSION};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Least free space that a backup begins with, in bytes: less is a full disk.
const LEAST_FREE: u64 = 32 << 20;
/// How often a torn pg_control is read again.
const CONTROL_FILE_TRIES: u32 = 50;

/// A backup that has begun.
pub struct Begun {
    /// The cluster in the repository.
    pub cluster: Cluster,
    /// Folder of the backup.
    pub folder: String,
    /// The record, `running`.
    pub record: Record,
    /// Held until the end.
    pub lease: HeldLease,
    /// pg_control before the start.
    pub control: ControlFile,
    /// The data directory.
    pub data_directory: PathBuf,
}

/// Begins a backup.
///
/// # Errors
/// Before anything is written: bad choices, a repository that cannot be used, a data directory that is not the
/// server's. `Busy` while another backup runs.
pub fn begin(storage: Storage, cluster: &str, task: &BackupTask, session: &Session) -> Result<Begun> {
    check_choices(task)?;
    let data_directory = PathBuf::from(&task.data_directory);
    let repository = Repository::on(storage)?;
    catalog::refuse_inside(repository.storage(), &data_directory)?;
    let (control, _) = read_control_file(&data_directory, session)?;
    if control.system_identifier != task.system_identifier {
        return Err(Error::new(
            ErrorKind::ForeignCluster,
            format!(
                "\"{}\" has system identifier {}, the server {}",
                data_directory.display(),
                control.system_identifier,
                task.system_identifier
            ),
        ));
    }
    repository.probe()?;
    free_space(repository.storage())?;
    let mut cluster = repository.cluster(cluster)?;
    let system = control.system_identifier;
    let (name, lease) = take_lease(&cluster, system, task.kind, session)?;
    archiver::enroll(&mut cluster, system, task.server_version_num, session)?;
    clear_up(&cluster, system, session)?;
    repository.sweep(&cluster, system);
    let folder = cluster.backup_folder(system, &name);
    let record = new_record(name, &cluster, task, &control, &data_directory)?;
    record.save(cluster.storage(), &folder)?;
    Ok(Begun { cluster, folder, record, lease, control, data_directory })
}

/// The system identifier in a record.
///
/// # Errors
/// `Corrupt` when it is no number.
pub fn system_of(record: &Record) -> Result<u64> {
    record.system_identifier.parse().map_err(|_| {
        Error::new(
            ErrorKind::Corrupt,
            format!("the record of backup \"{}\" has no valid system identifier", record.backup),
        )
    })
}

/// Reads pg_control, again while it is being written.
///
/// # Errors
/// When it cannot be read, or stays damaged.
pub fn read_control_file(data_directory: &Path, session: &Session) -> Result<(ControlFile, Vec<u8>)> {
    let path = data_directory.join(CONTROL_FILE);
    let mut tries = 0;
    loop {
        let bytes = bounded::read(&path, bounded::MAX_CONTROL)
            .map_err(|e| Error::io(format!("could not read \"{}\"", path.display()), &e))?;
        match ControlFile::parse(&bytes) {
            Ok(control) => return Ok((control, bytes)),
            Err(e) if e.kind == ErrorKind::Corrupt && tries < CONTROL_FILE_TRIES => {
                tries += 1;
                session.pause(Duration::from_millis(20))?;
            }
            Err(e) => return Err(e),
        }
    }
}

/// # Errors
/// `Unsupported` or `InvalidArgument` for choices that no backup can be taken with.
pub fn check_choices(task: &BackupTask) -> Result<()> {
    let fits = match task.kind {
        BackupKind::Full => true,
        BackupKind::Logical => task.logical.is_some(),
        BackupKind::Incremental => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("backups of kind \"{}\" are not supported by this version", task.kind.as_str()),
            )
            .hint("Use kind full or logical."));
        }
    };
    if !fits {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            "nothing says how a logical backup reaches its server",
        ));
    }
    if task.volume_size < VOLUME_SIZE_MIN {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!(
                "volume size {} is below {}",
                human_bytes(task.volume_size),
                human_bytes(VOLUME_SIZE_MIN)
            ),
        )
        .hint("Set pg_ark.volume_size higher."));
    }
    if task.jobs > JOBS_MAX.unsigned_abs() {
        return Err(Error::new(ErrorKind::InvalidArgument, format!("{} jobs are too many", task.jobs))
            .hint(format!("Set pg_ark.jobs to at most {JOBS_MAX}.")));
    }
    Ok(())
}

/// Bytes free in the repository; `None` when its store has no such notion.
///
/// # Errors
/// `DiskFull` when a backup would not even begin.
pub fn free_space(storage: &Storage) -> Result<Option<u64>> {
    match storage.free_bytes() {
        Some(free) if free < LEAST_FREE => Err(Error::new(
            ErrorKind::DiskFull,
            format!("repository \"{}\" has only {} left", storage.url(), human_bytes(free)),
        )
        .hint("Free some space there, then try again.")),
        free => Ok(free),
    }
}

/// Takes the lease in the name of a backup that does not exist yet: names have seconds, so it may take one.
fn take_lease(
    cluster: &Cluster,
    system: u64,
    kind: BackupKind,
    session: &Session,
) -> Result<(String, HeldLease)> {
    loop {
        let name = layout::backup_name(chrono::Utc::now(), kind);
        let path = cluster.lease_path(system);
        let lease = lease::acquire(cluster.storage(), &path, &name, &|time| session.pause(time))?;
        let record = format!("{}/{}", cluster.backup_folder(system, &name), layout::RECORD);
        if cluster.storage().size(&record)?.is_none() {
            return Ok((name, lease));
        }
        drop(lease);
        session.pause(Duration::from_millis(100))?;
    }
}

/// Who holds the lease may end every other backup that still says `running`: its writer is dead. One that says `failed`
/// may have been killed while it removed what it had stored, which takes long where that is much.
fn clear_up(cluster: &Cluster, system: u64, session: &Session) -> Result<()> {
    let storage = cluster.storage();
    let ours = cluster.clone().only_system(system)?;
    let dead = |record: &Record| record.unreadable.is_none() && record.status != BackupStatus::Complete;
    for record in ours.backups()?.into_iter().filter(dead) {
        let folder = cluster.backup_folder(system, &record.backup);
        match end_dead(storage, &folder, record.error.as_deref()) {
            Err(e) if e.kind == ErrorKind::RepositoryUnusable => session.warn(e.message, e.hint),
            other => other?,
        }
    }
    // A writer that was killed before its record had a name left a folder without any object.
    let backups = layout::backups(cluster.name(), system);
    for name in storage.folders(&backups)?.into_iter().filter(|name| layout::is_backup_name(name)) {
        storage.remove_unborn(&format!("{backups}/{name}"), layout::RECORD);
    }
    Ok(())
}

fn new_record(
    name: String,
    cluster: &Cluster,
    task: &BackupTask,
    control: &ControlFile,
    data_directory: &Path,
) -> Result<Record> {
    let meta = std::fs::metadata(data_directory)
        .map_err(|e| Error::io(format!("could not look at \"{}\"", data_directory.display()), &e))?;
    let wal_link = std::fs::read_link(data_directory.join("pg_wal")).ok();
    Ok(Record {
        kind: task.kind,
        label: task.label.clone(),
        started_at: catalog::now(),
        written_by: format!("pg_ark {VERSION}"),
        host: lease::host_name(),
        server_version_num: task.server_version_num,
        server_version: task.server_version.clone(),
        from_standby: task.in_recovery,
        wal_segment_size: control.wal_segment_size,
        block_size: control.block_size,
        data_checksums: control.has_page_checksums(),
        compression: task.compression,
        checksum: task.checksum,
        // A dump has no use for WAL.
        wal_included: task.include_wal && task.kind != BackupKind::Logical,
        data_directory: DataDirectoryRecord {
            path: task.data_directory.clone(),
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            wal_link: wal_link.map(|p| p.to_string_lossy().into_owned()),
        },
        server_settings: task.server_settings.iter().cloned().collect(),
        ..Record::begun(name, cluster.name(), control.system_identifier)
    })
}

#[cfg(test)]
#[path = "begin_tests.rs"]
mod tests;
