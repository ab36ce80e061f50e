//! Every layout of a cluster survives: backup, loss of everything, `pgark restore`, start, equal data.

use crate::support::{Ready, enabled, fails_with, names_below, pgark_of, ready, ready_with};
use pg_ark_contract::ErrorKind;
use pg_ark_testkit::{Checksums, Cluster, Repo, Scratch, assert_same_data, command, file_url, run, run_ok};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

const FILL: &str = "CREATE TABLE numbers AS SELECT i, md5(i::text) AS t FROM generate_series(1, 20000) i;
                    CREATE INDEX ON numbers (i); CREATE SEQUENCE steps; SELECT setval('steps', 4711)";

/// A server that was lost and restored, and what it held.
struct Back {
    backup: String,
    original: Checksums,
}

/// Takes a backup with `settings` (SQL), destroys the server and restores it with more `options` of pgark.
#[track_caller]
fn lose_and_restore(ready: &Ready, settings: &str, options: &[String]) -> Back {
    let server = &ready.server;
    let original = server.checksums();
    let backup = server.psql(&format!("{settings}; SELECT ark.backup_start(wait => true)"));
    server.destroy();
    run(ready.pgark().arg("restore").arg(&backup).arg("--pgdata").arg(server.data()).args(options)).ok();
    Back { backup, original }
}

impl Back {
    /// Lets PostgreSQL judge the restored files, starts the server, and compares.
    #[track_caller]
    fn assert_equal(&self, ready: &Ready, verify: &[&str]) {
        let server = &ready.server;
        run_ok(server.pg().tool("pg_verifybackup").args(verify).arg(server.data()));
        server.start();
        assert_same_data(&self.original, &server.checksums());
        assert_eq!(timeline(server), 2, "a restored server has a timeline of its own");
    }
}

fn timeline(server: &Cluster) -> u32 {
    let name = server.psql("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)");
    u32::from_str_radix(&name, 16).expect("a timeline")
}

/// The whole way with the same data directory and no options.
#[track_caller]
fn survives(ready: &Ready, settings: &str) -> Back {
    let back = lose_and_restore(ready, settings, &[]);
    back.assert_equal(ready, &[]);
    back
}

/// A path, and its mode in octal.
type Mode = (String, String);

/// Modes of a folder and of everything below it: folders, files.
fn modes(folder: &Path) -> (Vec<Mode>, Vec<Mode>) {
    let (mut folders, mut files, mut todo) = (Vec::new(), Vec::new(), vec![folder.to_path_buf()]);
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).expect("a restored file");
        let entry = (path.display().to_string(), format!("{:o}", meta.mode() & 0o7777));
        if meta.is_dir() {
            folders.push(entry);
            todo.extend(fs::read_dir(&path).expect("a folder").flatten().map(|entry| entry.path()));
        } else if meta.is_file() {
            files.push(entry);
        }
    }
    (folders, files)
}

/// Fails unless every folder and file, `least` of them, has its mode.
#[track_caller]
fn assert_modes(folder: &Path, folder_mode: &str, file_mode: &str, least: usize) {
    let (folders, files) = modes(folder);
    let folders_differ: Vec<_> = folders.iter().filter(|(_, mode)| mode != folder_mode).collect();
    let files_differ: Vec<_> = files.iter().filter(|(_, mode)| mode != file_mode).collect();
    assert!(folders_differ.is_empty() && files_differ.is_empty(), "{folders_differ:?} {files_differ:?}");
    assert!(files.len() >= least, "{} files", files.len());
}

/// `--tablespace OLD=NEW`.
fn mapping(old: &Path, new: &Path) -> [String; 2] {
    let escaped = |path: &Path| path.display().to_string().replace('=', "\\=");
    ["--tablespace".to_string(), format!("{}={}", escaped(old), new.display())]
}

#[test]
fn wal_segments_of_1_mb() {
    let ready = ready(Cluster::builder().wal_segment_mb(1));
    ready.server.psql(FILL);
    survives(&ready, "");
    assert_eq!(ready.server.psql("SHOW wal_segment_size"), "1MB");
}

#[test]
fn wal_segments_of_64_mb_and_a_pg_wal_elsewhere_that_comes_back_as_a_folder() {
    let ready = ready(Cluster::builder().wal_segment_mb(64).external_waldir());
    ready.server.psql(FILL);
    let wal = ready.server.data().join("pg_wal");
    assert!(wal.is_symlink());
    let back = lose_and_restore(&ready, "", &[]);
    assert!(wal.is_dir() && !wal.is_symlink(), "a folder by default");
    back.assert_equal(&ready, &[]);
}

