//! Rows in the pages of a table, and whether they count.
//!
//! Sources: `PageHeaderData` in `storage/bufpage.h`, `ItemIdData` in `storage/itemid.h`, `HeapTupleHeaderData` and the
//! `HEAP_*` bits in `access/htup_details.h`, `clog.c` in `access/transam` (PostgreSQL 15 to 18 agree). The judgement
//! of a row follows `HeapTupleSatisfiesMVCC` without snapshots and members of multixacts: good enough to name things.

use super::bytes::{u16_at, u32_at};

/// Bytes of a page before its line pointers (`SizeOfPageHeaderData`).
const PAGE_HEADER: usize = 24;
/// Offset of `pd_lower`, the end of the line pointers.
const LOWER_AT: usize = 12;
const LINE_POINTER: usize = 4;
/// The line pointer leads to a row (`LP_NORMAL`).
const NORMAL: u32 = 1;
/// Bytes of a row's fixed header (`SizeofHeapTupleHeader`).
const TUPLE_HEADER: usize = 23;
/// The first transaction that is not special (`FirstNormalTransactionId`, access/transam.h).
pub const FIRST_NORMAL: u32 = 3;

const XMAX_EXCL_LOCK: u16 = 0x0040;
const XMAX_LOCK_ONLY: u16 = 0x0080;
const XMIN_COMMITTED: u16 = 0x0100;
const XMIN_INVALID: u16 = 0x0200;
const XMIN_FROZEN: u16 = XMIN_COMMITTED | XMIN_INVALID;
const XMAX_COMMITTED: u16 = 0x0400;
const XMAX_INVALID: u16 = 0x0800;
const XMAX_IS_MULTI: u16 = 0x1000;
/// `HEAP_LOCK_MASK`.
const LOCK_MASK: u16 = 0x0050;

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It committed.
    Committed,
    /// It was rolled back, or crashed.
    Aborted,
    /// It runs, or nothing is known about it any more.
    Unknown,
}

/// How far a row counts, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Deleted, replaced, or never committed.
    Dead,
    /// It depends on a transaction whose end is not known.
    Doubtful,
    /// It counts.
    Live,
}

/// A row in a page.
#[derive(Debug, Clone, Copy)]
pub struct HeapTuple<'a> {
    xmin: u32,
    xmax: u32,
    infomask: u16,
    /// The columns.
    pub data: &'a [u8],
}

impl HeapTuple<'_> {
    /// Whether the row counts; `outcome` is asked where its own bits do not tell.
    pub fn standing(&self, outcome: &mut dyn FnMut(u32) -> Outcome) -> Standing {
        let inserted = match self.infomask & XMIN_FROZEN {
            XMIN_FROZEN | XMIN_COMMITTED => Outcome::Committed,
            XMIN_INVALID => Outcome::Aborted,
            _ => outcome(self.xmin),
        };
        if inserted == Outcome::Aborted {
            return Standing::Dead;
        }
        let deleted = match self.infomask {
            _ if self.is_kept() => Outcome::Aborted,
            mask if mask & XMAX_COMMITTED != 0 => Outcome::Committed,
            mask if mask & XMAX_IS_MULTI != 0 => Outcome::Unknown,
            _ => outcome(self.xmax),
        };
        match (inserted, deleted) {
            (_, Outcome::Committed) => Standing::Dead,
            (Outcome::Committed, Outcome::Aborted) => Standing::Live,
            _ => Standing::Doubtful,
        }
    }

    /// When it was written, to be compared with [`is_later`].
    pub fn written_by(&self) -> u32 {
        if self.infomask & XMIN_FROZEN == XMIN_FROZEN { 0 } else { self.xmin }
    }

    /// Nobody has deleted or replaced it; at most it is locked (`HEAP_XMAX_IS_LOCKED_ONLY`).
    fn is_kept(&self) -> bool {
        self.xmax == 0
            || self.infomask & (XMAX_INVALID | XMAX_LOCK_ONLY) != 0
            || self.infomask & (XMAX_IS_MULTI | LOCK_MASK) == XMAX_EXCL_LOCK
    }
}

/// Whether transaction `a` began later than `b`; numbers wrap around (`TransactionIdFollows`).
pub fn is_later(a: u32, b: u32) -> bool {
    if a < FIRST_NORMAL || b < FIRST_NORMAL { a > b } else { (a.wrapping_sub(b) as i32) > 0 }
}

/// The rows of a page, in the order of their line pointers. What does not lie inside the page is left out.
pub fn tuples(page: &[u8]) -> impl Iterator<Item = HeapTuple<'_>> {
    let lower = usize::from(u16_at(page, LOWER_AT).unwrap_or(0)).min(page.len());
    let pointers = page.get(PAGE_HEADER..lower).unwrap_or_default();
    pointers.chunks_exact(LINE_POINTER).filter_map(|pointer| {
        let pointer = u32_at(pointer, 0)?;
        let (at, flags, len) = (pointer & 0x7FFF, pointer >> 15 & 3, pointer >> 17);
        if flags != NORMAL {
            return None;
        }
        let at = at as usize;
        tuple(page.get(at..at.checked_add(len as usize)?)?)
    })
}

fn tuple(bytes: &[u8]) -> Option<HeapTuple<'_>> {
    let header = usize::from(*bytes.get(TUPLE_HEADER - 1)?);
    if header < TUPLE_HEADER {
        return None;
    }
    Some(HeapTuple {
        xmin: u32_at(bytes, 0)?,
        xmax: u32_at(bytes, 4)?,
        infomask: u16_at(bytes, 20)?,
        data: bytes.get(header..)?,
    })
}

