//! What became of a job's attempts, as a reader judges it.
//!
//! An attempt that says it runs does so while its process is there. On another machine nobody can look: kinds that need
//! the lease run while their host holds it, others until their time is over. An attempt whose process is gone has failed,
//! unless its backup is complete: only the writing down of that was missed.
//! Only the newest objects are read: each carries the number of failures before it.

use super::runs::{self, Found, KEEP, Key, RunRecord, text};
use crate::repository::lease::{self, Life};
use crate::repository::{Cluster, Record, layout, process};
use chrono::{DateTime, Duration, Utc};
use pg_ark_contract::rows::BackupStatus;
use pg_ark_contract::schedule::{JobKind, RunRow, RunStatus};
use pg_ark_contract::{Error, ErrorKind, Result};
use std::cell::OnceCell;

/// For so long an attempt of another machine may not hold the lease yet, in seconds.
const YOUNG: i64 = 120;
/// A time further ahead, in seconds, was written by a clock that was wrong.
const AHEAD: i64 = 3600;
/// Error of an attempt whose process is gone.
const GONE: &str = "its process is gone: the server or its host stopped";

/// What is known about a job's attempts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// The newest.
    pub newest: Option<Attempt>,
    /// The newest that ended.
    pub ended: Option<Attempt>,
    /// Attempts that failed since the last that did not.
    pub failures: u32,
}

/// An attempt, judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Which.
    pub key: Key,
    /// State now.
    pub status: RunStatus,
    /// When it ended, or was last heard of.
    pub ended: DateTime<Utc>,
    /// When its time is over.
    pub limit: Option<DateTime<Utc>>,
    /// For SQL.
    pub row: RunRow,
}

impl History {
    /// Why attempt `key` is not to be made.
    pub fn in_the_way(&self, key: Key) -> Option<String> {
        let newest = self.newest.as_ref()?;
        let row = &newest.row;
        if newest.status == RunStatus::Running {
            return Some(format!(
                "the run due at {} goes on on host \"{}\" since {}",
                row.id.due_at,
                row.host.escape_debug(),
                row.started_at.escape_debug()
            ));
        }
        (newest.key >= key).then(|| format!("the run due at {} has been made already", row.id.due_at))
    }
}

/// What a look at attempts needs to know.
pub struct Judge<'a> {
    cluster: &'a Cluster,
    system: u64,
    now: DateTime<Utc>,
    /// Host of whoever holds the system's lease; an empty text when nobody knows who.
    holder: OnceCell<Option<String>>,
}

/// The history of the job whose attempts are in `folder`, leaving out attempt `except`.
///
/// # Errors
/// What the store said.
pub fn of(judge: &Judge<'_>, folder: &str, kind: JobKind, except: Option<Key>) -> Result<History> {
    let storage = judge.cluster.storage();
    let keys = runs::keys(storage, folder)?.into_iter();
    let keys = keys.filter(|key| Some(*key) != except && runs::is_plausible(*key, judge.now)).take(KEEP);
    let mut history = History::default();
    let mut is_counted = false;
    for found in keys.filter_map(|key| runs::read(storage, folder, key)) {
        let before = found.content.as_ref().ok().map(|record| record.failures);
        let attempt = judge.attempt(folder, kind, found);
        if !is_counted {
            is_counted = before.is_some();
            let own = match attempt.status {
                RunStatus::Done => 0,
                RunStatus::Failed => before.unwrap_or_default().saturating_add(1),
                RunStatus::Running => before.unwrap_or_default(),
            };
            history.failures = history.failures.saturating_add(own);
        }
        if attempt.status != RunStatus::Running && history.ended.is_none() {
            history.ended = Some(attempt.clone());
        }
        history.newest.get_or_insert(attempt);
        if is_counted && history.ended.is_some() {
            break;
        }
    }
    Ok(history)
}

/// At most `limit` attempts in `folder`, newest first; none when not one of them can be read, since nobody knows then what
/// they did (`verify` names them).
///
/// # Errors
/// What the store said.
pub fn rows(judge: &Judge<'_>, folder: &str, limit: usize) -> Result<Vec<RunRow>> {
    let storage = judge.cluster.storage();
    let keys = runs::keys(storage, folder)?.into_iter().take(limit);
    let found: Vec<Found> = keys.filter_map(|key| runs::read(storage, folder, key)).collect();
    // One that cannot be read does what the others did.
    let kind = found.iter().find_map(|found| found.content.as_ref().ok().map(|record| record.kind));
    let Some(kind) = kind else { return Ok(Vec::new()) };
    Ok(found.into_iter().map(|found| judge.attempt(folder, kind, found).row).collect())
}

