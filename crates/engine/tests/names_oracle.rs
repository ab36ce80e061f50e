//! PostgreSQL judges the names that we read from its files: for every file of every relation ours is the server's, in
//! a data directory and in a stored backup of it. `PG_CONFIG` chooses the version; run it for each supported one.

use pg_ark_contract::settings::{Codec, Compression};
use pg_ark_engine::backup::archive::ArchiveWriter;
use pg_ark_engine::backup::member::Attributes;
use pg_ark_engine::backup::serial::SerialWriter;
use pg_ark_engine::names::{DataDirectory, Named, Namer, Source, StoredBackup};
use pg_ark_engine::repository::record::{ArchiveContent, ArchiveRecord, Record};
use pg_ark_engine::repository::storage::Storage;
use pg_ark_engine::session::Session;
use pg_ark_testkit::{Cluster, StopMode, chown_tree_to_server};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Every relation that has a file, with its name as the server shows it.
const TRUTH: &str = "SELECT pg_relation_filepath(c.oid), CASE WHEN o.oid IS NULL THEN format('%I.%I', n.nspname, c.relname) \
     ELSE format('toast table of %I.%I', m.nspname, o.relname) END \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     LEFT JOIN pg_class o ON o.reltoastrelid = c.oid LEFT JOIN pg_namespace m ON m.oid = o.relnamespace \
     WHERE pg_relation_filepath(c.oid) IS NOT NULL AND c.relpersistence <> 't'";

/// Databases with odd names, relations of every kind, catalogs that were moved.
fn fill(cluster: &Cluster) {
    let folder = cluster.base().join("space");
    fs::create_dir(&folder).unwrap();
    chown_tree_to_server(&folder);
    let folder = folder.display();
    cluster.psql(&format!("CREATE TABLESPACE space LOCATION '{folder}'"));
    cluster.psql(
        "CREATE DATABASE \"Zweite DB\" TABLESPACE space; \
         CREATE DATABASE latin TEMPLATE template0 ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C'",
    );
    let objects = "CREATE SCHEMA \"Büro\"; CREATE TABLE \"Büro\".\"Akten \"\"x\"\".y\" (id serial PRIMARY KEY, doc text); \
         CREATE TABLE \"select\" (\"1\" int); CREATE TABLE _plain (a text) WITH (fillfactor = 50); \
         CREATE UNLOGGED TABLE fleeting (a text); \
         CREATE INDEX \"An Index\" ON \"Büro\".\"Akten \"\"x\"\".y\" (lower(doc)); \
         CREATE SEQUENCE \"Büro\".zahl; CREATE MATERIALIZED VIEW seen AS SELECT repeat('x', 10) AS t; \
         CREATE TABLE moved (a text) TABLESPACE {SPACE}; CREATE INDEX moved_index ON moved (a) TABLESPACE {SPACE}; \
         CREATE TABLE before (a text); ALTER TABLE before RENAME TO after; \
         CREATE TABLE undone (a text); BEGIN; ALTER TABLE undone RENAME TO never; ROLLBACK; \
         CREATE SCHEMA old_schema; CREATE TABLE old_schema.inside (a int); ALTER SCHEMA old_schema RENAME TO new_schema";
    cluster.psql(&objects.replace("{SPACE}", "space"));
    cluster.psql_db("Zweite DB", &objects.replace("{SPACE}", "pg_default"));
    cluster.psql_db(
        "latin",
        "SET client_encoding = UTF8; CREATE SCHEMA \"größe\"; CREATE TABLE \"größe\".\"Äpfel\" (a text)",
    );
    for database in ["postgres", "Zweite DB"] {
        cluster.psql_db(
            database,
            "VACUUM FULL pg_class; VACUUM FULL pg_namespace; VACUUM FULL pg_type; VACUUM FULL pg_proc; \
             VACUUM FULL \"Büro\".\"Akten \"\"x\"\".y\"; VACUUM FULL moved; REINDEX INDEX pg_class_oid_index; \
             CREATE TABLE later (a text); CREATE SCHEMA later; CREATE TABLE later.\"User\" (a text)",
        );
    }
    cluster.psql("VACUUM FULL pg_database; VACUUM FULL pg_authid; ALTER DATABASE latin RENAME TO \"Latein\"");
}

/// Names by path, of every database that can be asked. Shared relations have no database.
fn truth(cluster: &Cluster) -> BTreeMap<String, Named> {
    let mut names = BTreeMap::new();
    let databases = cluster.psql("SELECT datname FROM pg_database WHERE datallowconn");
    for database in databases.lines() {
        let rows =
            cluster.psql_db(database, &format!("\\pset fieldsep '\t'\nSET client_encoding = UTF8; {TRUTH};"));
        for row in rows.lines() {
            let (path, relation) = row.split_once('\t').unwrap();
            let database = (!path.starts_with("global/")).then(|| database.to_string());
            names.insert(path.to_string(), Named { relation: Some(relation.to_string()), database });
        }
    }
    assert!(names.len() > 600, "{}", names.len());
    names
}

