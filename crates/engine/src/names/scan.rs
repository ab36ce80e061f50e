//! Reads a catalog from its files: every row that is still there, with how far it counts.

use super::Layout;
use super::source::Source;
use super::transactions::Transactions;
use crate::postgres::heap_tuple::{Standing, is_later, tuples};
use std::collections::BTreeMap;

/// Bytes read of a catalog at the most: the `pg_class` of two million relations.
const MAX_CATALOG: u64 = 512 << 20;
/// Bytes read at a time; a multiple of every page size.
const CHUNK: usize = 1 << 20;
/// Rows that are remembered of a catalog, and of those of all databases together but the last one.
pub const MAX_ROWS: usize = 1 << 20;

/// How far a row counts: its standing, then its age.
#[derive(Debug, Clone, Copy)]
pub struct Rank {
    standing: Standing,
    written_by: u32,
}

impl Rank {
    /// Whether a row read later takes the place of one with rank `other`.
    pub fn beats(self, other: Rank) -> bool {
        self.standing > other.standing
            || self.standing == other.standing && !is_later(other.written_by, self.written_by)
    }
}

/// Calls `each` with every row of the catalog whose first file is `path`.
pub fn rows(
    source: &mut dyn Source,
    layout: &Layout,
    path: &str,
    transactions: &mut Transactions,
    each: &mut dyn FnMut(&[u8], Rank),
) {
    let page_size = layout.block_size as usize;
    let segment_bytes = u64::from(layout.relation_segment_blocks) * u64::from(layout.block_size);
    if page_size == 0 || page_size > CHUNK || segment_bytes == 0 {
        return;
    }
    let mut position = 0;
    while position < MAX_CATALOG {
        let (segment, offset) = (position / segment_bytes, position % segment_bytes);
        let file = if segment == 0 { path.to_string() } else { format!("{path}.{segment}") };
        let len = (segment_bytes - offset).min(CHUNK as u64);
        let Some(bytes) = source.read(&file, offset, len as usize) else { return };
        for page in bytes.chunks_exact(page_size) {
            for tuple in tuples(page) {
                let standing = tuple.standing(&mut |xid| transactions.outcome(source, xid));
                each(tuple.data, Rank { standing, written_by: tuple.written_by() });
            }
        }
        if (bytes.len() as u64) < len {
            return;
        }
        position += len;
    }
}

/// Of several versions of a row the one that counts most.
pub struct Best<K, T> {
    rows: BTreeMap<K, (T, Rank)>,
}

impl<K: Ord, T> Best<K, T> {
    /// None yet.
    pub fn new() -> Self {
        Best { rows: BTreeMap::new() }
    }

    /// Enters a version of the row with this key.
    pub fn enter(&mut self, key: K, row: T, rank: Rank) {
        let full = self.rows.len() >= MAX_ROWS;
        match self.rows.get_mut(&key) {
            Some(held) if rank.beats(held.1) => *held = (row, rank),
            None if !full => {
                self.rows.insert(key, (row, rank));
            }
            Some(_) | None => {}
        }
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The row with this key.
    pub fn get(&self, key: &K) -> Option<&T> {
        self.rows.get(key).map(|(row, _)| row)
    }

    /// All of them, by key.
    pub fn into_rows(self) -> impl Iterator<Item = (K, T)> {
        self.rows.into_iter().map(|(key, (row, _))| (key, row))
    }
}
