//! Opening a repository, finding clusters and backups, and judging their state as a reader sees it.

use super::layout;
use super::lease;
use super::pins;
use super::record::{FORMAT, Record};
use super::sealed::{self, Seal};
use super::standing;
use super::storage::{PROBE, Storage};
use chrono::Utc;
use pg_ark_contract::rows::BackupStatus;
use pg_ark_contract::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// A small object that is passing through is never this old while its writer lives.
pub const STALE: Duration = Duration::from_secs(3600);

/// Content of `pgark.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RepositoryRecord {
    /// Major version of the format.
    pub format: u32,
    /// UUID.
    pub id: String,
    /// RFC 3339, UTC.
    pub created_at: String,
}

/// A system identifier that a cluster has had.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SystemRecord {
    /// Decimal string.
    pub system_identifier: String,
    /// `server_version_num` when it was first seen.
    pub server_version_num: u32,
    /// RFC 3339, UTC.
    pub first_seen: String,
    /// Fields of a later minor version.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// Content of `cluster.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// Major version of the format.
    pub format: u32,
    /// Newest last.
    pub systems: Vec<SystemRecord>,
    /// Fields of a later minor version.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// An open repository.
#[derive(Debug, Clone)]
pub struct Repository {
    storage: Storage,
    record: RepositoryRecord,
}

/// A cluster in a repository.
#[derive(Debug, Clone)]
pub struct Cluster {
    storage: Storage,
    name: String,
    systems: Vec<u64>,
    damage: Option<Error>,
}

impl Repository {
    /// Opens the repository at `url`.
    ///
    /// # Errors
    /// `RepositoryNotFound` when there is none, `FormatTooNew` when this program is too old for it.
    pub fn open(url: &str) -> Result<Self> {
        Self::on(Storage::open(url)?)
    }

    /// Opens the repository on `storage`.
    ///
    /// # Errors
    /// As [`Repository::open`].
    pub fn on(storage: Storage) -> Result<Self> {
        match load_record(&storage)? {
            Some(record) => Ok(Repository { storage, record }),
            None => match holds_clusters(&storage) {
                Ok(true) => Err(lost_record(ErrorKind::RepositoryNotFound, &storage)),
                _ => Err(Error::new(
                    ErrorKind::RepositoryNotFound,
                    format!("there is no repository at \"{}\"", storage.url()),
                )
                .hint(ABSENT)),
            },
        }
    }

    /// Opens the repository at `url`, or creates it in an absent or empty folder; says whether it was created.
    ///
    /// # Errors
    /// `RepositoryUnusable` for a folder that holds something else.
    pub fn open_or_create(url: &str) -> Result<(Self, bool)> {
        let storage = Storage::open(url)?;
        storage.create_folder()?;
        if let Some(record) = load_record(&storage)? {
            // Whoever made it may have been killed before it was durable.
            storage.sync_folders("")?;
            return Ok((Repository { storage, record }, false));
        }
        if holds_clusters(&storage)? {
            return Err(lost_record(ErrorKind::RepositoryUnusable, &storage));
        }
        refuse_used_folder(&storage)?;
        let record =
            RepositoryRecord { format: FORMAT, id: uuid::Uuid::new_v4().to_string(), created_at: now() };
        let created = storage.create(layout::REPOSITORY, sealed::to_json(&record)?)?;
        let record = if created { Some(record) } else { load_record(&storage)? };
        let record = record.ok_or_else(|| {
            Error::new(
                ErrorKind::RepositoryUnusable,
                format!("repository \"{url}\" vanished while it was created"),
            )
        })?;
        Ok((Repository { storage, record }, created))
    }

    /// Its UUID.
    pub fn id(&self) -> &str {
        &self.record.id
    }

    /// Where it is stored.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Proves that the repository can be written: writes an object durably and removes it.
    ///
    /// # Errors
    /// What the store said.
    pub fn probe(&self) -> Result<()> {
        let name = format!("{PROBE}{}", uuid::Uuid::new_v4());
        self.storage.put(&name, &b"pg_ark\n"[..])?;
        self.storage.delete(&name)
    }

