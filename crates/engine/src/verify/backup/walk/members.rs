//! Members of a tar, as the walk meets them: which file of the manifest each is, whether it may be there, and whether the
//! index says so too.

use super::super::files::{FileCheck, Piece};
use super::super::pages::PageRules;
use super::super::places::{FileId, Place, listed_path};
use super::Walk;
use crate::postgres::control_file::CONTROL_FILE;
use crate::repository::record::ArchiveContent;
use crate::stored::expected::Sum;
use crate::stored::faults::Fault;
use crate::stored::names;
use crate::stored::tar_reader::{Kind, Member, Sink};
use pg_ark_contract::Result;
use pg_ark_contract::conversation::Level;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Most bytes of `pg_control` that are kept (`PG_CONTROL_FILE_SIZE`, catalog/pg_control.h).
const CONTROL_SIZE: usize = 8192;
/// What a running server keeps in its data directory; no backup holds it (`excludeFiles`, backup/basebackup.c).
const LOCK_FILES: [&[u8]; 2] = [b"postmaster.pid", b"postmaster.opts"];
/// Most members of an archive that the manifest does not list, of which the names are remembered.
const MAX_NAMES: usize = 1 << 20;

impl Walk<'_> {
    /// Compares a file with what the index says.
    fn agree(&mut self, member: &Member, id: Option<usize>) {
        let Some(current) = &mut self.current else { return };
        let Some(places) = current.places.as_ref().filter(|_| !current.index_is_wrong) else { return };
        let place = places.get(current.next);
        let same_file = |place: &Place| match place.id {
            FileId::Listed(number) => id == Some(number as usize),
            FileId::Named(number) | FileId::Unknown(number) => {
                let looks_alike =
                    || places.name(number).is_some_and(|name| name == String::from_utf8_lossy(&member.path));
                // A name that is not UTF-8 may stand for several files of the manifest.
                let is_odd = || std::str::from_utf8(&member.path).is_err();
                match place.id {
                    FileId::Unknown(_) if id.is_none() => true,
                    FileId::Unknown(_) => is_odd() && looks_alike(),
                    _ => looks_alike(),
                }
            }
        };
        let is_right =
            place.is_some_and(|p| p.at == member.content_at && p.size == member.size && same_file(&p));
        current.next += 1;
        if !is_right {
            let shown = String::from_utf8_lossy(&member.path).chars().take(300).collect::<String>();
            self.index_is_wrong(format!("it does not say where \"{}\" is", shown.escape_debug()));
        }
    }

    /// The checksum of a file that the manifest lists, whose size must agree.
    pub(super) fn listed(&mut self, number: usize, path: &[u8], size: u64) -> Sum {
        let file = self.books.expected.file(number);
        match self.seen.get_mut(number) {
            Some(seen) if !*seen => *seen = true,
            _ => {
                self.tell_file(path, &Fault::file_twice());
                return Sum::None;
            }
        }
        if file.size != size {
            self.tell_file(path, &Fault::file_size(size, file.size));
            return Sum::None;
        }
        file.sum
    }

    pub(super) fn wal_begins(&mut self, content: ArchiveContent, path: &[u8], size: u64) -> usize {
        match (&mut self.wal, content) {
            (Some(wal), ArchiveContent::Wal) => match wal.begins(path, size) {
                Ok(keep) => keep,
                Err(fault) => {
                    self.tell_file(path, &fault);
                    0
                }
            },
            (_, ArchiveContent::Base) if path == CONTROL_FILE.as_bytes() => CONTROL_SIZE,
            _ => 0,
        }
    }

    /// A file's content follows; `at` is where in the bytes at hand, for an empty one.
    pub(super) fn open(&mut self, path: Vec<u8>, size: u64, sum: Sum, keep: usize, at: usize) {
        let Some(current) = &self.current else { return };
        let is_listed = listed_path(current.content, b"").is_some();
        let pages = (is_listed && self.subject.level == Level::Pages)
            .then(|| PageRules::of(self.subject.record, &self.books.expected, &path))
            .flatten();
        let file = Arc::new(FileCheck::new(current.number, path, size, sum, pages).keeping(keep));
        self.number_of_piece = 0;
        if size == 0 {
            self.pieces.push(Piece { file, offset: 0, number: 0, range: at..at });
        } else {
            self.file = Some(file);
        }
    }

    /// Judges a member; returns the path of a file whose content is to be looked at, and its number in the manifest.
    fn judge(&mut self, member: &Member, content: ArchiveContent) -> Result<(Vec<u8>, Option<usize>)> {
        let path = names::safe_path(&member.path)?;
        let link = names::check_link(member, &path)?;
        let record = self.subject.record;
        let is_known = |oid: u32| record.tablespaces.iter().any(|tablespace| tablespace.oid == oid);
        let out_of_place = |why: &str| Err(names::hostile(&member.path, why));
        if member.kind != Kind::File && !matches!(content, ArchiveContent::Base) && link.is_some() {
            return out_of_place("it is a link where none belongs");
        }
        match content {
            ArchiveContent::Base if LOCK_FILES.contains(&&member.path[..]) => {
                return out_of_place("it belongs to a running server");
            }
            ArchiveContent::Base => match (link, names::tablespace_of(&path)) {
                (Some(oid), _) if !is_known(oid) => {
                    return out_of_place("its tablespace is not in the record");
                }
                (None, Some(oid)) if is_known(oid) => {
                    return out_of_place("it is in a tablespace that has its own archive");
                }
                _ => {}
            },
            ArchiveContent::Tablespace(_) if !names::in_version_folder(&path) => {
                return out_of_place("it is not in the version folder of a tablespace");
            }
            ArchiveContent::Config if member.kind == Kind::File => {
                let shown = Path::new("/").join(&path);
                if !record.config_files.iter().any(|file| Path::new(file) == shown) {
                    return out_of_place("the record does not list it as configuration");
                }
            }
            _ => {}
        }
        let is_wal_folder = content == ArchiveContent::Base && path.starts_with("pg_wal");
        let listed = listed_path(content, &member.path).filter(|_| !is_wal_folder);
        let Some(listed) = listed else {
            let is_file = member.kind == Kind::File && self.names.len() < MAX_NAMES;
            if is_file && !self.names.insert(member.path.clone()) {
                return out_of_place("it is there twice");
            }
            return Ok((member.path.clone(), None));
        };
        let number = self.books.expected.find(&listed);
        if member.kind == Kind::File && number.is_none() && self.books.has_manifest {
            self.tell_file(&listed, &Fault::file_extra());
        }
        Ok((listed.into_owned(), number))
    }
}

impl Sink for Walk<'_> {
    fn member(&mut self, member: Member) -> Result<()> {
        self.file = None;
        let Some(content) = self.current.as_ref().map(|current| current.content) else { return Ok(()) };
        if content == ArchiveContent::Base {
            self.tops.saw(&member);
        }
        let (path, number) = match self.judge(&member, content) {
            Ok(judged) => judged,
            Err(error) => {
                if member.kind == Kind::File {
                    self.agree(&member, None);
                }
                self.tell_archive(error.message);
                return Ok(());
            }
        };
        if member.kind != Kind::File {
            return Ok(());
        }
        self.agree(&member, number);
        let sum = number.map_or(Sum::None, |number| self.listed(number, &path, member.size));
        let keep = self.wal_begins(content, &path, member.size);
        self.open(path, member.size, sum, keep, 0);
        Ok(())
    }

    fn content(&mut self, offset: u64, range: Range<usize>) -> Result<()> {
        if let Some(file) = &self.file {
            let number = self.number_of_piece;
            self.number_of_piece += 1;
            let range = range.start + self.base..range.end + self.base;
            self.pieces.push(Piece { file: Arc::clone(file), offset, number, range });
        }
        Ok(())
    }
}
