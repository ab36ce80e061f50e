//! From a [`Job`] to its [`Answer`]: what the server may ask for.

use crate::backup;
use crate::logical;
use crate::outlook;
use crate::repository::Storage;
use crate::repository::access;
use crate::repository::catalog::{self, Cluster, Repository};
use crate::repository::lease::{self, Life};
use crate::repository::record::Record;
use crate::repository::reserve;
use crate::repository::standing::Standing;
use crate::retention;
use crate::schedule;
use crate::session::Session;
use crate::verify::{self, Depth, Request, Telling};
use crate::wal::archiver;
use chrono::Utc;
use pg_ark_contract::conversation::{Answer, BackupKind, Job, Task};
use pg_ark_contract::retention::{Policy, PruneRow};
use pg_ark_contract::rows::{BackupStatus, CheckRow, CheckStatus};
use pg_ark_contract::schedule::JobKind;
use pg_ark_contract::{Error, ErrorKind, Result, VERSION};
use std::path::Path;

/// Does the job.
///
/// # Errors
/// What went wrong; nothing complete was left behind.
pub fn run(job: &Job, session: &Session) -> Result<Answer> {
    if job.version != VERSION {
        return Err(Error::new(
            ErrorKind::VersionMismatch,
            format!("the engine has version {VERSION}, the server's library {}", job.version.escape_debug()),
        )
        .hint("Install library and engine together with scripts/install, and check pg_ark.engine_path."));
    }
    match &job.task {
        Task::Open { data_directory, system_identifier } => open(job, data_directory, *system_identifier),
        Task::List => {
            let rows = cluster(job, session)?.backups()?.iter().map(|r| r.row()).collect();
            Ok(Answer::Backups(rows))
        }
        Task::Show { backup } => {
            let (record, _) = cluster(job, session)?.backup(backup)?;
            let json = serde_json::to_string(&record)
                .map_err(|e| Error::new(ErrorKind::Internal, "could not write a record as JSON").detail(e))?;
            Ok(Answer::Record { json })
        }
        Task::Check { data_directory, system_identifier } => {
            Ok(Answer::Checks(check(job, data_directory, *system_identifier)))
        }
        Task::CheckLogical { logical, server_version_num, jobs } => {
            Ok(Answer::Checks(logical::check::rows(logical, *server_version_num, jobs, session)))
        }
        Task::Backup(task) => {
            let storage = repository(job)?.storage().clone();
            let row = match task.kind {
                BackupKind::Logical => logical::run::run(storage, &job.cluster, task, session)?,
                BackupKind::Full | BackupKind::Incremental => {
                    backup::run(storage, &job.cluster, task, session)?
                }
            };
            // A backup that is complete stays so, whatever comes after.
            if let Ok(cluster) = cluster(job, session) {
                reserve::make(&cluster);
            }
            Ok(Answer::Backup(Box::new(row)))
        }
        Task::Archive(task) => match archiver::run(&job.repository, &job.cluster, task, session)? {},
        Task::Abandon { backup, reason } => {
            let cluster = cluster(job, session)?;
            abandon(&cluster, backup.as_deref(), reason).map(|()| Answer::Abandoned)
        }
        Task::VerifyArchive { system_identifier, deep } => {
            let depth = if *deep { Depth::Everything(0) } else { Depth::Names };
            let watch = Telling::new(session);
            verify::archive_rows(&cluster(job, session)?, *system_identifier, depth, &watch)
                .map(Answer::Archive)
        }
        Task::Validate { backup, level, system_identifier, jobs, archived } => {
            let mut cluster = cluster(job, session)?;
            if let Some(system) = system_identifier {
                cluster = cluster.only_system(*system)?;
            }
            let request = Request { backup: backup.clone(), level: *level, jobs: *jobs as usize };
            let mut rows = verify::validate(&cluster, &request, &Telling::new(session))?;
            if let Some(archived) = archived.as_ref().filter(|_| backup.is_none()) {
                let lost = verify::tail::lost(&cluster, archived)?;
                rows.extend(lost.filter(|lost| rows.iter().all(|row| row.object != lost.object)));
                rows.sort_by(|a, b| (&a.backup, &a.object).cmp(&(&b.backup, &b.object)));
            }
            Ok(Answer::Findings(rows))
        }
        Task::Windows { system_identifier } => {
            let found = verify::windows_of(&cluster(job, session)?, *system_identifier, session)?;
            found.remarks.into_iter().for_each(|remark| session.warn(remark, None));
            Ok(Answer::Windows(found.rows))
        }
        Task::Agenda { system_identifier, jobs, missed_runs } => {
            let cluster = cluster(job, session);
            let agenda = schedule::agenda(cluster, *system_identifier, jobs, *missed_runs, Utc::now());
            Ok(Answer::Agenda { jobs: agenda.jobs, wake_at: agenda.wake_at, error: agenda.error })
        }
        Task::Cron { cron, timezone } => {
            let (next, timezone) = schedule::instants(cron, timezone, Utc::now())?;
            Ok(Answer::Instants { next, timezone })
        }
        Task::RunBegin { system_identifier, job: spec, run } => {
            let cluster = cluster(job, session)?;
            let begin = || schedule::begin(&cluster, *system_identifier, spec, run, job.parent_pid);
            let (begun, why) = match spec.kind {
                JobKind::Prune => reserve::spend(&cluster, &|time| session.pause(time), begin)?,
                _ => begin()?,
            };
            Ok(Answer::RunBegun { begun, why })
        }
        Task::RunEnd { system_identifier, run, outcome } => {
            schedule::end(&cluster(job, session)?, *system_identifier, run, outcome)?;
            Ok(Answer::RunEnded)
        }
        Task::Runs { system_identifier, job: name, limit } => {
            let cluster = cluster(job, session)?;
            schedule::runs(&cluster, *system_identifier, name.as_deref(), *limit).map(Answer::Runs)
        }
        Task::Prune { policy, apply, system_identifier } => {
            let cluster = cluster(job, session)?;
            match apply {
                true => prune(&cluster, policy, *system_identifier, session),
                false => retention::prune(&cluster, policy, false, session),
            }
            .map(Answer::Pruned)
        }
        Task::Pin { backup, reason } => {
            let cluster = cluster(job, session)?;
            retention::pin(&cluster, backup, reason.as_deref()).map(|changed| Answer::Pinned { changed })
        }
        Task::Unpin { backup } => {
            let cluster = cluster(job, session)?;
            retention::unpin(&cluster, backup).map(|changed| Answer::Pinned { changed })
        }
        Task::Status { system_identifier, jobs, missed_runs } => {
            let (cluster, check) = (cluster(job, session), || session.check());
            let standing = cluster.as_ref().ok().zip(*system_identifier);
            // What the store says against it, it says against the rest too.
            let standing = standing.and_then(|(cluster, system)| Standing::of(cluster, system).ok());
            let mut row = verify::status::told(cluster, *system_identifier, jobs, *missed_runs, &check)?;
            if let Some(Standing::Superseded(error)) = standing {
                row.foreign = Some(error);
            }
            Ok(Answer::Status(Box::new(row)))
        }
    }
}

