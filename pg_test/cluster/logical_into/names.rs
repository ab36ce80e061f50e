//! Databases that get their names last, and names that are long, foreign, or somebody else's.

use super::{Shop, code, databases, dump, shop, shop_with};
use crate::support::{fails_with, ready};
use pg_ark_contract::ErrorKind;
use pg_ark_testkit::process::{INTERRUPT, KILL, send_signal};
use pg_ark_testkit::{Cluster, LONG, SHORT, wait_until};
use std::process::Stdio;

/// Rows that take a while to be restored, when a server says so.
const SLOW: &str = "CREATE FUNCTION slow(int) RETURNS boolean LANGUAGE sql AS \
  'SELECT pg_sleep(coalesce(current_setting(''test.delay'', true), ''0'')::float) IS NOT NULL'; \
  CREATE TABLE late (i int CHECK (slow(i))); INSERT INTO late SELECT generate_series(1, 2000)";

#[test]
fn a_database_that_is_replaced_is_there_until_the_end() {
    let shop = shop_with(Cluster::builder(), SLOW);
    let server = shop.server();
    shop.sql("CREATE TABLE newer AS SELECT 1 AS i");
    let before = dump(server, "shop", &["--create"]);
    server.psql("ALTER ROLE postgres SET test.delay = '0.02'");
    let loading = "SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'pg_ark_scratch_%' AND wait_event = 'PgSleep'";
    let refused = Some(code(ErrorKind::ServerNotReady));
    for (signal, status) in
        [(Some(INTERRUPT), Some(code(ErrorKind::Cancelled))), (Some(KILL), None), (None, refused)]
    {
        let mut pgark = shop.to(server, &["--database", "shop", "--clean"]);
        let mut child = pgark.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("pgark");
        wait_until("a restore that loads rows", LONG, || server.psql(loading) == "1");
        match signal {
            Some(signal) => assert!(send_signal(child.id(), signal)),
            None => {
                server.psql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'",
                );
            }
        }
        assert_eq!(child.wait().expect("an end").code(), status);
        assert_eq!(dump(server, "shop", &["--create"]), before, "{signal:?}");
        wait_until("the end of its session", SHORT, || server.psql(loading) == "0");
        assert_eq!(databases(server).contains("pg_ark_scratch_"), status.is_none(), "{signal:?}");
        if status.is_none() {
            shop.restore(&["--database", "postgres", "--as", "sweeps"]);
            assert_eq!(databases(server), "postgres, shop, sweeps, template0, template1");
        }
    }
    server.psql("ALTER ROLE postgres RESET ALL; ALTER ROLE postgres SET statement_timeout = 1");
    server.psql("SET statement_timeout = 0; ALTER ROLE postgres SET default_transaction_read_only = on");
    let output = shop.restore(&["--database", "shop", "--clean"]);
    assert!(output.stderr.contains("needs space for both"), "{output}");
    let psql = |sql: &str| server.psql_db("shop", &format!("SET statement_timeout = 0; {sql}"));
    assert_eq!(psql("SELECT to_regclass('newer') IS NULL, (SELECT count(*) FROM late)"), "t|2000");
}

#[test]
fn who_may_make_databases_only_gets_them() {
    let shop = shop();
    let server = shop.server();
    server.psql("CREATE ROLE small LOGIN CREATEDB");
    let text =
        format!("host={} port={} user=small dbname=postgres", server.socket_dir().display(), server.port());
    let mut pgark = shop.ready.pgark();
    pgark.args(["restore", &shop.backup, "--into", &text, "--database", "shop", "--as", "mine"]);
    let output = fails_with(&mut pgark, code(ErrorKind::RestoreIncomplete));
    for word in [
        "role \"postgres\", is none that \"small\" may give it to",
        "may not give anything to \"clerk\", \"postgres\"",
    ] {
        assert!(output.stderr.contains(word), "\"{word}\" expected: {output}");
    }
    let owner =
        "SELECT datdba::regrole, (SELECT count(*) FROM sales.orders) FROM pg_database WHERE datname = 'mine'";
    assert_eq!(server.psql_db("mine", owner), "small|1000");
}

