//! `pgark check`: is there a repository, can it be written, what is in it, and could it be restored here?

use super::verify_archive::counted;
use crate::cli::{Cli, Format};
use crate::output;
use pg_ark_contract::conversation::BackupKind;
use pg_ark_contract::rows::{BackupStatus, CheckRow, CheckStatus};
use pg_ark_contract::units::human_bytes;
use pg_ark_contract::{Error, ErrorKind, Result};
use pg_ark_engine::logical::programs::Programs;
use pg_ark_engine::repository::{Cluster, Record, Repository, lease};
use pg_ark_engine::restore::server;

/// Looks, prints rows, and fails when one of them is an error.
pub fn run(cli: &Cli) -> Result<()> {
    let repository = super::repository(cli)?;
    let mut rows = Vec::new();
    let id = format!("{} (id {}, format 1)", repository.storage().url(), repository.id());
    rows.push(row("repository", CheckStatus::Ok, id, None));
    rows.push(match repository.probe() {
        Ok(()) => row("repository write", CheckStatus::Ok, "an object was written, synced and removed", None),
        // Reading is enough for a restore.
        Err(e) => row(
            "repository write",
            CheckStatus::Warning,
            e.to_string(),
            Some("Backups by this user would fail; a restore only reads."),
        ),
    });
    if let Some(free) = repository.storage().free_bytes() {
        rows.push(row("repository space", CheckStatus::Ok, format!("{} free", human_bytes(free)), None));
    }
    for name in names(cli, &repository)? {
        let looked = repository.cluster(&name).and_then(|cluster| match cluster.damage() {
            Some(damage) => Err(damage.clone()),
            None => cluster_rows(&cluster),
        });
        match looked {
            Ok(more) => rows.extend(more),
            // A backup refuses what a reader can do without.
            Err(e) => rows.push(row(
                &format!("cluster {name}"),
                CheckStatus::Error,
                e.to_string(),
                e.hint.as_deref(),
            )),
        }
    }
    match cli.format {
        Format::Json => output::json(&rows)?,
        Format::Text => output::lines(&text(&rows))?,
    }
    let failed = rows.iter().filter(|row| row.status == CheckStatus::Error).count();
    match failed {
        0 => Ok(()),
        n => Err(Error::new(ErrorKind::RepositoryUnusable, format!("{n} of {} checks failed", rows.len()))),
    }
}

fn names(cli: &Cli, repository: &Repository) -> Result<Vec<String>> {
    match &cli.cluster {
        Some(name) if !name.is_empty() => Ok(vec![name.clone()]),
        _ => repository.clusters(),
    }
}

fn cluster_rows(cluster: &Cluster) -> Result<Vec<CheckRow>> {
    let item = format!("cluster {}", cluster.name());
    if !cluster.exists() {
        return Ok(vec![row(
            &item,
            CheckStatus::Error,
            "the repository has no such cluster",
            Some("\"pgark check\" without --cluster names those it has."),
        )]);
    }
    let backups = cluster.backups()?;
    let with = |status| backups.iter().filter(move |b| b.status == status);
    let failed = with(BackupStatus::Failed).count();
    let (logical, physical): (Vec<&Record>, Vec<&Record>) =
        with(BackupStatus::Complete).partition(|b| b.kind == BackupKind::Logical);
    let mut rows = vec![physical_row(&item, &physical, !logical.is_empty())];
    if !logical.is_empty() {
        rows.push(row(&item, CheckStatus::Ok, newest(&logical, "complete logical backup"), None));
    }
    for error in backups.iter().filter_map(|b| b.unreadable.as_ref()) {
        rows.push(row(&item, CheckStatus::Error, error.to_string(), error.hint.as_deref()));
    }
    if failed > 0 {
        let last = with(BackupStatus::Failed).next_back();
        let why = last.map_or_else(String::new, |b| {
            format!("; the last was {}: {}", b.backup, b.error.as_deref().unwrap_or("no reason is known"))
        });
        rows.push(row(&item, CheckStatus::Warning, format!("{failed} failed backups{why}"), None));
    }
    rows.extend(lease_rows(cluster, &item, &backups));
    rows.extend(server_row(&item, &physical));
    rows.extend(programs_row(&item, &logical));
    Ok(rows)
}

