use super::super::fixture::{Fixture, OID, Recipe};
use super::super::saved;
use super::super::watch::Silent;
use super::super::{Prepared, Restored, prepare, run};
use super::*;
use crate::postgres::control_file::{CONTROL_FILE, ControlFile};
use crate::postgres::wal_fixture::WalWriter;
use crate::restore::access::Access;
use crate::restore::marker::MARKER;
use crate::restore::removal::LOST_AND_FOUND;
use pg_ark_contract::{Lsn, SegmentSize};

/// A pg_control of the backup's cluster.
const CONTROL: &[u8] = include_bytes!("../postgres/testdata/pg_control.15");

fn request(fixture: &Fixture) -> Request {
    Request {
        backup: "latest".into(),
        pgdata: fixture.path("target/data"),
        tablespaces: vec![("/old/fast".into(), fixture.path("target/fast"))],
        replace: true,
        ..Default::default()
    }
}

fn try_prepare(fixture: &Fixture) -> Result<Prepared> {
    prepare(&fixture.cluster, &request(fixture))
}

fn restore(fixture: &Fixture) -> Restored {
    run(fixture.cluster.storage(), &try_prepare(fixture).unwrap(), &Silent).unwrap()
}

/// An old data directory at the target, with a tablespace.
fn old_place() -> Fixture {
    let fixture = Fixture::new(&Recipe::default());
    let (data, fast) = (fixture.path("target/data"), fixture.path("target/fast"));
    for folder in ["base/5", "global", "pg_tblspc", "pg_wal/archive_status", LOST_AND_FOUND] {
        fs::create_dir_all(data.join(folder)).unwrap();
    }
    for (name, content) in [("PG_VERSION", "15\n"), ("base/5/999", "old"), ("postgresql.conf", "old")] {
        fs::write(data.join(name), content).unwrap();
    }
    fs::write(data.join(CONTROL_FILE), CONTROL).unwrap();
    for folder in ["PG_15_202209061/5", "PG_14_202107181/5", LOST_AND_FOUND] {
        fs::create_dir_all(fast.join(folder)).unwrap();
    }
    fs::write(fast.join("PG_15_202209061/5/77"), "old").unwrap();
    fs::write(fast.join("PG_14_202107181/5/77"), "another server's").unwrap();
    std::os::unix::fs::symlink(&fast, data.join(format!("pg_tblspc/{OID}"))).unwrap();
    fixture
}

#[track_caller]
fn refused(fixture: &Fixture) -> ErrorKind {
    let error = try_prepare(fixture).unwrap_err();
    assert!(error.hint.is_some(), "{error}");
    error.kind
}

#[test]
fn the_clusters_own_place_is_replaced_and_nothing_else() {
    let fixture = old_place();
    let plan = try_prepare(&fixture).unwrap().plan;
    assert_eq!(plan.replaced.folders.len(), 2, "{:?}", plan.replaced);
    assert!(fixture.path("target/data/base/5/999").exists(), "a plan touches nothing");
    restore(&fixture);
    let (data, fast) = (fixture.path("target/data"), fixture.path("target/fast"));
    assert!(!data.join("base/5/999").exists() && data.join("base/5/1259").exists());
    assert!(data.join(LOST_AND_FOUND).exists() && fast.join(LOST_AND_FOUND).exists());
    assert!(!fast.join("PG_15_202209061/5/77").exists() && fast.join("PG_15_202209061/5/16401").exists());
    assert!(fast.join("PG_14_202107181/5/77").exists(), "it belongs to another server");
    assert!(!data.join(MARKER).exists());
}

#[test]
fn without_replace_everything_is_refused_as_before() {
    let fixture = old_place();
    let request = Request { replace: false, ..request(&fixture) };
    assert_eq!(prepare(&fixture.cluster, &request).unwrap_err().kind, ErrorKind::TargetNotEmpty);
}

#[test]
fn never_write_into_what_is_not_ours_another_clusters_data_directory() {
    let mut fixture = old_place();
    fixture.change_record(|record| record.system_identifier = record.system_identifier.clone());
    let control = fixture.path("target/data").join(CONTROL_FILE);
    let mut other = CONTROL.to_vec();
    other[0] ^= 1;
    let crc_at = 288;
    let crc = crc32c::crc32c(&other[..crc_at]).to_le_bytes();
    other[crc_at..crc_at + 4].copy_from_slice(&crc);
    fs::write(&control, &other).unwrap();
    assert!(ControlFile::parse(&other).is_ok(), "the test's own file");
    assert_eq!(refused(&fixture), ErrorKind::ForeignCluster);
    // One that cannot be read proves nothing, and neither do the looks of a data directory.
    fs::write(&control, b"damaged").unwrap();
    assert_eq!(refused(&fixture), ErrorKind::TargetNotEmpty);
    leave_segment(&fixture, 0);
    try_prepare(&fixture).unwrap();
    fs::write(fixture.path("target/data/PG_VERSION"), "14\n").unwrap();
    assert_eq!(refused(&fixture), ErrorKind::TargetNotEmpty);
    fs::remove_file(fixture.path("target/data/PG_VERSION")).unwrap();
    try_prepare(&fixture).unwrap();
    leave_segment(&fixture, 1);
    assert_eq!(refused(&fixture), ErrorKind::ForeignCluster);
}

