//! What the repository contributes to `ark.status` and `ark.metrics`: cheap enough to be asked every few seconds.

use super::{archive_of, recent, records_of};
use crate::clocks;
use crate::repository::logical_record::MissingDatabase;
use crate::repository::{Cluster, Record};
use crate::retention::policy_store;
use crate::schedule;
use crate::wal::archive::Archive;
use crate::wal::moments::{Moments, is_damage, is_unreadable, shown_time};
use crate::wal::pruned::Pruned;
use crate::wal::survey::Survey;
use chrono::{DateTime, SecondsFormat, Utc};
use pg_ark_contract::rows::{BackupStatus, FutureBackups, MissingDump, StatusRow};
use pg_ark_contract::schedule::{JobSpec, MissedRuns};
use pg_ark_contract::{Error, ErrorKind, Result, SegmentSize};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long the search for the window may take: who asks wants the rest of the answer in any case.
const WINDOW_TIME: Duration = Duration::from_secs(3);

/// Last backup, end of the archive, window.
///
/// # Errors
/// What the store or `check` said.
pub fn status(
    cluster: &Cluster,
    system_identifier: Option<u64>,
    check: &dyn Fn() -> Result<()>,
) -> Result<StatusRow> {
    let mut row = StatusRow { free_bytes: cluster.storage().free_bytes(), ..StatusRow::default() };
    let Some(archive) = archive_of(cluster, system_identifier) else {
        row.pruned_at = pruned_at(cluster, Ok(None))?;
        return Ok(row);
    };
    let records = records_of(cluster, &archive)?;
    backups(&records, Utc::now(), &mut row);
    let part = recent::part(&archive, check)?;
    let survey = match part {
        Some(part) => {
            end(&archive, &part.survey, check, &mut row)?;
            row.partial = part.is_cut;
            part.survey
        }
        None => Survey::empty(SegmentSize::default()),
    };
    row.pruned_at = pruned_at(cluster, Pruned::load(&archive, survey.segment_size).map(|pruned| pruned.at))?;
    match in_time(check, |check| recent::window(cluster, &archive, &survey, &records, check))? {
        // A backup before the part that was looked at says nothing about it.
        Some(found) if found.window.is_none() && row.partial => {}
        Some(found) => (row.window, row.gap) = (found.window, found.gap),
        None => row.partial = true,
    }
    Ok(row)
}

/// As [`status`], with the state of the server's jobs. What is wrong with the repository is part of the answer.
///
/// # Errors
/// What `check` said.
pub fn told(
    cluster: Result<Cluster>,
    system_identifier: Option<u64>,
    jobs: &[JobSpec],
    missed_runs: MissedRuns,
    check: &dyn Fn() -> Result<()>,
) -> Result<StatusRow> {
    let known = cluster.as_ref().map_err(Clone::clone);
    let known = known.and_then(|cluster| status(cluster, system_identifier, check));
    let mut row = known.or_else(|error| {
        check()?;
        Ok(StatusRow { error: Some(error), ..StatusRow::default() })
    })?;
    if !jobs.is_empty() {
        let system = system_identifier.unwrap_or_default();
        let agenda = schedule::agenda(cluster, system, jobs, missed_runs, Utc::now());
        row.jobs = agenda.jobs;
        row.periods = jobs.iter().map(period).collect();
        row.error = row.error.or(agenda.error);
    }
    Ok(row)
}

/// The longest time between two of the next moments at which a job is due, in seconds.
fn period(job: &JobSpec) -> Option<u64> {
    let (next, _) = schedule::instants(&job.cron, &job.timezone, Utc::now()).ok()?;
    let next: Vec<_> = next.iter().filter_map(|text| time(Some(text))).collect();
    let between = next.windows(2).filter_map(|pair| u64::try_from((pair[1] - pair[0]).num_seconds()).ok());
    between.max()
}

