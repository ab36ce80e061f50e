//! An archive being written: frames appended in order, cut into volumes, with an index beside them.

use crate::repository::layout;
use crate::repository::record::{ArchiveContent, ArchiveRecord, ObjectRecord};
use crate::repository::storage::{Storage, Upload};
use bytes::Bytes;
use pg_ark_contract::Result;
use pg_ark_contract::settings::Codec;
use serde::Serialize;

/// A frame ready to be stored.
pub struct EncodedFrame {
    /// Stored bytes.
    pub stored: Vec<u8>,
    /// CRC-32C of the stored bytes.
    pub crc: u32,
    /// Bytes of tar in it.
    pub raw: usize,
}

/// Writes one archive.
pub struct ArchiveWriter {
    storage: Storage,
    folder: String,
    name: String,
    content: ArchiveContent,
    volume_size: u64,
    volume: Option<Upload>,
    volumes: Vec<ObjectRecord>,
    index: Upload,
    frames: u64,
    tar_bytes: u64,
}

#[derive(Serialize)]
struct IndexHead<'a> {
    format: u32,
    archive: &'a str,
    codec: &'a str,
}

#[derive(Serialize)]
struct IndexFrame {
    frame: u64,
    volume: u32,
    offset: u64,
    stored: usize,
    raw: usize,
    crc32c: String,
}

#[derive(Serialize)]
struct IndexFile<'a> {
    file: &'a str,
    frame: u64,
    at: usize,
    size: u64,
}

#[derive(Serialize)]
struct IndexEnd {
    end: bool,
    frames: u64,
}

impl ArchiveWriter {
    /// Begins archive `<stem>.tar<suffix of the codec>` in a backup's folder.
    ///
    /// # Errors
    /// What the store said.
    pub fn new(
        storage: &Storage,
        folder: &str,
        stem: &str,
        content: ArchiveContent,
        codec: Codec,
        volume_size: u64,
    ) -> Result<Self> {
        let name = format!("{stem}.tar{}", codec.suffix());
        let mut index = storage.upload(&format!("{folder}/{name}.index"))?;
        line(
            &mut index,
            &IndexHead { format: crate::repository::record::FORMAT, archive: &name, codec: codec.as_str() },
        )?;
        Ok(ArchiveWriter {
            storage: storage.clone(),
            folder: folder.to_string(),
            name,
            content,
            volume_size,
            volume: None,
            volumes: Vec::new(),
            index,
            frames: 0,
            tar_bytes: 0,
        })
    }

    /// Number of the next frame.
    pub fn next_frame(&self) -> u64 {
        self.frames
    }

    /// Bytes of tar so far.
    pub fn tar_bytes(&self) -> u64 {
        self.tar_bytes
    }

    /// Appends a frame, in a new volume where this one is full.
    ///
    /// # Errors
    /// What the store said.
    pub fn append(&mut self, frame: EncodedFrame) -> Result<()> {
        let stored = frame.stored.len();
        if self.volume.as_ref().is_some_and(|v| v.size() > 0 && v.size() + stored as u64 > self.volume_size) {
            self.end_volume()?;
        }
        let number = self.volumes.len() as u32;
        let volume = match &mut self.volume {
            Some(volume) => volume,
            empty => {
                let path = format!("{}/{}", self.folder, layout::volume(&self.name, number));
                empty.insert(self.storage.upload(&path)?)
            }
        };
        let offset = volume.size();
        volume.append_with_crc(Bytes::from(frame.stored), frame.crc)?;
        let crc32c = format!("{:08x}", frame.crc);
        line(
            &mut self.index,
            &IndexFrame { frame: self.frames, volume: number, offset, stored, raw: frame.raw, crc32c },
        )?;
        self.frames += 1;
        self.tar_bytes += frame.raw as u64;
        Ok(())
    }

    /// Notes in the index that the content of `path` (`size` bytes) begins at byte `at` of the last frame appended.
    ///
    /// # Errors
    /// What the store said.
    pub fn note_file(&mut self, path: &[u8], at: usize, size: u64) -> Result<()> {
        let file = String::from_utf8_lossy(path);
        line(&mut self.index, &IndexFile { file: &file, frame: self.frames.saturating_sub(1), at, size })
    }

    /// Makes everything durable.
    ///
    /// # Errors
    /// What the store said.
    pub fn finish(mut self) -> Result<ArchiveRecord> {
        self.end_volume()?;
        line(&mut self.index, &IndexEnd { end: true, frames: self.frames })?;
        let index = self.index.finish()?;
        Ok(ArchiveRecord {
            name: self.name,
            content: self.content,
            volumes: self.volumes,
            frames: self.frames,
            tar_bytes: self.tar_bytes,
            index: Some(ObjectRecord::new(&index)),
        })
    }

    fn end_volume(&mut self) -> Result<()> {
        if let Some(volume) = self.volume.take() {
            self.volumes.push(ObjectRecord::new(&volume.finish()?));
        }
        Ok(())
    }
}

fn line<T: Serialize>(index: &mut Upload, value: &T) -> Result<()> {
    let mut text = serde_json::to_vec(value).map_err(|e| {
        pg_ark_contract::Error::new(pg_ark_contract::ErrorKind::Internal, "could not write an index line")
            .detail(e)
    })?;
    text.push(b'\n');
    index.append_small(&text)
}
