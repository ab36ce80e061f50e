//! What WAL records say that matters for recovery targets: ends of transactions, restore points, segment switches.
//!
//! Sources: `access/xact.h` (commit and abort records), `ParseCommitRecord` and `ParseAbortRecord` in `xactdesc.c`,
//! `xl_restore_point` in `access/xlog_internal.h`, `catalog/pg_control.h` (kinds of XLOG records). Which of them
//! count, and for what: `getRecordTimestamp`, `recoveryStopsBefore` and `recoveryStopsAfter` in `xlogrecovery.c`.

use super::bytes::{array_at, u32_at};
use super::wal_page::Kept;
use super::wal_record::Record;
use chrono::{DateTime, Utc};

/// `RM_XLOG_ID` and `RM_XACT_ID` (access/rmgrlist.h).
const RM_XLOG: u8 = 0;
const RM_XACT: u8 = 1;

/// Bits of `xl_info` that a resource manager owns (`XLR_RMGR_INFO_MASK`, access/xlogrecord.h).
const RMGR_INFO: u8 = 0xF0;
const XLOG_SWITCH: u8 = 0x40;
const XLOG_RESTORE_POINT: u8 = 0x70;

/// `XLOG_XACT_OPMASK` and the kinds under it; `XLOG_XACT_HAS_INFO`.
const XACT_KIND: u8 = 0x70;
const XACT_COMMIT: u8 = 0x00;
const XACT_ABORT: u8 = 0x20;
const XACT_COMMIT_PREPARED: u8 = 0x30;
const XACT_ABORT_PREPARED: u8 = 0x40;
const XACT_HAS_INFO: u8 = 0x80;

/// Bits of `xl_xact_xinfo`.
const HAS_DATABASE: u32 = 1 << 0;
const HAS_SUBTRANSACTIONS: u32 = 1 << 1;
const HAS_RELATIONS: u32 = 1 << 2;
const HAS_INVALIDATIONS: u32 = 1 << 3;
const HAS_PREPARED_XID: u32 = 1 << 4;
const HAS_DROPPED_STATISTICS: u32 = 1 << 8;

/// Bytes of a restore point's name (`MAXFNAMELEN`, access/xlog_internal.h, with its zero).
const LONGEST_NAME: usize = 63;
/// Seconds from 1970-01-01 to 2000-01-01, where PostgreSQL's time begins (datatype/timestamp.h).
const EPOCH: i64 = 946_684_800;

/// Something that a recovery target can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A transaction was committed.
    Commit {
        /// The transaction that a target would name: of a prepared transaction its own, not that of the command.
        /// 0 when the record does not say.
        xid: u32,
        /// When, in microseconds since 2000-01-01 UTC; [`to_utc`] turns it into a time.
        time: i64,
    },
    /// A transaction was rolled back.
    Abort {
        /// As for a commit.
        xid: u32,
        /// As for a commit.
        time: i64,
    },
    /// `pg_create_restore_point` was called.
    RestorePoint {
        /// Its name, at most 63 bytes, in the encoding of the database where it was made.
        name: &'a [u8],
        /// When, in microseconds since 2000-01-01 UTC.
        time: i64,
    },
    /// The rest of the segment is not used.
    Switch,
}

/// The time of a record; `None` when it is outside of what chrono can hold.
pub fn to_utc(microseconds_since_2000: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(microseconds_since_2000.checked_add(EPOCH * 1_000_000)?)
}

/// The inverse of [`to_utc`].
pub fn from_utc(time: DateTime<Utc>) -> i64 {
    time.timestamp_micros().saturating_sub(EPOCH * 1_000_000)
}

/// Whether the record is an XLOG_SWITCH.
pub(super) fn is_switch(rmgr: u8, info: u8) -> bool {
    rmgr == RM_XLOG && info & RMGR_INFO == XLOG_SWITCH
}

