//! Data pages: checksums, and which pages of a file are damaged.
//!
//! Sources: `pg_checksum_page` in `storage/checksum_impl.h` (32 interleaved FNV-1a sums of 32-bit words),
//! `PageHeaderData` in `storage/bufpage.h`, and which pages count in `verify_page_checksum` and `sendFile` of
//! `backup/basebackup.c` (PostgreSQL 15 to 18 judge alike).
//!
//! The inner loop is written so that the compiler turns it into vector instructions; [`pulp`] compiles it a second
//! time for AVX2 and chooses when it runs, so that one binary is fast on every machine.

use super::bytes::{u16_at, u32_at};
use pg_ark_contract::units::Lsn;
use pulp::{Arch, NullaryFnOnce};

/// No backup lasts while this much WAL is written, in bytes: a page that claims to come from behind it was overwritten.
const FARTHEST: u64 = 1 << 48;
/// Interleaved sums (`N_SUMS`).
const SUMS: usize = 32;
/// Bytes that one round of all sums takes in.
const ROW: usize = SUMS * 4;
const FNV_PRIME: u32 = 16_777_619;
/// Offset of `pd_checksum` in a page, in bytes.
const CHECKSUM_AT: usize = 8;

/// Where each sum begins (`checksumBaseOffsets`).
const BASE: [u32; SUMS] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// Checksum that `page` must carry as block number `block` of its relation (`pg_checksum_page`). What the page carries
/// in its checksum field does not matter. Bytes beyond a multiple of 128 are not part of any page size and are left out.
pub fn checksum(page: &[u8], block: u32) -> u16 {
    Arch::new().dispatch(Checksum { page, block })
}

struct Checksum<'a> {
    page: &'a [u8],
    block: u32,
}

impl NullaryFnOnce for Checksum<'_> {
    type Output = u16;

    #[inline(always)]
    fn call(self) -> u16 {
        page_checksum(self.page, self.block)
    }
}

#[inline(always)]
fn mix(sum: u32, value: u32) -> u32 {
    let mixed = sum ^ value;
    mixed.wrapping_mul(FNV_PRIME) ^ (mixed >> 17)
}

#[inline(always)]
fn page_checksum(page: &[u8], block: u32) -> u16 {
    let mut sums = BASE;
    let (rows, _) = page.as_chunks::<ROW>();
    let mut rows = rows.iter();
    if let Some(first) = rows.next() {
        let mut first = *first;
        first[CHECKSUM_AT..CHECKSUM_AT + 2].fill(0);
        add_row(&mut sums, &first);
    }
    for row in rows {
        add_row(&mut sums, row);
    }
    add_row(&mut sums, &[0; ROW]);
    add_row(&mut sums, &[0; ROW]);
    let folded = sums.iter().fold(block, |all, sum| all ^ sum);
    // At most 65535: the remainder is below 65535, and 1 keeps a checksum from being 0.
    (folded % 65_535 + 1) as u16
}

#[inline(always)]
fn add_row(sums: &mut [u32; SUMS], row: &[u8; ROW]) {
    let (words, _) = row.as_chunks::<4>();
    for (sum, word) in sums.iter_mut().zip(words) {
        *sum = mix(*sum, u32::from_le_bytes(*word));
    }
}

/// Finds damaged pages in what a backup reads.
#[derive(Debug, Clone, Copy)]
pub struct PageCheck {
    /// Bytes in a page.
    pub block_size: u32,
    /// The backup's start. A page changed at or after it may be torn, and WAL replay repairs it, so it is not judged;
    /// basebackup.c does the same. A page whose LSN no WAL can have reached is judged: rubbish over a whole page
    /// looks so. `Lsn(u64::MAX)` judges every page, as for a cluster that was shut down.
    pub start_lsn: Lsn,
}

impl PageCheck {
    /// Pushes to `out` the block numbers of the pages whose checksum is wrong. `pages` begins with block `first_block`
    /// of the relation; an incomplete page at its end is not judged. Pages that were never initialised
    /// (`pd_upper` 0) have no checksum yet and are skipped, even if they are not all zeros: that can be the torn first
    /// write of a new page, and the server does not trust such a page either.
    pub fn damaged(&self, pages: &[u8], first_block: u32, out: &mut Vec<u32>) {
        if self.block_size > 0 {
            Arch::new().dispatch(Damaged { check: self, pages, first_block, out });
        }
    }

    /// Whether the page, read as block number `block`, is damaged.
    #[inline(always)]
    fn is_damaged(&self, page: &[u8], block: u32) -> bool {
        let (Some(high), Some(low), Some(stored), Some(upper)) =
            (u32_at(page, 0), u32_at(page, 4), u16_at(page, CHECKSUM_AT), u16_at(page, 14))
        else {
            return false;
        };
        let lsn = Lsn(u64::from(high) << 32 | u64::from(low));
        let judged = lsn < self.start_lsn || lsn.0 - self.start_lsn.0 >= FARTHEST;
        upper != 0 && judged && stored != page_checksum(page, block)
    }
}

struct Damaged<'a> {
    check: &'a PageCheck,
    pages: &'a [u8],
    first_block: u32,
    out: &'a mut Vec<u32>,
}

impl NullaryFnOnce for Damaged<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let mut block = self.first_block;
        for page in self.pages.chunks_exact(self.check.block_size as usize) {
            if self.check.is_damaged(page, block) {
                self.out.push(block);
            }
            block = block.wrapping_add(1);
        }
    }
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
