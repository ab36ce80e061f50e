//! Tables and schemas into a database of a running server: what is taken of the dump, what is in its way, and one transaction
//! that brings it there or changes nothing.

use super::drops;
use super::existing::{Target, Wanted, exist, literal};
use super::find;
use super::into_plan::ObjectsStep;
use super::load::{Job, Load};
use super::report::Problem;
use super::request::IntoRequest;
use super::selection::{Graph, Selection};
use super::use_list::UseList;
use crate::logical::query::Server;
use crate::logical::stored::Dump;
use crate::logical::toc::{Entry, Toc};
use pg_ark_contract::{Error, ErrorKind, Result};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{BufReader, Read};

/// What refuses a restore whose names are taken.
const TAKEN: &str = "Nothing was changed. With --clean they are dropped first and made anew; with --as NAME one table or schema goes beside what is there.";

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
    }
    Ok(Chosen { tables, schemas: request.schemas.clone(), selection })
}

/// Policies and rules that speak of other tables belong to the transaction where these are there.
fn settle(server: &Server<'_>, graph: &Graph<'_>, selection: &mut Selection, database: &str) -> Result<()> {
    let Selection { inside, after } = &*selection;
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
    let Selection { inside, after } = &chosen.selection;
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
    objects.list.extend(graph.grown(objects.also.iter().copied()));
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
        let drops = chosen.tables.iter().copied().chain(graph.entries(inside).filter(beside));
        let drops: Vec<&Entry> = drops.filter(|entry| relation(graph, entry).is_some()).collect();
        let mut sql = drops::of_tables(drops.into_iter(), None);
        if !filled.is_empty() {
            sql.push_str(&drops::of_schemas(&chosen.schemas));
        }
        // Those that the dump has too get it back.
        let again = graph.entries(after).filter(|entry| entry.kind == "PUBLICATION TABLE");
        let again = again.flat_map(|entry| entry.depends.iter().filter_map(|id| graph.entry(*id)));
        let again: Vec<String> = again.map(|other| format!("publication {} of ", other.name)).collect();
        let mut lost = publications(server, &found, database)?;
        lost.retain(|words| !again.iter().any(|begin| words.starts_with(begin.as_str())));
        objects.step.left_out.extend(lost);
        objects.step.replaced = found;
        objects.drop = Some(sql);
    }
    Ok(objects)
}

/// Publications of the server that lose a table that is replaced; the dump knows only its own.
fn publications(server: &Server<'_>, replaced: &[String], database: &str) -> Result<Vec<String>> {
    let names: Vec<String> = replaced.iter().map(|name| literal(name)).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT coalesce(jsonb_agg(format('publication %I of the server loses %I.%I: ALTER PUBLICATION %1$I ADD TABLE %2$I.%3$I',
           p.pubname, n.nspname, c.relname) ORDER BY p.pubname, n.nspname, c.relname), '[]')::text
         FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid JOIN pg_class c ON c.oid = r.prrelid
         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname || '.' || c.relname IN ({0})
           OR 'schema ' || n.nspname IN ({0})",
        names.join(", ")
    );
    server.json(database, &sql)
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
    let Selection { inside, after } = &chosen.selection;
    if clean && !found.is_empty() {
        objects.drop = Some(match chosen.tables.as_slice() {
            [table] => drops::of_tables([*table].into_iter(), Some(name)),
            _ => {
                let name = name.to_string();
                let schema = super::existing::identifier(&name);
                format!("{}DROP SCHEMA {schema};\n", drops::of_schemas(&[name]))
            }
        });
        objects.step.replaced = found.iter().map(|w| w.2.clone()).collect();
    }
    objects.also = lacking(server, graph, inside, database)?;
    // The schema that gets another name does not have to be there, nor what is in it.
    objects.also.retain(|id| !inside.contains(id));
    objects.step.also = graph.entries(&objects.also).map(words).collect();
    objects.list = inside.union(&graph.needs(inside)).copied().collect();
    objects.step.left_out = graph.entries(after).map(words).collect();
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

