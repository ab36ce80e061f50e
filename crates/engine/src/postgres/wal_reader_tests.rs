use super::*;
use crate::postgres::wal_fixture::WalWriter;
use proptest::prelude::*;

const START: Lsn = Lsn(0x0700_0000);

fn size() -> SegmentSize {
    SegmentSize::new(1 << 20).unwrap()
}

fn writer() -> WalWriter {
    WalWriter::new(START, size())
}

/// A record as tests compare it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    start: u64,
    end: u64,
    rmgr: u8,
    xid: u32,
    data: Vec<u8>,
    event: String,
}

/// Reads `bytes` in pieces of `step` bytes.
fn read_in(bytes: &[u8], step: usize, check_crc: bool) -> (WalReader, Vec<Seen>) {
    let mut reader = WalReader::new(START, size(), check_crc);
    let mut seen = Vec::new();
    for piece in bytes.chunks(step.max(1)) {
        reader.feed(piece, &mut |record| {
            let data = record.main_data();
            seen.push(Seen {
                start: record.start.0,
                end: record.end.0,
                rmgr: record.rmgr,
                xid: record.xid,
                data: data[..data.len().min(200)].to_vec(),
                event: format!("{:?}", record.event()),
            });
        });
    }
    (reader, seen)
}

fn read(bytes: &[u8]) -> (WalReader, Vec<Seen>) {
    read_in(bytes, bytes.len(), true)
}

fn starts(seen: &[Seen]) -> Vec<u64> {
    seen.iter().map(|record| record.start).collect()
}

#[track_caller]
fn assert_stop(reader: &WalReader, at: u64, why: &str) {
    let stop = reader.stopped().expect("it should have stopped");
    assert!(stop.lsn == Lsn(at) && stop.why.contains(why), "{stop:?}");
    assert_eq!(reader.pending(), None);
}

#[test]
fn records_come_out_with_their_places() {
    let mut wal = writer();
    let first = wal.record(10, 0, 7, b"abc");
    let second = wal.commit(7, 1_000_000);
    let end = wal.at();
    let (reader, seen) = read(&wal.segments());
    assert_eq!(first, START.0 + 40);
    // 24 bytes of header, 2 of data header, 3 of data, aligned to 8.
    assert_eq!((second, end), (first + 32, second + 40));
    assert_eq!(starts(&seen), [first, second]);
    assert_eq!((seen[0].end, seen[0].rmgr, seen[0].xid, &seen[0].data[..]), (second, 10, 7, &b"abc"[..]));
    assert_eq!(reader.end(), Some(Lsn(end)));
    assert_stop(&reader, end, "no record is written there");
    assert_eq!(reader.pending(), None);
}

#[test]
fn records_of_any_length_go_on_over_pages_and_segments() {
    let mut wal = writer();
    let mut expected = Vec::new();
    for length in [0, 1, 255, 256, 5000, 8000, 8192, 40_000, 3 << 20, 7, 100_000] {
        expected.push((wal.record(10, 0, 1, &vec![3; length]), length));
    }
    let bytes = wal.bytes.clone();
    for step in [1, 7, 8, 4096, 8192, 10_000, bytes.len()] {
        for check_crc in [false, true] {
            let (reader, seen) = read_in(&bytes, step, check_crc);
            assert_eq!(reader.stopped(), None);
            assert_eq!(seen.len(), expected.len());
            for (record, (start, length)) in seen.iter().zip(&expected) {
                assert_eq!((record.start, record.data.len()), (*start, (*length).min(200)));
            }
            assert_eq!((reader.end(), reader.pending()), (Some(Lsn(wal.at())), None));
        }
    }
}

#[test]
fn a_header_may_be_split_between_pages() {
    for left in [8, 16, 24, 32] {
        let mut wal = writer();
        wal.fill_page(left);
        let split = wal.record(10, 0, 2, b"split between pages");
        let last = wal.record(10, 0, 2, b"last");
        for step in [1, 3, 8192, 20_000] {
            let (reader, seen) = read_in(&wal.segments(), step, true);
            assert_eq!(starts(&seen)[1..], [split, last], "{left} bytes left");
            assert_stop(&reader, wal.at(), "no record");
        }
        // A header that is not on the page yet is not judged, its length is.
        let page_end = START.0 + 8192;
        assert_eq!(split, page_end - left as u64);
        let (reader, _) = read(&wal.bytes[..8192]);
        assert_eq!(reader.pending(), Some(Lsn(split)));
        let mut bytes = wal.bytes.clone();
        bytes[8192 - left] = 23;
        let (reader, _) = read(&bytes);
        assert_stop(&reader, split, "length is 23");
    }
}

