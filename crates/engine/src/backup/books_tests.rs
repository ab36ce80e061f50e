use super::super::archive::ArchiveWriter;
use super::super::copy::Copier;
use super::super::progress::Progress;
use super::super::read::ReadRules;
use super::super::walk::{Root, Walk};
use super::*;
use crate::postgres::page::{PageCheck, checksum};
use crate::repository::record::ArchiveContent;
use crate::repository::storage::Storage;
use pg_ark_contract::settings::{Codec, Compression};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

const PAGE: usize = 8192;
/// Where the backup starts.
const START: u64 = 0x0300_0028;
/// Small, so that the blocks of later segments are easy to count.
const SEGMENT_BLOCKS: u32 = 4;

/// A page with this LSN and the checksum that belongs to it.
fn page(block: u32, lsn: u64) -> Vec<u8> {
    let mut page: Vec<u8> = (0..PAGE).map(|i| (i * 7 + block as usize) as u8).collect();
    page[..4].copy_from_slice(&((lsn >> 32) as u32).to_le_bytes());
    page[4..8].copy_from_slice(&(lsn as u32).to_le_bytes());
    page[14..16].copy_from_slice(&[0, 32]);
    let sum = checksum(&page, block);
    page[8..10].copy_from_slice(&sum.to_le_bytes());
    page
}

/// A file with `count` pages from `first` on, of which `bad` fail.
fn pages(first: u32, count: u32, bad: &[u32]) -> Vec<u8> {
    let all = (first..first + count).flat_map(|block| {
        let mut page = page(block, START - 1);
        page[5000] ^= u8::from(bad.contains(&block));
        page
    });
    all.collect()
}

/// Backs these files up; returns the books, the events and the warnings.
fn back_up(files: &BTreeMap<String, Vec<u8>>) -> (Books, Vec<Event>, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    for (path, content) in files {
        let path = data.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let storage = Storage::open(&format!("file://{}/repo", dir.path().display())).unwrap();
    let events = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&events);
    let session = Session::new(move |event| sink.lock().unwrap().push(event));
    let rules = ReadRules {
        pages: Some(PageCheck { block_size: PAGE as u32, start_lsn: Lsn(START) }),
        block_size: PAGE as u32,
        relation_segment_blocks: SEGMENT_BLOCKS,
        checksum: Checksum::Crc32c,
    };
    let progress = Progress::new(&session, 0, 1, 0);
    let copier = Copier {
        jobs: 3,
        compression: Compression::default(),
        rules,
        session: &session,
        progress: &progress,
    };
    let archive =
        ArchiveWriter::new(&storage, "b", "base", ArchiveContent::Base, Codec::Zstd, 1 << 40).unwrap();
    let books = Books::new(storage.upload("b/m").unwrap(), 15, 1, Checksum::Crc32c).unwrap();
    let root = Root { disk: data, logical: String::new(), only: None, links: Vec::new(), server_major: 15 };
    let (_, books) = copier.copy(Walk::new(root, None).unwrap(), archive, books).unwrap();
    let damaged = |event: &Event| matches!(event, Event::FileDamaged { .. });
    let events = events.lock().unwrap().iter().filter(|event| damaged(event)).cloned().collect();
    (books, events, session.warnings())
}

fn files<const N: usize>(files: [(&str, Vec<u8>); N]) -> BTreeMap<String, Vec<u8>> {
    files.into_iter().map(|(path, content)| (path.to_string(), content)).collect()
}

/// Path, blocks and number of all, by path.
fn summary(books: &Books) -> Vec<(&str, &[u32], u64)> {
    let mut rows: Vec<_> =
        books.damage.iter().map(|d| (&d.path[..], &d.blocks[..], d.damaged_pages)).collect();
    rows.sort();
    rows
}

