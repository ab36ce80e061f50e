//! Recovery windows: from which moment to which the cluster can be restored, along each line of timelines, and why
//! each window ends. A pure function over what is stored.
//!
//! A window begins where its oldest backup is consistent: at its stop LSN. Its first time is that of the last commit
//! before that LSN, which is exact: recovery to any later time comes past the stop LSN, recovery to an earlier one ends
//! before it, which PostgreSQL refuses (`recoveryStopsBefore`, `PerformWalRecovery` in xlogrecovery.c). Where the archive
//! does not hold such a commit, the first time is when the backup was finished, which is later and so never promises too
//! much. A window ends with the last whole record that can be read without a hole.

use super::damage::Damage;
use super::evidence::Evidence;
use crate::postgres::timeline::TimelineHistory;
use crate::postgres::wal_segment::SegmentName;
use crate::repository::Record;
use crate::wal::line::{Line, Stretch};
use crate::wal::moments::{Moment, Moments, is_damage, shown_time};
use crate::wal::survey::{Run, Survey};
use chrono::{DateTime, Utc};
use pg_ark_contract::conversation::BackupKind;
use pg_ark_contract::rows::{BackupStatus, WindowRow};
use pg_ark_contract::{Lsn, Result, SegmentSize, Timeline};

/// What the segments themselves know.
pub trait Times {
    /// End of the last whole record of a stretch, and the time of the last commit in it.
    ///
    /// # Errors
    /// `Corrupt` when the last segment cannot be read.
    fn end(&mut self, stretch: &Stretch) -> Result<Moment>;

    /// Time of the last commit of a stretch whose record ends at or before `lsn`; `None` when the stretch has none.
    ///
    /// # Errors
    /// `Corrupt` when a segment cannot be read.
    fn last_before(&mut self, stretch: &Stretch, lsn: Lsn) -> Result<Option<i64>>;
}

impl Times for Moments<'_> {
    fn end(&mut self, stretch: &Stretch) -> Result<Moment> {
        Moments::end(self, stretch)
    }

    fn last_before(&mut self, stretch: &Stretch, lsn: Lsn) -> Result<Option<i64>> {
        Moments::last_before(self, stretch, lsn)
    }
}

/// Damaged segments at the end of a stretch that are passed over before the stretch counts as unusable.
const MAX_DAMAGED: usize = 64;

/// A backup that can begin a window.
struct Base<'a> {
    record: &'a Record,
    start: Lsn,
    stop: Lsn,
    timeline: Timeline,
}

/// A stretch as far as it can be read.
struct Readable {
    stretch: Stretch,
    end: Moment,
    /// Why it ends, if neither a hole nor the archive's end is the reason.
    why: Option<String>,
}

/// What can be recovered, and what cannot though it looks so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Windows {
    /// By time.
    pub rows: Vec<WindowRow>,
    /// Sentences for people: complete backups from which nothing can be recovered, and why.
    pub remarks: Vec<String>,
}

/// Every window. Backups that are not complete do not count. Records of `broken` segments end before those do. What
/// `evidence` says was there and is not is why a window ends.
///
/// # Errors
/// What the store said.
pub fn windows(
    survey: &Survey,
    records: &[Record],
    broken: &Damage,
    evidence: &Evidence,
    times: &mut dyn Times,
) -> Result<Windows> {
    let size = survey.segment_size;
    let bases: Vec<Base<'_>> = records.iter().filter_map(Base::of).collect();
    let mut rows: Vec<WindowRow> = Vec::new();
    let mut in_a_window: Vec<&str> = Vec::new();
    for line in Line::all(survey) {
        for (index, stretch) in line.stretches.iter().enumerate() {
            if !bases.iter().any(|base| base.leads_into(stretch, &line.history, size)) {
                continue;
            }
            for part in parts(stretch, broken, size) {
                let Some(readable) = readable(part, times)? else { continue };
                let usable = |base: &&Base<'_>| {
                    base.stop <= readable.end.lsn && base.leads_into(&readable.stretch, &line.history, size)
                };
                let usable: Vec<&Base<'_>> = bases.iter().filter(usable).collect();
                in_a_window.extend(usable.iter().map(|base| &base.record.backup[..]));
                let Some(oldest) = usable.iter().min_by_key(|base| base.stop) else { continue };
                let note = note(survey, evidence, &line, index, &readable);
                let row = oldest.window(&line, &readable, times, note)?;
                // Lines share what lies before their branch.
                if !rows.contains(&row) {
                    rows.push(row);
                }
            }
        }
    }
    let mut remarks = Vec::new();
    for base in bases.iter().filter(|base| !in_a_window.contains(&&base.record.backup[..])) {
        match base.record.wal_included {
            true => rows.push(base.moment(survey)),
            false => remarks.push(format!(
                "backup \"{}\" cannot be recovered: its WAL from {} to {} on timeline {} is not whole in the archive",
                base.record.backup, base.start, base.stop, base.timeline
            )),
        }
    }
    rows.sort_by_cached_key(|row| {
        let time = row.from_time.as_deref().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
        (time, row.from_lsn, row.timelines.clone())
    });
    Ok(Windows { rows, remarks })
}

