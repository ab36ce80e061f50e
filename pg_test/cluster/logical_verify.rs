//! `ark.validate` and `pgark verify` of logical backups, beside physical ones that they must not disturb.

use crate::support::{Ready, pgark_of, ready};
use pg_ark_contract::ErrorKind;
use pg_ark_testkit::process::{KILL, descendants, is_alive, send_signal};
use pg_ark_testkit::{Cluster, LONG, SHORT, Scratch, chown_to_server, run, wait_until};
use serde_json::Value;
use std::fs;
use std::process::Command;

fn dump(ready: &Ready) -> String {
    ready.try_backup("kind => 'logical', wait => true").expect("a logical backup")
}

/// `severity object: finding` of each row.
#[track_caller]
fn found(ready: &Ready, arguments: &str) -> String {
    let columns =
        "string_agg(severity || ' ' || regexp_replace(object, '^.*/', '') || ': ' || finding, E'\\n')";
    ready.server.psql(&format!("SELECT {columns} FROM ark.validate({arguments})"))
}

#[test]
fn damaged_dumps_are_named_and_disturb_nothing_else() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    server.psql("CREATE DATABASE app");
    server.psql_db("app", "CREATE TABLE t AS SELECT i, md5(i::text) FROM generate_series(1, 5000) i");
    let full = ready.take_backup();
    let backup = dump(&ready);
    for arguments in ["", &format!("'{backup}'"), &format!("'{backup}', 'pages'"), "level => 'record'"] {
        assert_eq!(found(&ready, arguments), "", "{arguments}: all is well");
    }
    let told = || server.psql("SELECT last_backup, health, recovery_window_from IS NOT NULL FROM ark.status");
    let windows =
        || server.psql("SELECT string_agg(backup || coalesce(note, ''), ',') FROM ark.recovery_windows()");
    let before = (told(), windows());
    let object = ready.backup_folder(&backup).join("app.dump");
    let whole = fs::read(&object).expect("a dump");
    let mut bytes = whole.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&object, &bytes).expect("damage");
    assert_eq!(found(&ready, "level => 'record'"), "", "nothing was read");
    let changed = "error app.dump: is not what was stored: its checksum differs";
    assert_eq!(found(&ready, ""), changed);
    assert_eq!(found(&ready, &format!("'{full}'")), "");
    let output = run(ready.pgark().args(["--format", "json", "verify", &backup]));
    assert_eq!(output.code(), i32::from(ErrorKind::Corrupt.exit_code()), "{output}");
    let rows: Value = serde_json::from_str(&output.stdout).expect("rows");
    assert!(rows[0]["object"].as_str().is_some_and(|object| object.ends_with("/app.dump")), "{rows}");
    assert_eq!((told(), windows()), before, "no physical backup is the worse for it");
    // Nor for one that is gone but for its folder.
    fs::write(&object, &whole).expect("the dump");
    fs::remove_file(ready.backup_folder(&backup).join("backup.json")).expect("a record");
    assert!(found(&ready, "").contains("has no record"));
    assert_eq!((told(), windows()), before);
    let folder = Scratch::new("latest");
    let mut restore = ready.pgark();
    restore.args(["restore", "latest", "--dry-run", "--format", "json", "--pgdata"]);
    let output = run(restore.arg(folder.path().join("data")));
    assert!(
        output.success() && output.stdout.contains(&full) && !output.stderr.contains(&backup),
        "{output}"
    );
}

