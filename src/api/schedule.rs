//! `ark.schedule` and `ark.unschedule`: what this server is to do, and when.
//!
//! The rows are in `ark.job` ([`crate::jobs`]). Cron texts and time zones are judged by the engine, which alone knows them.
//! The two functions run with the rights of the extension's owner: who may EXECUTE them may change the schedule, and
//! needs no right on the table.

use super::backup::check_one_line;
use super::list::time;
use super::logical;
use super::validate::parse_level;
use crate::engine::{self, Target};
use crate::postgres::text::Text;
use crate::postgres::{database, wal};
use crate::{jobs, settings, sql, translate, version, workers};
use pg_ark_contract::conversation::{Answer, Level, LogicalChoice, Task};
use pg_ark_contract::schedule::{JobKind, check_job_name};
use pg_ark_contract::{Error, ErrorKind, Result};
use pgrx::datum::Interval;
use pgrx::prelude::*;

/// Makes a job, or replaces the one of that name; gives the moment of its next run, none when it is not enabled.
#[pg_extern(volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::too_many_arguments)] // The arguments of DESIGN's SQL surface.
pub fn schedule(
    name: Option<Text>,
    cron: Option<Text>,
    kind: default!(Option<Text>, "'full'"),
    timezone: default!(Option<Text>, "NULL"),
    label: default!(Option<Text>, "NULL"),
    time_limit: default!(Option<Interval>, "'1 day'"),
    enabled: default!(Option<bool>, true),
    level: default!(Option<Text>, "NULL"),
    deep: default!(Option<bool>, "NULL"),
    databases: default!(Option<Vec<Option<Text>>>, "NULL"),
    exclude_databases: default!(Option<Vec<Option<Text>>>, "NULL"),
    skip_failed: default!(Option<bool>, "NULL"),
) -> Option<TimestampWithTimeZone> {
    version::require();
    let logical = logical::Asked { databases, exclude_databases, skip_failed };
    let enabled = enabled.unwrap_or(true);
    let asked = Asked { name, cron, kind, timezone, label, enabled, level, deep, logical };
    let next = asked.check().and_then(|job| {
        check_place()?;
        logical::check_existence(&job.logical)?;
        let limit = check_time_limit(time_limit)?;
        let (next, timezone) = instants(&job.cron, &job.timezone)?;
        put(&Job { timezone, ..job }, limit)?;
        Ok(next)
    });
    translate::or_raise(next).filter(|_| asked.enabled).and_then(|next| time(Some(&next)))
}

/// Removes a job; false when there is none of that name. A run that goes on is not touched.
#[pg_extern(volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
pub fn unschedule(name: Option<Text>) -> bool {
    version::require();
    let removed = any_name(name).and_then(|name| {
        check_place()?;
        jobs::check()?;
        let removed = sql::write(
            "WITH gone AS (DELETE FROM ark.job WHERE name = $1 RETURNING 1) SELECT count(*)::text FROM gone",
            vec![Text::from(name).into()],
        )?;
        workers::wake_after_commit()?;
        Ok(removed.as_deref() == Some("1"))
    });
    translate::or_raise(removed)
}

/// The arguments of [`schedule`] as they came.
struct Asked {
    name: Option<Text>,
    cron: Option<Text>,
    kind: Option<Text>,
    timezone: Option<Text>,
    label: Option<Text>,
    enabled: bool,
    level: Option<Text>,
    deep: Option<bool>,
    logical: logical::Asked,
}

/// A row of `ark.job` that can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    pub name: String,
    pub kind: JobKind,
    pub cron: String,
    pub timezone: String,
    pub label: Option<String>,
    pub enabled: bool,
    pub level: Option<Level>,
    pub deep: bool,
    pub logical: LogicalChoice,
}

