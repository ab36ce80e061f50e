//! What a logical backup dumps, as callers say it: the arguments `databases`, `exclude_databases` and `skip_failed` of
//! `ark.backup_start` and `ark.schedule`.

use crate::postgres::text::Text;
use crate::sql;
use pg_ark_contract::conversation::LogicalChoice;
use pg_ark_contract::{Error, ErrorKind, Result};

/// The one database that nobody changes and no dump takes along.
const TEMPLATE0: &str = "template0";
/// Databases of this server; names need not be in this database's encoding.
const DATABASES: &str = "SELECT coalesce(json_agg(datname), '[]')::text FROM pg_database";
/// Names that a message tells.
const MAX_NAMED: usize = 8;

/// The arguments as they came.
#[derive(Debug, Default)]
pub struct Asked {
    /// `databases`.
    pub databases: Option<Vec<Option<Text>>>,
    /// `exclude_databases`.
    pub exclude_databases: Option<Vec<Option<Text>>>,
    /// `skip_failed`; none when it was not asked for.
    pub skip_failed: Option<bool>,
}

impl Asked {
    /// The argument that was given though only a logical backup has it.
    pub fn stray(&self) -> Option<&'static str> {
        let given = [
            ("databases", self.databases.is_some()),
            ("exclude_databases", self.exclude_databases.is_some()),
            ("skip_failed", self.skip_failed.is_some()),
        ];
        given.into_iter().find_map(|(name, is_given)| is_given.then_some(name))
    }

    /// What is to be dumped, by names that can be; whether there are such databases is not looked at.
    ///
    /// # Errors
    /// `InvalidArgument` for what names no database, and for what is named and excluded.
    pub fn choice(&self) -> Result<LogicalChoice> {
        let databases = self.databases.as_deref().map(|list| names("databases", list)).transpose()?;
        let exclude = self.exclude_databases.as_deref().map(|list| names("exclude_databases", list));
        let exclude_databases = exclude.transpose()?.unwrap_or_default();
        let named = databases.iter().flatten();
        let both: Vec<&String> = named.filter(|name| exclude_databases.contains(name)).collect();
        if !both.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("databases and exclude_databases both name {}", listed(&both)),
            )
            .hint("Name each database in one of them."));
        }
        Ok(LogicalChoice { databases, exclude_databases, skip_failed: self.skip_failed.unwrap_or(false) })
    }
}

/// Refuses names that no database of this server has.
///
/// # Errors
/// `InvalidArgument` that names all of them.
pub fn check_existence(choice: &LogicalChoice) -> Result<()> {
    if choice.databases.is_none() && choice.exclude_databases.is_empty() {
        return Ok(());
    }
    let known: Vec<String> = sql::json(DATABASES, &[])?;
    let named = choice.databases.iter().flatten().chain(&choice.exclude_databases);
    let unknown: Vec<&String> = named.filter(|name| !known.contains(name)).collect();
    let message = match unknown.as_slice() {
        [] => return Ok(()),
        [_] => format!("there is no database {}", listed(&unknown)),
        _ => format!("there are no databases {}", listed(&unknown)),
    };
    Err(Error::new(ErrorKind::InvalidArgument, message)
        .hint("SELECT datname FROM pg_database shows the names, which are case-sensitive."))
}

fn names(argument: &str, list: &[Option<Text>]) -> Result<Vec<String>> {
    let bad = |why: &str, hint: &str| {
        Error::new(ErrorKind::InvalidArgument, format!("invalid value of {argument}: {why}")).hint(hint)
    };
    if list.is_empty() {
        return Err(bad("it names no database", "Leave it out, or name databases: ARRAY['app', 'shop']."));
    }
    let mut names: Vec<String> = Vec::new();
    for name in list {
        let name = name.as_ref().map(Text::decode).transpose()?.unwrap_or_default();
        if name.is_empty() {
            return Err(bad(
                "it holds a name that is null or empty",
                "Name databases: ARRAY['app', 'shop'].",
            ));
        }
        if name == TEMPLATE0 {
            let hint = "template0 is never part of a backup: initdb makes it. Leave it out.";
            return Err(bad("it names template0", hint));
        }
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// `"app", "shop" and 3 more`.
fn listed(names: &[&String]) -> String {
    let shown: Vec<String> =
        names.iter().take(MAX_NAMED).map(|name| format!("\"{}\"", name.escape_debug())).collect();
    match names.len().saturating_sub(MAX_NAMED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<String> = (0..10).map(|number| format!("d{number}")).collect();
        let text = listed(&names.iter().collect::<Vec<_>>());
        assert!(text.starts_with("\"d0\", \"d1\"") && text.ends_with("\"d7\" and 2 more"), "{text}");
    }
}
