use super::*;
use proptest::prelude::*;

/// The first 40 bytes of the first segment of a new cluster, from PostgreSQL 15 to 18.
const REAL: [(u32, u64, &str); 4] = [
    (
        15,
        7_710_990_730_298_811_747,
        "10d1020001000000000000010000000000000000000000006365caf136f1026b0000000100200000",
    ),
    (
        16,
        7_710_990_817_659_647_476,
        "13d102000100000000000001000000000000000000000000f4f5e6484bf1026b0000000100200000",
    ),
    (
        17,
        7_710_990_733_098_325_363,
        "16d1020001000000000000010000000000000000000000007395a79837f1026b0000000100200000",
    ),
    (
        18,
        7_710_990_735_190_836_611,
        "18d10200010000000000000100000000000000000000000083c5601538f1026b0000000100200000",
    ),
];

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn size(megabytes: u32) -> SegmentSize {
    SegmentSize::new(megabytes << 20).unwrap()
}

fn name(timeline: u32, number: u64) -> SegmentName {
    SegmentName { timeline: Timeline(timeline), number }
}

/// A sound first page of segment 1 on timeline 2, PostgreSQL 15, 16 MiB; and what it should be.
fn sound() -> (Vec<u8>, ExpectedSegment) {
    let expected = ExpectedSegment {
        name: name(2, 1),
        segment_size: size(16),
        system_identifier: REAL[0].1,
        server_major: Some(15),
    };
    (bytes(REAL[0].2), expected)
}

#[test]
fn names_count_as_postgres_does() {
    for (megabytes, number, text) in [
        (16, 4, "000000010000000000000004"),
        (16, 255, "0000000100000000000000FF"),
        (16, 256, "000000010000000100000000"),
        (1, 4095, "000000010000000000000FFF"),
        (1024, 3, "000000010000000000000003"),
        (1024, 4, "000000010000000100000000"),
    ] {
        assert_eq!(name(1, number).file_name(size(megabytes)), text);
        assert_eq!(SegmentName::parse(text, size(megabytes)), Some(name(1, number)));
    }
    assert_eq!(name(1, 4).next(), name(1, 5));
    assert_eq!(name(1, 4).start(size(16)), Lsn(0x0400_0000));
}

#[test]
fn other_names_are_not_segments() {
    for text in [
        "",
        "00000001000000000000000",
        "0000000100000000000000001",
        "00000001000000000000000g",
        "00000001000000000000000a",
        "000000000000000000000001",
        "000000010000000000000100",
        "000000010000000000000001.partial",
        "+0000001000000000000000",
        "00000002.history",
        "é0000000100000000000000",
    ] {
        assert_eq!(SegmentName::parse(text, size(16)), None, "{text}");
    }
}

#[test]
fn every_kind_of_name_is_told_apart() {
    let kinds = |text: &str| (is_segment(text), is_partial(text), is_history(text), is_backup_history(text));
    assert_eq!(kinds("000000010000000000000004"), (true, false, false, false));
    assert_eq!(kinds("000000010000000000000004.partial"), (false, true, false, false));
    assert_eq!(kinds("00000002.history"), (false, false, true, false));
    assert_eq!(kinds("000000010000000000000004.00000028.backup"), (false, false, false, true));
    for text in [
        "",
        "000000010000000000000004.Partial",
        ".partial",
        "2.history",
        "0000000g.history",
        "00000002.history.done",
        "000000010000000000000004.backup",
        "000000010000000000000004.0000002.backup",
        "x.00000028.backup",
        "xlogtemp.12",
    ] {
        assert_eq!(kinds(text), (false, false, false, false), "{text}");
    }
}

#[test]
fn real_first_pages_are_accepted() {
    for (major, system_identifier, hex) in REAL {
        let header = LongHeader::parse(&bytes(hex)).unwrap();
        assert_eq!(server_major_of(header.magic), Some(major));
        assert_eq!((header.page_address, header.timeline), (Lsn(0x0100_0000), Timeline(1)));
        assert_eq!((header.segment_size, header.block_size, header.remaining_length), (16 << 20, 8192, 0));
        let expected = ExpectedSegment {
            name: name(1, 1),
            segment_size: size(16),
            system_identifier,
            server_major: Some(major),
        };
        check_first_page(&bytes(hex), &expected).unwrap();
        check_first_page(&bytes(hex), &ExpectedSegment { server_major: None, ..expected }).unwrap();
    }
}

