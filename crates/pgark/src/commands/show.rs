//! `pgark show`.

use super::show_logical;
use crate::cli::Format;
use crate::output;
use pg_ark_contract::conversation::BackupKind;
use pg_ark_contract::units::human_bytes;
use pg_ark_contract::{Error, ErrorKind, Result};
use pg_ark_engine::logical::restore::LATEST;
use pg_ark_engine::repository::{Cluster, Record};
use pg_ark_engine::restore::request;

/// Shows a backup's record.
pub fn run(cluster: &Cluster, backup: &str, format: Format) -> Result<()> {
    let record = match backup {
        "latest" => latest(cluster)?,
        LATEST => latest_logical(cluster)?,
        name => cluster.backup(name)?.0,
    };
    match format {
        Format::Json => output::json(&record),
        Format::Text => output::lines(&text(&record)),
    }
}

/// The newest physical backup of the newest system identifier, whatever its state: whoever asks wants to know how it is.
fn latest(cluster: &Cluster) -> Result<Record> {
    if let Some(newest) = request::newest(cluster)? {
        return Ok(newest);
    }
    let (what, hint) = match request::newest_logical(cluster)? {
        Some(_) => ("physical backups", Some("latest-logical is its newest logical one.".to_string())),
        None => ("backups", request::others_hint(cluster)),
    };
    Err(Error::new(ErrorKind::BackupNotFound, format!("cluster \"{}\" has no {what}", cluster.name()))
        .hint(hint.unwrap_or_else(|| "Take one with ark.backup_start().".to_string())))
}

/// The same of logical ones.
fn latest_logical(cluster: &Cluster) -> Result<Record> {
    request::newest_logical(cluster)?.ok_or_else(|| {
        let message = format!("cluster \"{}\" has no logical backups", cluster.name());
        Error::new(ErrorKind::BackupNotFound, message).hint(
            request::others_hint(cluster)
                .unwrap_or_else(|| "Take one with ark.backup_start(kind => 'logical').".to_string()),
        )
    })
}

fn text(record: &Record) -> String {
    let size = |bytes: u64| format!("{} ({bytes} bytes)", human_bytes(bytes));
    let known = |bytes: u64| (bytes > 0).then(|| size(bytes));
    let yes = |is: bool| if is { "yes" } else { "no" }.to_string();
    let utc = |time: &str| format!("{} UTC", output::time(time));
    // A dump brings no files, no pages and no WAL.
    let physical = record.kind != BackupKind::Logical;
    let mut text = output::pairs(&[
        ("Backup", Some(record.backup.clone())),
        ("Status", Some(record.status.as_str().to_string())),
        ("Error", record.error.clone()),
        ("Label", record.label.clone()),
        ("Cluster", Some(record.cluster.clone())),
        ("System identifier", Some(record.system_identifier.clone())),
        ("Server", Some(format!("PostgreSQL {}", record.server_version))),
        ("From a standby", Some(yes(record.from_standby))),
        ("Host", Some(record.host.clone()).filter(|host| !host.is_empty())),
        ("Started", Some(utc(&record.started_at))),
        ("Finished", record.finished_at.as_deref().map(utc)),
        ("WAL", record.start_lsn.zip(record.stop_lsn).map(|(from, to)| format!("{from} to {to}"))),
        ("Timeline", record.timeline.map(|timeline| timeline.to_string())),
        ("WAL included", physical.then(|| yes(record.wal_included))),
        ("Data", known(record.data_bytes)),
        ("Stored", known(record.stored_bytes)),
        ("Files", (record.files > 0).then(|| record.files.to_string())),
        ("Dumped by", record.logical.as_ref().map(show_logical::made_by)),
        ("initdb", record.logical.as_ref().map(show_logical::initdb)),
        ("Compression", Some(record.compression.to_string())),
        ("Page checksums", Some(yes(record.data_checksums))),
        ("Damaged pages", physical.then(|| record.damaged_pages.to_string())),
        ("Data directory", Some(record.data_directory.path.clone())),
        ("pg_wal linked to", record.data_directory.wal_link.clone()),
    ]);
    let mut list = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            let lines: Vec<String> = lines.iter().map(|line| output::indented(line, 4)).collect();
            text.push_str(&format!("\n{title}:\n  {}", lines.join("\n  ")));
        }
    };
    let tablespace = |t: &pg_ark_engine::repository::record::TablespaceRecord| {
        format!("{}  {}  {}", t.oid, t.path, human_bytes(t.data_bytes))
    };
    list("Tablespaces", record.tablespaces.iter().map(tablespace).collect());
    let archive = |a: &pg_ark_engine::repository::record::ArchiveRecord| {
        let stored = a.volumes.iter().fold(0, |sum: u64, volume| sum.saturating_add(volume.size));
        let (tar, stored) = (human_bytes(a.tar_bytes), human_bytes(stored));
        format!("{}  {tar} in {stored}, volumes: {}, frames: {}", a.name, a.volumes.len(), a.frames)
    };
    list("Archives", record.archives.iter().map(archive).collect());
    list("Configuration files", record.config_files.clone());
    let damage = |d: &pg_ark_engine::repository::record::DamageRecord| {
        let blocks: Vec<String> = d.blocks.iter().take(10).map(ToString::to_string).collect();
        format!("{}  {} pages, blocks {}", d.path, d.damaged_pages, blocks.join(", "))
    };
    list("Damaged files", record.damage.iter().map(damage).collect());
    list("Warnings", record.warnings.clone());
    record.logical.iter().for_each(|logical| text.push_str(&show_logical::text(logical)));
    text
}
