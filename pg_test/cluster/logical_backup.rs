//! Logical backups as SQL sees them: what they take, what they refuse, and that nothing of one that is stopped or killed is
//! left, in the server, in the repository or among the processes.

use crate::support::{Ready, enabled, ready};
use pg_ark_testkit::process::{INTERRUPT, KILL, QUIT, Signal, descendants, is_alive, is_reaped, send_signal};
use pg_ark_testkit::{
    Builder, Cluster, LONG, Repo, SHORT, Scratch, Session, Tmpfs, file_url, holds_promptly, wait_until,
};
use std::fs;
use std::time::{Duration, Instant};

/// Sessions of pg_dump and its kin in the server.
const SESSIONS: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pg_ark%' AND backend_type = 'client backend'";

/// A server with the databases `app` and `shop`.
fn server(builder: Builder) -> Ready {
    let ready = ready(builder);
    for database in ["app", "shop"] {
        ready.server.psql(&format!("CREATE DATABASE {database}"));
        let tables = "CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i; \
                      CREATE TABLE parts (i int) PARTITION BY RANGE (i)";
        ready.server.psql_db(database, tables);
    }
    ready
}

#[track_caller]
fn take(ready: &Ready, arguments: &str) -> String {
    ready
        .try_backup(&format!("kind => 'logical', wait => true{arguments}"))
        .unwrap_or_else(|error| panic!("the backup failed: {error}"))
}

/// A backup whose dump of `app` waits for a lock that a session holds.
struct Held {
    backup: String,
    worker: u32,
    engine: u32,
    /// What the engine has started.
    children: Vec<u32>,
    lock: Session,
}

/// pg_dump locks partitioned tables, while the questions before it look at those alone that hold data.
const OF_DUMP: &str = "parts";
const OF_QUESTION: &str = "t";

