//! Promise 1: complete means restorable.

use crate::support::{Ready, fails_with, ready};
use pg_ark_testkit::{Cluster, LONG, StopMode, assert_same_data, run, wait_until};

/// A server with what a backup can get wrong: tablespaces, names outside ASCII, unlogged tables, large objects, a
/// second database, prepared transactions.
fn with_data() -> Ready {
    let ready = ready(Cluster::builder().directory_name("données 1").conf("max_prepared_transactions = 5"));
    let server = &ready.server;
    server.create_tablespace("fast");
    server.create_tablespace("été 2");
    server.psql("CREATE DATABASE \"zweite Datenbank\" TABLESPACE \"été 2\"");
    server.psql_db(
        "zweite Datenbank",
        "CREATE TABLE \"Ünïcode\" AS SELECT i, repeat('ä', i % 500) AS t FROM generate_series(1, 5000) i;
         CREATE INDEX ON \"Ünïcode\" (i) TABLESPACE fast",
    );
    server.psql(
        "CREATE TABLE still TABLESPACE fast AS SELECT i, md5(i::text) FROM generate_series(1, 20000) i;
         CREATE MATERIALIZED VIEW seen AS SELECT count(*) FROM still;
         CREATE SEQUENCE numbers; SELECT setval('numbers', 4711);
         CREATE UNLOGGED TABLE fleeting AS SELECT i FROM generate_series(1, 1000) i;
         SELECT lo_from_bytea(0, 'large'::bytea);
         BEGIN; CREATE TABLE later AS SELECT 1 AS i; PREPARE TRANSACTION 'pending'",
    );
    server.pgbench(&["-i", "-q", "-s", "5", "--foreign-keys", "--tablespace=fast"]);
    ready
}

/// What pgbench does not touch.
fn still(checksums: pg_ark_testkit::Checksums) -> pg_ark_testkit::Checksums {
    checksums.into_iter().filter(|(name, _)| !name.contains("pgbench_")).collect()
}

#[test]
fn smoke_a_backup_under_load_survives_the_loss_of_everything() {
    let ready = with_data();
    let server = &ready.server;
    let load = server.pgbench_background(&["-n", "-c", "4", "-j", "2", "-T", "3600"]);
    wait_until("transactions", LONG, || server.psql("SELECT count(*) > 100 FROM pgbench_history") == "t");
    let before = server.balances();
    let backup = ready.take_backup();
    let after = server.balances();
    load.stop(server);
    assert_eq!(ready.backup_row("status, kind, wal_included, damaged_pages", &backup), "complete|full|t|0");
    assert!(ready.backup_folder(&backup).join("backup_manifest").is_file());
    ready.assert_nothing_left_behind();
    let original = still(server.checksums());

    let lost = server.destroy();
    assert!(lost.len() == 3 && lost.iter().all(|folder| !folder.exists()), "{lost:?}");
    let listed = run(ready.pgark().arg("list")).ok();
    assert!(listed.contains(&backup), "{listed}");
    ready.restore_in_place("latest");

    server.start();
    let restored = server.balances();
    restored.assert_consistent();
    assert!(
        (before.transactions..=after.transactions).contains(&restored.transactions),
        "restored to a moment outside the backup: {before:?} {restored:?} {after:?}"
    );
    assert_same_data(&original, &still(server.checksums()));
    assert_eq!(server.psql("SELECT count(*) FROM fleeting"), "0", "recovery empties unlogged tables");
    assert_eq!(server.psql("SELECT convert_from(lo_get(oid), 'UTF8') FROM pg_largeobject_metadata"), "large");
    server.psql("COMMIT PREPARED 'pending'; SELECT i FROM later");
    server.amcheck();

    // It is a server like any other: it can be written, restarted and backed up again.
    server.pgbench(&["-n", "-t", "50"]);
    server.restart();
    server.balances().assert_consistent();
    let second = ready.take_backup();
    assert_ne!(second, backup);
}

#[test]
fn a_backup_is_restored_beside_the_running_original() {
    let ready = with_data();
    let backup = ready.take_backup();
    let original = ready.server.checksums();
    let copy = ready.restore_beside(&backup);
    assert_same_data(&original, &copy.server.checksums());
    copy.server.balances().assert_consistent();
    copy.server.amcheck();
    let moved =
        copy.server.psql("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast'");
    assert!(
        moved.starts_with(&copy.folder.path().display().to_string()),
        "the original's tablespace: {moved}"
    );
    assert_same_data(&original, &ready.server.checksums());
}

#[test]
fn smoke_a_restore_that_would_overwrite_is_refused() {
    let ready = ready(Cluster::builder());
    let backup = ready.take_backup();
    let restore = |backup: &str, target: &std::path::Path| {
        let mut pgark = ready.pgark();
        pgark.arg("restore").arg(backup).arg("--pgdata").arg(target);
        pgark
    };
    fails_with(&mut restore(&backup, ready.server.data()), 15);
    ready.server.stop(StopMode::Fast);
    let refused = fails_with(&mut restore(&backup, ready.server.data()), 14);
    assert!(refused.stderr.contains("hint:"), "{refused}");
    fails_with(&mut restore("20000101T000000Z-full", &ready.server.base().join("new")), 7);
    assert!(!ready.server.base().join("new").exists());
    ready.server.start();
}