/// Pages in a file of `pg_xact` (`SLRU_PAGES_PER_SEGMENT`, access/slru.h).
const STATUS_PAGES: u64 = 32;
/// Transactions whose status fits a byte (`CLOG_XACTS_PER_BYTE`).
const PER_BYTE: u64 = 4;

/// Where `pg_xact` keeps the status of transaction `xid`: the file below the data directory and the byte in it.
pub fn status_place(xid: u32, block_size: u32) -> (String, u64) {
    let per_file = (u64::from(block_size) * STATUS_PAGES * PER_BYTE).max(1);
    let xid = u64::from(xid);
    (format!("pg_xact/{:04X}", xid / per_file), xid % per_file / PER_BYTE)
}

/// The status of transaction `xid` in its byte of `pg_xact`; `None` when there is none.
pub fn status(xid: u32, byte: Option<u8>) -> Outcome {
    if xid < FIRST_NORMAL {
        return if xid == 0 { Outcome::Aborted } else { Outcome::Committed };
    }
    // TRANSACTION_STATUS_* in access/clog.h; 3 is a subtransaction whose parent has not ended.
    match byte.map(|byte| byte >> (2 * (xid % 4)) & 3) {
        Some(1) => Outcome::Committed,
        Some(2) => Outcome::Aborted,
        _ => Outcome::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(xmin: u32, xmax: u32, infomask: u16) -> HeapTuple<'static> {
        HeapTuple { xmin, xmax, infomask, data: &[] }
    }

    #[test]
    fn rows_are_judged_by_their_bits_then_by_their_transactions() {
        let mut outcome = |xid| match xid {
            10 => Outcome::Committed,
            20 => Outcome::Aborted,
            _ => Outcome::Unknown,
        };
        for (row, expected) in [
            (row(10, 0, XMAX_INVALID), Standing::Live),
            (row(99, 0, XMIN_COMMITTED | XMAX_INVALID), Standing::Live),
            (row(99, 10, XMIN_FROZEN | XMAX_LOCK_ONLY), Standing::Live),
            (row(10, 10, XMAX_EXCL_LOCK), Standing::Live),
            (row(10, 20, 0), Standing::Live),
            (row(10, 99, XMAX_INVALID), Standing::Live),
            (row(10, 99, 0), Standing::Doubtful),
            (row(99, 0, 0), Standing::Doubtful),
            (row(10, 10, XMAX_IS_MULTI), Standing::Doubtful),
            (row(10, 10, 0), Standing::Dead),
            (row(10, 99, XMAX_COMMITTED), Standing::Dead),
            (row(20, 0, XMAX_INVALID), Standing::Dead),
            (row(10, 0, XMIN_INVALID), Standing::Dead),
        ] {
            assert_eq!(row.standing(&mut outcome), expected, "{row:?}");
        }
    }

    #[test]
    fn transactions_wrap_around() {
        assert!(is_later(5, 4) && !is_later(4, 5) && !is_later(4, 4));
        assert!(is_later(5, u32::MAX) && !is_later(u32::MAX, 5));
        assert!(is_later(u32::MAX, 2) && !is_later(0, u32::MAX));
    }

    #[test]
    fn the_status_of_a_transaction_is_two_bits() {
        assert_eq!(status_place(3, 8192), ("pg_xact/0000".into(), 0));
        assert_eq!(status_place(1_048_576 + 9, 8192), ("pg_xact/0001".into(), 2));
        assert_eq!(status_place(u32::MAX, 8192), ("pg_xact/0FFF".into(), 262_143));
        let byte = Some(0b1001_0001);
        assert_eq!(status(4, byte), Outcome::Committed);
        assert_eq!(status(5, byte), Outcome::Unknown);
        assert_eq!(status(6, byte), Outcome::Committed);
        assert_eq!(status(7, byte), Outcome::Aborted);
        assert_eq!(status(7, None), Outcome::Unknown);
        assert_eq!(status(2, None), Outcome::Committed);
    }

    #[test]
    fn pointers_that_leave_the_page_are_passed_over() {
        let mut page = vec![0; 128];
        page[LOWER_AT] = 40;
        let pointer = |at: u32, flags: u32, len: u32| (at | flags << 15 | len << 17).to_le_bytes();
        page[24..28].copy_from_slice(&pointer(64, 1, 30));
        page[28..32].copy_from_slice(&pointer(64, 3, 30));
        page[32..36].copy_from_slice(&pointer(100, 1, 29));
        page[36..40].copy_from_slice(&pointer(64, 1, 22));
        page[64] = 7;
        page[86] = 24;
        let found: Vec<_> = tuples(&page).map(|row| (row.xmin, row.data.len())).collect();
        assert_eq!(found, [(7, 6)]);
        page[86] = 31;
        assert_eq!(tuples(&page).count(), 0, "a header longer than the row");
    }

    proptest! {
        #[test]
        fn nonsense_never_panics(page in proptest::collection::vec(any::<u8>(), 0..1000), xid: u32, size: u32) {
            for row in tuples(&page) {
                let _ = (row.standing(&mut |_| Outcome::Unknown), row.written_by());
            }
            let _ = status_place(xid, size);
        }
    }
}
