//! Two servers that share a cluster's name by mistake: both are told, and neither removes what is the other's.

use crate::archiving::{archive_now, archiving, switch_wal};
use crate::support::{Ready, names_below, ready};
use pg_ark_testkit::{Builder, Cluster, LONG, run, wait_until};
use std::collections::BTreeSet;

const PRUNE: &str = "SELECT * FROM ark.prune(false)";

/// Each keeps one backup and a day: nothing of the other may go before it is older.
fn builder() -> Builder {
    let builder = Cluster::builder().wal_segment_mb(1);
    builder.conf("pg_ark.retention_window = '1d'").conf("pg_ark.retention_min_full = 1")
}

fn system_of(server: &Cluster) -> String {
    server.psql("SELECT system_identifier FROM pg_control_system()")
}

/// Backups and WAL of the first server.
fn stored(ready: &Ready, system: &str) -> BTreeSet<String> {
    let names = names_below(&ready.repo.path().join("main").join(system)).into_iter();
    names.filter(|name| name.contains("backups/") || name.contains("wal/0")).collect()
}

fn check_of(server: &Cluster) -> String {
    server.psql("SELECT status, detail, hint FROM ark.check() WHERE item = 'cluster'")
}

#[test]
fn a_second_server_of_one_name_is_noticed_and_costs_the_first_nothing() {
    let first = archiving(builder());
    let backup = first.take_backup();
    archive_now(&first);
    first.server.psql(PRUNE);
    let policy = first.repo.path().join("main/retention.json");
    let rules = std::fs::read(&policy).expect("the rules of the first");
    let (one, before) = (system_of(&first.server), stored(&first, &system_of(&first.server)));
    assert!(check_of(&first.server).starts_with("ok|"), "{}", check_of(&first.server));
    assert!(!before.is_empty());

    // The second is told before anything of it is stored, and prunes nothing until then.
    let second = builder().start();
    let two = system_of(&second);
    second.psql("CREATE EXTENSION pg_ark");
    let enable = format!("SELECT * FROM ark.enable('{}')", first.repo.url());
    let answer = second.query("postgres", "postgres", &enable).expect("a new cluster may take a name over");
    let warning = answer.messages.iter().find(|told| told.message.contains(&one)).expect("a warning");
    assert!(warning.message.contains(&two) && warning.hint.contains("pg_ark.cluster"), "{warning:?}");
    assert!(answer.rows.contains("cluster|advised|"), "{}", answer.rows);
    let told = check_of(&second);
    assert!(told.starts_with("warning|") && told.contains(&one) && told.contains("pg_ark.cluster"), "{told}");
    let error = second.try_psql(PRUNE).expect_err("all that is there is another's");
    assert_eq!(error.sqlstate(), "55000", "{error}");
    assert!(check_of(&first.server).starts_with("ok|"), "nothing happened yet");

    // It takes the name over: the first is told, and neither stores nor removes anything more.
    second.psql("SELECT ark.backup_start(wait => true, include_wal => true)");
    let told = check_of(&first.server);
    assert!(told.starts_with("error|") && told.contains(&two) && told.contains("pg_ark.cluster"), "{told}");
    let health = first.server.psql("SELECT healthy, health FROM ark.status");
    assert!(
        health.starts_with("f|") && health.contains(&two) && health.contains("pg_ark.cluster"),
        "{health}"
    );
    let error = first.try_backup("wait => true").expect_err("another's name");
    assert_eq!(error.sqlstate(), "55000", "{error}");
    let error = first.server.try_psql(PRUNE).expect_err("another's backups");
    assert_eq!(error.sqlstate(), "55000", "{error}");
    assert!(error.message().contains(&two) && error.hint().contains("pg_ark.cluster"), "{error}");
    assert_eq!(std::fs::read(&policy).expect("the rules"), rules, "still those of the first");
    // To look is allowed.
    first.server.psql("SELECT * FROM ark.prune()");

    // The second prunes by its own rules; what the first has is younger than the window.
    assert!(check_of(&second).starts_with("ok|"), "{}", check_of(&second));
    second.psql(PRUNE);
    assert_ne!(std::fs::read(&policy).expect("the rules"), rules, "those of the second now");
    let lost: Vec<_> = before.difference(&stored(&first, &one)).cloned().collect();
    assert_eq!(lost, Vec::<String>::new());
    run(first.pgark().args(["--cluster", "main", "verify", &backup])).ok();

    // A name of its own mends it.
    first.server.configure(&["pg_ark.cluster = 'first'"]);
    first.server.reload();
    wait_until("the new name", LONG, || first.server.psql("SELECT cluster FROM ark.status") == "first");
    let segment = switch_wal(&first.server);
    let done = first.server.data().join(format!("pg_wal/archive_status/{segment}.done"));
    wait_until("WAL under the new name", LONG, || done.is_file());
    first.take_backup();
    assert!(check_of(&first.server).starts_with("ok|"), "{}", check_of(&first.server));
}

#[test]
fn the_prune_job_of_a_server_that_lost_its_name_fails_and_says_why() {
    let first = ready(Cluster::builder().conf("shared_preload_libraries = 'pg_ark'"));
    first.take_backup();
    let second = Cluster::builder().start();
    second.psql("CREATE EXTENSION pg_ark");
    second.psql(&format!("SELECT * FROM ark.enable('{}')", first.repo.url()));
    second.psql("SELECT ark.backup_start(wait => true)");
    first.server.psql("SELECT ark.schedule('prune', '* * * * *', 'prune')");
    let failed = || first.server.psql("SELECT last_status FROM ark.jobs") == "failed";
    wait_until("the prune of the first", LONG, failed);
    let error = first.server.psql("SELECT last_error FROM ark.jobs");
    assert!(error.contains(&system_of(&second)) && error.contains("has meanwhile become"), "{error}");
    assert!(!first.repo.path().join("main/retention.json").exists(), "and left its rules nowhere");
}
