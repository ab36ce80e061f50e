//! Who can see what, and whose code runs: roles without rights, roles that may read, and objects that lie in wait.

use crate::archiving::{archive_now, archiving};
use crate::support::{Ready, names_below, ready};
use pg_ark_testkit::{Builder, Cluster, LONG, SHORT, run, wait_until};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

const LIST: &str = "SELECT count(*) FROM ark.list_backups()";
const BACKUP: &str = "SELECT ark.backup_start(wait => true)";

/// What only reads.
fn reading(backup: &str) -> Vec<String> {
    [
        "SELECT * FROM ark.list_backups()",
        &format!("SELECT ark.show('{backup}')"),
        "SELECT * FROM ark.check()",
        "SELECT * FROM ark.verify_archive()",
        "SELECT * FROM ark.verify_archive(deep => true)",
        "SELECT * FROM ark.recovery_windows()",
        "SELECT * FROM ark.status",
        "SELECT * FROM ark.validate()",
        &format!("SELECT * FROM ark.validate('{backup}', 'pages')"),
        "SELECT * FROM ark.validate(level => 'record')",
    ]
    .map(String::from)
    .into()
}

/// What changes something.
fn changing(ready: &Ready, backup: &str) -> Vec<String> {
    let enable = format!("SELECT * FROM ark.enable('{}')", ready.repo.url());
    vec![enable, BACKUP.into(), format!("SELECT ark.backup_stop('{backup}')")]
}

/// SQLSTATE of a statement, or `ok`.
fn state(server: &Cluster, role: &str, sql: &str) -> String {
    match server.query("postgres", role, sql) {
        Ok(_) => "ok".into(),
        Err(error) => error.sqlstate().into(),
    }
}

/// Every file of a repository with its size and the time of its last change.
fn listing(repository: &Path) -> Vec<(String, u64, i64, i64)> {
    let names = names_below(repository).into_iter();
    let facts = names.map(|name| {
        let meta = repository.join(&name).metadata().expect("a file that stays");
        (name, meta.len(), meta.mtime(), meta.mtime_nsec())
    });
    facts.collect()
}

#[test]
fn who_may_read_can_do_nothing_else() {
    let ready = archiving(Cluster::builder().wal_segment_mb(1));
    let server = &ready.server;
    let backup = ready.take_backup();
    archive_now(&ready);
    server.psql("CREATE ROLE watcher LOGIN; GRANT pg_monitor TO watcher; CREATE ROLE plain LOGIN");
    // The archiver's engine writes it a moment later.
    wait_until("the index of the archive", LONG, || {
        names_below(ready.repo.path()).iter().any(|name| name.ends_with("/index.jsonl"))
    });
    let before = listing(ready.repo.path());
    for sql in reading(&backup) {
        assert_eq!(state(server, "watcher", &sql), "ok", "{sql}");
        assert_eq!(state(server, "plain", &sql), "42501", "{sql}");
    }
    for sql in changing(&ready, &backup) {
        assert_eq!(state(server, "watcher", &sql), "42501", "{sql}");
        assert_eq!(state(server, "plain", &sql), "42501", "{sql}");
    }
    assert_eq!(listing(ready.repo.path()), before);
    assert_eq!(server.psql("SELECT * FROM ark.validate(level => 'pages')"), "", "all is well");
}

