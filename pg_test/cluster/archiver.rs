//! Promise 2: archived means stored. What the archive holds after engines, servers and repositories went away in the
//! middle, looked at with public tools: every segment once, whole, as the server wrote it, without a gap.

use crate::archiving::{
    archive_command, archive_now, archiving, archiving_by_command, object, switch_wal, wait_archived,
    wal_folder,
};
use crate::support::{Ready, fails_with, names_below};
use pg_ark_testkit::process::{KILL, send_signal};
use pg_ark_testkit::{
    Builder, Cluster, LONG, Repo, SHORT, Scratch, StopMode, Tmpfs, as_server_user, chown_tree_to_server,
    command, file_url, holds_within, run, run_ok, wait_until,
};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Servers with small segments, which keep them all for a comparison.
fn small() -> Builder {
    Cluster::builder().wal_segment_mb(1).conf("wal_keep_size = '4GB'").conf("max_wal_size = '64MB'")
}

/// Segments of timeline 1 in the archive: name and object. Fails when one is there twice.
#[track_caller]
fn segments(wal: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for path in names_below(wal).iter().filter(|path| path.starts_with("00000001/")) {
        let name = path.rsplit('/').next().expect("a name");
        let Some(stem) = name.strip_suffix(".zst").filter(|stem| stem.len() == 24) else { continue };
        let before = found.insert(stem.to_string(), wal.join(path));
        assert!(before.is_none(), "{stem} is stored twice: {before:?}");
    }
    found
}

