//! What `--clean` may drop in a database: judged before anything is touched.
//!
//! A relation goes when it was named, or belongs there to one that was and comes again. What would go besides is refused when
//! it stands for itself, as partitions and sequences do, and named in the plan when it does not, as triggers and privileges.

use super::drops;
use super::existing::Wanted;
use super::into::MAX_NAME;
use super::reach::{self, Named, Part, Reached, Relation};
use super::selection::Graph;
use super::wanted::relation;
use crate::logical::query::Server;
use crate::logical::toc::Entry;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::collections::BTreeSet;

/// Letters that a long name and one that was made of it share at least, as in [`scratch`](super::scratch).
const LONG: usize = 20;

/// What a selection makes anew.
#[derive(Debug, Clone, Default)]
pub struct Brought {
    relations: BTreeSet<(String, String)>,
    parts: BTreeSet<(String, String, String)>,
}

/// What makes room, and what is to be told of it.
#[derive(Debug, Clone, Default)]
pub struct Room {
    /// What exists and is dropped.
    pub replaced: Vec<String>,
    /// What goes with it and does not come again.
    pub goes_with: Vec<String>,
    /// What publications and subscriptions lose, and how they get it back.
    pub lost: Vec<String>,
    /// The SQL, if anything is to be dropped.
    pub sql: Option<String>,
}

impl Brought {
    /// What these entries make; a table by its new name, and with it what is named after it.
    pub fn new(graph: &Graph<'_>, ids: &BTreeSet<u32>, renamed: Option<(&Entry, &str)>) -> Brought {
        let new = |name: &str| match renamed {
            Some((table, to)) => new_name(&table.name, to, name),
            None => name.to_string(),
        };
        let mut brought = Brought::default();
        for entry in graph.entries(ids) {
            let schema = entry.schema.clone().unwrap_or_default();
            if let Some((_, schema, name)) = relation(graph, entry) {
                brought.relations.insert((schema, new(&name)));
            }
            let kind = entry.kind.as_str();
            let name = match graph.owner(entry) {
                Some(owner) => {
                    let rest = entry.name.get(owner.name.len()..).unwrap_or_default();
                    let rest = match (rest.strip_prefix(' '), kind) {
                        (Some(rest), "CONSTRAINT" | "FK CONSTRAINT") => format!(" {}", new(rest)),
                        _ => rest.to_string(),
                    };
                    format!("{}{rest}", new(&owner.name))
                }
                None => match (renamed, kind) {
                    (Some(_), "INDEX" | "STATISTICS") => new(&entry.name),
                    (Some((table, to)), "ACL") => of_renamed(&entry.name, &table.name, to),
                    _ => entry.name.clone(),
                },
            };
            brought.parts.insert((kind.to_string(), schema, name));
        }
        brought
    }

    fn has(&self, part: &Part) -> bool {
        self.parts.contains(&(part.kind.clone(), part.schema.clone(), part.name.clone()))
    }

    fn makes(&self, relation: &Relation) -> bool {
        self.relations.contains(&(relation.schema.clone(), relation.name.clone()))
    }
}

/// `TABLE orders`, `COLUMN orders.note` of a table that has another name.
fn of_renamed(name: &str, old: &str, to: &str) -> String {
    let Some((kind, rest)) = name.split_once(' ') else { return name.to_string() };
    match rest.strip_prefix(old) {
        Some("") => format!("{kind} {to}"),
        Some(column) if kind == "COLUMN" && column.starts_with('.') => format!("{kind} {to}{column}"),
        _ => format!("{kind} {}", new_name(old, to, rest)),
    }
}

/// The name that `was` gets where table `old` becomes `to`, as [`scratch`](super::scratch) gives it while it is free.
fn new_name(old: &str, to: &str, was: &str) -> String {
    let mut back = match was.strip_prefix(old) {
        Some("") => return to.to_string(),
        Some(rest) if rest.starts_with('_') => rest.to_string(),
        _ => {
            let shared = old.chars().zip(was.chars()).take_while(|(a, b)| a == b).count();
            let rest: String = was.chars().skip(shared).collect();
            match was.len() >= MAX_NAME - 3 && shared >= LONG {
                true => format!("_{}", rest.trim_start_matches('_')),
                false => format!("_{was}"),
            }
        }
    };
    let mut front = to.to_string();
    while front.len() + back.len() > MAX_NAME {
        if front.len() > back.len() {
            front.pop()
        } else {
            back.pop()
        };
    }
    front + &back
}