impl Asked {
    fn check(&self) -> Result<Job> {
        let text = |text: &Option<Text>| text.as_ref().map(Text::decode).transpose();
        let name = job_name(self.name.clone())?;
        let cron = text(&self.cron)?.filter(|cron| !cron.is_empty()).ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, "the cron text of a job must not be null or empty")
                .hint("Give five fields (minute, hour, day, month, weekday), as '0 2 * * *', or @daily.")
        })?;
        let kind = parse_kind(&text(&self.kind)?.unwrap_or_default())?;
        let label = text(&self.label)?;
        check_one_line("label", label.as_deref())?;
        let level = text(&self.level)?.map(|level| parse_level(&level)).transpose()?;
        let stray = |what: &str, whose: &str| {
            Error::new(ErrorKind::InvalidArgument, format!("a job of kind {} has no {what}", kind.as_str()))
                .hint(format!("Leave {what} out; it belongs to {whose}."))
        };
        match kind {
            _ if label.is_some() && kind.backup().is_none() => Err(stray("label", "kinds that take backups")),
            _ if level.is_some() && kind != JobKind::Verify => Err(stray("level", "kind verify")),
            _ if self.deep.is_some() && kind != JobKind::VerifyArchive => {
                Err(stray("deep", "kind verify_archive"))
            }
            _ if kind != JobKind::Logical && self.logical.stray().is_some() => {
                Err(stray(self.logical.stray().unwrap_or_default(), "kind logical"))
            }
            _ => Ok(Job {
                name,
                kind,
                cron,
                timezone: text(&self.timezone)?.unwrap_or_else(settings::timezone),
                label,
                enabled: self.enabled,
                level,
                deep: self.deep.unwrap_or(false),
                logical: self.logical.choice()?,
            }),
        }
    }
}

/// The job that a caller named.
///
/// # Errors
/// `InvalidArgument` for NULL and for what can name none.
pub(super) fn job_name(name: Option<Text>) -> Result<String> {
    let name = any_name(name)?;
    check_job_name(&name)?;
    Ok(name)
}

/// Also one that names no job: a row that somebody wrote by hand can be removed like the others.
fn any_name(name: Option<Text>) -> Result<String> {
    name.map(|name| name.decode()).transpose()?.ok_or_else(|| {
        Error::new(ErrorKind::InvalidArgument, "the name of a job must not be null")
            .hint("The view ark.jobs shows the names.")
    })
}

fn parse_kind(kind: &str) -> Result<JobKind> {
    match JobKind::find(kind) {
        Some(kind) => Ok(kind),
        None => {
            let shown: String = kind.chars().take(64).flat_map(char::escape_debug).collect();
            let known: Vec<_> = JobKind::ALL.iter().map(|kind| kind.as_str()).collect();
            Err(Error::new(ErrorKind::InvalidArgument, format!("unknown kind of job: \"{shown}\""))
                .hint(format!("The kinds are {}.", known.join(", "))))
        }
    }
}

/// Jobs are made on the primary, in the database that the scheduler looks at.
///
/// # Errors
/// `ServerNotReady` elsewhere; as [`settings::check_source`].
pub(super) fn check_place() -> Result<()> {
    settings::check_source()?;
    if wal::in_recovery() {
        return Err(Error::new(ErrorKind::ServerNotReady, "the schedule cannot be changed on a standby")
            .hint("Change it on the primary: a standby has the primary's schedule."));
    }
    if is_jobs_database() {
        return Ok(());
    }
    let database = settings::database();
    Err(Error::new(
        ErrorKind::ServerNotReady,
        format!("scheduled jobs belong to database \"{}\", not to this one", database.escape_debug()),
    )
    .hint(
        "Connect to that database and CREATE EXTENSION pg_ark there, or set pg_ark.database to this one \
         (ALTER SYSTEM, then SELECT pg_reload_conf()).",
    ))
}

/// Whether the scheduler reads the jobs of this database.
pub(super) fn is_jobs_database() -> bool {
    database::named(&settings::database()) == Some(database::own())
}

fn check_time_limit(limit: Option<Interval>) -> Result<Option<Interval>> {
    let Some(limit) = limit else { return Ok(None) };
    let fits = sql::read(
        "SELECT ($1 >= interval '1 second' AND $1 <= interval '366 days')::text",
        vec![limit.into()],
    )?;
    if fits.as_deref() == Some("true") {
        return Ok(Some(limit));
    }
    Err(Error::new(
        ErrorKind::InvalidArgument,
        "the time limit of a job must be between a second and 366 days",
    )
    .hint("Leave it out for a day; a run that takes longer is ended and tried again."))
}

