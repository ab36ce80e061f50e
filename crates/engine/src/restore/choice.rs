//! Which backup, along which timeline: the newest from which the target can be reached. Pure but for [`Wal`].
//!
//! A backup serves when its end lies in the history of the timeline, when nothing is missing from its start (or, if it
//! brings its own WAL, from its end) to the target, and when recovery, which stops at the first place that fits the
//! target, does not stop before the end of the backup.
//!
//! *Candidate*: a complete full backup. *Course*: a candidate, a line, and where recovery along it ends.

use super::refusal::{self, Verdict};
use super::target::{Target, TimelineChoice};
use crate::postgres::timeline::TimelineHistory;
use crate::postgres::wal_record::from_utc;
use crate::repository::Record;
use crate::wal::moments::Moment;
use crate::wal::survey::Run;
use crate::wal::{Line, Stretch, Survey};
use pg_ark_contract::{Error, ErrorKind, Lsn, Result, SegmentSize, Timeline};
use std::cmp::Reverse;
use std::ops::RangeInclusive;

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
    let mut judge = Judge { survey: stored.survey, aim: wish.aim, wal, known: None };
    let mut verdicts = Vec::new();
    for candidate in &candidates {
        if tip.is_none() && line.timeline() != candidate.timeline {
            line = Line::of(stored.survey, candidate.timeline);
            judge.known = None;
        }
        match judge.judge(candidate, &line)? {
            Verdict::Reached { stretch, stop, end } => {
                has_history(stored.survey, candidate, line.timeline())?;
                let record = candidate.record;
                return Ok(Course { record, line, stretch, stop, end, remarks });
            }
            verdict => verdicts.push((*candidate, verdict)),
        }
    }
    let wal = judge.wal;
    Err(refusal::refuse(stored.survey, wish, &line, &verdicts, wal)?)
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
        "timeline {} began at {begins}, and none of its WAL is stored: recovery follows timeline {tip}, beyond that too",
        history.timeline
    ))
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

/// Judges candidates of one line, the newest first.
struct Judge<'w> {
    survey: &'w Survey,
    aim: Aim<'w>,
    wal: &'w mut dyn Wal,
    /// First segment of a stretch that was looked through from another on to its end, and what was found.
    known: Option<(u64, u64, Option<Moment>)>,
}

impl Judge<'_> {
    fn judge(&mut self, candidate: &Candidate<'_>, line: &Line) -> Result<Verdict> {
        let Candidate { record, timeline, stop: end_of_backup, .. } = *candidate;
        let size = if self.survey.is_empty() { record.wal_segment_size } else { self.survey.segment_size };
        if !line.history.reaches(timeline, end_of_backup) || size != record.wal_segment_size {
            return Ok(Verdict::OtherLine);
        }
        let needed = candidate.first_needed(line, size);
        let stretch = line.stretch_of(needed);
        let next = stretch.map_or(needed, |s| s.last() + 1);
        let last_own = size.last_segment_before(end_of_backup);
        if next <= last_own {
            return Ok(Verdict::WalMissing(Run { first: next, last: last_own }));
        }
        let hole = line.stretches.iter().map(Stretch::first).find(|first| *first > next);
        let hole = hole.map(|first| Run { first: next, last: first - 1 });
        let own = Moment { lsn: end_of_backup, time: None };
        let end = match stretch {
            Some(stretch) => {
                Some(self.wal.end(stretch)?).filter(|end| end.lsn >= end_of_backup).unwrap_or(own)
            }
            None => own,
        };
        let reached = |stop| Verdict::Reached { stretch: stretch.cloned(), stop, end };
        let aim = self.aim;
        let stop = match aim.target {
            Target::Latest => return Ok(hole.map_or(reached(None), |hole| Verdict::Hole { hole, end })),
            Target::Immediate => return Ok(reached(Some(own))),
            Target::Lsn(lsn) if *lsn < end_of_backup => return Ok(Verdict::TooNew),
            Target::Time(time) if self.is_too_new(candidate, stretch, from_utc(*time))? => {
                return Ok(Verdict::TooNew);
            }
            _ => match stretch {
                Some(stretch) => self.stop(candidate, stretch, size)?,
                None => None,
            },
        };
        Ok(match (stop, hole) {
            (Some(stop), _) if stop.lsn < end_of_backup => Verdict::TooNew,
            (Some(stop), _) => reached(Some(stop)),
            (None, Some(hole)) => Verdict::Hole { hole, end },
            (None, None) => Verdict::Beyond { end },
        })
    }

    /// Whether the backup holds what was committed after this time. Its clock tells where no commit does.
    fn is_too_new(
        &mut self,
        candidate: &Candidate<'_>,
        stretch: Option<&Stretch>,
        time: i64,
    ) -> Result<bool> {
        let last = candidate.record.wal_segment_size.last_segment_before(candidate.stop);
        let before = match stretch.filter(|stretch| stretch.first() <= last) {
            Some(stretch) => self.wal.last_before(stretch, candidate.stop)?,
            None => None,
        };
        Ok(match before {
            Some(before) => is_later(before, time, self.aim),
            None => candidate.finished().is_none_or(|finished| finished > time),
        })
    }

    /// Where recovery from this backup stops. What an older one shares with a newer one is not read twice.
    fn stop(
        &mut self,
        candidate: &Candidate<'_>,
        stretch: &Stretch,
        size: SegmentSize,
    ) -> Result<Option<Moment>> {
        let own = size.segment_of(candidate.start).max(stretch.first());
        let first = match self.aim.target {
            Target::Lsn(lsn) => size.segment_of(*lsn).max(own),
            _ => own,
        };
        let known = self.known.filter(|(of, from, _)| *of == stretch.first() && *from > first);
        let last = known.map_or(stretch.last(), |(_, from, _)| from.min(stretch.last()));
        let found = if first > last {
            None
        } else {
            self.wal.stop(stretch, first..=last, candidate.start, self.aim)?
        };
        let found = found.or(known.and_then(|(_, _, found)| found));
        self.known = Some((stretch.first(), first, found));
        Ok(found)
    }
}

#[cfg(test)]
#[path = "choice_tests.rs"]
mod tests;
