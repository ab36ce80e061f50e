use super::fixture::{Entry, Fixture, OID, Recipe, What, file, folder, link};
use super::marker::MARKER;
use super::watch::{Silent, Stage, Watch};
use super::*;
use crate::repository::{Cluster, Record};
use pg_ark_contract::rows::BackupStatus;
use pg_ark_contract::settings::Checksum;
use pg_ark_contract::{Error, ErrorKind};
use pg_ark_testkit::{LONG, wait_until};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;

/// Remembers warnings.
#[derive(Default)]
pub(super) struct Listener(pub(super) Mutex<Vec<String>>);

impl Watch for Listener {
    fn stage(&self, _: Stage, _: u64) {}
    fn advance(&self, _: u64) {}
    fn warn(&self, message: &str) {
        self.0.lock().unwrap().push(message.to_string());
    }
    fn stopped(&self) -> bool {
        false
    }
}

fn request(fixture: &Fixture) -> Request {
    Request {
        backup: "latest".into(),
        pgdata: fixture.path("target/data"),
        tablespaces: vec![("/old/fast".into(), fixture.path("target/fast"))],
        jobs: 3,
        ..Default::default()
    }
}

fn restore_with(fixture: &Fixture, request: &Request, watch: &dyn Watch) -> Result<Restored, Error> {
    let prepared = prepare(&fixture.cluster, request)?;
    run(fixture.cluster.storage(), &prepared, watch)
}

fn restore(fixture: &Fixture) -> Result<Restored, Error> {
    restore_with(fixture, &request(fixture), &Silent)
}

/// Proves that every file of the recipe is there as it was.
fn assert_restored(fixture: &Fixture, recipe: &Recipe) {
    let data = fixture.path("target/data");
    let compare = |root: &Path, entries: &[Entry]| {
        for entry in entries {
            let path = root.join(&entry.path);
            match &entry.what {
                What::File(content) if entry.path != "tablespace_map" => {
                    assert!(std::fs::read(&path).unwrap() == *content, "{}", entry.path);
                    let mode = path.metadata().unwrap().permissions().mode() & 0o777;
                    assert_eq!(mode, if recipe.mode == 0o750 { 0o640 } else { 0o600 }, "{}", entry.path);
                }
                What::Folder => assert!(path.is_dir(), "{}", entry.path),
                _ => {}
            }
        }
    };
    compare(&data, &recipe.base);
    compare(&fixture.path("target/fast"), &recipe.tablespace);
    assert_eq!(data.metadata().unwrap().permissions().mode() & 0o777, recipe.mode);
    assert_eq!(
        std::fs::read_link(data.join(format!("pg_tblspc/{OID}"))).unwrap(),
        fixture.path("target/fast")
    );
    let map = std::fs::read_to_string(data.join("tablespace_map")).unwrap();
    assert_eq!(map, format!("{OID} {}\n", fixture.path("target/fast").display()));
    let system = fixture.record.system_identifier.parse().unwrap();
    let wal = std::fs::read(data.join("pg_wal/000000010000000000000002")).unwrap();
    assert!(wal == super::fixture::segment(system));
    assert!(data.join("recovery.signal").exists() && !data.join(MARKER).exists());
    assert!(data.join("pg_wal/archive_status").is_dir());
}

#[test]
fn every_codec_and_checksum_comes_back() {
    for codec in ["zstd:1", "gzip:1", "lz4", "none"] {
        for (checksum, mode) in [(Checksum::Crc32c, 0o700), (Checksum::Sha256, 0o750)] {
            let compression = codec.parse().unwrap();
            let recipe = Recipe { compression, checksum, mode, ..Default::default() };
            let fixture = Fixture::new(&recipe);
            restore(&fixture).unwrap();
            assert_restored(&fixture, &recipe);
        }
    }
}

#[test]
fn volumes_are_joined() {
    let recipe = Recipe { volume_size: 100_000, compression: "none".parse().unwrap(), ..Default::default() };
    let fixture = Fixture::new(&recipe);
    assert!(fixture.record.archives[1].volumes.len() > 5);
    restore(&fixture).unwrap();
    assert_restored(&fixture, &recipe);
}