#[test]
fn promise_4_the_last_dump_of_a_database_stays_while_newer_backups_lack_it() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    ["app", "little"].iter().for_each(|name| drop(server.psql(&format!("CREATE DATABASE {name}"))));
    ready.take_backup();
    let whole = dump(&ready);
    server.psql("ALTER DATABASE app ALLOW_CONNECTIONS false");
    let take = |arguments: &str| {
        let arguments = format!("kind => 'logical', wait => true, {arguments}");
        ready.try_backup(&arguments).expect("a logical backup")
    };
    let first = take("skip_failed => true");
    let second = take("skip_failed => true");
    let little = take("databases => ARRAY['little']");
    let health = server.psql("SELECT health FROM ark.status");
    assert!(health.contains(&format!("logical backup {second} is without database \"app\"")), "{health}");
    let without = "SELECT value FROM ark.metrics WHERE name = 'pg_ark_databases_without_dump'";
    assert_eq!(server.psql(without), "1");
    let rules = ["--window", "0", "--min-full", "1"];
    let planned = run(ready.pgark().args(["--format", "json", "prune", "--dry-run"]).args(rules));
    let rows: Value = serde_json::from_str(&planned.stdout).expect("rows");
    let rows = rows.as_array().expect("rows");
    let row = rows.iter().find(|row| row["object"] == whole.as_str()).expect("the whole one");
    let rule = row["rule"].as_str().expect("a rule");
    assert!(rule.contains("newest good dump of database \"app\""), "{rule}");
    let pruned = run(ready.pgark().arg("prune").args(rules));
    assert!(pruned.success(), "{pruned}");
    let count = |backup: &str| format!("SELECT count(*) FROM ark.list_backups() WHERE backup = '{backup}'");
    let left = |backup: &str| server.psql(&count(backup)) == "1";
    assert!(left(&whole) && left(&second) && left(&little) && !left(&first), "{pruned}");
    // What holds it again takes its place.
    server.psql("ALTER DATABASE app ALLOW_CONNECTIONS true");
    let again = dump(&ready);
    let health = server.psql("SELECT health FROM ark.status");
    assert!(!health.contains("is without database"), "{health}");
    let pruned = run(ready.pgark().arg("prune").args(rules));
    assert!(pruned.success() && left(&again) && !left(&whole) && !left(&little), "{pruned}");
}

#[test]
fn without_pg_restore_checksums_must_do_and_that_is_said() {
    let ready = ready(Cluster::builder());
    let backup = dump(&ready);
    let pg = ready.server.pg().clone();
    let room = Scratch::new("room");
    let program = room.path().join("pgark");
    fs::copy(pgark_of(&pg), &program).expect("a copy of pgark");
    chown_to_server(&program);
    let script = r#"
        set -e
        for folder in "$BINDIR" /usr/lib/postgresql; do
            if [ -d "$folder" ]; then mount -t tmpfs none "$folder"; fi
        done
        exec setpriv --reuid=postgres --regid=postgres --init-groups env -i "$@"
    "#;
    let verify = || {
        let mut command = Command::new("/usr/bin/unshare");
        command.args(["--mount", "/bin/sh", "-c", script, "sh"]).current_dir("/").env("BINDIR", pg.bindir());
        command.arg(format!("PGARK_REPO={}", ready.repo.url())).arg(&program);
        run(command.args(["verify", &backup, "--level", "data"]))
    };
    let output = verify();
    assert!(output.stdout.contains("its dumps were not expanded"), "{output}");
    let object = ready.backup_folder(&backup).join("postgres.dump");
    let mut bytes = fs::read(&object).expect("a dump");
    bytes.pop();
    fs::write(&object, &bytes).expect("damage");
    let output = verify();
    assert!(output.stdout.contains("postgres.dump") && output.code() != 0, "{output}");
}

#[test]
fn no_pg_restore_outlives_the_question() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    server.psql("CREATE DATABASE large");
    let rows = "SELECT g, repeat(md5(g::text), 20) FROM generate_series(1, 400000) g";
    server.psql_db("large", &format!("CREATE TABLE large AS {rows}"));
    let backup = dump(&ready);
    // Asked to end, and killed.
    for kill in [false, true] {
        let mut session = server.session();
        let pid = session.backend_pid();
        session.send(&format!("SELECT count(*) FROM ark.validate('{backup}')"));
        let programs = || -> Vec<u32> {
            let engines = server.pids("pgark engine");
            let children = engines.first().map(|engine| descendants(*engine)).unwrap_or_default();
            children
                .iter()
                .filter(|child| child.title.contains("pg_restore"))
                .map(|child| child.pid)
                .collect()
        };
        let mut seen = Vec::new();
        wait_until("pg_restore", LONG, || {
            seen = programs();
            !seen.is_empty()
        });
        if kill {
            for engine in server.pids("pgark engine") {
                // It may be done.
                let _ = send_signal(engine, KILL);
            }
        } else {
            server.psql(&format!("SELECT pg_cancel_backend({pid})"));
        }
        wait_until("their end", SHORT, || {
            server.pids("pgark engine").is_empty() && !seen.iter().any(|pid| is_alive(*pid))
        });
        let _ = session.wait();
    }
    assert_eq!(found(&ready, &format!("'{backup}'")), "", "and it can be asked again");
}
