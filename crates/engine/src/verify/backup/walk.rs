//! The walk over the tars, in their order: which files there are, whether they are those that the manifest and the
//! index promise, and what damage hits. It reads headers alone; content is for the workers.
//!
//! Behind damage it goes on: inside the content of a large file it skips, else it takes up at the next file that the
//! index knows.

use super::files::{FileCheck, Piece};
use super::pages::PageRules;
use super::places::{FileId, Place, Places, listed_path};
use super::wal::{Needed, WalMembers};
use super::{Books, Subject};
use crate::postgres::control_file::CONTROL_FILE;
use crate::repository::record::{ArchiveContent, ArchiveRecord};
use crate::stored::expected::Sum;
use crate::stored::faults::Fault;
use crate::stored::index::Frame;
use crate::stored::names;
use crate::stored::tar_reader::{Kind, Member, Sink, TarReader};
use crate::verify::findings::Finding;
use pg_ark_contract::conversation::Level;
use pg_ark_contract::rows::Severity;
use pg_ark_contract::{Error, Result};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Most bytes of `pg_control` that are kept (`PG_CONTROL_FILE_SIZE`, catalog/pg_control.h).
const CONTROL_SIZE: usize = 8192;
/// Most members of an archive that the manifest does not list, of which the names are remembered.
const MAX_NAMES: usize = 1 << 20;

/// Damaged frames that lie side by side.
#[derive(Debug)]
struct Damage {
    archive: usize,
    volume: u32,
    from: u64,
    to: u64,
    fault: Fault,
    /// The first and the last file that are touched.
    file: Option<Vec<u8>>,
    last: Option<Vec<u8>>,
    files: u64,
}

/// The archive that the walk is in.
struct Current {
    number: usize,
    content: ArchiveContent,
    /// Bytes of tar passed.
    position: u64,
    tar_bytes: u64,
    /// What the index says, if it can be used.
    places: Option<Places>,
    /// The next file by the index.
    next: usize,
    /// The index was found to be wrong.
    index_is_wrong: bool,
    /// It is not known what stands here.
    lost: bool,
    too_long: bool,
}

/// The walk.
pub struct Walk<'a> {
    subject: &'a Subject<'a>,
    books: &'a Books,
    seen: Vec<bool>,
    /// Names of members that the manifest does not list.
    names: HashSet<Vec<u8>>,
    reader: TarReader,
    current: Option<Current>,
    file: Option<Arc<FileCheck>>,
    number_of_piece: u64,
    /// Where in the bytes at hand the tar reader began.
    base: usize,
    pieces: Vec<Piece>,
    wal: Option<WalMembers>,
    damage: Vec<Damage>,
    /// Archives of which parts are unknown.
    unknown: BTreeSet<usize>,
}

impl<'a> Walk<'a> {
    /// Nothing walked yet.
    pub fn new(subject: &'a Subject<'a>, books: &'a Books) -> Self {
        let follow = subject.level == Level::Pages;
        let wal = books.wal.map(|needed| WalMembers::new(needed, follow));
        Walk {
            subject,
            books,
            seen: vec![false; books.expected.len()],
            names: HashSet::new(),
            reader: TarReader::new(),
            current: None,
            file: None,
            number_of_piece: 0,
            base: 0,
            pieces: Vec::new(),
            wal,
            damage: Vec::new(),
            unknown: BTreeSet::new(),
        }
    }

    /// Enters archive `number` unless the walk is in it.
    pub fn enter(&mut self, number: usize, archive: &ArchiveRecord, places: impl FnOnce() -> Option<Places>) {
        if self.current.as_ref().is_some_and(|current| current.number == number) {
            return;
        }
        self.leave();
        self.names.clear();
        self.reader = TarReader::new();
        self.current = Some(Current {
            number,
            content: archive.content,
            position: 0,
            tar_bytes: archive.tar_bytes,
            places: places(),
            next: 0,
            index_is_wrong: false,
            lost: false,
            too_long: false,
        });
    }

