//! What pgark says about retention, pins and jobs, kept as files in `tests/cmd_retention`: arguments, output, exit code. The
//! repository is made anew for each run. `TRYCMD=overwrite` writes what the program says now.

use pg_ark_contract::rows::BackupStatus;
use pg_ark_contract::schedule::{JobKind, JobSpec, RunId, RunOutcome};
use pg_ark_contract::settings::Compression;
use pg_ark_contract::{Error, ErrorKind, Lsn, SegmentSize, Timeline};
use pg_ark_engine::postgres::wal_segment::{SegmentName, magic_of};
use pg_ark_engine::repository::record::{ArchiveContent, ArchiveRecord};
use pg_ark_engine::repository::{Cluster, Record, Repository};
use pg_ark_engine::schedule;
use pg_ark_engine::wal::{Archive, object};
use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

const SYSTEM: u64 = 7_710_997_216_315_519_387;
const SIZE: u32 = 1 << 20;
const LATER: Duration = Duration::from_secs(86_400);

fn size() -> SegmentSize {
    SegmentSize::new(SIZE).expect("a size")
}

/// Stores a segment that has nothing but its first header.
fn store(archive: &Archive, number: u64) {
    let name = SegmentName { timeline: Timeline(1), number };
    let mut bytes = vec![0; SIZE as usize];
    bytes[0..2].copy_from_slice(&magic_of(15).expect("a version").to_le_bytes());
    bytes[2..4].copy_from_slice(&2u16.to_le_bytes());
    bytes[4..8].copy_from_slice(&1u32.to_le_bytes());
    bytes[8..16].copy_from_slice(&name.start(size()).0.to_le_bytes());
    bytes[24..32].copy_from_slice(&SYSTEM.to_le_bytes());
    bytes[32..36].copy_from_slice(&SIZE.to_le_bytes());
    bytes[36..40].copy_from_slice(&8192u32.to_le_bytes());
    let stored =
        object::encode(Compression::default(), &mut &bytes[..], u64::from(SIZE), "x", &mut |_| Ok(()));
    let path = archive.path(&name.file_name(size())).expect("a path");
    let path = format!("{path}.zst");
    archive.storage().put(&path, stored.expect("a segment")).expect("an object");
    // When it was stored must not tell of a time of which nothing is known, which keeps the window of before.
    let file = File::options().write(true).open(archive.storage().folder().join(path)).expect("a file");
    file.set_modified(SystemTime::now() + LATER).expect("a time");
}

/// A cluster with a backup of each of five days of 2020, and the WAL from the first to beyond the last.
fn repository(folder: &Path) -> (String, Cluster) {
    let url = format!("file://{}", folder.display());
    let (repository, _) = Repository::open_or_create(&url).expect("a repository");
    let mut cluster = repository.cluster("main").expect("a cluster");
    cluster.remember_system(SYSTEM, 150_020).expect("a system");
    let archive = Archive::of(&cluster, SYSTEM);
    (3..15).for_each(|number| store(&archive, number));
    for day in 1..=5u64 {
        let name = format!("202011{day:02}T020000Z-full");
        let mut record = Record::begun(name.clone(), "main", SYSTEM);
        record.status = BackupStatus::Complete;
        record.started_at = format!("2020-11-{day:02}T02:00:00Z");
        record.finished_at = Some(format!("2020-11-{day:02}T02:10:00Z"));
        record.start_lsn = Some(Lsn((day * 2 + 1) * u64::from(SIZE) + 40));
        record.stop_lsn = Some(Lsn((day * 2 + 1) * u64::from(SIZE) + 80));
        record.timeline = Some(Timeline(1));
        record.wal_segment_size = size();
        record.stored_bytes = 1000;
        let base = ArchiveRecord {
            name: "base.tar.zst".into(),
            content: ArchiveContent::Base,
            volumes: Vec::new(),
            frames: 0,
            tar_bytes: 0,
            index: None,
        };
        record.archives.push(base);
        record.save(archive.storage(), &cluster.backup_folder(SYSTEM, &name)).expect("a record");
    }
    (url, cluster)
}

fn cases(url: &str, pattern: &str) {
    trycmd::TestCases::new().env("PGARK_REPO", url).env("LC_ALL", "C.UTF-8").case(pattern).run();
}

#[test]
fn what_is_kept_and_what_goes() {
    let folder = tempfile::tempdir().expect("a folder");
    let (url, _) = repository(folder.path());
    cases(&url, "tests/cmd_retention/prune.trycmd");
}

#[test]
fn what_the_server_said_is_damaged() {
    let folder = tempfile::tempdir().expect("a folder");
    let (url, cluster) = repository(folder.path());
    cluster.storage().put("main/retention.json", &b"{"[..]).expect("an object");
    cases(&url, "tests/cmd_retention/damaged.trycmd");
}

#[test]
fn pins() {
    let folder = tempfile::tempdir().expect("a folder");
    let (url, _) = repository(folder.path());
    cases(&url, "tests/cmd_retention/pins.trycmd");
}

/// One run of a job, in the name of this process.
fn run(cluster: &Cluster, name: &str, kind: JobKind, due_at: &str, outcome: &RunOutcome) {
    let job = JobSpec {
        name: name.into(),
        kind,
        cron: "@daily".into(),
        timezone: "UTC".into(),
        enabled: true,
        since: "2020-01-01T00:00:00Z".into(),
        time_limit: 3600,
        label: None,
        level: None,
        deep: false,
        logical: Default::default(),
    };
    let run = RunId { job: name.into(), due_at: due_at.into(), attempt: 1 };
    let begun = schedule::begin(cluster, SYSTEM, &job, &run, std::process::id()).expect("a run");
    assert_eq!(begun, (true, None));
    schedule::end(cluster, SYSTEM, &run, outcome).expect("its end");
}

#[test]
fn jobs() {
    let folder = tempfile::tempdir().expect("a folder");
    let (url, cluster) = repository(folder.path());
    let done = RunOutcome { backup: Some("20201101T020000Z-full".into()), result: None, error: None };
    run(&cluster, "daily full", JobKind::Full, "2020-11-01T02:00:00Z", &done);
    let error =
        Error::new(ErrorKind::DiskFull, "could not write \"main/x\"").detail("No space left on device");
    let failed = RunOutcome { backup: None, result: None, error: Some(error) };
    run(&cluster, "daily full", JobKind::Full, "2020-11-02T02:00:00Z", &failed);
    let result = Some("3 backups and 120 segments removed, 4.1 GB".into());
    run(
        &cluster,
        "prune",
        JobKind::Prune,
        "2020-11-02T03:00:00Z",
        &RunOutcome { backup: None, result, error: None },
    );
    cases(&url, "tests/cmd_retention/jobs.trycmd");
}
