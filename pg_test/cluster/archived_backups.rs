//! Backups without WAL of their own: complete only when the archive holds what they need.

use crate::archiving::{archive_command, archive_now, archiving, object, switch_wal};
use crate::support::{Ready, enabled};
use pg_ark_testkit::{Cluster, LONG, Repo, assert_same_data, wait_until};

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
    let copy = ready.restore_beside(&backup);
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
fn a_standby_leans_on_what_its_primary_archives() {
    let ready = archiving(Cluster::builder());
    ready.server.pgbench(&["-i", "-q", "-s", "1"]);
    let standby = ready.server.create_standby(&[]);
    // The backup shall begin in the primary's current segment.
    ready.server.psql("CHECKPOINT");
    ready.server.wait_for_standby(&standby);
    standby.psql("CHECKPOINT");
    let vain = "SET pg_ark.archive_wait = '2s'; SELECT ark.backup_start(wait => true)";
    let error = standby.try_psql(vain).expect_err("nothing ends the segment");
    assert!(error.to_string().contains("pg_switch_wal() on the primary"), "{error}");
    let session = standby.psql_background("SELECT ark.backup_start(wait => true)");
    let phase = "SELECT phase FROM pg_stat_progress_basebackup";
    wait_until("the wait for the archive", LONG, || {
        standby.psql(phase) == "waiting for wal archiving to finish"
    });
    archive_now(&ready);
    let backup = session.wait().expect("a complete backup").rows;
    assert_eq!(ready.backup_row("status, wal_included", &backup), "complete|f");
    let original = ready.server.checksums();
    archive_now(&ready);
    let copy = ready.restore_beside(&backup);
    assert_same_data(&original, &copy.server.checksums());
}
