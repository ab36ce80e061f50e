//! PostgreSQL judges our reading of its formats: each test makes a real cluster and compares what `postgres::*` says
//! with what the server or one of its tools says. `PG_CONFIG` chooses the version; run it for each supported one.

use pg_ark_contract::{Lsn, Timeline};
use pg_ark_engine::postgres::backup_label::{
    BackupFrom, BackupLabel, TablespaceEntry, format_tablespace_map, parse_tablespace_map,
};
use pg_ark_engine::postgres::control_file::{CONTROL_FILE, ControlFile};
use pg_ark_engine::postgres::data_directory::{self, Entry};
use pg_ark_engine::postgres::manifest::{Manifest, ManifestFile, ManifestWriter, crc32c_bytes};
use pg_ark_engine::postgres::page::PageCheck;
use pg_ark_engine::postgres::relation_file::RelationFile;
use pg_ark_engine::postgres::timeline::{TimelineHistory, history_file_name};
use pg_ark_engine::postgres::wal_segment::{ExpectedSegment, SegmentName, check_first_page};
use pg_ark_testkit::{Cluster, StopMode, chown_tree_to_server, run, run_ok};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn control(cluster: &Cluster) -> ControlFile {
    ControlFile::parse(&read(&cluster.data().join(CONTROL_FILE))).unwrap()
}

/// Every entry below `root`, by its path relative to it, and whether it is a folder. Links are followed.
fn tree(root: &Path) -> BTreeMap<String, bool> {
    let mut found = BTreeMap::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            let is_folder = root.join(&path).is_dir();
            if is_folder {
                folders.push(path.clone());
            }
            found.insert(path, is_folder);
        }
    }
    found
}

/// What pg_controldata must print for `file`.
fn control_data(file: &ControlFile) -> Vec<(&'static str, String)> {
    let word = |flag: bool, words: [&str; 2]| words[usize::from(flag)].to_owned();
    let time =
        |seconds| chrono::DateTime::from_timestamp(seconds, 0).unwrap().format("%a %b %e %T %Y").to_string();
    let redo_file = SegmentName {
        timeline: file.checkpoint_timeline,
        number: file.wal_segment_size.segment_of(file.redo),
    };
    let mut rows = vec![
        ("pg_control version number", file.control_version.to_string()),
        ("Catalog version number", file.catalog_version.to_string()),
        ("Database system identifier", file.system_identifier.to_string()),
        ("Database cluster state", file.state.to_string()),
        ("pg_control last modified", time(file.time)),
        ("Latest checkpoint location", file.checkpoint.to_string()),
        ("Latest checkpoint's REDO location", file.redo.to_string()),
        ("Latest checkpoint's REDO WAL file", redo_file.file_name(file.wal_segment_size)),
        ("Latest checkpoint's TimeLineID", file.checkpoint_timeline.to_string()),
        ("Latest checkpoint's PrevTimeLineID", file.checkpoint_previous_timeline.to_string()),
        ("Latest checkpoint's full_page_writes", word(file.full_page_writes, ["off", "on"])),
        ("Latest checkpoint's NextXID", format!("{}:{}", file.next_xid >> 32, file.next_xid as u32)),
        ("Latest checkpoint's NextOID", file.next_oid.to_string()),
        ("Time of latest checkpoint", time(file.checkpoint_time)),
        ("Minimum recovery ending location", file.min_recovery_point.to_string()),
        ("Min recovery ending loc's timeline", file.min_recovery_timeline.to_string()),
        ("Backup start location", file.backup_start_point.to_string()),
        ("Backup end location", file.backup_end_point.to_string()),
        ("End-of-backup record required", word(file.backup_end_required, ["no", "yes"])),
        ("wal_level setting", ["minimal", "replica", "logical"][file.wal_level as usize].to_owned()),
        ("wal_log_hints setting", word(file.wal_log_hints, ["off", "on"])),
        ("max_connections setting", file.max_connections.to_string()),
        ("max_worker_processes setting", file.max_worker_processes.to_string()),
        ("max_wal_senders setting", file.max_wal_senders.to_string()),
        ("max_prepared_xacts setting", file.max_prepared_transactions.to_string()),
        ("max_locks_per_xact setting", file.max_locks_per_transaction.to_string()),
        ("track_commit_timestamp setting", word(file.track_commit_timestamp, ["off", "on"])),
        ("Database block size", file.block_size.to_string()),
        ("Blocks per segment of large relation", file.relation_segment_blocks.to_string()),
        ("WAL block size", file.wal_block_size.to_string()),
        ("Bytes per WAL segment", file.wal_segment_size.bytes().to_string()),
        ("Data page checksum version", file.data_checksum_version.to_string()),
    ];
    if let Some(signed) = file.default_char_signedness {
        rows.push(("Default char data signedness", word(signed, ["unsigned", "signed"])));
    }
    rows
}