#[test]
fn damage_is_counted_in_every_fork_and_segment() {
    let (books, events, warnings) = back_up(&files([
        ("base/5/16384", pages(0, 4, &[2])),
        ("base/5/16384.1", pages(4, 4, &[4, 7])),
        ("base/5/16384.2", pages(8, 1, &[8])),
        ("base/5/16384_fsm", pages(0, 3, &[0])),
        ("base/5/16384_vm", pages(0, 1, &[0])),
        ("base/5/16390_init", pages(0, 1, &[0])),
        ("global/1262", pages(0, 2, &[1])),
        ("pg_tblspc/16400/PG_15_202209061/5/16401", pages(0, 2, &[1])),
        ("base/5/16402", pages(0, 300, &[])),
        ("base/5/PG_VERSION", pages(0, 1, &[0])),
        ("pg_xact/0000", pages(0, 1, &[0])),
    ]));
    assert_eq!(
        summary(&books),
        [
            ("base/5/16384", &[2][..], 1),
            ("base/5/16384.1", &[4, 7], 2),
            ("base/5/16384.2", &[8], 1),
            ("base/5/16384_fsm", &[0], 1),
            ("base/5/16384_vm", &[0], 1),
            ("base/5/16390_init", &[0], 1),
            ("global/1262", &[1], 1),
            ("pg_tblspc/16400/PG_15_202209061/5/16401", &[1], 1),
        ]
    );
    assert_eq!((books.damaged_pages, events.len(), warnings.len()), (9, 8, 0));
}

#[test]
fn many_blocks_of_a_file_that_goes_through_several_frames_are_counted() {
    let bad: Vec<u32> = (0..1000).step_by(5).collect();
    let (books, events, _) = back_up(&files([("base/5/16384", pages(0, 1000, &bad))]));
    assert_eq!(summary(&books), [("base/5/16384", &bad[..100], 200)]);
    let Event::FileDamaged { path, blocks, damaged_pages: 200, .. } = &events[0] else {
        panic!("{events:?}")
    };
    assert_eq!((&path[..], &blocks[..]), ("base/5/16384", &bad[..100]));
}

#[test]
fn more_files_than_are_remembered_are_counted() {
    let bad = pages(0, 1, &[0]);
    let all = (0..1003).map(|n| (format!("base/5/{}", 20_000 + n), bad.clone())).collect();
    let (books, events, warnings) = back_up(&all);
    assert_eq!((books.damage.len(), books.damaged_pages, events.len()), (1000, 1003, 1003));
    assert_eq!(warnings, ["more than 1000 files have damaged pages: the record names the first"]);
}

#[test]
fn new_pages_and_pages_that_wal_repairs_are_no_damage() {
    let mut content = page(0, START - 1);
    content.extend([0; PAGE]);
    let mut new = page(2, START - 1);
    new[14..16].fill(0);
    new[5000] ^= 1;
    content.extend(new);
    let mut changed = page(3, START);
    changed[5000] ^= 1;
    content.extend(changed);
    content.extend([0; PAGE]);
    let (books, events, warnings) = back_up(&files([("base/5/16384", content.clone())]));
    assert_eq!((books.damaged_pages, events, warnings), (0, vec![], vec![]));
    // Rubbish is damage, whatever it says of its LSN.
    content[4 * PAGE..].fill(0xA5);
    content[0..8].fill(0xFF);
    let (books, ..) = back_up(&files([("base/5/16384", content)]));
    assert_eq!(summary(&books), [("base/5/16384", &[0, 4][..], 2)]);
}

#[test]
fn a_relation_that_ends_within_a_page_is_a_warning() {
    let cut = |count, rest| {
        let mut content = pages(0, count, &[1]);
        content.extend(vec![1; rest]);
        content
    };
    let (books, _, mut warnings) = back_up(&files([
        ("base/5/16384", cut(2, 100)),
        ("base/5/16385", cut(500, 8191)),
        ("base/5/16386", cut(1, 0)),
        ("base/5/pg_filenode.map", cut(0, 512)),
    ]));
    assert_eq!(books.damaged_pages, 2, "whole pages are judged as ever");
    warnings.sort();
    assert_eq!(
        warnings,
        [
            "file \"base/5/16384\" ends within a page: it has 16484 bytes",
            "file \"base/5/16385\" ends within a page: it has 4104191 bytes",
        ]
    );
}
