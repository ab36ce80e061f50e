//! What others do while a logical backup is taken: roles come and go, connections are scarce, locks are held; and names that
//! are made to mislead.

use crate::logical_dump::{dump, listed, names, record, try_dump};
use crate::support::{Ready, names_below, ready};
use pg_ark_testkit::{Cluster, LONG, command, run_ok, wait_until};

/// Sessions of a backup that wait for a lock.
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE 'pg_ark%'";

/// Waits until a backup ends, which must be complete.
#[track_caller]
fn wait_for(ready: &Ready, backup: &str) {
    wait_until("the end", LONG, || ready.backup_row("status", backup) != "running");
    assert_eq!(ready.backup_row("status, error", backup), "complete|");
}

#[test]
fn roles_made_while_databases_are_dumped_are_in_the_globals() {
    let ready = ready(Cluster::builder().conf("pg_ark.jobs = 1"));
    let server = &ready.server;
    server.psql("CREATE TABLE t AS SELECT 1; CREATE ROLE early; CREATE ROLE old");
    let mut lock = server.session();
    lock.ask("BEGIN; LOCK TABLE t");
    let backup = server.psql("SELECT ark.backup_start('logical', databases => '{postgres}')");
    // The globals are done.
    wait_until("a wait for the lock", LONG, || server.psql(WAITING) == "1");
    server.psql("CREATE ROLE late; CREATE TABLE of_late (); ALTER TABLE of_late OWNER TO late");
    server.psql("DROP ROLE early; ALTER ROLE old RENAME TO new");
    server.create_tablespace("space");
    lock.ask("ROLLBACK");
    wait_for(&ready, &backup);

    let (folder, record) = (ready.backup_folder(&backup), record(&ready, &backup));
    let globals = run_ok(command("zstd").arg("-dc").arg(folder.join("globals.sql.zst")));
    for there in ["CREATE ROLE late;", "CREATE ROLE new;", "CREATE TABLESPACE space "] {
        assert!(globals.contains(there), "{there}: {globals}");
    }
    assert!(!globals.contains("early"), "{globals}");
    assert_eq!(record["logical"]["globals_bytes"], globals.len());
    assert_eq!(names(&record["logical"]["tablespaces"]), ["space"]);
    let stored = names_below(&folder);
    assert_eq!(stored.iter().filter(|name| name.starts_with("globals")).count(), 1, "{stored:?}");
    let warnings = record["warnings"].to_string();
    let told = ["role \\\"early\\\" was dropped", "role \\\"old\\\" was renamed to \\\"new\\\""];
    assert!(told.iter().all(|gone| warnings.contains(gone)), "{warnings}");
    // Nothing was changed meanwhile: nothing is told.
    let backup = dump(&ready, "");
    assert_eq!(self::record(&ready, &backup)["warnings"], serde_json::json!([]));
}

#[test]
fn a_backup_waits_for_connections_and_takes_no_more_than_its_share() {
    let ready = ready(Cluster::builder().conf("pg_ark.jobs = 64").conf("max_connections = 10"));
    let server = &ready.server;
    (0..8).for_each(|number| {
        server.psql(&format!("CREATE DATABASE d{number}"));
    });
    let mut asker = server.session();
    asker.ask("SELECT 1");
    let mut watcher = server.session();
    watcher.ask("SELECT 1");
    let others: Vec<_> = (0..8)
        .map(|_| {
            let mut session = server.session();
            session.ask("SELECT 1");
            session
        })
        .collect();
    asker.send("SELECT ark.backup_start('logical', skip_failed => true)");
    wait_until("a refusal", LONG, || server.log().contains("FATAL:  sorry, too many clients already"));
    drop(others);
    let mut most = 0;
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pg_ark%' AND datname IS NOT NULL \
                    AND backend_type = 'client backend' AND xact_start IS NOT NULL";
    wait_until("the end", LONG, || {
        most = most.max(watcher.ask(sessions).parse::<u32>().expect("a number"));
        watcher.ask("SELECT coalesce(string_agg(status, ','), 'none') FROM ark.list_backups()") == "complete"
    });
    // Half of what is there for everybody: 10 without the 3 that are reserved.
    assert!((1..=3).contains(&most), "{most} at once");
    let backup = watcher.ask("SELECT backup FROM ark.list_backups()");
    let record = record(&ready, &backup);
    assert_eq!(record["logical"].get("missing"), None);
    let warnings = record["warnings"].to_string();
    assert!(warnings.contains("every connection of the server is taken"), "{warnings}");
}

