//! Finds where recovery would stop, in the WAL itself.
//!
//! Summaries tell which segments to read. A record that begins in one segment and ends in the next is in no summary,
//! so each is read together with the one before it, and a transaction or restore point that no summary knows is looked
//! for in all segments.
//!
//! The rules are those of `recoveryStopsBefore` and `recoveryStopsAfter` in access/transam/xlogrecovery.c: a time stops
//! recovery before the first commit or rollback that is later; an LSN after the first record that begins there or
//! later; a transaction after its commit or rollback; a name after its restore point.

use super::choice::{Aim, Wal, is_later};
use super::old_wal::OldWal;
use super::target::Target;
use crate::postgres::wal_record::{Event, Record, WalReader, from_utc};
use crate::postgres::wal_segment::SegmentName;
use crate::wal::Stretch;
use crate::wal::moments::{Moment, Moments};
use crate::wal::summary::{Summarizer, Summary};
use pg_ark_contract::{Error, Lsn, Result, SegmentSize};
use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;

/// Segments that are looked through for the time of a commit.
const MAX_LOOKS: usize = 1000;
/// Bytes read at a time of a plain segment.
const CHUNK: usize = 1 << 20;

/// Reads an archive, and what an old server left that it lacks.
pub struct Reach<'a> {
    moments: Moments<'a>,
    old: Option<&'a OldWal>,
    size: SegmentSize,
}

impl<'a> Reach<'a> {
    /// Of an archive whose segments have `size` bytes.
    pub fn new(moments: Moments<'a>, old: Option<&'a OldWal>, size: SegmentSize) -> Self {
        Reach { moments, old, size }
    }

    fn old(&self, name: SegmentName) -> Option<&'a OldWal> {
        self.old.filter(|old| old.usable(name).is_some())
    }

    fn summary(&mut self, name: SegmentName) -> Result<Summary> {
        if self.old(name).is_none() {
            return self.moments.summary(name);
        }
        let mut summarizer = Summarizer::new(name, self.size);
        self.read(name, &mut |bytes| summarizer.feed(bytes))?;
        Ok(summarizer.finish())
    }

    fn read(&self, name: SegmentName, sink: &mut dyn FnMut(&[u8])) -> Result<()> {
        let Some(kept) = self.old.and_then(|old| old.usable(name)) else {
            return self.moments.read(name, sink);
        };
        let failed = |e: std::io::Error| Error::io(format!("could not read \"{}\"", kept.path.display()), &e);
        let mut file = File::open(&kept.path).map_err(failed)?.take(self.size.bytes());
        let mut piece = vec![0; CHUNK];
        loop {
            let count = file.read(&mut piece).map_err(failed)?;
            if count == 0 {
                return Ok(());
            }
            sink(piece.get(..count).unwrap_or_default());
        }
    }

    /// The first record in these segments where recovery stops.
    fn scan(
        &mut self,
        stretch: &Stretch,
        numbers: RangeInclusive<u64>,
        from: Lsn,
        aim: Aim<'_>,
    ) -> Result<Option<Moment>> {
        let mut reader = WalReader::new(self.size.start_of(*numbers.start()), self.size, false);
        let mut search = Search { aim, from, time: None, found: None };
        for number in numbers {
            let Some(name) = stretch.segment(number) else { break };
            self.read(name, &mut |bytes| {
                if search.found.is_none() {
                    reader.feed(bytes, &mut |record| search.look(record));
                }
            })?;
            if search.found.is_some() || reader.stopped().is_some() {
                break;
            }
        }
        Ok(search.found)
    }

    /// The latest time of a commit or rollback in a segment that ends at `lsn` or before it.
    fn last_in(&self, name: SegmentName, lsn: Lsn) -> Result<Option<i64>> {
        let mut reader = WalReader::new(name.start(self.size), self.size, false);
        let mut latest = None;
        self.read(name, &mut |bytes| {
            reader.feed(bytes, &mut |record| match record.event() {
                Some(Event::Commit { time, .. } | Event::Abort { time, .. }) if record.end <= lsn => {
                    latest = latest.max(Some(time));
                }
                _ => {}
            });
        })?;
        Ok(latest)
    }
}

