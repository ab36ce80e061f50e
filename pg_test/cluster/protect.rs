//! `ark.enable(..., protect => true)`: what it sets, what it leaves to people, where it refuses; and the schedule's table
//! in dumps, on standbys, and after the extension is gone.

use crate::support::pgark_of;
use pg_ark_testkit::{Builder, Cluster, LONG, Repo, Scratch, StopMode, command, run, wait_until};

const PROTECTED: &str = "shared_preload_libraries, wal_level, archive_library, archive_mode, pg_ark.retention_window, \
                         job daily full, job prune, job verify archive, job verify, restart";

fn server(builder: Builder) -> Cluster {
    let server = builder.start();
    assert!(pgark_of(server.pg()).is_file(), "run scripts/install for this server");
    server.psql("CREATE EXTENSION pg_ark");
    server
}

/// Item, status and hint of each row that `protect` gives, without those that `ark.check` advises.
#[track_caller]
fn protect(server: &Cluster, repo: &Repo) -> Vec<(String, String, String)> {
    let rows = server.psql(&format!("SELECT * FROM ark.enable('{}', protect => true)", repo.url()));
    let row = |line: &str| {
        let mut parts = line.splitn(3, '|').map(str::to_owned);
        let mut next = || parts.next().expect("three columns");
        (next(), next(), next())
    };
    rows.lines().map(row).filter(|(_, status, _)| status != "advised").collect()
}

#[track_caller]
fn row<'a>(rows: &'a [(String, String, String)], item: &str) -> (&'a str, &'a str) {
    let found = rows.iter().find(|(found, ..)| found == item);
    found
        .map(|(_, status, hint)| (status.as_str(), hint.as_str()))
        .unwrap_or_else(|| panic!("{item}: {rows:?}"))
}

/// Fails unless the server refuses with this SQLSTATE, these words in its message, and this one in its hint.
#[track_caller]
fn refused(server: &Cluster, sql: &str, state: &str, words: &str, hint: &str) {
    let error = server.try_psql(sql).expect_err(sql);
    assert_eq!(error.sqlstate(), state, "{sql}: {error}");
    assert!(error.message().contains(words) && error.hint().contains(hint), "{sql}: {error}");
}

fn setting(server: &Cluster, name: &str) -> String {
    server.psql(&format!("SHOW {name}"))
}

#[test]
fn smoke_one_call_and_a_restart_protect_a_server() {
    let (server, repo) = (server(Cluster::builder()), Repo::new());
    let rows = protect(&server, &repo);
    let items: Vec<_> = rows.iter().map(|(item, ..)| item.as_str()).collect();
    assert_eq!(items[2..].join(", "), PROTECTED, "{rows:?}");
    assert_eq!(row(&rows, "shared_preload_libraries"), ("set", "pg_ark"));
    assert_eq!(row(&rows, "archive_mode"), ("set", "on"));
    let (status, hint) = row(&rows, "restart");
    assert_eq!(status, "to do");
    assert!(
        hint.contains("shared_preload_libraries, archive_mode") && hint.contains("first backup"),
        "{hint}"
    );

    // Before the restart it may be called again: nothing else comes of it.
    let again = protect(&server, &repo);
    assert_eq!(row(&again, "shared_preload_libraries"), ("left as it is", "pg_ark"));
    assert_eq!(row(&again, "job prune").0, "left as it is");
    assert_eq!(row(&again, "restart").0, "to do");
    let waits = "SELECT string_agg(item, ', ' ORDER BY item) FROM ark.check() WHERE hint LIKE '%is set, and waits for%'";
    assert_eq!(server.psql(waits), "archive_mode, scheduler, shared_preload_libraries");

    server.restart();
    for (name, value) in [
        ("shared_preload_libraries", "pg_ark"),
        ("archive_mode", "on"),
        ("archive_library", "pg_ark"),
        ("pg_ark.retention_window", "7d"),
        ("pg_ark.repository", &repo.url()),
    ] {
        assert_eq!(setting(&server, name), value, "{name}");
    }
    wait_until("the first backup, by itself", LONG, || {
        server.psql("SELECT count(*) FROM ark.list_backups() WHERE status = 'complete'") == "1"
    });
    wait_until("the end of its run", LONG, || {
        server.psql("SELECT last_status FROM ark.jobs WHERE name = 'daily full'") == "done"
    });
    let jobs = server.psql("SELECT name, kind, next_run > now(), last_error FROM ark.jobs ORDER BY name");
    assert_eq!(
        jobs,
        "daily full|full|t|\nprune|prune|t|\nverify|verify|t|\nverify archive|verify_archive|t|"
    );
    let wrong = server.psql(
        "SELECT item, detail FROM ark.check() WHERE status <> 'ok' AND item NOT IN ('repository_device', 'free_space') \
         AND item NOT LIKE 'repository%'",
    );
    assert_eq!(wrong, "");
    let after = protect(&server, &repo);
    assert_eq!(row(&after, "restart").0, "not needed", "{after:?}");
    assert_eq!(server.psql("SELECT count(*) FROM ark.job"), "4");
}

