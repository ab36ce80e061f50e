//! What the dumps of a backup contain, told as `pg_restore --list` tells it.

use super::stored::Dump;
use super::toc::Toc;
use crate::repository::logical_record::{DatabaseRecord, LogicalRecord};
use crate::repository::{Record, Storage};
use pg_ark_contract::{Error, ErrorKind, Result};
use serde::Serialize;

/// What the dump of a database contains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// The database.
    pub database: String,
    /// A line for each object and for the data of each: what `pg_restore --list` prints, without its head.
    pub lines: Vec<String>,
}

/// What the dumps of the backup in `folder` contain: those of `databases`, or all when none is named. Only the head of each
/// dump is read.
///
/// # Errors
/// `InvalidArgument` for a database that is not in the backup; those of [`check`](super::stored::check) and [`toc_of`].
pub fn contents(
    storage: &Storage,
    folder: &str,
    record: &Record,
    databases: &[String],
) -> Result<Vec<Listed>> {
    let record = super::stored::check(record)?;
    let chosen: Vec<&DatabaseRecord> = match databases {
        [] => record.databases.iter().collect(),
        names => names.iter().map(|name| named(record, name)).collect::<Result<_>>()?,
    };
    let listed = |database: &DatabaseRecord| {
        let toc = toc_of(storage, folder, database)?;
        let shown = toc.entries.iter().filter(|entry| !entry.is_of_database() && !entry.is_about_dump());
        Ok(Listed { database: database.name.clone(), lines: shown.map(super::toc::Entry::line).collect() })
    };
    chosen.into_iter().map(listed).collect()
}

/// The database of this name.
///
/// # Errors
/// `InvalidArgument` when the backup does not have it.
pub fn named<'a>(record: &'a LogicalRecord, name: &str) -> Result<&'a DatabaseRecord> {
    record.database(name).ok_or_else(|| {
        let reason = record.missing.iter().find(|missing| missing.name == name);
        let error = Error::new(
            ErrorKind::InvalidArgument,
            format!("the backup has no database \"{}\"", name.escape_debug()),
        );
        match reason {
            Some(missing) => error.detail(format!("it could not be dumped: {}", missing.reason)),
            None => error,
        }
        .hint(format!("It contains {}.", record.contents()))
    })
}

/// The table of contents of a database's dump. The record must have passed [`check`](super::stored::check).
///
/// # Errors
/// `Corrupt` for a dump that cannot be read, `Unsupported` for one of a format that is not known; what the store said.
pub fn toc_of(storage: &Storage, folder: &str, database: &DatabaseRecord) -> Result<Toc> {
    let mut reader = std::io::BufReader::new(Dump::of(storage, folder, database).reader());
    Toc::read(&mut reader).map_err(|mut error| {
        error.message = format!("database \"{}\": {}", database.name.escape_debug(), error.message);
        error.hint.get_or_insert_with(|| {
            "Run \"pgark verify\" to see what is damaged, and restore another backup.".to_string()
        });
        error
    })
}
