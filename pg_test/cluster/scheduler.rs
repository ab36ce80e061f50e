//! The scheduler: it does what is due, says once what keeps it from it, goes on when that is over, and ends at once.

use crate::support::{Ready, Running, ready};
use pg_ark_testkit::process::{
    CONTINUE, INTERRUPT, KILL, QUIT, STOP, Signal, TERMINATE, descendants, is_alive, is_reaped, send_signal,
};
use pg_ark_testkit::{Builder, Cluster, LONG, Repo, SHORT, StopMode, holds_within, run, wait_until};
use std::path::Path;

/// What the scheduler says when nothing is wrong any more.
const WELL: &str = "pg_ark scheduler: all is well again";

fn preloading() -> Builder {
    Cluster::builder().conf("shared_preload_libraries = 'pg_ark'")
}

/// A server with a scheduler, a repository and no jobs.
#[track_caller]
fn scheduled(builder: Builder) -> Ready {
    ready(builder.conf("shared_preload_libraries = 'pg_ark'"))
}

#[track_caller]
fn schedule(server: &Cluster, name: &str, kind: &str, more: &str) {
    server.psql(&format!("SELECT ark.schedule('{name}', '0 2 * * *', '{kind}'{more})"));
}

/// Makes every job due now, and has the scheduler look.
#[track_caller]
fn make_due(server: &Cluster, job: &str) {
    server.psql(&format!("UPDATE ark.job SET since = now() - interval '2 days' WHERE name = '{job}'"));
    server.reload();
}

/// `status|attempt` of every attempt at a job, newest first.
fn runs(server: &Cluster, job: &str) -> String {
    server.psql(&format!("SELECT status, attempt FROM ark.job_runs('{job}')"))
}

#[track_caller]
fn wait_for_runs(server: &Cluster, job: &str, expected: &str) {
    let seen = || runs(server, job);
    assert!(holds_within(LONG, || seen() == expected), "{expected} expected: {}", seen());
}

/// Has the scheduler look once more, and waits until it has.
#[track_caller]
fn look(server: &Cluster) {
    let idle = "backend_type = 'pg_ark scheduler' AND state = 'idle'";
    let mut before = String::new();
    wait_until("an idle scheduler", LONG, || {
        before = server.psql(&format!("SELECT state_change FROM pg_stat_activity WHERE {idle}"));
        !before.is_empty()
    });
    server.reload();
    let again = format!("SELECT count(*) FROM pg_stat_activity WHERE {idle} AND state_change > '{before}'");
    wait_until("the next look", LONG, || server.psql(&again) == "1");
}

/// Waits until the scheduler looks again though nobody asks it to.
#[track_caller]
fn looks_by_itself(server: &Cluster) {
    let last = "SELECT max(state_change) FROM pg_stat_activity WHERE backend_type = 'pg_ark scheduler'";
    let before = server.psql(last);
    let again = format!(
        "SELECT ({last}) > '{before}' AND state = 'idle' FROM pg_stat_activity \
                         WHERE backend_type = 'pg_ark scheduler'"
    );
    wait_until("a look", LONG, || server.psql(&again) == "t");
}

/// How often the log says `text`.
fn told(server: &Cluster, text: &str) -> usize {
    server.log().matches(text).count()
}

/// Looks twice: the log says `problem` once.
#[track_caller]
fn is_told_once(server: &Cluster, problem: &str) {
    look(server);
    wait_until(problem, LONG, || told(server, problem) > 0);
    look(server);
    look(server);
    assert_eq!(told(server, problem), 1, "{problem}: {}", server.log());
}

/// The problem is over: that is told once more than before.
#[track_caller]
fn is_well_again(server: &Cluster, times: usize) {
    look(server);
    wait_until("the end of the problem", LONG, || told(server, WELL) == times);
    look(server);
    assert_eq!(told(server, WELL), times);
}

#[track_caller]
fn scheduler(server: &Cluster) -> u32 {
    let pids = || server.pids("pg_ark scheduler");
    wait_until("a scheduler", LONG, || pids().len() == 1);
    pids()[0]
}

/// A scheduled backup of some twenty seconds, copying.
#[track_caller]
fn running_backup(more: &str) -> (Ready, Running) {
    running_backup_of(1024, more)
}

