//! `--replace`: what stands at the old place, whether it is the backup's own cluster, and its removal.
//!
//! Only what is proved to belong to the cluster goes: the data directory by its control file or by the marker of an
//! unfinished restore, a WAL folder by the link to it or by its segments, a tablespace by the link to it. Of a
//! tablespace only the server's own version folder goes; other file systems are never entered; `lost+found` stays.
//! A marker says what is going on before the first file goes, so that the same command works again after it was killed.

use super::check::Mapped;
use super::facts::{Facts, Folder, State};
use super::in_use;
use super::marker::Marker;
use super::removal::{LOST_AND_FOUND, Removal, What, measure};
use super::request::Request;
use crate::postgres::control_file::{CONTROL_FILE, ControlFile};
use crate::repository::Record;
use crate::wal::archive::WalFile;
use pg_ark_contract::{Error, ErrorKind, Result};
use serde::Serialize;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// What a restore replaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Replaced {
    /// What is removed.
    pub folders: Vec<Removal>,
    /// What the old server was doing when it last wrote its control file.
    pub server_state: Option<String>,
    /// The old `pg_wal`, links resolved.
    pub wal: Option<PathBuf>,
    #[serde(skip)]
    major: u32,
}

impl Replaced {
    /// Whether a folder is, or lies in, one that is removed.
    pub fn covers(&self, path: &Path) -> bool {
        self.folders.iter().any(|removal| path.starts_with(&removal.folder))
    }

    /// Bytes that the removal frees on a file system.
    pub fn freed(&self, device: u64) -> u64 {
        let there = self.folders.iter().filter(|removal| removal.device == device);
        there.fold(0, |sum, removal| sum.saturating_add(removal.bytes))
    }

    /// Refuses to touch what a server uses.
    ///
    /// # Errors
    /// `ServerRunning`.
    pub fn check_unused(&self, data: &Path) -> Result<()> {
        if self.folders.is_empty() {
            return Ok(());
        }
        let mut folders: Vec<PathBuf> = self.folders.iter().map(|removal| removal.folder.clone()).collect();
        folders.extend(self.wal.clone());
        match in_use::by(data, &folders) {
            None => Ok(()),
            Some(pid) => Err(Error::new(
                ErrorKind::ServerRunning,
                format!(
                    "a server still uses what is to be replaced at \"{}\" (process {pid})",
                    data.display()
                ),
            )
            .hint("Stop it first (pg_ctl stop), or wait until its last process has ended.")),
        }
    }

    /// What to say when the old `pg_wal` was a link, and the new one will not be.
    pub fn remark(&self, data: &Path, waldir: Option<&Path>) -> Option<String> {
        let wal = self.wal.as_ref().filter(|wal| waldir.is_none() && !wal.starts_with(data))?;
        Some(format!(
            "pg_wal was a link to \"{0}\" and will be a folder of the data directory; what is in \"{0}\" stays. \
             --waldir \"{0}\" uses it again",
            wal.display()
        ))
    }

    /// Lines of a plan.
    pub fn lines(&self) -> Vec<String> {
        let shown = |removal: &Removal| {
            format!(
                "Removes:  {} of {} ({} files)",
                pg_ark_contract::units::human_bytes(removal.bytes),
                removal.folder.display(),
                removal.files
            )
        };
        self.folders.iter().map(shown).collect()
    }
}

/// Looks at what stands at the targets, and marks in `facts` what may be replaced.
///
/// # Errors
/// `ServerRunning`; `ForeignCluster`; `TargetNotEmpty` for what is not proved to be the cluster's;
/// `InvalidArgument` when another file system is mounted inside; what the system said.
pub fn judge(request: &Request, record: &Record, mapped: &[Mapped], facts: &mut Facts) -> Result<Replaced> {
    let mut replaced = Replaced { major: record.server_version_num / 10_000, ..Replaced::default() };
    if !request.replace {
        return Ok(replaced);
    }
    let data = facts.data.path.clone();
    let marker = own_marker(&facts.data, record)?;
    let links = tablespace_links(&data);
    let wal = data.join("pg_wal").canonicalize().ok().filter(|path| path.is_dir());
    if matches!(facts.data.state, State::NotEmpty(_)) {
        replaced.server_state = judge_data(&data, marker.is_some(), record)?;
        replaced.add(&mut facts.data, What::DataDirectory)?;
    }
    let named = |path: &Path| marker.as_ref().is_some_and(|marker| marker.folders.iter().any(|f| f == path));
    if let Some(folder) = facts.wal.as_mut().filter(|folder| matches!(folder.state, State::NotEmpty(_))) {
        let ours = wal.as_ref() == Some(&folder.path) || named(&folder.path);
        judge_wal(&folder.path, ours, record)?;
        replaced.add(folder, What::Wal)?;
    }
    for folder in facts.tablespaces.iter_mut().chain(&mut facts.new_tablespaces) {
        let ours = links.iter().any(|(_, target)| *target == folder.path) || named(&folder.path);
        if ours && matches!(folder.state, State::NotEmpty(_)) {
            replaced.add(folder, What::Tablespace)?;
        }
    }
    // Recovery makes tablespaces again that are younger than the backup, where they are.
    let younger =
        links.into_iter().filter(|(oid, _)| !mapped.iter().any(|m| m.oid == *oid)).map(|(_, path)| path);
    let left = marker.iter().flat_map(|marker| marker.younger.iter().cloned());
    for path in younger.chain(left) {
        if !replaced.covers(&path) && path.is_dir() {
            replaced.add(&mut Folder::look(&path)?, What::Tablespace)?;
        }
    }
    replaced.wal = wal;
    replaced.check_unused(&data)?;
    Ok(replaced)
}

