//! One stored WAL file: frames as in a backup's archives, each with a checksum of its own.

use crate::codec::frame::{self, Encoder, FRAME_SIZE};
use crate::repository::Storage;
use bytes::{Bytes, BytesMut};
use pg_ark_contract::settings::{Codec, Compression};
use pg_ark_contract::{Error, ErrorKind, Result};
use std::io::Read;

/// Stored bytes fetched at a time.
const CHUNK: usize = 1 << 20;

/// The codec that a segment is stored with. A segment must carry its own checksum, so `none` becomes zstd.
pub fn compression(wanted: Compression) -> Compression {
    if wanted.codec == Codec::None { Compression::default() } else { wanted }
}

/// Encodes `len` bytes of `source` and shows each piece to `look` before. Holds the encoded file in memory, and one
/// frame.
///
/// # Errors
/// `Corrupt` when there are fewer bytes; what reading or the compressor said.
pub fn encode(
    wanted: Compression,
    source: &mut dyn Read,
    len: u64,
    shown: &str,
    look: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<Bytes> {
    let mut encoder = Encoder::new(compression(wanted))?;
    let mut encoded = BytesMut::with_capacity((len / 4) as usize);
    let mut piece = vec![0; FRAME_SIZE.min(len as usize)];
    let mut left = len;
    while left > 0 {
        let size = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let bytes = &mut piece[..size];
        source.read_exact(bytes).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                Error::new(ErrorKind::Corrupt, format!("\"{shown}\" ends {left} bytes too early"))
            }
            _ => Error::io(format!("could not read \"{shown}\""), &e),
        })?;
        look(bytes)?;
        encoded.extend_from_slice(&encoder.encode(bytes)?);
        left -= size as u64;
    }
    Ok(encoded.freeze())
}

/// A stored file, decoded while it is read.
pub struct ObjectReader<'a> {
    inner: Box<dyn Read + 'a>,
    shown: String,
}

impl<'a> ObjectReader<'a> {
    /// Opens the object at `path`.
    ///
    /// # Errors
    /// `Corrupt` when it is not there or its beginning cannot be decoded; what the store said.
    pub fn open(storage: &'a Storage, path: &str, codec: Codec) -> Result<Self> {
        let shown = storage.display(path);
        let size = storage.size(path)?.ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, format!("\"{shown}\" vanished while it was looked at"))
        })?;
        let stored = Ranges { storage, path: path.to_string(), size, at: 0, chunk: Bytes::new() };
        let inner = frame::stream(codec, stored).map_err(|e| damaged(&shown, e))?;
        Ok(ObjectReader { inner, shown })
    }

    /// Fills `buf` as far as there are bytes; 0 at the end.
    ///
    /// # Errors
    /// `Corrupt` for bytes that do not decode; what the store said.
    pub fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.inner.read(&mut buf[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(damaged(&self.shown, e)),
            }
        }
        Ok(filled)
    }
}

/// An error of ours that came through a decoder, or the decoder's own.
fn damaged(shown: &str, error: std::io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(own) => own,
        Err(error) => Error::new(ErrorKind::Corrupt, format!("\"{shown}\" is damaged: it does not decode"))
            .detail(error)
            .hint("The repository is damaged there. Get the object back from a copy; verify-archive shows what else is."),
    }
}

/// An object as a stream of ranges.
struct Ranges<'a> {
    storage: &'a Storage,
    path: String,
    size: u64,
    at: u64,
    chunk: Bytes,
}

impl Read for Ranges<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        if self.chunk.is_empty() {
            let len = (self.size - self.at).min(CHUNK as u64) as usize;
            self.chunk = self.storage.get_range(&self.path, self.at, len).map_err(std::io::Error::other)?;
            self.at += len as u64;
        }
        let len = buf.len().min(self.chunk.len());
        buf[..len].copy_from_slice(&self.chunk.split_to(len));
        Ok(len)
    }
}
