//! Carries a plan out: a new cluster, made in a folder inside the data directory and moved to its place at the end.
//!
//! What: until everything is there and durable the data directory holds a marker, which says "unfinished", and a folder with the
//! cluster, which a private server fills. Then the cluster's parts get their places, `global/pg_control` last. Why: so nothing
//! that was interrupted looks like a data directory, and no server starts from it. Rejected: a cluster in its place from the
//! beginning, with a configuration that no server starts from; one that is kept elsewhere (Debian) would start it.

use super::config_back;
use super::databases::{self, Stock};
use super::full;
use super::globals::{self, Rules, Script};
use super::initdb;
use super::load::Load;
use super::money;
use super::plan::{FreshPlan, FreshPrepared};
use super::private::{Place, Private};
use super::report::{LogicalRestored, Problem};
use super::room;
use super::settings;
use crate::bounded;
use crate::logical::child::Keeper;
use crate::logical::connection::Connection;
use crate::logical::contents::toc_of;
use crate::logical::query::Server;
use crate::logical::stored::{self, Dump};
use crate::postgres::control_file::{CONTROL_FILE, ControlFile, DbState};
use crate::repository::logical_record::{LocaleRecord, LogicalRecord};
use crate::repository::{Storage, catalog};
use crate::restore::access::NEW_FILE;
use crate::restore::hold;
use crate::restore::marker::{MARKER, Marker};
use crate::restore::run::{commit, create_folder};
use crate::restore::tree::CONTROL_FILE_HELD_BACK;
use crate::restore::watch::{self, Stage, Watch};
use pg_ark_contract::{Error, ErrorKind, Result};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Folder in the data directory where the cluster is made.
pub const STAGING: &str = "pg_ark.cluster";
/// Where globals are restored and questions are asked: every new cluster has it.
const FIRST: &str = "template1";
/// What the server's own command line left in its data directory.
const OPTIONS_FILE: &str = "postmaster.opts";

/// Restores. Afterwards everything is durable and a server can be started; what could not be restored is told.
///
/// # Errors
/// `Corrupt` for damage, found before anything is touched; `RestoreIncomplete` when no cluster can be made; `RecoveryFailed` when
/// its server does not run; `DiskFull`, `Cancelled`, what the store or the file systems said. The marker then stays.
pub fn run_fresh(storage: &Storage, prepared: &FreshPrepared, watch: &dyn Watch) -> Result<LogicalRestored> {
    let FreshPrepared { plan, record, folder, .. } = prepared;
    let logical = stored::check(record)?;
    check(storage, prepared, logical, watch)?;
    let script = globals::script(&globals::read(storage, folder, record, logical)?, &rules(plan, logical))?;
    let place = Place::of(&plan.data_directory);
    let opened = create(plan, &place)?;
    let halt = AtomicBool::new(false);
    let stop = || {
        watch::check(watch)?;
        match halt.load(Ordering::Relaxed) {
            true => Err(Error::new(ErrorKind::Cancelled, "another part of the restore failed")),
            false => Ok(()),
        }
    };
    let work = Work { storage, prepared, logical, script: &script, halt: &halt, watch };
    let mut problems = Keeper::with(&stop, |keeper| work.fill(keeper, &place, &stop))?;
    drop(place);
    watch::check(watch)?;
    watch.stage(Stage::Sync, 0);
    settle(plan)?;
    config_back::apply(prepared, watch)?;
    Keeper::with(&stop, |keeper| {
        let refused = settings::adapt(keeper, prepared, watch)?;
        let missing = settings::missing_files(keeper, prepared)?;
        missing.iter().for_each(|what| watch.warn(what));
        problems.extend(refused.map(|said| Problem {
            database: None,
            message: format!("the server does not take its configuration and will not start with it: {said}"),
        }));
        Ok(())
    })?;
    commit(&plan.data_directory, &opened)?;
    Ok(LogicalRestored {
        data_directory: Some(plan.data_directory.clone()),
        databases: plan.databases.iter().map(|database| database.name.clone()).collect(),
        problems,
        ..LogicalRestored::default()
    })
}

/// What is done differently than the globals say: the first role is there, and tablespaces may go elsewhere.
fn rules(plan: &FreshPlan, logical: &LogicalRecord) -> Rules {
    let place = |to: &Path| to.to_string_lossy().into_owned();
    let places = plan.tablespaces.iter().filter_map(|t| Some((t.name.clone(), place(t.to.as_ref()?))));
    Rules {
        created: BTreeSet::from([logical.initdb.username.clone()]),
        places: places.collect(),
        ..Rules::default()
    }
}

