//! What one segment holds: computed from its bytes as they pass on their way into the archive, without another read.
//!
//! Nothing is judged here: a segment that ends early gives a summary that says so. Checksums of records are left out,
//! because this runs for every segment that is stored; `verify` follows them.

use crate::postgres::wal_record::{Event, Record, WalReader};
use crate::postgres::wal_segment::SegmentName;
use pg_ark_contract::{Lsn, SegmentSize};

/// Most restore points that a summary names.
pub const MAX_RESTORE_POINTS: usize = 100;

/// Years 0 to 9999, which RFC 3339 can write, in microseconds since 2000-01-01 UTC. Times outside count as these.
const EARLIEST: i64 = -63_113_904_000_000_000;
const LATEST: i64 = 252_455_615_999_999_999;

/// A named restore point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePoint {
    /// Its name; what is not UTF-8 is replaced.
    pub name: String,
    /// What `pg_create_restore_point` returned: the end of its record.
    pub lsn: Lsn,
    /// When, in microseconds since 2000-01-01 UTC.
    pub time: i64,
}

/// What one segment holds: of records that begin and end in it. What a record says is at its beginning, so one that
/// crosses a boundary is in no summary, though its end counts for [`Summary::end`]; whoever must not miss one reads the
/// segments on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Committed transactions.
    pub commits: u64,
    /// Earliest and latest time of commits, aborts and restore points, in microseconds since 2000-01-01 UTC. Times do
    /// not ascend strictly from record to record.
    pub first_time: Option<i64>,
    /// See `first_time`.
    pub last_time: Option<i64>,
    /// Smallest and largest transaction that ended. Numbers wrap around, so the range may hold numbers that ended
    /// elsewhere; it lacks only those whose record crosses a boundary.
    pub min_xid: Option<u32>,
    /// See `min_xid`.
    pub max_xid: Option<u32>,
    /// Restore points in order, at most [`MAX_RESTORE_POINTS`].
    pub restore_points: Vec<RestorePoint>,
    /// There are more restore points than that: the segment itself knows them.
    pub more_restore_points: bool,
    /// End of the last whole record; the start of the segment when none ends in it.
    pub end: Lsn,
    /// Start of the first record that begins and ends in it.
    pub first_record: Option<Lsn>,
    /// Records go on to the end of the segment: the last one ends there, or goes on in the next one, or is a switch.
    pub whole: bool,
}

/// Computes a [`Summary`].
#[derive(Debug, Clone)]
pub struct Summarizer {
    reader: WalReader,
    /// Bytes of the segment that have not come yet.
    left: u64,
    summary: Summary,
}

impl Summarizer {
    /// For the segment `name`. The chain of records is followed, their content is not looked at.
    pub fn new(name: SegmentName, size: SegmentSize) -> Self {
        Summarizer::with(name, size, false)
    }

    /// For the segment `name`, with the CRC of every record: what was torn by a crash ends it, as it ends recovery.
    pub fn checking(name: SegmentName, size: SegmentSize) -> Self {
        Summarizer::with(name, size, true)
    }

    fn with(name: SegmentName, size: SegmentSize, check_crc: bool) -> Self {
        let start = name.start(size);
        let summary = Summary {
            commits: 0,
            first_time: None,
            last_time: None,
            min_xid: None,
            max_xid: None,
            restore_points: Vec::new(),
            more_restore_points: false,
            end: start,
            first_record: None,
            whole: false,
        };
        Summarizer { reader: WalReader::new(start, size, check_crc), left: size.bytes(), summary }
    }

    /// Reads the next bytes of the segment.
    pub fn feed(&mut self, bytes: &[u8]) {
        let take = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let bytes = bytes.get(..take).unwrap_or_default();
        self.left -= take as u64;
        let summary = &mut self.summary;
        self.reader.feed(bytes, &mut |record| summary.add(record));
    }

    /// The summary of what was read.
    pub fn finish(self) -> Summary {
        let mut summary = self.summary;
        summary.end = self.reader.end().unwrap_or(summary.end);
        summary.whole = self.left == 0 && self.reader.stopped().is_none();
        summary
    }
}

impl Summary {
    fn add(&mut self, record: &Record<'_>) {
        self.first_record.get_or_insert(record.start);
        match record.event() {
            None | Some(Event::Switch) => {}
            Some(Event::Commit { xid, time }) => {
                self.commits += 1;
                self.ended(xid);
                self.at(time);
            }
            Some(Event::Abort { xid, time }) => {
                self.ended(xid);
                self.at(time);
            }
            Some(Event::RestorePoint { name, time }) => {
                let time = self.at(time);
                if self.restore_points.len() < MAX_RESTORE_POINTS {
                    let name = String::from_utf8_lossy(name).into_owned();
                    self.restore_points.push(RestorePoint { name, lsn: record.end, time });
                } else {
                    self.more_restore_points = true;
                }
            }
        }
    }

    fn ended(&mut self, xid: u32) {
        if xid != 0 {
            self.min_xid = Some(self.min_xid.map_or(xid, |min| min.min(xid)));
            self.max_xid = Some(self.max_xid.map_or(xid, |max| max.max(xid)));
        }
    }

    fn at(&mut self, time: i64) -> i64 {
        let time = time.clamp(EARLIEST, LATEST);
        self.first_time = Some(self.first_time.map_or(time, |first| first.min(time)));
        self.last_time = Some(self.last_time.map_or(time, |last| last.max(time)));
        time
    }
}

#[cfg(test)]
#[path = "summary_tests.rs"]
mod tests;
