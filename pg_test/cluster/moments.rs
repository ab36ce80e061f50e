//! The whole way on every version: archive, back up, lose everything, go back to a moment and to the end.

use crate::archiving::{archive_now, archiving};
use pg_ark_testkit::{Cluster, LONG, run, wait_until};

#[test]
fn smoke_back_to_a_moment_and_to_the_end() {
    let ready = archiving(Cluster::builder());
    let server = &ready.server;
    server.psql("CREATE TABLE events (what text, at timestamptz DEFAULT clock_timestamp())");
    let backup = ready.take_backup();
    assert_eq!(ready.backup_row("wal_included", &backup), "f", "the archive has the WAL");
    server.psql("INSERT INTO events VALUES ('before')");
    let moment = server
        .psql("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00'");
    server.psql("INSERT INTO events VALUES ('after')");
    archive_now(&ready);
    let faults = "SELECT count(*) FROM ark.verify_archive(deep => true) WHERE status <> 'ok'";
    assert_eq!(server.psql(faults), "0", "{}", server.psql("SELECT * FROM ark.verify_archive(true)"));
    let windows = "SELECT backup, timelines, to_time > from_time FROM ark.recovery_windows()";
    assert_eq!(server.psql(windows), format!("{backup}|1|t"));
    let lag = "SELECT archive_lag_segments, last_backup, health FROM ark.status";
    assert_eq!(server.psql(lag), format!("0|{backup}|ok"));

    server.destroy();
    let data = server.data();
    let mut pgark = ready.pgark();
    pgark.args(["restore", "--target-time", &moment, "--start", "--pgdata"]).arg(data);
    run(&mut pgark).ok();
    let copy = Cluster::open_restored_with(server.pg(), data);
    assert_eq!(copy.psql("SELECT string_agg(what, ',' ORDER BY at) FROM events"), "before");
    assert_eq!(copy.psql("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"), "00000002");

    let end = ready.restore_beside_stopped("latest", &["--target-timeline".as_ref(), "1".as_ref()]);
    end.server.start();
    wait_until("the end of recovery", LONG, || end.server.psql("SELECT pg_is_in_recovery()") == "f");
    assert_eq!(end.server.psql("SELECT string_agg(what, ',' ORDER BY at) FROM events"), "before,after");
    end.server.amcheck();
}
