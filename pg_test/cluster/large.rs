//! Size: many tables, a table of several segment files, many files; and the memory that it takes.

use crate::support::{Ready, enabled, ready};
use pg_ark_testkit::{Cluster, PeakRss, Repo, StopMode, assert_same_data, chown_tree_to_server, run_ok};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Threads of engine and restore.
const JOBS: u64 = 2;
/// What each thread may take, and what everything else may take.
const MEMORY_PER_JOB: u64 = 64 << 20;
const MEMORY_BESIDE: u64 = 64 << 20;

#[track_caller]
fn assert_small(what: &str, peak: u64) {
    let limit = JOBS * MEMORY_PER_JOB + MEMORY_BESIDE;
    println!("{what}: {} MB of memory at most", peak >> 20);
    assert!(peak < limit, "{what} took {peak} bytes of memory, more than {limit}");
}

/// Takes a backup and watches the engine's memory.
#[track_caller]
fn backup(ready: &Ready) -> String {
    let postmaster = ready.server.pid().expect("a server");
    let engine = PeakRss::watch_when(move || {
        let children = pg_ark_testkit::process::descendants(postmaster);
        children
            .into_iter()
            .find(|process| process.title.ends_with("pgark engine"))
            .map(|process| process.pid)
    });
    let backup =
        ready.server.psql(&format!("SET pg_ark.jobs = {JOBS}; SELECT ark.backup_start(wait => true)"));
    assert_small("the engine", engine.finish());
    backup
}

/// Restores to where the server was and watches pgark's memory.
#[track_caller]
fn restore(ready: &Ready, backup: &str) {
    let mut pgark = ready.pgark();
    pgark.args(["restore", backup, "--jobs", &JOBS.to_string(), "--pgdata"]).arg(ready.server.data());
    let mut child = pgark.stdout(Stdio::null()).spawn().expect("pgark");
    let memory = PeakRss::watch(child.id());
    assert!(child.wait().expect("pgark").success(), "pgark failed");
    assert_small("pgark restore", memory.finish());
    run_ok(ready.server.pg().tool("pg_verifybackup").arg(ready.server.data()));
}

#[test]
fn five_thousand_tables() {
    let ready = ready(Cluster::builder().conf("max_wal_size = '4GB'"));
    let server = &ready.server;
    server.psql(
        "SELECT format('CREATE TABLE t%s AS SELECT %s AS i', n, n) FROM generate_series(1, 5000) n \\gexec",
    );
    let original = server.checksums();
    assert!(original.len() > 5000);
    let backup = backup(&ready);
    server.destroy();
    restore(&ready, &backup);
    server.start();
    assert_same_data(&original, &server.checksums());
}

/// A table of more than 2 GB, written without WAL: the transaction that creates it fills it, with wal_level=minimal.
fn with_large_table() -> Cluster {
    let builder = Cluster::builder().conf("max_wal_senders = 0").conf("wal_level = minimal");
    let server = builder.conf("max_wal_size = '4GB'").conf("shared_buffers = '256MB'").create();
    server.start();
    // Wide rows that are neither compressed nor moved out: few to make, one to a page.
    server.psql(
        "BEGIN; CREATE TABLE large (i int, t text); ALTER TABLE large ALTER t SET STORAGE PLAIN;
         INSERT INTO large SELECT i, repeat(chr(97 + i % 26), 8000) FROM generate_series(1, 270000) i; COMMIT",
    );
    server.configure(&["max_wal_senders = 10", "wal_level = replica"]);
    server.restart();
    server
}

#[test]
fn a_table_of_more_than_two_gigabytes() {
    let ready = enabled(with_large_table(), Repo::new());
    let server = &ready.server;
    let file = PathBuf::from(server.psql("SELECT pg_relation_filepath('large')"));
    let third = server.data().join(file.with_extension("2"));
    assert!(third.is_file(), "three segment files, {third:?} the last");
    let content = "SELECT count(*), sum(i), sum(length(t)), count(DISTINCT left(t, 1)) FROM large";
    let original = server.psql(content);
    let backup = backup(&ready);
    server.stop(StopMode::Fast);
    server.destroy();
    restore(&ready, &backup);
    server.start();
    assert_eq!(server.psql(content), original);
}

/// Small files below the data directory, which every backup of PostgreSQL takes along.
fn scatter(folder: &Path, folders: usize, files: usize) {
    for outer in 0..folders {
        let folder = folder.join(format!("folder {outer}"));
        fs::create_dir_all(&folder).expect("a folder");
        for inner in 0..files {
            fs::write(folder.join(format!("file {inner}")), format!("{outer} {inner}"))
                .expect("a small file");
        }
    }
    chown_tree_to_server(folder);
}

#[test]
fn a_hundred_thousand_files() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    scatter(&server.data().join("many"), 100, 1000);
    let backup = backup(&ready);
    let files: u64 =
        ready.server.psql(&format!("SELECT ark.show('{backup}') ->> 'files'")).parse().expect("files");
    assert!(files > 100_000, "{files}");
    server.destroy();
    restore(&ready, &backup);
    let last = fs::read_to_string(server.data().join("many/folder 99/file 999")).expect("the last file");
    assert_eq!(last, "99 999");
    server.start();
}
