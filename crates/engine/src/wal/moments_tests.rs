use super::*;
use crate::postgres::wal_fixture::WalWriter;
use crate::verify::fixture::{Stored, fill, name, size, wal_from};
use crate::wal::line::Piece;

fn stretch(first: u64, last: u64) -> Stretch {
    Stretch { pieces: vec![Piece { timeline: Timeline(1), run: Run { first, last } }] }
}

/// Segments 3 to 5: commits at 10 and 20, none, at 30; the last one ends early.
fn wal() -> (WalWriter, Lsn) {
    let mut wal = wal_from(3);
    wal.commit(900, 10);
    wal.commit(901, 20);
    fill(&mut wal);
    wal.record(10, 0, 5, b"x");
    fill(&mut wal);
    wal.commit(902, 30);
    let end = Lsn(wal.at());
    (wal, end)
}

#[test]
fn ends_and_times_with_and_without_an_index() {
    let stored = Stored::new();
    let (wal, end) = wal();
    stored.put_wal(&wal);
    for indexed in [false, true] {
        let mut moments = Moments::new(&stored.archive, size());
        assert_eq!(moments.known(name(1, 3)).unwrap().is_some(), indexed);
        assert_eq!(moments.end(&stretch(3, 5)).unwrap(), Moment { lsn: end, time: Some(30) });
        // The segment without commits: the time is that of the one before.
        let middle = moments.end(&stretch(3, 4)).unwrap();
        assert_eq!(middle, Moment { lsn: size().start_of(5), time: Some(20) });
        assert_eq!(moments.end(&stretch(4, 4)).unwrap().time, None);
        let run = |first, last| Run { first, last };
        assert_eq!(moments.times(Timeline(1), run(3, 5)).unwrap(), (Some(10), Some(30)));
        assert_eq!(moments.times(Timeline(1), run(4, 5)).unwrap(), (Some(30), Some(30)));
        assert_eq!(moments.times(Timeline(1), run(4, 4)).unwrap(), (None, None));
        stored.index(&wal);
    }
}

#[test]
fn an_index_that_is_no_index_is_as_good_as_none() {
    let stored = Stored::new();
    let (wal, end) = wal();
    stored.put_wal(&wal);
    stored.put_plain("00000001/00000000/index.jsonl", b"{\"format\": 9}\n\xFF\n");
    let mut moments = Moments::new(&stored.archive, size());
    assert_eq!(moments.end(&stretch(3, 5)).unwrap().lsn, end);
}

#[test]
fn the_last_commit_before_an_lsn() {
    let stored = Stored::new();
    let mut wal = wal_from(3);
    wal.commit(900, 10);
    let between = wal.commit(901, 20);
    // A commit that begins in segment 3 and ends in segment 4.
    while wal.bytes.len() < (1 << 20) - 8192 {
        wal.fill_page(0);
    }
    wal.fill_page(16);
    wal.commit(902, 30);
    let crossed = Lsn(wal.at());
    wal.commit(903, 40);
    stored.put_wal(&wal);
    let mut moments = Moments::new(&stored.archive, size());
    let mut before = |lsn| moments.last_before(&stretch(3, 4), lsn).unwrap();
    assert_eq!(before(Lsn(between)), Some(10));
    assert_eq!(before(Lsn(between + 1)), Some(10));
    assert_eq!(before(crossed), Some(30));
    assert_eq!(before(Lsn(crossed.0 - 1)), Some(20));
    assert_eq!(before(Lsn(u64::MAX)), Some(40));
    assert_eq!(before(size().start_of(3)), None);
}

#[test]
fn a_record_longer_than_a_segment_ends_nowhere_in_it() {
    let stored = Stored::new();
    let mut wal = wal_from(3);
    wal.commit(900, 10);
    let end = Lsn(wal.at());
    wal.record(10, 0, 5, &vec![1; 3 << 20]);
    wal.bytes.truncate(2 << 20);
    stored.put_wal(&wal);
    let moment = Moments::new(&stored.archive, size()).end(&stretch(3, 4)).unwrap();
    assert_eq!(moment, Moment { lsn: end, time: Some(10) });
}

#[test]
fn what_the_archive_lacks_comes_from_a_folder() {
    let stored = Stored::new();
    let (wal, end) = wal();
    stored.put(1, 3, ".zst", &wal.segments()[..1 << 20]);
    let folder = tempfile::tempdir().unwrap();
    for number in [4, 5] {
        let from = (number - 3) << 20;
        let bytes = &wal.segments()[from..from + (1 << 20)];
        std::fs::write(folder.path().join(name(1, number as u64).file_name(size())), bytes).unwrap();
    }
    let mut moments = Moments::new(&stored.archive, size()).with_folder(folder.path());
    assert_eq!(moments.end(&stretch(3, 5)).unwrap(), Moment { lsn: end, time: Some(30) });
    let error = Moments::new(&stored.archive, size()).end(&stretch(3, 5)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::WalMissing);
    std::fs::write(folder.path().join(name(1, 5).file_name(size())), b"short").unwrap();
    let error = Moments::new(&stored.archive, size()).with_folder(folder.path()).end(&stretch(3, 5));
    assert_eq!(error.unwrap_err().kind, ErrorKind::Corrupt);
}

#[test]
fn promise_6_a_record_that_is_torn_within_a_page_is_not_the_end() {
    let stored = Stored::new();
    let mut wal = wal_from(3);
    wal.commit(900, 10);
    let end = Lsn(wal.at());
    wal.record(10, 0, 5, &[1; 1000]);
    let last = wal.bytes.len() - 16;
    wal.bytes[last] ^= 1;
    stored.put_wal(&wal);
    stored.index(&wal);
    let moment = Moments::new(&stored.archive, size()).end(&stretch(3, 3)).unwrap();
    assert_eq!(moment, Moment { lsn: end, time: Some(10) });
}

#[test]
fn damage_at_the_end_is_told_and_before_it_ends_the_search() {
    let stored = Stored::new();
    let (wal, _) = wal();
    stored.put_wal(&wal);
    stored.put(1, 3, ".zst", b"nonsense");
    let mut moments = Moments::new(&stored.archive, size());
    assert_eq!(moments.end(&stretch(3, 4)).unwrap().time, None);
    let run = Run { first: 3, last: 5 };
    assert!(is_damage(&moments.times(Timeline(1), run).unwrap_err()));
    stored.put(1, 5, ".zst", b"nonsense");
    assert_eq!(
        Moments::new(&stored.archive, size()).end(&stretch(3, 5)).unwrap_err().kind,
        ErrorKind::Corrupt
    );
}

#[test]
fn an_order_to_stop_ends_the_reading() {
    let stored = Stored::new();
    stored.put_wal(&wal().0);
    let stop = || Err(Error::new(ErrorKind::Cancelled, "stop"));
    let mut moments = Moments::new(&stored.archive, size()).with_check(&stop);
    assert_eq!(moments.end(&stretch(3, 5)).unwrap_err().kind, ErrorKind::Cancelled);
}

#[test]
fn times_are_shown_in_utc() {
    assert_eq!(shown_time(0).as_deref(), Some("2000-01-01T00:00:00.000000Z"));
    assert_eq!(shown_time(i64::MAX), None);
}
