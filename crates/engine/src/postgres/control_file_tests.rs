use super::*;
use proptest::prelude::*;

/// The first 296 bytes of `global/pg_control` of a new cluster of each version: the whole structure.
const REAL: [(u32, &[u8; 296]); 4] = [
    (15, include_bytes!("testdata/pg_control.15")),
    (16, include_bytes!("testdata/pg_control.16")),
    (17, include_bytes!("testdata/pg_control.17")),
    (18, include_bytes!("testdata/pg_control.18")),
];

/// Changes a real file and makes its CRC right again.
fn changed(major: u32, at: usize, new: &[u8]) -> Vec<u8> {
    let (_, real) = REAL.iter().find(|(own, _)| *own == major).unwrap();
    let mut bytes = real.to_vec();
    bytes[at..at + new.len()].copy_from_slice(new);
    let crc_at = if major == 18 { 292 } else { 288 };
    let crc = crc32c::crc32c(&bytes[..crc_at]);
    bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[track_caller]
fn refused(bytes: &[u8], kind: ErrorKind, part: &str) {
    let error = ControlFile::parse(bytes).unwrap_err();
    assert_eq!(error.kind, kind, "{error}");
    assert!(error.message.contains(part), "{error}");
}

#[test]
fn every_version_is_read_as_pg_controldata_does() {
    let known = [
        (15, 1300, 202_209_061, 7_710_990_730_298_811_747, 0x0175_29B0, 1_795_354_935),
        (16, 1300, 202_307_071, 7_710_990_817_659_647_476, 0x016C_2D78, 1_795_354_955),
        (17, 1700, 202_406_281, 7_710_990_733_098_325_363, 0x0173_7848, 1_795_354_935),
        (18, 1800, 202_506_291, 7_710_990_735_190_836_611, 0x0176_5D28, 1_795_354_936),
    ];
    for ((major, bytes), expected) in REAL.iter().zip(known) {
        let file = ControlFile::parse(*bytes).unwrap();
        let identity = (
            *major,
            file.control_version,
            file.catalog_version,
            file.system_identifier,
            file.checkpoint.0,
            file.time,
        );
        assert_eq!(identity, expected);
        assert_eq!(file.server_major(), Some(*major));
        assert_eq!(
            (file.state, file.redo, file.checkpoint_timeline),
            (DbState::ShutDown, file.checkpoint, Timeline(1))
        );
        assert_eq!(
            (file.block_size, file.relation_segment_blocks, file.wal_block_size),
            (8192, 131_072, 8192)
        );
        assert_eq!((file.wal_segment_size.bytes(), file.wal_level), (16 << 20, 1));
        assert_eq!((file.max_connections, file.max_worker_processes, file.max_wal_senders), (100, 8, 10));
        assert_eq!((file.max_prepared_transactions, file.max_locks_per_transaction), (0, 64));
        assert!(file.has_page_checksums() && file.full_page_writes && !file.backup_end_required);
        assert_eq!(file.default_char_signedness, (*major >= 18).then_some(true));
    }
}

#[test]
fn padding_behind_the_structure_does_not_matter() {
    let mut bytes = REAL[0].1.to_vec();
    bytes.resize(8192, 0);
    assert_eq!(ControlFile::parse(&bytes), ControlFile::parse(REAL[0].1));
}

#[test]
fn damage_is_refused() {
    for (_, bytes) in REAL {
        for at in [0, 12, 40, 100, 280, 287] {
            let mut bytes = bytes.to_vec();
            bytes[at] ^= 1;
            refused(&bytes, ErrorKind::Corrupt, "checksum");
        }
        for length in [0, 11, 12, 100, 288] {
            refused(&bytes[..length], ErrorKind::Corrupt, &format!("only {length} bytes"));
        }
    }
    refused(&[0; 8192], ErrorKind::Corrupt, "version is 0");
}

#[test]
fn other_formats_are_not_supported() {
    for version in [1201u32, 1900, 1300u32.swap_bytes()] {
        refused(&changed(15, 8, &version.to_le_bytes()), ErrorKind::Unsupported, "not supported");
    }
    refused(&changed(15, 204, &4u32.to_le_bytes()), ErrorKind::Unsupported, "alignment");
    refused(&changed(15, 208, &1.5f64.to_le_bytes()), ErrorKind::Unsupported, "float");
}

#[test]
fn impossible_values_are_refused() {
    for (at, value, part) in [
        (16, 7, "7 is not a cluster state"),
        (48, 0, "timeline is 0"),
        (216, 0, "0 is not a valid page size"),
        (216, 64 << 10, "65536 is not a valid page size"),
        (220, 0, "segment has 0 pages"),
        (224, 8191, "8191 is not a valid WAL page size"),
        (228, 3 << 20, "3145728 is not a valid WAL segment size"),
    ] {
        refused(&changed(17, at, &u32::to_le_bytes(value)), ErrorKind::Corrupt, part);
    }
}

#[test]
fn a_catalog_version_that_was_never_released_has_no_major_version() {
    let file = ControlFile::parse(&changed(15, 12, &202_007_201u32.to_le_bytes())).unwrap();
    assert_eq!(file.server_major(), None);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = ControlFile::parse(&bytes);
    }

    #[test]
    fn any_change_is_read_without_panic(major in 15u32..=18, at in 0usize..288, byte: u8) {
        let _ = ControlFile::parse(&changed(major, at, &[byte]));
    }
}