impl<'a> Record<'a> {
    /// What a recovery target can name in this record, if anything.
    pub fn event(&self) -> Option<Event<'a>> {
        match self.rmgr {
            RM_XLOG => match self.info & RMGR_INFO {
                XLOG_SWITCH => Some(Event::Switch),
                XLOG_RESTORE_POINT => {
                    let data = self.main_data();
                    let name = data.get(8..)?.split(|byte| *byte == 0).next()?;
                    let name = name.get(..LONGEST_NAME).unwrap_or(name);
                    Some(Event::RestorePoint { name, time: i64_at(data)? })
                }
                _ => None,
            },
            RM_XACT => {
                let xid = self.prepared_xid.unwrap_or(self.xid);
                match self.info & XACT_KIND {
                    XACT_COMMIT | XACT_COMMIT_PREPARED => {
                        Some(Event::Commit { xid, time: i64_at(self.main_data())? })
                    }
                    XACT_ABORT | XACT_ABORT_PREPARED => {
                        Some(Event::Abort { xid, time: i64_at(self.main_data())? })
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

fn i64_at(data: &[u8]) -> Option<i64> {
    array_at(data, 0).map(i64::from_le_bytes)
}

/// Arrays that can lie before the XID of a prepared transaction, in their order: flag, and bytes of an element.
const ARRAYS: [(u32, u64); 4] =
    [(HAS_SUBTRANSACTIONS, 4), (HAS_RELATIONS, 12), (HAS_DROPPED_STATISTICS, 12), (HAS_INVALIDATIONS, 16)];

/// Bytes of `xl_xact_stats_item` since PostgreSQL 18.
const STATISTICS_ITEM_18: u64 = 16;

/// Finds the XID of a prepared transaction in the main data of the record that ends it, which arrives in pieces: it
/// lies behind arrays of any length.
#[derive(Debug, Clone)]
pub(super) struct PreparedXid {
    server_major: u32,
    is_abort: bool,
    /// Offset of the next byte, and of the field that is waited for.
    at: u64,
    next: u64,
    field: Kept<4>,
    flags: Option<u32>,
    /// The array whose count is waited for; beyond the last one the XID.
    array: usize,
    found: Option<u32>,
}

impl PreparedXid {
    /// `None` when the record does not end a prepared transaction.
    pub(super) fn of(rmgr: u8, info: u8, server_major: u32) -> Option<Self> {
        let is_abort = info & XACT_KIND == XACT_ABORT_PREPARED;
        if rmgr != RM_XACT || !(is_abort || info & XACT_KIND == XACT_COMMIT_PREPARED) {
            return None;
        }
        // The flags follow the time.
        let next = if info & XACT_HAS_INFO != 0 { 8 } else { u64::MAX };
        let (at, field, flags, array, found) = (0, Kept::new(), None, 0, None);
        Some(PreparedXid { server_major, is_abort, at, next, field, flags, array, found })
    }

    /// The XID, 0 if it was not there or has not come yet.
    pub(super) fn xid(&self) -> u32 {
        self.found.unwrap_or(0)
    }

    /// Reads the next bytes of the main data.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while self.found.is_none() && !bytes.is_empty() {
            let used = if self.at < self.next {
                bytes.len().min(usize::try_from(self.next - self.at).unwrap_or(usize::MAX))
            } else {
                self.field.fill(4, bytes)
            };
            self.at = self.at.saturating_add(used as u64);
            bytes = bytes.get(used..).unwrap_or_default();
            if let Some(value) = u32_at(self.field.get(), 0) {
                self.field.clear();
                self.take(value);
            }
        }
    }

    fn take(&mut self, value: u32) {
        self.next = match self.flags {
            None => {
                self.flags = Some(value);
                let database = if value & HAS_DATABASE != 0 { 8 } else { 0 };
                self.at + database
            }
            Some(_) => match ARRAYS.get(self.array) {
                Some((flag, size)) => {
                    self.array += 1;
                    let old = *flag != HAS_DROPPED_STATISTICS || self.server_major < 18;
                    let size = if old { *size } else { STATISTICS_ITEM_18 };
                    self.at.saturating_add(u64::from(value) * size)
                }
                None => {
                    self.found = Some(value);
                    self.at
                }
            },
        };
        let flags = self.flags.unwrap_or(0);
        let is_there = |flag: u32| flags & flag != 0 && !(self.is_abort && flag == HAS_INVALIDATIONS);
        while ARRAYS.get(self.array).is_some_and(|(flag, _)| !is_there(*flag)) {
            self.array += 1;
        }
        if self.array >= ARRAYS.len() && flags & HAS_PREPARED_XID == 0 {
            self.next = u64::MAX;
        }
    }
}

#[cfg(test)]
#[path = "wal_event_tests.rs"]
mod tests;
