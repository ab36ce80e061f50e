//! The walk over the tars, in their order: which files there are, whether they are those that the manifest and the
//! index promise, and what damage hits. It reads headers alone; content is for the workers.
//!
//! Behind damage it goes on: inside the content of a large file it skips, else it takes up at the next file that the
//! index knows.

mod members;
mod report;
pub(crate) mod tops;

pub use report::tell;

use super::files::{FileCheck, Piece};
use super::places::{FileId, Place, Places};
use super::wal::WalMembers;
use super::{Books, Subject};
use crate::repository::record::{ArchiveContent, ArchiveRecord};
use crate::stored::expected::Sum;
use crate::stored::faults::Fault;
use crate::stored::index::Frame;
use crate::stored::tar_reader::TarReader;
use crate::verify::findings::Finding;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use tops::Tops;

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
    /// Some headers were not seen.
    has_holes: bool,
    too_long: bool,
}

/// The walk.
pub struct Walk<'a> {
    subject: &'a Subject<'a>,
    books: &'a Books,
    seen: Vec<bool>,
    /// Names of members that the manifest does not list.
    names: HashSet<Vec<u8>>,
    tops: Tops,
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
        let wal = books.wal.map(WalMembers::new);
        Walk {
            subject,
            books,
            seen: vec![false; books.expected.len()],
            names: HashSet::new(),
            tops: Tops::default(),
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
        self.tops = Tops::default();
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
            has_holes: false,
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

    /// Ends the archive that the walk is in.
    fn leave(&mut self) {
        let Some(current) = &self.current else { return };
        let is_lost = current.lost;
        if current.content == ArchiveContent::Base && !current.has_holes {
            self.tell_tops();
        }
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
        current.has_holes = true;
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
            FileId::Named(_) | FileId::Unknown(_) => Sum::None,
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
            FileId::Unknown(_) => Some(b"?".to_vec()),
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
                FileId::Unknown(_) => {}
            }
        }
        places.into_iter().filter_map(|place| self.path_of(place)).collect()
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
}

fn current_is_cut(current: Option<&Current>) -> Option<String> {
    let current = current.filter(|current| current.position < current.tar_bytes)?;
    Some(format!("its tar has {} bytes instead of {}", current.position, current.tar_bytes))
}
