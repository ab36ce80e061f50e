use super::*;
use pg_ark_contract::{ErrorKind, Result, Timeline};
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
    assert_eq!((index.iter().count(), index.damaged()), (0, 0));
    index.insert(name(5), empty(5));
    index.insert(name(4), summary(4));
    // Segments of other folders have no place here.
    index.insert(SegmentName { timeline: Timeline(1), number: 260 }, summary(4));
    index.insert(SegmentName { timeline: Timeline(2), number: 4 }, summary(4));
    index.save(&storage, PATH).unwrap();
    let loaded = Index::load(&storage, PATH, size()).unwrap();
    assert_eq!(loaded.iter().map(|(number, _)| number).collect::<Vec<_>>(), [260, 261]);
    assert_eq!((loaded.get(260), loaded.get(261)), (Some(&summary(4)), Some(&empty(5))));
    assert_eq!((loaded.get(4), loaded.damaged()), (None, 0));
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
        r#"{"format":1}"#,
        concat!(
            r#"{"segment":"000000020000000100000004","commits":3,"first_time":"1999-12-31T23:59:59.999999Z","#,
            r#""last_time":"2026-08-30T00:00:00.123456Z","min_xid":7,"max_xid":9,"first_lsn":"1/4000028","#,
            r#""end_lsn":"1/4000030","whole":true,"#,
            r#""restore_points":[{"name":"a \"b\"�\n","lsn":"1/100","time":"2000-01-01T00:00:00.000005Z"}]}"#
        ),
        concat!(
            r#"{"segment":"000000020000000100000005","commits":0,"first_time":null,"last_time":null,"#,
            r#""min_xid":null,"max_xid":null,"first_lsn":null,"end_lsn":"1/5000000","whole":false,"#,
            r#""restore_points":[],"more_restore_points":true}"#
        ),
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
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
    assert_eq!((index.damaged(), index.iter().count()), (0, 1));
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
        assert_eq!((index.damaged(), index.iter().count()), (1, 0), "{part} -> {other}");
    }
}

#[test]
fn a_head_is_checked() {
    let good = line("a", "a");
    let (_dir, storage) = storage();
    storage.put(PATH, good.replace("\"format\":1", "\"format\":2").into_bytes()).unwrap();
    assert_eq!(Index::load(&storage, PATH, size()).unwrap_err().kind, ErrorKind::FormatTooNew);
    let index = load(&good.replace("{\"format\":1}", "{\"form"));
    assert_eq!((index.damaged(), index.iter().count()), (1, 1));
    assert_eq!(load("").damaged(), 0);
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
    assert!((10..256).contains(&loaded.iter().count()) && loaded.damaged() == 0);
    let file = std::fs::OpenOptions::new().write(true).open(dir.path().join(PATH)).unwrap();
    file.set_len(MAX_INDEX + 1).unwrap();
    assert_eq!(Index::load(&storage, PATH, size()).unwrap_err().kind, ErrorKind::Corrupt);
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
