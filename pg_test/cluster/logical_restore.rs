//! A logical backup into a cluster that the restore makes: what is refused, what comes back where, what is told, and what an
//! end midway leaves.

use crate::support::{Ready, fails_with, pgark_of, ready};
use pg_ark_contract::ErrorKind;
use pg_ark_testkit::process::{CONTINUE, INTERRUPT, KILL, STOP, Signal, all, descendants, send_signal};
use pg_ark_testkit::{
    Builder, Cluster, LONG, Output, Pg, SHORT, Scratch, StopMode, Tmpfs, chown_tree_to_server, holds_within,
    run, run_ok, wait_until,
};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const MARKER: &str = "pg_ark_restore.unfinished";

fn code(kind: ErrorKind) -> i32 {
    i32::from(kind.exit_code())
}

/// A server with the databases `app` and `shop`, a role and a little data.
fn with_databases(builder: Builder) -> Ready {
    let ready = ready(builder);
    ready.server.psql("CREATE ROLE alice LOGIN PASSWORD 'secret'; ALTER ROLE alice SET work_mem = '5MB'");
    for database in ["app", "shop"] {
        ready.server.psql(&format!("CREATE DATABASE {database} OWNER alice"));
        ready.server.psql_db(database, "CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i");
    }
    ready
}

#[track_caller]
fn take(ready: &Ready) -> String {
    let backup = ready.try_backup("kind => 'logical', wait => true");
    backup.unwrap_or_else(|error| panic!("the backup failed: {error}"))
}

/// `pgark restore latest-logical --pgdata DATA OPTIONS`.
fn restore(ready: &Ready, data: &Path, options: &[&str]) -> Command {
    let mut pgark = ready.pgark();
    pgark.args(["restore", "latest-logical", "--pgdata"]).arg(data).args(options);
    pgark
}

/// The restored cluster, started with a socket of its own.
#[track_caller]
fn open(pg: &Pg, data: &Path) -> Cluster {
    let copy = Cluster::open_restored_with(pg, data);
    copy.start();
    copy
}

#[track_caller]
fn assert_data(server: &Cluster, databases: &[&str]) {
    for database in databases {
        assert_eq!(server.psql_db(database, "SELECT sum(i) FROM t"), "500500", "in {database}");
    }
}

#[track_caller]
fn refused(pgark: &mut Command, kind: ErrorKind, words: &[&str], untouched: &Path) {
    let names = || -> Vec<PathBuf> {
        let mut names: Vec<PathBuf> =
            fs::read_dir(untouched).expect("a folder").flatten().map(|entry| entry.path()).collect();
        names.sort();
        names
    };
    let before = names();
    let output = fails_with(pgark, code(kind));
    for word in words.iter().chain(&["hint:"]) {
        assert!(output.stderr.contains(word), "\"{word}\" expected: {output}");
    }
    assert_eq!(before, names(), "something was touched");
}

