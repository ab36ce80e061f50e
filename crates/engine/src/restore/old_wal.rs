//! WAL that an old server left: what the archive lacks of it, and where each file is.
//!
//! What: [`OldWal::look`] reads folders (an old `pg_wal`, what an earlier restore saved) and keeps the files that the
//! archive does not have. [`super::old_wal_end`] then follows their records to the last whole one, so that nothing is
//! promised beyond it; [`OldWal::joined`] adds what is left to a survey.
//! A `.partial` that the archive holds behind the last segment of a timeline counts as well: what a promotion left of
//! that timeline is its end, and recovery asks for no such name.
//! A file that was recycled still holds the pages of an older one: its first page does not belong to its name, and it
//! is not WAL. Nothing in such a folder is trusted.

use super::old_wal_end::{self, Tail};
use crate::bounded;
use crate::postgres::timeline::{TimelineHistory, history_file_name, timeline_of_history_file};
use crate::postgres::wal_segment::{ExpectedSegment, LongHeader, SegmentName, check_first_page};
use crate::wal::archive::{Found, MAX_HISTORY, WalFile};
use crate::wal::survey::{Content, Run};
use crate::wal::{Archive, Survey};
use pg_ark_contract::{Error, ErrorKind, Result, SegmentSize, Timeline};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes of a segment that tell whose it is (`SizeOfXLogLongPHD`, access/xlog_internal.h).
const FIRST: usize = 40;

/// Whose WAL is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// System identifier.
    pub system_identifier: u64,
    /// Bytes in a segment.
    pub size: SegmentSize,
    /// Major version of the server.
    pub server_major: u32,
}

impl Identity {
    /// What the first page of a segment must say.
    pub fn expected(&self, name: SegmentName) -> ExpectedSegment {
        ExpectedSegment {
            name,
            segment_size: self.size,
            system_identifier: self.system_identifier,
            server_major: Some(self.server_major),
        }
    }
}

/// A folder that may hold WAL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Links resolved.
    pub folder: PathBuf,
    /// The restore removes what is in it.
    pub doomed: bool,
}

/// A file of an old server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its name in `pg_wal`.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// The restore removes it there.
    pub doomed: bool,
    /// It is a `.partial` of the archive, and `path` only says so.
    pub stored: Option<Found>,
}

/// What old servers left that the archive lacks.
#[derive(Debug, Clone)]
pub struct OldWal {
    /// Whose it is.
    pub identity: Identity,
    /// Where it was looked for.
    pub sources: Vec<Source>,
    /// Segments that the archive lacks, or holds with other content.
    pub segments: BTreeMap<SegmentName, Kept>,
    /// Segments that promotions left unfinished.
    pub partials: BTreeMap<String, Kept>,
    /// Histories that the archive lacks.
    pub histories: BTreeMap<Timeline, (Kept, TimelineHistory)>,
    /// Segments that the archive has as well.
    pub(super) common: BTreeMap<SegmentName, Kept>,
    /// Segments that the restore removes somewhere.
    pub(super) doomed: BTreeSet<SegmentName>,
    /// Segments whose records follow the archive's or each other, without a hole.
    pub tails: Vec<Tail>,
    /// Ends of timelines that the archive holds as `.partial` and that are damaged.
    pub(super) damaged: BTreeMap<SegmentName, Error>,
    /// What the user should know.
    pub warnings: Vec<String>,
    archive: Archive,
}

impl OldWal {
    /// Looks into folders for what `archive`, of which `survey` was taken, lacks. Reads and changes nothing.
    ///
    /// # Errors
    /// `ForeignCluster` when a segment belongs to another cluster; what the systems said.
    pub fn look(sources: &[Source], identity: Identity, archive: &Archive, survey: &Survey) -> Result<Self> {
        let mut old = OldWal {
            identity,
            sources: sources.to_vec(),
            segments: BTreeMap::new(),
            partials: BTreeMap::new(),
            histories: BTreeMap::new(),
            common: BTreeMap::new(),
            doomed: BTreeSet::new(),
            tails: Vec::new(),
            damaged: BTreeMap::new(),
            warnings: Vec::new(),
            archive: archive.clone(),
        };
        for source in sources {
            old.read_folder(source, survey)?;
        }
        old.take_stored(survey)?;
        let apart = old_wal_end::compare(&mut old, archive)?;
        old.tails = old_wal_end::tails(&old, archive, survey, &apart)?;
        old.tell_unusable();
        Ok(old)
    }

    fn read_folder(&mut self, source: &Source, survey: &Survey) -> Result<()> {
        let failed =
            |e: std::io::Error| Error::io(format!("could not look at \"{}\"", source.folder.display()), &e);
        for entry in std::fs::read_dir(&source.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            let Some(kind) = WalFile::of(&name) else { continue };
            let meta = std::fs::symlink_metadata(entry.path()).map_err(failed)?;
            if !meta.is_file() {
                continue;
            }
            let kept =
                Kept { name, path: entry.path(), bytes: meta.len(), doomed: source.doomed, stored: None };
            match kind {
                WalFile::Segment => self.segment(kept, survey)?,
                WalFile::Partial => self.partial(kept, survey)?,
                WalFile::History => self.history(kept, survey)?,
                // Says what a backup's record says, too.
                WalFile::BackupHistory => {}
            }
        }
        Ok(())
    }

