//! The WAL that a backup needs: in its own `pg_wal.tar`, as it goes by, or in the archive.

use super::Subject;
use crate::postgres::timeline::{TimelineHistory, history_file_name};
use crate::postgres::wal_record::WalReader;
use crate::postgres::wal_segment::{ExpectedSegment, SegmentName, check_first_page};
use crate::repository::Record;
use crate::repository::record::ArchiveContent;
use crate::stored::faults::Fault;
use crate::verify::findings::Finding;
use crate::wal::archive::{Archive, Found, MAX_HISTORY, WalFile};
use pg_ark_contract::conversation::Level;
use pg_ark_contract::rows::Severity;
use pg_ark_contract::{Error, ErrorKind, Lsn, Result, SegmentSize, Timeline};
use std::collections::BTreeSet;

/// Missing segments that are told one by one.
const MAX_MISSING: usize = 100;
/// Segments of which the size is looked at.
const MAX_SIZES: usize = 100_000;
/// Fewer bytes than the frame of a compressed segment can have: its first page alone does not fit.
const LEAST_SIZE: u64 = 20;
/// Bytes of a segment that tell whose it is.
const FIRST_PAGE: usize = 512;
const HINT: &str = "Get it back from a copy, or from the server; without it the backup cannot be restored.";

/// Which WAL a backup needs.
#[derive(Debug, Clone, Copy)]
pub struct Needed {
    /// Where recovery starts.
    pub start: Lsn,
    /// What it must reach.
    pub stop: Lsn,
    /// The timeline of both.
    pub timeline: Timeline,
    size: SegmentSize,
    system_identifier: u64,
    server_major: u32,
}

impl Needed {
    /// What the record says; none when that cannot be.
    pub fn of(record: &Record) -> Option<Self> {
        Needed::stated(record).filter(|needed| !needed.is_too_much_for(record))
    }

    /// What the record says; none when it does not make sense in itself.
    pub fn stated(record: &Record) -> Option<Self> {
        let (start, stop) = (record.start_lsn?, record.stop_lsn?);
        (start < stop).then_some(Needed {
            start,
            stop,
            timeline: record.timeline.filter(|timeline| timeline.0 > 0)?,
            size: record.wal_segment_size,
            system_identifier: record.system_identifier.parse().ok()?,
            server_major: record.server_version_num / 10_000,
        })
    }

    /// Whether the backup's own archive of WAL cannot hold so much, by far: a few segments are told one by one.
    pub fn is_too_much_for(&self, record: &Record) -> bool {
        let count = (self.last() - self.first()).saturating_add(1);
        let own = record.archive(ArchiveContent::Wal).filter(|_| record.wal_included);
        let is_told = count <= MAX_MISSING as u64;
        !is_told && own.is_some_and(|own| count.saturating_mul(self.size.bytes()) > own.tar_bytes)
    }

    fn first(&self) -> u64 {
        self.size.segment_of(self.start)
    }

    fn last(&self) -> u64 {
        self.size.last_segment_before(self.stop)
    }

    fn segment(&self, number: u64) -> SegmentName {
        SegmentName { timeline: self.timeline, number }
    }

    fn name(&self, number: u64) -> String {
        self.segment(number).file_name(self.size)
    }

    fn expected(&self, name: SegmentName) -> ExpectedSegment {
        ExpectedSegment {
            name,
            segment_size: self.size,
            system_identifier: self.system_identifier,
            server_major: Some(self.server_major),
        }
    }

    /// Why records that were read up to the end do not do, with the segment in which they end.
    fn judge(&self, reader: &WalReader) -> Option<(String, String)> {
        if reader.end().is_some_and(|end| end >= self.stop) {
            return None;
        }
        let (end, why) = match reader.stopped() {
            Some(stop) => (stop.lsn, format!(": {}", stop.why)),
            None => (reader.end().unwrap_or(self.start), String::new()),
        };
        let number = self.size.segment_of(end).clamp(self.first(), self.last());
        let what = format!("its records end at {end}{why}; the backup needs them up to {}", self.stop);
        Some((self.name(number), what))
    }
}

