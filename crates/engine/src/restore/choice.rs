//! Which backup, along which timeline: the newest from which the target can be reached. Pure but for [`Wal`].
//!
//! A backup serves when its end lies in the history of the timeline, when nothing is missing from its start (or, if it
//! brings its own WAL, from its end) to the target, and when recovery, which stops at the first place that fits the
//! target, does not stop before the end of the backup.
//!
//! *Candidate*: a complete full backup. *Course*: a candidate, a line, and where recovery along it ends.

use super::forks;
use super::judge::Judge;
use super::log::is_at;
use super::refusal::{self, Verdict};
use super::target::{Target, TimelineChoice};
use crate::postgres::timeline::TimelineHistory;
use crate::postgres::wal_record::from_utc;
use crate::postgres::wal_segment::SegmentName;
use crate::repository::Record;
use crate::wal::moments::{Moment, is_damage};
use crate::wal::survey::Run;
use crate::wal::{Line, Stretch, Survey};
use pg_ark_contract::{Error, ErrorKind, Lsn, Result, SegmentSize, Timeline};
use std::cmp::Reverse;
use std::ops::{Range, RangeInclusive};

/// A target, and whether it is itself left out.
#[derive(Debug, Clone, Copy)]
pub struct Aim<'a> {
    /// The target.
    pub target: &'a Target,
    /// `recovery_target_inclusive = off`.
    pub exclusive: bool,
}

/// What the WAL along a line holds.
pub trait Wal {
    /// Where recovery that began at `from` stops first in these segments of the stretch; `None` when nowhere.
    ///
    /// # Errors
    /// What the repository said.
    fn stop(
        &mut self,
        stretch: &Stretch,
        numbers: RangeInclusive<u64>,
        from: Lsn,
        aim: Aim<'_>,
    ) -> Result<Option<Moment>>;

    /// Where the stretch ends.
    ///
    /// # Errors
    /// What the repository said.
    fn end(&mut self, stretch: &Stretch) -> Result<Moment>;

    /// Time of the last commit in the stretch that ends at `lsn` or before it, in microseconds since 2000-01-01 UTC.
    ///
    /// # Errors
    /// What the repository said.
    fn last_before(&mut self, stretch: &Stretch, lsn: Lsn) -> Result<Option<i64>>;

    /// Where the last whole record of the stretch begins: the last LSN that is met as a target.
    ///
    /// # Errors
    /// What the repository said.
    fn last_start(&mut self, stretch: &Stretch) -> Result<Option<Lsn>>;

    /// The first of these segments whose records end before it does, and why: recovery would take that for the end.
    ///
    /// # Errors
    /// What the repository said.
    fn torn(&mut self, stretch: &Stretch, numbers: Range<u64>) -> Result<Option<(SegmentName, String)>>;
}

/// Where a stretch ends, or where its last segment begins when that one is damaged: a target before it may still be
/// reached.
///
/// # Errors
/// What the repository said.
pub fn end_or_damage(wal: &mut dyn Wal, stretch: &Stretch, size: SegmentSize) -> Result<Moment> {
    match wal.end(stretch) {
        Err(e) if is_damage(&e) => Ok(Moment { lsn: size.start_of(stretch.last()), time: None }),
        end => end,
    }
}

/// Whether a commit of this time is behind a target of that time.
pub fn is_later(time: i64, target: i64, aim: Aim<'_>) -> bool {
    if aim.exclusive { time >= target } else { time > target }
}

/// What the choice is made from.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    /// Backups of one system identifier.
    pub records: &'a [Record],
    /// Its WAL.
    pub survey: &'a Survey,
}

/// What is wished.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// Where recovery ends.
    pub aim: Aim<'a>,
    /// Along which timeline.
    pub timeline: TimelineChoice,
    /// The records hold the one backup that was named.
    pub named: bool,
}

