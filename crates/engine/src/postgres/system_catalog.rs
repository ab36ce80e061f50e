//! The few columns of system catalogs that name things, and the map of catalogs to files.
//!
//! Sources: `catalog/pg_class.h`, `catalog/pg_namespace.h`, `catalog/pg_database.h` (all these columns lie at fixed
//! offsets and are never null; PostgreSQL 18 put `relallfrozen` before `reltoastrelid`), `NAMEDATALEN` in
//! `pg_config_manual.h`, and `RelMapFile` in `utils/cache/relmapper.c` (room for 62 mappings and padding in PostgreSQL
//! 15, for 64 from 16 on).

use super::bytes::u32_at;

/// OID of `pg_class`.
pub const PG_CLASS: u32 = 1259;
/// OID of `pg_database`.
pub const PG_DATABASE: u32 = 1262;
/// OID of `pg_namespace`.
pub const PG_NAMESPACE: u32 = 2615;
/// Name of the map in `global` and in the folder of each database.
pub const MAP_FILE: &str = "pg_filenode.map";
/// No map has more bytes than this.
pub const MAX_MAP: usize = 524;

/// Bytes of a name (`NAMEDATALEN`), with the zero that ends it.
const NAME: usize = 64;
/// Offset of every catalog's name: the OID comes first.
const NAME_AT: usize = 4;
/// `RELMAPPER_FILEMAGIC`.
const MAP_MAGIC: u32 = 0x0059_2717;

/// The catalog version of a released server (`CATALOG_VERSION_NO`, catalog/catversion.h): it does not change within a
/// major version.
pub fn catalog_version(server_major: u32) -> Option<u32> {
    match server_major {
        15 => Some(202_209_061),
        16 => Some(202_307_071),
        17 => Some(202_406_281),
        18 => Some(202_506_291),
        _ => None,
    }
}

/// A row of `pg_class`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassRow {
    /// OID.
    pub oid: u32,
    /// Name, in the encoding of the database.
    pub name: Box<[u8]>,
    /// OID of the schema.
    pub namespace: u32,
    /// Number of the file; 0 for a mapped catalog and for what has no file.
    pub relfilenode: u32,
    /// OID of the tablespace; 0 for the database's own.
    pub tablespace: u32,
    /// OID of its toast table, or 0.
    pub toast: u32,
    /// `relkind`: `r` a table, `i` an index, `t` a toast table, ...
    pub kind: u8,
}

impl ClassRow {
    /// Reads a row of a server of this major version.
    pub fn parse(data: &[u8], server_major: u32) -> Option<Self> {
        let toast_at = if server_major >= 18 { 112 } else { 108 };
        Some(ClassRow {
            oid: u32_at(data, 0)?,
            name: name(data)?,
            namespace: u32_at(data, 68)?,
            relfilenode: u32_at(data, 88)?,
            tablespace: u32_at(data, 92)?,
            toast: u32_at(data, toast_at)?,
            // relhasindex, relisshared and relpersistence are between.
            kind: *data.get(toast_at + 7)?,
        })
    }
}

/// A row of `pg_namespace`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceRow {
    /// OID.
    pub oid: u32,
    /// Name, in the encoding of the database.
    pub name: Box<[u8]>,
}

impl NamespaceRow {
    /// Reads a row.
    pub fn parse(data: &[u8]) -> Option<Self> {
        Some(NamespaceRow { oid: u32_at(data, 0)?, name: name(data)? })
    }
}

/// A row of `pg_database`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseRow {
    /// OID.
    pub oid: u32,
    /// Name, in no particular encoding.
    pub name: Box<[u8]>,
    /// Number of its encoding (`pg_enc`, mb/pg_wchar.h).
    pub encoding: u32,
    /// OID of the tablespace that holds its catalogs.
    pub tablespace: u32,
}

impl DatabaseRow {
    /// Reads a row.
    pub fn parse(data: &[u8]) -> Option<Self> {
        Some(DatabaseRow {
            oid: u32_at(data, 0)?,
            name: name(data)?,
            encoding: u32_at(data, 72)?,
            tablespace: u32_at(data, 92)?,
        })
    }
}

fn name(data: &[u8]) -> Option<Box<[u8]>> {
    let field = data.get(NAME_AT..NAME_AT + NAME)?;
    let len = field.iter().position(|byte| *byte == 0)?;
    // Every object has a name.
    field.get(..len).filter(|name| !name.is_empty()).map(Box::from)
}

