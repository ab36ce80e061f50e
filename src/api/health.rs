//! What is wrong with a server's protection, in sentences: the `health` of `ark.status`.

use super::protection::Protection;
use crate::archiving::Archiver;
use crate::settings;
use pg_ark_contract::rows::{BackupRow, StatusRow};
use pg_ark_contract::schedule::{JobKind, JobSpec, JobState, RunStatus};
use pg_ark_contract::settings::RETENTION_WINDOW_DEFAULT;

/// Jobs that fail, and databases without a dump, which are named.
const MAX_NAMED: usize = 3;
/// Seconds by which a prune may be late: one that fails is tried again for hours, and nothing is lost meanwhile.
const PRUNE_LATE: i64 = 2 * 86_400;
/// Seconds for which a job may be due before it begins.
const MAY_WAIT: i64 = 1_800;
/// Seconds in which the scheduler finds that a run has ended.
const TURN: i64 = 120;
/// Oldest that the last backup may be where no job takes any and no window is asked for, in seconds.
const HAND_LATE: i64 = RETENTION_WINDOW_DEFAULT as i64 * 60;

/// Everything that is wrong, the worst first. `age` tells how many seconds ago a time was.
pub fn problems(protection: &Protection, age: impl Fn(&str) -> Option<i64>) -> Vec<String> {
    let mut problems: Vec<String> = protection.version.iter().map(ToString::to_string).collect();
    match &protection.stored.error {
        Some(error) => problems.push(error.to_string()),
        None => {
            problems.extend(of_backups(protection, &age));
            problems.extend(missing_dumps(protection));
        }
    }
    problems.extend(protection.stored.foreign.as_ref().map(|foreign| {
        format!("{}: nothing of this server is stored there, set pg_ark.cluster", foreign.message)
    }));
    problems.extend(of_archiving(protection));
    problems.extend(of_scheduler(protection));
    problems.extend(of_jobs(protection));
    if protection.is_up() {
        problems.extend(waiting_job(protection, &age));
        problems.extend(late_backup(protection, "backup", protection.stored.last_backup.as_ref(), &age));
        let logical = protection.stored.last_logical.as_ref();
        let late = late_job(protection, &age);
        problems.extend(late.or_else(|| late_backup(protection, "logical backup", logical, &age)));
        problems.extend(no_backup_job(protection, &age));
        problems.extend(no_prune(protection, &age));
    }
    problems
}

fn of_backups(protection: &Protection, age: &impl Fn(&str) -> Option<i64>) -> Vec<String> {
    let stored = &protection.stored;
    let mut problems = Vec::new();
    match stored.last_backup.as_ref().map(|backup| backup.damaged_pages) {
        None if stored.last_logical.is_some() => {
            problems.push(
                "there is no complete backup but logical ones, which restore no moment after them".into(),
            );
        }
        None if stored.future.is_some() => {
            problems.push("there is no complete backup but of the future".into());
        }
        None => problems.push("there is no complete backup".into()),
        Some(0) => {}
        Some(1) => problems.push("the last backup holds 1 damaged page".into()),
        Some(pages) => problems.push(format!("the last backup holds {pages} damaged pages")),
    }
    problems.extend(stored.future.as_ref().map(ToString::to_string));
    if let Some(newest) = newest_timeline(stored)
        && newest > protection.now.timeline.0
    {
        let ours = protection.now.timeline;
        problems.push(format!("the archive has timeline {newest}, this server is on {ours}"));
    }
    if let Some(lost) = lost(stored, protection.last_stored.clone()) {
        problems.push(format!("the last archived segment {lost} is not in the archive"));
    }
    problems.extend(stored.gap.as_ref().map(|gap| {
        let end = stored.window.as_ref().and_then(|window| window.to_time.as_deref());
        match (end, &stored.window) {
            (Some(end), _) => format!("nothing after {end} can be restored: {gap}"),
            (None, Some(window)) => format!("nothing after {} can be restored: {gap}", window.to_lsn),
            (None, None) => format!("nothing can be restored: {gap}"),
        }
    }));
    problems.extend(short_window(protection, age));
    problems
}

