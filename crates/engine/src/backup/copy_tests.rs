use super::super::begin::system_of;
use super::super::member;
use super::super::plan::{Item, Planner};
use super::super::walk::{Root, Walk};
use super::*;
use crate::codec::frame::{self, FRAME_SIZE};
use crate::repository::record::{ArchiveContent, ArchiveRecord};
use crate::repository::storage::Storage;
use pg_ark_contract::settings::{Checksum, Codec};
use pg_ark_contract::{Lsn, Timeline};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

const FOLDER: &str = "main/1/backups/20261122T020000Z-full";

struct Fixture {
    _dir: tempfile::TempDir,
    data: std::path::PathBuf,
    storage: Storage,
    session: Session,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    for folder in ["base/5", "global", "pg_wal", "pg_tblspc"] {
        std::fs::create_dir_all(data.join(folder)).unwrap();
    }
    let storage = Storage::open(&format!("file://{}/repo", dir.path().display())).unwrap();
    Fixture { _dir: dir, data, storage, session: Session::new(|_| {}) }
}

fn root(data: &Path) -> Root {
    Root { disk: data.to_path_buf(), logical: String::new(), only: None, links: Vec::new(), server_major: 15 }
}

fn rules(checksum: Checksum) -> ReadRules {
    ReadRules { pages: None, block_size: 8192, relation_segment_blocks: 131_072, checksum }
}

/// Copies the fixture's data directory and returns the archive's record and the manifest's text.
fn copy(
    fixture: &Fixture,
    compression: Compression,
    checksum: Checksum,
    volume_size: u64,
) -> (ArchiveRecord, String) {
    let session = &fixture.session;
    let progress = Progress::new(session, 0, 1, 0);
    let copier = Copier { jobs: 3, compression, rules: rules(checksum), session, progress: &progress };
    let codec = compression.codec;
    let archive =
        ArchiveWriter::new(&fixture.storage, FOLDER, "base", ArchiveContent::Base, codec, volume_size)
            .unwrap();
    let upload = fixture.storage.upload(&format!("{FOLDER}/backup_manifest")).unwrap();
    let books = Books::new(upload, 15, 1, checksum).unwrap();
    let walk = Walk::new(root(&fixture.data), Some(session)).unwrap();
    let (archive, books) = copier.copy(walk, archive, books).unwrap();
    let writer = super::super::serial::SerialWriter::new(archive, compression, session).unwrap();
    let record = writer.end().unwrap().finish().unwrap();
    books.close(Timeline(1), Lsn(1), Lsn(2)).unwrap().finish().unwrap();
    let manifest = fixture.storage.get(&format!("{FOLDER}/backup_manifest"), 1 << 30).unwrap().unwrap();
    (record, String::from_utf8(manifest).unwrap())
}

/// Reads the archive as a stranger would: volumes concatenated, decoded as one stream, read by the tar crate.
fn unpack(fixture: &Fixture, record: &ArchiveRecord, codec: Codec) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut stored = Vec::new();
    for volume in &record.volumes {
        let bytes = fixture.storage.get(&format!("{FOLDER}/{}", volume.name), 1 << 30).unwrap().unwrap();
        assert_eq!(bytes.len() as u64, volume.size);
        assert_eq!(format!("{:08x}", crc32c::crc32c(&bytes)), volume.crc32c);
        stored.extend(bytes);
    }
    let mut tar = Vec::new();
    frame::stream(codec, &stored[..]).unwrap().read_to_end(&mut tar).unwrap();
    assert_eq!(tar.len() as u64, record.tar_bytes);
    assert_eq!(tar.len() % member::BLOCK, 0);
    let mut files = BTreeMap::new();
    let mut archive = tar::Archive::new(&tar[..]);
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.header().entry_type().is_file() {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            assert!(files.insert(entry.path_bytes().into_owned(), content).is_none());
        }
    }
    files
}

/// The index covers every volume without gap or overlap, and its frames decode alone.
fn check_index(fixture: &Fixture, record: &ArchiveRecord, codec: Codec) {
    let name = &record.index.as_ref().unwrap().name;
    let text = fixture.storage.get(&format!("{FOLDER}/{name}"), 1 << 30).unwrap().unwrap();
    let lines: Vec<serde_json::Value> = text
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect();
    assert_eq!(lines[0]["archive"], record.name.as_str());
    assert_eq!(lines.last().unwrap()["frames"], record.frames);
    let mut ends = vec![0; record.volumes.len()];
    for line in lines.iter().filter(|l| l.get("offset").is_some()) {
        let volume = line["volume"].as_u64().unwrap() as usize;
        assert_eq!(line["offset"].as_u64().unwrap(), ends[volume]);
        let stored = line["stored"].as_u64().unwrap();
        let path = format!("{FOLDER}/{}", record.volumes[volume].name);
        let bytes = fixture.storage.get_range(&path, ends[volume], stored as usize).unwrap();
        assert_eq!(format!("{:08x}", crc32c::crc32c(&bytes)), line["crc32c"]);
        let raw = line["raw"].as_u64().unwrap() as usize;
        frame::decode(codec, &bytes, raw, &mut Vec::new()).unwrap();
        ends[volume] += stored;
    }
    let sizes: Vec<u64> = record.volumes.iter().map(|v| v.size).collect();
    assert_eq!(ends, sizes);
}

