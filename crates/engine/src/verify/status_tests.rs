use super::*;
use crate::postgres::wal_fixture::SYSTEM_IDENTIFIER;
use crate::repository::logical_record::{DatabaseRecord, LogicalRecord};
use crate::verify::fixture::{Stored, fill, size, wal_from};
use pg_ark_contract::conversation::BackupKind;
use pg_ark_contract::schedule::JobKind;

fn backup(name: &str, status: BackupStatus, finished: &str) -> Record {
    let mut record = Record::begun(name.to_string(), "main", 7);
    record.status = status;
    record.finished_at = Some(finished.to_string());
    record
}

fn told_of(records: &[Record]) -> StatusRow {
    let mut row = StatusRow::default();
    backups(records, time(Some("2026-11-23T00:00:00Z")).unwrap(), &mut row);
    row
}

#[test]
fn the_last_backup_is_the_one_that_finished_last() {
    let mut records = [
        backup("a", BackupStatus::Complete, "2026-11-22T05:00:00Z"),
        backup("b", BackupStatus::Complete, "2026-11-22T04:00:00Z"),
        backup("c", BackupStatus::Failed, "2026-11-22T06:00:00Z"),
    ];
    records[1].stored_bytes = 5;
    let row = told_of(&records);
    assert_eq!((row.backups, row.backup_bytes), (2, 5));
    assert_eq!(row.first_backup_at.as_deref(), Some("2026-11-22T04:00:00Z"));
    assert_eq!(row.last_backup.unwrap().backup, "a");
    assert_eq!(row.last_clean_backup.unwrap().backup, "a");
    records[0].damaged_pages = 2;
    let row = told_of(&records);
    assert_eq!(row.last_backup.unwrap().damaged_pages, 2);
    assert_eq!(row.last_clean_backup.unwrap().backup, "b");
    assert!(told_of(&records[2..]).last_backup.is_none());
}

#[test]
fn a_backup_of_the_future_hides_nothing() {
    let mut records = vec![
        backup("past", BackupStatus::Complete, "2026-11-22T05:00:00Z"),
        backup("future", BackupStatus::Complete, "2028-03-29T01:10:00Z"),
        backup("soon", BackupStatus::Complete, "2026-11-23T00:11:00Z"),
        backup("failed", BackupStatus::Failed, "2028-03-30T00:00:00Z"),
    ];
    let row = told_of(&records);
    for last in [&row.last_backup, &row.last_clean_backup] {
        assert_eq!(last.as_ref().unwrap().backup, "past");
    }
    assert!(row.failed_backup.is_none(), "nobody knows what came after it");
    assert_eq!(row.backups, 3);
    let told = "backup future and 1 more say that they finished in the future, it at 2028-03-29T01:10:00Z: the clock was or is wrong";
    assert_eq!(row.future.unwrap().to_string(), told);
    records[2].finished_at = Some("2026-11-23T00:09:00Z".into());
    let row = told_of(&records);
    assert_eq!(row.last_backup.unwrap().backup, "soon", "clocks may differ a little");
    assert_eq!(row.future.unwrap().others, 0);
    let row = told_of(&records[1..2]);
    assert!(row.last_backup.is_none() && row.first_backup_at.is_none() && row.future.is_some());
}

#[test]
fn a_backup_that_failed_is_told_until_a_later_one_is_complete() {
    let failed = |row: StatusRow| row.failed_backup.map(|backup| backup.backup);
    let mut records = vec![
        backup("a", BackupStatus::Complete, "2026-11-22T05:00:00Z"),
        backup("b", BackupStatus::Failed, "2026-11-22T04:00:00Z"),
    ];
    assert_eq!(failed(told_of(&records)), None);
    records.push(backup("c", BackupStatus::Failed, "2026-11-22T06:00:00Z"));
    records[2].kind = BackupKind::Full;
    assert_eq!(failed(told_of(&records)).as_deref(), Some("c"));
    records[2].other.insert("expiring".into(), true.into());
    assert_eq!(failed(told_of(&records)), None, "one that is being removed did not fail");
    records[2].other.clear();
    records.push(backup("d", BackupStatus::Complete, "2026-11-22T07:00:00Z"));
    assert_eq!(failed(told_of(&records)), None);
}

