//! How far an old server's WAL reaches: its records are followed, with their checksums, from where the archive ends.

use super::old_wal::{Identity, Kept, OldWal};
use crate::bounded;
use crate::postgres::wal_record::{Event, WalReader};
use crate::postgres::wal_segment::SegmentName;
use crate::wal::survey::Run;
use crate::wal::{Archive, Survey};
use pg_ark_contract::{Error, ErrorKind, Lsn, Result, SegmentSize, Timeline};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// Segments of one timeline, one after the other, with whole records in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    /// Timeline of the files.
    pub timeline: Timeline,
    /// Their numbers.
    pub run: Run,
    /// End of the last whole record.
    pub end: Lsn,
    /// Time of the last commit or rollback, in microseconds since 2000-01-01 UTC.
    pub last_commit: Option<i64>,
    /// The records break off there: what comes behind in the last segment is not WAL, or is damaged.
    pub broken: bool,
}

impl Tail {
    /// Whether the segment is one of them.
    pub fn holds(&self, name: SegmentName) -> bool {
        name.timeline == self.timeline && (self.run.first..=self.run.last).contains(&name.number)
    }
}

/// Compares what both have, newest first, until it is equal: servers that write the same timeline part once and for
/// all. What differs moves to what the archive lacks. Returns the timelines that cannot continue the archive, each with
/// its first such segment.
///
/// # Errors
/// What the systems said.
pub(super) fn compare(old: &mut OldWal, archive: &Archive) -> Result<BTreeSet<SegmentName>> {
    let mut apart = BTreeSet::new();
    let timelines: BTreeSet<Timeline> = old.common.keys().map(|name| name.timeline).collect();
    for timeline in timelines {
        let names: Vec<SegmentName> = old.common.keys().filter(|n| n.timeline == timeline).copied().collect();
        let mut first = None;
        for name in names.into_iter().rev() {
            let Some(kept) = old.common.get(&name) else { continue };
            let Some(at) = differs(kept, name, &old.identity, archive)? else { break };
            // A segment that was not finished when the archive got it from another server is not another history.
            let start = name.start(old.identity.size);
            let own_end = end_of(kept, name, &old.identity, archive)?;
            if own_end.is_none_or(|end| end.0 <= start.0.saturating_add(at)) {
                break;
            }
            first = Some((name, at));
            if let Some(kept) = old.common.remove(&name) {
                old.segments.insert(name, kept);
            }
        }
        if let Some((name, at)) = first {
            old.warnings.push(format!(
                "the archive holds other WAL than the old server from {} on (segment {}): two servers wrote timeline \
                 {timeline}. The archive's is used; the old server's is saved",
                Lsn(name.start(old.identity.size).0.saturating_add(at)),
                name.file_name(old.identity.size)
            ));
            apart.insert(name);
        }
    }
    Ok(apart)
}

/// The first byte at which a file differs from the archive's; `None` when it does not, or the archive's is damaged.
fn differs(kept: &Kept, name: SegmentName, identity: &Identity, archive: &Archive) -> Result<Option<u64>> {
    let Some(found) = archive.find(&kept.name)? else { return Ok(None) };
    let mut file = open(&kept.path)?;
    let (mut at, mut parted) = (0u64, None);
    let read = archive.read_segment(&found, &identity.expected(name), &mut |stored| {
        if parted.is_none() {
            let mut ours = vec![0; stored.len()];
            file.read_exact(&mut ours).map_err(|e| unreadable(&kept.path, &e))?;
            let equal = ours.iter().zip(stored).take_while(|(a, b)| a == b).count();
            parted = (equal < stored.len()).then_some(at + equal as u64);
            at += stored.len() as u64;
        }
        Ok(())
    });
    match read {
        // Recovery tells about it, should it need the segment.
        Err(error) if error.kind == ErrorKind::Corrupt => Ok(None),
        read => read.map(|()| parted),
    }
}

/// Follows the records of every run of segments. What cannot continue the archive is left out.
///
/// # Errors
/// What the systems said.
pub(super) fn tails(
    old: &OldWal,
    archive: &Archive,
    survey: &Survey,
    apart: &BTreeSet<SegmentName>,
) -> Result<Vec<Tail>> {
    let mut tails = Vec::new();
    let is_apart = |name: SegmentName| {
        apart.iter().any(|from| from.timeline == name.timeline && from.number <= name.number)
    };
    let mut names = old.segments.keys().copied().filter(|name| !is_apart(*name)).peekable();
    while let Some(first) = names.next() {
        let mut last = first;
        while let Some(next) = names.next_if(|name| *name == last.next()) {
            last = next;
        }
        let run = Run { first: first.number, last: last.number };
        let Some(mut tail) = follow(old, archive, first.timeline, run)? else { continue };
        // A damaged segment fills no hole: the archive may get a good one yet.
        let stored = survey.timelines.get(&first.timeline).and_then(|content| content.newest());
        if tail.broken && stored.is_some_and(|newest| newest > tail.run.last) {
            let Some(before) = tail.run.last.checked_sub(1).filter(|before| *before >= tail.run.first) else {
                continue;
            };
            tail.run.last = before;
            (tail.end, tail.broken) = (tail.end.min(old.identity.size.start_of(before + 1)), false);
        }
        tails.push(tail);
    }
    Ok(tails)
}

