//! Tests of storing one file.

use super::*;
use crate::wal::store_fixture::{Place, SIZE, name, segment as bytes_of, segment_with};
use pg_ark_contract::settings::Codec;

fn store_with(place: &Place, name: &str, compression: &str) -> Result<Outcome> {
    store(&place.archive(), &place.source(), name, compression.parse().unwrap())
}

#[track_caller]
fn refused(place: &Place, name: &str, kind: ErrorKind, part: &str) {
    let before = place.objects();
    let error = store_with(place, name, "zstd:1").unwrap_err();
    assert_eq!(error.kind, kind, "{error}");
    assert!(error.to_string().contains(part), "\"{part}\" expected: {error}");
    assert_eq!(place.objects(), before);
}

#[test]
fn what_is_stored_is_found_again() {
    for (compression, suffix) in [("zstd:1", "zst"), ("lz4", "lz4"), ("gzip:1", "gz"), ("none", "zst")] {
        let place = Place::new();
        let file = place.segment(4097);
        assert_eq!(file, "000000010000000100000001");
        let outcome = store_with(&place, &file, compression).unwrap();
        assert!(outcome.created);
        assert_eq!(outcome.summary.unwrap().commits, 1);
        let path = format!("main/7710990730298811747/wal/00000001/00000001/{file}.{suffix}");
        assert_eq!(place.objects(), [path.as_str(), "pgark.json"]);
        assert_eq!(place.stored(&file).unwrap(), bytes_of(4097, 1));
        let again = store_with(&place, &file, compression).unwrap();
        assert_eq!(again, Outcome::there());
    }
}

#[test]
fn every_kind_of_file_has_its_place() {
    let place = Place::new();
    let partial = format!("{}.partial", name(3));
    let backup = format!("{}.00000028.backup", name(2));
    place.put(&partial, &bytes_of(3, 1));
    place.put(&backup, b"START WAL LOCATION: 0/200028\n");
    place.put("00000002.history", b"1\t0/300000\tno recovery target specified\n");
    for file in [&partial, &backup, "00000002.history"] {
        let outcome = store_with(&place, file, "zstd:1").unwrap();
        assert!(outcome.created && outcome.summary.is_none(), "{file}");
        let again = store_with(&place, file, "zstd:1").unwrap();
        let read = std::fs::read(place.pg_wal().join(file)).unwrap();
        assert_eq!(outcome.file, Some(FileFacts::of(&read)));
        // What is known of it without encoding it is told again: its line in the index may have been lost.
        assert!(!again.created && again.file == outcome.file.filter(|_| *file != partial), "{file}");
    }
    let wal = "main/7710990730298811747/wal";
    let log = format!("{wal}/00000001/00000000");
    let expected =
        [format!("{log}/{backup}"), format!("{log}/{partial}.zst"), format!("{wal}/00000002.history")];
    assert_eq!(place.objects()[..3], expected);
    // A segment beside its partial predecessor is another file.
    place.put(&name(3), &bytes_of(3, 2));
    assert!(store_with(&place, &name(3), "zstd:1").unwrap().created);
}

#[test]
fn what_is_not_what_its_name_says_is_refused() {
    use ErrorKind::{Corrupt, ForeignCluster, InvalidArgument, WalMissing};
    let place = Place::new();
    let file = name(5);
    let put = |bytes: &[u8]| place.put(&file, bytes);
    refused(&place, &file, WalMissing, "is not there");
    put(&bytes_of(5, 1)[1..]);
    refused(&place, &file, Corrupt, "has 1048575 bytes");
    put(&[&bytes_of(5, 1)[..], b"x"].concat());
    refused(&place, &file, Corrupt, "has 1048577 bytes");
    put(b"");
    refused(&place, &file, Corrupt, "has 0 bytes");
    put(&vec![0; SIZE as usize]);
    refused(&place, &file, Corrupt, "0000 is not the magic number");
    put(&bytes_of(6, 1));
    refused(&place, &file, Corrupt, "its first page is the one of 0/600000, not 0/500000");
    put(&segment_with(5, |wal| wal.timeline = 2));
    refused(&place, &file, Corrupt, "its first page is of timeline 2");
    put(&segment_with(5, |wal| wal.magic = 0xD113));
    refused(&place, &file, Corrupt, "D113 is not that of PostgreSQL 15");
    let mut larger = bytes_of(5, 1);
    larger[32..36].copy_from_slice(&(16u32 << 20).to_le_bytes());
    put(&larger);
    refused(&place, &file, Corrupt, "it was made for segments of 16777216 bytes");
    let mut foreign = bytes_of(5, 1);
    foreign[24] ^= 1;
    put(&foreign);
    refused(&place, &file, ForeignCluster, "belongs to system identifier");
    for bad in ["pg_control", "../data", "", "00000001000000000000000a", "index.jsonl", "00000001.history.x"]
    {
        refused(&place, bad, InvalidArgument, "is not the name of a WAL file");
    }
    // The last part of a name counts segments of 1 MiB up to FFF.
    refused(&place, "000000010000000000001000", InvalidArgument, "of 1048576 bytes");
}

