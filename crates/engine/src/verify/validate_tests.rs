use super::super::validate_fixture::{Form, Stored, files_of};
use super::*;
use crate::postgres::wal_segment::SegmentName;
use crate::repository::record::ArchiveContent;
use pg_ark_contract::settings::Checksum;

const CODECS: [&str; 4] = ["zstd:1", "lz4", "gzip:1", "none"];
const LEVELS: [Level; 3] = [Level::Record, Level::Data, Level::Pages];

#[test]
fn an_undamaged_repository_has_no_row() {
    for compression in CODECS {
        for checksum in [Checksum::Crc32c, Checksum::Sha256] {
            for (frame, volume_size) in [(50_000, 1 << 40), (3000, 30_000), (16 << 20, 1 << 40)] {
                let stored = Stored::new(Form { compression, checksum, frame, volume_size });
                for level in LEVELS {
                    for (one, jobs) in [(true, 4), (false, 1)] {
                        let rows = stored.rows(one, level, jobs);
                        assert!(rows.is_empty(), "{compression} {checksum:?} {frame} {level:?}: {rows:#?}");
                    }
                }
            }
        }
    }
}

#[test]
fn golden_repositories_lack_their_seals_and_nothing_else() {
    for codec in ["zstd", "lz4", "gzip"] {
        let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1").join(codec);
        let url = format!("file://{}", golden.display());
        let cluster = crate::repository::Repository::open(&url).unwrap().cluster("main").unwrap();
        for level in LEVELS {
            let request = Request { backup: None, level, jobs: 2 };
            let rows = validate(&cluster, &request, &super::super::validate_fixture::Deaf).unwrap();
            assert_eq!(rows.len(), 3, "{rows:#?}");
            for row in rows {
                assert!(row.severity == Severity::Warning && row.finding.contains("has no seal"), "{row:?}");
            }
        }
    }
}