/// `pg_wal.tar` as it goes by.
pub struct WalMembers {
    needed: Needed,
    seen: BTreeSet<u64>,
    has_history: bool,
    /// Follows the records; none once something was unreadable.
    reader: Option<(u64, WalReader)>,
    /// Something of it cannot be read.
    is_spoiled: bool,
}

impl WalMembers {
    /// None seen yet.
    pub fn new(needed: Needed) -> Self {
        let first = needed.first();
        let reader = WalReader::new(needed.size.start_of(first), needed.size, true);
        WalMembers {
            needed,
            seen: BTreeSet::new(),
            has_history: false,
            reader: Some((first, reader)),
            is_spoiled: false,
        }
    }

    /// A file begins: what is wrong with it, or how many of its bytes to keep for [`WalMembers::ended`].
    pub fn begins(&mut self, path: &[u8], size: u64) -> std::result::Result<usize, Fault> {
        let Ok(name) = std::str::from_utf8(path) else { return Ok(0) };
        match WalFile::of(name) {
            Some(WalFile::Segment) => {
                if size != self.needed.size.bytes() {
                    return Err(Fault::size(size, self.needed.size.bytes()));
                }
                self.saw(name);
                Ok(FIRST_PAGE)
            }
            Some(WalFile::History) => {
                self.has_history |= name == history_file_name(self.needed.timeline);
                Ok(usize::try_from(size.min(MAX_HISTORY)).unwrap_or_default())
            }
            _ => Ok(0),
        }
    }

    /// A file was there, whether it can be read or not.
    pub fn saw(&mut self, name: &str) {
        self.has_history |= name == history_file_name(self.needed.timeline);
        if let Some(name) = SegmentName::parse(name, self.needed.size)
            && name.timeline == self.needed.timeline
            && (self.needed.first()..=self.needed.last()).contains(&name.number)
        {
            self.seen.insert(name.number);
        }
    }

    /// Something of it cannot be read: its records are not judged.
    pub fn spoil(&mut self) {
        self.is_spoiled = true;
        self.reader = None;
    }

    /// Content of the segment at `path` goes by, in order.
    pub fn content(&mut self, path: &[u8], offset: u64, bytes: &[u8]) {
        let Some((number, reader)) = &mut self.reader else { return };
        let is_next = std::str::from_utf8(path).is_ok_and(|path| path == self.needed.name(*number));
        let at = self.needed.size.start_of(*number).0.saturating_add(offset);
        if !is_next || reader.position().0 != at {
            return;
        }
        reader.feed(bytes, &mut |_| {});
        if offset.saturating_add(bytes.len() as u64) == self.needed.size.bytes() {
            *number = number.saturating_add(1);
        }
    }

    /// What the first bytes of a file tell.
    pub fn ended(needed: &Needed, path: &[u8], kept: &[u8]) -> Option<Fault> {
        let name = std::str::from_utf8(path).ok()?;
        let judged = match WalFile::of(name)? {
            WalFile::Segment => {
                let name = SegmentName::parse(name, needed.size)?;
                check_first_page(kept, &needed.expected(name))
            }
            WalFile::History => {
                let timeline = crate::postgres::timeline::timeline_of_history_file(name)?;
                TimelineHistory::parse(timeline, kept).map(drop)
            }
            _ => Ok(()),
        };
        judged.err().map(|error| Fault::other(&error))
    }

    /// What is missing, and where the records break off: names of files and findings.
    pub fn finish(self) -> Vec<(String, String)> {
        let missing = |number: &u64| !self.seen.contains(number);
        let names = (self.needed.first()..=self.needed.last()).filter(missing).take(MAX_MISSING);
        let mut found: Vec<_> = names
            .map(|number| (self.needed.name(number), "is missing: the backup needs it".to_string()))
            .collect();
        if self.needed.timeline.0 > 1 && !self.has_history {
            found.push((
                history_file_name(self.needed.timeline),
                "is missing: the backup needs it".to_string(),
            ));
        }
        if found.is_empty() && !self.is_spoiled {
            found.extend(self.reader.as_ref().and_then(|(_, reader)| self.needed.judge(reader)));
        }
        found
    }
}

