//! An archive and an old pg_wal for tests, with WAL made by hand.

use super::old_wal::{Identity, OldWal, Source};
use crate::postgres::wal_fixture::{SYSTEM_IDENTIFIER, WalWriter};
use crate::postgres::wal_segment::SegmentName;
use crate::repository::Repository;
use crate::wal::survey::Run;
use crate::wal::{Archive, Survey};
use pg_ark_contract::{Lsn, Result, SegmentSize, Timeline};
use std::path::PathBuf;

/// Bytes in a segment.
pub const MB: u64 = 1 << 20;

/// The same.
pub fn size() -> SegmentSize {
    SegmentSize::new(1 << 20).unwrap()
}

/// Whose WAL it is.
pub fn identity() -> Identity {
    Identity { system_identifier: SYSTEM_IDENTIFIER, size: size(), server_major: 15 }
}

/// An archive, a folder of old WAL, and the segments of a server that wrote from segment 4 on.
pub struct Place {
    pub dir: tempfile::TempDir,
    pub archive: Archive,
    pub segments: Vec<Vec<u8>>,
    pub end: Lsn,
}

impl Place {
    /// WAL of `count` segments, the last one half full.
    pub fn new(count: usize) -> Place {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file://{}/repository", dir.path().display());
        let (repository, _) = Repository::open_or_create(&url).unwrap();
        let mut cluster = repository.cluster("main").unwrap();
        cluster.remember_system(SYSTEM_IDENTIFIER, 150_000).unwrap();
        let mut writer = WalWriter::new(Lsn(4 * MB), size());
        let mut number = 0;
        while writer.bytes.len() < count * MB as usize - MB as usize / 2 {
            number += 1;
            writer.record(10, 0, 5, &vec![number as u8; 5000]);
            writer.commit(number, i64::from(number));
        }
        let (end, bytes) = (Lsn(writer.at()), writer.segments());
        let segments = bytes.chunks(MB as usize).map(<[u8]>::to_vec).collect();
        std::fs::create_dir(dir.path().join("wal")).unwrap();
        Place { archive: Archive::of(&cluster, SYSTEM_IDENTIFIER), dir, segments, end }
    }

    pub fn folder(&self) -> PathBuf {
        self.dir.path().join("wal")
    }

    pub fn name(number: u64) -> SegmentName {
        SegmentName { timeline: Timeline(1), number }
    }

    /// Leaves a segment in the old pg_wal.
    pub fn leave(&self, number: u64) {
        self.write(&Self::name(number).file_name(size()), &self.segments[number as usize - 4]);
    }

    pub fn write(&self, name: &str, content: &[u8]) {
        std::fs::write(self.folder().join(name), content).unwrap();
    }

    pub fn store(&self, number: u64, content: &[u8]) {
        self.store_as(&Self::name(number).file_name(size()), content);
    }

    /// What a promotion left of a segment.
    pub fn store_partial(&self, number: u64, content: &[u8]) {
        self.store_as(&format!("{}.partial", Self::name(number).file_name(size())), content);
    }

    fn store_as(&self, name: &str, content: &[u8]) {
        let path = self.archive.path(name).unwrap();
        let encoded = crate::wal::object::encode(
            "zstd:1".parse().unwrap(),
            &mut &content[..],
            content.len() as u64,
            "a segment",
            &mut |_| Ok(()),
        );
        self.archive.storage().create(&format!("{path}.zst"), encoded.unwrap()).unwrap();
    }

    pub fn survey(&self) -> Survey {
        Survey::take(&self.archive, &|| Ok(())).unwrap()
    }

    pub fn try_look(&self) -> Result<OldWal> {
        let source = Source { folder: self.folder(), doomed: true };
        OldWal::look(&[source], identity(), &self.archive, &self.survey())
    }

    pub fn look(&self) -> OldWal {
        self.try_look().unwrap()
    }
}

/// A run of segments.
pub fn run(first: u64, last: u64) -> Run {
    Run { first, last }
}
