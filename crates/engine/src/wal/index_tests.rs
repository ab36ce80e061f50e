use super::*;
use crate::wal::summary::RestorePoint;
use pg_ark_contract::{Lsn, Timeline};
use proptest::prelude::*;

const PATH: &str = "main/1/wal/00000002/00000001/index.jsonl";

fn storage() -> (tempfile::TempDir, Storage) {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(&format!("file://{}", dir.path().display())).unwrap();
    (dir, storage)
}

fn size() -> SegmentSize {
    SegmentSize::default()
}

/// The segment 000000020000000100000004 and others of its folder.
fn name(low: u64) -> SegmentName {
    SegmentName { timeline: Timeline(2), number: 256 + low }
}

fn summary(low: u64) -> Summary {
    let point = RestorePoint { name: "a \"b\"\u{FFFD}\n".into(), lsn: Lsn(0x1_0000_0100), time: 5 };
    Summary {
        commits: 3,
        first_time: Some(-1),
        last_time: Some(841_363_200_123_456),
        min_xid: Some(7),
        max_xid: Some(9),
        restore_points: vec![point],
        more_restore_points: false,
        end: Lsn(name(low).start(size()).0 + 48),
        first_record: Some(Lsn(name(low).start(size()).0 + 40)),
        whole: true,
    }
}

fn empty(low: u64) -> Summary {
    Summary {
        commits: 0,
        first_time: None,
        last_time: None,
        min_xid: None,
        max_xid: None,
        restore_points: Vec::new(),
        more_restore_points: true,
        end: name(low).start(size()),
        first_record: None,
        whole: false,
    }
}

fn load(text: &str) -> Index {
    try_load(text).unwrap()
}

fn try_load(text: &str) -> Result<Index> {
    let (_dir, storage) = storage();
    storage.put(PATH, text.as_bytes().to_vec()).unwrap();
    Index::load(&storage, PATH, size())
}

#[test]
fn what_is_saved_is_loaded() {
    let (_dir, storage) = storage();
    let mut index = Index::load(&storage, PATH, size()).unwrap();
    assert_eq!((index.iter().count(), index.problems().1), (0, 0));
    index.insert(name(5), empty(5));
    index.insert(name(4), summary(4));
    // Segments of other folders have no place here.
    index.insert(SegmentName { timeline: Timeline(1), number: 260 }, summary(4));
    index.insert(SegmentName { timeline: Timeline(2), number: 4 }, summary(4));
    index.save(&storage, PATH).unwrap();
    let loaded = Index::load(&storage, PATH, size()).unwrap();
    assert_eq!(loaded.iter().map(|(number, _)| number).collect::<Vec<_>>(), [260, 261]);
    assert_eq!((loaded.get(260), loaded.get(261)), (Some(&summary(4)), Some(&empty(5))));
    assert_eq!((loaded.get(4), loaded.problems().1), (None, 0));
}

#[test]
fn the_file_is_as_format_md_says() {
    let (_dir, storage) = storage();
    let mut index = Index::load(&storage, PATH, size()).unwrap();
    index.insert(name(4), summary(4));
    index.insert(name(5), empty(5));
    index.save(&storage, PATH).unwrap();
    let text = String::from_utf8(storage.get(PATH, 10_000).unwrap().unwrap()).unwrap();
    let expected = [
        r#"{"format":1"#,
        concat!(
            r#"{"segment":"000000020000000100000004","commits":3,"first_time":"1999-12-31T23:59:59.999999Z","#,
            r#""last_time":"2026-08-30T00:00:00.123456Z","min_xid":7,"max_xid":9,"first_lsn":"1/4000028","#,
            r#""end_lsn":"1/4000030","whole":true,"#,
            r#""restore_points":[{"name":"a \"b\"�\n","lsn":"1/100","time":"2000-01-01T00:00:00.000005Z"}]"#
        ),
        concat!(
            r#"{"segment":"000000020000000100000005","commits":0,"first_time":null,"last_time":null,"#,
            r#""min_xid":null,"max_xid":null,"first_lsn":null,"end_lsn":"1/5000000","whole":false,"#,
            r#""restore_points":[],"more_restore_points":true"#
        ),
        r#"{"end":true,"lines":2"#,
    ];
    let sealed = |body: &str| format!("{body},\"crc32c\":\"{:08x}\"}}\n", crc32c::crc32c(body.as_bytes()));
    assert_eq!(text, expected.map(sealed).concat());
}

