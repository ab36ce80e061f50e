//! All databases of a backup into a new cluster, several at a time: the largest first, each with its share of the jobs.

use super::load::{Job, Load};
use super::money;
use super::private::is_full;
use super::report::Problem;
use crate::logical::stored::Dump;
use crate::repository::Storage;
use crate::repository::logical_record::DatabaseRecord;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Databases that every cluster has, and the one to be connected to while each is dropped and made anew. They come first: the
/// others are made from the first of them.
pub const ALWAYS: [(&str, &str); 2] = [("postgres", "template1"), ("template1", "postgres")];
/// Where the others are made from.
const FROM: &str = "postgres";
/// Options for a whole database.
const OPTIONS: [&str; 3] = ["--create", "--clean", "--if-exists"];

/// The databases and where their dumps are.
pub struct Stock<'a> {
    /// The store.
    pub storage: &'a Storage,
    /// Folder of the backup.
    pub folder: &'a str,
    /// The databases.
    pub databases: &'a [&'a DatabaseRecord],
}

/// Restores them. `halt` is raised at the first failure that ends everything, so that the other programs end, too.
///
/// # Errors
/// As [`Load::run`]; `DiskFull`. Other errors of the server's are told as problems, and the rest goes on.
pub fn load(load: &Load<'_>, stock: &Stock<'_>, jobs: usize, halt: &AtomicBool) -> Result<Vec<Problem>> {
    let jobs = jobs.max(1);
    let options: Vec<OsString> = OPTIONS.iter().map(OsString::from).collect();
    let run = |database: &DatabaseRecord, connect: &str, jobs: usize| {
        let dump = Dump::of(stock.storage, stock.folder, database);
        let connection = money::connection(load.server.connection, database);
        let job = Job { name: &database.name, connect, options: &options, jobs };
        let problems = load.by(&connection).run(&dump, &job)?;
        match problems.iter().find(|problem| is_full(&problem.message)) {
            Some(full) => Err(disk_full(database, full)),
            None => Ok(problems),
        }
    };
    let mut problems = Vec::new();
    for (name, connect) in ALWAYS {
        if let Some(database) = stock.databases.iter().find(|database| database.name == name) {
            problems.extend(run(database, connect, jobs)?);
        }
    }
    let is_first = |database: &DatabaseRecord| ALWAYS.iter().any(|(name, _)| database.name == *name);
    let mut rest: Vec<&DatabaseRecord> =
        stock.databases.iter().copied().filter(|database| !is_first(database)).collect();
    rest.sort_by_key(|database| std::cmp::Reverse(database.data_bytes));
    let whole = |database: &DatabaseRecord| {
        Dump::of(stock.storage, stock.folder, database).path().is_some().then_some(database.data_bytes)
    };
    let shares = shares(jobs, &rest.iter().map(|database| whole(database)).collect::<Vec<_>>());
    let line = Line::new(rest.into_iter().zip(shares), jobs);
    let (failure, found) = (Mutex::new(None::<Error>), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(line.length()) {
            scope.spawn(|| {
                while let Some((database, share)) = line.next() {
                    match run(database, FROM, share) {
                        Ok(problems) => lock(&found).extend(problems),
                        Err(error) => {
                            halt.store(true, Ordering::Relaxed);
                            lock(&failure).get_or_insert(error);
                            line.close();
                        }
                    }
                    line.done(share);
                }
            });
        }
    });
    match lock(&failure).take() {
        Some(error) => Err(error),
        None => {
            problems.append(&mut lock(&found));
            Ok(problems)
        }
    }
}

/// On a full disk nothing that follows can be restored either.
fn disk_full(database: &DatabaseRecord, problem: &Problem) -> Error {
    Error::new(
        ErrorKind::DiskFull,
        format!("database \"{}\" could not be restored", database.name.escape_debug()),
    )
    .detail(&problem.message)
    .hint("Remove what the restore left, free some space or choose another place, then try again.")
}

/// How many jobs each database gets: its part of all bytes, and at least one. `None` is one that only one job can read.
fn shares(jobs: usize, bytes: &[Option<u64>]) -> Vec<usize> {
    let total: u128 = bytes.iter().flatten().map(|bytes| u128::from(*bytes)).sum();
    let share = |bytes: &Option<u64>| match bytes {
        Some(bytes) if total > 0 => {
            usize::try_from(u128::from(*bytes) * jobs as u128 / total).unwrap_or(1).clamp(1, jobs)
        }
        _ => 1,
    };
    bytes.iter().map(share).collect()
}

/// Databases that wait for free jobs, in their order.
struct Line<'a> {
    state: Mutex<State<'a>>,
    freed: Condvar,
}

struct State<'a> {
    waiting: std::collections::VecDeque<(&'a DatabaseRecord, usize)>,
    free: usize,
}

impl<'a> Line<'a> {
    fn new(waiting: impl Iterator<Item = (&'a DatabaseRecord, usize)>, free: usize) -> Self {
        Line { state: Mutex::new(State { waiting: waiting.collect(), free }), freed: Condvar::new() }
    }

    fn length(&self) -> usize {
        lock(&self.state).waiting.len()
    }

    /// The next one, once there are jobs for it.
    fn next(&self) -> Option<(&'a DatabaseRecord, usize)> {
        let mut state = lock(&self.state);
        loop {
            let share = state.waiting.front()?.1;
            if share <= state.free {
                state.free -= share;
                return state.waiting.pop_front();
            }
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self, share: usize) {
        lock(&self.state).free += share;
        self.freed.notify_all();
    }

    /// Nobody waits any longer.
    fn close(&self) {
        lock(&self.state).waiting.clear();
        self.freed.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_database_gets_more_jobs() {
        assert_eq!(shares(8, &[Some(600), Some(150), Some(50)]), [6, 1, 1]);
        assert_eq!(shares(8, &[Some(1)]), [8]);
        assert_eq!(shares(2, &[Some(5), Some(5), Some(5)]), [1, 1, 1]);
        assert_eq!(shares(8, &[None, Some(0)]), [1, 1]);
        assert_eq!(shares(4, &[Some(u64::MAX), Some(u64::MAX)]), [2, 2]);
    }

    #[test]
    fn there_are_never_more_jobs_than_wanted() {
        let databases = vec![DatabaseRecord::default(); 9];
        let line = Line::new(databases.iter().zip([4, 1, 2, 1, 3, 1, 1, 4, 1]), 4);
        let (running, most) = (Mutex::new(0), Mutex::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while let Some((_, share)) = line.next() {
                        *lock(&running) += share;
                        let now = *lock(&running);
                        let mut most = lock(&most);
                        *most = now.max(*most);
                        drop(most);
                        std::thread::yield_now();
                        *lock(&running) -= share;
                        line.done(share);
                    }
                });
            }
        });
        assert_eq!((line.length(), *lock(&running)), (0, 0));
        assert!(*lock(&most) <= 4);
    }
}
