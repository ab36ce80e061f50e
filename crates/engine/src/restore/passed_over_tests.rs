use super::super::fixture::{Fixture, Recipe, segment};
use super::super::{Request, Target, course};
use crate::repository::layout;
use crate::wal::object;
use pg_ark_contract::settings::Compression;
use pg_ark_contract::{Error, ErrorKind};

const LATER: &str = "20261123T020000Z-full";

/// The backup, and what is told.
fn choose(fixture: &Fixture, backup: &str, target: Target) -> Result<(String, String), Error> {
    let request =
        Request { backup: backup.into(), target, program: Some("/bin/true".into()), ..Default::default() };
    let stock = course::look(&fixture.cluster, &request)?;
    let chosen = course::choose(&stock, &fixture.cluster, &request)?;
    Ok((chosen.record.backup, chosen.remarks.join("\n")))
}

/// A folder of a later backup with this object in it.
fn put_later(fixture: &Fixture, name: &str, content: &str) {
    let system = fixture.record.system_identifier.parse().unwrap();
    let folder = fixture.cluster.backup_folder(system, LATER);
    fixture.cluster.storage().put(&format!("{folder}/{name}"), content.as_bytes().to_vec()).unwrap();
}

/// Archives the segment behind the backup.
fn archive_next(fixture: &Fixture) {
    let system = fixture.record.system_identifier.parse().unwrap();
    let mut bytes = segment(system);
    bytes[8..16].copy_from_slice(&0x0030_0000u64.to_le_bytes());
    let wal = layout::wal(fixture.cluster.name(), system);
    let path = format!("{wal}/00000001/00000000/000000010000000000000003.zst");
    let (len, zstd) = (bytes.len() as u64, Compression::default());
    let stored = object::encode(zstd, &mut &bytes[..], len, "x", &mut |_| Ok(())).unwrap();
    fixture.cluster.storage().put(&path, stored).unwrap();
}

#[test]
fn promise_6_a_later_backup_whose_record_is_damaged_is_not_passed_over_in_silence() {
    for (name, content, why) in [
        ("backup.json", "{\"format\": 1, \"backup\"", "cannot be read"),
        ("base.tar.zst", "x", "backup.json is missing"),
    ] {
        let fixture = Fixture::new(&Recipe::default());
        let chosen = fixture.record.backup.clone();
        assert_eq!(choose(&fixture, "latest", Target::Latest).unwrap().1, "");
        put_later(&fixture, name, content);
        // Nothing leads beyond the older one: what came after it would be lost.
        let error = choose(&fixture, "latest", Target::Latest).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Corrupt, "{error}");
        assert!(error.message.contains(LATER), "{error}");
        assert!(error.detail.unwrap().contains(why));
        assert!(error.hint.unwrap().ends_with(&format!("pgark restore {chosen}.")));
        assert_eq!(choose(&fixture, &chosen, Target::Latest).unwrap().0, chosen);
        // The archive leads on: told, and done.
        archive_next(&fixture);
        let (backup, told) = choose(&fixture, "latest", Target::Latest).unwrap();
        assert_eq!(backup, chosen);
        assert!(told.contains(LATER) && told.contains(why) && told.contains("CANNOT BE USED"), "{told}");
        // But not where recovery ends with the backup.
        assert_eq!(choose(&fixture, "latest", Target::Immediate).unwrap_err().kind, ErrorKind::Corrupt);
    }
}

#[test]
fn dumps_and_earlier_backups_are_no_matter() {
    let fixture = Fixture::new(&Recipe::default());
    let system = fixture.record.system_identifier.parse().unwrap();
    for name in ["20261121T020000Z-full", "20261123T020000Z-logical"] {
        let path = format!("{}/backup.json", fixture.cluster.backup_folder(system, name));
        fixture.cluster.storage().put(&path, &b"x"[..]).unwrap();
    }
    choose(&fixture, "latest", Target::Latest).unwrap();
}

#[test]
fn a_damaged_archive_is_no_matter_to_a_backup_that_brings_its_wal_and_wants_no_more() {
    let mut fixture = Fixture::new(&Recipe::default());
    archive_next(&fixture);
    let wal = layout::wal(fixture.cluster.name(), fixture.record.system_identifier.parse().unwrap());
    fixture.cluster.storage().put(&format!("{wal}/00000009.history"), &b"garbage"[..]).unwrap();
    let name = fixture.record.backup.clone();
    for backup in ["latest", &name] {
        let (chosen, told) = choose(&fixture, backup, Target::Immediate).unwrap();
        assert_eq!(chosen, name);
        assert!(told.contains("cannot be read") && told.contains("00000009.history"), "{told}");
        // Where the archive is followed, nothing tells where that timeline left the others.
        assert_eq!(choose(&fixture, backup, Target::Latest).unwrap_err().kind, ErrorKind::Corrupt);
    }
    fixture.change_record(|record| record.wal_included = false);
    assert_eq!(choose(&fixture, &name, Target::Immediate).unwrap_err().kind, ErrorKind::Corrupt);
}
