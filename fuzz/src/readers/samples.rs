//! Valid samples of every format, which mutations begin with: from the golden repositories, and made by hand.

use super::wal_fixture::WalWriter;
use pg_ark_contract::settings::{Codec, Compression};
use pg_ark_contract::{Lsn, SegmentSize};
use pg_ark_engine::codec::frame::{self, Encoder};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The backup in the golden repository, and the system identifier of its server.
pub const BACKUP: &str = "20261122T140921Z-full";
/// See [`BACKUP`].
pub const SYSTEM: &str = "7710997216315519387";

/// Folder of the engine, whichever package this is part of.
pub fn engine() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    if own.ends_with("fuzz") { own.join("../crates/engine") } else { own.to_path_buf() }
}

/// An object of the golden repository: of its backup, unless it is one of the records above.
pub fn golden(name: &str) -> Vec<u8> {
    let root = engine().join("tests/golden/v1/zstd");
    let folder = match name {
        "pgark.json" | "main/cluster.json" => root,
        _ => root.join(format!("main/{SYSTEM}/backups/{BACKUP}")),
    };
    std::fs::read(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn golden_tar(name: &str) -> Vec<u8> {
    let mut tar = Vec::new();
    frame::stream(Codec::Zstd, &golden(name)[..]).unwrap().read_to_end(&mut tar).unwrap();
    tar
}

/// Samples for a target, in the form that its reader takes.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    let text = |text: &str| text.as_bytes().to_vec();
    match target {
        "record" => vec![golden("backup.json")],
        "repository_record" => vec![golden("pgark.json")],
        "cluster_record" => vec![golden("main/cluster.json")],
        "lease" => vec![text(LEASE)],
        "run_record" => sealed(RUN),
        "pin" => sealed(PIN),
        "pruned" => sealed(PRUNED),
        "retention_policy" => sealed(POLICY),
        "manifest" => vec![golden("backup_manifest"), text(MANIFEST_2)],
        "archive_index" => vec![golden("base.tar.zst.index")],
        "wal_index" => vec![text(WAL_INDEX)],
        "tar_reader" | "config_archive" => {
            let mut base = golden_tar("base.tar.zst");
            // A few members are as good as all, and leave more turns.
            base.truncate(8 << 10);
            base.extend_from_slice(&[0; 1024]);
            vec![golden_tar("config.tar.zst"), base]
        }
        "frame_decode" => {
            frames(|codec, raw, stored| [&[codec][..], &raw.to_le_bytes()[..3], stored].concat())
        }
        "frame_stream" => frames(|codec, _, stored| [&[codec][..], stored, stored].concat()),
        "wal_reader" => vec![[&[0][..], &wal()].concat(), [&[255][..], &wal()].concat()],
        "wal_page" => {
            let mut page = [&1u32.to_le_bytes()[..], &0u64.to_le_bytes(), &wal()[..8192]].concat();
            page.truncate(12 + 64);
            vec![page]
        }
        "timeline_history" => {
            vec![text("1\t0/3000000\tno recovery target specified\n\n# x\n5\t1/0\tbefore 2\n")]
        }
        "backup_label" => vec![text(LABEL)],
        "tablespace_map" => vec![text("16400 /srv/fast\n16401 /srv/a\\\nb\\\\c\n")],
        "pg_control" => ["15", "16", "17", "18"].map(control).into(),
        "names" => vec![
            text("pg_tblspc/16400/PG_15_202209061/5/16401_vm.1"),
            text("base/5/t3_16384_fsm.2"),
            text("000000010000000000000004"),
            text("000000010000000000000004.00000028.backup"),
            text("0000000A.history"),
            text("20261122T140921Z-full"),
            text("0/3000028"),
        ],
        "cron" => vec![
            text("30 2 * * *\nEurope/Berlin"),
            text("*/15 0-22/2 L,15W JAN-DEC +MON#2,5L\nAmerica/Havana"),
            text("@weekly\nUTC"),
        ],
        "pages" => vec![[&[1; 12][..], &golden_tar("base.tar.zst")[3072..3072 + 16384]].concat()],
        "config_text" => vec![text(CONFIG)],
        other => panic!("there is no sample for {other}"),
    }
}

fn control(major: &str) -> Vec<u8> {
    std::fs::read(engine().join(format!("src/postgres/testdata/pg_control.{major}"))).unwrap()
}

fn frames(form: impl Fn(u8, u32, &[u8]) -> Vec<u8>) -> Vec<Vec<u8>> {
    let raw: Vec<u8> = (0..3000u32).map(|n| (n / 7 % 251) as u8).collect();
    let codecs = ["zstd:1", "gzip:6", "lz4", "none"];
    let encode =
        |text: &str| Encoder::new(text.parse::<Compression>().unwrap()).unwrap().encode(&raw).unwrap();
    codecs.iter().enumerate().map(|(n, text)| form(n as u8, raw.len() as u32, &encode(text))).collect()
}

/// Three pages of WAL: transactions, a restore point, a record that crosses pages, a prepared transaction, a switch.
pub fn wal() -> Vec<u8> {
    let mut wal = WalWriter::new(Lsn(0), SegmentSize::new(1 << 20).unwrap());
    wal.commit(700, 1_000_000);
    wal.restore_point(b"before the change", 2_000_000);
    wal.abort(701, 3_000_000);
    // Time, flags (subtransactions, prepared), their count, two of them, the prepared transaction.
    let prepared: Vec<u8> =
        [&5i64.to_le_bytes()[..], &0x12u32.to_le_bytes(), &2u32.to_le_bytes(), &[7; 8], &[9; 4]].concat();
    wal.record(1, 0xB0, 702, &prepared);
    wal.record(10, 0, 703, &[3; 9000]);
    wal.lost_record(12_000);
    wal.commit(704, 4_000_000);
    wal.raw(0, 0x40, 0, &[]);
    wal.bytes
}

const LEASE: &str = r#"{
  "format": 1,
  "token": "3f0a5d1c-6a3c-4b43-9f8e-6b8a3f1f0a5d",
  "purpose": "20261122T140921Z-full",
  "host": "db1",
  "machine": "b0071d00-0000-4000-8000-000000000000/pid:[4026531836]",
  "pid": 4711,
  "pid_start": 123456,
  "acquired_at": "2026-11-22T14:09:21Z",
  "expires_at": "2026-11-22T14:10:21Z"
}"#;

