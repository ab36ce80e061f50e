//! `ark.prune`, `ark.pin` and `ark.unpin`: what is kept, and what nobody may remove. The engine decides and does it.

use super::backup::check_one_line;
use super::list::{self, signed};
use super::validate::check_name;
use crate::engine::{self, Target};
use crate::postgres::text::Text;
use crate::postgres::wal;
use crate::{settings, translate, version};
use pg_ark_contract::Result;
use pg_ark_contract::conversation::{Answer, Task};
use pg_ark_contract::retention::PruneRow;
use pgrx::prelude::*;

/// The verdict on each backup, each range of WAL and each timeline history, with the rule behind it. What has the verdict
/// `drop` is removed only with `dry_run => false`.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)] // The columns of DESIGN's SQL surface.
pub fn prune(
    dry_run: default!(Option<bool>, true),
) -> TableIterator<
    'static,
    (
        name!(object, Text),
        name!(kind, Text),
        name!(verdict, Text),
        name!(rule, Text),
        name!(bytes, Option<i64>),
    ),
> {
    version::require();
    // NULL is the default: nothing is removed that was not asked for.
    let rows = translate::or_raise(pruned(!dry_run.unwrap_or(true)));
    TableIterator::new(rows.into_iter().map(|row| {
        (
            row.object.into(),
            row.kind.as_str().into(),
            row.verdict.as_str().into(),
            row.rule.into(),
            row.bytes.map(signed),
        )
    }))
}

fn pruned(apply: bool) -> Result<Vec<PruneRow>> {
    let target = Target::from_settings()?;
    let system_identifier = Some(wal::system_identifier());
    match engine::ask(&target, Task::Prune { policy: settings::retention(), apply, system_identifier })? {
        Answer::Pruned(rows) => Ok(rows),
        other => Err(engine::unexpected(&other)),
    }
}

/// Keeps a backup, and what it needs, until it is unpinned; false when it was pinned with this reason already.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
pub fn pin(backup: Option<Text>, reason: default!(Option<Text>, "NULL")) -> bool {
    version::require();
    let task = backup_name(backup).and_then(|backup| {
        let reason = reason.map(|reason| reason.decode()).transpose()?;
        check_one_line("reason", reason.as_deref())?;
        Ok(Task::Pin { backup, reason: reason.filter(|reason| !reason.is_empty()) })
    });
    translate::or_raise(task.and_then(changed))
}

/// Takes the pin of a backup away; false when it had none.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
pub fn unpin(backup: Option<Text>) -> bool {
    version::require();
    translate::or_raise(backup_name(backup).and_then(|backup| changed(Task::Unpin { backup })))
}

fn backup_name(backup: Option<Text>) -> Result<String> {
    list::name(backup).and_then(check_name)
}

fn changed(task: Task) -> Result<bool> {
    match engine::ask(&Target::from_settings()?, task)? {
        Answer::Pinned { changed } => Ok(changed),
        other => Err(engine::unexpected(&other)),
    }
}
