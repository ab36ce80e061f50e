//! An archive for tests, with WAL made by hand.

use crate::postgres::wal_fixture::{SYSTEM_IDENTIFIER, WalWriter};
use crate::postgres::wal_segment::SegmentName;
use crate::repository::{Cluster, Repository};
use crate::wal::archive::Archive;
use crate::wal::index::Index;
use crate::wal::object;
use crate::wal::summary::Summarizer;
use pg_ark_contract::settings::Compression;
use pg_ark_contract::{SegmentSize, Timeline};

/// Bytes in a segment.
pub(crate) const SIZE: u64 = 1 << 20;

pub(crate) fn size() -> SegmentSize {
    SegmentSize::new(SIZE as u32).unwrap()
}

pub(crate) fn name(timeline: u32, number: u64) -> SegmentName {
    SegmentName { timeline: Timeline(timeline), number }
}

/// A repository with one cluster.
pub(crate) struct Stored {
    pub cluster: Cluster,
    pub archive: Archive,
    _dir: tempfile::TempDir,
}

impl Stored {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file://{}", dir.path().display());
        let (repository, _) = Repository::open_or_create(&url).unwrap();
        let mut cluster = repository.cluster("main").unwrap();
        cluster.remember_system(SYSTEM_IDENTIFIER, 150_000).unwrap();
        let archive = Archive::of(&cluster, SYSTEM_IDENTIFIER);
        Stored { cluster, archive, _dir: dir }
    }

    /// Stores a segment, or what shall pass for one.
    pub(crate) fn put(&self, timeline: u32, number: u64, suffix: &str, bytes: &[u8]) {
        let path = self.archive.path(&name(timeline, number).file_name(size())).unwrap();
        let compression: Compression =
            if suffix.ends_with("lz4") { "lz4" } else { "zstd:1" }.parse().unwrap();
        let stored = object::encode(compression, &mut &bytes[..], bytes.len() as u64, "x", &mut |_| Ok(()));
        self.archive.storage().put(&format!("{path}{suffix}"), stored.unwrap()).unwrap();
    }

    /// Stores every segment that the writer began.
    pub(crate) fn put_wal(&self, wal: &WalWriter) {
        let first = wal.start.0 / SIZE;
        for (number, bytes) in (first..).zip(wal.segments().chunks(SIZE as usize)) {
            self.put(wal.timeline, number, ".zst", bytes);
        }
    }

    /// Stores an object as it is.
    pub(crate) fn put_plain(&self, name: &str, bytes: &[u8]) {
        let path = format!("{}/{name}", self.archive.folder());
        self.archive.storage().put(&path, bytes.to_vec()).unwrap();
    }

    /// Writes the index of the folder that holds these segments.
    pub(crate) fn index(&self, wal: &WalWriter) {
        let first = wal.start.0 / SIZE;
        let path = self.archive.index_path(Timeline(wal.timeline), (wal.start.0 >> 32) as u32);
        let mut index = Index::load(self.archive.storage(), &path, size()).unwrap();
        for (number, bytes) in (first..).zip(wal.segments().chunks(SIZE as usize)) {
            let mut summarizer = Summarizer::new(name(wal.timeline, number), size());
            summarizer.feed(bytes);
            index.insert(name(wal.timeline, number), summarizer.finish());
        }
        index.save(self.archive.storage(), &path).unwrap();
    }
}

/// A writer at the beginning of segment `number`.
pub(crate) fn wal_from(number: u64) -> WalWriter {
    WalWriter::new(size().start_of(number), size())
}

/// Fills the segment that the writer is in with records.
pub(crate) fn fill(wal: &mut WalWriter) {
    while wal.bytes.is_empty() || !wal.bytes.len().is_multiple_of(SIZE as usize) {
        wal.fill_page(0);
    }
}