/// A scheduled backup that reads `rate` kB per second of some 22 MB, copying.
#[track_caller]
fn running_backup_of(rate: u32, more: &str) -> (Ready, Running) {
    let ready = scheduled(Cluster::builder().conf(&format!("pg_ark.max_rate = {rate}")));
    schedule(&ready.server, "nightly", "full", more);
    ready.wait_for_phase("streaming database files");
    let backup = ready.server.psql("SELECT backup FROM ark.list_backups()");
    let running = Running { worker: ready.worker(), engine: ready.engine(), backup };
    (ready, running)
}

#[test]
fn the_first_backup_comes_by_itself_and_a_schedule_acts_at_once() {
    let ready = scheduled(Cluster::builder());
    let server = &ready.server;
    let mut listener = server.session();
    listener.ask("LISTEN pg_ark");
    schedule(server, "nightly", "full", "");
    // The scheduler looks every five minutes when there are no jobs: this one it was told of.
    let begun = holds_within(SHORT, || !runs(server, "nightly").is_empty());
    assert!(begun, "{}", server.log());
    wait_for_runs(server, "nightly", "done|1");
    let backup = server.psql("SELECT backup FROM ark.job_runs('nightly')");
    assert_eq!(ready.backup_row("status", &backup), "complete");
    ready.assert_nothing_left_behind();
    look(server);
    look(server);
    assert_eq!(runs(server, "nightly"), "done|1", "once");
    // psql prints what came with the answer of a statement.
    let (event, of) = ("\"event\":\"finished\"", format!("\"backup\":\"{backup}\""));
    wait_until("a notification", SHORT, || {
        listener.ask("SELECT 1");
        let heard = listener.rows_so_far();
        heard.contains(event) && heard.contains(&of) && heard.contains("\"job\":\"nightly\"")
    });
}

#[test]
fn a_server_without_repository_extension_or_jobs_has_nothing_to_do() {
    let server = preloading().start();
    scheduler(&server);
    look(&server);
    assert_eq!(told(&server, "pg_ark scheduler:"), 0, "{}", server.log());
    // In a database that is not the one.
    server.psql("CREATE EXTENSION pg_ark");
    let repo = Repo::new();
    server.psql(&format!("SELECT * FROM ark.enable('{}')", repo.url()));
    server.psql("DROP EXTENSION pg_ark");
    is_told_once(&server, "extension pg_ark is not in database \"postgres\"");
    server.psql("CREATE EXTENSION pg_ark");
    is_well_again(&server, 1);
    assert_eq!(server.psql("SELECT count(*) FROM ark.job_runs()"), "0");
}

#[test]
fn the_database_may_be_renamed_dropped_and_made_again() {
    let server = preloading().conf("pg_ark.database = 'app'").start();
    let repo = Repo::new();
    server.psql("CREATE EXTENSION pg_ark");
    server.psql(&format!("SELECT * FROM ark.enable('{}')", repo.url()));
    is_told_once(&server, "database \"app\" does not exist");
    server.psql("CREATE DATABASE app");
    is_told_once(&server, "extension pg_ark is not in database \"app\"");
    let create = "CREATE EXTENSION pg_ark; SELECT ark.schedule('archive', '@yearly', 'verify_archive')";
    server.psql_db("app", create);
    is_well_again(&server, 1);

    // Nobody is connected to it for longer than a look.
    server.psql("ALTER DATABASE app RENAME TO other");
    look(&server);
    assert_eq!(told(&server, "database \"app\" does not exist"), 2);
    server.psql("ALTER DATABASE other RENAME TO app");
    is_well_again(&server, 2);
    server.psql("ALTER DATABASE app ALLOW_CONNECTIONS false");
    is_told_once(&server, "database \"app\" does not accept connections");
    server.psql("ALTER DATABASE app ALLOW_CONNECTIONS true");
    is_well_again(&server, 3);

    server.psql("DROP DATABASE app");
    look(&server);
    assert_eq!(told(&server, "database \"app\" does not exist"), 3);
    server.psql("CREATE DATABASE app");
    server.psql_db("app", create);
    is_well_again(&server, 4);
    server.psql_db("app", "UPDATE ark.job SET since = now() - interval '2 years'");
    server.reload();
    let runs = || server.psql_db("app", "SELECT status FROM ark.job_runs()");
    wait_until("the run", LONG, || runs() == "done" || runs() == "failed");
    assert_eq!(told(&server, "FATAL"), 0, "no worker runs into a wall: {}", server.log());
}

