//! What the user asked for, and the choice of the backup.

use super::target::{Target, TargetAction, TimelineChoice};
use crate::repository::{Cluster, Record};
use crate::stored::lost;
use pg_ark_contract::conversation::BackupKind;
use pg_ark_contract::rows::BackupStatus;
use pg_ark_contract::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where configuration files that were outside the data directory go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfigChoice {
    /// Where they were, if the data directory goes back to its old place and they can be written there, and, as root,
    /// all were below `/etc/postgresql`; else into the data directory.
    #[default]
    Auto,
    /// Where they were.
    Original,
    /// Into the data directory.
    Pgdata,
    /// Nowhere.
    Skip,
}

/// Whether the restored server archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArchiveMode {
    /// As its origin did.
    Keep,
    /// No.
    Off,
}

/// What the user asked for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Name of a backup, or `latest`.
    pub backup: String,
    /// The data directory to make.
    pub pgdata: PathBuf,
    /// Tablespaces that go elsewhere: old path, new path.
    pub tablespaces: Vec<(String, PathBuf)>,
    /// Folder for the WAL, outside the data directory.
    pub waldir: Option<PathBuf>,
    /// Where external configuration goes.
    pub config: ConfigChoice,
    /// Threads; 0 means one per core.
    pub jobs: usize,
    /// Folder of the server's programs.
    pub bindir: Option<PathBuf>,
    /// The server is to be started, so its programs must be there.
    pub start: bool,
    /// Where recovery ends.
    pub target: Target,
    /// The target itself is left out (`recovery_target_inclusive = off`).
    pub exclusive: bool,
    /// Timeline to follow.
    pub timeline: TimelineChoice,
    /// What the server does at the target.
    pub action: TargetAction,
    /// The server becomes a standby.
    pub standby: bool,
    /// Whether it archives; none: off for a copy beside its origin, else as it was.
    pub archive_mode: Option<ArchiveMode>,
    /// Port of the restored server; none: as its settings say.
    pub port: Option<u16>,
    /// Statistics are gathered after the start.
    pub analyze: bool,
    /// What stands at the old place may be replaced, its WAL saved first.
    pub replace: bool,
    /// Folder of an old `pg_wal` whose WAL is saved and used.
    pub keep_wal: Option<PathBuf>,
    /// The `pgark` that recovery calls; none: this program.
    pub program: Option<PathBuf>,
}

/// The backup called `name`.
///
/// # Errors
/// `BackupNotFound`; `BackupNotUsable` for one that runs or failed; `InvalidArgument` for one of dumps; `Unsupported` for a
/// kind that this version cannot restore.
pub fn named(cluster: &Cluster, name: &str) -> Result<Record> {
    let (record, _) = cluster.backup(name)?;
    usable(&record)?;
    let shown = format!("backup \"{}\"", record.backup);
    if !record.kind.is_physical() {
        let what =
            format!("{shown} is logical: it holds dumps, and recovery begins with the files of a cluster");
        let hint = "\"pgark restore\" makes a new cluster of it without a target (--pgdata), or restores it into a running server (--into).";
        return Err(Error::new(ErrorKind::InvalidArgument, what).hint(hint));
    }
    if record.kind != BackupKind::Full {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("{shown} is {}; this version restores full backups", record.kind.as_str()),
        )
        .hint("Use a newer pg_ark, or restore a full backup."));
    }
    Ok(record)
}

/// Refuses a backup that is not complete.
///
/// # Errors
/// `BackupNotUsable` for one that runs or failed.
pub fn usable(record: &Record) -> Result<()> {
    let shown = format!("backup \"{}\"", record.backup);
    match record.status {
        BackupStatus::Complete => Ok(()),
        BackupStatus::Running => {
            Err(Error::new(ErrorKind::BackupNotUsable, format!("{shown} is still running"))
                .hint("Wait until it is complete, or restore another one: \"pgark list\" shows them."))
        }
        BackupStatus::Failed => {
            let error = Error::new(ErrorKind::BackupNotUsable, format!("{shown} failed"))
                .hint("Restore another one: \"pgark list\" shows them.");
            Err(match &record.error {
                Some(why) => error.detail(why),
                None => error,
            })
        }
    }
}

