//! Where each member of each archive goes. Works in the order of the archives; creates folders, leaves files to the
//! workers, and remembers links for the end.

use super::access::Access;
use super::out_file::OutFile;
use crate::postgres::control_file::CONTROL_FILE;
use crate::repository::record::ArchiveContent;
use crate::stored::expected::Expected;
use crate::stored::faults::Fault;
use crate::stored::names::{self, hostile, shown};
use crate::stored::tar_reader::{Kind, Member, Sink, TarReader};
use pg_ark_contract::{Error, ErrorKind, Result};
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Name of the control file until everything else is durable: a server does not start without the real one.
pub const CONTROL_FILE_HELD_BACK: &str = "global/pg_control.pg_ark";

/// The folders that archives are unpacked to. All exist and are empty.
#[derive(Debug, Clone)]
pub struct Roots {
    /// The data directory.
    pub data: PathBuf,
    /// Folder of the WAL, when `pg_wal` becomes a link.
    pub wal: Option<PathBuf>,
    /// Tablespaces by OID.
    pub tablespaces: BTreeMap<u32, PathBuf>,
}

/// Something to write, outside the turn.
pub struct Write {
    /// To which file.
    pub file: Arc<OutFile>,
    /// At which byte of it.
    pub offset: u64,
    /// Which of the decoded bytes.
    pub range: Range<usize>,
}

/// Reads archives and tells what to write.
pub struct Tree<'a> {
    roots: &'a Roots,
    access: &'a Access,
    expected: &'a Expected,
    seen: Vec<bool>,
    folders: HashSet<PathBuf>,
    links: BTreeMap<u32, Vec<u8>>,
    archive: Option<(ArchiveContent, u64)>,
    reader: TarReader,
    current: Option<Arc<OutFile>>,
    writes: Vec<Write>,
}

impl<'a> Tree<'a> {
    /// Nothing unpacked yet.
    pub fn new(roots: &'a Roots, access: &'a Access, expected: &'a Expected) -> Self {
        let mut folders = HashSet::from([roots.data.clone()]);
        folders.extend(roots.wal.clone());
        folders.extend(roots.tablespaces.values().cloned());
        Tree {
            roots,
            access,
            expected,
            seen: vec![false; expected.len()],
            folders,
            links: BTreeMap::new(),
            archive: None,
            reader: TarReader::new(),
            current: None,
            writes: Vec::new(),
        }
    }

    /// The next archive begins; its tar has `tar_bytes`, more are refused.
    ///
    /// # Errors
    /// `Corrupt` when the one before is cut off.
    pub fn begin(&mut self, content: ArchiveContent, tar_bytes: u64) -> Result<()> {
        self.end()?;
        self.archive = Some((content, tar_bytes));
        Ok(())
    }