#[test]
fn a_repository_that_goes_away_is_told_once_and_its_return_too() {
    let ready = scheduled(Cluster::builder());
    let server = &ready.server;
    schedule(server, "archive", "verify_archive", "");
    let away = ready.repo.path().with_extension("away");
    std::fs::rename(ready.repo.path(), &away).expect("move");
    look(server);
    let problem = told(server, "WARNING:  pg_ark scheduler");
    assert_eq!(problem, 1, "{}", server.log());
    make_due(server, "archive");
    look(server);
    look(server);
    assert_eq!(told(server, "WARNING:  pg_ark scheduler"), problem, "once: {}", server.log());
    std::fs::rename(&away, ready.repo.path()).expect("move");
    is_well_again(server, 1);
    wait_until("the run that was due", LONG, || !runs(server, "archive").is_empty());
}

#[test]
fn settings_that_make_no_sense_are_told_once_and_cost_nothing_else() {
    let ready = scheduled(Cluster::builder());
    let server = &ready.server;
    schedule(server, "archive", "verify_archive", "");
    for (number, (line, problem, back)) in [
        (
            "pg_ark.engine_path = '/nowhere/pgark'",
            "the engine \"/nowhere/pgark\" cannot be run",
            "pg_ark.engine_path = ''",
        ),
        (
            "pg_ark.engine_path = '/bin/false'",
            "\"/bin/false\" is not pg_ark's engine",
            "pg_ark.engine_path = ''",
        ),
        ("pg_ark.cluster = '../x'", "../x", "pg_ark.cluster = ''"),
        ("pg_ark.database = 'a \"b'", "database \"a \"b\" does not exist", "pg_ark.database = 'postgres'"),
    ]
    .into_iter()
    .enumerate()
    {
        server.configure(&[line]);
        look(server);
        let warnings = told(server, "WARNING:  pg_ark scheduler");
        assert_eq!(warnings, number + 1, "{line}: {}", server.log());
        assert!(server.log().contains(problem), "{line}: {}", server.log());
        look(server);
        assert_eq!(told(server, "WARNING:  pg_ark scheduler"), warnings, "{line}: {}", server.log());
        server.configure(&[back]);
        is_well_again(server, number + 1);
    }
}

#[test]
fn sql_of_another_version_is_told_and_does_not_end_the_schedule() {
    let ready = scheduled(Cluster::builder());
    let server = &ready.server;
    schedule(server, "nightly", "full", ", enabled => false");
    let version = |to: &str| {
        let set = "SET allow_system_table_mods = on; UPDATE pg_extension SET extversion =";
        server.psql(&format!("{set} '{to}' WHERE extname = 'pg_ark'"));
    };
    let own = server.psql("SELECT extversion FROM pg_extension WHERE extname = 'pg_ark'");
    version("0.0.9");
    server.psql("UPDATE ark.job SET enabled = true");
    server.reload();
    is_told_once(server, "the SQL of pg_ark has version 0.0.9");
    // A server whose packages were upgraded goes on backing itself up.
    wait_until("the backup", LONG, || told(server, "is complete:") > 0);
    version(&own);
    is_well_again(server, 1);
    wait_for_runs(server, "nightly", "done|1");
}

#[test]
fn a_run_that_hangs_stops_no_other_and_ends_at_its_limit() {
    let (ready, running) = running_backup(", time_limit => '12 s'");
    let server = &ready.server;
    send_signal(running.engine, STOP);
    schedule(server, "archive", "verify_archive", "");
    make_due(server, "archive");
    wait_until("the other job", LONG, || {
        runs(server, "archive").ends_with("|1") && !runs(server, "archive").contains("running")
    });
    assert_eq!(runs(server, "nightly"), "running|1", "it hangs meanwhile");
    wait_for_runs(server, "nightly", "failed|1");
    let error = server.psql("SELECT error FROM ark.job_runs('nightly')");
    assert!(error.contains("took longer than its limit of 12 s"), "{error}");
    wait_until("the end of the engine", LONG, || !is_alive(running.engine));
    ready.assert_nothing_left_behind();
    assert_eq!(told(server, "job \"nightly\" failed (attempt 1)"), 1, "{}", server.log());
}