    /// Removes what probes and writers that were killed left, of `cluster` as [`Cluster::sweep`] does.
    pub fn sweep(&self, cluster: &Cluster, system_identifier: u64) {
        self.storage.sweep("", STALE, |name| name.starts_with(PROBE));
        cluster.sweep(system_identifier);
    }

    /// Names of the clusters in it.
    ///
    /// # Errors
    /// What the store said.
    pub fn clusters(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for name in self.storage.folders("")? {
            if layout::check_cluster_name(&name).is_ok()
                && (self.storage.size(&layout::cluster_record(&name))?.is_some()
                    || !system_folders(&self.storage, &name)?.is_empty())
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// The cluster called `name`; one without backups when the repository has never seen it.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that can be none; `FormatTooNew`. A damaged record ends no reader: the folders tell
    /// what it told, but the order ([`Cluster::damage`]).
    pub fn cluster(&self, name: &str) -> Result<Cluster> {
        layout::check_cluster_name(name)?;
        let (found, damage) = match load_cluster(&self.storage, name) {
            Err(e) if e.kind == ErrorKind::Corrupt => (None, Some(e)),
            other => (other?, None),
        };
        let recorded: Vec<u64> = found.map_or_else(Vec::new, |record| {
            record.systems.iter().filter_map(|s| s.system_identifier.parse().ok()).collect()
        });
        // Two servers that share a name may overwrite each other's line in the record; the folders stay.
        let mut systems = system_folders(&self.storage, name)?;
        systems.retain(|system| !recorded.contains(system));
        systems.extend(recorded);
        Ok(Cluster { storage: self.storage.clone(), name: name.to_string(), systems, damage })
    }
}

impl Cluster {
    /// Removes the staging files that writers which were killed left beside the cluster's objects and those of a system, its
    /// backups aside: those are removed whole. For whoever holds the system's lease.
    pub fn sweep(&self, system_identifier: u64) {
        let sweep = |folder: &str| self.storage.sweep(folder, STALE, |_| false);
        let folders = |prefix: &str| {
            let names = match self.storage.is_link(prefix) {
                false => self.storage.folders(prefix).unwrap_or_default(),
                true => Vec::new(),
            };
            names.into_iter().map(|name| format!("{prefix}/{name}")).collect::<Vec<_>>()
        };
        sweep(&self.name);
        sweep(&layout::reserves(&self.name));
        sweep(&format!("{}/{system_identifier}", self.name));
        sweep(&layout::pins(&self.name, system_identifier));
        let wal = layout::wal(&self.name, system_identifier);
        sweep(&wal);
        for timeline in folders(&wal) {
            sweep(&timeline);
            folders(&timeline).iter().for_each(|log| sweep(log));
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is stored.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Whether the repository has seen it.
    pub fn exists(&self) -> bool {
        !self.systems.is_empty()
    }

    /// System identifiers that it has had, newest last.
    pub fn systems(&self) -> &[u64] {
        &self.systems
    }

    /// Why its record cannot be read; its system identifiers are then those of its folders, by number: the order in
    /// which their clusters were made, unless somebody set a clock back.
    pub fn damage(&self) -> Option<&Error> {
        self.damage.as_ref()
    }

    /// The same cluster, seen as if it had only ever had this system identifier.
    ///
    /// # Errors
    /// `InvalidArgument` when it never had it.
    pub fn only_system(mut self, system_identifier: u64) -> Result<Self> {
        if !self.systems.contains(&system_identifier) {
            let known: Vec<String> = self.systems.iter().map(u64::to_string).collect();
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("cluster \"{}\" never had system identifier {system_identifier}", self.name),
            )
            .hint(format!("It had: {}.", known.join(", "))));
        }
        self.systems = vec![system_identifier];
        Ok(self)
    }

    /// Notes that the cluster has this system identifier, when that is new.
    ///
    /// # Errors
    /// `ForeignCluster` when another server has taken the name since: two servers must not share one.
    pub fn remember_system(&mut self, system_identifier: u64, server_version_num: u32) -> Result<()> {
        let mut record = load_cluster(&self.storage, &self.name)?.unwrap_or(ClusterRecord {
            format: FORMAT,
            systems: Vec::new(),
            other: BTreeMap::new(),
        });
        let id = system_identifier.to_string();
        if record.systems.last().is_some_and(|newest| newest.system_identifier == id) {
            return Ok(());
        }
        if record.systems.iter().any(|s| s.system_identifier == id) {
            let newest = record.systems.last().map_or("", |s| s.system_identifier.as_str());
            return Err(standing::superseded(self, newest));
        }
        record.systems.push(SystemRecord {
            system_identifier: id,
            server_version_num,
            first_seen: now(),
            other: BTreeMap::new(),
        });
        self.storage.put(&layout::cluster_record(&self.name), sealed::to_json(&record)?)?;
        self.systems.retain(|s| *s != system_identifier);
        self.systems.push(system_identifier);
        Ok(())
    }

    /// The records above the backups, the repository's and the cluster's, by path: whether each has a seal, `None` for
    /// one that is not there; an error as for opening it, `Corrupt` when it is damaged.
    pub fn seals(&self) -> [(String, Result<Option<Seal>>); 2] {
        let cluster = layout::cluster_record(&self.name);
        let repository = load::<RepositoryRecord>(&self.storage, layout::REPOSITORY);
        let own = load::<ClusterRecord>(&self.storage, &cluster);
        [
            (layout::REPOSITORY.to_string(), repository.map(|found| found.map(|(_, seal)| seal))),
            (cluster, own.map(|found| found.map(|(_, seal)| seal))),
        ]
    }

    /// Folder of a backup.
    pub fn backup_folder(&self, system_identifier: u64, backup: &str) -> String {
        format!("{}/{backup}", layout::backups(&self.name, system_identifier))
    }

    /// Path of the lease.
    pub fn lease_path(&self, system_identifier: u64) -> String {
        layout::lease(&self.name, system_identifier)
    }

    /// Removes leases whose holder is dead.
    ///
    /// # Errors
    /// What the store said.
    pub fn release_dead_leases(&self) -> Result<()> {
        self.systems
            .iter()
            .try_for_each(|system| lease::release_dead(&self.storage, &self.lease_path(*system)))
    }

    /// Every backup, oldest first, with its state as it is now. One whose record cannot be read, be it damaged, denied
    /// or on a bad sector, is there too, as failed ([`Record::unreadable`]): it must hide no other.
    ///
    /// # Errors
    /// What the store said.
    pub fn backups(&self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for &system in &self.systems {
            let pins = pins::all(&self.storage, &self.name, system);
            for name in self.storage.folders(&layout::backups(&self.name, system))? {
                if !layout::is_backup_name(&name) {
                    continue;
                }
                let folder = self.backup_folder(system, &name);
                let judged = Record::load(&self.storage, &folder)
                    .and_then(|found| found.map(|record| self.judge(record, system)).transpose());
                match judged {
                    Ok(found) => records.extend(found.map(|record| with_pin(record, one_of(&pins, &name)))),
                    Err(e) if is_about_one_object(&e) => {
                        let record = Record::unreadable(&name, &self.name, system, e);
                        records.push(with_pin(record, one_of(&pins, &name)));
                    }
                    Err(e) => return Err(e),
                }
            }
        }
        records.sort_by(|a, b| (&a.started_at, &a.backup).cmp(&(&b.started_at, &b.backup)));
        Ok(records)
    }

    /// The record of `backup` with its state as it is now, and its folder.
    ///
    /// # Errors
    /// `BackupNotFound`; `InvalidArgument` when two systems have a backup of that name.
    pub fn backup(&self, backup: &str) -> Result<(Record, String)> {
        let mut found = Vec::new();
        for &system in self.systems.iter().filter(|_| layout::is_backup_name(backup)) {
            let folder = self.backup_folder(system, backup);
            if self.storage.size(&format!("{folder}/{}", layout::RECORD))?.is_some() {
                found.push((system, folder));
            }
        }
        if let [(one, _), (other, _), ..] = &found[..] {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("system identifiers {one} and {other} both have a backup \"{backup}\""),
            )
            .hint("Choose one with --system-identifier."));
        }
        if let Some((system, folder)) = found.pop()
            && let Some(record) = Record::load(&self.storage, &folder)?
        {
            let pin = pins::one(&self.storage, &self.name, system, backup);
            return Ok((with_pin(self.judge(record, system)?, pin), folder));
        }
        for &system in self.systems.iter().filter(|_| layout::is_backup_name(backup)) {
            let folder = self.backup_folder(system, backup);
            if !self.storage.files(&folder)?.is_empty() {
                let path = self.storage.display(&format!("{folder}/{}", layout::RECORD));
                return Err(Error::new(ErrorKind::BackupNotFound, format!("\"{path}\" is missing"))
                    .detail("Objects of the backup are there, but without its record there is no backup.")
                    .hint("Get it back from a copy. What is whole can be read with tar and a decompressor, or pg_restore for dumps (FORMAT.md)."));
            }
        }
        Err(Error::new(
            ErrorKind::BackupNotFound,
            format!("there is no backup \"{}\" of cluster \"{}\"", backup.escape_debug(), self.name),
        )
        .hint("\"pgark list\" or ark.list_backups() shows what there is."))
    }

