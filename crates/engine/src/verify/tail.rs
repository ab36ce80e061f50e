//! The end of the archive against what the server counted: when the newest segments are lost together with the indexes
//! that name them, nothing in the repository tells of it.

use super::findings::{Finding, Findings};
use crate::repository::Cluster;
use crate::wal::Archive;
use crate::wal::archive::WalFile;
use pg_ark_contract::Result;
use pg_ark_contract::conversation::Archived;
use pg_ark_contract::rows::{FindingRow, Severity};

/// What to do about it.
const HINT: &str = "Look for it on the server and its standbys and store it with pgark wal-push; else take a backup now. If \
     the repository or the archiver was changed since, end a segment with SELECT pg_switch_wal() and look again.";

/// A row when the last file that the server counts as archived is not in the archive.
///
/// # Errors
/// What the store said.
pub fn lost(cluster: &Cluster, archived: &Archived) -> Result<Option<FindingRow>> {
    let archive = Archive::of(cluster, archived.system_identifier);
    if WalFile::of(&archived.file) != Some(WalFile::Segment) || archive.find(&archived.file)?.is_some() {
        return Ok(None);
    }
    let findings = Findings::default();
    let what = format!("the last archived segment {} is not in the archive", archived.file);
    let finding = Finding::new(Severity::Error, archive.path(&archived.file)?, what);
    findings.add(finding.hint(HINT).missing_wal(true));
    Ok(findings.into_rows(None, &archive.folder(), &mut |_| None).pop())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::Repository;

    #[test]
    fn promise_6_a_tail_that_is_lost_with_its_index_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file://{}", dir.path().display());
        let (repository, _) = Repository::open_or_create(&url).unwrap();
        let cluster = repository.cluster("main").unwrap();
        let asked =
            |file: &str| lost(&cluster, &Archived { system_identifier: 7, file: file.into() }).unwrap();
        let name = "000000010000000000000005";
        let row = asked(name).unwrap();
        assert_eq!((row.severity, row.missing_wal, row.backup.as_deref()), (Severity::Error, true, None));
        assert!(row.object.ends_with(name) && row.finding.contains(name) && row.hint.is_some(), "{row:?}");
        let path = Archive::of(&cluster, 7).path(name).unwrap();
        repository.storage().put(&format!("{path}.zst"), b"x".to_vec()).unwrap();
        assert_eq!(asked(name), None);
        assert_eq!(asked("nonsense"), None);
    }
}