#[test]
fn long_names_are_cut_as_the_server_cuts_them() {
    let long = format!("long_{}", "0123456789".repeat(6));
    let (long, index) = (&long[..62], "i".repeat(61));
    let shop = shop_with(
        Cluster::builder(),
        &format!(
            "CREATE TABLE {long} (id serial PRIMARY KEY, c int UNIQUE, d int CHECK (d > 0)); INSERT INTO {long} SELECT i, i, i FROM generate_series(1, 9) i; \
             CREATE INDEX {index}_1 ON {long} (d); CREATE INDEX {index}_2 ON {long} (c, d); CREATE STATISTICS {index}_3 ON c, d FROM {long}"
        ),
    );
    shop.restore(&["--table", long, "--as", "short"]);
    let names = |begin: &str| {
        shop.sql(&format!(
            "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE starts_with(relname, '{begin}') AND relkind <> 't'"
        ))
    };
    let cut = format!("short_{}", "i".repeat(57));
    assert_eq!(names("short"), format!("short short_c_key short_id_seq {}1 {cut} short_pkey", &cut[..62]));
    // As long as can be, and cut at letters.
    let widest = format!("{}x", "ü".repeat(31));
    shop.restore(&["--table", long, "--as", &widest]);
    assert_eq!(names(&"ü".repeat(15)).split(' ').count(), 6, "{}", names("ü"));
    assert_eq!(shop.sql(&format!("SELECT count(*) FROM \"{widest}\"")), "9");
    // Its sequence would not come back with another table.
    shop.refused(&["--table", "plain", "--as", &widest, "--clean"], ErrorKind::TargetNotEmpty, &["_id_seq"]);
    shop.sql(&format!("ALTER TABLE \"{widest}\" DROP COLUMN id"));
    shop.restore(&["--table", "plain", "--as", &widest, "--clean"]);
    let long = "n".repeat(64);
    for what in [["--database", "shop"], ["--table", "plain"], ["--schema", "sales"]] {
        let options = [what[0], what[1], "--as", &long];
        shop.refused(&options, ErrorKind::InvalidArgument, &["64 bytes"]);
    }
}

#[test]
fn names_in_another_encoding_are_read() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    server.psql("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    let sql = |sql: &str| server.psql_db("latin", sql);
    sql(
        "CREATE TABLE U&\"gr\\00fcn\" (id serial PRIMARY KEY, t text); CREATE TABLE U&\"gr\\00f6n\" (i int); CREATE SCHEMA U&\"\\00e4\"; \
         INSERT INTO U&\"gr\\00fcn\" (t) VALUES (U&'\\00e9'); CREATE TABLE U&\"\\00e4\".a (i int); COMMENT ON DATABASE latin IS U&'\\00df'",
    );
    let backup =
        ready.try_backup("kind => 'logical', databases => '{latin}', wait => true").expect("a backup");
    let shop = Shop { ready, backup };
    let server = shop.server();
    let before = dump(server, "latin", &["--encoding=UTF8"]);
    let shown = shop.restore(&["--database", "latin", "--as", "x", "--dry-run"]);
    assert!(shown.stdout.contains("TABLE public grün postgres"), "{shown}");
    server.psql_db("latin", "DROP TABLE U&\"gr\\00fcn\"");
    shop.restore(&["--table", "grün"]);
    shop.restore(&["--table", "grün", "--clean"]);
    shop.restore(&["--table", "grün", "--as", "süß"]);
    shop.restore(&["--table", "grün", "--as", "süß", "--clean"]);
    shop.restore(&["--schema", "ä", "--clean"]);
    shop.restore(&["--schema", "ä", "--as", "ö"]);
    shop.restore(&["--schema", "ä", "--as", "ö", "--clean"]);
    let copies = "SELECT ascii(t), pg_get_serial_sequence(U&'\"s\\00fc\\00df\"', 'id') = U&'public.\"s\\00fc\\00df_id_seq\"' FROM U&\"s\\00fc\\00df\"";
    assert_eq!(server.psql_db("latin", copies), "233|t");
    server.psql_db("latin", "DROP TABLE U&\"s\\00fc\\00df\"; DROP SCHEMA U&\"\\00f6\" CASCADE");
    assert_eq!(dump(server, "latin", &["--encoding=UTF8"]), before);
    shop.restore(&["--database", "latin", "--as", "copy"]);
    let comment =
        "SELECT to_hex(ascii(shobj_description(oid, 'pg_database'))) FROM pg_database WHERE datname = 'copy'";
    assert_eq!(server.psql(comment), "df");
}