#[track_caller]
fn assert_named(names: &BTreeMap<String, Named>, source: impl Source) {
    let mut namer = Namer::new(source);
    let wrong: Vec<_> = names
        .iter()
        .filter_map(|(path, expected)| {
            let found = namer.name(path);
            (found.as_ref() != Some(expected)).then(|| format!("{path}: {found:?} instead of {expected:?}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} names are wrong:\n{}", wrong.len(), names.len(), wrong.join("\n"));
}

/// Stores one folder as an archive.
fn archive(
    storage: &Storage,
    folder: &str,
    stem: &str,
    root: &Path,
    content: ArchiveContent,
) -> ArchiveRecord {
    let session = Session::new(|_| {});
    let compression: Compression = "zstd:1".parse().unwrap();
    let archive = ArchiveWriter::new(storage, folder, stem, content, Codec::Zstd, 1 << 20).unwrap();
    let mut writer = SerialWriter::new(archive, compression, &session).unwrap();
    for entry in walkdir::WalkDir::new(root).sort_by_file_name() {
        let entry = entry.unwrap();
        if entry.file_type().is_file() {
            let path = entry.path().strip_prefix(root).unwrap().to_str().unwrap();
            let meta = entry.metadata().unwrap();
            let mut file = fs::File::open(entry.path()).unwrap();
            writer.file(path.as_bytes(), meta.len(), Attributes::of(&meta), &mut file, path).unwrap();
        }
    }
    writer.end().unwrap().finish().unwrap()
}

#[test]
fn relations_are_named_as_the_server_names_them() {
    let cluster = Cluster::start_new();
    fill(&cluster);
    let names = truth(&cluster);
    for expected in [
        "\"Büro\".\"Akten \"\"x\"\".y\"",
        "toast table of \"Büro\".\"Akten \"\"x\"\".y\"",
        "public.\"select\"",
        "public.after",
        "public.undone",
        "new_schema.inside",
        "later.\"User\"",
        "\"größe\".\"Äpfel\"",
        "pg_catalog.pg_database",
        "pg_catalog.pg_class",
    ] {
        assert!(names.values().any(|name| name.relation.as_deref() == Some(expected)), "{expected}");
    }
    // As pg_backup_start does.
    cluster.psql("CHECKPOINT");
    assert_named(&names, DataDirectory::new(cluster.data()));
    cluster.stop(StopMode::Fast);
    assert_named(&names, DataDirectory::new(cluster.data()));

    let repository = tempfile::tempdir().unwrap();
    let storage = Storage::open(&format!("file://{}", repository.path().display())).unwrap();
    let folder = "main/1/backups/20261122T020000Z-full";
    let mut record = Record::begun("20261122T020000Z-full".into(), "main", 1);
    record.compression = "zstd:1".parse().unwrap();
    let oid = names.keys().find_map(|path| path.strip_prefix("pg_tblspc/")?.split('/').next()).unwrap();
    let space = cluster.base().join("space");
    let content = ArchiveContent::Tablespace(oid.parse().unwrap());
    record.archives.push(archive(&storage, folder, oid, &space, content));
    record.archives.push(archive(&storage, folder, "base", cluster.data(), ArchiveContent::Base));
    assert!(record.archives[1].frames > 5 && record.archives[1].volumes.len() > 1);
    assert_named(&names, StoredBackup::new(&storage, folder, &record));
    // Without pg_control the record tells the layout.
    record.server_version_num = cluster.pg().version_num();
    record.block_size = 8192;
    fs::write(cluster.data().join("global/pg_control"), b"damaged").unwrap();
    record.archives[1] = archive(&storage, "again", "base", cluster.data(), ArchiveContent::Base);
    record.archives[0] = archive(&storage, "again", oid, &space, content);
    assert_named(&names, StoredBackup::new(&storage, "again", &record));
    record.archives[1].index = None;
    assert_eq!(Namer::new(StoredBackup::new(&storage, folder, &record)).name("base/1/1259"), None);
}

#[test]
fn what_is_damaged_or_unknown_has_no_name_or_half_of_one() {
    let cluster = Cluster::start_new();
    cluster.psql("CREATE TABLE t (a int)");
    let path = cluster.psql("SELECT pg_relation_filepath('t')");
    let class = cluster.psql("SELECT pg_relation_filepath('pg_class')");
    let page: u64 = cluster
        .psql("SELECT split_part(trim('(' FROM ctid::text), ',', 1) FROM pg_class WHERE relname = 't'")
        .parse()
        .unwrap();
    cluster.stop(StopMode::Fast);
    let named = |path: &str| Namer::new(DataDirectory::new(cluster.data())).name(path);
    let folder = path.rsplit_once('/').unwrap().0;
    let unknown = named(&format!("{folder}/99999")).unwrap();
    assert_eq!((unknown.relation.as_deref(), unknown.database.as_deref()), (None, Some("postgres")));
    assert_eq!(unknown.to_string(), "database postgres");
    assert_eq!(named(&format!("{path}_vm.1")).unwrap().to_string(), "public.t in database postgres");
    for other in [
        "base/77777/1259",
        "base/5/PG_VERSION",
        "global/99999",
        "global/pg_control",
        "",
        "../x",
        "pg_xact/0000",
    ] {
        assert_eq!(named(other), None, "{other}");
    }
    // Bytes of a page are overwritten: what lies elsewhere keeps its name.
    let file = fs::File::options().write(true).open(cluster.data().join(&class)).unwrap();
    file.write_all_at(&[0xA5; 8192], if page == 0 { 8192 } else { 0 }).unwrap();
    assert_eq!(named(&path).unwrap().to_string(), "public.t in database postgres");
    // A map that cannot be read: catalogs are where initdb puts them.
    fs::write(cluster.data().join(folder).join("pg_filenode.map"), b"x").unwrap();
    assert_eq!(named(&path).unwrap().to_string(), "public.t in database postgres");
    fs::write(cluster.data().join(&class), b"").unwrap();
    assert_eq!(named(&path).unwrap().to_string(), "database postgres");
    fs::remove_file(cluster.data().join("global/pg_control")).unwrap();
    assert_eq!(named(&path), None);
}
