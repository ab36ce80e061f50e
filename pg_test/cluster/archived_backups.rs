//! Backups without WAL of their own: complete only when the archive holds what they need.

use crate::archiving::{archive_command, archive_now, archiving, object, switch_wal};
use crate::support::{Ready, Restored, enabled};
use pg_ark_testkit::{Cluster, LONG, Repo, Scratch, StopMode, assert_same_data, command, run_ok, wait_until};

/// It matches what the server takes for our archive_command, and stores nothing.
const STORES_NOTHING: &str = "archive_command = 'false pgark wal-push %p'";

/// Fails unless the archive holds every segment from the backup's start to its end.
#[track_caller]
fn assert_archived(ready: &Ready, backup: &str) {
    let range = "pg_walfile_name(start_lsn), pg_walfile_name(stop_lsn - 1::numeric)";
    let names = ready.backup_row(range, backup);
    let (first, last) = names.split_once('|').expect("two names");
    for name in [first, last] {
        assert!(object(ready, name).is_some(), "{name} is not in the archive");
    }
    assert_eq!(ready.backup_row("wal_included, status", backup), "f|complete");
    let folder = ready.backup_folder(backup);
    assert!(!folder.join("pg_wal.tar.zst").exists());
}

/// Restores beside the server and waits for the end of recovery: until then the copy lets nobody in.
#[track_caller]
fn recovered(ready: &Ready, backup: &str) -> Restored {
    let copy = ready.restore_beside(backup);
    wait_until("the end of recovery", LONG, || copy.server.try_psql("SELECT 1").is_ok());
    copy
}

/// A server whose `archive_command` stores nothing yet.
fn stuck() -> Ready {
    enabled(Cluster::builder().conf("archive_mode = on").conf(STORES_NOTHING).start(), Repo::new())
}

#[track_caller]
fn mend(ready: &Ready) {
    ready.server.configure(&[&archive_command(ready.server.pg(), &ready.repo)]);
    ready.server.reload();
    // The archiver rests for a minute after three failures, unless something new comes.
    switch_wal(&ready.server);
}

#[test]
fn complete_means_restorable_from_the_archive_under_load() {
    let ready = archiving(Cluster::builder());
    ready.server.pgbench(&["-i", "-q", "-s", "5"]);
    let load = ready.server.pgbench_background(&["-n", "-c", "2", "-T", "300"]);
    let backup = ready.take_backup();
    assert_archived(&ready, &backup);
    load.stop(&ready.server);
    let included = ready.try_backup("include_wal => true, wait => true").expect("a backup");
    assert!(ready.backup_folder(&included).join("pg_wal.tar.zst").exists());
    let original = ready.server.checksums();
    archive_now(&ready);
    let copy = recovered(&ready, &backup);
    assert_same_data(&original, &copy.server.checksums());
}

#[test]
fn complete_means_restorable_so_a_clone_cannot_lean_on_the_wal_of_its_origin() {
    let ready = archiving(Cluster::builder().wal_segment_mb(1));
    let server = &ready.server;
    archive_now(&ready);
    server.stop(StopMode::Fast);
    let scratch = Scratch::new("clone");
    let data = scratch.path().join("data");
    run_ok(command("cp").arg("-a").arg(server.data()).arg(&data));
    server.start();
    // Under every name that the clone's backup will need the archive holds the origin's WAL.
    for number in 0..8 {
        server.psql(&format!("CREATE TABLE origin{number} AS SELECT generate_series(1, 1000) AS n"));
        archive_now(&ready);
    }
    let clone = Cluster::open_restored_with(server.pg(), &data);
    clone.start();
    clone.psql("CREATE TABLE clone AS SELECT generate_series(1, 2000) AS n");
    let error = clone
        .try_psql("SET pg_ark.archive_wait = '10min'; SELECT ark.backup_start(wait => true)")
        .expect_err("a backup whose WAL is not in the archive");
    let all = error.to_string();
    assert!(all.contains("the archive holds other content under the name 0000000100000000"), "{all}");
    assert!(all.contains("Two servers write this timeline"), "{all}");
    let listed = clone.psql("SELECT status, error FROM ark.list_backups()");
    assert!(listed.starts_with("failed|the archive holds other content"), "{listed}");
    ready.assert_no_lease();
    drop(clone);
    let backup = ready.take_backup();
    assert_archived(&ready, &backup);
    let original = server.checksums();
    archive_now(&ready);
    let copy = recovered(&ready, &backup);
    assert_same_data(&original, &copy.server.checksums());
}

