//! Where a restore goes and what stands in its way there: service files, names that are taken, locks, what follows a database.

use super::*;
use pg_ark_testkit::Scratch;
use std::fs;

/// The words of an output, however they are broken into lines.
fn said(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The newest version that scripts/postgres-versions unpacked.
fn newest() -> Pg {
    let base = std::env::var_os("PG_ARK_POSTGRES")
        .map_or_else(|| "/var/tmp/pg_ark-postgres".into(), std::path::PathBuf::from);
    let config = base.join("18/usr/lib/postgresql/18/bin/pg_config");
    if config.is_file() { Pg::at(&config) } else { newer() }
}

#[test]
fn the_database_of_a_service_file_or_of_the_environment_is_the_one_that_is_meant() {
    let shop = shop();
    let server = shop.server();
    let room = Scratch::new("service");
    let file = room.path().join("services");
    let place = format!("host={}\nport={}\nuser=postgres\n", server.socket_dir().display(), server.port());
    fs::write(&file, format!("[st]\n{place}dbname=stage\n[bare]\n{place}")).expect("written");
    let before = dump(server, "shop", &[]);
    let here = conninfo(server);
    for (text, service, database) in [
        ("service=st", None, None),
        ("service=st", None, Some("shop")),
        ("postgresql:///?service=st", None, None),
        ("", Some("st"), None),
        ("service=bare", None, Some("stage")),
        (here.as_str(), None, Some("stage")),
        ("service=bare dbname=stage", Some("bare"), Some("shop")),
    ] {
        server.psql("DROP DATABASE IF EXISTS stage");
        server.psql("CREATE DATABASE stage");
        server.psql_db("stage", "CREATE TABLE plain (other int)");
        let mut pgark = shop.ready.pgark();
        pgark.env("PGSERVICEFILE", &file).args(["restore", &shop.backup, "--into", text]);
        pgark.envs(service.map(|name| ("PGSERVICE", name))).envs(database.map(|name| ("PGDATABASE", name)));
        let output = run(pgark.args(["--database", "shop", "--table", "plain", "--clean"]));
        assert!(output.success(), "{text} {service:?} {database:?}: {output}");
        assert!(output.stderr.contains("stage, of database shop"), "{output}");
        assert_eq!(server.psql_db("stage", "SELECT count(i) FROM plain"), "10");
        assert_eq!(dump(server, "shop", &[]), before, "{text} {service:?} {database:?}");
    }
    // None is named: the table's own.
    shop.sql("DELETE FROM plain");
    let mut pgark = shop.ready.pgark();
    pgark.env("PGSERVICEFILE", &file).args(["restore", &shop.backup, "--into", "service=bare"]);
    run(pgark.args(["--table", "plain", "--clean"])).ok();
    assert_eq!(dump(server, "shop", &[]), before);
}

#[test]
fn what_was_brought_along_before_a_failure_is_named() {
    let shop = shop();
    let server = shop.server();
    server.psql("CREATE DATABASE other");
    server.psql_db("other", "CREATE SCHEMA sales; CREATE TABLE sales.po_pkey (i int)");
    let to_other = |options: &[&str]| {
        let mut pgark = shop.ready.pgark();
        pgark.args(["restore", &shop.backup, "--into", &format!("{} dbname=other", conninfo(server))]);
        pgark.args(options);
        pgark
    };
    let of_orders = ["--database", "shop", "--table", "sales.orders", "--as", "po"];
    let output = fails_with(&mut to_other(&of_orders), code(ErrorKind::ServerNotReady));
    let text = said(&output.stderr);
    for word in ["\"po_pkey\" already exists", "what it needs is there now, and stays: ", "TYPE sales.mood"] {
        assert!(text.contains(word), "\"{word}\" expected: {output}");
    }
    assert!(!text.contains("everything is as it was"), "{output}");
    let found = "SELECT to_regtype('sales.mood') IS NOT NULL, to_regclass('sales.po') IS NULL";
    assert_eq!(server.psql_db("other", found), "t|t", "as it was told");
    server.psql_db("other", "DROP TABLE sales.po_pkey");
    assert!(run(&mut to_other(&of_orders)).success());
    // What needs nothing leaves nothing.
    let before = dump(server, "other", &[]);
    server.psql_db("other", "CREATE TABLE po_day_idx (i int)");
    let before = (before, dump(server, "other", &["--exclude-table=po_day_idx"]));
    let of_events = ["--database", "shop", "--table", "events", "--as", "po"];
    let output = fails_with(&mut to_other(&of_events), code(ErrorKind::ServerNotReady));
    assert!(said(&output.stderr).contains("everything is as it was"), "{output}");
    assert_eq!(
        (dump(server, "other", &["--exclude-table=po_day_idx"]), before.1),
        (before.0.clone(), before.0)
    );
}

#[test]
fn who_holds_a_lock_that_a_restore_waits_for_is_told() {
    let shop = shop();
    let server = shop.server();
    let room = Scratch::new("waits");
    let words = room.path().join("stderr");
    let mut reader = server.session_as("shop", "postgres");
    reader.ask("SET application_name = 'report'; BEGIN; SELECT count(*) FROM plain");
    let mut pgark = shop.to(server, &["--table", "plain", "--clean"]);
    let file = fs::File::create(&words).expect("a file");
    let mut child = pgark.stdout(Stdio::null()).stderr(file).spawn().expect("pgark");
    let read = || said(&fs::read_to_string(&words).expect("words"));
    wait_until("word of who holds the lock", LONG, || read().contains("(report, idle in transaction)"));
    assert!(read().contains("warning: the restore waits for a lock that is held by process"), "{}", read());
    reader.ask("COMMIT");
    assert!(child.wait().expect("an end").success(), "{}", read());
    assert_eq!(read().matches("waits for a lock").count(), 1, "told once: {}", read());
}

#[test]
fn smoke_a_partitioned_table_goes_beside_another() {
    let shop = shop();
    let other = Cluster::builder().pg(&newest()).start();
    other.psql("CREATE ROLE clerk; CREATE DATABASE shop");
    let bindir = newest().bindir().display().to_string();
    for name in ["p2", "events_then"] {
        let options = ["--database", "shop", "--table", "events", "--as", name, "--bindir", &bindir];
        let output = run(&mut shop.to(&other, &options));
        assert!(output.success(), "{output}");
        let rows = format!("SELECT count(*), count(DISTINCT tableoid) FROM {name}");
        assert_eq!(other.psql_db("shop", &rows), "601|2");
    }
}

#[test]
fn what_others_follow_or_the_server_would_not_drop_is_not_replaced() {
    let shop = shop_with(
        Cluster::builder().conf("wal_level = 'logical'").conf("max_prepared_transactions = 2"),
        "CREATE TABLE marked (i int)",
    );
    let clean = ["--database", "shop", "--clean"];
    for (make, end, words) in [
        (
            "CREATE SUBSCRIPTION feed CONNECTION 'dbname=x' PUBLICATION p WITH (connect = false)",
            "ALTER SUBSCRIPTION feed SET (slot_name = NONE); DROP SUBSCRIPTION feed",
            ["subscription \"feed\" of database \"shop\"", "DROP SUBSCRIPTION"],
        ),
        (
            "SELECT pg_create_logical_replication_slot('cdc', 'pgoutput')",
            "SELECT pg_drop_replication_slot('cdc')",
            ["replication slot \"cdc\" of database \"shop\"", "pg_drop_replication_slot"],
        ),
        (
            "BEGIN; INSERT INTO marked VALUES (1); PREPARE TRANSACTION 'it''s'",
            "ROLLBACK PREPARED 'it''s'",
            ["prepared transaction \"it's\" of database \"shop\"", "ROLLBACK PREPARED"],
        ),
    ] {
        shop.sql(make);
        shop.refused(&clean, ErrorKind::ServerNotReady, &words);
        shop.sql(end);
    }
    // Those of other databases are in nobody's way.
    shop.server().psql("SELECT pg_create_logical_replication_slot('elsewhere', 'pgoutput')");
    shop.sql("CREATE TABLE later (i int)");
    shop.restore(&clean);
    assert_eq!(shop.sql("SELECT to_regclass('later') IS NULL"), "t");
    assert_eq!(databases(shop.server()), "postgres, shop, template0, template1");
}

#[test]
fn a_database_is_not_lost_to_one_that_lacks_something() {
    // Neither is found when a dump is restored: names without a schema mean nothing there.
    let broken = "CREATE FUNCTION many() RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN (SELECT count(*) FROM plain); END'; \
                  CREATE TABLE indexed AS SELECT 1 AS i; CREATE INDEX by_many ON indexed ((i + many()))";
    let shop = shop_with(Cluster::builder(), broken);
    let server = shop.server();
    shop.sql("CREATE TABLE precious AS SELECT 42 AS i");
    let clean = ["--database", "shop", "--clean"];
    let output = fails_with(&mut shop.to(server, &clean), code(ErrorKind::RestoreIncomplete));
    assert!(output.stderr.contains("relation \"plain\" does not exist"), "{output}");
    let kept = server.psql("SELECT datname FROM pg_database WHERE datname ~ '^shop_before_20\\d{6}_\\d{6}$'");
    assert!(said(&output.stdout).contains(&format!("is kept as {kept}:")), "{output}");
    assert_eq!(server.psql_db(&kept, "SELECT i FROM precious"), "42");
    assert_eq!(shop.sql("SELECT to_regclass('precious') IS NULL, (SELECT count(*) FROM indexed)"), "t|1");
    server.psql(&format!("DROP DATABASE {kept}"));

    // Without the data of a table it replaces nothing.
    shop.sql("ALTER TABLE indexed ADD CHECK (i <= many()); CREATE TABLE precious AS SELECT 42 AS i");
    let backup = shop.ready.try_backup("kind => 'logical', wait => true").expect("a backup");
    let shop = Shop { backup, ..shop };
    shop.sql("DROP TABLE indexed; CREATE TABLE more AS SELECT 7 AS i");
    let words =
        ["could not be replaced", "COPY failed for table \"indexed\"", "\"shop\" is as it was", "--as NAME"];
    shop.refused(&clean, ErrorKind::ServerNotReady, &words);
    assert_eq!(shop.sql("SELECT p.i, m.i FROM precious p, more m"), "42|7");
}

#[test]
fn nobody_meets_a_database_without_its_privileges() {
    let shop = shop();
    let server = shop.server();
    server.psql(
        "REVOKE CONNECT ON DATABASE shop FROM PUBLIC; ALTER DATABASE shop CONNECTION LIMIT 7; COMMENT ON DATABASE shop IS 'it''s; \\x'; \
         CREATE ROLE gone; ALTER ROLE gone IN DATABASE shop SET work_mem = '1MB'; ALTER DATABASE shop SET work_mem = '7MB'; \
         ALTER ROLE clerk CREATEDB; GRANT TEMPORARY ON DATABASE shop TO clerk WITH GRANT OPTION; \
         SET ROLE clerk; GRANT TEMPORARY ON DATABASE shop TO pg_monitor",
    );
    let backup = shop.ready.try_backup("kind => 'logical', wait => true").expect("a backup");
    let shop = Shop { backup, ..shop };
    let server = shop.server();
    let properties = "SELECT array(SELECT a::text FROM unnest(datacl) a ORDER BY 1), datconnlimit, shobj_description(oid, 'pg_database'), \
        (SELECT string_agg(setconfig::text, ' ') FROM pg_db_role_setting WHERE setdatabase = d.oid) FROM pg_database d WHERE datname = 'shop'";
    server.psql("ALTER ROLE gone IN DATABASE shop RESET ALL; DROP ROLE gone");
    let before = server.psql(properties);
    server.psql("DROP DATABASE shop");

    let mut lock = server.session();
    lock.ask("BEGIN; LOCK TABLE pg_shdescription IN SHARE MODE");
    let mut pgark = shop.to(server, &["--database", "shop"]);
    let mut child = pgark.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("pgark");
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    wait_until("a restore that waits to comment on the database", LONG, || server.psql(waits) == "1");
    assert!(!databases(server).contains("shop"), "it has its name: {}", databases(server));
    assert!(send_signal(child.id(), KILL));
    child.wait().expect("an end");
    lock.ask("COMMIT");
    wait_until("the end of its session", SHORT, || server.psql(waits) == "0");
    assert!(!databases(server).contains("shop"), "{}", databases(server));

    // What cannot be set is told, and the rest is.
    let output =
        fails_with(&mut shop.to(server, &["--database", "shop"]), code(ErrorKind::RestoreIncomplete));
    assert!(output.stderr.contains("database shop: role \"gone\" does not exist"), "{output}");
    assert_eq!(output.stderr.matches("error: database").count(), 1, "{output}");
    assert_eq!(server.psql(properties), before);
    assert_eq!(databases(server), "postgres, shop, template0, template1");
}

#[test]
fn a_database_with_thousands_of_settings_is_replaced_and_comes_back_with_all() {
    let shop = shop();
    let server = shop.server();
    server.psql(
        "CREATE DATABASE tenants; CREATE ROLE tenant; DO $$BEGIN \
         FOR i IN 1..6000 LOOP \
           EXECUTE format('CREATE ROLE tenant_%s', i); \
           EXECUTE format('ALTER ROLE tenant_%s IN DATABASE tenants SET search_path = %I, %L', i, 'schema_' || i, repeat('\\\":x', 60)); \
         END LOOP; END$$; ALTER DATABASE tenants SET my.thing = ':ERROR \\ \\! it''s'",
    );
    let backup = shop.ready.try_backup("kind => 'logical', wait => true").expect("a backup");
    let shop = Shop { backup, ..shop };
    let server = shop.server();
    let settings = |name: &str| {
        server.psql(&format!(
            "SELECT count(*), md5(string_agg(setrole || setconfig::text, ' ' ORDER BY setrole)) FROM pg_db_role_setting s \
             JOIN pg_database d ON d.oid = setdatabase WHERE datname = '{name}'"
        ))
    };
    let before = settings("tenants");
    assert!(before.starts_with("6001|"), "{before}");
    server.psql("ALTER DATABASE tenants RESET my.thing; ALTER ROLE tenant_7 IN DATABASE tenants RESET ALL");
    shop.restore(&["--database", "tenants", "--clean"]);
    assert_eq!(settings("tenants"), before);
    shop.restore(&["--database", "tenants", "--as", "beside"]);
    assert_eq!(settings("beside"), before);
}

#[test]
fn what_would_fail_at_the_end_is_refused_at_the_beginning() {
    let shop = shop();
    let server = shop.server();
    server.psql("CREATE ROLE maker LOGIN CREATEDB; CREATE ROLE small LOGIN; CREATE DATABASE own OWNER maker");
    let by = |role: &str, options: &[&str], words: &[&str]| {
        let before = dump_all(server);
        let mut pgark = shop.ready.pgark();
        let place = format!("{} user={role}", conninfo(server));
        pgark.args(["restore", &shop.backup, "--into", &place, "--dry-run"]).args(options);
        let output = fails_with(&mut pgark, code(ErrorKind::PermissionDenied));
        for word in words {
            assert!(said(&output.stderr).contains(word), "\"{word}\" expected: {output}");
        }
        assert_eq!(dump_all(server), before);
    };
    by(
        "maker",
        &["--database", "shop", "--clean"],
        &["\"maker\"", "not its own: \"shop\"", "Nothing was changed"],
    );
    by("small", &["--database", "shop", "--table", "plain", "--as", "plain2"], &["\"small\"", "CREATEDB"]);
    let mut pgark = shop.ready.pgark();
    let place = format!("{} user=maker", conninfo(server));
    pgark.args(["restore", &shop.backup, "--into", &place, "--dry-run"]);
    run(pgark.args(["--database", "shop", "--as", "own", "--clean"])).ok();
    // Of whatever kind, and whether the role may see that or not.
    server.psql("GRANT maker TO small; ALTER ROLE small CREATEDB");
    let session = server.session_as("own", "postgres");
    for (role, kind) in
        [("postgres", "\"own\" (client backend)"), ("small", "\"own\" (session of another role)")]
    {
        let mut pgark = shop.ready.pgark();
        let place = format!("{} user={role}", conninfo(server));
        pgark.args([
            "restore",
            &shop.backup,
            "--into",
            &place,
            "--database",
            "shop",
            "--as",
            "own",
            "--clean",
        ]);
        let output = fails_with(&mut pgark, code(ErrorKind::ServerNotReady));
        assert!(said(&output.stderr).contains(kind), "\"{kind}\" expected: {output}");
    }
    drop(session);
}

#[test]
fn what_was_restored_before_an_end_is_told() {
    let shop = shop();
    shop.server().psql("CREATE DATABASE zoo; COMMENT ON DATABASE zoo IS 'x'");
    let backup = shop.ready.try_backup("kind => 'logical', wait => true").expect("a backup");
    let shop = Shop { backup, ..shop };
    let other = Cluster::builder().conf("wal_level = 'logical'").start();
    let room = Scratch::new("ended");
    let words = room.path().join("stderr");
    let mut lock = other.session();
    lock.ask("BEGIN; LOCK TABLE pg_shdescription IN SHARE MODE");
    let file = fs::File::create(&words).expect("a file");
    let mut child = shop.to(&other, &[]).stdout(Stdio::null()).stderr(file).spawn().expect("pgark");
    let waits = |what: &str| {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{what}%'"
        );
        other.psql(&sql) == "1"
    };
    wait_until("a restore that waits to comment on the last database", LONG, || waits("COMMENT ON"));
    assert!(send_signal(child.id(), INTERRUPT));
    wait_until("that it drops what nobody can use", LONG, || waits("DROP DATABASE"));
    lock.ask("COMMIT");
    let ended = child.wait().expect("an end");
    let text = said(&fs::read_to_string(&words).expect("words"));
    assert_eq!(ended.code(), Some(code(ErrorKind::Cancelled)), "{text}");
    assert!(text.contains("restored before, and there now: \"shop\""), "{text}");
    assert_eq!(databases(&other), "postgres, shop, template0, template1");
}
