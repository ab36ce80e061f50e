//! The table of contents at the head of a dump in PostgreSQL's custom format (`ReadHead` and `ReadToc`,
//! src/bin/pg_dump/pg_backup_archiver.c; `_ReadExtraToc`, pg_backup_custom.c). Bytes in, values out: hostile input.
//!
//! Why read here and not in what `pg_restore --list --verbose` prints: there schema, name and owner stand side by side with
//! spaces between them, and names may hold spaces; and it costs a program for each database that is looked through.

use super::letters::Letters;
use crate::stored::objects::unwrap_io;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::collections::BTreeSet;
use std::io::Read;
use std::ops::Range;

/// The oldest format that is read (`K_VERS_1_14`, pg_backup_archiver.h): that of PostgreSQL 15.
const OLDEST: (u8, u8) = (1, 14);
/// The newest (`K_VERS_1_16`): that of PostgreSQL 17 and 18.
const NEWEST: (u8, u8) = (1, 16);
/// `archCustom` (pg_backup.h).
const CUSTOM: u8 = 1;
/// Longest name that is kept, in bytes. Names of functions hold their arguments' types.
const MAX_NAME: u64 = 64 << 10;
/// Longest definition that is kept; those of databases alone are, and each role may have settings in one.
const MAX_DEFINITION: u64 = 256 << 20;
/// Most bytes of names that are kept: some millions of objects.
const MAX_KEPT: u64 = 1 << 30;

/// What has arguments, which only the way that it is dropped tells (`_getObjectDescription`, pg_backup_archiver.c).
const DROPPED_BY_NAME: [&str; 6] =
    ["AGGREGATE", "FUNCTION", "OPERATOR", "OPERATOR CLASS", "OPERATOR FAMILY", "PROCEDURE"];

/// OID of the database that a dump is of, from its first bytes: pg_dump writes the database's own entry before all others but
/// what says how the dump is to be read (`main`, pg_dump.c). `None` for what is no such dump.
pub fn database_oid(mut head: &[u8]) -> Option<u32> {
    let mut reader = Reader::new(&mut head);
    let version = reader.head().ok()?;
    reader.preamble(version).ok()?;
    for _ in 0..reader.int().ok()? {
        let entry = reader.entry_head().ok()?;
        if entry.kind == "DATABASE" {
            return Some(entry.catalog.1);
        }
        reader.entry_rest(entry, version).ok()?;
    }
    None
}

/// What a dump contains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Toc {
    /// The database that was dumped.
    pub database: String,
    /// In the order in which they are restored.
    pub entries: Vec<Entry>,
}

/// One object, or the data of one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its number in the dump.
    pub id: u32,
    /// OID of the catalog that it was in, and its OID there; 0 where it has none.
    pub catalog: (u32, u32),
    /// What it is: `TABLE`, `TABLE DATA`, `FK CONSTRAINT`.
    pub kind: String,
    /// Its schema, for what has one.
    pub schema: Option<String>,
    /// Its name; for what belongs to a table also the table's: `orders orders_pkey`, `COLUMN orders.total`.
    pub name: String,
    /// Its owner.
    pub owner: String,
    /// Numbers of the entries that must be there before it.
    pub depends: Vec<u32>,
    /// The SQL that makes it; kept for what is about the database itself, else empty.
    pub definition: String,
}

impl Toc {
    /// Reads the head of a dump, and nothing behind it.
    ///
    /// # Errors
    /// `Unsupported` for a format that is not known; `Corrupt` for what is no dump; those of `source`.
    pub fn read(source: &mut dyn Read) -> Result<Toc> {
        Reader::new(source).toc()
    }

