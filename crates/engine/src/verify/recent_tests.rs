use super::*;
use crate::postgres::wal_fixture::SYSTEM_IDENTIFIER;
use crate::verify::fixture::{Stored, fill, size, wal_from};
use crate::verify::windows_of;
use pg_ark_contract::conversation::BackupKind;

/// Segments of timeline 1, each with a commit in it.
fn store(stored: &Stored, first: u64, count: u64) {
    let mut wal = wal_from(first);
    for number in 0..count {
        wal.commit(900, (first + number).cast_signed() * 1_000_000);
        fill(&mut wal);
    }
    stored.put_wal(&wal);
    stored.index(&wal);
}

/// A backup from the beginning of one segment into the next.
fn backup(number: u64) -> Record {
    let mut record = Record::begun(format!("20261122T{number:06}Z-full"), "main", SYSTEM_IDENTIFIER);
    record.kind = BackupKind::Full;
    record.status = BackupStatus::Complete;
    record.finished_at = Some("2026-11-22T05:00:00Z".into());
    record.wal_segment_size = size();
    record.timeline = Some(Timeline(1));
    (record.start_lsn, record.stop_lsn) =
        (Some(Lsn(size().start_of(number).0 + 40)), Some(Lsn(size().start_of(number + 1).0 + 400)));
    record
}

fn found(stored: &Stored, records: &[Record]) -> Newest {
    let check = || Ok(());
    let Part { survey, is_cut } = part(&stored.archive, &check).unwrap().unwrap();
    assert!(!is_cut);
    window(&stored.cluster, &stored.archive, &survey, records, &check).unwrap()
}

fn from(found: &Newest) -> Option<&str> {
    found.window.as_ref().map(|window| &window.backup[..])
}

#[test]
fn the_window_is_the_one_of_recovery_windows() {
    let stored = Stored::new();
    store(&stored, 4090, 12);
    let records = [backup(4091), backup(4095)];
    let found = found(&stored, &records);
    assert_eq!((from(&found), &found.gap), (Some(&records[0].backup[..]), &None));
    // `windows_of` reads records from the repository.
    for record in &records {
        let folder = stored.cluster.backup_folder(SYSTEM_IDENTIFIER, &record.backup);
        record.save(stored.archive.storage(), &folder).unwrap();
    }
    let all = windows_of(&stored.cluster, None, &crate::session::Session::new(|_| {})).unwrap();
    assert_eq!(all.rows, found.window.into_iter().collect::<Vec<_>>());
}

#[test]
fn promise_6_a_hole_before_the_newest_wal_is_told() {
    let stored = Stored::new();
    store(&stored, 5, 4);
    store(&stored, 10, 3);
    let row = found(&stored, &[backup(6)]);
    assert!(
        row.gap.as_ref().unwrap().contains("000000010000000000000009 of timeline 1 is missing"),
        "{row:?}"
    );
    assert_eq!(row.window.unwrap().to_lsn, size().start_of(9));
    let both = found(&stored, &[backup(6), backup(10)]);
    assert_eq!((from(&both), both.gap.is_none()), (Some(&backup(10).backup[..]), true), "a backup after it");
    let none = found(&stored, &[backup(8)]);
    assert!(none.window.is_none() && none.gap.unwrap().contains("not whole in the archive"));
    assert_eq!(found(&stored, &[]), Newest::default());
}

#[test]
fn what_lies_too_far_back_makes_the_window_shorter_never_longer() {
    let stored = Stored::new();
    store(&stored, 4090, 8);
    let check = || Ok(());
    let records = [backup(4091), backup(4096)];
    for (folders, expected) in [(0, None), (1, Some(&records[1])), (2, Some(&records[0]))] {
        let part = part_of(&stored.archive, folders, &check).unwrap();
        assert_eq!(part.is_some(), expected.is_some(), "{folders}");
        let Some(Part { survey, is_cut }) = part else { continue };
        assert_eq!(is_cut, folders < 2);
        let row = window(&stored.cluster, &stored.archive, &survey, &records, &check).unwrap();
        assert_eq!(from(&row), expected.map(|record| &record.backup[..]), "{folders}");
    }
}

#[test]
fn a_backup_that_lacks_an_object_begins_no_window() {
    let stored = Stored::new();
    store(&stored, 5, 8);
    let mut records = [backup(6), backup(8)];
    records[0].manifest = Some(crate::repository::record::ObjectRecord {
        name: "backup_manifest".into(),
        size: 5,
        crc32c: "00000000".into(),
    });
    assert_eq!(from(&found(&stored, &records)), Some(&records[1].backup[..]));
    let row = found(&stored, &records[..1]);
    assert!(row.window.is_none() && row.gap.unwrap().contains("backup_manifest\" is missing"));
}

#[test]
fn a_server_that_does_not_archive_has_the_moments_of_its_backups() {
    let stored = Stored::new();
    let mut record = backup(6);
    record.wal_included = true;
    let empty = Survey::empty(size());
    let row = window(&stored.cluster, &stored.archive, &empty, &[record], &|| Ok(())).unwrap();
    let moment = row.window.unwrap();
    assert_eq!((moment.from_time, row.gap), (moment.to_time, None));
}
