//! What an archive holds, as ranges of segments per timeline.
//!
//! What: one listing of every folder, kept as runs, so that a million segments without a hole take no more memory than
//! one. Why: windows, verification and the choice of a backup all ask for holes, never for single segments.
//! Rejected: a stored list of segments, which would be a second truth beside the objects.

use super::archive::{Archive, LogFolder};
use crate::postgres::timeline::TimelineHistory;
use crate::postgres::wal_segment::SegmentName;
use pg_ark_contract::{Result, SegmentSize, Timeline};
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
        self.runs.iter().any(|run| (run.first..=run.last).contains(&number))
    }

    fn add(&mut self, number: u64) {
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
}

/// Most strangers that are remembered.
const MAX_STRANGERS: usize = 1000;

impl Survey {
    /// Lists the archive. `check` is called between folders and may end it. An empty archive gives an empty survey.
    ///
    /// # Errors
    /// `Corrupt` for a history file or a segment size that cannot be read; what the store or `check` said.
    pub fn take(archive: &Archive, check: &dyn Fn() -> Result<()>) -> Result<Survey> {
        let segment_size = archive.segment_size()?.unwrap_or_default();
        let (histories, strangers) = archive.histories()?;
        let mut survey = Survey { segment_size, timelines: BTreeMap::new(), histories, strangers };
        for timeline in archive.timelines()? {
            for log in archive.logs(timeline)? {
                check()?;
                survey.enter(timeline, log, archive.list(timeline, log)?);
            }
        }
        survey.strangers.truncate(MAX_STRANGERS);
        Ok(survey)
    }

    fn enter(&mut self, timeline: Timeline, log: u32, folder: LogFolder) {
        let number = |low: u32| {
            let name = format!("{:08X}{log:08X}{low:08X}", timeline.0);
            SegmentName::parse(&name, self.segment_size).map(|name| name.number)
        };
        let room = MAX_STRANGERS.saturating_sub(self.strangers.len());
        self.strangers.extend(folder.strangers.into_iter().take(room));
        if folder.segments.is_empty() && folder.partials.is_empty() {
            return;
        }
        let content = self.timelines.entry(timeline).or_default();
        for low in folder.segments {
            match number(low) {
                Some(number) => content.add(number),
                None if self.strangers.len() < MAX_STRANGERS => {
                    self.strangers.push(format!("{:08X}{log:08X}{low:08X}", timeline.0));
                }
                None => {}
            }
        }
        content.partials.extend(folder.partials.into_iter().filter_map(number));
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
