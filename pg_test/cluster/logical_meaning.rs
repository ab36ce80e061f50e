//! Settings that change what a dump means, or end a restore: everything comes back as it was all the same.

use crate::support::ready;
use pg_ark_testkit::{Cluster, Scratch, StopMode, run, run_ok};
use std::fs;
use std::path::Path;
use std::process::Command;

const GERMAN: &str = "lc_monetary = 'de_DE.UTF-8'";
/// What is asked of the original and of each copy.
const SUM: &str = "SELECT sum(m::numeric), (SELECT count(*) FROM a WHERE t[2] IS NULL AND i[2] IS NULL), \
                   (SELECT count(*) FROM pg_indexes WHERE indexname = 'by_m'), \
                   (SELECT extract(epoch FROM j) FROM a), pg_get_viewdef('v'::regclass) FROM m";

#[test]
fn values_mean_what_they_meant() {
    let ready = ready(Cluster::builder().conf(GERMAN).conf("intervalstyle = 'sql_standard'"));
    let server = &ready.server;
    server.psql("CREATE DATABASE app");
    server.psql_db(
        "app",
        "CREATE DOMAIN price AS money; CREATE TABLE m (m price); INSERT INTO m SELECT (i + 0.34)::numeric::money FROM generate_series(1, 100000) i;
         CREATE INDEX by_m ON m (m);
         CREATE TABLE a (t text[], i int[], j interval); INSERT INTO a VALUES ('{a,NULL}', '{1,NULL}', '-1 year 2 days -3:00');
         CREATE VIEW v AS SELECT m FROM m WHERE (m IS NULL) IS NOT NULL",
    );
    for setting in [
        "array_nulls = off",
        "transform_null_equals = on",
        "temp_file_limit = '64kB'",
        "maintenance_work_mem = '1MB'",
    ] {
        server.psql(&format!("ALTER DATABASE app SET {setting}"));
    }
    let before = server.psql_db("app", SUM);
    assert!(before.contains("|1|1|") && !before.starts_with('|'), "{before}");
    // A library that no other machine has.
    let libraries = Scratch::new("libraries");
    let library = libraries.path().join("rare.so");
    let pkglibdir = run_ok(Command::new(server.pg().bindir().join("pg_config")).arg("--pkglibdir"));
    fs::copy(Path::new(pkglibdir.trim()).join("plpgsql.so"), &library).expect("a library");
    server.psql("CREATE DATABASE closed");
    server.psql_db("closed", "CREATE TABLE t AS SELECT 1 AS one");
    server.psql(&format!("ALTER DATABASE closed SET session_preload_libraries = '{}'", library.display()));
    server.psql("SELECT ark.backup_start('logical', wait => true)");
    fs::remove_file(&library).expect("the library");
    server.stop(StopMode::Fast);

    // More jobs than a server has connections.
    let room = Scratch::new("room");
    let data = room.path().join("data");
    let output =
        run(ready.pgark().args(["restore", "latest-logical", "--jobs", "120", "--pgdata"]).arg(&data));
    assert!(output.success(), "{output}");
    assert!(output.stderr.contains("/rare") && output.stderr.contains("lets nobody in"), "{output}");
    let copy = Cluster::open_restored_with(server.pg(), &data);
    copy.start();
    assert_eq!(copy.psql_db("app", SUM), before);
    copy.psql("ALTER DATABASE closed RESET session_preload_libraries");
    assert_eq!(copy.psql_db("closed", "SELECT one FROM t"), "1");

    // Into a server that writes money in another way.
    let other = Cluster::builder().conf("lc_monetary = 'C'").start();
    let conninfo = format!("host={} port={} user=postgres", other.socket_dir().display(), other.port());
    let restore = |options: &str| {
        let mut pgark = ready.pgark();
        run_ok(
            pgark
                .args(["restore", "--into", &conninfo, "--database", "app"])
                .args(options.split_whitespace()),
        );
    };
    restore("");
    assert_eq!(other.psql_db("app", SUM), before);
    // A limit of the server in use is its own.
    other.psql("ALTER DATABASE app RESET temp_file_limit");
    other.psql_db("app", "DROP TABLE m CASCADE");
    restore("--table m --table v");
    restore("--table m --as n");
    for table in ["m", "n"] {
        let sum = other.psql_db("app", &format!("SELECT sum(m::numeric) FROM {table}"));
        assert!(before.starts_with(&format!("{sum}|")), "{sum} in {table}: {before}");
    }
}
