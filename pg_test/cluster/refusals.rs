//! What bad input gets, before anything is touched: an SQLSTATE of its own, a message that names what is wrong, a
//! hint that says what to do. Nothing appears in the repository or in the data directory.

use crate::support::{Ready, enabled, names_below, ready};
use pg_ark_testkit::{Cluster, LONG, Repo, Scratch, SqlError, Tmpfs, file_url, run_ok, wait_until};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

/// Runs SQL that must fail with this SQLSTATE, these words anywhere in the error, and a hint.
#[track_caller]
fn refused(server: &Cluster, sql: &str, state: &str, words: &[&str]) -> SqlError {
    let error = refused_by_server(server, sql, state, words);
    assert!(!error.hint().is_empty(), "{sql}: without a hint: {error}");
    error
}

/// [`refused`] for errors that PostgreSQL itself words.
#[track_caller]
fn refused_by_server(server: &Cluster, sql: &str, state: &str, words: &[&str]) -> SqlError {
    let error = server.try_psql(sql).expect_err(sql);
    assert_eq!(error.sqlstate(), state, "{sql}: {error}");
    let missing = words.iter().find(|word| !error.stderr.contains(**word));
    assert_eq!(missing, None, "{sql}: {error}");
    error
}

fn with_extension(server: Cluster) -> Cluster {
    server.psql("CREATE EXTENSION pg_ark");
    server
}

/// Fails when a part of a repository lies in the folder.
#[track_caller]
fn assert_no_repository_in(folder: &Path) {
    let ours = |name: &String| {
        ["pgark.json", "backup.json", "lease.json", "probe-"].iter().any(|o| name.contains(o))
    };
    let found: Vec<_> = names_below(folder).into_iter().filter(ours).collect();
    assert!(found.is_empty(), "{found:?} in {folder:?}");
}

const BACKUP: &str = "SELECT ark.backup_start()";
const LIST: &str = "SELECT * FROM ark.list_backups()";
const UNKNOWN: &str = "20000101T000000Z-full";

fn enable(path: &Path) -> String {
    format!("SELECT * FROM ark.enable('{}')", file_url(path))
}

#[test]
fn without_a_repository_every_function_says_how_to_get_one() {
    let server = with_extension(Cluster::start_new());
    let (show, stop) =
        (format!("SELECT ark.show('{UNKNOWN}')"), format!("SELECT ark.backup_stop('{UNKNOWN}')"));
    for sql in [BACKUP, LIST, &show, &stop] {
        refused(&server, sql, "55000", &["pg_ark.repository", "ark.enable"]);
    }
    let check = "SELECT status, hint LIKE '%ark.enable%' FROM ark.check() WHERE item = 'pg_ark.repository'";
    assert_eq!(server.psql(check), "error|t");
}

