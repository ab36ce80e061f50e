//! Which databases are dumped.

use super::facts::{Database, TEMPLATE0};
use crate::repository::logical_record::{DatabaseRecord, MissingDatabase};
use pg_ark_contract::conversation::LogicalChoice;
use pg_ark_contract::{Error, ErrorKind, Result};

/// What to do when a database cannot be dumped.
pub const REMEDY: &str = "Mend that, leave the database out with exclude_databases => ..., or go on without it with skip_failed => true.";

/// The databases of a backup.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selection {
    /// To be dumped, in the order of their names.
    pub dump: Vec<DatabaseRecord>,
    /// Not asked for.
    pub left_out: Vec<String>,
    /// Asked for and impossible; only with `skip_failed`.
    pub missing: Vec<MissingDatabase>,
}

/// Decides from `databases`, every one of the cluster in the order of their names.
///
/// # Errors
/// `InvalidArgument` for names that are no databases and for a choice that is empty; `DumpFailed` for databases that cannot
/// be dumped, unless the choice is to go on without them; none may be left then.
pub fn select(databases: Vec<Database>, choice: &LogicalChoice) -> Result<Selection> {
    check_names(&databases, choice)?;
    let mut selection = Selection::default();
    for database in databases.into_iter().filter(|database| database.record.name != TEMPLATE0) {
        let name = database.record.name.clone();
        let is_named = choice.databases.as_ref().is_none_or(|names| names.contains(&name));
        match database.trouble {
            _ if !is_named || choice.exclude_databases.contains(&name) => selection.left_out.push(name),
            Some(reason) => selection.missing.push(MissingDatabase { name, reason }),
            None => selection.dump.push(database.record),
        }
    }
    let missing = &selection.missing;
    if !missing.is_empty() && (!choice.skip_failed || selection.dump.is_empty()) {
        return Err(impossible(missing, choice.skip_failed));
    }
    if selection.dump.is_empty() {
        return Err(Error::new(ErrorKind::InvalidArgument, "no database is left to be dumped")
            .hint("Name at least one in databases => ..., and do not exclude it."));
    }
    Ok(selection)
}

fn check_names(databases: &[Database], choice: &LogicalChoice) -> Result<()> {
    let named = choice.databases.as_deref().unwrap_or_default();
    let mut all = named.iter().chain(&choice.exclude_databases).collect::<Vec<_>>();
    all.sort();
    all.dedup();
    let is_there = |name: &str| databases.iter().any(|database| database.record.name == name);
    let unknown: Vec<&String> = all.into_iter().filter(|name| !is_there(name)).collect();
    if !unknown.is_empty() {
        let (noun, verb) = if unknown.len() == 1 { ("database", "does") } else { ("databases", "do") };
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("{noun} {} {verb} not exist", list(unknown)),
        )
        .hint("Write the names as SELECT datname FROM pg_database shows them."));
    }
    if named.iter().any(|name| name == TEMPLATE0) {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("database \"{TEMPLATE0}\" is never dumped"),
        )
        .hint("initdb makes it; nobody may write to it."));
    }
    match named.iter().find(|name| choice.exclude_databases.contains(name)) {
        Some(both) => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("database \"{both}\" is both named and excluded"),
        )
        .hint("Name it in databases or in exclude_databases.")),
        None => Ok(()),
    }
}

fn impossible(missing: &[MissingDatabase], skip_failed: bool) -> Error {
    let noun = if missing.len() == 1 { "database" } else { "databases" };
    let message = match skip_failed {
        false => format!("{noun} {} cannot be dumped", list(missing.iter().map(|m| &m.name))),
        true => format!("no database could be dumped, {} included", list(missing.iter().map(|m| &m.name))),
    };
    let reasons: Vec<String> = missing.iter().map(|m| format!("\"{}\": {}", m.name, m.reason)).collect();
    Error::new(ErrorKind::DumpFailed, message).detail(reasons.join("; ")).hint(REMEDY)
}

fn list<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    names.into_iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn databases() -> Vec<Database> {
        let database = |(name, trouble): (&str, Option<&str>)| Database {
            record: DatabaseRecord { name: name.to_string(), ..DatabaseRecord::default() },
            trouble: trouble.map(str::to_string),
        };
        [("a", None), ("b", None), ("closed", Some("why")), ("postgres", None), ("template0", Some("x"))]
            .map(database)
            .into()
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    fn chosen(named: Option<&[&str]>, excluded: &[&str], skip_failed: bool) -> Result<Selection> {
        let choice =
            LogicalChoice { databases: named.map(names), exclude_databases: names(excluded), skip_failed };
        select(databases(), &choice)
    }

    fn dumped(selection: &Selection) -> Vec<&str> {
        selection.dump.iter().map(|d| d.name.as_str()).collect()
    }

    #[test]
    fn all_but_those_excluded_or_those_named_alone() {
        let all = chosen(None, &["closed", "b"], false).unwrap();
        assert_eq!((dumped(&all), all.left_out.clone()), (vec!["a", "postgres"], names(&["b", "closed"])));
        let two = chosen(Some(&["b", "a", "b"]), &[], false).unwrap();
        assert_eq!((dumped(&two), two.left_out.clone()), (vec!["a", "b"], names(&["closed", "postgres"])));
        let one = chosen(Some(&["b"]), &["template0"], false).unwrap();
        assert_eq!(dumped(&one), ["b"]);
    }

    #[test]
    fn what_cannot_be_dumped_is_named_or_missing() {
        let error = chosen(None, &[], false).unwrap_err();
        assert_eq!(error.kind, ErrorKind::DumpFailed);
        assert!(error.message.contains("\"closed\"") && error.to_string().contains("why"), "{error}");
        let rest = chosen(None, &[], true).unwrap();
        assert_eq!(dumped(&rest), ["a", "b", "postgres"]);
        assert_eq!(rest.missing, [MissingDatabase { name: "closed".into(), reason: "why".into() }]);
        assert_eq!(chosen(Some(&["closed"]), &[], true).unwrap_err().kind, ErrorKind::DumpFailed);
    }

    #[test]
    fn a_choice_that_makes_no_sense_is_refused() {
        for (named, excluded, word) in [
            (Some(&["a", "nope"][..]), &[][..], "\"nope\" does not exist"),
            (None, &["x", "y"][..], "databases \"x\", \"y\" do not exist"),
            (Some(&["template0"][..]), &[][..], "never dumped"),
            (Some(&["a"][..]), &["a"][..], "both named and excluded"),
            (Some(&[][..]), &[][..], "no database is left"),
            (None, &["a", "b", "closed", "postgres"][..], "no database is left"),
            (Some(&["A"][..]), &[][..], "\"A\" does not exist"),
        ] {
            let error = chosen(named, excluded, true).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidArgument, "{word}");
            assert!(error.message.contains(word), "{error}");
        }
    }
}
