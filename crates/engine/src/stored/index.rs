//! The index of an archive: where its frames are. FORMAT.md, section "Index".
//!
//! An index is believed only if its own checksum matches, its frames cover the volumes exactly, and their checksums
//! combine to those of the volumes. Losing it loses speed, not data: the archive is then read as one stream.

use super::objects::{ObjectReader, hex_crc, recorded_crc};
use crate::codec::frame::{MAX_FRAME, MAX_STORED_FRAME};
use crate::repository::Storage;
use crate::repository::record::ArchiveRecord;
use pg_ark_contract::{ErrorKind, Result};
use serde::Deserialize;

/// Longest line that is looked at; a path has at most 4096 bytes, six characters each when escaped.
const LONGEST_LINE: usize = 64 << 10;

/// Where a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Byte in its volume.
    pub offset: u64,
    /// Number of the volume.
    pub volume: u32,
    /// Stored bytes.
    pub stored: u32,
    /// Bytes of tar.
    pub raw: u32,
    /// CRC-32C of the stored bytes.
    pub crc: u32,
}

/// Where the content of a file begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePlace {
    /// Path in the tar; bytes that are not UTF-8 are replaced.
    pub file: String,
    /// Byte of the whole tar.
    pub at: u64,
    /// Bytes.
    pub size: u64,
}

#[derive(Deserialize)]
struct FileLine {
    file: String,
    frame: u64,
    at: u64,
    size: u64,
}

#[derive(Deserialize)]
struct Line {
    frame: Option<u64>,
    volume: Option<u32>,
    offset: Option<u64>,
    stored: Option<u32>,
    raw: Option<u32>,
    crc32c: Option<String>,
    end: Option<bool>,
    frames: Option<u64>,
}

/// The frames of an archive, or why its index cannot be used.
///
/// # Errors
/// Only when the store itself is out of reach; an index that is damaged or cannot be read is the inner `Err`.
pub fn load(
    storage: &Storage,
    folder: &str,
    archive: &ArchiveRecord,
) -> Result<std::result::Result<Vec<Frame>, String>> {
    load_files(storage, folder, archive, None)
}

/// What is done with the place of a file; it may refuse it.
pub type OnFile<'a> = dyn FnMut(FilePlace) -> std::result::Result<(), String> + 'a;

/// As [`load`], and gives the place of each file to `on_file`, in the index's order.
///
/// # Errors
/// As [`load`].
pub fn load_files(
    storage: &Storage,
    folder: &str,
    archive: &ArchiveRecord,
    on_file: Option<&mut OnFile<'_>>,
) -> Result<std::result::Result<Vec<Frame>, String>> {
    let Some(object) = &archive.index else { return Ok(Err("it has none".into())) };
    let mut reader = ObjectReader::new(storage, folder, std::slice::from_ref(object));
    let mut index = Reader { archive, frames: Vec::new(), starts: Vec::new(), raw: 0, ended: false, on_file };
    let mut line = Vec::new();
    loop {
        let chunk = match reader.chunk() {
            Ok(chunk) if chunk.is_empty() => break,
            Ok(chunk) => chunk,
            // Where the disk gives no index, it may still give the data.
            Err(e) if matches!(e.kind, ErrorKind::Corrupt | ErrorKind::Io | ErrorKind::PermissionDenied) => {
                return Ok(Err(e.to_string()));
            }
            Err(e) => return Err(e),
        };
        for part in chunk.split_inclusive(|b| *b == b'\n') {
            line.extend_from_slice(part);
            if line.len() > LONGEST_LINE {
                return Ok(Err("a line is too long".into()));
            }
            if line.ends_with(b"\n") {
                if let Err(why) = index.line(&line) {
                    return Ok(Err(why));
                }
                line.clear();
            }
        }
    }
    Ok(if index.ended {
        check(archive, &index.frames).map(|()| index.frames)
    } else {
        Err("it is cut off".into())
    })
}

struct Reader<'a, 'f> {
    archive: &'a ArchiveRecord,
    frames: Vec<Frame>,
    /// First byte of each frame in the tar, when files are asked for.
    starts: Vec<u64>,
    raw: u64,
    ended: bool,
    on_file: Option<&'a mut OnFile<'f>>,
}

impl Reader<'_, '_> {
    fn line(&mut self, line: &[u8]) -> std::result::Result<(), String> {
        if line.starts_with(b"{\"file\"") {
            return self.file(line);
        }
        let line: Line = serde_json::from_slice(line).map_err(|e| format!("a line is not JSON: {e}"))?;
        if self.ended {
            return Err("something follows its end".into());
        }
        if line.end == Some(true) {
            self.ended = true;
            let complete = line.frames == Some(self.frames.len() as u64);
            return if complete {
                Ok(())
            } else {
                Err("it lists another number of frames than it says".into())
            };
        }
        let Some(number) = line.frame else { return Ok(()) };
        let frame = (|| {
            Some(Frame {
                offset: line.offset?,
                volume: line.volume?,
                stored: line.stored?,
                raw: line.raw?,
                crc: hex_crc(&line.crc32c?)?,
            })
        })();
        let frame = frame.ok_or_else(|| format!("frame {number} is incomplete"))?;
        if number != self.frames.len() as u64 || number >= self.archive.frames {
            return Err(format!("frame {number} is out of place"));
        }
        self.frames.push(frame);
        if self.on_file.is_some() {
            self.starts.push(self.raw);
        }
        self.raw = self.raw.saturating_add(u64::from(frame.raw));
        Ok(())
    }

    fn file(&mut self, line: &[u8]) -> std::result::Result<(), String> {
        let Some(on_file) = &mut self.on_file else { return Ok(()) };
        let line: FileLine = serde_json::from_slice(line).map_err(|e| format!("a line is not JSON: {e}"))?;
        let start = usize::try_from(line.frame).ok().and_then(|frame| self.starts.get(frame));
        match start.and_then(|start| start.checked_add(line.at)) {
            Some(at) => on_file(FilePlace { file: line.file, at, size: line.size }),
            None => Err("a file is in no frame".into()),
        }
    }
}

/// Frames must follow each other without holes, fill every volume, and agree with its checksum and the tar's size.
fn check(archive: &ArchiveRecord, frames: &[Frame]) -> std::result::Result<(), String> {
    let mut rest = frames;
    for (number, volume) in archive.volumes.iter().enumerate() {
        let mut size = 0u64;
        let mut crc = 0;
        while let Some((frame, after)) = rest.split_first().filter(|(f, _)| f.volume as usize == number) {
            if frame.offset != size
                || frame.raw as usize > MAX_FRAME
                || frame.stored as usize > MAX_STORED_FRAME
            {
                return Err(format!("a frame of volume {number} is out of place or too large"));
            }
            size += u64::from(frame.stored);
            crc = crc32c::crc32c_combine(crc, frame.crc, frame.stored as usize);
            rest = after;
        }
        let stated = recorded_crc(volume).map_err(|e| e.to_string())?;
        if size != volume.size || crc != stated {
            return Err(format!("its frames do not make up \"{}\"", volume.name));
        }
    }
    let raw: u64 = frames.iter().map(|f| u64::from(f.raw)).sum();
    match rest.is_empty() && frames.len() as u64 == archive.frames && raw == archive.tar_bytes {
        true => Ok(()),
        false => Err("its frames do not make up the archive".into()),
    }
}
