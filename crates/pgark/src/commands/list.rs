//! `pgark list`.

use crate::cli::Format;
use crate::output;
use pg_ark_contract::Result;
use pg_ark_contract::rows::BackupRow;
use pg_ark_contract::units::human_bytes;
use pg_ark_engine::repository::Cluster;

/// Lists the backups of a cluster, oldest first.
pub fn run(cluster: &Cluster, format: Format) -> Result<()> {
    let rows: Vec<BackupRow> = cluster.backups()?.iter().map(|record| record.row()).collect();
    match format {
        Format::Json => output::json(&rows),
        Format::Text if rows.is_empty() => {
            eprintln!("cluster \"{}\" has no backups", cluster.name());
            Ok(())
        }
        Format::Text => {
            let head = ["BACKUP", "STATUS", "FINISHED (UTC)", "DATA", "STORED", "TLI", "STOP LSN", "NOTE"];
            output::lines(&output::table(&head, &rows.iter().map(cells).collect::<Vec<_>>()))
        }
    }
}

fn cells(row: &BackupRow) -> Vec<String> {
    let bytes = |size: Option<u64>| size.map_or_else(String::new, human_bytes);
    let damaged = (row.damaged_pages > 0).then(|| format!("{} damaged pages", row.damaged_pages));
    let pinned = row.pinned.then(|| "pinned".to_string());
    let note =
        [row.error.clone(), damaged, pinned, row.label.clone()].into_iter().flatten().collect::<Vec<_>>();
    vec![
        row.backup.clone(),
        row.status.as_str().to_string(),
        row.finished_at.as_deref().map_or_else(String::new, output::time),
        bytes(row.data_bytes),
        bytes(row.stored_bytes),
        row.timeline.map_or_else(String::new, |timeline| timeline.to_string()),
        row.stop_lsn.map_or_else(String::new, |lsn| lsn.to_string()),
        note.join("; "),
    ]
}