    /// The next bytes of the archive; returns what to look at, outside the turn.
    pub fn feed(&mut self, raw: &[u8]) -> Vec<Piece> {
        let Some(current) = &mut self.current else { return Vec::new() };
        let start = current.position;
        current.position = start.saturating_add(raw.len() as u64);
        let (end, is_lost) = (current.position, current.lost);
        if end > current.tar_bytes && !std::mem::replace(&mut current.too_long, true) {
            let what = format!("its tar is longer than the {} bytes of the record", current.tar_bytes);
            self.tell_archive(what);
        }
        self.base = 0;
        if is_lost {
            let Some(base) = self.take_up(start, end) else { return Vec::new() };
            self.base = base;
        }
        let mut reader = std::mem::take(&mut self.reader);
        let fed = reader.feed(raw.get(self.base..).unwrap_or_default(), self);
        self.reader = reader;
        if let Err(error) = fed {
            self.tar_is_damaged(&error, start, end);
        }
        let pieces = std::mem::take(&mut self.pieces);
        self.follow_wal(&pieces, raw);
        pieces
    }

    /// A frame of the archive cannot be read.
    pub fn skip(&mut self, frame: &Frame, fault: Fault) {
        let Some(current) = &mut self.current else { return };
        let start = current.position;
        current.position = start.saturating_add(u64::from(frame.raw));
        let (number, end) = (current.number, current.position);
        if current.content == ArchiveContent::Wal
            && let Some(wal) = &mut self.wal
        {
            wal.spoil();
        }
        let mut touched = Vec::new();
        let open = self.file.clone().filter(|_| self.reader.is_in_content());
        if let Some(file) = &open {
            file.spoil();
            touched.push(file.path.clone());
        }
        if !(open.is_some() && self.reader.skip(u64::from(frame.raw))) {
            touched.extend(self.pass_over(start, end));
            self.lose();
        }
        self.note_damage(number, frame, fault, touched);
    }

    /// The rest of the archive cannot be read.
    pub fn give_up(&mut self) {
        if let Some(wal) = &mut self.wal {
            wal.spoil();
        }
        self.lose();
        self.unknown.extend(self.current.as_ref().map(|current| current.number));
    }

    /// The name of the file that the walk is in.
    pub fn file(&self) -> Option<&[u8]> {
        self.file.as_ref().map(|file| &file.path[..])
    }

    /// Tells what is missing, and the damage. `volumes` are those of which something is known: their frames add only
    /// names of files.
    pub fn finish(mut self, volumes: &mut BTreeMap<(usize, u32), Fault>) {
        self.leave();
        for damage in std::mem::take(&mut self.damage) {
            let fault = volumes.remove(&(damage.archive, damage.volume)).unwrap_or(damage.fault);
            let Some(archive) = self.subject.record.archives.get(damage.archive) else { continue };
            let Some(object) = archive.volumes.get(damage.volume as usize) else { continue };
            let mut finding = Finding::fault(self.subject.path(&object.name), &fault);
            if let Some(file) = damage.file {
                finding = finding.file(&file);
                finding.more = damage.files.saturating_sub(1);
            }
            self.subject.findings.add(finding);
        }
        self.missing_files();
        self.missing_wal();
    }

    fn missing_files(&self) {
        let expected = &self.books.expected;
        for number in (0..self.seen.len()).filter(|number| self.seen.get(*number) == Some(&false)) {
            let path = expected.path(number);
            let archive = self.subject.archive_of(path);
            if archive.is_some_and(|archive| self.unknown.contains(&archive)) {
                continue;
            }
            let name = archive.and_then(|number| self.subject.record.archives.get(number));
            let name = name.map_or("base.tar", |archive| &archive.name);
            self.subject
                .findings
                .add(Finding::fault(self.subject.path(name), &Fault::file_missing()).file(path));
        }
    }

    fn missing_wal(&mut self) {
        let archives = &self.subject.record.archives;
        let Some(wal) = self.wal.take() else { return };
        let at = archives.iter().position(|archive| archive.content == ArchiveContent::Wal);
        // Without the archive the record is wrong, which is told; of an unknown one nothing can be said.
        let Some(archive) = at.filter(|at| !self.unknown.contains(at)).and_then(|at| archives.get(at)) else {
            return;
        };
        for (file, what) in wal.finish() {
            let finding = Finding::new(Severity::Error, self.subject.path(&archive.name), what);
            let hint = "Recovery of this backup needs it. Restore another backup.";
            self.subject.findings.add(finding.hint(hint).file(file.as_bytes()));
        }
    }

