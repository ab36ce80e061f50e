use super::scan::MAX_ROWS;
use super::*;
use crate::postgres::heap_tuple::Outcome;
use crate::repository::record::{ArchiveContent, ArchiveRecord, ObjectRecord, Record};
use crate::repository::storage::Storage;
use proptest::prelude::*;
use std::collections::HashMap;

const PAGE: usize = 8192;

/// Files by path.
#[derive(Default)]
struct Files {
    files: HashMap<String, Vec<u8>>,
    reads: usize,
}

impl Source for Files {
    fn read(&mut self, path: &str, offset: u64, len: usize) -> Option<Vec<u8>> {
        self.reads += 1;
        let content = self.files.get(path)?;
        let from = content.len().min(offset as usize);
        Some(content[from..content.len().min(from + len)].to_vec())
    }
}

fn layout() -> Layout {
    Layout {
        server_major: 15,
        block_size: PAGE as u32,
        relation_segment_blocks: 4,
        version_folder: "PG_15_202209061".into(),
    }
}

/// A namer for these files that knows the layout.
fn namer(files: Files, databases: &[(u32, &str, u32)]) -> Namer<Files> {
    let row = |(oid, name, tablespace): &(u32, &str, u32)| {
        let row =
            DatabaseRow { oid: *oid, name: name.as_bytes().into(), encoding: 6, tablespace: *tablespace };
        (*oid, row)
    };
    let shared = Shared {
        layout: layout(),
        map: None,
        databases: databases.iter().map(row).collect(),
        transactions: Transactions::new(PAGE as u32),
    };
    Namer { source: files, shared: Some(Some(shared)), databases: VecDeque::new() }
}

/// What a row's header says: xmin, xmax, t_infomask.
type Header = (u32, u32, u16);

/// A row of pg_class.
#[derive(Clone, Copy)]
struct Row<'a> {
    header: Header,
    oid: u32,
    name: &'a str,
    file: u32,
    toast: u32,
    kind: u8,
}

const FROZEN: u16 = 0x0300 | 0x0800;

fn row(oid: u32, name: &str) -> Row<'_> {
    Row { header: (3, 0, FROZEN), oid, name, file: oid, toast: 0, kind: b'r' }
}

fn data(row: &Row<'_>) -> Vec<u8> {
    let mut data = vec![0; 144];
    let mut put = |at: usize, bytes: &[u8]| data[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &row.oid.to_le_bytes());
    put(4, row.name.as_bytes());
    put(68, &2200u32.to_le_bytes());
    put(88, &row.file.to_le_bytes());
    put(108, &row.toast.to_le_bytes());
    put(115, &[row.kind]);
    data
}

/// A page with these rows.
fn page(rows: &[(Header, Vec<u8>)]) -> Vec<u8> {
    let mut page = vec![0; PAGE];
    let mut end = PAGE;
    for (n, ((xmin, xmax, mask), data)) in rows.iter().enumerate() {
        let len = 24 + data.len();
        end -= len;
        page[end..end + 4].copy_from_slice(&xmin.to_le_bytes());
        page[end + 4..end + 8].copy_from_slice(&xmax.to_le_bytes());
        page[end + 20..end + 22].copy_from_slice(&mask.to_le_bytes());
        page[end + 22] = 24;
        page[end + 24..end + len].copy_from_slice(data);
        let pointer = end as u32 | 1 << 15 | (len as u32) << 17;
        page[24 + 4 * n..28 + 4 * n].copy_from_slice(&pointer.to_le_bytes());
    }
    page[12..14].copy_from_slice(&(24 + 4 * rows.len() as u16).to_le_bytes());
    page
}

