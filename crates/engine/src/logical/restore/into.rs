//! `pgark restore BACKUP --into CONNINFO`: into a running server. First everything is looked at, and refused when it must be;
//! then, in [`into_run`](super::into_run), the dumps are proved; only then is anything changed.

use super::choose::choose;
use super::existing::Target;
use super::globals::{self, Rules, Script};
use super::into_plan::{DatabaseStep, GlobalsStep, IntoPlan};
use super::objects::{self, Objects};
use super::request::IntoRequest;
use super::{find, whole};
use crate::logical::child::Keeper;
use crate::logical::connection::Connection;
use crate::logical::contents::{named, toc_of};
use crate::logical::programs::Programs;
use crate::logical::query::Server;
use crate::logical::stored::{self, Dump};
use crate::repository::logical_record::{DatabaseRecord, LogicalRecord};
use crate::repository::{Cluster, Record, Storage};
use crate::restore::watch::{self, Watch};
use pg_ark_contract::{Error, ErrorKind, Result};

/// Where databases are made from, unless the user names one.
pub(super) const USUAL: &str = "postgres";
/// Longest name, in bytes (`NAMEDATALEN`, pg_config_manual.h).
pub(super) const MAX_NAME: usize = 63;
/// Nothing was touched.
const TAKEN: &str = "Nothing was changed. With --clean they are replaced; with --database NAME --as OTHER one database goes beside what is there.";
/// What replacing takes.
const BESIDE: &str = "what replaces a database is filled beside it first, and the old one is dropped at the end: the server needs space for both, and nobody may be in the old one by then";

/// What keeps a database from being dropped (`dropdb`, dbcommands.c), or goes with it although others need it.
const BOUND: &str = "SELECT coalesce(jsonb_agg(jsonb_build_array(x.database, x.kind, x.name) ORDER BY x.database, x.kind, x.name), '[]')::text FROM (
  SELECT d.datname, 'subscription', s.subname FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
  UNION ALL SELECT r.database, 'replication slot', r.slot_name FROM pg_replication_slots r WHERE r.database IS NOT NULL
  UNION ALL SELECT p.database, 'prepared transaction', p.gid FROM pg_prepared_xacts p) AS x(database, kind, name)";
/// What helps against it.
const UNBIND: &str = "Nothing was changed. In that database end it first: DROP SUBSCRIPTION name; SELECT pg_drop_replication_slot('name'), when nothing reads from it any more; COMMIT PREPARED 'name' or ROLLBACK PREPARED 'name'. Or restore beside it with --as.";

/// A restore that can be carried out.
#[derive(Debug, Clone)]
pub struct IntoPrepared {
    /// For the user.
    pub plan: IntoPlan,
    /// The record of the backup.
    pub record: Record,
    /// Its folder in the repository.
    pub folder: String,
    pub(super) programs: Programs,
    pub(super) connection: Connection,
    pub(super) usual: String,
    pub(super) target: Target,
    pub(super) script: Option<Script>,
    pub(super) objects: Option<Objects>,
    pub(super) jobs: usize,
}

/// What is looked at.
struct Scene<'a> {
    storage: &'a Storage,
    folder: &'a str,
    record: &'a Record,
    logical: &'a LogicalRecord,
    server: Server<'a>,
    target: &'a Target,
    usual: &'a str,
    request: &'a IntoRequest,
}