#[test]
fn a_backup_that_is_due_all_the_time_does_not_starve_the_pruning() {
    let (ready, _) = running_backup("");
    let server = &ready.server;
    server.psql(
        "SELECT ark.schedule('always', '* * * * *'); SELECT ark.schedule('prune', '0 0 1 1 *', 'prune'); \
         UPDATE ark.job SET since = now() - interval '2 years' WHERE name <> 'nightly'",
    );
    server.configure(&["pg_ark.max_rate = 0"]);
    server.reload();
    wait_for_runs(server, "nightly", "done|1");
    wait_until("the other backup", LONG, || told(server, "job \"always\": ") > 0);
    let log = server.log();
    let at = |text: &str| log.find(text).unwrap_or(usize::MAX);
    assert!(at("job \"prune\": ") < at("job \"always\": "), "{log}");
}

#[test]
fn a_run_that_the_server_keeps_waiting_is_ended_too() {
    let ready = scheduled(Cluster::builder());
    let server = &ready.server;
    let [checkpointer] = server.pids("checkpointer")[..] else { panic!("one checkpointer") };
    send_signal(checkpointer, STOP);
    schedule(server, "nightly", "full", ", time_limit => '2 s'");
    ready.wait_for_phase("waiting for checkpoint to finish");
    wait_for_runs(server, "nightly", "failed|1");
    let error = server.psql("SELECT error FROM ark.job_runs('nightly')");
    assert!(error.contains("took longer than its limit of 2 s"), "{error}");
    send_signal(checkpointer, CONTINUE);
}

#[test]
fn a_row_that_makes_no_sense_is_told_once_and_hinders_no_other() {
    let ready = scheduled(Cluster::builder());
    let server = &ready.server;
    schedule(server, "bad cron", "verify_archive", "");
    schedule(server, "bad zone", "verify_archive", "");
    schedule(server, "nightly", "full", "");
    server.psql("UPDATE ark.job SET cron = 'whenever' WHERE name = 'bad cron'");
    server.psql("UPDATE ark.job SET timezone = 'Nowhere/Else' WHERE name = 'bad zone'");
    wait_for_runs(server, "nightly", "done|1");
    is_told_once(server, "job \"bad cron\" is never due");
    is_told_once(server, "job \"bad zone\" is never due");
    // Nothing was reloaded since: this look finds all as it was.
    looks_by_itself(server);
    assert_eq!((told(server, "is never due"), told(server, WELL)), (2, 0), "{}", server.log());
    server.psql("SELECT ark.unschedule(name) FROM ark.jobs WHERE name LIKE 'bad%'");
    is_well_again(server, 1);
}

#[test]
fn without_a_free_worker_slot_nothing_runs_and_that_is_told_once() {
    // One is the scheduler's, one the logical replication launcher's.
    let ready = scheduled(Cluster::builder().conf("max_worker_processes = 2"));
    let server = &ready.server;
    is_told_once(server, "could not start a background worker: every slot is taken");
    let error = server.try_psql("SELECT ark.backup_start()").unwrap_err();
    assert!(error.message().contains("every slot is taken"), "{error}");
    server.configure(&["max_worker_processes = 4"]);
    server.restart();
    schedule(server, "nightly", "full", "");
    wait_for_runs(server, "nightly", "done|1");
}

#[test]
fn a_server_of_pg_upgrade_is_left_alone() {
    let ready = scheduled(Cluster::builder());
    let server = &ready.server;
    schedule(server, "nightly", "full", "");
    wait_for_runs(server, "nightly", "done|1");
    server.stop(StopMode::Fast);
    let mut pg_ctl = server.pg().tool("pg_ctl");
    pg_ctl.args(["start", "-w", "-s", "-o", "-b", "-D"]).arg(server.data()).arg("-l").arg(server.log_path());
    run(&mut pg_ctl).ok();
    assert_eq!(server.pids("walwriter").len(), 1, "it runs");
    assert_eq!(server.pids("pg_ark"), [0; 0]);
}

#[test]
fn a_failed_run_is_tried_again_after_a_pause_and_says_what_to_do() {
    // A backup with WAL of its own needs a slot.
    let ready = scheduled(Cluster::builder().conf("max_replication_slots = 0"));
    let server = &ready.server;
    schedule(server, "nightly", "full", "");
    wait_for_runs(server, "nightly", "failed|1");
    let log = server.log();
    assert!(log.contains("WARNING:  pg_ark: job \"nightly\" failed (attempt 1): could not create"), "{log}");
    assert!(log.contains("raise max_replication_slots") && log.contains("tried again in 1 minute"), "{log}");
    look(server);
    look(server);
    assert_eq!(runs(server, "nightly"), "failed|1", "not before its time");
    wait_for_runs(server, "nightly", "failed|2\nfailed|1");
    assert!(server.log().contains("tried again in 2 minutes"), "{}", server.log());
    assert_eq!(server.psql("SELECT failures FROM ark.jobs"), "2");
}

