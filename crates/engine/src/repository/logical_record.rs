//! The part of `backup.json` that a logical backup has: what was dumped, and what no dump takes along. FORMAT.md, section
//! "Logical backups".

use super::layout;
use super::record::ObjectRecord;
use pg_ark_contract::settings::Codec;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Names in [`LogicalRecord::contents`]; of more databases only the number is told.
const NAMED: usize = 8;

/// What a logical backup holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LogicalRecord {
    /// `pg_dump --version`.
    pub pg_dump: String,
    /// Compression inside the dumps, as `pg_dump --compress` has it: `gzip:1`, `zstd:1`, `none`.
    pub dump_compression: String,
    /// Volumes of the globals, compressed as the record's `compression` says.
    pub globals: Vec<ObjectRecord>,
    /// Bytes of the globals before they were compressed.
    pub globals_bytes: u64,
    /// The databases, in the order of their names.
    pub databases: Vec<DatabaseRecord>,
    /// Databases that should have been dumped and were not; only with `skip_failed`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<MissingDatabase>,
    /// Databases that were not asked for, `template0` aside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// What `initdb` must be told to make such a cluster again.
    pub initdb: InitdbRecord,
    /// Tablespaces, `pg_default` and `pg_global` aside.
    #[serde(default)]
    pub tablespaces: Vec<LogicalTablespace>,
    /// Replication slots: a dump takes none along.
    #[serde(default)]
    pub replication_slots: Vec<SlotRecord>,
    /// Subscriptions: a dump takes them along without their state, not connected and not enabled.
    #[serde(default)]
    pub subscriptions: Vec<SubscriptionRecord>,
    /// Fields of a later minor version.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

/// A dumped database.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DatabaseRecord {
    /// Name.
    pub name: String,
    /// OID.
    pub oid: u32,
    /// Volumes of the dump; read one after another they are what `pg_dump --format=custom` wrote.
    pub volumes: Vec<ObjectRecord>,
    /// `pg_database_size` when the dump began.
    pub data_bytes: u64,
    /// RFC 3339, UTC: the dump shows the database at a moment shortly after this one.
    pub started_at: String,
    /// RFC 3339, UTC.
    pub finished_at: String,
    /// Owner.
    pub owner: String,
    /// Encoding and locale.
    pub locale: LocaleRecord,
    /// Its default tablespace.
    pub tablespace: String,
    /// `datistemplate`.
    pub is_template: bool,
    /// `datconnlimit`; -1 for none.
    pub connection_limit: i32,
    /// `datacl`, as SQL shows it.
    #[serde(default)]
    pub privileges: Option<String>,
    /// `ALTER DATABASE ... SET` and `ALTER ROLE ... IN DATABASE ... SET`.
    #[serde(default)]
    pub settings: Vec<SettingRecord>,
    /// Extensions with their versions: a restore installs the version that is current where it is done.
    #[serde(default)]
    pub extensions: Vec<ExtensionRecord>,
    /// Number of tables, partitioned ones included.
    #[serde(default)]
    pub tables: u64,
    /// Number of large objects.
    #[serde(default)]
    pub large_objects: u64,
    /// `lc_monetary` of the dump where a column has type money, whose text depends on it: a restore must read it the same way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lc_monetary: Option<String>,
    /// The dump holds planner statistics; otherwise ANALYZE must gather them after a restore.
    #[serde(default)]
    pub statistics: bool,
    /// Fields of a later minor version.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

/// A database that is not in the backup although it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingDatabase {
    /// Name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// Encoding and locale of a database (`pg_database`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocaleRecord {
    /// `UTF8`.
    pub encoding: String,
    /// `datlocprovider` in words: `libc`, `icu`, `builtin`.
    pub provider: String,
    /// `LC_COLLATE`.
    pub collate: String,
    /// `LC_CTYPE`.
    pub ctype: String,
    /// Locale of the provider, where it is not libc.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// ICU's own rules, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icu_rules: Option<String>,
    /// Version of the collation that the indexes were made with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collation_version: Option<String>,
}

/// What `initdb` must be told. Segment size, page checksums and group access are in the record itself: `wal_segment_size`,
/// `data_checksums`, `data_directory.mode`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitdbRecord {
    /// `--username`: the bootstrap superuser.
    pub username: String,
    /// That of `template0`, which nobody changes after initdb.
    pub locale: LocaleRecord,
    /// `default_text_search_config`, as the server has it.
    #[serde(default)]
    pub text_search_config: Option<String>,
}

/// A tablespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogicalTablespace {
    /// Name.
    pub name: String,
    /// OID.
    pub oid: u32,
    /// Where it is; empty for one inside the data directory.
    pub location: String,
    /// Owner.
    pub owner: String,
    /// `pg_tablespace_size`.
    pub data_bytes: u64,
}

/// A replication slot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRecord {
    /// Name.
    pub name: String,
    /// `physical` or `logical`.
    pub kind: String,
    /// Output plugin of a logical one.
    #[serde(default)]
    pub plugin: Option<String>,
    /// Database of a logical one.
    #[serde(default)]
    pub database: Option<String>,
    /// `two_phase`.
    #[serde(default)]
    pub two_phase: bool,
}

/// A subscription. Its connection text is not told here: it may hold a password; the dump has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionRecord {
    /// Name.
    pub name: String,
    /// Database.
    pub database: String,
    /// Whether it was enabled: a restored one is not.
    pub enabled: bool,
    /// The slot on its publisher.
    #[serde(default)]
    pub slot: Option<String>,
    /// Publications.
    #[serde(default)]
    pub publications: Vec<String>,
}

