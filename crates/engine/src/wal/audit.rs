//! What the indexes of an archive say against what is stored: files that are gone or changed, damaged lines, lines that
//! are missing.
//!
//! An index can be lost, and two writers may overwrite each other's lines. So nothing that is merely absent from one is
//! worse than a warning; what a line says about a file that is stored as it is counts, because nothing else proves it.
//!
//! Retention notes what it removes, then takes the lines out, then removes the files. So what was noted is looked up again
//! before anything is told to be missing, and of files that are still there no line is asked.

use super::archive::{Archive, WalFile};
use super::index::Index;
use super::index_line::FileFacts;
use super::moments::is_unreadable;
use super::pruned::Pruned;
use super::survey::Survey;
use crate::postgres::timeline::timeline_of_history_file;
use crate::postgres::wal_segment::SegmentName;
use pg_ark_contract::rows::Severity;
use pg_ark_contract::{ErrorKind, Result, SegmentSize, Timeline};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Remarks at the most.
const MAX_REMARKS: usize = 1000;
/// Newest segments of a timeline that need no line: a writer that works or was killed has not written it yet.
const NEWEST: usize = 64;
/// An index is written two seconds after what it names, at the latest; then nothing more is to come.
const PATIENCE: Duration = Duration::from_secs(4);
/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// What is wrong with a file that has a line and nothing else.
pub const GONE: &str = "is missing: the index says that it was stored";
/// What to do about an index that is not as it should be.
const REMAKE: &str = "Nothing is lost: what it says is read from the segments, which takes longer. The archiver of \
     archive_library makes it anew when it is idle, after it began to work and every hour.";
/// What to do about histories without a line.
const ENTER: &str = "Nothing is lost, but nothing would tell that one of them was changed. The archiver of \
     archive_library enters them when it is idle, after it began to work and every hour.";
/// What to do about a file.
const LOST: &str = "Get the file back from a copy, or from the server's pg_wal. Who removed it on purpose removes its line from the \
     index too.";

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// A warning unless recovery can go wrong because of it.
    pub severity: Severity,
    /// Whose it is; none for what belongs to no single one.
    pub timeline: Option<Timeline>,
    /// Path of the object in the repository.
    pub path: String,
    /// What was found, without the path: `is missing`.
    pub finding: String,
    /// What to do.
    pub hint: String,
}

/// How much is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Backup histories are read; timeline histories are, whenever an archive is surveyed.
    pub content: bool,
    /// Indexes and lines that are not there are told. It may take some seconds to see that none comes.
    pub absences: bool,
}

struct Audit<'a> {
    archive: &'a Archive,
    survey: &'a Survey,
    pruned: Pruned,
    extent: Extent,
    check: &'a dyn Fn() -> Result<()>,
    until: Option<Instant>,
    remarks: Vec<Remark>,
}

/// Looks at the index of every folder. `check` may end it.
///
/// # Errors
/// What the store or `check` said.
pub fn audit(
    archive: &Archive,
    survey: &Survey,
    extent: Extent,
    check: &dyn Fn() -> Result<()>,
) -> Result<Vec<Remark>> {
    let pruned = survey.pruned.clone();
    let mut audit = Audit { archive, survey, pruned, extent, check, until: None, remarks: Vec::new() };
    audit.histories()?;
    for timeline in archive.timelines()? {
        let newest = archive.logs(timeline)?.last().copied();
        for log in archive.logs(timeline)? {
            check()?;
            audit.folder(timeline, log, Some(log) == newest)?;
        }
    }
    Ok(audit.remarks)
}

