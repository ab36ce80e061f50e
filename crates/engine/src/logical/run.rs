//! One logical backup from beginning to end.
//!
//! 1. The server is asked ([`facts`]) and the databases are chosen ([`select`]): what cannot be is refused before anything
//!    is written.
//! 2. The backup begins as every backup does: lease, clearing up, a record that says `running`.
//! 3. Threads take the globals and the databases, the largest first, and run a program for each. Whoever fails first stops
//!    the others, unless the backup is to go on without that database.
//! 4. Configuration files, then the record says `complete`.
//!
//! Each dump shows its database at a moment of its own: PostgreSQL has no snapshot over several databases.

use super::child::Keeper;
use super::connection::Connection;
use super::database::{self, Outcome};
use super::facts::{self, Facts};
use super::globals::{self, Globals};
use super::principals::Principals;
use super::programs::Programs;
use super::progress::DatabaseProgress;
use super::query::Server;
use super::room;
use super::select::{self, Selection};
use crate::backup::archive::ArchiveWriter;
use crate::backup::begin::{self, Begun};
use crate::backup::progress::Progress;
use crate::backup::{config, finish, run as backup};
use crate::repository::Storage;
use crate::repository::logical_record::{DatabaseRecord, LogicalRecord, MissingDatabase};
use crate::repository::record::{ArchiveContent, Record};
use crate::session::Session;
use pg_ark_contract::conversation::{BackupTask, LogicalTask, Phase};
use pg_ark_contract::rows::BackupRow;
use pg_ark_contract::settings::Compression;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Takes a logical backup.
///
/// # Errors
/// What went wrong. A record that was begun then says `failed` and why, nothing else of it is left, and the lease is
/// released.
pub fn run(storage: Storage, cluster: &str, task: &BackupTask, session: &Session) -> Result<BackupRow> {
    begin::check_choices(task)?;
    let logical = task.logical.as_ref().ok_or_else(|| Error::new(ErrorKind::Internal, "no logical task"))?;
    let major = task.server_version_num / 10_000;
    let connection = connection(logical)?.of_major(major);
    let programs = Programs::of_server(Path::new(&logical.bindir), major)?;
    Keeper::with(&|| session.check(), |keeper| {
        let server = Server { keeper, programs: &programs, connection: &connection, access: None };
        let mut facts = room::patiently(session, || facts::cluster(&server))?;
        let principals = room::patiently(session, || Principals::ask(&server, &facts.asked))?;
        principals.check_names()?;
        let asked = facts.asked.clone();
        let selection = select::select(std::mem::take(&mut facts.databases), &logical.choice)?;
        let begun = begin::begin(storage, cluster, task, session)?;
        backup::attend(&begun, session, || {
            let total = selection.dump.iter().fold(0, |sum: u64, d| sum.saturating_add(d.data_bytes));
            let count = u32::try_from(selection.dump.len()).unwrap_or(u32::MAX);
            // A database counts where a physical backup counts a tablespace.
            let progress = Progress::new(session, total, count, task.max_rate);
            progress.tell(Phase::Estimate);
            let dumping = Dumping {
                server,
                storage: begun.cluster.storage(),
                folder: &begun.folder,
                task,
                compression: database::compression(&server, task.compression, session)?,
                session,
                progress: &progress,
                name: &begun.record.backup,
                asked: &asked,
            };
            let skip_failed = logical.choice.skip_failed;
            let work = Work { begun: &begun, dumping: &dumping, principals: &principals, skip_failed };
            work.run(facts, selection)
        })
    })
}

/// The way into the server.
///
/// # Errors
/// `ServerNotReady` for a server without a socket.
pub(super) fn connection(task: &LogicalTask) -> Result<Connection> {
    if task.socket_directory.is_empty() {
        return Err(Error::new(ErrorKind::ServerNotReady, "the server has no Unix socket")
            .detail("unix_socket_directories is empty")
            .hint(
                "A logical backup connects through it: set unix_socket_directories and restart the server.",
            ));
    }
    Ok(Connection::socket(&task.socket_directory, task.port, &task.user))
}

