//! Which database of a backup has the tables and schemas that are asked for.

use super::request::IntoRequest;
use super::selection::Graph;
use crate::logical::contents::{named, toc_of};
use crate::logical::toc::{Entry, Toc};
use crate::repository::Storage;
use crate::repository::logical_record::{DatabaseRecord, LogicalRecord};
use pg_ark_contract::{Error, ErrorKind, Result};

/// The one database that has all of it, and its table of contents.
///
/// # Errors
/// `InvalidArgument` when there is none, or several; those of [`toc_of`].
pub fn database<'a>(
    storage: &Storage,
    folder: &str,
    record: &'a LogicalRecord,
    request: &IntoRequest,
) -> Result<(&'a DatabaseRecord, Toc)> {
    if let Some(name) = &request.database {
        let database = named(record, name)?;
        return Ok((database, toc_of(storage, folder, database)?));
    }
    let mut found = Vec::new();
    for database in &record.databases {
        let toc = toc_of(storage, folder, database)?;
        let graph = Graph::new(&toc);
        let has_tables = request.tables.iter().all(|table| !graph.named(table).is_empty());
        if has_tables && request.schemas.iter().all(|schema| graph.has_schema(schema)) {
            found.push((database, toc));
        }
    }
    let names: Vec<String> = found.iter().map(|(database, _)| format!("\"{}\"", database.name)).collect();
    match found.pop() {
        Some(only) if found.is_empty() => Ok(only),
        Some(_) => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("several databases of the backup have {}: {}", asked(request), names.join(", ")),
        )
        .hint("Name one of them with --database.")),
        None => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("no database of the backup has {}", asked(request)),
        )
        .hint("\"pgark restore BACKUP --pgdata /absent/folder --dry-run\" shows what the backup contains; letters count as they are, in upper and lower case.")),
    }
}

/// What was asked for, in words.
fn asked(request: &IntoRequest) -> String {
    let tables = request.tables.iter().map(|name| format!("table \"{}\"", name.escape_debug()));
    let schemas = request.schemas.iter().map(|name| format!("schema \"{}\"", name.escape_debug()));
    tables.chain(schemas).collect::<Vec<_>>().join(" and ")
}

/// The table, view or sequence that `text` means.
///
/// # Errors
/// `InvalidArgument` when there is none, or one in several schemas.
pub fn table<'a>(graph: &Graph<'a>, text: &str) -> Result<&'a Entry> {
    let found = graph.named(text);
    let database = &graph.toc.database;
    match found.as_slice() {
        [only] => Ok(only),
        [] => {
            let alike = |entry: &&Entry| {
                let last = text.rsplit('.').next().unwrap_or(text);
                entry.kind == "TABLE" && entry.name.eq_ignore_ascii_case(last)
            };
            let alike: Vec<String> =
                graph.toc.entries.iter().filter(alike).map(Entry::full_name).take(5).collect();
            let message =
                format!("database \"{database}\" of the backup has no table \"{}\"", text.escape_debug());
            Err(Error::new(ErrorKind::InvalidArgument, message).hint(match alike.is_empty() {
                true => "Give its name as SCHEMA.TABLE; letters count as they are, in upper and lower case."
                    .to_string(),
                false => format!("It has {}.", alike.join(", ")),
            }))
        }
        several => {
            let names: Vec<String> = several.iter().map(|entry| entry.full_name()).collect();
            let message = format!("\"{}\" is the name of several: {}", text.escape_debug(), names.join(", "));
            Err(Error::new(ErrorKind::InvalidArgument, message)
                .hint("Name it with its schema, as in sales.orders or \"sales\".\"orders\"."))
        }
    }
}

/// Fails for a schema that the database does not have.
///
/// # Errors
/// `InvalidArgument`.
pub fn schema(graph: &Graph<'_>, name: &str) -> Result<()> {
    if graph.has_schema(name) {
        return Ok(());
    }
    let message = format!(
        "database \"{}\" of the backup has no schema \"{}\"",
        graph.toc.database,
        name.escape_debug()
    );
    let schemas = graph.toc.entries.iter().filter(|entry| entry.kind == "SCHEMA").take(10);
    let names: Vec<&str> = schemas.map(|entry| entry.name.as_str()).collect();
    Err(Error::new(ErrorKind::InvalidArgument, message).hint(match names.is_empty() {
        true => "It has no schema but public.".to_string(),
        false => format!("It has {}.", names.join(", ")),
    }))
}
