//! `ark.server_metrics`, the rows behind the view `ark.metrics` (`sql/metrics.sql`): what an exporter for Prometheus reads.
//!
//! Names and units follow Prometheus' conventions: base units, `_seconds`, `_bytes`, `_timestamp_seconds`. What is not known
//! has no row. Like `ark.status` it answers also when the repository does not: then `pg_ark_up` is 0.

use super::list::time;
use super::protection::Protection;
use crate::archiving::Archiver;
use crate::postgres::text::{Document, Text};
use crate::{settings, translate};
use pg_ark_contract::VERSION;
use pg_ark_contract::rows::BackupRow;
use pg_ark_contract::schedule::RunStatus;
use pgrx::prelude::*;
use serde_json::{Value, json};

/// Microseconds from PostgreSQL's epoch, 2000-01-01, in a second, and seconds to it from that of Unix
/// (`POSTGRES_EPOCH_JDATE`, datatype/timestamp.h).
const MICROS: f64 = 1e6;
const EPOCH: f64 = 946_684_800.0;

/// One row for each number.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
pub fn server_metrics()
-> TableIterator<'static, (name!(name, Text), name!(labels, Document), name!(value, f64))> {
    let found = translate::or_raise(Protection::read());
    let mut metrics = Metrics::default();
    metrics.of_server(&found);
    metrics.of_repository(&found);
    metrics.of_archiving(&found);
    metrics.of_jobs(&found);
    TableIterator::new(metrics.rows)
}

#[derive(Default)]
struct Metrics {
    rows: Vec<(Text, Document, f64)>,
}

impl Metrics {
    fn add(&mut self, name: &str, value: impl Into<Option<f64>>) {
        self.labelled(name, json!({}), value);
    }

    fn labelled(&mut self, name: &str, labels: Value, value: impl Into<Option<f64>>) {
        if let Some(value) = value.into() {
            self.rows.push((format!("pg_ark_{name}").into(), Document(labels), value));
        }
    }

    fn of_server(&mut self, found: &Protection) {
        let problems = found.problems();
        let info = json!({
            "version": VERSION,
            "cluster": settings::cluster(),
            "archived_by": found.progress.settings.archiver().as_str(),
        });
        self.labelled("info", info, 1.0);
        self.add("up", flag(found.is_up()));
        self.add("healthy", flag(problems.is_empty()));
        self.add("problems", count(problems.len() as u64));
        self.add("scheduler_running", flag(found.workers.scheduler));
        self.add("backups_running", count(found.workers.backups.into()));
        self.add("retention_window_seconds", count(found.wanted));
        let error = found.last_error().and_then(|(_, at)| at);
        self.add("last_error_timestamp_seconds", error.map(seconds));
    }

    fn of_repository(&mut self, found: &Protection) {
        let stored = &found.stored;
        if !found.is_up() {
            return;
        }
        self.add("backups", count(stored.backups));
        self.add("backup_bytes", count(stored.backup_bytes));
        self.add("repository_free_bytes", stored.free_bytes.map(count));
        self.add("last_prune_timestamp_seconds", at(stored.pruned_at.as_deref()));
        if let Some(backup) = &stored.last_backup {
            let (began, ended) = (at(Some(&backup.started_at)), at(backup.finished_at.as_deref()));
            self.add("last_backup_timestamp_seconds", ended);
            self.add("last_backup_duration_seconds", began.zip(ended).map(|(began, ended)| ended - began));
            self.add("last_backup_data_bytes", backup.data_bytes.map(count));
            self.add("last_backup_stored_bytes", backup.stored_bytes.map(count));
            self.add("last_backup_damaged_pages", count(backup.damaged_pages));
        }
        let ended = |backup: &Option<BackupRow>| at(backup.as_ref()?.finished_at.as_deref());
        self.add("last_clean_backup_timestamp_seconds", ended(&stored.last_clean_backup));
        self.add("last_logical_backup_timestamp_seconds", ended(&stored.last_logical));
        if stored.last_logical.is_some() {
            self.add("databases_without_dump", count(stored.missing_dumps.len() as u64));
        }
        if let Some(window) = &stored.window {
            self.add("recovery_window_start_timestamp_seconds", at(window.from_time.as_deref()));
            self.add("recovery_window_end_timestamp_seconds", at(window.to_time.as_deref()));
        }
        self.add("recovery_window_gap", flag(stored.gap.is_some()));
    }

    fn of_archiving(&mut self, found: &Protection) {
        let (progress, risk) = (&found.progress, found.risk());
        let works = matches!(progress.settings.archiver(), Archiver::Library | Archiver::Command);
        self.add("archiving", flag(works && !progress.failing));
        self.add("archive_lag_segments", count(progress.waiting));
        let lag = found.stored.archive_end_lsn.map(|end| count(found.now.since(end)));
        self.add("archive_lag_bytes", lag);
        self.add("rpo_seconds", risk.and_then(|risk| risk.seconds).map(|seconds| seconds as f64));
        self.add("rpo_bytes", risk.map(|risk| count(risk.bytes)));
        self.add("last_archived_timestamp_seconds", at(progress.counted.last_archived_time.as_deref()));
    }

    fn of_jobs(&mut self, found: &Protection) {
        for (job, state) in found.states() {
            let labels = || json!({ "job": job.name, "kind": job.kind.as_str() });
            self.labelled("job_enabled", labels(), flag(job.enabled));
            let Some(state) = state else { continue };
            let next = state.next_run.as_deref().filter(|_| job.enabled && found.is_jobs_database);
            self.labelled("job_next_run_timestamp_seconds", labels(), at(next));
            if !found.is_up() {
                continue;
            }
            self.labelled("job_running", labels(), flag(state.running.is_some()));
            self.labelled("job_failures", labels(), count(state.failures.into()));
            let Some(last) = &state.last_run else { continue };
            let (began, ended) = (at(Some(&last.started_at)), at(last.finished_at.as_deref()));
            self.labelled("job_last_run_timestamp_seconds", labels(), began);
            self.labelled("job_last_run_success", labels(), flag(last.status == RunStatus::Done));
            let took = began.zip(ended).map(|(began, ended)| ended - began);
            self.labelled("job_last_run_duration_seconds", labels(), took);
        }
    }
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

/// Counts beyond 2^53 lose their last digits, which nobody looks at.
fn count(number: u64) -> f64 {
    number as f64
}

fn at(text: Option<&str>) -> Option<f64> {
    time(text).map(seconds)
}

/// Seconds since 1970-01-01 UTC.
fn seconds(time: TimestampWithTimeZone) -> f64 {
    time.into_inner() as f64 / MICROS + EPOCH
}