fn repository(job: &Job) -> Result<Repository> {
    Repository::open(&job.repository).map_err(|error| catalog::away(error, job.known))
}

fn cluster(job: &Job, session: &Session) -> Result<Cluster> {
    let cluster = repository(job)?.cluster(&job.cluster)?;
    if let Some(damage) = cluster.damage() {
        session.warn(damage.to_string(), damage.hint.clone());
    }
    Ok(cluster)
}

/// Removes what `policy` does not keep, and remembers that it was this server's policy.
fn prune(
    cluster: &Cluster,
    policy: &Policy,
    system_identifier: Option<u64>,
    session: &Session,
) -> Result<Vec<PruneRow>> {
    if let Some(system) = system_identifier {
        Standing::of(cluster, system)?.must_be_newest()?;
    }
    let rows = retention::prune(cluster, policy, true, session)?;
    let now = Utc::now();
    let save = || retention::policy_store::save(cluster, policy, now);
    if let Err(error) = reserve::spend(cluster, &|time| session.pause(time), save) {
        // What was to be removed is gone, and that was the task.
        let message = format!("the rules of this prune were not written down for \"pgark prune\": {error}");
        session.warn(message, error.hint);
    }
    reserve::make(cluster);
    Ok(rows)
}

fn open(job: &Job, data_directory: &str, system_identifier: Option<u64>) -> Result<Answer> {
    let storage = Storage::open(&job.repository)?;
    catalog::refuse_inside(&storage, Path::new(data_directory))?;
    crate::repository::layout::check_cluster_name(&job.cluster)?;
    let (repository, created) = match job.known {
        // To begin a new one where another was takes a word of its own.
        true => (Repository::open(&job.repository).map_err(catalog::left)?, false),
        false => Repository::open_or_create(&job.repository)?,
    };
    repository.probe()?;
    let cluster = repository.cluster(&job.cluster)?;
    let standing = system_identifier.map(|system| Standing::of(&cluster, system)).transpose()?;
    let foreign = standing.and_then(Standing::remark);
    Ok(Answer::Opened { created, id: repository.id().to_string(), foreign })
}