/// Databases that the last logical backups had to go on without.
fn missing_dumps(protection: &Protection) -> Vec<String> {
    let missing = &protection.stored.missing_dumps;
    let told = missing.iter().take(MAX_NAMED).map(|missing| {
        let (database, reason) = (missing.database.escape_debug(), &missing.reason);
        format!("logical backup {} is without database \"{database}\": {reason}", missing.backup)
    });
    let more = missing.len().saturating_sub(MAX_NAMED);
    let rest = (more > 0).then(|| format!("{more} more databases have no dump of late"));
    told.chain(rest).collect()
}

/// A window that begins too late though there is a backup from before. Without one there is nothing to begin it with: the
/// server is young, or was told to keep more than before.
fn short_window(protection: &Protection, age: &impl Fn(&str) -> Option<i64>) -> Option<String> {
    let stored = &protection.stored;
    let wanted = i64::try_from(protection.wanted).ok().filter(|wanted| *wanted > 0 && !stored.partial)?;
    let window = stored.window.as_ref().filter(|_| protection.progress.settings.archiver().is_ours())?;
    let from = window.from_time.as_deref()?;
    let is_old_enough = age(stored.first_backup_at.as_deref()?)? > wanted;
    (is_old_enough && age(from)? < wanted).then(|| {
        format!(
            "the recovery window begins only at {from}, though pg_ark.retention_window is {}",
            span(wanted)
        )
    })
}

fn of_archiving(protection: &Protection) -> Vec<String> {
    let progress = &protection.progress;
    let mut problems: Vec<String> = Vec::new();
    match progress.settings.archiver() {
        Archiver::Off => problems.push("archive_mode is off".into()),
        Archiver::Unset => problems.push("neither archive_library nor archive_command is set".into()),
        Archiver::Other => problems.push("another program archives the WAL".into()),
        Archiver::Both => problems.push("archive_library and archive_command are both set".into()),
        Archiver::Library | Archiver::Command => {}
    }
    match &progress.last_failure {
        Some(failure) => problems.push(format!("archiving fails: {}", failure.error.message)),
        None if progress.failing => problems.push("archiving fails: see the server log".into()),
        None if progress.many_waiting() => {
            problems.push(format!("{} segments wait to be archived", progress.waiting));
        }
        None => {}
    }
    problems
}

/// Jobs that nobody will start.
fn of_scheduler(protection: &Protection) -> Option<String> {
    if !protection.jobs.iter().any(|job| job.enabled) {
        return None;
    }
    if !protection.is_jobs_database {
        let database = settings::database();
        return Some(format!(
            "the jobs of this database are not run: the scheduler looks at database \"{}\" alone",
            database.escape_debug()
        ));
    }
    let missing = protection.acts && !protection.workers.scheduler;
    missing.then(|| {
        let why = match protection.preloaded {
            true => "the server log says why it ended, or max_worker_processes has no room for it",
            false => "shared_preload_libraries lacks pg_ark",
        };
        format!("jobs are scheduled but no scheduler runs: {why}")
    })
}

/// The job that has waited longest for its turn, if that is long.
fn waiting_job(protection: &Protection, age: &impl Fn(&str) -> Option<i64>) -> Option<String> {
    let here = protection.acts && protection.is_jobs_database && protection.workers.scheduler;
    let served = age(protection.workers.scheduler_since.as_deref().filter(|_| here)?)?;
    let periods = protection.stored.periods.iter().copied().chain(std::iter::repeat(None));
    let waits = |((job, state), period): ((&JobSpec, Option<&JobState>), Option<u64>)| {
        let waits = due_for(job, state?, period, age)?.min(served);
        (waits > MAY_WAIT && !has_to_wait(protection, job, waits, age)).then(|| (waits, job.name.clone()))
    };
    let (longest, job) = protection.states().zip(periods).filter_map(waits).max()?;
    Some(format!("job {job} has been due for {} and has not begun", span(longest)))
}

