//! Library, engine and SQL of different versions meet, and ALTER EXTENSION pg_ark UPDATE gives what a new installation does.
//!
//! `pg_test/upgrade` keeps the SQL of each release as it was installed. It is put beside the installed one for as long as a
//! test runs, which takes the rights of root, as some other tests here do.

use pg_ark_testkit::{Cluster, Pg, Repo, run_ok};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

const OLD: &str = "0.1.0";
const NOW: &str = env!("CARGO_PKG_VERSION");
/// SQLSTATE of versions that differ: object_not_in_prerequisite_state.
const MISMATCH: &str = "55000";
static PLACE: Mutex<()> = Mutex::new(());

/// The SQL of an old release where the server looks for it.
struct Placed {
    file: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

impl Placed {
    fn new(pg: &Pg) -> Placed {
        let _alone = PLACE.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = run_ok(Command::new(pg.bindir().join("pg_config")).arg("--sharedir"));
        let name = format!("pg_ark--{OLD}.sql");
        let file = Path::new(shared.trim()).join("extension").join(&name);
        let frozen = Path::new(env!("CARGO_MANIFEST_DIR")).join("pg_test/upgrade").join(&name);
        fs::copy(&frozen, &file).unwrap_or_else(|e| panic!("{file:?}: {e}: run the tests as root"));
        Placed { file, _alone }
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}

/// A server with the SQL of the old release in database `old`.
fn old_server() -> (Cluster, Placed) {
    let server = Cluster::start_new();
    let placed = Placed::new(server.pg());
    server.psql("CREATE DATABASE old");
    server.psql_db("old", &format!("CREATE EXTENSION pg_ark VERSION '{OLD}'"));
    (server, placed)
}

/// Everything that the schema holds, one line for each fact, in an order of its own and without numbers that an
/// installation gives.
const FACTS: &str = r#"
WITH members AS (
    SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON d.refobjid = e.oid
    WHERE d.refclassid = 'pg_extension'::regclass AND e.extname = 'pg_ark' AND d.deptype = 'e'
), relations AS (
    SELECT c.* FROM pg_class c WHERE c.relnamespace = 'ark'::regnamespace
), rights AS (
    SELECT 'function ' || oid::regprocedure AS what, proacl AS acl FROM pg_proc WHERE pronamespace = 'ark'::regnamespace
    UNION ALL SELECT 'relation ' || relname, relacl FROM relations
    UNION ALL SELECT 'schema', nspacl FROM pg_namespace WHERE nspname = 'ark'
    UNION ALL SELECT 'type ' || typname, typacl FROM pg_type WHERE typnamespace = 'ark'::regnamespace
    UNION ALL SELECT 'first rights of ' || pg_describe_object(classoid, objoid, objsubid) || ' ' || privtype::text, initprivs
        FROM pg_init_privs i JOIN members m ON m.classid = i.classoid AND m.objid = i.objoid
), facts (fact) AS (
    SELECT 'extension ' || extversion || ' ' || extrelocatable || ' ' || extnamespace::regnamespace || ' dumps ' ||
        coalesce((SELECT string_agg(t::regclass || ' where ' || w, ',' ORDER BY t) FROM unnest(extconfig, extcondition) u(t, w)), '')
        FROM pg_extension WHERE extname = 'pg_ark'
    UNION ALL SELECT 'member ' || pg_describe_object(classid, objid, 0) FROM members
    UNION ALL SELECT 'function ' || pg_get_functiondef(oid) || ' by ' || proowner::regrole || ' costs ' || procost || ' rows ' ||
        prorows || ' in ' || prosrc || ' of ' || coalesce(probin, '') || ' volatile ' || provolatile::text || ' config ' ||
        coalesce(proconfig::text, '') FROM pg_proc WHERE pronamespace = 'ark'::regnamespace
    UNION ALL SELECT 'relation ' || relname || ' ' || relkind::text || relpersistence::text || ' by ' || relowner::regrole || ' ' ||
        coalesce(reloptions::text, '') || relreplident::text || relrowsecurity || relhasrules || relhastriggers FROM relations
    UNION ALL SELECT 'column ' || r.relname || '.' || a.attname || ' ' || a.attnum || ' ' ||
        format_type(a.atttypid, a.atttypmod) || ' ' || a.attnotnull || ' ' || a.attcollation::regcollation || ' ' ||
        coalesce(pg_get_expr(d.adbin, d.adrelid), '') || ' ' || coalesce(a.attacl::text, '') || a.attstorage::text || a.attisdropped
        FROM relations r JOIN pg_attribute a ON a.attrelid = r.oid
        LEFT JOIN pg_attrdef d ON d.adrelid = r.oid AND d.adnum = a.attnum
    UNION ALL SELECT 'view ' || relname || ' ' || pg_get_viewdef(oid) FROM relations WHERE relkind = 'v'
    UNION ALL SELECT 'index ' || pg_get_indexdef(oid) FROM relations WHERE relkind = 'i'
    UNION ALL SELECT 'constraint ' || conname || ' ' || conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'ark'::regnamespace
    UNION ALL SELECT 'type ' || typname || ' ' || typtype::text || typcategory::text || typowner::regrole FROM pg_type
        WHERE typnamespace = 'ark'::regnamespace
    UNION ALL SELECT 'right ' || what || ': ' || coalesce((SELECT string_agg(grantor::regrole || '>' || grantee || ' ' ||
        privilege_type || is_grantable, ',' ORDER BY grantee, privilege_type) FROM aclexplode(acl)), 'as usual') FROM rights
    UNION ALL SELECT 'comment on ' || pg_describe_object(d.classoid, d.objoid, d.objsubid) || ' ' || description
        FROM pg_description d JOIN members m ON m.classid = d.classoid AND m.objid = d.objoid
    UNION ALL SELECT 'dependency of ' || pg_describe_object(d.classid, d.objid, d.objsubid) || ' on ' ||
        pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid) || ' ' || d.deptype::text FROM pg_depend d
        WHERE (d.classid, d.objid) IN (SELECT * FROM members)
        OR (d.classid = 'pg_rewrite'::regclass AND d.objid IN (SELECT r.oid FROM pg_rewrite r JOIN relations c ON c.oid = r.ev_class))
    UNION ALL SELECT 'part of ' || relname || ': ' || deptype::text || ' ' || count(*) FROM pg_depend d
        JOIN relations c ON d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid GROUP BY relname, deptype
)
SELECT replace(fact, E'\n', ' ') FROM facts ORDER BY fact COLLATE "C""#;

fn facts(server: &Cluster, database: &str) -> Vec<String> {
    let found: Vec<String> = server.psql_db(database, FACTS).lines().map(str::to_string).collect();
    assert!(found.len() > 200, "only {} facts: the question does not find what there is", found.len());
    found
}

#[track_caller]
fn assert_same(upgraded: &[String], fresh: &[String]) {
    let without = |these: &[String], those: &[String]| {
        these.iter().filter(|one| !those.contains(one)).cloned().collect::<Vec<_>>().join("\n  ")
    };
    assert!(
        upgraded == fresh,
        "only in the upgraded schema:\n  {}\nonly in a fresh one:\n  {}",
        without(upgraded, fresh),
        without(fresh, upgraded)
    );
}

#[test]
fn an_upgraded_schema_equals_a_fresh_one() {
    let (server, _placed) = old_server();
    server.psql("CREATE DATABASE fresh");
    server.psql_db("fresh", "CREATE EXTENSION pg_ark");
    let version = "SELECT extversion FROM pg_extension WHERE extname = 'pg_ark'";
    assert_eq!((server.psql_db("old", version), server.psql_db("fresh", version)), (OLD.into(), NOW.into()));
    // What users built upon the view stays.
    server.psql_db("old", "CREATE VIEW public.mine AS SELECT health, rpo_seconds FROM ark.status");
    server.psql_db("old", "ALTER EXTENSION pg_ark UPDATE");
    assert_eq!(server.psql_db("old", version), NOW);
    assert_eq!(server.psql_db("old", "SELECT count(*) FROM public.mine"), "1");
    server.psql_db("old", "DROP VIEW public.mine");
    assert_same(&facts(&server, "old"), &facts(&server, "fresh"));
}

#[test]
fn an_upgraded_server_goes_on_with_its_backups() {
    let (server, _placed) = old_server();
    let repo = Repo::new();
    server.configure(&[&format!("pg_ark.repository = '{}'", repo.url()), "pg_ark.database = 'old'"]);
    server.reload();
    let old = |sql: &str| server.psql_db("old", sql);
    // Functions of the release that is gone say what to do; those that report do it in their answer.
    for call in [
        "SELECT * FROM ark.enable('file:///nowhere')",
        "SELECT ark.backup_start()",
        "SELECT ark.backup_stop('x')",
        "SELECT * FROM ark.list_backups()",
        "SELECT ark.show('x')",
        "SELECT * FROM ark.validate()",
        "SELECT * FROM ark.verify_archive()",
        "SELECT * FROM ark.recovery_windows()",
    ] {
        let Err(error) = server.query("old", "postgres", call) else { panic!("{call} worked") };
        assert_eq!((error.sqlstate(), error.message().contains(OLD)), (MISMATCH, true), "{call}: {error:?}");
        assert!(error.hint().contains("ALTER EXTENSION pg_ark UPDATE"), "{call}: {error:?}");
    }
    assert!(old("SELECT health FROM ark.status").contains("the SQL of pg_ark has version 0.1.0"));
    old("CREATE ROLE operator; GRANT EXECUTE ON FUNCTION ark.backup_start TO operator");
    let check = "SELECT status, hint FROM ark.check() WHERE item = 'version'";
    assert_eq!(old(check), "error|Run ALTER EXTENSION pg_ark UPDATE in this database.");
    old("ALTER EXTENSION pg_ark UPDATE");
    assert_eq!(old(check), "ok|");
    let granted = "SELECT string_agg(DISTINCT grantee::regrole::text, ' ') FROM pg_proc, aclexplode(proacl) \
                   WHERE oid = 'ark.backup_start'::regproc";
    assert_eq!(old(granted), "operator postgres", "who might start backups still may");
    old(&format!("SELECT * FROM ark.enable('{}')", repo.url()));
    let backup = old("SELECT ark.backup_start(wait => true)");
    assert_eq!(old("SELECT last_backup, backups FROM ark.status"), format!("{backup}|1"));
    assert_eq!(old("SELECT ark.schedule('nightly', '0 2 * * *') > now()"), "t");
    assert_eq!(old("SELECT name FROM ark.jobs"), "nightly");
}

#[test]
fn a_library_that_is_older_than_its_sql_is_told() {
    let server = Cluster::start_new();
    server.psql("CREATE EXTENSION pg_ark");
    server.psql("UPDATE pg_extension SET extversion = '99.0.0' WHERE extname = 'pg_ark'");
    let error = server.try_psql("SELECT * FROM ark.list_backups()").expect_err("versions differ");
    assert_eq!((error.sqlstate(), error.hint().starts_with("Reconnect")), (MISMATCH, true), "{error:?}");
    assert!(server.psql("SELECT health FROM ark.status").contains("has version 99.0.0"));
    assert_eq!(server.psql("SELECT healthy FROM ark.status"), "f");
    server.configure(&["shared_preload_libraries = 'pg_ark'"]);
    server.restart();
    let error = server.try_psql("SELECT ark.backup_start()").expect_err("versions differ");
    assert!(error.hint().starts_with("Restart the server"), "{error:?}");
}

/// Scripts run with the library that the server or the session has loaded, which may be one from before.
#[test]
fn scripts_refuse_an_older_library() {
    let server = Cluster::start_new();
    server.psql("CREATE SCHEMA ark");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
    for script in ["pg_ark--0.1.0--0.2.0.sql", "schema.sql"] {
        let text = fs::read_to_string(root.join(script)).expect("a script");
        let blocks = text.match_indices("DO $$").map(|(at, _)| &text[at..]);
        let guard =
            blocks.filter(|block| block.contains("library_version_wrapper")).last().expect("its guard");
        let end = guard.find("END $$;").expect("its end") + "END $$;".len();
        // The extension's row is there before its script runs; a library of the server's plays the old one.
        let guard = guard[..end].replace("@extschema@", "ark").replace("MODULE_PATHNAME", "$libdir/plpgsql");
        let error = server.try_psql(&guard.replace("'pg_ark'", "'plpgsql'")).expect_err(script);
        assert_eq!(
            (error.sqlstate(), error.hint().contains("restart")),
            (MISMATCH, true),
            "{script}: {error:?}"
        );
        assert!(error.message().contains("the library"), "{script}: {error:?}");
    }
}
