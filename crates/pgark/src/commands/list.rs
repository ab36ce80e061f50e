//! `pgark list`.

use super::verify_archive::counted;
use crate::cli::Format;
use crate::{output, talk};
use pg_ark_contract::Result;
use pg_ark_contract::rows::BackupRow;
use pg_ark_contract::units::human_bytes;
use pg_ark_engine::repository::{Cluster, Record};
use serde::Serialize;

const HEAD: [&str; 8] = ["BACKUP", "STATUS", "FINISHED (UTC)", "DATA", "STORED", "TLI", "STOP LSN", "NOTE"];

/// Where the line begins that tells what is in a logical backup.
const INDENT: usize = 4;

/// What `--format json` prints for a backup.
#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    row: BackupRow,
    system_identifier: &'a str,
}

/// Lists the backups of a cluster, oldest first. After the list, a record that cannot be read is an error.
pub fn run(cluster: &Cluster, format: Format) -> Result<()> {
    let records = cluster.backups()?;
    show(cluster, &records, format)?;
    match records.into_iter().find_map(|record| record.unreadable) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn show(cluster: &Cluster, records: &[Record], format: Format) -> Result<()> {
    match format {
        Format::Json => {
            let row = |r| Row { row: Record::row(r), system_identifier: &r.system_identifier };
            output::json(&records.iter().map(row).collect::<Vec<_>>())
        }
        Format::Text if records.is_empty() => {
            talk::say(&format!("cluster \"{}\" has no backups", cluster.name()));
            Ok(())
        }
        Format::Text => output::lines(&text(records)),
    }
}

/// A table; one for each system identifier when there are several.
fn text(records: &[Record]) -> String {
    let mut systems: Vec<&str> = Vec::new();
    for record in records {
        if !systems.contains(&&record.system_identifier[..]) {
            systems.push(&record.system_identifier);
        }
    }
    let table = |system: &&str| {
        let mut rows = records.iter().filter(|r| r.system_identifier == *system);
        let table =
            with_contents(&output::table(&HEAD, &rows.clone().map(cells).collect::<Vec<_>>()), rows.clone());
        let version = rows.next_back().map_or("", |newest| &newest.server_version);
        match systems.len() {
            1 => table,
            _ => {
                let title = format!("System identifier {system} (PostgreSQL {version}):");
                format!("{}\n{table}", output::indented(&title, 4))
            }
        }
    };
    systems.iter().map(table).collect::<Vec<_>>().join("\n\n")
}

/// The table with a line for what is in a logical backup, below its own.
fn with_contents<'a>(table: &str, records: impl Iterator<Item = &'a Record>) -> String {
    let contents = records.map(|record| record.row().contents);
    let line = |(line, contents): (&str, Option<String>)| match contents {
        Some(contents) => format!("{line}\n{:INDENT$}{}", "", output::wrapped(&contents, INDENT)),
        None => line.to_string(),
    };
    // The head has no record.
    table.lines().zip([None].into_iter().chain(contents)).map(line).collect::<Vec<_>>().join("\n")
}

fn cells(record: &Record) -> Vec<String> {
    let row = record.row();
    let bytes = |size: Option<u64>| size.map_or_else(String::new, human_bytes);
    vec![
        row.backup.clone(),
        row.status.as_str().to_string(),
        row.finished_at.as_deref().map_or_else(String::new, output::time),
        bytes(row.data_bytes),
        bytes(row.stored_bytes),
        row.timeline.map_or_else(String::new, |timeline| timeline.to_string()),
        row.stop_lsn.map_or_else(String::new, |lsn| lsn.to_string()),
        note(&row, record.warnings.len()),
    ]
}

/// What is most important first: the line is cut at its end.
fn note(row: &BackupRow, warnings: usize) -> String {
    let damaged = (row.damaged_pages > 0)
        .then(|| counted(usize::try_from(row.damaged_pages).unwrap_or(usize::MAX), "damaged page"));
    let warned = match warnings {
        _ if row.error.is_some() || damaged.is_some() => None,
        0 => None,
        1 => Some("1 warning".to_string()),
        several => Some(format!("{several} warnings")),
    };
    let pinned = row.pinned.then(|| match row.pin_reason.as_deref() {
        Some(reason) if !reason.is_empty() => format!("pinned: {reason}"),
        _ => "pinned".to_string(),
    });
    let parts = [row.error.clone(), damaged, warned, pinned, row.label.clone()];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_ark_engine::repository::logical_record::{DatabaseRecord, LogicalRecord};

    fn records() -> Vec<Record> {
        let golden = concat!("file://", env!("CARGO_MANIFEST_DIR"), "/../engine/tests/golden/v1/zstd");
        let url = golden.replace("crates/pgark/../", "crates/");
        let repository = pg_ark_engine::repository::Repository::open(&url).unwrap();
        repository.cluster("main").unwrap().backups().unwrap()
    }

    #[test]
    fn several_system_identifiers_are_listed_apart() {
        let mut records = records();
        assert!(text(&records).starts_with("BACKUP "));
        let mut other = records[0].clone();
        other.system_identifier = "7".into();
        other.server_version = "16.1".into();
        other.label = Some("x".repeat(100));
        records.push(other);
        let text = text(&records);
        assert!(
            text.starts_with("System identifier 7710997216315519387 (PostgreSQL 15.20):\nBACKUP "),
            "{text}"
        );
        assert!(text.contains("\n\nSystem identifier 7 (PostgreSQL 16.1):\nBACKUP "), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }

    #[test]
    fn what_a_logical_backup_holds_is_told_below_it() {
        let mut records = records();
        let physical = text(&records);
        let mut logical = records[0].clone();
        logical.backup = "20261122T030000Z-logical".into();
        let named =
            |n: usize| DatabaseRecord { name: format!("database number {n}"), ..DatabaseRecord::default() };
        logical.logical =
            Some(LogicalRecord { databases: (0..12).map(named).collect(), ..LogicalRecord::default() });
        (logical.timeline, logical.stop_lsn) = (None, None);
        records.push(logical);
        let text = text(&records);
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), physical.lines().count() + 3, "{text}");
        let last = &lines[lines.len() - 3..];
        assert!(last[0].starts_with("20261122T030000Z-logical  complete"), "{text}");
        assert!(last[1].starts_with("    12 databases: database number 0, "), "{text}");
        assert!(last[2].ends_with("database number 7, ..."), "{text}");
    }

    #[test]
    fn the_note_says_what_is_most_important() {
        let mut row = records()[0].row();
        row.label = None;
        assert_eq!(note(&row, 0), "");
        assert_eq!(note(&row, 1), "1 warning");
        row.label = Some("nightly".into());
        row.pinned = true;
        assert_eq!(note(&row, 2), "2 warnings; pinned; nightly");
        row.pin_reason = Some("before 16".into());
        assert_eq!(note(&row, 0), "pinned: before 16; nightly");
        row.pin_reason = None;
        row.damaged_pages = 1;
        assert!(note(&row, 2).starts_with("1 damaged page; "));
        row.damaged_pages = 3;
        assert_eq!(note(&row, 2), "3 damaged pages; pinned; nightly");
        row.error = Some("disk full".into());
        assert!(note(&row, 2).starts_with("disk full; "));
    }
}