#[test]
fn a_folder_that_cannot_be_a_repository_is_not_enabled() {
    let server = with_extension(Cluster::builder().external_waldir().start());
    let scratch = Scratch::new("places");
    let place = |name: &str| scratch.path().join(name);

    let closed = scratch.folder("closed");
    let _ = chown(&closed, Some(0), Some(0)); // As another user than root it stays ours, and closed to writers.
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).expect("chmod");
    let readable = scratch.folder("readable");
    let _ = chown(&readable, Some(0), Some(0));
    fs::set_permissions(&readable, fs::Permissions::from_mode(0o555)).expect("chmod");
    fs::write(place("file"), "a file").expect("a file");
    let thesis = scratch.folder("documents");
    fs::write(thesis.join("thesis.txt"), "years of work").expect("a file");
    let newer = scratch.folder("newer");
    fs::write(newer.join("pgark.json"), r#"{"format": 2, "id": "x", "created_at": "2030-01-01T00:00:00Z"}"#)
        .expect("a file");
    let broken = scratch.folder("broken");
    fs::write(broken.join("pgark.json"), "{").expect("a file");
    let tablespace = server.create_tablespace("fast");
    symlink(server.data(), place("link")).expect("a link");

    let data = server.data();
    let before = names_below(scratch.path());
    let cases = [
        (closed.clone(), "42501", "closed"),
        (closed.join("backups"), "42501", "closed/backups"),
        (readable.clone(), "42501", "readable"),
        (place("file"), "58030", "not a directory"),
        (place("file").join("backups"), "58030", "file/backups"),
        (data.to_path_buf(), "58030", "inside"),
        (data.join("backups"), "58030", "inside"),
        (place("link").join("backups"), "58030", "inside"),
        (data.join("pg_wal/backups"), "58030", "inside"),
        (data.join("pg_wal").canonicalize().expect("a link").join("backups"), "58030", "inside"),
        (tablespace.join("backups"), "58030", "inside"),
        (newer, "0A000", "format 2"),
        (broken, "XX001", "pgark.json"),
        (thesis, "58030", "thesis.txt"),
    ];
    for (path, state, word) in &cases {
        refused(&server, &enable(path), state, &[word]);
    }
    assert_eq!(names_below(scratch.path()), before);
    for folder in [data, &tablespace] {
        assert_no_repository_in(folder);
    }
    let urls = [
        ("'/var/backups'", "22023"),
        ("'backups'", "22023"),
        ("''", "22023"),
        ("'file://backups'", "22023"),
        ("'file://host/backups'", "22023"),
        ("'file:///'", "22023"),
        ("'file:///backups?x=1'", "22023"),
        ("'ftp://host/backups'", "22023"),
        ("E'file:///tmp/a\\nb'", "22023"),
        ("'s3://bucket/prefix'", "0A000"),
        ("'gs://bucket'", "0A000"),
        ("'az://container'", "0A000"),
    ];
    for (url, state) in urls {
        refused(&server, &format!("SELECT * FROM ark.enable({url})"), state, &["file:///"]);
    }
    refused(&server, LIST, "55000", &["ark.enable"]); // Nothing was set.
}

#[test]
fn a_full_disk_is_told_before_anything_is_written() {
    let server = with_extension(Cluster::start_new());
    let disk = Tmpfs::new(1 << 20);
    let filler = disk.path().join("filler");
    let full = fs::write(&filler, vec![0; 2 << 20]).expect_err("it does not fit");
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let path = disk.path().join("repository");
    refused(&server, &enable(&path), "53100", &["repository", "No space left"]);
    assert_eq!(names_below(disk.path()), ["filler"]);
    refused(&server, LIST, "55000", &["ark.enable"]);

    fs::remove_file(&filler).expect("the filler");
    server.psql(&enable(&path));
    refused(&server, BACKUP, "53100", &["left", "Free some space"]);
    assert_eq!(names_below(disk.path()), ["repository/pgark.json"]);
}

