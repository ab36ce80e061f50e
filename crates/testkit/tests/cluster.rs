//! The kit itself, on a real server.

use pg_ark_testkit::{
    Balances, Clock, Cluster, LONG, PeakRss, Repo, StopMode, Tmpfs, assert_same_data, command, process, run,
    wait_until,
};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[test]
fn sql_answers_and_errors_come_back() {
    let server = Cluster::builder().directory_name("été with spaces").conf("work_mem = '1MB'").start();
    assert!(server.is_up());
    assert_eq!(server.psql("SHOW work_mem; SELECT 1, NULL"), "1MB\n1|");
    let error = server.try_psql("SELECT 1; SELECT * FROM absent").unwrap_err();
    assert_eq!((error.sqlstate(), error.rows.as_str()), ("42P01", "1"));
    assert!(error.message().contains("absent"), "{error}");
    let answer = server.query("postgres", "postgres", "DO $$BEGIN RAISE WARNING 'w' USING HINT = 'h'; END$$");
    let warning = &answer.unwrap().messages[0];
    assert_eq!(
        (warning.severity.as_str(), warning.message.as_str(), warning.hint.as_str()),
        ("WARNING", "w", "h")
    );

    let mut session = server.session();
    assert_eq!(session.ask("SELECT 'one'"), "one");
    let backend = session.backend_pid();
    assert_eq!(server.pids("idle"), [backend]);
    session.send("SELECT pg_sleep(600)");
    wait_until("the query to run", LONG, || {
        server.psql(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND state = 'active'",
        ) == "2"
    });
    session.interrupt();
    assert_eq!(session.wait().unwrap_err().sqlstate(), "57014");

    let watch = PeakRss::watch(server.pid().unwrap());
    server.restart();
    assert!(watch.finish() > 1 << 20);
    server.kill9();
    assert!(!server.is_up());
    assert!(server.try_psql("SELECT 1").unwrap_err().sqlstate().is_empty());
    server.start();
    server.stop(StopMode::Fast);
    assert!(server.log().contains("database system is shut down"));
}

#[test]
fn a_standby_holds_the_same_data() {
    let primary =
        Cluster::builder().wal_segment_mb(1).checksums(false).external_waldir().group_access().start();
    assert_eq!(primary.psql("SHOW data_checksums; SHOW wal_segment_size"), "off\n1MB");
    primary.create_tablespace("other");
    primary.psql("CREATE DATABASE \"b ü\"");
    primary.psql_db(
        "b ü",
        "CREATE TABLE t (t int) TABLESPACE other; INSERT INTO t SELECT generate_series(1, 1000)",
    );
    primary.pgbench(&["-i", "-q", "-s", "1"]);
    let standby = primary.create_standby(&["hot_standby_feedback = on"]);
    let mut load = primary.pgbench_background(&["-c", "2", "-T", "600"]);
    wait_until("transactions", LONG, || primary.psql("SELECT count(*) > 50 FROM pgbench_history") == "t");
    assert!(load.is_running());
    load.stop(&primary);
    primary.wait_for_standby(&standby);
    let before = primary.checksums();
    assert!(before.keys().any(|name| name.ends_with("public.t")), "{before:?}");
    assert_same_data(&before, &standby.checksums());
    let balances: Balances = primary.balances();
    balances.assert_consistent();
    assert!(balances.transactions > 50);
    primary.destroy();
    standby.promote();
    assert_eq!(standby.psql("SELECT pg_is_in_recovery()"), "f");
    standby.amcheck();
}

#[test]
fn a_server_with_its_configuration_elsewhere_starts() {
    let server = Cluster::builder().external_config().start();
    assert!(server.psql("SHOW config_file").ends_with("/etc/postgresql.conf"));
    assert!(!server.data().join("postgresql.conf").exists());
    server.stop(StopMode::Immediate);
}

#[test]
fn a_handle_opens_a_data_directory_beside_the_original() {
    let original = Cluster::start_new();
    original.psql("CREATE TABLE t AS SELECT 1 AS a");
    let copy = original.base().join("copy");
    pg_ark_testkit::run_ok(original.client("pg_basebackup").arg("-D").arg(&copy));
    let second = Cluster::open_restored(&copy);
    second.start();
    assert_eq!(second.psql("SELECT a FROM t"), "1");
    let third = Cluster::open_restored(&copy);
    assert_eq!((third.socket_dir(), third.pid()), (second.socket_dir(), second.pid()));
    assert_eq!(third.psql("SELECT a FROM t"), "1");
    assert_same_data(&original.checksums(), &second.checksums());
}

#[test]
fn a_small_file_system_fills_up() {
    let small = Tmpfs::new(1 << 20);
    let file = small.path().join("zeros");
    let output =
        run(command("/bin/dd").arg("if=/dev/zero").arg(format!("of={}", file.display())).arg("bs=64k"));
    assert!(!output.success() && output.stderr.contains("No space left"), "{output}");
}

#[test]
fn a_server_lives_by_the_clock_that_a_test_moves() {
    let day = Duration::from_secs(86_400);
    let clock = Clock::behind(day * 10);
    let server = Cluster::builder().clock(&clock).start();
    let behind = |server: &Cluster| {
        let shown = server.psql("SELECT extract(epoch FROM clock_timestamp())::bigint");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        (now - shown.parse::<u64>().expect("seconds") + 43_200) / 86_400
    };
    assert_eq!(behind(&server), 10);
    let mut session = server.session();
    session.ask("SELECT 1");
    clock.advance(day * 3);
    assert_eq!(
        session.ask("SELECT now() - pg_postmaster_start_time() BETWEEN '3 days' AND '3 days 1 min'"),
        "t"
    );
    let standby = server.create_standby(&[]);
    assert_eq!((behind(&server), behind(&standby)), (7, 7));
    server.restart();
    assert_eq!(behind(&server), 7, "after a restart too");

    // A program that is started with an environment of the caller's own.
    let mut date = command(clock.program(Path::new("/bin/date")));
    let shown: i64 = run(date.env_clear().arg("+%s")).ok().trim().parse().expect("seconds");
    assert!((clock.now() - shown).abs() < 5, "{shown}");
}

#[test]
fn a_repository_has_a_url_and_belongs_to_the_server() {
    let repo = Repo::named("dépôt 1");
    assert!(
        repo.url().starts_with("file:///tmp/") && repo.url().ends_with("/d%C3%A9p%C3%B4t%201"),
        "{}",
        repo.url()
    );
    assert!(run(command("/usr/bin/touch").arg(repo.path().join("x"))).success());
    assert!(process::is_alive(std::process::id()));
}