#[test]
fn a_pg_wal_elsewhere_goes_to_waldir() {
    let ready = ready(Cluster::builder().external_waldir());
    ready.server.psql(FILL);
    let target = ready.server.base().join("new wal");
    let option = ["--waldir".to_string(), target.display().to_string()];
    let back = lose_and_restore(&ready, "", &option);
    assert_eq!(fs::read_link(ready.server.data().join("pg_wal")).expect("a link"), target);
    assert_modes(ready.server.data(), "700", "600", 500);
    back.assert_equal(&ready, &[]);
    assert!(names_below(&target).iter().any(|name| name == "00000002.history"), "WAL is written there");
}

#[test]
fn a_cluster_without_page_checksums() {
    let ready = ready(Cluster::builder().checksums(false));
    ready.server.psql(FILL);
    survives(&ready, "");
    assert_eq!(ready.server.psql("SHOW data_checksums"), "off");
}

#[test]
fn names_with_spaces_and_other_letters() {
    let builder = Cluster::builder().directory_name("données d'été 1").conf("pg_ark.cluster = 'größe 2'");
    let ready = ready_with(builder, Repo::named("dépôt \"un\" & 100%"));
    let server = &ready.server;
    server.create_tablespace("été = 2");
    server.psql("CREATE DATABASE \"zweite 'Datenbank' ß\" TABLESPACE \"été = 2\"");
    server.psql_db(
        "zweite 'Datenbank' ß",
        "CREATE SCHEMA \"ein Schema\"; CREATE TABLE \"ein Schema\".\"tá;blé\" AS SELECT 'ü' AS \"spä\\lte\"",
    );
    // pgark finds the only cluster in the repository.
    let back = survives(&ready, "");
    assert!(ready.repo.path().join("größe 2").join("cluster.json").is_file());
    let shown = run(ready.pgark().args(["--cluster", "größe 2", "show", &back.backup])).ok();
    assert!(shown.contains("données d'été 1") && shown.contains("été = 2"), "{shown}");
}

#[test]
fn group_access_is_kept() {
    let ready = ready(Cluster::builder().group_access());
    let space = ready.server.create_tablespace("fast");
    ready.server.psql(FILL);
    ready.server.psql("CREATE TABLE there TABLESPACE fast AS SELECT 1 AS i");
    let back = lose_and_restore(&ready, "", &[]);
    assert_modes(ready.server.data(), "750", "640", 500);
    assert_modes(&space, "750", "640", 1);
    back.assert_equal(&ready, &[]);
}

#[test]
fn two_tablespaces_come_back_in_place() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    let spaces = [server.create_tablespace("one"), server.create_tablespace("two")];
    server.psql("CREATE TABLE first TABLESPACE one AS SELECT i FROM generate_series(1, 1000) i");
    server.psql("CREATE TABLE second TABLESPACE two AS SELECT i FROM generate_series(1, 1000) i");
    let back = lose_and_restore(&ready, "", &[]);
    assert_modes(server.data(), "700", "600", 500);
    for space in &spaces {
        assert_modes(space, "700", "600", 1);
    }
    back.assert_equal(&ready, &[]);
}

#[test]
fn tablespaces_go_where_they_are_mapped() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    let (old, kept) = (server.create_tablespace("one=1"), server.create_tablespace("two"));
    server.psql("CREATE TABLE first TABLESPACE \"one=1\" AS SELECT i FROM generate_series(1, 1000) i");
    server.psql("CREATE TABLE second TABLESPACE two AS SELECT i FROM generate_series(1, 1000) i");
    let new = server.base().join("neu = \\ 1");
    let back = lose_and_restore(&ready, "", &mapping(&old, &new));
    assert!(!old.exists() && kept.is_dir() && new.is_dir());
    let map = fs::read_to_string(server.data().join("tablespace_map")).expect("tablespace_map");
    let mut places: Vec<&str> =
        map.lines().filter_map(|line| line.split_once(' ')).map(|(_, to)| to).collect();
    places.sort_unstable();
    // A backslash is doubled, as in what the server writes (xlog.c, do_pg_backup_start).
    let mut expected = [new.display().to_string().replace('\\', "\\\\"), kept.display().to_string()];
    expected.sort();
    assert_eq!(places, expected);
    // The map is a file of the backup, and it had to change.
    back.assert_equal(&ready, &["--ignore=tablespace_map"]);
    let at = server.psql("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'one=1'");
    assert_eq!(Path::new(&at), new);
}

#[test]
fn a_tablespace_inside_the_data_directory() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    server.psql("SET allow_in_place_tablespaces = on; CREATE TABLESPACE inside LOCATION ''");
    server.psql("CREATE TABLE there TABLESPACE inside AS SELECT i FROM generate_series(1, 5000) i");
    let file = server.psql("SELECT pg_relation_filepath('there')");
    let back = lose_and_restore(&ready, "", &[]);
    let record = run(ready.pgark().args(["--format", "json", "show", &back.backup])).ok();
    let record: serde_json::Value = serde_json::from_str(&record).expect("JSON");
    assert_eq!(record["tablespaces"], serde_json::json!([]), "it is part of base.tar");
    assert!(server.data().join(file).is_file());
    back.assert_equal(&ready, &[]);
}

