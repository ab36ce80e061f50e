//! Which bytes go into which frame. The plan is made while it is carried out, so that it needs no memory of its own.
//!
//! What: a file that fits a frame goes there whole and is opened by the worker that reads it; a larger one is opened
//! here once and cut into pieces, so that every piece comes from the same file.
//! Why: frames have equal sizes, so threads share the work evenly whatever the sizes of files.
//! Rejected: sorting all files by size first, which needs memory that grows with their number.

use super::member::{self, Attributes, Kind};
use super::walk::{Found, SourceFile, Walk};
use crate::codec::frame::FRAME_SIZE;
use crate::page_cache;
use pg_ark_contract::{Error, Result};
use std::fs::File;
use std::sync::Arc;

/// Pieces of relation files begin and end at multiples of this: the largest page size (BLCKSZ, at most 32 kB).
pub const PIECE_ALIGNMENT: usize = 32 << 10;
/// Most items in a frame, so that a folder of empty files makes no endless frame.
const MAX_ITEMS: usize = 4096;

/// What to put into a frame.
pub enum Item {
    /// Header blocks without content: a folder or a link.
    Header(Vec<u8>),
    /// A file that fits.
    Whole(SourceFile),
    /// A piece of a large file.
    Piece(Piece),
}

/// A piece of a large file.
pub struct Piece {
    /// The open file.
    pub file: Arc<OpenFile>,
    /// Where the piece begins, in bytes.
    pub offset: u64,
    /// Bytes of content.
    pub len: usize,
}

/// A large file, opened once for all its pieces.
pub struct OpenFile {
    /// What it is.
    pub source: SourceFile,
    /// The handle.
    pub handle: File,
    /// Size that the member gets, in bytes.
    pub size: u64,
    /// Attributes that the member gets.
    pub attributes: Attributes,
}

/// A planned frame.
pub struct FramePlan {
    /// Its number in the archive.
    pub number: u64,
    /// Its content.
    pub items: Vec<Item>,
    /// Bytes of source data in it, as planned.
    pub data_bytes: u64,
}

/// Hands out frames.
pub struct Planner<'a> {
    walk: Walk<'a>,
    number: u64,
    held: Option<Found>,
    large: Option<(Arc<OpenFile>, u64)>,
}

impl<'a> Planner<'a> {
    /// Plans what `walk` finds, from frame `number` on.
    pub fn new(walk: Walk<'a>, number: u64) -> Self {
        Planner { walk, number, held: None, large: None }
    }

    /// The next frame; `None` when everything is planned.
    ///
    /// # Errors
    /// When a folder or a large file cannot be read.
    pub fn next_frame(&mut self) -> Result<Option<FramePlan>> {
        let mut frame = Filling { items: Vec::new(), used: 0, data_bytes: 0 };
        while frame.used < FRAME_SIZE && frame.items.len() < MAX_ITEMS {
            if let Some((file, offset)) = self.large.take() {
                match frame.add_piece(&file, offset) {
                    // No room left. (A file that was cut to nothing since it was found has its one empty piece.)
                    0 if offset < file.size => {
                        self.large = Some((file, offset));
                        break;
                    }
                    len if offset + (len as u64) < file.size => {
                        self.large = Some((file, offset + len as u64));
                        break;
                    }
                    _ => continue,
                }
            }
            let next = match self.held.take() {
                Some(found) => Some(found),
                None => self.walk.next().transpose()?,
            };
            let Some(found) = next else { break };
            if !self.add(&mut frame, found)? {
                break;
            }
        }
        if frame.items.is_empty() {
            return Ok(None);
        }
        let number = self.number;
        self.number += 1;
        Ok(Some(FramePlan { number, items: frame.items, data_bytes: frame.data_bytes }))
    }

    /// Adds what was found; false when it has to wait for the next frame.
    fn add(&mut self, frame: &mut Filling, found: Found) -> Result<bool> {
        match found {
            Found::Directory { member, attributes } => {
                frame.add_header(member::header(&member, Kind::Directory, attributes));
            }
            Found::Link { member, target, attributes } => {
                frame.add_header(member::header(&member, Kind::Link(&target), attributes));
            }
            Found::File(source) if source.size > FRAME_SIZE as u64 => {
                if let Some(file) = open(source)? {
                    self.large = Some((Arc::new(file), 0));
                }
            }
            Found::File(source) => {
                let size = source.size as usize;
                if frame.used > 0 && frame.used + size > FRAME_SIZE {
                    self.held = Some(Found::File(source));
                    return Ok(false);
                }
                frame.used += size + member::BLOCK;
                frame.data_bytes += source.size;
                frame.items.push(Item::Whole(source));
            }
        }
        Ok(true)
    }
}

struct Filling {
    items: Vec<Item>,
    used: usize,
    data_bytes: u64,
}

impl Filling {
    fn add_header(&mut self, header: Vec<u8>) {
        self.used += header.len();
        self.items.push(Item::Header(header));
    }

    /// Adds as much of the file from `offset` on as fits; returns how much.
    fn add_piece(&mut self, file: &Arc<OpenFile>, offset: u64) -> usize {
        let left = usize::try_from(file.size - offset).unwrap_or(usize::MAX);
        let room = FRAME_SIZE.saturating_sub(self.used) / PIECE_ALIGNMENT * PIECE_ALIGNMENT;
        let len = left.min(room);
        if len > 0 || left == 0 {
            self.used += len + member::BLOCK;
            self.data_bytes += len as u64;
            self.items.push(Item::Piece(Piece { file: Arc::clone(file), offset, len }));
        }
        len
    }
}

/// Opens a large file; `None` when it vanished, which is what dropped relations do.
fn open(source: SourceFile) -> Result<Option<OpenFile>> {
    let shown = source.disk.display();
    let handle = match File::open(&source.disk) {
        Ok(handle) => handle,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(format!("could not open \"{shown}\""), &e)),
    };
    page_cache::prepare(&handle);
    let meta = handle.metadata().map_err(|e| Error::io(format!("could not look at \"{shown}\""), &e))?;
    let attributes = Attributes::of(&meta);
    let size = meta.len();
    Ok(Some(OpenFile { source, handle, size, attributes }))
}

#[cfg(test)]
mod tests {
    use super::super::walk::Root;
    use super::*;

    #[test]
    fn a_large_file_that_was_emptied_before_it_was_opened_is_planned_once() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("16384");
        File::create(&disk).unwrap();
        let empty = tempfile::tempdir().unwrap();
        let root = Root {
            disk: empty.path().to_path_buf(),
            logical: String::new(),
            only: None,
            links: Vec::new(),
            server_major: 15,
        };
        let mut planner = Planner::new(Walk::new(root, None).unwrap(), 0);
        planner.held = Some(Found::File(SourceFile {
            disk,
            member: b"base/5/16384".to_vec(),
            manifest: b"base/5/16384".to_vec(),
            size: 10 << 20,
            relation: None,
        }));
        let frame = planner.next_frame().unwrap().unwrap();
        assert_eq!(frame.items.len(), 1);
        assert!(planner.next_frame().unwrap().is_none());
    }
}
