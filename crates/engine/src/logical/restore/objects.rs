//! Tables and schemas into a database of a running server: what is taken of the dump, what is in its way, and one transaction
//! that brings it there or changes nothing.

use super::clean::{self, Brought};
use super::existing::{Target, Wanted, exist};
use super::find;
use super::given;
use super::into_plan::ObjectsStep;
pub use super::objects_run::{Taken, run, transaction};
use super::reach::Named;
use super::request::IntoRequest;
use super::selection::{Graph, Selection};
use super::wanted::{class, of, present, publication_exists, relation, words};
use crate::logical::query::Server;
use crate::logical::toc::{Entry, Toc};
use pg_ark_contract::{Error, ErrorKind, Result};
use std::collections::BTreeSet;
use std::ffi::OsString;

/// What refuses a restore whose names are taken.
const TAKEN: &str = "Nothing was changed. With --clean they are dropped first and made anew; with --as NAME one table or schema goes beside what is there.";

/// What the numbers in columns of type oid may stand for.
const LARGE_OBJECTS: &str = "the backup has large objects, which --table and --schema do not take along: columns that hold their numbers lead to nothing, or to others; a whole database brings them";

/// What is taken of a dump.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    /// For the user.
    pub step: ObjectsStep,
    /// Numbers of the entries that come in one transaction.
    pub list: BTreeSet<u32>,
    /// Numbers of those that come after it and may fail.
    pub after: BTreeSet<u32>,
    /// Numbers of what they need and the database lacks; part of `list`.
    pub also: BTreeSet<u32>,
    /// The SQL that makes room for them, with `--clean`.
    pub drop: Option<String>,
    /// More options of pg_restore.
    pub options: Vec<OsString>,
    /// The table of contents of the dump.
    pub toc: Toc,
}

impl Objects {
    /// Makes room first.
    fn clear(&mut self, room: clean::Room) {
        self.step.replaced = room.replaced;
        self.step.goes_with = room.goes_with;
        self.step.left_out.extend(room.lost);
        self.drop = room.sql;
    }
}

/// What is selected of a table of contents.
struct Chosen<'a> {
    tables: Vec<&'a Entry>,
    schemas: Vec<String>,
    selection: Selection,
}

/// Chooses, and looks at the database that it goes into. `roles` are those of the backup.
///
/// # Errors
/// `InvalidArgument` for what the dump does not have; `TargetNotEmpty` for what is there already; as [`Server::json`].
pub fn prepare(
    server: &Server<'_>,
    target: &Target,
    toc: Toc,
    request: &IntoRequest,
    database: &str,
    roles: &[String],
) -> Result<Objects> {
    let graph = Graph::new(&toc);
    let mut chosen = choose(&graph, request)?;
    settle(server, &graph, &mut chosen.selection, database)?;
    let mut objects = match &request.rename {
        None => as_it_was(server, &graph, &chosen, request.clean, database)?,
        Some(name) => renamed(server, &graph, &chosen, name, request.clean, database)?,
    };
    let missing = missing_owners(&graph, &objects.list, target);
    if !missing.is_empty() {
        objects.options.push("--no-owner".into());
        let why = "owners that do not exist there, or that its user may not give anything to";
        objects.step.left_out.push(format!("{why}: {}", missing.join(", ")));
    }
    let is_lacking = |role: &&String| !target.roles.contains(role);
    if let Some(role) = roles.iter().find(is_lacking) {
        let why = format!("role \"{role}\" does not exist there");
        privileges_apart(&graph, &mut objects, request.rename.is_some(), &why);
    }
    objects.step.left_out.extend(
        graph
            .entries(&chosen.selection.strangers)
            .map(|entry| format!("{}: its table is not in the dump, as that of an extension", words(entry))),
    );
    if toc.entries.iter().any(|entry| entry.kind.starts_with("BLOB")) {
        objects.step.warnings.push(LARGE_OBJECTS.to_string());
    }
    let made: BTreeSet<&str> =
        graph.entries(&objects.list).filter_map(|entry| entry.schema.as_deref()).collect();
    let made: Vec<&str> = made.into_iter().chain(request.rename.as_deref()).collect();
    objects.step.warnings.extend(given::by_default(server, database, &made)?);
    objects.step.target = database.to_string();
    objects.step.tables = chosen.tables.iter().map(|entry| entry.full_name()).collect();
    objects.step.schemas.clone_from(&chosen.schemas);
    objects.step.rename.clone_from(&request.rename);
    objects.step.contents = graph.entries(&objects.list).map(Entry::line).collect();
    objects.toc = toc;
    Ok(objects)
}