/// The next moment of a cron text after now, and the proper name of its time zone.
///
/// # Errors
/// `InvalidArgument` for a text or a zone that cannot be, and what can go wrong with the engine.
pub(super) fn instants(cron: &str, timezone: &str) -> Result<(Option<String>, String)> {
    // Needs no repository, so it need not be set yet.
    let target = Target::for_repository(settings::repository().unwrap_or_default())?;
    let task = Task::Cron { cron: cron.into(), timezone: timezone.into() };
    match engine::ask_within(&target, task, Some(super::PATIENCE))? {
        Answer::Instants { next, timezone } => Ok((next.into_iter().next(), timezone)),
        other => Err(engine::unexpected(&other)),
    }
}

/// Moments count from now on when the schedule is another, or when a job is switched on again: what passed meanwhile was
/// never due. A job made in the future, by a clock that was wrong, is made now.
const REPLACE: &str = "ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, cron = excluded.cron, \
    timezone = excluded.timezone, enabled = excluded.enabled, time_limit = excluded.time_limit, label = excluded.label, \
    level = excluded.level, deep = excluded.deep, databases = excluded.databases, \
    exclude_databases = excluded.exclude_databases, skip_failed = excluded.skip_failed, since = CASE WHEN j.cron = excluded.cron \
    AND j.timezone = excluded.timezone AND (j.enabled OR NOT excluded.enabled) THEN least(j.since, excluded.since) ELSE excluded.since END";

/// Writes a job; one of the same name is replaced.
fn put(job: &Job, limit: Option<Interval>) -> Result<()> {
    insert(job, limit, REPLACE).map(|_| ())
}

/// Writes a job unless there is one of that name; false then.
///
/// # Errors
/// As [`jobs::check`]. What the server objects to is raised.
pub(super) fn put_new(job: &Job) -> Result<bool> {
    insert(job, None, "ON CONFLICT (name) DO NOTHING")
}

fn insert(job: &Job, limit: Option<Interval>, otherwise: &str) -> Result<bool> {
    jobs::check()?;
    let text = |text: &Option<String>| text.as_deref().map(Text::from);
    let array = |names: &[String]| names.iter().map(|name| Text::from(name.as_str())).collect::<Vec<_>>();
    let statement = format!(
        "WITH made AS (INSERT INTO ark.job AS j (name, kind, cron, timezone, enabled, since, time_limit, label, level, \
         deep, databases, exclude_databases, skip_failed) VALUES ($1, $2, $3, $4, $5, \
         date_trunc('second', clock_timestamp()), coalesce($6, '1 day'), $7, $8, $9, $10, $11, $12) \
         {otherwise} RETURNING 1) SELECT count(*)::text FROM made"
    );
    let made = sql::write(
        &statement,
        vec![
            Text::from(job.name.as_str()).into(),
            Text::from(job.kind.as_str()).into(),
            Text::from(job.cron.as_str()).into(),
            Text::from(job.timezone.as_str()).into(),
            job.enabled.into(),
            limit.into(),
            text(&job.label).into(),
            job.level.map(|level| Text::from(level.as_str())).into(),
            job.deep.into(),
            job.logical.databases.as_deref().map(array).into(),
            Some(&job.logical.exclude_databases[..]).filter(|names| !names.is_empty()).map(array).into(),
            job.logical.skip_failed.into(),
        ],
    )?;
    workers::wake_after_commit()?;
    Ok(made.as_deref() == Some("1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_words() {
        for kind in JobKind::ALL {
            assert_eq!(parse_kind(kind.as_str()), Ok(*kind));
        }
        for bad in ["", "FULL", "full ", "backup"] {
            let error = parse_kind(bad).unwrap_err();
            assert!(error.kind == ErrorKind::InvalidArgument && error.hint.is_some(), "{bad}");
        }
    }
}