#[test]
fn a_new_timeline_may_begin_with_a_page_of_its_ancestor() {
    let (page, expected) = sound();
    check_first_page(&page, &expected).unwrap();
    let mut newer = page;
    newer[4] = 3;
    let error = check_first_page(&newer, &expected).unwrap_err();
    assert_eq!(
        error.message,
        "WAL segment 000000020000000000000001 is damaged: its first page is of timeline 3"
    );
}

#[test]
fn with_its_history_the_timeline_of_a_first_page_is_exact() {
    let (page, expected) = sound();
    // Timelines 2 and 3 both leave timeline 1, in segment 1; timeline 4 leaves timeline 3 at the boundary of segment 5.
    let history =
        |timeline: u32, text: &str| TimelineHistory::parse(Timeline(timeline), text.as_bytes()).unwrap();
    let third = history(3, "1\t0/1000100\tx\n");
    let fourth = history(4, "1\t0/1000100\tx\n3\t0/5000000\tx\n");
    let check = |history: &TimelineHistory, number: u64, timeline: u8| {
        let mut page = page.clone();
        page[4] = timeline;
        page[8..16].copy_from_slice(&(number << 24).to_le_bytes());
        let expected = ExpectedSegment { name: name(history.timeline.0, number), ..expected };
        check_first_page(&page, &expected).unwrap();
        check_first_page_on(&page, &expected, history)
    };
    for (history, number, timeline) in
        [(&third, 1, 1), (&third, 2, 3), (&third, 9, 3), (&fourth, 1, 1), (&fourth, 4, 3), (&fourth, 5, 4)]
    {
        check(history, number, timeline).unwrap();
    }
    let error = check(&third, 2, 2).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt);
    assert_eq!(
        error.message,
        "WAL segment 000000030000000000000002 is damaged: its first page is of timeline 2, by the history of \
         timeline 3 it should be of 3"
    );
    assert!(error.hint.is_some());
    for (history, number, timeline) in
        [(&third, 1, 2), (&third, 1, 3), (&third, 2, 1), (&fourth, 5, 3), (&fourth, 4, 4), (&fourth, 4, 2)]
    {
        check(history, number, timeline).unwrap_err();
    }
    // Another timeline's history says nothing about this one.
    check_first_page_on(&page, &expected, &third).unwrap();
    assert!(check_first_page_on(&page[..30], &expected, &third).is_err());
}

#[test]
fn pages_that_do_not_belong_are_refused() {
    let (page, expected) = sound();
    for (at, value, part) in [
        (0, 0, "0000 is not the magic number of a known version"),
        (0, 0x13, "D113 is not that of PostgreSQL 15"),
        (2, 0, "flags 0000"),
        (2, 0x12, "flags 0012"),
        (4, 0, "of timeline 0"),
        (11, 9, "is the one of 0/9000000, not 0/1000000"),
        (35, 2, "for segments of 33554432 bytes"),
        (37, 0x21, "8448 is not a valid WAL page size"),
    ] {
        let mut page = page.clone();
        page[at] = value;
        if part.starts_with("0000") {
            page[1] = 0;
        }
        let error = check_first_page(&page, &expected).unwrap_err();
        assert!(error.kind == ErrorKind::Corrupt && error.message.contains(part), "{part}: {error}");
    }
    let mut foreign = page.clone();
    foreign[24] ^= 1;
    assert_eq!(check_first_page(&foreign, &expected).unwrap_err().kind, ErrorKind::ForeignCluster);
    let error = check_first_page(&page[..39], &expected).unwrap_err();
    assert!(error.message.contains("only 39 bytes"), "{error}");
}

proptest! {
    #[test]
    fn any_bytes_are_checked_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60), at in 0usize..40, new: u8) {
        let (mut page, expected) = sound();
        let _ = check_first_page(&bytes, &expected);
        page[at] = new;
        let _ = check_first_page(&page, &expected);
    }

    #[test]
    fn any_text_is_read_without_panic(text in "\\PC{0,30}", digits in "[0-9A-F]{24}") {
        let _ = (SegmentName::parse(&text, size(16)), SegmentName::parse(&digits, size(16)));
        let _ = (is_segment(&text), is_partial(&text), is_history(&text), is_backup_history(&text));
    }

    #[test]
    fn what_is_written_is_read(timeline in 1u32.., log: u32, log2size in 0u32..=10, part: u64) {
        let size = size(1 << log2size);
        let per_log = (1u64 << 32) / size.bytes();
        let name = name(timeline, u64::from(log) * per_log + part % per_log);
        prop_assert_eq!(SegmentName::parse(&name.file_name(size), size), Some(name));
    }

    #[test]
    fn a_number_out_of_range_is_written_without_panic(number: u64) {
        let _ = (name(1, number).file_name(size(16)), name(1, number).next(), name(1, number).start(size(16)));
    }
}