#[test]
fn a_logical_backup_protects_nothing_and_stands_for_no_other() {
    let failed = |row: &StatusRow| row.failed_backup.as_ref().map(|backup| backup.backup.clone());
    let logical = |name: &str, status, finished: &str| {
        let mut record = backup(name, status, finished);
        record.kind = BackupKind::Logical;
        record
    };
    let mut records = vec![logical("a", BackupStatus::Complete, "2026-11-22T08:00:00Z")];
    let row = told_of(&records);
    assert!(row.last_backup.is_none() && row.last_clean_backup.is_none() && row.first_backup_at.is_none());
    assert_eq!((row.backups, row.last_logical.unwrap().backup.as_str()), (1, "a"));
    records.push(backup("b", BackupStatus::Failed, "2026-11-22T07:00:00Z"));
    assert_eq!(failed(&told_of(&records)).as_deref(), Some("b"), "the dump that followed is no amends");
    records.push(backup("c", BackupStatus::Complete, "2026-11-22T09:00:00Z"));
    assert_eq!(failed(&told_of(&records)), None);
    records.push(logical("d", BackupStatus::Failed, "2026-11-22T08:30:00Z"));
    let row = told_of(&records);
    assert_eq!((failed(&row).as_deref(), row.last_backup.unwrap().backup.as_str()), (Some("d"), "c"));
}

#[test]
fn a_database_without_a_dump_is_told_until_a_later_backup_holds_it() {
    let logical = |name: &str, hour: u32, held: &[&str], missing: &[&str], left_out: &[&str]| {
        let mut record = backup(name, BackupStatus::Complete, &format!("2026-11-22T{hour:02}:00:00Z"));
        let held = held.iter().map(|name| DatabaseRecord { name: name.to_string(), ..Default::default() });
        let reason = || "refused".to_string();
        let missing = missing.iter().map(|name| MissingDatabase { name: name.to_string(), reason: reason() });
        record.kind = BackupKind::Logical;
        record.logical = Some(LogicalRecord {
            databases: held.collect(),
            missing: missing.collect(),
            left_out: left_out.iter().map(|name| name.to_string()).collect(),
            ..LogicalRecord::default()
        });
        record
    };
    let told = |records: &[Record]| -> Vec<(String, String)> {
        let missing = told_of(records).missing_dumps.into_iter();
        missing.map(|missing| (missing.database, missing.backup)).collect()
    };
    let of = |database: &str, backup: &str| vec![(database.to_string(), backup.to_string())];
    let mut records = vec![logical("whole", 1, &["app", "little"], &[], &[])];
    assert_eq!(told(&records), []);
    records.push(logical("nightly", 2, &["little"], &["app"], &[]));
    assert_eq!(told(&records), of("app", "nightly"));
    // One that was not to hold it hides nothing; nor does one that was not to hold anything else.
    records.push(logical("little", 3, &["little"], &[], &["app"]));
    records.push(logical("little", 4, &["little"], &[], &["app"]));
    assert_eq!(told(&records), of("app", "nightly"));
    records.push(logical("dropped", 5, &["little"], &[], &[]));
    assert_eq!(told(&records), [], "there is none on the server now");
    records.pop();
    records.push(logical("app", 5, &["app"], &[], &["little"]));
    records.push(logical("little", 6, &["little"], &[], &["app"]));
    assert_eq!(told(&records), []);
    let mut failed = logical("nightly", 7, &[], &["app", "little"], &[]);
    failed.status = BackupStatus::Failed;
    records.push(failed);
    assert_eq!(told(&records), []);
}

