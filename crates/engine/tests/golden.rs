//! The museum: repositories of every version of the format stay readable for ever. `tests/golden/v1` was made by
//! `examples/make_golden.rs`; it is never made again.

use pg_ark_contract::rows::BackupStatus;
use pg_ark_engine::repository::Repository;
use pg_ark_engine::restore::{self, ConfigChoice, Request, watch::Silent};
use std::fs;
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1").join(name)
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
    let expected = fs::read_to_string(golden("expected.txt")).unwrap();
    assert!(expected.lines().count() == 13, "{expected}");
    for name in ["zstd", "lz4", "gzip"] {
        let target = tempfile::tempdir().unwrap();
        restore(&golden(name), target.path()).unwrap_or_else(|e| panic!("{name}: {e}"));
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
    let expected = fs::read_to_string(golden("expected.txt")).unwrap();
    for name in ["zstd", "lz4", "gzip"] {
        let target = tempfile::tempdir().unwrap();
        let copy = copied(name, |path| !path.ends_with(".index"));
        restore(copy.path(), target.path()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(listing(target.path(), &expected), expected, "{name}");
    }
}

#[test]
fn promise_6_damage_is_loud_one_flipped_bit_in_any_archive_stops_the_restore() {
    for name in ["zstd", "lz4", "gzip"] {
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
            assert_eq!(error.kind, pg_ark_contract::ErrorKind::Corrupt, "{name} {archive}: {error}");
            assert!(!target.path().join("data/global/pg_control").exists(), "{name} {archive}");
        }
    }
}

#[test]
fn golden_records_say_what_they_said() {
    for name in ["zstd", "lz4", "gzip"] {
        let url = format!("file://{}", golden(name).display());
        let backups = Repository::open(&url).unwrap().cluster("main").unwrap().backups().unwrap();
        let [record] = &backups[..] else { panic!("{name}: {} backups", backups.len()) };
        assert_eq!(record.status, BackupStatus::Complete);
        assert!(record.label.as_deref().unwrap().starts_with("golden "));
        assert_eq!(record.tablespaces[0].oid, 16400);
        assert_eq!(record.config_files, ["/etc/debian_version"]);
        assert_eq!(record.archives.len(), 4);
        assert!(record.wal_included && record.data_checksums);
    }
}

/// A copy of a golden repository with those files that `wanted` wants.
fn copied(name: &str, wanted: impl Fn(&str) -> bool) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in walkdir::WalkDir::new(golden(name)).into_iter().filter_map(|e| e.ok()) {
        let to = copy.path().join(entry.path().strip_prefix(golden(name)).unwrap());
        if entry.file_type().is_dir() {
            fs::create_dir_all(to).unwrap();
        } else if wanted(&entry.path().to_string_lossy()) {
            fs::copy(entry.path(), to).unwrap();
        }
    }
    copy
}