#[track_caller]
fn assert_same_control_data(cluster: &Cluster, state: &str) {
    let mut tool = cluster.pg().tool("pg_controldata");
    let text = run_ok(tool.env("TZ", "UTC").arg(cluster.data()));
    let printed: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.split_once(':')).map(|(k, v)| (k, v.trim())).collect();
    let file = control(cluster);
    assert_eq!(file.server_major(), Some(cluster.pg().major()));
    assert_eq!(file.state.name(), state);
    for (label, value) in control_data(&file) {
        assert_eq!(printed.get(label), Some(&value.as_str()), "{label}\n{text}");
    }
}

#[test]
fn the_control_file_is_read_as_pg_controldata_does() {
    let cluster = Cluster::builder()
        .checksums(false)
        .wal_segment_mb(4)
        .conf("wal_level = logical")
        .conf("max_connections = 37")
        .conf("max_worker_processes = 9")
        .conf("max_prepared_transactions = 5")
        .conf("max_locks_per_transaction = 71")
        .conf("track_commit_timestamp = on")
        .conf("wal_log_hints = on")
        .conf("full_page_writes = off")
        .start();
    cluster.psql("CHECKPOINT");
    assert_same_control_data(&cluster, "in production");
    let standby = cluster.create_standby(&[]);
    cluster.psql("CREATE TABLE t AS SELECT generate_series(1, 1000); CHECKPOINT");
    cluster.wait_for_standby(&standby);
    standby.psql("CHECKPOINT");
    assert_same_control_data(&standby, "in archive recovery");
    standby.stop(StopMode::Fast);
    assert_same_control_data(&standby, "shut down in recovery");
    cluster.stop(StopMode::Fast);
    assert_same_control_data(&cluster, "shut down");
}

/// The damaged pages of all relations of a stopped cluster, and how many pages there are.
fn damaged_pages(cluster: &Cluster) -> (Vec<(String, u32)>, usize) {
    let file = control(cluster);
    let check = PageCheck { block_size: file.block_size, start_lsn: Lsn(u64::MAX) };
    let (mut found, mut pages) = (Vec::new(), 0);
    for path in tree(cluster.data()).into_keys() {
        let Some(relation) = RelationFile::parse(&path) else { continue };
        let bytes = read(&cluster.data().join(&path));
        let mut blocks = Vec::new();
        check.damaged(&bytes, relation.first_block(file.relation_segment_blocks), &mut blocks);
        pages += bytes.len() / file.block_size as usize;
        found.extend(blocks.into_iter().map(|block| (path.clone(), block)));
    }
    (found, pages)
}

#[test]
fn damaged_pages_are_the_ones_that_pg_checksums_finds() {
    let cluster = Cluster::start_new();
    cluster.psql("CREATE TABLE t AS SELECT g, repeat('x', 500) FROM generate_series(1, 5000) g");
    let table = cluster.psql("SELECT pg_relation_filepath('t')");
    cluster.stop(StopMode::Fast);
    let verdict = || {
        let output = run(cluster.pg().tool("pg_checksums").arg("--check").arg("-D").arg(cluster.data()));
        format!("{}{}", output.stdout, output.stderr)
    };
    let number = |text: &str, label: &str| -> usize {
        let line = text.lines().find_map(|line| line.strip_prefix(label));
        line.unwrap_or_else(|| panic!("{text}")).trim().parse().unwrap()
    };
    let (found, pages) = damaged_pages(&cluster);
    assert_eq!(found, []);
    assert_eq!(number(&verdict(), "Blocks scanned:"), pages);

    let mut bytes = read(&cluster.data().join(&table));
    for at in [8192 + 4000, 3 * 8192 + 9, 7 * 8192 + 8191] {
        bytes[at] ^= 0x40;
    }
    fs::write(cluster.data().join(&table), bytes).unwrap();
    assert_eq!(damaged_pages(&cluster).0, [1, 3, 7].map(|block| (table.clone(), block)));
    let text = verdict();
    assert_eq!(number(&text, "Bad checksums:"), 3, "{text}");
    for block in [1, 3, 7] {
        assert!(text.contains(&format!("/{table}\", block {block}:")), "{text}");
    }
}

/// Checks the segments that the server has written to, and returns how many there are.
#[track_caller]
fn check_segments(cluster: &Cluster) -> usize {
    let file = control(cluster);
    let size = file.wal_segment_size;
    let newest = size.segment_of(file.checkpoint);
    let mut checked = 0;
    for path in tree(&cluster.data().join("pg_wal")).into_keys() {
        let Some(name) = SegmentName::parse(&path, size).filter(|name| name.number <= newest) else {
            continue;
        };
        let expected = ExpectedSegment {
            name,
            segment_size: size,
            system_identifier: file.system_identifier,
            server_major: Some(cluster.pg().major()),
        };
        let bytes = read(&cluster.data().join("pg_wal").join(&path));
        check_first_page(&bytes, &expected).unwrap();
        check_first_page(&bytes, &ExpectedSegment { name: name.next(), ..expected }).unwrap_err();
        checked += 1;
    }
    checked
}