    /// A record that says `running` while nobody holds the lease for it belongs to a writer that is gone.
    fn judge(&self, mut record: Record, system: u64) -> Result<Record> {
        if record.status != BackupStatus::Running {
            return Ok(record);
        }
        let lease = lease::held_for(&self.storage, &self.lease_path(system), &record.backup)?;
        let alive = lease.is_some_and(|lease| lease.is_alive(Utc::now()));
        if !alive {
            // It may have finished between the two reads.
            let folder = self.backup_folder(system, &record.backup);
            if let Some(again) = Record::load(&self.storage, &folder)?
                && again.status != BackupStatus::Running
            {
                return Ok(again);
            }
            record.status = BackupStatus::Failed;
            record.error.get_or_insert_with(|| "the process that wrote it is gone".to_string());
        }
        Ok(record)
    }
}

/// The record as a reader sees it. When the store does not say whether a backup is pinned, it counts as pinned: that is told,
/// and hinders nobody.
fn with_pin(record: Record, pin: Result<Option<String>>) -> Record {
    let reason = pin.unwrap_or_else(|e| Some(format!("nobody knows whether it is pinned: {e}")));
    Record { pinned: reason.is_some(), pin_reason: reason.filter(|reason| !reason.is_empty()), ..record }
}

fn one_of(pins: &Result<BTreeMap<String, String>>, backup: &str) -> Result<Option<String>> {
    match pins {
        Ok(pins) => Ok(pins.get(backup).cloned()),
        Err(e) => Err(e.clone()),
    }
}