#[test]
fn losing_the_index_loses_speed_not_data() {
    type Loss = fn(&Fixture);
    let losses: [Loss; 5] = [
        |f| std::fs::remove_file(f.object("base.tar.zst.index")).unwrap(),
        |f| {
            // Whatever cannot be read as a file: a link in a circle, here.
            let index = f.object("base.tar.zst.index");
            std::fs::remove_file(&index).unwrap();
            std::os::unix::fs::symlink(&index, &index).unwrap();
        },
        |f| f.damage("base.tar.zst.index", |bytes| bytes[100] ^= 1),
        |f| f.damage("base.tar.zst.index", |bytes| bytes.truncate(200)),
        |f| f.damage("base.tar.zst.index", |bytes| bytes.clear()),
    ];
    for lose in losses {
        let recipe = Recipe::default();
        let fixture = Fixture::new(&recipe);
        lose(&fixture);
        let listener = Listener::default();
        restore_with(&fixture, &request(&fixture), &listener).unwrap();
        let warnings = listener.0.into_inner().unwrap();
        assert!(warnings[0].contains("index of \"base.tar.zst\""), "{warnings:?}");
        assert_restored(&fixture, &recipe);
    }
}

#[test]
fn damage_is_found_with_and_without_the_index() {
    for index in [true, false] {
        for name in ["base.tar.zst", "16400.tar.zst", "pg_wal.tar.zst", "backup_manifest"] {
            let fixture = Fixture::new(&Recipe::default());
            fixture.damage(name, |bytes| {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 4;
            });
            if !index && name != "backup_manifest" {
                std::fs::remove_file(fixture.object(&format!("{name}.index"))).unwrap();
            }
            assert_eq!(restore(&fixture).unwrap_err().kind, ErrorKind::Corrupt, "{name} {index}");
            let data = fixture.path("target/data");
            assert!(data.join(MARKER).exists() && !data.join("global/pg_control").exists(), "{name}");
        }
    }
}

#[test]
fn an_object_that_is_missing_or_short_is_found() {
    for name in ["base.tar.zst", "backup_manifest"] {
        let fixture = Fixture::new(&Recipe::default());
        fixture.damage(name, |bytes| bytes.truncate(bytes.len() - 3));
        assert_eq!(restore(&fixture).unwrap_err().kind, ErrorKind::Corrupt, "{name}");
        let fixture = Fixture::new(&Recipe::default());
        std::fs::remove_file(fixture.object(name)).unwrap();
        assert_eq!(restore(&fixture).unwrap_err().kind, ErrorKind::Corrupt, "{name}");
    }
}

#[test]
fn the_manifest_is_compared_file_by_file() {
    let some = |path: &str| Some(path.to_string());
    for checksum in [Checksum::Crc32c, Checksum::Sha256] {
        for path in ["base/5/1259", "PG_VERSION", "pg_tblspc/16400/PG_15_202209061/5/16401"] {
            let recipes = [
                Recipe { wrong_sum: some(path), checksum, ..Default::default() },
                Recipe { unlisted: some(path), checksum, ..Default::default() },
                Recipe { only_listed: some("base/5/gone"), checksum, ..Default::default() },
            ];
            for (number, recipe) in recipes.iter().enumerate() {
                let error = restore(&Fixture::new(recipe)).unwrap_err();
                assert_eq!(error.kind, ErrorKind::Corrupt);
                let name = if number == 2 { "gone" } else { path.rsplit('/').next().unwrap() };
                assert!(error.message.contains(name), "{error}");
            }
        }
    }
}