#[test]
fn libraries_and_choices_of_others_stay() {
    let repo = Repo::new();
    let server = server(
        Cluster::builder()
            .conf("shared_preload_libraries = 'auto_explain'")
            .conf("pg_ark.retention_window = '30d'"),
    );
    server.psql("SELECT ark.schedule('prune', '5 5 * * *', 'full', label => 'mine', enabled => false)");
    // Written, and not acting before a restart either.
    server.configure(&["shared_preload_libraries = 'auto_explain, passwordcheck'"]);
    let rows = protect(&server, &repo);
    assert_eq!(row(&rows, "shared_preload_libraries"), ("set", "auto_explain, passwordcheck, pg_ark"));
    assert_eq!(row(&rows, "pg_ark.retention_window"), ("left as it is", "30d"));
    assert_eq!(row(&rows, "job prune").0, "left as it is");
    server.restart();
    assert_eq!(setting(&server, "shared_preload_libraries"), "auto_explain, passwordcheck, pg_ark");
    assert_eq!(setting(&server, "pg_ark.retention_window"), "30d");
    assert_eq!(
        server.psql("SELECT kind, cron, label, enabled FROM ark.job WHERE name = 'prune'"),
        "full|5 5 * * *|mine|f"
    );
}

#[test]
fn another_archiver_is_told_and_left_alone() {
    let repo = Repo::new();
    for mode in ["off", "on"] {
        let command = "archive_command = 'test ! -f /nowhere/%f'";
        let server = server(Cluster::builder().conf(command).conf(&format!("archive_mode = {mode}")));
        let rows = protect(&server, &repo);
        let (status, hint) = row(&rows, "archive_library");
        assert!(status == "to do" && hint.contains("archive_command = ''"), "{rows:?}");
        let (_, restart) = row(&rows, "restart");
        assert!(restart.starts_with("Do what is listed"), "{restart}");
        server.restart();
        assert_eq!(
            (setting(&server, "archive_library"), setting(&server, "archive_mode")),
            (String::new(), mode.into())
        );
        server.stop(StopMode::Fast);
    }
}

#[test]
fn what_stands_on_the_command_line_is_left_to_people() {
    let (server, repo) = (server(Cluster::builder()), Repo::new());
    server.stop(StopMode::Fast);
    let mut start = server.client("pg_ctl");
    start.args(["start", "-w", "-s", "-D"]).arg(server.data()).arg("-l").arg(server.log_path());
    run(start.args(["-o", "-c archive_mode=off -c shared_preload_libraries=auto_explain"])).ok();
    let rows = protect(&server, &repo);
    for item in ["archive_mode", "shared_preload_libraries"] {
        let (status, hint) = row(&rows, item);
        assert!(status == "to do" && hint.contains("command line"), "{rows:?}");
    }
    assert!(row(&rows, "shared_preload_libraries").1.contains("auto_explain, pg_ark"), "{rows:?}");
    assert_eq!(row(&rows, "restart").0, "to do");
}

#[test]
fn a_server_where_it_could_not_work_is_left_as_it_is() {
    let repo = Repo::new();
    // The one slot is that of logical replication.
    let server = server(Cluster::builder().conf("max_worker_processes = 1"));
    let enable = format!("SELECT * FROM ark.enable('{}', protect => true)", repo.url());
    refused(&server, &enable, "55000", "cannot be protected yet: max_worker_processes", "raise");
    assert_untouched(&server);

    server.psql("CREATE DATABASE other");
    server.psql_db("other", "CREATE EXTENSION pg_ark");
    let said = server.psql_db(
        "other",
        &format!(
            "CREATE FUNCTION pg_temp.said() RETURNS text LANGUAGE plpgsql AS $$ BEGIN \
             PERFORM * FROM ark.enable('{}', protect => true); RETURN 'went on'; \
             EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE || ' ' || SQLERRM; END $$; SELECT pg_temp.said()",
            repo.url()
        ),
    );
    assert!(said.starts_with("55000") && said.contains("belong to database \"postgres\""), "{said}");
}

