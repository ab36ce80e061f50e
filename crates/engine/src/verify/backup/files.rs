//! One file of a backup while its pieces go by: they come to any worker, and whoever has the last one judges the whole.
//!
//! CRC-32C of pieces are combined. SHA-256 cannot be: pieces wait for the one before, which another worker has at hand,
//! so that no more than a frame for each worker is in memory.

use super::pages::{PageRules, Pages};
use crate::codec::turn::Turns;
use crate::stored::expected::{Expected, Sum};
use sha2::{Digest, Sha256};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a worker has to look at.
pub struct Piece {
    /// The file.
    pub file: std::sync::Arc<FileCheck>,
    /// Byte of the file.
    pub offset: u64,
    /// Number of the piece in the file.
    pub number: u64,
    /// Which of the decoded bytes.
    pub range: std::ops::Range<usize>,
}

/// A file that is read.
pub struct FileCheck {
    /// Number of its archive in the record.
    pub archive: usize,
    /// Path as the manifest has it, or the member's where it is not listed.
    pub path: Vec<u8>,
    size: u64,
    sum: Sum,
    pages: Option<Pages>,
    /// Its first bytes, so many, are kept.
    keep: usize,
    spoiled: AtomicBool,
    progress: Mutex<Progress>,
    sha: Turns<Sha256>,
}

#[derive(Default)]
struct Progress {
    done: u64,
    pieces: Vec<(u64, usize, u32)>,
    sha: Option<[u8; 32]>,
    kept: Vec<u8>,
}

/// What is known about a file at its end.
pub struct Verdict {
    /// Its checksum is that of the manifest.
    pub is_right: bool,
    /// Blocks whose checksum is wrong.
    pub damaged: Vec<u32>,
    /// Its first bytes.
    pub kept: Vec<u8>,
}

impl FileCheck {
    /// A file of `size` bytes with this checksum.
    pub fn new(archive: usize, path: Vec<u8>, size: u64, sum: Sum, pages: Option<PageRules>) -> Self {
        FileCheck {
            archive,
            path,
            size,
            sum,
            pages: pages.map(Pages::new),
            keep: 0,
            spoiled: AtomicBool::new(false),
            progress: Mutex::default(),
            sha: Turns::new(0, Sha256::new()),
        }
    }

    /// Keeps its first bytes.
    pub fn keeping(self, keep: usize) -> Self {
        FileCheck { keep, ..self }
    }

    /// A part of it cannot be read, so nothing more is said about it.
    pub fn spoil(&self) {
        self.spoiled.store(true, Ordering::Release);
        self.sha.stop();
    }

    /// Looks at a piece; says what is known when it was the last one.
    pub fn look(&self, piece: &Piece, bytes: &[u8], expected: &Expected) -> Option<Verdict> {
        if let Some(pages) = &self.pages {
            pages.look(piece.offset, bytes);
        }
        let is_whole = bytes.len() as u64 == self.size;
        let (mut crc, mut sha) = (0, None);
        match self.sum {
            Sum::None => {}
            Sum::Crc32c(_) => crc = crc32c::crc32c(bytes),
            Sum::Sha256(_) if is_whole => sha = Some(Sha256::digest(bytes).into()),
            Sum::Sha256(_) => {
                let is_last = piece.offset.saturating_add(bytes.len() as u64) == self.size;
                sha = self.sha.commit(piece.number, |sum| {
                    sum.update(bytes);
                    is_last.then(|| std::mem::take(sum).finalize().into())
                })?;
            }
        }
        let mut progress = self.lock();
        progress.sha = progress.sha.or(sha);
        if matches!(self.sum, Sum::Crc32c(_)) {
            progress.pieces.push((piece.offset, bytes.len(), crc));
        }
        self.keep_from(&mut progress, piece.offset, bytes);
        progress.done = progress.done.saturating_add(bytes.len() as u64);
        if progress.done < self.size || self.spoiled.load(Ordering::Acquire) {
            return None;
        }
        let progress = std::mem::take(&mut *progress);
        Some(self.judge(progress, expected))
    }

    fn keep_from(&self, progress: &mut Progress, offset: u64, bytes: &[u8]) {
        let Some(at) = usize::try_from(offset).ok().filter(|at| *at < self.keep) else { return };
        let bytes = &bytes[..bytes.len().min(self.keep - at)];
        let end = at + bytes.len();
        if progress.kept.len() < end {
            progress.kept.resize(end, 0);
        }
        if let Some(room) = progress.kept.get_mut(at..end) {
            room.copy_from_slice(bytes);
        }
    }

    fn judge(&self, mut progress: Progress, expected: &Expected) -> Verdict {
        let is_right = match self.sum {
            Sum::None => true,
            Sum::Crc32c(stated) => {
                progress.pieces.sort_unstable_by_key(|(offset, ..)| *offset);
                let join = |crc, (_, len, piece): &(u64, usize, u32)| match crc {
                    None => Some(*piece),
                    Some(crc) => Some(crc32c::crc32c_combine(crc, *piece, *len)),
                };
                progress.pieces.iter().fold(None, join).unwrap_or_default() == stated
            }
            Sum::Sha256(number) => progress.sha == Some(expected.sha256(number)),
        };
        Verdict {
            is_right,
            damaged: self.pages.as_ref().map(Pages::damaged).unwrap_or_default(),
            kept: progress.kept,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker that panics would let others wait for its piece for ever.
pub struct SpoilOnPanic<'a>(pub &'a [Piece]);

impl Drop for SpoilOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.iter().for_each(|piece| piece.file.spoil());
        }
    }
}
