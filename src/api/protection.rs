//! How well this server is protected now: what `ark.status` and `ark.metrics` show, gathered by one question to the
//! engine.
//!
//! It is known also when the repository is not set, away or hanging, for the engine is waited for [`super::PATIENCE`] at
//! the most: what is not known then is absent, and [`health`] says why.

use super::archiving::Progress;
use super::health;
use super::list::time;
use super::schedule::is_jobs_database;
use crate::engine::{self, Target};
use crate::postgres::wal;
use crate::workers::{backup, scheduler};
use crate::{jobs, not_begun, settings, sql, version};
use pg_ark_contract::conversation::{Answer, Task};
use pg_ark_contract::rows::StatusRow;
use pg_ark_contract::schedule::{JobSpec, JobState, RunStatus};
use pg_ark_contract::{Error, Lsn, Result, Timeline};
use pgrx::datum::datetime_support::clock_timestamp;
use pgrx::prelude::*;
use serde::Deserialize;

const MICROS: i64 = 1_000_000;

/// Everything that is known.
#[derive(Debug)]
pub struct Protection {
    /// How archiving goes.
    pub progress: Progress,
    /// The last segment that our library stored, as far as the server knows.
    pub last_stored: Option<String>,
    /// What the repository says, as far as it answers.
    pub stored: StatusRow,
    /// Where the WAL is.
    pub now: Now,
    /// Jobs of this database; none when the caller may not read them.
    pub jobs: Vec<JobSpec>,
    /// They were read: none means that there are none.
    pub knows_jobs: bool,
    /// What runs in the server.
    pub workers: Workers,
    /// This database's jobs are those that the scheduler looks at.
    pub is_jobs_database: bool,
    /// This server does what is scheduled: `pg_ark.run_on`.
    pub acts: bool,
    /// The library was loaded when the server started.
    pub preloaded: bool,
    /// How far back every moment shall be restorable, in seconds: `pg_ark.retention_window`.
    pub wanted: u64,
    /// Why the SQL does not fit the library.
    pub version: Option<Error>,
}

/// Processes of pg_ark.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Workers {
    /// The scheduler is there.
    pub scheduler: bool,
    /// Since when, as JSON has times.
    pub scheduler_since: Option<String>,
    /// Backups that this server takes now.
    pub backups: u32,
}

/// Rows that the caller may not read are no error: then nothing is said of jobs.
const MAY_READ: &str = "SELECT coalesce(has_table_privilege(to_regclass('ark.job'), 'SELECT'), false)::text";
const WORKERS: &str = "SELECT json_build_object('scheduler', count(*) FILTER (WHERE backend_type = $1) > 0, \
    'scheduler_since', min(backend_start) FILTER (WHERE backend_type = $1), 'backups', count(*) FILTER (WHERE backend_type = $2))::text \
    FROM pg_stat_get_activity(NULL)";

impl Protection {
    /// As it is now.
    ///
    /// # Errors
    /// `Internal` when the server refuses a question or its answer has an unexpected shape.
    pub fn read() -> Result<Protection> {
        // The counters come first: a segment that is stored meanwhile is no loss.
        let progress = Progress::read()?;
        let mut version = version::check().err();
        let may_read = sql::text(MAY_READ, &[])?.as_deref() == Some("true");
        let jobs = may_read.then(jobs::read_soon).transpose().unwrap_or_else(|error| {
            version.get_or_insert(error);
            None
        });
        let knows_jobs = jobs.is_some();
        let jobs = jobs.unwrap_or_default();
        let mut stored =
            ask(&jobs).unwrap_or_else(|error| StatusRow { error: Some(error), ..StatusRow::default() });
        let is_jobs_database = is_jobs_database();
        if is_jobs_database {
            not_begun::add_to(&mut stored.jobs, &jobs);
        }
        Ok(Protection {
            last_stored: progress.last_stored(),
            progress,
            stored,
            now: Now::read(),
            jobs,
            knows_jobs,
            workers: sql::json(WORKERS, &[scheduler::WORKER, backup::WORKER])?,
            is_jobs_database,
            acts: settings::run_on().allows(wal::in_recovery()),
            preloaded: settings::is_preloaded(),
            wanted: settings::retention().window,
            version,
        })
    }

    /// Whether the repository answered.
    pub fn is_up(&self) -> bool {
        self.stored.error.is_none()
    }

    /// What is wrong, in sentences; none when all is well.
    pub fn problems(&self) -> Vec<String> {
        health::problems(self, age)
    }

    /// What would be lost if the server were gone now; none when that is not known.
    pub fn risk(&self) -> Option<Risk> {
        risk(&self.stored, &self.now, self.progress.counted.last_archived_time.as_deref(), age)
    }

    /// Each job with what is known of it.
    pub fn states(&self) -> impl Iterator<Item = (&JobSpec, Option<&JobState>)> {
        self.jobs.iter().map(|job| (job, self.stored.jobs.iter().find(|state| state.name == job.name)))
    }

    /// When this server does something next, and the job; none when nothing will start it.
    pub fn next(&self) -> Option<(&str, &str)> {
        let enabled = self.states().filter(|(job, _)| job.enabled && self.is_jobs_database);
        let next = enabled.filter_map(|(job, state)| Some((state?.next_run.as_deref()?, &job.name[..])));
        next.min_by_key(|(at, _)| time(Some(at)).map(|at| at.into_inner()))
    }