/// `pg_filenode.map`: files of the catalogs that `pg_class` itself cannot tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RelationMap {
    /// (OID of the catalog, number of its file).
    entries: Vec<(u32, u32)>,
}

impl RelationMap {
    /// Reads a map; `None` when it is damaged.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let room = match bytes.len() {
            512 => 62,
            MAX_MAP => 64,
            _ => return None,
        };
        let crc_at = 8 + 8 * room;
        let count = u32_at(bytes, 4)? as usize;
        let sound = u32_at(bytes, 0)? == MAP_MAGIC
            && count <= room
            && u32_at(bytes, crc_at)? == crc32c::crc32c(bytes.get(..crc_at)?);
        if !sound {
            return None;
        }
        let entry = |n: usize| Some((u32_at(bytes, 8 + 8 * n)?, u32_at(bytes, 12 + 8 * n)?));
        Some(RelationMap { entries: (0..count).map_while(entry).collect() })
    }

    /// The file of a catalog. Unless the map says otherwise it is as initdb made it: numbered by the OID.
    pub fn file_of(&self, oid: u32) -> u32 {
        self.entries.iter().find(|(catalog, _)| *catalog == oid).map_or(oid, |(_, file)| *file)
    }

    /// The files of all catalogs in it, as (OID, number of the file).
    pub fn entries(&self) -> &[(u32, u32)] {
        &self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(len: usize, entries: &[(u32, u32)]) -> Vec<u8> {
        let mut bytes = vec![0; len];
        bytes[..4].copy_from_slice(&MAP_MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&(entries.len() as u32).to_le_bytes());
        for (n, (oid, file)) in entries.iter().enumerate() {
            bytes[8 + 8 * n..12 + 8 * n].copy_from_slice(&oid.to_le_bytes());
            bytes[12 + 8 * n..16 + 8 * n].copy_from_slice(&file.to_le_bytes());
        }
        let crc_at = if len == 512 { 504 } else { 520 };
        let crc = crc32c::crc32c(&bytes[..crc_at]);
        bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn maps_of_both_sizes() {
        for len in [512, 524] {
            let bytes = map(len, &[(1259, 16384), (1249, 1249)]);
            let read = RelationMap::parse(&bytes).unwrap();
            assert_eq!(read.file_of(1259), 16384);
            assert_eq!(read.file_of(1249), 1249);
            assert_eq!(read.file_of(1255), 1255);
            assert_eq!(read.entries().len(), 2);
        }
    }

    #[test]
    fn a_damaged_map_is_none() {
        let good = map(512, &[(1259, 16384)]);
        for at in 0..508 {
            let mut bad = good.clone();
            bad[at] ^= 4;
            assert_eq!(RelationMap::parse(&bad), None, "byte {at}");
        }
        assert_eq!(RelationMap::parse(&good[..511]), None);
        assert_eq!(RelationMap::parse(&[]), None);
        let mut many = good;
        many[4] = 63;
        let crc = crc32c::crc32c(&many[..504]);
        many[504..508].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(RelationMap::parse(&many), None, "more entries than there is room for");
    }

    #[test]
    fn the_toast_table_moved_in_18() {
        let mut data = vec![0; 160];
        data[..4].copy_from_slice(&16384u32.to_le_bytes());
        data[4..10].copy_from_slice(b"orders");
        data[108..112].copy_from_slice(&7u32.to_le_bytes());
        data[112..116].copy_from_slice(&8u32.to_le_bytes());
        data[115] = b'r';
        data[119] = b'm';
        let row = ClassRow::parse(&data, 17).unwrap();
        assert_eq!((&*row.name, row.toast, row.kind), (&b"orders"[..], 7, b'r'));
        let row = ClassRow::parse(&data, 18).unwrap();
        assert_eq!((row.toast & 0xFF, row.kind), (8, b'm'));
        assert_eq!(ClassRow::parse(&data[..119], 18), None);
    }

    proptest! {
        #[test]
        fn nonsense_never_panics(data in proptest::collection::vec(any::<u8>(), 0..600), major: u32) {
            let _ = (ClassRow::parse(&data, major), NamespaceRow::parse(&data), DatabaseRow::parse(&data));
            let _ = RelationMap::parse(&data);
            let mut map = data;
            map.resize(512, 0);
            let _ = RelationMap::parse(&map);
        }
    }
}
