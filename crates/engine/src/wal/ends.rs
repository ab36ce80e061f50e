//! Where a stretch of WAL ends, and when its first and its last transaction ended: the one answer to that for windows,
//! verification and status.
//!
//! Summaries tell where to look, the segments themselves what is there: a summary is mostly a line of an index, which
//! may be wrong, and a record that begins in one segment and ends in another is in no summary. So the last segment is
//! always read, and each time comes from a record that was read. Times are those of commits and rollbacks: only they
//! end a recovery to a time (`recoveryStopsBefore` in access/transam/xlogrecovery.c).

use super::line::Stretch;
use super::moments::{Moment, is_damage};
use super::summary::Summary;
use crate::postgres::wal_record::{Event, Record, WalReader};
use crate::postgres::wal_segment::SegmentName;
use pg_ark_contract::{Lsn, Result, SegmentSize};

/// Bytes of a segment's first page header (`SizeOfXLogLongPHD`, access/xlog_internal.h).
const LONG_HEADER: u64 = 40;
/// Segments that one record can fill: its length has 30 bits (`XLogRecordMaxSize`), a segment at least 1 MiB.
const MAX_FILLED: usize = 1100;
/// Segments whose summaries are looked through for one time.
const MAX_LOOKS: usize = 10_000;
/// Segments that are read for one time where no summary knows them.
const MAX_READS: u32 = 64;
/// Boundaries that are read for one time though no summary knows a time beside them.
const MAX_BOUNDARIES: u32 = 16;

/// Segments that can be asked.
pub trait Segments {
    /// Bytes in a segment.
    fn size(&self) -> SegmentSize;

    /// What a segment holds, without reading it; `None` when nobody knows.
    ///
    /// # Errors
    /// What the store said.
    fn known(&mut self, name: SegmentName) -> Result<Option<Summary>>;

    /// What a segment holds, by reading it, now or before.
    ///
    /// # Errors
    /// `Corrupt`, `ForeignCluster` or `WalMissing` when it cannot be read; what the store said.
    fn look(&mut self, name: SegmentName) -> Result<Summary>;

    /// Shows the bytes of a segment to `sink`.
    ///
    /// # Errors
    /// As [`Segments::look`].
    fn show(&self, name: SegmentName, sink: &mut dyn FnMut(&[u8])) -> Result<()>;
}

/// End of the last whole record of a stretch, and the time of the last transaction that ended in it; no time where none
/// is found, or segments before the last cannot be read.
///
/// # Errors
/// As [`Segments::look`], for the last segment.
pub fn end(segments: &mut dyn Segments, stretch: &Stretch) -> Result<Moment> {
    let size = segments.size();
    let mut lsn = size.start_of(stretch.first());
    for number in (stretch.first()..=stretch.last()).rev().take(MAX_FILLED) {
        let Some(name) = stretch.segment(number) else { break };
        let is_last = number == stretch.last();
        let known = if is_last { None } else { segments.known(name)? };
        let found = known.map_or_else(|| segments.look(name), Ok)?.end;
        // A record that is longer than a segment can fill one.
        if found > name.start(size) {
            lsn = found;
            break;
        }
    }
    let time = unless_damaged(Walk::new(segments, stretch, Lsn(u64::MAX)).latest(stretch.last(), false))?;
    Ok(Moment { lsn, time })
}

/// Time of the last transaction whose record ends at or before `lsn`; `None` when there is none, or too much would have
/// to be read to be sure.
///
/// # Errors
/// As [`Segments::look`], for the segments that are read.
pub fn last_before(segments: &mut dyn Segments, stretch: &Stretch, lsn: Lsn) -> Result<Option<i64>> {
    let top = segments.size().last_segment_before(lsn).min(stretch.last());
    Walk::new(segments, stretch, lsn).latest(top, true)
}

/// Time of the first transaction that ended in a stretch; `None` where none is found.
///
/// # Errors
/// What the store said.
pub fn first(segments: &mut dyn Segments, stretch: &Stretch) -> Result<Option<i64>> {
    unless_damaged(Walk::new(segments, stretch, Lsn(u64::MAX)).earliest())
}

fn unless_damaged(found: Result<Option<i64>>) -> Result<Option<i64>> {
    match found {
        Err(e) if is_damage(&e) => Ok(None),
        found => found,
    }
}

/// A search for one time.
struct Walk<'s> {
    segments: &'s mut dyn Segments,
    stretch: &'s Stretch,
    /// Records that end behind it do not count.
    upto: Lsn,
    reads: u32,
    boundaries: u32,
}