#[track_caller]
fn held(ready: &Ready, table: &str) -> Held {
    let mut lock = ready.server.session_as("app", "postgres");
    lock.ask(&format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"));
    let backup = ready.server.psql("SELECT ark.backup_start('logical')");
    let waits = format!("{SESSIONS} AND wait_event_type = 'Lock' AND datname = 'app'");
    wait_until("a program that waits for a lock", LONG, || ready.server.psql(&waits) == "1");
    let engine = ready.engine();
    let program = if table == OF_DUMP { "pg_dump " } else { "psql " };
    let waiting = || -> Vec<u32> {
        let children = descendants(engine).into_iter();
        children.filter(|child| child.title.contains(program)).map(|child| child.pid).collect()
    };
    let done = "SELECT tablespaces_streamed FROM pg_stat_progress_basebackup";
    wait_until("the end of the other dumps", LONG, || {
        ready.server.psql(done) == "3" && descendants(engine).len() == 1 && waiting().len() == 1
    });
    Held { backup, worker: ready.worker(), engine, children: waiting(), lock }
}

impl Held {
    /// Fails unless the engine and all that it started end in time.
    #[track_caller]
    fn ends_promptly(&self) {
        let all = || self.children.iter().chain([&self.engine]).copied();
        let gone = holds_promptly(1, || !all().any(is_alive));
        assert!(gone, "alive: {:?}", all().filter(|pid| is_alive(*pid)).collect::<Vec<_>>());
    }

    /// Fails unless nothing of the backup is left, its lock's session aside, and another one can be taken.
    #[track_caller]
    fn leaves_nothing(self, ready: &Ready, reason: &str) {
        let server = &ready.server;
        wait_until("the end of the dump's session", SHORT, || server.psql(SESSIONS) == "0");
        ready.assert_failed(&self.backup, reason);
        drop(self.lock);
        let next = take(ready, "");
        assert_eq!(ready.backup_row("status, error", &next), "complete|");
        ready.assert_nothing_left_behind();
        assert_eq!(server.psql(SESSIONS), "0");
    }
}

#[test]
fn a_logical_backup_says_what_it_contains() {
    // None of this is needed by a dump.
    let least = ["wal_level = 'minimal'", "max_wal_senders = 0", "max_replication_slots = 0"];
    let ready = server(least.iter().fold(Cluster::builder(), |builder, line| builder.conf(line)));
    let server = &ready.server;
    server.psql("CREATE DATABASE \"Größe \"\"x\"\"\"");
    let mut listener = server.session();
    listener.ask("LISTEN pg_ark");
    let backup = take(&ready, ", label => 'before the move'");
    assert!(backup.ends_with("-logical"), "{backup}");
    let columns =
        "kind, status, label, contents, wal_included, damaged_pages, start_lsn, stop_lsn, parent, error";
    assert_eq!(
        ready.backup_row(columns, &backup),
        "logical|complete|before the move|5 databases: Größe \"x\", app, postgres, shop, template1|f|0||||"
    );
    let sizes = "data_bytes > stored_bytes AND stored_bytes > 1000";
    assert_eq!(ready.backup_row(sizes, &backup), "t");
    let shown = format!("SELECT ark.show('{backup}') #>> '{{logical,initdb,username}}'");
    assert_eq!(server.psql(&shown), "postgres");
    let told = format!("backup {backup} is complete: ");
    let contents = "; 5 databases: Größe \"x\", app, postgres, shop, template1";
    let line = server.log().lines().find(|line| line.contains(&told)).map(str::to_string);
    assert!(line.as_ref().is_some_and(|line| line.ends_with(contents)), "{line:?}");
    listener.ask("SELECT 1");
    let heard = listener.rows_so_far();
    assert!(heard.contains("\"event\":\"finished\"") && heard.contains("5 databases"), "{heard}");
    ready.assert_nothing_left_behind();
    ready.assert_no_lease();
}

#[test]
fn a_logical_backup_is_no_protection() {
    let ready = server(Cluster::builder());
    let server = &ready.server;
    let backup = take(&ready, "");
    let row = "SELECT last_backup, last_backup_age, last_clean_backup, recovery_window_from, rpo_bytes, healthy, \
               backups, last_logical_backup, last_logical_backup_at > now() - interval '1 hour' FROM ark.status";
    assert_eq!(server.psql(row), format!("|||||f|1|{backup}|t"));
    let health = server.psql("SELECT health FROM ark.status");
    assert!(health.contains("no complete backup but logical ones"), "{health}");
    let metrics = "SELECT name FROM ark.metrics WHERE name LIKE 'pg_ark_last_%backup%' OR name LIKE '%window_%' ORDER BY 1";
    assert_eq!(
        server.psql(metrics),
        "pg_ark_last_logical_backup_timestamp_seconds\npg_ark_recovery_window_gap\npg_ark_retention_window_seconds"
    );
    assert_eq!(server.psql("SELECT count(*) FROM ark.recovery_windows()"), "0");
    let full = ready.take_backup();
    let last = "SELECT last_backup, last_clean_backup, last_logical_backup FROM ark.status";
    assert_eq!(server.psql(last), format!("{full}|{full}|{backup}"));
    // The newest of all is again a logical one.
    let later = take(&ready, "");
    assert_eq!(server.psql(last), format!("{full}|{full}|{later}"));
}

#[test]
fn databases_are_named_or_excluded() {
    let ready = server(Cluster::builder());
    for (arguments, contents) in [
        (", databases => '{shop,app,shop}'", "2 databases: app, shop"),
        (", exclude_databases => '{app,postgres,template1}'", "1 database: shop"),
        (", databases => '{app,shop}', exclude_databases => '{template1}'", "2 databases: app, shop"),
    ] {
        let backup = take(&ready, arguments);
        assert_eq!(ready.backup_row("contents", &backup), contents, "{arguments}");
    }
    let nothing = ", exclude_databases => '{app,shop,postgres,template1}'";
    let error = ready.try_backup(&format!("'logical', wait => true{nothing}")).unwrap_err();
    assert_eq!(error.sqlstate(), "22023", "{error}");
    assert!(!error.hint().is_empty(), "{error}");
    ready.assert_nothing_left_behind();
}

#[test]
fn a_database_that_refuses_connections_is_named() {
    let ready = server(Cluster::builder());
    let server = &ready.server;
    server.psql("ALTER DATABASE shop ALLOW_CONNECTIONS false");
    let error = ready.try_backup("'logical', wait => true").unwrap_err();
    assert_eq!(error.sqlstate(), "58000", "{error}");
    assert!(error.message().contains("\"shop\"") && !error.message().contains("\"app\""), "{error}");
    for word in ["exclude_databases", "skip_failed"] {
        assert!(error.hint().contains(word), "{error}");
    }
    let complete = "SELECT count(*) FROM ark.list_backups() WHERE status <> 'failed'";
    assert_eq!(server.psql(complete), "0");
    let backup = take(&ready, ", exclude_databases => '{shop}'");
    assert_eq!(ready.backup_row("contents", &backup), "3 databases: app, postgres, template1");

    let go_on = "SELECT ark.backup_start('logical', wait => true, skip_failed => true)";
    let answer = server.query("postgres", "postgres", go_on).expect("a backup without shop");
    let warned =
        answer.messages.iter().any(|told| told.severity == "WARNING" && told.message.contains("\"shop\""));
    assert!(warned, "{answer:?}");
    let contents = "3 databases: app, postgres, template1; without shop";
    assert_eq!(ready.backup_row("contents", &answer.rows), contents);
    let named = format!("SELECT ark.show('{}') #>> '{{logical,missing,0,name}}'", answer.rows);
    assert_eq!(server.psql(&named), "shop");
}

#[test]
fn a_database_whose_dump_fails_is_named() {
    let ready = server(Cluster::builder());
    let server = &ready.server;
    server.psql("CHECKPOINT");
    let file = server.psql_db("shop", "SELECT pg_relation_filepath('t')");
    fs::remove_file(server.data().join(file)).expect("a table's file");
    let error = ready.try_backup("'logical', wait => true").unwrap_err();
    assert_eq!(error.sqlstate(), "58000", "{error}");
    assert!(error.message().contains("\"shop\"") && error.stderr.contains("could not open file"), "{error}");
    let row = server.psql("SELECT status, error FROM ark.list_backups()");
    assert!(row.starts_with("failed|") && row.contains("shop"), "{row}");
    ready.assert_nothing_left_behind();
    let last = server.psql("SELECT last_error FROM ark.status");
    assert!(last.contains("shop"), "{last}");
    let backup = take(&ready, ", skip_failed => true");
    let contents = "3 databases: app, postgres, template1; without shop";
    assert_eq!(ready.backup_row("contents", &backup), contents);
    assert_eq!(server.psql("SELECT last_error FROM ark.status"), "");
}

#[test]
fn a_role_that_may_start_backups_may_dump() {
    let ready = server(Cluster::builder());
    let server = &ready.server;
    server.psql(
        "CREATE ROLE operator LOGIN; GRANT USAGE ON SCHEMA ark TO operator; \
         GRANT EXECUTE ON FUNCTION ark.backup_start TO operator",
    );
    let start = "SELECT ark.backup_start('logical', wait => true, databases => '{app}')";
    // What its sessions are set to does not reach the dumps.
    server.psql("ALTER ROLE postgres SET search_path = pg_temp; ALTER ROLE postgres SET lock_timeout = 1");
    let backup = server.query("postgres", "operator", start).expect("a backup").rows;
    assert_eq!(ready.backup_row("contents", &backup), "1 database: app");
}

#[test]
fn every_way_to_stop_it_stops_the_dumps() {
    let ready = server(Cluster::builder());
    let server = &ready.server;
    let stopped = "stopped by ark.backup_stop, pg_terminate_backend or server shutdown";
    for (call, reason, held) in [
        ("ark.backup_stop('{backup}')", stopped),
        ("pg_terminate_backend({worker})", stopped),
        ("pg_cancel_backend({worker})", "cancelled by pg_cancel_backend"),
    ]
    .into_iter()
    .flat_map(|case| [(case, OF_DUMP), (case, OF_QUESTION)])
    .map(|((call, reason), table)| (call, reason, held(&ready, table)))
    {
        let call = call.replace("{backup}", &held.backup).replace("{worker}", &held.worker.to_string());
        let mut session = server.session();
        session.ask("SELECT count(*) FROM ark.list_backups()");
        session.send(&format!("SELECT {call}"));
        held.ends_promptly();
        assert_eq!(session.wait().expect(&call).rows.lines().last(), Some("t"), "{call}");
        held.leaves_nothing(&ready, reason);
    }
}

#[test]
fn a_killed_engine_takes_its_dumps_along() {
    let ready = server(Cluster::builder());
    for _ in 0..3 {
        let held = held(&ready, OF_DUMP);
        send_signal(held.engine, KILL);
        held.ends_promptly();
        held.leaves_nothing(&ready, "signal 9");
    }
    assert!(!ready.server.log().contains("terminating any other active server processes"));
}

#[test]
fn a_killed_dump_fails_the_backup_and_names_its_database() {
    let ready = server(Cluster::builder());
    let held = held(&ready, OF_DUMP);
    held.children.iter().for_each(|dump| assert!(send_signal(*dump, KILL)));
    held.leaves_nothing(&ready, "\"app\"");
}

#[test]
fn a_killed_worker_takes_the_dumps_along() {
    let ready = server(Cluster::builder());
    let held = held(&ready, OF_DUMP);
    // The server restarts every session then, as after any crash.
    send_signal(held.worker, KILL);
    held.ends_promptly();
    wait_until("the server's recovery", LONG, || ready.server.try_psql("SELECT 1").is_ok());
    held.leaves_nothing(&ready, "went away");
}

#[test]
fn the_end_of_the_server_is_the_end_of_its_dumps() {
    let ready = server(Cluster::builder());
    // Whichever is noticed first, the end of the worker or that of pg_dump's session.
    let cases: [(Signal, &str); 3] = [(INTERRUPT, "server shutdown"), (QUIT, ""), (KILL, "")];
    for (signal, reason) in cases {
        let held = held(&ready, OF_DUMP);
        let postmaster = ready.server.pid().expect("a server");
        send_signal(postmaster, signal);
        held.ends_promptly();
        wait_until("the end of the server", SHORT, || is_reaped(postmaster) && !is_alive(held.worker));
        ready.server.start();
        held.leaves_nothing(&ready, reason);
    }
}

#[test]
fn one_backup_at_a_time() {
    let ready = server(Cluster::builder());
    let held = held(&ready, OF_DUMP);
    for kind in ["logical", "full"] {
        let error = ready.try_backup(&format!("'{kind}', wait => true")).unwrap_err();
        assert_eq!(error.sqlstate(), "55006", "{error}");
        assert!(error.message().contains(&held.backup), "{error}");
    }
    let row = "SELECT phase, tablespaces_total, backup_total > 0 FROM pg_stat_progress_basebackup";
    let shown = ready.server.psql(row);
    assert_eq!(shown, "streaming database files|4|t", "a database counts as one");
    drop(held.lock);
    let status = || ready.backup_row("status", &held.backup);
    wait_until("the end of the backup", LONG, || status() != "running");
    assert_eq!(ready.backup_row("status, error", &held.backup), "complete|");
    ready.assert_nothing_left_behind();
    ready.assert_no_lease();
}

#[test]
fn dumps_are_taken_by_schedule() {
    let ready = server(Cluster::builder().conf("shared_preload_libraries = 'pg_ark'"));
    let server = &ready.server;
    server.psql("ALTER DATABASE shop ALLOW_CONNECTIONS false");
    server.psql(
        "SELECT ark.schedule('dumps', '@daily', 'logical', label => 'nightly', exclude_databases => '{template1}', \
         skip_failed => true)",
    );
    let check = "SELECT status, detail FROM ark.check() WHERE item = 'jobs'";
    assert_eq!(
        server.psql(check),
        "warning|the scheduled jobs take logical backups alone, which restore no moment after them"
    );
    let logical = "SELECT status, detail, hint FROM ark.check() WHERE item = 'logical backups'";
    let row = server.psql(logical);
    assert!(row.starts_with("ok|pg_dump (PostgreSQL) ") && row.contains("as role \"postgres\""), "{row}");
    server
        .psql("SELECT ark.schedule('closed', '@daily', 'logical', databases => '{shop}', enabled => false)");
    let closed = "SELECT status, detail FROM ark.check() WHERE item LIKE 'databases of job%'";
    assert_eq!(server.psql(closed), "");
    server.psql("SELECT ark.schedule('closed', '@daily', 'logical', databases => '{shop}')");
    let row = server.psql(closed);
    assert!(row.starts_with("error|") && row.contains("\"shop\""), "{row}");
    server.psql("SELECT ark.unschedule('closed')");
    // Only a physical first backup is taken at once.
    assert_eq!(server.psql("SELECT next_run > now() FROM ark.jobs"), "t");
    server.psql("UPDATE ark.job SET since = now() - interval '2 days'; SELECT pg_reload_conf()");
    wait_until("the run", LONG, || server.psql("SELECT last_status FROM ark.jobs") == "done");
    let backup = server.psql("SELECT backup FROM ark.list_backups()");
    assert_eq!(ready.backup_row("kind, label, status", &backup), "logical|nightly|complete");
    let result = server.psql("SELECT last_result FROM ark.jobs");
    assert!(result.starts_with(&format!("backup {backup} is complete: ")), "{result}");
    assert!(result.ends_with("stored; 2 databases: app, postgres; without shop"), "{result}");
}

#[test]
fn a_standby_is_dumped() {
    let primary = Cluster::start_new();
    primary.psql("CREATE EXTENSION pg_ark; CREATE DATABASE app");
    primary.psql_db("app", "CREATE TABLE t AS SELECT 1 AS i");
    let standby = primary.create_standby(&[]);
    primary.wait_for_standby(&standby);
    let repo = Repo::new();
    standby.psql(&format!("SELECT * FROM ark.enable('{}')", repo.url()));
    let ready = Ready { server: standby, repo };
    let backup = take(&ready, "");
    assert_eq!(
        ready.backup_row("status, contents", &backup),
        "complete|3 databases: app, postgres, template1"
    );
    let from = ready.server.psql(&format!("SELECT ark.show('{backup}') ->> 'from_standby'"));
    assert_eq!(from, "true");
}

/// Puts these lines in place of pg_hba.conf.
fn let_in(server: &Cluster, lines: &str) {
    fs::write(server.data().join("pg_hba.conf"), format!("{lines}\n")).expect("pg_hba.conf");
    server.reload();
}

#[test]
fn a_server_that_lets_nobody_in_says_what_is_missing() {
    let ready = server(Cluster::builder());
    let server = &ready.server;
    server.psql("SET password_encryption = 'scram-sha-256'; ALTER ROLE postgres PASSWORD 'secret'");
    for (lines, cause) in [
        ("local all all reject", "pg_hba.conf rejects connection"),
        ("local all all scram-sha-256", "no password supplied"),
        ("local app all trust", "no pg_hba.conf entry"),
    ] {
        // A session that is there already stays.
        let mut session = server.session();
        session.ask("SELECT 1");
        let_in(server, lines);
        session.send("SELECT ark.backup_start('logical', wait => true)");
        let error = session.wait().expect_err(lines);
        let_in(server, "local all all trust\nlocal replication all trust");
        assert_eq!(error.sqlstate(), "55000", "{error}");
        assert!(error.stderr.contains(cause), "\"{cause}\" expected: {error}");
        for part in ["local all postgres peer", "pg_hba.conf", ".pgpass"] {
            assert!(error.hint().contains(part), "\"{part}\" expected: {error}");
        }
        ready.assert_nothing_left_behind();
        ready.assert_no_lease();
        assert_eq!(server.psql("SELECT count(*) FROM ark.list_backups() WHERE status <> 'failed'"), "0");
    }
    take(&ready, "");
}

#[test]
fn a_server_without_sockets_says_so() {
    let ready = server(Cluster::builder());
    let server = &ready.server;
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let port = port.expect("a free port").port();
    let sockets = format!("unix_socket_directories = '{}'", server.socket_dir().display());
    let tcp = [format!("port = {port}"), "listen_addresses = '127.0.0.1'".into()];
    server.configure(&["unix_socket_directories = ''", &tcp[0], &tcp[1]]);
    fs::write(server.data().join("pg_hba.conf"), "host all all 127.0.0.1/32 trust\n").expect("pg_hba.conf");
    server.restart();
    let mut psql = server.client("psql");
    psql.env("PGHOST", "127.0.0.1").env("PGPORT", port.to_string());
    psql.args(["-XAt", "-d", "postgres", "-c", "SELECT ark.backup_start('logical', wait => true)"]);
    let output = pg_ark_testkit::run(&mut psql);
    assert!(!output.success(), "{output}");
    assert!(output.stderr.contains("no Unix socket"), "{output}");
    assert!(output.stderr.contains("HINT") && output.stderr.contains("unix_socket_directories"), "{output}");
    // Behind one that cannot be used comes one that can: the first is the one that counts.
    server.configure(&[&sockets, "port = 5432", "listen_addresses = ''"]);
    let_in_stopped(server);
    server.restart();
    take(&ready, "");
}

fn let_in_stopped(server: &Cluster) {
    fs::write(server.data().join("pg_hba.conf"), "local all all trust\n").expect("pg_hba.conf");
}

#[test]
fn folders_of_sockets_are_read_as_the_server_reads_them() {
    let ready = server(Cluster::builder());
    let server = &ready.server;
    let plain = server.socket_dir().display().to_string();
    let odd = Scratch::new("s");
    let quoted = |name: &str| format!("\"{}\"", odd.folder(name).display().to_string().replace('"', "\"\""));
    for folders in [
        format!(" {} , {plain}", quoted("a \"b\" 'c'").replace('\'', "''")),
        // Which no client can name.
        format!("{},{plain}", quoted("a, b")),
        // In the data directory.
        format!(".,{plain}"),
    ] {
        server.configure(&[&format!("unix_socket_directories = '{folders}'")]);
        server.restart();
        take(&ready, ", databases => '{app}'");
    }
}

/// A table that does not compress, in database `app`.
fn fill(ready: &Ready, megabytes: u32) {
    let sql = format!(
        "CREATE TABLE noise AS SELECT string_agg(md5(i::text || j::text), '') AS text \
         FROM generate_series(1, {megabytes} * 128) i, generate_series(1, 256) j GROUP BY i; \
         ALTER TABLE noise ALTER COLUMN text SET STORAGE EXTERNAL; VACUUM FULL noise"
    );
    ready.server.psql_db("app", &sql);
}

#[test]
fn a_disk_that_fills_up_fails_the_dump_and_nothing_else() {
    let disk = Tmpfs::new(48 << 20);
    let ready = server(Cluster::builder());
    let server = &ready.server;
    fill(&ready, 64);
    server.psql(&format!("SELECT * FROM ark.enable('{}')", file_url(disk.path())));
    let backup = "SET pg_ark.compression = 'none'; SELECT ark.backup_start('logical', wait => true)";
    let error = server.try_psql(backup).unwrap_err();
    assert_eq!(error.sqlstate(), "53100", "{error}");
    assert!(error.stderr.contains("No space left") && error.hint().contains("Free some space"), "{error}");
    ready.assert_nothing_left_behind();
    let row = server.psql("SELECT status, error FROM ark.list_backups()");
    assert!(row.starts_with("failed|") && row.contains("No space left"), "{row}");
    let left: Vec<_> = crate::support::names_below(disk.path())
        .into_iter()
        .filter(|name| !name.ends_with(".json"))
        .collect();
    assert!(left.is_empty(), "left on the full disk: {left:?}");
    assert_eq!(server.psql(SESSIONS), "0");

    disk.resize(256 << 20);
    server.psql(backup);
    assert_eq!(server.psql("SELECT string_agg(status, ' ') FROM ark.list_backups()"), "failed complete");
}

#[test]
fn a_dump_is_no_faster_than_it_may_be() {
    let ready = server(Cluster::builder());
    let server = &ready.server;
    fill(&ready, 12);
    let start = "SET pg_ark.compression = 'none'; SET pg_ark.max_rate = 4096; SELECT ark.backup_start('logical', wait => true)";
    let began = Instant::now();
    server.psql(start);
    // 12 MB at 4 MB a second, of which the first second's are free.
    assert!(began.elapsed() >= Duration::from_millis(1900), "{:?}", began.elapsed());
    // A change acts at once.
    let slow = start.replace("4096", "64").replace(", wait => true", "");
    let backup = server.psql(&slow);
    ready.wait_for_phase("streaming database files");
    server.configure(&["pg_ark.max_rate = '1GB'"]);
    server.reload();
    wait_until("the end of the backup", LONG, || ready.backup_row("status", &backup) != "running");
    assert_eq!(ready.backup_row("status, error", &backup), "complete|");
}

#[test]
fn a_server_of_another_superuser_is_dumped() {
    let ready = enabled(Cluster::builder().start(), Repo::new());
    let server = &ready.server;
    server.psql("CREATE ROLE admin SUPERUSER LOGIN");
    let renamed = "ALTER ROLE postgres RENAME TO \"Der Chef's \"\"x\"\"\"";
    server.query("postgres", "admin", renamed).expect("another name");
    let start = "SELECT ark.backup_start('logical', wait => true)";
    let backup = server.query("postgres", "admin", start).expect("a backup").rows;
    let user = format!("SELECT ark.show('{backup}') #>> '{{logical,initdb,username}}'");
    assert_eq!(server.query("postgres", "admin", &user).expect("a record").rows, "Der Chef's \"x\"");
}
