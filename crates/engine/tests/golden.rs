//! The museum: repositories of every version of the format stay readable for ever. What is in `tests/golden` was made by
//! `examples/make_golden.rs`; it is never made again. `v1` is from before records and indexes had seals; `v1_logical` holds
//! dumps.

use pg_ark_contract::conversation::{BackupKind, Level};
use pg_ark_contract::rows::{ArchiveStatus, BackupStatus};
use pg_ark_contract::{ErrorKind, Timeline};
use pg_ark_engine::logical::stored::{self, Dump};
use pg_ark_engine::repository::Repository;
use pg_ark_engine::repository::sealed::Seal;
use pg_ark_engine::restore::{self, ConfigChoice, Request, watch::Silent};
use pg_ark_engine::session::Session;
use pg_ark_engine::verify::archive::{self, Depth};
use pg_ark_engine::verify::{self, validate};
use pg_ark_engine::wal::{Archive, index};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Every golden repository.
const ALL: [&str; 4] = ["v1/zstd", "v1/lz4", "v1/gzip", "v1_sealed/zstd"];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// What a restore of a golden repository must give.
fn expected(name: &str) -> String {
    let expected = fs::read_to_string(golden(name).with_file_name("expected.txt")).unwrap();
    assert!(expected.lines().count() == 13, "{expected}");
    expected
}

fn restore(repository: &Path, target: &Path) -> pg_ark_contract::Result<()> {
    let cluster = Repository::open(&format!("file://{}", repository.display()))?.cluster("main")?;
    let record = cluster.backups()?.pop().expect("a backup");
    let request = Request {
        backup: "latest".into(),
        pgdata: target.join("data"),
        tablespaces: vec![(record.tablespaces[0].path.clone(), target.join("ts"))],
        config: ConfigChoice::Skip,
        jobs: 2,
        ..Request::default()
    };
    let prepared = restore::prepare(&cluster, &request)?;
    restore::run(cluster.storage(), &prepared, &Silent).map(drop)
}

