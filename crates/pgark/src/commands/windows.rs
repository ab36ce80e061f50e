//! `pgark windows`: from which moment to which the cluster can be restored.

use crate::cli::Format;
use crate::progress::Reading;
use crate::{output, talk};
use pg_ark_contract::Result;
use pg_ark_contract::rows::{BackupStatus, WindowRow};
use pg_ark_engine::repository::{Cluster, Record};
use pg_ark_engine::restore::request;
use pg_ark_engine::verify;

const HEAD: [&str; 6] = ["FROM (UTC)", "TO (UTC)", "TLI", "FROM LSN", "TO LSN", "BACKUP"];

/// Prints the windows, oldest first.
pub fn run(cluster: &Cluster, format: Format) -> Result<()> {
    let found = verify::windows_of(cluster, None, &Reading::new("reading WAL")?)?;
    found.remarks.iter().for_each(|remark| talk::warn(remark));
    match format {
        Format::Json => output::json(&found.rows),
        Format::Text if found.rows.is_empty() => {
            let logical = request::newest_logical(cluster)?.filter(|b| b.status == BackupStatus::Complete);
            talk::say(&nothing(cluster.name(), logical.as_ref()));
            Ok(())
        }
        Format::Text => output::lines(&text(&found.rows)),
    }
}

/// What is said when there is no window: a logical backup makes none.
fn nothing(cluster: &str, logical: Option<&Record>) -> String {
    let no_moment = format!("cluster \"{cluster}\" has no moment to which it can be restored");
    match logical {
        Some(record) => format!("{no_moment}, but a logical backup: {}", record.backup),
        None => no_moment,
    }
}

/// A table, and below it why each window ends.
fn text(rows: &[WindowRow]) -> String {
    let cells = |row: &WindowRow| {
        vec![
            row.from_time.as_deref().map_or_else(unknown, moment),
            row.to_time.as_deref().map_or_else(unknown, moment),
            row.timelines.clone(),
            row.from_lsn.to_string(),
            row.to_lsn.to_string(),
            row.backup.clone(),
        ]
    };
    let table = output::table(&HEAD, &rows.iter().map(cells).collect::<Vec<_>>());
    let note = |row: &WindowRow| output::indented(&format!("up to {}: {}", row.to_lsn, row.note), 4);
    format!("{table}\n\n{}", rows.iter().map(note).collect::<Vec<_>>().join("\n"))
}

fn unknown() -> String {
    "unknown".to_string()
}

/// A time to the second: `2026-11-22T02:00:00.123456Z` as `2026-11-22 02:00:00`.
pub fn moment(time: &str) -> String {
    output::time(time.split_once('.').map_or(time, |(seconds, _)| seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_keep_their_width_and_lose_nothing() {
        let note = "segments 000000010000000000000004 to 000000010000000000000009 of timeline 1 are missing";
        let row = WindowRow {
            backup: "20261122T020000Z-full".into(),
            timelines: "1,2".into(),
            from_time: Some("2026-11-22T02:10:00.123456Z".into()),
            to_time: None,
            from_lsn: "0/3000028".parse().unwrap(),
            to_lsn: "16/B374D848".parse().unwrap(),
            note: note.into(),
        };
        let text = text(&[row]);
        let lines: Vec<&str> = text.lines().collect();
        let columns = "2026-11-22 02:10:00  unknown   1,2  0/3000028  16/B374D848  20261122T020000Z-full";
        assert_eq!(lines[1..], [columns, "", &format!("up to 16/B374D848: {note}")]);
        assert!(lines[..2].iter().all(|line| line.chars().count() <= 100), "{text}");
    }
}
