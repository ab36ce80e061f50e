//! What pgark says about an archive, kept as files in `tests/cmd_archive`: arguments, output, exit code. The repository is
//! made anew for each run. `TRYCMD=overwrite` writes what the program says now.

use pg_ark_contract::settings::Compression;
use pg_ark_contract::{Lsn, SegmentSize, Timeline};
use pg_ark_engine::postgres::wal_segment::{SegmentName, magic_of};
use pg_ark_engine::repository::{Record, Repository};
use pg_ark_engine::wal::index::Index;
use pg_ark_engine::wal::summary::Summary;
use pg_ark_engine::wal::{Archive, object};
use std::path::Path;

const SYSTEM: u64 = 7_710_997_216_315_519_387;
const SIZE: u32 = 16 << 20;

fn size() -> SegmentSize {
    SegmentSize::new(SIZE).expect("a size")
}

/// A segment that has nothing but its first header.
fn content(name: SegmentName) -> Vec<u8> {
    let mut bytes = vec![0; SIZE as usize];
    bytes[0..2].copy_from_slice(&magic_of(15).expect("a version").to_le_bytes());
    bytes[2..4].copy_from_slice(&2u16.to_le_bytes());
    bytes[4..8].copy_from_slice(&name.timeline.0.to_le_bytes());
    bytes[8..16].copy_from_slice(&name.start(size()).0.to_le_bytes());
    bytes[24..32].copy_from_slice(&SYSTEM.to_le_bytes());
    bytes[32..36].copy_from_slice(&SIZE.to_le_bytes());
    bytes[36..40].copy_from_slice(&8192u32.to_le_bytes());
    bytes
}

/// Stores segments of a timeline and what its index says: a commit in each, a minute apart.
fn store(archive: &Archive, timeline: u32, numbers: &[u64]) {
    let timeline = Timeline(timeline);
    let path = archive.index_path(timeline, 0);
    let mut index = Index::load(archive.storage(), &path, size()).expect("an index");
    for number in numbers {
        let name = SegmentName { timeline, number: *number };
        let bytes = content(name);
        let stored =
            object::encode(Compression::default(), &mut &bytes[..], u64::from(SIZE), "x", &mut |_| Ok(()));
        let path = archive.path(&name.file_name(size())).expect("a path");
        archive.storage().put(&format!("{path}.zst"), stored.expect("a segment")).expect("an object");
        let time = 850_000_000_000_000 + *number as i64 * 60_000_000;
        index.insert(name, summary(name, time));
    }
    index.save(archive.storage(), &path).expect("an index");
}

fn summary(name: SegmentName, time: i64) -> Summary {
    Summary {
        commits: 1,
        first_time: Some(time),
        last_time: Some(time),
        min_xid: Some(700),
        max_xid: Some(700),
        restore_points: Vec::new(),
        more_restore_points: false,
        end: name.next().start(size()),
        first_record: Some(Lsn(name.start(size()).0 + 40)),
        whole: true,
    }
}

/// A repository whose archive has a gap and a timeline that branched off behind it.
fn repository(folder: &Path) -> (String, Archive) {
    let url = format!("file://{}", folder.display());
    let (repository, _) = Repository::open_or_create(&url).expect("a repository");
    let mut cluster = repository.cluster("main").expect("a cluster");
    cluster.remember_system(SYSTEM, 150_020).expect("a system");
    let archive = Archive::of(&cluster, SYSTEM);
    store(&archive, 1, &[3, 4, 7, 8, 9]);
    store(&archive, 2, &[9, 10]);
    let history = format!("{}/00000002.history", archive.folder());
    archive.storage().put(&history, &b"1\t0/9000060\tno recovery target specified\n"[..]).expect("a history");
    for (name, start, stop) in [("20261208T141900Z-full", 3, 4), ("20261208T142300Z-full", 7, 8)] {
        let mut record = Record::begun(name.into(), "main", SYSTEM);
        record.status = pg_ark_contract::rows::BackupStatus::Complete;
        record.started_at = "2026-12-08T14:19:00Z".into();
        record.finished_at = Some("2026-12-08T14:25:00Z".into());
        record.start_lsn = Some(Lsn(start * u64::from(SIZE) + 40));
        record.stop_lsn = Some(Lsn(stop * u64::from(SIZE)));
        record.timeline = Some(Timeline(1));
        record.wal_segment_size = size();
        record.save(archive.storage(), &cluster.backup_folder(SYSTEM, name)).expect("a record");
    }
    (url, archive)
}

fn cases(url: &str, pattern: &str) {
    trycmd::TestCases::new().env("PGARK_REPO", url).env("LC_ALL", "C.UTF-8").case(pattern).run();
}

#[test]
fn an_archive_with_a_gap() {
    let folder = tempfile::tempdir().expect("a folder");
    let (url, _) = repository(folder.path());
    cases(&url, "tests/cmd_archive/gap.trycmd");
}

#[test]
fn an_archive_with_everything_wrong() {
    let folder = tempfile::tempdir().expect("a folder");
    let (url, archive) = repository(folder.path());
    let put = |name: &str, bytes: &'static [u8]| {
        archive.storage().put(&format!("{}/{name}", archive.folder()), bytes).expect("an object");
    };
    put("00000001/00000000/notes.txt", b"x");
    put("00000003.history", b"nonsense");
    store(&archive, 4, &[12]);
    cases(&url, "tests/cmd_archive/faults.trycmd");
}