#[test]
fn hostile_members_are_refused() {
    let hostile = [
        file("../escaped", "x"),
        file("/tmp/escaped", "x"),
        file("base/../../escaped", "x"),
        file("base/./5", "x"),
        file("PG_VERSION", "again"),
        file(&format!("pg_tblspc/{OID}/x"), "x"),
        folder(&format!("pg_tblspc/{OID}")),
        link("base/5/9", "/etc/passwd"),
        link("pg_wal", "/tmp"),
        link("pg_tblspc/77", "/tmp"),
        link("pg_tblspc/../x", "/tmp"),
        file("global/pg_control.pg_ark", "x"),
        file(MARKER, "x"),
        file("backup_manifest", "x"),
        file("PG_VERSION/x", "x"),
    ];
    for entry in hostile {
        for at in [0, 8] {
            let mut recipe = Recipe::default();
            recipe.base.insert(at, entry.clone());
            let fixture = Fixture::new(&recipe);
            let error = restore(&fixture).unwrap_err();
            let kinds = [ErrorKind::Corrupt, ErrorKind::Io];
            assert!(kinds.contains(&error.kind), "{entry:?}: {error}");
            assert!(!fixture.path("escaped").exists() && !fixture.path("target/escaped").exists());
            assert!(!fixture.path("target/data/global/pg_control").exists());
        }
    }
    let links_in_a_tablespace = vec![link("PG_15_202209061", "/tmp")];
    let error = restore(&Fixture::new(&Recipe { tablespace: links_in_a_tablespace, ..Default::default() }));
    assert_eq!(error.unwrap_err().kind, ErrorKind::Corrupt);
}

#[test]
fn hostile_records_are_refused() {
    type Change = fn(&mut crate::repository::Record);
    let changes: [Change; 9] = [
        |r| r.archives[1].name = "../../x".into(),
        |r| r.archives[1].volumes[0].name = "/etc/passwd".into(),
        |r| r.archives[1].tar_bytes = 10,
        |r| r.archives[1].volumes[0].size = u64::MAX,
        |r| r.archives[1].volumes[0].crc32c = "xyz".into(),
        |r| r.archives.retain(|a| a.name != "base.tar.zst"),
        |r| r.manifest = None,
        |r| r.tablespaces[0].path = "relative".into(),
        |r| r.new_tablespaces = vec!["relative".into()],
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut fixture = Fixture::new(&Recipe::default());
        fixture.change_record(change);
        let mut request = request(&fixture);
        if number == 7 {
            request.tablespaces.clear();
        }
        let error = restore_with(&fixture, &request, &Silent).unwrap_err();
        assert!(matches!(error.kind, ErrorKind::Corrupt | ErrorKind::NotEnoughSpace), "{number}: {error}");
    }
}

#[test]
fn only_complete_backups_are_restored() {
    let mut fixture = Fixture::new(&Recipe::default());
    let with = |fixture: &Fixture, name: &str| {
        let request = Request { backup: name.into(), ..request(fixture) };
        prepare(&fixture.cluster, &request).unwrap_err().kind
    };
    assert_eq!(with(&fixture, "20200101T000000Z-full"), ErrorKind::BackupNotFound);
    assert_eq!(with(&fixture, "../../x"), ErrorKind::BackupNotFound);
    let name = fixture.record.backup.clone();
    fixture.change_record(|r| r.wal_included = false);
    assert_eq!(with(&fixture, &name), ErrorKind::WalMissing);
    for status in [BackupStatus::Running, BackupStatus::Failed] {
        fixture.change_record(|r| r.status = status);
        assert_eq!(with(&fixture, &name), ErrorKind::BackupNotUsable);
        assert_eq!(with(&fixture, "latest"), ErrorKind::BackupNotFound);
    }
}

#[test]
fn latest_is_the_one_that_finished_last() {
    let fixture = Fixture::new(&Recipe::default());
    let system = fixture.record.system_identifier.parse().unwrap();
    for (name, finished) in [
        ("20261123T020000Z-full", "2026-11-22T01:00:00Z"),
        ("20261121T020000Z-full", "2026-11-22T05:00:00+02:00"),
    ] {
        let mut record = fixture.record.clone();
        record.backup = name.into();
        record.finished_at = Some(finished.into());
        record.save(fixture.cluster.storage(), &fixture.cluster.backup_folder(system, name)).unwrap();
    }
    let prepared = prepare(&fixture.cluster, &request(&fixture)).unwrap();
    assert_eq!(prepared.record.backup, "20261121T020000Z-full");
    let newest = || super::request::newest(&fixture.cluster).unwrap().unwrap();
    assert_eq!(newest(), prepared.record, "what is shown is what is restored");
    let name = "20261124T020000Z-full";
    let failed =
        Record { started_at: "2026-11-24T02:00:00Z".into(), ..Record::begun(name.into(), "main", system) };
    failed.save(fixture.cluster.storage(), &fixture.cluster.backup_folder(system, name)).unwrap();
    assert_eq!(newest().backup, name, "but for one that has come to nothing since");
}

