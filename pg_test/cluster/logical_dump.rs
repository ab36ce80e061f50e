//! Logical backups as they are taken: what is stored, what public tools make of it, and what happens when a database cannot be
//! dumped.

use crate::support::{Ready, names_below, ready};
use pg_ark_testkit::{
    Cluster, LONG, Repo, SHORT, Scratch, SqlError, Tmpfs, command, file_url, holds_within, run, run_ok,
    wait_until,
};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Arguments of a logical backup that is waited for.
const LOGICAL: &str = "kind => 'logical', wait => true";

/// Takes a logical backup with more arguments (`, skip_failed => true`); returns its name.
#[track_caller]
pub fn dump(ready: &Ready, arguments: &str) -> String {
    try_dump(ready, arguments).unwrap_or_else(|error| panic!("the backup failed: {error}"))
}

pub fn try_dump(ready: &Ready, arguments: &str) -> Result<String, SqlError> {
    ready.try_backup(&format!("{LOGICAL}{arguments}"))
}

pub fn record(ready: &Ready, backup: &str) -> Value {
    let text = fs::read_to_string(ready.backup_folder(backup).join("backup.json")).expect("a record");
    serde_json::from_str(&text).expect("JSON")
}

fn database<'a>(record: &'a Value, name: &str) -> &'a Value {
    let all = record["logical"]["databases"].as_array().expect("databases");
    all.iter().find(|d| d["name"] == name).unwrap_or_else(|| panic!("\"{name}\" is not in {all:?}"))
}

pub fn names(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|d| d["name"].as_str().expect("a name")).collect()
}

/// The volumes of a dump, one after another.
fn joined(folder: &Path, volumes: &Value) -> Vec<u8> {
    let volumes = volumes.as_array().expect("volumes");
    volumes
        .iter()
        .flat_map(|v| fs::read(folder.join(v["name"].as_str().expect("a name"))).expect("a volume"))
        .collect()
}

/// `pg_restore --list` of a dump in the repository, which must be readable.
#[track_caller]
pub fn listed(ready: &Ready, dump: &Path) -> String {
    run(ready.server.client("pg_restore").arg("--list").arg(dump)).ok()
}

/// Programs of a dump that still run: those of this server's engine and those that nobody is the parent of.
fn programs(ready: &Ready) -> Vec<String> {
    let socket = ready.server.socket_dir().display().to_string();
    let is_ours = |p: &pg_ark_testkit::Process| p.title.contains("pg_dump") && p.title.contains(&socket);
    pg_ark_testkit::process::all().into_iter().filter(is_ours).map(|p| p.title).collect()
}

/// Fails when a backup in this state leaves something that works.
#[track_caller]
fn assert_quiet(ready: &Ready) {
    ready.assert_nothing_left_behind();
    let quiet = || {
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pg_ark %'";
        programs(ready).is_empty() && ready.server.psql(sessions) == "0"
    };
    assert!(holds_within(SHORT, quiet), "{:?}", programs(ready));
}

/// A table of so many MB that no compressor makes small.
fn fill(ready: &Ready, database: &str, table: &str, megabytes: u32) {
    let row = "(SELECT string_agg(md5(random()::text || i || j), '') FROM generate_series(1, 256) AS j)";
    let query = format!(
        "CREATE TABLE {table} AS SELECT i, {row} AS x FROM generate_series(1, {}) AS i",
        megabytes * 128
    );
    ready.server.psql_db(database, &query);
}

/// The file of a table, damaged so that nobody can read it.
fn break_table(ready: &Ready, database: &str, table: &str) {
    let path = ready.server.psql_db(database, &format!("SELECT pg_relation_filepath('{table}')"));
    ready.server.psql("CHECKPOINT");
    let path = ready.server.data().join(path);
    let mut bytes = fs::read(&path).expect("a table");
    // Somewhere on its first page: with checksums nobody reads it any more.
    bytes[5000] ^= 0xff;
    fs::write(&path, bytes).expect("a damaged table");
    ready.server.restart();
}