#[test]
fn a_job_that_cannot_begin_fails_for_all_to_see() {
    let ready = scheduled(Cluster::builder());
    let server = &ready.server;
    let mut listener = server.session();
    listener.ask("LISTEN pg_ark");
    schedule(server, "nightly", "full", "");
    wait_for_runs(server, "nightly", "done|1");
    schedule(server, "archive", "verify_archive", "");
    schedule(server, "gone", "verify_archive", "");
    let mode = |change: &str| {
        run(std::process::Command::new("chmod").args(["-R", change]).arg(ready.repo.path())).ok()
    };
    mode("a-w");
    make_due(server, "archive");
    make_due(server, "gone");
    // Each try is told, with what to do.
    let tries = "WARNING:  pg_ark: job \"archive\" could not begin: could not write";
    wait_until("two tries", LONG, || told(server, tries) == 2);
    let log = server.log();
    assert!(log.contains("It is tried again in 10 s") && log.contains("It is tried again in 20 s"), "{log}");
    let row = server.psql("SELECT last_status, failures, last_error FROM ark.jobs WHERE name = 'archive'");
    assert!(row.starts_with("failed|2|could not begin: could not write"), "{row}");
    assert!(row.contains("Permission denied"), "{row}");
    let health = server.psql("SELECT healthy, health FROM ark.status");
    assert!(
        health.starts_with("f|") && health.contains("job archive failed 2 times: could not begin"),
        "{health}"
    );
    let last = server.psql("SELECT last_error, last_error_at > now() - interval '1 hour' FROM ark.status");
    assert!(last.contains("could not begin") && last.ends_with("|t"), "{last}");
    let failures =
        "SELECT value FROM ark.metrics WHERE name = 'pg_ark_job_failures' AND labels ->> 'job' = 'archive'";
    assert_eq!(server.psql(failures), "2");
    let check = server.psql("SELECT status, hint <> '' FROM ark.check() WHERE item = 'job archive'");
    assert_eq!(check, "error|t");
    wait_until("a notification", SHORT, || {
        listener.ask("SELECT 1");
        let heard = listener.rows_so_far();
        heard.contains("\"event\":\"failed\"") && heard.contains("\"message\":\"could not begin: ")
    });
    server.psql("SELECT ark.unschedule('gone')");
    assert_eq!(told(server, WELL), 0);

    mode("u+w");
    wait_for_runs(server, "archive", "done|1");
    is_well_again(server, 1);
    assert_eq!(server.psql("SELECT failures, last_error FROM ark.jobs WHERE name = 'archive'"), "0|");
    assert!(!server.psql("SELECT health FROM ark.status").contains("archive failed"));
}

#[test]
fn what_could_not_begin_stays_though_missed_runs_are_left_out() {
    let ready = scheduled(Cluster::builder().conf("pg_ark.missed_runs = 'skip'"));
    let server = &ready.server;
    schedule(server, "nightly", "full", "");
    wait_for_runs(server, "nightly", "done|1");
    server.psql("SELECT ark.schedule('often', '* * * * *', 'verify_archive')");
    let mode = |change: &str| {
        run(std::process::Command::new("chmod").args(["-R", change]).arg(ready.repo.path())).ok()
    };
    mode("a-w");
    wait_until("a try", LONG, || told(server, "job \"often\" could not begin") > 0);
    // It was missed; the next one is far away.
    server.psql("UPDATE ark.job SET cron = '@yearly' WHERE name = 'often'");
    look(server);
    look(server);
    assert_eq!(
        server.psql("SELECT last_status, failures > 0 FROM ark.jobs WHERE name = 'often'"),
        "failed|t"
    );
    assert_eq!(told(server, WELL), 0, "{}", server.log());
    mode("u+w");
    server.psql("SELECT ark.unschedule('often')");
    is_well_again(server, 1);
}

#[test]
fn a_job_that_is_gone_is_not_tried_again_and_nobody_says_so() {
    let (ready, running) = running_backup("");
    let server = &ready.server;
    server.psql("SELECT ark.unschedule('nightly')");
    assert_eq!(server.psql(&format!("SELECT ark.backup_stop('{}')", running.backup)), "t");
    wait_until("the failure", LONG, || told(server, "job \"nightly\" failed (attempt 1)") == 1);
    wait_until("the end of the run", LONG, || server.pids("pg_ark backup").is_empty());
    assert!(!server.log().contains("tried again"), "{}", server.log());
}

