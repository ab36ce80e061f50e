//! Names of relations without a server: from the path of a file to `public.orders` and the name of the database.
//!
//! * [`source`]: where catalogs are read: a data directory, or ([`stored`]) a stored backup.
//! * [`scan`]: the rows of a catalog, with [`transactions`] to judge them.
//! * [`relations`]: the relations of one database, by their files.
//! * [`quote`]: identifiers as PostgreSQL shows them.
//!
//! Steps: `pg_control` tells the layout; `global/pg_filenode.map` where `pg_database` is; a database's own map where
//! its `pg_class` is; `pg_class` where `pg_namespace` is, and everything else.
//!
//! Names are for people, so this is best effort: nothing here is an error, what cannot be found out is left away, and
//! a damaged catalog gives the names that can still be read in it. They are as old as the catalogs on disk: those of
//! a running server are as new as its last checkpoint.

mod quote;
mod relations;
mod scan;
mod source;
mod stored;
mod transactions;

pub use source::{DataDirectory, Source};
pub use stored::StoredBackup;

use crate::postgres::control_file::{CONTROL_FILE, ControlFile};
use crate::postgres::data_directory::version_directory;
use crate::postgres::relation_file::{DEFAULT_TABLESPACE, GLOBAL_TABLESPACE, RelationFile};
use crate::postgres::system_catalog::{DatabaseRow, MAP_FILE, MAX_MAP, PG_DATABASE, RelationMap};
use quote::{decode, quoted};
use relations::Relations;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use transactions::Transactions;

/// Bytes of `pg_control` that hold all its fields (`PG_CONTROL_MAX_SAFE_SIZE`, catalog/pg_control.h).
const CONTROL_SIZE: usize = 512;
/// Databases whose relations are remembered; files come sorted by database, more or less.
const MAX_DATABASES: usize = 4;
/// Databases that are asked for the names of shared catalogs, which each of them knows.
const MAX_ASKED: usize = 3;

/// What a file belongs to. At least one of the two is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Schema and name, quoted where SQL needs it: `public.orders`, `toast table of public."Orders"`.
    pub relation: Option<String>,
    /// Name of the database as it is; none for relations shared by all.
    pub database: Option<String>,
}

/// `public.orders in database shop`.
impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let database = self.database.as_deref().map(quoted);
        match (&self.relation, database) {
            (Some(relation), Some(database)) => write!(f, "{relation} in database {database}"),
            (Some(relation), None) => f.write_str(relation),
            (None, Some(database)) => write!(f, "database {database}"),
            (None, None) => Ok(()),
        }
    }
}

/// How files are laid out.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Major version of the server.
    pub server_major: u32,
    /// Bytes in a page.
    pub block_size: u32,
    /// Pages in a file of a relation.
    pub relation_segment_blocks: u32,
    /// Name of the server's folder in tablespaces.
    pub version_folder: String,
}

impl Layout {
    fn read(source: &mut dyn Source) -> Option<Self> {
        Layout::of_control_file(source).or_else(|| source.layout())
    }

    fn of_control_file(source: &mut dyn Source) -> Option<Self> {
        let control = ControlFile::parse(&source.read(CONTROL_FILE, 0, CONTROL_SIZE)?).ok()?;
        let server_major = control.server_major()?;
        Some(Layout {
            server_major,
            block_size: control.block_size,
            relation_segment_blocks: control.relation_segment_blocks,
            version_folder: version_directory(server_major, control.catalog_version),
        })
    }

    /// The folder of a database in a tablespace.
    fn folder(&self, tablespace: u32, database: u32) -> String {
        match tablespace {
            DEFAULT_TABLESPACE => format!("base/{database}"),
            _ => format!("pg_tblspc/{tablespace}/{}/{database}", self.version_folder),
        }
    }
}