/// Proves everything that will be read, and that pg_restore, which trusts what it reads, can read it.
fn check(
    storage: &Storage,
    prepared: &FreshPrepared,
    logical: &LogicalRecord,
    watch: &dyn Watch,
) -> Result<()> {
    watch.stage(Stage::Check, prepared.plan.read_bytes);
    let mut seen = |bytes: u64| {
        watch.advance(bytes);
        watch::check(watch)
    };
    Dump::globals(storage, &prepared.folder, logical).check(&mut seen)?;
    for database in prepared.databases() {
        Dump::of(storage, &prepared.folder, database).check(&mut seen)?;
        let dumped = toc_of(storage, &prepared.folder, database)?.database;
        if is_other(&dumped, &database.name) {
            let (other, name) = (dumped.escape_debug(), database.name.escape_debug());
            let message = format!("the dump of database \"{name}\" is one of database \"{other}\"");
            return Err(Error::new(ErrorKind::Corrupt, message).hint(
                "Somebody changed the backup. Restore another one, or without this database (--database).",
            ));
        }
    }
    Ok(())
}

/// Whether a dump says another name than the record. Letters beyond ASCII are in the database's own encoding there.
fn is_other(dumped: &str, recorded: &str) -> bool {
    dumped != recorded && (dumped.is_ascii() || recorded.is_ascii())
}

/// Makes the data directory its own, writes the marker, creates the folders, and opens each of them, so that errors of writeback
/// are noticed later.
fn create(plan: &FreshPlan, place: &Place) -> Result<Vec<(PathBuf, File)>> {
    let data = &plan.data_directory;
    let tablespaces = plan.tablespaces.iter().filter_map(|tablespace| tablespace.to.clone());
    let folders: Vec<PathBuf> = [data.clone()].into_iter().chain(tablespaces).collect();
    room::still_free(plan)?;
    let mut opened = vec![(data.clone(), hold::take(data, false, &plan.access)?)];
    let mut named = folders.clone();
    if !place.folder.starts_with(data) {
        named.push(place.folder.clone());
    }
    let marker = Marker::new(&plan.backup, &catalog::now(), named);
    plan.access.replace_file(&data.join(MARKER), &marker.json()?, NEW_FILE)?;
    for folder in folders.into_iter().skip(1) {
        create_folder(&folder, &plan.access)?;
        let file = File::open(&folder)
            .map_err(|e| Error::io(format!("could not open folder \"{}\"", folder.display()), &e))?;
        opened.push((folder, file));
    }
    place.create(&plan.access)?;
    Ok(opened)
}

/// What the private server is there for.
struct Work<'a> {
    storage: &'a Storage,
    prepared: &'a FreshPrepared,
    logical: &'a LogicalRecord,
    script: &'a Script,
    halt: &'a AtomicBool,
    watch: &'a dyn Watch,
}