#[test]
fn what_cannot_work_is_refused_and_nothing_is_touched() {
    let ready = with_databases(Cluster::builder());
    let space = ready.server.create_tablespace("fast");
    let backup = take(&ready);
    let room = Scratch::new("room");
    let (new, full) = (room.path().join("new"), room.folder("full"));
    fs::write(full.join("letter"), "mine").expect("a file");
    let map = format!("{}={}", space.display(), room.path().join("fast").display());
    let moved = ["--tablespace", map.as_str()];
    let check = |data: &Path, options: &[&str], kind, words: &[&str]| {
        refused(&mut restore(&ready, data, options), kind, words, room.path());
    };
    let invalid = ErrorKind::InvalidArgument;
    check(&full, &moved, ErrorKind::TargetNotEmpty, &["full\" is not empty", "letter"]);
    check(ready.server.data(), &moved, ErrorKind::ServerRunning, &["a server is running"]);
    check(&new, &["--tablespace", "/nowhere=/tmp/x"], invalid, &["no tablespace at \"/nowhere\"", "fast"]);
    let unknown = [&moved[..], &["--database", "nosuch", "--database", "app"]].concat();
    check(&new, &unknown, invalid, &["has no database \"nosuch\"", "\"app\", \"postgres\", \"shop\""]);
    let taken = format!("{}={}", space.display(), full.display());
    check(&new, &["--tablespace", &taken], ErrorKind::TargetNotEmpty, &["tablespace target"]);
    let folder = room.path().display().to_string();
    check(&new, &[moved[0], moved[1], "--bindir", &folder], invalid, &["--bindir", "pg_restore"]);
    // The original listens on the port that its settings name.
    check(&new, &[moved[0], moved[1], "--start"], invalid, &["--port"]);
    let port = ready.server.port().to_string();
    let same = [moved[0], moved[1], "--start", "--port", &port];
    check(&new, &same, invalid, &["--port", "the original server runs"]);
    // What a server would stumble over in the end.
    let lines = room.path().join("a\nb");
    check(&lines, &moved, invalid, &["/a\\nb\" has a line feed"]);
    check(&room.path().join(OsStr::from_bytes(b"\xff")), &moved, invalid, &["\\xff\"", "not UTF-8"]);
    for (name, why) in [("it's", "a single quote"), ("a\nb", "a line feed")] {
        let odd = format!("{}={}", space.display(), room.path().join(name).display());
        check(&new, &["--tablespace", &odd], invalid, &["tablespace target", why]);
    }

    // Damage is found before the first folder is made.
    let dump = ready.backup_folder(&backup).join("shop.dump");
    let file = fs::OpenOptions::new().read(true).write(true).open(&dump).expect("a dump");
    let middle = file.metadata().expect("a file").len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle)
        .and_then(|()| file.write_all_at(&[byte[0] ^ 1], middle))
        .expect("one byte");
    check(&new, &moved, ErrorKind::Corrupt, &["shop.dump"]);
    // What is not read does no harm.
    run_ok(&mut restore(&ready, &new, &[&moved[..], &["--database", "app"]].concat()));
    let copy = open(ready.server.pg(), &new);
    assert_data(&copy, &["app"]);
    let names = "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database";
    assert_eq!(copy.psql(names), "app postgres template0 template1");
    assert_eq!(copy.psql("SELECT rolname FROM pg_roles WHERE rolname = 'alice'"), "alice");
    assert_eq!(copy.psql("SELECT to_regnamespace('ark') IS NULL"), "t", "postgres was not asked for");
}

#[test]
fn a_copy_runs_beside_its_original_with_several_jobs() {
    let ready = with_databases(Cluster::builder());
    ready.server.psql_db("app", "CREATE TABLE u AS SELECT i, repeat('x', 100) FROM generate_series(1, 50000) i; CREATE INDEX ON u (i)");
    take(&ready);
    let room = Scratch::new("room");
    let data = room.path().join("new");
    // Its socket's folder is the original's, so that only the port tells them apart.
    let output =
        run(&mut restore(&ready, &data, &["--jobs", "4", "--port", "6432", "--start", "--format", "json"]));
    assert!(output.success() && !output.stderr.contains("error:"), "{output}");
    let report: serde_json::Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!(report["started"]["port"], 6432, "{output}");
    assert_eq!(report["plan"]["jobs"], 4);
    let copy = Cluster::open_restored_with(ready.server.pg(), &data);
    assert!(copy.is_up() && copy.port() == 6432, "{output}");
    assert_data(&copy, &["app", "shop"]);
    assert_eq!(copy.psql_db("app", "SELECT count(*) FROM u"), "50000");
    assert_eq!(copy.psql("SHOW archive_mode"), "off");
    assert_eq!(copy.psql_db("app", "SELECT count(*) > 0 FROM pg_stats WHERE tablename = 'u'"), "t");
    for name in [MARKER, "pg_ark.cluster", "pg_ark.s"] {
        assert!(!data.join(name).exists(), "{name} is left");
    }
    copy.stop(StopMode::Fast);
    copy.start();
    assert_data(&ready.server, &["app", "shop"]);
}