#[track_caller]
fn decoded(object: &Path) -> Vec<u8> {
    let output = command("zstd").args(["-d", "-c", "-q"]).arg(object).output().expect("zstd");
    assert!(
        output.status.success(),
        "{object:?} does not decode: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Fails unless the archive holds every segment from its first to `last`, each as the server has it, and pg_waldump
/// reads them all.
#[track_caller]
fn assert_whole(ready: &Ready, last: &str) {
    assert_whole_in(&ready.server, &wal_folder(ready).expect("an archive"), last);
}

#[track_caller]
fn assert_whole_in(server: &Cluster, wal: &Path, last: &str) {
    let stored = segments(wal);
    let size = server.psql("SELECT setting FROM pg_settings WHERE name = 'wal_segment_size'");
    let size: u64 = size.parse().expect("a number");
    let number = |name: &str| {
        let part = |at: usize| u64::from_str_radix(&name[at..at + 8], 16).expect("hex");
        part(8) * ((1 << 32) / size) + part(16)
    };
    let (first, newest) = (stored.keys().next().expect("a segment"), stored.keys().last().expect("one"));
    assert!(newest.as_str() >= last, "the archive ends at {newest}, before {last}");
    let count = number(newest) - number(first) + 1;
    assert_eq!(stored.len() as u64, count, "a gap between {first} and {newest}: {:?}", stored.keys());
    let folder = Scratch::new("decoded");
    let mut compared = 0;
    for (name, object) in &stored {
        let content = decoded(object);
        assert_eq!(content.len() as u64, size, "{name}");
        if let Ok(original) = fs::read(server.data().join("pg_wal").join(name)) {
            assert!(original == content, "{name} is not what the server wrote");
            compared += 1;
        }
        fs::write(folder.path().join(name), content).expect("a decoded segment");
    }
    assert!(compared * 2 > stored.len(), "only {compared} of {} could be compared", stored.len());
    chown_tree_to_server(folder.path());
    let mut waldump = server.pg().tool("pg_waldump");
    run_ok(waldump.args(["--quiet", "--path"]).arg(folder.path()).args([first, newest]));
}

/// Writes WAL of some segments in the background of a test.
fn load(server: &Cluster, seconds: &str) -> pg_ark_testkit::Workload {
    server.pgbench_background(&["-n", "-N", "-c", "4", "-T", seconds])
}

fn failures(server: &Cluster) -> u64 {
    server.psql("SELECT failed_count FROM pg_stat_archiver").parse().expect("a number")
}

#[track_caller]
fn wait_for_failure(server: &Cluster) {
    let before = failures(server);
    wait_until("a failure of the archiver", LONG, || failures(server) > before);
}

fn every_kind_of_file_arrives(ready: &Ready) {
    let server = &ready.server;
    server.pgbench(&["-i", "-q", "-s", "1"]);
    server.psql("SELECT pg_backup_start('by hand', true); SELECT lsn FROM pg_backup_stop(false)");
    let last = archive_now(ready);
    assert_whole(ready, &last);
    let status = server.data().join("pg_wal/archive_status");
    let names = names_below(&status);
    let backup = names.iter().find_map(|name| name.strip_suffix(".done").filter(|n| n.ends_with(".backup")));
    let backup = backup.expect("a backup history file that was archived");
    let stored = object(ready, backup).expect("it is stored");
    assert_eq!(
        fs::read(stored).expect("read"),
        fs::read(server.data().join("pg_wal").join(backup)).expect("read")
    );
}

#[test]
fn archived_means_stored_segments_and_backup_histories_arrive_as_they_are() {
    let ready = archiving(small());
    every_kind_of_file_arrives(&ready);
    assert_eq!(failures(&ready.server), 0, "{}", ready.server.log());
}

#[test]
fn archived_means_stored_with_archive_command_too() {
    let ready = archiving_by_command(small().external_waldir());
    every_kind_of_file_arrives(&ready);
    assert_eq!(failures(&ready.server), 0, "{}", ready.server.log());
    assert!(!ready.server.log().contains("warning:"), "{}", ready.server.log());
}

#[test]
fn archived_means_stored_a_promotion_leaves_its_history_and_the_unfinished_segment() {
    let ready = archiving(small());
    let always = ["archive_mode = always"];
    let standby = ready.server.create_standby(&always);
    archive_now(&ready);
    ready.server.psql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n");
    ready.server.wait_for_standby(&standby);
    ready.server.stop(StopMode::Immediate);
    standby.promote();
    let promoted = Ready { server: standby, repo: ready.repo };
    let last = archive_now(&promoted);
    assert!(last.starts_with("00000002"), "{last}");
    wait_archived(&promoted, "00000002.history");
    let pg_wal = promoted.server.data().join("pg_wal");
    let history = object(&promoted, "00000002.history").expect("stored");
    assert_eq!(fs::read(history).expect("read"), fs::read(pg_wal.join("00000002.history")).expect("read"));
    let names = names_below(&pg_wal);
    let partial = names.iter().find(|name| name.ends_with(".partial")).expect("a partial segment");
    wait_archived(&promoted, partial);
    let stored = object(&promoted, partial).expect("stored");
    assert!(decoded(&stored) == fs::read(pg_wal.join(partial)).expect("read"), "{partial}");
    let last = object(&promoted, &last).expect("stored");
    assert_eq!(decoded(&last).len(), 1 << 20);
}

#[test]
fn archived_means_stored_a_standby_stores_what_the_primary_stored_already() {
    let ready = archiving(small());
    let standby = ready.server.create_standby(&["archive_mode = always"]);
    ready.server.pgbench(&["-i", "-q", "-s", "1"]);
    let last = archive_now(&ready);
    ready.server.wait_for_standby(&standby);
    let archived = || standby.psql("SELECT last_archived_wal FROM pg_stat_archiver") >= last;
    wait_until("the standby's archiver", LONG, archived);
    assert_eq!(failures(&standby), 0, "{}", standby.log());
    assert_eq!(failures(&ready.server), 0, "{}", ready.server.log());
    assert_whole(&ready, &last);
}

#[test]
fn archived_means_stored_when_the_engine_is_killed_every_second_under_100_000_transactions() {
    let ready = archiving(small().conf("synchronous_commit = off"));
    let server = &ready.server;
    server.pgbench(&["-i", "-q", "-s", "4"]);
    let mut load = server.pgbench_background(&["-n", "-N", "-c", "4", "-j", "2", "-t", "25000"]);
    let mut kills = 0;
    while load.is_running() {
        // The pauses differ, so that the kill meets every moment.
        holds_within(Duration::from_millis(700 + kills * 37 % 600), || !load.is_running());
        for engine in server.pids("pgark engine") {
            kills += u64::from(send_signal(engine, KILL));
        }
    }
    load.wait();
    let last = archive_now(&ready);
    assert!(kills >= 5, "{kills}");
    assert_whole(&ready, &last);
    assert!(server.log().contains("signal 9"), "{}", server.log());
}

#[test]
fn archived_means_stored_when_the_repository_was_full() {
    let disk = Tmpfs::new(24 << 20);
    let folder = disk.path().join("backups");
    fs::create_dir(&folder).expect("a folder");
    chown_tree_to_server(&folder);
    let server = small().conf("archive_mode = on").conf("archive_library = 'pg_ark'").start();
    server.psql("CREATE EXTENSION pg_ark");
    server.psql(&format!("SELECT * FROM ark.enable('{}')", file_url(&folder)));
    server.pgbench(&["-i", "-q", "-s", "2"]);
    let load = load(&server, "300");
    wait_until("a full repository", LONG, || server.log().contains("No space left"));
    load.stop(&server);
    let waiting = switch_wal(&server);
    wait_for_failure(&server);
    // Nothing is given up: what was not stored still waits.
    assert!(server.data().join("pg_wal").join(format!("archive_status/{waiting}.ready")).exists());
    disk.resize(1 << 30);
    let archived = || server.psql("SELECT last_archived_wal FROM pg_stat_archiver") >= waiting;
    wait_until("the archiver to go on", LONG, || {
        switch_wal(&server);
        holds_within(Duration::from_secs(2), archived)
    });
    let wal = fs::read_dir(folder.join("main")).expect("systems").flatten().map(|e| e.path().join("wal"));
    let wal = wal.into_iter().find(|wal| wal.is_dir()).expect("an archive");
    assert!(segments(&wal).contains_key(&waiting));
    let strays: Vec<String> = names_below(&wal).into_iter().filter(|name| name.contains('#')).collect();
    assert!(strays.is_empty(), "{strays:?}");
    assert_whole_in(&server, &wal, &waiting);
}

#[test]
fn archived_means_stored_when_the_repository_was_away() {
    let scratch = Scratch::new("away");
    let ready = archiving(small());
    let server = &ready.server;
    archive_now(&ready);
    // As when its disk is unmounted: the folder is there, and empty.
    let away = scratch.path().join("repository");
    run_ok(command("mv").arg(ready.repo.path()).arg(&away));
    run_ok(command("mkdir").arg(ready.repo.path()));
    let waiting = switch_wal(server);
    wait_for_failure(server);
    wait_for_failure(server);
    assert!(names_below(ready.repo.path()).is_empty());
    assert_eq!(fs::read_dir(ready.repo.path()).expect("the folder").count(), 0, "folders at the mount point");
    run_ok(command("rmdir").arg(ready.repo.path()));
    run_ok(command("mv").arg(&away).arg(ready.repo.path()));
    switch_wal(server);
    wait_archived(&ready, &waiting);
    let last = archive_now(&ready);
    assert_whole(&ready, &last);
    let log = server.log();
    assert!(log.contains("there is no repository"), "{log}");
    // Each time: a repository that somebody made below the mount point would hide the other.
    assert!(log.contains("mount it") && !log.contains("with ark.enable"), "{log}");
}

#[test]
fn a_data_directory_that_is_not_utf8_is_refused_with_a_way_out() {
    let ready = archiving(small());
    let server = &ready.server;
    archive_now(&ready);
    server.stop(StopMode::Fast);
    let scratch = Scratch::new("latin1");
    let data = scratch.path().join(OsStr::from_bytes(b"n\xE9d"));
    run_ok(command("mv").arg(server.data()).arg(&data));
    let moved = Cluster::open_restored_with(server.pg(), &data);
    moved.start();
    let path = "the path of the data directory";
    for call in [
        format!("SELECT * FROM ark.enable('{}')", ready.repo.url()),
        "SELECT ark.backup_start(wait => true)".into(),
    ] {
        let error = moved.try_psql(&call).expect_err(&call);
        let all = error.to_string();
        assert!(all.contains(path) && all.contains(r"n\xe9d"), "{call}: {all}");
        assert!(error.hint().contains("rename the folder"), "{call}: {all}");
    }
    switch_wal(&moved);
    wait_for_failure(&moved);
    let log = String::from_utf8_lossy(&fs::read(moved.log_path()).expect("the log")).into_owned();
    assert!(log.contains(path) && log.contains("rename the folder"), "{log}");
}

#[test]
fn archived_means_stored_when_the_server_is_stopped_in_the_middle() {
    let ready = archiving(small());
    let server = &ready.server;
    server.pgbench(&["-i", "-q", "-s", "2"]);
    let stops: [&dyn Fn(); 3] =
        [&|| server.stop(StopMode::Fast), &|| server.stop(StopMode::Immediate), &|| server.kill9()];
    for stop in stops {
        let load = load(server, "300");
        let before = wal_folder(&ready).map_or(0, |wal| segments(&wal).len());
        wait_until("segments", LONG, || {
            segments(&wal_folder(&ready).expect("an archive")).len() > before + 8
        });
        stop();
        drop(load);
        wait_until("the end of the engine", SHORT, || engines_of(&ready).is_empty());
        server.start();
    }
    let last = archive_now(&ready);
    assert_whole(&ready, &last);
}

/// Engines that work for a data directory, whoever started them.
fn engines_of(ready: &Ready) -> Vec<u32> {
    let data = ready.server.data().canonicalize().expect("the data directory");
    pg_ark_testkit::process::all()
        .into_iter()
        .filter(|process| process.title.contains("pgark engine"))
        .filter(|process| pg_ark_testkit::process::works_in(process.pid, &data))
        .map(|process| process.pid)
        .collect()
}

#[test]
fn a_clone_that_diverges_is_refused_and_the_origin_goes_on() {
    let ready = archiving(small());
    let server = &ready.server;
    archive_now(&ready);
    server.stop(StopMode::Fast);
    let scratch = Scratch::new("clone");
    let data = scratch.path().join("data");
    run_ok(command("cp").arg("-a").arg(server.data()).arg(&data));
    server.start();
    let clone = Cluster::open_restored_with(server.pg(), &data);
    clone.start();
    server.psql("CREATE TABLE origin AS SELECT generate_series(1, 1000) AS n");
    let ours = archive_now(&ready);
    clone.psql("CREATE TABLE clone AS SELECT generate_series(1, 2000) AS n");
    let theirs = switch_wal(&clone);
    assert_eq!(ours, theirs);
    let refused = format!("the archive holds other content under the name {ours}");
    let warned = || clone.psql("SELECT failed_count > 0 FROM pg_stat_archiver") == "t";
    wait_until("the clone's failure", LONG, warned);
    let log = fs::read_to_string(clone.log_path()).expect("the clone's log");
    assert!(log.contains("WARNING") && log.contains(&refused), "{log}");
    assert!(log.contains("Two servers write this timeline"), "{log}");
    let last = archive_now(&ready);
    assert_eq!(failures(server), 0, "{}", server.log());
    assert_whole(&ready, &last);
}

#[test]
fn wal_push_says_why_it_stores_nothing() {
    let ready = archiving_by_command(small());
    let server = &ready.server;
    let segment = archive_now(&ready);
    let push = |path: &str| {
        let mut pgark = ready.pgark();
        pgark.current_dir(server.data()).args(["--cluster", "main", "wal-push", path]);
        pgark
    };
    let path = format!("pg_wal/{segment}");
    let output = run(&mut push(&path));
    assert!(output.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{output}");
    fails_with(&mut push("pg_wal/000000010000000000000FFF"), 19);
    fails_with(&mut push("pg_wal/nonsense"), 2);
    let mut other = push(&path);
    fails_with(other.args(["--system-identifier", "1"]), 25);
    let nowhere = Repo::new();
    let mut away = crate::support::pgark(server.pg(), &nowhere);
    let output = run(away.current_dir(server.data()).args(["--cluster", "main", "wal-push", &path]));
    assert!(output.stderr.contains("mount it") && !output.stderr.contains("ark.enable"), "{output}");
    // A new name is created, but only when it is named.
    let absolute = server.data().join(&path).display().to_string();
    let repo = Repo::new();
    run_ok(as_server_user(command("cp").arg(ready.repo.path().join("pgark.json")).arg(repo.path())));
    let elsewhere = |cluster: Option<&str>| {
        let mut pgark = crate::support::pgark(server.pg(), &repo);
        pgark.args(cluster.map(|name| format!("--cluster={name}"))).args(["wal-push", &absolute]);
        pgark
    };
    let output = fails_with(&mut elsewhere(None), 2);
    assert!(output.stderr.contains("--cluster"), "{output}");
    run(&mut elsewhere(Some("new"))).ok();
    run(&mut elsewhere(None)).ok();
    assert!(names_below(repo.path()).iter().any(|name| name.ends_with(&format!("{segment}.zst"))));
}

#[test]
fn the_last_failure_is_told_until_it_is_over() {
    let ready = archiving_by_command(small());
    let server = &ready.server;
    archive_now(&ready);
    let note = server.data().join("pg_stat_tmp/pg_ark_archiver.json");
    let gone = Repo::new();
    fs::remove_dir(gone.path()).expect("an empty folder");
    server.configure(&[&archive_command(server.pg(), &gone)]);
    server.reload();
    let waiting = switch_wal(server);
    wait_until("a note of the failure", LONG, || note.exists());
    let text = fs::read_to_string(&note).expect("the note");
    assert!(text.contains(&waiting) && text.contains("repository_not_found"), "{text}");
    server.configure(&[&archive_command(server.pg(), &ready.repo)]);
    server.reload();
    switch_wal(server);
    wait_archived(&ready, &waiting);
    wait_until("the end of the failure", LONG, || !note.exists());
}
