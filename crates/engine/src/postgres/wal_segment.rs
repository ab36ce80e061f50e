//! WAL segment files: their names, and the header of their first page.
//!
//! Source: `access/xlog_internal.h` (`XLogFileName`, `IsXLogFileName` and its neighbours, `XLogLongPageHeaderData`,
//! `XLOG_PAGE_MAGIC`); what a first page must say follows `XLogReaderValidatePageHeader` in `xlogreader.c`.

use super::bytes::{u16_at, u32_at, u64_at};
use super::timeline::TimelineHistory;
use pg_ark_contract::errors::{Error, ErrorKind, Result};
use pg_ark_contract::units::{Lsn, SegmentSize, Timeline};

/// Which segment of which timeline: what a WAL file's name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// Timeline of the file. Its first pages can still come from an ancestor.
    pub timeline: Timeline,
    /// Number of the segment, counted from LSN 0/0 on.
    pub number: u64,
}

impl SegmentName {
    /// The name of the file: 24 hexadecimal digits, such as `000000010000000000000004`.
    pub fn file_name(&self, size: SegmentSize) -> String {
        let per_log = segments_per_log(size);
        format!("{:08X}{:08X}{:08X}", self.timeline.0, self.number / per_log, self.number % per_log)
    }

    /// Reads the name of a segment file; `None` if it is not one, or not one of this segment size.
    pub fn parse(name: &str, size: SegmentSize) -> Option<Self> {
        if !is_segment(name) {
            return None;
        }
        let part = |at: usize| u32::from_str_radix(name.get(at..at + 8)?, 16).ok();
        let (timeline, log, segment) = (part(0)?, u64::from(part(8)?), u64::from(part(16)?));
        if timeline == 0 || segment >= segments_per_log(size) {
            return None;
        }
        Some(SegmentName { timeline: Timeline(timeline), number: log * segments_per_log(size) + segment })
    }

    /// LSN of the segment's first byte.
    pub fn start(&self, size: SegmentSize) -> Lsn {
        size.start_of(self.number)
    }

    /// The segment that follows on the same timeline.
    pub fn next(&self) -> Self {
        SegmentName { timeline: self.timeline, number: self.number.saturating_add(1) }
    }
}

/// Segments that share the middle part of their name (`XLogSegmentsPerXLogId`).
fn segments_per_log(size: SegmentSize) -> u64 {
    (1 << 32) / size.bytes()
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
}

/// Whether the name is that of a segment (`IsXLogFileName`).
pub fn is_segment(name: &str) -> bool {
    is_hex(name, 24)
}

/// Whether the name is that of an incomplete last segment, such as a promotion leaves (`IsPartialXLogFileName`).
pub fn is_partial(name: &str) -> bool {
    name.strip_suffix(".partial").is_some_and(is_segment)
}

/// Whether the name is that of a timeline history file (`IsTLHistoryFileName`).
pub fn is_history(name: &str) -> bool {
    name.strip_suffix(".history").is_some_and(|stem| is_hex(stem, 8))
}

/// Whether the name is that of a backup history file, such as `000000010000000000000004.00000028.backup`.
pub fn is_backup_history(name: &str) -> bool {
    name.strip_suffix(".backup")
        .and_then(|stem| stem.split_once('.'))
        .is_some_and(|(segment, offset)| is_segment(segment) && is_hex(offset, 8))
}

/// The page has a long header (`XLP_LONG_HEADER`).
pub const HAS_LONG_HEADER: u16 = 0x0002;
/// Every flag that PostgreSQL 15 to 18 define (`XLP_ALL_FLAGS`).
pub const ALL_FLAGS: u16 = 0x000F;

/// `XLOG_PAGE_MAGIC` of each major version.
const MAGIC: [(u32, u16); 4] = [(15, 0xD110), (16, 0xD113), (17, 0xD116), (18, 0xD118)];

/// The magic number on WAL pages of a major version.
pub fn magic_of(server_major: u32) -> Option<u16> {
    MAGIC.iter().find(|(major, _)| *major == server_major).map(|(_, magic)| *magic)
}

/// The major version whose WAL pages carry a magic number.
pub fn server_major_of(magic: u16) -> Option<u32> {
    MAGIC.iter().find(|(_, known)| *known == magic).map(|(major, _)| *major)
}

/// The header of a segment's first page (`XLogLongPageHeaderData`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongHeader {
    /// `XLOG_PAGE_MAGIC` of the server that wrote it.
    pub magic: u16,
    /// Flags, see [`ALL_FLAGS`].
    pub info: u16,
    /// Timeline of the page's first record.
    pub timeline: Timeline,
    /// LSN of the page.
    pub page_address: Lsn,
    /// Bytes that the record begun on an earlier page still has.
    pub remaining_length: u32,
    /// Identity of the cluster.
    pub system_identifier: u64,
    /// Bytes in a segment.
    pub segment_size: u32,
    /// Bytes in a WAL page.
    pub block_size: u32,
}

