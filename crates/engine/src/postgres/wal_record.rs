//! WAL records: what one says, and when it is valid. [`WalReader`] finds them; [`Event`] is what recovery looks for.
//!
//! Source: `access/xlogrecord.h` (layout), `ValidXLogRecordHeader` and `ValidXLogRecord` in `xlogreader.c`.

use super::bytes::{u16_at, u32_at, u64_at};
use super::wal_event::PreparedXid;
pub use super::wal_event::{Event, from_utc, to_utc};
use super::wal_page::Kept;
pub use super::wal_reader::WalReader;
use pg_ark_contract::units::Lsn;

/// Bytes of a record's header (`SizeOfXLogRecord`).
pub(super) const RECORD_HEADER: usize = 24;
/// Where `xl_crc` is in it.
const CRC_AT: usize = 20;
/// Bytes kept of a record that comes in pieces: the header, and enough of the data for every event.
const KEPT: usize = 256;

/// The last resource manager of PostgreSQL itself (`RM_MAX_BUILTIN_ID`), and the first of an extension
/// (`RM_MIN_CUSTOM_ID`, access/rmgr.h).
const LAST_BUILTIN_RMGR: u8 = 21;
const FIRST_CUSTOM_RMGR: u8 = 128;

/// What introduces a record's main data, and what can come before (`XLR_BLOCK_ID_...`).
const DATA_SHORT: u8 = 255;
const DATA_LONG: u8 = 254;
const ORIGIN: u8 = 253;
const TOPLEVEL_XID: u8 = 252;

/// A whole record.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// LSN of its first byte.
    pub start: Lsn,
    /// Where recovery that stops after this record ends (`EndRecPtr`): the 8-byte boundary behind it; behind a switch
    /// the end of the segment.
    pub end: Lsn,
    /// Resource manager (access/rmgrlist.h).
    pub rmgr: u8,
    /// `xl_info`.
    pub info: u8,
    /// Transaction that wrote it; 0 for none.
    pub xid: u32,
    /// `xl_tot_len`: bytes of header and data, without page headers.
    pub length: u32,
    /// All of it, or its beginning.
    bytes: &'a [u8],
    pub(super) prepared_xid: Option<u32>,
}

impl<'a> Record<'a> {
    pub(super) fn new(
        start: u64,
        end: u64,
        header: Header,
        bytes: &'a [u8],
        prepared_xid: Option<u32>,
    ) -> Self {
        let Header { length, xid, info, rmgr, .. } = header;
        Record { start: Lsn(start), end: Lsn(end), rmgr, info, xid, length, bytes, prepared_xid }
    }

    /// The first bytes of the main data of a record that refers to no pages; empty for any other. At least 200 bytes
    /// if it has as many.
    pub fn main_data(&self) -> &'a [u8] {
        main_data(self.bytes).unwrap_or_default()
    }
}

/// Main data in the first bytes of a record.
pub(super) fn main_data(record: &[u8]) -> Option<&[u8]> {
    let mut at = RECORD_HEADER;
    loop {
        let (begin, length) = match *record.get(at)? {
            DATA_SHORT => (at + 2, usize::from(*record.get(at + 1)?)),
            DATA_LONG => (at + 5, usize::try_from(u32_at(record, at + 1)?).ok()?),
            ORIGIN => {
                at += 3;
                continue;
            }
            TOPLEVEL_XID => {
                at += 5;
                continue;
            }
            _ => return None,
        };
        let data = record.get(begin..)?;
        return data.get(..length.min(data.len()));
    }
}

/// Fields of `XLogRecord`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) length: u32,
    pub(super) xid: u32,
    pub(super) previous: u64,
    pub(super) info: u8,
    pub(super) rmgr: u8,
    pub(super) crc: u32,
}

impl Header {
    /// `None` when there are fewer bytes than a header has.
    #[inline]
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<RECORD_HEADER>()?;
        let [info, rmgr] = u16_at(bytes, 16)?.to_le_bytes();
        Some(Header {
            length: u32_at(bytes, 0)?,
            xid: u32_at(bytes, 4)?,
            previous: u64_at(bytes, 8)?,
            info,
            rmgr,
            crc: u32_at(bytes, CRC_AT)?,
        })
    }

    /// As `ValidXLogRecordHeader`, for a record at `start` behind the one at `previous`, if that was seen.
    #[inline]
    pub(super) fn check(&self, start: u64, previous: Option<u64>) -> Result<(), Stop> {
        check_length(start, self.length)?;
        if self.rmgr > LAST_BUILTIN_RMGR && self.rmgr < FIRST_CUSTOM_RMGR {
            return stop(start, format!("the record's resource manager is {}", self.rmgr));
        }
        let follows = match previous {
            Some(previous) => self.previous == previous,
            None => self.previous < start,
        };
        match follows {
            true => Ok(()),
            false => {
                stop(start, format!("the record says that it follows the one at {}", Lsn(self.previous)))
            }
        }
    }

    /// As `ValidXLogRecord`; `record` begins with the header, `data_crc` is the sum of what follows it.
    pub(super) fn check_crc(&self, start: u64, record: &[u8], data_crc: u32) -> Result<(), Stop> {
        let covered = record.get(..CRC_AT).unwrap_or_default();
        match crc32c::crc32c_append(data_crc, covered) == self.crc {
            true => Ok(()),
            false => stop(start, "the record's checksum is wrong"),
        }
    }
}

/// A record that comes in pieces.
#[derive(Debug, Clone)]
pub(super) struct Partial {
    pub(super) start: u64,
    pub(super) kept: Kept<KEPT>,
    pub(super) header: Option<Header>,
    pub(super) length: u32,
    pub(super) got: u64,
    pub(super) crc: u32,
    pub(super) prepared: Option<PreparedXid>,
}

impl Partial {
    pub(super) fn new(start: u64) -> Self {
        Partial { start, kept: Kept::new(), header: None, length: 0, got: 0, crc: 0, prepared: None }
    }

    /// Takes data behind the header, until the record's end.
    pub(super) fn take(&mut self, bytes: &[u8], with_crc: bool) -> usize {
        let left = u64::from(self.length).saturating_sub(self.got);
        let piece =
            bytes.get(..bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX))).unwrap_or_default();
        if with_crc {
            self.crc = crc32c::crc32c_append(self.crc, piece);
        }
        let was_kept = self.kept.get().len();
        let kept = self.kept.fill(KEPT, piece);
        self.got += piece.len() as u64;
        let is_complete = self.got == u64::from(self.length);
        if let Some(prepared) = &mut self.prepared {
            // Where the main data begins is known once enough is kept.
            if was_kept < KEPT && (is_complete || self.kept.get().len() == KEPT) {
                prepared.feed(main_data(self.kept.get()).unwrap_or_default());
            }
            prepared.feed(piece.get(kept..).unwrap_or_default());
        }
        piece.len()
    }
}

/// Why the records end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// LSN of the record or page that is not valid.
    pub lsn: Lsn,
    /// What is wrong with it: a sentence's end, for people.
    pub why: String,
}

pub(super) fn stop<T>(lsn: u64, why: impl Into<String>) -> Result<T, Stop> {
    Err(Stop { lsn: Lsn(lsn), why: why.into() })
}

/// Whether a record can be so long.
#[inline]
pub(super) fn check_length(start: u64, length: u32) -> Result<(), Stop> {
    match length {
        0 => stop(start, "no record is written there"),
        length if (length as usize) < RECORD_HEADER => {
            stop(start, format!("the record's length is {length}"))
        }
        _ => Ok(()),
    }
}