/// Looks at the backup and at the server; nothing is changed anywhere.
///
/// # Errors
/// Those of [`choose`]; `InvalidArgument`; `ServerNotReady` with the server's words; `TargetNotEmpty` naming all that exists;
/// `Unsupported` for a server that is too old; `PermissionDenied`.
pub fn prepare_into(cluster: &Cluster, request: &IntoRequest, watch: &dyn Watch) -> Result<IntoPrepared> {
    sensible(request)?;
    let connection = Connection::conninfo(&request.conninfo)?;
    let (record, folder) = choose(cluster, &request.backup)?;
    let logical = stored::check(&record)?;
    let dumped = record.server_version_num / 10_000;
    let mut programs = Programs::for_restore(request.bindir.as_deref(), dumped)?;
    let storage = cluster.storage();
    let is_objects = !(request.tables.is_empty() && request.schemas.is_empty());
    Keeper::with(&|| watch::check(watch), |keeper| {
        let found = match is_objects {
            true => Some(find::database(storage, &folder, logical, request)?),
            false => None,
        };
        // Tables go into the database that the text names, or that of their own name.
        let own = found.as_ref().map_or(USUAL, |(database, _)| database.name.as_str());
        let server = Server { keeper, programs: &programs, connection: &connection, access: None };
        let usual = database(&server, own)?;
        let target = Target::ask(&server, &usual)?;
        refuse(&target, dumped, &record, !is_objects || request.rename.is_some())?;
        let mut plan = new_plan(&record, &target, &programs);
        let scene = Scene {
            storage,
            folder: &folder,
            record: &record,
            logical,
            server,
            target: &target,
            usual: &usual,
            request,
        };
        let (mut script, mut objects) = (None, None);
        match found {
            Some((database, toc)) => {
                let roles =
                    globals::script(&globals::read(storage, &folder, &record, logical)?, &Rules::default())?
                        .roles;
                let server = &scene.server;
                let mut chosen = objects::prepare(server, &target, toc, request, &usual, &roles)?;
                plan.dump_bytes = Dump::of(storage, &folder, database).size();
                // The record knows the database, whatever the dump calls it.
                chosen.step.name.clone_from(&database.name);
                plan.warnings.append(&mut chosen.step.warnings);
                plan.objects = Some(chosen.step.clone());
                objects = Some(chosen);
            }
            None => script = scene.databases(&mut plan)?,
        }
        if request.rename.is_some() && is_objects {
            // It is dumped from there again: by a pg_dump that is no older than that server.
            programs = Programs::for_restore(request.bindir.as_deref(), dumped.max(target.version))?;
            if !programs.path("pg_dump").is_file() {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("\"{}\" holds no pg_dump, which --as needs", programs.bindir.display()),
                )
                .hint(format!(
                    "Install postgresql-client-{} or name its folder with --bindir.",
                    programs.major
                )));
            }
        }
        Ok((plan, usual, target, script, objects))
    })
    .map(|(plan, usual, target, script, objects)| IntoPrepared {
        plan,
        record: record.clone(),
        folder: folder.clone(),
        programs: programs.clone(),
        connection: connection.clone(),
        usual,
        target,
        script,
        objects,
        jobs: match request.jobs {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            jobs => jobs,
        },
    })
}

/// The database that the user names: in the text, or where libpq looks for what is not in the text.
fn database(server: &Server<'_>, own: &str) -> Result<String> {
    if let Some(named) = server.connection.database() {
        return Ok(named.to_string());
    }
    let connection = server.connection.found_by_libpq(own);
    Server { connection: &connection, ..*server }.json(own, "SELECT to_json(current_database())::text")
}

/// Refuses what means nothing.
fn sensible(request: &IntoRequest) -> Result<()> {
    let objects = request.tables.len() + request.schemas.len();
    if let Some(name) = request.rename.as_ref().filter(|name| name.len() > MAX_NAME) {
        let message =
            format!("--as gives a name of {} bytes; PostgreSQL cuts names at {MAX_NAME}", name.len());
        return Err(Error::new(ErrorKind::InvalidArgument, message).hint("Give a shorter one."));
    }
    let what = match &request.rename {
        Some(name) if name.is_empty() || name.contains('\0') => "--as needs a name",
        Some(_) if objects > 1 => "--as gives one table or one schema another name, not several",
        Some(_) if objects == 0 && request.database.is_none() => {
            "--as needs to know what gets the other name: --database, --schema or --table"
        }
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::InvalidArgument, what)
        .hint("For example: --database shop --table sales.orders --as orders_of_monday."))
}

