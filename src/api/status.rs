//! `ark.server_status`, the one row behind the view `ark.status` (`sql/status.sql`).
//!
//! It answers also when the repository is not set, away or hanging: what is not known then is null, and `health` says
//! why. So it raises nothing of its own.

use super::list::{signed, time};
use super::protection::Protection;
use crate::postgres::text::Text;
use crate::{settings, translate};
use pgrx::prelude::*;

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
        name!(healthy, bool),
        name!(recovery_window_from, Option<TimestampWithTimeZone>),
        name!(recovery_window_to, Option<TimestampWithTimeZone>),
        name!(next_run, Option<TimestampWithTimeZone>),
        name!(next_job, Option<Text>),
        name!(last_error, Option<Text>),
        name!(last_error_at, Option<TimestampWithTimeZone>),
        name!(backups, Option<i64>),
        name!(backup_bytes, Option<i64>),
        name!(free_bytes, Option<i64>),
        name!(pruned_at, Option<TimestampWithTimeZone>),
        name!(last_logical_backup, Option<Text>),
        name!(last_logical_backup_at, Option<TimestampWithTimeZone>),
    ),
> {
    let found = translate::or_raise(Protection::read());
    let problems = found.problems();
    let (stored, counted, settings) = (&found.stored, &found.progress.counted, &found.progress.settings);
    let (backup, clean) = (stored.last_backup.as_ref(), stored.last_clean_backup.as_ref());
    let logical = stored.last_logical.as_ref();
    let (window, risk) = (stored.window.as_ref(), found.risk());
    let (next, error) = (found.next(), found.last_error());
    let known = |value: u64| found.is_up().then(|| signed(value));
    TableIterator::once((
        settings::repository().ok().map(Text::from),
        settings::cluster().into(),
        backup.map(|backup| backup.backup.as_str().into()),
        backup.and_then(|backup| time(backup.finished_at.as_deref())),
        backup.map(|backup| signed(backup.damaged_pages)),
        clean.map(|backup| backup.backup.as_str().into()),
        clean.and_then(|backup| time(backup.finished_at.as_deref())),
        settings.mode.as_str().into(),
        settings.archiver().as_str().into(),
        signed(found.progress.waiting),
        stored.archive_end_lsn.map(|end| signed(found.now.since(end))),
        risk.and_then(|risk| risk.seconds),
        risk.map(|risk| signed(risk.bytes)),
        counted.last_archived_wal.as_deref().map(Text::from),
        time(counted.last_archived_time.as_deref()),
        counted.last_failed_wal.as_deref().map(Text::from),
        time(counted.last_failed_time.as_deref()),
        found.progress.last_failure.as_ref().map(|failure| failure.error.to_string().into()),
        if problems.is_empty() { "ok".into() } else { problems.join("; ").into() },
        problems.is_empty(),
        window.and_then(|window| time(window.from_time.as_deref())),
        window.and_then(|window| time(window.to_time.as_deref())),
        next.and_then(|(at, _)| time(Some(at))),
        next.map(|(_, job)| job.into()),
        error.as_ref().map(|(error, _)| error.as_str().into()),
        error.as_ref().and_then(|(_, at)| *at),
        known(stored.backups),
        known(stored.backup_bytes),
        stored.free_bytes.map(signed),
        time(stored.pruned_at.as_deref()),
        logical.map(|backup| backup.backup.as_str().into()),
        logical.and_then(|backup| time(backup.finished_at.as_deref())),
    ))
}
