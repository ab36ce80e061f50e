//! Page headers of WAL, in the order in which a reader meets them.
//!
//! Source: `XLogPageHeaderData` and `XLogLongPageHeaderData` in `access/xlog_internal.h`; what a header must say follows
//! `XLogReaderValidatePageHeader` in `xlogreader.c`.

use super::bytes::{u16_at, u32_at, u64_at};
use super::wal_segment::{ALL_FLAGS, HAS_LONG_HEADER, server_major_of};
use pg_ark_contract::units::{Lsn, SegmentSize};

/// Bytes of a page header (`SizeOfXLogShortPHD`).
pub(super) const SHORT_HEADER: usize = 24;
/// Bytes of a page header with identity, as on the first page of a segment (`SizeOfXLogLongPHD`).
pub(super) const LONG_HEADER: usize = 40;

/// The page begins with the rest of a record (`XLP_FIRST_IS_CONTRECORD`).
const FIRST_IS_CONTINUED: u16 = 0x0001;
/// The page begins with a record in place of the rest that was lost (`XLP_FIRST_IS_OVERWRITE_CONTRECORD`).
const FIRST_IS_OVERWRITE: u16 = 0x0008;

/// Page sizes that a server can be built with (`--with-wal-blocksize`), in bytes.
const BLOCK_SIZES: std::ops::RangeInclusive<u32> = 1 << 10..=64 << 10;

/// The first bytes of something that arrives in pieces.
#[derive(Debug, Clone)]
pub(super) struct Kept<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Kept<N> {
    pub(super) fn new() -> Self {
        Kept { bytes: [0; N], len: 0 }
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    pub(super) fn get(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Takes from `bytes` until `upto` bytes are kept, or `N`; returns how many it took.
    pub(super) fn fill(&mut self, upto: usize, bytes: &[u8]) -> usize {
        let take = upto.min(N).saturating_sub(self.len).min(bytes.len());
        let to = self.bytes.get_mut(self.len..self.len + take);
        if let (Some(to), Some(from)) = (to, bytes.get(..take)) {
            to.copy_from_slice(from);
        }
        self.len += take;
        take
    }
}

/// How a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begins {
    /// With a record.
    Record,
    /// With a record that stands for the lost rest of the one before.
    Overwrite,
    /// With the rest of a record, so many bytes of it.
    Continued(u32),
}

/// Bytes of a page header whose first [`SHORT_HEADER`] bytes are given.
pub(super) fn header_size(short: &[u8]) -> usize {
    match u16_at(short, 2) {
        Some(info) if info & HAS_LONG_HEADER != 0 => LONG_HEADER,
        _ => SHORT_HEADER,
    }
}

/// What every page of one stream has in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    magic: u16,
    system_identifier: u64,
    block_size: u32,
}

/// Checks page after page.
#[derive(Debug, Clone)]
pub(super) struct Pages {
    segment_size: SegmentSize,
    identity: Option<Identity>,
    timeline: u32,
}

impl Pages {
    pub(super) fn new(segment_size: SegmentSize) -> Self {
        Pages { segment_size, identity: None, timeline: 0 }
    }

    /// Bytes in a page; 0 before the first one.
    pub(super) fn block_size(&self) -> u64 {
        self.identity.map_or(0, |identity| u64::from(identity.block_size))
    }

    /// Major version of the server that wrote the pages; 0 before the first one.
    pub(super) fn server_major(&self) -> u32 {
        self.identity.and_then(|identity| server_major_of(identity.magic)).unwrap_or(0)
    }

    /// Checks the header of the page at `at`; says how the page begins, or what is wrong with it.
    pub(super) fn check(&mut self, at: Lsn, header: &[u8]) -> Result<Begins, String> {
        let fields = || {
            Some((
                u16_at(header, 0)?,
                u16_at(header, 2)?,
                u32_at(header, 4)?,
                u64_at(header, 8)?,
                u32_at(header, 16)?,
            ))
        };
        let (magic, info, timeline, address, remaining) = fields().ok_or("it is cut off")?;
        if server_major_of(magic).is_none() || self.identity.is_some_and(|known| known.magic != magic) {
            return Err(match magic {
                0 => "nothing is written there".to_owned(),
                _ => format!("it has the magic number {magic:04X}"),
            });
        }
        if info & !ALL_FLAGS != 0 {
            return Err(format!("it has the flags {info:04X}"));
        }
        let begins_segment = at.0.is_multiple_of(self.segment_size.bytes());
        if self.identity.is_none() && !begins_segment {
            return Err("reading cannot begin inside a segment".to_owned());
        }
        if info & HAS_LONG_HEADER != 0 {
            self.check_identity(magic, header)?;
        } else if begins_segment {
            return Err("the first page of a segment has no long header".to_owned());
        }
        // As in a recycled segment that has not been written to yet.
        if address != at.0 {
            return Err(format!("it is the page of {}", Lsn(address)));
        }
        if timeline == 0 || timeline < self.timeline {
            return Err(format!(
                "it is of timeline {timeline}, the page before of timeline {}",
                self.timeline
            ));
        }
        self.timeline = timeline;
        Ok(if info & FIRST_IS_OVERWRITE != 0 {
            Begins::Overwrite
        } else if info & FIRST_IS_CONTINUED != 0 {
            Begins::Continued(remaining)
        } else {
            Begins::Record
        })
    }

    fn check_identity(&mut self, magic: u16, header: &[u8]) -> Result<(), String> {
        let fields = || Some((u64_at(header, 24)?, u32_at(header, 32)?, u32_at(header, 36)?));
        let (system_identifier, segment_size, block_size) = fields().ok_or("it is cut off")?;
        if u64::from(segment_size) != self.segment_size.bytes() {
            return Err(format!("it was made for segments of {segment_size} bytes"));
        }
        if !block_size.is_power_of_two() || !BLOCK_SIZES.contains(&block_size) {
            return Err(format!("{block_size} is not a valid WAL page size"));
        }
        let found = Identity { magic, system_identifier, block_size };
        match self.identity.replace(found) {
            Some(known) if known.system_identifier != system_identifier => {
                Err(format!("it belongs to system identifier {system_identifier}"))
            }
            Some(known) if known != found => Err(format!("it was made for pages of {block_size} bytes")),
            _ => Ok(()),
        }
    }
}