#[test]
fn history_files_that_are_none_are_refused() {
    let place = Place::new();
    for (content, part) in [
        (&b""[..], "no bytes"),
        (b"nonsense\n", "a line is not"),
        (b"7\t0/1\tx\n", "not older"),
        (&vec![b'#'; (MAX_HISTORY + 1) as usize], "more than 1048576 bytes"),
    ] {
        place.put("00000002.history", content);
        refused(&place, "00000002.history", ErrorKind::Corrupt, part);
    }
    let backup = format!("{}.00000028.backup", name(2));
    place.put(&backup, &vec![b'x'; (MAX_BACKUP_HISTORY + 1) as usize]);
    refused(&place, &backup, ErrorKind::Corrupt, "more than 65536 bytes");
}

#[test]
fn other_content_under_the_same_name_is_refused_and_says_where_timelines_part() {
    let place = Place::new();
    let file = place.segment(5);
    store_with(&place, &file, "zstd:1").unwrap();
    place.put("00000002.history", b"1\t0/500100\tno recovery target specified\n");
    store_with(&place, "00000002.history", "zstd:1").unwrap();
    place.put(&file, &bytes_of(5, 2));
    for compression in ["zstd:1", "lz4"] {
        let error = store_with(&place, &file, compression).unwrap_err();
        assert_eq!(error.kind, ErrorKind::WalConflict);
        // The transaction's number, 4 bytes into the record behind the long header.
        assert!(error.message.ends_with("it differs from byte 44, LSN 0/50002C on"), "{error}");
        let detail = error.detail.unwrap();
        assert!(detail.contains(&format!("{file}.zst\"")), "{detail}");
        assert!(detail.contains("Timeline 2 branched off timeline 1 at 0/500100"), "{detail}");
        assert!(error.hint.unwrap().contains("pg_ark.cluster"));
    }
    assert_eq!(place.stored(&file).unwrap(), bytes_of(5, 1), "what is stored stays");
    place.put("00000002.history", b"1\t0/600000\tno recovery target specified\n");
    refused(&place, "00000002.history", ErrorKind::WalConflict, "differs from byte 4 on");
    assert_eq!(place.objects().len(), 3);
}

#[test]
fn a_damaged_object_says_that_the_server_still_has_the_file() {
    let place = Place::new();
    let file = place.segment(5);
    store_with(&place, &file, "zstd:1").unwrap();
    let archive = place.archive();
    let path = archive.storage().folder().join(archive.find(&file).unwrap().unwrap().path);
    let whole = std::fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [&whole[..whole.len() - 1], &[], &flipped] {
        std::fs::write(&path, damaged).unwrap();
        let error = store_with(&place, &file, "zstd:1").unwrap_err();
        assert_eq!(error.kind, ErrorKind::Corrupt, "{error}");
        assert!(error.hint.unwrap().contains("Remove the damaged object"), "{}", error.message);
    }
    std::fs::remove_file(&path).unwrap();
    assert!(store_with(&place, &file, "zstd:1").unwrap().created);
    // More than a segment decodes, but is none.
    let more = [
        &whole[..],
        &object::encode(Compression::default(), &mut &b"x"[..], 1, "x", &mut |_| Ok(())).unwrap(),
    ];
    std::fs::write(&path, more.concat()).unwrap();
    refused(&place, &file, ErrorKind::WalConflict, "differs from byte 1048576");
}

#[test]
fn an_object_of_another_codec_counts_also_when_it_comes_late() {
    let place = Place::new();
    let (archive, source) = (place.archive(), place.source());
    let file = place.segment(7);
    let early = prepare(&archive, &source, &file, "lz4".parse().unwrap()).unwrap();
    store_with(&place, &file, "zstd:1").unwrap();
    assert!(!commit(&archive, early).unwrap().created);
    let early = prepare(&archive, &source, &name(7), Compression::default()).unwrap();
    assert!(matches!(early.work, Work::None));
    let found = archive.find(&file).unwrap().unwrap();
    assert_eq!((found.codec, place.objects().len()), (Codec::Zstd, 2));
}