/// A database with everything that a dump of it does not tell; gives the place of a tablespace.
fn make_losses(server: &Cluster) -> PathBuf {
    let space = server.create_tablespace("space");
    server.psql("ALTER SYSTEM SET work_mem = '5MB'; SELECT pg_reload_conf()");
    for sql in [
        "CREATE ROLE owner; CREATE ROLE other",
        "CREATE DATABASE app OWNER owner TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C' CONNECTION LIMIT 7 TABLESPACE space",
        "ALTER DATABASE app SET search_path = 'a b', public, pg_catalog; ALTER ROLE owner IN DATABASE app SET work_mem = '7MB'",
        // One that would end what is asked, and one that would lead it elsewhere.
        "ALTER DATABASE app SET statement_timeout = '1ms'; ALTER DATABASE app SET standard_conforming_strings = off",
        "REVOKE CONNECT ON DATABASE app FROM PUBLIC; GRANT TEMPORARY ON DATABASE app TO other",
        "CREATE DATABASE model IS_TEMPLATE true",
        "SELECT pg_create_physical_replication_slot('standby')",
    ] {
        server.psql(sql);
    }
    for sql in [
        "CREATE SCHEMA \"a b\"; CREATE EXTENSION pgcrypto SCHEMA \"a b\"",
        "CREATE TABLE public.t (i int) PARTITION BY RANGE (i); CREATE TABLE public.t1 PARTITION OF public.t DEFAULT",
        "SELECT lo_from_bytea(0, 'x'), lo_from_bytea(0, 'y')",
        "CREATE SUBSCRIPTION sub CONNECTION 'host=nowhere password=hush' PUBLICATION p, q WITH (connect = false)",
        "CREATE AGGREGATE public.count(*) (SFUNC = int8inc, STYPE = int8, INITCOND = '42')",
    ] {
        server.psql_db("app", &format!("SET statement_timeout = 0; {sql}"));
    }
    space
}

#[test]
fn what_a_dump_loses_is_in_the_record() {
    let ready =
        ready(Cluster::builder().external_config().conf("default_text_search_config = 'pg_catalog.german'"));
    let server = &ready.server;
    let space = make_losses(server);
    let backup = dump(&ready, ", label => 'all of it'");
    let record = record(&ready, &backup);
    let logical = &record["logical"];

    assert_eq!(names(&logical["databases"]), ["app", "model", "postgres", "template1"]);
    let app = database(&record, "app");
    let expected =
        serde_json::json!({"encoding": "LATIN1", "provider": "libc", "collate": "C", "ctype": "C"});
    assert_eq!(app["locale"], expected);
    assert_eq!((&app["owner"], &app["tablespace"]), (&Value::from("owner"), &Value::from("space")));
    assert_eq!((app["connection_limit"].as_i64(), app["is_template"].as_bool()), (Some(7), Some(false)));
    assert_eq!(database(&record, "model")["is_template"], true);
    assert_eq!(app["privileges"], "{=T/owner,owner=CTc/owner,other=T/owner}");
    let settings = app["settings"].as_array().unwrap();
    assert!(settings.contains(
        &serde_json::json!({"role": null, "name": "search_path", "value": "\"a b\", public, pg_catalog"})
    ));
    assert!(
        settings.contains(&serde_json::json!({"role": "owner", "name": "work_mem", "value": "7MB"})),
        "{settings:?}"
    );
    let version = server.psql("SELECT default_version FROM pg_available_extensions WHERE name = 'pgcrypto'");
    let crypto = serde_json::json!({"name": "pgcrypto", "version": version, "schema": "a b"});
    assert!(app["extensions"].as_array().unwrap().contains(&crypto), "{}", app["extensions"]);
    // Each counted once, whatever the database calls "count".
    assert_eq!((app["tables"].as_u64(), app["large_objects"].as_u64()), (Some(2), Some(2)));
    assert_eq!(app["statistics"], server.pg().major() >= 18);
    assert_cluster(logical, &space);
    assert!(!record.to_string().contains("hush"), "a password");
    assert_sums(&ready, &backup, &record);
    assert_config(&ready, &ready.backup_folder(&backup), &record);
    server.psql("SELECT pg_drop_replication_slot('standby')");
    assert_quiet(&ready);
}

#[track_caller]
fn assert_cluster(logical: &Value, space: &Path) {
    let tablespace = &logical["tablespaces"][0];
    assert_eq!(
        (&tablespace["name"], &tablespace["location"]),
        (&"space".into(), &space.display().to_string().into())
    );
    assert_eq!(logical["replication_slots"][0]["name"], "standby");
    let sub = &logical["subscriptions"][0];
    assert_eq!((&sub["name"], &sub["database"], &sub["slot"]), (&"sub".into(), &"app".into(), &"sub".into()));
    assert_eq!(sub["publications"], serde_json::json!(["p", "q"]));
    assert_eq!(logical["initdb"]["username"], "postgres");
    assert_eq!(logical["initdb"]["text_search_config"], "pg_catalog.german");
    assert_eq!(logical["initdb"]["locale"]["encoding"], "UTF8");
}

