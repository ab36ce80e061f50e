//! Members written one after another by one thread: WAL, configuration files, and the last members of an archive.

use super::archive::{ArchiveWriter, EncodedFrame};
use super::member::{self, Attributes, Kind};
use crate::codec::frame::{Encoder, FRAME_SIZE};
use crate::session::Session;
use pg_ark_contract::settings::Compression;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::io::Read;

/// Appends members to an archive.
pub struct SerialWriter<'a> {
    archive: ArchiveWriter,
    encoder: Encoder,
    buffer: Vec<u8>,
    noted: Vec<(Vec<u8>, usize, u64)>,
    session: &'a Session,
}

impl<'a> SerialWriter<'a> {
    /// Continues `archive`.
    ///
    /// # Errors
    /// When the compressor refuses its parameters.
    pub fn new(archive: ArchiveWriter, compression: Compression, session: &'a Session) -> Result<Self> {
        let encoder = Encoder::new(compression)?;
        Ok(SerialWriter {
            archive,
            encoder,
            buffer: Vec::with_capacity(FRAME_SIZE),
            noted: Vec::new(),
            session,
        })
    }

    /// Appends a folder.
    ///
    /// # Errors
    /// What the store said.
    pub fn directory(&mut self, path: &[u8], attributes: Attributes) -> Result<()> {
        self.put(&member::header(path, Kind::Directory, attributes))
    }

    /// Appends a file with exactly `size` bytes from `content`; returns the CRC-32C of them.
    ///
    /// # Errors
    /// When reading fails or ends early (`source` names the file), or what the store said.
    pub fn file(
        &mut self,
        path: &[u8],
        size: u64,
        attributes: Attributes,
        content: &mut dyn Read,
        source: &str,
    ) -> Result<u32> {
        self.put(&member::header(path, Kind::File(size), attributes))?;
        self.noted.push((path.to_vec(), self.buffer.len(), size));
        let mut left = size;
        let mut crc = 0;
        while left > 0 {
            self.session.check()?;
            if self.buffer.len() >= FRAME_SIZE {
                self.flush()?;
            }
            let room = (FRAME_SIZE - self.buffer.len()).min(usize::try_from(left).unwrap_or(FRAME_SIZE));
            let at = self.buffer.len();
            let read = content
                .take(room as u64)
                .read_to_end(&mut self.buffer)
                .map_err(|e| Error::io(format!("could not read \"{source}\""), &e))?;
            if read == 0 {
                return Err(Error::new(
                    ErrorKind::Io,
                    format!("\"{source}\" ended {left} bytes before its size of {size} bytes"),
                ));
            }
            crc = crc32c::crc32c_append(crc, &self.buffer[at..]);
            left -= read as u64;
        }
        self.put(&[0; member::BLOCK][..member::padding(size)])?;
        Ok(crc)
    }

    /// Appends the end of the tar and returns the archive, ready to be finished.
    ///
    /// # Errors
    /// What the store said.
    pub fn end(mut self) -> Result<ArchiveWriter> {
        self.put(&[0; member::TRAILER])?;
        self.flush()?;
        Ok(self.archive)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= FRAME_SIZE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let stored = self.encoder.encode(&self.buffer)?;
        let crc = crc32c::crc32c(&stored);
        self.archive.append(EncodedFrame { stored, crc, raw: self.buffer.len() })?;
        for (path, at, size) in self.noted.drain(..) {
            self.archive.note_file(&path, at, size)?;
        }
        self.buffer.clear();
        Ok(())
    }
}