#[test]
fn who_holds_up_a_dump_is_told() {
    let ready = ready(Cluster::builder().conf("max_prepared_transactions = 1"));
    let server = &ready.server;
    // Nobody asks for the size of this one: pg_dump alone waits for it.
    server.psql("CREATE TABLE parts (i int) PARTITION BY RANGE (i); CREATE TABLE t AS SELECT 1");
    server.psql("CREATE DATABASE other");
    server.psql_db("other", "CREATE TABLE t AS SELECT 1");
    server.psql("BEGIN; LOCK TABLE parts; PREPARE TRANSACTION 'forgotten'");
    let mut lock = server.session_as("other", "postgres");
    lock.ask("BEGIN; LOCK TABLE t");
    let pid = lock.backend_pid();
    let backup = server.psql("SET pg_ark.jobs = 3; SELECT ark.backup_start('logical')");
    let told = [
        "\"postgres\" waits for a lock that is held by a prepared transaction".to_string(),
        format!("\"other\" waits for a lock that is held by process {pid} (psql, idle in transaction)"),
    ];
    wait_until("warnings", LONG, || told.iter().all(|told| server.log().contains(told)));
    lock.ask("ROLLBACK");
    server.psql("ROLLBACK PREPARED 'forgotten'");
    wait_for(&ready, &backup);
    let record = record(&ready, &backup);
    assert_eq!(record["warnings"].as_array().map(Vec::len), Some(2), "{}", record["warnings"]);
}

#[test]
fn no_name_speaks_for_pg_dump() {
    let ready = ready(Cluster::builder());
    ready.server.psql("CREATE TABLE \"x\"\"\npg_dump: warning: spoofed\n\" AS SELECT 1");
    ready.server.psql("CREATE DATABASE other");
    let schema = "\"x\npg_dump: error: spoofed\n\"";
    let sql = format!("CREATE SCHEMA {schema}; CREATE TABLE {schema}.t AS SELECT 1");
    ready.server.psql_db("other", &sql);
    let backup = dump(&ready, "");
    let record = record(&ready, &backup);
    assert_eq!(record["warnings"], serde_json::json!([]));
    let list = listed(&ready, &ready.backup_folder(&backup).join("other.dump"));
    assert!(list.contains("TABLE DATA"), "{list}");
}

#[test]
fn a_role_whose_name_is_no_utf8_is_named() {
    let ready = ready(Cluster::builder());
    ready.server.psql("CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'");
    let role = "convert_from('\\x72e9', 'SQL_ASCII')";
    let make = format!("DO $$ BEGIN EXECUTE format('CREATE ROLE %I', {role}); END $$");
    ready.server.psql_db("ascii", &make);
    for choice in ["", ", skip_failed => true", ", databases => '{template1}'"] {
        let error = try_dump(&ready, choice).unwrap_err();
        assert!(error.message().contains("role \"r\\xe9\" is no UTF-8"), "{error}");
        assert!(error.hint().contains("ALTER ROLE"), "{error}");
    }
    assert_eq!(ready.server.psql("SELECT count(*) FROM ark.list_backups()"), "0", "nothing was begun");
    let mend = format!("DO $$ BEGIN EXECUTE format('ALTER ROLE %I RENAME TO r', {role}); END $$");
    ready.server.psql_db("ascii", &mend);
    dump(&ready, "");
}
