//! A file being restored: opened by the first worker that has a piece of it, proved by the last.

use super::access::Access;
use crate::stored::expected::{Expected, Sum};
use crate::stored::faults::Fault;
use crate::stored::names::shown;
use pg_ark_contract::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Pieces of at least this many bytes are handed to the disk at once, so that the final sync finds little to do.
const EARLY_WRITEBACK: usize = 256 << 10;

/// A file being restored.
pub struct OutFile {
    path: PathBuf,
    member: Vec<u8>,
    mode: u32,
    size: u64,
    /// Number in the manifest.
    expected: Option<usize>,
    handle: OnceLock<std::result::Result<File, Error>>,
    remaining: AtomicU64,
    /// CRC-32C of the pieces written so far.
    pieces: Mutex<Vec<Piece>>,
}

struct Piece {
    offset: u64,
    len: usize,
    crc: u32,
}

impl OutFile {
    /// A file of `size` bytes to be created at `path`; `expected` is its number in the manifest.
    pub fn new(path: PathBuf, member: Vec<u8>, mode: u32, size: u64, expected: Option<usize>) -> Self {
        OutFile {
            path,
            member,
            mode,
            size,
            expected,
            handle: OnceLock::new(),
            remaining: AtomicU64::new(size),
            pieces: Mutex::new(Vec::new()),
        }
    }

    /// Writes a piece; whoever writes the last one proves the whole. An empty file takes one empty piece.
    ///
    /// # Errors
    /// `Corrupt` when the content is not what the manifest says; what the system said.
    pub fn write(&self, offset: u64, piece: &[u8], access: &Access, expected: &Expected) -> Result<()> {
        let file = self.handle(access)?;
        file.write_all_at(piece, offset)
            .map_err(|e| Error::io(format!("could not write \"{}\"", self.path.display()), &e))?;
        if piece.len() >= EARLY_WRITEBACK {
            start_writeback(file, offset, piece.len());
        }
        let sum = match self.expected {
            Some(number) => expected.file(number).sum,
            None => Sum::None,
        };
        let whole = piece.len() as u64 == self.size;
        match sum {
            Sum::None => {}
            Sum::Crc32c(stated) if whole => self.prove(crc32c::crc32c(piece) == stated)?,
            Sum::Sha256(stated) if whole => {
                self.prove(Sha256::digest(piece)[..] == expected.sha256(stated)[..])?;
            }
            Sum::Crc32c(_) => {
                let crc = crc32c::crc32c(piece);
                self.lock().push(Piece { offset, len: piece.len(), crc });
            }
            Sum::Sha256(_) => {}
        }
        let last = self.remaining.fetch_sub(piece.len() as u64, Ordering::AcqRel) == piece.len() as u64;
        if last && !whole {
            match sum {
                Sum::None => {}
                Sum::Crc32c(stated) => self.prove(self.combined_crc() == stated)?,
                Sum::Sha256(stated) => self.prove(self.read_sha256(file)? == expected.sha256(stated))?,
            }
        }
        Ok(())
    }

    fn handle(&self, access: &Access) -> Result<&File> {
        let opened = self.handle.get_or_init(|| {
            access.create_file(&self.path, self.mode).map_err(|e| match e.kind() {
                std::io::ErrorKind::AlreadyExists => Fault::file_twice().error(&shown(&self.member)),
                _ => Error::io(format!("could not create \"{}\"", self.path.display()), &e),
            })
        });
        opened.as_ref().map_err(Clone::clone)
    }

    /// CRC-32C of the whole file. Pieces come from a tar's content, so in order of offset they have no holes.
    fn combined_crc(&self) -> u32 {
        let mut pieces = self.lock();
        pieces.sort_unstable_by_key(|piece| piece.offset);
        pieces.iter().fold(0, |crc, piece| crc32c::crc32c_combine(crc, piece.crc, piece.len))
    }

    /// SHA-256 cannot be combined from pieces, so the file is read back.
    fn read_sha256(&self, file: &File) -> Result<[u8; 32]> {
        let mut sum = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let mut offset = 0;
        loop {
            let len = file
                .read_at(&mut buffer, offset)
                .map_err(|e| Error::io(format!("could not read \"{}\"", self.path.display()), &e))?;
            if len == 0 {
                return Ok(sum.finalize().into());
            }
            sum.update(&buffer[..len]);
            offset += len as u64;
        }
    }

    fn prove(&self, equal: bool) -> Result<()> {
        match equal {
            true => Ok(()),
            false => Err(Fault::file_changed().error(&self.path.display().to_string())),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Piece>> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Advice "not needed" makes Linux begin writing dirty pages without waiting for them. Advice cannot fail harmfully.
fn start_writeback(file: &File, offset: u64, len: usize) {
    let len = std::num::NonZeroU64::new(len as u64);
    let _ = rustix::fs::fadvise(file, offset, len, rustix::fs::Advice::DontNeed);
}