#[test]
fn a_copy_whose_jobs_are_due_leaves_the_originals_repository_alone() {
    let ready = ready(Cluster::builder().conf("shared_preload_libraries = 'pg_ark'"));
    ready.server.psql("SELECT ark.schedule('daily', '0 2 * * *', 'full')");
    ready.server.psql("UPDATE ark.job SET since = now() - interval '2 days'");
    ready.server.reload();
    let done = "SELECT count(*) FROM ark.job_runs('daily') WHERE status = 'done'";
    wait_until("the original's job", LONG, || ready.server.psql(done) == "1");
    take(&ready);
    let room = Scratch::new("room");
    let systems = || -> Vec<String> {
        let folders = fs::read_dir(ready.repo.path().join("main")).expect("the cluster's folder").flatten();
        let names = folders.map(|entry| entry.file_name().into_string().expect("UTF-8"));
        names.filter(|name| name.bytes().all(|b| b.is_ascii_digit())).collect()
    };
    let system = |server: &Cluster| server.psql("SELECT system_identifier FROM pg_control_system()");

    let output = run(&mut restore(&ready, &room.path().join("own"), &[]));
    assert!(output.success() && output.stderr.contains("empties pg_ark.repository"), "{output}");
    assert!(output.stdout.contains("ark.enable") && output.stdout.contains("pg_ark.cluster"), "{output}");
    let own = open(ready.server.pg(), &room.path().join("own"));
    assert_eq!(
        (own.psql("SHOW pg_ark.repository"), own.psql("SHOW archive_mode")),
        (String::new(), "off".into())
    );
    // Its jobs would be done: one that keeps its repository begins at once.
    let keep = ["--archive-mode", "keep"];
    let output = run(&mut restore(&ready, &room.path().join("keeps"), &keep));
    assert!(output.success() && output.stderr.contains("set another pg_ark.cluster"), "{output}");
    let keeps = open(ready.server.pg(), &room.path().join("keeps"));
    wait_until("the job of the copy that keeps its repository", LONG, || keeps.psql(done) == "1");
    let (mut expected, mut found) = (vec![system(&ready.server), system(&keeps)], systems());
    expected.sort();
    found.sort();
    assert_eq!(found, expected, "the other copy has {}", system(&own));
}

#[test]
fn configuration_comes_back_wherever_it_was() {
    // In the data directory, with a folder of its own, and beside it.
    for outside in [false, true] {
        let builder = Cluster::builder();
        let ready = with_databases(if outside { builder.external_config() } else { builder });
        let server = &ready.server;
        let config = match outside {
            true => PathBuf::from(
                server.psql("SELECT regexp_replace(current_setting('config_file'), '/[^/]*$', '')"),
            ),
            false => server.data().to_path_buf(),
        };
        let extra = config.join("conf.d");
        fs::create_dir(&extra).expect("a folder");
        fs::write(extra.join("a.conf"), "work_mem = '7MB'\n").expect("a file");
        chown_tree_to_server(&extra);
        server.configure(&["include_dir = 'conf.d'"]);
        server.psql("ALTER SYSTEM SET maintenance_work_mem = '33MB'");
        server.restart();
        take(&ready);

        let room = Scratch::new("room");
        let beside = room.path().join("new");
        let output = run(&mut restore(&ready, &beside, &[]));
        assert!(output.success() && !output.stderr.contains(".unused"), "{output}");
        let copy = open(server.pg(), &beside);
        let shown =
            |server: &Cluster| server.psql("SHOW work_mem; SHOW maintenance_work_mem; SHOW config_file");
        let expected = format!("7MB\n33MB\n{}", beside.join("postgresql.conf").display());
        assert_eq!(shown(&copy), expected, "outside: {outside}");
        assert_data(&copy, &["app", "shop"]);
        drop(copy);

        let bare = room.path().join("bare");
        run_ok(&mut restore(&ready, &bare, &["--config", "skip"]));
        assert_eq!(open(server.pg(), &bare).psql("SHOW work_mem"), "4MB", "initdb's own");
        let hba = fs::read_to_string(bare.join("pg_hba.conf")).expect("pg_hba.conf");
        assert!(!hba.lines().any(|line| line.trim_end().ends_with(" trust")), "open to everybody: {hba}");

        // Back to its old place.
        let before = shown(server);
        server.destroy();
        run_ok(&mut restore(&ready, server.data(), &[]));
        server.start();
        assert_eq!(shown(server), before, "outside: {outside}");
        assert_data(server, &["app", "shop"]);
    }
}

