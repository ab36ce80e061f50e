//! What the server log says about damaged pages: promise 6, damage is loud.

use crate::translate;

const HINT: &str = "The backup holds the damaged pages as they are. Check the disk; repair the relation from a \
                    replica or an older backup.";

/// The relation's name with its database, as far as they are known.
pub fn described(relation: Option<&str>, database: Option<&str>) -> String {
    match (relation, database) {
        (Some(relation), Some(database)) => format!("relation \"{relation}\" of database \"{database}\""),
        (Some(relation), None) => format!("relation \"{relation}\""),
        (None, Some(database)) => format!("a relation of database \"{database}\""),
        (None, None) => String::new(),
    }
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