/// Refuses a server that cannot take it.
fn refuse(target: &Target, dumped: u32, record: &Record, makes_database: bool) -> Result<()> {
    if target.in_recovery {
        return Err(Error::new(
            ErrorKind::ServerNotReady,
            "the server is a standby, or still recovers: nothing can be written to it",
        )
        .hint("Restore into its primary, or promote it."));
    }
    if target.version < dumped {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "the backup is of PostgreSQL {}, the server is PostgreSQL {}",
                record.server_version, target.version
            ),
        )
        .hint(format!("A dump goes into a server of the same or a newer version: {dumped} or above.")));
    }
    if makes_database && !target.create_database {
        return Err(Error::new(
            ErrorKind::PermissionDenied,
            format!("role \"{}\" may not create databases on that server", target.user),
        )
        .hint("Connect as a superuser, or: ALTER ROLE ... CREATEDB, also for --as, which fills a database beside. Roles, tablespaces and owners need a superuser."));
    }
    Ok(())
}

fn new_plan(record: &Record, target: &Target, programs: &Programs) -> IntoPlan {
    let mut plan = IntoPlan {
        backup: record.backup.clone(),
        taken_at: record.started_at.clone(),
        dumped_version: record.server_version.clone(),
        server_version: target.version,
        user: target.user.clone(),
        programs: programs.version.clone(),
        ..IntoPlan::default()
    };
    if !target.superuser {
        plan.warnings.push(format!(
            "role \"{}\" is no superuser: owners, extensions and some privileges may fail",
            target.user
        ));
    }
    if programs.major > target.version {
        plan.warnings.push(format!(
            "pg_restore is of PostgreSQL {}, newer than the server: it may ask for settings that the server does not know",
            programs.major
        ));
    }
    plan
}

