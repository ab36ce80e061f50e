//! Facts about this machine that a plan needs. Looks, and changes nothing.

use super::marker::Marker;
use super::request::Request;
use crate::bounded;
use pg_ark_contract::{Error, ErrorKind, Result};
use rustix::fs::Access as Permission;
use serde::Serialize;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// What stands where a folder should go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing.
    Absent,
    /// An empty folder.
    Empty,
    /// A folder that holds this, among others.
    NotEmpty(String),
    /// Something else.
    NotAFolder,
    /// A link that leads nowhere.
    DanglingLink,
}

/// A folder to restore into.
#[derive(Debug, Clone)]
pub struct Folder {
    /// Absolute, links resolved as far as it exists.
    pub path: PathBuf,
    /// What stands there.
    pub state: State,
    /// The folder itself, or the nearest one above it that exists.
    pub existing: PathBuf,
    /// Whether this user may create entries in `existing`.
    pub writable: bool,
    /// Owner of `existing`.
    pub uid: u32,
    /// Group of `existing`.
    pub gid: u32,
    /// File system of `existing`.
    pub device: u64,
    /// Bytes free there for this user.
    pub free: u64,
    /// What an unfinished restore left there.
    pub unfinished: Option<Marker>,
    /// What stands there is the cluster's own and is removed first.
    pub replaced: bool,
}

impl Folder {
    /// Looks at `path`.
    ///
    /// # Errors
    /// `InvalidArgument` for a path with `..` behind what exists; what the system said about what exists.
    pub fn look(path: &Path) -> Result<Folder> {
        let failed =
            |at: &Path, e: std::io::Error| Error::io(format!("could not look at \"{}\"", at.display()), &e);
        let dangling = std::fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink()) && !path.exists();
        let path = resolve(path)?;
        let mut existing = path.as_path();
        let meta = loop {
            match std::fs::metadata(existing) {
                Ok(meta) => break meta,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(failed(existing, e)),
            }
            existing = existing.parent().unwrap_or(Path::new("/"));
        };
        let state = match meta.is_dir() {
            _ if dangling => State::DanglingLink,
            false => State::NotAFolder,
            true if existing != path => State::Absent,
            true => match std::fs::read_dir(&path).map_err(|e| failed(&path, e))?.next() {
                None => State::Empty,
                Some(entry) => {
                    let name = entry.map_err(|e| failed(&path, e))?.file_name();
                    State::NotEmpty(name.to_string_lossy().into_owned())
                }
            },
        };
        let permission = Permission::WRITE_OK | Permission::EXEC_OK;
        let stat = rustix::fs::statvfs(existing).map_err(|e| failed(existing, e.into()))?;
        Ok(Folder {
            state,
            writable: rustix::fs::access(existing, permission).is_ok(),
            uid: meta.uid(),
            gid: meta.gid(),
            device: meta.dev(),
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            existing: existing.to_path_buf(),
            unfinished: Marker::read(&path),
            replaced: false,
            path,
        })
    }
}

/// Facts about this machine.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The data directory to make.
    pub data: Folder,
    /// Tablespaces in the order of the mapping.
    pub tablespaces: Vec<Folder>,
    /// Where recovery will create tablespaces.
    pub new_tablespaces: Vec<Folder>,
    /// Folder for the WAL.
    pub wal: Option<Folder>,
    /// Process of a server that runs in the data directory.
    pub server: Option<u32>,
    /// Folder of the repository.
    pub repository: PathBuf,
    /// The old data directory, links resolved.
    pub old_data: PathBuf,
    /// Whether this process may give files away.
    pub is_root: bool,
}

impl Facts {
    /// Collects them. `tablespaces` are the new paths, `new_tablespaces` the record's.
    ///
    /// # Errors
    /// What the system said.
    pub fn collect(
        request: &Request,
        tablespaces: &[PathBuf],
        new_tablespaces: &[String],
        repository: &Path,
        old_data: &Path,
    ) -> Result<Facts> {
        let data = Folder::look(&request.pgdata)?;
        Ok(Facts {
            server: running_server(&data.path),
            tablespaces: tablespaces.iter().map(|path| Folder::look(path)).collect::<Result<_>>()?,
            new_tablespaces: new_tablespaces
                .iter()
                .map(|p| Folder::look(Path::new(p)))
                .collect::<Result<_>>()?,
            wal: request.waldir.as_deref().map(Folder::look).transpose()?,
            repository: resolve(repository)?,
            old_data: resolve(old_data).unwrap_or_else(|_| old_data.to_path_buf()),
            is_root: rustix::process::geteuid().is_root(),
            data,
        })
    }
}

/// The path made absolute, with links resolved as far as it exists.
///
/// # Errors
/// `InvalidArgument` for an empty path, or one with `..` behind what exists.
pub fn resolve(path: &Path) -> Result<PathBuf> {
    let invalid = |why: &str| {
        Error::new(ErrorKind::InvalidArgument, format!("invalid path \"{}\": {why}", path.display()))
            .hint("Write an absolute path without \"..\".")
    };
    let full = std::path::absolute(path).map_err(|e| invalid(&e.to_string()))?;
    let existing = full.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    let rest = full.strip_prefix(existing).unwrap_or(Path::new(""));
    if rest.components().any(|c| c == Component::ParentDir) {
        return Err(invalid("it goes up from a folder that does not exist"));
    }
    let existing = existing
        .canonicalize()
        .map_err(|e| Error::io(format!("could not look at \"{}\"", existing.display()), &e))?;
    Ok(if rest.as_os_str().is_empty() { existing } else { existing.join(rest) })
}

/// Process of the server that runs in a data directory: its lock file names a process that lives there.
pub fn running_server(data: &Path) -> Option<u32> {
    let lock = bounded::text(&data.join("postmaster.pid"), bounded::MAX_LINES).ok()?;
    let number: i32 = lock.lines().next()?.trim().parse().ok()?;
    let pid = rustix::process::Pid::from_raw(number).filter(|_| number > 0)?;
    match rustix::process::test_kill_process(pid) {
        Ok(()) | Err(rustix::io::Errno::PERM) => {}
        Err(_) => return None,
    }
    // A server's working directory is its data directory. Where that may not be seen, the number has to do.
    match std::fs::read_link(format!("/proc/{number}/cwd")) {
        Ok(cwd) if Some(&cwd) != data.canonicalize().ok().as_ref() => None,
        _ => number.try_into().ok(),
    }
}