#[test]
fn settings_that_a_server_does_not_take_are_commented_out() {
    let ready = with_databases(Cluster::builder());
    let backup = take(&ready);
    let room = Scratch::new("room");
    // As a newer version finds it: the file of an older one, with a setting that is gone.
    let conf = ready.server.data().join("postgresql.conf");
    let mut text = fs::read_to_string(&conf).expect("postgresql.conf");
    text.push_str("gone_in_this_version = 5\nwork_mem = 'much'\nssl = on\n");
    fs::write(&conf, text).expect("postgresql.conf");
    let again = take(&ready);
    assert_ne!(backup, again);
    let data = room.path().join("new");
    let output = run(&mut restore(&ready, &data, &[]));
    assert!(output.success(), "{output}");
    for name in ["gone_in_this_version", "work_mem"] {
        let told = format!("does not take it: {name}");
        assert!(output.stderr.contains(&told), "{output}");
    }
    assert!(output.stderr.contains("will not start without \"server.crt\" (ssl_cert_file)"), "{output}");
    fs::write(data.join("postgresql.auto.conf"), "ssl = off\n").expect("postgresql.auto.conf");
    assert_data(&open(ready.server.pg(), &data), &["app", "shop"]);
}

#[test]
fn what_could_not_be_restored_is_told_and_the_rest_is_there() {
    let ready = with_databases(Cluster::builder());
    // Rows that were right when they were written, and are wrong as long as the other table is empty.
    ready.server.psql_db(
        "shop",
        "CREATE TABLE z AS SELECT 1 i; CREATE FUNCTION known(i int) RETURNS bool LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM public.z WHERE z.i = $1)'; CREATE TABLE a (i int CHECK (known(i))); INSERT INTO a VALUES (1)",
    );
    take(&ready);
    let room = Scratch::new("room");
    let data = room.path().join("new");
    let output = fails_with(&mut restore(&ready, &data, &[]), code(ErrorKind::RestoreIncomplete));
    assert!(
        output.stderr.contains("shop") && output.stderr.contains("violates check constraint"),
        "{output}"
    );
    assert!(output.stderr.contains("1 error"), "{output}");
    assert!(!data.join(MARKER).exists(), "the cluster can be used");
    let copy = open(ready.server.pg(), &data);
    assert_data(&copy, &["app", "shop"]);
    assert_eq!(copy.psql_db("shop", "SELECT count(*) FROM a"), "0");
}

/// pgark in the background, once it gives a dump to pg_restore.
#[track_caller]
fn midway(pgark: &mut Command) -> (std::process::Child, Vec<u32>) {
    let child = pgark.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("pgark");
    let all = || descendants(child.id());
    // It is asked for its version before.
    let restores = |title: &str| title.contains("pg_restore ") && !title.contains("--version");
    wait_until("pg_restore", LONG, || all().iter().any(|process| restores(&process.title)));
    let pids = all().into_iter().map(|process| process.pid).collect();
    (child, pids)
}

#[test]
fn a_restore_that_is_ended_leaves_no_program_and_nothing_that_a_server_starts_from() {
    let ready = with_databases(Cluster::builder());
    ready
        .server
        .psql_db("app", "CREATE TABLE big AS SELECT i, md5(i::text) FROM generate_series(1, 1500000) i");
    let space = ready.server.create_tablespace("fast");
    take(&ready);
    let room = Scratch::new("room");
    let (data, fast) = (room.path().join("data"), room.path().join("fast"));
    let map = format!("{}={}", space.display(), fast.display());
    let options = ["--tablespace", map.as_str()];
    let kinds: [(Signal, Option<i32>); 2] = [(KILL, None), (INTERRUPT, Some(code(ErrorKind::Cancelled)))];
    for (signal, expected) in kinds {
        let (child, _) = midway(&mut restore(&ready, &data, &options));
        send_signal(child.id(), STOP);
        let process = format!("process {}", child.id());
        let output = fails_with(&mut restore(&ready, &data, &options), code(ErrorKind::Busy));
        assert!(output.stderr.contains("is at work") && output.stderr.contains(&process), "{output}");
        assert!(!output.stderr.contains("did not finish") && !output.stderr.contains("emove"), "{output}");
        send_signal(child.id(), signal);
        send_signal(child.id(), CONTINUE);
        let output = child.wait_with_output().expect("pgark");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), expected, "it was faster than the signal, or: {stderr}");
        let shown = data.display().to_string();
        if expected.is_some() {
            let left = format!("\"{shown}\", \"{}\"", fast.display());
            assert!(stderr.contains(&left), "all that is left: {stderr}");
        }
        let left = || all().into_iter().filter(|process| process.title.contains(&shown)).collect::<Vec<_>>();
        assert!(holds_within(SHORT, || left().is_empty()), "still there: {:?}", left());
        assert!(data.join(MARKER).is_file());
        assert!(!data.join("global").exists() && !data.join("PG_VERSION").exists(), "no server may start");
        let started = Cluster::open_restored_with(ready.server.pg(), &data).try_start();
        assert!(!started.success(), "{started}");
        let words = ["did not finish", MARKER, "Remove what it left", "fast"];
        refused(&mut restore(&ready, &data, &options), ErrorKind::TargetNotEmpty, &words, room.path());
        fs::remove_dir_all(&data).expect("the data directory");
        fs::remove_dir_all(&fast).expect("the tablespace");
    }
    run_ok(&mut restore(&ready, &data, &options));
    assert_data(&open(ready.server.pg(), &data), &["app", "shop"]);
}