#[test]
fn a_row_written_by_hand_is_removed_whatever_its_name() {
    let ready = scheduled(Cluster::builder());
    let server = &ready.server;
    server.psql(
        "INSERT INTO ark.job (name, kind, cron, timezone) VALUES (E'../x\\n', 'prune', '@daily', 'UTC'), \
         ('', 'verify', '@daily', 'UTC')",
    );
    assert_eq!(server.psql("SELECT ark.unschedule(E'../x\\n'), ark.unschedule('')"), "t|t");
    assert_eq!(server.psql("SELECT count(*) FROM ark.jobs"), "0");
}

#[test]
fn a_schedule_made_by_a_clock_ahead_acts_once_the_clock_is_right() {
    let ready = scheduled(Cluster::builder());
    let server = &ready.server;
    schedule(server, "nightly", "full", "");
    wait_for_runs(server, "nightly", "done|1");
    schedule(server, "archive", "verify_archive", "");
    server.psql("UPDATE ark.job SET since = now() + interval '2 years' WHERE name = 'archive'");
    server.reload();
    wait_for_runs(server, "archive", "done|1");
    let next = "SELECT next_run < now() + interval '25 hours' FROM ark.jobs WHERE name = 'archive'";
    assert_eq!(server.psql(next), "t");
    schedule(server, "archive", "verify_archive", "");
    assert_eq!(server.psql("SELECT since <= now() FROM ark.job WHERE name = 'archive'"), "t");
}

#[test]
fn an_empty_name_of_the_database_is_the_one_of_postgres() {
    let ready = scheduled(Cluster::builder().conf("pg_ark.database = ''"));
    let server = &ready.server;
    schedule(server, "archive", "verify_archive", "");
    make_due(server, "archive");
    wait_for_runs(server, "archive", "done|1");
    let seen = "SELECT next_run IS NOT NULL, last_error FROM ark.jobs";
    assert_eq!(server.psql(seen), "t|");
    assert!(!server.psql("SELECT health FROM ark.status").contains("are not run"));
    assert_eq!(
        server.psql("SELECT status, detail FROM ark.check() WHERE item = 'pg_ark.database'"),
        "ok|postgres"
    );
    server.psql("CREATE DATABASE app");
    server.psql_db("app", "CREATE EXTENSION pg_ark; SELECT ark.backup_start(wait => true)");
    let elsewhere = "SELECT detail FROM ark.check() WHERE item = 'pg_ark.database'";
    assert_eq!(server.psql_db("app", elsewhere), "the scheduler looks at database \"postgres\" alone");
    assert_eq!(server.psql("SELECT ark.unschedule('archive')"), "t");
}

#[test]
fn a_job_that_runs_is_not_started_again() {
    let (ready, running) = running_backup_of(128, "");
    let server = &ready.server;
    // Its next instant comes while it runs.
    server.psql("UPDATE ark.job SET cron = '* * * * *'");
    let passed = "SELECT date_trunc('minute', now()) > due_at FROM ark.job_runs('nightly')";
    wait_until("the next minute", LONG, || server.psql(passed) == "t");
    look(server);
    look(server);
    assert_eq!(runs(server, "nightly"), "running|1");
    assert_eq!(server.pids("pg_ark backup"), [running.worker]);
    server.psql("UPDATE ark.job SET cron = '@yearly'");
    // Nor is another one that would need the same lease: it waits for the end, and comes then.
    schedule(server, "second", "full", "");
    make_due(server, "second");
    look(server);
    assert_eq!(runs(server, "second"), "");
    // The server's rate acts on what runs.
    server.configure(&["pg_ark.max_rate = 0"]);
    server.reload();
    ready.wait_for_end(&running);
    wait_for_runs(server, "second", "done|1");
}

#[test]
fn a_run_that_finds_the_lease_taken_waits_for_its_turn() {
    let ready = scheduled(Cluster::builder());
    let server = &ready.server;
    let running = ready.start_slow(1024);
    schedule(server, "nightly", "full", "");
    make_due(server, "nightly");
    let waits = "pg_ark: job \"nightly\" waits: ";
    wait_until("a run that waits", LONG, || told(server, waits) > 0);
    assert_eq!(runs(server, "nightly"), "running|1");
    assert_eq!(server.psql(&format!("SELECT ark.backup_stop('{}')", running.backup)), "t");
    wait_for_runs(server, "nightly", "done|1");
    assert_eq!(told(server, waits), 1);
    assert_eq!(told(server, "job \"nightly\" failed"), 0, "{}", server.log());
}

