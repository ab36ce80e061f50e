//! Carries out what was decided about an old server: its WAL is saved, gaps of the archive are filled, and only then is
//! its place cleared; later the new server gets what recovery can use.

use super::access::Access;
use super::facts::{Facts, Folder};
use super::feed::{self, Status};
use super::hold;
use super::marker::{MARKER, Marker};
use super::old_wal::{Identity, Kept};
use super::plan::Plan;
use super::removal::{self, What};
use super::replace::Replaced;
use super::salvage::Salvage;
use super::saved::{self, Note};
use super::watch::Watch;
use crate::postgres::control_file::CONTROL_FILE;
use crate::repository::Record;
use crate::wal::Archive;
use pg_ark_contract::units::human_bytes;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What is ready for the new server.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    /// Folders that keep the old server's WAL, the new one last.
    pub folders: Vec<PathBuf>,
    /// Files for the new pg_wal, where they are now.
    feed: Vec<Kept>,
    /// The note of the new folder, which a full disk had no room for.
    note: Option<(PathBuf, Note)>,
}

/// Saves and fills. Touches nothing but its own folder and the archive.
///
/// # Errors
/// `DiskFull`, `Cancelled`, `WalConflict`, what the systems said.
pub fn take(
    plan: &Plan,
    record: &Record,
    archive: &Archive,
    salvage: &Salvage,
    watch: &dyn Watch,
) -> Result<Taken> {
    let data = &plan.data_directory;
    let found = saved::find(data, archive.system_identifier())?;
    found.unfinished.iter().for_each(|folder| saved::remove_unfinished(folder));
    let mut folders: Vec<PathBuf> =
        found.finished.into_iter().filter(|folder| salvage.sources.contains(folder)).collect();
    let (mut feed, mut pending) = (salvage.files.feed.clone(), None);
    if !salvage.files.save.is_empty() {
        let files: Vec<&Kept> = salvage.files.save.iter().collect();
        let note = Note::new(&plan.cluster, archive.system_identifier(), &files, salvage.end_lsn);
        let (folder, noted) = saved::save(&files, &note, data, &plan.access, watch)?;
        pending = (!noted).then(|| (folder.clone(), note));
        for kept in feed.iter_mut().filter(|kept| kept.doomed) {
            kept.path = folder.join(&kept.name);
        }
        folders.push(folder);
    }
    feed::fill(archive, &salvage.files.fill, &identity(record, archive), record.compression)?;
    Ok(Taken { folders, feed, note: pending })
}

/// Adds to the free space what clearing will free, and refuses what cannot even be saved.
///
/// # Errors
/// `NotEnoughSpace`; what the system said.
pub fn account(replaced: &Replaced, salvage: Option<&Salvage>, facts: &mut Facts) -> Result<()> {
    let beside = Folder::look(facts.data.path.parent().unwrap_or(Path::new("/")))?;
    let files = salvage.map_or(&[][..], |salvage| &salvage.files.save);
    // Files of the same file system only get a second name; they are not freed, however.
    let (mut copied, mut linked) = (0u64, 0u64);
    for kept in files {
        let device = std::fs::metadata(&kept.path).map(|meta| meta.dev());
        let sum = if device.is_ok_and(|device| device == beside.device) { &mut linked } else { &mut copied };
        *sum = sum.saturating_add(kept.bytes);
    }
    if copied > beside.free {
        return Err(Error::new(
            ErrorKind::NotEnoughSpace,
            format!(
                "the old server's WAL has {}, and {} are free at \"{}\", where it would be saved",
                human_bytes(copied),
                human_bytes(beside.free),
                beside.path.display()
            ),
        )
        .hint(
            "Nothing was touched. Make room there, or copy the old pg_wal to another disk and name the copy with \
             --keep-wal.",
        ));
    }
    let own = [&mut facts.data].into_iter().chain(&mut facts.wal).chain(&mut facts.tablespaces);
    for folder in own.chain(&mut facts.new_tablespaces) {
        let kept = if folder.device == beside.device { linked.saturating_add(copied) } else { 0 };
        folder.free = folder.free.saturating_add(replaced.freed(folder.device)).saturating_sub(kept);
    }
    Ok(())
}

/// What the marker of a restore says of the old place.
pub fn mark(marker: &mut Marker, plan: &Plan, taken: &Taken) {
    marker.system_identifier = Some(plan.system_identifier.clone());
    marker.saved_wal.clone_from(&taken.folders);
    let cleared = plan.replaced.folders.iter().filter(|removal| removal.what == What::Tablespace);
    let younger = cleared.map(|removal| removal.folder.clone()).filter(|f| !marker.folders.contains(f));
    marker.younger = younger.collect();
}

/// Makes the data directory, and keeps other restores away from it while its handle is open. A server may have been started
/// since the plan was made.
///
/// # Errors
/// As [`hold::take`]; `ServerRunning`.
pub fn lock(plan: &Plan) -> Result<File> {
    let held = hold::take(&plan.data_directory, replaces(plan), &plan.access)?;
    plan.replaced.check_unused(&plan.data_directory)?;
    Ok(held)
}

fn replaces(plan: &Plan) -> bool {
    plan.replaced.folders.iter().any(|removal| removal.what == What::DataDirectory)
}

/// Writes the marker. The old server's WAL is safe by now, so where the disk is full its files make room: first the one
/// without which it cannot start, which is the first to go in any case.
///
/// # Errors
/// `DiskFull`, what the system said.
pub fn write_marker(plan: &Plan, marker: &[u8]) -> Result<()> {
    let data = &plan.data_directory;
    let write = || plan.access.replace_file(&data.join(MARKER), marker, 0o600);
    let mut written = write();
    for victim in [CONTROL_FILE, "base"] {
        match &written {
            Err(error) if error.kind == ErrorKind::DiskFull && replaces(plan) => {
                removal::one(&data.join(victim))?;
                written = write();
            }
            _ => break,
        }
    }
    written
}

/// Clears the old place; the marker has been written.
///
/// # Errors
/// See [`removal::clear`]; what the system said to the note about saved WAL that had no room before.
pub fn clear(plan: &Plan, taken: &Taken, watch: &dyn Watch) -> Result<()> {
    removal::clear(&plan.replaced.folders, &plan.data_directory, watch)?;
    match &taken.note {
        Some((folder, note)) => saved::write_note(folder, note, &plan.access),
        None => Ok(()),
    }
}

/// Gives the new `pg_wal` what recovery can use.
///
/// # Errors
/// See [`feed::put`].
pub fn give(
    taken: &Taken,
    salvage: &Salvage,
    record: &Record,
    archive: &Archive,
    wal: &Path,
    access: &Access,
    watch: &dyn Watch,
) -> Result<()> {
    if taken.feed.is_empty() {
        return Ok(());
    }
    let status = |kept: &Kept| match salvage.files.whole.contains(&kept.name) {
        true => Some(Status::Ready),
        false => salvage.files.done.contains(&kept.name).then_some(Status::Done),
    };
    feed::put(wal, &taken.feed, &status, (&identity(record, archive), archive), access, watch)
}

fn identity(record: &Record, archive: &Archive) -> Identity {
    Identity {
        system_identifier: archive.system_identifier(),
        size: record.wal_segment_size,
        server_major: record.server_version_num / 10_000,
    }
}