/// Every complete full backup of the newest system identifier, the one that finished last at the end.
///
/// # Errors
/// `BackupNotFound` when there is none; when there are some that cannot be read, why; what the store said.
pub fn complete(cluster: &Cluster) -> Result<Vec<Record>> {
    let mut records = newest_system(cluster)?.backups()?;
    records.retain(|r| r.status == BackupStatus::Complete);
    let has_logical = records.iter().any(|r| r.kind == BackupKind::Logical);
    records.retain(|r| r.kind == BackupKind::Full);
    by_end(&mut records);
    if !records.is_empty() {
        return Ok(records);
    }
    let what = if has_logical { "complete physical backup" } else { "complete backup" };
    let hint = match has_logical {
        true => Some("It has logical ones: latest-logical names the newest.".to_string()),
        false => others_hint(cluster),
    };
    if let Some(error) = lost::instead(&newest_system(cluster)?, false, hint.as_deref())? {
        return Err(error);
    }
    Err(Error::new(ErrorKind::BackupNotFound, format!("cluster \"{}\" has no {what}", cluster.name())).hint(
        hint.unwrap_or_else(|| {
            "\"pgark list\" shows what there is; --cluster chooses another cluster.".to_string()
        }),
    ))
}

/// The cluster as its newest system identifier has it: what `latest` is looked for in.
///
/// # Errors
/// `Corrupt` when the record that says which is the newest is damaged, and there are several.
pub fn newest_system(cluster: &Cluster) -> Result<Cluster> {
    // Their order was in the record.
    if let (Some(damage), [_, _, ..]) = (cluster.damage(), cluster.systems()) {
        return Err(damage.clone().hint(
            "Which of its system identifiers is the newest is not known: choose one with --system-identifier, or get the file back from a copy.",
        ));
    }
    match cluster.systems() {
        [.., newest] => cluster.clone().only_system(*newest),
        [] => Ok(cluster.clone()),
    }
}

/// Where else there may be backups when the newest system identifier has none that fits.
pub fn others_hint(cluster: &Cluster) -> Option<String> {
    let (newest, others) = cluster.systems().split_last()?;
    let others: Vec<String> = others.iter().map(u64::to_string).collect();
    (!others.is_empty()).then(|| {
        format!(
            "That is, of its newest system identifier {newest}. Earlier ones, which --system-identifier chooses: {}.",
            others.join(", ")
        )
    })
}

/// The physical backup of the newest system identifier that ended last, whatever its state; one that has no end counts by
/// its beginning. As long as nothing came after it, that is the one that `latest` restores.
///
/// # Errors
/// As [`newest_system`]; what the store said.
pub fn newest(cluster: &Cluster) -> Result<Option<Record>> {
    newest_of(cluster, |kind| kind != BackupKind::Logical)
}

/// The logical backup of which the same is true.
///
/// # Errors
/// As [`newest_system`]; what the store said.
pub fn newest_logical(cluster: &Cluster) -> Result<Option<Record>> {
    newest_of(cluster, |kind| kind == BackupKind::Logical)
}

fn newest_of(cluster: &Cluster, counts: impl Fn(BackupKind) -> bool) -> Result<Option<Record>> {
    let mut records = newest_system(cluster)?.backups()?;
    records.retain(|record| counts(record.kind));
    by_end(&mut records);
    Ok(records.pop())
}

/// Real times decide, not names: the clock may have been set back between two backups.
pub(crate) fn by_end(records: &mut [Record]) {
    records
        .sort_by_cached_key(|record| (finished(record).or_else(|| started(record)), record.backup.clone()));
}

fn started(record: &Record) -> Option<chrono::DateTime<chrono::Utc>> {
    chrono::DateTime::parse_from_rfc3339(&record.started_at).ok().map(|time| time.to_utc())
}

fn finished(record: &Record) -> Option<chrono::DateTime<chrono::Utc>> {
    let text = record.finished_at.as_deref()?;
    chrono::DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc())
}