impl<'s> Walk<'s> {
    fn new(segments: &'s mut dyn Segments, stretch: &'s Stretch, upto: Lsn) -> Self {
        Walk { segments, stretch, upto, reads: MAX_READS, boundaries: MAX_BOUNDARIES }
    }

    /// The latest time in segments up to `top`. When it must be `exact`, nothing is passed over that could hold one.
    fn latest(&mut self, top: u64, exact: bool) -> Result<Option<i64>> {
        for number in (self.stretch.first()..=top).rev().take(MAX_LOOKS) {
            match self.times_in(number)? {
                Found::Times(_, latest) => return Ok(Some(latest)),
                Found::Enough => return Ok(None),
                Found::Skipped if exact => return Ok(None),
                Found::Skipped | Found::Nothing => {}
            }
        }
        Ok(None)
    }

    fn earliest(&mut self) -> Result<Option<i64>> {
        for number in (self.stretch.first()..=self.stretch.last()).take(MAX_LOOKS) {
            match self.times_in(number)? {
                Found::Times(earliest, _) => return Ok(Some(earliest)),
                Found::Enough => return Ok(None),
                Found::Skipped | Found::Nothing => {}
            }
        }
        Ok(None)
    }

    /// Earliest and latest time of the transactions whose records end in segment `number`.
    fn times_in(&mut self, number: u64) -> Result<Found> {
        let Some(name) = self.stretch.segment(number) else { return Ok(Found::Nothing) };
        let Some(summary) = self.summary(name)? else { return Ok(Found::Enough) };
        // What is left of a record that began before comes first.
        let first = Lsn(name.start(self.segments.size()).0.saturating_add(LONG_HEADER));
        let crossed = number > self.stretch.first() && summary.first_record != Some(first);
        let has_time = summary.last_time.is_some();
        if !crossed && !has_time {
            return Ok(Found::Nothing);
        }
        if !has_time {
            if self.boundaries == 0 {
                return Ok(Found::Skipped);
            }
            self.boundaries -= 1;
        }
        let begin = if crossed { self.begin_of(number)? } else { number };
        self.scan(begin, number)
    }

    /// The segment in which the record begins that goes on in `number`.
    fn begin_of(&mut self, number: u64) -> Result<u64> {
        let mut begin = number.saturating_sub(1).max(self.stretch.first());
        for _ in 0..MAX_FILLED {
            let Some(name) = self.stretch.segment(begin).filter(|_| begin > self.stretch.first()) else {
                break;
            };
            let Some(summary) = self.summary(name)? else { break };
            if summary.first_record.is_some() || summary.end > name.start(self.segments.size()) {
                break;
            }
            begin -= 1;
        }
        Ok(begin)
    }

    fn scan(&mut self, begin: u64, number: u64) -> Result<Found> {
        let size = self.segments.size();
        let (from, upto) = (size.start_of(number), self.upto);
        let mut reader = WalReader::new(size.start_of(begin), size, false);
        let mut found = Found::Nothing;
        let mut look = |record: &Record<'_>| {
            if let Some(time) = time_of(record).filter(|_| record.end > from && record.end <= upto) {
                found = match found {
                    Found::Times(earliest, latest) => Found::Times(earliest.min(time), latest.max(time)),
                    _ => Found::Times(time, time),
                };
            }
        };
        for name in (begin..=number).filter_map(|number| self.stretch.segment(number)) {
            self.segments.show(name, &mut |bytes| reader.feed(bytes, &mut look))?;
        }
        Ok(found)
    }

    /// `None` when too many had to be read.
    fn summary(&mut self, name: SegmentName) -> Result<Option<Summary>> {
        if let Some(known) = self.segments.known(name)? {
            return Ok(Some(known));
        }
        if self.reads == 0 {
            return Ok(None);
        }
        self.reads -= 1;
        self.segments.look(name).map(Some)
    }
}

/// What a segment says about times.
#[derive(Debug, Clone, Copy)]
enum Found {
    /// The earliest and the latest.
    Times(i64, i64),
    Nothing,
    /// There could be one, but too many boundaries were read for nothing.
    Skipped,
    /// Too many segments were read.
    Enough,
}

fn time_of(record: &Record<'_>) -> Option<i64> {
    match record.event()? {
        Event::Commit { time, .. } | Event::Abort { time, .. } => Some(time),
        Event::RestorePoint { .. } | Event::Switch => None,
    }
}

#[cfg(test)]
#[path = "ends_tests.rs"]
mod tests;
