//! Tests of the wait for the archive.

use super::*;
use crate::wal::store::store;
use crate::wal::store_fixture::{Place, name, segment, size};
use pg_ark_contract::settings::Compression;
use std::cell::Cell;

const BACKUP: &[u8] = b"START WAL LOCATION: 0/300028\n";
const HISTORY: &[u8] = b"1\t0/300000\tno recovery target specified\n";

fn store_file(place: &Place, name: &str) {
    store(&place.archive(), &place.source(), name, Compression::default()).unwrap();
}

fn put(place: &Place, number: u64) {
    place.segment(number);
    store_file(place, &name(number));
}

/// Name of the backup history file of a backup that starts with segment `start`.
fn backup_file(start: u64) -> String {
    format!("{}.00000000.backup", name(start))
}

fn put_backup(place: &Place, start: u64) {
    place.put(&backup_file(start), BACKUP);
    store_file(place, &backup_file(start));
}

fn needed(place: &Place, start: u64, stop: u64) -> Needed {
    let (start, stop) = (size().start_of(start), size().start_of(stop));
    let source = place.source();
    let data_directory = place.dir.path().join("data");
    Needed { start, stop, timeline: Timeline(1), source, data_directory, from_standby: false }
}

fn from_standby(needed: Needed) -> Needed {
    Needed { from_standby: true, ..needed }
}

fn wait_for(place: &Place, needed: &Needed, patience: u64) -> Result<()> {
    let session = Session::new(|_| ());
    wait(&place.archive(), needed, Duration::from_millis(patience), &session, &|| ())
}

/// What another server of the same system identifier stores.
fn put_other(place: &Place, number: u64) {
    let other = Place::new();
    other.put(&name(number), &segment(number, 2));
    store(&place.archive(), &other.source(), &name(number), Compression::default()).unwrap();
}

/// Leaves a note of a failed archiver.
fn note(place: &Place, file: &str, kind: ErrorKind) {
    let error = Error::new(kind, "refused");
    let failure = LastFailure { file: file.into(), at: String::new(), error, by_command: false };
    let path = place.dir.path().join("data").join(LAST_FAILURE_PATH);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, serde_json::to_vec(&failure).unwrap()).unwrap();
}

