//! What the server says about itself and its databases: asked once for the cluster, and once in each database.

use super::connection::is_crowded;
use super::query::Server;
use crate::repository::logical_record::{
    DatabaseRecord, ExtensionRecord, InitdbRecord, LocaleRecord, LogicalTablespace, SettingRecord,
    SlotRecord, SubscriptionRecord,
};
use pg_ark_contract::{Error, ErrorKind, Result};
use serde::Deserialize;

/// The database that is never dumped: nobody may write to it.
pub const TEMPLATE0: &str = "template0";
/// Databases where the cluster is asked, as pg_dumpall does (main, pg_dumpall.c): the first that answers.
const ASKED: [&str; 2] = ["postgres", "template1"];
/// `datconnlimit` of a database whose DROP was interrupted (`DATCONNLIMIT_INVALID_DB`, catalog/pg_database.h).
const INVALID: i32 = -2;
/// Tables whose sizes are asked, the largest of a database: more change no progress bar, and of a hundred thousand they would
/// take longer than the dump. Which are the largest tells `relpages`, or one look at the file where nobody has counted yet.
const SIZES: &str = "1000";

/// Names of databases come byte by byte: no conversion may change what the server is asked for later; so do those of tables,
/// which may have no encoding. Columns that only some
/// versions have are read from the row as JSON: `daticulocale` (15, 16), `datlocale` (from 17), `daticurules` (from 16).
const CLUSTER: &str = "
SELECT jsonb_build_object(
  'databases', (SELECT coalesce(jsonb_agg(jsonb_build_object(
      'oid', d.oid::int8,
      'name', encode(decode(replace(d.datname::text, chr(92), repeat(chr(92), 2)), 'escape'), 'hex'),
      'owner', pg_get_userbyid(d.datdba),
      'locale', jsonb_build_object(
          'encoding', pg_encoding_to_char(d.encoding),
          'provider', CASE d.datlocprovider WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END,
          'collate', d.datcollate, 'ctype', d.datctype,
          'locale', coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale'),
          'icu_rules', to_jsonb(d)->>'daticurules',
          'collation_version', d.datcollversion),
      'tablespace', (SELECT t.spcname FROM pg_tablespace t WHERE t.oid = d.dattablespace),
      'is_template', d.datistemplate,
      'allows_connections', d.datallowconn,
      'connection_limit', d.datconnlimit,
      'privileges', d.datacl::text,
      'settings', (SELECT coalesce(jsonb_agg(jsonb_build_object(
              'role', r.rolname, 'name', split_part(c.setting, '=', 1),
              'value', substr(c.setting, strpos(c.setting, '=') + 1)) ORDER BY r.rolname NULLS FIRST, c.place), '[]')
          FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole,
               unnest(s.setconfig) WITH ORDINALITY AS c(setting, place)
          WHERE s.setdatabase = d.oid),
      'data_bytes', coalesce(pg_database_size(d.oid), 0))), '[]') FROM pg_database d),
  'connections', greatest(0, current_setting('max_connections')::int8
      - current_setting('superuser_reserved_connections')::int8
      - coalesce(current_setting('reserved_connections', true), '0')::int8),
  'username', pg_get_userbyid(10),
  'text_search_config', coalesce(
      (SELECT f.setting FROM pg_file_settings f WHERE f.name = 'default_text_search_config' AND f.applied LIMIT 1),
      current_setting('default_text_search_config')),
  'tablespaces', (SELECT coalesce(jsonb_agg(jsonb_build_object(
      'name', t.spcname, 'oid', t.oid::int8,
      'location', CASE WHEN pg_tablespace_location(t.oid) LIKE '/%' THEN pg_tablespace_location(t.oid) ELSE '' END,
      'owner', pg_get_userbyid(t.spcowner),
      'data_bytes', coalesce(pg_tablespace_size(t.oid), 0)) ORDER BY t.spcname), '[]')
      FROM pg_tablespace t WHERE t.spcname NOT IN ('pg_default', 'pg_global')),
  'replication_slots', (SELECT coalesce(jsonb_agg(jsonb_build_object(
      'name', s.slot_name, 'kind', s.slot_type, 'plugin', s.plugin, 'oid', s.datoid::int8,
      'two_phase', coalesce(s.two_phase, false)) ORDER BY s.slot_name), '[]')
      FROM pg_replication_slots s WHERE NOT s.temporary),
  'subscriptions', (SELECT coalesce(jsonb_agg(jsonb_build_object(
      'name', s.subname, 'database', '', 'oid', s.subdbid::int8, 'enabled', s.subenabled, 'slot', s.subslotname,
      'publications', s.subpublications) ORDER BY s.subname), '[]') FROM pg_subscription s)
)::text";

