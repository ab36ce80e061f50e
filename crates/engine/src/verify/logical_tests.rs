use super::super::logical_fixture::{Dumped, NAME, golden};
use super::super::validate_fixture::Deaf;
use super::super::{Request, validate};
use super::*;
use crate::repository::record::ObjectRecord;
use crate::repository::{Record, Repository, Storage};
use pg_ark_contract::Lsn;
use pg_ark_contract::conversation::BackupKind;
use pg_ark_contract::rows::FindingRow;
use pg_ark_testkit::saboteur::{EIO, Fault, Plan as Calls, Saboteur};
use std::sync::Arc;

const LEVELS: [Level; 3] = [Level::Record, Level::Data, Level::Pages];

#[test]
fn an_undamaged_logical_backup_has_no_row() {
    for compression in ["zstd:1", "lz4", "gzip:1", "none"] {
        for volume_size in [1 << 30, 700, 100] {
            let dumped = Dumped::new(compression, volume_size);
            for level in LEVELS {
                for alone in [true, false] {
                    let rows = dumped.rows(alone, level);
                    assert!(rows.is_empty(), "{compression} {volume_size} {level:?}: {rows:#?}");
                }
            }
        }
    }
}

/// What happens to an object: its bytes before, what becomes of them.
type Change = (&'static str, fn(&mut Vec<u8>, usize));

const CHANGES: [Change; 4] = [
    ("a bit", |bytes, at| bytes[at] ^= 1 << (at % 8)),
    ("a zeroed block", |bytes, at| bytes.iter_mut().skip(at).take(512).for_each(|b| *b = 0)),
    ("a cut tail", |bytes, at| bytes.truncate(at)),
    ("more at the end", |bytes, _| bytes.push(0)),
];

fn names(dumped: &Dumped) -> Vec<String> {
    let names = crate::backup::finish::objects(&dumped.record).map(|object| object.name.clone());
    names.chain(["backup.json".to_string()]).collect()
}

#[test]
fn every_damage_of_every_object_is_found_and_named() {
    for (compression, volume_size) in [("zstd:1", 1500), ("none", 1 << 30)] {
        let dumped = Dumped::new(compression, volume_size);
        for name in names(&dumped) {
            let file = dumped.object(&name);
            let whole = std::fs::read(&file).unwrap();
            for (what, change) in CHANGES {
                for at in [0, whole.len() / 2, whole.len() - 1] {
                    let mut bytes = whole.clone();
                    change(&mut bytes, at);
                    if bytes != whole {
                        std::fs::write(&file, &bytes).unwrap();
                        judge(&dumped, &name, &format!("{compression}: {what} at {at} of {name}"));
                    }
                }
            }
            std::fs::remove_file(&file).unwrap();
            judge(&dumped, &name, &format!("{compression}: {name} deleted"));
            std::fs::write(&file, &whole).unwrap();
        }
        assert_eq!(dumped.told(), Vec::<String>::new());
    }
}

/// At least one row names the object, and nothing else is blamed.
#[track_caller]
fn judge(dumped: &Dumped, name: &str, what: &str) {
    let rows = dumped.rows(true, Level::Data);
    let object = dumped.path(name);
    let is_named = |row: &FindingRow| {
        let named = row.object.split(": ").next().unwrap_or_default();
        named == object || name == "backup.json" && named == dumped.folder
    };
    assert!(!rows.is_empty() && rows.iter().all(is_named), "{what}: {rows:#?}");
    let severity = if name.ends_with(".index") { Severity::Warning } else { Severity::Error };
    assert!(rows.iter().all(|row| row.severity == severity), "{what}: {rows:#?}");
}

#[test]
fn swapped_objects_are_both_named() {
    let dumped = Dumped::new("zstd:1", 400);
    let names = names(&dumped);
    for pair in names.windows(2) {
        let [one, two] = [&pair[0], &pair[1]].map(|name| dumped.object(name));
        let aside = dumped.object("aside");
        let swap = || {
            std::fs::rename(&one, &aside).unwrap();
            std::fs::rename(&two, &one).unwrap();
            std::fs::rename(&aside, &two).unwrap();
        };
        swap();
        let rows = dumped.rows(true, Level::Data);
        let named = |name: &str| rows.iter().any(|row| row.object.starts_with(&dumped.path(name)));
        let is_record = pair.contains(&"backup.json".to_string());
        assert!(is_record || pair.iter().all(|name| named(name)), "{pair:?}: {rows:#?}");
        assert!(!rows.is_empty());
        swap();
    }
}

#[test]
fn two_volumes_that_are_damaged_are_both_named() {
    let dumped = Dumped::new("zstd:1", 500);
    let names = ["app.dump", "app.dump.0003", "app.dump.0004"];
    for name in names {
        let mut bytes = std::fs::read(dumped.object(name)).unwrap();
        bytes[100] ^= 1;
        std::fs::write(dumped.object(name), bytes).unwrap();
    }
    std::fs::remove_file(dumped.object("app.dump.0001")).unwrap();
    let told = dumped.told();
    assert_eq!(told.len(), 4, "{told:#?}");
    assert!(names.iter().all(|name| told.iter().any(|line| line.starts_with(&format!("error {name}: ")))));
}

#[test]
fn a_fault_of_the_store_at_any_call_is_told() {
    let dumped = Dumped::new("zstd:1", 1500);
    let url = dumped.cluster.storage().url().to_string();
    for fault in [Fault::Fail(EIO), Fault::Gone(EIO), Fault::Deny] {
        let mut struck = 0;
        for number in 1..1000 {
            let calls = Calls::new();
            calls.strike_at(number, fault);
            let (plan, gate) = (Arc::clone(&calls), Arc::clone(&calls));
            let storage = Storage::open(&url)
                .unwrap()
                .wrapped(|store| Saboteur::before(store, plan))
                .gated(move |call, path| gate.pass(call, &path.display().to_string()));
            let cluster = Repository::on(storage).and_then(|repository| repository.cluster("main"));
            let request = Request { backup: Some(NAME.into()), level: Level::Data, jobs: 1 };
            let result = cluster.and_then(|cluster| validate(&cluster, &request, &Deaf));
            let Some(call) = calls.rest() else { break };
            struck += 1;
            // The record and its pin are asked for twice.
            let is_data = [".dump", "globals.sql", "config.tar"].iter().any(|name| call.contains(name));
            assert!(
                !is_data || result.as_ref().map_or(true, |rows| !rows.is_empty()),
                "{fault:?} at {number}, {call}: {result:?}"
            );
        }
        assert!((20..900).contains(&struck), "{fault:?}: {struck} calls");
    }
}

#[test]
fn what_was_broken_before_it_was_stored_is_found_by_expanding_it() {
    let mut dumped = Dumped::new("zstd:1", 1 << 30);
    let whole = golden("app.dump");
    let cut = whole.len() * 2 / 3;
    let mut flipped = whole.clone();
    // Inside the compressed rows, which end with a checksum of zlib's.
    let rows = whole.windows(2).rposition(|pair| pair == b"\x78\x01").unwrap();
    flipped[rows + 20] ^= 0xff;
    for bytes in [&whole[..cut], &flipped, b"PGDMPnothing", b""] {
        let volumes = vec![ObjectRecord {
            name: "app.dump".into(),
            size: bytes.len() as u64,
            crc32c: format!("{:08x}", crc32c::crc32c(bytes)),
        }];
        dumped.cluster.storage().put(&dumped.path("app.dump"), bytes.to_vec()).unwrap();
        dumped.logical().databases[1].volumes = volumes;
        dumped.save();
        assert_eq!(dumped.rows(true, Level::Record), []);
        let told = dumped.told();
        let [line] = &told[..] else { panic!("{told:#?}") };
        assert!(line.starts_with("error app.dump: pg_restore cannot read it: "), "{line}");
    }
}

#[test]
fn globals_that_are_not_what_the_record_says_are_told() {
    let mut dumped = Dumped::new("zstd:1", 1 << 30);
    for other in [-1, 1] {
        dumped.logical().globals_bytes = (golden("globals.sql").len() as u64).saturating_add_signed(other);
        dumped.save();
        let told = dumped.told();
        assert!(
            told.len() == 1 && told[0].starts_with("error globals.sql.zst: does not expand"),
            "{told:#?}"
        );
    }
    let globals = dumped.store("globals.sql.zst", b"no zstd", 1 << 30);
    dumped.logical().globals = globals;
    dumped.save();
    let told = dumped.told();
    assert!(told.len() == 1 && told[0].starts_with("error globals.sql.zst: does not decode"), "{told:#?}");
}

#[test]
fn whatever_such_a_record_cannot_say_is_told_and_nothing_outside_is_read() {
    type Twist = (fn(&mut Record), &'static str);
    fn app(record: &mut Record) -> &mut DatabaseRecord {
        &mut record.logical.as_mut().unwrap().databases[1]
    }
    let twists: [Twist; 13] = [
        (|r| app(r).volumes[0].name = "../../../../pgark.json".into(), "dump of database \"app\""),
        (|r| app(r).volumes[0].name = "/etc/passwd".into(), "dump of database \"app\""),
        (|r| app(r).volumes.reverse(), "dump of database \"app\""),
        (|r| app(r).name = "a b/ä\"'".into(), "is there twice"),
        (|r| app(r).volumes[0].size = u64::MAX, "bytes instead of"),
        (|r| app(r).data_bytes = u64::MAX, "its databases have"),
        (|r| r.logical.as_mut().unwrap().databases.clear(), "names no database"),
        (|r| r.logical = None, "not that of a logical backup"),
        (|r| r.archives[0].name = "base.tar.zst".into(), "belong to a physical backup"),
        (|r| r.manifest = Some(app(r).volumes[0].clone()), "belong to a physical backup"),
        (|r| r.start_lsn = Some(Lsn(1)), "it names WAL"),
        (|r| r.parent = Some("20261121T030000Z-full".into()), "only a physical backup has"),
        (|r| r.kind = BackupKind::Full, "its kind is full, which is not in its name"),
    ];
    for (twist, expected) in twists {
        let dumped = Dumped::new("zstd:1", 500);
        let mut record = dumped.record.clone();
        twist(&mut record);
        record.save(dumped.cluster.storage(), &dumped.folder).unwrap();
        let rows = dumped.rows(true, Level::Data);
        let is_record = |row: &&FindingRow| row.object == dumped.path("backup.json");
        assert!(
            rows.iter().filter(is_record).any(|row| row.finding.contains(expected)),
            "{expected}: {rows:#?}"
        );
        assert!(rows.iter().all(|row| row.backup.as_deref() == Some(NAME)), "{expected}: {rows:#?}");
        let inside = format!("{}/", dumped.folder);
        assert!(rows.iter().all(|row| row.object.starts_with(&inside)), "{expected}: {rows:#?}");
    }
}