/// Marks a backup whose writer is dead as failed, and removes what it left; without a name, every such backup.
///
/// # Errors
/// `Busy` when its writer is alive after all.
pub fn abandon(cluster: &Cluster, backup: Option<&str>, reason: &str) -> Result<()> {
    match backup {
        Some(name) => abandon_one(cluster, cluster.backup(name)?.0, reason)?,
        None => {
            // Readers judge the record of a dead writer as failed; nobody wrote when. One that cannot be read may be
            // that of a complete backup.
            let unfinished = |r: &Record| {
                r.status == BackupStatus::Failed && r.finished_at.is_none() && r.unreadable.is_none()
            };
            for record in cluster.backups()?.into_iter().filter(unfinished) {
                match abandon_one(cluster, record, reason) {
                    // One of another machine, of which a reader can only guess that it is dead; one behind a link.
                    Err(e) if matches!(e.kind, ErrorKind::Busy | ErrorKind::RepositoryUnusable) => {}
                    other => other?,
                }
            }
        }
    }
    cluster.release_dead_leases()
}

fn abandon_one(cluster: &Cluster, record: Record, reason: &str) -> Result<()> {
    if record.status == BackupStatus::Complete {
        return Ok(());
    }
    let system = backup::system_of(&record)?;
    let holder = lease::held_for(cluster.storage(), &cluster.lease_path(system), &record.backup)?;
    if let Some(lease) = holder.filter(|lease| lease.life() != Life::Dead) {
        return Err(lease::busy(cluster.storage(), &lease));
    }
    let folder = cluster.backup_folder(system, &record.backup);
    backup::end_dead(cluster.storage(), &folder, Some(reason))
}

/// What the engine can tell about the repository, one row per thing looked at.
pub fn check(job: &Job, data_directory: &str, system_identifier: Option<u64>) -> Vec<CheckRow> {
    let mut rows = Vec::new();
    let mut row = |item: &str, result: Result<String>| {
        let ok = result.is_ok();
        rows.push(match result {
            Ok(detail) => CheckRow { item: item.to_string(), status: CheckStatus::Ok, detail, hint: None },
            Err(e) => CheckRow {
                item: item.to_string(),
                status: CheckStatus::Error,
                detail: e.to_string(),
                hint: e.hint,
            },
        });
        ok
    };
    let opened = repository(job);
    let repository = opened.as_ref().ok();
    row(
        "repository",
        opened.as_ref().map(|r| format!("{} (id {})", job.repository, r.id())).map_err(Clone::clone),
    );
    let Some(repository) = repository else { return rows };
    row(
        "repository place",
        catalog::refuse_inside(repository.storage(), Path::new(data_directory))
            .map(|()| "outside the data directory".to_string()),
    );
    row("repository write", repository.probe().map(|()| "an object was written, synced and removed".into()));
    let cluster = repository.cluster(&job.cluster);
    let backups = cluster.as_ref().map_err(Clone::clone).and_then(|cluster| match cluster.damage() {
        // A backup would refuse it.
        Some(damage) => Err(damage.clone()),
        None => cluster.backups(),
    });
    let known = backups.as_ref().map_or(&[][..], |backups| &backups[..]);
    let space = outlook::space(cluster.as_ref().ok(), repository.storage(), known, Utc::now());
    let clock = outlook::clock(repository.storage(), known, Utc::now());
    row(
        "backups",
        backups.map(|backups| {
            let count = |status| backups.iter().filter(|b| b.status == status).count();
            format!(
                "cluster \"{}\": {} complete, {} running, {} failed",
                job.cluster,
                count(BackupStatus::Complete),
                count(BackupStatus::Running),
                count(BackupStatus::Failed)
            )
        }),
    );
    rows.extend(cluster.as_ref().ok().zip(system_identifier).map(|(cluster, system)| owner(cluster, system)));
    rows.extend(space);
    rows.extend(clock);
    rows.extend(outlook::device(repository.storage(), Path::new(data_directory)));
    rows.extend(outlook::tablespaces(repository.storage(), Path::new(data_directory)));
    rows.push(access::check(repository.storage().folder()));
    rows
}

/// Whether the cluster is that of the server.
fn owner(cluster: &Cluster, system_identifier: u64) -> CheckRow {
    let (status, error) = match Standing::of(cluster, system_identifier) {
        Ok(Standing::Newest) => {
            let detail = format!("\"{}\" is no other server's", cluster.name());
            return CheckRow { item: "cluster".into(), status: CheckStatus::Ok, detail, hint: None };
        }
        Ok(Standing::Unseen(error)) => (CheckStatus::Warning, error),
        Ok(Standing::Superseded(error)) | Err(error) => (CheckStatus::Error, error),
    };
    CheckRow { item: "cluster".into(), status, detail: error.to_string(), hint: error.hint }
}

#[cfg(test)]
#[path = "jobs_tests.rs"]
mod tests;