    /// Ends the archive that the walk is in.
    fn leave(&mut self) {
        let Some(current) = &self.current else { return };
        let is_lost = current.lost;
        if !is_lost {
            let rest = current.places.as_ref().filter(|places| current.next < places.len());
            if rest.is_some() && !current.index_is_wrong {
                self.index_is_wrong("it lists files that the archive does not hold".into());
            }
            let cut = current_is_cut(self.current.as_ref());
            if let Err(error) = self.reader.finish() {
                self.tell_archive(error.message);
            } else if let Some(what) = cut {
                self.tell_archive(what);
            }
        }
        self.file = None;
        self.current = None;
    }

    /// Nothing is known of what follows.
    fn lose(&mut self) {
        self.file = None;
        let Some(current) = &mut self.current else { return };
        current.lost = true;
        if current.places.as_ref().is_none_or(Places::is_empty) {
            self.unknown.insert(current.number);
        }
    }

    /// Takes up the walk between two bytes of the tar, at the next file that the index knows; returns how far behind
    /// the first one.
    fn take_up(&mut self, start: u64, end: u64) -> Option<usize> {
        let current = self.current.as_mut()?;
        let places = current.places.as_ref()?;
        let next = places.first_from(start);
        let place = places.get(next).filter(|place| place.at < end)?;
        current.lost = false;
        current.next = next + 1;
        let content = current.content;
        self.reader = TarReader::at_content(place.at, place.size);
        self.number_of_piece = 0;
        let base = usize::try_from(place.at - start).ok()?;
        let path = self.path_of(place)?;
        let sum = match place.id {
            FileId::Listed(number) => self.listed(number as usize, &path, place.size),
            FileId::Named(_) | FileId::Unknown => Sum::None,
        };
        let keep = self.wal_begins(content, &path, place.size);
        self.open(path, place.size, sum, keep, base);
        Some(base)
    }

    fn path_of(&self, place: Place) -> Option<Vec<u8>> {
        let current = self.current.as_ref()?;
        match place.id {
            FileId::Listed(number) => Some(self.books.expected.path(number as usize).to_vec()),
            FileId::Named(number) => Some(current.places.as_ref()?.name(number)?.as_bytes().to_vec()),
            FileId::Unknown => Some(b"?".to_vec()),
        }
    }

    /// Files whose content begins between two bytes of the tar are damaged: they are not missing. Returns their names.
    fn pass_over(&mut self, start: u64, end: u64) -> Vec<Vec<u8>> {
        let Some(current) = &self.current else { return Vec::new() };
        let places = current.places.as_ref().map(|places| places.between(start, end)).unwrap_or_default();
        let places: Vec<Place> = places.to_vec();
        for place in &places {
            match place.id {
                FileId::Listed(number) => {
                    if let Some(seen) = self.seen.get_mut(number as usize) {
                        *seen = true;
                    }
                }
                FileId::Named(_) => {
                    let name = self.path_of(*place).and_then(|name| String::from_utf8(name).ok());
                    if let (Some(wal), Some(name)) = (&mut self.wal, name) {
                        wal.saw(&name);
                    }
                }
                FileId::Unknown => {}
            }
        }
        places.into_iter().filter_map(|place| self.path_of(place)).collect()
    }

    fn note_damage(&mut self, archive: usize, frame: &Frame, fault: Fault, touched: Vec<Vec<u8>>) {
        let to = frame.offset.saturating_add(u64::from(frame.stored));
        let whole = self.books.volumes.contains(&(archive, frame.volume));
        let adjoins = |damage: &&mut Damage| {
            let same = damage.archive == archive && damage.volume == frame.volume;
            same && (whole || damage.to == frame.offset && damage.fault.detail == fault.detail)
        };
        if let Some(damage) = self.damage.last_mut().filter(|damage| adjoins(damage)) {
            let again = touched.first().is_some_and(|file| damage.last.as_ref() == Some(file));
            damage.files += touched.len() as u64 - u64::from(again);
            damage.last = touched.last().cloned().or(damage.last.take());
            damage.to = to;
            let detail = fault.detail.unwrap_or_default();
            damage.fault = Fault::frames(damage.from, to, &detail);
            if damage.file.is_none() {
                damage.file = touched.into_iter().next();
            }
            return;
        }
        let (files, last) = (touched.len() as u64, touched.last().cloned());
        let file = touched.into_iter().next();
        let damage =
            Damage { archive, volume: frame.volume, from: frame.offset, to, fault, file, last, files };
        self.damage.push(damage);
    }

