//! Whether one backup leads to the target along one line.

use super::choice::{Aim, Candidate, Wal, end_or_damage, is_later};
use super::refusal::Verdict;
use super::target::Target;
use crate::postgres::wal_record::from_utc;
use crate::wal::moments::Moment;
use crate::wal::survey::Run;
use crate::wal::{Line, Stretch, Survey};
use pg_ark_contract::{Result, SegmentSize};

/// Judges candidates of one line, the newest first.
pub(super) struct Judge<'w> {
    survey: &'w Survey,
    aim: Aim<'w>,
    wal: &'w mut dyn Wal,
    /// First segment of a stretch that was looked through from another on to its end, and what was found.
    known: Option<(u64, u64, Option<Moment>)>,
}

impl<'w> Judge<'w> {
    /// Knows nothing yet.
    pub fn new(survey: &'w Survey, aim: Aim<'w>, wal: &'w mut dyn Wal) -> Self {
        Judge { survey, aim, wal, known: None }
    }

    /// Another line is judged from now on.
    pub fn forget(&mut self) {
        self.known = None;
    }

    /// What it read with.
    pub fn into_wal(self) -> &'w mut dyn Wal {
        self.wal
    }

    /// How a backup fares along the line.
    ///
    /// # Errors
    /// What the repository said; `Corrupt` when the segment that tells is damaged.
    pub fn judge(&mut self, candidate: &Candidate<'_>, line: &Line) -> Result<Verdict> {
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
                let end = match self.aim.target {
                    Target::Latest => self.wal.end(stretch)?,
                    _ => end_or_damage(self.wal, stretch, size)?,
                };
                if end.lsn >= end_of_backup { end } else { own }
            }
            None => own,
        };
        let reached = |stop| Verdict::Reached { stretch: stretch.cloned(), stop, end, given: None };
        let aim = self.aim;
        let stop = match aim.target {
            Target::Latest => None,
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
        let given = match stop {
            None => self.time_of_the_end(stretch, end)?,
            Some(_) => None,
        };
        let stop = stop.or(given.as_ref().map(|_| end));
        if stop.is_some_and(|stop| stop.lsn < end_of_backup) {
            return Ok(Verdict::TooNew);
        }
        if let Some(stretch) = stretch {
            let upto = stop.map_or(stretch.last(), |stop| size.last_segment_before(stop.lsn));
            if let Some((segment, why)) = self.wal.torn(stretch, needed..upto)? {
                return Ok(Verdict::Torn { segment, why });
            }
        }
        Ok(match (stop, hole) {
            (None, None) if *aim.target == Target::Latest => reached(None),
            (stop @ Some(_), _) => Verdict::Reached { stretch: stretch.cloned(), stop, end, given },
            (None, Some(hole)) => Verdict::Hole { hole, end },
            (None, None) => Verdict::Beyond { end },
        })
    }

    /// The time of the last transaction is met by all that is stored. The server stops at a time only where a later one
    /// follows, so it is told the last record instead.
    fn time_of_the_end(&mut self, stretch: Option<&Stretch>, end: Moment) -> Result<Option<Target>> {
        let is_last = match self.aim.target {
            Target::Time(time) => !self.aim.exclusive && end.time == Some(from_utc(*time)),
            _ => false,
        };
        match stretch.filter(|_| is_last) {
            Some(stretch) => Ok(self.wal.last_start(stretch)?.map(Target::Lsn)),
            None => Ok(None),
        }
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
