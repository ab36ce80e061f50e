//! The WAL without which a backup is not consistent: in its own `pg_wal.tar`, which no manifest lists, or in the archive.
//! Whether it is whole is looked at before a restore calls itself done; WAL that follows is read by recovery.

use super::watch::{self, Watch};
use crate::postgres::wal_segment::{ExpectedSegment, SegmentName, check_first_page};
use crate::repository::Record;
use crate::wal::Archive;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes of a segment that tell whose it is.
const FIRST_PAGE: usize = 512;
const ARCHIVED_HINT: &str = "Without it the backup cannot be restored: get it back from a copy, or restore another backup. Nothing was touched.";

/// Checks that every segment from the backup's start to its end is in `folder`, has its size and is the server's.
///
/// # Errors
/// `Corrupt` or `ForeignCluster` with the segment's name; `Io` when it cannot be read.
pub fn check(record: &Record, folder: &Path) -> Result<()> {
    for name in needed(record).filter(|_| record.wal_included) {
        segment(folder, &expected(record, name)?)?;
    }
    Ok(())
}

/// Reads every stored segment from the backup's start to its end, when the backup does not bring them itself. One that
/// is not stored is no matter of this: the plan says where it comes from.
///
/// # Errors
/// `Corrupt` or `ForeignCluster` for the first that recovery could not use; `Cancelled`; what the store said.
pub fn archived(record: &Record, archive: &Archive, watch: &dyn Watch) -> Result<()> {
    let mut names = needed(record).filter(|_| !record.wal_included).peekable();
    let Some(first) = names.peek() else { return Ok(()) };
    let history = archive.history(first.timeline)?;
    for name in names {
        let expected = expected(record, name)?;
        let Some(found) = archive.find(&name.file_name(expected.segment_size))? else { continue };
        archive.read_segment_on(&found, &expected, history.as_ref(), &mut |_| watch::check(watch)).map_err(
            |e| match e.kind {
                ErrorKind::Corrupt => e.hint(ARCHIVED_HINT),
                _ => e,
            },
        )?;
    }
    Ok(())
}

/// The segments from the backup's start to its end; none when the record says neither.
fn needed(record: &Record) -> impl Iterator<Item = SegmentName> {
    let size = record.wal_segment_size;
    let range =
        record.start_lsn.zip(record.stop_lsn).filter(|(start, stop)| start < stop).zip(record.timeline);
    range.into_iter().flat_map(move |((start, stop), timeline)| {
        (size.segment_of(start)..=size.last_segment_before(stop))
            .map(move |number| SegmentName { timeline, number })
    })
}

fn expected(record: &Record, name: SegmentName) -> Result<ExpectedSegment> {
    Ok(ExpectedSegment {
        name,
        segment_size: record.wal_segment_size,
        system_identifier: crate::backup::system_of(record)?,
        server_major: Some(record.server_version_num / 10_000),
    })
}

fn segment(folder: &Path, expected: &ExpectedSegment) -> Result<()> {
    let name = expected.name.file_name(expected.segment_size);
    let damaged = |what: String| {
        Err(Error::new(ErrorKind::Corrupt, format!("the WAL in the backup is damaged: {what}")).hint(
            "pg_wal.tar is not whole, and without it the backup cannot be restored. Restore another backup.",
        ))
    };
    let path = folder.join(&name);
    let file = match File::open(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return damaged(format!("{name} is missing")),
        opened => opened,
    };
    let failed = |e| Error::io(format!("could not read \"{}\"", path.display()), &e);
    let file = file.map_err(failed)?;
    let found = file.metadata().map_err(failed)?.len();
    let wanted = expected.segment_size.bytes();
    if found != wanted {
        return damaged(format!("{name} has {found} bytes instead of {wanted}"));
    }
    let mut first = Vec::with_capacity(FIRST_PAGE);
    file.take(FIRST_PAGE as u64).read_to_end(&mut first).map_err(failed)?;
    check_first_page(&first, expected)
}
