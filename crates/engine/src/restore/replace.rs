//! `--replace`: what stands at the old place, whether it is the backup's own cluster, and its removal.
//!
//! Only what is proved to belong to the cluster goes ([`super::proof`]): the data directory, a WAL folder, and a
//! tablespace by the link to it. In a copy of a data directory, however, the links still lead to the tablespaces of the
//! original: anywhere but at the recorded place the user has to name what is cleared. Of a tablespace only the
//! server's own version folder goes; other file systems are never entered; `lost+found` stays.
//! A marker says what is going on before the first file goes, so that the same command works again after it was killed.

use super::check::Mapped;
use super::facts::{Facts, Folder, State};
use super::in_use;
use super::marker::Marker;
use super::proof;
use super::removal::{Removal, What, measure};
use super::request::Request;
use crate::repository::Record;
use pg_ark_contract::{Error, ErrorKind, Result};
use serde::Serialize;
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
    /// The recorded data directory, links resolved.
    #[serde(skip)]
    original: PathBuf,
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
        let outside: Vec<PathBuf> = folders.iter().filter(|folder| *folder != data).cloned().collect();
        let used = in_use::by(data, &folders)
            .or_else(|| in_use::linked_to(&outside))
            .or_else(|| in_use::links_of(&self.original, &outside));
        match used {
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
    let own_place = data == facts.old_data;
    let links = tablespace_links(&data);
    let wal = data.join("pg_wal").canonicalize().ok().filter(|path| path.is_dir());
    if matches!(facts.data.state, State::NotEmpty(_)) {
        replaced.server_state = proof::data(&data, marker.is_some(), own_place, record)?;
        replaced.add(&mut facts.data, What::DataDirectory)?;
    }
    // A marker in a copy of the folder that it was written for proves nothing about other folders.
    let marker = marker.filter(|marker| marker.folders.first() == Some(&data));
    let named = |path: &Path| marker.as_ref().is_some_and(|marker| marker.folders.iter().any(|f| f == path));
    if let Some(folder) = facts.wal.as_mut().filter(|folder| matches!(folder.state, State::NotEmpty(_))) {
        let ours = wal.as_ref() == Some(&folder.path) || named(&folder.path);
        proof::wal(&folder.path, ours, record)?;
        replaced.add(folder, What::Wal)?;
    }
    let linked = |path: &Path| links.iter().any(|(_, target)| target == path);
    for (tablespace, folder) in mapped.iter().zip(&mut facts.tablespaces) {
        if !matches!(folder.state, State::NotEmpty(_)) || !linked(&folder.path) && !named(&folder.path) {
            continue;
        }
        if !own_place && !named(&folder.path) && !is_mapped(request, &tablespace.from) {
            return Err(originals(&folder.path, &data, facts.old_data.as_path(), Some(&tablespace.from)));
        }
        replaced.add(folder, What::Tablespace)?;
    }
    for folder in &mut facts.new_tablespaces {
        let ours = named(&folder.path) || own_place && linked(&folder.path);
        if matches!(folder.state, State::NotEmpty(_)) && ours {
            replaced.add(folder, What::Tablespace)?;
        }
    }
    // Recovery makes tablespaces again that are younger than the backup, where they are.
    let younger =
        links.iter().filter(|(oid, _)| !mapped.iter().any(|m| m.oid == *oid)).map(|(_, path)| path.clone());
    let left: Vec<PathBuf> = marker.iter().flat_map(|marker| marker.younger.iter().cloned()).collect();
    for path in younger.chain(left.iter().cloned()) {
        if replaced.covers(&path) || !path.is_dir() {
            continue;
        }
        if !own_place && !left.contains(&path) {
            return Err(originals(&path, &data, facts.old_data.as_path(), None));
        }
        replaced.add(&mut Folder::look(&path)?, What::Tablespace)?;
    }
    replaced.wal = wal;
    replaced.original.clone_from(&facts.old_data);
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

/// Whether the user named a place for a tablespace.
fn is_mapped(request: &Request, from: &str) -> bool {
    request.tablespaces.iter().any(|(old, _)| old.trim_end_matches('/') == from.trim_end_matches('/'))
}

/// Refuses to clear what a link in a copy leads to. `from`: its place in the record, when the backup has it.
fn originals(folder: &Path, data: &Path, original: &Path, from: Option<&str>) -> Error {
    let hint = match from {
        Some(from) => format!(
            "Give the copy a place of its own: --tablespace {from}=NEW, or restore to \"{}\". If \"{}\" is the copy's own, \
             say so: --tablespace {from}={1}",
            original.display(),
            folder.display()
        ),
        None => format!(
            "The backup is older than this tablespace, and recovery would make it again at that place. Restore a backup \
             that has it, with --tablespace {}=NEW, or restore to \"{}\".",
            folder.display(),
            original.display()
        ),
    };
    Error::new(
        ErrorKind::TargetNotEmpty,
        format!(
            "the tablespace \"{}\" is not known to be that of \"{}\" alone",
            folder.display(),
            data.display()
        ),
    )
    .detail(format!(
        "A link in pg_tblspc leads there. The backup is of \"{}\", and a copy of it has the same links.",
        original.display()
    ))
    .hint(hint)
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