    /// The next bytes of the archive; returns what to write.
    ///
    /// # Errors
    /// `Corrupt` for hostile or damaged content; what the system said when a folder cannot be created.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Write>> {
        let left = self.archive.as_mut().map(|(_, left)| left);
        match left.and_then(|left| left.checked_sub(bytes.len() as u64).map(|now| *left = now)) {
            Some(()) => {}
            None => return Err(Error::new(ErrorKind::Corrupt, "an archive is larger than its record says")),
        }
        // The reader is taken out while it calls back into the rest.
        let mut reader = std::mem::take(&mut self.reader);
        let fed = reader.feed(bytes, self);
        self.reader = reader;
        fed.map(|()| std::mem::take(&mut self.writes))
    }

    fn end(&mut self) -> Result<()> {
        self.current = None;
        match self.archive.take() {
            Some(_) => std::mem::take(&mut self.reader).finish(),
            None => Ok(()),
        }
    }

    /// Proves that all that was promised came; returns the targets of tablespace links by OID.
    ///
    /// # Errors
    /// `Corrupt`, naming the first file that is missing.
    pub fn finish(mut self) -> Result<BTreeMap<u32, Vec<u8>>> {
        self.end()?;
        if let Some(number) = self.seen.iter().position(|seen| !seen) {
            return Err(Fault::file_missing().error(&shown(self.expected.path(number))));
        }
        Ok(self.links)
    }

    /// Where a member of the current archive goes, and its path in the manifest if that lists it.
    fn place(&self, path: &Path, member: &Member) -> Result<(PathBuf, Option<Vec<u8>>)> {
        match self.archive {
            Some((ArchiveContent::Base, _)) => {
                if let Ok(below) = path.strip_prefix("pg_wal") {
                    let wal = self.wal();
                    return Ok((if below.as_os_str().is_empty() { wal } else { wal.join(below) }, None));
                }
                let listed = Some(member.path.clone());
                if path == Path::new(CONTROL_FILE) {
                    return Ok((self.roots.data.join(CONTROL_FILE_HELD_BACK), listed));
                }
                let inside =
                    names::tablespace_of(path).is_some_and(|oid| self.roots.tablespaces.contains_key(&oid));
                if inside && !matches!(member.kind, Kind::Link(_)) {
                    return Err(hostile(&member.path, "it is in a tablespace that has its own archive"));
                }
                Ok((self.roots.data.join(path), listed))
            }
            Some((ArchiveContent::Tablespace(oid), _)) => {
                let root = self.roots.tablespaces.get(&oid);
                let root =
                    root.ok_or_else(|| hostile(&member.path, "its tablespace is not in the record"))?;
                // Where a tablespace goes is the record's word, so nothing that others look at may lie there.
                if !names::in_version_folder(path) {
                    return Err(hostile(&member.path, "it is not in the version folder of a tablespace"));
                }
                let listed = [format!("pg_tblspc/{oid}/").as_bytes(), &member.path].concat();
                Ok((root.join(path), Some(listed)))
            }
            Some((ArchiveContent::Wal, _)) => Ok((self.wal().join(path), None)),
            Some((ArchiveContent::Config, _)) | None => Err(hostile(&member.path, "it is out of place")),
        }
    }

    fn wal(&self) -> PathBuf {
        self.roots.wal.clone().unwrap_or_else(|| self.roots.data.join("pg_wal"))
    }

    /// Creates a folder and those above it where that has not happened yet.
    fn folder(&mut self, path: &Path) -> Result<()> {
        if self.folders.contains(path) {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.folder(parent)?;
        }
        self.access
            .create_folder(path)
            .map_err(|e| Error::io(format!("could not create folder \"{}\"", path.display()), &e))?;
        self.folders.insert(path.to_path_buf());
        Ok(())
    }

    fn link(&mut self, oid: u32, target: Vec<u8>, member: &[u8]) -> Result<()> {
        if !self.roots.tablespaces.contains_key(&oid) {
            return Err(hostile(member, "its tablespace is not in the record"));
        }
        match self.links.insert(oid, target) {
            None => Ok(()),
            Some(_) => Err(hostile(member, "it is there twice")),
        }
    }

    /// Number of a file in the manifest, proved by its size and by having been missing so far.
    fn expect(&mut self, listed: Option<Vec<u8>>, member: &Member) -> Result<Option<usize>> {
        let Some(listed) = listed else { return Ok(None) };
        let number = self.expected.find(&listed);
        let number = number.ok_or_else(|| Fault::file_extra().error(&shown(&listed)))?;
        let stated = self.expected.file(number).size;
        if stated != member.size {
            return Err(Fault::file_size(member.size, stated).error(&shown(&listed)));
        }
        if std::mem::replace(&mut self.seen[number], true) {
            return Err(Fault::file_twice().error(&shown(&listed)));
        }
        Ok(Some(number))
    }
}

impl Sink for Tree<'_> {
    fn member(&mut self, member: Member) -> Result<()> {
        let path = names::safe_path(&member.path)?;
        let link = names::check_link(&member, &path)?;
        let (place, listed) = self.place(&path, &member)?;
        match &member.kind {
            Kind::Directory => self.folder(&place),
            Kind::Link(target) => match (link, self.archive) {
                (Some(oid), Some((ArchiveContent::Base, _))) => self.link(oid, target.clone(), &member.path),
                _ => Err(hostile(&member.path, "it is a link where none belongs")),
            },
            Kind::File => {
                let expected = self.expect(listed, &member)?;
                if let Some(parent) = place.parent() {
                    self.folder(parent)?;
                }
                let empty = member.size == 0;
                let file = Arc::new(OutFile::new(place, member.path, member.mode, member.size, expected));
                if empty {
                    self.writes.push(Write { file, offset: 0, range: 0..0 });
                } else {
                    self.current = Some(file);
                }
                Ok(())
            }
        }
    }

    fn content(&mut self, offset: u64, range: Range<usize>) -> Result<()> {
        if let Some(file) = &self.current {
            self.writes.push(Write { file: Arc::clone(file), offset, range });
        }
        Ok(())
    }
}