fn content(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| ((i * 31 + seed * 7) % 241) as u8 ^ (i >> 9) as u8).collect()
}

#[test]
fn every_codec_and_checksum_gives_back_what_was_read() {
    let fixture = fixture();
    let long = format!("base/5/{}", "n".repeat(150));
    let mut expected = BTreeMap::new();
    for (seed, (path, len)) in [
        ("PG_VERSION", 3),
        ("base/5/1259", 8192),
        ("base/5/16384", 3 * FRAME_SIZE + 8192),
        ("base/5/16385", 2 * FRAME_SIZE),
        ("base/5/empty", 0),
        (long.as_str(), 700),
        ("größe 1/ä b", 5),
    ]
    .into_iter()
    .enumerate()
    {
        let bytes = content(seed, len);
        let disk = fixture.data.join(path);
        std::fs::create_dir_all(disk.parent().unwrap()).unwrap();
        std::fs::write(disk, &bytes).unwrap();
        expected.insert(path.as_bytes().to_vec(), bytes);
    }
    std::fs::write(fixture.data.join("postmaster.pid"), b"1").unwrap();
    std::fs::write(fixture.data.join("pg_wal/000000010000000000000001"), b"1").unwrap();
    for text in ["zstd:1", "gzip:1", "lz4", "none"] {
        let compression: Compression = text.parse().unwrap();
        for checksum in [Checksum::Crc32c, Checksum::Sha256] {
            let (record, manifest) = copy(&fixture, compression, checksum, 1 << 40);
            assert!(unpack(&fixture, &record, compression.codec) == expected, "{text}");
            check_index(&fixture, &record, compression.codec);
            let algorithm = if checksum == Checksum::Sha256 { "SHA256" } else { "CRC32C" };
            assert_eq!(manifest.matches(algorithm).count(), expected.len(), "{text}");
        }
    }
}

#[test]
fn volumes_are_cut_between_frames() {
    let fixture = fixture();
    let bytes = content(1, 5 * FRAME_SIZE);
    std::fs::write(fixture.data.join("base/5/16384"), &bytes).unwrap();
    let none: Compression = "none".parse().unwrap();
    let volume_size = 2 * FRAME_SIZE as u64 + 4096;
    let (record, _) = copy(&fixture, none, Checksum::Crc32c, volume_size);
    assert_eq!(record.volumes.len(), 3);
    assert_eq!(record.volumes[1].name, "base.tar.0001");
    assert!(record.volumes.iter().all(|v| v.size <= volume_size));
    assert_eq!(unpack(&fixture, &record, Codec::None)[&b"base/5/16384"[..]], bytes);
    check_index(&fixture, &record, Codec::None);
}

/// Plans everything, lets `meanwhile` change the files, then fills; returns the members.
fn change_between(fixture: &Fixture, meanwhile: impl FnOnce()) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let walk = Walk::new(root(&fixture.data), None).unwrap();
    let mut planner = Planner::new(walk, 0);
    let mut plans = Vec::new();
    while let Some(plan) = planner.next_frame().unwrap() {
        plans.push(plan);
    }
    meanwhile();
    let progress = Progress::new(&fixture.session, 0, 1, 0);
    let mut filler = Filler::new(rules(Checksum::Crc32c), &progress);
    let mut tar = Vec::new();
    for plan in &plans {
        filler.fill(plan).unwrap();
        tar.extend_from_slice(filler.bytes());
    }
    let mut archive = tar::Archive::new(&tar[..]);
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        if entry.header().entry_type().is_file() {
            files.insert(entry.path_bytes().into_owned(), bytes);
        }
    }
    files
}