fn class(rows: &[Row<'_>]) -> Vec<u8> {
    page(&rows.iter().map(|row| (row.header, data(row))).collect::<Vec<_>>())
}

fn namespaces() -> Vec<u8> {
    page(&[((3, 0, FROZEN), data(&Row { oid: 2200, ..row(0, "public") }))])
}

/// Files of one database in `base/5`.
fn database(pages: Vec<u8>) -> Files {
    let files = [("base/5/1259", pages), ("base/5/2615", namespaces())];
    Files { files: files.map(|(path, content)| (path.to_string(), content)).into(), reads: 0 }
}

fn named(namer: &mut Namer<Files>, file: u32) -> String {
    namer.name(&format!("base/5/{file}")).map_or_else(String::new, |named| named.to_string())
}

#[test]
fn of_several_versions_of_a_row_the_one_that_counts_names_the_file() {
    let version = |name, header| Row { header, ..row(16384, name) };
    let dead = version("dropped", (100, 200, 0x0100 | 0x0400));
    let live = version("now", (200, 0, 0x0100 | 0x0800));
    let aborted = version("never", (300, 0, 0x0200 | 0x0800));
    let running = version("perhaps", (400, 0, 0x0800));
    let [later, sooner] = [500, 450].map(|xid| version(if xid == 500 { "b" } else { "a" }, (xid, 0, 0x0800)));
    for (rows, expected) in [
        (vec![dead, live, aborted, running], "public.now in database db"),
        (vec![running, aborted, live, dead], "public.now in database db"),
        (vec![dead, running], "public.perhaps in database db"),
        (vec![later, sooner], "public.b in database db"),
        (vec![sooner, later], "public.b in database db"),
        (vec![dead], "public.dropped in database db"),
        (vec![], "database db"),
    ] {
        assert_eq!(named(&mut namer(database(class(&rows)), &[(5, "db", 1663)]), 16384), expected);
    }
}

#[test]
fn pg_xact_tells_what_the_rows_do_not() {
    // Transaction 101 committed, 102 was rolled back.
    let mut status = vec![0; PAGE];
    status[25] = 0b0010_0100;
    let renamed = |end| {
        let rows = [
            Row { header: (3, end, 0x0300), ..row(16384, "before") },
            Row { header: (end, 0, 0x0800), ..row(16384, "after") },
        ];
        let mut files = database(class(&rows));
        files.files.insert("pg_xact/0000".into(), status.clone());
        named(&mut namer(files, &[(5, "db", 1663)]), 16384)
    };
    assert_eq!(renamed(101), "public.after in database db");
    assert_eq!(renamed(102), "public.before in database db");
}

#[test]
fn catalogs_of_several_segments_and_tablespaces_are_read() {
    let mut pages: Vec<u8> = (0..4u32).flat_map(|n| class(&[row(20_000 + n, "first")])).collect();
    let second = class(&[
        Row { toast: 30_001, ..row(30_000, "Last") },
        Row { kind: b't', ..row(30_001, "pg_toast_30000") },
        Row { kind: b't', ..row(30_002, "pg_toast_1") },
    ]);
    let mut files = database(pages.clone());
    files.files.insert("base/5/1259.1".into(), second.clone());
    let mut all = namer(files, &[(5, "db", 1663)]);
    assert_eq!(named(&mut all, 20_003), "public.first in database db");
    assert_eq!(named(&mut all, 30_001), "toast table of public.\"Last\" in database db");
    assert_eq!(named(&mut all, 30_002), "public.pg_toast_1 in database db", "nobody owns it");

    pages.extend(second);
    let folder = "pg_tblspc/16400/PG_15_202209061/5";
    let files =
        [(format!("{folder}/1259"), pages[..PAGE].to_vec()), (format!("{folder}/2615"), namespaces())];
    let mut away = namer(Files { files: files.into(), reads: 0 }, &[(5, "a b", 16400)]);
    let name = |namer: &mut Namer<Files>, path: &str| namer.name(path).map(|named| named.to_string());
    assert_eq!(
        name(&mut away, &format!("{folder}/20000")).as_deref(),
        Some("public.first in database \"a b\"")
    );
    assert_eq!(name(&mut away, "base/5/20000").as_deref(), Some("database \"a b\""));
}

#[test]
fn memory_and_work_have_bounds() {
    // A database is read once, and few are remembered.
    let mut files = Files::default();
    for oid in 5..15u32 {
        files.files.insert(format!("base/{oid}/1259"), class(&[row(16384, "t")]));
    }
    let mut many = namer(files, &[]);
    for oid in 5..15u32 {
        for _ in 0..100 {
            let name = many.name(&format!("base/{oid}/16384")).unwrap();
            assert_eq!(name, Named { relation: Some("t".into()), database: None });
        }
        assert!(many.databases.len() <= MAX_DATABASES);
    }
    assert!(many.source.reads < 100, "{}", many.source.reads);

    // Rows that ask for every transaction there is.
    let mut transactions = Transactions::new(PAGE as u32);
    let mut source = Files::default();
    for n in 0..10_000u32 {
        assert_eq!(transactions.outcome(&mut source, n.wrapping_mul(400_009) | 4), Outcome::Unknown);
    }
    assert!(source.reads <= 1000, "{}", source.reads);
    assert_eq!(MAX_ROWS, 1 << 20);
}

/// A backup whose index says `lines` of its one frame, which holds `tar`.
fn stored(dir: &tempfile::TempDir, tar: &[u8], lines: &str) -> (Storage, Record) {
    let storage = Storage::open(&format!("file://{}", dir.path().display())).unwrap();
    let put = |name: &str, bytes: &[u8]| {
        storage.put(&format!("b/{name}"), bytes.to_vec()).unwrap();
        let crc32c = format!("{:08x}", crc32c::crc32c(bytes));
        ObjectRecord { name: name.into(), size: bytes.len() as u64, crc32c }
    };
    let volume = put("base.tar", tar);
    let (len, crc) = (tar.len(), &volume.crc32c);
    let frame = format!(r#"{{"frame":0,"volume":0,"offset":0,"stored":{len},"raw":{len},"crc32c":"{crc}"}}"#);
    let index = put("base.tar.index", format!("{frame}\n{lines}{{\"end\":true,\"frames\":1}}\n").as_bytes());
    let mut record = Record::begun("b".into(), "main", 1);
    record.compression = "none".parse().unwrap();
    record.archives.push(ArchiveRecord {
        name: "base.tar".into(),
        content: ArchiveContent::Base,
        volumes: vec![volume],
        frames: 1,
        tar_bytes: len as u64,
        index: Some(index),
    });
    (storage, record)
}

#[test]
fn an_index_that_lies_gives_no_content_and_no_trouble() {
    let dir = tempfile::tempdir().unwrap();
    let read = |line: &str, path: &str, offset: u64, len: usize| {
        let (storage, record) = stored(&dir, b"0123456789", line);
        StoredBackup::new(&storage, "b", &record).read(path, offset, len)
    };
    let line = |frame: u64, at: u64, size: u64| {
        format!("{{\"file\":\"f\",\"frame\":{frame},\"at\":{at},\"size\":{size}}}\n")
    };
    assert_eq!(read(&line(0, 2, 5), "f", 1, 100).as_deref(), Some(&b"3456"[..]));
    assert_eq!(read(&line(0, 2, 5), "f", 1, 2).as_deref(), Some(&b"34"[..]));
    assert_eq!(read(&line(0, 2, 5), "f", 9, 2).as_deref(), Some(&b""[..]));
    assert_eq!(read(&line(0, 2, 5), "other", 0, 2), None);
    for (frame, at, size) in
        [(0, 8, 5), (0, 10, 1), (0, u64::MAX, 5), (1, 0, 5), (u64::MAX, 0, 5), (0, 0, u64::MAX)]
    {
        assert_eq!(read(&line(frame, at, size), "f", 0, 1 << 20), None, "{frame} {at} {size}");
    }
    assert_eq!(read(&line(0, 0, 5), "f", u64::MAX, 1).as_deref(), Some(&b""[..]));
    let long = format!("{{\"file\":\"{}\"}}\n", "x".repeat(70_000));
    assert_eq!(read(&(long + &line(0, 2, 5)), "f", 0, 5), None);
    // What the frame holds is not what the index says of it.
    let (storage, record) = stored(&dir, b"0123456789", &line(0, 2, 5));
    storage.put("b/base.tar", b"0123456788".to_vec()).unwrap();
    assert_eq!(StoredBackup::new(&storage, "b", &record).read("f", 0, 5), None);
}

proptest! {
    #[test]
    fn damaged_catalogs_never_panic(
        places in proptest::collection::vec((0usize..2 * PAGE, any::<u8>()), 0..60),
        random in proptest::collection::vec(any::<u8>(), 0..PAGE),
    ) {
        let mut pages = class(&[Row { toast: 3, ..row(16384, "t") }, row(2615, "pg_namespace")]);
        pages.extend(random);
        for (at, byte) in places {
            if let Some(place) = pages.get_mut(at) {
                *place = byte;
            }
        }
        let mut files = database(pages.clone());
        files.files.insert("base/5/2615".into(), pages.clone());
        files.files.insert("global/1262".into(), pages);
        let mut namer = namer(files, &[(5, "db", 1663)]);
        for path in ["base/5/16384", "base/5/1", "global/1262", "pg_tblspc/9/PG_15_202209061/5/1"] {
            let _ = namer.name(path);
        }
    }
}
