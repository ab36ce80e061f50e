//! A repository for tests: one logical backup, of dumps that PostgreSQL's own programs wrote.

use super::validate_fixture::Deaf;
use super::{Request, validate};
use crate::backup::archive::{ArchiveWriter, EncodedFrame};
use crate::codec::frame::Encoder;
use crate::repository::logical_record::{DatabaseRecord, LogicalRecord};
use crate::repository::record::{ArchiveContent, ArchiveRecord, ObjectRecord};
use crate::repository::{Cluster, Record, Repository, layout};
use pg_ark_contract::conversation::{BackupKind, Level};
use pg_ark_contract::rows::{BackupStatus, FindingRow};
use std::path::PathBuf;

/// The system identifier.
pub(crate) const SYSTEM: u64 = 7;
/// The name of the backup.
pub(crate) const NAME: &str = "20261122T030000Z-logical";

/// A repository with one logical backup of two databases: `app`, and one whose name needs escaping.
pub(crate) struct Dumped {
    _dir: tempfile::TempDir,
    pub cluster: Cluster,
    pub folder: String,
    pub record: Record,
}

/// A file that PostgreSQL 15 wrote.
pub(crate) fn golden(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/dumps");
    std::fs::read(folder.join(name)).unwrap()
}

impl Dumped {
    /// Dumps in volumes of so many bytes.
    pub(crate) fn new(compression: &str, volume_size: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file://{}", dir.path().display());
        let (repository, _) = Repository::open_or_create(&url).unwrap();
        let mut cluster = repository.cluster("main").unwrap();
        cluster.remember_system(SYSTEM, 150_020).unwrap();
        let folder = cluster.backup_folder(SYSTEM, NAME);
        let mut record = Record {
            kind: BackupKind::Logical,
            status: BackupStatus::Complete,
            started_at: "2026-11-22T03:00:00Z".into(),
            finished_at: Some("2026-11-22T03:00:09Z".into()),
            server_version_num: 150_020,
            server_version: "15.20".into(),
            compression: compression.parse().unwrap(),
            data_bytes: 3 << 20,
            config_files: vec!["/etc/postgresql/15/main/pg_hba.conf".into()],
            ..Record::begun(NAME.into(), "main", SYSTEM)
        };
        record.data_directory.path = "/var/lib/postgresql/15/main".into();
        let mut dumped = Dumped { _dir: dir, cluster, folder, record };
        let text = golden("globals.sql");
        let globals = Encoder::new(dumped.record.compression).unwrap().encode(&text).unwrap();
        let name = format!("{}{}", layout::GLOBALS, dumped.record.compression.codec.suffix());
        dumped.record.logical = Some(LogicalRecord {
            pg_dump: "pg_dump (PostgreSQL) 15.20".into(),
            globals: dumped.store(&name, &globals, volume_size),
            globals_bytes: text.len() as u64,
            databases: vec![
                dumped.database("a b/ä\"'", "other.dump", 1 << 20, volume_size),
                dumped.database("app", "app.dump", 2 << 20, volume_size),
            ],
            ..LogicalRecord::default()
        });
        dumped.record.archives = vec![dumped.config()];
        dumped.save();
        dumped
    }

    fn database(&self, name: &str, file: &str, data_bytes: u64, volume_size: usize) -> DatabaseRecord {
        let volumes = self.store(&layout::dump_name(name), &golden(file), volume_size);
        DatabaseRecord { name: name.into(), volumes, data_bytes, ..DatabaseRecord::default() }
    }

    fn config(&self) -> ArchiveRecord {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(6);
        header.set_mode(0o640);
        tar.append_data(&mut header, "etc/postgresql/15/main/pg_hba.conf", &b"local\n"[..]).unwrap();
        let tar = tar.into_inner().unwrap();
        let (compression, content) = (self.record.compression, ArchiveContent::Config);
        let storage = self.cluster.storage();
        let mut writer =
            ArchiveWriter::new(storage, &self.folder, "config", content, compression.codec, 1 << 30).unwrap();
        let stored = Encoder::new(compression).unwrap().encode(&tar).unwrap();
        let crc = crc32c::crc32c(&stored);
        writer.append(EncodedFrame { stored, crc, raw: tar.len() }).unwrap();
        writer.note_file(b"etc/postgresql/15/main/pg_hba.conf", 512, 6).unwrap();
        writer.finish().unwrap()
    }

    /// Stores an object in volumes.
    pub(crate) fn store(&self, name: &str, bytes: &[u8], volume_size: usize) -> Vec<ObjectRecord> {
        let volume = |(number, part): (u32, &[u8])| {
            let name = layout::volume(name, number);
            self.cluster.storage().put(&format!("{}/{name}", self.folder), part.to_vec()).unwrap();
            ObjectRecord { name, size: part.len() as u64, crc32c: format!("{:08x}", crc32c::crc32c(part)) }
        };
        (0..).zip(bytes.chunks(volume_size)).map(volume).collect()
    }

    pub(crate) fn logical(&mut self) -> &mut LogicalRecord {
        self.record.logical.as_mut().unwrap()
    }

    pub(crate) fn save(&mut self) {
        self.record.stored_bytes = crate::backup::finish::objects(&self.record).map(|o| o.size).sum();
        self.record.save(self.cluster.storage(), &self.folder).unwrap();
    }

    pub(crate) fn object(&self, name: &str) -> PathBuf {
        self.cluster.storage().folder().join(&self.folder).join(name)
    }

    /// Path in the repository.
    pub(crate) fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }

    pub(crate) fn rows(&self, alone: bool, level: Level) -> Vec<FindingRow> {
        let backup = alone.then(|| NAME.to_string());
        validate(&self.cluster, &Request { backup, level, jobs: 2 }, &Deaf).unwrap()
    }

    /// What is found in the backup at level data, as `severity object: finding`.
    pub(crate) fn told(&self) -> Vec<String> {
        let prefix = format!("{}/", self.folder);
        let line = |row: FindingRow| {
            format!("{} {}: {}", row.severity.as_str(), row.object.trim_start_matches(&prefix), row.finding)
        };
        self.rows(true, Level::Data).into_iter().map(line).collect()
    }
}