/// A line with one part replaced.
fn line(part: &str, other: &str) -> String {
    let line = concat!(
        r#"{"segment":"000000020000000100000004","commits":3,"first_time":"2026-11-22T02:00:00Z","#,
        r#""last_time":"2026-11-22T03:00:00.5+01:00","min_xid":7,"max_xid":9,"end_lsn":"1/4000030","#,
        r#""whole":true,"restore_points":[{"name":"a","lsn":"1/4000030","time":"2026-11-22T02:00:00Z"}]}"#
    );
    assert!(line.contains(part), "{part}");
    format!("{{\"format\":1}}\n{}\n", line.replacen(part, other, 1))
}

#[test]
fn lines_that_cannot_be_true_are_left_out() {
    let index = load(&line("a", "a"));
    assert_eq!((index.problems().1, index.iter().count()), (0, 1));
    // What a later version adds, or an earlier one lacks.
    assert!(load(&line("\"commits\"", "\"new\":{},\"commits\"")).get(260).is_some());
    for (part, other) in [
        ("000000020000000100000004", "000000010000000100000004"),
        ("000000020000000100000004", "000000020000000200000004"),
        ("000000020000000100000004", "000000020000000100000100"),
        ("000000020000000100000004", "../../../../../../../../x"),
        ("\"commits\":3", "\"commits\":-3"),
        ("T02:00:00Z", "T02:00:01Z"),
        ("\"2026-11-22T02:00:00Z\"", "null"),
        ("2026-11-22T02:00:00Z", "yesterday"),
        ("\"min_xid\":7", "\"min_xid\":10"),
        ("\"min_xid\":7", "\"min_xid\":null"),
        ("1/4000030", "1/3FFFFFF"),
        ("1/4000030", "1/5000001"),
        ("T02:00:00Z\"}", "T02:00:00\"}"),
        ("]}", "]"),
    ] {
        let index = load(&line(part, other));
        assert_eq!((index.problems().1, index.iter().count()), (1, 0), "{part} -> {other}");
    }
}

#[test]
fn a_head_is_checked() {
    let good = line("a", "a");
    let (_dir, storage) = storage();
    storage.put(PATH, good.replace("\"format\":1", "\"format\":2").into_bytes()).unwrap();
    assert_eq!(Index::load(&storage, PATH, size()).unwrap_err().kind, ErrorKind::FormatTooNew);
    let index = load(&good.replace("{\"format\":1}", "{\"form"));
    assert_eq!((index.problems().1, index.iter().count()), (1, 1));
    assert_eq!(load("").problems().1, 1);
}

#[test]
fn too_large_an_index_is_refused_and_never_written() {
    let (dir, storage) = storage();
    let mut index = Index::load(&storage, PATH, size()).unwrap();
    for low in 0..256 {
        let mut long = summary(low);
        long.restore_points = vec![RestorePoint { name: "\u{1}".repeat(2000), lsn: Lsn(1), time: 1 }; 50];
        index.insert(name(low), long);
    }
    index.save(&storage, PATH).unwrap();
    let loaded = Index::load(&storage, PATH, size()).unwrap();
    assert!((10..256).contains(&loaded.iter().count()) && loaded.problems().1 == 0);
    let file = std::fs::OpenOptions::new().write(true).open(dir.path().join(PATH)).unwrap();
    file.set_len(MAX_INDEX + 1).unwrap();
    assert_eq!(Index::load(&storage, PATH, size()).unwrap_err().kind, ErrorKind::Corrupt);
}

const HISTORY_INDEX: &str = "main/1/wal/index.jsonl";
const BACKUP: &str = "000000020000000100000004.00000028.backup";

