//! Targets in WAL made by hand, in an archive with its index and without.

use super::*;
use crate::postgres::wal_fixture::WalWriter;
use crate::postgres::wal_record::to_utc;
use crate::verify::fixture::{SIZE, Stored, fill, size, wal_from};
use crate::wal::{Line, Survey};
use pg_ark_contract::Timeline;

const SECOND: i64 = 1_000_000;

/// Fills the segment but for a few bytes, in which the next record begins.
fn almost_fill(wal: &mut WalWriter) {
    let is_last = |bytes: &[u8]| bytes.len() % SIZE as usize == SIZE as usize - 8192;
    while !is_last(&wal.bytes) {
        wal.fill_page(0);
    }
    wal.fill_page(16);
}

/// Segments 2 to 5; the commit of 12, the restore point "edge" and the rollback of 14 cross boundaries. What each record's
/// place is: first and last byte.
fn written() -> (WalWriter, Vec<(u64, u64)>) {
    let mut wal = wal_from(2);
    let mut places = Vec::new();
    let place = |wal: &mut WalWriter, write: &dyn Fn(&mut WalWriter) -> u64| {
        let start = write(wal);
        (start, wal.at())
    };
    places.push(place(&mut wal, &|wal| wal.commit(11, 100 * SECOND)));
    places.push(place(&mut wal, &|wal| wal.restore_point(b"plain", 150 * SECOND)));
    almost_fill(&mut wal);
    places.push(place(&mut wal, &|wal| wal.commit(12, 200 * SECOND)));
    almost_fill(&mut wal);
    places.push(place(&mut wal, &|wal| wal.restore_point(b"edge", 250 * SECOND)));
    places.push(place(&mut wal, &|wal| wal.commit(13, 300 * SECOND)));
    almost_fill(&mut wal);
    places.push(place(&mut wal, &|wal| wal.abort(14, 400 * SECOND)));
    wal.record(10, 0, 5, &[1; 100]);
    (wal, places)
}

#[test]
fn every_target_is_found_where_it_is() {
    let (wal, places) = written();
    for indexed in [true, false] {
        let stored = Stored::new();
        stored.put_wal(&wal);
        if indexed {
            stored.index(&wal);
        }
        let survey = Survey::take(&stored.archive, &|| Ok(())).unwrap();
        let line = Line::of(&survey, Timeline(1));
        let stretch = line.stretch_of(2).unwrap();
        let mut reach = Reach::new(Moments::new(&stored.archive, size()), None, size());
        let mut stop = |target: Target, exclusive: bool, from: u64| {
            let numbers = from / SIZE..=stretch.last();
            let aim = Aim { target: &target, exclusive };
            reach.stop(stretch, numbers, Lsn(from), aim).unwrap().map(|moment| moment.lsn.0)
        };
        let begin = 2 * SIZE;
        let time = |seconds: i64| Target::Time(to_utc(seconds * SECOND).unwrap());
        for (xid, place) in [(11, 0), (12, 2), (13, 4), (14, 5)] {
            assert_eq!(stop(Target::Xid(xid), false, begin), Some(places[place].1), "{xid}");
            assert_eq!(stop(Target::Xid(xid), true, begin), Some(places[place].0), "{xid}");
        }
        assert_eq!(stop(Target::Xid(15), false, begin), None);
        assert_eq!(stop(Target::Xid(11), false, places[1].0), None, "before the backup");
        for (name, place) in [("plain", 1), ("edge", 3)] {
            assert_eq!(stop(Target::Name(name.into()), false, begin), Some(places[place].1), "{name}");
        }
        assert_eq!(stop(Target::Name("none".into()), false, begin), None);
        // A time stops before the first that is later, or not earlier when the time itself is left out.
        assert_eq!(stop(time(99), false, begin), Some(places[0].0));
        assert_eq!(stop(time(100), true, begin), Some(places[0].0));
        assert_eq!(stop(time(100), false, begin), Some(places[2].0));
        assert_eq!(stop(time(299), false, begin), Some(places[4].0));
        assert_eq!(stop(time(300), false, begin), Some(places[5].0), "the very last one crosses a boundary");
        assert_eq!(stop(time(400), false, begin), None);
        // An LSN stops at the first record that begins there or later.
        assert_eq!(stop(Target::Lsn(Lsn(places[2].0)), true, begin), Some(places[2].0));
        assert_eq!(stop(Target::Lsn(Lsn(places[2].0)), false, begin), Some(places[2].1));
        assert_eq!(stop(Target::Lsn(Lsn(places[5].0 + 1)), true, begin), Some(places[5].1));
        assert_eq!(stop(Target::Lsn(Lsn(wal.at())), false, begin), None, "no record begins at the end");
        assert_eq!(reach.end(stretch).unwrap().lsn, Lsn(wal.at()));
        assert_eq!(reach.last_before(stretch, Lsn(places[5].0)).unwrap(), Some(300 * SECOND));
        assert_eq!(reach.last_before(stretch, Lsn(places[0].0)).unwrap(), None);
    }
}

#[test]
fn what_is_damaged_is_told() {
    let mut wal = wal_from(2);
    wal.commit(11, SECOND);
    fill(&mut wal);
    let stored = Stored::new();
    stored.put(1, 2, ".zst", &wal.bytes[..1000]);
    let survey = Survey::take(&stored.archive, &|| Ok(())).unwrap();
    let line = Line::of(&survey, Timeline(1));
    let mut reach = Reach::new(Moments::new(&stored.archive, size()), None, size());
    assert_eq!(reach.end(&line.stretches[0]).unwrap_err().kind, pg_ark_contract::ErrorKind::Corrupt);
}

#[test]
fn a_damaged_end_stands_in_the_way_of_the_end_alone() {
    use super::super::choice::{Stored as Stock, Wish, choose};
    use super::super::target::TimelineChoice;
    use crate::repository::Record;
    let (wal, places) = written();
    let stored = Stored::new();
    stored.put_wal(&wal);
    stored.put(1, 5, ".zst", &wal.bytes[..1000]);
    let survey = Survey::take(&stored.archive, &|| Ok(())).unwrap();
    let record = Record {
        timeline: Some(Timeline(1)),
        start_lsn: Some(Lsn(2 * SIZE + 40)),
        stop_lsn: Some(Lsn(places[1].1)),
        finished_at: Some("2000-01-01T00:02:30Z".into()),
        wal_segment_size: size(),
        ..Record::begun("a".into(), "main", 1)
    };
    let find = |target: Target| {
        let mut reach = Reach::new(Moments::new(&stored.archive, size()), None, size());
        let aim = Aim { target: &target, exclusive: false };
        let wish = Wish { aim, timeline: TimelineChoice::Latest, named: true };
        let stock = Stock { records: std::slice::from_ref(&record), survey: &survey };
        choose(stock, wish, &mut reach).map(|course| course.stop.map(|stop| stop.lsn.0))
    };
    assert_eq!(find(Target::Immediate).unwrap(), Some(places[1].1));
    assert_eq!(find(Target::Xid(12)).unwrap(), Some(places[2].1));
    assert_eq!(find(Target::Latest).unwrap_err().kind, pg_ark_contract::ErrorKind::Corrupt);
    assert_eq!(find(Target::Xid(99)).unwrap_err().kind, pg_ark_contract::ErrorKind::Corrupt);
}
