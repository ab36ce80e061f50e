use super::*;
use crate::codec::frame::Encoder;
use crate::repository::record::ArchiveRecord;

const FOLDER: &str = "main/7/backups/20261122T030000Z-logical";

struct Place {
    dir: tempfile::TempDir,
    storage: Storage,
    record: Record,
}

fn object(storage: &Storage, name: &str, bytes: &[u8]) -> ObjectRecord {
    storage.put(&format!("{FOLDER}/{name}"), bytes.to_vec()).unwrap();
    let crc32c = format!("{:08x}", crc32c::crc32c(bytes));
    ObjectRecord { name: name.into(), size: bytes.len() as u64, crc32c }
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(&format!("file://{}", dir.path().display())).unwrap();
    let begun = Record::begun("20261122T030000Z-logical".into(), "main", 7);
    let globals = Encoder::new(begun.compression).unwrap().encode(b"CREATE ROLE a;\n").unwrap();
    let large = vec![7; (2 << 20) + 5];
    let database = |name: &str, volumes| DatabaseRecord { name: name.into(), volumes, ..Default::default() };
    let logical = LogicalRecord {
        globals: vec![object(&storage, "globals.sql.zst", &globals)],
        databases: vec![
            database("app", vec![object(&storage, "app.dump", b"PGDMP whole")]),
            database(
                "big",
                vec![object(&storage, "big.dump", &large), object(&storage, "big.dump.0001", b"end")],
            ),
        ],
        ..LogicalRecord::default()
    };
    let record = Record { kind: BackupKind::Logical, logical: Some(logical), ..begun };
    Place { dir, storage, record }
}

impl Place {
    fn dump(&self, name: &str) -> Dump<'_> {
        Dump::of(&self.storage, FOLDER, check(&self.record).unwrap().database(name).unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(FOLDER).join(name)
    }
}

#[test]
fn volumes_are_read_one_after_the_other() {
    let place = place();
    let big = place.dump("big");
    let mut all = Vec::new();
    big.reader().read_to_end(&mut all).unwrap();
    assert_eq!(all.len() as u64, big.size());
    assert!(all.ends_with(b"\x07end"));
    let mut seen = 0;
    big.check(&mut |bytes| {
        seen += bytes;
        Ok(())
    })
    .unwrap();
    assert_eq!(seen, big.size());
    assert_eq!(big.path(), None, "two volumes are no file");
    assert_eq!(place.dump("app").path(), Some(place.file("app.dump")));
    let globals = Dump::globals(&place.storage, FOLDER, place.record.logical.as_ref().unwrap());
    let mut text = String::new();
    globals.decoded(place.record.compression.codec).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "CREATE ROLE a;\n");
}

#[test]
fn whatever_is_wrong_with_a_volume_is_told_with_its_name() {
    type Change = fn(Vec<u8>) -> Option<Vec<u8>>;
    let changes: [(Change, &str); 4] = [
        (|_| None, "is missing"),
        (|bytes| Some(bytes[1..].to_vec()), "has 2 bytes instead of 3"),
        (|bytes| Some([bytes, vec![0]].concat()), "has 4 bytes instead of 3"),
        (|bytes| Some(bytes.iter().map(|b| b ^ 1).collect()), "its checksum differs"),
    ];
    for (change, expected) in changes {
        let place = place();
        let path = place.file("big.dump.0001");
        match change(std::fs::read(&path).unwrap()) {
            Some(bytes) => std::fs::write(&path, bytes).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let error = place.dump("big").check(&mut |_| Ok(())).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Corrupt);
        assert!(error.message.contains("big.dump.0001") && error.message.contains(expected), "{error}");
        assert!(place.dump("big").reader().read_to_end(&mut Vec::new()).is_err(), "{expected}");
        place.dump("app").check(&mut |_| Ok(())).unwrap();
    }
}

#[test]
fn who_watches_ends_the_reading() {
    let place = place();
    let stop = || Error::new(ErrorKind::Cancelled, "enough");
    let error = place.dump("big").check(&mut |_| Err(stop())).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Cancelled);
}

