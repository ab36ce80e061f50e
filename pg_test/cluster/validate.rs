//! `ark.validate`: says in SQL what `pgark verify` says, changes nothing, and can be stopped.

use crate::archiving::{archive_now, archiving, object};
use crate::support::{Ready, ready};
use pg_ark_testkit::{Cluster, SHORT, SqlError, run, wait_until};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

const LEVELS: [&str; 3] = ["record", "data", "pages"];

/// Rows as SQL gives them.
#[track_caller]
fn findings(ready: &Ready, arguments: &str) -> String {
    let columns = "json_build_array(backup, severity, object, finding, hint)";
    ready.server.psql(&format!("SELECT json_agg({columns}) FROM ark.validate({arguments})"))
}

/// The same rows as `pgark verify` gives them, and its exit code.
fn verified(ready: &Ready, arguments: &[&str]) -> (String, i32) {
    let output = run(ready.pgark().args(["--format", "json", "verify"]).args(arguments));
    let server = &ready.server;
    let path = server.base().join("findings.json");
    fs::write(&path, &output.stdout).expect("a file");
    let columns = "json_build_array(r->>'backup', r->>'severity', r->>'object', r->>'finding', r->>'hint')";
    let rows = format!("json_array_elements(pg_read_file('{}')::json)", path.display());
    let sql = format!("SELECT json_agg({columns}) FROM {rows} r");
    (server.psql(&sql), output.code())
}

#[test]
fn sql_and_program_give_equal_answers() {
    let ready = archiving(Cluster::builder().wal_segment_mb(1));
    let backup = ready.take_backup();
    archive_now(&ready);
    for level in LEVELS {
        assert_eq!(findings(&ready, &format!("level => '{level}'")), "", "{level}: all is well");
        assert_eq!(findings(&ready, &format!("'{backup}', '{level}'")), "", "{level}: all is well");
    }
    assert_eq!(verified(&ready, &[]), (String::new(), 0));
    let object: PathBuf = ready.backup_folder(&backup).join("base.tar.zst");
    let file = fs::OpenOptions::new().read(true).write(true).open(&object).expect("an object");
    let middle = file.metadata().expect("it").len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).expect("a byte");
    file.write_all_at(&[byte[0] ^ 0x10], middle).expect("another byte");
    assert_eq!(findings(&ready, "level => 'record'"), "", "nothing was read");
    for level in ["data", "pages"] {
        let said = findings(&ready, &format!("level => '{level}'"));
        assert!(said.contains(&backup) && said.contains("error") && said.contains("base.tar.zst"), "{said}");
        let (rows, code) = verified(&ready, &["--level", level]);
        assert_eq!((said, code), (rows, 13), "{level}");
    }
    let said = findings(&ready, &format!("'{backup}'"));
    assert!(said.contains("base.tar.zst"), "{said}");
}

#[test]
fn promise_6_a_lost_tail_of_the_archive_is_told_though_its_index_is_lost_too() {
    let ready = archiving(Cluster::builder().wal_segment_mb(1));
    ready.take_backup();
    let before = archive_now(&ready);
    let last = archive_now(&ready);
    let health = || ready.server.psql("SELECT health FROM ark.status");
    assert_eq!((findings(&ready, ""), health()), (String::new(), "ok".into()));
    let folder = object(&ready, &last).expect("it").parent().expect("a folder").to_path_buf();
    fs::remove_file(object(&ready, &last).expect("it")).expect("a segment");
    fs::remove_file(folder.join("index.jsonl")).expect("an index");
    let said = findings(&ready, "level => 'record'");
    assert!(said.contains(&format!("the last archived segment {last} is not in the archive")), "{said}");
    assert!(said.contains("\"error\""), "{said}");
    assert_eq!(health(), format!("the last archived segment {last} is not in the archive"));
    assert!(object(&ready, &before).is_some());
    // Counters that were reset tell nothing.
    ready.server.psql("SELECT pg_stat_reset_shared('archiver')");
    assert_eq!(health(), "ok");
    assert!(!findings(&ready, "level => 'record'").contains(&last));
}

#[test]
fn what_cannot_be_looked_at_is_an_error() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    let state = |arguments: &str| {
        let answer = server.try_psql(&format!("SELECT * FROM ark.validate({arguments})"));
        let error: SqlError = answer.expect_err(arguments);
        assert!(!error.hint().is_empty(), "{arguments}: {error}");
        error.sqlstate().to_string()
    };
    assert_eq!(state("'20000101T000000Z-full'"), "42704");
    assert_eq!(state("level => 'everything'"), "22023");
    assert_eq!(state("'../../etc'"), "22023");
    server.psql("CREATE TABLE large AS SELECT g, repeat('x', 200) FROM generate_series(1, 50000) g");
    let running = ready.start_slow(1024);
    assert_eq!(state(&format!("'{}'", running.backup)), "55000");
    let said = findings(&ready, "");
    assert!(said.contains("has no complete backup"), "{said}");
    assert!(!said.contains(&running.backup), "what is not complete is no finding: {said}");
    server.psql(&format!("SELECT ark.backup_stop('{}')", running.backup));
    assert_eq!(state(&format!("'{}'", running.backup)), "55000");
    // A repository that is gone is not one without findings.
    fs::rename(ready.repo.path(), server.base().join("away")).expect("a folder");
    assert_eq!(state(""), "58P01");
    fs::rename(server.base().join("away"), ready.repo.path()).expect("a folder");
}

#[test]
fn the_engine_is_niced_and_ends_with_its_query() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    server.psql("CREATE TABLE large AS SELECT g, md5(g::text) FROM generate_series(1, 2000000) g");
    ready.take_backup();
    let mut session = server.session();
    let pid = session.backend_pid();
    session.send("SELECT count(*) FROM ark.validate(level => 'pages')");
    wait_until("the engine", SHORT, || server.pids("pgark engine").len() == 1);
    let engine = server.pids("pgark engine")[0];
    // Field 19 of stat; the second is in parentheses.
    let nice = || {
        let stat = fs::read_to_string(format!("/proc/{engine}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(16).map(str::to_string)
    };
    wait_until("a lower priority", SHORT, || nice().is_none_or(|nice| nice == "10"));
    server.psql(&format!("SELECT pg_cancel_backend({pid})"));
    wait_until("its end", SHORT, || server.pids("pgark engine").is_empty());
    let answer = session.wait();
    // A machine that is fast enough was done.
    if let Err(error) = answer {
        assert_eq!(error.sqlstate(), "57014", "{error}");
    }
}