#[test]
fn segments_are_named_and_headed_as_the_server_does() {
    for megabytes in [1, 16, 64] {
        let cluster = Cluster::builder().wal_segment_mb(megabytes).conf("wal_keep_size = 256MB").start();
        let size = control(&cluster).wal_segment_size;
        for lsn in [Lsn(0x0300_0028), Lsn(0x01_FFFF_FFFF), Lsn(0x0ABC_DEF0_1234_5678)] {
            let name = cluster.psql(&format!("SELECT pg_walfile_name('{lsn}')"));
            let ours = SegmentName { timeline: Timeline(1), number: size.segment_of(lsn) };
            assert_eq!(ours.file_name(size), name);
            assert_eq!(SegmentName::parse(&name, size), Some(ours));
        }
        cluster.psql("SELECT pg_switch_wal(); CREATE TABLE t AS SELECT generate_series(1, 1000)");
        cluster.stop(StopMode::Fast);
        assert!(check_segments(&cluster) >= 2);
    }
}

#[test]
fn a_promotion_is_read_from_its_history_file() {
    let cluster = Cluster::start_new();
    let standby = cluster.create_standby(&[]);
    cluster.psql("CREATE TABLE t AS SELECT generate_series(1, 1000)");
    cluster.wait_for_standby(&standby);
    standby.promote();
    standby.psql("CREATE TABLE u AS SELECT generate_series(1, 1000); CHECKPOINT");
    let now: Lsn = standby.psql("SELECT pg_current_wal_lsn()").parse().unwrap();
    let text = read(&standby.data().join("pg_wal").join(history_file_name(Timeline(2))));
    let history = TimelineHistory::parse(Timeline(2), &text).unwrap();
    assert_eq!(history.to_string().into_bytes(), text);
    let [parent] = &history.entries[..] else { panic!("{history:?}") };
    assert_eq!((parent.timeline, parent.reason.as_str()), (Timeline(1), "no recovery target specified"));
    assert_eq!(history.timeline_of(Lsn(parent.switch_lsn.0 - 1)), Timeline(1));
    assert_eq!(history.timeline_of(now), Timeline(2));
    standby.stop(StopMode::Fast);
    // The first segment of timeline 2 is a copy of timeline 1's up to the switch.
    assert!(check_segments(&standby) >= 2);
}

/// Takes a backup of nothing, and returns a column of `pg_backup_stop`.
fn backup(cluster: &Cluster, column: &str) -> String {
    cluster.psql(&format!(
        "\\o /dev/null\nSELECT pg_backup_start('my: label', true);\n\\o\n\
         SELECT rtrim({column}, E'\\n') FROM pg_backup_stop(false)"
    )) + "\n"
}

#[test]
fn the_label_and_the_map_are_read_as_the_server_wrote_them() {
    let cluster = Cluster::start_new();
    let folder = cluster.create_tablespace("back\\slash and space");
    cluster.psql("SET allow_in_place_tablespaces = on; CREATE TABLESPACE \"in place\" LOCATION ''");
    let label = BackupLabel::parse(backup(&cluster, "labelfile").as_bytes()).unwrap();
    assert_eq!(label.label.as_deref(), Some("my: label"));
    assert_eq!(label.from, Some(BackupFrom::Primary));
    assert_eq!((label.method.as_deref(), label.start_timeline), (Some("streamed"), Some(Timeline(1))));
    assert_eq!(label.start_file, cluster.psql(&format!("SELECT pg_walfile_name('{}')", label.start_lsn)));
    assert_eq!(label.checkpoint, control(&cluster).checkpoint);
    assert_eq!((label.incremental_from, label.stop_lsn), (None, None));

    let text = backup(&cluster, "spcmapfile");
    // The tablespace in place is not a link, so the map leaves it out.
    let oid = cluster.psql("SELECT oid FROM pg_tablespace WHERE spcname LIKE 'back%'").parse().unwrap();
    let expected = [TablespaceEntry { oid, path: folder.display().to_string() }];
    let map = parse_tablespace_map(text.as_bytes()).unwrap();
    assert_eq!(map, expected);
    assert_eq!(format_tablespace_map(&expected), text);

    // With an archive, the server also writes a backup history file.
    cluster.psql("ALTER SYSTEM SET archive_mode = on");
    cluster.restart();
    backup(&cluster, "labelfile");
    let wal = cluster.data().join("pg_wal");
    let name = tree(&wal).into_keys().find(|name| !name.contains('/') && name.ends_with(".backup")).unwrap();
    let label = BackupLabel::parse(&read(&wal.join(name))).unwrap();
    assert!(label.stop_lsn > Some(label.start_lsn) && label.stop_timeline == Some(Timeline(1)));
}

