//! Removal of what a restore replaces: counted first, other file systems never entered, the control file first of all.

use super::access::sync_folder;
use super::marker::MARKER;
use super::watch::{self, Watch};
use crate::postgres::control_file::CONTROL_FILE;
use crate::postgres::relation_file::is_version_directory;
use pg_ark_contract::{Error, ErrorKind, Result};
use serde::Serialize;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What file systems keep at their root.
pub const LOST_AND_FOUND: &str = "lost+found";

/// What a removal removes of its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Everything.
    DataDirectory,
    /// WAL and what belongs to it.
    Wal,
    /// The folders of this major version.
    Tablespace,
}

/// A folder whose content is removed. The folder itself stays: it may be where a file system is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Removal {
    /// Links resolved.
    pub folder: PathBuf,
    /// What of it.
    pub what: What,
    /// Files in it.
    pub files: u64,
    /// Bytes that its removal frees.
    pub bytes: u64,
    /// Their file system.
    #[serde(skip)]
    pub device: u64,
    /// Major version of the server.
    #[serde(skip)]
    pub major: u32,
}

/// Whether an entry of the folder goes.
fn goes(what: What, name: &OsStr, major: u32) -> bool {
    match what {
        What::DataDirectory => name != MARKER && name != LOST_AND_FOUND,
        What::Wal => name != LOST_AND_FOUND,
        What::Tablespace => name
            .to_str()
            .is_some_and(|name| is_version_directory(name) && name.starts_with(&format!("PG_{major}_"))),
    }
}

/// Counts what will be removed.
///
/// # Errors
/// `InvalidArgument` when another file system is mounted inside; what the system said.
pub fn measure(folder: &Path, what: What, major: u32, device: u64) -> Result<Removal> {
    let failed =
        |path: &Path, e: std::io::Error| Error::io(format!("could not look at \"{}\"", path.display()), &e);
    let mut removal = Removal { folder: folder.to_path_buf(), what, files: 0, bytes: 0, device, major };
    let mut todo = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| failed(folder, e))? {
        let entry = entry.map_err(|e| failed(folder, e))?;
        if goes(what, &entry.file_name(), major) {
            todo.push(entry.path());
        }
    }
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).map_err(|e| failed(&path, e))?;
        if meta.dev() != device {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "another file system is mounted at \"{}\", inside what is to be replaced",
                    path.display()
                ),
            )
            .hint(
                "Unmount it there first. For WAL on a file system of its own, --waldir makes pg_wal a link.",
            ));
        }
        if meta.is_dir() {
            for entry in fs::read_dir(&path).map_err(|e| failed(&path, e))? {
                todo.push(entry.map_err(|e| failed(&path, e))?.path());
            }
        } else {
            removal.files += 1;
        }
        // What has a second name, in a folder of saved WAL, is not freed.
        if meta.is_dir() || meta.nlink() == 1 {
            removal.bytes = removal.bytes.saturating_add(meta.blocks().saturating_mul(512));
        }
    }
    Ok(removal)
}

/// Removes what a plan says. The control file goes first: no server starts from what is left.
///
/// # Errors
/// `Cancelled`, what the system said. What is left is marked as unfinished.
pub fn clear(folders: &[Removal], data: &Path, watch: &dyn Watch) -> Result<()> {
    if folders.is_empty() {
        return Ok(());
    }
    one(&data.join(CONTROL_FILE))?;
    // The data directory last: its links say what the other folders are.
    let (data_first, rest): (Vec<&Removal>, Vec<&Removal>) =
        folders.iter().partition(|removal| removal.what == What::DataDirectory);
    for removal in rest.into_iter().chain(data_first) {
        let failed =
            |e: std::io::Error| Error::io(format!("could not look at \"{}\"", removal.folder.display()), &e);
        for entry in fs::read_dir(&removal.folder).map_err(failed)? {
            watch::check(watch)?;
            let entry = entry.map_err(failed)?;
            if !goes(removal.what, &entry.file_name(), removal.major) {
                continue;
            }
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a file or folder durably; one that is not there is none the worse.
///
/// # Errors
/// What the system said.
pub fn one(path: &Path) -> Result<()> {
    remove(path)?;
    match path.parent().filter(|folder| folder.is_dir()) {
        Some(folder) => {
            sync_folder(folder).map_err(|e| Error::io(format!("could not sync \"{}\"", folder.display()), &e))
        }
        None => Ok(()),
    }
}

fn remove(path: &Path) -> Result<()> {
    let removed = fs::symlink_metadata(path).and_then(|meta| match meta.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    });
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("could not remove \"{}\"", path.display()), &e))
        }
        _ => Ok(()),
    }
}
