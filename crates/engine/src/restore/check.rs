//! What is refused before anything is touched. Pure: facts in, a refusal or nothing out.

use super::facts::{Facts, Folder, State};
use super::hold;
use super::marker::MARKER;
use super::request::Request;
use crate::repository::Record;
use crate::repository::record::TablespaceRecord;
use pg_ark_contract::units::human_bytes;
use pg_ark_contract::{Error, ErrorKind, Result};
use serde::Serialize;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Part of the space needed that must be free beyond it, in percent: directories, rounding to blocks.
const MARGIN_PERCENT: u64 = 5;

/// A tablespace and where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mapped {
    /// OID.
    pub oid: u32,
    /// Where it was.
    pub from: String,
    /// Where it goes.
    pub to: PathBuf,
}

/// Applies `--tablespace OLD=NEW`.
///
/// # Errors
/// `InvalidArgument` for an OLD that the backup does not have, one named twice, or a path that is not absolute.
pub fn map_tablespaces(record: &Record, request: &Request) -> Result<Vec<Mapped>> {
    let trim = |path: &str| path.trim_end_matches('/').to_string();
    let invalid = |message: String| Error::new(ErrorKind::InvalidArgument, message);
    for (number, (old, new)) in request.tablespaces.iter().enumerate() {
        if !record.tablespaces.iter().any(|t| trim(&t.path) == trim(old)) {
            return Err(invalid(format!("backup \"{}\" has no tablespace at \"{old}\"", record.backup))
                .hint(known(&record.tablespaces)));
        }
        if request.tablespaces[..number].iter().any(|(other, _)| trim(other) == trim(old)) {
            return Err(invalid(format!("tablespace \"{old}\" is mapped twice"))
                .hint("Give --tablespace once for each OLD."));
        }
        text("the tablespace target", new)?;
        if !new.is_absolute() {
            return Err(invalid(format!("tablespace target \"{}\" is not an absolute path", new.display()))
                .hint("PostgreSQL needs absolute paths for tablespaces."));
        }
    }
    let target = |tablespace: &TablespaceRecord| {
        let mapped = request.tablespaces.iter().find(|(old, _)| trim(old) == trim(&tablespace.path));
        let to = mapped.map_or_else(|| PathBuf::from(&tablespace.path), |(_, new)| new.clone());
        if !to.is_absolute() {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("the record's tablespace {} has no absolute path", tablespace.oid),
            ));
        }
        Ok(Mapped { oid: tablespace.oid, from: tablespace.path.clone(), to })
    };
    record.tablespaces.iter().map(target).collect()
}

fn known(tablespaces: &[TablespaceRecord]) -> String {
    if tablespaces.is_empty() {
        return "It has no tablespaces outside the data directory.".to_string();
    }
    let paths: Vec<String> = tablespaces.iter().map(|t| format!("\"{}\"", t.path)).collect();
    format!("It has {}.", paths.join(", "))
}

/// Refuses targets that are in use, not empty, overlapping, not writable, or of a name that no server works with.
///
/// # Errors
/// `ServerRunning`, `Busy`, `InvalidArgument`, `TargetNotEmpty`, `PermissionDenied`.
pub fn targets(request: &Request, facts: &Facts) -> Result<()> {
    paths(facts)?;
    hold::free(&facts.data)?;
    if let Some(pid) = facts.server {
        return Err(Error::new(
            ErrorKind::ServerRunning,
            format!("a server is running in \"{}\" (process {pid})", facts.data.path.display()),
        )
        .hint("Stop it and move its data directory away, or restore to another folder."));
    }
    if let Some(relative) = request.waldir.as_deref().filter(|path| !path.is_absolute()) {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("--waldir \"{}\" is not an absolute path", relative.display()),
        )
        .hint("The data directory's pg_wal will be a link to it, so write it from the root."));
    }
    overlaps(facts)?;
    for (what, folder) in named(facts) {
        usable(what, folder)
            .map_err(|e| if what == NEW_TABLESPACE { e.hint(NEW_TABLESPACE_HINT) } else { e })?;
    }
    Ok(())
}

const NEW_TABLESPACE: &str = "the place where recovery will create a tablespace,";
const NEW_TABLESPACE_HINT: &str = "The tablespace was created while this backup was taken, and WAL names its place. \
    Restore where an empty folder can be there (move away what is there now), or restore a later backup.";

/// Every target with the words to name it by.
fn named(facts: &Facts) -> Vec<(&'static str, &Folder)> {
    let mut all = vec![("the data directory", &facts.data)];
    all.extend(facts.wal.iter().map(|folder| ("the WAL folder", folder)));
    all.extend(facts.tablespaces.iter().map(|folder| ("the tablespace target", folder)));
    all.extend(facts.new_tablespaces.iter().map(|folder| (NEW_TABLESPACE, folder)));
    all
}

/// Refuses names that are not text, which plan and marker show as such, and a data directory with a line feed: its lock file
/// has the path in one of its lines (utils/pidfile.h), and who reads it would take a part of the path for the port.
fn paths(facts: &Facts) -> Result<()> {
    for (what, folder) in named(facts) {
        text(what, &folder.path)?;
    }
    one_line("the data directory", &facts.data.path)
}

/// Refuses a path that is not UTF-8.
///
/// # Errors
/// `InvalidArgument`.
fn text(what: &str, path: &Path) -> Result<()> {
    match path.to_str() {
        Some(_) => Ok(()),
        None => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("{what} \"{}\" has a name that is not UTF-8", path.as_os_str().as_bytes().escape_ascii()),
        )
        .hint("Name another folder. Links are followed: look at every folder above it, too.")),
    }
}

