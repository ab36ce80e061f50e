//! What can be recovered, and what in the archive stands in the way.
//!
//! * [`archive`]: `verify_archive`: ranges, gaps, damage, strangers. [`ranges`] makes its rows from facts, [`deep`] reads
//!   every segment in the order that [`chains`] gives, [`twice`] compares segments that are stored under two codecs,
//!   [`damage`] collects what they find, [`evidence`] weighs what must have been there.
//! * [`validate`]: `validate`: what of the stored backups is not as it should be. [`backup`] looks at one, [`logical`] at one
//!   of dumps, [`loose`] at what belongs to none, [`strangers`] at what belongs to nobody, [`findings`] collects.
//! * [`telling`]: how far it is, for the server.
//! * [`windows`]: `recovery_windows`: from which moment to which, and why each window ends.
//! * [`status`]: the last backup, the end of the archive and the window, asked every few seconds; [`recent`] bounds it.
//!
//! A *range* is a gap-free run of segments of one timeline. Damage of what is stored is a row; an error is what keeps the
//! work itself from being done. Nothing is written.

pub mod archive;
pub mod backup;
pub mod chains;
pub mod damage;
pub mod deep;
pub mod evidence;
pub mod findings;
#[cfg(test)]
pub(crate) mod fixture;
pub mod logical;
#[cfg(test)]
pub(crate) mod logical_fixture;
pub mod loose;
pub mod ranges;
mod recent;
pub mod status;
pub mod strangers;
pub mod tail;
pub mod telling;
pub mod twice;
pub mod validate;
#[cfg(test)]
pub(crate) mod validate_fixture;
pub mod windows;

pub use archive::{Depth, verify_archive};
pub use evidence::Evidence;
pub use telling::Telling;
pub use validate::{Request, passed_over, validate};
pub use windows::{Windows, windows};

use crate::repository::{Cluster, Record};
use crate::session::Session;
use crate::stored::lost;
use crate::wal::archive::Archive;
use crate::wal::moments::{Moments, is_unreadable};
use crate::wal::survey::Look;
use pg_ark_contract::rows::{ArchiveRow, BackupStatus};
use pg_ark_contract::{ErrorKind, Result};
use std::collections::BTreeMap;

/// Whoever waits for the work: hears how far it is, and can end it.
pub trait Watch: Sync {
    /// Called within every frame.
    ///
    /// # Errors
    /// The reason to stop.
    fn check(&self) -> Result<()>;

    /// There are so many stored bytes to read.
    fn total(&self, _bytes: u64) {}

    /// So many more bytes were read.
    fn advance(&self, _bytes: u64) {}
}

impl Watch for Session {
    fn check(&self) -> Result<()> {
        Session::check(self)
    }
}

/// The archive of a system identifier; of the cluster's newest when none is named.
pub fn archive_of(cluster: &Cluster, system_identifier: Option<u64>) -> Option<Archive> {
    let newest = || cluster.systems().last().copied();
    system_identifier.or_else(newest).map(|system| Archive::of(cluster, system))
}

/// [`verify_archive`] of a cluster; one that has no archive has no rows.
///
/// # Errors
/// As [`verify_archive`].
pub fn archive_rows(
    cluster: &Cluster,
    system_identifier: Option<u64>,
    depth: Depth,
    watch: &dyn Watch,
) -> Result<Vec<ArchiveRow>> {
    let Some(archive) = archive_of(cluster, system_identifier) else { return Ok(Vec::new()) };
    verify_archive(&archive, &records_of(cluster, &archive)?, depth, watch)
}

/// [`windows()`] of a cluster. Timelines whose history cannot be read have none, nor have backups whose record is lost or
/// of which an object is missing or has another size; both get a remark.
///
/// # Errors
/// As [`windows()`].
pub fn windows_of(cluster: &Cluster, system_identifier: Option<u64>, watch: &dyn Watch) -> Result<Windows> {
    let Some(archive) = archive_of(cluster, system_identifier) else { return Ok(Windows::default()) };
    let check = || watch.check();
    let Look { mut survey, histories, size, .. } = Look::take(&archive, &check)?;
    for (timeline, _) in &histories {
        survey.timelines.remove(timeline);
    }
    let mut records = records_of(cluster, &archive)?;
    // Nothing is recovered from dumps.
    records.retain(|record| record.kind.is_physical());
    let mut faults: Vec<_> =
        histories.iter().map(|(_, error)| error).chain(&size).map(ranges::text).collect();
    let mut lacking = BTreeMap::new();
    for record in records.iter().filter(|record| record.status == BackupStatus::Complete) {
        check()?;
        lacking.extend(lacks(cluster, &archive, record)?.map(|what| (record.backup.clone(), what)));
    }
    records.retain(|record| !lacking.contains_key(&record.backup));
    let unreadable = records.iter().filter_map(|record| Some((record, record.unreadable.as_ref()?)));
    lacking.extend(unreadable.map(|(record, why)| (record.backup.clone(), ranges::text(why))));
    let lost = lost::lost(cluster, archive.system_identifier())?.into_iter();
    lacking.extend(lost.filter(|lost| !lost.is_logical()).map(|lost| (lost.backup, lost.why)));
    faults.extend(
        lacking.iter().map(|(backup, what)| format!("backup \"{backup}\" cannot be restored: {what}")),
    );
    let mut moments = Moments::new(&archive, survey.segment_size).with_check(&check);
    let broken = archive::broken(&survey, &mut moments)?;
    let evidence = Evidence::weigh(&survey, moments.gone(&survey)?, &records);
    let mut found = windows(&survey, &records, &broken, &evidence, &mut moments)?;
    found.remarks.splice(0..0, faults);
    Ok(found)
}