#[test]
fn concurrent_creators_agree_or_conflict() {
    let place = Place::new();
    let file = place.segment(9);
    let other = Place::new();
    other.put(&file, &bytes_of(9, 2));
    let count = |results: &[Result<Outcome>]| {
        let created = results.iter().filter(|r| r.as_ref().is_ok_and(|o| o.created)).count();
        let conflicts =
            results.iter().filter(|r| r.as_ref().is_err_and(|e| e.kind == ErrorKind::WalConflict));
        (created, conflicts.count(), results.iter().filter(|r| r.is_ok()).count())
    };
    let archive = place.archive();
    let sources = [place.source(), place.source(), other.source(), other.source()];
    let results: Vec<_> = std::thread::scope(|scope| {
        let archive = &archive;
        let store = |source| scope.spawn(move || store(archive, source, &name(9), Compression::default()));
        let threads: Vec<_> = sources.iter().map(store).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(count(&results), (1, 2, 2), "{results:?}");
    let stored = place.stored(&file).unwrap();
    assert!(stored == bytes_of(9, 1) || stored == bytes_of(9, 2));
    assert_eq!(place.objects().len(), 2);
}

/// A segment that was prepared while the archive held nothing of its name.
fn prepared(place: &Place, source: &Source, name: &str, compression: &str) -> Box<NewSegment> {
    match prepare(&place.archive(), source, name, compression.parse().unwrap()).unwrap().work {
        Work::Segment(segment) => segment,
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_finds_other_content_under_another_codec_after_creating_takes_it_back() {
    let place = Place::new();
    let file = place.segment(9);
    let other = Place::new();
    other.put(&file, &bytes_of(9, 2));
    let archive = place.archive();
    let late = prepared(&place, &other.source(), &file, "lz4");
    let same = prepared(&place, &place.source(), &file, "gzip:1");
    store_with(&place, &file, "zstd:1").unwrap();
    let before = place.objects();
    // Both had looked before the first one created its object.
    let error = create_segment(&archive, &file, late).unwrap_err();
    assert_eq!(error.kind, ErrorKind::WalConflict, "{error}");
    assert_eq!(place.objects(), before, "the other's object is taken back, the first one stays");
    assert!(create_segment(&archive, &file, same).unwrap().created, "equal content may be there twice");
}

#[test]
fn every_copy_of_a_segment_must_be_equal() {
    let place = Place::new();
    let file = place.segment(9);
    store_with(&place, &file, "zstd:1").unwrap();
    let mut content = &bytes_of(9, 2)[..];
    let lz4: Compression = "lz4".parse().unwrap();
    let object = object::encode(lz4, &mut content, u64::from(SIZE), "x", &mut |_| Ok(())).unwrap();
    let path = place.archive().path(&file).unwrap();
    place.repository.storage().put(&format!("{path}.lz4"), object).unwrap();
    refused(&place, &file, ErrorKind::WalConflict, "differs from byte 44");
}

#[test]
fn servers_with_other_codecs_are_never_both_told_that_it_is_stored() {
    let other = Place::new();
    for round in 0..40 {
        let place = Place::new();
        let file = place.segment(9);
        other.put(&file, &bytes_of(9, 2));
        let archive = place.archive();
        let [ours, theirs] = [(place.source(), "zstd:1"), (other.source(), "lz4")]
            .map(|(source, codec)| prepare(&archive, &source, &file, codec.parse().unwrap()).unwrap());
        let start = std::sync::Barrier::new(2);
        let go = |prepared| {
            start.wait();
            commit(&archive, prepared).is_ok()
        };
        let told = std::thread::scope(|scope| {
            let first = scope.spawn(|| go(ours));
            let second = go(theirs);
            [first.join().unwrap(), second]
        });
        assert_ne!(told, [true, true], "round {round}");
        let copies = archive.copies(&file).unwrap().len();
        assert_eq!(copies, told.iter().filter(|told| **told).count(), "round {round}");
    }
}

#[test]
fn a_link_that_leads_nowhere_is_no_conflict() {
    let place = Place::new();
    let archive = place.archive();
    place.put("00000002.history", b"1\t0/300000\tno recovery target specified\n");
    let path = archive.storage().folder().join(archive.path("00000002.history").unwrap());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("nowhere", &path).unwrap();
    refused(&place, "00000002.history", ErrorKind::Io, "could not follow the link");
    let file = place.segment(3);
    let path = archive.storage().folder().join(format!("{}.zst", archive.path(&file).unwrap()));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("nowhere", &path).unwrap();
    refused(&place, &file, ErrorKind::Io, "could not follow the link");
}

#[test]
fn a_store_that_fails_is_tried_again() {
    let place = Place::new();
    let (archive, source, file) = (place.archive(), place.source(), place.segment(5));
    let root = place.repository.storage().folder().join("main");
    std::fs::write(&root, b"a file where a folder should be").unwrap();
    let error = store(&archive, &source, &file, Compression::default()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Io, "{error:?}");
    std::fs::remove_file(&root).unwrap();
    assert!(store(&archive, &source, &file, Compression::default()).unwrap().created);
}