fn choose<'a>(graph: &Graph<'a>, request: &IntoRequest) -> Result<Chosen<'a>> {
    let mut tables: Vec<&Entry> =
        request.tables.iter().map(|text| find::table(graph, text)).collect::<Result<_>>()?;
    tables.dedup_by_key(|entry| entry.id);
    for name in &request.schemas {
        find::schema(graph, name)?;
    }
    let ids: Vec<u32> = tables.iter().map(|entry| entry.id).collect();
    let mut selection = graph.tables(&ids);
    if !request.schemas.is_empty() {
        let more = graph.schemas(&request.schemas);
        selection.inside.extend(more.inside);
        selection.after.extend(more.after);
        selection.after.retain(|id| !selection.inside.contains(id));
        selection.strangers = more.strangers;
    }
    Ok(Chosen { tables, schemas: request.schemas.clone(), selection })
}

/// Policies and rules that speak of other tables belong to the transaction where these are there.
fn settle(server: &Server<'_>, graph: &Graph<'_>, selection: &mut Selection, database: &str) -> Result<()> {
    let Selection { inside, after, .. } = &*selection;
    let mut settled = BTreeSet::new();
    for entry in graph.entries(after).filter(|entry| matches!(entry.kind.as_str(), "POLICY" | "RULE")) {
        let others = entry.depends.iter().filter(|id| !inside.contains(id)).filter_map(|id| graph.entry(*id));
        let wanted: Vec<Wanted> = others.filter_map(|other| relation(graph, other)).collect();
        if exist(server, database, &wanted)?.into_iter().all(|there| there) {
            settled.insert(entry.id);
        }
    }
    settled.extend(graph.comments(&settled));
    selection.after.retain(|id| !settled.contains(id));
    selection.inside.extend(settled);
    Ok(())
}

/// Under the names that it had.
fn as_it_was(
    server: &Server<'_>,
    graph: &Graph<'_>,
    chosen: &Chosen<'_>,
    clean: bool,
    database: &str,
) -> Result<Objects> {
    let mut objects = Objects::default();
    let Selection { inside, after, .. } = &chosen.selection;
    let filled =
        present(server, database, chosen.schemas.iter().map(|name| of("filled schema", None, name)))?;
    let there = present(server, database, chosen.schemas.iter().map(|name| of("schema", None, name)))?;
    let beside = |entry: &&Entry| !entry.schema.as_ref().is_some_and(|s| chosen.schemas.contains(s));
    let relations = graph.entries(inside).filter(beside).filter_map(|entry| relation(graph, entry));
    let taken = present(server, database, relations)?;
    let found: Vec<String> = taken
        .iter()
        .map(|w| format!("{}.{}", w.1, w.2))
        .chain(filled.iter().map(|w| format!("schema {}", w.2)))
        .collect();
    if !found.is_empty() && !clean {
        return Err(Error::new(
            ErrorKind::TargetNotEmpty,
            format!("database \"{database}\" already has {}", found.join(", ")),
        )
        .hint(TAKEN));
    }
    // A schema that is there stays, with what extensions put into it; only what it holds is replaced.
    let is_there = |entry: &Entry| entry.kind == "SCHEMA" && there.iter().any(|w| w.2 == entry.name);
    objects.list = graph.entries(inside).filter(|entry| !is_there(entry)).map(|entry| entry.id).collect();
    objects.also = lacking(server, graph, inside, database)?;
    objects.step.also = graph.entries(&objects.also).map(words).collect();
    objects.list.extend(graph.only_needed(&objects.also, inside));
    for entry in graph.entries(after) {
        match entry.kind == "PUBLICATION TABLE" && !publication_exists(server, graph, entry, database)? {
            true => objects.step.left_out.push(words(entry)),
            false => {
                objects.after.insert(entry.id);
                objects.step.afterwards.push(words(entry));
            }
        }
    }
    if clean {
        let pair = |entry: &&Entry| (entry.schema.clone().unwrap_or_default(), entry.name.clone());
        let named = Named {
            tables: chosen.tables.iter().filter(|entry| beside(entry)).map(pair).collect(),
            schemas: filled.into_iter().map(|w| w.2).collect(),
            with_schemas: false,
        };
        let brought = Brought::new(graph, &inside.union(after).copied().collect(), None);
        objects.clear(clean::room(server, database, &named, &brought, &taken)?);
    }
    Ok(objects)
}