/// Whether others may be whole.
fn is_about_one_object(e: &Error) -> bool {
    use ErrorKind::{Corrupt, FormatTooNew, Io, PermissionDenied};
    matches!(e.kind, Corrupt | FormatTooNew | Io | PermissionDenied)
}

/// System identifiers that have a folder in the cluster called `name`, in the order of their numbers.
fn system_folders(storage: &Storage, name: &str) -> Result<Vec<u64>> {
    let number = |folder: &String| folder.parse().ok().filter(|id: &u64| id.to_string() == *folder);
    let mut systems: Vec<u64> = storage.folders(name)?.iter().filter_map(number).collect();
    systems.sort_unstable();
    Ok(systems)
}

/// Whether there is what a repository holds, with or without its record.
fn holds_clusters(storage: &Storage) -> Result<bool> {
    for name in storage.folders("")?.into_iter().filter(|name| layout::check_cluster_name(name).is_ok()) {
        for system in system_folders(storage, &name)? {
            let below = storage.folders(&format!("{name}/{system}"))?;
            if below.iter().any(|folder| matches!(&folder[..], "backups" | "wal")) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The error for a repository whose record is gone.
fn lost_record(kind: ErrorKind, storage: &Storage) -> Error {
    let record = RepositoryRecord { format: FORMAT, id: uuid::Uuid::new_v4().to_string(), created_at: now() };
    let made = serde_json::to_string(&record).unwrap_or_default();
    let path = storage.display(layout::REPOSITORY);
    Error::new(kind, format!("\"{path}\" is missing, and what a repository holds is there"))
        .detail("Nothing else is lost by that.")
        .hint(format!(
            "Get the file back from a copy of the repository, or make it by hand with this content: {made}"
        ))
}

/// What to do where there is no repository, for a program whose caller named the place.
const ABSENT: &str = "Create it from the server with ark.enable, or check --repo (PGARK_REPO).";

/// `error` with another hint, when it says that there is no repository, and nothing of one.
pub fn absent(error: Error, hint: &str) -> Error {
    match error.hint.as_deref() {
        Some(ABSENT) => error.hint(hint),
        _ => error,
    }
}

/// The same for the server: `known` when it used the repository before. To make a new one below the mount point of one that
/// is away would tear a gap into the archive, for the server gives away the WAL that is stored there.
pub fn away(error: Error, known: bool) -> Error {
    absent(
        error,
        match known {
            true => {
                "If it was there before, mount it or bring it back; if not, ALTER SYSTEM RESET pg_ark.repository, then ark.enable makes a new one."
            }
            false => "If it was there before, mount it or bring it back; if not, ark.enable makes a new one.",
        },
    )
}

/// The same for who asked the server to use it.
pub fn left(error: Error) -> Error {
    let hint = "postgresql.auto.conf names it. If it was there before, mount it or bring it back; if not, ALTER SYSTEM RESET \
                pg_ark.repository first, then call ark.enable again.";
    absent(error, hint)
}

/// Refuses a repository inside the data directory: it would back itself up and die with it.
///
/// # Errors
/// `RepositoryUnusable`.
pub fn refuse_inside(storage: &Storage, data_directory: &Path) -> Result<()> {
    let resolve = |path: &Path| {
        let existing = path.ancestors().find(|p| p.exists()).unwrap_or(path);
        let rest = path.strip_prefix(existing).unwrap_or(Path::new(""));
        existing.canonicalize().unwrap_or_else(|_| existing.to_path_buf()).join(rest)
    };
    let inside = |folder: &Path| resolve(storage.folder()).starts_with(resolve(folder));
    let mut places = vec![data_directory.to_path_buf()];
    if let Ok(entries) = std::fs::read_dir(data_directory.join("pg_tblspc")) {
        places.extend(entries.filter_map(|e| e.ok()).map(|e| e.path()));
    }
    places.push(data_directory.join("pg_wal"));
    for place in places {
        if inside(&place) {
            return Err(Error::new(
                ErrorKind::RepositoryUnusable,
                format!("repository \"{}\" is inside \"{}\"", storage.folder().display(), place.display()),
            )
            .hint("Choose a folder outside the data directory and its tablespaces, best on another disk."));
        }
    }
    Ok(())
}

fn load_record(storage: &Storage) -> Result<Option<RepositoryRecord>> {
    Ok(load(storage, layout::REPOSITORY)?.map(|(record, _)| record))
}

pub(super) fn load_cluster(storage: &Storage, name: &str) -> Result<Option<ClusterRecord>> {
    Ok(load(storage, &layout::cluster_record(name))?.map(|(record, _)| record))
}

fn load<T: serde::de::DeserializeOwned>(storage: &Storage, path: &str) -> Result<Option<(T, Seal)>> {
    let Some(bytes) = storage.get(path, layout::MAX_RECORD)? else { return Ok(None) };
    sealed::read(&bytes, &storage.display(path)).map(Some)
}

fn refuse_used_folder(storage: &Storage) -> Result<()> {
    let folder = storage.folder();
    let mut entries = std::fs::read_dir(folder)
        .map_err(|e| Error::io(format!("could not read repository folder \"{}\"", folder.display()), &e))?;
    match entries.find_map(|e| e.ok().filter(|e| e.file_name() != "lost+found")) {
        None => Ok(()),
        Some(entry) => Err(Error::new(
            ErrorKind::RepositoryUnusable,
            format!("folder \"{}\" is not empty and holds no repository", folder.display()),
        )
        .detail(format!("It holds \"{}\".", entry.file_name().to_string_lossy()))
        .hint("Name an empty folder, or one that does not exist yet.")),
    }
}

/// This moment, RFC 3339, UTC, in seconds.
pub fn now() -> String {
    Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

#[cfg(test)]
#[path = "catalog_tests.rs"]
mod tests;