/// An index with lines of every kind, as it is written.
fn written() -> Vec<u8> {
    let (_dir, storage) = storage();
    let mut index = Index::load(&storage, PATH, size()).unwrap();
    assert!(!index.is_there());
    index.insert(name(4), summary(4));
    index.insert(name(5), empty(5));
    assert!(index.insert_file(BACKUP, FileFacts::of(b"START")));
    assert!(!index.insert_file(BACKUP, FileFacts::of(b"START")));
    index.save(&storage, PATH).unwrap();
    storage.get(PATH, MAX_INDEX).unwrap().unwrap()
}

fn load_bytes(bytes: &[u8]) -> Result<Index> {
    let mut index = Index::empty(PATH, size());
    index.read(bytes, "place")?;
    Ok(index)
}

#[test]
fn files_have_lines_where_they_are_stored() {
    let index = load_bytes(&written()).unwrap();
    assert_eq!(index.file(BACKUP), Some(FileFacts::of(b"START")));
    assert_eq!((index.files().count(), index.iter().count(), index.problems().1), (1, 2, 0));
    assert!(index.is_sealed(260));
    let (_dir, storage) = storage();
    for (path, good, bad) in [
        (PATH, BACKUP, ["00000002.history", "000000010000000100000004.00000028.backup", "x"]),
        (HISTORY_INDEX, "00000002.history", [BACKUP, "00000002.history.x", "../x"]),
    ] {
        let mut index = Index::load(&storage, path, size()).unwrap();
        assert!(index.insert_file(good, FileFacts::of(b"")), "{good}");
        assert!(bad.iter().all(|name| !index.insert_file(name, FileFacts::of(b""))), "{path}");
        index.save(&storage, path).unwrap();
        assert_eq!(Index::load(&storage, path, size()).unwrap().files().count(), 1);
    }
}

#[test]
fn every_flipped_bit_and_every_cut_of_an_index_is_told() {
    let bytes = written();
    for bit in 0..bytes.len() * 8 {
        let mut other = bytes.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        assert!(load_bytes(&other).unwrap().problems().1 > 0, "bit {bit}");
    }
    for len in 0..bytes.len() {
        assert!(load_bytes(&bytes[..len]).unwrap().problems().1 > 0, "{len} bytes");
    }
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    for lost in 0..lines.len() {
        let mut left = lines.clone();
        left.remove(lost);
        assert!(load_bytes(&left.concat()).unwrap().problems().1 > 0, "line {lost}");
        left = lines.clone();
        left.insert(lost, lines[lost]);
        assert!(load_bytes(&left.concat()).unwrap().problems().1 > 0, "line {lost} twice");
    }
}

#[test]
fn a_sealed_line_of_a_later_version_is_told_and_kept() {
    let bytes = written();
    let mut lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let later = line::sealed(&BTreeMap::from([("later", 1)])).unwrap();
    let end = line::sealed(&End { end: true, lines: 4 }).unwrap();
    lines.pop();
    lines.extend([&later[..], &end]);
    let (_dir, storage) = storage();
    storage.put(PATH, lines.concat()).unwrap();
    for _ in 0..2 {
        let index = Index::load(&storage, PATH, size()).unwrap();
        let (told, count) = index.problems();
        assert!(count == 1 && told[0].contains("does not know"), "{told:?}");
        index.save(&storage, PATH).unwrap();
    }
}

proptest! {
    #[test]
    fn any_bytes_are_loaded_without_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..400), at: usize, value: u8, path in "[0-9A-F/]{1,40}",
    ) {
        let mut damaged = line("a", "a").into_bytes();
        let at = at % damaged.len();
        damaged[at] = value;
        damaged.extend_from_slice(&bytes);
        // Another format in the first line is the only reason to refuse.
        match try_load(&String::from_utf8_lossy(&damaged)) {
            Ok(index) => prop_assert!(index.iter().count() <= 1),
            Err(error) => prop_assert_eq!(error.kind, ErrorKind::FormatTooNew),
        }
        let _ = digits_of(&path);
    }
}
