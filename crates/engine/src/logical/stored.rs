//! A stored dump, read back and proved. Everything here is hostile input: the names of objects must be the ones that follow
//! from the databases', whatever the record says.

use crate::codec::frame;
use crate::repository::logical_record::{DatabaseRecord, LogicalRecord};
use crate::repository::record::{ArchiveContent, ObjectRecord};
use crate::repository::{Record, Storage};
use crate::stored::faults::Fault;
use crate::stored::objects::{ObjectReader, recorded_crc};
use pg_ark_contract::conversation::BackupKind;
use pg_ark_contract::settings::Codec;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::io::Read;
use std::path::PathBuf;

/// What a logical backup holds, once nothing in its record leads out of its folder.
///
/// # Errors
/// `Corrupt` for what [`faults`] finds.
pub fn check(record: &Record) -> Result<&LogicalRecord> {
    match (faults(record).into_iter().next(), &record.logical) {
        (None, Some(logical)) => Ok(logical),
        (fault, _) => Err(Error::new(
            ErrorKind::Corrupt,
            format!("the record of backup \"{}\" contradicts itself", record.backup),
        )
        .detail(fault.unwrap_or_default())
        .hint("It was changed or made by something else. Restore another backup.")),
    }
}

/// What the record says more, less or else than a logical backup's, in kinds and names of objects. Sentences without the path
/// of the record; none when all is well.
pub fn faults(record: &Record) -> Vec<String> {
    let Some(logical) = record.logical.as_ref().filter(|_| record.kind == BackupKind::Logical) else {
        return vec!["it is not that of a logical backup".to_string()];
    };
    let codec = record.compression.codec;
    let config = format!("{}.tar{}", ArchiveContent::Config.stem(), codec.suffix());
    let is_config = match &record.archives[..] {
        [] => true,
        [archive] => {
            archive.content == ArchiveContent::Config
                && archive.name == config
                && !archive.volumes.is_empty()
                && archive.names_fit()
        }
        _ => false,
    };
    let mut faults = Vec::new();
    if !is_config || record.manifest.is_some() {
        faults.push("it names objects that belong to a physical backup".to_string());
    }
    if record.wal_included || record.start_lsn.is_some() || record.stop_lsn.is_some() {
        faults.push("it names WAL, and no dump needs any".to_string());
    }
    faults.extend(logical.strange_names(codec));
    faults
}

/// The stored dump of a database, or the globals.
#[derive(Debug, Clone, Copy)]
pub struct Dump<'a> {
    storage: &'a Storage,
    folder: &'a str,
    volumes: &'a [ObjectRecord],
}

impl<'a> Dump<'a> {
    /// The dump of a database of the backup in `folder`. The record must have passed [`check()`].
    pub fn of(storage: &'a Storage, folder: &'a str, database: &'a DatabaseRecord) -> Self {
        Dump { storage, folder, volumes: &database.volumes }
    }

    /// The globals of the backup in `folder`; [`Dump::decoded`] gives their text.
    pub fn globals(storage: &'a Storage, folder: &'a str, logical: &'a LogicalRecord) -> Self {
        Dump { storage, folder, volumes: &logical.globals }
    }

    /// Stored bytes, as the record has them.
    pub fn size(&self) -> u64 {
        self.volumes.iter().fold(0, |sum: u64, volume| sum.saturating_add(volume.size))
    }

    /// The volumes.
    pub fn volumes(&self) -> &'a [ObjectRecord] {
        self.volumes
    }

    /// Path of a volume in the repository.
    pub fn path_of(&self, volume: &ObjectRecord) -> String {
        format!("{}/{}", self.folder, volume.name)
    }

    /// Reads every volume and compares it with the record. `watch` hears the bytes of every piece that was read, and may end
    /// the work.
    ///
    /// # Errors
    /// `Corrupt`, naming the first volume that is missing, cut, longer or changed; what the store or `watch` said.
    pub fn check(&self, watch: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        for volume in self.volumes {
            if let Some(fault) = self.fault(volume, watch)? {
                return Err(fault.error(&self.storage.display(&self.path_of(volume))));
            }
        }
        Ok(())
    }

    /// What is wrong with one of the volumes, if anything; all of it is read.
    ///
    /// # Errors
    /// What the store or `watch` said.
    pub fn fault(
        &self,
        volume: &ObjectRecord,
        watch: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Option<Fault>> {
        match self.storage.size(&self.path_of(volume))? {
            None => return Ok(Some(Fault::missing())),
            Some(size) if size != volume.size => return Ok(Some(Fault::size(size, volume.size))),
            Some(_) => {}
        }
        if let Err(error) = recorded_crc(volume) {
            return Ok(Some(Fault::other(&error)));
        }
        let mut reader = ObjectReader::new(self.storage, self.folder, std::slice::from_ref(volume));
        loop {
            match reader.chunk() {
                Ok(bytes) if bytes.is_empty() => return Ok(None),
                Ok(bytes) => watch(bytes.len() as u64)?,
                Err(error) if error.kind == ErrorKind::Corrupt => return Ok(Some(Fault::changed())),
                Err(error) => return Err(error),
            }
        }
    }

    /// The bytes of all volumes, one after another: what `pg_dump` wrote. The end of each volume is an error unless its
    /// checksum matches.
    pub fn reader(&self) -> ObjectReader<'a> {
        ObjectReader::new(self.storage, self.folder, self.volumes)
    }

    /// The text of the globals, expanded.
    ///
    /// # Errors
    /// `Internal` when the decoder cannot be made. Damage shows as I/O errors while reading; those that carry an [`Error`] are
    /// what [`unwrap_io`](crate::stored::objects::unwrap_io) takes.
    pub fn decoded(&self, codec: Codec) -> Result<Box<dyn Read + Send + 'a>> {
        frame::stream(codec, self.reader())
            .map_err(|e| Error::new(ErrorKind::Internal, "could not make a decoder").detail(e))
    }

    /// The dump as a file that `pg_restore` can seek in: one volume in a repository that is a directory.
    pub fn path(&self) -> Option<PathBuf> {
        let [only] = self.volumes else { return None };
        let path = self.storage.folder().join(self.path_of(only));
        path.is_file().then_some(path)
    }
}

#[cfg(test)]
#[path = "stored_tests.rs"]
mod tests;
