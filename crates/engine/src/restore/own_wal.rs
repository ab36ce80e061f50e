//! The WAL that a backup brings itself. The manifest does not list it: whether all of it came, and whose it is, is looked at
//! before a restore calls itself done.

use crate::postgres::wal_segment::{ExpectedSegment, SegmentName, check_first_page};
use crate::repository::Record;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes of a segment that tell whose it is.
const FIRST_PAGE: usize = 512;

/// Checks that every segment from the backup's start to its end is in `folder`, has its size and is the server's.
///
/// # Errors
/// `Corrupt` or `ForeignCluster` with the segment's name; `Io` when it cannot be read.
pub fn check(record: &Record, folder: &Path) -> Result<()> {
    let (Some(start), Some(stop), Some(timeline)) = (record.start_lsn, record.stop_lsn, record.timeline)
    else {
        return Ok(());
    };
    let size = record.wal_segment_size;
    if !record.wal_included || start >= stop {
        return Ok(());
    }
    for number in size.segment_of(start)..=size.last_segment_before(stop) {
        let expected = ExpectedSegment {
            name: SegmentName { timeline, number },
            segment_size: size,
            system_identifier: crate::backup::system_of(record)?,
            server_major: Some(record.server_version_num / 10_000),
        };
        segment(folder, &expected)?;
    }
    Ok(())
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
