//! The relations of one database, by their files.

use super::quote::{decode, quoted};
use super::scan::{self, Best, Rank};
use super::source::Source;
use super::{Shared, read_map};
use crate::postgres::relation_file::{DEFAULT_TABLESPACE, GLOBAL_TABLESPACE};
use crate::postgres::system_catalog::{ClassRow, NamespaceRow, PG_CLASS, PG_NAMESPACE, RelationMap};
use std::collections::BTreeMap;

/// `relkind` of a toast table.
const TOAST: u8 = b't';

/// OID of a tablespace and number of a file in it.
type Place = (u32, u32);

/// The relations of one database.
pub struct Relations {
    encoding: u32,
    by_file: Best<Place, Relation>,
    /// Whose toast table it is, by the OID of the toast table.
    owners: Best<u32, Place>,
    namespaces: BTreeMap<u32, Box<[u8]>>,
}

struct Relation {
    oid: u32,
    name: Box<[u8]>,
    namespace: u32,
    kind: u8,
}

impl Relations {
    /// Reads the catalogs of a database.
    pub(super) fn read(source: &mut dyn Source, shared: &mut Shared, database: u32) -> Self {
        let row = shared.databases.get(&database);
        let tablespace = row.map_or(DEFAULT_TABLESPACE, |row| row.tablespace);
        let encoding = row.map_or(0, |row| row.encoding);
        let folder = shared.layout.folder(tablespace, database);
        let map = read_map(source, &folder).unwrap_or_default();
        let places = Places { tablespace, map: &map, shared_map: shared.map.as_ref() };
        let mut relations =
            Relations { encoding, by_file: Best::new(), owners: Best::new(), namespaces: BTreeMap::new() };
        let mut namespace_file = Best::new();
        let server_major = shared.layout.server_major;
        let class = format!("{folder}/{}", map.file_of(PG_CLASS));
        scan::rows(source, &shared.layout, &class, &mut shared.transactions, &mut |data, rank| {
            let Some(row) = ClassRow::parse(data, server_major) else { return };
            if row.oid == PG_NAMESPACE {
                namespace_file.enter((), row.relfilenode, rank);
            }
            if let Some(place) = places.of(&row) {
                relations.enter(place, row, rank);
            }
        });
        let file = namespace_file.get(&()).copied().filter(|file| *file != 0).unwrap_or(PG_NAMESPACE);
        let mut namespaces = Best::new();
        let path = format!("{folder}/{file}");
        scan::rows(source, &shared.layout, &path, &mut shared.transactions, &mut |data, rank| {
            if let Some(row) = NamespaceRow::parse(data) {
                namespaces.enter(row.oid, row.name, rank);
            }
        });
        relations.namespaces = namespaces.into_rows().collect();
        relations
    }

    fn enter(&mut self, place: Place, row: ClassRow, rank: Rank) {
        if row.toast != 0 {
            self.owners.enter(row.toast, place, rank);
        }
        let relation = Relation { oid: row.oid, name: row.name, namespace: row.namespace, kind: row.kind };
        self.by_file.enter(place, relation, rank);
    }

    /// How many relations there are.
    pub fn len(&self) -> usize {
        self.by_file.len()
    }

    /// The relation with this file. A toast table is named by the table that it belongs to.
    pub fn by_file(&self, tablespace: u32, relfilenode: u32) -> Option<String> {
        let relation = self.by_file.get(&(tablespace, relfilenode))?;
        let owner = match relation.kind {
            TOAST => self.owners.get(&relation.oid).and_then(|place| self.by_file.get(place)),
            _ => None,
        };
        Some(match owner {
            Some(owner) => format!("toast table of {}", self.shown(owner)),
            None => self.shown(relation),
        })
    }

    /// `schema.name`; the name alone when the schema is not known.
    fn shown(&self, relation: &Relation) -> String {
        let text = |name: &[u8]| quoted(&decode(name, self.encoding));
        match self.namespaces.get(&relation.namespace) {
            Some(namespace) => format!("{}.{}", text(namespace), text(&relation.name)),
            None => text(&relation.name),
        }
    }
}

/// Tells where relations are.
struct Places<'a> {
    /// The database's own tablespace.
    tablespace: u32,
    map: &'a RelationMap,
    shared_map: Option<&'a RelationMap>,
}

impl Places<'_> {
    /// The place of a relation; none for what has no file.
    fn of(&self, row: &ClassRow) -> Option<Place> {
        let tablespace = if row.tablespace == 0 { self.tablespace } else { row.tablespace };
        if row.relfilenode != 0 {
            return Some((tablespace, row.relfilenode));
        }
        let mapped = |map: &RelationMap| {
            let (_, file) = map.entries().iter().find(|(oid, _)| *oid == row.oid)?;
            Some(*file)
        };
        match tablespace {
            // Without a map: as initdb made it.
            GLOBAL_TABLESPACE => Some((tablespace, self.shared_map.map_or(Some(row.oid), mapped)?)),
            _ => Some((tablespace, mapped(self.map)?)),
        }
    }
}