/// Fails unless the wait ends at once, with this reason.
#[track_caller]
fn conflicts(place: &Place, needed: &Needed, file: &str) {
    let begun = Instant::now();
    let error = wait_for(place, needed, 60_000).unwrap_err();
    assert_eq!(error.kind, ErrorKind::WalConflict, "{error}");
    assert!(error.message.contains(file), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn nothing_but_every_segment_and_the_histories_is_enough() {
    let place = Place::new();
    for number in [3, 4, 6] {
        put(&place, number);
    }
    let error = wait_for(&place, &needed(&place, 3, 5), 0).unwrap_err();
    assert!(error.message.ends_with("000000010000000000000003.00000000.backup"), "{error}");
    wait_for(&place, &from_standby(needed(&place, 3, 5)), 0).unwrap();
    put_backup(&place, 3);
    wait_for(&place, &needed(&place, 3, 5), 0).unwrap();
    let partial = format!("{}.partial", name(5));
    place.put(&partial, &segment(5, 1));
    store_file(&place, &partial);
    let error = wait_for(&place, &needed(&place, 3, 7), 0).unwrap_err();
    assert_eq!(error.kind, ErrorKind::WalMissing);
    assert!(error.message.ends_with("segment 000000010000000000000005"), "{error}");
    assert!(error.detail.unwrap().contains("newest segment there is 000000010000000000000006"));
    let error = wait_for(&place, &needed(&place, 4, 20), 0).unwrap_err();
    assert!(
        error.message.contains("14 of 16 segments, the first of them 000000010000000000000005"),
        "{error}"
    );
    put(&place, 5);
    wait_for(&place, &needed(&place, 3, 7), 0).unwrap();
    let other = Needed { timeline: Timeline(2), ..needed(&place, 3, 7) };
    let error = wait_for(&place, &other, 0).unwrap_err();
    assert!(error.detail.unwrap().contains("no segment of timeline 2"));
}

#[test]
fn complete_means_that_the_archive_holds_our_own_wal() {
    let place = Place::new();
    put(&place, 3);
    put_backup(&place, 3);
    put_other(&place, 4);
    place.segment(4);
    for needed in [needed(&place, 3, 5), from_standby(needed(&place, 3, 5))] {
        conflicts(&place, &needed, &name(4));
    }
    // Ours was not archived before it went.
    std::fs::remove_file(place.pg_wal().join(name(4))).unwrap();
    let error = wait_for(&place, &needed(&place, 3, 5), 0).unwrap_err();
    assert!(error.message.ends_with("segment 000000010000000000000004"), "{error}");
    std::fs::remove_file(place.pg_wal().join(format!("archive_status/{}.ready", name(4)))).unwrap();
    wait_for(&place, &needed(&place, 3, 5), 0).unwrap();
}

#[test]
fn the_histories_must_be_ours_too() {
    let place = Place::new();
    put(&place, 3);
    put_backup(&place, 3);
    place.put(&backup_file(3), b"START WAL LOCATION: 0/300029\n");
    conflicts(&place, &needed(&place, 3, 4), &backup_file(3));
    // Archived, then removed by the next backup.
    std::fs::remove_file(place.pg_wal().join(backup_file(3))).unwrap();
    wait_for(&place, &needed(&place, 3, 4), 0).unwrap();

    let second = |place: &Place| Needed { timeline: Timeline(2), ..from_standby(needed(place, 3, 4)) };
    let file = name(3).replacen("00000001", "00000002", 1);
    let mut wal = segment(3, 1);
    // Timeline of the first page (XLogPageHeaderData, access/xlog_internal.h).
    wal[4] = 2;
    place.put(&file, &wal);
    store_file(&place, &file);
    let error = wait_for(&place, &second(&place), 0).unwrap_err();
    assert!(error.message.ends_with("00000002.history"), "{error}");
    place.put("00000002.history", HISTORY);
    store_file(&place, "00000002.history");
    wait_for(&place, &second(&place), 0).unwrap();
    place.put("00000002.history", b"1\t0/200000\tno recovery target specified\n");
    conflicts(&place, &second(&place), "00000002.history");
}

#[test]
fn an_archiver_that_is_refused_ends_the_waiting_while_it_is() {
    let place = Place::new();
    put_other(&place, 2);
    place.segment(2);
    // The archiver never comes to segment 3.
    place.segment(3);
    note(&place, &name(2), ErrorKind::Io);
    assert_eq!(wait_for(&place, &needed(&place, 3, 4), 0).unwrap_err().kind, ErrorKind::WalMissing);
    note(&place, "../global/pg_control", ErrorKind::WalConflict);
    assert_eq!(wait_for(&place, &needed(&place, 3, 4), 0).unwrap_err().kind, ErrorKind::WalMissing);
    note(&place, &name(2), ErrorKind::WalConflict);
    conflicts(&place, &needed(&place, 3, 4), &name(2));
    // Somebody mended that; the note is older.
    let found = place.archive().find(&name(2)).unwrap().unwrap();
    place.repository.storage().delete(&found.path).unwrap();
    assert_eq!(wait_for(&place, &needed(&place, 3, 4), 0).unwrap_err().kind, ErrorKind::WalMissing);
}

#[test]
fn a_standby_may_still_receive_its_last_segment() {
    let place = Place::new();
    put(&place, 3);
    let mut received = segment(3, 1);
    received[8192..].fill(0xEE);
    place.put(&name(3), &received);
    let start = size().start_of(3);
    let until = |stop: u64| Needed { stop: Lsn(start.0 + stop), ..from_standby(needed(&place, 3, 4)) };
    wait_for(&place, &until(8192), 0).unwrap();
    conflicts(&place, &until(8193), &name(3));
    conflicts(&place, &Needed { from_standby: false, ..until(8192) }, &name(3));
}

#[test]
fn every_segment_that_comes_renews_the_patience() {
    let place = Place::new();
    let session = Session::new(|_| ());
    let needed = needed(&place, 8, 10);
    put_backup(&place, 8);
    let came = Cell::new(3);
    // The archiver works off what lies before the backup.
    let news = || {
        if came.get() < 10 {
            put(&place, came.replace(came.get() + 1));
        }
    };
    wait(&place.archive(), &needed, Duration::from_secs(2), &session, &news).unwrap();
    assert_eq!(came.get(), 10);
}

#[test]
fn a_stop_and_a_vanished_repository_end_the_waiting() {
    let place = Place::new();
    let session = Session::new(|_| ());
    let stop = || session.stop(Error::new(ErrorKind::Cancelled, "stop"));
    let patience = Duration::from_secs(60);
    let error = wait(&place.archive(), &needed(&place, 1, 2), patience, &session, &stop).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Cancelled);
    std::fs::remove_dir_all(place.repository.storage().folder()).unwrap();
    let error = wait_for(&place, &needed(&place, 1, 2), 60_000).unwrap_err();
    assert_eq!(error.kind, ErrorKind::RepositoryNotFound);
}