/// Refuses a path with a line feed.
///
/// # Errors
/// `InvalidArgument`.
pub fn one_line(what: &str, path: &Path) -> Result<()> {
    let shown = path.to_string_lossy();
    match shown.contains('\n') {
        false => Ok(()),
        true => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("{what} \"{}\" has a line feed in its name", shown.escape_debug()),
        )
        .hint("Name another folder. Links are followed: look at every folder above it, too.")),
    }
}

fn overlaps(facts: &Facts) -> Result<()> {
    let within = |a: &Path, b: &Path| a.starts_with(b) || b.starts_with(a);
    let all = named(facts);
    for (number, (what, folder)) in all.iter().enumerate() {
        if within(&folder.path, &facts.repository) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "{what} \"{}\" and the repository \"{}\" are one inside the other",
                    folder.path.display(),
                    facts.repository.display()
                ),
            )
            .hint("Restore to a folder outside the repository."));
        }
        if let Some((other, twin)) = all[..number].iter().find(|(_, other)| within(&other.path, &folder.path))
        {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "{what} \"{}\" and {other} \"{}\" are the same or one inside the other",
                    folder.path.display(),
                    twin.path.display()
                ),
            )
            .hint("Choose separate folders: --pgdata, --waldir, --tablespace OLD=NEW."));
        }
    }
    Ok(())
}

fn usable(what: &str, folder: &Folder) -> Result<()> {
    let path = folder.path.display();
    let refuse = |kind, message: String| Err(Error::new(kind, message));
    match &folder.state {
        State::Absent | State::Empty => {}
        State::NotEmpty(_) if folder.replaced => {}
        State::NotEmpty(example) => return Err(not_empty(what, folder, example)),
        State::NotAFolder => {
            return refuse(ErrorKind::TargetNotEmpty, format!("{what} \"{path}\" is not a folder"))
                .map_err(|e| e.hint("Name an empty folder, or one that does not exist yet."));
        }
        State::DanglingLink => {
            return refuse(
                ErrorKind::InvalidArgument,
                format!("{what} \"{path}\" is a link that leads nowhere"),
            )
            .map_err(|e| e.hint("Remove the link or create the folder it should lead to."));
        }
    }
    if folder.writable {
        return Ok(());
    }
    let message = match folder.state {
        State::Absent => {
            format!("{what} \"{path}\" cannot be created: \"{}\" is not writable", folder.existing.display())
        }
        _ => format!("{what} \"{path}\" is not writable"),
    };
    refuse(ErrorKind::PermissionDenied, message)
        .map_err(|e| e.hint("Run pgark as the user who shall own the server (usually postgres) or as root."))
}

fn not_empty(what: &str, folder: &Folder, example: &str) -> Error {
    let path = folder.path.display();
    let error = Error::new(ErrorKind::TargetNotEmpty, format!("{what} \"{path}\" is not empty"))
        .detail(format!("It holds \"{example}\"."));
    match &folder.unfinished {
        Some(marker) => {
            error.hint(format!(
                "A restore of backup \"{}\" did not finish there ({MARKER}). What it left can be removed, by --replace \
                 too: {}.",
                marker.backup.escape_debug(),
                marker.shown()
            ))
        }
        None => error.hint(
            "Move it away or name another folder. --replace takes the place of the backup's own cluster, and saves its WAL \
             first.",
        ),
    }
}

/// A file system that the restore writes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Filesystem {
    /// Targets on it.
    pub folders: Vec<PathBuf>,
    /// Bytes that the restore needs there, margin included.
    pub needed_bytes: u64,
    /// Bytes free for this user.
    pub free_bytes: u64,
}

/// Sums what each file system must take. `sizes` are bytes for each folder.
pub fn filesystems(sizes: &[(&Folder, u64)]) -> Vec<Filesystem> {
    let mut devices: Vec<(u64, Filesystem)> = Vec::new();
    for (folder, bytes) in sizes {
        let needed = bytes.saturating_add(bytes.saturating_mul(MARGIN_PERCENT) / 100);
        match devices.iter_mut().find(|(device, _)| *device == folder.device) {
            Some((_, filesystem)) => {
                filesystem.folders.push(folder.path.clone());
                filesystem.needed_bytes = filesystem.needed_bytes.saturating_add(needed);
            }
            None => devices.push((
                folder.device,
                Filesystem {
                    folders: vec![folder.path.clone()],
                    needed_bytes: needed,
                    free_bytes: folder.free,
                },
            )),
        }
    }
    devices.into_iter().map(|(_, filesystem)| filesystem).collect()
}

/// Refuses to begin what cannot fit.
///
/// # Errors
/// `NotEnoughSpace` with both numbers.
pub fn space(filesystems: &[Filesystem]) -> Result<()> {
    for filesystem in filesystems {
        if filesystem.needed_bytes > filesystem.free_bytes {
            let folders: Vec<String> =
                filesystem.folders.iter().map(|f| format!("\"{}\"", f.display())).collect();
            return Err(Error::new(
                ErrorKind::NotEnoughSpace,
                format!(
                    "the restore needs {} at {}, and {} are free",
                    human_bytes(filesystem.needed_bytes),
                    folders.join(", "),
                    human_bytes(filesystem.free_bytes)
                ),
            )
            .detail(format!(
                "{} bytes needed, {} bytes free.",
                filesystem.needed_bytes, filesystem.free_bytes
            ))
            .hint("Free some space there, or use another place: --pgdata, --tablespace OLD=NEW, --waldir."));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