impl Audit<'_> {
    fn histories(&mut self) -> Result<()> {
        let path = format!("{}/{}", self.archive.folder(), super::archive::INDEX);
        let files = self.archive.storage().files(&self.archive.folder())?;
        let names = files.iter().map(|path| path.rsplit('/').next().unwrap_or_default());
        let size = self.survey.segment_size;
        let names: BTreeSet<&str> = names.filter(|name| timeline_of_history_file(name).is_some()).collect();
        let named =
            |pruned: &Pruned| names.iter().filter(|name| !is_pruned(pruned, size, name)).copied().collect();
        let lacking = |pruned: &Pruned, index: &Index| {
            let named: Vec<&str> = named(pruned);
            named.into_iter().filter(|name| index.file(name).is_none()).count()
        };
        let Some(index) =
            self.index(&path, None, &|pruned| !named(pruned).is_empty(), &|pruned, index| {
                lacking(pruned, index) > 0
            })?
        else {
            return Ok(());
        };
        for (name, _) in index.files().filter(|(name, _)| !names.contains(name)) {
            // It may have been stored since the listing.
            if self.archive.find(name)?.is_none() && !self.was_pruned(name)? {
                self.file(name, Severity::Error, GONE)?;
            }
        }
        let named = named(&self.pruned);
        let first = named.iter().find(|name| index.file(name).is_none());
        if let Some(first) = first.filter(|_| self.extent.absences && index.is_there()) {
            let finding = told_lacking(lacking(&self.pruned, &index), named.len(), "histories", first);
            self.add(Severity::Warning, None, &path, finding, ENTER);
        }
        Ok(())
    }

    /// Whether retention removed a file that is not there, by what it has noted until now: a writer may have brought its
    /// line back.
    fn was_pruned(&mut self, name: &str) -> Result<bool> {
        let size = self.survey.segment_size;
        if !is_pruned(&self.pruned, size, name) {
            self.look_again()?;
        }
        Ok(is_pruned(&self.pruned, size, name))
    }

    /// Reads once more what retention removed. A file that cannot be read is told by whoever took the survey.
    fn look_again(&mut self) -> Result<()> {
        match Pruned::load(self.archive, self.survey.segment_size) {
            Ok(pruned) => self.pruned = pruned,
            Err(e) if is_unreadable(&e) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    fn folder(&mut self, timeline: Timeline, log: u32, is_newest: bool) -> Result<()> {
        let path = self.archive.index_path(timeline, log);
        let size = self.survey.segment_size;
        let named = |low: &u32| SegmentName::parse(&format!("{:08X}{log:08X}{low:08X}", timeline.0), size);
        let segments: Vec<SegmentName> = match self.extent.absences {
            true => self.archive.list(timeline, log)?.segments.iter().filter_map(named).collect(),
            false => Vec::new(),
        };
        let due = |pruned: &Pruned| -> Vec<SegmentName> {
            segments.iter().filter(|name| !pruned.holds(timeline, name.number)).copied().collect()
        };
        let wanted = |pruned: &Pruned| !due(pruned).is_empty();
        let Some(index) = self.index(&path, Some(timeline), &wanted, &|_, _| false)? else { return Ok(()) };
        for (name, facts) in index.files() {
            (self.check)()?;
            if let Some(why) = self.changed(name, facts)? {
                if why == GONE && self.was_pruned(name)? {
                    continue;
                }
                // Recovery does without it.
                self.file(name, Severity::Warning, &why)?;
            }
        }
        if !self.extent.absences || !index.is_there() {
            return Ok(());
        }
        let lacks = |name: &&SegmentName| index.get(name.number).is_none();
        if due(&self.pruned).iter().any(|name| lacks(&name)) {
            self.look_again()?;
        }
        let segments = due(&self.pruned);
        let coming = segments.iter().rev().take_while(lacks).count();
        let due = if is_newest && coming <= NEWEST { segments.len() - coming } else { segments.len() };
        let due = segments.get(..due).unwrap_or_default();
        if let Some(first) = due.iter().find(lacks) {
            let count = due.iter().filter(lacks).count();
            let finding = told_lacking(count, segments.len(), "segments", &first.file_name(size));
            self.add(Severity::Warning, Some(timeline), &path, finding, REMAKE);
        }
        Ok(())
    }

    /// The index of a folder; `None` when it cannot be read, which is told, as are its faults. One that is `wanted`,
    /// whatever retention removed, and not there is told too, if it does not come. `may_come` says that a line may.
    fn index(
        &mut self,
        path: &str,
        timeline: Option<Timeline>,
        wanted: &dyn Fn(&Pruned) -> bool,
        may_come: &dyn Fn(&Pruned, &Index) -> bool,
    ) -> Result<Option<Index>> {
        let index = loop {
            let index = match Index::load(self.archive.storage(), path, self.survey.segment_size) {
                Ok(index) => index,
                Err(e) if matches!(e.kind, ErrorKind::Corrupt | ErrorKind::FormatTooNew) => {
                    let finding = format!("cannot be read: {}", e.message);
                    self.add(Severity::Warning, timeline, path, finding, REMAKE);
                    return Ok(None);
                }
                Err(e) => return Err(e),
            };
            let absences = self.extent.absences;
            let absent = |pruned: &Pruned| {
                absences && wanted(pruned) && (!index.is_there() || may_come(pruned, &index))
            };
            if absent(&self.pruned) {
                self.look_again()?;
            }
            if !absent(&self.pruned)
                || Instant::now() >= *self.until.get_or_insert_with(|| Instant::now() + PATIENCE)
            {
                break index;
            }
            (self.check)()?;
            std::thread::park_timeout(PAUSE);
        };
        if self.extent.absences && wanted(&self.pruned) && !index.is_there() {
            let finding = "is missing: nothing tells what was stored in its folder".to_string();
            let hint = if timeline.is_some() { REMAKE } else { ENTER };
            self.add(Severity::Warning, timeline, path, finding, hint);
        }
        let (told, count) = index.problems();
        if count > 0 {
            let more =
                if count > told.len() { format!(" and {} more", count - told.len()) } else { String::new() };
            let finding = format!("is damaged: {}{more}", told.join("; "));
            self.add(Severity::Warning, timeline, path, finding, REMAKE);
        }
        Ok(Some(index))
    }

    /// What of a backup history is not as it was when it was stored. A `.partial` proves itself, if it is there.
    fn changed(&self, name: &str, facts: FileFacts) -> Result<Option<String>> {
        let path = self.archive.path(name)?;
        if self.archive.find(name)?.is_none() {
            return Ok(Some(GONE.into()));
        }
        if WalFile::of(name) == Some(WalFile::Partial) {
            return Ok(None);
        }
        let size = self.archive.storage().size(&path)?.unwrap_or_default();
        if size != facts.size {
            return Ok(Some(format!("has {size} bytes instead of {}", facts.size)));
        }
        if !self.extent.content {
            return Ok(None);
        }
        match self.archive.read_plain(name) {
            Ok(content) => Ok(content.and_then(|content| facts.differs(&content))),
            Err(e) if e.kind == ErrorKind::Corrupt => Ok(Some(format!("is damaged: {}", e.message))),
            Err(e) => Err(e),
        }
    }

    fn file(&mut self, name: &str, severity: Severity, finding: &str) -> Result<()> {
        let timeline = name.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).map(Timeline);
        let path = self.archive.path(name)?;
        self.add(severity, timeline, &path, finding.to_string(), LOST);
        Ok(())
    }

    fn add(
        &mut self,
        severity: Severity,
        timeline: Option<Timeline>,
        path: &str,
        finding: String,
        hint: &str,
    ) {
        if self.remarks.len() < MAX_REMARKS {
            let (path, hint) = (path.to_string(), hint.to_string());
            self.remarks.push(Remark { severity, timeline, path, finding, hint });
        }
    }
}

/// Whether retention removed a file, if it is not there.
fn is_pruned(pruned: &Pruned, size: SegmentSize, name: &str) -> bool {
    let segment = name.get(..24).and_then(|stem| SegmentName::parse(stem, size));
    segment.is_some_and(|of| pruned.holds(of.timeline, of.number))
        || timeline_of_history_file(name).is_some_and(|of| pruned.histories.contains(&of))
}

fn told_lacking(count: usize, all: usize, what: &str, first: &str) -> String {
    let others = if count > 1 { " and others" } else { "" };
    format!("has no line for {count} of {all} {what}: {first}{others}")
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
