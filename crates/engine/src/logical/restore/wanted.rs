//! Entries of a dump as questions to a server: is it there already?

use super::existing::{Wanted, exist};
use super::selection::Graph;
use crate::logical::query::Server;
use crate::logical::toc::Entry;
use pg_ark_contract::Result;

/// How the server is asked for something that may be brought along.
pub fn class(entry: &Entry) -> Option<Wanted> {
    let schema = entry.schema.as_deref();
    Some(match entry.kind.as_str() {
        "SCHEMA" => of("schema", None, &entry.name),
        "EXTENSION" => of("extension", None, &entry.name),
        "PROCEDURAL LANGUAGE" => of("language", None, &entry.name),
        "FOREIGN DATA WRAPPER" => of("wrapper", None, &entry.name),
        "SERVER" => of("server", None, &entry.name),
        "ACCESS METHOD" => of("method", None, &entry.name),
        "TYPE" | "DOMAIN" | "SHELL TYPE" => of("type", schema, &entry.name),
        "COLLATION" => of("collation", schema, &entry.name),
        "SEQUENCE" => of("relation", schema, &entry.name),
        "FUNCTION" | "PROCEDURE" | "AGGREGATE" => {
            // f(integer): the arguments stand behind the last parenthesis that opens at their level.
            let name = entry.name.split_once('(').map_or(entry.name.as_str(), |(name, _)| name);
            of("function", schema, name)
        }
        _ => return None,
    })
}

/// The relation that an entry makes, if it makes one.
pub fn relation(graph: &Graph<'_>, entry: &Entry) -> Option<Wanted> {
    let name = match entry.kind.as_str() {
        "TABLE" | "FOREIGN TABLE" | "VIEW" | "MATERIALIZED VIEW" | "SEQUENCE" | "INDEX" => {
            entry.name.as_str()
        }
        // The index of a constraint has its name. Of a check it is asked for in vain.
        "CONSTRAINT" => graph.owner(entry)?.name.len().checked_add(1).and_then(|at| entry.name.get(at..))?,
        _ => return None,
    };
    Some(of("relation", entry.schema.as_deref(), name))
}

/// Something of a class.
pub fn of(class: &'static str, schema: Option<&str>, name: &str) -> Wanted {
    (class, schema.unwrap_or_default().to_string(), name.to_string())
}

/// Those of `wanted` that exist.
///
/// # Errors
/// As [`exist`].
pub fn present(
    server: &Server<'_>,
    database: &str,
    wanted: impl Iterator<Item = Wanted>,
) -> Result<Vec<Wanted>> {
    let wanted: Vec<Wanted> = wanted.collect();
    let there = exist(server, database, &wanted)?;
    Ok(wanted.into_iter().zip(there).filter(|(_, there)| *there).map(|(wanted, _)| wanted).collect())
}

/// Whether the server has the publication that gets a table by `entry`.
///
/// # Errors
/// As [`exist`].
pub fn publication_exists(
    server: &Server<'_>,
    graph: &Graph<'_>,
    entry: &Entry,
    database: &str,
) -> Result<bool> {
    let mut all = entry.depends.iter().filter_map(|id| graph.entry(*id));
    let publication = all.find(|other| other.kind == "PUBLICATION");
    let wanted = publication.map(|publication| of("publication", None, &publication.name));
    Ok(!present(server, database, wanted.into_iter())?.is_empty())
}

/// An entry, for people.
pub fn words(entry: &Entry) -> String {
    format!("{} {}", entry.kind, entry.full_name())
}