#[test]
fn a_record_that_is_not_a_logical_backups_is_refused() {
    let good = place().record;
    check(&good).unwrap();
    let volume = ObjectRecord { name: "x".into(), size: 1, crc32c: "00000000".into() };
    let archive = |content: ArchiveContent, name: &str| ArchiveRecord {
        name: name.into(),
        content,
        volumes: vec![ObjectRecord { name: name.into(), ..volume.clone() }],
        frames: 1,
        tar_bytes: 1024,
        index: None,
    };
    let config = archive(ArchiveContent::Config, "config.tar.zst");
    check(&Record { archives: vec![config.clone()], ..good.clone() }).unwrap();
    let bad = [
        Record { kind: BackupKind::Full, ..good.clone() },
        Record { logical: None, ..good.clone() },
        Record { wal_included: true, ..good.clone() },
        Record { manifest: Some(volume.clone()), ..good.clone() },
        Record { archives: vec![archive(ArchiveContent::Base, "base.tar.zst")], ..good.clone() },
        Record { archives: vec![archive(ArchiveContent::Config, "../x.tar.zst")], ..good.clone() },
        Record { archives: vec![config.clone(), config], ..good.clone() },
    ];
    for record in bad {
        assert_eq!(check(&record).unwrap_err().kind, ErrorKind::Corrupt, "{record:?}");
    }
    let mut elsewhere = good;
    elsewhere.logical.as_mut().unwrap().databases[0].volumes[0].name = "../../../app.dump".into();
    let error = check(&elsewhere).unwrap_err();
    assert!(error.to_string().contains("dump of database \"app\""), "{error}");
}

/// Every place in a JSON value.
fn places(value: &serde_json::Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_string());
    match value {
        serde_json::Value::Object(fields) => {
            fields.iter().for_each(|(name, inner)| places(inner, &format!("{at}/{name}"), found));
        }
        serde_json::Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, inner)| places(inner, &format!("{at}/{n}"), found));
        }
        _ => {}
    }
}

#[test]
fn promise_7_no_record_leads_out_of_its_folder() {
    use serde_json::{Value, json};
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1_logical/main");
    let record = walkdir::WalkDir::new(golden).into_iter().flatten().find(|e| e.file_name() == "backup.json");
    let whole: Value = serde_json::from_slice(&std::fs::read(record.unwrap().path()).unwrap()).unwrap();
    let mut all = Vec::new();
    places(&whole, "", &mut all);
    let hostile = [
        json!(null),
        json!(-1),
        json!(u64::MAX),
        json!(""),
        json!("../../../pgark.json"),
        json!("/etc/passwd"),
        json!("a/b"),
        json!("app.dump"),
        json!("backup.json"),
        json!("x\u{1b}]0;\u{7}\0"),
        json!([]),
        json!({}),
        json!([{"name": "..", "size": 1, "crc32c": "00000000"}]),
    ];
    let (mut taken, mut refused) = (0, 0);
    for place in &all {
        for value in &hostile {
            let mut changed = whole.clone();
            *changed.pointer_mut(place).unwrap() = value.clone();
            let Ok(record) = serde_json::from_value::<Record>(changed) else { continue };
            let told = crate::verify::backup::contradictions::contradictions(&record);
            assert!(!told.iter().any(|line| line.contains(char::is_control)), "{place} {value}: {told:?}");
            let _ = record.row();
            let Ok(logical) = check(&record) else {
                assert!(!told.is_empty(), "{place} {value}: refused, and verify says nothing");
                refused += 1;
                continue;
            };
            taken += 1;
            let names: Vec<&str> =
                crate::backup::finish::objects(&record).map(|object| &object.name[..]).collect();
            let distinct: std::collections::BTreeSet<_> = names.iter().collect();
            assert_eq!(distinct.len(), names.len(), "{place} {value}: {names:?}");
            let plain = |name: &str| crate::repository::layout::is_backup_object(name) && !name.contains('/');
            assert!(names.iter().all(|name| plain(name)), "{place} {value}: {names:?}");
            assert!(!logical.globals.is_empty());
        }
    }
    assert!(taken > 100 && refused > 30, "{taken} {refused}");
}