impl Wal for Reach<'_> {
    fn stop(
        &mut self,
        stretch: &Stretch,
        numbers: RangeInclusive<u64>,
        from: Lsn,
        aim: Aim<'_>,
    ) -> Result<Option<Moment>> {
        let (first, last) = (*numbers.start(), *numbers.end());
        match aim.target {
            Target::Latest | Target::Immediate => return Ok(None),
            Target::Lsn(_) => return self.scan(stretch, numbers, from, aim),
            Target::Time(_) | Target::Xid(_) | Target::Name(_) => {}
        }
        for number in numbers.clone() {
            let Some(name) = stretch.segment(number) else { break };
            if may_stop(&self.summary(name)?, aim) {
                let before = number.saturating_sub(1).max(first);
                if let Some(found) = self.scan(stretch, before..=number, from, aim)? {
                    return Ok(Some(found));
                }
            }
        }
        // Times ascend well enough for only the last record of all to be missed.
        let again =
            if matches!(aim.target, Target::Time(_)) { last.saturating_sub(1).max(first) } else { first };
        self.scan(stretch, again..=last, from, aim)
    }

    fn end(&mut self, stretch: &Stretch) -> Result<Moment> {
        let mut end = Moment { lsn: self.size.start_of(stretch.first()), time: None };
        for number in (stretch.first()..=stretch.last()).rev().take(MAX_LOOKS) {
            let Some(name) = stretch.segment(number) else { break };
            let summary = self.summary(name)?;
            // A record that is longer than a segment can fill one.
            if summary.end > name.start(self.size) {
                end.lsn = end.lsn.max(summary.end);
            }
            end.time = summary.last_time;
            if end.time.is_some() {
                break;
            }
        }
        Ok(end)
    }

    fn last_before(&mut self, stretch: &Stretch, lsn: Lsn) -> Result<Option<i64>> {
        let top = self.size.last_segment_before(lsn).min(stretch.last());
        for number in (stretch.first()..=top).rev().take(MAX_LOOKS) {
            let Some(name) = stretch.segment(number) else { break };
            let summary = self.summary(name)?;
            let found = if summary.end <= lsn { summary.last_time } else { self.last_in(name, lsn)? };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

/// Whether the segment can hold a record where recovery stops.
fn may_stop(summary: &Summary, aim: Aim<'_>) -> bool {
    match aim.target {
        Target::Time(time) => summary.last_time.is_some_and(|last| is_later(last, from_utc(*time), aim)),
        Target::Xid(xid) => {
            summary.min_xid.is_some_and(|min| min <= *xid) && summary.max_xid.is_some_and(|max| *xid <= max)
        }
        Target::Name(name) => {
            summary.more_restore_points || summary.restore_points.iter().any(|point| point.name == *name)
        }
        Target::Latest | Target::Immediate | Target::Lsn(_) => false,
    }
}

/// Looks for the first record where recovery stops.
struct Search<'a> {
    aim: Aim<'a>,
    from: Lsn,
    /// Of the last transaction that ended before.
    time: Option<i64>,
    found: Option<Moment>,
}

impl Search<'_> {
    fn look(&mut self, record: &Record<'_>) {
        if self.found.is_some() || record.start < self.from {
            return;
        }
        let side = if self.aim.exclusive { record.start } else { record.end };
        let event = record.event();
        let ended = match event {
            Some(Event::Commit { xid, time } | Event::Abort { xid, time }) => Some((xid, time)),
            _ => None,
        };
        let lsn = match (self.aim.target, ended, &event) {
            (Target::Lsn(lsn), ..) if record.start >= *lsn => Some(side),
            (Target::Time(target), Some((_, time)), _) if is_later(time, from_utc(*target), self.aim) => {
                Some(record.start)
            }
            (Target::Xid(target), Some((xid, _)), _) if xid == *target => Some(side),
            (Target::Name(target), _, Some(Event::RestorePoint { name, .. }))
                if *name == target.as_bytes() =>
            {
                Some(record.end)
            }
            _ => None,
        };
        let counts = lsn.is_none_or(|lsn| lsn == record.end);
        self.time = ended.map(|(_, time)| time).filter(|_| counts).or(self.time);
        self.found = lsn.map(|lsn| Moment { lsn, time: self.time });
    }
}