const DATABASE: &str = "
SELECT jsonb_build_object(
  'oid', (SELECT d.oid::int8 FROM pg_database d WHERE d.datname = current_database()),
  'extensions', (SELECT coalesce(jsonb_agg(jsonb_build_object(
      'name', e.extname, 'version', e.extversion, 'schema', n.nspname) ORDER BY e.extname), '[]')
      FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace),
  'tables', (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
        AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')),
  'unlogged', CASE WHEN pg_is_in_recovery() THEN
      (SELECT count(*) FROM pg_class c WHERE c.relkind IN ('r', 'S') AND c.relpersistence = 'u') ELSE 0 END,
  'line_feeds', EXISTS (SELECT FROM pg_class c WHERE strpos(c.relname::text, chr(10)) > 0)
      OR EXISTS (SELECT FROM pg_namespace n WHERE strpos(n.nspname::text, chr(10)) > 0),
  'lc_monetary', CASE WHEN EXISTS (SELECT FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_type t ON t.oid = a.atttypid
      WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'm', 'c')
        AND 'money'::regtype IN (t.oid, t.typelem, t.typbasetype)) THEN current_setting('lc_monetary') END,
  'large_objects', (SELECT count(*) FROM pg_largeobject_metadata),
  'large_object_bytes', coalesce(pg_table_size('pg_largeobject'), 0),
  'sizes', (SELECT coalesce(jsonb_agg(jsonb_build_array(
          encode(decode(replace(s.name, chr(92), repeat(chr(92), 2)), 'escape'), 'hex'), s.bytes)), '[]') FROM (
      SELECT largest.name, coalesce(pg_table_size(largest.oid), 0) AS bytes FROM (
          SELECT c.oid, n.nspname || '.' || c.relname AS name
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_class x ON x.oid = c.reltoastrelid
          WHERE c.relkind = 'r' AND c.relpersistence <> 't'
            AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
          ORDER BY (c.relpages + coalesce(x.relpages, 0)) * current_setting('block_size')::int8
              + CASE WHEN c.relpages > 0 THEN 0
                ELSE coalesce((pg_stat_file(pg_relation_filepath(c.oid), true)).size, 0) END DESC
          LIMIT ";

/// The cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// The database that was asked.
    pub asked: String,
    /// Every database, `template0` included, in the order of their names.
    pub databases: Vec<Database>,
    /// Connections that the server gives to everybody.
    pub connections: u64,
    /// For `initdb`.
    pub initdb: InitdbRecord,
    /// Tablespaces.
    pub tablespaces: Vec<LogicalTablespace>,
    /// Replication slots.
    pub replication_slots: Vec<SlotRecord>,
    /// Subscriptions.
    pub subscriptions: Vec<SubscriptionRecord>,
}

/// A database, as the cluster knows it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Database {
    /// What is known of it so far.
    pub record: DatabaseRecord,
    /// Why it cannot be dumped.
    pub trouble: Option<String>,
}

/// What only the database itself knows.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Inside {
    /// OID.
    pub oid: u32,
    /// Extensions.
    pub extensions: Vec<ExtensionRecord>,
    /// Number of tables.
    pub tables: u64,
    /// On a standby: number of unlogged tables and sequences, which have no content there.
    pub unlogged: u64,
    /// Whether a name holds one.
    pub line_feeds: bool,
    /// Where columns have type money: `lc_monetary`.
    pub lc_monetary: Option<String>,
    /// Number of large objects.
    pub large_objects: u64,
    /// Bytes of large objects.
    pub large_object_bytes: u64,
    /// Bytes of tables, by `schema.table` where that is UTF-8.
    pub sizes: Vec<(String, u64)>,
}

#[derive(Deserialize)]
struct Answer {
    databases: Vec<DatabaseRow>,
    connections: u64,
    username: String,
    text_search_config: Option<String>,
    tablespaces: Vec<LogicalTablespace>,
    replication_slots: Vec<Of<SlotRecord>>,
    subscriptions: Vec<Of<SubscriptionRecord>>,
}

/// Something of a database, which is named by its OID.
#[derive(Deserialize)]
struct Of<T> {
    oid: Option<u32>,
    #[serde(flatten)]
    what: T,
}

#[derive(Deserialize)]
struct DatabaseRow {
    oid: u32,
    /// In hexadecimal digits.
    name: String,
    owner: String,
    locale: LocaleRecord,
    tablespace: String,
    is_template: bool,
    allows_connections: bool,
    connection_limit: i32,
    privileges: Option<String>,
    settings: Vec<SettingRecord>,
    data_bytes: u64,
}

/// Asks about the cluster.
///
/// # Errors
/// As [`Server::json`].
pub fn cluster(server: &Server<'_>) -> Result<Facts> {
    let mut first = None;
    for asked in ASKED {
        match server.json::<Answer>(asked, CLUSTER) {
            Ok(answer) => return Ok(answer.into_facts(asked)),
            Err(e) if e.kind == ErrorKind::ServerNotReady && !is_crowded(&e.to_string()) => {
                first.get_or_insert(e);
            }
            Err(e) => return Err(e),
        }
    }
    Err(first.unwrap_or_else(|| Error::new(ErrorKind::Internal, "no database was asked")))
}

/// Asks a database about itself.
///
/// # Errors
/// As [`Server::json`].
pub fn inside(server: &Server<'_>, database: &str) -> Result<Inside> {
    let mut inside: Inside = server.json(database, &format!("{DATABASE}{SIZES}) AS largest) s))::text"))?;
    let readable = |(name, size): (String, u64)| Some((from_hex(&name).ok()?, size));
    inside.sizes = inside.sizes.into_iter().filter_map(readable).collect();
    Ok(inside)
}

impl Answer {
    fn into_facts(self, asked: &str) -> Facts {
        let mut databases: Vec<Database> =
            self.databases.into_iter().map(DatabaseRow::into_database).collect();
        databases.sort_by(|a, b| a.record.name.cmp(&b.record.name));
        let name = |oid: Option<u32>| {
            databases.iter().find(|d| Some(d.record.oid) == oid).map(|d| d.record.name.clone())
        };
        let named = |of: Of<SlotRecord>| SlotRecord { database: name(of.oid), ..of.what };
        let replication_slots = self.replication_slots.into_iter().map(named).collect();
        let named = |of: Of<SubscriptionRecord>| SubscriptionRecord {
            database: name(of.oid).unwrap_or_default(),
            ..of.what
        };
        let subscriptions = self.subscriptions.into_iter().map(named).collect();
        let of = |name: &str| databases.iter().find(|d| d.record.name == name);
        let template = of(TEMPLATE0).or_else(|| of("template1")).or_else(|| of(asked));
        let initdb = InitdbRecord {
            username: self.username,
            locale: template.map(|d| d.record.locale.clone()).unwrap_or_default(),
            text_search_config: self.text_search_config,
        };
        let tablespaces = self.tablespaces;
        Facts {
            asked: asked.to_string(),
            databases,
            connections: self.connections,
            initdb,
            tablespaces,
            replication_slots,
            subscriptions,
        }
    }
}

impl DatabaseRow {
    fn into_database(self) -> Database {
        let name = from_hex(&self.name);
        let trouble = if name.is_err() {
            Some("its name is no UTF-8: rename it".to_string())
        } else if self.connection_limit == INVALID {
            Some("it is invalid: a DROP DATABASE was interrupted, and must be given again".to_string())
        } else if !self.allows_connections {
            Some("it allows no connections".to_string())
        } else {
            None
        };
        let record = DatabaseRecord {
            name: name.unwrap_or_else(|shown| shown),
            oid: self.oid,
            data_bytes: self.data_bytes,
            owner: self.owner,
            locale: self.locale,
            tablespace: self.tablespace,
            is_template: self.is_template,
            connection_limit: self.connection_limit,
            privileges: self.privileges,
            settings: self.settings,
            ..DatabaseRecord::default()
        };
        Database { record, trouble }
    }
}

/// The text that hexadecimal digits stand for; when it is no UTF-8, something to show instead.
pub(super) fn from_hex(digits: &str) -> std::result::Result<String, String> {
    let pair = |at: usize| digits.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
    let bytes: Vec<u8> = (0..digits.len()).step_by(2).filter_map(pair).collect();
    String::from_utf8(bytes).map_err(|e| e.as_bytes().escape_ascii().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_utf8_are_shown_and_not_dumped() {
        assert_eq!(from_hex("6ec3a9").unwrap(), "né");
        assert_eq!(from_hex("6ee9").unwrap_err(), "n\\xe9");
        assert_eq!(from_hex("").unwrap(), "");
    }

    #[test]
    fn an_answer_becomes_facts() {
        let database = |oid: u32, name: &str, allows: bool, limit: i32| {
            serde_json::json!({"oid": oid, "name": name, "owner": "o", "tablespace": "pg_default", "settings": [],
                "locale": {"encoding": "UTF8", "provider": "icu", "collate": "C", "ctype": "C", "locale": "de",
                    "icu_rules": null, "collation_version": "1"},
                "is_template": false, "allows_connections": allows, "connection_limit": limit,
                "privileges": null, "data_bytes": 7})
        };
        let answer = serde_json::json!({
            "databases": [database(2, "78", true, -1), database(1, "61e9", true, -1), database(3, "79", false, 5),
                database(4, "7a", true, -2), database(5, "74656d706c61746530", false, -1)],
            "connections": 97, "username": "root", "text_search_config": "simple", "tablespaces": [],
            "replication_slots": [{"name": "s", "kind": "logical", "plugin": "p", "oid": 2, "two_phase": true},
                {"name": "t", "kind": "physical", "plugin": null, "oid": null, "two_phase": false}],
            "subscriptions": [{"name": "u", "database": "", "oid": 3, "enabled": true, "slot": null, "publications": ["p"]}],
        });
        let facts = serde_json::from_value::<Answer>(answer).unwrap().into_facts("postgres");
        let shown: Vec<_> =
            facts.databases.iter().map(|d| (d.record.name.as_str(), d.trouble.is_some())).collect();
        assert_eq!(shown, [("a\\xe9", true), ("template0", true), ("x", false), ("y", true), ("z", true)]);
        assert_eq!((facts.initdb.username.as_str(), facts.initdb.locale.provider.as_str()), ("root", "icu"));
        assert_eq!(facts.initdb.locale.locale.as_deref(), Some("de"));
        let slots: Vec<_> = facts.replication_slots.iter().map(|s| s.database.as_deref()).collect();
        assert_eq!(slots, [Some("x"), None]);
        assert_eq!(facts.subscriptions[0].database, "y");
        assert!(facts.subscriptions[0].enabled);
    }
}
