//! What pgark says about logical backups, kept as files in `tests/cmd_logical`: arguments, output, exit code. The repository is
//! made anew for each run. `TRYCMD=overwrite` writes what the program says now.

use pg_ark_contract::conversation::BackupKind;
use pg_ark_contract::rows::BackupStatus;
use pg_ark_engine::repository::logical_record::{
    DatabaseRecord, ExtensionRecord, InitdbRecord, LocaleRecord, LogicalRecord, MissingDatabase,
    SettingRecord, SlotRecord, SubscriptionRecord,
};
use pg_ark_engine::repository::record::ObjectRecord;
use pg_ark_engine::repository::{Cluster, Record, Repository};
use std::path::Path;

const SYSTEM: u64 = 7_710_997_216_315_519_387;

/// Stores an object of a backup that PostgreSQL 15 wrote.
fn object(cluster: &Cluster, folder: &str, name: &str, golden: &str) -> ObjectRecord {
    let dumps = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/golden/dumps");
    let bytes = std::fs::read(dumps.join(golden)).expect("a golden file");
    let mut upload = cluster.storage().upload(&format!("{folder}/{name}")).expect("an object");
    upload.append(bytes).expect("its bytes");
    let stored = upload.finish().expect("an object");
    ObjectRecord { name: name.into(), size: stored.size, crc32c: format!("{:08x}", stored.crc32c) }
}

fn utf8() -> LocaleRecord {
    LocaleRecord {
        encoding: "UTF8".into(),
        provider: "libc".into(),
        collate: "C.UTF-8".into(),
        ctype: "C.UTF-8".into(),
        ..LocaleRecord::default()
    }
}

fn database(name: &str, volume: ObjectRecord) -> DatabaseRecord {
    DatabaseRecord {
        name: name.into(),
        volumes: vec![volume],
        data_bytes: 8_000_000,
        owner: "alice".into(),
        locale: utf8(),
        tablespace: "pg_default".into(),
        connection_limit: -1,
        tables: 2,
        extensions: vec![ExtensionRecord {
            name: "plpgsql".into(),
            version: "1.0".into(),
            schema: "pg_catalog".into(),
        }],
        ..DatabaseRecord::default()
    }
}

/// A complete backup on that day of 2026 of `app`, and of a database whose name is no file name.
fn backup(cluster: &Cluster, day: u32, tell: impl FnOnce(&mut LogicalRecord)) {
    let name = format!("202611{day}T030000Z-logical");
    let folder = cluster.backup_folder(SYSTEM, &name);
    let mut app = database("app", object(cluster, &folder, "app.dump", "app.dump"));
    app.settings =
        vec![SettingRecord { role: Some("bob".into()), name: "work_mem".into(), value: "64MB".into() }];
    let mut logical = LogicalRecord {
        pg_dump: "pg_dump (PostgreSQL) 15.20".into(),
        dump_compression: "gzip:1".into(),
        globals: vec![object(cluster, &folder, "globals.sql", "globals.sql")],
        databases: vec![app, database("my shop", object(cluster, &folder, "my%20shop.dump", "other.dump"))],
        initdb: InitdbRecord { username: "postgres".into(), locale: utf8(), ..InitdbRecord::default() },
        ..LogicalRecord::default()
    };
    tell(&mut logical);
    let stored = logical.objects().map(|object| object.size).sum();
    let mut record = Record {
        kind: BackupKind::Logical,
        status: BackupStatus::Complete,
        started_at: format!("2026-11-{day}T03:00:00Z"),
        finished_at: Some(format!("2026-11-{day}T03:00:09Z")),
        server_version_num: 150_020,
        server_version: "15.20".into(),
        compression: "none".parse().expect("a codec"),
        data_bytes: 16_000_000,
        stored_bytes: stored,
        logical: Some(logical),
        ..Record::begun(name, "main", SYSTEM)
    };
    record.data_directory.path = "/var/lib/postgresql/15/main".into();
    record.save(cluster.storage(), &folder).expect("a record");
}

#[test]
fn logical_backups_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("file://{}", folder.path().display());
    let (repository, _) = Repository::open_or_create(&url).expect("a repository");
    let mut cluster = repository.cluster("main").expect("a cluster");
    cluster.remember_system(SYSTEM, 150_020).expect("a system");
    backup(&cluster, 21, |_| {});
    backup(&cluster, 22, |logical| {
        logical.left_out = vec!["scratch".into()];
        logical.missing =
            vec![MissingDatabase { name: "old".into(), reason: "it allows no connections".into() }];
        logical.replication_slots =
            vec![SlotRecord { name: "copy".into(), kind: "physical".into(), ..SlotRecord::default() }];
        logical.subscriptions = vec![SubscriptionRecord {
            name: "news".into(),
            database: "app".into(),
            enabled: true,
            slot: Some("news".into()),
            publications: vec!["everything".into()],
        }];
    });
    trycmd::TestCases::new()
        .env("PGARK_REPO", &url)
        .env("LC_ALL", "C.UTF-8")
        .case("tests/cmd_logical/*.trycmd")
        .run();
}
