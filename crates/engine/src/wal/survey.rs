//! What an archive holds, as ranges of segments per timeline.
//!
//! What: one listing of every folder, kept as runs, so that a million segments without a hole take no more memory than
//! one. Why: windows, verification and the choice of a backup all ask for holes, never for single segments.
//! Rejected: a stored list of segments, which would be a second truth beside the objects.

use super::archive::{Archive, LogFolder, Room, hex_name, is_own_file};
use super::moments::is_unreadable;
use super::pruned::Pruned;
use crate::postgres::timeline::{TimelineHistory, timeline_of_history_file};
use crate::postgres::wal_segment::SegmentName;
use pg_ark_contract::{Error, ErrorKind, Result, SegmentSize, Timeline};
use std::collections::BTreeMap;

/// Segments without a hole, by number, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

impl Run {
    /// How many segments.
    pub fn count(&self) -> u64 {
        self.last - self.first + 1
    }
}

/// Runs in any order as [`Content::runs`] has them.
pub fn joined(mut runs: Vec<Run>) -> Vec<Run> {
    runs.sort_unstable_by_key(|run| (run.first, run.last));
    runs.dedup_by(|run, before| {
        let joined = run.first <= before.last.saturating_add(1);
        before.last = if joined { before.last.max(run.last) } else { before.last };
        joined
    });
    runs
}

/// What a timeline has in the archive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// Ascending, with at least one missing segment between two.
    pub runs: Vec<Run>,
    /// Numbers of `.partial` segments, ascending.
    pub partials: Vec<u64>,
}

impl Content {
    /// Number of the newest segment.
    pub fn newest(&self) -> Option<u64> {
        self.runs.last().map(|run| run.last)
    }

    /// Whether the segment is there.
    pub fn holds(&self, number: u64) -> bool {
        let after = self.runs.partition_point(|run| run.first <= number);
        after.checked_sub(1).and_then(|at| self.runs.get(at)).is_some_and(|run| number <= run.last)
    }

    /// Enters a segment; in ascending order.
    pub(crate) fn add(&mut self, number: u64) {
        match self.runs.last_mut() {
            Some(run) if run.last + 1 == number => run.last = number,
            Some(run) if run.last >= number => {}
            _ => self.runs.push(Run { first: number, last: number }),
        }
    }
}

/// What an archive holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// Bytes in a segment.
    pub segment_size: SegmentSize,
    /// Timelines that have segments.
    pub timelines: BTreeMap<Timeline, Content>,
    /// History files.
    pub histories: BTreeMap<Timeline, TimelineHistory>,
    /// Paths of objects that have no place in an archive; the first 1000.
    pub strangers: Vec<String>,
    /// What retention removed.
    pub pruned: Pruned,
}

/// A survey, and what in the archive keeps it from being the whole truth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// What could be read.
    pub survey: Survey,
    /// History files that cannot be read. Their timelines are in the survey, but without ancestors.
    pub histories: Vec<(Timeline, Error)>,
    /// Why the size of a segment is not known: no header could be read. The survey's is a guess.
    pub size: Option<Error>,
    /// Segments that are stored under two codecs, by name; the first 1000.
    pub twice: Vec<SegmentName>,
    /// How many strangers there are in all.
    pub strangers: u64,
    /// Why nobody knows what retention removed.
    pub pruned: Option<Error>,
}

/// Most names that are remembered of each kind.
const MAX_NAMES: usize = 1000;

impl Survey {
    /// Lists the archive. `check` is called between folders and may end it. An empty archive gives an empty survey.
    ///
    /// # Errors
    /// `Corrupt` for a history file or a segment size that cannot be read; what the store or `check` said.
    pub fn take(archive: &Archive, check: &dyn Fn() -> Result<()>) -> Result<Survey> {
        let look = Look::take(archive, check)?;
        match look.histories.into_iter().map(|(_, error)| error).chain(look.size).next() {
            Some(error) => Err(error),
            None => Ok(look.survey),
        }
    }

    /// Of an archive that holds nothing.
    pub fn empty(segment_size: SegmentSize) -> Survey {
        Survey {
            segment_size,
            timelines: BTreeMap::new(),
            histories: BTreeMap::new(),
            strangers: Vec::new(),
            pruned: Pruned::default(),
        }
    }

    /// The history of a timeline; one without ancestors when there is no file.
    pub fn history(&self, timeline: Timeline) -> TimelineHistory {
        let known = self.histories.get(&timeline).cloned();
        known.unwrap_or_else(|| TimelineHistory::without_ancestors(timeline))
    }

