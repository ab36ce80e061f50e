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
use crate::wal::ends::{self, Segments};
use crate::wal::moments::{Moment, Moments, is_damage};
use crate::wal::summary::{Summarizer, Summary};
use pg_ark_contract::{Lsn, Result, SegmentSize};
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

/// Segments that are read for the beginning of the last record.
const MAX_READS: u64 = 16;
/// Bytes of a segment's first page header (`SizeOfXLogLongPHD`, access/xlog_internal.h).
const LONG_HEADER: u64 = 40;
/// Most bytes of a restore point's record: header, `xl_restore_point`, and what introduces it, aligned.
const RESTORE_POINT: u64 = 104;

/// Reads an archive, and what an old server left that it lacks.
pub struct Reach<'a> {
    moments: Moments<'a>,
    old: Option<&'a OldWal>,
    size: SegmentSize,
    /// Ends of stretches, by their first and last segment.
    ends: BTreeMap<(SegmentName, SegmentName), Moment>,
}

impl<'a> Reach<'a> {
    /// Of an archive whose segments have `size` bytes.
    pub fn new(moments: Moments<'a>, old: Option<&'a OldWal>, size: SegmentSize) -> Self {
        Reach { moments, old, size, ends: BTreeMap::new() }
    }

    /// Bytes in a segment.
    pub fn size(&self) -> SegmentSize {
        self.size
    }

    fn old(&self, name: SegmentName) -> Option<&'a OldWal> {
        self.old.filter(|old| old.usable(name).is_some())
    }

    fn summary(&mut self, name: SegmentName) -> Result<Summary> {
        if self.old(name).is_none() {
            return self.moments.summary(name);
        }
        let mut summarizer = Summarizer::checking(name, self.size);
        self.read(name, &mut |bytes| summarizer.feed(bytes))?;
        Ok(summarizer.finish())
    }

    fn read(&self, name: SegmentName, sink: &mut dyn FnMut(&[u8])) -> Result<()> {
        match self.old.and_then(|old| old.read(name, sink)) {
            Some(read) => read,
            None => self.moments.read(name, sink),
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

    /// A restore point that crosses a boundary: so short a record leaves little of itself behind it.
    fn at_boundaries(
        &mut self,
        stretch: &Stretch,
        numbers: RangeInclusive<u64>,
        from: Lsn,
        aim: Aim<'_>,
    ) -> Result<Option<Moment>> {
        for number in numbers.skip(1) {
            let Some(name) = stretch.segment(number) else { break };
            let first = self.summary(name)?.first_record;
            let room = first.map_or(0, |first| first.0.saturating_sub(name.start(self.size).0));
            if room > LONG_HEADER && room <= LONG_HEADER + RESTORE_POINT || first.is_none() {
                let found = self.scan(stretch, number.saturating_sub(1)..=number, from, aim)?;
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }
}

/// Segments of the old server count as known: they were followed to their end when they were found.
impl Segments for Reach<'_> {
    fn size(&self) -> SegmentSize {
        self.size
    }

    fn known(&mut self, name: SegmentName) -> Result<Option<Summary>> {
        match self.old(name) {
            Some(_) => self.summary(name).map(Some),
            None => Segments::known(&mut self.moments, name),
        }
    }

    fn look(&mut self, name: SegmentName) -> Result<Summary> {
        match self.old(name) {
            Some(_) => self.summary(name),
            None => Segments::look(&mut self.moments, name),
        }
    }

    fn show(&self, name: SegmentName, sink: &mut dyn FnMut(&[u8])) -> Result<()> {
        self.read(name, sink)
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
        // The last segment that has a time: what crosses a boundary behind it may be earlier than the next time.
        let mut timed = first;
        let mut last = last;
        let mut damage = None;
        for number in numbers {
            let Some(name) = stretch.segment(number) else { break };
            let summary = match self.summary(name) {
                Ok(summary) => summary,
                Err(e) if is_damage(&e) && number > first => {
                    (last, damage) = (number - 1, Some(e));
                    break;
                }
                Err(e) => return Err(e),
            };
            if may_stop(&summary, aim) {
                let is_time = matches!(aim.target, Target::Time(_));
                let begin = if is_time { timed } else { number.saturating_sub(1).max(first) };
                if let Some(found) = self.scan(stretch, begin..=number, from, aim)? {
                    return Ok(Some(found));
                }
            }
            if summary.last_time.is_some() {
                timed = number;
            }
        }
        let found = match aim.target {
            // Times ascend well enough for only a record behind all others to be missed.
            Target::Time(_) => self.scan(stretch, timed..=last, from, aim)?,
            Target::Name(_) => self.at_boundaries(stretch, first..=last, from, aim)?,
            _ => self.scan(stretch, first..=last, from, aim)?,
        };
        match (found, damage) {
            (None, Some(damage)) => Err(damage),
            (found, _) => Ok(found),
        }
    }

    fn end(&mut self, stretch: &Stretch) -> Result<Moment> {
        let key = stretch.segment(stretch.first()).zip(stretch.segment(stretch.last()));
        if let Some(known) = key.and_then(|key| self.ends.get(&key)) {
            return Ok(*known);
        }
        let end = ends::end(self, stretch)?;
        self.ends.extend(key.map(|key| (key, end)));
        Ok(end)
    }

    fn last_start(&mut self, stretch: &Stretch) -> Result<Option<Lsn>> {
        let last = stretch.last();
        for back in [1, MAX_READS] {
            let first = last.saturating_sub(back).max(stretch.first());
            let mut reader = WalReader::new(self.size.start_of(first), self.size, false);
            let mut found = None;
            for number in first..=last {
                let Some(name) = stretch.segment(number) else { break };
                match self
                    .read(name, &mut |bytes| reader.feed(bytes, &mut |record| found = Some(record.start)))
                {
                    // What comes before it counts.
                    Err(e) if is_damage(&e) => break,
                    read => read?,
                }
            }
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn torn(&mut self, stretch: &Stretch, numbers: Range<u64>) -> Result<Option<(SegmentName, String)>> {
        let old = self.old;
        let is_stored = |name: &SegmentName| old.is_none_or(|old| old.usable(*name).is_none());
        let names = numbers.filter_map(|number| stretch.segment(number)).filter(is_stored);
        Ok(self.moments.breaks(names)?.into_iter().next())
    }

    fn last_before(&mut self, stretch: &Stretch, lsn: Lsn) -> Result<Option<i64>> {
        ends::last_before(self, stretch, lsn)
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

#[cfg(test)]
#[path = "reach_tests.rs"]
mod tests;
