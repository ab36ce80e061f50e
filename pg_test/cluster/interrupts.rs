//! What ends a backup and what does not: each way to end it ends the engine within a second, leaves nothing behind
//! but a record that says why, and hinders nothing that follows.

use crate::support::{Ready, Running, ready};
use pg_ark_testkit::process::{INTERRUPT, KILL, QUIT, Signal, is_alive, is_reaped, send_signal};
use pg_ark_testkit::{Cluster, LONG, SHORT, Session, holds_promptly, wait_until};
use std::path::Path;

/// An empty cluster of some 22 MB lasts for twenty seconds.
const SLOW: u32 = 1024;
/// What a worker says that was told to stop.
const STOPPED: &str = "stopped by ark.backup_stop, pg_terminate_backend or server shutdown";

fn slow_backup() -> (Ready, Running) {
    let ready = ready(Cluster::builder());
    let running = ready.start_slow(SLOW);
    (ready, running)
}

#[track_caller]
fn ends_within(seconds: u32, engine: u32) {
    assert!(holds_promptly(seconds, || !is_alive(engine)), "the engine lives on");
}

/// Signals the postmaster; the engine ends within a second, the server soon.
#[track_caller]
fn server_ends(ready: &Ready, running: &Running, signal: Signal) {
    let postmaster = ready.server.pid().expect("a server");
    send_signal(postmaster, signal);
    ends_within(1, running.engine);
    wait_until("the end of the server", SHORT, || is_reaped(postmaster) && !is_alive(running.worker));
}

#[test]
fn terminating_the_worker_ends_the_engine_within_a_second() {
    let (ready, running) = slow_backup();
    let mut session = ready.server.session();
    session.ask("SELECT 1");
    session.send(&format!("SELECT pg_terminate_backend({})", running.worker));
    ends_within(1, running.engine);
    ready.assert_failed(&running.backup, STOPPED);
    ready.assert_works();
}

#[test]
fn cancelling_the_worker_ends_the_engine_within_a_second() {
    let (ready, running) = slow_backup();
    let mut session = ready.server.session();
    session.ask("SELECT 1");
    session.send(&format!("SELECT pg_cancel_backend({})", running.worker));
    ends_within(1, running.engine);
    ready.assert_failed(&running.backup, "cancelled by pg_cancel_backend");
    ready.assert_works();
}

#[test]
fn backup_stop_ends_a_running_backup_and_says_whether_it_did() {
    let (ready, running) = slow_backup();
    let stop = format!("SELECT ark.backup_stop('{}')", running.backup);
    let mut session = ready.server.session();
    session.ask("SELECT count(*) FROM ark.list_backups()");
    session.send(&stop);
    ends_within(1, running.engine);
    assert_eq!(session.wait().expect("backup_stop").rows.lines().last(), Some("t"));
    ready.assert_failed(&running.backup, STOPPED);
    assert_eq!(ready.server.psql(&stop), "f", "a failed backup does not run");
    let complete = ready.take_backup();
    assert_eq!(ready.server.psql(&format!("SELECT ark.backup_stop('{complete}')")), "f");
    assert_eq!(ready.backup_row("status", &complete), "complete", "and stays as it was");
    let unknown = ready.server.try_psql("SELECT ark.backup_stop('20000101T000000Z-full')").unwrap_err();
    assert_eq!(unknown.sqlstate(), "42704", "{unknown}");
    assert!(unknown.hint().contains("list_backups"), "{unknown}");
    ready.assert_works();
}

#[test]
fn a_backup_that_waits_for_a_checkpoint_can_be_stopped() {
    let ready = ready(Cluster::builder().conf("checkpoint_timeout = '1h'").conf("max_wal_size = '10GB'"));
    ready.server.pgbench(&["-i", "-q", "-s", "2"]);
    let backup = ready.server.psql("SELECT ark.backup_start(fast => false)");
    ready.wait_for_phase("waiting for checkpoint to finish");
    let engine = ready.engine();
    let mut session = ready.server.session();
    session.ask("SELECT 1");
    session.send(&format!("SELECT ark.backup_stop('{backup}')"));
    ends_within(1, engine);
    ready.assert_failed(&backup, STOPPED);
    ready.assert_works();
}

#[test]
fn a_fast_shutdown_ends_the_backup_and_does_not_wait_for_it() {
    let (ready, running) = slow_backup();
    server_ends(&ready, &running, INTERRUPT);
    ready.server.start();
    ready.assert_failed(&running.backup, STOPPED);
    ready.assert_works();
}

#[test]
fn an_immediate_shutdown_ends_the_engine_within_a_second() {
    let (ready, running) = slow_backup();
    server_ends(&ready, &running, QUIT);
    ready.server.start();
    ready.assert_failed(&running.backup, "the server process that asked for the work went away");
    ready.assert_works();
}

#[test]
fn a_killed_postmaster_ends_the_engine_within_a_second() {
    let (ready, running) = slow_backup();
    server_ends(&ready, &running, KILL);
    ready.server.start();
    ready.assert_failed(&running.backup, "the server process that asked for the work went away");
    ready.assert_works();
}

#[test]
fn a_killed_worker_ends_the_engine_within_a_second() {
    let (ready, running) = slow_backup();
    // The server restarts every session then, as after any crash.
    send_signal(running.worker, KILL);
    ends_within(1, running.engine);
    wait_until("the server's recovery", LONG, || ready.server.try_psql("SELECT 1").is_ok());
    ready.assert_failed(&running.backup, "the server process that asked for the work went away");
    ready.assert_works();
}

