//! Finds what belongs to a backup, folder by folder, as basebackup.c's sendDir would.
//!
//! Memory is bounded by the names in the folders on the path from the root to where it is.

use super::member::Attributes;
use crate::postgres::data_directory::{self, Entry};
use crate::postgres::relation_file::RelationFile;
use crate::session::Session;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind as Io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A file to back up.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Where it is.
    pub disk: PathBuf,
    /// Path in the tar.
    pub member: Vec<u8>,
    /// Path in the manifest.
    pub manifest: Vec<u8>,
    /// Bytes, when it was found.
    pub size: u64,
    /// The relation that it belongs to.
    pub relation: Option<RelationFile>,
}

/// Something to back up.
#[derive(Debug)]
pub enum Found {
    /// A folder.
    Directory {
        /// Path in the tar.
        member: Vec<u8>,
        /// Attributes.
        attributes: Attributes,
    },
    /// A link: a tablespace.
    Link {
        /// Path in the tar.
        member: Vec<u8>,
        /// Where it points.
        target: Vec<u8>,
        /// Attributes.
        attributes: Attributes,
    },
    /// A file.
    File(SourceFile),
}

/// Where a walk begins.
#[derive(Debug, Clone)]
pub struct Root {
    /// The folder.
    pub disk: PathBuf,
    /// Its path below the data directory: empty, or `pg_tblspc/<oid>`.
    pub logical: String,
    /// Only this entry of the folder counts: a tablespace's version directory.
    pub only: Option<String>,
    /// OIDs of the tablespaces whose links belong to the backup. A link that came later is not one of them: WAL
    /// makes it again.
    pub links: Vec<u32>,
    /// Major version of the server.
    pub server_major: u32,
}

/// An iterator over what is found.
pub struct Walk<'a> {
    root: Root,
    stack: Vec<Folder>,
    ready: Vec<Found>,
    session: Option<&'a Session>,
}

struct Folder {
    disk: PathBuf,
    logical: PathBuf,
    names: std::vec::IntoIter<OsString>,
    init_forks: HashSet<String>,
}

