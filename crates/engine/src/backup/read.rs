//! Fills a planned frame: reads files, checks pages, digests content, and lays out the tar.
//!
//! A file that vanished is left out, one that shrank is padded with zeros, one that grew is cut at the size that its
//! header says: WAL repairs relations, and basebackup.c does the same. A page that fails its checksum is read again
//! once before it counts.

use super::member::{self, Attributes, Kind};
use super::plan::{FramePlan, Item, PIECE_ALIGNMENT, Piece};
use super::progress::Progress;
use super::walk::SourceFile;
use crate::codec::frame::FRAME_SIZE;
use crate::page_cache::{self, Brought, read_up_to};
use crate::postgres::page::PageCheck;
use crate::postgres::relation_file::RelationFile;
use pg_ark_contract::settings::Checksum;
use pg_ark_contract::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::ErrorKind as Io;
use std::ops::Range;
use std::sync::Arc;

/// How files are read.
#[derive(Clone, Copy)]
pub struct ReadRules {
    /// Checks pages, when the cluster has data checksums.
    pub pages: Option<PageCheck>,
    /// Bytes in a page.
    pub block_size: u32,
    /// Blocks in a segment file of a relation.
    pub relation_segment_blocks: u32,
    /// Checksum of files.
    pub checksum: Checksum,
}

/// A file, or a piece of one, that lies in a filled frame.
pub struct FilledPiece {
    /// What it belongs to.
    pub file: Arc<FileFacts>,
    /// Where its content is in the frame.
    pub content: Range<usize>,
    /// It begins here.
    pub first: bool,
    /// It ends here.
    pub last: bool,
    /// Digest of the content.
    pub digest: PieceDigest,
    /// Blocks of the fork that fail their checksum.
    pub damaged: Vec<u32>,
    /// The file is a relation's and ends within a page.
    pub cut: bool,
}

/// What is known about a file when it is committed.
pub struct FileFacts {
    /// Path in the tar.
    pub member: Vec<u8>,
    /// Path in the manifest.
    pub manifest: Vec<u8>,
    /// The relation that it belongs to.
    pub relation: Option<RelationFile>,
    /// Bytes.
    pub size: u64,
    /// Unix seconds.
    pub mtime: i64,
}

/// Digest of a piece: CRCs are combined, SHA-256 of pieces is continued in order when they are committed.
pub enum PieceDigest {
    /// CRC-32C of the piece.
    Crc32c(u32),
    /// SHA-256 of the whole file, which lies in one frame.
    Sha256([u8; 32]),
    /// SHA-256 is to be continued.
    Later,
}

/// A worker's buffer, filled.
pub struct FilledFrame {
    /// Bytes of tar in the buffer.
    pub used: usize,
    /// Files in it.
    pub pieces: Vec<FilledPiece>,
}

/// Reads into one buffer, again and again.
pub struct Filler<'a> {
    rules: ReadRules,
    progress: &'a Progress<'a>,
    buffer: Vec<u8>,
    used: usize,
    pieces: Vec<FilledPiece>,
}

impl<'a> Filler<'a> {
    /// A filler with a buffer of its own, which reads when `progress` admits it.
    pub fn new(rules: ReadRules, progress: &'a Progress<'a>) -> Self {
        Filler { rules, progress, buffer: vec![0; 2 * FRAME_SIZE + (1 << 20)], used: 0, pieces: Vec::new() }
    }