impl Work<'_> {
    /// Makes the cluster and fills it.
    fn fill(
        &self,
        keeper: &Keeper<'_>,
        place: &Place,
        stop: &(dyn Fn() -> Result<()> + Sync),
    ) -> Result<Vec<Problem>> {
        let plan = &self.prepared.plan;
        let data = plan.data_directory.join(STAGING);
        initdb::run(keeper, &plan.server.bindir, &data, &plan.initdb, &plan.access)?;
        let libraries = plan.libraries.join(",");
        let mut private = Private {
            bindir: &plan.server.bindir,
            data: &data,
            place,
            access: &plan.access,
            user: &self.logical.initdb.username,
            major: plan.server_major,
            jobs: plan.jobs,
            libraries: &libraries,
            gone: self.halt,
        };
        let load = |connection: &Connection| self.load(keeper, connection);
        // A library that does not let the server start is told, and done without.
        if !libraries.is_empty()
            && let Err(error) = private.with(stop, |_| Ok(()))
        {
            self.halt.store(false, Ordering::Relaxed);
            stop()?;
            self.watch.warn(&format!(
                "the restore goes on without the libraries {libraries}: {}",
                error.detail.as_deref().unwrap_or(&error.message)
            ));
            private.libraries = "";
        }
        let problems = private.with(stop, load).map_err(|error| full::located(error, &data))?;
        match control(&data)?.state {
            DbState::ShutDown => Ok(problems),
            state => Err(Error::new(
                ErrorKind::RecoveryFailed,
                format!("the server that the dumps went into did not stop cleanly: {state:?}"),
            )),
        }
    }

    fn load(&self, keeper: &Keeper<'_>, connection: &Connection) -> Result<Vec<Problem>> {
        let FreshPrepared { plan, folder, programs, .. } = self.prepared;
        let server = Server { keeper, programs, connection, access: Some(&plan.access) };
        self.prove_ours(&server)?;
        let made: LocaleRecord = server.json(FIRST, initdb::TEMPLATE0)?;
        for difference in initdb::differences(&self.logical.initdb.locale, &made) {
            self.watch.warn(&difference);
        }
        let chosen = self.prepared.databases();
        money::check(&server, FIRST, chosen.iter().copied())?;
        let mut problems = globals::run(&server, FIRST, self.script)?;
        self.watch
            .stage(Stage::Load, plan.databases.iter().fold(0, |sum, d| sum.saturating_add(d.stored_bytes)));
        let stock = Stock { storage: self.storage, folder, databases: &chosen };
        let load = Load { server, watch: self.watch };
        problems.extend(databases::load(&load, &stock, plan.jobs, self.halt)?);
        problems.extend(self.analyze(&server)?);
        Ok(problems)
    }

    /// That the server which answers is the one that was just made, before anything is written to it.
    fn prove_ours(&self, server: &Server<'_>) -> Result<()> {
        let ours = control(&self.prepared.plan.data_directory.join(STAGING))?.system_identifier;
        // SQL shows it as a signed number.
        let found: String =
            server.json(FIRST, "SELECT to_json(system_identifier::text) FROM pg_control_system()")?;
        match found.parse::<i64>().is_ok_and(|found| found.cast_unsigned() == ours) {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::ForeignCluster,
                format!("the server that answers has system identifier {found}, the new cluster {ours}"),
            )
            .hint("Nothing was written to it. Choose another --pgdata.")),
        }
    }

    /// Gathers the statistics that did not come along.
    fn analyze(&self, server: &Server<'_>) -> Result<Vec<Problem>> {
        let plan = &self.prepared.plan;
        self.watch.stage(Stage::Analyze, 0);
        let mut problems = Vec::new();
        // One by one: vacuumdb --all ends at the first table that cannot be analyzed.
        for database in &plan.databases {
            let path = server.programs.path("vacuumdb");
            let mut command = server.keeper.command(&path, server.access)?;
            server.connection.prepare(&mut command);
            command.args(["--analyze-in-stages", "--quiet"]).arg(format!("--jobs={}", plan.jobs));
            if database.statistics {
                // Those of statistics objects are in no dump.
                command.arg("--missing-stats-only");
            }
            command.arg(format!("--dbname={}", server.connection.to(&database.name)));
            let (_, ended) = server.keeper.output(command, 1 << 20)?;
            if !ended.success {
                let message = format!("statistics could not be gathered: {}", ended.said());
                problems.push(Problem { database: Some(database.name.clone()), message });
            }
        }
        Ok(problems)
    }
}

fn control(data: &Path) -> Result<ControlFile> {
    let path = data.join(CONTROL_FILE);
    let bytes = bounded::read(&path, bounded::MAX_CONTROL)
        .map_err(|e| Error::io(format!("could not read \"{}\"", path.display()), &e))?;
    ControlFile::parse(&bytes)
}

/// Moves the parts of the cluster to their places. The control file keeps the name under which no server looks for it.
fn settle(plan: &FreshPlan) -> Result<()> {
    let data = &plan.data_directory;
    let staging = data.join(STAGING);
    let settle = || -> std::io::Result<()> {
        std::fs::rename(staging.join(CONTROL_FILE), staging.join(CONTROL_FILE_HELD_BACK))?;
        let _ = std::fs::remove_file(staging.join(OPTIONS_FILE));
        for entry in std::fs::read_dir(&staging)? {
            let name = entry?.file_name();
            std::fs::rename(staging.join(&name), data.join(&name))?;
        }
        std::fs::remove_dir(&staging)
    };
    settle().map_err(|e| Error::io(format!("could not move \"{}\" to its place", staging.display()), &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_of_another_database_is_known() {
        assert!(
            is_other("shop", "x\n'; drop") && is_other("shop", "größe") && is_other("gr\u{fffd}", "shop")
        );
        assert!(!is_other("shop", "shop") && !is_other("größe", "größe"));
        assert!(!is_other("gr\u{fffd}\u{fffd}e", "größe"), "in an encoding of its own");
    }
}