/// A segment in the old pg_wal, of the backup's cluster or with another system identifier.
fn leave_segment(fixture: &Fixture, other: u8) {
    let mut writer = WalWriter::new(Lsn(3 << 20), SegmentSize::new(1 << 20).unwrap());
    writer.record(10, 0, 5, &[1; 100]);
    let mut segment = writer.segments();
    let own = ControlFile::parse(CONTROL).unwrap().system_identifier;
    segment[24..32].copy_from_slice(&own.to_le_bytes());
    segment[24] ^= other;
    fs::write(fixture.path("target/data/pg_wal/000000010000000000000003"), segment).unwrap();
}

/// Makes the target the place where the backup's server was.
fn call_it_recorded(fixture: &mut Fixture) {
    let data = fixture.path("target/data").display().to_string();
    fixture.change_record(|record| record.data_directory.path = data);
}

#[test]
fn never_write_into_what_is_not_ours_a_folder_that_only_looks_like_a_data_directory() {
    let mut fixture = Fixture::new(&Recipe::default());
    let data = fixture.path("target/data");
    for folder in ["base", "global", "pg_wal"] {
        fs::create_dir_all(data.join(folder)).unwrap();
    }
    fs::write(data.join("PG_VERSION"), "15\n").unwrap();
    assert_eq!(refused(&fixture), ErrorKind::TargetNotEmpty, "another cluster without its control file");
    fs::write(data.join("thesis.tex"), "mine").unwrap();
    leave_segment(&fixture, 0);
    assert_eq!(refused(&fixture), ErrorKind::TargetNotEmpty);
    call_it_recorded(&mut fixture);
    let error = try_prepare(&fixture).unwrap_err();
    assert!(error.detail.as_deref().is_some_and(|d| d.contains("thesis.tex")), "{error:?}");
    fs::remove_file(data.join("thesis.tex")).unwrap();
    try_prepare(&fixture).unwrap();
    fs::remove_dir_all(data.join("pg_wal")).unwrap();
    try_prepare(&fixture).unwrap();
    assert!(data.join("base").exists());
}

#[test]
fn never_write_into_what_is_not_ours_the_tablespaces_of_a_copys_original() {
    let mut fixture = old_place();
    let fast = fixture.path("target/fast").display().to_string();
    fixture.change_record(|record| record.tablespaces[0].path.clone_from(&fast));
    let unmapped = Request { tablespaces: Vec::new(), ..request(&fixture) };
    let prepared = |fixture: &Fixture| prepare(&fixture.cluster, &unmapped);
    let error = prepared(&fixture).unwrap_err();
    assert_eq!(error.kind, ErrorKind::TargetNotEmpty, "{error}");
    assert!(error.hint.is_some_and(|hint| hint.contains(&format!("--tablespace {fast}=NEW"))));
    // Named, it is the user's word.
    let mapped = Request { tablespaces: vec![(fast.clone(), fast.clone().into())], ..request(&fixture) };
    prepare(&fixture.cluster, &mapped).unwrap();
    // A marker of the original's restore in a copy of it proves nothing.
    let mut marker = Marker::new("x", "", vec!["/original".into(), fast.clone().into()]);
    marker.system_identifier = Some(fixture.record.system_identifier.clone());
    fs::write(fixture.path("target/data").join(MARKER), serde_json::to_vec(&marker).unwrap()).unwrap();
    assert_eq!(prepared(&fixture).unwrap_err().kind, ErrorKind::TargetNotEmpty);
    fs::remove_file(fixture.path("target/data").join(MARKER)).unwrap();
    call_it_recorded(&mut fixture);
    prepared(&fixture).unwrap();
}