    fn tar_is_damaged(&mut self, error: &Error, start: u64, end: u64) {
        let next = self.current.as_ref().map_or(0, |current| current.next);
        let from = self.current.as_ref().and_then(|c| c.places.as_ref()?.get(next)).map_or(end, |p| p.at);
        let touched = self.pass_over(from.max(start), end);
        if let Some(archive) = self.archive() {
            let mut finding = Finding::new(Severity::Error, self.subject.path(&archive.name), &error.message);
            if let Some(file) = touched.first() {
                finding = finding.file(file);
                finding.more = (touched.len() as u64).saturating_sub(1);
            }
            self.subject.findings.add(finding.hint("Restore another backup."));
        }
        self.lose();
    }

    fn archive(&self) -> Option<&'a ArchiveRecord> {
        self.subject.record.archives.get(self.current.as_ref()?.number)
    }

    fn tell_archive(&self, what: String) {
        if let Some(archive) = self.archive() {
            let finding = Finding::new(Severity::Error, self.subject.path(&archive.name), what);
            self.subject.findings.add(finding.hint("Restore another backup."));
        }
    }

    fn tell_file(&self, path: &[u8], fault: &Fault) {
        if let Some(archive) = self.archive() {
            self.subject.findings.add(Finding::fault(self.subject.path(&archive.name), fault).file(path));
        }
    }

    fn index_is_wrong(&mut self, what: String) {
        if let Some(index) = self.archive().and_then(|archive| archive.index.as_ref()) {
            self.subject.tell_index(&index.name, &what);
        }
        if let Some(current) = &mut self.current {
            current.index_is_wrong = true;
        }
    }

    /// Compares a file with what the index says.
    fn agree(&mut self, member: &Member, id: Option<usize>) {
        let Some(current) = &mut self.current else { return };
        let Some(places) = current.places.as_ref().filter(|_| !current.index_is_wrong) else { return };
        let place = places.get(current.next);
        let same_file = |place: &Place| match place.id {
            FileId::Listed(number) => id == Some(number as usize),
            FileId::Unknown => id.is_none(),
            FileId::Named(number) => {
                places.name(number).is_some_and(|name| name == String::from_utf8_lossy(&member.path))
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
    fn listed(&mut self, number: usize, path: &[u8], size: u64) -> Sum {
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

    fn wal_begins(&mut self, content: ArchiveContent, path: &[u8], size: u64) -> usize {
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
    fn open(&mut self, path: Vec<u8>, size: u64, sum: Sum, keep: usize, at: usize) {
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

    fn follow_wal(&mut self, pieces: &[Piece], raw: &[u8]) {
        let Some(wal) = &mut self.wal else { return };
        if self.current.as_ref().is_some_and(|current| current.content == ArchiveContent::Wal) {
            for piece in pieces {
                let bytes = raw.get(piece.range.clone()).unwrap_or_default();
                wal.content(&piece.file.path, piece.offset, bytes);
            }
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

fn current_is_cut(current: Option<&Current>) -> Option<String> {
    let current = current.filter(|current| current.position < current.tar_bytes)?;
    Some(format!("its tar has {} bytes instead of {}", current.position, current.tar_bytes))
}

impl Sink for Walk<'_> {
    fn member(&mut self, member: Member) -> Result<()> {
        self.file = None;
        let Some(content) = self.current.as_ref().map(|current| current.content) else { return Ok(()) };
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

/// What the last worker of a file tells about it.
pub fn tell(subject: &Subject<'_>, file: &FileCheck, verdict: super::files::Verdict, wal: Option<&Needed>) {
    let Some(archive) = subject.record.archives.get(file.archive) else { return };
    let path = subject.path(&archive.name);
    let fault = |fault: &Fault| subject.findings.add(Finding::fault(&path, fault).file(&file.path));
    if !verdict.is_right {
        return fault(&Fault::file_changed());
    }
    match (archive.content, wal) {
        (ArchiveContent::Wal, Some(needed)) => {
            if let Some(found) = WalMembers::ended(needed, &file.path, &verdict.kept) {
                fault(&found);
            }
        }
        (ArchiveContent::Base, _) if file.path == CONTROL_FILE.as_bytes() => {
            if let Some(found) = super::record::control_fault(subject.record, &verdict.kept) {
                fault(&found);
            }
        }
        _ => {}
    }
    super::record::tell_pages(subject, &path, &file.path, &verdict.damaged);
}
