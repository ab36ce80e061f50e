//! A server with everything that a logical backup must bring back, and how two servers are compared.
//!
//! * `logical_world/globals.sql`: roles, tablespaces, databases. `objects.sql`: one database with an object of every kind.
//!   `extensions.sql`: one with the extensions that the server has.
//! * [`Picture`]: all that can be asked of a server; two that are equal have equal dumps, data, values of sequences, large
//!   objects, properties.

use crate::support::{Ready, enabled};
use pg_ark_testkit::{
    Builder, Checksums, Cluster, Pg, Repo, Scratch, assert_same_data, chown_to_server, chown_tree_to_server,
    command, run, run_ok,
};
use std::fs;
use std::path::{Path, PathBuf};

const GLOBALS: &str = include_str!("logical_world/globals.sql");
const OBJECTS: &str = include_str!("logical_world/objects.sql");
const EXTENSIONS: &str = include_str!("logical_world/extensions.sql");

/// Folders of the tablespaces, below the world's room.
const SPACES: [&str; 3] = ["fast", "cold & slow", "base"];

/// Names of databases that are hard on shells, paths, connection strings and names of files.
const NAMES: [&str; 22] = [
    "with two  spaces ",
    "it's \"quoted\"",
    "slash/and\\back",
    "../up",
    "100%s %2F",
    ".hidden",
    "-dash",
    "--clean",
    "größe €",
    "日本語",
    "a=b host=nowhere",
    "postgresql://elsewhere/x",
    "UPPER",
    "upper",
    "$(touch hacked)`x`",
    "a;b|c&d<e>f*g?h[i]",
    "globals",
    "backup.json",
    "shop.dump",
    "tab\tin it",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "éééééééééééééééééééééééééééééééx",
];

/// A server full of everything. Its tablespaces are in `room`.
pub struct World {
    pub ready: Ready,
    pub room: PathBuf,
}

/// Starts a server with everything; the hard names only where the server's encoding is UTF-8.
#[track_caller]
pub fn world(builder: Builder, hard_names: bool) -> World {
    let server = builder.conf("wal_level = logical").start();
    let room = server.base().join("room");
    make_spaces(&room);
    let globals = format!("\\set room '{}'\n{GLOBALS}", room.display());
    server.psql(&globals);
    server.psql_db("shop", OBJECTS);
    server.psql_db("pattern", EXTENSIONS);
    fill_the_others(&server);
    if hard_names {
        fill_hard_names(&server);
    }
    // The world's settings came by ALTER SYSTEM.
    server.restart();
    let ready = enabled(server, Repo::new());
    let columns = "name => 'by night', cron => '17 3 * * 1-5', kind => 'logical'";
    ready.server.psql(&format!("SELECT ark.schedule({columns})"));
    World { ready, room }
}

/// Makes the empty folders that the tablespaces need, as after the loss of a disk.
pub fn make_spaces(room: &Path) {
    for space in SPACES {
        fs::create_dir_all(room.join(space)).expect("a folder");
    }
    chown_tree_to_server(room);
}

fn fill_the_others(server: &Cluster) {
    let utf8 = "SET client_encoding = 'UTF8'; ";
    server.psql_db(
        "latin",
        &format!(
            "{utf8} CREATE TABLE \"größe\" AS SELECT 'é' || i AS \"naïve\" FROM generate_series(1, 9) i"
        ),
    );
    // Bytes that are no text in any encoding.
    server.psql_db("ascii", r"CREATE TABLE bytes AS SELECT E'\xe9\xff\x80' AS t");
    server.psql_db(
        "read only",
        "SET default_transaction_read_only = off; CREATE TABLE kept AS SELECT i FROM generate_series(1, 9) i",
    );
    server.psql_db("closed to most", "CREATE TABLE kept AS SELECT i FROM generate_series(1, 9) i");
    server.psql_db(
        "template1",
        "CREATE SCHEMA ours; CREATE TABLE ours.everywhere AS SELECT 'as all others' AS t; \
         GRANT SELECT ON ours.everywhere TO readers",
    );
    server.psql(
        "CREATE TABLE at_home AS SELECT i FROM generate_series(1, 9) i; COMMENT ON DATABASE postgres IS 'home'; \
         ALTER DATABASE postgres SET lock_timeout = '7min'; REVOKE TEMPORARY ON DATABASE postgres FROM PUBLIC",
    );
}

