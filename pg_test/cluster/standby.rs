//! Backups of standbys: while the primary works, idles, is gone, or changes.

use crate::support::{Ready, Restored, ready};
use pg_ark_testkit::{Cluster, LONG, Repo, SHORT, StopMode, assert_same_data, holds_within, run, wait_until};

/// A primary with data and the extension, and no repository.
fn primary() -> Cluster {
    let server = Cluster::builder().conf("wal_keep_size = '256MB'").start();
    server.psql("CREATE EXTENSION pg_ark");
    server.create_tablespace("fast");
    server.pgbench(&["-i", "-q", "-s", "1", "--tablespace=fast"]);
    server
}

/// A standby with a repository of its own; the extension came from the primary.
fn standby_of(server: &Cluster) -> Ready {
    cascade(server, server)
}

/// A standby that follows `source`, which is the primary or follows it.
fn cascade(primary: &Cluster, source: &Cluster) -> Ready {
    let standby = source.create_standby(&[]);
    primary.wait_for_standby(&standby);
    let repo = Repo::new();
    standby.psql(&format!("SELECT * FROM ark.enable('{}')", repo.url()));
    Ready { server: standby, repo }
}

/// Restores and checks: a primary of its own, on a timeline of its own.
#[track_caller]
fn assert_own_primary(copy: &Restored, timeline: &str) {
    assert!(!copy.server.data().join("standby.signal").exists());
    assert_eq!(copy.server.psql("SELECT pg_is_in_recovery()"), "f");
    let now = copy.server.psql("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)");
    assert_eq!(now, timeline);
    copy.server.psql("CREATE TABLE mine AS SELECT 1 AS i");
    copy.server.amcheck();
}

#[test]
fn a_standby_is_backed_up_and_its_copy_is_a_primary() {
    let primary = primary();
    let ready = standby_of(&primary);
    // Idle: nothing is written between start and stop, and no segment is ever full.
    let original = primary.checksums();
    let backup = ready.take_backup();
    let from = ready.server.psql(&format!("SELECT ark.show('{backup}') ->> 'from_standby'"));
    assert_eq!(from, "true");
    ready.assert_nothing_left_behind();
    let copy = ready.restore_beside(&backup);
    assert_same_data(&original, &copy.server.checksums());
    assert_own_primary(&copy, "00000002");

    // While the primary writes: what was replayed before is there, and nothing by half.
    let load = primary.pgbench_background(&["-n", "-c", "2", "-T", "3600"]);
    let count = || ready.server.balances().transactions;
    wait_until("transactions on the standby", LONG, || count() > 50);
    let before = count();
    let backup = ready.take_backup();
    load.stop(&primary);
    let copy = ready.restore_beside(&backup);
    copy.server.balances().assert_consistent();
    assert!(copy.server.balances().transactions >= before);
    assert_own_primary(&copy, "00000002");
    assert_eq!(ready.server.psql("SELECT pg_is_in_recovery()"), "t", "the standby is what it was");
}

#[test]
fn a_standby_is_backed_up_while_its_primary_is_down() {
    let primary = primary();
    let ready = standby_of(&primary);
    let original = primary.checksums();
    primary.stop(StopMode::Fast);
    let backup = ready.take_backup();
    let copy = ready.restore_beside(&backup);
    assert_same_data(&original, &copy.server.checksums());
    assert_own_primary(&copy, "00000002");
    // Also after a restart, when there is no primary to ask.
    ready.server.restart();
    let backup = ready.take_backup();
    assert_same_data(&original, &ready.restore_beside(&backup).server.checksums());
}

#[test]
fn a_standby_of_a_standby_is_backed_up() {
    let primary = primary();
    let middle = primary.create_standby(&[]);
    primary.wait_for_standby(&middle);
    let ready = cascade(&primary, &middle);
    let original = primary.checksums();
    let backup = ready.take_backup();
    let copy = ready.restore_beside(&backup);
    assert_same_data(&original, &copy.server.checksums());
    assert_own_primary(&copy, "00000002");
}

#[test]
fn a_promoted_standby_is_backed_up_on_its_new_timeline() {
    let primary = primary();
    let ready = standby_of(&primary);
    primary.stop(StopMode::Fast);
    ready.server.promote();
    ready.server.pgbench(&["-n", "-t", "50"]);
    let original = ready.server.checksums();
    let backup = ready.take_backup();
    assert_eq!(ready.backup_row("timeline", &backup), "2");
    let copy = ready.restore_beside(&backup);
    assert_same_data(&original, &copy.server.checksums());
    assert_own_primary(&copy, "00000003");
}

#[test]
fn a_promotion_fails_the_backup_at_once_with_its_reason() {
    let primary = primary();
    let ready = standby_of(&primary);
    let running = ready.start_slow(1024);
    ready.server.promote();
    // Not after all has been copied, which takes longer.
    let ended = holds_within(SHORT, || ready.backup_row("status", &running.backup) != "running");
    assert!(ended, "the backup goes on");
    ready.assert_failed(&running.backup, "promoted");
    ready.assert_works();
}

#[test]
fn primary_and_standby_share_a_repository() {
    let ready = ready(Cluster::builder());
    ready.server.pgbench(&["-i", "-q", "-s", "1"]);
    let standby = ready.server.create_standby(&[]);
    ready.server.wait_for_standby(&standby);
    let first = ready.take_backup();
    let second = standby.psql("SELECT ark.backup_start(wait => true)");
    assert_ne!(first, second);
    let listed = |server: &Cluster| server.psql("SELECT backup, status FROM ark.list_backups() ORDER BY 1");
    assert_eq!(listed(&ready.server), format!("{first}|complete\n{second}|complete"));
    assert_eq!(listed(&standby), listed(&ready.server));
    let output = run(ready.pgark().arg("list")).ok();
    assert!(output.contains(&first) && output.contains(&second), "{output}");
}