/// What every dump of a backup needs.
pub struct Dumping<'a> {
    /// The server.
    pub server: Server<'a>,
    /// Where dumps go.
    pub storage: &'a Storage,
    /// Folder of the backup.
    pub folder: &'a str,
    /// The choices.
    pub task: &'a BackupTask,
    /// That of the dumps; the task's is that of the rest.
    pub compression: Compression,
    /// The conversation.
    pub session: &'a Session,
    progress: &'a Progress<'a>,
    /// Name of the backup.
    pub name: &'a str,
    /// The database where the cluster is asked.
    pub asked: &'a str,
}

impl Dumping<'_> {
    /// A command for one of the server's programs, which shows up in the server by the backup's name.
    ///
    /// # Errors
    /// As [`Keeper::command`].
    pub fn command(&self, program: &str) -> Result<Command> {
        let server = &self.server;
        let mut command = server.keeper.command(&server.programs.path(program), server.access)?;
        server.connection.prepare(&mut command);
        command.env("PGAPPNAME", format!("pg_ark {}", self.name));
        Ok(command)
    }

    /// Waits until so many bytes of dump may be taken.
    ///
    /// # Errors
    /// The order to stop.
    pub fn admit(&self, bytes: usize) -> Result<()> {
        let mut left = bytes as u64;
        while left > 0 {
            left = left.saturating_sub(self.progress.admit(left)?);
        }
        self.session.check()
    }
}

struct Work<'a> {
    begun: &'a Begun,
    dumping: &'a Dumping<'a>,
    /// Before anything was dumped.
    principals: &'a Principals,
    skip_failed: bool,
}

/// What the threads made.
#[derive(Default)]
struct Made {
    globals: Option<Globals>,
    databases: Vec<DatabaseRecord>,
    missing: Vec<MissingDatabase>,
}