    /// The head of a dump that `pg_restore --clean --if-exists` restores after `sql`, which makes room for the entries `only`, or
    /// for all. What follows in `source` is the rest of the dump, which stays as it is.
    ///
    /// Why: how `pg_dump` drops things one by one fails on a table that has other columns now, and only SQL that `pg_restore`
    /// finds in the dump runs in its transaction. `sql` stands where the last entry is dropped, which comes first; elsewhere
    /// stands a comment, since an entry that could not be dropped would get no owner (`_printTocEntry`). Functions and operators
    /// are dropped as they were: their owner is set by the words found there (`_getObjectDescription`).
    ///
    /// # Errors
    /// As [`Toc::read`]; `Internal` when nothing in the dump could carry `sql`.
    pub fn with_drop(source: &mut dyn Read, only: Option<&BTreeSet<u32>>, sql: &str) -> Result<Vec<u8>> {
        let mut reader = Reader { copy: Some(Vec::new()), ..Reader::new(source) };
        let toc = reader.toc()?;
        let (int, old) = (usize::from(reader.int), reader.copy.unwrap_or_default());
        let dropped = toc.entries.iter().zip(&reader.drops).filter(|(entry, text)| {
            text.len() > int + 1 && !entry.is_of_database() && !DROPPED_BY_NAME.contains(&entry.kind.as_str())
        });
        let dropped: Vec<_> = dropped.collect();
        let carrier = dropped.iter().rfind(|(entry, _)| only.is_none_or(|only| only.contains(&entry.id)));
        let carrier = carrier.map(|(entry, _)| entry.id).ok_or_else(|| {
            Error::new(ErrorKind::Internal, "nothing in the dump could be dropped before it is restored")
        })?;
        let sql = reader.letters.write(sql).ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                "a name that --clean replaces cannot be written in the encoding of the dump",
            )
            .hint("Drop it first, and restore without --clean.")
        })?;
        let (mut head, mut at) = (Vec::with_capacity(old.len()), 0);
        for (entry, text) in dropped {
            head.extend_from_slice(old.get(at..text.start).unwrap_or_default());
            // What begins as a comment does is left as it is by --if-exists.
            let new =
                if entry.id == carrier { [b"-- Makes room.\n", &sql[..]].concat() } else { b"--\n".to_vec() };
            // A sign and a size with its lowest byte first (`WriteInt`).
            head.push(0);
            head.extend((new.len() as u64).to_le_bytes().iter().take(int));
            head.extend(new);
            at = text.end;
        }
        head.extend_from_slice(old.get(at..).unwrap_or_default());
        Ok(head)
    }

    /// The entry of this number.
    pub fn entry(&self, id: u32) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == id)
    }
}

impl Entry {
    /// Whether it is about the database as a whole; `pg_restore` leaves it out without `--create`.
    pub fn is_of_database(&self) -> bool {
        match self.kind.as_str() {
            "DATABASE" | "DATABASE PROPERTIES" => true,
            "COMMENT" | "ACL" | "SECURITY LABEL" => {
                self.schema.is_none() && self.name.starts_with("DATABASE ")
            }
            _ => false,
        }
    }

    /// Whether it only says how the dump is to be read.
    pub fn is_about_dump(&self) -> bool {
        matches!(self.kind.as_str(), "ENCODING" | "STDSTRINGS" | "SEARCHPATH")
    }

    /// `schema.name`, for people.
    pub fn full_name(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{schema}.{}", self.name),
            None => self.name.clone(),
        }
    }

    /// The line that `pg_restore --list` has for it (`PrintTOCSummary`): on one line whatever is in the names.
    pub fn line(&self) -> String {
        let clean = |text: &str| text.replace(['\n', '\r'], " ");
        let schema = match self.schema.as_deref() {
            None | Some("") => "-".to_string(),
            Some(schema) => clean(schema),
        };
        let (class, oid) = self.catalog;
        format!(
            "{}; {class} {oid} {} {schema} {} {}",
            self.id,
            clean(&self.kind),
            clean(&self.name),
            clean(&self.owner)
        )
    }
}

