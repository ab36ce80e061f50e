//! Sixty days of a server that is left alone, lived through in minutes: the clock is moved, nobody sleeps.

use crate::archiving::{archive_now, archiving};
use crate::support::Ready;
use pg_ark_testkit::{Clock, Cluster, LONG, run, wait_until};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn time_is_injected_into_server_engines_and_pgark() {
    let clock = Clock::behind(DAY * 61);
    let ready = archiving(Cluster::builder().wal_segment_mb(1).clock(&clock));
    let server = &ready.server;
    server.psql("CREATE TABLE moments (what text, at timestamptz DEFAULT clock_timestamp())");
    let mut moments = Vec::new();
    for what in ["one", "two", "three"] {
        let backup = ready.take_backup();
        let named = server.psql("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')");
        assert!(backup.starts_with(&named), "{backup} on {named}");
        server.psql(&format!("INSERT INTO moments VALUES ('{what}')"));
        moments.push(server.psql("SELECT now()"));
        archive_now(&ready);
        clock.advance(DAY);
    }
    let windows =
        "SELECT to_time - from_time BETWEEN '2 days' AND '2 days 1 min' FROM ark.recovery_windows()";
    assert_eq!(server.psql(windows), "t", "{}", server.psql("SELECT * FROM ark.recovery_windows()"));
    let age = "SELECT last_backup_age BETWEEN '1 day' AND '1 day 1 min' FROM ark.status";
    assert_eq!(server.psql(age), "t");
    let mut list = ready.pgark();
    let listed = run(clock.apply(list.arg("list"))).ok();
    assert_eq!(listed.lines().count(), 4, "{listed}");
    let copy = restore_at(&ready, &clock, &moments[1]);
    assert_eq!(copy.server.psql("SELECT string_agg(what, ',' ORDER BY at) FROM moments"), "one,two");
}

/// A copy of the server as it was at a moment.
#[track_caller]
fn restore_at(ready: &Ready, clock: &Clock, moment: &str) -> crate::support::Restored {
    let folder = pg_ark_testkit::Scratch::new("restored");
    let data = folder.path().join("data");
    let mut pgark = ready.pgark();
    pgark.args(["restore", "--target-time", moment, "--pgdata"]).arg(&data);
    run(clock.apply(&mut pgark)).ok();
    let server = Cluster::open_restored_with(ready.server.pg(), &data);
    server.start();
    wait_until("the end of recovery", LONG, || server.psql("SELECT pg_is_in_recovery()") == "f");
    crate::support::Restored { server, folder }
}