/// The stretch, cut behind each segment whose records break off, and why each part ends.
fn parts(stretch: &Stretch, broken: &Damage, size: SegmentSize) -> Vec<(Stretch, Option<String>)> {
    let mut parts = Vec::new();
    let mut first = stretch.first();
    for piece in &stretch.pieces {
        for (number, why) in
            broken.of(piece.timeline, piece.run).filter(|(number, _)| *number < stretch.last())
        {
            let name = SegmentName { timeline: piece.timeline, number }.file_name(size);
            let why = format!("segment {name}: {}", why.unwrap_or("its records break off"));
            parts.push((stretch.slice(first, number), Some(why)));
            first = number + 1;
        }
    }
    parts.push((stretch.slice(first, stretch.last()), None));
    parts
}

/// The stretch without the damaged segments at its end; `None` when nothing of it can be read.
fn readable(
    (mut stretch, mut why): (Stretch, Option<String>),
    times: &mut dyn Times,
) -> Result<Option<Readable>> {
    for _ in 0..MAX_DAMAGED {
        match times.end(&stretch) {
            Ok(end) => return Ok(Some(Readable { stretch, end, why })),
            Err(e) if is_damage(&e) => why = Some(e.message),
            Err(e) => return Err(e),
        }
        if !without_last(&mut stretch) {
            return Ok(None);
        }
    }
    Ok(None)
}

fn without_last(stretch: &mut Stretch) -> bool {
    match stretch.pieces.last_mut() {
        Some(piece) if piece.run.first < piece.run.last => piece.run.last -= 1,
        Some(_) => drop(stretch.pieces.pop()),
        None => {}
    }
    !stretch.pieces.is_empty()
}

impl<'a> Base<'a> {
    fn of(record: &'a Record) -> Option<Self> {
        if record.status != BackupStatus::Complete || record.kind != BackupKind::Full {
            return None;
        }
        let (start, stop) = (record.start_lsn?, record.stop_lsn?);
        Some(Base { record, start, stop, timeline: record.timeline? })
    }

    /// Whether recovery from this backup can go on in the stretch.
    fn leads_into(&self, stretch: &Stretch, history: &TimelineHistory, size: SegmentSize) -> bool {
        if !history.reaches(self.timeline, self.stop) {
            return false;
        }
        if stretch.holds(self.start, self.stop, size) {
            return true;
        }
        // Its own WAL goes to the end of the segment with the stop LSN: a primary begins a new segment then, a standby
        // stops where it is.
        let last = size.last_segment_before(self.stop);
        let next = if self.record.from_standby { last } else { last.saturating_add(1) };
        self.record.wal_included && stretch.first() <= next && last <= stretch.last()
    }

    fn window(
        &self,
        line: &Line,
        readable: &Readable,
        times: &mut dyn Times,
        note: String,
    ) -> Result<WindowRow> {
        let end = readable.end.time;
        let from_time = match times.last_before(&readable.stretch, self.stop) {
            Ok(Some(time)) => shown_time(time),
            Ok(None) => self.finished(end),
            Err(e) if is_damage(&e) => self.finished(end),
            Err(e) => return Err(e),
        };
        let timeline = readable.stretch.pieces.last().map_or(line.timeline(), |piece| piece.timeline);
        Ok(WindowRow {
            backup: self.record.backup.clone(),
            timelines: timelines(&line.history, timeline),
            from_time,
            to_time: end.and_then(shown_time),
            from_lsn: self.stop,
            to_lsn: readable.end.lsn,
            note,
        })
    }

