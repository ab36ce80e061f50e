//! What a scheduled run does, by the kind of its job.

use super::limit::Limit;
use super::notice::Event;
use super::request::Request;
use super::{backup, job};
use crate::api::archiving::Progress;
use crate::engine::{self, Target};
use crate::postgres::{guc, interrupts, latch, progress, transaction, wal};
use crate::{settings, translate};
use pg_ark_contract::conversation::{Answer, Archived, BackupKind, Level, Task};
use pg_ark_contract::retention::{PruneObject, PruneRow, Verdict};
use pg_ark_contract::rows::{ArchiveRow, ArchiveStatus, FindingRow, Severity};
use pg_ark_contract::schedule::{JobKind, JobSpec};
use pg_ark_contract::units::human_bytes;
use pg_ark_contract::{ErrorKind, Result};
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// How often a run that waits for the lease tries to take it.
const BUSY_PAUSE: Duration = Duration::from_secs(10);

/// What came of a run, as far as it got.
#[derive(Debug, Default)]
pub struct Done {
    /// The backup that it took, or began.
    pub backup: Option<String>,
    /// In words.
    pub result: Option<String>,
    /// What else those hear who LISTEN.
    pub events: Vec<(Event, String)>,
}

/// Does it; the worker is connected, and in no transaction.
///
/// # Errors
/// What went wrong.
pub fn run(spec: &JobSpec, target: &Target, limit: Limit, done: &mut Done) -> Result<()> {
    let mut told = false;
    loop {
        let busy = match once(spec, target, limit, done) {
            Err(error) if error.kind == ErrorKind::Busy => error,
            other => return other,
        };
        // Another server's backup, or one that was started by hand: it ends, and then it is this run's turn.
        if !told {
            told = true;
            translate::log(format!("pg_ark: job \"{}\" waits: {busy}", spec.name.escape_debug()));
        }
        progress::activity(&format!("pg_ark: job {} waits: {busy}", spec.name));
        wait(limit)?;
    }
}

/// Until it is worth another try.
fn wait(limit: Limit) -> Result<()> {
    let began = Instant::now();
    loop {
        interrupts::check();
        limit.check()?;
        let left = BUSY_PAUSE.saturating_sub(began.elapsed()).min(limit.left());
        if left.is_zero() {
            return limit.check();
        }
        latch::sleep(left);
        guc::reload_if_asked();
    }
}

fn once(spec: &JobSpec, target: &Target, limit: Limit, done: &mut Done) -> Result<()> {
    match spec.kind {
        JobKind::Full | JobKind::Incremental | JobKind::Logical => take(spec, limit, done),
        JobKind::Prune => prune(target, limit, done),
        JobKind::Verify => verify(spec, target, limit, done),
        JobKind::VerifyArchive => verify_archive(spec, target, limit, done),
    }
}

fn take(spec: &JobSpec, limit: Limit, done: &mut Done) -> Result<()> {
    let kind = match spec.kind {
        JobKind::Logical => BackupKind::Logical,
        _ => BackupKind::Full,
    };
    let request =
        Request { label: spec.label.clone(), logical: spec.logical.clone(), ..Request::from_settings(kind)? };
    let name = RefCell::new(None);
    let taken = backup::take(&request, Some(limit), &|started| *name.borrow_mut() = Some(started.into()));
    done.backup = name.into_inner();
    let row = taken?;
    let kind = match spec.kind {
        JobKind::Incremental => " (a full one: this version takes no incremental ones)",
        _ => "",
    };
    done.result = Some(format!("{}{kind}", job::completion(&row)));
    if row.damaged_pages > 0 {
        done.events.push((Event::Damage, job::damage_of(&row)));
    }
    Ok(())
}

fn prune(target: &Target, limit: Limit, done: &mut Done) -> Result<()> {
    let system_identifier = Some(wal::system_identifier());
    let task = Task::Prune { policy: settings::retention(), apply: true, system_identifier };
    match engine::ask_within(target, task, Some(limit.left()))? {
        Answer::Pruned(rows) => done.result = Some(removed(&rows)),
        other => return Err(engine::unexpected(&other)),
    }
    Ok(())
}

