//! What `--clean` takes away: what was named and what belongs to it, and nothing else; and what a selection takes along.

use super::*;

/// A partitioned table, a table with many things of its own, a view that needs a key, a default of another table's sequence.
const MORE: &str = r#"
CREATE TABLE part (id int, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (100);
INSERT INTO part SELECT generate_series(1, 9);
CREATE TABLE wide (id serial PRIMARY KEY, t text);
CREATE TABLE y (id serial); CREATE TABLE x (id int DEFAULT nextval('y_id_seq'), o oid);
SELECT nextval('y_id_seq');
CREATE TABLE defview (id int PRIMARY KEY, n text); INSERT INTO defview VALUES (1, 'one');
CREATE VIEW grp AS SELECT id, n, count(*) FROM defview GROUP BY id;
"#;

const TAKEN: ErrorKind = ErrorKind::TargetNotEmpty;

/// The words of an output, however they are broken into lines.
fn said(output: &Output) -> String {
    output.stderr.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn partitions_and_sequences_that_the_backup_does_not_know_are_kept() {
    let shop = shop_with(Cluster::builder(), MORE);
    let before = dump(shop.server(), "shop", &[]);
    shop.sql("CREATE TABLE part_2025 PARTITION OF part FOR VALUES FROM (100) TO (200); INSERT INTO part VALUES (150)");
    let clean = ["--table", "part", "--clean"];
    shop.refused(&clean, TAKEN, &["table public.part_2025", "would not come back", "DETACH PARTITION"]);
    shop.sql("ALTER TABLE part DETACH PARTITION part_2025");
    shop.restore(&clean);
    assert_eq!(shop.sql("SELECT count(*) FROM part_2025"), "1");
    shop.sql("DROP TABLE part_2025");
    // Beside: partitions of the copy that a restore made go with it, others do not.
    shop.restore(&["--table", "part", "--as", "np"]);
    shop.restore(&["--table", "part", "--as", "np", "--clean"]);
    shop.sql("CREATE TABLE np_x PARTITION OF np FOR VALUES FROM (100) TO (200)");
    shop.refused(&["--table", "part", "--as", "np", "--clean"], TAKEN, &["table public.np_x"]);
    shop.sql("DROP TABLE np; CREATE SEQUENCE other_seq OWNED BY wide.t");
    let clean = ["--table", "wide", "--clean"];
    shop.refused(&clean, TAKEN, &["sequence public.other_seq", "OWNED BY NONE"]);
    shop.sql("DROP SEQUENCE other_seq");
    shop.restore(&clean);
    assert_eq!(dump(shop.server(), "shop", &[]), before);
}

#[test]
fn what_is_another_tables_or_another_kind_of_thing_is_in_the_way() {
    let shop = shop_with(Cluster::builder(), MORE);
    let in_way = |names: &str| {
        shop.refused(&["--table", "part", "--clean"], TAKEN, &[names, "belongs there to nothing"])
    };
    shop.sql(
        "DROP TABLE part; CREATE TABLE hist (id int) PARTITION BY RANGE (id); \
              CREATE TABLE part_1 PARTITION OF hist FOR VALUES FROM (0) TO (9); INSERT INTO hist VALUES (1)",
    );
    in_way("public.part_1,");
    shop.sql("ALTER TABLE hist DETACH PARTITION part_1; DROP TABLE hist");
    in_way("public.part_1,");
    // Who names it means it.
    shop.restore(&["--table", "part", "--table", "part_1", "--clean"]);
    assert_eq!(shop.sql("SELECT count(*) FROM part"), "9");
    shop.sql("DROP TABLE part; CREATE TABLE part_pkey (i int)");
    let output = shop.refused(&["--table", "part", "--clean"], TAKEN, &["public.part_pkey,"]);
    assert!(!output.stderr.contains("Dropped first"), "{output}");
}

#[test]
fn what_goes_with_a_table_and_does_not_come_back_is_named() {
    let shop = shop_with(Cluster::builder(), MORE);
    shop.sql(
        "CREATE INDEX myix ON wide (t); CREATE STATISTICS myst ON id, t FROM wide; CREATE POLICY mypol ON wide USING (true); \
         ALTER TABLE wide ENABLE ROW LEVEL SECURITY; GRANT SELECT ON wide TO clerk; GRANT UPDATE (t) ON wide TO clerk; \
         CREATE FUNCTION tf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; \
         CREATE TRIGGER mytrig BEFORE INSERT ON wide FOR EACH ROW EXECUTE FUNCTION tf(); \
         CREATE RULE myrule AS ON DELETE TO wide DO INSTEAD NOTHING; \
         CREATE PUBLICATION theirs FOR TABLE wide (id) WHERE (id > 5); CREATE TABLE seen (i int)",
    );
    let words = [
        "index public.myix",
        "statistics object public.myst",
        "policy mypol",
        "row security of table public.wide",
        "privileges on table public.wide",
        "privileges on column t",
        "trigger mytrig",
        "rule myrule",
    ];
    let shown = shop.restore(&["--table", "wide", "--clean", "--dry-run", "--format", "json"]);
    let output = shop.restore(&["--table", "wide", "--clean"]);
    for word in words {
        assert!(shown.stdout.contains(word), "\"{word}\" expected: {shown}");
        assert!(said(&output).contains(word), "\"{word}\" expected: {output}");
    }
    assert!(said(&output).contains("Dropped first: public.wide, public.wide_id_seq"), "{output}");
    let again = "ALTER PUBLICATION theirs ADD TABLE public.wide (id) WHERE ((id > 5))";
    assert!(said(&output).contains(again), "{output}");
    shop.sql(again);
    // As it was in the backup: nothing to tell.
    shop.sql("DROP PUBLICATION theirs");
    let output = shop.restore(&["--table", "wide", "--clean"]);
    assert!(!output.stderr.contains("Goes with it"), "{output}");
    let output = shop.restore(&["--database", "shop", "--table", "sales.orders", "--clean"]);
    assert!(!output.stderr.contains("Goes with it"), "{output}");
    shop.restore(&["--table", "sales.orders", "--as", "monday"]);
    shop.sql("CREATE PUBLICATION theirs FOR TABLE sales.monday");
    let output = shop.restore(&["--table", "sales.orders", "--as", "monday", "--clean"]);
    assert!(!output.stderr.contains("Goes with it"), "{output}");
    assert!(said(&output).contains("ALTER PUBLICATION theirs ADD TABLE sales.monday"), "{output}");
}

#[test]
fn nothing_outside_of_a_schema_goes_with_it() {
    let shop = shop_with(Cluster::builder(), MORE);
    shop.sql(
        "CREATE SCHEMA keep; CREATE FUNCTION sales.cmp10(int, text) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 0'; \
         CREATE TABLE sales.p (id int) PARTITION BY RANGE (id); CREATE TABLE sales.made (id int GENERATED ALWAYS AS IDENTITY, s serial); \
         CREATE FUNCTION sales.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE FUNCTION sales.r(sales.mood) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    );
    let clean = ["--database", "shop", "--schema", "sales", "--clean"];
    for (make, drop, word) in [
        (
            "CREATE OPERATOR FAMILY keep.fam9 USING btree; ALTER OPERATOR FAMILY keep.fam9 USING btree ADD FUNCTION 1 (int, text) sales.cmp10(int, text)",
            "DROP OPERATOR FAMILY keep.fam9 USING btree",
            "operator family keep.fam9",
        ),
        (
            "CREATE FUNCTION sales.v(text[], oid) RETURNS bool LANGUAGE sql AS 'SELECT true'; CREATE FOREIGN DATA WRAPPER w VALIDATOR sales.v",
            "DROP FOREIGN DATA WRAPPER w",
            "foreign-data wrapper w",
        ),
        (
            "CREATE TABLE keep.p1 PARTITION OF sales.p FOR VALUES FROM (0) TO (9)",
            "DROP TABLE keep.p1",
            "table keep.p1",
        ),
        ("CREATE SEQUENCE keep.s", "DROP SEQUENCE keep.s", ""),
        (
            "CREATE STATISTICS keep.st ON customer, amount FROM sales.orders",
            "DROP STATISTICS keep.st",
            "keep.st",
        ),
        (
            "CREATE CAST (sales.mood AS int) WITH FUNCTION sales.r(sales.mood)",
            "DROP CAST (sales.mood AS int)",
            "cast from sales.mood",
        ),
        (
            "CREATE TABLE keep.t (i int); CREATE POLICY p ON keep.t USING (i = sales.f())",
            "DROP TABLE keep.t",
            "policy p on table keep.t",
        ),
        (
            "CREATE TABLE keep.i (i int DEFAULT sales.f())",
            "DROP TABLE keep.i",
            "default value for column i of table keep.i",
        ),
    ] {
        shop.sql(make);
        if !word.is_empty() {
            shop.refused(&clean, TAKEN, &["depend on what --clean drops", word]);
        }
        shop.sql(drop);
    }
    let keep = dump(shop.server(), "shop", &["--schema=keep"]);
    shop.restore(&clean);
    assert_eq!(dump(shop.server(), "shop", &["--schema=keep"]), keep);
    assert_eq!(shop.sql("SELECT to_regclass('sales.made') IS NULL, count(*) FROM sales.orders"), "t|1000");
    shop.sql("CREATE VIEW sales.pv AS SELECT * FROM plain; DELETE FROM plain");
    shop.restore(&["--schema", "sales", "--table", "plain", "--clean"]);
    assert_eq!(shop.sql("SELECT to_regclass('sales.pv') IS NULL, count(*) FROM plain"), "t|10");
    // Dropped to have another's name: what hangs on the schema itself is told.
    shop.restore(&["--schema", "sales", "--as", "then"]);
    shop.sql(
        "CREATE PUBLICATION all_then FOR TABLES IN SCHEMA \"then\"; ALTER DEFAULT PRIVILEGES IN SCHEMA \"then\" GRANT SELECT ON TABLES TO clerk",
    );
    let output = shop.restore(&["--schema", "sales", "--as", "then", "--clean"]);
    let words = said(&output);
    assert!(words.contains("ALTER PUBLICATION all_then ADD TABLES IN SCHEMA \"then\""), "{output}");
    assert!(words.contains("default privileges on new relations"), "{output}");
}

#[test]
fn all_that_depends_on_a_table_is_named_at_once() {
    let shop = shop();
    shop.sql("CREATE VIEW va AS SELECT id FROM sales.orders; CREATE MATERIALIZED VIEW mb AS SELECT id FROM sales.orders; \
              CREATE TABLE refs (o bigint REFERENCES sales.orders)");
    let words =
        ["view public.va", "materialized view public.mb", "refs_o_fkey", "depend on what --clean drops"];
    shop.refused(&["--table", "sales.orders", "--clean"], TAKEN, &words);
}

#[test]
fn what_comes_between_plan_and_drop_is_kept() {
    let shop = shop_with(Cluster::builder(), MORE);
    let server = shop.server();
    let mut other = server.session_as("shop", "postgres");
    other.ask("BEGIN; CREATE TABLE part_late PARTITION OF part FOR VALUES FROM (100) TO (200); INSERT INTO part VALUES (150)");
    let mut pgark = shop.to(server, &["--table", "part", "--clean"]);
    let child = pgark.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("pgark");
    wait_until("a restore that waits for the lock", LONG, || {
        server
            .psql("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = 'shop'")
            == "1"
    });
    other.ask("COMMIT");
    let ended = child.wait_with_output().expect("an end");
    let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(code(ErrorKind::ServerNotReady)), "{stderr}");
    assert!(
        stderr.contains("would drop what was not named") && stderr.contains("table public.part_late"),
        "{stderr}"
    );
    assert_eq!(shop.sql("SELECT count(*) FROM part"), "10");
}

#[test]
fn a_view_comes_with_its_rule_and_a_needed_sequence_without_its_owner() {
    let shop = shop_with(Cluster::builder(), &format!("{MORE} SELECT lo_create(0)"));
    let before = dump(shop.server(), "shop", &[]);
    shop.restore(&["--table", "grp", "--as", "grp2"]);
    assert_eq!(shop.sql("SELECT * FROM grp2"), "1|one|1");
    shop.sql("DROP VIEW grp2");
    shop.restore(&["--table", "grp", "--clean"]);
    let server = shop.server();
    server.psql("CREATE DATABASE other");
    let into = |options: &[&str]| {
        let mut pgark = shop.ready.pgark();
        let other = format!("{} dbname=other", conninfo(server));
        pgark.args(["restore", &shop.backup, "--into", &other, "--database", "shop"]).args(options);
        run(&mut pgark)
    };
    let output = into(&["--table", "grp"]);
    assert_eq!(output.code(), code(ErrorKind::ServerNotReady), "{output}");
    assert_eq!(server.psql_db("other", "SELECT to_regclass('grp') IS NULL"), "t");
    let output = into(&["--table", "x"]);
    assert!(output.success() && said(&output).contains("large objects"), "{output}");
    assert_eq!(
        server.psql_db("other", "SELECT nextval('y_id_seq'), pg_get_serial_sequence('x', 'id') IS NULL"),
        "2|t"
    );
    // A table of that name that is another one keeps what it has.
    server.psql_db("other", "DROP TABLE x; DROP SEQUENCE y_id_seq; CREATE TABLE y (id int)");
    assert!(into(&["--table", "x"]).success());
    server.psql_db("other", "DROP TABLE y");
    assert_eq!(server.psql_db("other", "SELECT to_regclass('y_id_seq')"), "y_id_seq");
    server.psql_db("other", "DROP TABLE x; DROP SEQUENCE y_id_seq");
    assert!(into(&["--table", "x", "--table", "y"]).success());
    assert_eq!(server.psql_db("other", "SELECT pg_get_serial_sequence('y', 'id')"), "public.y_id_seq");
    assert_eq!(dump(server, "shop", &[]), before);
}

#[test]
fn data_of_an_extensions_table_stays_out_of_its_schema() {
    let shop = shop();
    let server = shop.server();
    server.psql(
        "SELECT ark.schedule('nightly', '0 3 * * *', 'logical'); CREATE TABLE ark.mine AS SELECT 1 AS i",
    );
    let backup = shop.ready.try_backup("kind => 'logical', wait => true").expect("a backup");
    let shop = Shop { backup, ..shop };
    let server = shop.server();
    server.psql("DROP TABLE ark.mine; UPDATE ark.job SET name = 'other'");
    let into = |options: &[&str]| {
        let mut pgark = shop.ready.pgark();
        pgark
            .args(["restore", &shop.backup, "--into", &conninfo(server), "--database", "postgres"])
            .args(options);
        let output = run(&mut pgark);
        assert!(output.success() && said(&output).contains("TABLE DATA ark.job"), "{output}");
    };
    into(&["--schema", "ark"]);
    into(&["--schema", "ark", "--clean"]);
    assert_eq!(server.psql("SELECT string_agg(name, ' '), (SELECT i FROM ark.mine) FROM ark.job"), "other|1");
    server.psql("DROP TABLE ark.mine");
    into(&["--schema", "ark", "--clean"]);
    assert_eq!(server.psql("SELECT i FROM ark.mine"), "1");
}

#[test]
fn subscriptions_and_default_privileges_are_told() {
    let shop = shop_with(Cluster::builder().conf("wal_level = 'logical'"), MORE);
    shop.sql("CREATE ROLE bob; ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO bob; ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO PUBLIC");
    shop.sql("CREATE SUBSCRIPTION feed CONNECTION 'host=/nowhere' PUBLICATION p WITH (connect = false)");
    shop.sql("INSERT INTO pg_subscription_rel SELECT oid, 'wide'::regclass, 'r' FROM pg_subscription");
    let output = shop.restore(&["--table", "wide", "--clean"]);
    let words =
        ["subscription feed of the server gets public.wide no longer", "copy_data = false", "bob=r/postgres"];
    for word in words {
        assert!(said(&output).contains(word), "\"{word}\" expected: {output}");
    }
    assert!(!said(&output).contains("=X/postgres"), "nobody wonders about functions: {output}");
}