    fn segment(&mut self, kept: Kept, survey: &Survey) -> Result<()> {
        let Some(name) = SegmentName::parse(&kept.name, self.identity.size) else { return Ok(()) };
        if !self.is_segment(&kept, name)? {
            return Ok(());
        }
        if kept.doomed {
            self.doomed.insert(name);
        }
        let all = if survey.holds(name) { &mut self.common } else { &mut self.segments };
        let better = match all.get(&name) {
            None => true,
            Some(known) => old_wal_end::is_better(&kept, known, &self.identity, &self.archive)?,
        };
        if better {
            all.insert(name, kept);
        }
        Ok(())
    }

    fn partial(&mut self, kept: Kept, survey: &Survey) -> Result<()> {
        let stem = kept.name.trim_end_matches(".partial");
        let Some(name) = SegmentName::parse(stem, self.identity.size) else { return Ok(()) };
        let content = survey.timelines.get(&name.timeline);
        let stored = content.is_some_and(|content| content.partials.contains(&name.number));
        if !stored && self.is_segment(&kept, name)? && !self.partials.contains_key(&kept.name) {
            self.partials.insert(kept.name.clone(), kept);
        }
        Ok(())
    }

    /// Takes what the archive holds as `.partial` for the end of its timeline, unless an old server has more of it.
    fn take_stored(&mut self, survey: &Survey) -> Result<()> {
        let size = self.identity.size;
        for (&timeline, content) in &survey.timelines {
            let behind =
                content.partials.last().filter(|number| content.newest().is_none_or(|n| **number > n));
            let Some(&number) = behind else { continue };
            let name = SegmentName { timeline, number };
            let Some(found) = self.archive.find(&format!("{}.partial", name.file_name(size)))? else {
                continue;
            };
            let kept = Kept {
                name: name.file_name(size),
                path: PathBuf::from(self.archive.storage().display(&found.path)),
                bytes: size.bytes(),
                doomed: false,
                stored: Some(found),
            };
            let better = match self.segments.get(&name) {
                None => {
                    old_wal_end::end_of(&kept, name, &self.identity, &self.archive).map(|end| end.is_some())
                }
                Some(known) => old_wal_end::is_better(&kept, known, &self.identity, &self.archive),
            };
            match better {
                Ok(true) => drop(self.segments.insert(name, kept)),
                Ok(false) => {}
                Err(e) if matches!(e.kind, ErrorKind::Corrupt | ErrorKind::ForeignCluster) => {
                    self.damaged.insert(name, e);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Whether the file is the segment that its name promises. A recycled file is not.
    fn is_segment(&self, kept: &Kept, name: SegmentName) -> Result<bool> {
        let mut first = Vec::with_capacity(FIRST);
        let read = bounded::open(&kept.path).and_then(|file| file.take(FIRST as u64).read_to_end(&mut first));
        read.map_err(|e| Error::io(format!("could not read \"{}\"", kept.path.display()), &e))?;
        let Ok(header) = LongHeader::parse(&first) else { return Ok(false) };
        if header.system_identifier != self.identity.system_identifier {
            return Err(Error::new(
                ErrorKind::ForeignCluster,
                format!(
                    "\"{}\" belongs to system identifier {}, the backup to {}",
                    kept.path.display(),
                    header.system_identifier,
                    self.identity.system_identifier
                ),
            )
            .hint("It is another cluster's WAL. Name a pg_wal of the cluster that the backup is of."));
        }
        let whole = kept.bytes == self.identity.size.bytes();
        Ok(whole && check_first_page(&first, &self.identity.expected(name)).is_ok())
    }

    fn history(&mut self, kept: Kept, survey: &Survey) -> Result<()> {
        let Some(timeline) = timeline_of_history_file(&kept.name) else { return Ok(()) };
        let mut content = Vec::new();
        let read =
            bounded::open(&kept.path).and_then(|file| file.take(MAX_HISTORY).read_to_end(&mut content));
        read.map_err(|e| Error::io(format!("could not read \"{}\"", kept.path.display()), &e))?;
        let shown = kept.path.display();
        match (TimelineHistory::parse(timeline, &content), survey.histories.get(&timeline)) {
            (Err(error), _) => self.warnings.push(format!("\"{shown}\" is not used: {error}")),
            (Ok(history), None) if !self.histories.contains_key(&timeline) => {
                self.histories.insert(timeline, (kept, history));
            }
            (Ok(history), Some(stored)) if *stored != history => self.warnings.push(format!(
                "the archive holds another {} than \"{shown}\": two servers chose the same timeline, and the \
                 archive's is used",
                history_file_name(timeline)
            )),
            (Ok(_), _) => {}
        }
        Ok(())
    }

    /// The survey with what can be used of this. What an empty survey says of the segments' size is a guess.
    pub fn joined(&self, survey: &Survey) -> Survey {
        let mut joined = survey.clone();
        if survey.is_empty() {
            joined.segment_size = self.identity.size;
        }
        for tail in &self.tails {
            add(joined.timelines.entry(tail.timeline).or_default(), tail.run);
        }
        for (timeline, (_, history)) in &self.histories {
            joined.histories.entry(*timeline).or_insert_with(|| history.clone());
        }
        joined
    }

    /// Where a segment is that [`Self::joined`] added.
    pub fn usable(&self, name: SegmentName) -> Option<&Kept> {
        let used = self.tails.iter().any(|tail| tail.holds(name));
        self.segments.get(&name).filter(|_| used)
    }

    /// Shows the bytes of a segment that [`Self::joined`] added to `sink`; `None` for any other. What comes behind the last
    /// whole record, where the records break off, is shown as zeros: nothing there is to be believed.
    ///
    /// # Errors
    /// What the systems said.
    pub fn read(&self, name: SegmentName, sink: &mut dyn FnMut(&[u8])) -> Option<Result<()>> {
        let kept = self.usable(name)?;
        let cap =
            self.tails.iter().find(|tail| tail.holds(name)).filter(|tail| tail.broken).map(|tail| tail.end);
        let room = cap.map_or(u64::MAX, |cap| cap.0.saturating_sub(name.start(self.identity.size).0));
        let mut left = usize::try_from(room).unwrap_or(usize::MAX);
        Some(old_wal_end::show(kept, &self.identity, &self.archive, &mut |bytes| {
            let (good, rest) = bytes.split_at(left.min(bytes.len()));
            left -= good.len();
            sink(good);
            if !rest.is_empty() {
                sink(&vec![0; rest.len()]);
            }
        }))
    }

    /// Whether the archive holds the end of a timeline under a name that recovery does not ask for.
    pub fn has_stored(&self) -> bool {
        !self.damaged.is_empty() || self.segments.values().any(|kept| kept.stored.is_some())
    }

    /// Whether no old server has anything that the archive lacks.
    pub fn is_empty(&self) -> bool {
        self.files().is_empty()
    }

    /// Every file of old servers that the archive lacks, in the order of names.
    pub fn files(&self) -> Vec<&Kept> {
        let histories = self.histories.values().map(|(kept, _)| kept);
        let all = self.segments.values().chain(self.partials.values()).chain(histories);
        let mut files: Vec<&Kept> = all.filter(|kept| kept.stored.is_none()).collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        files
    }

    fn tell_unusable(&mut self) {
        let lost: Vec<&str> = self
            .segments
            .iter()
            .filter(|(name, kept)| kept.stored.is_none() && self.usable(**name).is_none())
            .map(|(_, kept)| &kept.name[..])
            .collect();
        if let Some((first, last)) = lost.first().zip(lost.last()) {
            let (count, first, last) = (lost.len(), (*first).to_owned(), (*last).to_owned());
            self.warnings.push(format!(
                "{count} old segments are not used, {first} to {last}: no whole record of theirs follows the WAL before"
            ));
        }
    }
}

/// Adds a run to runs that ascend with holes between them.
pub fn add(content: &mut Content, run: Run) {
    content.runs.push(run);
    content.runs.sort_unstable_by_key(|run| run.first);
    let mut merged: Vec<Run> = Vec::with_capacity(content.runs.len());
    for run in content.runs.drain(..) {
        match merged.last_mut() {
            Some(last) if run.first <= last.last.saturating_add(1) => last.last = last.last.max(run.last),
            _ => merged.push(run),
        }
    }
    content.runs = merged;
}

/// The `pg_wal` that the user means by a folder: the folder, or the one in the data directory that it is.
///
/// # Errors
/// `InvalidArgument` when there is no such folder.
pub fn folder_of(named: &Path) -> Result<PathBuf> {
    let inner = named.join("pg_wal");
    let folder = if named.join("PG_VERSION").is_file() && inner.is_dir() { &inner } else { named };
    let found = folder.canonicalize().and_then(|path| Ok((path.metadata()?.is_dir(), path)));
    let hint = "Name the folder that holds the old server's WAL segments: its pg_wal, or a copy of it.";
    match found {
        Ok((true, path)) => Ok(path),
        Ok((false, _)) => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("--keep-wal \"{}\" is not a folder", named.display()),
        )
        .hint(hint)),
        Err(e) => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("--keep-wal \"{}\" cannot be read", named.display()),
        )
        .detail(e)
        .hint(hint)),
    }
}

#[cfg(test)]
#[path = "old_wal_tests.rs"]
mod tests;