#[test]
fn promise_5_no_repository_is_made_where_one_was() {
    let (server, repo) = (server(Cluster::builder()), Repo::new());
    protect(&server, &repo);
    server.restart();
    wait_until("the first backup", LONG, || {
        server.psql("SELECT last_status FROM ark.jobs WHERE name = 'daily full'") == "done"
    });
    // As when its disk is unmounted: the folder is there, and empty; then not even that.
    let away = repo.path().with_extension("away");
    std::fs::rename(repo.path(), &away).expect("move");
    run(command("mkdir").arg(repo.path())).ok();
    let there_before = "If it was there before, mount it or bring it back; if not, ALTER SYSTEM RESET";
    for _ in 0..2 {
        for call in [
            "SELECT ark.backup_start(wait => true)",
            "SELECT * FROM ark.list_backups()",
            "SELECT * FROM ark.validate()",
            "SELECT * FROM ark.job_runs()",
            "SELECT * FROM ark.prune()",
        ] {
            refused(&server, call, "58P01", "there is no repository", there_before);
        }
        let hint = server.psql("SELECT hint FROM ark.check() WHERE item = 'repository'");
        assert!(hint.contains(there_before), "{hint}");
        for (url, protect) in
            [(repo.url(), "true"), (repo.url(), "false"), (format!("{}/", repo.url()), "true")]
        {
            let enable = format!("SELECT * FROM ark.enable('{url}', protect => {protect})");
            refused(&server, &enable, "58P01", "there is no repository", there_before);
            refused(
                &server,
                &enable,
                "58P01",
                "there is no repository",
                "ALTER SYSTEM RESET pg_ark.repository",
            );
        }
        let left = std::fs::read_dir(repo.path()).map_or(0, Iterator::count);
        assert_eq!(left, 0, "below the mount point");
        let _ = std::fs::remove_dir(repo.path());
    }
    std::fs::rename(&away, repo.path()).expect("move");
    assert_eq!(row(&protect(&server, &repo), "restart").0, "not needed");

    // Another place is another repository, and a new one where one was is begun on purpose.
    let other = Repo::new();
    server.psql(&format!("SELECT * FROM ark.enable('{}')", other.url()));
    std::fs::remove_file(other.path().join("pgark.json")).expect("an empty repository");
    let enable = format!("SELECT status FROM ark.enable('{}') WHERE item = 'repository'", other.url());
    refused(&server, &enable, "58P01", "there is no repository", there_before);
    server.psql("ALTER SYSTEM RESET pg_ark.repository");
    assert_eq!(server.psql(&enable), "created");
}

#[test]
fn a_repository_that_a_tool_wrote_into_the_configuration_is_made_by_the_first_call() {
    let repo = Repo::new();
    let server = server(Cluster::builder().conf(&format!("pg_ark.repository = '{}'", repo.url())));
    refused(
        &server,
        "SELECT * FROM ark.list_backups()",
        "58P01",
        "there is no repository",
        "ark.enable makes a new one",
    );
    protect(&server, &repo);
    server.restart();
    assert!(repo.path().join("pgark.json").is_file());
    assert_eq!(setting(&server, "pg_ark.repository"), repo.url());
}

#[track_caller]
fn assert_untouched(server: &Cluster) {
    assert_eq!(server.psql("SELECT count(*) FROM ark.job"), "0");
    let written = "SELECT count(*) FROM pg_file_settings WHERE sourcefile LIKE '%auto.conf'";
    assert_eq!(server.psql(written), "0");
}

#[test]
fn a_server_that_would_not_start_again_is_not_told_to_restart() {
    let (server, repo) = (server(Cluster::builder()), Repo::new());
    let enable = format!("SELECT * FROM ark.enable('{}', protect => true)", repo.url());
    for line in ["work_mem = 'nonsense'", "this is no setting", "checkpoint_timout = '5min'"] {
        let path = server.data().join("postgresql.conf");
        let before = std::fs::read(&path).expect("the configuration");
        server.configure(&[line]);
        refused(&server, &enable, "55000", "postgresql.conf, line", "Correct");
        let found = server.psql("SELECT status, detail FROM ark.check() WHERE item = 'configuration'");
        assert!(found.starts_with("error|") && found.contains("postgresql.conf, line"), "{found}");
        std::fs::write(&path, before).expect("as it was");
    }
    assert_untouched(&server);
    protect(&server, &repo);
    // What waits for the restart is no fault.
    assert_eq!(server.psql("SELECT status FROM ark.check() WHERE item = 'configuration'"), "ok");
}