/// Sizes and counts of the record are those of what is stored.
#[track_caller]
fn assert_sums(ready: &Ready, backup: &str, record: &Value) {
    let logical = &record["logical"];
    let sizes: u64 = names(&logical["databases"])
        .iter()
        .map(|d| database(record, d)["data_bytes"].as_u64().unwrap())
        .sum();
    assert_eq!((record["data_bytes"].as_u64(), record["files"].as_u64()), (Some(sizes), Some(0)));
    assert_eq!(
        (&record["start_lsn"], &record["manifest"], &record["wal_included"]),
        (&Value::Null, &Value::Null, &false.into())
    );
    assert_eq!(
        ready.backup_row("kind, status, label, contents", backup),
        "logical|complete|all of it|4 databases: app, model, postgres, template1"
    );
    let stored: u64 = ready.backup_row("stored_bytes", backup).parse().unwrap();
    let folder = ready.backup_folder(backup);
    let all =
        names_below(&folder).iter().map(|name| fs::metadata(folder.join(name)).unwrap().len()).sum::<u64>();
    assert_eq!(stored, all - fs::metadata(folder.join("backup.json")).unwrap().len());
}

/// The files that configure the server are there byte by byte, those of the data directory too.
#[track_caller]
fn assert_config(ready: &Ready, folder: &Path, record: &Value) {
    let out = Scratch::new("config");
    let script = "zstd -dc \"$1\" | tar x -C \"$2\"";
    run_ok(command("sh").args(["-c", script, "sh"]).arg(folder.join("config.tar.zst")).arg(out.path()));
    let setting = |name: &str| PathBuf::from(ready.server.psql(&format!("SHOW {name}")));
    let files = [
        setting("config_file"),
        setting("hba_file"),
        setting("ident_file"),
        ready.server.data().join("postgresql.auto.conf"),
    ];
    for file in files {
        let stored = fs::read(out.path().join(file.strip_prefix("/").unwrap())).expect("a stored file");
        assert_eq!(stored, fs::read(&file).unwrap(), "{file:?}");
        assert!(
            record["config_files"].as_array().unwrap().contains(&file.to_str().unwrap().into()),
            "{file:?}"
        );
    }
}

#[test]
fn any_name_becomes_an_object_that_public_tools_read() {
    let ready = ready(Cluster::builder());
    let long = format!("{}x", "é".repeat(31));
    let odd = [
        ("a b", "a%20b.dump"),
        (".hidden", "%2Ehidden.dump"),
        ("..", "%2E..dump"),
        ("a/b/../c", "a%2Fb%2F..%2Fc.dump"),
        ("it's \"q\" \\ $HOME `x` %41", "it%27s%20%22q%22%20%5C%20%24HOME%20%60x%60%20%2541.dump"),
        ("größe", "gr%C3%B6%C3%9Fe.dump"),
        ("-W", "-W.dump"),
        ("host=nowhere", "host%3Dnowhere.dump"),
        ("postgresql://nowhere/x", "postgresql%3A%2F%2Fnowhere%2Fx.dump"),
        ("x.dump.0001", "x.dump.0001.dump"),
        ("globals.sql", "globals.sql.dump"),
        ("A", "A.dump"),
        ("a", "a.dump"),
        ("line\nfeed", "line%0Afeed.dump"),
        (&long, ""),
    ];
    for (number, (name, _)) in odd.iter().enumerate() {
        ready.server.psql(&format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\"")));
        ready.server.psql_db(name, &format!("CREATE TABLE here_{number} AS SELECT 1"));
    }
    ready.server.psql(
        "CREATE ROLE \"röle \"\"x\"\"\" PASSWORD 'it''s'; ALTER ROLE \"röle \"\"x\"\"\" SET work_mem = '3MB'",
    );
    let backup = dump(&ready, "");
    let (folder, record) = (ready.backup_folder(&backup), record(&ready, &backup));
    for (number, (name, object)) in odd.iter().enumerate() {
        let stored = &database(&record, name)["volumes"][0]["name"];
        assert!(object.is_empty() || stored == object, "{name}: {stored}");
        let list = listed(&ready, &folder.join(stored.as_str().unwrap()));
        assert!(list.contains(&format!("TABLE DATA public here_{number} ")), "{name}: {list}");
    }
    // Into another server by the words of the README.
    let other = Cluster::start_new();
    let script = "zstd -dc \"$1\" | psql -X -q -v ON_ERROR_STOP=0 -d postgres";
    let mut psql = other.client("psql");
    let path = std::env::join_paths([other.pg().bindir(), Path::new("/usr/bin"), Path::new("/bin")]).unwrap();
    let mut shell = command("sh");
    shell.envs(psql.env("PATH", path).get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = run(shell.args(["-c", script, "sh"]).arg(folder.join("globals.sql.zst")));
    assert_eq!(
        output.stderr.lines().filter(|line| line.contains("ERROR")).count(),
        1,
        "its own role alone: {output}"
    );
    let role = "SELECT a.rolpassword IS NOT NULL, r.rolconfig FROM pg_authid a JOIN pg_roles r USING (oid) WHERE r.rolname = 'röle \"x\"'";
    assert_eq!(other.psql(role), "t|{work_mem=3MB}");
    let dump = folder.join(database(&record, "größe")["volumes"][0]["name"].as_str().unwrap());
    run(other.client("pg_restore").args(["--create", "--dbname=postgres"]).arg(dump)).ok();
    assert_eq!(other.psql_db("größe", "SELECT count(*) FROM here_5"), "1");
}