#[test]
fn latest_stays_within_the_newest_system_identifier() {
    let fixture = Fixture::new(&Recipe::default());
    let old = fixture.record.system_identifier.parse().unwrap();
    let mut cluster = fixture.cluster.clone();
    cluster.remember_system(7, 160_000).unwrap();
    let choose = |cluster: &Cluster, name: &str| {
        let request = Request { backup: name.into(), ..request(&fixture) };
        prepare(cluster, &request).map(|prepared| prepared.record)
    };
    let error = choose(&cluster, "latest").unwrap_err();
    assert_eq!(error.kind, ErrorKind::BackupNotFound);
    assert!(error.hint.unwrap().contains(&format!("--system-identifier chooses: {old}.")));
    let narrowed = cluster.clone().only_system(old).unwrap();
    assert_eq!(choose(&narrowed, "latest").unwrap(), fixture.record);
    // The same name in both: the newest system's is the latest, whichever finished later.
    let mut record = fixture.record.clone();
    record.system_identifier = "7".into();
    record.finished_at = Some("2026-11-22T01:00:00Z".into());
    record.save(cluster.storage(), &cluster.backup_folder(7, &record.backup)).unwrap();
    assert_eq!(choose(&cluster, "latest").unwrap(), record);
    assert_eq!(choose(&cluster, &record.backup).unwrap_err().kind, ErrorKind::InvalidArgument);
}

#[test]
fn a_backup_that_cannot_be_read_is_not_said_to_be_none() {
    let fixture = Fixture::new(&Recipe::default());
    fixture.damage("backup.json", |bytes| bytes[0] = b'x');
    let error = restore(&fixture).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt, "{error}");
    let told = error.to_string();
    assert!(told.contains(&fixture.record.backup) && told.contains("backup.json"), "{told}");
    assert!(error.hint.unwrap().contains("pgark verify"));
}

#[test]
fn a_second_restore_is_told_about_the_first() {
    let fixture = Fixture::new(&Recipe::default());
    fixture.damage("base.tar.zst", |bytes| bytes[50] ^= 1);
    restore(&fixture).unwrap_err();
    let mut error = restore(&fixture).unwrap_err();
    // A program that another test is just starting has this process's handles, and with them the lock, for a moment.
    wait_until("the end of the lock", LONG, || {
        error = restore(&fixture).unwrap_err();
        error.kind != ErrorKind::Busy
    });
    assert_eq!(error.kind, ErrorKind::TargetNotEmpty);
    let hint = error.hint.unwrap();
    assert!(hint.contains("did not finish") && hint.contains("target/fast"), "{hint}");
}

#[test]
fn wal_and_an_empty_target_folder() {
    let recipe = Recipe::default();
    let fixture = Fixture::new(&recipe);
    std::fs::create_dir_all(fixture.path("target/data")).unwrap();
    std::fs::create_dir_all(fixture.path("real")).unwrap();
    std::os::unix::fs::symlink(fixture.path("real"), fixture.path("target/fast")).unwrap();
    let request = Request { waldir: Some(fixture.path("target/wal")), ..request(&fixture) };
    restore_with(&fixture, &request, &Silent).unwrap();
    assert_restored(&fixture, &recipe);
    let wal = fixture.path("target/data/pg_wal");
    assert_eq!(std::fs::read_link(wal).unwrap(), fixture.path("target/wal"));
}

