//! Stored objects read as one stream, each proved by its size and checksum from the record.

use crate::repository::Storage;
use crate::repository::record::ObjectRecord;
use bytes::Bytes;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::io::Read;

/// Bytes fetched at a time.
const CHUNK: u64 = 1 << 20;

/// Reads objects one after the other. The end of each is an error unless its checksum matches.
pub struct ObjectReader<'a> {
    storage: &'a Storage,
    folder: &'a str,
    objects: &'a [ObjectRecord],
    current: usize,
    offset: u64,
    crc: u32,
    chunk: Bytes,
}

impl<'a> ObjectReader<'a> {
    /// Reads `objects` of the backup in `folder`.
    pub fn new(storage: &'a Storage, folder: &'a str, objects: &'a [ObjectRecord]) -> Self {
        ObjectReader { storage, folder, objects, current: 0, offset: 0, crc: 0, chunk: Bytes::new() }
    }

    /// Number of the object that is being read; how many there are at the end.
    pub fn current(&self) -> usize {
        self.current
    }

    /// The next bytes; empty at the end.
    ///
    /// # Errors
    /// `Corrupt` when an object is shorter or longer than recorded or its checksum differs; what the store said.
    pub fn chunk(&mut self) -> Result<Bytes> {
        while let Some(object) = self.objects.get(self.current) {
            let path = format!("{}/{}", self.folder, object.name);
            if self.offset < object.size {
                let len = (object.size - self.offset).min(CHUNK);
                let bytes = self.storage.get_range(&path, self.offset, len as usize)?;
                self.crc = crc32c::crc32c_append(self.crc, &bytes);
                self.offset += len;
                return Ok(bytes);
            }
            if self.storage.size(&path)? != Some(object.size) || self.crc != recorded_crc(object)? {
                return Err(damaged(self.storage, self.folder, object));
            }
            self.current += 1;
            self.offset = 0;
            self.crc = 0;
        }
        Ok(Bytes::new())
    }
}

impl Read for ObjectReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        if self.chunk.is_empty() {
            self.chunk = self.chunk().map_err(std::io::Error::other)?;
        }
        let len = buf.len().min(self.chunk.len());
        buf[..len].copy_from_slice(&self.chunk.split_to(len));
        Ok(len)
    }
}

/// The checksum that a record states.
///
/// # Errors
/// `Corrupt` when it is none.
pub fn recorded_crc(object: &ObjectRecord) -> Result<u32> {
    hex_crc(&object.crc32c).ok_or_else(|| {
        Error::new(
            ErrorKind::Corrupt,
            format!("the record has no valid checksum of \"{}\"", object.name.escape_debug()),
        )
    })
}

/// Eight hexadecimal digits.
pub fn hex_crc(text: &str) -> Option<u32> {
    let plain = text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if plain { u32::from_str_radix(text, 16).ok() } else { None }
}

/// The error that a reader meant, where it was carried through `std::io`.
pub fn unwrap_io(what: &str, error: std::io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(own) => own,
        Err(error) => Error::new(ErrorKind::Corrupt, what.to_string()).detail(error),
    }
}

fn damaged(storage: &Storage, folder: &str, object: &ObjectRecord) -> Error {
    let path = storage.display(&format!("{folder}/{}", object.name));
    Error::new(ErrorKind::Corrupt, format!("\"{path}\" is not what was stored: its size or checksum differs"))
        .hint("The repository is damaged there. Restore another backup, or get the object back from a copy.")
}