/// Under another name: everything that is needed goes into a database of its own first.
fn renamed(
    server: &Server<'_>,
    graph: &Graph<'_>,
    chosen: &Chosen<'_>,
    name: &str,
    clean: bool,
    database: &str,
) -> Result<Objects> {
    let mut objects = Objects::default();
    let wanted = match (chosen.tables.as_slice(), chosen.schemas.as_slice()) {
        ([table], []) => of("relation", table.schema.as_deref(), name),
        _ => of("schema", None, name),
    };
    let found = present(server, database, [wanted].into_iter())?;
    if let (Some(found), false) = (found.first(), clean) {
        let schema = if found.1.is_empty() { "schema ".to_string() } else { format!("{}.", found.1) };
        return Err(Error::new(
            ErrorKind::TargetNotEmpty,
            format!("database \"{database}\" already has {schema}{}", found.2),
        )
        .hint("Nothing was changed. Choose another name, or drop it first with --clean."));
    }
    let Selection { inside, after, .. } = &chosen.selection;
    if clean && !found.is_empty() {
        let (named, table) = match chosen.tables.as_slice() {
            [table] => {
                let schema = table.schema.clone().unwrap_or_default();
                (Named { tables: vec![(schema, name.to_string())], ..Named::default() }, Some((*table, name)))
            }
            _ => (Named { schemas: vec![name.to_string()], with_schemas: true, ..Named::default() }, None),
        };
        let brought = Brought::new(graph, inside, table);
        let taken = if table.is_some() { found.as_slice() } else { &[] };
        let mut room = clean::room(server, database, &named, &brought, taken)?;
        if table.is_none() {
            let schema = super::existing::identifier(name);
            room.sql = room.sql.map(|sql| format!("{sql}DROP SCHEMA {schema};\n"));
        }
        objects.clear(room);
    }
    objects.also = lacking(server, graph, inside, database)?;
    // The schema that gets another name does not have to be there, nor what is in it.
    objects.also.retain(|id| !inside.contains(id));
    objects.step.also = graph.entries(&objects.also).map(words).collect();
    objects.list = inside.union(&graph.needs(inside)).copied().collect();
    objects.step.left_out.extend(graph.entries(after).map(words));
    Ok(objects)
}

/// What `ids` need and the database lacks. Tables are never brought along: a view of a missing table fails.
fn lacking(
    server: &Server<'_>,
    graph: &Graph<'_>,
    ids: &BTreeSet<u32>,
    database: &str,
) -> Result<BTreeSet<u32>> {
    let needs = graph.needs(ids);
    let known: Vec<(&Entry, Wanted)> =
        graph.entries(&needs).filter_map(|entry| Some((entry, class(entry)?))).collect();
    let wanted: Vec<Wanted> = known.iter().map(|(_, wanted)| wanted.clone()).collect();
    let there = exist(server, database, &wanted)?;
    let lacking = known.iter().zip(there).filter(|(_, there)| !there);
    Ok(lacking.map(|((entry, _), _)| entry.id).collect())
}

/// Privileges and policies of a role that is missing would fail the transaction: they come after it, or not at all.
fn privileges_apart(graph: &Graph<'_>, objects: &mut Objects, renamed: bool, why: &str) {
    let named = |entry: &&Entry| matches!(entry.kind.as_str(), "ACL" | "DEFAULT ACL" | "POLICY");
    let mut apart: BTreeSet<u32> = graph.entries(&objects.list).filter(named).map(|entry| entry.id).collect();
    apart.extend(graph.comments(&apart));
    for entry in graph.entries(&apart) {
        objects.list.remove(&entry.id);
        match renamed {
            true => objects.step.left_out.push(format!("{}: {why}", words(entry))),
            false => {
                objects.after.insert(entry.id);
                objects.step.afterwards.push(format!("{}: {why}", words(entry)));
            }
        }
    }
}

/// Owners that the server does not know, or that who restores cannot give anything to.
fn missing_owners(graph: &Graph<'_>, ids: &BTreeSet<u32>, target: &Target) -> Vec<String> {
    let owners: BTreeSet<&str> = graph.entries(ids).map(|entry| entry.owner.as_str()).collect();
    let is_missing = |owner: &&&str| !owner.is_empty() && !target.may_own.iter().any(|role| role == **owner);
    owners.iter().filter(is_missing).map(ToString::to_string).collect()
}
