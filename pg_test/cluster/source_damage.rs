//! Promise 6, damage is loud: a corrupt page at the source is found wherever it is, named, and told by everybody who
//! is asked about the backup; the backup is there all the same, and the next one without damage is unmarked.

use crate::support::{Ready, Restored, ready};
use pg_ark_testkit::{Cluster, StopMode, run};
use serde_json::Value;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

const PAGE: u64 = 8192;

/// A relation with a corrupt page.
struct Wound {
    file: PathBuf,
    /// Below the data directory.
    path: String,
    block: u64,
    /// As the server names it.
    relation: &'static str,
    database: Option<&'static str>,
    healthy: Vec<u8>,
}

impl Wound {
    /// Overwrites a part of a page below the server.
    fn make(
        server: &Cluster,
        path: &str,
        block: u64,
        relation: &'static str,
        database: Option<&'static str>,
    ) -> Wound {
        let file = server.data().join(path);
        let open = File::options().read(true).write(true).open(&file).expect("a relation's file");
        let mut healthy = vec![0; PAGE as usize];
        open.read_exact_at(&mut healthy, block * PAGE).expect("a page");
        assert_ne!(healthy[14..16], [0, 0], "page {block} of {path} is new");
        open.write_all_at(b"damaged", block * PAGE + 4000).expect("write into a page");
        Wound { file, path: path.to_string(), block, relation, database, healthy }
    }

    fn heal(&self) {
        let open = File::options().write(true).open(&self.file).expect("a relation's file");
        open.write_all_at(&self.healthy, self.block * PAGE).expect("write a page");
    }
}

/// Tables, indexes and toast in two databases and a tablespace; on disk when this returns.
fn fill(server: &Cluster) {
    server.create_tablespace("space");
    server.psql("CREATE DATABASE \"Zweite DB\"");
    server.psql(
        "CREATE TABLE orders (id int PRIMARY KEY, note text); \
         INSERT INTO orders SELECT i, repeat('x', 500) FROM generate_series(1, 2000) i; \
         CREATE TABLE sound AS SELECT i FROM generate_series(1, 1000) i; \
         CREATE TABLE far TABLESPACE space AS SELECT i FROM generate_series(1, 1000) i",
    );
    server.psql_db(
        "Zweite DB",
        "CREATE SCHEMA \"Büro\"; CREATE TABLE \"Büro\".\"Akten\" (id int, scan text); \
         ALTER TABLE \"Büro\".\"Akten\" ALTER scan SET STORAGE EXTERNAL; \
         INSERT INTO \"Büro\".\"Akten\" SELECT i, repeat('y', 10000) FROM generate_series(1, 300) i",
    );
    server.psql("CHECKPOINT");
}

/// A page in a table, an index, a tablespace, a toast table of another database, and a catalog shared by all.
fn wound(server: &Cluster) -> Vec<Wound> {
    let own = |relation: &str| server.psql(&format!("SELECT pg_relation_filepath('{relation}')"));
    let (orders, index, far) = (own("orders"), own("orders_pkey"), own("far"));
    let shared = own("pg_catalog.pg_shdescription");
    let toast = server.psql_db(
        "Zweite DB",
        "SELECT pg_relation_filepath(reltoastrelid) FROM pg_class WHERE relname = 'Akten'",
    );
    server.stop(StopMode::Fast);
    let wounds = vec![
        Wound::make(server, &orders, 7, "public.orders", Some("postgres")),
        Wound::make(server, &index, 2, "public.orders_pkey", Some("postgres")),
        Wound::make(server, &far, 3, "public.far", Some("postgres")),
        Wound::make(server, &toast, 11, "toast table of \"Büro\".\"Akten\"", Some("Zweite DB")),
        Wound::make(server, &shared, 0, "pg_catalog.pg_shdescription", None),
    ];
    server.start();
    wounds
}

/// `damaged_pages`, `last_backup`, `last_clean_backup` of `ark.status`.
fn status(server: &Cluster) -> String {
    server.psql("SELECT damaged_pages, last_backup, last_clean_backup FROM ark.status")
}

fn health(server: &Cluster) -> String {
    server.psql("SELECT health FROM ark.status")
}

fn assert_told(ready: &Ready, backup: &str, wounds: &[Wound]) {
    let server = &ready.server;
    let count = wounds.len();
    assert_eq!(ready.backup_row("status, damaged_pages", backup), format!("complete|{count}"));
    let health = health(server);
    assert!(health.contains(&format!("the last backup holds {count} damaged pages")), "{health}");
    let listed = run(ready.pgark().arg("list")).ok();
    let line = listed.lines().find(|line| line.starts_with(backup));
    assert!(line.is_some_and(|line| line.contains(&format!("{count} damaged pages"))), "{listed}");

    let log = server.log();
    let record: Value =
        serde_json::from_str(&server.psql(&format!("SELECT ark.show('{backup}')"))).expect("JSON");
    assert_eq!(record["damaged_pages"], count);
    let damage = record["damage"].as_array().expect("damaged files");
    assert_eq!(damage.len(), count, "{damage:?}");
    for wound in wounds {
        let Wound { path, block, relation, database, .. } = wound;
        let warned = log.lines().find(|line| line.contains("WARNING") && line.contains(path.as_str()));
        let warned = warned.unwrap_or_else(|| panic!("no warning in the log names {path}:\n{log}"));
        assert!(warned.contains(&format!("block {block} ")), "{warned}");
        assert!(warned.contains(relation), "{relation}: {warned}");
        if let Some(database) = database {
            assert!(warned.contains(&format!("of database \"{database}\"")), "{warned}");
        }
        let file = damage.iter().find(|file| file["path"] == path.as_str());
        let file = file.unwrap_or_else(|| panic!("the record does not name {path}: {damage:?}"));
        assert_eq!(file["relation"], *relation);
        assert_eq!(file["database"].as_str(), *database);
        assert_eq!(file["blocks"], serde_json::json!([block]));
        assert_eq!(file["damaged_pages"], 1);
    }
}

