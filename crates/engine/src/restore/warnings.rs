//! What the user should know about a backup before it is restored.

use super::request::ArchiveMode;
use super::server::{self, Server};
use crate::repository::Record;
use crate::stored::expected::Expected;
use crate::verify::backup::contradictions;

/// Remarks of a record that a plan repeats.
const REMARKS: usize = 10;

/// Warnings about the backup, the server that shall run it, and the copy that comes of it: `copy` says whether one that does
/// not go back to its old place archives and takes backups. Looks for libraries on this machine, and is pure otherwise.
pub fn about(record: &Record, server: Option<&Server>, copy: Option<ArchiveMode>) -> Vec<String> {
    let mut warnings = Vec::new();
    if record.unsealed {
        warnings.push(format!(
            "the record of backup \"{}\" has no seal, so nothing proves that it is as it was written: an early version \
             wrote it, or somebody changed it",
            record.backup
        ));
    }
    if record.damaged_pages > 0 {
        let files: Vec<&str> = record.damage.iter().take(3).map(|damage| &damage.path[..]).collect();
        warnings.push(format!(
            "the backup holds {} damaged pages, in {}{}: \"pgark show {}\" lists them",
            record.damaged_pages,
            files.join(", "),
            if record.damage.len() > files.len() { " and others" } else { "" },
            record.backup
        ));
    }
    warnings.extend(record.warnings.iter().take(REMARKS).map(|w| format!("noted during the backup: {w}")));
    if let Some(more @ 1..) = record.warnings.len().checked_sub(REMARKS) {
        warnings.push(format!("{more} more were noted during the backup: \"pgark show {}\"", record.backup));
    }
    let missing = server.map(|server| server::missing_libraries(server, record)).unwrap_or_default();
    if !missing.is_empty() {
        warnings.push(format!(
            "the server needs libraries that are not installed here and will not start without them: {}",
            missing.join(", ")
        ));
    }
    let closed = server.map(|server| server::closed_databases(server, record)).unwrap_or_default();
    warnings.extend(closed.into_iter().map(|(database, libraries)| {
        let libraries = libraries.join(", ");
        format!("database \"{database}\" lets nobody in without libraries that are not installed here (session_preload_libraries): {libraries}")
    }));
    let (path, cluster) = (&record.data_directory.path, &record.cluster);
    match copy {
        Some(ArchiveMode::Off) => warnings.push(format!(
            "a copy of \"{path}\": its postgresql.auto.conf empties pg_ark.repository, so that it takes no backups in the name \
             of the original, whose cluster is \"{cluster}\" (--archive-mode keep)"
        )),
        Some(ArchiveMode::Keep) => warnings.push(format!(
            "a copy of \"{path}\": set another pg_ark.cluster in it, or its backups go to the original's cluster \"{cluster}\""
        )),
        None => {}
    }
    warnings
}

/// What `pgark verify` calls an error in the record, and a restore can do without: what it writes is proved by checksums.
pub fn contradictions(record: &Record) -> Option<String> {
    let faults = contradictions::contradictions(record);
    let shown = faults.iter().take(REMARKS).map(String::as_str).collect::<Vec<_>>().join("; ");
    (!faults.is_empty()).then(|| {
        format!(
            "the record of backup \"{}\" contradicts itself, so it is not as it was written: {shown}",
            record.backup
        )
    })
}

/// What the manifest lists in another number than the record says.
pub fn disagreement(record: &Record, expected: &Expected) -> Option<String> {
    let files = expected.len() as u64;
    let bytes = (0..expected.len()).fold(0u64, |sum, number| sum.saturating_add(expected.file(number).size));
    ((files, bytes) != (record.files, record.data_bytes)).then(|| {
        format!(
            "the backup manifest lists {files} files with {bytes} bytes, and the record of backup \"{}\" says {} files with \
             {} bytes: one of them is not as it was written",
            record.backup, record.files, record.data_bytes
        )
    })
}

/// The restored server archives where its original does, which may still run on the machine that it was backed up on.
pub fn other_host(record: &Record, host: &str) -> Option<String> {
    (!record.host.is_empty() && record.host != host).then(|| {
        format!(
            "the backup was taken on host \"{}\": if the original still runs there, use --archive-mode off, or both \
             write into one archive",
            record.host.escape_debug()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fixture, Recipe};
    use super::*;

    #[test]
    fn remarks_of_the_backup_and_a_copy_are_told() {
        let mut record = Fixture::new(&Recipe::default()).record;
        assert!(about(&record, None, None).is_empty());
        let copy = |archives| about(&record, None, Some(archives)).remove(0);
        let keeps = copy(ArchiveMode::Keep);
        assert!(keeps.contains("\"/old/data\"") && keeps.contains("set another pg_ark.cluster"), "{keeps}");
        let off = copy(ArchiveMode::Off);
        assert!(off.contains("\"/old/data\"") && off.contains("empties pg_ark.repository"), "{off}");
        record.unsealed = true;
        assert!(about(&record, None, None)[0].contains("has no seal"));
        record.unsealed = false;
        record.host = "old".to_string();
        assert!(other_host(&record, "new").unwrap().contains("\"old\": if the original still runs"));
        assert_eq!(other_host(&record, "old"), None);
        record.warnings = (0..REMARKS + 2).map(|number| format!("remark {number}")).collect();
        let told = about(&record, None, None);
        assert_eq!(told.len(), REMARKS + 1);
        assert_eq!(told[0], "noted during the backup: remark 0");
        assert!(told[REMARKS].starts_with("2 more "), "{told:?}");
        record.warnings.truncate(REMARKS);
        assert_eq!(about(&record, None, None).len(), REMARKS);
    }
}
