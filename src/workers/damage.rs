//! What the server log says about damaged pages: promise 6, damage is loud.

use crate::translate;

const HINT: &str = "The backup holds the damaged pages as they are. Check the disk; repair the relation from a \
                    replica or an older backup.";

/// How the name of a toast table begins.
const TOAST: &str = "toast table of ";

/// The relation's name with its database, as far as they are known. The name is quoted where SQL needs it.
pub fn described(relation: Option<&str>, database: Option<&str>) -> String {
    // Some names say what they are: "toast table of public.orders".
    let relation =
        relation.map(|name| if name.starts_with(TOAST) { name.into() } else { format!("relation {name}") });
    match (relation, database) {
        (Some(relation), Some(database)) => format!("{relation} of database \"{database}\""),
        (Some(relation), None) => relation,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_said() {
        assert_eq!(described(Some("a.b"), Some("c")), "relation a.b of database \"c\"");
        assert_eq!(described(Some("toast table of a.b"), Some("c")), "toast table of a.b of database \"c\"");
        assert_eq!(described(Some("pg_catalog.pg_database"), None), "relation pg_catalog.pg_database");
        assert_eq!(described(None, Some("c")), "a relation of database \"c\"");
        assert_eq!(described(None, None), "");
    }
}