impl Replaced {
    fn add(&mut self, folder: &mut Folder, what: What) -> Result<()> {
        let removal = measure(&folder.path, what, self.major, folder.device)?;
        folder.replaced = true;
        self.folders.push(removal);
        Ok(())
    }
}

/// The marker of an unfinished restore of the same cluster.
fn own_marker(data: &Folder, record: &Record) -> Result<Option<Marker>> {
    match &data.unfinished {
        Some(marker) if marker.system_identifier.as_ref() != Some(&record.system_identifier) => {
            Err(Error::new(
                ErrorKind::TargetNotEmpty,
                format!("\"{}\" holds an unfinished restore of another cluster", data.path.display()),
            )
            .detail(format!("It was of backup \"{}\".", marker.backup.escape_debug()))
            .hint("Remove it yourself or name another folder."))
        }
        marker => Ok(marker.clone()),
    }
}

/// Proves that a data directory is the cluster's; says what its server was doing.
fn judge_data(data: &Path, marked: bool, record: &Record) -> Result<Option<String>> {
    let only_lost = || -> std::io::Result<bool> {
        Ok(fs::read_dir(data)?.flatten().all(|entry| entry.file_name() == LOST_AND_FOUND))
    };
    let control = fs::read(data.join(CONTROL_FILE)).ok().and_then(|bytes| ControlFile::parse(&bytes).ok());
    if let Some(control) = control {
        return match control.system_identifier.to_string() == record.system_identifier {
            true => Ok(Some(control.state.name().to_string())),
            false => Err(foreign(data, control.system_identifier, record)),
        };
    }
    if marked || only_lost().unwrap_or(false) {
        return Ok(None);
    }
    let version = fs::read_to_string(data.join("PG_VERSION")).unwrap_or_default();
    let major = (record.server_version_num / 10_000).to_string();
    if version.trim() == major && data.join("global").is_dir() && data.join("base").is_dir() {
        return Ok(None);
    }
    Err(Error::new(
        ErrorKind::TargetNotEmpty,
        format!("what is in \"{}\" is not known to be the backup's cluster", data.display()),
    )
    .detail(format!("It has no {CONTROL_FILE} that can be read, and does not look like a data directory of PostgreSQL {major}."))
    .hint("Move it away or name another folder; --replace removes nothing but the cluster itself."))
}

fn foreign(path: &Path, found: u64, record: &Record) -> Error {
    Error::new(
        ErrorKind::ForeignCluster,
        format!(
            "\"{}\" holds the cluster with system identifier {found}, the backup is of {}",
            path.display(),
            record.system_identifier
        ),
    )
    .hint("Name the folder of the cluster that the backup is of, or an empty one.")
}

/// Proves that a folder holds the cluster's WAL and nothing else. `known`: a link or a marker leads to it.
fn judge_wal(folder: &Path, known: bool, record: &Record) -> Result<()> {
    let failed = |e: std::io::Error| Error::io(format!("could not look at \"{}\"", folder.display()), &e);
    let mut own = 0;
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if !is_wal_name(&name) {
            return Err(not_ours("the WAL folder", folder, &name));
        }
        if name.to_str().and_then(WalFile::of) == Some(WalFile::Segment) {
            own += u64::from(belongs(&entry.path(), record)?);
        }
    }
    match known || own > 0 {
        true => Ok(()),
        false => Err(not_ours("the WAL folder", folder, OsStr::new("files that tell no system identifier"))),
    }
}

/// Whether a segment tells the cluster's identifier.
fn belongs(path: &Path, record: &Record) -> Result<bool> {
    let mut first = Vec::new();
    let read = fs::File::open(path)
        .and_then(|file| std::io::Read::read_to_end(&mut std::io::Read::take(file, 64), &mut first));
    if read.is_err() {
        return Ok(false);
    }
    match crate::postgres::wal_segment::LongHeader::parse(&first) {
        Ok(header) if header.system_identifier.to_string() != record.system_identifier => {
            Err(foreign(path, header.system_identifier, record))
        }
        Ok(_) => Ok(true),
        Err(_) => Ok(false),
    }
}

fn not_ours(what: &str, folder: &Path, example: &OsStr) -> Error {
    Error::new(
        ErrorKind::TargetNotEmpty,
        format!("{what} \"{}\" is not known to be the backup's cluster's alone", folder.display()),
    )
    .detail(format!("It holds \"{}\".", example.to_string_lossy()))
    .hint("Move that away or name another folder; --replace removes nothing but the cluster itself.")
}

/// Names that a server has in `pg_wal`.
fn is_wal_name(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    WalFile::of(name).is_some()
        || [LOST_AND_FOUND, "archive_status", "summaries", "RECOVERYXLOG", "RECOVERYHISTORY"].contains(&name)
        || name.starts_with("xlogtemp.")
        || name.strip_suffix(".deleted").is_some_and(|stem| WalFile::of(stem).is_some())
}

/// OIDs of tablespaces, and where their links lead.
fn tablespace_links(data: &Path) -> Vec<(u32, PathBuf)> {
    let links = fs::read_dir(data.join("pg_tblspc")).into_iter().flatten().flatten();
    links
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()))
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse().ok()?, entry.path().canonicalize().ok()?))
        })
        .collect()
}

#[cfg(test)]
#[path = "replace_tests.rs"]
mod tests;