#[test]
fn a_repository_that_was_spoiled_later_is_refused_by_each_call() {
    let ready = ready(Cluster::builder());
    let (server, repo) = (&ready.server, ready.repo.path());
    let record = repo.join("pgark.json");
    let before = fs::read(&record).expect("the repository's record");
    for (content, state) in [(r#"{"format": 2}"#, "0A000"), ("nonsense", "XX001"), ("", "XX001")] {
        fs::write(&record, content).expect("another record");
        for sql in [BACKUP, LIST] {
            refused(server, sql, state, &["pgark.json"]);
        }
    }
    fs::remove_file(&record).expect("the repository's record");
    for sql in [BACKUP, LIST] {
        refused(server, sql, "58P01", &["If it was there before"]);
    }
    assert_eq!(names_below(repo), Vec::<String>::new());
    fs::write(&record, before).expect("the old record");
    let _ = chown(repo, Some(0), Some(0));
    fs::set_permissions(repo, fs::Permissions::from_mode(0o555)).expect("chmod");
    run_ok(std::process::Command::new("chmod").arg("a+r").arg(&record));
    refused(server, BACKUP, "42501", &["permissions"]);
    assert_eq!(names_below(repo), ["pgark.json"]);
    let check = "SELECT status FROM ark.check() WHERE item = 'repository write'";
    assert_eq!(server.psql(check), "error");
}

#[test]
fn a_server_that_cannot_be_backed_up_says_which_setting_to_change() {
    let repo = Repo::new();
    let minimal = Cluster::builder().conf("wal_level = minimal").conf("max_wal_senders = 0");
    let ready = enabled(minimal.conf("max_replication_slots = 0").start(), repo);
    let server = &ready.server;
    refused(server, BACKUP, "55000", &["wal_level", "restart"]);
    server.configure(&["wal_level = replica"]);
    server.restart();
    refused(server, BACKUP, "55000", &["max_replication_slots", "restart"]);
    let item = |name: &str| server.psql(&format!("SELECT status FROM ark.check() WHERE item = '{name}'"));
    assert_eq!((item("wal_level"), item("max_replication_slots")), ("ok".into(), "error".into()));

    server.configure(&["max_replication_slots = 1", "max_worker_processes = 1"]);
    server.restart();
    // The launcher of logical replication has the only one.
    refused(server, BACKUP, "55000", &["max_worker_processes"]);
    server.configure(&["max_worker_processes = 4"]);
    server.restart();
    server.psql("SELECT pg_create_physical_replication_slot('mine')");
    refused(server, BACKUP, "55000", &["max_replication_slots"]);
    assert_eq!(names_below(ready.repo.path()), ["pgark.json"]);
    server.psql("SELECT pg_drop_replication_slot('mine')");
    ready.assert_works();
}

#[test]
fn a_second_backup_is_refused_and_names_the_first() {
    let ready = ready(Cluster::builder());
    let running = ready.start_slow(4096);
    let error = refused(&ready.server, BACKUP, "55006", &[&running.backup, "ark.backup_stop"]);
    assert!(error.message().contains("is running"), "{error}");
    assert_eq!(ready.server.psql("SELECT count(*) FROM ark.list_backups()"), "1");
    ready.wait_for_end(&running);
    ready.assert_nothing_left_behind();
    ready.assert_works();
}

#[test]
fn bad_parameters_are_refused_before_anything_is_touched() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    for (arguments, state, word) in [
        ("'differential'", "22023", "differential"),
        ("'Full'", "22023", "Full"),
        ("''", "22023", "kinds"),
        ("'incremental'", "0A000", "incremental"),
        ("label => repeat('x', 1025)", "22023", "1025 bytes"),
        ("label => E'two\\nlines'", "22023", "control"),
    ] {
        refused(server, &format!("SELECT ark.backup_start({arguments})"), state, &[word]);
    }
    for (setting, value) in [
        ("compression", "brotli"),
        ("compression", "zstd:99"),
        ("compression", "gzip:0"),
        ("compression", "lz4:1"),
        ("checksum", "md5"),
    ] {
        let set = format!("LOAD 'pg_ark'; SET pg_ark.{setting} = '{value}'");
        refused(server, &set, "22023", &[value]);
    }
    for (setting, value) in [("jobs", "257"), ("jobs", "-1"), ("volume_size", "1MB"), ("max_rate", "-1")] {
        let set = format!("LOAD 'pg_ark'; SET pg_ark.{setting} = '{value}'");
        refused_by_server(server, &set, "22023", &["outside the valid range"]);
    }
    refused_by_server(server, "LOAD 'pg_ark'; SET pg_ark.speed = 'high'", "42602", &["pg_ark.speed"]);
    refused_by_server(
        server,
        "LOAD 'pg_ark'; SET pg_ark.repository = 'file:///x'",
        "55P02",
        &["pg_ark.repository"],
    );

    // PostgreSQL takes any value for a library that is not loaded yet, and judges it when the library comes.
    let early = "SET pg_ark.compression = 'brotli'; SELECT ark.backup_start(wait => true)";
    let answer = server.query("postgres", "postgres", early).expect("a backup");
    assert!(
        answer.messages.iter().any(|m| m.severity == "WARNING" && m.message.contains("brotli")),
        "{answer:?}"
    );
    assert_eq!(server.psql("SELECT count(*) FROM ark.list_backups()"), "1");

    for name in ["../x", "/etc/passwd", "..", "%", UNKNOWN, "20000101T000000Z-full/../x", "latest", "ä"] {
        for call in ["show", "backup_stop"] {
            refused(server, &format!("SELECT ark.{call}('{name}')"), "42704", &["list_backups"]);
        }
    }
    for name in ["../x", "a/b", ".hidden", " "] {
        server.configure(&[&format!("pg_ark.cluster = '{name}'")]);
        server.reload();
        for sql in [BACKUP, LIST, &enable(ready.repo.path())] {
            refused(server, sql, "22023", &["pg_ark.cluster"]);
        }
    }
    let backups = names_below(ready.repo.path()).into_iter().filter(|name| name.ends_with("backup.json"));
    assert_eq!(backups.count(), 1);
    assert_no_repository_in(server.data());
}

