//! A backup is a good neighbour: it follows its rate, waits for processor and disk, and leaves the page cache alone.

use crate::support::{Ready, Running, ready};
use pg_ark_testkit::{Cluster, command, run_ok};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Threads of an engine that listen, and work for a moment at its end: they need not wait.
const LISTENERS: [&str; 2] = ["replies", "signals"];

#[test]
fn a_change_of_the_rate_acts_on_a_running_backup() {
    // So little that the backup would take a day.
    let ready = ready(Cluster::builder().conf("pg_ark.max_rate = 100"));
    ready.server.psql("CREATE TABLE many AS SELECT i, md5(i::text) FROM generate_series(1, 100000) i");
    let running = start(&ready);
    let done = "SELECT backup_streamed < backup_total / 2 FROM pg_stat_progress_basebackup";
    assert_eq!(ready.server.psql(done), "t");
    change_rate(&ready, "200");
    assert_eq!(ready.server.psql(done), "t");
    change_rate(&ready, "0");
    ready.wait_for_end(&running);
}

#[test]
fn every_thread_of_a_backup_waits_for_processor_and_disk() {
    let ready = ready(Cluster::builder().conf("pg_ark.max_rate = 100").conf("pg_ark.jobs = 3"));
    let running = start(&ready);
    let mut threads = threads(running.engine);
    assert_eq!(threads.len(), threads.iter().filter(|t| t.io_class == "idle").count(), "{threads:?}");
    threads.retain(|thread| !LISTENERS.contains(&thread.name.as_str()));
    assert!(threads.len() >= 4, "the threads that copy, and the first: {threads:?}");
    assert!(threads.iter().all(|thread| thread.nice == 10), "{threads:?}");
    // The worker itself holds the server's promises, so it is served as every backend.
    assert!(self::threads(running.worker).iter().all(|t| t.nice == 0 && t.io_class != "idle"));
    change_rate(&ready, "0");
    ready.wait_for_end(&running);
}

#[test]
fn a_backup_leaves_the_page_cache_as_it_was() {
    let ready = ready(Cluster::builder().conf("shared_buffers = 1MB").conf("autovacuum = off"));
    let server = &ready.server;
    let file = |name: &str| -> PathBuf {
        let rows = "SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 50000) i";
        server.psql(&format!("CREATE TABLE {name} AS {rows}"));
        server.data().join(server.psql(&format!("SELECT pg_relation_filepath('{name}')")))
    };
    let (cold, hot) = (file("cold"), file("hot"));
    server.psql("VACUUM FREEZE cold, hot");
    server.psql("CHECKPOINT");
    let size = std::fs::metadata(&cold).expect("a table").len();
    assert!(size > 30 << 20, "{size}");
    drop_from_cache(&cold);
    drop_from_cache(&hot);
    assert_eq!(in_cache(&cold), 0, "the data directory's file system gives no pages back");
    // Read by another program, as the server would.
    run_ok(command("cksum").arg(&hot));
    // A machine short of memory may take a page back.
    assert!(in_cache(&hot) >= size - size / 100, "{} of {size} bytes came into the cache", in_cache(&hot));

    let backup = ready.take_backup();
    // A machine that is busy for a moment may leave a few pages.
    assert!(in_cache(&cold) <= size / 10, "{} of {size} bytes were left in the cache", in_cache(&cold));
    assert!(in_cache(&hot) >= size - size / 50, "{} of {size} bytes are still in the cache", in_cache(&hot));
    let stored = ready.backup_folder(&backup).join("base.tar.zst");
    let stored_size = std::fs::metadata(&stored).expect("an archive").len();
    assert!(stored_size > 1 << 20, "{stored_size}");
    assert!(in_cache(&stored) <= stored_size / 10, "{} of {stored_size} bytes", in_cache(&stored));

    run_ok(ready.pgark().args(["verify", &backup, "--level", "pages"]));
    // What the kernel reads ahead of one thread comes back behind another: a few of its windows, in a small archive.
    assert!(in_cache(&stored) <= stored_size / 3, "{} of {stored_size} bytes", in_cache(&stored));
}

/// Starts a backup at the server's own rate; returns once it copies files.
fn start(ready: &Ready) -> Running {
    let backup = ready.server.psql("SELECT ark.backup_start()");
    ready.wait_for_phase("streaming database files");
    Running { worker: ready.worker(), engine: ready.engine(), backup }
}

fn change_rate(ready: &Ready, rate: &str) {
    ready.server.psql(&format!("ALTER SYSTEM SET pg_ark.max_rate = {rate}"));
    ready.server.reload();
}

#[derive(Debug)]
struct Thread {
    name: String,
    nice: i64,
    io_class: String,
}

fn threads(pid: u32) -> Vec<Thread> {
    let folder = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process").flatten();
    folder
        .map(|entry| {
            let path = entry.path();
            let read = |name: &str| std::fs::read_to_string(path.join(name)).expect("a thread");
            let stat = read("stat");
            // proc(5): the fields behind the name begin with the third; nice is the nineteenth.
            let (_, fields) = stat.rsplit_once(") ").expect("a name in brackets");
            let nice = fields.split(' ').nth(16).and_then(|nice| nice.parse().ok()).expect("a number");
            let told = run_ok(Command::new("ionice").arg("-p").arg(entry.file_name()));
            let io_class = told.split(':').next().unwrap_or_default().trim().to_string();
            Thread { name: read("comm").trim().to_string(), nice, io_class }
        })
        .collect()
}

/// Writes a file out and drops it from the page cache, as the manual of dd says.
#[track_caller]
fn drop_from_cache(file: &Path) {
    let mut to = std::ffi::OsString::from("of=");
    to.push(file);
    run_ok(command("dd").arg(to).args(["oflag=nocache", "conv=notrunc,fdatasync", "count=0"]));
}

/// Bytes of a file in the page cache.
#[track_caller]
fn in_cache(file: &Path) -> u64 {
    let told = run_ok(command("fincore").args(["-b", "-n", "-r", "-o", "RES"]).arg(file));
    told.trim().parse().unwrap_or_else(|_| panic!("fincore said: {told}"))
}
