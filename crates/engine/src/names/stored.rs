//! Catalogs in a stored backup: only the frames that hold them are read, through the index.

use super::Layout;
use super::source::Source;
use crate::codec::frame;
use crate::postgres::data_directory::version_directory;
use crate::postgres::system_catalog::catalog_version;
use crate::repository::Storage;
use crate::repository::record::{ArchiveContent, ArchiveRecord, Record};
use crate::stored::index::{self, Frame};
use crate::stored::objects::ObjectReader;
use serde::Deserialize;
use std::collections::HashMap;

/// Longest line of an index that is looked at.
const LONGEST_LINE: usize = 64 << 10;
/// Bytes in a file of a relation unless the server was built otherwise (`RELSEG_SIZE`, pg_config.h).
const DEFAULT_SEGMENT: u32 = 1 << 30;
/// Places of files that are remembered.
const MAX_PLACES: usize = 1000;

/// A complete backup in a repository.
pub struct StoredBackup<'a> {
    storage: &'a Storage,
    folder: &'a str,
    record: &'a Record,
    /// Frames by the name of the archive; none when its index cannot be used.
    frames: HashMap<&'a str, Option<Vec<Frame>>>,
    places: HashMap<String, Option<Place<'a>>>,
    /// The frame that was read last: name of the archive, number, content.
    last: Option<(&'a str, usize, Vec<u8>)>,
}

/// Where the content of a file begins.
#[derive(Clone, Copy)]
struct Place<'a> {
    archive: &'a ArchiveRecord,
    frame: usize,
    at: u64,
    size: u64,
}

#[derive(Deserialize)]
struct Line {
    file: String,
    frame: u64,
    at: u64,
    size: u64,
}

impl<'a> StoredBackup<'a> {
    /// The backup with this record in `folder` of the repository. Reads nothing yet.
    pub fn new(storage: &'a Storage, folder: &'a str, record: &'a Record) -> Self {
        let (frames, places) = (HashMap::new(), HashMap::new());
        StoredBackup { storage, folder, record, frames, places, last: None }
    }

    fn place(&mut self, path: &str) -> Option<Place<'a>> {
        if let Some(place) = self.places.get(path) {
            return *place;
        }
        let (archive, member) = self.archive_of(path)?;
        let place = self.find(archive, member);
        if self.places.len() >= MAX_PLACES {
            self.places.clear();
        }
        self.places.insert(path.to_string(), place);
        place
    }

    /// The archive that holds `path`, and its name there. A tablespace inside the data directory has no archive.
    fn archive_of<'p>(&self, path: &'p str) -> Option<(&'a ArchiveRecord, &'p str)> {
        let own = path.strip_prefix("pg_tblspc/").and_then(|rest| rest.split_once('/'));
        let own = own.and_then(|(oid, member)| {
            let content = ArchiveContent::Tablespace(oid.parse().ok()?);
            Some((self.record.archive(content)?, member))
        });
        own.or_else(|| Some((self.record.archive(ArchiveContent::Base)?, path)))
    }

    /// Looks through the index for the line of a file. Lines are not remembered: there may be millions.
    fn find(&self, archive: &'a ArchiveRecord, member: &str) -> Option<Place<'a>> {
        let mut reader =
            ObjectReader::new(self.storage, self.folder, std::slice::from_ref(archive.index.as_ref()?));
        let start = format!("{{\"file\":{},", serde_json::to_string(member).ok()?);
        let mut line = Vec::new();
        loop {
            let chunk = reader.chunk().ok().filter(|chunk| !chunk.is_empty())?;
            for part in chunk.split_inclusive(|b| *b == b'\n') {
                line.extend_from_slice(part);
                if line.len() > LONGEST_LINE {
                    return None;
                }
                if !line.ends_with(b"\n") {
                    continue;
                }
                if line.starts_with(start.as_bytes())
                    && let Ok(found) = serde_json::from_slice::<Line>(&line)
                    && found.file == member
                {
                    let frame = usize::try_from(found.frame).ok()?;
                    return Some(Place { archive, frame, at: found.at, size: found.size });
                }
                line.clear();
            }
        }
    }

    /// The frames of an archive, when its index can be used.
    fn load_frames(&mut self, archive: &'a ArchiveRecord) -> bool {
        let (storage, folder) = (self.storage, self.folder);
        let frames = self
            .frames
            .entry(&archive.name)
            .or_insert_with(|| index::load(storage, folder, archive).ok().and_then(Result::ok));
        frames.is_some()
    }

    /// Reads frame `number` of an archive, when it is not the last one read; false when it cannot be.
    fn load(&mut self, archive: &'a ArchiveRecord, number: usize) -> bool {
        if self.last.as_ref().is_some_and(|(name, n, _)| *name == archive.name && *n == number) {
            return true;
        }
        let content = self.decoded(archive, number);
        let read = content.is_some();
        self.last = content.map(|content| (&archive.name[..], number, content));
        read
    }

    fn decoded(&self, archive: &'a ArchiveRecord, number: usize) -> Option<Vec<u8>> {
        let frame = self.frames.get(&archive.name[..])?.as_ref()?.get(number)?;
        let volume = archive.volumes.get(frame.volume as usize)?;
        let path = format!("{}/{}", self.folder, volume.name);
        let stored = self.storage.get_range(&path, frame.offset, frame.stored as usize).ok()?;
        if crc32c::crc32c(&stored) != frame.crc {
            return None;
        }
        let mut content = Vec::new();
        frame::decode(self.record.compression.codec, &stored, frame.raw as usize, &mut content).ok()?;
        Some(content)
    }
}

impl Source for StoredBackup<'_> {
    fn read(&mut self, path: &str, offset: u64, len: usize) -> Option<Vec<u8>> {
        let place = self.place(path)?;
        if !self.load_frames(place.archive) {
            return None;
        }
        let mut left = place.size.saturating_sub(offset).min(len as u64) as usize;
        // Bytes of tar to pass over, from the frame's begin.
        let mut skip = place.at.checked_add(offset)?;
        let mut bytes = Vec::new();
        let mut number = place.frame;
        while left > 0 {
            let raw = u64::from(self.frames.get(&place.archive.name[..])?.as_ref()?.get(number)?.raw);
            if skip >= raw {
                skip -= raw;
            } else {
                if !self.load(place.archive, number) {
                    return None;
                }
                let (.., content) = self.last.as_ref()?;
                let part = content.get(skip as usize..)?;
                let part = part.get(..left.min(part.len()))?;
                bytes.extend_from_slice(part);
                left -= part.len();
                skip = 0;
            }
            number += 1;
        }
        Some(bytes)
    }

    /// As the record and PostgreSQL's defaults have it.
    fn layout(&self) -> Option<Layout> {
        let server_major = self.record.server_version_num / 10_000;
        let block_size = self.record.block_size;
        Some(Layout {
            server_major,
            block_size,
            relation_segment_blocks: DEFAULT_SEGMENT.checked_div(block_size)?,
            version_folder: version_directory(server_major, catalog_version(server_major)?),
        })
    }
}