/// A session that waits for a backup of some ten seconds; returns it with its process and the backup's name.
#[track_caller]
fn waiting_client(ready: &Ready, settings: &str) -> (Session, u32, String) {
    let mut session = ready.server.session();
    let pid = session.backend_pid();
    session.send(&format!("SET pg_ark.max_rate = 2048; {settings}; SELECT ark.backup_start(wait => true)"));
    ready.wait_for_phase("streaming database files");
    let name = "SELECT application_name FROM pg_stat_activity WHERE backend_type = 'pg_ark backup'";
    (session, pid, ready.server.psql(name))
}

#[track_caller]
fn completes(ready: &Ready, backup: &str) {
    assert_eq!(ready.backup_row("status", backup), "running", "it goes on without its client");
    wait_until("the end of the backup", LONG, || ready.backup_row("status", backup) != "running");
    assert_eq!(ready.backup_row("status, error", backup), "complete|");
    ready.assert_nothing_left_behind();
}

#[test]
fn a_client_that_waits_may_be_cancelled_without_harm_to_the_backup() {
    let ready = ready(Cluster::builder());
    let (session, pid, backup) = waiting_client(&ready, "SELECT 1");
    ready.server.psql(&format!("SELECT pg_cancel_backend({pid})"));
    let error = session.wait().unwrap_err();
    assert_eq!(error.sqlstate(), "57014", "{error}");
    completes(&ready, &backup);

    let (session, _, backup) = waiting_client(&ready, "SET statement_timeout = '4s'");
    let error = session.wait().unwrap_err();
    assert!(error.message().contains("statement timeout"), "{error}");
    completes(&ready, &backup);
}

#[test]
fn a_client_that_waits_may_be_disconnected_without_harm_to_the_backup() {
    let ready = ready(Cluster::builder());
    let (session, pid, backup) = waiting_client(&ready, "SELECT 1");
    ready.server.psql(&format!("SELECT pg_terminate_backend({pid})"));
    assert_eq!(session.wait().unwrap_err().sqlstate(), "57P01");
    completes(&ready, &backup);
    ready.assert_works();
}

/// Has the server start this shell script instead of the engine.
fn replace_engine(server: &Cluster, script: &str) {
    let path = server.base().join("engine.sh");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a script");
    make_executable(&path);
    server.configure(&[&format!("pg_ark.engine_path = '{}'", path.display())]);
    server.reload();
}

fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("its mode");
}

/// Sends a query that waits for an engine which never answers; returns the session, its process and the engine.
#[track_caller]
fn hanging_query(server: &Cluster, query: &str) -> (Session, u32, u32) {
    let mut session = server.session();
    let pid = session.backend_pid();
    session.send(query);
    let engines = || server.pids("sleep 600");
    wait_until("the engine", SHORT, || engines().len() == 1);
    (session, pid, engines()[0])
}

const QUERIES: [&str; 6] = [
    "SELECT * FROM ark.list_backups()",
    "SELECT * FROM ark.check()",
    "SELECT * FROM ark.validate()",
    "SELECT * FROM ark.verify_archive(deep => true)",
    "SELECT ark.show('20000101T000000Z-full')",
    "SELECT * FROM ark.enable('file:///tmp/never')",
];

#[test]
fn a_cancelled_query_ends_an_engine_that_hangs() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    replace_engine(server, "exec sleep 600");
    for query in QUERIES {
        let (session, pid, engine) = hanging_query(server, query);
        server.psql(&format!("SELECT pg_cancel_backend({pid})"));
        ends_within(1, engine);
        assert_eq!(session.wait().unwrap_err().sqlstate(), "57014", "{query}");

        let (session, _, engine) = hanging_query(server, &format!("SET statement_timeout = 300; {query}"));
        ends_within(2, engine);
        let error = session.wait().unwrap_err();
        assert!(error.message().contains("statement timeout"), "{query}: {error}");
    }
}

#[test]
fn a_terminated_session_ends_an_engine_that_hangs() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    replace_engine(server, "exec sleep 600");
    for query in QUERIES {
        let (session, pid, engine) = hanging_query(server, query);
        server.psql(&format!("SELECT pg_terminate_backend({pid})"));
        ends_within(1, engine);
        assert_eq!(session.wait().unwrap_err().sqlstate(), "57P01", "{query}");
    }
    let (session, _, engine) = hanging_query(server, QUERIES[0]);
    let postmaster = server.pid().expect("a server");
    send_signal(postmaster, INTERRUPT);
    ends_within(1, engine);
    wait_until("a fast shutdown", SHORT, || is_reaped(postmaster));
    assert_eq!(session.wait().unwrap_err().sqlstate(), "57P01");
}

#[test]
fn a_client_that_gives_up_before_the_backup_runs_takes_its_worker_with_it() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    replace_engine(server, "exec sleep 600");
    for end in ["pg_cancel_backend", "pg_terminate_backend"] {
        let (session, pid, engine) = hanging_query(server, "SELECT ark.backup_start()");
        server.psql(&format!("SELECT {end}({pid})"));
        ends_within(2, engine); // The worker first, then the engine.
        session.wait().unwrap_err();
        ready.assert_nothing_left_behind();
    }
    server.configure(&["pg_ark.engine_path = ''"]);
    server.reload();
    assert_eq!(server.psql("SELECT count(*) FROM ark.list_backups()"), "0");
    ready.assert_works();
}