struct Reader<'a> {
    source: &'a mut dyn Read,
    int: u8,
    offset: u8,
    kept: u64,
    /// What was read, when somebody wants it.
    copy: Option<Vec<u8>>,
    /// Where in the copy the way is that each entry is dropped.
    drops: Vec<Range<usize>>,
    /// How names are written, once the first entry has told.
    letters: Letters,
}

impl<'a> Reader<'a> {
    fn new(source: &'a mut dyn Read) -> Reader<'a> {
        Reader {
            source,
            int: 4,
            offset: 8,
            kept: 0,
            copy: None,
            drops: Vec::new(),
            letters: Letters::default(),
        }
    }

    fn toc(&mut self) -> Result<Toc> {
        let version = self.head()?;
        let database = self.preamble(version)?;
        let count = self.int()?;
        let mut toc = Toc { database, entries: Vec::new() };
        for _ in 0..count {
            let entry = self.entry_head()?;
            toc.entries.push(self.entry_rest(entry, version)?);
        }
        Ok(toc)
    }

    /// Magic, version, sizes of numbers, format.
    fn head(&mut self) -> Result<(u8, u8)> {
        let mut magic = [0; 5];
        self.fill(&mut magic)?;
        if &magic != b"PGDMP" {
            return Err(corrupt("it does not begin as a dump does"));
        }
        let version = (self.byte()?, self.byte()?);
        self.byte()?;
        if version < OLDEST || version > NEWEST {
            let (major, minor) = version;
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("the dump has format {major}.{minor}, which this pgark does not know"),
            )
            .hint("Update pgark, or restore the whole database, or use pg_restore on the stored dump."));
        }
        (self.int, self.offset) = (self.byte()?, self.byte()?);
        if !(1..=8).contains(&self.int) || !(1..=16).contains(&self.offset) {
            return Err(corrupt("its numbers have an impossible size"));
        }
        match self.byte()? {
            CUSTOM => Ok(version),
            _ => Err(corrupt("it has not the custom format")),
        }
    }

    /// Compression, time and versions; the database's name.
    fn preamble(&mut self, version: (u8, u8)) -> Result<String> {
        // A number until 1.14, a byte from 1.15 on.
        if version.1 >= 15 {
            self.byte()?;
        } else {
            self.int()?;
        }
        for _second_to_year_and_summer in 0..7 {
            self.int()?;
        }
        let database = self.name()?.unwrap_or_default();
        // The versions of the server and of pg_dump.
        self.skip_text()?;
        self.skip_text()?;
        Ok(database)
    }

    /// What it is.
    fn entry_head(&mut self) -> Result<Entry> {
        let id = u32::try_from(self.int()?).ok().filter(|id| *id > 0);
        let id = id.ok_or_else(|| corrupt("it has an entry with an impossible number"))?;
        let _has_data = self.int()?;
        let catalog = (self.number()?, self.number()?);
        let name = self.name()?.unwrap_or_default();
        let kind = self.name()?.unwrap_or_default();
        Ok(Entry { id, catalog, name, kind, ..Entry::default() })
    }

    fn entry_rest(&mut self, mut entry: Entry, version: (u8, u8)) -> Result<Entry> {
        let _section = self.int()?;
        // Its schema comes later: what has one and is called DATABASE is kept for nothing.
        if entry.is_of_database() {
            entry.definition = self.text(MAX_DEFINITION)?.unwrap_or_default();
        } else if entry.kind == "ENCODING" {
            self.letters = Letters::of(&self.name()?.unwrap_or_default());
        } else {
            self.skip_text()?;
        }
        self.drop_text()?;
        // How its data is copied.
        self.skip_text()?;
        entry.schema = self.name()?;
        // Tablespace, table access method, kind of relation.
        self.skip_text()?;
        self.skip_text()?;
        if version.1 >= 16 {
            self.int()?;
        }
        entry.owner = self.name()?.unwrap_or_default();
        // WITH OIDS, which no server has any more.
        self.skip_text()?;
        while let Some(number) = self.name()? {
            let number = number.parse().map_err(|_| corrupt("a dependency in it is no number"))?;
            entry.depends.push(number);
            self.keep(4)?;
        }
        // Where the data is.
        self.skip(u64::from(self.offset) + 1)?;
        Ok(entry)
    }

    /// How an entry is dropped.
    fn drop_text(&mut self) -> Result<()> {
        let length = |copy: &Option<Vec<u8>>| copy.as_ref().map_or(0, Vec::len);
        let before = length(&self.copy);
        self.skip_text()?;
        if self.copy.is_some() {
            self.drops.push(before..length(&self.copy));
        }
        Ok(())
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.source.read_exact(bytes).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => corrupt("it ends within its table of contents"),
            _ => read_error(e),
        })?;
        if let Some(copy) = &mut self.copy {
            copy.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.fill(&mut byte)?;
        let [byte] = byte;
        Ok(byte)
    }

    /// A sign, then a number with its lowest byte first (`ReadInt`).
    fn int(&mut self) -> Result<i64> {
        let negative = self.byte()? != 0;
        let mut value: i64 = 0;
        for place in 0..u32::from(self.int) {
            let byte = i64::from(self.byte()?);
            // Numbers of PostgreSQL's have 32 bits.
            match (place, byte) {
                (0..4, _) => value |= byte << (8 * place),
                (_, 0) => {}
                _ => return Err(corrupt("a number in it is too large")),
            }
        }
        Ok(if negative { -value } else { value })
    }

    /// A number that is written as text, as OIDs are.
    fn number(&mut self) -> Result<u32> {
        let text = self.name()?.unwrap_or_default();
        text.parse().map_err(|_| corrupt("an OID in it is no number"))
    }

    fn name(&mut self) -> Result<Option<String>> {
        self.text(MAX_NAME)
    }

    /// A text, of which there may be none (`ReadStr`).
    fn text(&mut self, max: u64) -> Result<Option<String>> {
        let Ok(length) = u64::try_from(self.int()?) else { return Ok(None) };
        if length > max {
            return Err(corrupt(&format!("a name in it has {length} bytes")));
        }
        self.keep(length)?;
        let mut bytes = Vec::new();
        let read = (&mut self.source).take(length).read_to_end(&mut bytes);
        if read.map_err(read_error)? as u64 != length {
            return Err(corrupt("it ends within its table of contents"));
        }
        if let Some(copy) = &mut self.copy {
            copy.extend_from_slice(&bytes);
        }
        Ok(Some(self.letters.read(bytes)))
    }

    fn skip_text(&mut self) -> Result<()> {
        match u64::try_from(self.int()?) {
            Ok(length) => self.skip(length),
            Err(_) => Ok(()),
        }
    }

    fn skip(&mut self, length: u64) -> Result<()> {
        let mut part = (&mut self.source).take(length);
        let skipped = match &mut self.copy {
            None => std::io::copy(&mut part, &mut std::io::sink()),
            Some(copy) if copy.len() as u64 + length > MAX_KEPT => {
                return Err(corrupt("its table of contents has no end"));
            }
            Some(copy) => std::io::copy(&mut part, copy),
        };
        match skipped.map_err(read_error)? == length {
            true => Ok(()),
            false => Err(corrupt("it ends within its table of contents")),
        }
    }

    fn keep(&mut self, bytes: u64) -> Result<()> {
        // An entry is more than its names.
        self.kept += bytes + 16;
        match self.kept > MAX_KEPT {
            true => Err(corrupt("its table of contents has no end")),
            false => Ok(()),
        }
    }
}

/// An error that a reader of stored objects wrapped comes out as it was.
fn read_error(error: std::io::Error) -> Error {
    unwrap_io("could not read a dump", error)
}

fn corrupt(why: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("a stored dump cannot be read: {why}"))
        .hint("Run \"pgark verify\" to see what is damaged, and restore another backup.")
}

#[cfg(test)]
#[path = "toc_tests.rs"]
mod tests;