/// A backup, a line, and how far recovery goes along it.
#[derive(Debug, Clone)]
pub struct Course<'a> {
    /// The backup.
    pub record: &'a Record,
    /// The timeline with its ancestors.
    pub line: Line,
    /// The WAL that follows in the archive; none when the backup's own is all there is.
    pub stretch: Option<Stretch>,
    /// Where the target stops recovery; none for the end of the archive.
    pub stop: Option<Moment>,
    /// Where the WAL ends.
    pub end: Moment,
    /// What the server is told instead of the target, which it would not meet.
    pub given: Option<Target>,
    /// What the user should know.
    pub remarks: Vec<String>,
}

/// A complete full backup.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Its record.
    pub record: &'a Record,
    /// Its timeline.
    pub timeline: Timeline,
    /// Where recovery starts.
    pub start: Lsn,
    /// Where the backup ended.
    pub stop: Lsn,
}

impl<'a> Candidate<'a> {
    /// `None` for a record that lacks what only a damaged one can lack.
    pub fn of(record: &'a Record) -> Option<Self> {
        let (timeline, start, stop) = (record.timeline?, record.start_lsn?, record.stop_lsn?);
        (start <= stop && timeline.0 > 0).then_some(Candidate { record, timeline, start, stop })
    }

    /// When the backup was complete: microseconds since 2000-01-01 UTC, by the clock of its server.
    pub fn finished(&self) -> Option<i64> {
        let text = self.record.finished_at.as_deref()?;
        chrono::DateTime::parse_from_rfc3339(text).ok().map(|time| from_utc(time.to_utc()))
    }

    /// The first segment that must come from the archive.
    pub fn first_needed(&self, line: &Line, size: SegmentSize) -> u64 {
        if !self.record.wal_included {
            return size.segment_of(self.start);
        }
        let last = size.last_segment_before(self.stop);
        // A segment in which another timeline begins is read from that one, which the backup does not have.
        let own = line.parts(Run { first: last, last }, size).iter().all(|p| p.timeline == self.timeline);
        if own { last + 1 } else { last }
    }
}

/// Chooses.
///
/// # Errors
/// `BackupNotFound` without a candidate; `TargetUnreachable` with the reason and what can be reached; `WalMissing` for
/// a named backup that lacks WAL of its own; what the repository said.
pub fn choose<'a>(stored: Stored<'a>, wish: Wish<'_>, wal: &mut dyn Wal) -> Result<Course<'a>> {
    let mut candidates: Vec<Candidate<'a>> = stored.records.iter().filter_map(Candidate::of).collect();
    // Along one line LSNs tell the order, whatever the clocks showed.
    candidates.sort_by_key(|c| Reverse((c.stop, c.finished())));
    if wish.timeline == TimelineChoice::Current {
        candidates.sort_by_key(|c| Reverse(c.finished()));
    }
    let Some(newest) = candidates.first() else {
        return Err(Error::new(
            ErrorKind::Corrupt,
            "no record of a backup says where the backup starts and ends",
        ));
    };
    let mut remarks = Vec::new();
    let tip = tip(stored.survey, &candidates, wish, &mut remarks)?;
    let mut line = Line::of(stored.survey, tip.unwrap_or(newest.timeline));
    let mut judge = Judge::new(stored.survey, wish.aim, wal);
    let mut verdicts = Vec::new();
    for candidate in &candidates {
        if tip.is_none() && line.timeline() != candidate.timeline {
            line = Line::of(stored.survey, candidate.timeline);
            judge.forget();
        }
        match judge.judge(candidate, &line)? {
            Verdict::Reached { stretch, stop, end, given } => {
                has_history(stored.survey, candidate, line.timeline())?;
                let record = candidate.record;
                let mut course = Course { record, line, stretch, stop, end, given, remarks };
                if wish.timeline == TimelineChoice::Latest {
                    forks::check(stored.survey, &course, wish.aim, judge.into_wal())?;
                }
                to_the_fork(stored.survey, *wish.aim.target == Target::Latest, &mut course);
                return Ok(course);
            }
            verdict => verdicts.push((*candidate, verdict)),
        }
    }
    Err(refusal::refuse(stored.survey, wish, &line, &verdicts, judge.into_wal())?)
}