impl<'a> Judge<'a> {
    /// A look at the attempts of `system` at the moment `now`.
    pub fn new(cluster: &'a Cluster, system: u64, now: DateTime<Utc>) -> Self {
        Judge { cluster, system, now, holder: OnceCell::new() }
    }

    /// The attempt in `folder` that was read; `kind` is told of one that cannot be read.
    pub fn attempt(&self, folder: &str, kind: JobKind, found: Found) -> Attempt {
        let Found { key, content, written } = found;
        let job = folder.rsplit('/').next().unwrap_or_default();
        match content {
            Ok(record) => self.judge(key, record, written),
            Err(why) => Attempt {
                key,
                status: RunStatus::Failed,
                ended: self.past(written).unwrap_or(key.due),
                limit: None,
                row: RunRow {
                    id: key.run(job),
                    kind,
                    status: RunStatus::Failed,
                    started_at: text(written),
                    finished_at: None,
                    host: "unknown".to_string(),
                    backup: None,
                    result: None,
                    error: Some(why),
                },
            },
        }
    }

    fn judge(&self, key: Key, mut record: RunRecord, written: DateTime<Utc>) -> Attempt {
        let time = |text: &str| DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc());
        let begun = time(&record.started_at).unwrap_or(written);
        let limit = begun.checked_add_signed(Duration::seconds(i64::from(record.time_limit)));
        if record.status == RunStatus::Running && !self.is_alive(&record, written) {
            match self.its_backup(&record) {
                Some(backup) => {
                    record.status = RunStatus::Done;
                    record.finished_at = backup.finished_at;
                    record.backup = Some(backup.backup);
                    record.result = Some("complete; its process was gone before it could say so".to_string());
                }
                None => {
                    record.status = RunStatus::Failed;
                    let error = Error::new(ErrorKind::Io, GONE);
                    record.error = Some(error.hint(format!(
                        "The server's log on host \"{}\" may say why.",
                        record.host.escape_debug()
                    )));
                }
            }
        }
        let finished = record.finished_at.as_deref().and_then(time).unwrap_or(begun);
        Attempt {
            key,
            status: record.status,
            ended: self.past(finished).or(self.past(written)).unwrap_or(key.due),
            limit: limit.filter(|_| record.status == RunStatus::Running),
            row: RunRow {
                id: key.run(&record.job),
                kind: record.kind,
                status: record.status,
                started_at: record.started_at,
                finished_at: record.finished_at,
                host: record.host,
                backup: record.backup,
                result: record.result,
                error: record.error,
            },
        }
    }

    /// A time that can be true.
    fn past(&self, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        (time.signed_duration_since(self.now).num_seconds() <= AHEAD).then_some(time)
    }

    fn is_alive(&self, record: &RunRecord, written: DateTime<Utc>) -> bool {
        match process::life(&record.machine, record.pid, record.pid_start) {
            Life::Alive => return true,
            Life::Dead => return false,
            Life::Elsewhere => {}
        }
        // By the store's clock: that of another host may be wrong.
        let age = self.now.signed_duration_since(written).num_seconds();
        if (-AHEAD..YOUNG).contains(&age) {
            return true;
        }
        if record.kind.needs_lease() {
            return self.holder().is_some_and(|host| host.is_empty() || host == record.host);
        }
        // A host of this name that is not what it was has been started again.
        let is_gone = record.host == process::host_name() && !process::is_here(&record.machine);
        !is_gone && (-AHEAD..i64::from(record.time_limit)).contains(&age)
    }

    /// Who holds the lease. When that cannot be known, somebody may.
    fn holder(&self) -> Option<&str> {
        let look = || match lease::read(self.cluster.storage(), &self.cluster.lease_path(self.system)) {
            Ok(Some(lease)) if lease.is_alive(self.now) => match lease.unreadable {
                Some(_) => Some(String::new()),
                None => Some(lease.host),
            },
            Ok(_) => None,
            Err(_) => Some(String::new()),
        };
        self.holder.get_or_init(look).as_deref()
    }

    /// A complete backup that the attempt's host has begun since.
    fn its_backup(&self, record: &RunRecord) -> Option<Record> {
        let kind = record.kind.backup()?;
        let begun = DateTime::parse_from_rfc3339(&record.started_at).ok()?.to_utc();
        let since = layout::backup_name(begun, kind);
        let since = since.split('-').next()?.to_string();
        let storage = self.cluster.storage();
        let names = storage.folders(&layout::backups(self.cluster.name(), self.system)).ok()?;
        let names = names.into_iter().rev().filter(|name| layout::is_backup_name(name));
        names.take_while(|name| *name >= since).find_map(|name| {
            let found = Record::load(storage, &self.cluster.backup_folder(self.system, &name)).ok()??;
            let is_its = found.kind.is_physical() == kind.is_physical() && found.host == record.host;
            (found.status == BackupStatus::Complete && is_its).then_some(found)
        })
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