/// How the server is asked for something that may be brought along.
fn class(entry: &Entry) -> Option<Wanted> {
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
fn relation(graph: &Graph<'_>, entry: &Entry) -> Option<Wanted> {
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

fn of(class: &'static str, schema: Option<&str>, name: &str) -> Wanted {
    (class, schema.unwrap_or_default().to_string(), name.to_string())
}

/// Those of `wanted` that exist.
fn present(server: &Server<'_>, database: &str, wanted: impl Iterator<Item = Wanted>) -> Result<Vec<Wanted>> {
    let wanted: Vec<Wanted> = wanted.collect();
    let there = exist(server, database, &wanted)?;
    Ok(wanted.into_iter().zip(there).filter(|(_, there)| *there).map(|(wanted, _)| wanted).collect())
}

fn publication_exists(server: &Server<'_>, graph: &Graph<'_>, entry: &Entry, database: &str) -> Result<bool> {
    let mut all = entry.depends.iter().filter_map(|id| graph.entry(*id));
    let publication = all.find(|other| other.kind == "PUBLICATION");
    let wanted = publication.map(|publication| of("publication", None, &publication.name));
    Ok(!present(server, database, wanted.into_iter())?.is_empty())
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

fn words(entry: &Entry) -> String {
    format!("{} {}", entry.kind, entry.full_name())
}

/// Restores them: all in one transaction, then what may fail.
///
/// # Errors
/// `ServerNotReady` with the server's words when the transaction failed: then nothing was changed. As [`Load::run`].
pub fn run(load: &Load<'_>, dump: &Dump<'_>, objects: &Objects) -> Result<Vec<Problem>> {
    let target = &objects.step.target;
    let taken = Taken { list: Some(&objects.list), options: &objects.options, drop: objects.drop.as_deref() };
    transaction(load, &mut dump.reader(), target, &objects.toc, &taken)?;
    if objects.after.is_empty() {
        return Ok(Vec::new());
    }
    let list = in_order(&objects.toc, &objects.after)?;
    let mut options = objects.options.clone();
    options.push(list.option());
    load.feed(&mut dump.reader(), &Job { name: target, connect: target, options: &options, jobs: 1 })
}

/// What a transaction takes of a dump.
#[derive(Debug, Clone, Copy)]
pub struct Taken<'a> {
    /// Numbers of its entries; none: all.
    pub list: Option<&'a BTreeSet<u32>>,
    /// More options of pg_restore.
    pub options: &'a [OsString],
    /// SQL that comes first.
    pub drop: Option<&'a str>,
}

/// The entries in the order of the dump.
fn in_order(toc: &Toc, ids: &BTreeSet<u32>) -> Result<UseList> {
    UseList::new(toc.entries.iter().map(|entry| entry.id).filter(|id| ids.contains(id)))
}

/// A dump into `target` in one transaction. `toc` is that of the dump, where a list is given.
///
/// # Errors
/// As [`run`].
pub fn transaction(
    load: &Load<'_>,
    dump: &mut (dyn Read + Send),
    target: &str,
    toc: &Toc,
    taken: &Taken<'_>,
) -> Result<()> {
    let mut options = taken.options.to_vec();
    options.push("--single-transaction".into());
    let list = taken.list.map(|list| in_order(toc, list)).transpose()?;
    options.extend(list.as_ref().map(UseList::option));
    let mut rest = BufReader::new(dump);
    let head = match taken.drop {
        Some(sql) => {
            options.extend(["--clean".into(), "--if-exists".into()]);
            Toc::with_drop(&mut rest, taken.list, sql)?
        }
        None => Vec::new(),
    };
    let job = Job { name: target, connect: target, options: &options, jobs: 1 };
    let problems = load.feed(&mut head.as_slice().chain(rest), &job)?;
    match problems.is_empty() {
        true => Ok(()),
        false => Err(undone(target, &problems)),
    }
}

fn undone(target: &str, problems: &[Problem]) -> Error {
    let said: Vec<&str> = problems.iter().take(5).map(|problem| problem.message.as_str()).collect();
    Error::new(ErrorKind::ServerNotReady, format!("nothing was restored into database \"{target}\""))
        .detail(said.join("\n"))
        .hint("All was done in one transaction, which the server has undone: everything is as it was. Mend the cause and run the same command again.")
}