/// Objects with the names of what pg_ark's functions call, all of which raise an error.
const TRAPS: &str = r#"
CREATE FUNCTION public.trap() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
CREATE FUNCTION public.current_setting(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
CREATE FUNCTION public.has_function_privilege(oid, text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
CREATE FUNCTION public.json_build_object(VARIADIC "any") RETURNS json LANGUAGE internal AS 'json_build_object_noargs';
CREATE FUNCTION public.row_to_json(record) RETURNS json LANGUAGE internal AS 'json_build_object_noargs';
CREATE FUNCTION public.pg_reload_conf() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
CREATE FUNCTION public.pg_stat_get_activity(int) RETURNS SETOF pg_stat_activity LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
CREATE FUNCTION public.pg_stat_clear_snapshot() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
CREATE FUNCTION public.pg_terminate_backend(int, bigint) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
CREATE FUNCTION public.minus(timestamptz, timestamptz) RETURNS interval LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
CREATE OPERATOR public.- (FUNCTION = public.minus, LEFTARG = timestamptz, RIGHTARG = timestamptz);
CREATE FUNCTION public.equal(text, text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
CREATE OPERATOR public.= (FUNCTION = public.equal, LEFTARG = text, RIGHTARG = text);
CREATE FUNCTION public.same(name, name) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
CREATE OPERATOR public.= (FUNCTION = public.same, LEFTARG = name, RIGHTARG = name);
"#;

/// The same in the session's own schema, and a path that looks there first.
const LOCAL_TRAPS: &str = r#"
SET client_min_messages = error;
CREATE TEMP TABLE pg_extension (extname int); CREATE TEMP TABLE pg_proc (proname int);
CREATE TEMP TABLE pg_stat_archiver (x int); CREATE TEMP TABLE pg_replication_slots (x int);
CREATE TEMP TABLE pg_database (x int); CREATE TEMP TABLE pg_settings (x int);
SET search_path = pg_temp, public, pg_catalog;
"#;

#[test]
fn nothing_that_lies_in_wait_is_called() {
    let ready = archiving(Cluster::builder().wal_segment_mb(1));
    let server = &ready.server;
    let backup = ready.take_backup();
    archive_now(&ready);
    // Of the owner's making, so that sessions and workers of superusers meet them.
    server.psql("CREATE ROLE mallory LOGIN; GRANT CREATE ON SCHEMA public TO mallory");
    let traps: String = TRAPS.lines().filter(|line| !line.contains("LANGUAGE internal")).collect();
    server.query("postgres", "mallory", &traps).unwrap_or_else(|error| panic!("{error}"));
    server.psql(&TRAPS.lines().filter(|line| line.contains("LANGUAGE internal")).collect::<String>());
    server.psql("ALTER DATABASE postgres SET search_path = public, pg_catalog");
    let trapped = server.try_psql(&format!("{LOCAL_TRAPS} SELECT clock_timestamp()")).expect_err("a trap");
    assert!(trapped.message().contains("trapped"), "{trapped}");
    for sql in reading(&backup).iter().chain(&changing(&ready, &backup)) {
        let answer = server.try_psql(&format!("{LOCAL_TRAPS} {sql}"));
        answer.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    let running = server.psql("SET pg_ark.max_rate = 64; SELECT ark.backup_start()");
    let stop = format!("{LOCAL_TRAPS} SELECT ark.backup_stop('{running}')");
    assert_eq!(server.psql(&stop), "t");
}

#[test]
fn every_function_is_fixed_and_few_have_their_owners_rights() {
    let ready = ready(Cluster::builder());
    let of_ark = "FROM pg_proc WHERE pronamespace = 'ark'::regnamespace";
    let count: u32 = ready.server.psql(&format!("SELECT count(*) {of_ark}")).parse().expect("a number");
    assert!(count >= 10, "{count} functions");
    let loose = format!(
        "SELECT proname {of_ark} AND proconfig IS DISTINCT FROM ARRAY['search_path=pg_catalog, pg_temp']"
    );
    assert_eq!(ready.server.psql(&loose), "");
    // A worker's process belongs to the bootstrap superuser (src/api/backup.rs), the table of jobs to the extension's
    // owner alone (src/api/schedule.rs).
    let owners = format!("SELECT proname {of_ark} AND prosecdef ORDER BY 1");
    assert_eq!(ready.server.psql(&owners), "backup_stop\nschedule\nunschedule");
    let granted = "SELECT DISTINCT grantee::regrole::text FROM pg_proc, aclexplode(proacl) \
                   WHERE pronamespace = 'ark'::regnamespace ORDER BY 1";
    assert_eq!(ready.server.psql(granted), "pg_monitor\npostgres");
}

#[test]
fn a_schema_that_somebody_else_made_is_refused() {
    let server = Cluster::start_new();
    server.psql("CREATE ROLE mallory LOGIN; GRANT CREATE ON DATABASE postgres TO mallory");
    let trap = "CREATE SCHEMA ark; GRANT ALL ON SCHEMA ark TO PUBLIC; CREATE FUNCTION ark.backup_start() RETURNS \
                text LANGUAGE sql AS $$ ALTER ROLE mallory SUPERUSER; SELECT 'done' $$";
    server.query("postgres", "mallory", trap).unwrap_or_else(|error| panic!("{error}"));
    let refused = |part: &str| {
        let error = server.try_psql("CREATE EXTENSION pg_ark").expect_err("a foreign schema");
        assert_eq!(error.sqlstate(), "42501", "{error}");
        assert!(error.error.detail.contains(part) && error.hint().contains("drop it"), "{error}");
    };
    refused("mallory");
    // Whoever it belongs to: what is in it would be called.
    server.psql("ALTER SCHEMA ark OWNER TO postgres");
    refused("backup_start()");
    server.psql("DROP SCHEMA ark CASCADE; CREATE SCHEMA ark; GRANT CREATE ON SCHEMA ark TO mallory");
    refused("lets mallory create in it");
    server.psql("REVOKE CREATE ON SCHEMA ark FROM mallory; GRANT CREATE ON SCHEMA ark TO PUBLIC");
    refused("lets PUBLIC create in it");
    server.psql("REVOKE CREATE ON SCHEMA ark FROM PUBLIC");
    for (what, object) in [
        ("DOMAIN ark.text AS int", "type ark.text"),
        ("VIEW ark.trap AS SELECT 1", "view trap"),
        ("OPERATOR ark.= (FUNCTION = pg_catalog.texteq, LEFTARG = text, RIGHTARG = text)", "operator ark.="),
    ] {
        server.psql(&format!("CREATE {what}"));
        refused(object);
        let dropped = what
            .split(" AS ")
            .next()
            .unwrap_or(what)
            .replace(" (FUNCTION = pg_catalog.texteq, LEFTARG = text, RIGHTARG = text)", " (text, text)");
        server.psql(&format!("DROP {dropped}"));
    }
    server.psql("DROP SCHEMA ark; CREATE SCHEMA ark; CREATE EXTENSION pg_ark");
}

/// Whether a role that has no rights sees where backups go, in a session that used nothing yet.
fn shows(server: &Cluster) -> Vec<String> {
    let sql = [
        "SHOW pg_ark.repository",
        "SELECT current_setting('pg_ark.repository', true)",
        "SELECT setting FROM pg_settings WHERE name = 'pg_ark.repository'",
        "SELECT setting FROM pg_file_settings WHERE name = 'pg_ark.repository'",
        "SELECT setting FROM pg_show_all_settings() WHERE name = 'pg_ark.repository'",
        "SHOW pg_ark.engine_path",
    ];
    let visible = |sql: &&str| match server.query("postgres", "plain", sql) {
        Ok(answer) => answer.rows.contains("file://") || answer.rows.starts_with('/'),
        Err(error) => {
            assert_eq!(error.sqlstate(), "42501", "{sql}: {error}");
            false
        }
    };
    sql.iter().filter(|sql| visible(sql)).map(|sql| (*sql).to_string()).collect()
}

fn secrecy(server: &Cluster) -> String {
    server.psql("SELECT status, hint FROM ark.check() WHERE item = 'shared_preload_libraries'")
}

#[test]
fn where_backups_go_is_secret_once_the_server_loads_the_library() {
    let engine_path = |builder: Builder| {
        let pgark = crate::support::pgark_of(&pg_ark_testkit::Pg::find());
        builder.conf(&format!("pg_ark.engine_path = '{}'", pgark.display()))
    };
    let ready = ready(engine_path(Cluster::builder()));
    let server = &ready.server;
    server.psql("CREATE ROLE plain LOGIN; CREATE ROLE watcher LOGIN; GRANT pg_monitor TO watcher");
    let advice = format!(
        "SELECT status FROM ark.enable('{}') WHERE item = 'shared_preload_libraries'",
        ready.repo.url()
    );
    // PostgreSQL takes a setting of a library that it does not know yet for nobody's: then we say so.
    assert!(!shows(server).is_empty());
    assert!(secrecy(server).starts_with("warning|ALTER SYSTEM SET shared_preload_libraries = pg_ark,"));
    assert_eq!(server.psql(&advice), "advised");
    server.configure(&["session_preload_libraries = '$libdir/pg_ark'"]);
    server.reload();
    wait_until("the new setting", SHORT, || secrecy(server) == "ok|");
    assert_eq!(shows(server), Vec::<String>::new());
    server.configure(&["session_preload_libraries = ''"]);
    server.reload();
    wait_until("the old setting", SHORT, || secrecy(server).starts_with("warning"));
    // What the hint says, word by word.
    let hint = secrecy(server);
    let statement = hint.trim_start_matches("warning|").split(", then").next().expect("a statement");
    server.psql(statement);
    server.restart();
    assert_eq!(shows(server), Vec::<String>::new());
    assert_eq!((secrecy(server), server.psql(&advice)), ("ok|".into(), String::new()));
    let watched =
        server.query("postgres", "watcher", "SHOW pg_ark.repository").expect("pg_monitor reads settings");
    assert_eq!(watched.rows, ready.repo.url());
    for sql in ["SET pg_ark.repository = 'file:///tmp'", "SET pg_ark.engine_path = '/tmp/x'"] {
        assert_eq!(state(server, "postgres", sql), "55P02", "{sql}");
    }
    assert_eq!(state(server, "plain", "SET pg_ark.compression = 'none'"), "42501");
    server.psql("ALTER SYSTEM SET pg_ark.compression = 'zstd:2'");
    ready.assert_works();
}

/// A program that leaves a trace when it runs.
fn evil_engine(server: &Cluster) -> (PathBuf, PathBuf) {
    let (program, trace) = (server.base().join("evil"), server.base().join("trace"));
    fs::write(&program, format!("#!/bin/sh\necho x >> {}\n", trace.display())).expect("a script");
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("its mode");
    (program, trace)
}

#[test]
fn what_a_role_sets_before_the_library_is_loaded_does_not_act() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    let (evil, trace) = evil_engine(server);
    server.psql(
        "CREATE ROLE operator LOGIN; GRANT USAGE ON SCHEMA ark TO operator;
         GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA ark TO operator",
    );
    let evil = evil.display().to_string();
    let elsewhere = format!("file://{}/elsewhere", server.base().display());
    let of_the_server =
        [("pg_ark.engine_path", &evil[..]), ("pg_ark.repository", &elsewhere), ("pg_ark.cluster", "other")];
    for (name, value) in of_the_server {
        for call in [LIST, BACKUP, "SELECT * FROM ark.validate()", "SELECT * FROM ark.check()"] {
            let set = format!("SET {name} = '{value}'; {call}");
            // Refused, or what the configuration says.
            if let Ok(answer) = server.query("postgres", "operator", &set) {
                assert!(!answer.rows.contains(value), "{set}: {}", answer.rows);
            }
            let options = format!("-c {name}={value}");
            let mut psql = server.client("psql");
            psql.env("PGOPTIONS", &options).args(["-XAtq", "-U", "operator", "-d", "postgres", "-c", call]);
            let output = run(&mut psql);
            assert!(!output.stdout.contains(value), "{options}: {output}");
        }
    }
    assert!(!trace.exists(), "an engine of a role's choice ran");
    assert!(!server.base().join("elsewhere").exists() && !ready.repo.path().join("other").exists());
    // Choices of a backup: a superuser may make them, others not.
    let compression = |backup: &str| server.psql(&format!("SELECT ark.show('{backup}') ->> 'compression'"));
    let usual = compression(&ready.take_backup());
    let set = format!("SET pg_ark.compression = 'none'; {BACKUP}");
    let of_operator = server.query("postgres", "operator", &set).expect("a backup").rows;
    assert_eq!(compression(&of_operator), usual);
    assert_ne!(compression(&server.psql(&set)), usual, "as a superuser it acts");
}

#[test]
fn a_repository_that_others_may_change_is_told() {
    let ready = ready(Cluster::builder());
    let check = "SELECT status, detail, hint FROM ark.check() WHERE item = 'repository access'";
    assert_eq!(ready.server.psql(check), "ok|only its owner may change it|");
    fs::set_permissions(ready.repo.path(), PermissionsExt::from_mode(0o777)).expect("its mode");
    let told = ready.server.psql(check);
    assert!(told.starts_with("warning|") && told.contains("0777") && told.contains("chmod"), "{told}");
}

#[test]
fn an_engine_that_everybody_may_change_is_not_run() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    let (evil, trace) = evil_engine(server);
    fs::set_permissions(&evil, PermissionsExt::from_mode(0o757)).expect("its mode");
    server.configure(&[&format!("pg_ark.engine_path = '{}'", evil.display())]);
    server.reload();
    let error = || server.try_psql(LIST).expect_err("another engine");
    wait_until("the new setting", SHORT, || server.try_psql(LIST).is_err());
    assert!(error().sqlstate() == "58P01" && error().error.detail.contains("everybody"), "{}", error());
    assert!(!trace.exists());
    // It is what it says.
    fs::set_permissions(&evil, PermissionsExt::from_mode(0o755)).expect("its mode");
    error();
    assert!(trace.exists());
}

#[test]
fn a_preloaded_library_stays_until_the_server_is_restarted() {
    let preloaded = Cluster::builder().wal_segment_mb(1).conf("shared_preload_libraries = 'pg_ark'");
    let ready = archiving(preloaded);
    let server = &ready.server;
    ready.take_backup();
    archive_now(&ready);
    let archiver = || server.pids("archiver");
    let before = archiver();
    // An engine of another version, as after an upgrade.
    let newer = server.base().join("newer");
    let script = "#!/bin/sh\necho '{\"hello\":{\"version\":\"99.0.0\"}}'\nread -r job\n";
    fs::write(&newer, script).expect("a script");
    fs::set_permissions(&newer, PermissionsExt::from_mode(0o755)).expect("its mode");
    server.configure(&[&format!("pg_ark.engine_path = '{}'", newer.display())]);
    server.reload();
    wait_until("the new setting", SHORT, || server.psql("SHOW pg_ark.engine_path").ends_with("newer"));
    let error = server.try_psql(LIST).expect_err("another version");
    assert_eq!(error.sqlstate(), "55000", "{error}");
    assert!(error.hint().contains("Restart the server"), "{error}");
    let waiting = crate::archiving::switch_wal(server);
    let told = || server.log().contains(&format!("could not archive \"{waiting}\""));
    wait_until("a warning", LONG, told);
    assert_eq!(archiver(), before, "another archiver would have the same library");
    assert!(!server.log().contains("the archiver ends"));
    server.configure(&["pg_ark.engine_path = ''"]);
    server.reload();
    crate::archiving::wait_archived(&ready, &waiting);
}
