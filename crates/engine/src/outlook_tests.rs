use super::*;
use crate::repository::Repository;
use pg_ark_contract::{ErrorKind, Timeline};

const GB: u64 = 1 << 30;

fn told(free: u64, last: Option<u64>, daily: u64) -> (CheckStatus, String) {
    let row = space_row(Ok(Some(free)), last, Ok(daily)).unwrap();
    assert_eq!(row.hint.is_some(), row.status != CheckStatus::Ok, "{row:?}");
    (row.status, row.detail)
}

#[test]
fn space_is_enough_or_told() {
    use CheckStatus::{Ok as Fine, Warning};
    assert!(space_row(Ok(None), Some(1), Ok(1)).is_none());
    assert_eq!(told(5 * GB, None, 0).0, Fine);
    assert_eq!(told(5 * GB, Some(5 * GB), 0).0, Fine);
    assert_eq!(told(5 * GB, Some(6 * GB), 0).0, Warning);
    let (status, detail) = told(14 * GB, Some(GB), 2 * GB);
    assert!(
        status == Fine && detail.contains("enough for 7 days: backups and WAL add 2.0 GB a day"),
        "{detail}"
    );
    let (status, detail) = told(13 * GB, Some(GB), 2 * GB);
    assert!(status == Warning && detail.contains("enough for 6 days"), "{detail}");
    assert!(told(3 * GB, Some(GB), 2 * GB).1.contains("enough for a day"));
    assert!(told(GB, Some(GB), 2 * GB).1.contains("less than backups and WAL add"));
    let full = Error::new(ErrorKind::DiskFull, "full").hint("free");
    assert_eq!(space_row(Err(full), None, Ok(0)).unwrap().status, CheckStatus::Error);
}

#[test]
fn what_a_day_adds_comes_from_the_last_week() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}", dir.path().display());
    let (repository, _) = Repository::open_or_create(&url).unwrap();
    let mut cluster = repository.cluster("main").unwrap();
    let now = Utc::now();
    let backup = |days: i64, bytes: u64| {
        let mut record = Record::begun(format!("b{days}"), "main", 7);
        record.status = BackupStatus::Complete;
        record.started_at = (now - TimeDelta::days(days)).to_rfc3339();
        record.stored_bytes = bytes;
        record
    };
    let daily = |cluster: &Cluster, records: &[Record]| super::daily(cluster, records, now).unwrap();
    assert_eq!(daily(&cluster, &[]), 0);
    assert_eq!(daily(&cluster, &[backup(30, GB)]), 0, "long ago");
    assert_eq!(daily(&cluster, &[backup(0, GB)]), GB, "a server that was just set up");
    assert_eq!(daily(&cluster, &[backup(30, GB), backup(4, 6 * GB), backup(2, 2 * GB)]), 2 * GB);
    cluster.remember_system(7, 150_000).unwrap();
    let archive = Archive::of(&cluster, 7);
    let folder = archive.log_folder(Timeline(1), 0);
    archive.storage().put(&format!("{folder}/000000010000000000000001.zst"), vec![0; 1000]).unwrap();
    let later = now + TimeDelta::seconds(10);
    assert_eq!(super::daily(&cluster, &[], later).unwrap(), 1000);
    assert_eq!(super::daily(&cluster, &[], later + TimeDelta::days(2)).unwrap(), 499, "per day");
    assert_eq!(super::daily(&cluster, &[], later + TimeDelta::days(9)).unwrap(), 0);
}

#[test]
fn clocks_that_differ_are_told() {
    let at = |seconds: i64| DateTime::from_timestamp(1_000_000 + seconds, 0).unwrap();
    for (stored, expected) in
        [(0, None), (5, None), (65, None), (66, Some("ahead of")), (-60, None), (-61, Some("behind"))]
    {
        let row = clock_row(Clocks::of(at(0), at(stored), at(5)));
        assert_eq!(row.status != CheckStatus::Ok, expected.is_some(), "{row:?}");
        assert!(row.detail.contains(expected.unwrap_or("agree")), "{row:?}");
    }
    let status = |stored| clock_row(Clocks::of(at(0), at(stored), at(5))).status;
    assert_eq!([-3600, -3601].map(status), [CheckStatus::Warning, CheckStatus::Error], "prune is refused");
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(&format!("file://{}", dir.path().display())).unwrap();
    assert_eq!(clock(&storage, &[], at(0)).unwrap().status, CheckStatus::Ok);
    let mut record = Record::begun("20280329T010959Z-full".into(), "main", 7);
    record.status = BackupStatus::Complete;
    record.finished_at = Some("2028-03-29T01:10:00Z".into());
    let row = clock(&storage, &[record], at(0)).unwrap();
    let told = "backup 20280329T010959Z-full says that it finished at 2028-03-29T01:10:00Z, in the future: the clock was or is wrong";
    assert_eq!((row.status, row.detail.as_str(), row.hint.is_some()), (CheckStatus::Warning, told, true));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");
}

#[test]
fn tablespaces_in_the_wrong_place_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let [inside, outside, links] = ["data/fast", "slow", "data/pg_tblspc"].map(|name| dir.path().join(name));
    [&inside, &outside, &links].iter().for_each(|folder| std::fs::create_dir_all(folder).unwrap());
    let repository = dir.path().join("repository");
    std::fs::create_dir(&repository).unwrap();
    let storage = Storage::open(&format!("file://{}", repository.display())).unwrap();
    assert!(tablespaces(&storage, &data).is_none());
    std::fs::create_dir(links.join("16390")).unwrap();
    assert!(tablespaces(&storage, &data).is_none(), "in place");
    std::os::unix::fs::symlink(&outside, links.join("16391")).unwrap();
    assert_eq!(tablespaces(&storage, &data).unwrap().status, CheckStatus::Ok);
    std::os::unix::fs::symlink(&inside, links.join("16392")).unwrap();
    let row = tablespaces(&storage, &data).unwrap();
    assert!(
        row.status == CheckStatus::Warning
            && row.detail.contains("inside the data directory")
            && row.detail.contains("fast")
    );
    assert_eq!(device(&storage, &data).unwrap().status, CheckStatus::Warning, "one disk");
    let other = Storage::open("file:///dev/shm").unwrap();
    assert_eq!(device(&other, &data).unwrap().status, CheckStatus::Ok, "another");
}

#[test]
fn dumps_do_not_hide_that_the_next_full_backup_does_not_fit() {
    use pg_ark_contract::conversation::BackupKind;
    let record = |name: &str, kind: BackupKind, bytes: u64| Record {
        kind,
        status: BackupStatus::Complete,
        stored_bytes: bytes,
        ..Record::begun(name.into(), "main", 7)
    };
    let full = record("20261122T020000Z-full", BackupKind::Full, 9);
    let dumps = record("20261123T020000Z-logical", BackupKind::Logical, 2);
    assert_eq!(last(&[full.clone(), dumps.clone()]), Some(9));
    assert_eq!(last(&[dumps, full]), Some(9));
    assert_eq!(last(&[]), None);
}