/// The timeline to follow; `None` for each backup its own.
fn tip(
    survey: &Survey,
    candidates: &[Candidate<'_>],
    wish: Wish<'_>,
    remarks: &mut Vec<String>,
) -> Result<Option<Timeline>> {
    let with_wal = survey.timelines.iter().filter(|(_, content)| !content.runs.is_empty()).map(|(t, _)| *t);
    let mut known: Vec<Timeline> = with_wal.chain(candidates.iter().map(|c| c.timeline)).collect();
    known.sort_unstable();
    known.dedup();
    let continues = |tip: &Timeline| {
        let history = survey.history(*tip);
        candidates.iter().any(|c| history.reaches(c.timeline, c.stop))
    };
    let newest = known.last().copied().unwrap_or(Timeline(1));
    match wish.timeline {
        TimelineChoice::Current => Ok(None),
        TimelineChoice::Number(number) if known.contains(&number) => Ok(Some(number)),
        TimelineChoice::Number(number) => Err(refusal::no_timeline(number, survey, &known)),
        TimelineChoice::Latest => {
            let tip = if wish.named { known.iter().rev().copied().find(continues) } else { None };
            let tip = tip.unwrap_or(newest);
            if tip != newest {
                remarks.push(format!(
                    "timeline {newest} is the newest, and does not continue this backup: recovery follows timeline {tip}"
                ));
            }
            let unused =
                survey.histories.values().filter(|h| h.timeline > tip && !known.contains(&h.timeline));
            remarks.extend(unused.filter_map(|history| without_wal(history, tip)));
            Ok(Some(tip))
        }
    }
}

/// A newer timeline began, and none of its WAL was stored.
fn without_wal(history: &TimelineHistory, tip: Timeline) -> Option<String> {
    let begins = history.entries.last()?.switch_lsn;
    Some(format!(
        "timeline {} began at {begins}, and none of its WAL is stored: recovery follows timeline {tip}",
        history.timeline
    ))
}

/// Where another timeline left this one, WAL of this one was: the end is not known to come before that.
fn to_the_fork(survey: &Survey, to_the_end: bool, course: &mut Course<'_>) {
    let tip = course.line.timeline();
    let Some((child, left)) = forks::left_at(survey, tip).filter(|_| to_the_end) else { return };
    let end = course.end.lsn;
    if !is_at(end, left) {
        course.remarks.push(format!(
            "timeline {child} left timeline {tip} at {left}, but what is stored of timeline {tip} ends before that, at \
             {end}: transactions that were committed in between will be MISSING. Look for segments of timeline {tip} \
             behind {end} (pg_wal of an old server: --keep-wal DIR)"
        ));
        course.end = Moment { lsn: left, time: None };
    }
}

/// The server reads the history of the timeline that it follows, and ends when it is not there.
fn has_history(survey: &Survey, candidate: &Candidate<'_>, tip: Timeline) -> Result<()> {
    let included = candidate.record.wal_included && candidate.timeline == tip;
    // An archive without WAL of the timeline answers "not there", and the server takes what the backup brought.
    let brought = included && !survey.timelines.contains_key(&tip);
    if tip.0 == 1 || survey.histories.contains_key(&tip) || brought {
        return Ok(());
    }
    let name = crate::postgres::timeline::history_file_name(tip);
    Err(Error::new(
        ErrorKind::TargetUnreachable,
        format!("timeline {tip} cannot be followed: its history file {name} is not in the archive"),
    )
    .hint("Get the file back from a server of that timeline (pg_wal), and store it with \"pgark wal-push\"."))
}

#[cfg(test)]
#[path = "choice_tests.rs"]
mod tests;