/// For how many seconds a job has been due; None when it is not. Each new moment takes the place of the one before, so
/// what counts is also how long ago its last run ended.
fn due_for(
    job: &JobSpec,
    state: &JobState,
    period: Option<u64>,
    age: &impl Fn(&str) -> Option<i64>,
) -> Option<i64> {
    if !job.enabled || state.running.is_some() || state.due.is_none() {
        return None;
    }
    let due = age(state.next_run.as_deref()?)?;
    let quiet = state.last_run.as_ref().zip(period).and_then(|(run, period)| {
        let ended = age(run.finished_at.as_deref().unwrap_or(&run.started_at))?;
        Some(ended.saturating_sub(i64::try_from(period).ok()?))
    });
    Some(quiet.map_or(due, |quiet| quiet.max(due)))
}

/// Backups and prunes go one at a time: what began before this job was due for long, or by hand, comes first.
fn has_to_wait(
    protection: &Protection,
    job: &JobSpec,
    waits: i64,
    age: &impl Fn(&str) -> Option<i64>,
) -> bool {
    if !job.kind.needs_lease() {
        return false;
    }
    let others = protection.states().filter(|(other, _)| other.kind.needs_lease() && other.name != job.name);
    let mut runs = others.filter_map(|(_, state)| state).flat_map(|state| [&state.running, &state.last_run]);
    let goes_first = |at: &str| age(at).is_some_and(|began| began.saturating_add(MAY_WAIT) >= waits);
    let is_over = |at: Option<&str>| at.and_then(age).is_some_and(|ended| ended > TURN);
    let by_hand = protection.workers.backups > 0
        && !protection.states().any(|(_, state)| state.is_some_and(|state| state.running.is_some()));
    by_hand
        || runs.any(|run| {
            run.as_ref()
                .is_some_and(|run| goes_first(&run.started_at) && !is_over(run.finished_at.as_deref()))
        })
}

fn of_jobs(protection: &Protection) -> Vec<String> {
    let mut failing: Vec<String> = Vec::new();
    for (job, state) in protection.states().filter(|(job, _)| job.enabled) {
        let Some(state) = state else { continue };
        if let Some(error) = &state.error {
            failing.push(format!("job {}: {}", job.name, error.message));
        } else if state.failures > 0 {
            let times =
                if state.failures == 1 { String::new() } else { format!(" {} times", state.failures) };
            let why = state.last_run.as_ref().and_then(|run| run.error.as_ref()).map(|error| &error.message);
            let why = why.map_or_else(String::new, |why| format!(": {why}"));
            failing.push(format!("job {} failed{times}{why}", job.name));
        }
    }
    let more = failing.len().saturating_sub(MAX_NAMED);
    failing.truncate(MAX_NAMED);
    failing.extend((more > 0).then(|| format!("{more} more jobs fail")));
    failing
}

/// The last backup of a class, physical or logical, is older than twice the time between two of them.
fn late_backup(
    protection: &Protection,
    what: &str,
    last: Option<&BackupRow>,
    age: &impl Fn(&str) -> Option<i64>,
) -> Option<String> {
    let last = last?;
    let takes =
        |job: &JobSpec| job.kind.backup().is_some_and(|kind| kind.is_physical() == last.kind.is_physical());
    let periods = protection.jobs.iter().zip(&protection.stored.periods);
    let backups = periods.filter(|(job, _)| job.enabled && takes(job));
    let (job, period) = backups
        .filter_map(|(job, period)| Some((job, i64::try_from((*period)?).ok()?)))
        .min_by_key(|(_, period)| *period)?;
    let last = age(last.finished_at.as_deref()?)?;
    let twice = period.saturating_mul(2);
    let is_late = last > twice && age(&job.since).is_none_or(|since| since > twice);
    is_late.then(|| {
        format!("the last {what} is {} old, and job {} is due every {}", span(last), job.name, span(period))
    })
}