    /// Whether the segment is there.
    pub fn holds(&self, name: SegmentName) -> bool {
        self.timelines.get(&name.timeline).is_some_and(|content| content.holds(name.number))
    }

    /// Whether the archive has no segment.
    pub fn is_empty(&self) -> bool {
        self.timelines.values().all(|content| content.runs.is_empty())
    }
}

impl Look {
    /// Lists the archive, as [`Survey::take`] does, but goes on when something in it is damaged.
    ///
    /// # Errors
    /// What the store or `check` said.
    pub fn take(archive: &Archive, check: &dyn Fn() -> Result<()>) -> Result<Look> {
        let (segment_size, size) = match archive.segment_size() {
            Ok(size) => (size.unwrap_or_default(), None),
            Err(e) if matches!(e.kind, ErrorKind::Corrupt | ErrorKind::ForeignCluster) => {
                (SegmentSize::default(), Some(e))
            }
            Err(e) => return Err(e),
        };
        let survey = Survey::empty(segment_size);
        let mut look =
            Look { survey, histories: Vec::new(), size, twice: Vec::new(), strangers: 0, pruned: None };
        look.enter_histories(archive)?;
        look.strange_folders(archive, &archive.folder())?;
        for timeline in archive.timelines()? {
            let folder = archive.timeline_folder(timeline);
            archive.storage().files(&folder)?.into_iter().for_each(|path| look.stranger(path));
            look.strange_folders(archive, &folder)?;
            for log in archive.logs(timeline)? {
                check()?;
                look.enter(timeline, log, archive.list(timeline, log)?);
            }
        }
        // After the listing: what was removed meanwhile was noted before.
        match Pruned::load(archive, segment_size) {
            Ok(pruned) => look.survey.pruned = pruned,
            Err(e) if is_unreadable(&e) => look.pruned = Some(e),
            Err(e) => return Err(e),
        }
        Ok(look)
    }

    fn enter_histories(&mut self, archive: &Archive) -> Result<()> {
        let index = archive.history_index()?;
        let mut room = Room::default();
        for path in archive.storage().files(&archive.folder())? {
            let name = path.rsplit('/').next().unwrap_or_default();
            let Some(timeline) = timeline_of_history_file(name) else {
                if !is_own_file(name) {
                    self.stranger(path);
                }
                continue;
            };
            match archive.one_history(timeline, index.as_ref(), &mut room) {
                Ok(Some(history)) => drop(self.survey.histories.insert(timeline, history)),
                Ok(None) => {}
                Err(e) if is_unreadable(&e) => self.histories.push((timeline, e)),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Folders whose names are neither a timeline's nor a log's.
    fn strange_folders(&mut self, archive: &Archive, folder: &str) -> Result<()> {
        for name in archive.storage().folders(folder)? {
            if hex_name(&name).is_none() {
                self.stranger(format!("{folder}/{name}/"));
            }
        }
        Ok(())
    }

    fn stranger(&mut self, path: String) {
        self.strangers += 1;
        if self.survey.strangers.len() < MAX_NAMES {
            self.survey.strangers.push(path);
        }
    }

    fn enter(&mut self, timeline: Timeline, log: u32, folder: LogFolder) {
        let size = self.survey.segment_size;
        let named = |low: u32| SegmentName::parse(&format!("{:08X}{log:08X}{low:08X}", timeline.0), size);
        folder.strangers.into_iter().for_each(|path| self.stranger(path));
        let room = MAX_NAMES.saturating_sub(self.twice.len());
        self.twice.extend(folder.twice.into_iter().filter_map(named).take(room));
        // A name that segments of this size do not have.
        let odd = |low: &u32| named(*low).is_none();
        for low in folder.segments.iter().chain(&folder.partials).filter(|low| odd(low)) {
            self.stranger(format!("{}/{:08X}{log:08X}{low:08X}", folder.path, timeline.0));
        }
        let segments: Vec<u64> = folder.segments.into_iter().filter_map(named).map(|n| n.number).collect();
        let partials: Vec<u64> = folder.partials.into_iter().filter_map(named).map(|n| n.number).collect();
        if segments.is_empty() && partials.is_empty() {
            return;
        }
        let content = self.survey.timelines.entry(timeline).or_default();
        segments.into_iter().for_each(|number| content.add(number));
        content.partials.extend(partials);
    }
}

#[cfg(test)]
#[path = "survey_tests.rs"]
mod tests;