/// The restored files that the expectation lists, in its form.
fn listing(target: &Path, expected: &str) -> String {
    let line = |line: &str| {
        let path = &line[18..];
        let bytes = fs::read(target.join("data").join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        format!("{:08x} {:>8} {path}\n", crc32c::crc32c(&bytes), bytes.len())
    };
    expected.lines().map(line).collect()
}

#[test]
fn every_golden_repository_restores() {
    for name in ALL {
        let expected = expected(name);
        let target = tempfile::tempdir().unwrap();
        let copy = copied(name, |_| true);
        restore(copy.path(), target.path()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(listing(target.path(), &expected), expected, "{name}");
        for left_out in ["postmaster.pid", "base/5/t3_16501", "base/5/16502", "pg_replslot/gone"] {
            assert!(!target.path().join("data").join(left_out).exists(), "{name}: {left_out}");
        }
        let map = fs::read_to_string(target.path().join("data/tablespace_map")).unwrap();
        assert_eq!(map, format!("16400 {}\n", target.path().join("ts").display()));
    }
}

#[test]
fn a_lost_index_loses_speed_only() {
    for name in ALL {
        let expected = expected(name);
        let target = tempfile::tempdir().unwrap();
        let copy = copied(name, |path| !path.ends_with(".index"));
        restore(copy.path(), target.path()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(listing(target.path(), &expected), expected, "{name}");
    }
}

#[test]
fn promise_6_damage_is_loud_one_flipped_bit_in_any_archive_stops_the_restore() {
    for name in ALL {
        for archive in ["base.tar", "16400.tar", "pg_wal.tar", "backup_manifest"] {
            let copy = copied(name, |_| true);
            let victim = walkdir::WalkDir::new(copy.path())
                .into_iter()
                .filter_map(|e| e.ok())
                .find(|e| {
                    let file = e.file_name().to_string_lossy();
                    file.starts_with(archive) && !file.ends_with(".index")
                })
                .unwrap_or_else(|| panic!("{name} has no {archive}"));
            let mut bytes = fs::read(victim.path()).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(victim.path(), bytes).unwrap();
            let target = tempfile::tempdir().unwrap();
            let error = restore(copy.path(), target.path()).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Corrupt, "{name} {archive}: {error}");
            assert!(!target.path().join("data/global/pg_control").exists(), "{name} {archive}");
        }
    }
}

#[test]
fn golden_records_say_what_they_said() {
    for name in ALL {
        let url = format!("file://{}", golden(name).display());
        let backups = Repository::open(&url).unwrap().cluster("main").unwrap().backups().unwrap();
        let [record] = &backups[..] else { panic!("{name}: {} backups", backups.len()) };
        assert_eq!(record.status, BackupStatus::Complete);
        assert!(record.label.as_deref().unwrap().starts_with("golden "));
        assert_eq!(record.tablespaces[0].oid, 16400);
        assert_eq!(record.config_files, ["/etc/debian_version"]);
        assert_eq!(record.archives.len(), 4);
        assert!(record.wal_included && record.data_checksums);
        assert_eq!(record.unsealed, !name.contains("sealed"), "{name}");
    }
}

#[test]
fn a_golden_archive_is_whole_and_says_what_it_said() {
    let name = "v1_sealed/zstd";
    let cluster =
        Repository::open(&format!("file://{}", golden(name).display())).unwrap().cluster("main").unwrap();
    let found = cluster.seals().map(|(_, seal)| seal.unwrap());
    assert_eq!(found, [Some(Seal::Sealed); 2]);
    let archive = Archive::newest_of(&cluster).unwrap();
    let session = Session::new(|_| ());
    for depth in [Depth::Names, Depth::Everything(1)] {
        let verified = archive::verify(&archive, &cluster.backups().unwrap(), depth, true, &session).unwrap();
        let statuses: Vec<_> = verified.rows.iter().map(|row| (row.timeline, row.status)).collect();
        let ok = |timeline| (Some(Timeline(timeline)), ArchiveStatus::Ok);
        assert_eq!(statuses, [ok(1), ok(2)], "{verified:?}");
        assert_eq!(verified.remarks, []);
    }
    for name in ["000000010000000000000008.00000028.backup", "00000002.history"] {
        assert!(archive.read_proven(name).unwrap().is_some());
        let index = index::beside(&archive, name).unwrap().unwrap();
        assert_eq!(index.files().count(), 1, "{name}");
        assert!(index.file(name).is_some());
    }
}

/// A copy of a golden repository with those files that `wanted` wants. Without its archive: as root, recovery from one
/// wants a program that the server's user can run.
fn copied(name: &str, wanted: impl Fn(&str) -> bool) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in walkdir::WalkDir::new(golden(name)).into_iter().filter_map(|e| e.ok()) {
        let to = copy.path().join(entry.path().strip_prefix(golden(name)).unwrap());
        if entry.file_type().is_dir() {
            fs::create_dir_all(to).unwrap();
        } else if wanted(&entry.path().to_string_lossy()) && !entry.path().to_string_lossy().contains("/wal/")
        {
            fs::copy(entry.path(), to).unwrap();
        }
    }
    copy
}

#[test]
fn golden_dumps_say_what_they_said_and_are_whole() {
    let url = format!("file://{}", golden("v1_logical").display());
    let cluster = Repository::open(&url).unwrap().cluster("main").unwrap();
    let backups = cluster.backups().unwrap();
    let [record] = &backups[..] else { panic!("{} backups", backups.len()) };
    assert_eq!((record.kind, record.status), (BackupKind::Logical, BackupStatus::Complete));
    assert_eq!((record.start_lsn, record.timeline, record.wal_included), (None, None, false));
    let logical = stored::check(record).unwrap();
    let names: Vec<&str> = logical.databases.iter().map(|database| &database.name[..]).collect();
    assert_eq!(names, ["a b/ä\"'", "app", "postgres", "template1"]);
    let app = logical.database("app").unwrap();
    assert_eq!(
        (&app.owner[..], &app.locale.encoding[..], app.tables, app.large_objects),
        ("clerk", "UTF8", 1, 1)
    );
    assert_eq!((&logical.initdb.username[..], &logical.dump_compression[..]), ("postgres", "gzip:1"));
    assert!(
        record.config_files.iter().any(|file| file.ends_with("/pg_hba.conf")),
        "{:?}",
        record.config_files
    );
    for level in [Level::Record, Level::Data, Level::Pages] {
        let request = verify::Request { backup: None, level, jobs: 2 };
        assert_eq!(validate(&cluster, &request, &Session::new(|_| {})).unwrap(), []);
    }
    let folder = cluster.backup_folder(record.system_identifier.parse().unwrap(), &record.backup);
    let mut text = String::new();
    let globals = Dump::globals(cluster.storage(), &folder, logical);
    globals.decoded(record.compression.codec).unwrap().read_to_string(&mut text).unwrap();
    assert!(text.contains("CREATE ROLE \"größe\";") && text.contains("GRANT clerk TO"), "{text}");
    // Nothing of it is a way to a moment.
    let windows = verify::windows_of(&cluster, None, &Session::new(|_| {})).unwrap();
    assert!(windows.rows.is_empty() && windows.remarks.is_empty(), "{windows:?}");
    let request = Request { backup: "latest".into(), pgdata: "/nowhere".into(), ..Request::default() };
    let error = restore::prepare(&cluster, &request).unwrap_err();
    assert_eq!(error.kind, ErrorKind::BackupNotFound, "{error:?}");
}
