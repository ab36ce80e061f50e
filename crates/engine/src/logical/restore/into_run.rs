//! A restore into a running server, carried out: the dumps are proved, then everything is changed that the plan names.

use super::existing::Target;
use super::globals;
use super::into::{IntoPrepared, USUAL};
use super::load::Load;
use super::money;
use super::objects::{self, Objects};
use super::report::{LogicalRestored, Problem};
use super::scratch::{self, Renaming};
use super::selection;
use super::waiting;
use super::whole::{self, Whole};
use crate::logical::child::Keeper;
use crate::logical::contents::{named, toc_of};
use crate::logical::query::Server;
use crate::logical::stored::{self, Dump};
use crate::logical::toc::Entry;
use crate::repository::Storage;
use crate::repository::logical_record::{DatabaseRecord, LogicalRecord};
use crate::restore::Stage;
use crate::restore::watch::{self, Watch};
use pg_ark_contract::Result;
use std::collections::BTreeSet;

/// Restores.
///
/// # Errors
/// `Corrupt` for a damaged dump, before anything is changed; `ServerNotReady` with the server's words; `Cancelled`. What could
/// not be restored beside the rest is in the result.
pub fn run_into(storage: &Storage, prepared: &IntoPrepared, watch: &dyn Watch) -> Result<LogicalRestored> {
    let logical = stored::check(&prepared.record)?;
    Keeper::with(&|| watch::check(watch), |keeper| {
        let dumps = prove(storage, prepared, logical, watch)?;
        watch.stage(Stage::Load, dumps);
        let server =
            Server { keeper, programs: &prepared.programs, connection: &prepared.connection, access: None };
        let load = Load { server, watch };
        let used = used(prepared, logical);
        money::check(&server, &through(prepared), used.into_iter())?;
        waiting::told(&load, &through(prepared), || match &prepared.objects {
            Some(objects) => {
                let record = named(logical, &objects.step.name)?;
                let connection = money::connection(&prepared.connection, record);
                tables(storage, prepared, record, &load.by(&connection), objects)
            }
            None => databases(storage, prepared, logical, load),
        })
    })
}

/// The databases of which something is restored.
fn used<'l>(prepared: &IntoPrepared, logical: &'l LogicalRecord) -> Vec<&'l DatabaseRecord> {
    let plan = &prepared.plan;
    let objects = plan.objects.as_ref().map(|step| &step.name);
    let names: BTreeSet<&String> = plan.databases.iter().map(|step| &step.name).chain(objects).collect();
    logical.databases.iter().filter(|database| names.contains(&database.name)).collect()
}

/// A database of the server that can be asked.
fn through(prepared: &IntoPrepared) -> String {
    match &prepared.objects {
        Some(objects) => objects.step.target.clone(),
        None => whole::through("", &prepared.usual).to_string(),
    }
}

/// Reads every dump that is used and compares it with its checksum; gives their bytes.
fn prove(
    storage: &Storage,
    prepared: &IntoPrepared,
    logical: &LogicalRecord,
    watch: &dyn Watch,
) -> Result<u64> {
    let used = used(prepared, logical);
    let used: Vec<Dump<'_>> =
        used.into_iter().map(|database| Dump::of(storage, &prepared.folder, database)).collect();
    let total = used.iter().map(Dump::size).sum();
    watch.stage(Stage::Check, total);
    for dump in &used {
        dump.check(&mut |bytes| {
            watch.advance(bytes);
            watch::check(watch)
        })?;
    }
    Ok(total)
}

fn databases(
    storage: &Storage,
    prepared: &IntoPrepared,
    logical: &LogicalRecord,
    load: Load<'_>,
) -> Result<LogicalRestored> {
    let mut restored = LogicalRestored::default();
    let mut target = prepared.target.clone();
    if let Some(script) = &prepared.script {
        let through = whole::through("", &prepared.usual);
        restored.problems = globals::run(&load.server, through, script)?;
        // What was made of them decides what databases can have.
        target = Target::ask(&load.server, through)?;
    }
    scratch::sweep(&load, &prepared.target, whole::through("", &prepared.usual))?;
    let whole = Whole {
        load,
        storage,
        folder: &prepared.folder,
        record: logical,
        target: &target,
        usual: &prepared.usual,
        jobs: prepared.jobs,
    };
    let done = whole.run(&prepared.plan.databases, restored.problems)?;
    (restored.databases, restored.kept, restored.problems) = (done.databases, done.kept, done.problems);
    if prepared.script.is_some() {
        restored.problems.extend(left_out(storage, prepared, logical)?);
    }
    Ok(restored)
}

/// Databases that every server has, and that hold something which was not restored: who moves to another server must not take
/// that for success.
fn left_out(storage: &Storage, prepared: &IntoPrepared, logical: &LogicalRecord) -> Result<Vec<Problem>> {
    let steps = &prepared.plan.databases;
    let mut problems = Vec::new();
    for database in logical.databases.iter().filter(|d| !steps.iter().any(|step| step.name == d.name)) {
        let mut toc = toc_of(storage, &prepared.folder, database)?;
        toc.entries.retain(|entry| !is_ours(entry));
        if !whole::is_empty(&toc) {
            let message = "it exists on every server, and was not restored".to_string();
            problems.push(Problem { database: Some(database.name.clone()), message });
        }
    }
    Ok(problems)
}

/// What pg_ark itself has in the database where it is installed: another server makes it anew.
fn is_ours(entry: &Entry) -> bool {
    match &entry.schema {
        Some(schema) => schema == "ark",
        None => matches!(entry.name.as_str(), "ark" | "SCHEMA ark" | "pg_ark" | "EXTENSION pg_ark"),
    }
}

fn tables(
    storage: &Storage,
    prepared: &IntoPrepared,
    record: &DatabaseRecord,
    load: &Load<'_>,
    objects: &Objects,
) -> Result<LogicalRestored> {
    let step = &objects.step;
    let dump = Dump::of(storage, &prepared.folder, record);
    let mut restored = LogicalRestored::default();
    let Some(name) = &step.rename else {
        restored.problems = objects::run(load, &dump, objects)?;
        restored.objects = step.tables.iter().chain(&step.schemas).cloned().collect();
        return Ok(restored);
    };
    let graph = selection::Graph::new(&objects.toc);
    let table = step.tables.first().and_then(|_| {
        let tables = graph.toc.entries.iter().filter(|entry| step.tables.contains(&entry.full_name()));
        tables.into_iter().find(|entry| objects.list.contains(&entry.id) && selection::is_table(entry))
    });
    let through = whole::through(&step.target, USUAL);
    scratch::sweep(load, &prepared.target, through)?;
    let renaming = Renaming { objects, table, name, record, through };
    restored.problems = scratch::run(load, &dump, &prepared.target, &renaming)?;
    let schema = table.and_then(|table| table.schema.as_ref());
    restored.objects.push(schema.map_or_else(|| name.clone(), |schema| format!("{schema}.{name}")));
    Ok(restored)
}