impl Scene<'_> {
    /// Plans whole databases, and the globals when all of them were asked for.
    fn databases(&self, plan: &mut IntoPlan) -> Result<Option<Script>> {
        let script = match &self.request.database {
            Some(name) => {
                let database = named(self.logical, name)?;
                let target = self.request.rename.clone().unwrap_or_else(|| name.clone());
                let is_servers = whole::is_always_there(&target) || target == "template0";
                if is_servers && target != *name {
                    return Err(Error::new(
                        ErrorKind::InvalidArgument,
                        format!("database \"{target}\" is the server's own: no other becomes it"),
                    )
                    .hint("Give another name with --as."));
                }
                plan.databases.push(self.step(database, &target));
                None
            }
            None => {
                let script = self.globals()?;
                plan.globals = Some(GlobalsStep {
                    roles: script.roles.clone(),
                    tablespaces: script.tablespaces.clone(),
                    kept: script.left_out.clone(),
                });
                for missing in &self.logical.missing {
                    plan.skipped
                        .push(format!("\"{}\" is not in the backup: {}", missing.name, missing.reason));
                }
                self.every(plan)?;
                Some(script)
            }
        };
        self.refuse_taken(plan)?;
        let bytes = |step: &DatabaseStep| {
            self.logical.database(&step.name).map_or(0, |d| Dump::of(self.storage, self.folder, d).size())
        };
        plan.dump_bytes = plan.databases.iter().map(bytes).sum();
        Ok(script)
    }

    fn step(&self, database: &DatabaseRecord, target: &str) -> DatabaseStep {
        let replaces = self.target.database(target).is_some();
        DatabaseStep { name: database.name.clone(), target: target.to_string(), replaces }
    }

    /// All databases; those that every server has come first, and only when they may be replaced.
    fn every(&self, plan: &mut IntoPlan) -> Result<()> {
        for database in &self.logical.databases {
            let step = self.step(database, &database.name);
            if !whole::is_always_there(&database.name) || !step.replaces || self.request.clean {
                plan.databases.push(step);
            } else if !whole::is_empty(&toc_of(self.storage, self.folder, database)?) {
                let message = format!(
                    "database \"{0}\" exists on every server and is not restored: --clean replaces it, --database {0} --as NAME puts it beside",
                    database.name
                );
                plan.warnings.push(message.clone());
                plan.skipped.push(format!("\"{}\" exists", database.name));
            }
        }
        plan.databases.sort_by_key(|step| !whole::is_always_there(&step.name));
        Ok(())
    }

    fn globals(&self) -> Result<Script> {
        let text = globals::read(self.storage, self.folder, self.record, self.logical)?;
        let rules = Rules {
            in_use: true,
            kept_roles: self.target.roles.iter().cloned().collect(),
            kept_tablespaces: self.target.tablespaces.iter().cloned().collect(),
            ..Rules::default()
        };
        globals::script(&text, &rules)
    }

    /// Refuses what exists, and what is in use although it shall go.
    fn refuse_taken(&self, plan: &mut IntoPlan) -> Result<()> {
        let replaced: Vec<&DatabaseStep> = plan.databases.iter().filter(|step| step.replaces).collect();
        let names = |steps: &[&DatabaseStep]| {
            steps.iter().map(|step| format!("\"{}\"", step.target)).collect::<Vec<_>>().join(", ")
        };
        if !replaced.is_empty() && !self.request.clean {
            let noun = if replaced.len() == 1 { "database" } else { "databases" };
            let verb = if replaced.len() == 1 { "exists" } else { "exist" };
            return Err(Error::new(
                ErrorKind::TargetNotEmpty,
                format!("{noun} {} already {verb} there", names(&replaced)),
            )
            .hint(TAKEN));
        }
        let there = |step: &&DatabaseStep| self.target.database(&step.target);
        let is_others = |step: &&DatabaseStep| there(step).is_some_and(|database| !database.owned);
        let others: Vec<&DatabaseStep> = replaced.iter().copied().filter(is_others).collect();
        if !others.is_empty() {
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                format!(
                    "role \"{}\" may not replace what is not its own: {}",
                    self.target.user,
                    names(&others)
                ),
            )
            .hint(
                "Nothing was changed. Connect as the owner or a superuser, or restore beside it with --as.",
            ));
        }
        if !replaced.is_empty() {
            // What follows a database has a session in it, too: its name says more.
            self.refuse_bound(plan)?;
        }
        let sessions = |step: &&DatabaseStep| {
            let kinds = there(step).map(|database| database.sessions.join(", "))?;
            (!kinds.is_empty()).then(|| format!("\"{}\" ({kinds})", step.target))
        };
        let busy: Vec<String> = replaced.iter().filter_map(sessions).collect();
        if !busy.is_empty() {
            return Err(Error::new(
                ErrorKind::ServerNotReady,
                format!("clients are connected to what --clean drops: {}", busy.join(", ")),
            )
            .hint("Nothing was changed. End these sessions first; pg_stat_activity shows them. Background workers end with what started them, as an extension."));
        }
        if !replaced.is_empty() {
            plan.warnings.push(BESIDE.to_string());
        }
        Ok(())
    }

    /// Refuses to replace a database that the server would not drop, or that others follow.
    fn refuse_bound(&self, plan: &IntoPlan) -> Result<()> {
        let bound: Vec<(String, String, String)> = self.server.json(whole::through("", self.usual), BOUND)?;
        let replaced =
            |name: &String| plan.databases.iter().any(|step| step.replaces && step.target == *name);
        let names: Vec<String> = bound
            .iter()
            .filter(|(database, ..)| replaced(database))
            .map(|(database, kind, name)| format!("{kind} \"{name}\" of database \"{database}\""))
            .collect();
        if names.is_empty() {
            return Ok(());
        }
        let message = format!("--clean cannot replace what has {}", names.join(", "));
        Err(Error::new(ErrorKind::ServerNotReady, message).hint(UNBIND))
    }
}