fn follow(old: &OldWal, archive: &Archive, timeline: Timeline, run: Run) -> Result<Option<Tail>> {
    let size = old.identity.size;
    let begin = size.start_of(run.first);
    let mut reader = follow_before(old, archive, SegmentName { timeline, number: run.first })?
        .unwrap_or_else(|| WalReader::new(begin, size, true));
    let mut last_commit = None;
    for number in run.first..=run.last {
        let Some(kept) = old.segments.get(&SegmentName { timeline, number }) else { break };
        show(kept, &old.identity, archive, &mut |bytes| {
            reader.feed(bytes, &mut |record| {
                if let Some(Event::Commit { time, .. } | Event::Abort { time, .. }) = record.event() {
                    last_commit = Some(time);
                }
            });
        })?;
        if reader.stopped().is_some() {
            break;
        }
    }
    let Some(end) = reader.end().filter(|end| *end > begin) else { return Ok(None) };
    let last = size.last_segment_before(end).min(run.last);
    let broken = reader.stopped().is_some();
    Ok(Some(Tail { timeline, run: Run { first: run.first, last }, end, last_commit, broken }))
}

/// A reader behind the segment before, so that the chain of records is proved from there; `None` when there is none.
fn follow_before(old: &OldWal, archive: &Archive, first: SegmentName) -> Result<Option<WalReader>> {
    let Some(number) = first.number.checked_sub(1) else { return Ok(None) };
    let (name, size) = (SegmentName { number, ..first }, old.identity.size);
    let mut reader = WalReader::new(name.start(size), size, true);
    if let Some(kept) = old.common.get(&name) {
        read(&kept.path, size, &mut |bytes| reader.feed(bytes, &mut |_| {}))?;
        return Ok(Some(reader));
    }
    let Some(found) = archive.find(&name.file_name(size))? else { return Ok(None) };
    let stored = archive.read_segment(&found, &old.identity.expected(name), &mut |bytes| {
        reader.feed(bytes, &mut |_| {});
        Ok(())
    });
    match stored {
        Ok(()) => Ok(Some(reader)),
        // Damage there is for recovery to tell.
        Err(error) if error.kind == ErrorKind::Corrupt => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether `new` is to be taken in place of `known`, another file of the same name: the one with more whole records, and
/// of equals the one that stays.
///
/// # Errors
/// What the system said.
pub(super) fn is_better(new: &Kept, known: &Kept, identity: &Identity, archive: &Archive) -> Result<bool> {
    let Some(name) = SegmentName::parse(&new.name, identity.size) else { return Ok(false) };
    let ends = (end_of(new, name, identity, archive)?, end_of(known, name, identity, archive)?);
    Ok(ends.0 > ends.1 || ends.0 == ends.1 && known.doomed && !new.doomed)
}

/// End of the last whole record in a segment; `None` when there is none.
///
/// # Errors
/// What the system said.
pub(super) fn end_of(
    kept: &Kept,
    name: SegmentName,
    identity: &Identity,
    archive: &Archive,
) -> Result<Option<Lsn>> {
    let mut reader = WalReader::new(name.start(identity.size), identity.size, true);
    show(kept, identity, archive, &mut |bytes| reader.feed(bytes, &mut |_| {}))?;
    Ok(reader.end())
}

/// Shows the bytes of a segment, wherever it is.
///
/// # Errors
/// What the systems said; for one in the archive see [`Archive::read_segment`].
pub(super) fn show(
    kept: &Kept,
    identity: &Identity,
    archive: &Archive,
    sink: &mut dyn FnMut(&[u8]),
) -> Result<()> {
    let Some(found) = &kept.stored else { return read(&kept.path, identity.size, sink) };
    let name = SegmentName::parse(&kept.name, identity.size).ok_or_else(|| {
        Error::new(ErrorKind::Internal, format!("\"{}\" is not the name of a segment", kept.name))
    })?;
    archive.read_segment(found, &identity.expected(name), &mut |bytes| {
        sink(bytes);
        Ok(())
    })
}

/// Shows the bytes of a file, at most those of a segment.
fn read(path: &Path, size: SegmentSize, sink: &mut dyn FnMut(&[u8])) -> Result<()> {
    let mut file = open(path)?.take(size.bytes());
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => sink(buffer.get(..count).unwrap_or_default()),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(unreadable(path, &e)),
        }
    }
}

fn open(path: &Path) -> Result<File> {
    bounded::open(path).map_err(|e| unreadable(path, &e))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::io(format!("could not read \"{}\"", path.display()), error)
}
