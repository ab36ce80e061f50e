//! Databases whose encoding is not UTF-8: paths stay byte by byte as they are, labels and answers are converted.
//!
//! psql takes the database's encoding for its own here, so that bytes go through as they are; a statement says when it
//! wants them converted.

use crate::support::{Ready, ready};
use pg_ark_testkit::{Cluster, assert_same_data, chown_to_server};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const UTF8: &str = "SET client_encoding = 'UTF8'";
const LABEL: &str = "sauvegarde d''été";
const SHOWN: &str = "sauvegarde d'été";

fn in_encoding(encoding: &str) -> Ready {
    let builder = Cluster::builder().initdb_option("-E").initdb_option(encoding);
    let ready = ready(builder.initdb_option("--locale=C").directory_name("données"));
    assert_eq!(ready.server.psql("SHOW server_encoding"), encoding);
    ready
}

/// Makes a tablespace in a folder of this name; the path goes to the server as it is.
fn tablespace(server: &Cluster, folder: &str) -> PathBuf {
    let path = server.base().join(folder);
    fs::create_dir(&path).expect("a folder");
    chown_to_server(&path);
    server.psql(&format!("CREATE TABLESPACE space LOCATION '{}'", path.display()));
    server.psql(
        "CREATE TABLE there TABLESPACE space AS SELECT i, repeat('x', 100) FROM generate_series(1, 1000) i",
    );
    path
}

/// Takes a backup with a label outside ASCII, which every answer shows, and restores it in place.
fn comes_back(ready: &Ready, client: &str) {
    let server = &ready.server;
    let space = tablespace(server, "tsé");
    let ask = |sql: &str| server.psql(&format!("{client}; {sql}"));
    let backup = ask(&format!("SELECT ark.backup_start(label => '{LABEL}', wait => true)"));
    let row = format!("SELECT status, label, error FROM ark.list_backups() WHERE backup = '{backup}'");
    assert_eq!(ask(&row), format!("complete|{SHOWN}|"));
    assert_eq!(ask(&format!("SELECT ark.show('{backup}') ->> 'label'")), SHOWN);
    let record = fs::read_to_string(ready.backup_folder(&backup).join("backup.json")).expect("the record");
    assert!(record.contains(SHOWN) && record.contains("/tsé\""), "{record}");
    assert_eq!(ask("SELECT count(*) FROM ark.check() WHERE status = 'error'"), "0");

    let original = server.checksums();
    server.destroy();
    ready.restore_in_place(&backup);
    let map = fs::read(server.data().join("tablespace_map")).expect("a map");
    assert!(String::from_utf8_lossy(&map).contains(&space.display().to_string()));
    server.start();
    assert_same_data(&original, &server.checksums());
}

#[test]
fn a_latin1_database_comes_back() {
    comes_back(&in_encoding("LATIN1"), UTF8);
}

#[test]
fn a_database_without_encoding_comes_back() {
    comes_back(&in_encoding("SQL_ASCII"), "SET client_encoding = 'SQL_ASCII'");
}

#[test]
fn a_utf8_database_takes_what_a_latin1_client_writes() {
    let ready = ready(Cluster::builder());
    let label =
        "SET client_encoding = 'LATIN1'; SELECT ark.backup_start(label => E'\\u00e9t\\u00e9', wait => true)";
    let backup = ready.server.psql(label);
    assert_eq!(ready.backup_row("label", &backup), "été");
}

#[test]
fn what_is_no_text_is_refused_as_an_argument() {
    let ready = in_encoding("SQL_ASCII");
    for call in
        ["backup_start(label => E'\\xE9')", "backup_start(E'\\xE9')", "show(E'\\xE9')", "enable(E'\\xE9')"]
    {
        let error = ready.server.try_psql(&format!("SELECT * FROM ark.{call}")).expect_err(call);
        assert_eq!(error.sqlstate(), "22023", "{call}: {error}");
        assert!(error.hint().contains("UTF-8"), "{call}: {error}");
    }
}

#[test]
fn a_letter_that_the_database_does_not_know_is_replaced_in_answers() {
    let ready = in_encoding("LATIN1");
    // Written by a database that knows the letter.
    ready.server.psql("CREATE DATABASE wide ENCODING 'UTF8' TEMPLATE template0");
    let ask = |database: &str, sql: &str| ready.server.psql_db(database, &format!("{UTF8}; {sql}"));
    ask("wide", "CREATE EXTENSION pg_ark");
    let backup = ask("wide", "SELECT ark.backup_start(label => 'ή é', wait => true)");
    assert_eq!(ask("wide", "SELECT label FROM ark.list_backups()"), "ή é");
    assert_eq!(ask("postgres", "SELECT label FROM ark.list_backups()"), "? é");
    assert_eq!(ask("postgres", &format!("SELECT ark.show('{backup}') ->> 'label'")), "? é");
}

#[test]
fn a_path_that_is_not_utf8_says_what_to_do() {
    let ready = in_encoding("LATIN1");
    let server = &ready.server;
    let path = server.base().join(Path::new(OsStr::from_bytes(b"ts\xE9")));
    fs::create_dir(&path).expect("a folder");
    chown_to_server(&path);
    let location = server.base().join("tsé");
    server.psql(&format!("{UTF8}; CREATE TABLESPACE space LOCATION '{}'", location.display()));
    let error = ready.try_backup("wait => true").expect_err("a path that cannot be written down");
    assert!(error.stderr.contains("not UTF-8") && !error.hint().is_empty(), "{error}");
}

#[test]
fn errors_and_labels_arrive_in_every_encoding() {
    for (encoding, word, escaped) in [("LATIN1", "é", r"\u{e9}"), ("EUC_JP", "日", r"\u{65e5}")] {
        let ready = in_encoding(encoding);
        let ask = |sql: &str| ready.server.try_psql(&format!("{UTF8}; {sql}"));
        let error = ask(&format!("SELECT ark.show('{word}')")).expect_err(encoding);
        assert_eq!(error.sqlstate(), "42704", "{encoding}: {error}");
        assert!(error.message().contains(escaped), "{encoding}: {error}");
        ask(&format!("SELECT ark.backup_start(label => '{word}', wait => true)")).expect("a backup");
        assert_eq!(ask("SELECT label FROM ark.list_backups()").expect("a list"), word, "{encoding}");
    }
}