impl Work<'_> {
    fn run(&self, mut facts: Facts, selection: Selection) -> Result<Record> {
        let Dumping { session, progress, .. } = self.dumping;
        let Selection { mut dump, left_out, missing } = selection;
        missing.iter().for_each(|missing| self.warn(missing));
        dump.sort_by_key(|database| std::cmp::Reverse(database.data_bytes));
        let mut made = self.dump_all(facts.connections, &dump)?;
        if made.databases.is_empty() {
            return Err(nothing(&made.missing));
        }
        self.settle(&mut made, &mut facts)?;
        made.missing.extend(missing);
        made.missing.sort_by(|a, b| a.name.cmp(&b.name));
        made.databases.sort_by(|a, b| a.name.cmp(&b.name));
        let mut record = self.begun.record.clone();
        self.store_config(&mut record)?;
        let globals = made.globals.ok_or_else(|| Error::new(ErrorKind::Internal, "there are no globals"))?;
        let programs = self.dumping.server.programs;
        record.data_bytes = made.databases.iter().fold(0, |sum: u64, d| sum.saturating_add(d.data_bytes));
        record.logical = Some(LogicalRecord {
            pg_dump: programs.version.clone(),
            dump_compression: self.dumping.compression.to_string(),
            globals: globals.volumes,
            globals_bytes: globals.bytes,
            databases: made.databases,
            missing: made.missing,
            left_out,
            initdb: facts.initdb,
            tablespaces: facts.tablespaces,
            replication_slots: facts.replication_slots,
            subscriptions: facts.subscriptions,
            ..LogicalRecord::default()
        });
        progress.tell(Phase::Finish);
        session.check()?;
        record.warnings = session.warnings();
        finish::seal(self.begun, record)
    }

    /// The globals and every database, several at a time, in the order given.
    fn dump_all(&self, connections: u64, databases: &[DatabaseRecord]) -> Result<Made> {
        let session = self.dumping.session;
        let made = Mutex::new(Made::default());
        let next = AtomicUsize::new(0);
        let one = |number: usize| match number.checked_sub(1) {
            None => {
                let globals = globals::dump(self.dumping)?;
                made.lock().unwrap_or_else(PoisonError::into_inner).globals = Some(globals);
                Ok(())
            }
            Some(place) => databases.get(place).map_or(Ok(()), |database| self.dump_one(database, &made)),
        };
        let jobs = match self.dumping.task.jobs {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            jobs => jobs as usize,
        };
        let jobs = room::share(jobs, connections);
        std::thread::scope(|scope| {
            for _ in 0..jobs.min(databases.len() + 1) {
                scope.spawn(|| {
                    while session.check().is_ok() {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number > databases.len() {
                            return;
                        }
                        if let Err(e) = one(number) {
                            // Whoever fails first stops the others; the first reason counts.
                            session.stop(e);
                        }
                    }
                });
            }
        });
        session.check()?;
        Ok(made.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Dumps may name roles and tablespaces that were made after the globals: those are dumped again then.
    fn settle(&self, made: &mut Made, facts: &mut Facts) -> Result<()> {
        let Dumping { server, session, asked, .. } = self.dumping;
        let now = room::patiently(session, || Principals::ask(server, asked))?;
        if self.principals.is_same(&now) {
            return Ok(());
        }
        now.check_names()?;
        for gone in self.principals.gone(&now) {
            let hint = "A dump that was taken before may name it, and a restore of that shows errors then: take another backup.";
            session.warn(format!("{gone} while databases were dumped"), Some(hint.to_string()));
        }
        if let Some(old) = made.globals.take() {
            old.discard(self.dumping)?;
        }
        made.globals = Some(globals::dump(self.dumping)?);
        facts.tablespaces = room::patiently(session, || facts::cluster(server))?.tablespaces;
        Ok(())
    }

    fn dump_one(&self, database: &DatabaseRecord, made: &Mutex<Made>) -> Result<()> {
        let progress = DatabaseProgress::new(self.dumping.progress, database.data_bytes);
        let outcome = database::dump(self.dumping, database, &progress)?;
        let reason = match outcome {
            Outcome::Dumped(record) => {
                progress.end();
                made.lock().unwrap_or_else(PoisonError::into_inner).databases.push(*record);
                return Ok(());
            }
            Outcome::Failed(reason) => reason,
        };
        let name = database.name.clone();
        if !self.skip_failed {
            return Err(Error::new(ErrorKind::DumpFailed, format!("could not dump database \"{name}\""))
                .detail(reason)
                .hint(select::REMEDY));
        }
        progress.end();
        let missing = MissingDatabase { name, reason };
        self.warn(&missing);
        made.lock().unwrap_or_else(PoisonError::into_inner).missing.push(missing);
        Ok(())
    }

    fn warn(&self, missing: &MissingDatabase) {
        let message = format!("database \"{}\" is not in the backup: {}", missing.name, missing.reason);
        self.dumping.session.warn(message, Some("Mend that, then take another backup.".to_string()));
    }

    /// Inside or outside the data directory: a dump has neither.
    fn store_config(&self, record: &mut Record) -> Result<()> {
        let Dumping { task, storage, folder, session, .. } = self.dumping;
        let files = config::plan_all(&task.config_files, &self.begun.data_directory);
        if files.is_empty() {
            return Ok(());
        }
        let (codec, content) = (task.compression.codec, ArchiveContent::Config);
        let archive = ArchiveWriter::new(storage, folder, "config", content, codec, task.volume_size)?;
        let (archive, stored) = config::store(&files, archive, task.compression, session)?;
        record.archives.push(archive.finish()?);
        record.config_files = stored;
        Ok(())
    }
}

fn nothing(missing: &[MissingDatabase]) -> Error {
    let reasons: Vec<String> = missing.iter().map(|m| format!("\"{}\": {}", m.name, m.reason)).collect();
    Error::new(ErrorKind::DumpFailed, "no database could be dumped").detail(reasons.join("; "))
}
