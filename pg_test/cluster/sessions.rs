//! What the settings of a session, a role or a database cannot change: where backups go, and whose rights they have.

use crate::support::{Ready, ready};
use pg_ark_testkit::{Cluster, run};

const BACKUP: &str = "SELECT ark.backup_start(wait => true)";
const LIST: &str = "SELECT count(*) FROM ark.list_backups()";

fn of_cluster(name: &str) -> Ready {
    ready(Cluster::builder().conf(&format!("pg_ark.cluster = '{name}'")))
}

/// Runs psql with these options of the session; gives all that it wrote.
fn with_options(server: &Cluster, options: &str, sql: &str) -> String {
    let mut psql = server.client("psql");
    psql.env("PGOPTIONS", options).args(["-XAtq", "-v", "VERBOSITY=verbose", "-d", "postgres", "-c", sql]);
    let output = run(&mut psql);
    format!("{}{}", output.stdout, output.stderr)
}

#[test]
fn options_that_hide_a_setting_of_the_server_are_refused() {
    let ready = of_cluster("prod");
    let server = &ready.server;
    let options =
        ["pg_ark.cluster=other", "pg_ark.cluster=", "pg_ark.repository=file:///tmp", "pg_ark.engine_path=/x"];
    for option in options {
        for sql in [BACKUP, LIST, "SELECT ark.show('x')", "SELECT ark.backup_stop('x')"] {
            let said = with_options(server, &format!("-c {option}"), sql);
            assert!(said.contains("ERROR:  22023") && said.contains("reconnect"), "{option}: {sql}: {said}");
        }
    }
    assert_eq!(with_options(server, "-c pg_ark.compression=none", LIST).trim(), "0");
    assert_eq!(server.psql(LIST), "0");
}

#[test]
fn what_a_session_sets_does_not_file_its_backup_elsewhere() {
    let ready = of_cluster("prod");
    let backup = ready.server.psql(&format!("SET pg_ark.cluster = 'other'; {BACKUP}"));
    assert!(ready.repo.path().join("prod").is_dir() && !ready.repo.path().join("other").exists());
    assert_eq!(ready.backup_row("status", &backup), "complete");
}

#[test]
fn a_reload_brings_the_setting_of_the_server_back() {
    let ready = of_cluster("prod");
    let mut sessions = ["zzz", ""].map(|name| {
        let role = format!("role_{name}");
        ready.server.psql(&format!("CREATE ROLE {role} SUPERUSER LOGIN"));
        ready.server.psql(&format!("ALTER ROLE {role} SET pg_ark.cluster = '{name}'"));
        ready.server.session_as("postgres", &role)
    });
    for session in &mut sessions {
        let refused = "DO $$ BEGIN PERFORM ark.list_backups(); RAISE 'not refused'; \
                       EXCEPTION WHEN invalid_parameter_value THEN NULL; END $$";
        session.send(refused);
        assert_eq!(session.ask("SELECT 1"), "1");
        session.send("SELECT FROM pg_reload_conf()");
    }
    for session in &mut sessions {
        session.send("SELECT FROM pg_sleep(1)");
        assert!(session.ask(LIST).ends_with('0'));
    }
}

#[test]
fn a_database_that_sets_a_role_for_its_sessions_can_be_the_workers() {
    let ready = ready(Cluster::builder());
    let there = |sql: &str| ready.server.psql_db("template1", sql);
    there("CREATE EXTENSION pg_ark; CREATE ROLE weak");
    // PostgreSQL 15 lets the second be set too, and does not act on it.
    for setting in ["role", "session_authorization"] {
        there(&format!("ALTER DATABASE postgres SET {setting} = weak"));
        let backup = there(BACKUP);
        let row = format!("SELECT status, error FROM ark.list_backups() WHERE backup = '{backup}'");
        assert_eq!(there(&row), "complete|");
        there(&format!("ALTER DATABASE postgres RESET {setting}"));
    }
}
