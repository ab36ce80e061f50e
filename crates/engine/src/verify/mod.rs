//! What can be recovered, and what in the archive stands in the way.
//!
//! * [`archive`]: `verify_archive`: ranges, gaps, damage, strangers. [`ranges`] makes its rows from facts, [`deep`] reads
//!   every segment in the order that [`chains`] gives, [`twice`] compares segments that are stored under two codecs,
//!   [`damage`] collects what they find, [`evidence`] weighs what must have been there.
//! * [`windows`]: `recovery_windows`: from which moment to which, and why each window ends.
//! * [`status`]: the last backup and the end of the archive.
//!
//! A *range* is a gap-free run of segments of one timeline. Damage of what is stored is a row; an error is what keeps the
//! work itself from being done. Nothing is written.

pub mod archive;
pub mod chains;
pub mod damage;
pub mod deep;
pub mod evidence;
#[cfg(test)]
pub(crate) mod fixture;
pub mod ranges;
pub mod status;
pub mod twice;
pub mod windows;

pub use archive::{Depth, verify_archive};
pub use evidence::Evidence;
pub use windows::{Windows, windows};


use crate::repository::{Cluster, Record};
use crate::session::Session;
use crate::wal::archive::Archive;
use crate::wal::moments::Moments;
use crate::wal::survey::Look;
use pg_ark_contract::Result;
use pg_ark_contract::rows::{ArchiveRow, StatusRow};

/// Whoever waits for the work: hears how far it is, and can end it.
pub trait Watch: Sync {
    /// Called within every frame.
    ///
    /// # Errors
    /// The reason to stop.
    fn check(&self) -> Result<()>;

    /// There are so many bytes of WAL to read.
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

/// [`windows()`] of a cluster. Timelines whose history cannot be read have none, and a remark.
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
    let records = records_of(cluster, &archive)?;
    let mut moments = Moments::new(&archive, survey.segment_size).with_check(&check);
    let broken = archive::broken(&survey, &mut moments)?;
    let evidence = Evidence::weigh(&survey, moments.gone(&survey)?, &records);
    let mut found = windows(&survey, &records, &broken, &evidence, &mut moments)?;
    let faults = histories.iter().map(|(_, error)| error).chain(&size);
    found.remarks.splice(0..0, faults.map(ranges::text));
    Ok(found)
}

/// [`status::status`] of a cluster.
///
/// # Errors
/// As [`status::status`].
pub fn status_of(cluster: &Cluster, system_identifier: Option<u64>, watch: &dyn Watch) -> Result<StatusRow> {
    let archive = archive_of(cluster, system_identifier);
    let records = archive.as_ref().map_or(Ok(Vec::new()), |archive| records_of(cluster, archive))?;
    status::status(&records, archive.as_ref(), &|| watch.check())
}

/// The cluster's backups that go with an archive.
fn records_of(cluster: &Cluster, archive: &Archive) -> Result<Vec<Record>> {
    let system = archive.system_identifier().to_string();
    let mut records = cluster.backups()?;
    records.retain(|record| record.system_identifier == system);
    Ok(records)
}