/// `2 backups and 3 ranges of WAL removed, 4.1 GB`.
fn removed(rows: &[PruneRow]) -> String {
    let dropped = || rows.iter().filter(|row| row.verdict == Verdict::Drop);
    let count = |kind| dropped().filter(|row| row.kind == kind).count();
    let parts: Vec<String> = [
        (PruneObject::Backup, "backup", "backups"),
        (PruneObject::Wal, "range of WAL", "ranges of WAL"),
        (PruneObject::History, "timeline history", "timeline histories"),
    ]
    .into_iter()
    .filter_map(|(kind, one, many)| match count(kind) {
        0 => None,
        1 => Some(format!("1 {one}")),
        count => Some(format!("{count} {many}")),
    })
    .collect();
    if parts.is_empty() {
        return "nothing to remove".into();
    }
    let bytes = dropped().filter_map(|row| row.bytes).fold(0, u64::saturating_add);
    format!("{} removed, {}", parts.join(", "), human_bytes(bytes))
}

fn verify(spec: &JobSpec, target: &Target, limit: Limit, done: &mut Done) -> Result<()> {
    let file = transaction::run(|| Ok(Progress::read()?.last_stored()))?;
    let task = Task::Validate {
        backup: None,
        level: spec.level.unwrap_or(Level::Data),
        system_identifier: None,
        jobs: settings::jobs(),
        archived: file.map(|file| Archived { system_identifier: wal::system_identifier(), file }),
    };
    let rows = match engine::ask_within(target, task, Some(limit.left()))? {
        Answer::Findings(rows) => rows,
        other => return Err(engine::unexpected(&other)),
    };
    found(
        spec,
        rows.iter().filter(|row| row.severity == Severity::Error).map(finding),
        "SELECT * FROM ark.validate()",
        done,
    );
    Ok(())
}

fn finding(row: &FindingRow) -> (Event, String) {
    (Event::Damage, format!("{}: {}", row.object, row.finding))
}

fn verify_archive(spec: &JobSpec, target: &Target, limit: Limit, done: &mut Done) -> Result<()> {
    let task = Task::VerifyArchive { system_identifier: Some(wal::system_identifier()), deep: spec.deep };
    let rows = match engine::ask_within(target, task, Some(limit.left()))? {
        Answer::Archive(rows) => rows,
        other => return Err(engine::unexpected(&other)),
    };
    found(spec, rows.iter().filter_map(hole), "SELECT * FROM ark.verify_archive()", done);
    Ok(())
}

fn hole(row: &ArchiveRow) -> Option<(Event, String)> {
    let event = match row.status {
        ArchiveStatus::Ok | ArchiveStatus::Pruned => return None,
        ArchiveStatus::Gap | ArchiveStatus::NoHistory => Event::Gap,
        ArchiveStatus::Damaged | ArchiveStatus::Stranger => Event::Damage,
    };
    let first = row.first_segment.as_deref().unwrap_or("the archive");
    let detail = row.detail.as_deref().unwrap_or(row.status.as_str());
    Some((event, format!("{first}: {detail}")))
}

/// The run did what it should: it found what is wrong. That is told as loudly as a failure, but another look at the same
/// bytes would not mend them.
fn found(spec: &JobSpec, found: impl Iterator<Item = (Event, String)>, query: &str, done: &mut Done) {
    let all: Vec<(Event, String)> = found.collect();
    let Some((_, first)) = all.first() else {
        done.result = Some("nothing is wrong".into());
        return;
    };
    let more = if all.len() > 1 { format!(" (and {} more)", all.len() - 1) } else { String::new() };
    let message =
        format!("{} found: {first}{more}", if all.len() == 1 { "a fault was" } else { "faults were" });
    translate::warn(
        format!("pg_ark: job \"{}\": {message}", spec.name.escape_debug()),
        Some(format!("{query} tells all, and what to do.")),
    );
    for event in [Event::Gap, Event::Damage] {
        let first = all.iter().find(|(kind, _)| *kind == event);
        done.events.extend(first.map(|(_, text)| (event, text.clone())));
    }
    done.result = Some(message);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: PruneObject, verdict: Verdict) -> PruneRow {
        PruneRow {
            object: "x".into(),
            kind,
            verdict,
            rule: String::new(),
            bytes: Some(1_000),
            system_identifier: 1,
            timeline: None,
            start_lsn: None,
            end_lsn: None,
        }
    }

    #[test]
    fn what_was_removed_is_counted() {
        assert_eq!(removed(&[row(PruneObject::Backup, Verdict::Keep)]), "nothing to remove");
        let rows = [
            row(PruneObject::Backup, Verdict::Drop),
            row(PruneObject::Backup, Verdict::Drop),
            row(PruneObject::Wal, Verdict::Drop),
            row(PruneObject::Wal, Verdict::Keep),
        ];
        let text = removed(&rows);
        assert!(text.starts_with("2 backups, 1 range of WAL removed, "), "{text}");
    }
}
