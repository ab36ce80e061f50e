//! Ends and times of WAL made by hand, with an index and without; each index is right about what it can know.

use super::*;
use crate::verify::fixture::{SIZE, Stored, fill, name, size, wal_from};
use crate::wal::index::Index;
use crate::wal::line::Piece;
use crate::wal::moments::Moments;
use crate::wal::survey::Run;
use pg_ark_contract::Timeline;

fn stretch(first: u64, last: u64) -> Stretch {
    Stretch { pieces: vec![Piece { timeline: Timeline(1), run: Run { first, last } }] }
}

/// Fills the segment but for a few bytes, in which the next record begins.
fn almost_fill(wal: &mut crate::postgres::wal_fixture::WalWriter) {
    while wal.bytes.is_empty() || wal.bytes.len() % SIZE as usize != SIZE as usize - 8192 {
        wal.fill_page(0);
    }
    wal.fill_page(16);
}

#[test]
fn a_last_commit_that_crosses_a_boundary_is_the_last() {
    let stored = Stored::new();
    let mut wal = wal_from(3);
    wal.commit(900, 10);
    almost_fill(&mut wal);
    wal.commit(901, 20);
    wal.restore_point(b"later", 90);
    let end = Lsn(wal.at());
    stored.put_wal(&wal);
    for _ in 0..2 {
        let mut moments = Moments::new(&stored.archive, size());
        assert_eq!(moments.end(&stretch(3, 4)).unwrap(), Moment { lsn: end, time: Some(20) });
        assert_eq!(moments.end(&stretch(3, 3)).unwrap().time, Some(10));
        let times = moments.times(Timeline(1), Run { first: 3, last: 4 }).unwrap();
        assert_eq!(times, (Some(10), Some(20)));
        stored.index(&wal);
    }
}

#[test]
fn a_commit_that_fills_a_segment_is_found_before_an_lsn() {
    let stored = Stored::new();
    let mut wal = wal_from(3);
    wal.commit(900, 10);
    let mut long = 20i64.to_le_bytes().to_vec();
    long.resize(2_500_000, 7);
    wal.record(1, 0, 901, &long);
    let behind = Lsn(wal.at());
    wal.record(10, 0, 5, b"x");
    fill(&mut wal);
    wal.commit(902, 30);
    stored.put_wal(&wal);
    for _ in 0..2 {
        let mut moments = Moments::new(&stored.archive, size());
        let mut before = |lsn| moments.last_before(&stretch(3, 6), lsn).unwrap();
        assert_eq!(before(behind), Some(20));
        assert_eq!(before(Lsn(behind.0 + 24)), Some(20));
        assert_eq!(before(Lsn(behind.0 - 1)), Some(10));
        assert_eq!(before(Lsn(u64::MAX)), Some(30));
        assert_eq!(moments.end(&stretch(3, 5)).unwrap().time, Some(20));
        assert_eq!(moments.end(&stretch(4, 5)).unwrap().time, None, "its beginning is not there");
        stored.index(&wal);
    }
}

#[test]
fn a_time_in_an_index_is_not_believed() {
    let stored = Stored::new();
    let mut wal = wal_from(3);
    wal.commit(900, 10);
    fill(&mut wal);
    wal.commit(901, 20);
    stored.put_wal(&wal);
    let path = stored.archive.index_path(Timeline(1), 0);
    let mut index = Index::load(stored.archive.storage(), &path, size()).unwrap();
    for number in [3, 4] {
        let mut summary = Moments::new(&stored.archive, size()).look(name(1, number)).unwrap();
        (summary.first_time, summary.last_time) = (Some(-5), Some(1 << 50));
        summary.end = name(1, number).next().start(size());
        index.insert(name(1, number), summary);
    }
    index.save(stored.archive.storage(), &path).unwrap();
    let mut moments = Moments::new(&stored.archive, size());
    let end = Moment { lsn: Lsn(wal.at()), time: Some(20) };
    assert_eq!(moments.end(&stretch(3, 4)).unwrap(), end);
    assert_eq!(moments.times(Timeline(1), Run { first: 3, last: 4 }).unwrap(), (Some(10), Some(20)));
    // What the index knows of the last segment, too, has to be there.
    stored.put(1, 4, ".zst", b"cut off");
    let error = Moments::new(&stored.archive, size()).end(&stretch(3, 4)).unwrap_err();
    assert!(is_damage(&error), "{error}");
}

#[test]
fn a_search_that_reads_too_much_gives_up() {
    let stored = Stored::new();
    let mut wal = wal_from(3);
    wal.commit(900, 10);
    // No transaction ends in these, but each begins with the rest of a record.
    for _ in 0..MAX_BOUNDARIES + 4 {
        almost_fill(&mut wal);
        wal.record(10, 0, 5, b"longer than what is left of the page");
    }
    stored.put_wal(&wal);
    stored.index(&wal);
    let last = wal.at() / SIZE;
    let mut moments = Moments::new(&stored.archive, size());
    assert_eq!(moments.end(&stretch(3, last)).unwrap().time, Some(10), "what is known is good enough");
    assert_eq!(
        moments.last_before(&stretch(3, last), Lsn(wal.at())).unwrap(),
        None,
        "what is not sure is not said"
    );
    assert_eq!(moments.last_before(&stretch(3, 6), Lsn(wal.at())).unwrap(), Some(10));
}