/// The rows of `ark.validate` and `pgark verify` name every wound, none of them as more than a warning.
fn assert_found(ready: &Ready, backup: &str, wounds: &[Wound]) {
    for level in ["record", "data", "pages"] {
        let sql = format!(
            "SELECT json_agg(v) FROM ark.validate('{backup}', '{level}') v WHERE v.backup = '{backup}'"
        );
        let from_sql: Value = serde_json::from_str(&ready.server.psql(&sql)).expect("findings");
        let mut pgark = ready.pgark();
        let output = run(pgark.args(["--format", "json", "verify", backup, "--level", level]));
        assert_eq!(output.code(), 13, "{level}: {output}");
        let from_program: Value = serde_json::from_str(&output.stdout).expect("findings");
        for rows in [from_sql, from_program] {
            let rows = rows.as_array().expect("rows").clone();
            assert!(rows.iter().all(|row| row["severity"] == "warning"), "{level}: {rows:#?}");
            for wound in wounds {
                let named = |row: &&Value| {
                    let text =
                        format!("{} {}", row["object"].as_str().unwrap(), row["finding"].as_str().unwrap());
                    text.contains(wound.relation)
                        && wound.database.is_none_or(|database| text.contains(database))
                };
                assert!(rows.iter().any(|row| named(&row)), "{level}, {}: {rows:#?}", wound.relation);
            }
        }
    }
}

#[test]
fn promise_6_damage_is_loud_wherever_it_is_at_the_source() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    fill(server);
    let before = ready.take_backup();
    assert_eq!(ready.backup_row("damaged_pages", &before), "0");
    assert_eq!(status(server), format!("0|{before}|{before}"));

    let wounds = wound(server);
    let answer =
        server.query("postgres", "postgres", "SELECT ark.backup_start(wait => true)").expect("a backup");
    let backup = answer.rows;
    let warning = &answer.messages[0];
    assert_eq!(warning.severity, "WARNING", "{warning:?}");
    assert!(warning.message.contains("5 in all") && warning.message.contains(&backup), "{warning:?}");
    assert_eq!(status(server), format!("5|{backup}|{before}"));
    assert_told(&ready, &backup, &wounds);

    // It is a backup all the same: what was sound is there, what was not is as it was.
    let Restored { server: copy, folder: _folder } = ready.restore_beside(&backup);
    assert_eq!(copy.psql("SELECT count(*), sum(i) FROM sound"), "1000|500500");
    let error = copy.try_psql("SELECT count(*) FROM orders").expect_err("a damaged page");
    assert_eq!(error.sqlstate(), "XX001", "{error}");
    copy.stop(StopMode::Fast);

    server.stop(StopMode::Fast);
    wounds.iter().for_each(Wound::heal);
    server.start();
    let answer =
        server.query("postgres", "postgres", "SELECT ark.backup_start(wait => true)").expect("a backup");
    let after = answer.rows;
    assert_eq!(answer.messages, []);
    assert_eq!(ready.backup_row("status, damaged_pages", &after), "complete|0");
    assert_eq!(status(server), format!("0|{after}|{after}"));
    assert!(!health(server).contains("damaged"), "{}", health(server));
    run(ready.pgark().args(["verify", &after])).ok();
    assert_found(&ready, &backup, &wounds);
}

#[test]
fn promise_6_damage_is_loud_below_a_running_server() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    server.psql(
        "CREATE TABLE early AS SELECT i, repeat('x', 500) FROM generate_series(1, 1000) i; \
         CREATE TABLE cut AS SELECT i FROM generate_series(1, 1000) i; CHECKPOINT",
    );
    let path = |relation: &str| server.psql(&format!("SELECT pg_relation_filepath('{relation}')"));
    let (early, cut) = (path("early"), path("cut"));
    let wound = Wound::make(server, &early, 5, "public.early", Some("postgres"));
    // Rubbish over a whole page: whatever its LSN says, no WAL repairs it.
    let file = File::options().write(true).open(server.data().join(&early)).expect("a file");
    file.write_all_at(&[0x5A; PAGE as usize], 8 * PAGE).expect("write a page");
    // A page that was never written is none.
    file.write_all_at(&[0; PAGE as usize], 9 * PAGE).expect("write a page");
    let file = File::options().write(true).open(server.data().join(&cut)).expect("a file");
    let size = file.metadata().expect("a size").len();
    file.set_len(size - 100).expect("cut a file");

    let answer =
        server.query("postgres", "postgres", "SELECT ark.backup_start(wait => true)").expect("a backup");
    let backup = answer.rows;
    assert_eq!(ready.backup_row("status, damaged_pages", &backup), "complete|2");
    let log = server.log();
    let warned = |part: &str| {
        let found = log.lines().find(|line| line.contains("WARNING") && line.contains(part));
        found.unwrap_or_else(|| panic!("no warning names {part}:\n{log}")).to_string()
    };
    let line = warned(&wound.path);
    assert!(line.contains("relation public.early of database \"postgres\""), "{line}");
    assert!(line.contains("blocks 5, 8 (2 in all)"), "{line}");
    let line = warned("ends within a page");
    assert!(line.contains(&cut) && line.contains("(public.cut in database postgres)"), "{line}");
    assert!(
        answer.messages.iter().any(|message| message.message.contains("ends within a page")),
        "{:?}",
        answer.messages
    );
}