#[test]
fn a_record_can_end_exactly_with_its_page() {
    let mut wal = writer();
    wal.fill_page(0);
    let next = wal.record(10, 0, 2, b"next");
    assert_eq!(next, START.0 + 8192 + 24);
    let (reader, seen) = read(&wal.segments());
    assert_eq!((seen[0].end, seen[1].start), (START.0 + 8192, next));
    // Recovery that ends there reports the page boundary.
    let (before, _) = read(&wal.bytes[..8192]);
    assert_eq!(before.end(), Some(Lsn(START.0 + 8192)));
    assert_eq!((before.stopped(), before.pending()), (None, None));
    assert_stop(&reader, wal.at(), "no record");
}

#[test]
fn the_rest_of_an_earlier_record_is_skipped() {
    let mut wal = writer();
    wal.record(10, 0, 1, &vec![1; (1 << 20) + 20_000]);
    let rest_ends = wal.at();
    let next = wal.commit(3, 5);
    let second = &wal.segments()[1 << 20..];
    let start = Lsn(START.0 + (1 << 20));
    let mut reader = WalReader::new(start, size(), true);
    let mut seen = Vec::new();
    reader.feed(second, &mut |record| seen.push((record.start.0, record.xid)));
    assert_eq!(seen, [(next, 3)]);
    assert_eq!(reader.end(), Some(Lsn(wal.at())));
    // Its end counts even if nothing follows.
    let mut reader = WalReader::new(start, size(), true);
    reader.feed(&second[..(rest_ends - start.0) as usize], &mut |_| panic!("no record begins here"));
    assert_eq!(reader.end(), Some(Lsn(rest_ends)));
}

#[test]
fn behind_a_switch_the_next_segment_follows() {
    let mut wal = writer();
    wal.commit(1, 5);
    let switch = wal.switch();
    let after = wal.commit(2, 6);
    let mut bytes = wal.segments();
    // What a recycled file holds there means nothing.
    bytes[300_000..400_000].fill(0xAA);
    for step in [5, 8192, 1 << 20, 3 << 20] {
        let (reader, seen) = read_in(&bytes, step, true);
        assert_eq!(starts(&seen)[1..], [switch, after]);
        assert_eq!((seen[1].end, &seen[1].event[..]), (START.0 + (1 << 20), "Some(Switch)"));
        assert_stop(&reader, wal.at(), "no record");
    }
}

/// A segment that ends with `left` bytes of a switch record; the rest of it is in the next one.
fn split_switch(left: usize) -> (Vec<u8>, u64) {
    let mut wal = writer();
    while wal.bytes.len() < (1 << 20) - 8192 {
        wal.fill_page(0);
    }
    wal.fill_page(left);
    wal.switch();
    let after = wal.commit(4, 7);
    (wal.segments(), after)
}

#[test]
fn a_switch_that_began_in_the_segment_before_is_understood() {
    for left in [8, 16] {
        let (bytes, after) = split_switch(left);
        let (_, seen) = read(&bytes);
        assert_eq!(seen.last().unwrap().start, after);
        let mut reader = WalReader::new(Lsn(START.0 + (1 << 20)), size(), true);
        let mut seen = Vec::new();
        let second = &bytes[1 << 20..];
        reader.feed(&second[..1 << 20], &mut |record| seen.push(record.start.0));
        assert_eq!((reader.end(), reader.stopped()), (Some(Lsn(START.0 + (2 << 20))), None));
        reader.feed(&second[1 << 20..], &mut |record| seen.push(record.start.0));
        assert_eq!(seen, [after]);
        // The same bytes of another record are its end, and nothing else.
        let mut other = bytes.clone();
        other[(1 << 20) + 40 + 16 - left - 8 + 8] = 0x30;
        let mut reader = WalReader::new(Lsn(START.0 + (1 << 20)), size(), false);
        reader.feed(&other[1 << 20..2 << 20], &mut |_| {});
        assert!(reader.stopped().is_some(), "{left}");
    }
}