/// Asks the server what dropping `named` means there. `taken` are the relations whose names the selection needs.
///
/// # Errors
/// `TargetNotEmpty` naming what is in the way, what depends on what goes, or what would go and not come again; as
/// [`Server::json`].
pub fn room(
    server: &Server<'_>,
    database: &str,
    named: &Named,
    brought: &Brought,
    taken: &[Wanted],
) -> Result<Room> {
    let reached = reach::ask(server, database, named)?;
    refuse(database, &reached, brought, taken)?;
    let (relations, parts) = (&reached.relations, &reached.parts);
    let goes = relations.iter().filter(|r| r.named || !r.part || brought.makes(r));
    let part = relations.iter().filter(|r| r.kind == 'S' && r.part && !r.named && !brought.makes(r));
    let lost = parts.iter().filter(|part| !brought.has(part));
    let mut room = Room {
        replaced: goes.map(|r| format!("{}.{}", r.schema, r.name)).collect(),
        goes_with: part.map(|r| r.words.clone()).chain(lost.map(|part| part.words.clone())).collect(),
        lost: reached.publications.iter().filter(|p| !brought.has(p)).map(|p| p.words.clone()).collect(),
        sql: None,
    };
    room.replaced.extend(named.schemas.iter().map(|name| format!("schema {name}")));
    let drops = drops::of_tables(relations.iter().filter(|r| r.named));
    if !(drops.is_empty() && named.schemas.is_empty()) {
        let again: Vec<(String, String)> = relations
            .iter()
            .filter(|r| brought.makes(r))
            .map(|r| (r.schema.clone(), r.name.clone()))
            .collect();
        let guard = reach::guard(named, &again);
        let schemas = match named.schemas.is_empty() {
            true => String::new(),
            false => drops::of_schemas(&named.schemas),
        };
        // Views of a schema may read the tables.
        room.sql = Some(format!("{guard}{schemas}{drops}SET LOCAL search_path = '';\n"));
    }
    Ok(room)
}

fn refuse(database: &str, reached: &Reached, brought: &Brought, taken: &[Wanted]) -> Result<()> {
    let known = |w: &&Wanted| !reached.relations.iter().any(|r| (&r.schema, &r.name) == (&w.1, &w.2));
    let in_way: Vec<String> = taken.iter().filter(known).map(|w| format!("{}.{}", w.1, w.2)).collect();
    let lone = reached.relations.iter().filter(|r| !r.named && !r.part && !brought.makes(r));
    let lone: Vec<&str> = lone.map(|r| r.words.as_str()).collect();
    let error = |message: String| Err(Error::new(ErrorKind::TargetNotEmpty, message));
    if !in_way.is_empty() {
        let verb = if in_way.len() == 1 { "belongs" } else { "belong" };
        let what = in_way.join(", ");
        return error(format!("database \"{database}\" already has {what}, which {verb} there to nothing that was named"))
            .map_err(|e| e.hint("Nothing was changed: --clean drops only what is named and what belongs to it. Name a table with --table, too, to have it replaced; or rename what is in the way; or restore beside it with --as NAME."));
    }
    if !lone.is_empty() {
        return error(format!("--clean would drop {} in database \"{database}\", and it would not come back", lone.join(", ")))
            .map_err(|e| e.hint("Nothing was changed. Keep a partition with ALTER TABLE ... DETACH PARTITION, a sequence with ALTER SEQUENCE ... OWNED BY NONE, or drop it first; or restore beside it with --as NAME."));
    }
    if !reached.outside.is_empty() {
        return error(format!("other objects of database \"{database}\" depend on what --clean drops"))
            .map_err(|e| {
                e.detail(reached.outside.join("\n")).hint(
                    "Nothing was changed. Drop them first or take the dependence away; or restore beside it with --as NAME.",
                )
            });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_table_that_is_renamed() {
        for (was, expected) in [
            ("orders", "monday"),
            ("orders_pkey", "monday_pkey"),
            ("by_note", "monday_by_note"),
            ("orders2", "monday_orders2"),
        ] {
            assert_eq!(new_name("orders", "monday", was), expected);
        }
        let long = "a".repeat(60);
        assert_eq!(new_name("t", &long, "t_pkey").len(), MAX_NAME);
        assert_eq!(of_renamed("COLUMN orders.t", "orders", "m"), "COLUMN m.t");
        assert_eq!(of_renamed("TABLE orders", "orders", "m"), "TABLE m");
        assert_eq!(of_renamed("SEQUENCE orders_id_seq", "orders", "m"), "SEQUENCE m_id_seq");
    }

    #[test]
    fn what_stands_for_itself_is_refused_unless_it_comes_again() {
        let relation = |name: &str, named: bool, part: bool| Relation {
            schema: "s".into(),
            name: name.into(),
            kind: 'r',
            named,
            part,
            words: format!("table s.{name}"),
        };
        let mut reached = Reached {
            relations: vec![relation("a", true, false), relation("i", false, true)],
            ..Reached::default()
        };
        let mut brought = Brought::default();
        let way = ("relation", "s".to_string(), "i".to_string());
        assert!(refuse("d", &reached, &brought, std::slice::from_ref(&way)).is_ok());
        reached.relations.push(relation("b", false, false));
        let error = refuse("d", &reached, &brought, &[]).unwrap_err();
        assert!(error.message.contains("table s.b") && error.hint.is_some(), "{error:?}");
        brought.relations.insert(("s".into(), "b".into()));
        assert!(refuse("d", &reached, &brought, &[]).is_ok());
        let error = refuse("d", &reached, &brought, &[(way.0, way.1, "c".to_string())]).unwrap_err();
        assert!(error.message.contains("already has s.c"), "{error:?}");
        reached.outside.push("view s.v".into());
        assert_eq!(refuse("d", &reached, &brought, &[]).unwrap_err().detail.unwrap(), "view s.v");
    }
}
