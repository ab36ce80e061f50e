//! The proof that a WAL file is absent, for `wal-get`.
//!
//! PostgreSQL takes "not there" for the end of the WAL and opens the server, so a file that was lost must not look like
//! one that was never written. A segment is absent only when
//! * the repository has the archive's folder, with a segment or a history in it, and
//! * nothing in the archive speaks of the segment or a later one of its timeline ([`traces`](super::traces)), and
//! * no timeline of the archive descends from its timeline with a branch in a later segment;
//!
//! or when it lies before the segment in which its timeline begins (its history file says where). A history file is
//! absent only when nothing in the archive speaks of the timeline or of a higher one, because numbers are given in order,
//! and when no `.partial` tells of a promotion without a history; or when the server has it itself.
//!
//! What retention removed was there: it is never absent, and the error says who removed it.
//!
//! What PostgreSQL asks for beyond the end of the WAL (`XLogFileReadAnyTLI` in xlogrecovery.c): the segment on each
//! timeline of the history from the newest on, unless the timeline begins in a later segment; history files from the next
//! timeline's on until one is absent (`findNewestTimeLine` in timeline.c), at the beginning and again at the end of a
//! recovery. To it the first absent number is the end of all timelines.

use super::archive::Archive;
use super::pruned::Pruned;
use super::traces::{self, Trace};
use crate::postgres::timeline::{TimelineHistory, history_file_name};
use crate::postgres::wal_segment::SegmentName;
use pg_ark_contract::{Error, ErrorKind, Result, SegmentSize, Timeline};
use std::collections::BTreeMap;

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
    let pruned = traces::pruned(archive, size)?;
    match traces::of_segment(archive, name, size, &pruned)? {
        Some(Trace::Segment(found)) if found == name => return Ok(Verdict::Present),
        _ if pruned.holds(timeline, name.number) => {
            return Ok(Verdict::Lost(removed(archive, &name.file_name(size), &pruned)));
        }
        Some(trace) => return Ok(Verdict::Lost(gap(archive, &name.file_name(size), trace.why(size)))),
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
pub fn history(archive: &Archive, timeline: Timeline, size: SegmentSize) -> Result<Verdict> {
    any_wal(archive)?;
    if timeline.0 <= 1 {
        return Ok(Verdict::Absent);
    }
    let (histories, _) = archive.histories()?;
    if histories.contains_key(&timeline) {
        return Ok(Verdict::Present);
    }
    let lost = |why: String| Ok(Verdict::Lost(no_history(archive, timeline, &histories, why)));
    if let Some((other, history)) = histories.range(timeline..).next() {
        let descends = history.entries.iter().any(|entry| entry.timeline == timeline);
        let what = if descends { "descends from it" } else { "is newer, and numbers are given in order" };
        return lost(format!("Timeline {other} of the archive {what}."));
    }
    if let Some(trace) = traces::of_timeline(archive, timeline, &traces::pruned(archive, size)?)? {
        return lost(trace.why(size));
    }
    // Only the first missing number can be the one of the promotion.
    let below = (1..timeline.0).rev().map(Timeline);
    for parent in below {
        if let Some(partial) = promoted(archive, parent, size, &histories)? {
            let name = partial.file_name(size);
            return lost(format!(
                "The archive has {name}.partial, which a promotion left, and no history of what began there."
            ));
        }
        if parent.0 > 1 && !histories.contains_key(&parent) {
            break;
        }
    }
    Ok(Verdict::Absent)
}

/// The newest `.partial` of a timeline, when no history says what began in it. PostgreSQL writes the history before it
/// renames the segment (`CleanupAfterArchiveRecovery` in xlog.c), and archives histories first.
fn promoted(
    archive: &Archive,
    parent: Timeline,
    size: SegmentSize,
    histories: &BTreeMap<Timeline, TimelineHistory>,
) -> Result<Option<SegmentName>> {
    let Some(log) = archive.logs(parent)?.into_iter().next_back() else { return Ok(None) };
    let Some(low) = archive.list(parent, log)?.partials.pop() else { return Ok(None) };
    let stem = format!("{:08X}{log:08X}{low:08X}", parent.0);
    Ok(SegmentName::parse(&stem, size).filter(|partial| {
        // A history can name another timeline of the branch: what was read there may have been a descendant's copy.
        let mut newer = histories.values().filter(|history| history.timeline > parent);
        !newer.any(|history| {
            history.entries.iter().any(|entry| size.segment_of(entry.switch_lsn) == partial.number)
        })
    }))
}

/// Fails for an archive without segments and histories: a repository that lost its WAL is not the end of the WAL.
///
/// # Errors
/// `RepositoryNotFound`; what the store said.
pub fn any_wal(archive: &Archive) -> Result<()> {
    let files = archive.storage().files(&archive.folder())?;
    let is_history =
        |path: &String| crate::postgres::wal_segment::is_history(path.rsplit('/').next().unwrap_or_default());
    if files.iter().any(is_history) {
        return Ok(());
    }
    for timeline in archive.timelines()?.into_iter().rev() {
        for log in archive.logs(timeline)?.into_iter().rev() {
            if !archive.list(timeline, log)?.segments.is_empty() {
                return Ok(());
            }
        }
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

/// The error for a segment that is no more needed, as far as retention knew.
fn removed(archive: &Archive, name: &str, pruned: &Pruned) -> Error {
    let place = archive.path(name).unwrap_or_else(|_| archive.folder());
    let message = format!("\"{}\" was removed by retention", archive.storage().display(&place));
    let told = archive.storage().display(&archive.pruned_path());
    Error::new(ErrorKind::WalMissing, message)
        .detail(format!("\"{told}\" says so; retention last removed WAL at {}.", pruned.when()))
        .hint("The backup that recovery began with is kept without the WAL that follows it: recover to its own end (target immediate), or from a later backup.")
}

fn gap(archive: &Archive, name: &str, why: String) -> Error {
    let place = archive.path(name).unwrap_or_else(|_| archive.folder());
    Error::new(ErrorKind::WalMissing, format!("\"{}\" is missing", archive.storage().display(&place)))
        .detail(why)
        .hint("Recovery cannot go on without it. Get the file back from a copy, or archive it from the server's pg_wal.")
}

fn no_history(
    archive: &Archive,
    timeline: Timeline,
    histories: &BTreeMap<Timeline, TimelineHistory>,
    why: String,
) -> Error {
    let newest = histories.keys().next_back().filter(|newest| **newest > timeline);
    let way = newest.map_or(String::new(), |newest| {
        format!(
            " To recover along timeline {newest} without it, set recovery_target_timeline = '{newest}' in \
             postgresql.auto.conf."
        )
    });
    gap(archive, &history_file_name(timeline), why).hint(format!(
        "PostgreSQL would take timeline {} for the newest. Get the file back from a copy, or from a server's pg_wal.{way}",
        timeline.0 - 1
    ))
}

#[cfg(test)]
#[path = "absent_tests.rs"]
mod tests;