    /// The bytes of the last frame filled.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.used]
    }

    /// Fills a frame.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn fill(&mut self, plan: &FramePlan) -> Result<FilledFrame> {
        self.used = 0;
        self.pieces = Vec::with_capacity(plan.items.len());
        for item in &plan.items {
            match item {
                Item::Header(header) => self.put(header),
                Item::Whole(source) => self.whole(source)?,
                Item::Piece(piece) => self.piece(piece)?,
            }
        }
        Ok(FilledFrame { used: self.used, pieces: std::mem::take(&mut self.pieces) })
    }

    fn whole(&mut self, source: &SourceFile) -> Result<()> {
        let shown = source.disk.display();
        let handle = match File::open(&source.disk) {
            Ok(handle) => handle,
            Err(e) if e.kind() == Io::NotFound => return Ok(()),
            Err(e) => return Err(Error::io(format!("could not open \"{shown}\""), &e)),
        };
        page_cache::prepare(&handle);
        let meta = handle.metadata().map_err(|e| Error::io(format!("could not look at \"{shown}\""), &e))?;
        // It may have grown since it was planned; a little more still fits.
        let room = (self.buffer.len() - self.used)
            .saturating_sub(2 * member::BLOCK + source.member.len() + FRAME_SIZE);
        let limit = source.size.max((room / PIECE_ALIGNMENT * PIECE_ALIGNMENT) as u64);
        let size = meta.len().min(limit);
        let attributes = Attributes::of(&meta);
        self.put(&member::header(&source.member, Kind::File(size), attributes));
        let facts = Arc::new(facts(source, size, attributes.mtime));
        let filled = self.content(&handle, source, 0, size as usize, &facts, true, true)?;
        self.pieces.push(filled);
        self.pad(member::padding(size));
        Ok(())
    }

    fn piece(&mut self, piece: &Piece) -> Result<()> {
        let file = &piece.file;
        let first = piece.offset == 0;
        let last = piece.offset + piece.len as u64 == file.size;
        if first {
            self.put(&member::header(&file.source.member, Kind::File(file.size), file.attributes));
        }
        let facts = Arc::new(facts(&file.source, file.size, file.attributes.mtime));
        let filled =
            self.content(&file.handle, &file.source, piece.offset, piece.len, &facts, first, last)?;
        self.pieces.push(filled);
        if last {
            self.pad(member::padding(file.size));
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn content(
        &mut self,
        handle: &File,
        source: &SourceFile,
        offset: u64,
        len: usize,
        facts: &Arc<FileFacts>,
        first: bool,
        last: bool,
    ) -> Result<FilledPiece> {
        let range = self.used..self.used + len;
        if self.buffer.len() < range.end {
            self.buffer.resize(range.end, 0);
        }
        let buffer = &mut self.buffer[range.clone()];
        let failed = |e| Error::io(format!("could not read \"{}\"", source.disk.display()), &e);
        let mut brought = Brought::default();
        let mut got = 0;
        while got < len {
            let admitted = self.progress.admit((len - got) as u64)? as usize;
            let part = &mut buffer[got..][..admitted.clamp(1, len - got)];
            let read = brought.read(handle, part, offset + got as u64).map_err(failed)?;
            got += read;
            if read < part.len() {
                break;
            }
        }
        buffer[got..].fill(0);
        let damaged = match (&self.rules.pages, &source.relation) {
            (Some(pages), Some(relation)) => {
                let first_block = relation.first_block(self.rules.relation_segment_blocks);
                check_pages(pages, handle, &mut buffer[..got], offset, first_block)
            }
            _ => Vec::new(),
        };
        brought.drop_behind(handle);
        let end = offset + len as u64;
        let cut = last && source.relation.is_some() && ends_in_page(handle, end, self.rules.block_size);
        let digest = match self.rules.checksum {
            Checksum::Crc32c => PieceDigest::Crc32c(crc32c::crc32c(buffer)),
            Checksum::Sha256 if first && last => PieceDigest::Sha256(Sha256::digest(&buffer).into()),
            Checksum::Sha256 => PieceDigest::Later,
        };
        self.used = range.end;
        Ok(FilledPiece { file: Arc::clone(facts), content: range, first, last, digest, damaged, cut })
    }

    fn put(&mut self, bytes: &[u8]) {
        let end = self.used + bytes.len();
        if self.buffer.len() < end {
            self.buffer.resize(end, 0);
        }
        self.buffer[self.used..end].copy_from_slice(bytes);
        self.used = end;
    }

    fn pad(&mut self, len: usize) {
        self.put(&[0; member::BLOCK][..len]);
    }
}

fn facts(source: &SourceFile, size: u64, mtime: i64) -> FileFacts {
    FileFacts {
        member: source.member.clone(),
        manifest: source.manifest.clone(),
        relation: source.relation,
        size,
        mtime,
    }
}

/// Whether a file that was read up to byte `end` ends within a page. One that is being extended may do so for a moment,
/// so it is looked at again.
fn ends_in_page(handle: &File, end: u64, block_size: u32) -> bool {
    let partial = |size: u64| size.checked_rem(u64::from(block_size)).is_some_and(|rest| rest > 0);
    partial(end) && handle.metadata().is_ok_and(|meta| partial(meta.len()))
}

/// Checks whole pages; those that fail are read once more, since a page may be torn while it is being written.
fn check_pages(
    pages: &PageCheck,
    handle: &File,
    buffer: &mut [u8],
    offset: u64,
    first_block: u32,
) -> Vec<u32> {
    let size = pages.block_size as usize;
    let whole = buffer.len() / size * size;
    let start = first_block.wrapping_add((offset / size as u64) as u32);
    let mut suspects = Vec::new();
    pages.damaged(&buffer[..whole], start, &mut suspects);
    let mut damaged = Vec::new();
    for block in suspects {
        let at = (block.wrapping_sub(start)) as usize * size;
        let page = &mut buffer[at..at + size];
        let mut again = vec![0; size];
        if let Ok(got) = read_up_to(handle, &mut again, offset + at as u64)
            && got == size
        {
            page.copy_from_slice(&again);
        }
        pages.damaged(page, block, &mut damaged);
    }
    damaged
}