#[test]
fn a_dump_is_cut_into_volumes_that_read_as_one() {
    const LIMIT: u64 = 8 << 20;
    let ready =
        ready(Cluster::builder().conf("pg_ark.volume_size = '8MB'").conf("pg_ark.compression = 'none'"));
    ready.server.psql("CREATE DATABASE big");
    fill(&ready, "big", "t", 19);
    let backup = dump(&ready, "");
    let (folder, record) = (ready.backup_folder(&backup), record(&ready, &backup));
    let volumes = &database(&record, "big")["volumes"];
    let sizes: Vec<u64> = volumes.as_array().unwrap().iter().map(|v| v["size"].as_u64().unwrap()).collect();
    assert!(sizes.len() == 3 && sizes[..2] == [LIMIT, LIMIT] && sizes[2] < LIMIT, "{sizes:?}");
    assert_eq!(volumes[2]["name"], "big.dump.0002");
    let script = "cat \"$1\"/big.dump \"$1\"/big.dump.0* | \"$2\"/pg_restore --list";
    let list = run_ok(command("sh").args(["-c", script, "sh"]).arg(&folder).arg(ready.server.pg().bindir()));
    assert!(list.contains("TABLE DATA public t "), "{list}");
    let other = Cluster::start_new();
    let whole = other.base().join("whole.dump");
    fs::write(&whole, joined(&folder, volumes)).unwrap();
    run(other.client("pg_restore").args(["--create", "--dbname=postgres"]).arg(&whole)).ok();
    let sum = "SELECT md5(string_agg(x, '' ORDER BY i)) FROM t";
    assert_eq!(other.psql_db("big", sum), ready.server.psql_db("big", sum));
}

#[test]
fn every_codec_is_read_by_its_own_tool() {
    let ready = ready(Cluster::builder());
    fill(&ready, "postgres", "t", 1);
    let old = ready.server.pg().major() < 16;
    for (codec, ending, tool, inside, dump_has) in [
        ("zstd:3", ".zst", "zstd -dc", if old { "gzip:1" } else { "zstd:3" }, "Compression: "),
        ("lz4", ".lz4", "lz4 -dc", if old { "gzip:1" } else { "lz4" }, "Compression: "),
        ("gzip:5", ".gz", "gzip -dc", "gzip:5", "Compression: "),
        ("none", "", "cat", "none", if old { "Compression: 0" } else { "Compression: none" }),
    ] {
        let start = format!("SELECT ark.backup_start({LOGICAL}, databases => '{{postgres}}')");
        let backup = ready.server.psql(&format!("SET pg_ark.compression = '{codec}'; {start}"));
        let (folder, record) = (ready.backup_folder(&backup), record(&ready, &backup));
        assert_eq!(record["logical"]["dump_compression"], inside, "{codec}");
        let script = format!("{tool} \"$1\"");
        let globals = folder.join(format!("globals.sql{ending}"));
        let text = run_ok(command("sh").args(["-c", &script, "sh"]).arg(&globals));
        assert!(
            text.contains("CREATE ROLE postgres;") && text.trim_end().ends_with("dump complete\n--"),
            "{codec}: {text}"
        );
        assert_eq!(record["logical"]["globals_bytes"], text.len(), "{codec}");
        let list = listed(&ready, &folder.join("postgres.dump"));
        assert!(list.contains(dump_has), "{codec}: {list}");
        assert_eq!(record["logical"]["left_out"], serde_json::json!(["template1"]));
    }
}