#[test]
fn an_empty_database_and_one_that_takes_no_connections() {
    let ready = ready(Cluster::builder());
    ready.server.psql("CREATE DATABASE nothing");
    ready.server.psql("CREATE DATABASE closed ALLOW_CONNECTIONS false");
    survives(&ready, "");
    assert_eq!(ready.server.psql_db("nothing", "SELECT count(*) FROM pg_stat_user_tables"), "0");
}

#[test]
fn unlogged_tables_are_empty_and_temporary_ones_gone() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    let space = server.create_tablespace("fast");
    server.psql(
        "CREATE UNLOGGED TABLE fleeting (i int PRIMARY KEY); INSERT INTO fleeting SELECT generate_series(1, 5000);
         CREATE UNLOGGED TABLE elsewhere TABLESPACE fast AS SELECT i FROM generate_series(1, 5000) i;
         CREATE UNLOGGED SEQUENCE jumps; SELECT nextval('jumps')",
    );
    let mut session = server.session();
    session
        .ask("CREATE TEMP TABLE mine AS SELECT i FROM generate_series(1, 5000) i; CREATE INDEX ON mine (i)");
    session.ask("CREATE TEMP TABLE also TABLESPACE fast AS SELECT 1 AS i");
    let file = |name: &str, ask: &mut dyn FnMut(&str) -> String| {
        ask(&format!("SELECT pg_relation_filepath('{name}')"))
    };
    let fleeting = PathBuf::from(file("fleeting", &mut |sql| server.psql(sql)));
    let temporary = file("mine", &mut |sql| session.ask(sql));
    assert!(server.data().join(&temporary).is_file(), "{temporary}");

    let back = lose_and_restore(&ready, "", &[]);
    let data = server.data();
    assert!(!data.join(&fleeting).exists() && !data.join(&temporary).exists());
    let init = format!("{}_init", fleeting.display());
    assert!(data.join(&init).is_file(), "the empty twin {init}");
    let is_temporary = |name: &String| {
        let file = name.rsplit('/').next().unwrap_or_default();
        file.strip_prefix('t').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let left: Vec<String> =
        names_below(data).into_iter().chain(names_below(&space)).filter(is_temporary).collect();
    assert!(left.is_empty(), "temporary files: {left:?}");
    back.assert_equal(&ready, &[]);
    let counts = "SELECT (SELECT count(*) FROM fleeting), (SELECT count(*) FROM elsewhere)";
    assert_eq!(server.psql(counts), "0|0");
    server.psql("INSERT INTO fleeting VALUES (1); INSERT INTO elsewhere VALUES (1)");
    server.amcheck();
}

#[test]
fn a_manifest_with_sha256() {
    let ready = ready(Cluster::builder());
    ready.server.psql(FILL);
    survives(&ready, "SET pg_ark.checksum = 'sha256'");
    let manifest = fs::read_to_string(ready.server.data().join("backup_manifest")).expect("the manifest");
    assert!(manifest.contains("\"SHA256\"") && !manifest.contains("\"CRC32C\""));
}

#[test]
fn every_codec_comes_back() {
    let ready = ready(Cluster::builder());
    ready.server.create_tablespace("fast");
    ready.server.pgbench(&["-i", "-q", "-s", "1", "--tablespace=fast"]);
    let original = ready.server.checksums();
    for (codec, suffix) in
        [("zstd", ".zst"), ("zstd:19", ".zst"), ("lz4", ".lz4"), ("gzip:9", ".gz"), ("none", "")]
    {
        let start = format!("SET pg_ark.compression = '{codec}'; SELECT ark.backup_start(wait => true)");
        let backup = ready.server.psql(&start);
        let archive = ready.backup_folder(&backup).join(format!("base.tar{suffix}"));
        assert!(archive.is_file(), "{archive:?}");
        let copy = ready.restore_beside(&backup);
        assert_same_data(&original, &copy.server.checksums());
    }
}