#[test]
fn an_engine_that_is_none_is_refused_by_its_path() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    let script = |name: &str, text: &str, mode: u32| {
        let path = server.base().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
        path.display().to_string()
    };
    let other = "echo '{\"hello\":{\"version\":\"9.9.9\"}}'; cat > /dev/null";
    let cases = [
        ("/nowhere/pgark".into(), "58P01", "No such file"),
        ("pgark".into(), "58P01", "not an absolute path"),
        ("/tmp".into(), "58P01", "not a file"),
        (script("data.txt", "", 0o644), "58P01", "not executable"),
        (script("foreign", "", 0o700), "58P01", "ermission denied"),
        ("/bin/true".into(), "58P01", "status 0"),
        ("/bin/cat".into(), "58P01", "status 1"),
        (script("talks", "echo hello", 0o755), "58P01", "it says: hello"),
        (script("other", other, 0o755), "55000", "9.9.9"),
    ];
    let _ = chown(server.base().join("foreign"), Some(0), Some(0));
    for (path, state, word) in cases {
        server.configure(&[&format!("pg_ark.engine_path = '{path}'")]);
        server.reload();
        for sql in [BACKUP, LIST, &enable(&server.base().join("new"))] {
            refused(server, sql, state, &[&path, word, "scripts/install"]);
        }
        ready.assert_nothing_left_behind();
        let check =
            "SELECT count(*) > 0 FROM ark.check() WHERE status = 'error' AND hint LIKE '%scripts/install%'";
        assert_eq!(server.psql(check), "t", "ark.check with {path}");
    }
    assert!(!server.base().join("new").exists());
    server.configure(&["pg_ark.engine_path = ''"]);
    server.reload();
    assert_eq!(names_below(ready.repo.path()), ["pgark.json"]);
    ready.assert_works();
}

#[test]
fn who_may_do_what() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    let backup = ready.take_backup();
    server.psql(
        "CREATE ROLE plain LOGIN; CREATE ROLE watcher LOGIN; GRANT pg_monitor TO watcher; CREATE ROLE operator LOGIN;
         GRANT USAGE ON SCHEMA ark TO operator;
         GRANT EXECUTE ON FUNCTION ark.backup_start, ark.backup_stop, ark.list_backups, ark.enable TO operator",
    );
    let show = format!("SELECT ark.show('{backup}')");
    let stop = format!("SELECT ark.backup_stop('{backup}')");
    let (check, enable) = ("SELECT * FROM ark.check()", enable(&server.base().join("elsewhere")));
    let state = |role: &str, sql: &str| match server.query("postgres", role, sql) {
        Ok(_) => "ok".to_string(),
        Err(error) => error.sqlstate().to_string(),
    };
    let states = |role: &str| [LIST, &show, check, BACKUP, &stop, &enable].map(|sql| state(role, sql));
    assert_eq!(states("plain"), ["42501"; 6]);
    assert_eq!(states("watcher"), ["ok", "ok", "ok", "42501", "42501", "42501"]);
    let operator = |sql: &str| server.query("postgres", "operator", sql);
    let error = operator(&enable).unwrap_err();
    assert_eq!((error.sqlstate(), error.hint().contains("superuser")), ("42501", true), "{error}");
    assert!(!server.base().join("elsewhere").exists());
    assert_eq!(operator(&show).unwrap_err().sqlstate(), "42501", "what was not granted");

    let first = operator("SELECT ark.backup_start(wait => true)").expect("a backup").rows;
    assert_eq!(ready.backup_row("status, error", &first), "complete|");
    let running = ready.start_slow(1024);
    let stopped = operator(&format!("SELECT ark.backup_stop('{}')", running.backup)).expect("the stop");
    assert_eq!(stopped.rows, "t", "also a backup that a superuser started");
    ready.assert_failed(&running.backup, "stopped");
    // Choices of a backup are the superuser's.
    let choice = operator("LOAD 'pg_ark'; SET pg_ark.jobs = 4").unwrap_err();
    assert_eq!(choice.sqlstate(), "42501", "{choice}");
    ready.assert_works();
}