#[test]
fn a_database_whose_dump_fails_is_named_and_the_backup_is_not_complete() {
    let ready = ready(Cluster::builder().conf("pg_ark.jobs = 2"));
    for sql in ["CREATE DATABASE broken", "CREATE DATABASE good"] {
        ready.server.psql(sql);
    }
    fill(&ready, "broken", "lost", 1);
    fill(&ready, "good", "t", 24);
    break_table(&ready, "broken", "lost");
    // The other would take minutes at this rate: it is stopped.
    let began = Instant::now();
    let start = format!("SET pg_ark.max_rate = 100; SELECT ark.backup_start({LOGICAL})");
    let error = ready.server.try_psql(&start).unwrap_err();
    assert!(began.elapsed() < SHORT, "{:?}", began.elapsed());
    assert_eq!(error.sqlstate(), "58000");
    assert!(error.message().contains("database \"broken\""), "{error}");
    assert!(error.to_string().contains("invalid page") && error.hint().contains("skip_failed"), "{error}");
    let backup = ready.server.psql("SELECT backup FROM ark.list_backups()");
    ready.assert_failed(&backup, "invalid page");
    assert_quiet(&ready);

    let answer = ready.server.query(
        "postgres",
        "postgres",
        &format!("SELECT ark.backup_start({LOGICAL}, skip_failed => true)"),
    );
    let answer = answer.unwrap_or_else(|error| panic!("{error}"));
    assert!(
        answer
            .messages
            .iter()
            .any(|m| m.severity == "WARNING" && m.message.contains("\"broken\" is not in the backup")),
        "{answer:?}"
    );
    let record = record(&ready, &answer.rows);
    assert_eq!(names(&record["logical"]["databases"]), ["good", "postgres", "template1"]);
    assert_eq!(names(&record["logical"]["missing"]), ["broken"]);
    let reason = record["logical"]["missing"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("invalid page"), "{reason}");
    assert!(record["warnings"].to_string().contains("broken"), "{}", record["warnings"]);
    let contents = ready.backup_row("status, contents", &answer.rows);
    assert_eq!(contents, "complete|3 databases: good, postgres, template1; without broken");
    let folder = ready.backup_folder(&answer.rows);
    assert!(
        !names_below(&folder).iter().any(|name| name.starts_with("broken")),
        "{:?}",
        names_below(&folder)
    );
    listed(&ready, &folder.join("good.dump"));

    // Nothing is left when nothing else was asked for.
    let error = try_dump(&ready, ", skip_failed => true, databases => '{broken}'").unwrap_err();
    assert!(error.message().contains("no database could be dumped"), "{error}");
}

#[test]
fn a_broken_dump_leaves_none_of_its_volumes() {
    let ready =
        ready(Cluster::builder().conf("pg_ark.volume_size = '8MB'").conf("pg_ark.compression = 'none'"));
    ready.server.psql("CREATE DATABASE broken");
    // Dumped in the order of their names.
    fill(&ready, "broken", "a", 20);
    fill(&ready, "broken", "b", 1);
    break_table(&ready, "broken", "b");
    let backup = dump(&ready, ", skip_failed => true");
    let left = names_below(&ready.backup_folder(&backup));
    assert!(!left.iter().any(|name| name.contains("broken")), "{left:?}");
    assert_eq!(names(&record(&ready, &backup)["logical"]["missing"]), ["broken"]);
}

#[test]
fn a_database_that_refuses_connections_is_named_before_anything_is_written() {
    let ready = ready(Cluster::builder());
    for sql in [
        "CREATE DATABASE shut ALLOW_CONNECTIONS false",
        "CREATE DATABASE \"also shut\" ALLOW_CONNECTIONS false",
        "CREATE DATABASE open",
    ] {
        ready.server.psql(sql);
    }
    let error = try_dump(&ready, "").unwrap_err();
    let named = error.message().contains("\"also shut\", \"shut\" cannot be dumped");
    assert!(named && error.hint().contains("exclude_databases"), "{error}");
    assert_eq!(ready.server.psql("SELECT count(*) FROM ark.list_backups()"), "0", "nothing was begun");
    ready.assert_no_lease();
    let error = try_dump(&ready, ", databases => '{shut}'").unwrap_err();
    assert!(error.message().contains("\"shut\" cannot be dumped"), "{error}");

    let backup = dump(&ready, ", exclude_databases => '{shut,also shut}'");
    let told = record(&ready, &backup);
    assert_eq!(names(&told["logical"]["databases"]), ["open", "postgres", "template1"]);
    assert_eq!(told["logical"]["left_out"], serde_json::json!(["also shut", "shut"]));
    assert_eq!(told["logical"].get("missing"), None);
    let backup = dump(&ready, ", skip_failed => true, databases => '{open,shut}'");
    let told = record(&ready, &backup);
    assert_eq!(
        (names(&told["logical"]["databases"]), names(&told["logical"]["missing"])),
        (vec!["open"], vec!["shut"])
    );

    // One whose refusal only a connection shows.
    ready.server.psql("DROP DATABASE shut");
    ready.server.psql("DROP DATABASE \"also shut\"");
    let hba = PathBuf::from(ready.server.psql("SHOW hba_file"));
    let lines = fs::read_to_string(&hba).unwrap();
    fs::write(&hba, format!("local open all reject\n{lines}")).unwrap();
    ready.server.reload();
    let refuses = || ready.server.query("open", "postgres", "SELECT 1").is_err();
    wait_until("the new pg_hba.conf", SHORT, refuses);
    let error = try_dump(&ready, "").unwrap_err();
    assert!(error.message().contains("could not dump database \"open\""), "{error}");
    assert!(error.to_string().contains("pg_hba.conf rejects"), "{error}");
    let backup = dump(&ready, ", skip_failed => true");
    assert_eq!(names(&record(&ready, &backup)["logical"]["missing"]), ["open"]);
}

