//! Summaries of segments: from the index where it has a line, else from the segment itself; and what [`ends`] makes of
//! them: times and ends of ranges.
//!
//! Why: windows and restore targets ask about the ends of ranges, so a few lines of the index and a few segments answer
//! for a million. Memory holds the indexes of a few folders and the summaries of a few segments that were read.

use super::archive::Archive;
use super::ends::{self, Segments};
use super::index::Index;
use super::line::{Piece, Stretch};
use super::summary::{Summarizer, Summary};
use super::survey::Run;
use crate::bounded;
use crate::codec::frame::FRAME_SIZE;
use crate::postgres::wal_record::to_utc;
use crate::postgres::wal_segment::{ExpectedSegment, SegmentName, check_first_page};
use chrono::SecondsFormat;
use pg_ark_contract::{Error, ErrorKind, Lsn, Result, SegmentSize, Timeline};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// Indexes and summaries that are remembered.
const MAX_INDEXES: usize = 4;
const MAX_SUMMARIES: usize = 256;

/// A moment in the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// End of a record.
    pub lsn: Lsn,
    /// Time of the last commit or rollback up to there, in microseconds since 2000-01-01 UTC; `None` when none is known.
    pub time: Option<i64>,
}

/// Summaries of segments.
pub struct Moments<'a> {
    pub(super) archive: &'a Archive,
    pub(super) size: SegmentSize,
    folder: Option<&'a Path>,
    check: Option<&'a dyn Fn() -> Result<()>>,
    indexes: BTreeMap<(Timeline, u32), Index>,
    /// Folders whose index was searched for segments that break off.
    pub(super) may_break: BTreeMap<(Timeline, u32), bool>,
    /// Of segments that were read.
    summaries: BTreeMap<SegmentName, Summary>,
}

impl<'a> Moments<'a> {
    /// Of an archive whose segments have `size` bytes. Nothing is looked at.
    pub fn new(archive: &'a Archive, size: SegmentSize) -> Self {
        let (indexes, summaries, may_break) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Moments { archive, size, folder: None, check: None, indexes, may_break, summaries }
    }

    /// Also looks into this folder of plain segments (an old pg_wal) for what the archive lacks.
    pub fn with_folder(self, folder: &'a Path) -> Self {
        Moments { folder: Some(folder), ..self }
    }

    /// `check` is called before each read and may end it.
    pub fn with_check(self, check: &'a dyn Fn() -> Result<()>) -> Self {
        Moments { check: Some(check), ..self }
    }

    /// What a segment holds, by the index where it knows it and the segment was not read.
    ///
    /// # Errors
    /// `WalMissing` when it is not there; `Corrupt` or `ForeignCluster` when it is not what its name says; what the
    /// store said.
    pub fn summary(&mut self, name: SegmentName) -> Result<Summary> {
        match Segments::known(self, name)? {
            Some(known) => Ok(known),
            None => self.look(name),
        }
    }

    /// End of the last whole record of a stretch, and the time of the last commit or rollback in it: [`ends::end`].
    ///
    /// # Errors
    /// As [`Moments::summary`], for the last segment.
    pub fn end(&mut self, stretch: &Stretch) -> Result<Moment> {
        ends::end(self, stretch)
    }

    /// Time of the last commit or rollback of a stretch whose record ends at or before `lsn`: [`ends::last_before`].
    ///
    /// # Errors
    /// As [`Moments::summary`], for the segments that are read.
    pub fn last_before(&mut self, stretch: &Stretch, lsn: Lsn) -> Result<Option<i64>> {
        ends::last_before(self, stretch, lsn)
    }

    /// Time of the first and of the last commit or rollback in a run; `None` when they are too far from the ends.
    ///
    /// # Errors
    /// As [`Moments::summary`], for the first and the last segment, which are read.
    pub fn times(&mut self, timeline: Timeline, run: Run) -> Result<(Option<i64>, Option<i64>)> {
        self.look(SegmentName { timeline, number: run.first })?;
        let stretch = Stretch { pieces: vec![Piece { timeline, run }] };
        let end = self.end(&stretch)?;
        Ok((ends::first(self, &stretch)?, end.time))
    }

    /// Timeline and log: which index knows a segment.
    pub(super) fn key(&self, name: SegmentName) -> (Timeline, u32) {
        let per_log = (1 << 32) / self.size.bytes();
        (name.timeline, u32::try_from(name.number / per_log).unwrap_or(u32::MAX))
    }

