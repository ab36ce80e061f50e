//! What the server log says about damaged pages: promise 6, damage is loud.

use super::server;
use crate::postgres::transaction;
use crate::translate;

const HINT: &str = "The backup holds the damaged pages as they are. Check the disk; repair the relation from a \
                    replica or an older backup.";

/// The relation's name where this process can see it, else the database's name, else nothing.
pub fn name(database: u32, tablespace: u32, relfilenode: u32) -> String {
    let named = transaction::run(|| {
        if let Some(relation) = server::relation_name(database, tablespace, relfilenode)? {
            return Ok(format!("relation \"{relation}\""));
        }
        let database = server::database_name(database)?;
        Ok(database.map_or_else(String::new, |name| format!("a relation of database \"{name}\"")))
    });
    named.unwrap_or_default()
}

/// Logs a WARNING about the failed pages of one file.
pub fn warn(path: &str, relation: &str, blocks: &[u32], damaged_pages: u64) {
    let list = blocks.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let more = if damaged_pages > blocks.len() as u64 { ", ..." } else { "" };
    let what = if relation.is_empty() { "a file" } else { relation };
    let word = if damaged_pages == 1 { "block" } else { "blocks" };
    translate::warn(
        format!(
            "page checksums failed in {what}, file \"{path}\": {word} {list}{more} ({damaged_pages} in all)"
        ),
        Some(HINT.into()),
    );
}
