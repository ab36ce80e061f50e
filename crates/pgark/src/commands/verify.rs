//! `pgark verify`: what of the stored backups is not as it should be.

use super::verify_archive::counted;
use crate::cli::{Format, VerifyArgs};
use crate::output;
use crate::progress::Reading;
use pg_ark_contract::conversation::Level;
use pg_ark_contract::rows::{BackupStatus, FindingRow, Severity};
use pg_ark_contract::units::human_bytes;
use pg_ark_contract::{Error, ErrorKind, Result};
use pg_ark_engine::backup::finish::objects;
use pg_ark_engine::logical::restore::{LATEST, newest};
use pg_ark_engine::repository::{Cluster, Record};
use pg_ark_engine::restore::request::complete;
use pg_ark_engine::verify::{self, Request};

/// Where the finding and the hint begin: below the backup's name.
const INDENT: usize = 10;

/// Prints a row for each finding, and fails when there is one.
pub fn run(cluster: &Cluster, arguments: &VerifyArgs, format: Format) -> Result<()> {
    let backup = match arguments.backup.as_deref() {
        Some("latest") => complete(cluster)?.pop().map(|record| record.backup),
        Some(LATEST) => Some(newest(cluster)?.1),
        named => named.map(ToString::to_string),
    };
    let jobs = arguments.jobs.map_or(0, usize::from);
    let request = Request { backup, level: arguments.level.into(), jobs };
    let reading = Reading::new("verifying")?;
    let rows = verify::validate(cluster, &request, &reading);
    let bytes = reading.finish();
    let mut rows = rows?;
    if let Some(chosen) =
        request.backup.as_ref().filter(|_| matches!(arguments.backup.as_deref(), Some("latest" | LATEST)))
    {
        rows.extend(verify::passed_over(cluster, chosen)?);
    }
    match format {
        Format::Json => output::json(&rows)?,
        Format::Text if rows.is_empty() => output::lines(&all_is_well(cluster, &request, bytes)?)?,
        Format::Text => output::lines(&text(&rows))?,
    }
    judge(&rows)
}

/// The error for what was found: the WAL alone that is not there, or anything else.
fn judge(rows: &[FindingRow]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let count = |severity| rows.iter().filter(|row| row.severity == severity).count();
    let parts = [(count(Severity::Error), "error"), (count(Severity::Warning), "warning")];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| counted(count, what));
    let what = parts.collect::<Vec<_>>().join(" and ");
    let (kind, hint) = match rows.iter().all(|row| row.missing_wal) {
        true => (
            ErrorKind::WalMissing,
            "Look for the segments on the server and its standbys and store them with pgark wal-push; else take a backup now.",
        ),
        false if count(Severity::Error) == 0 => (
            ErrorKind::Corrupt,
            "A restore gives what was backed up, as it was backed up. The hint of each warning says what to do about it.",
        ),
        false => (
            ErrorKind::Corrupt,
            "Get what is damaged back from a copy of the repository, or take a backup now. pgark windows shows what can be recovered.",
        ),
    };
    Err(Error::new(kind, format!("{what} found")).hint(hint))
}

/// What was looked at when nothing was found.
fn all_is_well(cluster: &Cluster, request: &Request, bytes: u64) -> Result<String> {
    let mut records = cluster.backups()?;
    records.retain(|record| match &request.backup {
        Some(name) => record.backup == *name,
        None => record.status == BackupStatus::Complete,
    });
    let subject = match &request.backup {
        Some(name) => format!("backup {name}"),
        None => format!("cluster \"{}\", {}", cluster.name(), counted(records.len(), "backup")),
    };
    let count = |record: &Record| 1 + objects(record).count();
    let read = match request.level {
        Level::Record => "only names and sizes looked at".to_string(),
        Level::Data | Level::Pages => format!("{} checked", human_bytes(bytes)),
    };
    Ok(format!("{subject}: {}, {read}, nothing found", counted(records.iter().map(count).sum(), "object")))
}