/// A job that takes logical backups last took one long ago: those of another job may hold other databases.
fn late_job(protection: &Protection, age: &impl Fn(&str) -> Option<i64>) -> Option<String> {
    let periods = protection.stored.periods.iter().copied().chain(std::iter::repeat(None));
    let late = |((job, state), period): ((&JobSpec, Option<&JobState>), Option<u64>)| {
        let run = state?.last_run.as_ref().filter(|run| run.status == RunStatus::Done)?;
        let (period, last) = (i64::try_from(period?).ok()?, age(run.finished_at.as_deref()?)?);
        let twice = period.saturating_mul(2);
        let counts = job.enabled && job.kind == JobKind::Logical && last > twice;
        (counts && age(&job.since).is_none_or(|since| since > twice)).then(|| {
            let (last, period) = (span(last), span(period));
            format!("the last logical backup of job {} is {last} old, and it is due every {period}", job.name)
        })
    };
    protection.states().zip(periods).find_map(late)
}

/// Backups are taken by hand or by another program, and the last one is old; or their jobs are gone.
fn no_backup_job(protection: &Protection, age: &impl Fn(&str) -> Option<i64>) -> Option<String> {
    if protection.jobs.iter().any(|job| job.enabled && job.kind.protects()) {
        return None;
    }
    let wanted = i64::try_from(protection.wanted).unwrap_or(i64::MAX);
    let last = age(protection.stored.last_backup.as_ref()?.finished_at.as_deref()?)?;
    if last <= if wanted == 0 { HAND_LATE } else { wanted.max(PRUNE_LATE) } {
        return None;
    }
    let should =
        protection.preloaded && protection.acts && protection.knows_jobs && protection.is_jobs_database;
    let last = span(last);
    Some(match should {
        true => format!(
            "no scheduled job takes full backups, and the last one is {last} old: SELECT ark.schedule('daily full', \
             '0 2 * * *')"
        ),
        false => format!("the last backup is {last} old"),
    })
}

/// Backups are taken by schedule, and nothing is ever removed.
fn no_prune(protection: &Protection, age: &impl Fn(&str) -> Option<i64>) -> Option<String> {
    let mut enabled = protection.jobs.iter().filter(|job| job.enabled);
    let takes = enabled.clone().any(|job| job.kind.backup().is_some());
    let prunes = enabled.any(|job| job.kind == JobKind::Prune);
    let wanted = i64::try_from(protection.wanted).unwrap_or(i64::MAX);
    // Nothing could be removed before.
    let could = age(protection.stored.first_backup_at.as_deref()?)? > wanted.saturating_add(PRUNE_LATE);
    let pruned = protection.stored.pruned_at.as_deref().and_then(age);
    let late = pruned.is_none_or(|pruned| pruned > PRUNE_LATE);
    (takes && !prunes && could && late).then(|| {
        "no job prunes the repository, which only grows: SELECT ark.schedule('prune', '@hourly', 'prune')"
            .into()
    })
}

/// The last segment that the server counts as archived, when the archive ends before it. The counters were read first,
/// so a segment that comes meanwhile is no loss. Names sort as timelines and positions do.
fn lost(stored: &StatusRow, archived: Option<String>) -> Option<String> {
    archived.filter(|archived| stored.last_segment.as_deref().is_none_or(|last| last < archived.as_str()))
}

/// A segment's name begins with its timeline.
fn newest_timeline(stored: &StatusRow) -> Option<u32> {
    u32::from_str_radix(stored.last_segment.as_deref()?.get(..8)?, 16).ok()
}

/// `26 hours`.
fn span(seconds: i64) -> String {
    let (count, unit) = match seconds {
        ..=119 => (seconds, "second"),
        120..=7_199 => (seconds / 60, "minute"),
        7_200..=172_799 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    if count == 1 { format!("1 {unit}") } else { format!("{count} {unit}s") }
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
