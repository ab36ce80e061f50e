//! Checksums of the pages of one file, in pieces that may begin and end within a page.

use crate::postgres::page::PageCheck;
use crate::postgres::relation_file::RelationFile;
use crate::repository::Record;
use crate::stored::expected::Expected;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes of a relation's segment file unless the server was built otherwise (`RELSEG_SIZE`, `pg_config.h`).
const SEGMENT_BYTES: u64 = 1 << 30;
/// Sizes of pages that a server can be built with (`--with-blocksize`), in bytes.
const BLOCK_SIZES: std::ops::RangeInclusive<u32> = 1 << 10..=32 << 10;
/// Damaged blocks of one file that are remembered.
const MAX_BLOCKS: usize = 10_000;

/// How the pages of a file are checked.
#[derive(Debug, Clone, Copy)]
pub struct PageRules {
    check: PageCheck,
    first_block: u32,
}

impl PageRules {
    /// Rules for the file at `path` in the manifest; none when it has no pages, or the cluster no checksums.
    pub fn of(record: &Record, expected: &Expected, path: &[u8]) -> Option<Self> {
        let path = std::str::from_utf8(path).ok()?;
        let relation = RelationFile::parse(path)?;
        let block_size = record.block_size;
        if !record.data_checksums || !block_size.is_power_of_two() || !BLOCK_SIZES.contains(&block_size) {
            return None;
        }
        // Only the server knows how long segments are: the first one is full when there is another.
        let first = || {
            let first = path.rsplit_once('.').and_then(|(first, _)| expected.find(first.as_bytes()));
            let size = first.map_or(SEGMENT_BYTES, |number| expected.file(number).size);
            u32::try_from(size / u64::from(block_size)).unwrap_or(u32::MAX)
        };
        let first_block = if relation.segment == 0 { 0 } else { relation.first_block(first()) };
        let check = PageCheck { block_size, start_lsn: record.start_lsn? };
        Some(PageRules { check, first_block })
    }

    fn size(&self) -> u64 {
        u64::from(self.check.block_size)
    }

    fn block(&self, offset: u64) -> u32 {
        self.first_block.wrapping_add((offset / self.size()) as u32)
    }
}

/// The pages of one file.
pub struct Pages {
    rules: PageRules,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    damaged: Vec<u32>,
    /// Pages of which a part was seen, by their offset: how many bytes, and the page.
    parts: BTreeMap<u64, (usize, Vec<u8>)>,
}

impl Pages {
    /// Nothing seen yet.
    pub fn new(rules: PageRules) -> Self {
        Pages { rules, state: Mutex::default() }
    }

    /// Checks the pages in a piece that begins at byte `offset` of the file.
    pub fn look(&self, offset: u64, bytes: &[u8]) {
        let size = self.rules.size();
        let head = usize::try_from((size - offset % size) % size).unwrap_or_default().min(bytes.len());
        let (head, rest) = bytes.split_at(head);
        let begin = offset.saturating_add(head.len() as u64);
        let (whole, tail) = rest.split_at(rest.len() / size as usize * size as usize);
        let mut damaged = Vec::new();
        self.rules.check.damaged(whole, self.rules.block(begin), &mut damaged);
        if !damaged.is_empty() {
            self.remember(damaged);
        }
        self.part(offset, head);
        self.part(begin.saturating_add(whole.len() as u64), tail);
    }

    /// A part of a page.
    fn part(&self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let size = self.rules.size();
        let (page, at) = (offset / size * size, (offset % size) as usize);
        let mut state = self.lock();
        let (seen, buffer) = state.parts.entry(page).or_insert_with(|| (0, vec![0; size as usize]));
        if let Some(room) = buffer.get_mut(at..at + bytes.len()) {
            room.copy_from_slice(bytes);
            *seen += bytes.len();
        }
        if *seen == size as usize
            && let Some((_, buffer)) = state.parts.remove(&page)
        {
            drop(state);
            let mut damaged = Vec::new();
            self.rules.check.damaged(&buffer, self.rules.block(page), &mut damaged);
            self.remember(damaged);
        }
    }

    fn remember(&self, damaged: Vec<u32>) {
        let mut state = self.lock();
        let room = MAX_BLOCKS.saturating_sub(state.damaged.len());
        state.damaged.extend(damaged.into_iter().take(room));
    }

    /// Blocks of the relation's fork whose checksum is wrong, ascending.
    pub fn damaged(&self) -> Vec<u32> {
        let mut damaged = std::mem::take(&mut self.lock().damaged);
        damaged.sort_unstable();
        damaged
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Some blocks, for people: `block 7`, `blocks 7, 8, 9 and 97 more`.
pub fn shown(blocks: &[u32], in_all: u64) -> String {
    const SHOWN: usize = 10;
    let first: Vec<String> = blocks.iter().take(SHOWN).map(u32::to_string).collect();
    let more = in_all.saturating_sub(first.len() as u64);
    match (first.len(), more) {
        (1, 0) => format!("block {}", first.join("")),
        (_, 0) => format!("blocks {}", first.join(", ")),
        (_, more) => format!("blocks {} and {more} more", first.join(", ")),
    }
}