/// What is known of all databases.
struct Shared {
    layout: Layout,
    map: Option<RelationMap>,
    databases: BTreeMap<u32, DatabaseRow>,
    transactions: Transactions,
}

/// Names files. It remembers the last few databases that it was asked for.
pub struct Namer<S> {
    source: S,
    /// Outer none: not read yet. Inner none: it cannot be read.
    shared: Option<Option<Shared>>,
    databases: VecDeque<(u32, Relations)>,
}

impl<S: Source> Namer<S> {
    /// Reads nothing yet.
    pub fn new(source: S) -> Self {
        Namer { source, shared: None, databases: VecDeque::new() }
    }

    /// What the file at `path` below the data directory (`base/5/16384_vm.1`, as in the manifest) belongs to; none for
    /// a file that is no relation's, or when nothing can be found out.
    pub fn name(&mut self, path: &str) -> Option<Named> {
        let file = RelationFile::parse(path)?;
        if file.tablespace == GLOBAL_TABLESPACE {
            let relation = self.shared_relation(file.relfilenode)?;
            return Some(Named { relation: Some(relation), database: None });
        }
        let shared = self.shared()?;
        let database = shared.databases.get(&file.database).map(|row| printable(&decode_name(row)));
        let relation = self
            .relations(file.database)
            .and_then(|relations| relations.by_file(file.tablespace, file.relfilenode));
        (relation.is_some() || database.is_some()).then_some(Named { relation, database })
    }

    fn shared_relation(&mut self, relfilenode: u32) -> Option<String> {
        let databases: Vec<u32> = self.shared()?.databases.keys().copied().take(MAX_ASKED).collect();
        databases
            .into_iter()
            .find_map(|database| self.relations(database)?.by_file(GLOBAL_TABLESPACE, relfilenode))
    }

    fn shared(&mut self) -> Option<&mut Shared> {
        let source = &mut self.source;
        self.shared.get_or_insert_with(|| Shared::read(source)).as_mut()
    }

    /// The relations of a database, read when it is not remembered.
    fn relations(&mut self, database: u32) -> Option<&Relations> {
        if let Some(at) = self.databases.iter().position(|(oid, _)| *oid == database) {
            return self.databases.get(at).map(|(_, relations)| relations);
        }
        let source = &mut self.source;
        let shared = self.shared.get_or_insert_with(|| Shared::read(source)).as_mut()?;
        let relations = Relations::read(source, shared, database);
        let held = |all: &VecDeque<(u32, Relations)>| all.iter().map(|(_, held)| held.len()).sum::<usize>();
        while self.databases.len() >= MAX_DATABASES
            || held(&self.databases) > scan::MAX_ROWS - relations.len()
        {
            self.databases.pop_front();
        }
        self.databases.push_back((database, relations));
        self.databases.back().map(|(_, relations)| relations)
    }
}

impl Shared {
    fn read(source: &mut dyn Source) -> Option<Self> {
        let layout = Layout::read(source)?;
        let map = read_map(source, "global");
        let file = map.as_ref().map_or(PG_DATABASE, |map| map.file_of(PG_DATABASE));
        let mut transactions = Transactions::new(layout.block_size);
        let mut best = scan::Best::new();
        scan::rows(source, &layout, &format!("global/{file}"), &mut transactions, &mut |data, rank| {
            if let Some(row) = DatabaseRow::parse(data) {
                best.enter(row.oid, row, rank);
            }
        });
        Some(Shared { layout, map, databases: best.into_rows().collect(), transactions })
    }
}

/// The map of a folder.
fn read_map(source: &mut dyn Source, folder: &str) -> Option<RelationMap> {
    // One byte more tells a file that is too long.
    RelationMap::parse(&source.read(&format!("{folder}/{MAP_FILE}"), 0, MAX_MAP + 1)?)
}

fn decode_name(row: &DatabaseRow) -> String {
    decode(&row.name, row.encoding)
}

/// Without characters that would break a line or speak to a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