/// Looks at the WAL that a backup needs from the archive: names and sizes, from level data on every record of every
/// segment.
///
/// # Errors
/// What the store or the watch said.
pub fn archived(subject: &Subject<'_>, archive: &Archive, needed: &Needed) -> Result<()> {
    let history = history_of(subject, archive, needed.timeline)?;
    let first = needed.size.start_of(needed.first());
    let mut reader = (subject.level > Level::Record).then(|| WalReader::new(first, needed.size, true));
    let mut missing = 0;
    for number in needed.first()..=needed.last() {
        subject.watch.check()?;
        let name = needed.name(number);
        let path = archive.path(&name)?;
        let found = match archive.find(&name) {
            Err(error) => {
                reader = None;
                missing += 1;
                subject.tolerate(error, |e| Finding::new(Severity::Error, path, e.to_string()).hint(HINT))?;
                if missing == MAX_MISSING {
                    break;
                }
                continue;
            }
            found => found?,
        };
        let Some(found) = found else {
            reader = None;
            missing += 1;
            let finding = Finding::new(Severity::Error, path, "is missing: the backup needs it").hint(HINT);
            subject.findings.add(finding.missing_wal(true));
            if missing == MAX_MISSING {
                break;
            }
            continue;
        };
        if subject.level == Level::Record {
            tell_size(subject, &found)?;
            continue;
        }
        let expected = needed.expected(needed.segment(number));
        let read = archive.read_segment_on(&found, &expected, history.as_ref(), &mut |bytes| {
            subject.watch.check()?;
            if let Some(reader) = &mut reader {
                reader.feed(bytes, &mut |_| {});
            }
            Ok(())
        });
        if let Err(error) = read {
            reader = None;
            subject.tolerate(error, |error| {
                Finding::new(Severity::Error, &found.path, error.to_string()).hint(HINT)
            })?;
        }
    }
    if let Some((name, what)) = reader.and_then(|reader| needed.judge(&reader)) {
        subject.findings.add(Finding::new(Severity::Error, archive.path(&name)?, what).hint(HINT));
    }
    Ok(())
}

/// Looks whether the objects of the WAL that a backup needs have a plausible size; whether they are there is told with
/// the archive.
///
/// # Errors
/// What the store or the watch said.
pub fn sizes(subject: &Subject<'_>, archive: &Archive, needed: &Needed) -> Result<()> {
    for number in (needed.first()..=needed.last()).take(MAX_SIZES) {
        subject.watch.check()?;
        // What cannot be looked at is told with the archive.
        if let Ok(Some(found)) = archive.find(&needed.name(number)) {
            tell_size(subject, &found)?;
        }
    }
    Ok(())
}

fn tell_size(subject: &Subject<'_>, found: &Found) -> Result<()> {
    let size = subject.storage.size(&found.path)?.unwrap_or_default();
    if size < LEAST_SIZE {
        let what = format!("has {size} bytes: no segment is that small");
        subject.findings.add(Finding::new(Severity::Error, &found.path, what).hint(HINT));
    }
    Ok(())
}

fn history_of(
    subject: &Subject<'_>,
    archive: &Archive,
    timeline: Timeline,
) -> Result<Option<TimelineHistory>> {
    if timeline.0 <= 1 {
        return Ok(None);
    }
    let path = archive.path(&history_file_name(timeline))?;
    match archive.history(timeline) {
        Ok(Some(history)) => return Ok(Some(history)),
        Ok(None) => {
            let finding = Finding::new(Severity::Error, path, "is missing: the backup needs it").hint(HINT);
            subject.findings.add(finding.missing_wal(true));
        }
        Err(error) => {
            subject.tolerate(error, |e| Finding::new(Severity::Error, path, e.to_string()).hint(HINT))?;
        }
    }
    Ok(None)
}

/// Whether an error is about what is stored and not about the work.
pub fn is_own(error: &Error) -> bool {
    matches!(
        error.kind,
        ErrorKind::Corrupt
            | ErrorKind::ForeignCluster
            | ErrorKind::WalMissing
            | ErrorKind::Io
            | ErrorKind::PermissionDenied
    )
}