/// A table; below each row what was found and what to do.
fn text(rows: &[FindingRow]) -> String {
    let backup = |row: &FindingRow| output::printable(row.backup.as_deref().unwrap_or_default());
    let width = rows.iter().map(|row| backup(row).chars().count()).max().unwrap_or(0).max("BACKUP".len());
    let line = |severity: &str, backup: &str, object: &str| {
        let object = output::wrapped(object, INDENT + width + 2);
        format!("{severity:<8}  {backup:<width$}  {object}").trim_end().to_string()
    };
    let mut lines = vec![line("SEVERITY", "BACKUP", "OBJECT")];
    for row in rows {
        lines.push(line(row.severity.as_str(), &backup(row), object(row)));
        let finding =
            [row.finding.clone()].into_iter().chain(row.hint.as_ref().map(|h| format!("hint: {h}")));
        lines.extend(finding.map(|text| format!("{:INDENT$}{}", "", output::wrapped(&text, INDENT))));
    }
    lines.join("\n")
}

/// The object without the folder of the backup that the line names.
fn object(row: &FindingRow) -> &str {
    let Some(backup) = &row.backup else { return &row.object };
    let inside = row.object.split_once(&format!("/backups/{backup}/"));
    inside.map_or(&row.object[..], |(_, object)| object).trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(severity: Severity, object: &str, finding: &str) -> FindingRow {
        FindingRow {
            backup: Some("20261122T020000Z-full".into()),
            severity,
            object: object.into(),
            finding: finding.into(),
            hint: Some("Restore another backup.".into()),
            missing_wal: false,
        }
    }

    #[test]
    fn what_is_found_decides_the_exit_code() {
        let damaged = row(Severity::Error, "main/7/backups/20261122T020000Z-full/base.tar.zst", "is missing");
        let index = row(Severity::Warning, "main/7/wal/00000001/00000000/index.jsonl", "line 3 is damaged");
        let segment = "main/7/wal/00000001/00000000/000000010000000000000004";
        let missing = FindingRow { missing_wal: true, ..row(Severity::Error, segment, "is missing") };
        let of_wal = row(Severity::Error, "wal/7/backups/20261122T020000Z-full/base.tar.zst", "is missing");
        let code = |rows: &[&FindingRow]| {
            let rows: Vec<_> = rows.iter().map(|row| (*row).clone()).collect();
            judge(&rows).err().map_or(0, |error| error.kind.exit_code())
        };
        assert_eq!(code(&[]), 0);
        assert_eq!(code(&[&damaged]), 13);
        assert_eq!(code(&[&index]), 13);
        assert_eq!(code(&[&missing, &missing]), 19);
        assert_eq!(code(&[&missing, &index]), 13);
        assert_eq!(code(&[&of_wal]), 13, "a cluster may be named wal");
        let message = judge(&[damaged.clone(), index, damaged]).unwrap_err().message;
        assert_eq!(message, "2 errors and 1 warning found");
    }

    #[test]
    fn the_table_keeps_its_width_and_loses_nothing() {
        let finding = "word ".repeat(60);
        let object = "main/7/backups/20261122T020000Z-full/base.tar.zst: base/5/16384 (public.orders in database shop)";
        let archive =
            FindingRow { backup: None, ..row(Severity::Warning, "main/7/wal/x", "not stored by pg_ark") };
        let shown = text(&[row(Severity::Error, object, finding.trim()), archive]);
        assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");
        let head: Vec<&str> = shown.lines().take(3).collect();
        assert_eq!(head[0], "SEVERITY  BACKUP                 OBJECT");
        let columns =
            "error     20261122T020000Z-full  base.tar.zst: base/5/16384 (public.orders in database shop)";
        assert_eq!(head[1], columns);
        assert!(head[2].starts_with("          word word"));
        assert_eq!(shown.matches("word").count(), 60);
        assert!(shown.contains("\n          hint: Restore another backup.\nwarning "), "{shown}");
        assert!(shown.contains("  main/7/wal/x\n"), "{shown}");
    }
}
