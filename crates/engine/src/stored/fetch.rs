//! One frame of a stored archive: fetched, proved by its checksum, decoded.

use super::faults::{FRAME_CHECKSUM, Fault};
use super::index::Frame;
use crate::codec::frame::Decoder;
use crate::repository::Storage;
use pg_ark_contract::{ErrorKind, Result};

/// Fetches a frame of the object at `path` and decodes it into `raw`. Damage of the object is the inner `Err`.
///
/// # Errors
/// What the store said.
pub fn fetch(
    storage: &Storage,
    path: &str,
    frame: &Frame,
    decoder: &mut Decoder,
    raw: &mut Vec<u8>,
) -> Result<std::result::Result<(), Fault>> {
    let (from, to) = (frame.offset, frame.offset.saturating_add(u64::from(frame.stored)));
    let stored = match storage.get_range(path, from, frame.stored as usize) {
        Err(e) if e.kind == ErrorKind::Corrupt => {
            return Ok(Err(match storage.size(path)? {
                None => Fault::missing(),
                Some(size) => Fault::frames(from, to, &format!("the object ends at byte {size}")),
            }));
        }
        fetched => fetched?,
    };
    if crc32c::crc32c(&stored) != frame.crc {
        return Ok(Err(Fault::frames(from, to, FRAME_CHECKSUM)));
    }
    match decoder.decode(&stored, frame.raw as usize, raw) {
        Err(e) if e.kind == ErrorKind::Corrupt => Ok(Err(Fault::frames(from, to, &e.to_string()))),
        decoded => decoded.map(Ok),
    }
}