/// A setting of a database, or of a role in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingRecord {
    /// The role; none: all.
    #[serde(default)]
    pub role: Option<String>,
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

/// An installed extension.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtensionRecord {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Schema.
    pub schema: String,
}

impl LogicalRecord {
    /// Every object of the dumps.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectRecord> {
        self.globals.iter().chain(self.databases.iter().flat_map(|database| &database.volumes))
    }

    /// The database of this name.
    pub fn database(&self, name: &str) -> Option<&DatabaseRecord> {
        self.databases.iter().find(|database| database.name == name)
    }

    /// Databases of the server that it does not hold, whyever: each name once, in order.
    pub fn lacks(&self) -> Vec<String> {
        let names = self.missing.iter().map(|missing| &missing.name).chain(&self.left_out);
        let held: BTreeSet<&String> = self.databases.iter().map(|database| &database.name).collect();
        let lacked: BTreeSet<&String> = names.filter(|name| !held.contains(name)).collect();
        lacked.into_iter().cloned().collect()
    }

    /// Whatever the names of databases and objects cannot be: objects become paths, databases become arguments. Sentences
    /// without the path of the record; none when all is well.
    pub fn strange_names(&self, codec: Codec) -> Vec<String> {
        let mut faults = Vec::new();
        if !are_volumes(&self.globals, &format!("{}{}", layout::GLOBALS, codec.suffix())) {
            faults.push("the globals have no object, or one that they cannot have".to_string());
        }
        let mut seen = BTreeSet::new();
        for database in &self.databases {
            let shown = shown(&database.name);
            if database.name.is_empty() || database.name.contains('\0') {
                faults.push(format!("\"{shown}\" is no name of a database"));
            }
            if !seen.insert(&database.name) {
                faults.push(format!("database \"{shown}\" is there twice"));
            }
            if !are_volumes(&database.volumes, &layout::dump_name(&database.name)) {
                faults.push(format!(
                    "the dump of database \"{shown}\" has no object, or one that it cannot have"
                ));
            }
        }
        faults
    }

    /// What it contains, in words, as `list_backups` shows it.
    pub fn contents(&self) -> String {
        let count = self.databases.len();
        let names: Vec<&str> = self.databases.iter().take(NAMED).map(|d| d.name.as_str()).collect();
        let more = if count > names.len() { ", ..." } else { "" };
        let noun = if count == 1 { "database" } else { "databases" };
        let missing: Vec<&str> = self.missing.iter().take(NAMED).map(|d| d.name.as_str()).collect();
        let without = match missing.is_empty() {
            true => String::new(),
            false => format!("; without {}", missing.join(", ")),
        };
        format!("{count} {noun}: {}{more}{without}", names.join(", "))
    }
}

/// Whether these are the volumes of the object called `name`, in their order.
fn are_volumes(objects: &[ObjectRecord], name: &str) -> bool {
    let mut numbered = (0u32..).zip(objects);
    !objects.is_empty() && numbered.all(|(number, object)| object.name == layout::volume(name, number))
}

/// A name for people.
fn shown(name: &str) -> String {
    name.chars().take(100).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(names: &[&str]) -> Vec<ObjectRecord> {
        let object =
            |name: &&str| ObjectRecord { name: name.to_string(), size: 1, crc32c: "00000000".into() };
        names.iter().map(object).collect()
    }

    fn database(name: &str, volumes: &[&str]) -> DatabaseRecord {
        DatabaseRecord { name: name.into(), volumes: objects(volumes), ..DatabaseRecord::default() }
    }

    #[test]
    fn only_the_names_that_follow_from_the_databases_are_taken() {
        let good = LogicalRecord {
            globals: objects(&["globals.sql.zst", "globals.sql.zst.0001"]),
            databases: vec![
                database("app", &["app.dump", "app.dump.0001", "app.dump.0002"]),
                database("../backup.json", &["%2E.%2Fbackup.json.dump"]),
            ],
            ..LogicalRecord::default()
        };
        assert_eq!(good.strange_names(Codec::Zstd), Vec::<String>::new());
        assert_eq!(good.strange_names(Codec::Gzip).len(), 1, "the globals have another ending");
        let bad: [&[&str]; 9] = [
            &[],
            &["other.dump"],
            &["../app.dump"],
            &["/etc/passwd"],
            &["backup.json"],
            &["app.dump", "app.dump"],
            &["app.dump.0001", "app.dump"],
            &["app.dump", "app.dump.0002"],
            &["app.dump.0000"],
        ];
        for volumes in bad {
            let record = LogicalRecord { databases: vec![database("app", volumes)], ..good.clone() };
            let [fault] = &record.strange_names(Codec::Zstd)[..] else { panic!("{volumes:?}") };
            assert!(fault.contains("dump of database \"app\""), "{fault}");
        }
        for name in ["", "a\0"] {
            let dump = layout::dump_name(name);
            let record = LogicalRecord { databases: vec![database(name, &[&dump])], ..good.clone() };
            assert_eq!(record.strange_names(Codec::Zstd).len(), 1, "{name:?}");
        }
        let mut twice = good.clone();
        twice.databases.push(database("app", &["app.dump"]));
        assert_eq!(twice.strange_names(Codec::Zstd), ["database \"app\" is there twice"]);
        let without = LogicalRecord { globals: Vec::new(), ..good };
        assert_eq!(without.strange_names(Codec::Zstd).len(), 1);
    }
}
