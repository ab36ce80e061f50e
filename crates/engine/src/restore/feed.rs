//! Gives an old server's WAL to the new one.
//!
//! Recovery asks restore_command for each file and looks into pg_wal when the answer is "not there"
//! (`RestoreArchivedFile` in access/transam/xlogarchive.c), so what continues the archive goes into the new pg_wal. A
//! `.ready` beside it makes the server archive it once it takes connections, and keep it until then even where it is
//! behind the place that recovery stops at (`RemoveNonParentXlogFiles` in xlog.c). While a server recovers, however,
//! its checkpoints remove what is not archived (`XLogArchiveCheckDone`): [`keep_size`] says what `wal_keep_size` has to
//! be meanwhile.
//! Recovery takes a hole in the middle of the archive for a fault, so what fills one goes into the archive itself.

use super::access::{Access, sync_folder};
use super::old_wal::{Identity, Kept};
use super::old_wal_end;
use super::saved;
use super::watch::{self, Watch};
use crate::wal::Archive;
use crate::wal::store::{self, Source};
use pg_ark_contract::settings::Compression;
use pg_ark_contract::{Error, Result, SegmentSize};
use std::path::Path;

/// Name of a segment in pg_wal that is being made; a server that starts removes such files (`RemoveTempXlogFiles`).
const TEMPORARY: &str = "xlogtemp.pgark";

/// What `archive_status` says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It is finished, and the server archives it.
    Ready,
    /// The archive holds the `.partial` that a promotion would make of it (`CleanupAfterArchiveRecovery` in xlog.c), so
    /// that none must be made: with other content it would never be accepted.
    Done,
}

/// Copies files into a new `pg_wal`. One that is there already, from the backup, stays unless the old server's has
/// more whole records; then it is replaced as a whole.
///
/// # Errors
/// `Cancelled`, what the systems said.
pub fn put(
    wal: &Path,
    files: &[Kept],
    status_of: &dyn Fn(&Kept) -> Option<Status>,
    (identity, archive): (&Identity, &Archive),
    access: &Access,
    watch: &dyn Watch,
) -> Result<()> {
    let temporary = wal.join(TEMPORARY);
    let failed =
        |what: &Path, e: std::io::Error| Error::io(format!("could not write \"{}\"", what.display()), &e);
    for kept in files {
        watch::check(watch)?;
        let place = wal.join(&kept.name);
        if place.exists() {
            let there = Kept { path: place.clone(), doomed: false, stored: None, ..kept.clone() };
            if !old_wal_end::is_better(kept, &there, identity, archive)? {
                continue;
            }
        }
        match std::fs::remove_file(&temporary) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(&temporary, e)),
            _ => {}
        }
        match &kept.stored {
            None => saved::copy(&kept.path, &temporary, access)?,
            Some(_) => saved::write(&temporary, access, &mut |sink| decode(kept, identity, archive, sink))?,
        }
        std::fs::rename(&temporary, &place).map_err(|e| failed(&place, e))?;
    }
    let status = wal.join("archive_status");
    for (kept, tells) in files.iter().filter_map(|kept| Some((kept, status_of(kept)?))) {
        let suffix = match tells {
            Status::Ready => "ready",
            Status::Done => "done",
        };
        let file = status.join(format!("{}.{suffix}", kept.name));
        match access.create_file(&file, 0o600) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(&file, e)),
            _ => {}
        }
    }
    for folder in [&status, wal] {
        sync_folder(folder).map_err(|e| Error::io(format!("could not sync \"{}\"", folder.display()), &e))?;
    }
    Ok(())
}

/// Shows the bytes of a segment of the archive to a file.
fn decode(
    kept: &Kept,
    identity: &Identity,
    archive: &Archive,
    sink: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<()> {
    let mut failed = None;
    old_wal_end::show(kept, identity, archive, &mut |bytes| {
        if failed.is_none() {
            failed = sink(bytes).err();
        }
    })?;
    failed.map_or(Ok(()), |e| Err(Error::io(format!("could not write \"{}\"", kept.name), &e)))
}

/// What `wal_keep_size` must be, in MB, so that a server still has these files when recovery ends.
pub fn keep_size(files: &[Kept], size: SegmentSize) -> u64 {
    let bytes = files.iter().fold(2 * size.bytes(), |sum, kept| sum.saturating_add(kept.bytes));
    // The setting's largest value (MAX_KILOBYTES, utils/guc.h).
    bytes.div_ceil(1 << 20).min(i32::MAX as u64)
}

/// Stores files in the archive, which has later ones.
///
/// # Errors
/// See [`store::store`].
pub fn fill(archive: &Archive, files: &[Kept], identity: &Identity, compression: Compression) -> Result<()> {
    for kept in files {
        let source = Source {
            folder: kept.path.parent().unwrap_or(Path::new("/")).to_path_buf(),
            segment_size: identity.size,
            server_major: Some(identity.server_major),
        };
        store::store(archive, &source, &kept.name, compression)?;
    }
    Ok(())
}