#[test]
fn a_lost_rest_is_overwritten() {
    let mut wal = writer();
    wal.commit(1, 5);
    let end = wal.at();
    let lost = wal.lost_record(20_000);
    let overwrite = wal.record(0, 0xD0, 0, &[0; 16]);
    let bytes = wal.segments();
    for step in [1, 8192, bytes.len()] {
        let (_, seen) = read_in(&bytes, step, true);
        assert_eq!(starts(&seen)[1..], [overwrite]);
    }
    let (reader, _) = read(&bytes[..8192]);
    assert_eq!((reader.end(), reader.pending()), (Some(Lsn(end)), Some(Lsn(lost))));
    // Without the flag the record is broken.
    let mut broken = bytes.clone();
    broken[8192 + 2] = 0;
    let (reader, _) = read(&broken);
    assert_stop(&reader, START.0 + 8192, &format!("that the record at {} still has", Lsn(lost)));
    assert_eq!(reader.end(), Some(Lsn(end)));
}

#[test]
fn stale_pages_end_the_records() {
    let mut wal = writer();
    wal.fill_page(0);
    wal.fill_page(0);
    wal.record(10, 0, 3, b"x");
    let sound = wal.segments();
    let second = START.0 + 8192;
    let page = |change: &dyn Fn(&mut [u8])| {
        let mut bytes = sound.clone();
        change(&mut bytes[8192..]);
        read(&bytes).0
    };
    let first_page = Some(Lsn(second));
    for (reader, why) in [
        (page(&|page| page[8..16].copy_from_slice(&START.0.to_le_bytes())), "it is the page of 0/7000000"),
        (page(&|page| page[..24].fill(0)), "nothing is written there"),
        (page(&|page| page[0] = 0x13), "magic number D113"),
        (page(&|page| page[2] = 0x10), "flags 0010"),
        (page(&|page| page[4] = 0), "timeline 0"),
        (page(&|page| (page[2], page[16]) = (1, 8)), "begins with 8 bytes of a record"),
        (page(&|page| page[2] = 1), "rest of a record, of 0 bytes"),
    ] {
        assert_stop(&reader, second, why);
        assert_eq!(reader.end(), first_page);
    }
    // A record that lies where one was, but does not follow the one before.
    let reader = page(&|page| page[24 + 8] ^= 8);
    assert_stop(&reader, second + 24, "follows the one at");
    let reader = page(&|page| page[24 + 17] = 22);
    assert_stop(&reader, second + 24, "resource manager is 22");
    let reader = page(&|page| page[24 + 17] = 127);
    assert_stop(&reader, second + 24, "resource manager is 127");
}

#[test]
fn a_checksum_finds_what_the_chain_does_not() {
    let mut wal = writer();
    wal.record(10, 0, 3, &[1; 20_000]);
    let second = wal.record(10, 0, 3, &[1; 20_000]);
    let mut bytes = wal.segments();
    bytes[(second - START.0) as usize + 15_000] ^= 1;
    let (reader, seen) = read_in(&bytes, 5000, true);
    assert_stop(&reader, second, "checksum");
    assert_eq!((seen.len(), reader.end()), (1, Some(Lsn(second))));
    let (_, seen) = read_in(&bytes, 5000, false);
    assert_eq!(seen.len(), 2);
}

#[test]
fn timelines_may_ascend_and_nothing_else_may_change() {
    let mut wal = writer();
    wal.fill_page(0);
    wal.timeline = 3;
    wal.commit(1, 1);
    let first = wal.switch();
    wal.timeline = 4;
    let last = wal.commit(2, 2);
    let sound = wal.segments();
    let (_, seen) = read(&sound);
    assert_eq!(starts(&seen)[2..], [first, last]);
    let next = START.0 + (1 << 20);
    for (at, value, why) in [
        (4, 2, "timeline 2"),
        (24, 0, "belongs to system identifier"),
        (34, 0x20, "segments of 2097152 bytes"),
        (37, 0x10, "pages of 4096 bytes"),
        (2, 0, "no long header"),
        (37, 0x21, "not a valid WAL page size"),
    ] {
        let mut bytes = sound.clone();
        bytes[(1 << 20) + at] = value;
        assert_stop(&read(&bytes).0, next, why);
    }
}