impl<'a> Walk<'a> {
    /// Begins at `root`. Warnings go to `session`, if any.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn new(root: Root, session: Option<&'a Session>) -> Result<Self> {
        let mut walk = Walk { stack: Vec::new(), ready: Vec::new(), session, root };
        let mut top = list(walk.root.disk.clone(), PathBuf::from(&walk.root.logical))?;
        if let (Some(only), Some(folder)) = (&walk.root.only, &mut top) {
            let wanted: Vec<OsString> = folder.names.by_ref().filter(|n| n == OsStr::new(only)).collect();
            folder.names = wanted.into_iter();
        }
        walk.stack.extend(top);
        Ok(walk)
    }

    fn step(&mut self) -> Result<Option<Found>> {
        loop {
            if let Some(found) = self.ready.pop() {
                return Ok(Some(found));
            }
            let Some(folder) = self.stack.last_mut() else { return Ok(None) };
            let Some(name) = folder.names.next() else {
                self.stack.pop();
                continue;
            };
            let disk = folder.disk.join(&name);
            let logical = folder.logical.join(&name);
            let text = logical.to_string_lossy();
            let verdict = data_directory::judge(&text, |sibling| folder.init_forks.contains(sibling));
            let found = match verdict {
                Entry::Skip => None,
                Entry::EmptyDirectory => self.empty_directory(&disk, &logical)?,
                Entry::Keep => self.keep(disk, &logical)?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
    }

    /// A folder, or a link to one, whose content is left out.
    fn empty_directory(&mut self, disk: &Path, logical: &Path) -> Result<Option<Found>> {
        let meta = match std::fs::metadata(disk) {
            Ok(meta) if meta.is_dir() => meta,
            Ok(_) => return Ok(None),
            Err(e) if e.kind() == Io::NotFound => return Ok(None),
            Err(e) => return Err(look_at(disk, &e)),
        };
        let attributes = Attributes::of(&meta);
        if logical == Path::new("pg_wal") {
            for below in data_directory::wal_subdirectories(self.root.server_major).iter().rev() {
                self.ready.push(Found::Directory { member: below.as_bytes().to_vec(), attributes });
            }
        }
        Ok(Some(Found::Directory { member: self.member(logical), attributes }))
    }

    fn keep(&mut self, disk: PathBuf, logical: &Path) -> Result<Option<Found>> {
        let meta = match std::fs::symlink_metadata(&disk) {
            Ok(meta) => meta,
            Err(e) if e.kind() == Io::NotFound => return Ok(None),
            Err(e) => return Err(look_at(&disk, &e)),
        };
        let attributes = Attributes::of(&meta);
        let member = self.member(logical);
        if meta.is_dir() {
            let Some(folder) = list(disk, logical.to_path_buf())? else { return Ok(None) };
            self.stack.push(folder);
            return Ok(Some(Found::Directory { member, attributes }));
        }
        if meta.is_file() {
            if logical == Path::new(crate::postgres::control_file::CONTROL_FILE) {
                return Ok(None);
            }
            return Ok(Some(Found::File(SourceFile {
                disk,
                member,
                manifest: logical.as_os_str().as_bytes().to_vec(),
                size: meta.len(),
                relation: logical.to_str().and_then(RelationFile::parse),
            })));
        }
        if meta.is_symlink() && logical.parent() == Some(Path::new("pg_tblspc")) {
            let oid = logical.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse::<u32>().ok());
            if !oid.is_some_and(|oid| self.root.links.contains(&oid)) {
                return Ok(None);
            }
            let target = match std::fs::read_link(&disk) {
                Ok(target) => target,
                Err(e) if e.kind() == Io::NotFound => return Ok(None),
                Err(e) => return Err(look_at(&disk, &e)),
            };
            return Ok(Some(Found::Link {
                member,
                target: target.as_os_str().as_bytes().to_vec(),
                attributes,
            }));
        }
        if data_directory::is_needed(&logical.to_string_lossy()) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("\"{}\" is neither a file nor a folder, and no server works without it", disk.display()),
            )
            .hint("Put what a link points to in its place: PostgreSQL allows links as pg_wal and tablespaces only."));
        }
        if let Some(session) = self.session {
            session.warn(
                format!("\"{}\" is neither a file nor a folder and was left out", disk.display()),
                Some("PostgreSQL's own backups leave it out too. If a link points to a file that the server needs, back that file up yourself.".into()),
            );
        }
        Ok(None)
    }

    /// Path in the tar: relative to the root.
    fn member(&self, logical: &Path) -> Vec<u8> {
        let below = logical.strip_prefix(&self.root.logical).unwrap_or(logical);
        below.as_os_str().as_bytes().to_vec()
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Found>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

/// Lists a folder; `None` when it vanished, which is what dropped databases do.
fn list(disk: PathBuf, logical: PathBuf) -> Result<Option<Folder>> {
    let entries = match std::fs::read_dir(&disk) {
        Ok(entries) => entries,
        Err(e) if e.kind() == Io::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(format!("could not read folder \"{}\"", disk.display()), &e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry =
            entry.map_err(|e| Error::io(format!("could not read folder \"{}\"", disk.display()), &e))?;
        names.push(entry.file_name());
    }
    names.sort();
    let init_forks = names
        .iter()
        .filter_map(|n| n.to_str())
        .filter(|n| n.ends_with("_init"))
        .map(str::to_string)
        .collect();
    Ok(Some(Folder { disk, logical, names: names.into_iter(), init_forks }))
}

fn look_at(path: &Path, e: &std::io::Error) -> Error {
    Error::io(format!("could not look at \"{}\"", path.display()), e)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_link_in_place_of_what_a_server_needs_ends_the_backup() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root {
            disk: dir.path().to_path_buf(),
            logical: String::new(),
            only: None,
            links: Vec::new(),
            server_major: 15,
        };
        symlink("/dev/null", dir.path().join("server.key")).unwrap();
        assert_eq!(Walk::new(root.clone(), None).unwrap().count(), 0, "left out");
        symlink("/tmp", dir.path().join("pg_xact")).unwrap();
        let found = Walk::new(root, None).unwrap().next().unwrap();
        assert_eq!(found.unwrap_err().kind, ErrorKind::Unsupported);
    }
}