#[test]
fn a_disk_that_fills_up_is_told_and_no_server_starts_from_what_is_there() {
    let ready = with_databases(Cluster::builder());
    ready
        .server
        .psql_db("app", "CREATE TABLE big AS SELECT i, md5(i::text) FROM generate_series(1, 1500000) i");
    take(&ready);
    let small = Tmpfs::new(16 << 20);
    let data = small.path().join("data");
    refused(&mut restore(&ready, &data, &[]), ErrorKind::NotEnoughSpace, &["bytes free"], small.path());
    let disk = Tmpfs::new(112 << 20);
    let data = disk.path().join("data");
    let output = fails_with(&mut restore(&ready, &data, &[]), code(ErrorKind::DiskFull));
    assert!(output.stderr.contains("may not fit") && output.stderr.contains("hint:"), "{output}");
    assert!(data.join(MARKER).is_file() && !data.join("global").exists());
}

#[test]
fn of_several_file_systems_the_full_one_is_named() {
    let ready = with_databases(Cluster::builder());
    let space = ready.server.create_tablespace("fast");
    ready.server.psql_db(
        "app",
        "CREATE TABLE big TABLESPACE fast AS SELECT i, md5(i::text) FROM generate_series(1, 200000) i",
    );
    take(&ready);
    let (room, small) = (Scratch::new("room"), Tmpfs::new(4 << 20));
    let data = room.path().join("data");
    let map = format!("{}={}", space.display(), small.path().display());
    let output = fails_with(&mut restore(&ready, &data, &["--tablespace", &map]), code(ErrorKind::DiskFull));
    let place = format!("no space left at \"{}\"", small.path().display());
    let left = format!("\"{}\", \"{}\"", data.display(), small.path().display());
    assert!(output.stderr.contains(&place) && output.stderr.contains(&left), "{output}");
    assert!(data.join(MARKER).is_file() && !data.join("global").exists());
}

/// `pgark` as root, who owns nothing that is restored.
fn as_root(ready: &Ready, data: &Path) -> Output {
    let mut pgark = Command::new("sudo");
    pgark.args(["-n", "env", "LC_ALL=C"]).arg(pgark_of(ready.server.pg()));
    pgark.args(["--repo", &ready.repo.url(), "restore", "latest-logical", "--pgdata"]).arg(data);
    run(pgark.current_dir("/").stdin(Stdio::null()))
}

#[test]
fn what_root_restores_belongs_to_the_servers_user() {
    let ready = with_databases(Cluster::builder().group_access());
    // What root starts gets a new environment: such settings must be overruled by other ways.
    ready.server.psql("ALTER DATABASE app SET default_transaction_read_only = on");
    ready.server.psql(
        "ALTER DATABASE shop SET lock_timeout = '1ms'; ALTER DATABASE shop SET statement_timeout = '500ms'",
    );
    take(&ready);
    let room = Scratch::new("room");
    // A path that is too long for a socket.
    let data = room.path().join("long".repeat(20)).join("data");
    let output = as_root(&ready, &data);
    assert!(output.success() && !output.stderr.contains("error:"), "{output}");
    let owner = fs::metadata(ready.server.data()).expect("the original").uid();
    let mut todo = vec![data.clone()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            let meta = entry.metadata().expect("a file");
            assert_eq!(meta.uid(), owner, "{:?}", entry.path());
            todo.extend(meta.is_dir().then(|| entry.path()));
        }
    }
    assert_eq!(fs::metadata(&data).expect("the data directory").permissions().mode() & 0o777, 0o750);
    assert_data(&open(ready.server.pg(), &data), &["app", "shop"]);
}
