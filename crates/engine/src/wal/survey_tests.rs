use super::*;
use crate::postgres::wal_segment::magic_of;
use crate::verify::fixture::{SIZE, Stored};

const SYSTEM: u64 = crate::postgres::wal_fixture::SYSTEM_IDENTIFIER;

/// A segment that has nothing but its first header.
fn content(timeline: u32, number: u64, system: u64) -> Vec<u8> {
    let mut bytes = vec![0; SIZE as usize];
    bytes[0..2].copy_from_slice(&magic_of(15).unwrap().to_le_bytes());
    bytes[2..4].copy_from_slice(&2u16.to_le_bytes());
    bytes[4..8].copy_from_slice(&timeline.to_le_bytes());
    bytes[8..16].copy_from_slice(&(number * SIZE).to_le_bytes());
    bytes[24..32].copy_from_slice(&system.to_le_bytes());
    bytes[32..36].copy_from_slice(&(SIZE as u32).to_le_bytes());
    bytes[36..40].copy_from_slice(&8192u32.to_le_bytes());
    bytes
}

#[test]
fn what_is_there_becomes_runs_over_logs() {
    let stored = Stored::new();
    let archive = &stored.archive;
    // A log holds 4096 segments of 1 MiB.
    for number in [3, 4, 7, 4094, 4095, 4096, 4097] {
        stored.put(1, number, ".zst", &content(1, number, SYSTEM));
    }
    stored.put(2, 7, ".zst", &content(2, 7, SYSTEM));
    stored.put(1, 8, ".partial.zst", &content(1, 8, SYSTEM));
    stored.put_plain("00000002.history", b"1\t0/700100\tno recovery target specified\n");
    stored.put_plain("00000001/00000000/index.jsonl", b"{}");
    stored.put_plain("00000001/00000000/000000010000000000000004.00000028.backup", b"x");
    let survey = Survey::take(archive, &|| Ok(())).unwrap();
    assert_eq!(survey.segment_size.bytes(), SIZE);
    let one = &survey.timelines[&Timeline(1)];
    let runs: Vec<_> = one.runs.iter().map(|run| (run.first, run.last)).collect();
    assert_eq!(runs, [(3, 4), (7, 7), (4094, 4097)]);
    assert_eq!(one.partials, [8]);
    assert_eq!(survey.histories[&Timeline(2)].entries.len(), 1);
    assert!(survey.strangers.is_empty(), "{:?}", survey.strangers);
}

#[test]
fn what_is_damaged_does_not_hide_the_rest() {
    let stored = Stored::new();
    let archive = &stored.archive;
    stored.put(1, 3, ".zst", &content(1, 3, SYSTEM));
    stored.put(1, 4, ".zst", &content(1, 4, 99));
    stored.put(1, 5, ".zst", b"too short");
    stored.put_plain("00000002.history", b"nonsense\n");
    let look = Look::take(archive, &|| Ok(())).unwrap();
    assert_eq!(look.size, None, "segment 3 has a header of ours");
    assert_eq!(look.survey.timelines[&Timeline(1)].runs, [Run { first: 3, last: 5 }]);
    let [(Timeline(2), error)] = &look.histories[..] else { panic!("{:?}", look.histories) };
    assert!(error.to_string().contains("00000002.history"), "{error}");
    assert_eq!(Survey::take(archive, &|| Ok(())).unwrap_err().kind, ErrorKind::Corrupt);
}

#[test]
fn without_a_single_header_the_size_is_unknown() {
    let stored = Stored::new();
    let archive = &stored.archive;
    stored.put(1, 3, ".zst", b"nonsense");
    let look = Look::take(archive, &|| Ok(())).unwrap();
    assert!(look.size.is_some());
    assert_eq!(Survey::take(archive, &|| Ok(())).unwrap_err().kind, ErrorKind::Corrupt);
}

#[test]
fn strangers_and_segments_under_two_codecs() {
    let stored = Stored::new();
    let archive = &stored.archive;
    stored.put(1, 3, ".zst", &content(1, 3, SYSTEM));
    stored.put(1, 3, ".lz4", &content(1, 3, SYSTEM));
    stored.put_plain("notes.txt", b"x");
    stored.put_plain("00000001/notes.txt", b"x");
    stored.put_plain("00000001/00000000/000000010000000000000009", b"without a codec");
    stored.put_plain("00000001/00000000/00000002000000000000000A.zst", b"another timeline's");
    stored.put_plain("00000001/00000000/0000000100000000FFFFFFFF.zst", b"no such number");
    stored.put_plain("old/00000001/x", b"x");
    stored.put_plain("00000001/00000000.bak/x", b"x");
    let look = Look::take(archive, &|| Ok(())).unwrap();
    assert_eq!(look.twice, [SegmentName { timeline: Timeline(1), number: 3 }]);
    let base = format!("main/{SYSTEM}/wal");
    let mut strangers: Vec<_> = look.survey.strangers.iter().filter_map(|p| p.strip_prefix(&base)).collect();
    strangers.sort_unstable();
    assert_eq!(
        strangers,
        [
            "/00000001/00000000.bak/",
            "/00000001/00000000/000000010000000000000009",
            "/00000001/00000000/0000000100000000FFFFFFFF",
            "/00000001/00000000/00000002000000000000000A.zst",
            "/00000001/notes.txt",
            "/notes.txt",
            "/old/",
        ]
    );
    assert_eq!(look.strangers, 7);
}

#[test]
fn an_order_to_stop_ends_the_listing() {
    let stored = Stored::new();
    let archive = &stored.archive;
    stored.put(1, 3, ".zst", &content(1, 3, SYSTEM));
    let stop = || Err(Error::new(ErrorKind::Cancelled, "stop"));
    assert_eq!(Survey::take(archive, &stop).unwrap_err().kind, ErrorKind::Cancelled);
    let empty = Stored::new();
    assert!(Survey::take(&empty.archive, &stop).unwrap().is_empty());
}

#[test]
fn promise_7_histories_take_bounded_room() {
    let stored = Stored::new();
    let text = b"1\t0/700100\tfirst\n2\t0/800100\tsecond\n";
    stored.put_plain("00000003.history", text);
    stored.put_plain("00000009.history", b"garbage");
    let read = |timeline, bytes, entries| {
        stored.archive.one_history(Timeline(timeline), None, &mut Room::new(bytes, entries))
    };
    let history = read(3, text.len() as u64, 2).unwrap().unwrap();
    let reasons: Vec<_> = history.entries.iter().map(|entry| &entry.reason[..]).collect();
    assert_eq!(reasons, ["", "second"]);
    for (bytes, entries) in [(text.len() as u64 - 1, 2), (1 << 20, 1)] {
        assert_eq!(read(3, bytes, entries).unwrap_err().kind, ErrorKind::Unsupported);
    }
    // What cannot be read is told, one by one, which takes room too.
    assert_eq!(read(9, 1 << 20, 1).unwrap_err().kind, ErrorKind::Corrupt);
    assert_eq!(read(9, 100, 1).unwrap_err().kind, ErrorKind::Unsupported);
}