#[test]
fn several_volumes_come_back() {
    let ready = ready(Cluster::builder());
    ready.server.pgbench(&["-i", "-q", "-s", "3"]);
    let original = ready.server.checksums();
    let settings = "SET pg_ark.compression = 'none'; SET pg_ark.volume_size = '8MB'";
    let backup = ready.server.psql(&format!("{settings}; SELECT ark.backup_start(wait => true)"));
    let folder = ready.backup_folder(&backup);
    let mut volumes: Vec<PathBuf> =
        fs::read_dir(&folder).expect("the backup").flatten().map(|f| f.path()).collect();
    volumes.retain(|path| {
        path.display().to_string().contains("base.tar") && path.extension().is_none_or(|e| e != "index")
    });
    volumes.sort();
    assert!(volumes.len() >= 5, "{volumes:?}");
    let too_large = |path: &&PathBuf| fs::metadata(path).expect("a volume").len() > 8 << 20;
    assert_eq!(volumes.iter().find(too_large), None);

    // By hand: the volumes one after the other are the archive.
    let scratch = Scratch::new("volumes");
    let data = scratch.folder("data");
    let script = "set -e; cd \"$BACKUP\"; cat base.tar base.tar.0* | tar x -C \"$DATA\"; \
                  cat pg_wal.tar pg_wal.tar.0* | tar x -C \"$DATA/pg_wal\"";
    run_ok(command("/bin/sh").arg("-c").arg(script).env("BACKUP", &folder).env("DATA", &data));
    let by_hand = Cluster::open_restored_with(ready.server.pg(), &data);
    by_hand.start();
    assert_same_data(&original, &by_hand.checksums());
    drop(by_hand);

    let copy = ready.restore_beside(&backup);
    assert_same_data(&original, &copy.server.checksums());
}

#[test]
fn a_restored_server_goes_on_in_the_same_repository() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    server.pgbench(&["-i", "-q", "-s", "1"]);
    let first = survives(&ready, "").backup;
    server.pgbench(&["-n", "-t", "100"]);
    let back = lose_and_restore(&ready, "", &[]);
    run_ok(server.pg().tool("pg_verifybackup").arg(server.data()));
    server.start();
    assert_same_data(&back.original, &server.checksums());
    assert_eq!(timeline(server), 3);
    assert_ne!(first, back.backup);
    let rows = server.psql("SELECT status, timeline FROM ark.list_backups() ORDER BY started_at");
    assert_eq!(rows, "complete|1\ncomplete|2");
    // The older one is as good as before.
    let copy = ready.restore_beside(&first);
    assert_eq!(copy.server.balances().transactions, 0);
}

#[test]
fn a_repository_behind_a_link() {
    let (repo, scratch) = (Repo::new(), Scratch::new("link"));
    let link = scratch.path().join("to repository");
    symlink(repo.path(), &link).expect("a link");
    let ready = enabled(Cluster::start_new(), repo);
    ready.server.psql(&format!("SELECT * FROM ark.enable('{}')", file_url(&link)));
    ready.server.psql(FILL);
    let original = ready.server.checksums();
    let backup = ready.take_backup();
    ready.server.destroy();
    let mut pgark = command(pgark_of(ready.server.pg()));
    pgark.arg("--repo").arg(file_url(&link)).args(["restore", &backup, "--pgdata"]).arg(ready.server.data());
    run(&mut pgark).ok();
    ready.server.start();
    assert_same_data(&original, &ready.server.checksums());
}

#[test]
fn a_tablespace_that_is_dropped_while_a_backup_runs() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    let space = server.create_tablespace("short lived");
    server.psql("CREATE TABLE there TABLESPACE \"short lived\" AS SELECT i FROM generate_series(1, 5000) i");
    server.psql(FILL);
    let running = ready.start_slow(8192);
    server.psql("DROP TABLE there; CHECKPOINT; DROP TABLESPACE \"short lived\"");
    fs::remove_dir_all(&space).expect("its folder");
    ready.wait_for_end(&running);
    let original = server.checksums();
    server.destroy();
    ready.restore_in_place(&running.backup);
    server.start();
    assert_same_data(&original, &server.checksums());
}

#[test]
fn a_tablespace_that_is_created_while_a_backup_runs() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    server.psql(FILL);
    let running = ready.start_slow(8192);
    let space = server.create_tablespace("new");
    server.psql("CREATE TABLE there TABLESPACE new AS SELECT i FROM generate_series(1, 5000) i");
    ready.wait_for_end(&running);
    let original = server.checksums();
    // Beside the original its copy would write into the original's tablespace.
    let room = Scratch::new("room");
    let mut beside = ready.pgark();
    beside.args(["restore", &running.backup, "--pgdata"]).arg(room.path().join("data"));
    let refused = fails_with(&mut beside, i32::from(ErrorKind::TargetNotEmpty.exit_code()));
    let place = space.display().to_string();
    assert!(
        refused.stderr.contains(&place) && refused.stderr.contains("while this backup was taken"),
        "{refused}"
    );
    assert!(names_below(room.path()).is_empty());

    server.destroy();
    let plan = run(beside.arg("--dry-run")).ok();
    assert!(plan.contains(&format!("New tablespace:    {place}")), "{plan}");
    ready.restore_in_place(&running.backup);
    assert_modes(&space, "700", "", 0);
    server.start();
    assert_same_data(&original, &server.checksums());
}
