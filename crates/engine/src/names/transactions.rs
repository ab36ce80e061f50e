//! How transactions ended, as `pg_xact` tells.

use super::source::Source;
use crate::postgres::heap_tuple::{FIRST_NORMAL, Outcome, status, status_place};
use std::collections::VecDeque;

/// Bytes of `pg_xact` read at a time.
const PIECE: u64 = 8192;
/// Pieces that are remembered: neighbours in a catalog often come from neighbouring transactions.
const MAX_PIECES: usize = 16;
/// Pieces that are read in all. Rows of catalogs are soon marked or frozen, so a few are enough; a catalog that was made
/// to cost time could ask for millions.
const MAX_READS: usize = 1000;

/// Reads `pg_xact` as it is needed.
pub struct Transactions {
    block_size: u32,
    reads: usize,
    /// File, number of the piece in it, content.
    pieces: VecDeque<(String, u64, Vec<u8>)>,
}

impl Transactions {
    /// Reads nothing yet.
    pub fn new(block_size: u32) -> Self {
        Transactions { block_size, reads: 0, pieces: VecDeque::new() }
    }

    /// How transaction `xid` ended.
    pub fn outcome(&mut self, source: &mut dyn Source, xid: u32) -> Outcome {
        let (file, at) = status_place(xid, self.block_size);
        let (number, at) = (at / PIECE, (at % PIECE) as usize);
        if let Some((.., piece)) = self.pieces.iter().find(|(f, n, _)| *f == file && *n == number) {
            return status(xid, piece.get(at).copied());
        }
        if xid < FIRST_NORMAL || self.reads >= MAX_READS {
            return status(xid, None);
        }
        self.reads += 1;
        // What cannot be read is remembered too.
        let piece = source.read(&file, number * PIECE, PIECE as usize).unwrap_or_default();
        let outcome = status(xid, piece.get(at).copied());
        while self.pieces.len() >= MAX_PIECES {
            self.pieces.pop_front();
        }
        self.pieces.push_back((file, number, piece));
        outcome
    }
}