#[test]
fn a_run_that_was_missed_is_made_up_once() {
    let ready = scheduled(Cluster::builder());
    let server = &ready.server;
    schedule(server, "archive", "verify_archive", ", timezone => 'UTC'");
    server.psql("UPDATE ark.job SET since = now() - interval '5 days'");
    server.stop(StopMode::Immediate);
    server.start();
    wait_until("the run", LONG, || !runs(server, "archive").is_empty());
    let due =
        "SELECT count(*), bool_and(due_at > now() - interval '1 day') FROM ark.job_runs() WHERE attempt = 1";
    look(server);
    look(server);
    assert_eq!(server.psql(due), "1|t", "the last of five");
    server.restart();
    look(server);
    assert_eq!(server.psql(due), "1|t", "and not again");
}

#[test]
fn the_stop_of_a_scheduled_backup_is_a_failure_that_is_tried_again() {
    let (ready, running) = running_backup("");
    let server = &ready.server;
    assert_eq!(server.psql(&format!("SELECT ark.backup_stop('{}')", running.backup)), "t");
    wait_for_runs(server, "nightly", "failed|1");
    assert!(server.psql("SELECT error FROM ark.job_runs()").contains("stopped by ark.backup_stop"));
    ready.assert_failed(&running.backup, "stopped by ark.backup_stop");
}

#[test]
fn a_killed_engine_or_worker_costs_one_attempt() {
    let (ready, running) = running_backup("");
    let server = &ready.server;
    send_signal(running.engine, KILL);
    wait_for_runs(server, "nightly", "failed|1");
    assert_eq!(
        told(server, "job \"nightly\" failed (attempt 1): the engine was killed"),
        1,
        "{}",
        server.log()
    );
    let alive = scheduler(server);

    // The second attempt begins a minute later.
    ready.wait_for_phase("streaming database files");
    let worker = ready.worker();
    let engines = server.pids("pgark engine");
    send_signal(worker, KILL);
    wait_until("the server's recovery", LONG, || !is_alive(alive) && server.try_psql("SELECT 1").is_ok());
    wait_until("the end of the engines", SHORT, || engines.iter().all(|engine| !is_alive(*engine)));
    scheduler(server);
    let first_two = || server.psql("SELECT status, attempt FROM ark.job_runs('nightly') WHERE attempt < 3");
    wait_until("the verdict", LONG, || first_two() == "failed|2\nfailed|1");
}

#[test]
fn a_scheduler_that_is_ended_comes_again() {
    let (ready, running) = running_backup_of(256, "");
    let server = &ready.server;
    let first = scheduler(server);
    for end in ["pg_terminate_backend", "pg_cancel_backend"] {
        let pid = scheduler(server);
        server.psql(&format!("SELECT {end}({pid})"));
        wait_until("the end of the scheduler", SHORT, || !is_alive(pid));
        wait_until("another scheduler", LONG, || {
            server.pids("pg_ark scheduler").iter().any(|now| *now != pid)
        });
    }
    assert_ne!(scheduler(server), first);
    look(server);
    assert_eq!(server.pids("pg_ark backup"), [running.worker], "what runs goes on, alone");
    assert_eq!(runs(server, "nightly"), "running|1");
}

/// Signals the postmaster: the server is gone soon, and nothing that it started is left.
#[track_caller]
fn server_ends(server: &Cluster, signal: Signal) {
    let postmaster = server.pid().expect("a server");
    let children = descendants(postmaster);
    send_signal(postmaster, signal);
    let gone = || is_reaped(postmaster) && children.iter().all(|child| !is_alive(child.pid));
    let left = || children.iter().filter(|child| is_alive(child.pid)).collect::<Vec<_>>();
    assert!(holds_within(SHORT, gone), "left after {signal:?}: {:?}", left());
}

const SHUTDOWNS: [Signal; 4] = [TERMINATE, INTERRUPT, QUIT, KILL];

#[test]
fn an_idle_scheduler_hinders_no_shutdown() {
    let ready = scheduled(Cluster::builder());
    schedule(&ready.server, "archive", "verify_archive", "");
    for signal in SHUTDOWNS {
        look(&ready.server);
        server_ends(&ready.server, signal);
        ready.server.start();
    }
}

