use super::*;
use crate::verify::fixture::{Stored, fill, size, wal_from};

fn backup(name: &str, status: BackupStatus, finished: &str) -> Record {
    let mut record = Record::begun(name.to_string(), "main", 7);
    record.status = status;
    record.finished_at = Some(finished.to_string());
    record
}

#[test]
fn the_last_backup_is_the_one_that_finished_last() {
    let mut records = [
        backup("a", BackupStatus::Complete, "2026-11-22T05:00:00Z"),
        backup("b", BackupStatus::Complete, "2026-11-22T04:00:00Z"),
        backup("c", BackupStatus::Failed, "2026-11-22T06:00:00Z"),
    ];
    let row = status(&records, None, &|| Ok(())).unwrap();
    assert_eq!(row.last_backup.unwrap().backup, "a");
    assert_eq!(row.last_clean_backup.unwrap().backup, "a");
    assert_eq!(row.last_segment, None);
    records[0].damaged_pages = 2;
    let row = status(&records, None, &|| Ok(())).unwrap();
    assert_eq!(row.last_backup.unwrap().damaged_pages, 2);
    assert_eq!(row.last_clean_backup.unwrap().backup, "b");
    assert!(status(&records[2..], None, &|| Ok(())).unwrap().last_backup.is_none());
}

#[test]
fn the_end_of_the_archive_is_that_of_its_newest_timeline() {
    let stored = Stored::new();
    let now = |stored: &Stored| status(&[], Some(&stored.archive), &|| Ok(())).unwrap();
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