#[test]
fn a_database_dropped_in_the_middle_is_told() {
    let ready = ready(Cluster::builder().conf("pg_ark.jobs = 1"));
    ready.server.psql("CREATE DATABASE large");
    fill(&ready, "large", "t", 12);
    for (skip, ending, while_dumped) in [
        ("", "failed", false),
        (", skip_failed => true", "complete", false),
        ("", "failed", true),
        (", skip_failed => true", "complete", true),
    ] {
        ready.server.psql("CREATE DATABASE small");
        let start = format!("SET pg_ark.max_rate = 4096; SELECT ark.backup_start('logical'{skip})");
        let backup = ready.server.psql(&start);
        // It is the turn of the largest.
        let of_large = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'large' AND application_name LIKE 'pg_ark %'";
        wait_until("the first dump", LONG, || ready.server.psql(of_large) == "1");
        let gone = match while_dumped {
            true => "large",
            false => "small",
        };
        ready.server.psql(&format!("DROP DATABASE {gone} WITH (FORCE)"));
        wait_until("the end", LONG, || ready.backup_row("status", &backup) != "running");
        assert_eq!(ready.backup_row("status", &backup), ending, "{gone}{skip}");
        match ending {
            "failed" => ready.assert_failed(&backup, &format!("could not dump database \"{gone}\"")),
            _ => assert_eq!(names(&record(&ready, &backup)["logical"]["missing"]), [gone]),
        }
        assert_quiet(&ready);
        match while_dumped {
            true => {
                ready.server.psql("DROP DATABASE small");
                ready.server.psql("CREATE DATABASE large");
                fill(&ready, "large", "t", 12);
            }
            false => {
                assert_eq!(ready.server.psql("SELECT count(*) FROM pg_database WHERE datname = 'small'"), "0")
            }
        }
    }
}

#[test]
fn the_bar_grows_to_the_size_of_the_databases_at_the_rate() {
    let ready = ready(Cluster::builder().conf("pg_ark.jobs = 2").conf("pg_ark.compression = 'none'"));
    ready.server.psql("CREATE DATABASE big");
    for table in ["a", "\"b c\"", "d"] {
        fill(&ready, "big", table, 4);
    }
    let began = Instant::now();
    let backup = ready.server.psql("SET pg_ark.max_rate = 6144; SELECT ark.backup_start('logical')");
    let size: u64 = ready
        .server
        .psql("SELECT sum(pg_database_size(oid)) FROM pg_database WHERE datallowconn")
        .parse()
        .unwrap();
    let mut seen: Vec<u64> = Vec::new();
    let mut client = ready.server.session();
    let ended = holds_within(LONG, || {
        let row = client.ask("SELECT backup_streamed, backup_total FROM pg_stat_progress_basebackup");
        if let Some((done, total)) = row.split_once('|') {
            let total: u64 = total.parse().unwrap_or(0);
            // Asked a moment apart; nothing was written between.
            assert!(total == 0 || total.abs_diff(size) < 1 << 20, "{total} of {size}");
            let done: u64 = done.parse().unwrap();
            assert!(done <= total && seen.last().is_none_or(|last| *last <= done), "{seen:?} {done}");
            if seen.last() != Some(&done) {
                seen.push(done);
            }
        }
        row.is_empty() && ready.backup_row("status", &backup) != "running"
    });
    assert!(ended);
    assert_eq!(ready.backup_row("status, error", &backup), "complete|");
    assert!(seen.len() > 5, "within a table too: {seen:?}");
    let record = record(&ready, &backup);
    let dumped: u64 = database(&record, "big")["volumes"][0]["size"].as_u64().unwrap();
    let least = dumped as f64 / (6144.0 * 1024.0);
    assert!(began.elapsed().as_secs_f64() > least * 0.9, "{:?} for {least} s", began.elapsed());
}

#[test]
fn a_name_that_is_no_utf8_is_refused() {
    let ready =
        ready(Cluster::builder().initdb_option("-E").initdb_option("SQL_ASCII").initdb_option("--locale=C"));
    let sql = "DO $$ BEGIN EXECUTE format('ALTER DATABASE odd RENAME TO %I', convert_from('\\x67e9', 'SQL_ASCII')); END $$";
    ready.server.psql("CREATE DATABASE odd");
    ready.server.psql(sql);
    let error = try_dump(&ready, "").unwrap_err();
    assert!(
        error.message().contains("\"g\\xe9\" cannot be dumped") && error.to_string().contains("no UTF-8"),
        "{error}"
    );
    let backup = dump(&ready, ", skip_failed => true");
    let record = record(&ready, &backup);
    assert_eq!(names(&record["logical"]["missing"]), ["g\\xe9"]);
    assert_eq!(names(&record["logical"]["databases"]), ["postgres", "template1"]);
}

