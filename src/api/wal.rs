//! `ark.verify_archive` and `ark.recovery_windows`: what the archive holds, asked of the engine.

use super::list::{signed, time};
use crate::engine::{self, Target};
use crate::postgres::text::Text;
use crate::postgres::types::PgLsn;
use crate::postgres::wal;
use crate::{translate, version};
use pg_ark_contract::Result;
use pg_ark_contract::conversation::{Answer, Task};
use pg_ark_contract::rows::{ArchiveRow, WindowRow};
use pgrx::prelude::*;

/// One row per gap-free range of stored segments, per gap, per damaged segment, per stranger. `deep` reads every
/// segment and follows its records.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)] // The columns of DESIGN's SQL surface.
pub fn verify_archive(
    deep: default!(Option<bool>, false),
) -> TableIterator<
    'static,
    (
        name!(timeline, Option<i32>),
        name!(first_segment, Option<Text>),
        name!(last_segment, Option<Text>),
        name!(start_lsn, Option<PgLsn>),
        name!(end_lsn, Option<PgLsn>),
        name!(start_time, Option<TimestampWithTimeZone>),
        name!(end_time, Option<TimestampWithTimeZone>),
        name!(segments, i64),
        name!(status, Text),
        name!(detail, Option<Text>),
    ),
> {
    version::require();
    let rows = translate::or_raise(archive_rows(deep.unwrap_or(false)));
    TableIterator::new(rows.into_iter().map(|row| {
        (
            row.timeline.map(|timeline| timeline.0.cast_signed()),
            row.first_segment.map(Text::from),
            row.last_segment.map(Text::from),
            row.start_lsn.map(PgLsn),
            row.end_lsn.map(PgLsn),
            time(row.start_time.as_deref()),
            time(row.end_time.as_deref()),
            signed(row.segments),
            row.status.as_str().into(),
            row.detail.map(Text::from),
        )
    }))
}

fn archive_rows(deep: bool) -> Result<Vec<ArchiveRow>> {
    let task = Task::VerifyArchive { system_identifier: Some(wal::system_identifier()), deep };
    match engine::ask(&Target::from_settings()?, task)? {
        Answer::Archive(rows) => Ok(rows),
        other => Err(engine::unexpected(&other)),
    }
}

/// One row per range of moments to which this cluster can be restored.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)] // The columns of DESIGN's SQL surface.
pub fn recovery_windows() -> TableIterator<
    'static,
    (
        name!(backup, Text),
        name!(timelines, Text),
        name!(from_time, Option<TimestampWithTimeZone>),
        name!(to_time, Option<TimestampWithTimeZone>),
        name!(from_lsn, PgLsn),
        name!(to_lsn, PgLsn),
        name!(note, Text),
    ),
> {
    version::require();
    let rows = translate::or_raise(window_rows());
    TableIterator::new(rows.into_iter().map(|row| {
        (
            row.backup.into(),
            row.timelines.into(),
            time(row.from_time.as_deref()),
            time(row.to_time.as_deref()),
            PgLsn(row.from_lsn),
            PgLsn(row.to_lsn),
            row.note.into(),
        )
    }))
}

fn window_rows() -> Result<Vec<WindowRow>> {
    let task = Task::Windows { system_identifier: Some(wal::system_identifier()) };
    match engine::ask(&Target::from_settings()?, task)? {
        Answer::Windows(rows) => Ok(rows),
        other => Err(engine::unexpected(&other)),
    }
}
