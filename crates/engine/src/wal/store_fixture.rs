//! A data directory with WAL made by hand, and a repository, for tests of storing. Segments have 1 MiB.

use super::archive::Archive;
use super::object::ObjectReader;
use super::store::Source;
use crate::postgres::control_file::{CONTROL_FILE, ControlFile};
use crate::postgres::wal_fixture::{SYSTEM_IDENTIFIER, WalWriter};
use crate::repository::Repository;
use pg_ark_contract::SegmentSize;
use pg_ark_contract::conversation::ArchiveTask;
use pg_ark_contract::settings::Compression;
use std::path::{Path, PathBuf};

/// A pg_control of PostgreSQL 15, for segments of 16 MiB.
const CONTROL: &[u8] = include_bytes!("../postgres/testdata/pg_control.15");

/// Bytes in a segment.
pub(crate) const SIZE: u32 = 1 << 20;

/// Data directory and repository.
pub(crate) struct Place {
    pub dir: tempfile::TempDir,
    pub repository: Repository,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["data/global", "data/pg_wal/archive_status", "backups"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        std::fs::write(dir.path().join("data").join(CONTROL_FILE), control()).unwrap();
        let url = format!("file://{}/backups", dir.path().display());
        let (repository, _) = Repository::open_or_create(&url).unwrap();
        Place { dir, repository }
    }

    pub(crate) fn url(&self) -> String {
        self.repository.storage().url().to_string()
    }

    pub(crate) fn pg_wal(&self) -> PathBuf {
        self.dir.path().join("data/pg_wal")
    }

    pub(crate) fn source(&self) -> Source {
        Source { folder: self.pg_wal(), segment_size: size(), server_major: Some(15) }
    }

    pub(crate) fn archive(&self) -> Archive {
        Archive::of(&self.repository.cluster("main").unwrap(), SYSTEM_IDENTIFIER)
    }

    pub(crate) fn task(&self, jobs: u32) -> ArchiveTask {
        ArchiveTask {
            data_directory: self.dir.path().join("data").display().to_string(),
            server_version_num: 150_018,
            compression: Compression::default(),
            jobs,
        }
    }

    /// Puts a file into pg_wal.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.pg_wal().join(name), bytes).unwrap();
    }

    /// Puts a whole segment into pg_wal, which waits to be archived; returns its name.
    pub(crate) fn segment(&self, number: u64) -> String {
        let name = name(number);
        self.put(&name, &segment(number, 1));
        self.ready(&name);
        name
    }

    /// Lets a file wait to be archived.
    pub(crate) fn ready(&self, name: &str) {
        std::fs::write(self.pg_wal().join(format!("archive_status/{name}.ready")), b"").unwrap();
    }

    /// What the archive holds under `name`, decoded.
    pub(crate) fn stored(&self, name: &str) -> Option<Vec<u8>> {
        let archive = self.archive();
        let found = archive.find(name).unwrap()?;
        let mut bytes = vec![0; 2 * SIZE as usize];
        let mut reader = ObjectReader::open(archive.storage(), &found.path, found.codec).unwrap();
        let count = reader.read(&mut bytes).unwrap();
        bytes.truncate(count);
        Some(bytes)
    }

    /// Files below the repository, relative, sorted.
    pub(crate) fn objects(&self) -> Vec<String> {
        files_below(self.repository.storage().folder())
    }
}

/// Files below a folder, relative, sorted.
pub(crate) fn files_below(root: &Path) -> Vec<String> {
    let entries = walkdir::WalkDir::new(root).into_iter().filter_map(|e| e.ok());
    let files = entries.filter(|entry| entry.file_type().is_file());
    let mut names: Vec<String> =
        files.map(|e| e.path().strip_prefix(root).unwrap().display().to_string()).collect();
    names.sort();
    names
}

pub(crate) fn size() -> SegmentSize {
    SegmentSize::new(SIZE).unwrap()
}

/// Name of a segment of timeline 1.
pub(crate) fn name(number: u64) -> String {
    let per_log = (1u64 << 32) / u64::from(SIZE);
    format!("00000001{:08X}{:08X}", number / per_log, number % per_log)
}

/// Content of a segment of timeline 1, which commits transaction `xid`.
pub(crate) fn segment(number: u64, xid: u32) -> Vec<u8> {
    let mut wal = WalWriter::new(size().start_of(number), size());
    wal.commit(xid, 1_000_000);
    wal.switch();
    wal.segments()
}

/// Content of a segment whose writer was changed first.
pub(crate) fn segment_with(number: u64, change: impl Fn(&mut WalWriter)) -> Vec<u8> {
    let mut wal = WalWriter::new(size().start_of(number), size());
    change(&mut wal);
    wal.commit(1, 1_000_000);
    wal.bytes.resize(SIZE as usize, 0);
    wal.bytes
}

/// The control file of a server with segments of 1 MiB whose system identifier is that of the WAL.
fn control() -> Vec<u8> {
    let mut bytes = CONTROL.to_vec();
    let old = [8192u32.to_le_bytes(), (16u32 << 20).to_le_bytes()].concat();
    let at = bytes.windows(8).position(|window| window == old).unwrap() + 4;
    bytes[at..at + 4].copy_from_slice(&SIZE.to_le_bytes());
    bytes[..8].copy_from_slice(&SYSTEM_IDENTIFIER.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..288]);
    bytes[288..292].copy_from_slice(&crc.to_le_bytes());
    let parsed = ControlFile::parse(&bytes).unwrap();
    assert_eq!((parsed.wal_segment_size, parsed.system_identifier), (size(), SYSTEM_IDENTIFIER));
    bytes
}
