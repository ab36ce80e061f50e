//! DESIGN's promises that a whole server is needed for, each under its name.

use crate::support::ready;
use pg_ark_testkit::process::{CONTINUE, STOP, is_alive, send_signal};
use pg_ark_testkit::{Cluster, LONG, StopMode, run, wait_until};
use std::fs::File;
use std::os::unix::fs::FileExt;

#[test]
fn promise_1_complete_means_restorable() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    let running = ready.start_slow(4096);
    // A segment is finished and removed before the engine can copy it.
    send_signal(running.engine, STOP);
    let segment = server.psql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())");
    server.psql("SELECT pg_logical_emit_message(false, 'test', 'x'); SELECT pg_switch_wal()");
    server.psql("CHECKPOINT");
    std::fs::remove_file(server.data().join("pg_wal").join(&segment)).expect("the segment");
    send_signal(running.engine, CONTINUE);
    wait_until("the end of the backup", LONG, || !is_alive(running.engine));
    ready.assert_failed(&running.backup, &segment);
    assert!(server.log().contains(&segment), "the log names it too");
    let refused = run(ready.pgark().arg("restore").arg(&running.backup).arg("--pgdata").arg("/tmp/never"));
    assert_eq!(refused.code(), 8, "a failed backup is not restored: {refused}");

    // While the last segments are not stored, the record says `running`.
    let running = ready.start_slow(8192);
    let mut seen = Vec::new();
    wait_until("the end of the backup", LONG, || {
        let row = ready.backup_row("status", &running.backup);
        let manifest = ready.backup_folder(&running.backup).join("backup_manifest").is_file();
        seen.push((row.clone(), manifest));
        row != "running"
    });
    assert_eq!(seen.pop(), Some(("complete".into(), true)));
    assert!(seen.iter().all(|(status, _)| status == "running"), "{seen:?}");
    ready.assert_works();
}

/// Overwrites bytes inside a block of a file.
fn damage(file: &File, block: u64) {
    file.write_all_at(b"damaged", block * 8192 + 4000).expect("write into a page");
}

#[test]
fn promise_6_damage_is_loud() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    server.psql(
        "CREATE SCHEMA \"Büro\"; CREATE TABLE \"Büro\".\"Akten\" AS SELECT i, repeat('x', 500) FROM generate_series(1, 1000) i;
         CREATE DATABASE other",
    );
    server.psql_db("other", "CREATE TABLE remote AS SELECT i FROM generate_series(1, 1000) i");
    let path = server.psql("SELECT pg_relation_filepath('\"Büro\".\"Akten\"')");
    let remote = server.psql_db("other", "SELECT pg_relation_filepath('remote')");
    server.stop(StopMode::Fast);
    let open =
        |path: &str| File::options().write(true).open(server.data().join(path)).expect("a relation's file");
    [3, 7].into_iter().for_each(|block| damage(&open(&path), block));
    damage(&open(&remote), 1);
    server.start();

    let answer =
        server.query("postgres", "postgres", "SELECT ark.backup_start(wait => true)").expect("a backup");
    let backup = answer.rows;
    assert_eq!(ready.backup_row("status, damaged_pages", &backup), "complete|3");
    let warning = &answer.messages[0];
    assert_eq!(warning.severity, "WARNING", "{warning:?}");
    assert!(warning.message.contains("damaged pages: 3") && warning.message.contains(&backup), "{warning:?}");

    let log = server.log();
    let line = |part: &str| {
        let found = log.lines().find(|line| line.contains("WARNING") && line.contains(part));
        found.unwrap_or_else(|| panic!("no warning in the log names {part}"))
    };
    let own = line(&path);
    assert!(own.contains("\"Büro\".\"Akten\""), "{own}");
    assert!(own.contains("3, 7"), "{own}");
    let other = line(&remote);
    assert!(other.contains("database \"other\"") && other.contains("block 1"), "{other}");

    let shown = server.psql(&format!(
        "SELECT string_agg((d ->> 'path') || ' ' || (d ->> 'blocks') || ' ' || (d ->> 'damaged_pages'), E'\\n' ORDER BY d ->> 'path') \
         FROM jsonb_array_elements(ark.show('{backup}') -> 'damage') d"
    ));
    let mut expected = [format!("{path} [3, 7] 2"), format!("{remote} [1] 1")];
    expected.sort();
    assert_eq!(shown, expected.join("\n"));
    let listed = run(ready.pgark().arg("show").arg(&backup)).ok();
    assert!(listed.contains(&path), "{listed}");
}