#[test]
fn files_that_change_while_they_are_read() {
    let fixture = fixture();
    let path = |name: &str| fixture.data.join("base/5").join(name);
    let large = content(1, FRAME_SIZE + 100_000);
    for name in ["1_vanishes", "3_shrinks", "5_grows"] {
        std::fs::write(path(name), &large).unwrap();
        std::fs::write(path(&format!("{name}_small")), &large[..50_000]).unwrap();
    }
    let files = change_between(&fixture, || {
        for name in ["1_vanishes", "1_vanishes_small"] {
            std::fs::remove_file(path(name)).unwrap();
        }
        for name in ["3_shrinks", "3_shrinks_small"] {
            std::fs::OpenOptions::new().write(true).open(path(name)).unwrap().set_len(8192).unwrap();
        }
        for name in ["5_grows", "5_grows_small"] {
            let mut longer = large.clone();
            longer.extend_from_slice(&large);
            std::fs::write(path(name), longer).unwrap();
        }
    });
    let get = |name: &str| files.get(format!("base/5/{name}").as_bytes());
    // An open file is read to its end though its name is gone; one that was not open yet is left out.
    assert_eq!(get("1_vanishes").unwrap(), &large);
    assert!(get("1_vanishes_small").is_none());
    let mut padded = large[..8192].to_vec();
    padded.resize(large.len(), 0);
    assert_eq!(get("3_shrinks").unwrap(), &padded);
    assert_eq!(get("3_shrinks_small").unwrap(), &large[..8192]);
    assert_eq!(get("5_grows").unwrap(), &large);
    let grown = get("5_grows_small").unwrap();
    assert!(grown.len() >= 50_000 && large.repeat(2).starts_with(grown));
}

#[test]
fn an_order_to_stop_ends_the_copy() {
    let fixture = fixture();
    std::fs::write(fixture.data.join("base/5/16384"), content(1, 5 * FRAME_SIZE)).unwrap();
    let session = &fixture.session;
    session.stop(Error::new(ErrorKind::Cancelled, "enough"));
    let progress = Progress::new(session, 0, 1, 0);
    let compression = Compression::default();
    let copier =
        Copier { jobs: 2, compression, rules: rules(Checksum::Crc32c), session, progress: &progress };
    let archive =
        ArchiveWriter::new(&fixture.storage, FOLDER, "base", ArchiveContent::Base, Codec::Zstd, 1 << 40)
            .unwrap();
    let books = Books::new(fixture.storage.upload("m").unwrap(), 15, 1, Checksum::Crc32c).unwrap();
    let walk = Walk::new(root(&fixture.data), None).unwrap();
    let error = copier.copy(walk, archive, books).err().unwrap();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Cancelled, "enough"));
    assert!(fixture.storage.list("").unwrap().is_empty());
}

#[test]
fn a_system_identifier_that_is_none_is_damage() {
    let mut record: crate::repository::Record = serde_json::from_value(serde_json::json!({
        "format": 1, "backup": "b", "kind": "full", "status": "running", "started_at": "", "written_by": "",
        "cluster": "main", "system_identifier": "7", "server_version_num": 150000, "server_version": "15",
        "wal_segment_size": 16_777_216, "block_size": 8192, "data_checksums": true,
        "compression": {"codec": "zstd", "level": 1}, "checksum": "crc32c",
        "data_directory": {"path": "/d", "mode": 448, "uid": 0, "gid": 0, "wal_link": null}, "later": 1
    }))
    .unwrap();
    assert_eq!(record.other["later"], 1);
    assert_eq!(system_of(&record).unwrap(), 7);
    record.system_identifier = "../7".into();
    assert_eq!(system_of(&record).unwrap_err().kind, ErrorKind::Corrupt);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn plans_hold_every_byte_once(sizes in proptest::collection::vec(0..3 * FRAME_SIZE as u64, 0..30)) {
        let fixture = fixture();
        for (i, size) in sizes.iter().enumerate() {
            let file = std::fs::File::create(fixture.data.join(format!("base/5/{}", 20_000 + i))).unwrap();
            file.set_len(*size).unwrap();
        }
        let mut planner = Planner::new(Walk::new(root(&fixture.data), None).unwrap(), 7);
        let mut number = 7;
        let mut seen: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        while let Some(plan) = planner.next_frame().unwrap() {
            prop_assert_eq!(plan.number, number);
            number += 1;
            prop_assert!(plan.data_bytes <= FRAME_SIZE as u64);
            for item in plan.items {
                match item {
                    Item::Header(_) => {}
                    Item::Whole(file) => prop_assert!(seen.insert(file.member, file.size).is_none()),
                    Item::Piece(piece) => {
                        let sum = seen.entry(piece.file.source.member.clone()).or_default();
                        prop_assert_eq!(*sum, piece.offset);
                        *sum += piece.len as u64;
                        prop_assert!(piece.len % 8192 == 0 || *sum == piece.file.size);
                    }
                }
            }
        }
        let expected: Vec<u64> = sizes.clone();
        let found: Vec<u64> = seen.into_values().collect();
        prop_assert_eq!(found, expected);
    }
}
