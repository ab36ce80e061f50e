//! Tests of clearing up: what it ends, and what it must never touch.

use super::*;
use crate::jobs;

const DEAD: &str = "20200101T000000Z-full";

fn repository(dir: &Path) -> Cluster {
    let (repository, _) = Repository::open_or_create(&format!("file://{}", dir.display())).unwrap();
    let mut cluster = repository.cluster("main").unwrap();
    cluster.remember_system(7, 150_018).unwrap();
    cluster
}

/// A backup with one object, in the folder of system 7.
fn put(cluster: &Cluster, name: &str, status: BackupStatus) -> String {
    let folder = cluster.backup_folder(7, name);
    let started_at = "2020-01-01T00:00:00Z".to_string();
    let finished_at = (status == BackupStatus::Complete).then(|| started_at.clone());
    let record = Record { status, started_at, finished_at, ..Record::begun(name.to_string(), "main", 7) };
    record.save(cluster.storage(), &folder).unwrap();
    cluster.storage().put(&format!("{folder}/base.tar.zst"), &b"data"[..]).unwrap();
    folder
}

fn session() -> Session {
    Session::new(|_| ())
}

fn has_data(cluster: &Cluster, folder: &str) -> bool {
    cluster.storage().size(&format!("{folder}/base.tar.zst")).unwrap().is_some()
}

#[test]
fn promise_1_a_complete_backup_whose_record_is_damaged_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = repository(dir.path());
    let folder = put(&cluster, "20260101T000000Z-full", BackupStatus::Complete);
    let dead = put(&cluster, DEAD, BackupStatus::Running);
    let path = format!("{folder}/{}", layout::RECORD);
    let mut bytes = cluster.storage().get(&path, 1 << 20).unwrap().unwrap();
    bytes[20] ^= 1;
    for content in [bytes, br#"{"format": 2}"#.to_vec()] {
        cluster.storage().put(&path, content.clone()).unwrap();
        jobs::abandon(&cluster, None, "it was killed").unwrap();
        clear_up(&cluster, 7, &session()).unwrap();
        jobs::abandon(&cluster, Some("20260101T000000Z-full"), "it was killed").unwrap_err();
        let made_up = Record::begun("20260101T000000Z-full".into(), "main", 7);
        crate::backup::mark_failed(cluster.storage(), &folder, made_up).unwrap_err();
        assert!(has_data(&cluster, &folder));
        assert_eq!(cluster.storage().get(&path, 1 << 20).unwrap().unwrap(), content);
    }
    assert!(!has_data(&cluster, &dead));
    assert_eq!(Record::load(cluster.storage(), &dead).unwrap().unwrap().status, BackupStatus::Failed);
}

#[test]
fn promise_1_a_copy_of_a_record_ends_no_backup_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = repository(dir.path());
    let folder = put(&cluster, DEAD, BackupStatus::Complete);
    let copy = Record::begun(DEAD.to_string(), "main", 7);
    copy.save(cluster.storage(), &cluster.backup_folder(77, DEAD)).unwrap();
    let cluster = Repository::open(cluster.storage().url()).unwrap().cluster("main").unwrap();
    jobs::abandon(&cluster, None, "it was killed").unwrap();
    assert!(has_data(&cluster, &folder));
    assert_eq!(Record::load(cluster.storage(), &folder).unwrap().unwrap().status, BackupStatus::Complete);
}

#[test]
fn a_backup_that_finished_meanwhile_is_not_ended() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = repository(dir.path());
    let folder = put(&cluster, DEAD, BackupStatus::Complete);
    crate::backup::end_dead(cluster.storage(), &folder, Some("seen running a moment ago")).unwrap();
    assert!(has_data(&cluster, &folder));
}

#[test]
fn promise_4_a_backup_that_expires_is_not_ended_by_others() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = repository(dir.path());
    let folder = put(&cluster, DEAD, BackupStatus::Failed);
    let mut record = Record::load(cluster.storage(), &folder).unwrap().unwrap();
    record.other.insert(crate::repository::record::EXPIRING.into(), serde_json::Value::Bool(true));
    record.finished_at = None;
    record.save(cluster.storage(), &folder).unwrap();
    clear_up(&cluster, 7, &session()).unwrap();
    jobs::abandon(&cluster, None, "it was killed").unwrap();
    jobs::abandon(&cluster, Some(DEAD), "it was killed").unwrap();
    assert!(has_data(&cluster, &folder));
    assert_eq!(Record::load(cluster.storage(), &folder).unwrap().unwrap(), record);
}

#[test]
fn promise_5_a_backup_removes_nothing_outside_the_repository() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let cluster = repository(dir.path());
    for (status, name) in
        [(BackupStatus::Failed, "20261101T000000Z-full"), (BackupStatus::Running, "20261102T000000Z-full")]
    {
        let folder = dir.path().join(put(&cluster, name, status));
        std::fs::rename(&folder, outside.path().join(name)).unwrap();
        std::os::unix::fs::symlink(outside.path().join(name), &folder).unwrap();
    }
    std::fs::create_dir(outside.path().join("empty")).unwrap();
    let backups = dir.path().join(layout::backups("main", 7));
    std::os::unix::fs::symlink(outside.path().join("empty"), backups.join("20261103T000000Z-full")).unwrap();
    std::fs::create_dir(backups.join("notes")).unwrap();
    std::fs::write(backups.join("notes/plan#2"), b"x").unwrap();
    std::fs::create_dir(backups.join(DEAD)).unwrap();
    std::fs::write(backups.join(DEAD).join("backup.json#1"), b"half").unwrap();
    let told = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = told.clone();
    let session = Session::new(move |_| {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    });
    clear_up(&cluster, 7, &session).unwrap();
    jobs::abandon(&cluster, None, "it was killed").unwrap();
    for name in ["20261101T000000Z-full", "20261102T000000Z-full"] {
        assert!(outside.path().join(name).join("base.tar.zst").exists(), "{name}");
    }
    assert_eq!(told.load(std::sync::atomic::Ordering::Relaxed), 2, "each link is told");
    assert!(outside.path().join("empty").exists() && backups.join("notes/plan#2").exists());
    assert!(!backups.join(DEAD).exists());
}