#[test]
fn the_same_files_are_kept_as_by_pg_basebackup() {
    let cluster = Cluster::builder().conf("autovacuum = off").start();
    cluster.create_tablespace("side");
    cluster.psql("SET allow_in_place_tablespaces = on; CREATE TABLESPACE inside LOCATION ''");
    cluster.psql(
        "CREATE UNLOGGED TABLE x TABLESPACE inside AS SELECT 1; CREATE TABLE y (i int) TABLESPACE inside;
         CREATE UNLOGGED TABLE u AS SELECT generate_series(1, 100000) g; CREATE INDEX ON u (g); VACUUM u;
         CREATE UNLOGGED TABLE v TABLESPACE side AS SELECT 1; CREATE TABLE w (i int) TABLESPACE side; CHECKPOINT",
    );
    let base = cluster.data();
    for path in [
        "backup_manifest",
        "base/pgsql_tmp/pgsql_tmp1.0",
        "base/5/t3_99999_fsm.1",
        "global/pg_internal.init.7",
    ] {
        fs::create_dir_all(base.join(path).parent().unwrap()).unwrap();
        fs::write(base.join(path), "x").unwrap();
    }
    chown_tree_to_server(base);
    let copy = cluster.base().join("copy");
    let side = |path: &str| cluster.base().join(path).display().to_string();
    let mut tool = cluster.client("pg_basebackup");
    tool.arg("-T").arg(format!("{}={}", side("tablespace side"), side("copy of side")));
    run_ok(tool.args(["-X", "none", "-c", "fast", "-D"]).arg(&copy));

    let all = tree(base);
    let mut kept: BTreeMap<String, bool> = BTreeMap::new();
    for (path, is_folder) in &all {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        match data_directory::judge(path, |name| all.contains_key(&format!("{folder}/{name}"))) {
            Entry::Skip => {}
            Entry::EmptyDirectory | Entry::Keep => drop(kept.insert(path.clone(), *is_folder)),
        }
    }
    let folders = data_directory::wal_subdirectories(cluster.pg().major());
    kept.extend(folders.iter().map(|path| ((*path).to_owned(), true)));
    kept.extend(["backup_label", "backup_manifest"].map(|file| (file.to_owned(), false)));
    assert_eq!(kept, tree(&copy));
}

#[test]
fn our_manifest_is_the_servers_byte_for_byte() {
    let cluster = Cluster::start_new();
    cluster.psql("CREATE TABLE t AS SELECT generate_series(1, 1000)");
    for name in [&b"gr\xFC\xDFe"[..], b"a \"quoted\" name", "grüße".as_bytes(), b"line\nend"] {
        fs::write(cluster.data().join(OsStr::from_bytes(name)), "x").unwrap();
    }
    let system_identifier = control(&cluster).system_identifier;
    for algorithm in ["CRC32C", "SHA256", "NONE"] {
        let copy = cluster.base().join(algorithm);
        let mut tool = cluster.client("pg_basebackup");
        run_ok(tool.args(["-c", "fast", "--manifest-checksums", algorithm, "-D"]).arg(&copy));
        let theirs = read(&copy.join("backup_manifest"));
        let mut files: Vec<ManifestFile> = Vec::new();
        let keep = |file| {
            files.push(file);
            Ok(())
        };
        let manifest = Manifest::read(&theirs[..], keep).unwrap();
        let expected = (cluster.pg().major() >= 17).then_some(system_identifier);
        assert_eq!((manifest.system_identifier, manifest.files), (expected, files.len() as u64));

        let mut writer = ManifestWriter::new(Vec::new(), manifest.version, system_identifier).unwrap();
        for file in &files {
            let checksum = file.checksum.as_ref().map(|(algorithm, sum)| (algorithm.name(), &sum[..]));
            writer.file(&file.path, file.size, file.modified.unwrap(), checksum).unwrap();
            if algorithm == "CRC32C" && file.path != b"global/pg_control" {
                let bytes = read(&copy.join(OsStr::from_bytes(&file.path)));
                assert_eq!(checksum.unwrap().1, crc32c_bytes(crc32c::crc32c(&bytes)));
            }
        }
        writer.wal_ranges(&manifest.wal_ranges).unwrap();
        let ours = writer.finish().unwrap();
        assert!(ours == theirs, "{algorithm}: {}", String::from_utf8_lossy(&ours));
        fs::write(copy.join("backup_manifest"), &ours).unwrap();
        run_ok(cluster.pg().tool("pg_verifybackup").arg(&copy));
    }
}
