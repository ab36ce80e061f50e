//! What the user should know about a backup before it is restored.

use super::request::ArchiveMode;
use super::server::{self, Server};
use crate::repository::Record;

/// Remarks of a record that a plan repeats.
const REMARKS: usize = 10;

/// Warnings about the backup, the server that shall run it, and the copy that comes of it; `moved` says that it does not
/// go back to its old place. Looks for libraries on this machine, and is pure otherwise.
pub fn about(
    record: &Record,
    server: Option<&Server>,
    moved: bool,
    archive_mode: ArchiveMode,
) -> Vec<String> {
    let mut warnings = Vec::new();
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
    if moved {
        warnings.push(format!(
            "this is not the old data directory \"{}\". If the original goes on, the copy's backups would go to the \
             original's cluster \"{}\" in the repository: set another pg_ark.cluster in the copy before it takes any{}",
            record.data_directory.path,
            record.cluster,
            match archive_mode {
                ArchiveMode::Off => ". Until then it does not archive (archive_mode = off in postgresql.auto.conf)",
                ArchiveMode::Keep => "",
            }
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fixture, Recipe};
    use super::*;

    #[test]
    fn remarks_of_the_backup_and_a_copy_are_told() {
        let mut record = Fixture::new(&Recipe::default()).record;
        assert!(about(&record, None, false, ArchiveMode::Keep).is_empty());
        let copy = about(&record, None, true, ArchiveMode::Off);
        assert!(copy[0].contains("\"/old/data\"") && copy[0].contains("pg_ark.cluster"), "{copy:?}");
        record.warnings = (0..REMARKS + 2).map(|number| format!("remark {number}")).collect();
        let told = about(&record, None, false, ArchiveMode::Keep);
        assert_eq!(told.len(), REMARKS + 1);
        assert_eq!(told[0], "noted during the backup: remark 0");
        assert!(told[REMARKS].starts_with("2 more "), "{told:?}");
        record.warnings.truncate(REMARKS);
        assert_eq!(about(&record, None, false, ArchiveMode::Keep).len(), REMARKS);
    }
}