#[test]
fn a_standby_shows_the_schedule_and_does_not_change_it() {
    let (primary, repo) = (server(Cluster::builder()), Repo::new());
    primary.psql("SELECT ark.schedule('nightly', '0 2 * * *')");
    let standby = primary.create_standby(&[]);
    primary.wait_for_standby(&standby);
    let enable = format!("SELECT * FROM ark.enable('{}', protect => true)", repo.url());
    refused(&standby, &enable, "55000", "standby", "primary");
    for call in ["ark.schedule('x', '@daily')", "ark.unschedule('nightly')"] {
        refused(&standby, &format!("SELECT {call}"), "55000", "standby", "primary");
    }
    assert_eq!(standby.psql("SELECT name, next_run > now() FROM ark.jobs"), "nightly|t");
    let said = standby.psql("SELECT detail FROM ark.check() WHERE item = 'pg_ark.run_on'");
    assert!(said.contains("a standby and leaves"), "{said}");
    standby.promote();
    standby.psql("SELECT ark.schedule('x', '@daily')");
    assert_eq!(standby.psql("SELECT count(*) FROM ark.jobs"), "2");
}

#[test]
fn a_dump_takes_the_schedule_along() {
    let server = server(Cluster::builder());
    server.psql(
        "SELECT ark.schedule('nightly', '0 2 * * *', timezone => 'Europe/Berlin', label => 'it''s \\ \"x\"'); \
         SELECT ark.schedule('größe 2', '@weekly', 'verify', level => 'pages', time_limit => '36 hours'); \
         SELECT ark.schedule('off', '@daily', 'verify_archive', deep => true, enabled => false)",
    );
    let rows = |database: &str| server.psql_db(database, "SELECT * FROM ark.job ORDER BY name");
    let scratch = Scratch::new("dump");
    let dump = scratch.path().join("dump.sql");
    run(server.client("pg_dump").args(["-d", "postgres", "-f"]).arg(&dump)).ok();
    server.psql("CREATE DATABASE restored");
    run(server.client("psql").args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "restored", "-f"]).arg(&dump))
        .ok();
    assert_eq!(rows("restored"), rows("postgres"));
    assert_eq!(rows("restored").lines().count(), 3);
    // Whoever restores a dump is not made a reader or a writer.
    let rights = "SELECT relacl FROM pg_class WHERE oid = 'ark.job'::regclass";
    assert_eq!(server.psql_db("restored", rights), server.psql(rights));
}

#[test]
fn dropping_the_extension_leaves_nothing() {
    let server = server(Cluster::builder());
    let left = "SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = 'ark'::regnamespace) \
                + (SELECT count(*) FROM pg_proc WHERE pronamespace = 'ark'::regnamespace) \
                + (SELECT count(*) FROM pg_type WHERE typnamespace = 'ark'::regnamespace)";
    for _ in 0..2 {
        server.psql("SELECT ark.schedule('a', '@daily')");
        assert_ne!(server.psql(left), "0");
        server.psql("DROP EXTENSION pg_ark");
        assert_eq!(server.psql(left), "0");
        server.psql("CREATE EXTENSION pg_ark");
        assert_eq!(server.psql("SELECT count(*) FROM ark.jobs"), "0", "a new one begins anew");
    }
}

#[test]
fn a_schedule_in_another_encoding_is_the_same() {
    let server = server(Cluster::builder());
    server.psql("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    server.configure(&["pg_ark.database = 'latin'"]);
    server.reload();
    let there = |sql: &str| server.psql_db("latin", &format!("SET client_encoding = 'UTF8'; {sql}"));
    there("CREATE EXTENSION pg_ark");
    wait_until("the reload", LONG, || there("SHOW pg_ark.database") == "latin");
    there("SELECT ark.schedule('größe 2', '@daily', label => 'für dich')");
    assert_eq!(there("SELECT name, next_run > now() FROM ark.jobs"), "größe 2|t");
    assert_eq!(there("SELECT label FROM ark.job"), "für dich");
    assert_eq!(there("SELECT ark.unschedule('größe 2')"), "t");
    there("ALTER DATABASE latin IS_TEMPLATE true");
    let said = there("SELECT status, detail FROM ark.check() WHERE item = 'pg_ark.database'");
    assert_eq!(said, "warning|\"latin\" is a template database");
    let said = there(
        "CREATE FUNCTION pg_temp.said() RETURNS text LANGUAGE plpgsql AS $$ BEGIN \
         PERFORM ark.schedule('é' || chr(173), '@daily'); RETURN 'went on'; \
         EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE || ' ' || SQLERRM; END $$; SELECT pg_temp.said()",
    );
    assert!(said.starts_with("22023") && said.contains("\\u{e9}"), "{said}");
}
