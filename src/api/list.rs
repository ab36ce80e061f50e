//! `ark.list_backups` and `ark.show`: the engine is asked each time, so that SQL and `pgark list` give equal answers.

use crate::engine::{self, Target};
use crate::postgres::text::{Document, Text};
use crate::postgres::types::PgLsn;
use crate::{translate, version};
use pg_ark_contract::conversation::{Answer, Task};
use pg_ark_contract::rows::BackupRow;
use pg_ark_contract::{Error, ErrorKind, Result};
use pgrx::prelude::*;
use std::str::FromStr;

/// Backups of this cluster in the repository, oldest first.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)] // The columns of DESIGN's SQL surface.
pub fn list_backups() -> TableIterator<
    'static,
    (
        name!(backup, String),
        name!(kind, String),
        name!(status, String),
        name!(parent, Option<String>),
        name!(label, Option<Text>),
        name!(pinned, bool),
        name!(started_at, Option<TimestampWithTimeZone>),
        name!(finished_at, Option<TimestampWithTimeZone>),
        name!(start_lsn, Option<PgLsn>),
        name!(stop_lsn, Option<PgLsn>),
        name!(timeline, Option<i32>),
        name!(server_version, i32),
        name!(data_bytes, Option<i64>),
        name!(stored_bytes, Option<i64>),
        name!(wal_included, bool),
        name!(damaged_pages, i64),
        name!(error, Option<Text>),
        name!(pin_reason, Option<Text>),
        name!(contents, Option<Text>),
    ),
> {
    version::require();
    let rows = translate::or_raise(backups());
    TableIterator::new(rows.into_iter().map(|row| {
        (
            row.backup,
            row.kind.as_str().to_owned(),
            row.status.as_str().to_owned(),
            row.parent,
            row.label.map(Text::from),
            row.pinned,
            time(Some(&row.started_at)),
            time(row.finished_at.as_deref()),
            row.start_lsn.map(PgLsn),
            row.stop_lsn.map(PgLsn),
            row.timeline.map(|timeline| timeline.0.cast_signed()),
            i32::try_from(row.server_version).unwrap_or(i32::MAX),
            row.data_bytes.map(signed),
            row.stored_bytes.map(signed),
            row.wal_included,
            signed(row.damaged_pages),
            row.error.map(Text::from),
            row.pin_reason.map(Text::from),
            row.contents.map(Text::from),
        )
    }))
}

fn backups() -> Result<Vec<BackupRow>> {
    match engine::ask(&Target::from_settings()?, Task::List)? {
        Answer::Backups(rows) => Ok(rows),
        other => Err(engine::unexpected(&other)),
    }
}

/// A time of the engine's; None when there is none, or it is none.
pub fn time(text: Option<&str>) -> Option<TimestampWithTimeZone> {
    TimestampWithTimeZone::from_str(text?).ok()
}

/// A count for SQL, which has no unsigned numbers.
pub fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The record of one backup.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
pub fn show(backup: Option<Text>) -> Document {
    version::require();
    Document(translate::or_raise(name(backup).and_then(|name| record(&name))))
}

/// The backup that a caller named.
///
/// # Errors
/// `InvalidArgument` for NULL, an empty name, bytes that are no text.
pub fn name(backup: Option<Text>) -> Result<String> {
    let name = backup.map(|name| name.decode()).transpose()?;
    name.filter(|name| !name.is_empty()).ok_or_else(|| {
        Error::new(ErrorKind::InvalidArgument, "the name of a backup must not be null or empty")
            .hint("ark.list_backups() shows the names.")
    })
}

/// The record of `backup`.
///
/// # Errors
/// `BackupNotFound`, and what can go wrong with the repository.
pub fn record(backup: &str) -> Result<serde_json::Value> {
    match engine::ask(&Target::from_settings()?, Task::Show { backup: backup.into() })? {
        Answer::Record { json } => serde_json::from_str(&json).map_err(|error| {
            Error::new(ErrorKind::Corrupt, format!("the record of backup \"{backup}\" is not JSON"))
                .detail(error)
        }),
        other => Err(engine::unexpected(&other)),
    }
}