/// When the cluster was last pruned: by its server, whether there was anything to remove or not, or by hand, which is known
/// when WAL went (`by_hand`).
fn pruned_at(cluster: &Cluster, by_hand: Result<Option<DateTime<Utc>>>) -> Result<Option<String>> {
    let by_server = policy_store::load(cluster).map(|stored| stored.map(|stored| stored.pruned_at));
    let mut newest = None;
    for told in [by_server, by_hand] {
        match told {
            // One of the future would hide that nothing prunes any more.
            Ok(at) => newest = newest.max(at.filter(|at| !clocks::is_future(*at, Utc::now()))),
            // Verification tells of it.
            Err(e) if is_unreadable(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(newest.map(shown))
}

/// What `work` gives; `None` when it takes too long.
fn in_time<T>(
    check: &dyn Fn() -> Result<()>,
    work: impl FnOnce(&dyn Fn() -> Result<()>) -> Result<T>,
) -> Result<Option<T>> {
    let (began, late) = (Instant::now(), Cell::new(false));
    let limited = || {
        check()?;
        late.set(began.elapsed() > WINDOW_TIME);
        if late.get() { Err(Error::new(ErrorKind::Cancelled, "the search takes too long")) } else { Ok(()) }
    };
    match work(&limited) {
        Err(_) if late.get() => Ok(None),
        other => other.map(Some),
    }
}

/// What the records say. One that says that it finished in the future tells nothing of how old what is stored is: it would
/// hide for years that nothing is stored any more.
fn backups(records: &[Record], now: DateTime<Utc>, row: &mut StatusRow) {
    let complete = || records.iter().filter(|record| record.status == BackupStatus::Complete);
    let ended = |record: &Record| finished(record).or_else(|| time(Some(&record.started_at)));
    let is_past = |record: &&Record| ended(record).is_none_or(|ended| !clocks::is_future(ended, now));
    // What a dump restores is a moment, so it does not make a server look protected.
    let physical = || complete().filter(|record| record.kind.is_physical()).filter(is_past);
    let logical = || complete().filter(|record| !record.kind.is_physical()).filter(is_past);
    let (last_physical, last_logical) = (last(physical()), last(logical()));
    // One that is being removed did not fail; and what came after it is another of its class.
    let is_failed = |record: &&Record| {
        let later = if record.kind.is_physical() { last_physical } else { last_logical };
        record.status == BackupStatus::Failed
            && !record.is_expiring()
            && later.is_none_or(|later| ended(record) > finished(later))
    };
    let failed = records.iter().filter(is_past).filter(is_failed).max_by_key(|record| ended(record));
    row.last_backup = last_physical.map(Record::row);
    row.last_clean_backup = last(physical().filter(|record| record.damaged_pages == 0)).map(Record::row);
    row.last_logical = last_logical.map(Record::row);
    row.missing_dumps = missing_dumps(logical());
    row.failed_backup = failed.map(Record::row);
    row.first_backup_at = physical().filter_map(finished).min().map(shown);
    row.future = future(records, now);
    row.backups = complete().count() as u64;
    row.backup_bytes = complete().fold(0, |sum, record| sum.saturating_add(record.stored_bytes));
}

/// The complete backups that say that they finished in the future.
pub fn future(records: &[Record], now: DateTime<Utc>) -> Option<FutureBackups> {
    let complete = records.iter().filter(|record| record.status == BackupStatus::Complete);
    let future = complete.filter_map(|record| Some((finished(record)?, record)));
    let future = || future.clone().filter(|(time, _)| clocks::is_future(*time, now));
    let (time, record) = future().max_by_key(|(time, _)| *time)?;
    let others = (future().count() as u64).saturating_sub(1);
    Some(FutureBackups { backup: record.backup.clone(), finished_at: shown(time), others })
}

/// Of each database that the newest of these knows, what the newest says that was to hold it; one that left it out on
/// purpose says nothing.
fn missing_dumps<'a>(logical: impl Iterator<Item = &'a Record>) -> Vec<MissingDump> {
    let mut newest_first: Vec<&Record> = logical.filter(|record| record.logical.is_some()).collect();
    // Times have seconds: of two in one second the name tells.
    newest_first.sort_by_key(|record| std::cmp::Reverse((finished(record), &record.backup)));
    let mut logical = newest_first.iter().filter_map(|record| Some((*record, record.logical.as_ref()?)));
    let Some((newest, known)) = logical.next() else { return Vec::new() };
    let mut found: Vec<MissingDump> =
        known.missing.iter().map(|missing| missing_dump(newest, missing)).collect();
    let mut unknown: BTreeSet<&str> = known.left_out.iter().map(String::as_str).collect();
    for (record, known) in logical {
        if unknown.is_empty() {
            break;
        }
        let missing = known.missing.iter().filter(|missing| unknown.contains(&missing.name[..]));
        found.extend(missing.map(|missing| missing_dump(record, missing)));
        // One that an older backup does not know was made after it.
        let left_out: BTreeSet<&str> = known.left_out.iter().map(String::as_str).collect();
        unknown.retain(|name| left_out.contains(name));
    }
    found.sort_by(|a, b| a.database.cmp(&b.database));
    found.dedup_by(|a, b| a.database == b.database);
    found
}

fn missing_dump(record: &Record, missing: &MissingDatabase) -> MissingDump {
    let (database, reason) = (missing.name.clone(), missing.reason.clone());
    MissingDump { database, backup: record.backup.clone(), reason }
}

/// The one that finished last; backups that overlap may finish in another order than they start.
fn last<'a>(records: impl Iterator<Item = &'a Record>) -> Option<&'a Record> {
    records.max_by_key(|record| finished(record))
}

fn shown(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn finished(record: &Record) -> Option<DateTime<Utc>> {
    time(record.finished_at.as_deref())
}

fn time(text: Option<&str>) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text?).ok().map(|time| time.with_timezone(&Utc))
}

/// The newest segment of the newest timeline that has any, and the last commit before it.
fn end(
    archive: &Archive,
    survey: &Survey,
    check: &dyn Fn() -> Result<()>,
    row: &mut StatusRow,
) -> Result<()> {
    let size = survey.segment_size;
    let Some(stretch) = recent::newest(survey) else { return Ok(()) };
    let Some(last) = stretch.segment(stretch.last()) else { return Ok(()) };
    row.last_segment = Some(last.file_name(size));
    row.archive_end_lsn = Some(last.next().start(size));
    row.archive_end_time = match Moments::new(archive, size).with_check(check).end(&stretch) {
        Ok(moment) => moment.time.and_then(shown_time),
        Err(e) if is_damage(&e) => None,
        Err(e) => return Err(e),
    };
    Ok(())
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
