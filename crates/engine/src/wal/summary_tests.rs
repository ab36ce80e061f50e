use super::*;
use crate::postgres::wal_fixture::WalWriter;
use crate::postgres::wal_record::to_utc;
use pg_ark_contract::Timeline;
use proptest::prelude::*;

const NUMBER: u64 = 7;

fn size() -> SegmentSize {
    SegmentSize::new(1 << 20).unwrap()
}

fn wal() -> WalWriter {
    WalWriter::new(size().start_of(NUMBER), size())
}

fn summary_of(number: u64, bytes: &[u8]) -> Summary {
    let mut summarizer = Summarizer::new(SegmentName { timeline: Timeline(1), number }, size());
    bytes.chunks(100_000).for_each(|piece| summarizer.feed(piece));
    summarizer.finish()
}

/// Fills the segment that the writer is in.
fn fill(wal: &mut WalWriter) {
    let segment = size().bytes() as usize;
    while wal.bytes.is_empty() || !wal.bytes.len().is_multiple_of(segment) {
        wal.fill_page(0);
    }
}

#[test]
fn a_segment_tells_times_and_transactions() {
    let mut wal = wal();
    let first = wal.record(10, 0, 4, b"x");
    wal.commit(900, 50);
    wal.commit(901, 40);
    wal.abort(899, 45);
    wal.restore_point(b"caf\xE9", 60);
    let end = wal.at();
    let summary = summary_of(NUMBER, &wal.segments());
    let point = RestorePoint { name: "caf\u{FFFD}".into(), lsn: Lsn(end), time: 60 };
    let expected = Summary {
        commits: 2,
        first_time: Some(40),
        last_time: Some(60),
        min_xid: Some(899),
        max_xid: Some(901),
        restore_points: vec![point],
        more_restore_points: false,
        end: Lsn(end),
        first_record: Some(Lsn(first)),
        whole: false,
    };
    assert_eq!(summary, expected);
}

#[test]
fn a_segment_is_whole_when_its_records_reach_its_end() {
    let next = size().start_of(NUMBER + 1);
    let mut wal = wal();
    wal.commit(3, 1);
    let mut switched = wal.segments();
    assert!(!summary_of(NUMBER, &switched).whole);
    wal.switch();
    switched.copy_from_slice(&wal.bytes);
    let summary = summary_of(NUMBER, &switched);
    assert_eq!((summary.whole, summary.end), (true, next));
    assert!(!summary_of(NUMBER, &switched[..1 << 19]).whole, "half of it is not all of it");

    let mut wal = self::wal();
    fill(&mut wal);
    let summary = summary_of(NUMBER, &wal.bytes);
    assert_eq!((summary.whole, summary.end), (true, next));

    // A record over three segments: the middle one holds nothing but its middle.
    let mut wal = self::wal();
    wal.commit(3, 1);
    let end = wal.at();
    wal.record(10, 0, 3, &vec![1; 2 << 20]);
    wal.commit(4, 2);
    let bytes = wal.segments();
    let parts: Vec<Summary> =
        (0..3).map(|part| summary_of(NUMBER + part, &bytes[(part as usize) << 20..][..1 << 20])).collect();
    assert_eq!(parts.iter().map(|part| part.whole).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(parts.iter().map(|part| part.commits).collect::<Vec<_>>(), [1, 0, 1]);
    assert_eq!((parts[0].end, parts[1].end, parts[1].first_record), (Lsn(end), next, None));
    assert_eq!(parts[2].end, Lsn(wal.at()));
    // What comes behind a segment is not part of it.
    let mut summarizer = Summarizer::new(SegmentName { timeline: Timeline(1), number: NUMBER }, size());
    summarizer.feed(&bytes);
    assert_eq!(summarizer.finish(), parts[0]);
}

#[test]
fn numbers_that_wrap_around_stay_in_the_range() {
    let mut wal = wal();
    wal.commit(u32::MAX, 1);
    wal.commit(3, 1);
    let summary = summary_of(NUMBER, &wal.segments());
    assert_eq!((summary.min_xid, summary.max_xid), (Some(3), Some(u32::MAX)));
}

#[test]
fn impossible_times_can_still_be_written() {
    let mut wal = wal();
    wal.commit(3, i64::MIN);
    wal.commit(4, i64::MAX);
    let summary = summary_of(NUMBER, &wal.segments());
    let shown =
        [summary.first_time, summary.last_time].map(|time| to_utc(time.unwrap()).unwrap().to_rfc3339());
    assert_eq!(shown, ["0000-01-01T00:00:00+00:00", "9999-12-31T23:59:59.999999+00:00"]);
}

#[test]
fn restore_points_are_bounded() {
    let mut wal = wal();
    for number in 0..=MAX_RESTORE_POINTS {
        wal.restore_point(format!("point {number}").as_bytes(), 1);
    }
    let summary = summary_of(NUMBER, &wal.segments());
    assert_eq!((summary.restore_points.len(), summary.more_restore_points), (MAX_RESTORE_POINTS, true));
    assert_eq!(summary.restore_points[99].name, "point 99");
}

#[test]
fn nothing_gives_an_empty_summary() {
    for bytes in [&[][..], &[0; 100], &[0xFF; 1 << 20]] {
        let summary = summary_of(NUMBER, bytes);
        assert_eq!((summary.end, summary.whole), (size().start_of(NUMBER), false));
        assert_eq!((summary.commits, summary.first_record, summary.first_time), (0, None, None));
    }
}

proptest! {
    #[test]
    fn damaged_segments_are_summed_up_without_panic(
        lengths in proptest::collection::vec(0usize..50_000, 1..20),
        damage in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..8),
    ) {
        let mut wal = wal();
        for length in &lengths {
            wal.record(1, (*length % 256) as u8, 7, &vec![1; *length]);
            wal.restore_point(b"x", 5);
        }
        let mut bytes = wal.segments();
        for (at, value) in damage {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        for (part, segment) in bytes.chunks(1 << 20).enumerate() {
            let number = NUMBER + part as u64;
            let summary = summary_of(number, segment);
            prop_assert!(summary.end >= size().start_of(number) && summary.end <= size().start_of(number + 1));
            prop_assert_eq!(summary.first_time.is_some(), summary.last_time.is_some());
        }
    }
}