#[test]
fn complete_means_restorable_on_a_server_that_was_promoted_before_it_archived() {
    let ready = archiving(Cluster::builder().wal_segment_mb(1));
    archive_now(&ready);
    let standby = ready.server.create_standby(&["archive_mode = off"]);
    ready.server.wait_for_standby(&standby);
    ready.server.stop(StopMode::Fast);
    standby.promote();
    standby.configure(&["archive_mode = on"]);
    standby.restart();
    let promoted = Ready { server: standby, repo: ready.repo };
    let pg_wal = promoted.server.data().join("pg_wal");
    let status = pg_wal.join("archive_status/00000002.history");
    assert!(
        !status.with_extension("history.ready").exists() && !status.with_extension("history.done").exists()
    );
    let backup = promoted.take_backup();
    assert_archived(&promoted, &backup);
    let history = object(&promoted, "00000002.history").expect("stored");
    assert_eq!(
        std::fs::read(history).expect("read"),
        std::fs::read(pg_wal.join("00000002.history")).expect("read")
    );
    let original = promoted.server.checksums();
    archive_now(&promoted);
    let copy = recovered(&promoted, &backup);
    assert_same_data(&original, &copy.server.checksums());
}

#[test]
fn a_backup_waits_for_the_archive_and_says_so() {
    let ready = stuck();
    let started = "SET pg_ark.archive_wait = '5min'; SELECT ark.backup_start()";
    let backup = ready.server.psql(started);
    ready.wait_for_phase("waiting for wal archiving to finish");
    assert_eq!(ready.backup_row("status", &backup), "running");
    mend(&ready);
    wait_until("the end of the backup", LONG, || ready.backup_row("status", &backup) != "running");
    assert_eq!(ready.backup_row("status, error", &backup), "complete|");
    assert_archived(&ready, &backup);
}

#[test]
fn a_backup_that_waits_in_vain_fails_and_names_what_is_missing() {
    let ready = stuck();
    let error = ready
        .server
        .try_psql("SET pg_ark.archive_wait = '2s'; SELECT ark.backup_start(wait => true)")
        .expect_err("a failed backup");
    let all = error.to_string();
    assert_eq!(error.sqlstate(), "58P01", "{all}");
    for part in
        ["the archive lacks WAL", "0000000100000000", "there is no segment of timeline 1", "pg_stat_archiver"]
    {
        assert!(all.contains(part), "\"{part}\" expected: {all}");
    }
    let backup = ready.server.psql("SELECT backup FROM ark.list_backups()");
    ready.assert_failed(&backup, "the archive lacks WAL that the backup needs");
    mend(&ready);
    ready.assert_works();
}

#[test]
fn a_waiting_backup_can_be_stopped() {
    let ready = stuck();
    let backup = ready.server.psql("SELECT ark.backup_start()");
    ready.wait_for_phase("waiting for wal archiving to finish");
    assert_eq!(ready.server.psql(&format!("SELECT ark.backup_stop('{backup}')")), "t");
    ready.assert_failed(&backup, "");
}

#[test]
fn a_standby_brings_its_wal_or_leans_on_what_its_primary_archives() {
    let ready = archiving(Cluster::builder());
    ready.server.pgbench(&["-i", "-q", "-s", "1"]);
    let standby = ready.server.create_standby(&[]);
    // The backup shall begin in the primary's current segment.
    ready.server.psql("CHECKPOINT");
    ready.server.wait_for_standby(&standby);
    standby.psql("CHECKPOINT");
    let own = standby.psql("SELECT ark.backup_start(wait => true)");
    assert_eq!(ready.backup_row("status, wal_included", &own), "complete|t", "without the idle primary");
    let vain = "SET pg_ark.archive_wait = '2s'; SELECT ark.backup_start(include_wal => false, wait => true)";
    let error = standby.try_psql(vain).expect_err("nothing ends the segment");
    assert!(error.to_string().contains("pg_switch_wal() on the primary"), "{error}");
    let session = standby.psql_background("SELECT ark.backup_start(include_wal => false, wait => true)");
    let phase = "SELECT phase FROM pg_stat_progress_basebackup";
    wait_until("the wait for the archive", LONG, || {
        standby.psql(phase) == "waiting for wal archiving to finish"
    });
    archive_now(&ready);
    let backup = session.wait().expect("a complete backup").rows;
    assert_eq!(ready.backup_row("status, wal_included", &backup), "complete|f");
    let original = ready.server.checksums();
    archive_now(&ready);
    let copy = recovered(&ready, &backup);
    assert_same_data(&original, &copy.server.checksums());
}