fn newest(backups: &[&Record], what: &str) -> String {
    match backups.iter().filter_map(|b| b.finished_at.as_deref()).max() {
        Some(time) => format!("{}, the newest of {} UTC", counted(backups.len(), what), output::time(time)),
        None => format!("no {what}"),
    }
}

/// Without a backup nothing can be restored; with logical ones alone, what was there when they were taken.
fn physical_row(item: &str, physical: &[&Record], has_logical: bool) -> CheckRow {
    let (status, hint) = match (physical.is_empty(), has_logical) {
        (false, _) => (CheckStatus::Ok, None),
        (true, true) => (
            CheckStatus::Warning,
            Some("A logical backup leads to no moment but its own: take a full one with ark.backup_start()."),
        ),
        (true, false) => (CheckStatus::Error, Some("Take one with ark.backup_start().")),
    };
    let what = if has_logical { "complete physical backup" } else { "complete backup" };
    row(item, status, newest(physical, what), hint)
}

/// Who writes now.
fn lease_rows(cluster: &Cluster, item: &str, backups: &[Record]) -> Vec<CheckRow> {
    let mut systems: Vec<u64> = backups.iter().filter_map(|b| b.system_identifier.parse().ok()).collect();
    systems.sort_unstable();
    systems.dedup();
    let look = |system: u64| match lease::read(cluster.storage(), &cluster.lease_path(system)) {
        Ok(None) => None,
        Ok(Some(lease)) if lease.is_alive(chrono::Utc::now()) => Some(row(
            item,
            CheckStatus::Ok,
            format!("{} is being written by process {} on {}", lease.purpose, lease.pid, lease.host),
            None,
        )),
        Ok(Some(lease)) => Some(row(
            item,
            CheckStatus::Warning,
            format!("the writer of {} (process {} on {}) is gone", lease.purpose, lease.pid, lease.host),
            Some("The next backup cleans up after it."),
        )),
        Err(e) => Some(row(item, CheckStatus::Error, e.to_string(), e.hint.as_deref())),
    };
    systems.into_iter().filter_map(look).collect()
}

/// Whether the newest physical backup could be run on this machine.
fn server_row(item: &str, physical: &[&Record]) -> Option<CheckRow> {
    Some(match server::find(None, physical.last()?.server_version_num / 10_000) {
        Ok(server) => {
            row(item, CheckStatus::Ok, format!("{} is in {}", server.version, server.bindir.display()), None)
        }
        Err(e) => row(item, CheckStatus::Warning, e.to_string(), e.hint.as_deref()),
    })
}

/// Whether the newest logical backup could be read on this machine.
fn programs_row(item: &str, logical: &[&Record]) -> Option<CheckRow> {
    Some(match Programs::for_restore(None, logical.last()?.server_version_num / 10_000) {
        Ok(found) => {
            let detail = format!("{} is in {}", found.version, found.bindir.display());
            row(item, CheckStatus::Ok, detail, None)
        }
        Err(e) => row(item, CheckStatus::Warning, e.to_string(), e.hint.as_deref()),
    })
}

fn row(item: &str, status: CheckStatus, detail: impl Into<String>, hint: Option<&str>) -> CheckRow {
    CheckRow { item: item.to_string(), status, detail: detail.into(), hint: hint.map(Into::into) }
}

fn text(rows: &[CheckRow]) -> String {
    let mut lines = Vec::new();
    for row in rows {
        let line = format!("{:<8} {}: {}", row.status.as_str(), row.item, row.detail);
        lines.push(output::indented(&line, 9));
        lines.extend(row.hint.as_ref().map(|hint| output::indented(&format!("{:8} hint: {hint}", ""), 15)));
    }
    lines.join("\n")
}
