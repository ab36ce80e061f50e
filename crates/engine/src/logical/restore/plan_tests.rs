//! Plans from a repository without a server; what needs one is tested beside the extension.

use super::*;
use crate::repository::logical_record::{LocaleRecord, LogicalTablespace, MissingDatabase, SlotRecord};
use crate::verify::logical_fixture::{Dumped, NAME};

/// A folder with programs that say they are of this version.
fn programs(folder: &Path, major: u32) -> PathBuf {
    let bindir = folder.join("bin");
    std::fs::create_dir_all(&bindir).unwrap();
    for program in ["postgres", "initdb", "pg_restore", "psql", "vacuumdb", "pg_config"] {
        let path = bindir.join(program);
        std::fs::write(&path, format!("#!/bin/sh\necho '{program} (PostgreSQL) {major}.1'\n")).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    bindir
}

fn with_facts() -> Dumped {
    let mut dumped = Dumped::new("zstd:1", 1 << 20);
    let logical = dumped.logical();
    logical.initdb.username = "boss".into();
    logical.initdb.locale = LocaleRecord {
        encoding: "UTF8".into(),
        provider: "libc".into(),
        collate: "C".into(),
        ..Default::default()
    };
    let tablespace = |name: &str, oid, location: &str| LogicalTablespace {
        name: name.into(),
        oid,
        location: location.into(),
        ..Default::default()
    };
    logical.tablespaces = vec![tablespace("fast", 16400, "/nowhere/fast"), tablespace("inside", 16401, "")];
    logical.left_out = vec!["template1".into()];
    logical.missing = vec![MissingDatabase { name: "closed".into(), reason: "no".into() }];
    logical.replication_slots = vec![SlotRecord { name: "slot".into(), ..Default::default() }];
    dumped.save();
    dumped
}

#[test]
fn a_plan_says_all_that_will_happen() {
    let dumped = with_facts();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    // The server's user must come there.
    std::fs::set_permissions(&root, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let request = FreshRequest {
        backup: NAME.into(),
        pgdata: root.join("data"),
        tablespaces: vec![("/nowhere/fast".into(), root.join("fast"))],
        databases: vec!["app".into()],
        bindir: Some(programs(&root, 17)),
        port: Some(6000),
        jobs: 3,
        ..FreshRequest::default()
    };
    let prepared = prepare_fresh(&dumped.cluster, &request).unwrap();
    let plan = &prepared.plan;
    let names: Vec<&str> = plan.databases.iter().map(|database| &database.name[..]).collect();
    assert_eq!((names, &plan.left_out[..]), (vec!["app"], &["a b/ä\"'".to_string()][..]));
    assert_eq!(prepared.databases().len(), 1);
    let places: Vec<Option<PathBuf>> = plan.tablespaces.iter().map(|t| t.to.clone()).collect();
    assert_eq!(places, [Some(root.join("fast")), None]);
    assert_eq!((plan.server_major, plan.jobs, plan.archive_mode), (17, 3, ArchiveMode::Off));
    assert!(plan.initdb.contains(&"--username=boss".to_string()), "{:?}", plan.initdb);
    for words in [
        "could not be dumped are not in the backup: \"closed\"",
        "slots are not restored",
        "initdb makes \"postgres\", which the original did not have",
        "empties pg_ark.repository",
    ] {
        assert!(plan.warnings.iter().any(|warning| warning.contains(words)), "{words}: {:?}", plan.warnings);
    }
    assert_eq!(plan.config.files.len(), 1, "{:?}", plan.config);
    assert!(!root.join("data").exists() && !root.join("fast").exists(), "it only looked");
    let refused = |change: &dyn Fn(&mut FreshRequest)| {
        let mut other = request.clone();
        change(&mut other);
        prepare_fresh(&dumped.cluster, &other).unwrap_err()
    };
    let error = refused(&|request| request.databases = vec!["app".into(), "x".into()]);
    assert_eq!(error.kind, ErrorKind::InvalidArgument);
    assert!(error.hint.unwrap().contains("\"app\""));
    let error = refused(&|request| request.tablespaces = vec![("/other".into(), "/x".into())]);
    assert!(error.message.contains("no tablespace at \"/other\""), "{error}");
    for place in ["it's", "a\nb"] {
        let error = refused(&|request| request.tablespaces[0].1 = root.join(place));
        assert!(error.kind == ErrorKind::InvalidArgument && error.hint.is_some(), "{error}");
    }
    assert!(refused(&|request| request.pgdata = root.join("a\nb")).message.contains("line feed"));
}

#[test]
fn an_older_server_takes_no_newer_dump() {
    let dumped = with_facts();
    let dir = tempfile::tempdir().unwrap();
    let request = FreshRequest {
        backup: NAME.into(),
        pgdata: dir.path().join("data"),
        bindir: Some(programs(dir.path(), 14)),
        ..FreshRequest::default()
    };
    assert_eq!(prepare_fresh(&dumped.cluster, &request).unwrap_err().kind, ErrorKind::Unsupported);
}
