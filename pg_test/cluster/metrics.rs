//! `ark.status` and `ark.metrics`: what they say of a server that backs itself up, of one that does not, and what it costs.

use crate::archiving::{archive_now, archiving};
use crate::scheduled::DAY;
use crate::support::Ready;
use pg_ark_testkit::{Clock, Cluster, LONG, wait_until};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A server that archives, with a backup, a scheduler and jobs of which one has run.
fn protected() -> Ready {
    let builder = Cluster::builder().wal_segment_mb(1).conf("shared_preload_libraries = 'pg_ark'");
    let ready = archiving(builder);
    ready.server.psql("CREATE TABLE t AS SELECT 1 AS a");
    archive_now(&ready);
    ready.server.psql("SELECT ark.schedule('nightly', '0 2 * * *')");
    wait_until("the first backup, by itself", LONG, || {
        ready.server.psql("SELECT last_status FROM ark.jobs") == "done"
    });
    ready.server.psql("INSERT INTO t VALUES (2)");
    archive_now(&ready);
    ready
}

fn value(server: &Cluster, name: &str) -> String {
    server.psql(&format!("SELECT value FROM ark.metrics WHERE name = 'pg_ark_{name}'"))
}

#[test]
fn every_metric_is_documented_and_every_documented_one_is_there() {
    let ready = protected();
    let server = &ready.server;
    let found: BTreeSet<String> =
        server.psql("SELECT DISTINCT name FROM ark.metrics").lines().map(str::to_string).collect();
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(readme).expect("README.md");
    let documented: BTreeSet<String> = readme
        .lines()
        .filter_map(|line| Some(line.strip_prefix("| `pg_ark_")?.split_once('`')?.0))
        .map(|name| format!("pg_ark_{name}"))
        .collect();
    assert!(documented.len() > 30, "the table is not found: {documented:?}");
    let unknown: Vec<_> = found.difference(&documented).collect();
    assert!(unknown.is_empty(), "not in the README: {unknown:?}");
    // Nothing has failed, nothing was old enough to be removed, and nobody asked for a dump.
    let absent: Vec<_> = documented.difference(&found).map(String::as_str).collect();
    let absent_here = [
        "databases_without_dump",
        "last_error_timestamp_seconds",
        "last_logical_backup_timestamp_seconds",
        "last_prune_timestamp_seconds",
    ];
    assert_eq!(absent, absent_here.map(|name| format!("pg_ark_{name}")));
}