#[test]
fn configuration_moves_into_the_data_directory() {
    let config = vec![
        file(
            "etc/pg/postgresql.conf",
            "data_directory = '/old/data'\nhba_file = '/etc/pg/pg_hba.conf'\ninclude_dir 'conf.d'\n",
        ),
        file("etc/pg/pg_hba.conf", "local all all trust\n"),
        file("etc/pg/extra.conf", "work_mem = '8MB'\n"),
    ];
    let fixture = Fixture::new(&Recipe { config, ..Default::default() });
    let listener = Listener::default();
    let restored = restore_with(&fixture, &request(&fixture), &listener).unwrap();
    let changed =
        ["tablespace_map", "postgresql.conf", "postgresql.conf.unused", "pg_hba.conf", "pg_ark_config"];
    assert_eq!(restored.changed, changed, "what pg_verifybackup has to ignore");
    let data = fixture.path("target/data");
    let conf = std::fs::read_to_string(data.join("postgresql.conf")).unwrap();
    assert!(conf.contains("#pg_ark# data_directory") && conf.contains("#pg_ark# hba_file"), "{conf}");
    assert!(
        data.join("pg_ark_config/etc/pg/conf.d").is_dir()
            && data.join("pg_ark_config/etc/pg/extra.conf").exists()
    );
    assert!(data.join("pg_hba.conf").exists());
    assert_eq!(std::fs::read_to_string(data.join("postgresql.conf.unused")).unwrap(), "port = 5999\n");
    assert!(listener.0.into_inner().unwrap().iter().any(|w| w.contains("did not use")));
}

#[test]
fn configuration_that_the_record_does_not_list_is_refused() {
    let config = vec![file("etc/pg/postgresql.conf", "port = 1\n"), file("etc/profile.d/x.sh", "id\n")];
    let mut fixture = Fixture::new(&Recipe { config, ..Default::default() });
    prepare(&fixture.cluster, &request(&fixture)).unwrap();
    fixture.change_record(|r| r.config_files.truncate(1));
    let error = prepare(&fixture.cluster, &request(&fixture)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt);
    assert!(error.message.contains("profile.d"), "{error}");
}

#[test]
fn a_cancelled_restore_says_so() {
    struct Stopped;
    impl Watch for Stopped {
        fn stage(&self, _: Stage, _: u64) {}
        fn advance(&self, _: u64) {}
        fn warn(&self, _: &str) {}
        fn stopped(&self) -> bool {
            true
        }
    }
    let fixture = Fixture::new(&Recipe::default());
    let error = restore_with(&fixture, &request(&fixture), &Stopped).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Cancelled);
    assert!(fixture.path("target/data").join(MARKER).exists());
}

#[test]
fn a_backup_whose_own_wal_is_not_whole_is_not_restored() {
    let folder = tempfile::tempdir().unwrap();
    let mut record = Fixture::new(&Recipe::default()).record;
    let check =
        |record: &Record| super::own_wal::check(record, folder.path()).map_err(|e| (e.kind, e.message));
    let (kind, message) = check(&record).unwrap_err();
    assert_eq!(kind, ErrorKind::Corrupt);
    assert!(message.ends_with("000000010000000000000002 is missing"), "{message}");
    let mut segment = super::fixture::segment(record.system_identifier.parse().unwrap());
    let path = folder.path().join("000000010000000000000002");
    std::fs::write(&path, &segment[1..]).unwrap();
    assert!(check(&record).unwrap_err().1.ends_with("has 1048575 bytes instead of 1048576"));
    std::fs::write(&path, &segment).unwrap();
    check(&record).unwrap();
    segment[24] ^= 1;
    std::fs::write(&path, &segment).unwrap();
    assert_eq!(check(&record).unwrap_err().0, ErrorKind::ForeignCluster);
    record.wal_included = false;
    check(&record).unwrap();
}

#[test]
fn promise_6_a_record_that_is_not_as_it_was_written_is_told() {
    let told = |fixture: &Fixture| {
        let listener = Listener::default();
        let prepared = prepare(&fixture.cluster, &request(fixture)).unwrap();
        run(fixture.cluster.storage(), &prepared, &listener).unwrap();
        let all = [prepared.plan.warnings, listener.0.into_inner().unwrap()].concat();
        all.into_iter().filter(|told| told.contains("as it was written")).collect::<Vec<_>>()
    };
    let mut fixture = Fixture::new(&Recipe::default());
    assert_eq!(told(&fixture), Vec::<String>::new());
    std::fs::remove_dir_all(fixture.path("target")).unwrap();
    fixture.change_record(|record| {
        record.files += 1;
        record.stored_bytes += 1;
    });
    let [own, other] = &told(&fixture)[..] else { panic!() };
    assert!(own.contains("contradicts itself") && other.contains("manifest lists"), "{own} {other}");
}
