//! What a backup remembers of each file, in order: the manifest's entries, damage, totals.

use super::read::{FileFacts, FilledPiece, PieceDigest};
use crate::names::{DataDirectory, Named, Namer};
use crate::postgres::manifest::ManifestWriter;
use crate::repository::record::DamageRecord;
use crate::repository::storage::Upload;
use crate::session::Session;
use pg_ark_contract::conversation::Event;
use pg_ark_contract::settings::Checksum;
use pg_ark_contract::{Lsn, Result, Timeline};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Most blocks remembered of a damaged file.
const MAX_BLOCKS: usize = 100;
/// Most damaged files remembered.
const MAX_DAMAGED_FILES: usize = 1000;

/// The books of one backup.
pub struct Books {
    manifest: ManifestWriter<Upload>,
    checksum: Checksum,
    crc: u32,
    sha: Sha256,
    blocks: Vec<u32>,
    blocks_in_all: u64,
    names: Option<Namer<DataDirectory>>,
    more_damage: bool,
    /// Files in the manifest.
    pub files: u64,
    /// Bytes of them.
    pub data_bytes: u64,
    /// Damaged pages in all.
    pub damaged_pages: u64,
    /// The first damaged files.
    pub damage: Vec<DamageRecord>,
}

impl Books {
    /// Begins the books with a manifest that goes to `upload`.
    ///
    /// # Errors
    /// What the store said.
    pub fn new(
        upload: Upload,
        server_major: u32,
        system_identifier: u64,
        checksum: Checksum,
    ) -> Result<Self> {
        let version = if server_major >= 17 { 2 } else { 1 };
        Ok(Books {
            manifest: ManifestWriter::new(upload, version, system_identifier)?,
            checksum,
            crc: 0,
            sha: Sha256::new(),
            blocks: Vec::new(),
            blocks_in_all: 0,
            names: None,
            more_damage: false,
            files: 0,
            data_bytes: 0,
            damaged_pages: 0,
            damage: Vec::new(),
        })
    }

    /// Names damaged relations by the catalogs in this data directory. pg_backup_start has made a checkpoint, so they
    /// are on disk.
    pub fn with_names(mut self, data_directory: &Path) -> Self {
        self.names = Some(Namer::new(DataDirectory::new(data_directory)));
        self
    }

    /// Enters a piece whose content is `bytes`; pieces of one file come one after another.
    ///
    /// # Errors
    /// What the store said.
    pub fn enter(&mut self, piece: &FilledPiece, bytes: &[u8], session: &Session) -> Result<()> {
        if piece.first {
            self.crc = 0;
            self.sha = Sha256::new();
            self.blocks.clear();
            self.blocks_in_all = 0;
        }
        match piece.digest {
            PieceDigest::Crc32c(crc) if piece.first => self.crc = crc,
            PieceDigest::Crc32c(crc) => self.crc = crc32c::crc32c_combine(self.crc, crc, bytes.len()),
            PieceDigest::Later => self.sha.update(bytes),
            PieceDigest::Sha256(_) => {}
        }
        self.blocks_in_all += piece.damaged.len() as u64;
        let room = MAX_BLOCKS - self.blocks.len();
        self.blocks.extend(piece.damaged.iter().take(room));
        if piece.last { self.end_file(piece, session) } else { Ok(()) }
    }

    /// Enters a file that was written whole, with its content at hand.
    ///
    /// # Errors
    /// What the store said.
    pub fn enter_whole(&mut self, path: &str, content: &[u8], mtime: i64) -> Result<()> {
        let digest = match self.checksum {
            Checksum::Crc32c => PieceDigest::Crc32c(crc32c::crc32c(content)),
            Checksum::Sha256 => PieceDigest::Sha256(Sha256::digest(content).into()),
        };
        if let PieceDigest::Crc32c(crc) = digest {
            self.crc = crc;
        }
        self.write(path.as_bytes(), content.len() as u64, mtime, &digest)
    }

    /// Ends the manifest with the WAL that the backup needs.
    ///
    /// # Errors
    /// What the store said.
    pub fn close(self, timeline: Timeline, start: Lsn, stop: Lsn) -> Result<Upload> {
        let mut manifest = self.manifest;
        manifest.wal_range(timeline, start, stop)?;
        manifest.finish()
    }

    fn end_file(&mut self, piece: &FilledPiece, session: &Session) -> Result<()> {
        let file = &piece.file;
        self.write(&file.manifest, file.size, file.mtime, &piece.digest)?;
        if self.blocks_in_all > 0 {
            self.report_damage(file, session);
        }
        if piece.cut {
            self.report_cut(file, session);
        }
        Ok(())
    }

    fn write(&mut self, path: &[u8], size: u64, mtime: i64, digest: &PieceDigest) -> Result<()> {
        match digest {
            PieceDigest::Crc32c(_) => {
                self.manifest.file(path, size, mtime, Some(("CRC32C", &self.crc.to_le_bytes())))?;
            }
            PieceDigest::Sha256(sum) => self.manifest.file(path, size, mtime, Some(("SHA256", sum)))?,
            PieceDigest::Later => {
                let sum = std::mem::take(&mut self.sha).finalize();
                self.manifest.file(path, size, mtime, Some(("SHA256", &sum)))?;
            }
        }
        self.files += 1;
        self.data_bytes += size;
        Ok(())
    }

    fn report_damage(&mut self, file: &FileFacts, session: &Session) {
        let path = String::from_utf8_lossy(&file.manifest).into_owned();
        let (relation, database) = self.name(&path).map_or((None, None), |n| (n.relation, n.database));
        let blocks = std::mem::take(&mut self.blocks);
        let damaged_pages = self.blocks_in_all;
        self.damaged_pages += damaged_pages;
        if self.damage.len() < MAX_DAMAGED_FILES {
            self.damage.push(DamageRecord {
                path: path.clone(),
                relation: relation.clone(),
                database: database.clone(),
                blocks: blocks.clone(),
                damaged_pages,
            });
        } else if !self.more_damage {
            self.more_damage = true;
            session.warn(
                format!("more than {MAX_DAMAGED_FILES} files have damaged pages: the record names the first"),
                Some("The server log names all of them.".into()),
            );
        }
        session.emit(Event::FileDamaged { path, relation, database, blocks, damaged_pages });
    }

    /// The server does not read a part of a page: it is as good as lost.
    fn report_cut(&mut self, file: &FileFacts, session: &Session) {
        let path = String::from_utf8_lossy(&file.manifest).into_owned();
        let name = self.name(&path).map_or_else(String::new, |name| format!(" ({name})"));
        session.warn(
            format!("file \"{path}\"{name} ends within a page: it has {} bytes", file.size),
            Some("Check the disk and the relation: rows of its last page may be lost.".into()),
        );
    }

    fn name(&mut self, path: &str) -> Option<Named> {
        self.names.as_mut()?.name(path)
    }
}

#[cfg(test)]
#[path = "books_tests.rs"]
mod tests;