fn fill_hard_names(server: &Cluster) {
    for name in NAMES {
        server.psql(&format!("CREATE DATABASE {}", quoted(name)));
        server.psql_db(
            name,
            "CREATE TABLE mine AS SELECT current_database() AS name, i FROM generate_series(1, 9) i",
        );
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Facts about the server as a whole. OIDs and transaction numbers are new in every cluster.
const SHARED: &str = "
SELECT name, setting FROM pg_settings WHERE name IN ('data_checksums', 'wal_segment_size', 'server_encoding',
       'data_directory_mode', 'lc_messages', 'lc_monetary', 'lc_numeric', 'lc_time', 'default_text_search_config') ORDER BY 1;
SELECT to_jsonb(d) - '{oid,datdba,dattablespace,datfrozenxid,datminmxid,datlastsysoid,datacl}'::text[], datdba::regrole, spcname,
       (SELECT array_agg(item::text ORDER BY item::text) FROM unnest(datacl) item)
  FROM pg_database d JOIN pg_tablespace t ON t.oid = dattablespace ORDER BY datname;
SELECT spcname, spcowner::regrole, spcacl, spcoptions FROM pg_tablespace ORDER BY 1;
SELECT to_jsonb(r) - 'oid' FROM pg_authid r ORDER BY rolname;
SELECT roleid::regrole::text, member::regrole::text, grantor::regrole::text, to_jsonb(m) - '{oid,roleid,member,grantor}'::text[]
  FROM pg_auth_members m ORDER BY 1, 2, 3;
SELECT datname, setrole::regrole::text, setconfig FROM pg_db_role_setting LEFT JOIN pg_database d ON d.oid = setdatabase ORDER BY 1, 2;
SELECT parname, paracl FROM pg_parameter_acl ORDER BY 1;
SELECT subname, subenabled, subslotname, subpublications FROM pg_subscription ORDER BY 1;
";

/// Facts about one database.
const DATABASE: &str = r#"
SET search_path = pg_catalog;
SELECT extname, extversion, extnamespace::regnamespace FROM pg_extension ORDER BY 1;
SELECT oid, lomowner::regrole, lomacl, md5(lo_get(oid)) FROM pg_largeobject_metadata ORDER BY 1;
SELECT c.oid::regclass::text, relkind, spcname, am.amname, relpersistence FROM pg_class c LEFT JOIN pg_tablespace t ON t.oid = reltablespace
  LEFT JOIN pg_am am ON am.oid = relam WHERE relnamespace::regnamespace::text NOT IN ('pg_catalog', 'information_schema', 'pg_toast') ORDER BY 1;
SELECT indexrelid::regclass::text, indisvalid, indisclustered, indisreplident FROM pg_index WHERE indexrelid >= 16384
   AND indrelid::regclass::text NOT LIKE 'pg_toast.%' ORDER BY 1;
"#;

/// All that can be asked of a server.
pub struct Picture {
    /// What `pg_dumpall` prints.
    dump: Vec<u8>,
    facts: String,
    data: Checksums,
}

impl Picture {
    /// Asks a server for everything.
    #[track_caller]
    pub fn of(server: &Cluster) -> Picture {
        let mut facts = server.psql(SHARED);
        for database in server.psql("SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1").lines() {
            facts.push_str(&format!("\n--- {database}\n{}", server.psql_db(database, DATABASE)));
        }
        Picture { dump: dump_of(server), facts, data: server.logical_checksums() }
    }

    /// Fails with the differences unless both are equal.
    #[track_caller]
    pub fn assert_equal(&self, restored: &Picture) {
        assert_same_data(&self.data, &restored.data);
        assert_same_text("facts", self.facts.as_bytes(), restored.facts.as_bytes());
        assert_same_text("pg_dumpall", &self.dump, &restored.dump);
    }

    /// [`assert_equal`](Self::assert_equal) for a copy whose tablespaces are elsewhere.
    #[track_caller]
    pub fn assert_equal_elsewhere(&self, restored: &Picture) {
        let without = |picture: &Picture| {
            let is_place = |line: &&[u8]| line.starts_with(b"CREATE TABLESPACE ");
            let lines = picture.dump.split(|byte| *byte == b'\n').filter(|line| !is_place(line));
            Picture {
                dump: lines.collect::<Vec<&[u8]>>().join(&b'\n'),
                facts: picture.facts.clone(),
                data: picture.data.clone(),
            }
        };
        without(self).assert_equal(&without(restored));
    }

    /// Fails unless the data of both is equal, whatever their versions print about it.
    #[track_caller]
    pub fn assert_same_data(&self, restored: &Picture) {
        assert!(self.data.len() > 30, "only {} tables", self.data.len());
        // A newer version has more roles of its own.
        let ours = |data: &Checksums| -> Checksums {
            data.iter()
                .filter(|(name, _)| !name.starts_with("role pg_"))
                .map(|(name, sum)| (name.clone(), sum.clone()))
                .collect()
        };
        assert_same_data(&ours(&self.data), &ours(&restored.data));
    }

    /// A line of the dump begins like this.
    pub fn mentions(&self, start: &str) -> bool {
        self.dump.split(|byte| *byte == b'\n').any(|line| line.starts_with(start.as_bytes()))
    }
}

/// What the server's own `pg_dumpall` prints.
#[track_caller]
fn dump_of(server: &Cluster) -> Vec<u8> {
    let scratch = Scratch::new("dump");
    chown_to_server(scratch.path());
    let file = scratch.path().join("all.sql");
    run_ok(server.client("pg_dumpall").arg("--no-sync").arg("--file").arg(&file));
    let text = fs::read(&file).expect("a dump");
    // \restrict and \unrestrict carry a key that is random (psql's guard since 15.14).
    let random = |line: &&[u8]| line.starts_with(b"\\restrict ") || line.starts_with(b"\\unrestrict ");
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').filter(|line| !random(line)).collect();
    lines.join(&b'\n')
}

/// Fails with the output of `diff` unless both are equal.
#[track_caller]
fn assert_same_text(what: &str, original: &[u8], restored: &[u8]) {
    if original == restored {
        return;
    }
    let scratch = Scratch::new("diff");
    let (before, after) = (scratch.path().join("original"), scratch.path().join("restored"));
    fs::write(&before, original).and_then(|()| fs::write(&after, restored)).expect("two files");
    let shown = run(command("/usr/bin/diff").arg("--text").arg(&before).arg(&after)).stdout;
    let lines: Vec<&str> = shown.lines().take(80).collect();
    panic!("{what}: {} lines differ\n{}", shown.lines().count(), lines.join("\n"));
}

/// The oldest server that the machine has: 15's, which everything is tested with first.
///
/// # Panics
/// When it is not there.
pub fn older() -> Pg {
    Pg::at(Path::new("/usr/lib/postgresql/15/bin/pg_config"))
}