    /// What the index says about a segment; `None` when it does not know it.
    ///
    /// # Errors
    /// What the store said.
    pub fn known(&mut self, name: SegmentName) -> Result<Option<Summary>> {
        let key = self.key(name);
        if !self.indexes.contains_key(&key) {
            self.check()?;
            if self.indexes.len() >= MAX_INDEXES {
                self.indexes.clear();
            }
            let path = self.archive.index_path(key.0, key.1);
            let index = match Index::load(self.archive.storage(), &path, self.size) {
                Ok(index) => index,
                // It can be lost; the segments are the truth.
                Err(e) if is_unreadable(&e) => return Ok(None),
                Err(e) => return Err(e),
            };
            self.indexes.insert(key, index);
        }
        Ok(self.indexes.get(&key).and_then(|index| index.get(name.number)).cloned())
    }

    /// Whether what [`Moments::known`] said has a seal.
    pub fn is_sealed(&self, name: SegmentName) -> bool {
        self.indexes.get(&self.key(name)).is_some_and(|index| index.is_sealed(name.number))
    }

    /// Shows the bytes of a segment to `sink`.
    ///
    /// # Errors
    /// As [`Moments::summary`].
    pub fn read(&self, name: SegmentName, sink: &mut dyn FnMut(&[u8])) -> Result<()> {
        self.check()?;
        let expected = ExpectedSegment {
            name,
            segment_size: self.size,
            system_identifier: self.archive.system_identifier(),
            server_major: None,
        };
        let file_name = name.file_name(self.size);
        if let Some(found) = self.archive.find(&file_name)? {
            return self.archive.read_segment(&found, &expected, &mut |bytes| {
                self.check()?;
                sink(bytes);
                Ok(())
            });
        }
        match self.folder.map(|folder| folder.join(&file_name)) {
            Some(path) if path.exists() => read_plain(&path, &expected, sink),
            _ => Err(Error::new(
                ErrorKind::WalMissing,
                format!(
                    "segment {file_name} is not in \"{}\"",
                    self.archive.storage().display(&self.archive.folder())
                ),
            )),
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        self.check.map_or(Ok(()), |check| check())
    }
}

impl Segments for Moments<'_> {
    fn size(&self) -> SegmentSize {
        self.size
    }

    fn known(&mut self, name: SegmentName) -> Result<Option<Summary>> {
        match self.summaries.get(&name) {
            Some(read) => Ok(Some(read.clone())),
            None => Moments::known(self, name),
        }
    }

    fn look(&mut self, name: SegmentName) -> Result<Summary> {
        if let Some(read) = self.summaries.get(&name) {
            return Ok(read.clone());
        }
        // A crash may have torn a record in the middle of a page, where only its CRC tells.
        let mut summarizer = Summarizer::checking(name, self.size);
        self.read(name, &mut |bytes| summarizer.feed(bytes))?;
        let summary = summarizer.finish();
        if self.summaries.len() >= MAX_SUMMARIES {
            self.summaries.clear();
        }
        self.summaries.insert(name, summary.clone());
        Ok(summary)
    }

    fn show(&self, name: SegmentName, sink: &mut dyn FnMut(&[u8])) -> Result<()> {
        self.read(name, sink)
    }
}

/// Whether a segment itself is at fault, not the way to it.
pub fn is_damage(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::Corrupt | ErrorKind::ForeignCluster | ErrorKind::WalMissing)
}

/// Whether one object gives nothing, be it damaged or out of reach, while the store itself answers: what it says can be
/// had elsewhere, or lacks alone.
pub fn is_unreadable(error: &Error) -> bool {
    use ErrorKind::{Corrupt, FormatTooNew, Io, PermissionDenied};
    matches!(error.kind, Corrupt | FormatTooNew | Io | PermissionDenied)
}

/// A time as rows show it: RFC 3339, UTC, with microseconds.
pub fn shown_time(microseconds_since_2000: i64) -> Option<String> {
    to_utc(microseconds_since_2000).map(|time| time.to_rfc3339_opts(SecondsFormat::Micros, true))
}

fn read_plain(path: &Path, expected: &ExpectedSegment, sink: &mut dyn FnMut(&[u8])) -> Result<()> {
    let shown = path.display();
    let mut file = bounded::open(path).map_err(|e| Error::io(format!("could not open \"{shown}\""), &e))?;
    let mut piece = vec![0; FRAME_SIZE];
    let mut left = expected.segment_size.bytes();
    while left > 0 {
        let want = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let bytes = piece.get_mut(..want).unwrap_or_default();
        file.read_exact(bytes).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                Error::new(ErrorKind::Corrupt, format!("\"{shown}\" ends {left} bytes too early"))
            }
            _ => Error::io(format!("could not read \"{shown}\""), &e),
        })?;
        if left == expected.segment_size.bytes() {
            check_first_page(bytes, expected)?;
        }
        sink(bytes);
        left -= want as u64;
    }
    Ok(())
}

#[cfg(test)]
#[path = "moments_tests.rs"]
mod tests;