#[test]
fn the_end_of_the_archive_is_that_of_its_newest_timeline() {
    let stored = Stored::new();
    let now = |stored: &Stored| status(&stored.cluster, Some(SYSTEM_IDENTIFIER), &|| Ok(())).unwrap();
    assert_eq!(now(&stored).last_segment, None);
    // The last commit lies in the folder before the newest, which has segments without commits.
    let mut wal = wal_from(4094);
    wal.commit(900, 10);
    for _ in 0..3 {
        wal.record(10, 0, 5, b"x");
        fill(&mut wal);
    }
    stored.put_wal(&wal);
    let row = now(&stored);
    assert_eq!(row.last_segment.as_deref(), Some("000000010000000100000000"));
    assert_eq!(row.archive_end_lsn, Some(size().start_of(4097)));
    assert_eq!(row.archive_end_time.as_deref(), Some("2000-01-01T00:00:00.000010Z"));
    assert!(row.free_bytes.is_some_and(|bytes| bytes > 0));
    stored.put_plain("00000001/00000001/000000010000000100000000.zst", b"damaged");
    assert_eq!(now(&stored).archive_end_time, None);
    let mut wal = wal_from(4095);
    wal.timeline = 2;
    wal.commit(901, 20);
    stored.put_wal(&wal);
    let row = now(&stored);
    assert_eq!(row.last_segment.as_deref(), Some("000000020000000000000FFF"));
    assert_eq!(row.archive_end_time.as_deref(), Some("2000-01-01T00:00:00.000020Z"));
}

#[test]
fn a_repository_that_is_away_is_part_of_the_answer() {
    let job = JobSpec {
        name: "nightly".into(),
        kind: JobKind::Full,
        cron: "0 2 * * *".into(),
        timezone: "UTC".into(),
        enabled: true,
        since: "2026-11-22T00:00:00Z".into(),
        time_limit: 60,
        label: None,
        level: None,
        deep: false,
        logical: Default::default(),
    };
    let away = || Err(Error::new(ErrorKind::RepositoryNotFound, "away"));
    let row = told(away(), Some(7), &[], MissedRuns::Once, &|| Ok(())).unwrap();
    assert_eq!(row.error.unwrap().message, "away");
    let row = told(away(), Some(7), &[job], MissedRuns::Once, &|| Ok(())).unwrap();
    assert_eq!(row.error.unwrap().message, "away");
    let stop = || Err(Error::new(ErrorKind::Cancelled, "stop"));
    assert!(told(away(), None, &[], MissedRuns::Once, &stop).is_err());
}

#[test]
fn when_it_was_pruned_is_known_also_when_nothing_was_dropped() {
    let stored = Stored::new();
    let cluster = crate::repository::Repository::open(stored.cluster.storage().url()).unwrap();
    let cluster = cluster.cluster(stored.cluster.name()).unwrap();
    let archive = Archive::of(&cluster, SYSTEM_IDENTIFIER);
    let now = || status(&cluster, Some(SYSTEM_IDENTIFIER), &|| Ok(())).unwrap().pruned_at;
    let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
    assert_eq!(now(), None);
    // By hand, then by the server, which finds nothing to drop.
    let mut by_hand = Pruned::default();
    by_hand.at = Some(at(1_795_000_000));
    by_hand.save(&archive, size()).unwrap();
    assert_eq!(now().as_deref(), Some("2026-11-18T11:06:40Z"));
    policy_store::save(&cluster, &pg_ark_contract::retention::Policy::default(), at(1_795_000_060)).unwrap();
    assert_eq!(now().as_deref(), Some("2026-11-18T11:07:40Z"));
    // And by hand again.
    by_hand.at = Some(at(1_795_000_120));
    by_hand.save(&archive, size()).unwrap();
    assert_eq!(now().as_deref(), Some("2026-11-18T11:08:40Z"));
    // What cannot be read says nothing, and hides nothing.
    cluster.storage().put(&archive.pruned_path(), &b"{"[..]).unwrap();
    assert_eq!(now().as_deref(), Some("2026-11-18T11:07:40Z"));
    cluster.storage().put(&crate::repository::layout::retention(cluster.name()), &b"{"[..]).unwrap();
    assert_eq!(now(), None);
}