/// What happens to an object: its bytes before, what becomes of them.
type Change = (&'static str, fn(&mut Vec<u8>, usize));

const CHANGES: [Change; 3] = [
    ("a bit", |bytes, at| bytes[at] ^= 1 << (at % 8)),
    ("a zeroed block", |bytes, at| bytes.iter_mut().skip(at).take(512).for_each(|b| *b = 0)),
    ("a cut tail", |bytes, at| bytes.truncate(at)),
];

/// Offsets that are tried: the first and the last bytes, and some between.
fn offsets(len: usize) -> impl Iterator<Item = usize> {
    [0, len / 2, len - 1].into_iter().filter(move |at| *at < len)
}

fn objects(stored: &Stored) -> Vec<String> {
    let names = crate::backup::finish::objects(&stored.record).map(|object| object.name.clone());
    names.chain(["backup.json".to_string()]).collect()
}

#[test]
fn every_damage_of_every_object_is_found_and_named() {
    for (compression, checksum) in
        CODECS.into_iter().zip([Checksum::Crc32c, Checksum::Sha256].into_iter().cycle())
    {
        let volume_size = if compression == "none" { 700_000 } else { 60_000 };
        let form = Form { compression, checksum, volume_size, ..Form::default() };
        let stored = Stored::new(form);
        for name in objects(&stored) {
            let file = stored.object(&name);
            let whole = std::fs::read(&file).unwrap();
            for (what, change) in CHANGES {
                for at in offsets(whole.len()) {
                    let mut bytes = whole.clone();
                    change(&mut bytes, at);
                    if bytes == whole {
                        continue;
                    }
                    std::fs::write(&file, &bytes).unwrap();
                    judge(&stored, &name, &format!("{compression}: {what} at {at} of {name}"));
                }
            }
            std::fs::remove_file(&file).unwrap();
            judge(&stored, &name, &format!("{compression}: {name} deleted"));
            std::fs::write(&file, &whole).unwrap();
        }
        assert!(stored.told().is_empty(), "{:#?}", stored.told());
    }
}

/// At least one row names the object; nothing else is blamed but what the damage can be seen in.
#[track_caller]
fn judge(stored: &Stored, name: &str, what: &str) {
    let rows = stored.rows(true, Level::Data, 2);
    let object = stored.path(name);
    let is_named = |row: &FindingRow| {
        let named = row.object.split(": ").next().unwrap_or_default();
        named == object || name == "backup.json" && named == stored.folder
    };
    assert!(rows.iter().any(is_named), "{what}: {rows:#?}");
    let others: Vec<_> = rows.iter().filter(|row| !is_named(row)).collect();
    assert!(others.is_empty(), "{what}: {others:#?}");
    let severity = if name.ends_with(".index") { Severity::Warning } else { Severity::Error };
    assert!(rows.iter().all(|row| row.severity == severity), "{what}: {rows:#?}");
}

#[test]
fn swapped_objects_are_both_named() {
    let stored = Stored::new(Form { volume_size: 30_000, ..Form::default() });
    let names = objects(&stored);
    for pair in names.windows(2) {
        let [one, two] = [&pair[0], &pair[1]].map(|name| stored.object(name));
        let aside = stored.object("aside");
        let swap = || {
            std::fs::rename(&one, &aside).unwrap();
            std::fs::rename(&two, &one).unwrap();
            std::fs::rename(&aside, &two).unwrap();
        };
        swap();
        let rows = stored.rows(true, Level::Data, 2);
        let named = |name: &str| rows.iter().any(|row| row.object.starts_with(&stored.path(name)));
        let is_record = pair.contains(&"backup.json".to_string());
        assert!(is_record || pair.iter().all(|name| named(name)), "{pair:?}: {rows:#?}");
        assert!(!rows.is_empty());
        swap();
    }
}

#[test]
fn files_that_damage_touches_are_named_and_the_others_are_proved() {
    let mut stored = Stored::new(Form { frame: 4096, ..Form::default() });
    let archive = stored.record.archives[1].clone();
    assert_eq!(archive.name, "base.tar.zst");
    let tar = stored.tar(&archive);
    let (last, at, size) = files_of(&tar)
        .into_iter()
        .rfind(|(path, _, size)| *size > 0 && path != b"global/pg_control")
        .unwrap();
    // Wrong content far behind the damage is found all the same.
    stored.change_tar("base", |tar| tar[at + size / 2] ^= 1);
    let file = stored.object("base.tar.zst");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let told = stored.told();
    let first = files_of(&tar)[0].0.clone();
    let starts = |path: &[u8], end: &str| {
        let head = format!("error base.tar.zst: {}", String::from_utf8_lossy(path));
        told.iter().any(|line| line.starts_with(&head) && line.contains(end))
    };
    assert!(starts(&first, "is damaged between bytes 0 and "), "{told:#?}");
    assert!(starts(&last, "its checksum differs"), "{told:#?}");
    assert_eq!(told.len(), 2, "{told:#?}");
}

#[test]
fn without_its_index_an_archive_is_read_as_a_stream() {
    let mut stored = Stored::new(Form::default());
    std::fs::remove_file(stored.object("base.tar.zst.index")).unwrap();
    let told = stored.told();
    assert_eq!(told, ["warning base.tar.zst.index: is missing"]);
    let at = files_of(&stored.tar(&stored.record.archives[1]))[0].1;
    stored.change_tar("base", |tar| tar[at] ^= 1);
    std::fs::remove_file(stored.object("base.tar.zst.index")).unwrap();
    let told = stored.told();
    assert!(told.len() == 2 && told[0].contains("its checksum differs"), "{told:#?}");
    let file = stored.object("base.tar.zst");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let told = stored.told();
    assert!(told.iter().any(|line| line.starts_with("error base.tar.zst")), "{told:#?}");
    assert!(!told.iter().any(|line| line.contains("is missing: the backup")), "{told:#?}");
}

#[test]
fn an_index_that_lies_is_told() {
    let mut stored = Stored::new(Form::default());
    let name = "base.tar.zst.index";
    let text = std::fs::read_to_string(stored.object(name)).unwrap();
    let line = text.lines().find(|line| line.contains("\"size\":") && line.contains("\"at\":")).unwrap();
    for lie in [
        text.replacen(line, &line.replacen("\"at\":", "\"at\":1", 1), 1),
        text.replacen(&format!("{line}\n"), "", 1),
        text.replacen(line, &format!("{line}\n{line}"), 1),
        text.replacen(line, &line.replacen("{\"file\":\"", "{\"file\":\"x", 1), 1),
    ] {
        std::fs::write(stored.object(name), &lie).unwrap();
        let index = stored.record.archives[1].index.as_mut().unwrap();
        (index.size, index.crc32c) = (lie.len() as u64, format!("{:08x}", crc32c::crc32c(lie.as_bytes())));
        stored.save();
        let told = stored.told();
        assert!(told.len() == 1 && told[0].starts_with(&format!("warning {name}: ")), "{told:#?}\n{lie}");
    }
}

#[test]
fn what_is_missing_or_too_much_is_told() {
    let mut stored = Stored::new(Form::default());
    let tar = stored.tar(&stored.record.archives[1]);
    let (path, at, size) = files_of(&tar).into_iter().find(|(_, _, size)| *size > 0).unwrap();
    let path = String::from_utf8(path).unwrap();
    // Without its header's block and content.
    stored.change_tar("base", |tar| drop(tar.drain(at - 512..at + size.next_multiple_of(512))));
    let told = stored.told();
    assert!(
        told.len() == 1 && told[0].starts_with(&format!("error base.tar.zst: {path}: is missing")),
        "{told:#?}"
    );
    let twice = |tar: &mut Vec<u8>| {
        let member = tar[at - 512..at + size.next_multiple_of(512)].to_vec();
        tar.splice(at - 512..at - 512, member);
    };
    let mut stored = Stored::new(Form::default());
    stored.change_tar("base", twice);
    assert!(stored.told()[0].contains("is there twice"), "{:#?}", stored.told());
    stored.record.files += 1;
    stored.record.parent = Some("20200101T000000Z-full".into());
    stored.save();
    let told = stored.told().join("\n");
    assert!(told.contains("files instead of the") && told.contains("its parent"), "{told}");
    std::fs::write(stored.object("notes.txt"), "x").unwrap();
    let rows = stored.rows(false, Level::Record, 1);
    assert!(rows.iter().any(|row| row.object.ends_with("notes.txt")), "{rows:#?}");
}

/// The largest file of an archive: its path in the manifest, and where it is.
fn largest(stored: &Stored, archive: usize) -> (Vec<u8>, usize, usize) {
    let archive = &stored.record.archives[archive];
    let files = files_of(&stored.tar(archive));
    let (path, at, size) = files.into_iter().max_by_key(|(_, _, size)| *size).unwrap();
    (super::super::backup::places::listed_path(archive.content, &path).unwrap().into_owned(), at, size)
}

#[test]
fn damaged_pages_are_found_wherever_frames_are_cut() {
    for frame in [5000, 8192, 50_000, 16 << 20] {
        let mut stored = Stored::new(Form { frame, ..Form::default() });
        let (path, at, size) = largest(&stored, 0);
        let path = String::from_utf8(path).unwrap();
        assert!(size > 20 * 8192 && path.starts_with("pg_tblspc/16400/"), "{path}");
        // A page as the server writes it, by its header: `pd_upper` is set, the LSN is old, the checksum is wrong.
        let page = |tar: &mut Vec<u8>, block: usize| {
            let page = &mut tar[at + block * 8192..][..8192];
            page.fill(7);
            page[..8].fill(0);
        };
        stored.change_tar("16400", |tar| {
            page(tar, 3);
            page(tar, 17);
        });
        stored.make_manifest();
        assert!(stored.told().is_empty(), "{:#?}", stored.told());
        let rows = stored.rows(true, Level::Pages, 3);
        assert_eq!(rows.len(), 1, "{frame}: {rows:#?}");
        assert!(rows[0].object.contains(&path) && rows[0].finding.ends_with("blocks 3, 17"), "{rows:#?}");
        let damage = |blocks: Vec<u32>| crate::repository::record::DamageRecord {
            path: path.clone(),
            relation: Some("public.t".into()),
            database: Some("db".into()),
            damaged_pages: blocks.len() as u64,
            blocks,
        };
        // What the record knows is told at every level, and once.
        (stored.record.damage, stored.record.damaged_pages) = (vec![damage(vec![3, 17])], 2);
        stored.save();
        for level in LEVELS {
            let rows = stored.rows(true, level, 1);
            let [row] = &rows[..] else { panic!("{rows:#?}") };
            assert_eq!(row.severity, Severity::Warning);
            assert!(row.object.ends_with("(public.t in database db)"), "{row:?}");
            assert_eq!(
                row.finding,
                "2 pages were damaged at the source when the backup was taken: blocks 3, 17"
            );
        }
        (stored.record.damage, stored.record.damaged_pages) = (vec![damage(vec![3])], 1);
        stored.save();
        let rows = stored.rows(true, Level::Pages, 1);
        assert!(rows.len() == 2 && rows.iter().any(|row| row.finding.ends_with("block 17")), "{rows:#?}");
    }
}

#[test]
fn records_of_its_own_wal_are_followed() {
    let mut stored = Stored::new(Form::default());
    let start = stored.record.start_lsn.unwrap().0 as usize % stored.record.wal_segment_size.bytes() as usize;
    let at = files_of(&stored.tar(&stored.record.archives[2]))[0].1;
    stored.change_tar("pg_wal", |tar| tar[at + start + 25] ^= 1);
    for level in [Level::Data, Level::Pages] {
        let rows = stored.rows(true, level, 1);
        assert!(rows.len() == 1 && rows[0].finding.contains("its records end at"), "{rows:#?}");
        assert!(rows[0].object.contains("pg_wal.tar.zst: 0000000100000000"), "{rows:#?}");
    }
    stored.change_tar("pg_wal", |tar| tar[at..at + 64].fill(b'w'));
    assert!(stored.told()[0].contains("WAL segment"), "{:#?}", stored.told());
    stored.change_tar("pg_wal", |tar| *tar = vec![0; 1024]);
    let told = stored.told();
    assert!(told.len() == 1 && told[0].ends_with("is missing: the backup needs it"), "{told:#?}");
}

#[test]
fn a_pg_control_of_another_cluster_is_told() {
    let mut stored = Stored::new(Form::default());
    stored.record.system_identifier = "1".into();
    let (from, to) = (stored.folder.clone(), stored.cluster.backup_folder(1, &stored.record.backup));
    let root = stored.cluster.storage().folder().to_path_buf();
    std::fs::create_dir_all(root.join(&to).parent().unwrap()).unwrap();
    std::fs::rename(root.join(from), root.join(&to)).unwrap();
    stored.folder = to;
    stored.save();
    stored.cluster.remember_system(1, 150_000).unwrap();
    let told = stored.told();
    assert!(told.iter().any(|line| line.contains("belongs to another cluster")), "{told:#?}");
    assert!(told.iter().any(|line| line.contains("WAL segment")), "{told:#?}");
}

#[test]
fn names_that_are_not_utf8_are_proved_too() {
    let mut stored = Stored::new(Form { frame: 700, ..Form::default() });
    let old = stored.tar(&stored.record.archives[1]);
    let (path, at, _) = files_of(&old)
        .into_iter()
        .find(|(path, _, size)| path.ends_with(b"PG_VERSION") && *size > 0)
        .unwrap();
    let odd = |tar: &mut Vec<u8>| {
        let header = &mut tar[at - 512..at];
        header[path.len() - 1] = 0xE9;
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    };
    stored.change_tar("base", odd);
    stored.make_manifest();
    assert!(stored.told().is_empty(), "{:#?}", stored.told());
    stored.change_tar("base", |tar| tar[at] ^= 1);
    let told = stored.told();
    assert!(told.len() == 1 && told[0].contains("PG_VERSIO\u{fffd}: is not what"), "{told:#?}");
}

#[test]
fn parents_must_be_there_and_complete_and_not_go_round() {
    let mut stored = Stored::new(Form::default());
    stored.record.parent = Some(stored.record.backup.clone());
    stored.save();
    assert!(stored.told()[0].contains("its parents run in a circle"), "{:#?}", stored.told());
}

#[test]
fn a_restore_stops_with_the_sentence_that_validate_prints() {
    let stored = Stored::new(Form::default());
    let file = stored.object("base.tar.zst");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let rows = stored.rows(true, Level::Data, 1);
    let target = tempfile::tempdir().unwrap();
    let request = crate::restore::Request {
        backup: "latest".into(),
        pgdata: target.path().join("data"),
        tablespaces: vec![(stored.record.tablespaces[0].path.clone(), target.path().join("ts"))],
        config: crate::restore::ConfigChoice::Skip,
        jobs: 1,
        ..Default::default()
    };
    let prepared = crate::restore::prepare(&stored.cluster, &request).unwrap();
    let error =
        crate::restore::run(stored.cluster.storage(), &prepared, &crate::restore::watch::Silent).unwrap_err();
    let sentence = format!("\"{}\" {}", file.display(), rows[0].finding);
    assert_eq!(error.to_string(), sentence);
}

#[test]
fn a_record_whose_names_lead_outside_is_told_and_ends_nothing_else() {
    let mut stored = Stored::new(Form::default());
    for name in ["../../../../pgark.json", "/etc/passwd", "a/b", "", "x\0y"] {
        stored.record.archives[0].volumes[0].name = name.into();
        stored.save();
        for backup in [true, false] {
            let rows = stored.rows(backup, Level::Data, 1);
            let [row] = &rows[..] else { panic!("{name:?}: {rows:#?}") };
            assert!(row.object.ends_with("/backup.json") && row.finding.contains("names"), "{row:?}");
        }
    }
}

#[test]
fn an_empty_segment_is_told_by_names_and_sizes_alone() {
    let mut stored = Stored::new(Form::default());
    stored.record.archives.retain(|archive| archive.content != ArchiveContent::Wal);
    stored.record.wal_included = false;
    stored.save();
    let archive = Archive::of(&stored.cluster, stored.record.system_identifier.parse().unwrap());
    let size = stored.record.wal_segment_size;
    let (start, stop) = (stored.record.start_lsn.unwrap(), stored.record.stop_lsn.unwrap());
    for number in size.segment_of(start)..=size.last_segment_before(stop) {
        let name = SegmentName { timeline: stored.record.timeline.unwrap(), number }.file_name(size);
        let path = format!("{}.zst", archive.path(&name).unwrap());
        archive.storage().put(&path, Vec::new()).unwrap();
    }
    for one in [true, false] {
        let rows = stored.rows(one, Level::Record, 1);
        let is_told = |row: &FindingRow| row.finding == "has 0 bytes: no segment is that small";
        assert!(rows.iter().any(is_told), "{rows:#?}");
    }
}

#[test]
fn a_cluster_without_a_complete_backup_is_an_error() {
    let mut stored = Stored::new(Form::default());
    stored.cluster.remember_system(1, 150_000).unwrap();
    let rows = stored.rows(false, Level::Record, 1);
    let [row] = &rows[..] else { panic!("{rows:#?}") };
    assert!(row.object == "main/1" && row.severity == Severity::Warning, "{row:?}");
    std::fs::remove_dir_all(stored.object("backup.json").parent().unwrap()).unwrap();
    let rows = stored.rows(false, Level::Record, 1);
    let is_told = |row: &FindingRow| row.severity == Severity::Error && row.object == "main";
    assert!(rows.iter().any(is_told), "{rows:#?}");
}

/// A member like `old`, of 1024 bytes or a header alone, under another name.
fn member_like(old: &[u8], name: &str, is_folder: bool) -> Vec<u8> {
    let mut member = old[..if is_folder { 512 } else { 1024 }].to_vec();
    member[..100].fill(0);
    member[..name.len()].copy_from_slice(name.as_bytes());
    if is_folder {
        member[124..135].fill(b'0');
        member[156] = b'5';
    }
    member[148..156].fill(b' ');
    let sum: u32 = member[..512].iter().map(|b| u32::from(*b)).sum();
    member[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    member
}

/// Where the header of a member stands in a tar.
fn header_of(tar: &[u8], name: &[u8]) -> usize {
    let is_it = |at: &usize| tar[*at..].starts_with(name) && tar[at + name.len()] == 0;
    (0..tar.len()).step_by(512).find(is_it).unwrap()
}

#[test]
fn folders_and_links_that_a_server_needs_are_missed() {
    for lacking in [None, Some("pg_notify"), Some("pg_multixact/members")] {
        let mut stored = Stored::new(Form::default());
        stored.change_tar("base", |tar| {
            let at = header_of(tar, b"PG_VERSION");
            let file = tar[at..at + 1024].to_vec();
            let folders = crate::verify::backup::walk::tops::NEEDED.into_iter();
            let mut members = member_like(&file, "pg_multixact/offsets/0000", false);
            for folder in folders.filter(|folder| Some(*folder) != lacking) {
                members.extend(member_like(&file, &format!("{folder}/"), true));
            }
            if lacking.is_some() {
                let link = header_of(tar, b"pg_tblspc/16400");
                drop(tar.drain(link..link + 512));
            }
            tar.splice(0..0, members);
        });
        stored.make_manifest();
        let expected = lacking.map(|lacking| {
            vec![
                format!("error base.tar.zst: lacks folders that the server needs: {lacking}"),
                "warning base.tar.zst: the link of tablespace 16400 is missing".to_string(),
            ]
        });
        assert_eq!(stored.told(), expected.unwrap_or_default());
    }
}

#[test]
fn a_lock_file_is_in_no_backup() {
    let mut stored = Stored::new(Form::default());
    stored.change_tar("base", |tar| {
        let at = header_of(tar, b"PG_VERSION");
        let member = member_like(&tar[at..at + 1024], "postmaster.pid", false);
        tar.splice(at..at, member);
    });
    stored.make_manifest();
    assert!(stored.told()[0].contains("it belongs to a running server"), "{:#?}", stored.told());
}

#[test]
fn latest_does_not_hide_a_later_backup_whose_record_is_damaged() {
    let stored = Stored::new(Form::default());
    let passed_over = || super::super::passed_over(&stored.cluster, &stored.record.backup).unwrap();
    assert!(passed_over().is_empty(), "{:#?}", passed_over());
    let later = stored.object("backup.json").parent().unwrap().with_file_name("20991122T020000Z-full");
    std::fs::create_dir_all(&later).unwrap();
    for name in ["base.tar.zst", "backup.json"] {
        std::fs::write(later.join(name), "{").unwrap();
        let rows = passed_over();
        let [row] = &rows[..] else { panic!("{name}: {rows:#?}") };
        assert!(row.object.ends_with("/20991122T020000Z-full") && row.severity == Severity::Error, "{row:?}");
    }
}

#[test]
fn what_is_no_file_is_told_and_ends_nothing() {
    for name in ["base.tar.zst", "base.tar.zst.index", "backup_manifest", "pg_wal.tar.zst"] {
        let stored = Stored::new(Form::default());
        std::fs::remove_file(stored.object(name)).unwrap();
        std::os::unix::net::UnixListener::bind(stored.object(name)).unwrap();
        for level in LEVELS {
            for one in [true, false] {
                let rows = stored.rows(one, level, 2);
                assert!(!rows.is_empty(), "{name}: {rows:#?}");
                assert!(
                    rows.iter().all(|row| row.object.starts_with(&stored.path(name))),
                    "{name}: {rows:#?}"
                );
            }
        }
    }
}

#[test]
fn names_that_look_alike_are_no_damage() {
    let mut stored = Stored::new(Form { frame: 700, ..Form::default() });
    stored.change_tar("base", |tar| {
        let at = header_of(tar, b"PG_VERSION");
        for last in [0xE9, 0xE8] {
            let mut member = member_like(&tar[at..at + 1024], "PG_VERSIOx", false);
            member[9] = last;
            member[148..156].fill(b' ');
            let sum: u32 = member[..512].iter().map(|b| u32::from(*b)).sum();
            member[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            tar.splice(0..0, member);
        }
    });
    stored.make_manifest();
    assert!(stored.told().is_empty(), "{:#?}", stored.told());
}