#[test]
fn pages_can_have_any_size() {
    for page in [1024, 4096, 65_536] {
        let mut wal = writer();
        wal.page = page;
        let lsns = [300, 2000, 100_000, 5].map(|length| wal.record(10, 0, 1, &vec![9; length]));
        assert_eq!(starts(&read_in(&wal.segments(), 777, true).1), lsns);
    }
}

#[test]
fn reading_begins_with_a_segment() {
    let wal = writer().segments();
    let mut reader = WalReader::new(Lsn(START.0 + 8192), size(), true);
    reader.feed(&wal, &mut |_| {});
    assert_eq!(reader.stopped(), None, "no bytes, no verdict");
    let mut wal = writer();
    wal.fill_page(0);
    wal.commit(1, 1);
    reader.feed(&wal.bytes[8192..], &mut |_| {});
    assert_stop(&reader, START.0 + 8192, "inside a segment");
}

proptest! {
    #[test]
    fn damage_never_panics_and_keeps_what_is_before(
        lengths in proptest::collection::vec(0usize..30_000, 1..20),
        step in 1usize..20_000,
        damage in proptest::collection::vec((0usize..400_000, any::<u8>()), 1..6),
        cut in 0usize..500_000,
    ) {
        let mut wal = writer();
        for length in &lengths {
            wal.record(10, 0, 1, &vec![1; *length]);
        }
        wal.switch();
        let sound = wal.segments();
        let (_, expected) = read(&sound);
        let mut bytes = sound.clone();
        let mut first = bytes.len();
        for (at, value) in damage {
            let at = at % bytes.len();
            first = if bytes[at] != value { first.min(at) } else { first };
            bytes[at] = value;
        }
        bytes.truncate(bytes.len().saturating_sub(cut));
        let (reader, seen) = read_in(&bytes, step, true);
        let (loose, _) = read_in(&bytes, step, false);
        let limit = START.0 + first.min(bytes.len()) as u64;
        let whole = expected.iter().take_while(|record| record.end <= limit).count();
        prop_assert!(seen.len() >= whole);
        prop_assert_eq!(&seen[..whole], &expected[..whole]);
        // With checksums, what is returned is what was written.
        prop_assert!(seen.iter().all(|record| expected.contains(record)));
        prop_assert!(reader.end() <= loose.end() || loose.stopped().is_some());
    }

    #[test]
    fn any_bytes_are_read_without_panic(
        start: u64, bytes in proptest::collection::vec(any::<u8>(), 0..300), step in 1usize..100, check_crc: bool,
        aligned: bool,
    ) {
        let start = if aligned { start & !0xF_FFFF } else { start };
        let mut page = WalWriter::new(Lsn(start), size()).segments();
        page.extend_from_slice(&bytes);
        let mut reader = WalReader::new(Lsn(start), size(), check_crc);
        for piece in page.chunks(step) {
            reader.feed(piece, &mut |record| drop(format!("{:?}", record.event())));
        }
        let _ = (reader.end(), reader.pending());
    }

    #[test]
    fn any_records_on_a_sound_page_are_read_without_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..600), body in proptest::collection::vec(any::<u8>(), 0..400),
        rmgr in 0u8..3, info: u8, step in 1usize..700, last: bool,
    ) {
        // The last segment of all, where positions come to their end.
        let start = Lsn(if last { !0xF_FFFF } else { 0 });
        let mut wal = WalWriter::new(start, size());
        wal.raw(rmgr, info, 3, &body);
        wal.bytes.extend_from_slice(&bytes);
        let mut reader = WalReader::new(start, size(), false);
        for piece in wal.bytes.chunks(step) {
            reader.feed(piece, &mut |record| drop(format!("{:?}", record.event())));
        }
    }

    #[test]
    fn pieces_of_any_size_give_the_same_records(
        lengths in proptest::collection::vec(0usize..20_000, 1..30), step in 1usize..9000,
    ) {
        let mut wal = writer();
        for (number, length) in lengths.iter().enumerate() {
            wal.record(10, 0, number as u32, &vec![1; *length]);
        }
        let bytes = wal.segments();
        let (whole, all) = read(&bytes);
        let (pieces, seen) = read_in(&bytes, step, true);
        prop_assert_eq!(all.len(), lengths.len());
        prop_assert_eq!(seen, all);
        prop_assert_eq!((pieces.end(), pieces.stopped()), (whole.end(), whole.stopped()));
    }
}
