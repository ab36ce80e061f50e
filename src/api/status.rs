//! `ark.server_status`, the one row behind the view `ark.status` (`sql/status.sql`).
//!
//! It answers also when the repository is not set, away or hanging: what is not known then is null, and `health` says
//! why. So it raises nothing of its own, and asks the engine for [`PATIENCE`] at the most.

use super::archiving::Progress;
use super::list::{signed, time};
use crate::archiving::Archiver;
use crate::engine::{self, Target};
use crate::postgres::text::Text;
use crate::postgres::wal;
use crate::{settings, translate};
use pg_ark_contract::conversation::{Answer, Task};
use pg_ark_contract::rows::StatusRow;
use pg_ark_contract::{Error, Lsn, Result, Timeline};
use pgrx::datum::datetime_support::clock_timestamp;
use pgrx::prelude::*;
use std::time::Duration;

/// How long the engine may take to look at the repository.
const PATIENCE: Duration = Duration::from_secs(5);
const MICROS: i64 = 1_000_000;

/// One row: how well this server is protected now.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)] // The columns of DESIGN's SQL surface.
pub fn server_status() -> TableIterator<
    'static,
    (
        name!(repository, Option<Text>),
        name!(cluster, Text),
        name!(last_backup, Option<Text>),
        name!(last_backup_at, Option<TimestampWithTimeZone>),
        name!(damaged_pages, Option<i64>),
        name!(last_clean_backup, Option<Text>),
        name!(last_clean_backup_at, Option<TimestampWithTimeZone>),
        name!(archive_mode, Text),
        name!(archived_by, Text),
        name!(archive_lag_segments, i64),
        name!(archive_lag_bytes, Option<i64>),
        name!(rpo_seconds, Option<i64>),
        name!(rpo_bytes, Option<i64>),
        name!(last_archived_segment, Option<Text>),
        name!(last_archived_at, Option<TimestampWithTimeZone>),
        name!(last_failed_segment, Option<Text>),
        name!(last_failed_at, Option<TimestampWithTimeZone>),
        name!(last_failure, Option<Text>),
        name!(health, Text),
    ),
> {
    let progress = translate::or_raise(Progress::read());
    let stored = ask();
    let now = Now::read();
    let known = stored.as_ref().ok();
    let backup = known.and_then(|stored| stored.last_backup.as_ref());
    let clean = known.and_then(|stored| stored.last_clean_backup.as_ref());
    let risk =
        known.and_then(|stored| risk(stored, &now, progress.counted.last_archived_time.as_deref(), age));
    let lag = known.and_then(|stored| Some(now.since(stored.archive_end_lsn?)));
    let counted = &progress.counted;
    TableIterator::once((
        settings::repository().ok().map(Text::from),
        settings::cluster().into(),
        backup.map(|backup| backup.backup.as_str().into()),
        backup.and_then(|backup| time(backup.finished_at.as_deref())),
        backup.map(|backup| signed(backup.damaged_pages)),
        clean.map(|backup| backup.backup.as_str().into()),
        clean.and_then(|backup| time(backup.finished_at.as_deref())),
        progress.settings.mode.as_str().into(),
        progress.settings.archiver().as_str().into(),
        signed(progress.waiting),
        lag.map(signed),
        risk.and_then(|risk| risk.seconds),
        risk.map(|risk| signed(risk.bytes)),
        counted.last_archived_wal.as_deref().map(Text::from),
        time(counted.last_archived_time.as_deref()),
        counted.last_failed_wal.as_deref().map(Text::from),
        time(counted.last_failed_time.as_deref()),
        progress.last_failure.as_ref().map(|failure| failure.error.to_string().into()),
        health(&problems(&stored, &progress, &now)).into(),
    ))
}

fn ask() -> Result<StatusRow> {
    let task = Task::Status {
        system_identifier: Some(wal::system_identifier()),
        jobs: Vec::new(),
        missed_runs: settings::missed_runs(),
    };
    match engine::ask_within(&Target::from_settings()?, task, Some(PATIENCE))? {
        Answer::Status(row) => Ok(*row),
        other => Err(engine::unexpected(&other)),
    }
}

/// Where the server's WAL is now.
#[derive(Debug, Clone, Copy)]
struct Now {
    /// Flushed; on a standby replayed.
    lsn: Lsn,
    timeline: Timeline,
    /// Begin of the last record that was more than housekeeping, where the server knows it.
    important: Option<Lsn>,
}

impl Now {
    fn read() -> Now {
        let (lsn, timeline) = wal::durable_position();
        Now { lsn, timeline, important: wal::last_important() }
    }

    /// Bytes of WAL since `lsn`.
    fn since(&self, lsn: Lsn) -> u64 {
        self.lsn.0.saturating_sub(lsn.0)
    }

    /// Nothing but housekeeping was written since `lsn`: an idle server would else seem to lose more each hour.
    fn idle_since(&self, lsn: Lsn) -> bool {
        self.lsn <= lsn || self.important.is_some_and(|important| important < lsn)
    }
}

/// What would be lost if the server were gone now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Risk {
    /// Since the last commit that is stored, or the moment when something was stored last.
    seconds: Option<i64>,
    bytes: u64,
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

fn health(problems: &[String]) -> String {
    if problems.is_empty() { "ok".into() } else { problems.join("; ") }
}

fn problems(stored: &std::result::Result<StatusRow, Error>, progress: &Progress, now: &Now) -> Vec<String> {
    let mut problems = Vec::new();
    match stored {
        Err(error) => problems.push(error.to_string()),
        Ok(stored) => {
            match stored.last_backup.as_ref().map(|backup| backup.damaged_pages) {
                None => problems.push("there is no complete backup".into()),
                Some(0) => {}
                Some(1) => problems.push("the last backup holds 1 damaged page".into()),
                Some(pages) => problems.push(format!("the last backup holds {pages} damaged pages")),
            }
            if let Some(newest) = newest_timeline(stored)
                && newest > now.timeline.0
            {
                let ours = now.timeline;
                problems.push(format!("the archive has timeline {newest}, this server is on {ours}"));
            }
            if let Some(lost) = lost(stored, progress.last_stored()) {
                problems.push(format!("the last archived segment {lost} is not in the archive"));
            }
        }
    }
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

/// The last segment that the server counts as archived, when the archive ends before it. The counters were read first,
/// so a segment that comes meanwhile is no loss. Names sort as timelines and positions do.
fn lost(stored: &StatusRow, archived: Option<String>) -> Option<String> {
    archived.filter(|archived| stored.last_segment.as_deref().is_none_or(|last| last < archived.as_str()))
}

/// A segment's name begins with its timeline.
fn newest_timeline(stored: &StatusRow) -> Option<u32> {
    u32::from_str_radix(stored.last_segment.as_deref()?.get(..8)?, 16).ok()
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
    fn promise_6_an_archive_that_ends_too_early_is_told() {
        let stored = |last: Option<&str>| StatusRow {
            last_segment: last.map(str::to_string),
            ..StatusRow::default()
        };
        let archived = || Some("00000002000000010000000F".to_string());
        for (last, is_lost) in [
            (None, true),
            (Some("00000002000000010000000E"), true),
            (Some("0000000100000002000000FF"), true),
            (Some("00000002000000010000000F"), false),
            (Some("000000020000000100000010"), false),
            (Some("000000030000000100000001"), false),
        ] {
            assert_eq!(lost(&stored(last), archived()), archived().filter(|_| is_lost), "{last:?}");
            assert_eq!(lost(&stored(last), None), None, "counters that were reset tell nothing");
        }
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
