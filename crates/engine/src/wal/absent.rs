//! The proof that a WAL file is absent, for `wal-get`.
//!
//! PostgreSQL takes "not there" for the end of the WAL and opens the server, so a file that was lost must not look like
//! one that was never written. A segment is absent only when
//! * the repository has the archive's folder, with something in it, and
//! * the archive has no later segment of its timeline, and
//! * no timeline of the archive descends from its timeline with a branch in a later segment;
//!
//! or when it lies before the segment in which its timeline begins (its history file says where). A history file is
//! absent only when the archive has no segment of the timeline, and no other timeline descends from it; or when the server
//! has it itself.
//!
//! What PostgreSQL asks for beyond the end of the WAL (`XLogFileReadAnyTLI` in xlogrecovery.c): the segment on each
//! timeline of the history from the newest on, unless the timeline begins in a later segment; history files from the next
//! timeline's on until one is absent (`findNewestTimeLine` in timeline.c).

use super::archive::Archive;
use crate::postgres::timeline::history_file_name;
use crate::postgres::wal_segment::SegmentName;
use pg_ark_contract::{Error, ErrorKind, Result, SegmentSize, Timeline};

/// What the archive says about a file that it does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Proven absent.
    Absent,
    /// It came while it was looked for.
    Present,
    /// It must have been there: why, as the error to report.
    Lost(Error),
}

/// Judges a segment.
///
/// # Errors
/// `RepositoryNotFound` for an archive without anything; `Corrupt` for a damaged history; what the store said.
pub fn segment(archive: &Archive, name: SegmentName, size: SegmentSize) -> Result<Verdict> {
    any_wal(archive)?;
    let timeline = name.timeline;
    let begin = archive.history(timeline)?.and_then(|history| Some(history.entries.last()?.switch_lsn));
    if begin.is_some_and(|begin| name.number < size.segment_of(begin)) {
        return Ok(Verdict::Absent);
    }
    match later(archive, name, size)? {
        Some(found) if found == name => return Ok(Verdict::Present),
        Some(found) => {
            let why = format!("The archive has a later segment, {}.", found.file_name(size));
            return Ok(Verdict::Lost(gap(archive, &name.file_name(size), why)));
        }
        None => {}
    }
    for (other, history) in archive.histories()?.0 {
        let Some(left) = history.end_of(timeline) else { continue };
        if size.segment_of(left) > name.number {
            let why = format!("Timeline {other} branched off timeline {timeline} only at {left}.");
            return Ok(Verdict::Lost(gap(archive, &name.file_name(size), why)));
        }
    }
    Ok(Verdict::Absent)
}

/// Judges a history file. Timeline 1 never has one.
///
/// # Errors
/// As [`segment`].
pub fn history(archive: &Archive, timeline: Timeline) -> Result<Verdict> {
    any_wal(archive)?;
    if timeline.0 <= 1 {
        return Ok(Verdict::Absent);
    }
    let name = history_file_name(timeline);
    for log in archive.logs(timeline)? {
        let folder = archive.list(timeline, log)?;
        if let Some(low) = folder.segments.first().or(folder.partials.first()) {
            let why =
                format!("The archive has segments of it, such as {:08X}{log:08X}{low:08X}.", timeline.0);
            return Ok(Verdict::Lost(gap(archive, &name, why)));
        }
    }
    let descendant = archive.histories()?.0.into_iter().find(|(other, history)| {
        *other != timeline && history.entries.iter().any(|entry| entry.timeline == timeline)
    });
    Ok(match descendant {
        Some((other, _)) => {
            Verdict::Lost(gap(archive, &name, format!("Timeline {other} of the archive descends from it.")))
        }
        None => Verdict::Absent,
    })
}

/// Fails for an archive without segments and histories: a repository that lost its WAL is not the end of the WAL.
///
/// # Errors
/// `RepositoryNotFound`; what the store said.
pub fn any_wal(archive: &Archive) -> Result<()> {
    if !archive.timelines()?.is_empty() || !archive.storage().files(&archive.folder())?.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::RepositoryNotFound,
        format!(
            "there is no WAL of system identifier {} at \"{}\"",
            archive.system_identifier(),
            archive.storage().display(&archive.folder())
        ),
    )
    .hint("Check --repo, --cluster and --system-identifier, and whether the repository is whole."))
}

/// The first segment of the timeline from `name` on; the search ends with the first folder that has one.
fn later(archive: &Archive, name: SegmentName, size: SegmentSize) -> Result<Option<SegmentName>> {
    let per_log = (1 << 32) / size.bytes();
    let from = name.number / per_log;
    for log in archive.logs(name.timeline)?.into_iter().filter(|log| u64::from(*log) >= from) {
        for low in archive.list(name.timeline, log)?.segments {
            let number = u64::from(log) * per_log + u64::from(low);
            if u64::from(low) < per_log && number >= name.number {
                return Ok(Some(SegmentName { timeline: name.timeline, number }));
            }
        }
    }
    Ok(None)
}

fn gap(archive: &Archive, name: &str, why: String) -> Error {
    let place = archive.path(name).unwrap_or_else(|_| archive.folder());
    Error::new(ErrorKind::WalMissing, format!("\"{}\" is missing", archive.storage().display(&place)))
        .detail(why)
        .hint("Recovery cannot go on without it. Get the file back from a copy, or archive it from the server's pg_wal.")
}

#[cfg(test)]
#[path = "absent_tests.rs"]
mod tests;