#[track_caller]
fn completes(ready: &Ready, count: usize) {
    let done = || ready.server.psql("SELECT string_agg(status, ' ') FROM ark.list_backups()");
    wait_until("the backups", LONG, || done() == vec!["complete"; count].join(" "));
    ready.assert_nothing_left_behind();
}

#[test]
fn a_backup_belongs_to_no_transaction() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    // The rolled back caller has its name; the backup goes on.
    server.psql("BEGIN; SELECT ark.backup_start(); ROLLBACK");
    completes(&ready, 1);
    server.psql("BEGIN READ ONLY; SELECT ark.backup_start(wait => true); COMMIT");
    completes(&ready, 2);
    server.psql(
        "CREATE FUNCTION nightly() RETURNS text LANGUAGE plpgsql AS $$
         DECLARE name text;
         BEGIN
             name := ark.backup_start(wait => true);
             BEGIN
                 PERFORM ark.show('no such backup');
             EXCEPTION WHEN undefined_object THEN
                 RETURN name;
             END;
         END $$",
    );
    let name = server.psql("SELECT nightly()");
    assert_eq!(ready.backup_row("status", &name), "complete");
    completes(&ready, 3);
    server.psql("BEGIN ISOLATION LEVEL SERIALIZABLE; CREATE TABLE t (i int); SELECT ark.backup_start(wait => true); COMMIT");
    completes(&ready, 4);
    // A transaction that failed takes no backup, and says so as for any statement.
    let failed = server.query(
        "postgres",
        "postgres",
        "\\set ON_ERROR_STOP 0\nBEGIN; SELECT 1/0; SELECT ark.backup_start(); ROLLBACK",
    );
    let aborted = failed.expect("psql goes on").messages.iter().any(|m| m.sqlstate == "25P02");
    assert!(aborted);
    completes(&ready, 4);

    // ark.enable is as lasting as ALTER SYSTEM.
    let other = Repo::new();
    server.psql(&format!("BEGIN; SELECT * FROM ark.enable('{}'); ROLLBACK", other.url()));
    assert_eq!(server.psql("LOAD 'pg_ark'; SHOW pg_ark.repository"), other.url());
    assert_eq!(server.psql("SELECT count(*) FROM ark.list_backups()"), "0");
}

#[test]
fn a_server_that_lacks_a_part_of_itself_is_not_backed_up() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    let backup = "SELECT ark.backup_start(wait => true)";
    let space = server.create_tablespace("away");
    server.psql("CREATE TABLE there TABLESPACE away AS SELECT 1 AS i; CREATE TABLE linked AS SELECT 1 AS i");
    server.psql("CHECKPOINT");
    let shown = space.display().to_string();
    let aside = space.with_added_extension("aside");
    fs::rename(&space, &aside).expect("the folder goes away");
    refused(server, backup, "55000", &["tablespace folder", &shown, "is missing"]);
    fs::create_dir(&space).expect("an empty mount point");
    refused(server, backup, "55000", &["tablespace folder", &shown, "is missing"]);
    fs::remove_dir(&space).expect("the mount point goes");
    fs::rename(&aside, &space).expect("the folder comes back");

    let file = server.data().join(server.psql("SELECT pg_relation_filepath('linked')"));
    let elsewhere = server.base().join("elsewhere");
    fs::rename(&file, &elsewhere).expect("the file moves");
    symlink(&elsewhere, &file).expect("a link");
    refused(server, backup, "0A000", &["neither a file nor a folder", &file.display().to_string()]);
    fs::rename(&elsewhere, &file).expect("the file comes back");
    ready.assert_works();
}
