//! Tables of contents of real dumps, and damaged ones. The lists are what each version's `pg_restore --list --verbose` says.

use super::*;
use crate::logical::golden_dumps::GOLDEN;
use proptest::prelude::*;

#[test]
fn every_version_is_read_as_its_own_pg_restore_reads_it() {
    for (version, bytes, list) in GOLDEN {
        let mut source = *bytes;
        let toc = Toc::read(&mut source).unwrap();
        assert!(source.is_empty(), "{version}: all of the head, and nothing behind it");
        assert_eq!(toc.database, "shop");
        let mut lines = Vec::new();
        for entry in &toc.entries {
            lines.push(entry.line());
            if !entry.depends.is_empty() {
                let numbers: Vec<String> = entry.depends.iter().map(u32::to_string).collect();
                lines.push(format!(";\tdepends on: {}", numbers.join(" ")));
            }
        }
        assert_eq!(lines.join("\n"), list.trim_end_matches('\n'), "{version}");
    }
}

#[test]
fn a_dump_says_early_of_which_database_it_is() {
    for (version, bytes, _) in GOLDEN {
        let toc = Toc::read(&mut &**bytes).unwrap();
        let entry = toc.entries.iter().find(|entry| entry.kind == "DATABASE").unwrap();
        assert_eq!(database_oid(&bytes[..2000]), Some(entry.catalog.1), "{version}");
        assert!((0..200).all(|end| database_oid(&bytes[..end]).is_none()), "{version}");
    }
    assert_eq!(database_oid(b"SELECT 1"), None);
}

#[test]
fn names_are_exact_and_what_is_about_the_database_is_kept() {
    for (version, bytes, _) in GOLDEN {
        let toc = Toc::read(&mut &**bytes).unwrap();
        let is_hostile = |entry: &&Entry| entry.kind == "TABLE" && entry.name == "hos;t\nile x";
        assert_eq!(toc.entries.iter().filter(is_hostile).count(), 1, "{version}");
        let comment = toc.entries.iter().find(|e| e.kind == "COMMENT" && e.is_of_database()).unwrap();
        assert_eq!(comment.definition, "COMMENT ON DATABASE shop IS 'shopping';\n", "{version}");
        let table = toc.entries.iter().find(|e| e.kind == "TABLE" && e.name == "orders").unwrap();
        assert_eq!((table.schema.as_deref(), table.definition.as_str()), (Some("sales"), ""));
        assert_eq!(toc.entry(table.id), Some(table));
    }
}

#[test]
fn room_is_made_once_and_before_anything_else_is_dropped() {
    for (version, bytes, _) in GOLDEN {
        let toc = Toc::read(&mut &**bytes).unwrap();
        let with = |only: Option<&BTreeSet<u32>>| Toc::with_drop(&mut &**bytes, only, "DROP TABLE x;");
        for only in [None, Some(toc.entries.iter().map(|e| e.id).filter(|id| id % 2 == 0).collect())] {
            let changed = with(only.as_ref()).unwrap();
            assert_eq!(Toc::read(&mut changed.as_slice()).unwrap(), toc, "{version}: all else is as it was");
            let count = |part: &[u8]| changed.windows(part.len()).filter(|window| window == &part).count();
            // The function and the database keep theirs.
            assert_eq!((count(b"DROP TABLE x;"), count(b"DROP ")), (1, 3), "{version}");
            assert!(count(b"--\n") > 20, "{version}");
        }
        assert_eq!(with(Some(&BTreeSet::new())).unwrap_err().kind, ErrorKind::Internal);
    }
}

#[test]
fn what_is_not_known_is_not_read() {
    let (_, bytes, _) = GOLDEN[0];
    let error = |bytes: &[u8]| Toc::read(&mut &*bytes).unwrap_err();
    let with = |place: usize, byte: u8| {
        let mut bytes = bytes.to_vec();
        bytes[place] = byte;
        bytes
    };
    assert_eq!(error(b"").kind, ErrorKind::Corrupt);
    assert_eq!(error(b"-- PostgreSQL database dump").kind, ErrorKind::Corrupt);
    for (place, byte, kind) in
        [(6, 17, ErrorKind::Unsupported), (5, 2, ErrorKind::Unsupported), (6, 13, ErrorKind::Unsupported)]
    {
        assert_eq!(error(&with(place, byte)).kind, kind);
    }
    for (place, byte) in [(8, 0), (8, 9), (9, 200), (10, 3)] {
        assert_eq!(error(&with(place, byte)).kind, ErrorKind::Corrupt);
    }
    for end in (0..bytes.len()).step_by(7) {
        assert_eq!(error(&bytes[..end]).kind, ErrorKind::Corrupt, "cut at {end}");
    }
}

proptest! {
    #[test]
    fn hostile_bytes_are_errors_or_values(
        version in 0..GOLDEN.len(), changes in prop::collection::vec((0usize..30_000, any::<u8>()), 1..20),
    ) {
        let mut bytes = GOLDEN[version].1.to_vec();
        for (place, byte) in changes {
            let place = place % bytes.len();
            bytes[place] = byte;
        }
        if let Ok(toc) = Toc::read(&mut bytes.as_slice()) {
            prop_assert!(toc.entries.len() <= bytes.len());
            prop_assert!(toc.entries.iter().all(|entry| !entry.line().contains('\n')));
        }
    }
}