impl LongHeader {
    /// Reads the first 40 bytes of a segment.
    ///
    /// # Errors
    /// `Corrupt` if there are fewer bytes, the magic number is unknown, or the page has no long header.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let header = Self::fields(bytes).ok_or_else(|| {
            corrupt(format!("it has only {} bytes where a page header should be", bytes.len()))
        })?;
        if server_major_of(header.magic).is_none() {
            return Err(corrupt(format!("{:04X} is not the magic number of a known version", header.magic))
                .hint(
                    "A segment that was never written has zeros there. pg_ark reads PostgreSQL 15 to 18.",
                ));
        }
        if header.info & HAS_LONG_HEADER == 0 || header.info & !ALL_FLAGS != 0 {
            return Err(corrupt(format!("its first page has the flags {:04X}", header.info)));
        }
        Ok(header)
    }

    fn fields(bytes: &[u8]) -> Option<Self> {
        Some(LongHeader {
            magic: u16_at(bytes, 0)?,
            info: u16_at(bytes, 2)?,
            timeline: Timeline(u32_at(bytes, 4)?),
            page_address: Lsn(u64_at(bytes, 8)?),
            remaining_length: u32_at(bytes, 16)?,
            system_identifier: u64_at(bytes, 24)?,
            segment_size: u32_at(bytes, 32)?,
            block_size: u32_at(bytes, 36)?,
        })
    }
}

/// What the first page of a segment must say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpectedSegment {
    /// The segment that the file's name promises.
    pub name: SegmentName,
    /// Segment size of the cluster.
    pub segment_size: SegmentSize,
    /// Identity of the cluster.
    pub system_identifier: u64,
    /// Major version of the server, where known.
    pub server_major: Option<u32>,
}

/// Checks that a segment's first page belongs to the cluster and to the file's name. Later pages are not judged:
/// PostgreSQL archives segments with stale or zeroed pages behind their last record.
///
/// # Errors
/// `ForeignCluster` if the system identifier differs, `Corrupt` if anything else does.
pub fn check_first_page(bytes: &[u8], expected: &ExpectedSegment) -> Result<()> {
    let header = LongHeader::parse(bytes).map_err(|error| named(error, expected))?;
    let fail = |what: String| Err(named(corrupt(what), expected));
    if header.system_identifier != expected.system_identifier {
        let message = format!(
            "WAL segment {} belongs to system identifier {}, not {}",
            expected.name.file_name(expected.segment_size),
            header.system_identifier,
            expected.system_identifier
        );
        return Err(Error::new(ErrorKind::ForeignCluster, message)
            .hint("Give each cluster its own name in the repository (pg_ark.cluster)."));
    }
    if let Some(major) = expected.server_major.filter(|major| magic_of(*major) != Some(header.magic)) {
        return fail(format!("its magic number {:04X} is not that of PostgreSQL {major}", header.magic));
    }
    if u64::from(header.segment_size) != expected.segment_size.bytes() {
        return fail(format!("it was made for segments of {} bytes", header.segment_size));
    }
    if !header.block_size.is_power_of_two() || !(1 << 10..=64 << 10).contains(&header.block_size) {
        return fail(format!("{} is not a valid WAL page size", header.block_size));
    }
    let start = expected.name.start(expected.segment_size);
    if header.page_address != start {
        return fail(format!("its first page is the one of {}, not {start}", header.page_address));
    }
    // A new timeline begins with a copy of the segment in which it branched off, so the page can be older than the name.
    if header.timeline.0 == 0 || header.timeline > expected.name.timeline {
        return fail(format!("its first page is of timeline {}", header.timeline));
    }
    Ok(())
}

/// As [`check_first_page`], and the page is of the timeline that the history of the name's timeline has at that address:
/// the timeline itself, but in the segment in which it branched off, and before, the ancestor that was left there.
/// A segment of a sibling passes the plain check; PostgreSQL ends recovery at its first record ("unexpected timeline ID"
/// in `ReadRecord`, xlogrecovery.c).
///
/// # Errors
/// As [`check_first_page`].
pub fn check_first_page_on(
    bytes: &[u8],
    expected: &ExpectedSegment,
    history: &TimelineHistory,
) -> Result<()> {
    check_first_page(bytes, expected)?;
    let header = LongHeader::parse(bytes).map_err(|error| named(error, expected))?;
    let timeline = history.timeline_of(expected.name.start(expected.segment_size));
    if history.timeline != expected.name.timeline || header.timeline == timeline {
        return Ok(());
    }
    let what = format!(
        "its first page is of timeline {}, by the history of timeline {} it should be of {timeline}",
        header.timeline, history.timeline
    );
    Err(named(corrupt(what), expected)
        .hint("Another timeline's segment is in its place: get the right one back from a copy."))
}

fn named(error: Error, expected: &ExpectedSegment) -> Error {
    let name = expected.name.file_name(expected.segment_size);
    Error { message: error.message.replacen("WAL segment", &format!("WAL segment {name}"), 1), ..error }
}

fn corrupt(what: String) -> Error {
    Error::new(ErrorKind::Corrupt, format!("WAL segment is damaged: {what}"))
}

#[cfg(test)]
#[path = "wal_segment_tests.rs"]
mod tests;