    /// What failed last and is not over, be it a backup, a run of a job or archiving, and when.
    pub fn last_error(&self) -> Option<(String, Option<TimestampWithTimeZone>)> {
        let backup = self.stored.failed_backup.as_ref().map(|backup| {
            let why = backup.error.as_deref().unwrap_or("its writer is gone");
            let at = backup.finished_at.as_deref().unwrap_or(&backup.started_at);
            (format!("backup {}: {why}", backup.backup), time(Some(at)))
        });
        let runs = self.states().filter_map(|(job, state)| {
            let run = state?.last_run.as_ref().filter(|run| run.status == RunStatus::Failed)?;
            let why = run.error.as_ref().map_or("failed", |error| &error.message);
            Some((format!("job {}: {why}", job.name), time(run.finished_at.as_deref())))
        });
        let archiving = self.progress.last_failure.as_ref().map(|failure| {
            (format!("archiving {}: {}", failure.file, failure.error), time(Some(&failure.at)))
        });
        // Of a backup and the job that took it, what failed at the same time, the job comes last.
        let all = backup.into_iter().chain(archiving).chain(runs);
        all.max_by_key(|(_, at)| at.map(|at| at.into_inner()))
    }
}

fn ask(jobs: &[JobSpec]) -> Result<StatusRow> {
    let unset = settings::repository().err();
    if jobs.is_empty()
        && let Some(unset) = unset
    {
        return Err(unset);
    }
    // When it is not set, the cron texts still tell when the next runs are.
    let target = Target::for_repository(settings::repository().unwrap_or_default())?;
    let task = Task::Status {
        system_identifier: Some(wal::system_identifier()),
        jobs: jobs.to_vec(),
        missed_runs: settings::missed_runs(),
    };
    match engine::ask_within(&target, task, Some(super::PATIENCE))? {
        Answer::Status(row) => Ok(StatusRow { error: unset.or(row.error), ..*row }),
        other => Err(engine::unexpected(&other)),
    }
}

/// Where the server's WAL is now.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Flushed; on a standby replayed.
    pub lsn: Lsn,
    /// The server's timeline.
    pub timeline: Timeline,
    /// Begin of the last record that was more than housekeeping, where the server knows it.
    pub important: Option<Lsn>,
}

impl Now {
    fn read() -> Now {
        let (lsn, timeline) = wal::durable_position();
        Now { lsn, timeline, important: wal::last_important() }
    }

    /// Bytes of WAL since `lsn`.
    pub fn since(&self, lsn: Lsn) -> u64 {
        self.lsn.0.saturating_sub(lsn.0)
    }

    /// Nothing but housekeeping was written since `lsn`: an idle server would else seem to lose more each hour.
    fn idle_since(&self, lsn: Lsn) -> bool {
        self.lsn <= lsn || self.important.is_some_and(|important| important < lsn)
    }
}

/// What would be lost if the server were gone now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Risk {
    /// Since the last commit that is stored, or the moment when something was stored last.
    pub seconds: Option<i64>,
    /// WAL.
    pub bytes: u64,
}

/// Counted from the end of the archive, or from the end of the last backup where that is later. None when nothing is
/// stored at all.
fn risk(
    stored: &StatusRow,
    now: &Now,
    archived_at: Option<&str>,
    age: impl Fn(&str) -> Option<i64>,
) -> Option<Risk> {
    let backup = stored.last_backup.as_ref();
    let backup = backup.and_then(|backup| Some((backup.stop_lsn?, backup.finished_at.as_deref())));
    let (end, at) = match (stored.archive_end_lsn, backup) {
        (Some(end), backup) if backup.is_none_or(|(stop, _)| stop <= end) => {
            (end, stored.archive_end_time.as_deref().or(archived_at))
        }
        (_, Some((stop, finished_at))) => (stop, finished_at),
        (_, None) => return None,
    };
    if now.idle_since(end) {
        return Some(Risk { seconds: Some(0), bytes: 0 });
    }
    Some(Risk { seconds: at.and_then(age), bytes: now.since(end) })
}

/// Seconds since a time.
fn age(at: &str) -> Option<i64> {
    let at = time(Some(at))?;
    Some(((clock_timestamp().into_inner() - at.into_inner()) / MICROS).max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_server_loses_nothing() {
        let now =
            |lsn, important| Now { lsn: Lsn(lsn), timeline: Timeline(1), important: Some(Lsn(important)) };
        assert!(now(0x400_0000, 0x3ff_0000).idle_since(Lsn(0x400_0000)));
        assert!(
            now(0x400_0060, 0x3ff_0000).idle_since(Lsn(0x400_0000)),
            "a snapshot of running transactions"
        );
        assert!(!now(0x400_0100, 0x400_0060).idle_since(Lsn(0x400_0000)), "a commit");
        assert!(!Now { important: None, ..now(0x400_0060, 0) }.idle_since(Lsn(0x400_0000)), "a standby");
    }

    #[test]
    fn nothing_stored_is_not_nothing_lost() {
        let now = Now { lsn: Lsn(9), timeline: Timeline(1), important: None };
        let stored = StatusRow::default();
        let age = |at: &str| at.parse().ok();
        assert_eq!(risk(&stored, &now, None, age), None);
        let behind = StatusRow { archive_end_lsn: Some(Lsn(4)), ..stored.clone() };
        assert_eq!(risk(&behind, &now, None, age), Some(Risk { seconds: None, bytes: 5 }));
        assert_eq!(risk(&behind, &now, Some("7"), age), Some(Risk { seconds: Some(7), bytes: 5 }));
        let with_commit = StatusRow { archive_end_time: Some("3".into()), ..behind };
        assert_eq!(risk(&with_commit, &now, Some("7"), age), Some(Risk { seconds: Some(3), bytes: 5 }));
        let up_to_date = StatusRow { archive_end_lsn: Some(Lsn(9)), ..stored };
        assert_eq!(risk(&up_to_date, &now, None, age), Some(Risk { seconds: Some(0), bytes: 0 }));
    }
}