#[test]
fn what_pg_dump_warns_of_is_told() {
    let ready = ready(Cluster::builder());
    ready.server.psql("UPDATE pg_database SET datcollversion = 'of old' WHERE datname = 'template1'");
    let backup = dump(&ready, "");
    let warnings = record(&ready, &backup)["warnings"].to_string();
    assert!(warnings.contains("template1") && warnings.contains("collation version"), "{warnings}");
}

#[test]
fn a_killed_engine_leaves_no_pg_dump() {
    let ready = ready(Cluster::builder());
    ready.server.psql("CREATE DATABASE large");
    fill(&ready, "large", "t", 12);
    for _ in 0..3 {
        let backup = ready.server.psql("SET pg_ark.max_rate = 1024; SELECT ark.backup_start('logical')");
        wait_until("a dump", LONG, || !programs(&ready).is_empty());
        pg_ark_testkit::process::send_signal(ready.engine(), pg_ark_testkit::process::KILL);
        wait_until("the end of its programs", SHORT, || programs(&ready).is_empty());
        wait_until("the end", LONG, || ready.backup_row("status", &backup) == "failed");
        assert_quiet(&ready);
        ready.assert_failed(&backup, "signal 9");
    }
    let backup = ready.server.psql("SET pg_ark.max_rate = 1024; SELECT ark.backup_start('logical')");
    wait_until("a dump", LONG, || !programs(&ready).is_empty());
    assert_eq!(ready.server.psql(&format!("SELECT ark.backup_stop('{backup}')")), "t");
    wait_until("the end", LONG, || ready.backup_row("status", &backup) == "failed");
    assert_quiet(&ready);
    dump(&ready, "");
}

#[test]
fn another_database_of_the_same_name_is_not_taken_for_the_first() {
    let ready = ready(Cluster::builder().conf("pg_ark.jobs = 1"));
    ready.server.psql("CREATE DATABASE large");
    ready.server.psql("CREATE DATABASE small");
    fill(&ready, "large", "t", 8);
    let backup = ready.server.psql("SET pg_ark.max_rate = 4096; SELECT ark.backup_start('logical')");
    wait_until("the first dump", LONG, || !programs(&ready).is_empty());
    ready.server.psql("DROP DATABASE small");
    ready.server.psql("CREATE DATABASE small CONNECTION LIMIT 3");
    wait_until("the end", LONG, || ready.backup_row("status", &backup) != "running");
    ready.assert_failed(&backup, "another of its name was created");
}

#[test]
fn a_full_disk_is_no_fault_of_a_database() {
    let disk = Tmpfs::new(48 << 20);
    let ready = ready(Cluster::builder());
    ready.server.psql("CREATE DATABASE large");
    fill(&ready, "large", "t", 50);
    ready.server.psql(&format!("SELECT * FROM ark.enable('{}')", file_url(disk.path())));
    let start = format!(
        "SET pg_ark.compression = 'none'; SET pg_ark.volume_size = '8MB'; \
         SELECT ark.backup_start({LOGICAL}, skip_failed => true)"
    );
    let error = ready.server.try_psql(&start).unwrap_err();
    assert_eq!(error.sqlstate(), "53100", "{error}");
    assert_quiet(&ready);
    assert_eq!(ready.server.psql("SELECT status FROM ark.list_backups()"), "failed");
    let left: Vec<String> =
        names_below(disk.path()).into_iter().filter(|n| n.contains("/backups/")).collect();
    assert!(left.len() == 1 && left[0].ends_with("/backup.json"), "{left:?}");
}

#[test]
fn a_standby_is_dumped() {
    let primary = Cluster::start_new();
    primary.psql("CREATE EXTENSION pg_ark; CREATE TABLE t AS SELECT 1; CREATE UNLOGGED TABLE u AS SELECT 1");
    let standby = primary.create_standby(&[]);
    primary.wait_for_standby(&standby);
    let repo = Repo::new();
    standby.psql(&format!("SELECT * FROM ark.enable('{}')", repo.url()));
    let ready = Ready { server: standby, repo };
    let backup = dump(&ready, "");
    assert_eq!(record(&ready, &backup)["from_standby"], true);
    let list = listed(&ready, &ready.backup_folder(&backup).join("postgres.dump"));
    assert!(list.contains("TABLE DATA public t ") && list.contains("TABLE public u "), "{list}");
    let warnings = record(&ready, &backup)["warnings"].to_string();
    assert!(warnings.contains("1 unlogged tables and sequences"), "{warnings}");
}

