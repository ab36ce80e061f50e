//! The archiver's engine: stores what the server's archiver asks for, one file after another, and others that wait
//! before they are asked for.
//!
//! * [`ready`](super::ready) tells what waits, [`ahead`](super::ahead) stores it with several threads, in order;
//!   [`keeper`](super::keeper) keeps the index of what was stored.
//! * An answer comes only when the file is durable. A failure of a file that was not asked for is not told: it is tried
//!   again when it is asked for, and until that succeeds nothing else is tried.
//! * A repository that cannot be opened, or vanishes, fails each file and is opened again for the next. When it is open,
//!   [`histories`](super::histories) stores the timeline histories that nobody asks for.

use super::ahead::{Ahead, MAX_AHEAD, Route, open_repository};
use super::archive::Archive;
use super::histories;
use super::keeper::Keeper;
use super::ready::Ready;
use super::store::{Outcome, Source};
use crate::backup::begin::read_control_file;
use crate::postgres::control_file::ControlFile;
use crate::repository::{Cluster, Storage, catalog};
use crate::session::Session;
use pg_ark_contract::conversation::{ArchiveTask, Event};
use pg_ark_contract::settings::JOBS_MAX;
use pg_ark_contract::{ErrorKind, Result};
use std::convert::Infallible;
use std::path::PathBuf;

/// Stores files as they are asked for, until it is ordered to stop.
///
/// # Errors
/// Why it was stopped.
pub fn run(url: &str, cluster: &str, task: &ArchiveTask, session: &Session) -> Result<Infallible> {
    let mut opened = open(url, cluster, task, session).ok();
    session.emit(Event::Ready);
    loop {
        let file = session.next_file()?;
        let route = match opened.take().map_or_else(|| open(url, cluster, task, session), Ok) {
            Ok(route) => route,
            Err(error) => {
                session.check()?;
                session.emit(Event::ArchiveFailed { file, error });
                continue;
            }
        };
        serve(&route, file, session)?;
    }
}

/// Opens the repository for the server in a data directory, and enters the server's system identifier there.
///
/// # Errors
/// `RepositoryNotFound` and what else keeps a repository from being opened; `RepositoryUnusable` for one inside the
/// data directory; `ForeignCluster` when another server has taken the cluster's name since.
pub fn open(url: &str, cluster: &str, task: &ArchiveTask, session: &Session) -> Result<Route> {
    open_on(Storage::open(url)?, cluster, task, session)
}

/// As [`open`], for a place that is open.
///
/// # Errors
/// As [`open`].
pub fn open_on(storage: Storage, cluster: &str, task: &ArchiveTask, session: &Session) -> Result<Route> {
    let data_directory = PathBuf::from(&task.data_directory);
    let repository = open_repository(storage)?;
    catalog::refuse_inside(repository.storage(), &data_directory)?;
    let (control, _) = read_control_file(&data_directory, session)?;
    let ControlFile { system_identifier, wal_segment_size, .. } = control;
    let mut cluster = repository.cluster(cluster)?;
    enroll(&mut cluster, system_identifier, task.server_version_num, session)?;
    let jobs = match task.jobs.min(JOBS_MAX.unsigned_abs()) {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        jobs => jobs as usize,
    };
    Ok(Route {
        archive: Archive::of(&cluster, system_identifier),
        repository,
        source: Source {
            folder: data_directory.join("pg_wal"),
            segment_size: wal_segment_size,
            server_major: Some(task.server_version_num / 10_000).filter(|major| *major > 0),
        },
        compression: task.compression,
        jobs,
    })
}

/// Enters a server's system identifier in the cluster's record, with a warning when that makes it another server's.
///
/// # Errors
/// As [`Cluster::remember_system`].
pub fn enroll(cluster: &mut Cluster, system: u64, server_version_num: u32, session: &Session) -> Result<()> {
    if let Some(newest) = cluster.systems().last().filter(|_| !cluster.systems().contains(&system)) {
        session.warn(
            format!("cluster \"{}\" was that of system identifier {newest} until now", cluster.name()),
            Some("That is right after pg_upgrade or initdb. Another server needs a name of its own: set pg_ark.cluster.".into()),
        );
    }
    cluster.remember_system(system, server_version_num)
}

/// Answers `file` and those after it, until the repository has to be opened again.
fn serve(route: &Route, file: String, session: &Session) -> Result<()> {
    let keeper = Keeper::new(route);
    let stored = |name: &str, outcome: &Outcome| keeper.enter(name, outcome);
    let ahead = Ahead::new(route, &stored);
    std::thread::scope(|scope| {
        let result = ahead.start(scope).and_then(|()| keeper.start(scope, session)).and_then(|()| {
            let mut server = Server {
                route,
                ahead: &ahead,
                ready: Ready::of(&route.source.folder),
                steady: true,
                answers: 0,
            };
            histories::store_missing(route, &keeper, session);
            let mut file = file;
            let mut first = true;
            while server.answer(file, session)? {
                if std::mem::take(&mut first) {
                    keeper.complete();
                }
                file = session.next_file()?;
            }
            Ok(())
        });
        ahead.close();
        keeper.close();
        result
    })
}

struct Server<'a> {
    route: &'a Route,
    ahead: &'a Ahead<'a>,
    ready: Ready,
    /// The last file was stored, so the next ones are worth trying.
    steady: bool,
    /// Files that were asked for.
    answers: usize,
}

impl Server<'_> {
    /// False when the repository has to be opened again.
    fn answer(&mut self, file: String, session: &Session) -> Result<bool> {
        self.ahead.submit(&file);
        self.answers += 1;
        // What is never asked for would take the room of what is.
        if self.answers.is_multiple_of(MAX_AHEAD) {
            self.ahead.forget(|name| self.ready.is_ready(name));
        }
        if self.steady {
            let names = self.ready.after(&file, self.ahead.room(), |name| self.ahead.is_taken(name));
            self.ahead.extend(names);
        }
        let result = self.ahead.wait(&|| session.check());
        session.check()?;
        self.steady = result.is_ok();
        let Err(error) = result else {
            session.emit(Event::Archived { file });
            return Ok(true);
        };
        let gone = error.kind == ErrorKind::RepositoryNotFound
            || matches!(self.route.archive.storage().size(crate::repository::layout::REPOSITORY), Ok(None));
        session.emit(Event::ArchiveFailed { file, error });
        Ok(!gone)
    }
}

/// Also for `pgark wal-push`: stores `file`, and others that wait as long as there are idle threads.
///
/// # Errors
/// Why `file` is not stored. Others may fail without a word: the server asks for them too.
pub fn push(route: &Route, file: &str, session: &Session) -> Result<()> {
    let keeper = Keeper::new(route);
    let stored = |name: &str, outcome: &Outcome| keeper.enter(name, outcome);
    let ahead = Ahead::new(route, &stored);
    std::thread::scope(|scope| {
        let result = ahead.start(scope).and_then(|()| keeper.start(scope, session)).and_then(|()| {
            if !histories::is_known(route, file) {
                histories::store_missing(route, &keeper, session);
            }
            ahead.submit(file);
            let mut ready = Ready::of(&route.source.folder);
            ahead.extend(ready.after(file, route.jobs.saturating_sub(1), |name| name == file));
            let result = ahead.wait(&|| session.check());
            if result.is_ok() {
                ahead.drain();
            }
            result
        });
        ahead.close();
        keeper.close();
        result
    })
}

#[cfg(test)]
#[path = "archiver_tests.rs"]
mod tests;