/// Without a seal and with one.
fn sealed(text: &str) -> Vec<Vec<u8>> {
    let bytes = text.as_bytes();
    vec![bytes.to_vec(), pg_ark_engine::repository::sealed::seal(bytes).unwrap()]
}

const PIN: &str = r#"{
  "format": 1,
  "reason": "for the auditors",
  "pinned_at": "2026-11-22T02:00:00Z"
}
"#;

const PRUNED: &str = r#"{
  "format": 1,
  "pruned_at": "2026-11-22T02:00:00Z",
  "segment_size": 1048576,
  "segments": [
    {"first": "000000010000000000000002", "last": "000000010000000100000041"},
    {"first": "000000020000000100000042", "last": "000000020000000100000042"}
  ],
  "histories": ["00000002.history"]
}
"#;

const POLICY: &str = r#"{
  "format": 1,
  "policy": {"window": 604800, "min_full": 2, "daily": 7, "weekly": 4, "monthly": 12, "yearly": 3, "timezone": "Europe/Berlin"},
  "pruned_at": "2026-11-22T02:00:00Z",
  "host": "db1"
}
"#;

const RUN: &str = r#"{
  "format": 1,
  "job": "daily",
  "kind": "verify",
  "due_at": "2026-11-22T02:00:00Z",
  "attempt": 1,
  "status": "failed",
  "failures": 2,
  "started_at": "2026-11-22T02:00:01Z",
  "finished_at": "2026-11-22T02:10:00Z",
  "time_limit": 3600,
  "host": "db1",
  "machine": "b0071d00-0000-4000-8000-000000000000/pid:[4026531836]/db1",
  "pid": 4711,
  "pid_start": 123456,
  "backup": null,
  "result": null,
  "error": {"kind": "io", "message": "could not read", "detail": null, "hint": null}
}"#;

const LABEL: &str = "START WAL LOCATION: 0/8529F0 (file 000000010000000000000008)\nCHECKPOINT LOCATION: 0/852A28\n\
    BACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-11-22 14:09:21 UTC\nLABEL: pg_ark\nSTART TIMELINE: 1\n\
    STOP WAL LOCATION: 0/852B00 (file 000000010000000000000008)\nSTOP TIMELINE: 1\nINCREMENTAL FROM LSN: 0/1000000\n\
    INCREMENTAL FROM TLI: 1\n";

const MANIFEST_2: &str = "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": 7710997216315519387,\n\"Files\": [\n\
    { \"Path\": \"PG_VERSION\", \"Size\": 3, \"Last-Modified\": \"2026-11-22 14:09:21 GMT\", \
    \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"64440205\" },\n\
    { \"Encoded-Path\": \"ff20\", \"Size\": 0, \"Last-Modified\": \"2026-11-22 14:09:21 GMT\" }\n],\n\"WAL-Ranges\": [\n\
    { \"Timeline\": 1, \"Start-LSN\": \"0/8529F0\", \"End-LSN\": \"0/852B00\" }\n],\n\"Manifest-Checksum\": \"00\"}\n";

const WAL_INDEX: &str = "{\"format\":1}\n\
    {\"segment\":\"000000010000000000000004\",\"commits\":2,\"first_time\":\"2026-11-22T14:09:21.000000Z\",\"last_time\":\
    \"2026-11-22T14:09:22.000001Z\",\"min_xid\":700,\"max_xid\":701,\"first_lsn\":\"0/400028\",\"end_lsn\":\"0/4FFFF8\",\
    \"whole\":true,\"restore_points\":[{\"name\":\"x\",\"lsn\":\"0/400100\",\"time\":\"2026-11-22T14:09:21.000000Z\"}]}\n\
    {\"segment\":\"00000001FFFFFFFF00000FFF\",\"commits\":0,\"first_time\":null,\"last_time\":null,\"min_xid\":null,\
    \"max_xid\":null,\"end_lsn\":\"FFFFFFFF/FFF00100\",\"whole\":false,\"restore_points\":[],\"more_restore_points\":true}\n";

const CONFIG: &str = "port = 5432\ninclude_dir = 'conf.d'\ninclude 'it''s\\'.conf'\ninclude_if_exists '/etc/x.conf'\n\
    @include \"hba.d\"\ninclude_dir hba.d\ndata_directory = '/var/lib/x'  # note\n";