#[test]
fn a_look_that_hangs_hinders_no_shutdown_and_no_restart() {
    let ready = scheduled(Cluster::builder());
    let server = &ready.server;
    schedule(server, "archive", "verify_archive", "");
    let script = server.base().join("engine.sh");
    replace_engine(&script, "exec sleep 600");
    server.configure(&[&format!("pg_ark.engine_path = '{}'", script.display())]);
    server.reload();
    // An engine of ours ends with its parent also when that is killed; this one does not.
    for signal in [TERMINATE, INTERRUPT] {
        wait_until("a look", LONG, || server.pids("sleep 600").len() == 1);
        server_ends(server, signal);
        server.start();
    }
}

#[test]
fn a_scheduled_backup_hinders_no_shutdown_and_is_tried_again() {
    for signal in SHUTDOWNS {
        let (ready, _) = running_backup("");
        server_ends(&ready.server, signal);
        ready.server.configure(&["pg_ark.max_rate = 0"]);
        ready.server.start();
        let server = &ready.server;
        let status = || server.psql("SELECT status FROM ark.job_runs('nightly') WHERE attempt = 1");
        wait_until("the verdict", LONG, || status() == "failed");
        look(server);
    }
}

fn replace_engine(path: &Path, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, format!("#!/bin/sh\n{script}\n")).expect("a script");
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("its mode");
}

#[test]
fn a_stopped_scheduler_is_ended_by_the_server() {
    let ready = scheduled(Cluster::builder());
    let pid = scheduler(&ready.server);
    send_signal(pid, STOP);
    let postmaster = ready.server.pid().expect("a server");
    send_signal(postmaster, INTERRUPT);
    send_signal(pid, CONTINUE);
    wait_until("the end of the server", SHORT, || is_reaped(postmaster));
    ready.server.start();
}

#[test]
fn run_on_decides_and_a_promoted_standby_goes_on() {
    let ready = scheduled(Cluster::builder());
    let primary = &ready.server;
    let standby = primary.create_standby(&[]);
    schedule(primary, "nightly", "full", "");
    wait_for_runs(primary, "nightly", "done|1");
    primary.wait_for_standby(&standby);
    scheduler(&standby);
    schedule(primary, "second", "full", "");
    make_due(primary, "second");
    primary.wait_for_standby(&standby);
    look(&standby);
    look(&standby);
    wait_for_runs(primary, "second", "done|1");
    assert_eq!(told(&standby, "pg_ark: job"), 0, "the primary acts: {}", standby.log());

    // Standbys alone.
    for server in [primary, &standby] {
        server.configure(&["pg_ark.run_on = 'standby'"]);
        server.reload();
    }
    schedule(primary, "by standby", "full", "");
    make_due(primary, "by standby");
    primary.wait_for_standby(&standby);
    look(&standby);
    wait_for_runs(&standby, "by standby", "done|1");
    assert_eq!(told(primary, "job \"by standby\""), 0, "{}", primary.log());
    let backup = standby.psql("SELECT backup FROM ark.job_runs('by standby')");
    assert_eq!(standby.psql(&format!("SELECT ark.show('{backup}') ->> 'from_standby'")), "true");

    // Failover needs no action: the new primary has the same rows.
    standby.configure(&["pg_ark.run_on = 'primary'"]);
    standby.reload();
    schedule(primary, "after failover", "full", "");
    primary.psql("UPDATE ark.job SET since = now() - interval '2 days' WHERE name = 'after failover'");
    primary.wait_for_standby(&standby);
    primary.stop(StopMode::Fast);
    look(&standby);
    assert_eq!(runs(&standby, "after failover"), "");
    standby.promote();
    look(&standby);
    wait_for_runs(&standby, "after failover", "done|1");
}

#[test]
fn two_servers_that_may_both_act_do_a_run_once() {
    let ready = scheduled(Cluster::builder().conf("pg_ark.run_on = 'any'"));
    let primary = &ready.server;
    let standby = primary.create_standby(&[]);
    schedule(primary, "archive", "verify_archive", "");
    primary.psql("UPDATE ark.job SET since = now() - interval '2 days'");
    primary.wait_for_standby(&standby);
    for _ in 0..3 {
        primary.reload();
        standby.reload();
    }
    wait_until("the run", LONG, || !runs(primary, "archive").is_empty());
    look(primary);
    look(&standby);
    assert_eq!(primary.psql("SELECT count(*) FROM ark.job_runs() WHERE attempt = 1"), "1");
}