#[test]
fn status_of_a_server_that_backs_itself_up() {
    let ready = protected();
    let server = &ready.server;
    let row = "SELECT healthy, health, recovery_window_from <= recovery_window_to, next_run > now(), next_job, \
               last_error, backups, backup_bytes > 0, free_bytes > 0 FROM ark.status";
    assert_eq!(server.psql(row), "t|ok|t|t|nightly||1|t|t");
    let window = "SELECT to_json(w) FROM (SELECT from_time, to_time FROM ark.recovery_windows()) w";
    let of_status = "SELECT to_json(w) FROM (SELECT recovery_window_from AS from_time, recovery_window_to AS to_time \
                     FROM ark.status) w";
    assert_eq!(server.psql(of_status), server.psql(window));
    for (name, expected) in
        [("up", "1"), ("healthy", "1"), ("problems", "0"), ("backups", "1"), ("scheduler_running", "1")]
    {
        assert_eq!(value(server, name), expected, "{name}");
    }
    let hour = "SELECT abs(value - extract(epoch FROM now())) < 3600 FROM ark.metrics \
                WHERE name = 'pg_ark_last_backup_timestamp_seconds'";
    assert_eq!(server.psql(hour), "t");
    let labels = "SELECT labels FROM ark.metrics WHERE name = 'pg_ark_job_last_run_success'";
    assert_eq!(server.psql(labels), r#"{"job": "nightly", "kind": "full"}"#);
}

#[test]
fn a_repository_that_is_away_is_told_and_raises_nothing() {
    let ready = protected();
    let (server, away) = (&ready.server, ready.server.base().join("away"));
    fs::rename(ready.repo.path(), &away).expect("the repository moves");
    assert_eq!(
        (value(server, "up"), value(server, "healthy"), value(server, "backups")),
        ("0".into(), "0".into(), String::new())
    );
    let row = "SELECT healthy, next_run > now(), next_job, backups FROM ark.status";
    assert_eq!(server.psql(row), "f|t|nightly|", "what is next is known without it");
    assert_eq!(value(server, "job_enabled"), "1");
    fs::rename(&away, ready.repo.path()).expect("it comes back");
    assert_eq!(value(server, "up"), "1");
}

#[test]
fn a_schedule_that_nobody_keeps_is_told() {
    let ready = archiving(Cluster::builder().wal_segment_mb(1).conf("max_prepared_transactions = 1"));
    let server = &ready.server;
    ready.take_backup();
    archive_now(&ready);
    assert_eq!(server.psql("SELECT health FROM ark.status"), "ok");
    server.psql("SELECT ark.schedule('nightly', '0 2 * * *')");
    let health = server.psql("SELECT health FROM ark.status");
    assert!(health.contains("no scheduler runs"), "{health}");
    assert_eq!(value(server, "scheduler_running"), "0");
    // The table is locked by nobody who could be asked.
    server.psql("BEGIN; LOCK TABLE ark.job; PREPARE TRANSACTION 'locked'");
    for view in ["SELECT health FROM ark.status", "SELECT detail FROM ark.check() WHERE item = 'jobs'"] {
        assert_eq!(server.psql(view), "table ark.job is locked by another session", "{view}");
    }
    assert_eq!((value(server, "healthy"), value(server, "up")), ("0".into(), "1".into()));
    server.psql("ROLLBACK PREPARED 'locked'");
    server.psql("SELECT ark.unschedule('nightly')");
    assert_eq!(server.psql("SELECT health FROM ark.status"), "ok");
}

#[test]
fn a_backup_of_the_future_is_told_and_hides_no_age() {
    let clock = Clock::behind(DAY * 100);
    let ready = archiving(Cluster::builder().wal_segment_mb(1).clock(&clock));
    let server = &ready.server;
    let past = ready.take_backup();
    assert_eq!(server.psql("SELECT health FROM ark.status"), "ok");
    clock.advance(DAY * 90);
    let future = ready.take_backup();
    clock.advance(DAY);
    archive_now(&ready);
    assert_eq!(server.psql("SELECT last_backup, health FROM ark.status"), format!("{future}|ok"));

    // The clock is set right.
    clock.set(clock.now() - i64::try_from(DAY.as_secs() * 31).expect("seconds"));
    let health = server.psql("SELECT health FROM ark.status");
    let told = format!("backup {future} says that it finished at ");
    assert!(
        health.contains(&told) && health.contains("in the future: the clock was or is wrong"),
        "{health}"
    );
    assert!(health.contains("the last backup is 60 days old"), "{health}");
    let row = "SELECT healthy, last_backup, last_clean_backup, last_backup_age BETWEEN '59 days' AND '61 days' FROM ark.status";
    assert_eq!(server.psql(row), format!("f|{past}|{past}|t"));
    let age = "SELECT extract(epoch FROM now()) - value BETWEEN 59 * 86400 AND 61 * 86400 FROM ark.metrics \
               WHERE name = 'pg_ark_last_backup_timestamp_seconds'";
    assert_eq!((server.psql(age), value(server, "healthy")), ("t".into(), "0".into()));
    let check = server.psql("SELECT status, detail, hint FROM ark.check() WHERE item = 'clock'");
    assert!(check.starts_with(&format!("warning|{told}")) && check.contains("by hand"), "{check}");

    let present = ready.take_backup();
    assert_eq!(server.psql("SELECT last_backup FROM ark.status"), present);
    // As the hint says.
    fs::remove_dir_all(ready.backup_folder(&future)).expect("its folder");
    archive_now(&ready);
    assert_eq!(server.psql("SELECT last_backup, health FROM ark.status"), format!("{present}|ok"));
}