/// What of a backup's objects is not there as its record says, without reading them; the first counts.
fn lacks(cluster: &Cluster, archive: &Archive, record: &Record) -> Result<Option<String>> {
    let folder = cluster.backup_folder(archive.system_identifier(), &record.backup);
    let volumes = record.archives.iter().flat_map(|archive| &archive.volumes);
    for object in volumes.chain(&record.manifest) {
        let path = format!("{folder}/{}", object.name);
        let what = match archive.storage().size(&path) {
            Ok(Some(size)) if size == object.size => continue,
            Ok(Some(size)) => format!("has {size} bytes instead of {}", object.size),
            Ok(None) => "is missing".to_string(),
            // A record may name anything; what the disk does not give of one backup hides no other.
            Err(e) if is_unreadable(&e) || e.kind == ErrorKind::InvalidArgument => {
                return Ok(Some(e.to_string()));
            }
            Err(e) => return Err(e),
        };
        return Ok(Some(format!("\"{}\" {what}", archive.storage().display(&path))));
    }
    Ok(None)
}

/// The cluster's backups that go with an archive.
fn records_of(cluster: &Cluster, archive: &Archive) -> Result<Vec<Record>> {
    let system = archive.system_identifier().to_string();
    let mut records = cluster.backups()?;
    records.retain(|record| record.system_identifier == system);
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::Repository;
    use crate::repository::record::ObjectRecord;

    #[test]
    fn a_backup_of_which_an_object_is_missing_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file://{}", dir.path().display());
        let (repository, _) = Repository::open_or_create(&url).unwrap();
        let mut cluster = repository.cluster("main").unwrap();
        cluster.remember_system(7, 150_000).unwrap();
        let archive = Archive::of(&cluster, 7);
        let manifest = ObjectRecord { name: "backup_manifest".into(), size: 5, crc32c: "00000000".into() };
        let record =
            Record { manifest: Some(manifest), ..Record::begun("20261122T020000Z-full".into(), "main", 7) };
        let path = format!("{}/backup_manifest", cluster.backup_folder(7, &record.backup));
        let lacks = || lacks(&cluster, &archive, &record).unwrap();
        assert!(lacks().unwrap().contains("backup_manifest\" is missing"));
        archive.storage().put(&path, b"1234".to_vec()).unwrap();
        assert!(lacks().unwrap().ends_with("has 4 bytes instead of 5"));
        let file = dir.path().join(&path);
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink(&file, &file).unwrap();
        assert!(lacks().is_some(), "what the disk does not give ends nothing else");
        std::fs::remove_file(&file).unwrap();
        archive.storage().put(&path, b"12345".to_vec()).unwrap();
        assert_eq!(lacks(), None);
        let damaged = format!("{}/backup.json", cluster.backup_folder(7, "20261123T020000Z-full"));
        archive.storage().put(&damaged, &b"x"[..]).unwrap();
        // Dumps lead to no moment: what they lack is no matter of windows.
        for (name, object) in [("20261124", "backup.json"), ("20261125", "app.dump")] {
            let folder = cluster.backup_folder(7, &format!("{name}T020000Z-logical"));
            archive.storage().put(&format!("{folder}/{object}"), &b"x"[..]).unwrap();
        }
        let remarks = windows_of(&cluster, None, &Session::new(|_| {})).unwrap().remarks;
        let told = |number: usize, what: &str| {
            assert!(remarks.len() == 2 && remarks[number].contains(what), "{remarks:?}");
        };
        told(0, "\"20261122T020000Z-full\" cannot be restored: its record backup.json is missing");
        told(1, "\"20261123T020000Z-full\" cannot be restored: its record cannot be read");
    }
}