#[test]
fn never_write_into_what_is_not_ours_a_younger_tablespace_of_a_copys_original() {
    let mut fixture = old_place();
    let young = fixture.path("target/young");
    fs::create_dir_all(young.join("PG_15_202209061/5")).unwrap();
    std::os::unix::fs::symlink(&young, fixture.path("target/data/pg_tblspc/99999")).unwrap();
    let error = try_prepare(&fixture).unwrap_err();
    assert!(error.message.contains("target/young"), "{error}");
    call_it_recorded(&mut fixture);
    assert_eq!(try_prepare(&fixture).unwrap().plan.replaced.folders.len(), 3);
    // One that was made while the backup was taken.
    let place = young.display().to_string();
    fixture.change_record(|record| record.new_tablespaces = vec![place]);
    try_prepare(&fixture).unwrap();
    fixture.change_record(|record| record.data_directory.path = "/old/data".into());
    assert_eq!(refused(&fixture), ErrorKind::TargetNotEmpty);
}

#[test]
fn never_write_into_what_is_not_ours_a_folder_of_letters() {
    let fixture = Fixture::new(&Recipe::default());
    fs::create_dir_all(fixture.path("target/data")).unwrap();
    fs::write(fixture.path("target/data/letter"), "mine").unwrap();
    assert_eq!(refused(&fixture), ErrorKind::TargetNotEmpty);
}

#[test]
fn never_write_into_what_is_not_ours_a_tablespace_that_nothing_links_to() {
    let fixture = old_place();
    fs::remove_file(fixture.path("target/data").join(format!("pg_tblspc/{OID}"))).unwrap();
    assert_eq!(refused(&fixture), ErrorKind::TargetNotEmpty);
    fs::remove_dir_all(fixture.path("target/data")).unwrap();
    assert_eq!(refused(&fixture), ErrorKind::TargetNotEmpty);
}

#[test]
fn never_write_into_what_is_not_ours_a_wal_folder_with_strange_files() {
    let fixture = old_place();
    let wal = fixture.path("target/wal");
    fs::rename(fixture.path("target/data/pg_wal"), &wal).unwrap();
    let request = Request { waldir: Some(wal.clone()), ..request(&fixture) };
    let kind = || prepare(&fixture.cluster, &request).map_err(|error| error.kind).map(|_| ());
    assert_eq!(kind(), Err(ErrorKind::TargetNotEmpty), "nothing tells whose it is");
    std::os::unix::fs::symlink(&wal, fixture.path("target/data/pg_wal")).unwrap();
    assert_eq!(kind(), Ok(()));
    fs::write(wal.join("letter"), "mine").unwrap();
    assert_eq!(kind(), Err(ErrorKind::TargetNotEmpty));
}

#[test]
fn tablespaces_that_recovery_makes_again_are_cleared() {
    let mut fixture = old_place();
    call_it_recorded(&mut fixture);
    let young = fixture.path("target/young");
    fs::create_dir_all(young.join("PG_15_202209061/5")).unwrap();
    fs::write(young.join("PG_15_202209061/5/88"), "old").unwrap();
    std::os::unix::fs::symlink(&young, fixture.path("target/data/pg_tblspc/99999")).unwrap();
    restore(&fixture);
    assert_eq!(fs::read_dir(&young).unwrap().count(), 0);
}

#[test]
fn a_restore_that_was_killed_is_done_again_by_the_same_command() {
    let fixture = old_place();
    let prepared = try_prepare(&fixture).unwrap();
    let data = fixture.path("target/data");
    let mut marker =
        Marker::new("x", "2026-11-22T02:00:00Z", vec![data.clone(), fixture.path("target/fast")]);
    super::super::old_place::mark(&mut marker, &prepared.plan, &Default::default());
    let access = Access { owner: None, group_access: false };
    access.replace_file(&data.join(MARKER), &serde_json::to_vec(&marker).unwrap(), 0o600).unwrap();
    // Killed behind any of the steps: the control file, the links, everything.
    for gone in [CONTROL_FILE, "pg_tblspc", "PG_VERSION", "base"] {
        let path = data.join(gone);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap()
        } else {
            fs::remove_file(path).unwrap()
        }
        assert_eq!(try_prepare(&fixture).unwrap().plan.replaced.folders.len(), 2, "{gone}");
    }
    // The marker of another cluster's restore is no proof.
    let foreign = Marker { system_identifier: Some("7".into()), ..marker };
    access.replace_file(&data.join(MARKER), &serde_json::to_vec(&foreign).unwrap(), 0o600).unwrap();
    assert_eq!(refused(&fixture), ErrorKind::TargetNotEmpty);
    access
        .replace_file(
            &data.join(MARKER),
            &serde_json::to_vec(&Marker {
                system_identifier: Some(prepared.plan.system_identifier),
                ..foreign
            })
            .unwrap(),
            0o600,
        )
        .unwrap();
    restore(&fixture);
    assert!(saved::find(&data, 7).unwrap().finished.is_empty());
}
