//! The newest part of the archive, and the recovery window in it, for whoever asks every few seconds.
//!
//! What: the folders of segments are listed from the newest back, so many at the most, and the windows of that part are
//! computed as [`windows`] always does. Why: an archive may hold millions of segments. What lies further back could only
//! make the window begin earlier, so what is told never promises too much.

use super::windows::{Windows, windows};
use super::{Evidence, archive, lacks};
use crate::postgres::wal_segment::SegmentName;
use crate::repository::{Cluster, Record};
use crate::wal::archive::{Archive, Room};
use crate::wal::line::{Piece, Stretch};
use crate::wal::moments::{Moments, is_unreadable};
use crate::wal::survey::{Content, Run, Survey, joined};
use pg_ark_contract::rows::{BackupStatus, WindowRow};
use pg_ark_contract::{Lsn, Result, Timeline};

/// Folders that are listed: 131,072 segments of the usual size, looked through in a quarter of a second.
const MAX_FOLDERS: usize = 512;
/// Backups that turn out to lack an object before the search for a window is given up.
const MAX_LACKING: usize = 16;
/// In the note of a window that nothing but the archive's end ends.
const ENDS_HERE: &str = "ends here";

/// The newest part of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub survey: Survey,
    /// There is more.
    pub is_cut: bool,
}

/// The newest folders of an archive; none when it holds no segment.
///
/// # Errors
/// What the store or `check` said.
pub(super) fn part(archive: &Archive, check: &dyn Fn() -> Result<()>) -> Result<Option<Part>> {
    part_of(archive, MAX_FOLDERS, check)
}

fn part_of(archive: &Archive, folders: usize, check: &dyn Fn() -> Result<()>) -> Result<Option<Part>> {
    let Some(size) = archive.segment_size()? else { return Ok(None) };
    let mut is_cut = false;
    let mut survey = Survey::empty(size);
    let (mut left, mut room) = (folders, Room::default());
    let index = archive.history_index()?;
    for timeline in archive.timelines()?.into_iter().rev() {
        let mut runs = Vec::new();
        for log in archive.logs(timeline)?.into_iter().rev() {
            if left == 0 {
                is_cut = true;
                break;
            }
            left -= 1;
            check()?;
            let names =
                archive.list(timeline, log)?.segments.into_iter().filter_map(|low| {
                    SegmentName::parse(&format!("{:08X}{log:08X}{low:08X}", timeline.0), size)
                });
            runs.extend(joined(names.map(|name| Run { first: name.number, last: name.number }).collect()));
        }
        if runs.is_empty() {
            continue;
        }
        match archive.one_history(timeline, index.as_ref(), &mut room) {
            Ok(history) => drop(history.map(|history| survey.histories.insert(timeline, history))),
            // Nothing is recovered along a timeline whose history cannot be read.
            Err(e) if is_unreadable(&e) => continue,
            Err(e) => return Err(e),
        }
        survey.timelines.insert(timeline, Content { runs: joined(runs), partials: Vec::new() });
    }
    Ok((!survey.is_empty()).then_some(Part { survey, is_cut }))
}

/// The newest segments of the newest timeline, back to the first hole.
pub(super) fn newest(survey: &Survey) -> Option<Stretch> {
    let (timeline, content) = survey.timelines.last_key_value()?;
    let run = *content.runs.last()?;
    Some(Stretch { pieces: vec![Piece { timeline: *timeline, run }] })
}

/// A window, and why it does not reach the end of the archive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Newest {
    pub window: Option<WindowRow>,
    pub gap: Option<String>,
}

/// The window on the newest timeline that has one.
///
/// # Errors
/// What the store or `check` said.
pub(super) fn window(
    cluster: &Cluster,
    archive: &Archive,
    survey: &Survey,
    records: &[Record],
    check: &dyn Fn() -> Result<()>,
) -> Result<Newest> {
    let complete = |record: &&Record| record.status == BackupStatus::Complete && record.kind.is_physical();
    let mut records: Vec<Record> = records.iter().filter(complete).cloned().collect();
    if records.is_empty() {
        return Ok(Newest::default());
    }
    let mut moments = Moments::new(archive, survey.segment_size).with_check(check);
    let broken = archive::broken(survey, &mut moments)?;
    let mut lacking = None;
    for _ in 0..MAX_LACKING {
        check()?;
        let Windows { rows, remarks } =
            windows(survey, &records, &broken, &Evidence::default(), &mut moments)?;
        let Some(window) = rows.into_iter().max_by_key(rank) else {
            let why = lacking.or(remarks.into_iter().next());
            return Ok(Newest { window: None, gap: why });
        };
        let oldest = records.iter().find(|record| record.backup == window.backup);
        let lack = oldest.map_or(Ok(None), |record| lacks(cluster, archive, record))?;
        let Some(what) = lack else {
            let gap = gap(survey, &window);
            return Ok(Newest { window: Some(window), gap });
        };
        lacking = Some(format!("backup \"{}\" cannot be restored: {what}", window.backup));
        records.retain(|record| record.backup != window.backup);
    }
    Ok(Newest { window: None, gap: lacking })
}

/// The newest timeline first, then what ends last.
fn rank(row: &WindowRow) -> (Option<Timeline>, Lsn) {
    (last_timeline(row), row.to_lsn)
}

fn last_timeline(row: &WindowRow) -> Option<Timeline> {
    row.timelines.rsplit(',').next().and_then(|number| number.parse().ok()).map(Timeline)
}

/// Why a window does not go on to the newest segment.
fn gap(survey: &Survey, window: &WindowRow) -> Option<String> {
    let newest = newest(survey)?.pieces.pop()?;
    if !window.note.contains(ENDS_HERE) {
        return Some(window.note.clone());
    }
    let size = survey.segment_size;
    let goes_on =
        last_timeline(window) == Some(newest.timeline) && window.to_lsn > size.start_of(newest.run.first);
    (!goes_on).then(|| format!("no backup leads to the newest WAL, on timeline {}", newest.timeline))
}

#[cfg(test)]
#[path = "recent_tests.rs"]
mod tests;