#[test]
fn names_without_an_encoding_inside_a_database_are_no_obstacle() {
    let ready = ready(Cluster::builder());
    ready.server.psql("CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'");
    let sql = "DO $$ BEGIN EXECUTE format('CREATE TABLE %I AS SELECT 1 AS i', convert_from('\\x67e9', 'SQL_ASCII')); END $$";
    ready.server.psql_db("ascii", sql);
    let backup = dump(&ready, "");
    assert_eq!(database(&record(&ready, &backup), "ascii")["tables"], 1);
    listed(&ready, &ready.backup_folder(&backup).join("ascii.dump"));
}

#[test]
fn no_session_outlives_a_program_that_waits_for_a_lock() {
    let ready = ready(Cluster::builder());
    ready.server.psql("CREATE TABLE t AS SELECT 1; CREATE TABLE parts (i int) PARTITION BY RANGE (i)");
    // psql asks for the size of the one; the other has none, and pg_dump alone locks it.
    for (table, program) in [("t", "psql"), ("parts", "pg_dump")] {
        let mut lock = ready.server.session();
        lock.ask(&format!("BEGIN; LOCK TABLE {table}"));
        let backup = ready.server.psql("SELECT ark.backup_start('logical', databases => '{postgres}')");
        let (asked, of_its_own) =
            if table == "t" { ("jsonb_build_object", "'sizes'") } else { ("LOCK TABLE", "") };
        let waits = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{asked}%'"
        );
        wait_until("a wait for the lock", LONG, || ready.server.psql(&waits) == "1");
        let socket = ready.server.socket_dir().display().to_string();
        let children: Vec<u32> = pg_ark_testkit::process::all()
            .into_iter()
            .filter(|p| p.title.contains(&format!("bin/{program} ")) && p.title.contains(&socket))
            .filter(|p| p.title.contains("dbname='postgres'"))
            // Beside it another psql asks for what belongs to the globals.
            .filter(|p| p.title.contains(of_its_own))
            .map(|p| p.pid)
            .collect();
        assert!(!children.is_empty(), "{program}");
        for child in children {
            pg_ark_testkit::process::send_signal(child, pg_ark_testkit::process::KILL);
        }
        wait_until("the end", LONG, || ready.backup_row("status", &backup) == "failed");
        wait_until("the end of its session", SHORT, || ready.server.psql(&waits) == "0");
        ready.assert_failed(&backup, "could not dump database \"postgres\"");
        assert_quiet(&ready);
        lock.ask("ROLLBACK");
    }
}

#[test]
fn settings_of_the_role_decide_nothing() {
    let ready = ready(Cluster::builder());
    ready.server.psql("CREATE ROLE adm SUPERUSER LOGIN; CREATE ROLE reader IN ROLE pg_read_all_data");
    let ask = |sql: &str| match ready.server.query("postgres", "adm", sql) {
        Ok(answer) => answer.rows,
        Err(error) => panic!("{sql}: {error}"),
    };
    ask("CREATE TABLE t AS SELECT 1");
    for setting in [
        "statement_timeout = '1ms'",
        "idle_session_timeout = '1ms'",
        "role = 'reader'",
        "default_transaction_isolation = 'serializable'",
        "default_transaction_deferrable = on",
        "default_transaction_read_only = on",
    ] {
        ask(&format!("ALTER ROLE postgres SET {setting}"));
        ask(&format!("ALTER ROLE postgres IN DATABASE postgres SET {setting}"));
    }
    let folder = ready.backup_folder(&ask(&format!("SELECT ark.backup_start({LOGICAL})")));
    let list = listed(&ready, &folder.join("postgres.dump"));
    assert!(list.contains("TABLE DATA public t "), "{list}");
    let globals = run_ok(command("zstd").arg("-dc").arg(folder.join("globals.sql.zst")));
    assert!(globals.contains("CREATE ROLE reader"), "{globals}");
    ask("ALTER ROLE postgres RESET ALL; ALTER ROLE postgres IN DATABASE postgres RESET ALL");
}

#[test]
fn a_transaction_that_waits_for_what_it_holds_up_is_told() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    server.psql("CREATE TABLE t AS SELECT 1");
    let wait = "SELECT ark.backup_start('logical', wait => true)";
    // Another's wait is not ours, and statistics that the transaction has seen are old.
    let error = server
        .try_psql(&format!("BEGIN; SELECT count(*) FROM pg_stat_activity; LOCK TABLE t; {wait}; COMMIT"))
        .unwrap_err();
    assert_eq!(error.sqlstate(), "55000");
    assert!(error.message().contains("waits for a lock that this transaction holds"), "{error}");
    wait_until("the end", LONG, || server.psql("SELECT status FROM ark.list_backups()") == "complete");
    server.psql(&format!("BEGIN; LOCK TABLE t IN ACCESS SHARE MODE; {wait}; COMMIT"));
}