    /// When it was finished, or the end of its window where nothing was committed since.
    fn finished(&self, end: Option<i64>) -> Option<String> {
        let finished = self.record.finished_at.clone()?;
        let end = end.and_then(shown_time);
        let parse = |text: &str| DateTime::parse_from_rfc3339(text).ok().map(|time| time.with_timezone(&Utc));
        match end {
            Some(end) if parse(&end) < parse(&finished) => Some(end),
            _ => Some(finished),
        }
    }

    /// The window of a backup that carries its own WAL where the archive has none that goes on from it.
    fn moment(&self, survey: &Survey) -> WindowRow {
        let note = "only the backup itself: the archive does not hold the WAL that follows it";
        WindowRow {
            backup: self.record.backup.clone(),
            timelines: timelines(&survey.history(self.timeline), self.timeline),
            from_time: self.record.finished_at.clone(),
            to_time: self.record.finished_at.clone(),
            from_lsn: self.stop,
            to_lsn: self.stop,
            note: note.to_string(),
        }
    }
}

/// The timelines of a history up to one of them: `1,2`.
fn timelines(history: &TimelineHistory, upto: Timeline) -> String {
    let all = history.entries.iter().map(|entry| entry.timeline).chain([history.timeline]);
    let numbers: Vec<String> = all.filter(|t| *t <= upto).map(|t| t.to_string()).collect();
    numbers.join(",")
}

/// Why a window ends where it does.
fn note(survey: &Survey, evidence: &Evidence, line: &Line, index: usize, readable: &Readable) -> String {
    if let Some(why) = &readable.why {
        return why.clone();
    }
    let size = survey.segment_size;
    let timeline = readable.stretch.pieces.last().map_or(line.timeline(), |piece| piece.timeline);
    if let Some(hole) = line.holes.get(index) {
        let parts = line.parts(hole.run, size).into_iter();
        let told = parts.map(|part| evidence.absence(part.timeline, part.run, size));
        return told.collect::<Vec<_>>().join("; ");
    }
    let next = readable.stretch.last().saturating_add(1);
    let pruned = evidence.pruned.get(&timeline).and_then(|runs| runs.iter().find(|run| run.first == next));
    if let Some(pruned) = pruned {
        return removed(timeline, *pruned, size);
    }
    if let Some(gap) = evidence.gap_at(timeline, next) {
        let why = evidence.why(timeline, gap);
        let why = if why.is_empty() { String::new() } else { format!(": {}", why.join("; ")) };
        return format!("{}{why}", missing(timeline, gap, size));
    }
    let mut branches: Vec<(Timeline, Lsn)> = survey
        .histories
        .values()
        .filter(|history| survey.timelines.contains_key(&history.timeline))
        .filter_map(|history| {
            let parent = history.entries.last()?;
            (parent.timeline == timeline).then_some((history.timeline, parent.switch_lsn))
        })
        .collect();
    branches.sort_unstable_by_key(|(timeline, _)| *timeline);
    let on = |(timeline, lsn): &(Timeline, Lsn)| format!("timeline {timeline} goes on from {lsn}");
    match branches.is_empty() {
        true => "the archive ends here".to_string(),
        false => format!(
            "the archive of timeline {timeline} ends here; {}",
            branches.iter().map(on).collect::<Vec<_>>().join("; ")
        ),
    }
}

/// `segments X to Y of timeline N are missing`.
pub(super) fn missing(timeline: Timeline, run: Run, size: SegmentSize) -> String {
    let verb = if run.first == run.last { "is" } else { "are" };
    format!("{} {verb} missing", named(timeline, run, size))
}

/// `retention removed segments X to Y of timeline N`.
pub(super) fn removed(timeline: Timeline, run: Run, size: SegmentSize) -> String {
    format!("retention removed {}", named(timeline, run, size))
}

fn named(timeline: Timeline, run: Run, size: SegmentSize) -> String {
    let name = |number| SegmentName { timeline, number }.file_name(size);
    match run.first == run.last {
        true => format!("segment {} of timeline {timeline}", name(run.first)),
        false => format!("segments {} to {} of timeline {timeline}", name(run.first), name(run.last)),
    }
}

#[cfg(test)]
#[path = "windows_tests.rs"]
mod tests;
