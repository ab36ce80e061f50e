//! A dump being stored: appended bytes, cut into volumes.

use crate::repository::layout;
use crate::repository::record::ObjectRecord;
use crate::repository::storage::{Storage, Upload};
use bytes::Bytes;
use pg_ark_contract::Result;

/// Stores one dump, or the globals.
pub struct Volumes<'a> {
    storage: &'a Storage,
    folder: &'a str,
    name: String,
    volume_size: u64,
    current: Option<Upload>,
    stored: Vec<ObjectRecord>,
}

impl<'a> Volumes<'a> {
    /// Object `name` of the backup in `folder`; `volume_size` is in bytes. Nothing is there until it is finished.
    pub fn new(storage: &'a Storage, folder: &'a str, name: String, volume_size: u64) -> Self {
        Volumes { storage, folder, name, volume_size: volume_size.max(1), current: None, stored: Vec::new() }
    }

    /// Appends bytes, in a new volume where this one is full.
    ///
    /// # Errors
    /// What the store said.
    pub fn append(&mut self, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            let number = self.stored.len() as u32;
            let current = match &mut self.current {
                Some(current) => current,
                empty => {
                    let path = format!("{}/{}", self.folder, layout::volume(&self.name, number));
                    empty.insert(self.storage.upload(&path)?)
                }
            };
            let room = usize::try_from(self.volume_size.saturating_sub(current.size())).unwrap_or(usize::MAX);
            if room == 0 {
                self.end_volume()?;
                continue;
            }
            let part = bytes.split_to(room.min(bytes.len()));
            current.append(part)?;
        }
        Ok(())
    }

    /// Makes everything durable.
    ///
    /// # Errors
    /// What the store said.
    pub fn finish(mut self) -> Result<Vec<ObjectRecord>> {
        self.end_volume()?;
        Ok(self.stored)
    }

    /// Removes what was stored.
    ///
    /// # Errors
    /// What the store said.
    pub fn discard(self) -> Result<()> {
        drop(self.current);
        self.stored
            .iter()
            .try_for_each(|volume| self.storage.delete(&format!("{}/{}", self.folder, volume.name)))
    }

    fn end_volume(&mut self) -> Result<()> {
        if let Some(current) = self.current.take() {
            self.stored.push(ObjectRecord::new(&current.finish()?));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(dir: &std::path::Path) -> Storage {
        Storage::open(&format!("file://{}", dir.display())).unwrap()
    }

    #[test]
    fn volumes_are_cut_exactly_and_read_back_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let storage = storage(dir.path());
        for (sizes, volumes) in
            [(&[3, 4][..], &[7][..]), (&[10], &[10]), (&[11], &[10, 1]), (&[4, 25, 1], &[10, 10, 10])]
        {
            let mut written = Vec::new();
            let mut target = Volumes::new(&storage, "f", "x.dump".into(), 10);
            for size in sizes {
                let bytes: Vec<u8> = (written.len()..written.len() + size).map(|n| n as u8).collect();
                written.extend_from_slice(&bytes);
                target.append(bytes.into()).unwrap();
            }
            let stored = target.finish().unwrap();
            assert_eq!(stored.iter().map(|v| v.size).collect::<Vec<_>>(), volumes, "{sizes:?}");
            let read = |v: &ObjectRecord| storage.get(&format!("f/{}", v.name), 100).unwrap().unwrap();
            assert_eq!(stored.iter().flat_map(read).collect::<Vec<u8>>(), written);
            assert!(stored.iter().skip(1).zip(1..).all(|(v, n)| v.name == format!("x.dump.{n:04}")));
        }
    }

    #[test]
    fn what_is_discarded_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let storage = storage(dir.path());
        let mut target = Volumes::new(&storage, "f", "x.dump".into(), 10);
        target.append(Bytes::from(vec![1; 35])).unwrap();
        assert_eq!(storage.list("f").unwrap().len(), 3);
        target.discard().unwrap();
        assert_eq!(storage.list("f").unwrap(), []);
    }
}
