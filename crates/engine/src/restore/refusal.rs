//! Why a target cannot be reached, and what can be.

use super::choice::{Candidate, Wal, Wish, end_or_damage};
use super::target::{Target, shown_moment};
use crate::postgres::wal_segment::SegmentName;
use crate::wal::moments::Moment;
use crate::wal::survey::Run;
use crate::wal::{Line, Stretch, Survey};
use pg_ark_contract::{Error, ErrorKind, Lsn, Result, Timeline};
use std::collections::BTreeSet;

/// Most windows that a message names.
const MAX_WINDOWS: usize = 5;

/// How a backup fares along a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It leads to the target.
    Reached {
        /// The WAL that follows it in the archive.
        stretch: Option<Stretch>,
        /// Where recovery stops; none at the end of the WAL.
        stop: Option<Moment>,
        /// Where the WAL ends.
        end: Moment,
        /// What the server is told instead of the target.
        given: Option<Target>,
    },
    /// The line does not continue it.
    OtherLine,
    /// WAL between its own start and end is not there.
    WalMissing(Run),
    /// The target comes before its end.
    TooNew,
    /// A segment before the target ends too early.
    Torn {
        /// Which.
        segment: SegmentName,
        /// How that shows.
        why: String,
    },
    /// WAL is missing behind it, and the target was not found before that.
    Hole {
        /// What is missing.
        hole: Run,
        /// Where the WAL before it ends.
        end: Moment,
    },
    /// The target does not come before the end of the WAL.
    Beyond {
        /// That end.
        end: Moment,
    },
}

/// A range that can be reached.
struct Window {
    line: String,
    from: Lsn,
    from_time: Option<i64>,
    /// The last LSN and the last time that are met; none when the end of the backup is all.
    to: Option<Moment>,
    /// The end of the WAL, where nothing is known behind it.
    end: Option<Lsn>,
}

impl Window {
    fn shown(&self) -> String {
        let place = |lsn: Lsn, time: Option<i64>| match time.and_then(shown_moment) {
            Some(time) => format!("{lsn} ({time})"),
            None => lsn.to_string(),
        };
        let many = if self.line.contains(',') { "s" } else { "" };
        let to = match (self.to, self.end) {
            (None, _) => ", the end of the backup (--target immediate),".to_string(),
            (Some(to), None) => format!(" to {}", place(to.lsn, to.time)),
            (Some(to), Some(end)) => {
                format!(" to {}, and with --target latest to the end at {end},", place(to.lsn, to.time))
            }
        };
        format!("{}{to} on timeline{many} {}", place(self.from, self.from_time), self.line)
    }
}

/// The error for a target that no backup leads to. `verdicts` are of the newest backup first.
///
/// # Errors
/// What the repository said when it was asked for the windows.
pub fn refuse(
    survey: &Survey,
    wish: Wish<'_>,
    line: &Line,
    verdicts: &[(Candidate<'_>, Verdict)],
    wal: &mut dyn Wal,
) -> Result<Error> {
    let candidates: Vec<Candidate<'_>> = verdicts.iter().map(|(candidate, _)| *candidate).collect();
    let windows = windows(survey, &candidates, wal)?;
    let error = reason(survey, wish, line, verdicts);
    if windows.is_empty() {
        return Ok(error);
    }
    let mut shown: Vec<String> = windows.iter().take(MAX_WINDOWS).map(Window::shown).collect();
    if windows.len() > MAX_WINDOWS {
        shown.push(format!("{} more (\"pgark windows\")", windows.len() - MAX_WINDOWS));
    }
    let whose = if wish.named { "From this backup can be reached" } else { "What can be reached" };
    Ok(error.detail(format!("{whose}: {}.", shown.join("; "))))
}

fn reason(survey: &Survey, wish: Wish<'_>, line: &Line, verdicts: &[(Candidate<'_>, Verdict)]) -> Error {
    let target = wish.aim.target.shown();
    let unreachable =
        |why: String| Error::new(ErrorKind::TargetUnreachable, format!("{target} cannot be reached: {why}"));
    let mut found = verdicts.iter().map(|(_, verdict)| verdict);
    let torn = found.clone().find_map(|verdict| match verdict {
        Verdict::Torn { segment, why } => Some((segment, why)),
        _ => None,
    });
    if let Some((segment, why)) = torn {
        let name = segment.file_name(survey.segment_size);
        return unreachable(format!("segment {name} is damaged, and recovery would end there: {why}")).hint(
            "Get the segment back (pg_wal of an old server, another archive), or choose a target before it: \
             --target-lsn, --target-time, or --target immediate for the end of the backup.",
        );
    }
    let holes = found.clone().find_map(|verdict| match verdict {
        Verdict::Hole { hole, end } => Some((hole, end)),
        _ => None,
    });
    if let Some((hole, end)) = holes {
        let time = end.time.and_then(shown_moment).map_or(String::new(), |time| format!(" ({time})"));
        let missing = missing(survey, line, *hole);
        let removed = removed(survey, line, *hole);
        if removed == hole.count() {
            let why = format!("what followed {}{time} was removed by retention: {missing}", end.lsn);
            return by_retention(unreachable(why), survey);
        }
        let part =
            if removed > 0 { format!(", {removed} of them removed by retention") } else { String::new() };
        return unreachable(format!("WAL is missing behind {}{time}: {missing}{part}", end.lsn)).hint(
            "Get the missing segments back (pg_wal of an old server: --keep-wal DIR), or choose a target before \
             them: --target-lsn, --target-time, or --target immediate for the end of the backup.",
        );
    }
    if let Some(end) = found.clone().find_map(|verdict| match verdict {
        Verdict::Beyond { end } => Some(end),
        _ => None,
    }) {
        return unreachable(beyond(wish, end)).hint(
            "--target latest goes to the end of what is stored; --target-timeline N looks on another timeline.",
        );
    }
    if found.clone().any(|verdict| *verdict == Verdict::TooNew) {
        let what = if wish.named { "this backup" } else { "the oldest backup that leads there" };
        return unreachable(format!("it comes before the end of {what}"))
            .hint("\"pgark list\" shows the backups; a backup leads only to what came after its end.");
    }
    match found.find_map(|verdict| if let Verdict::WalMissing(run) = verdict { Some(run) } else { None }) {
        Some(run) => {
            let name = verdicts.first().map_or("", |(candidate, _)| &candidate.record.backup[..]);
            let what =
                if wish.named { format!("backup \"{name}\" needs") } else { "the backups need".into() };
            let missing = missing(survey, line, *run);
            Error::new(ErrorKind::WalMissing, format!("{what} WAL that is not in the archive: {missing}"))
                .hint("Get the segments back (pg_wal of an old server: --keep-wal DIR), or restore another backup.")
        }
        None => {
            let what = if wish.named { "this backup" } else { "any backup" };
            let shown = line.shown();
            unreachable(format!(
                "timeline {} does not continue {what} (its history is {shown})",
                line.timeline()
            ))
            .hint("Choose another timeline with --target-timeline, or another backup.")
        }
    }
}

fn beyond(wish: Wish<'_>, end: &Moment) -> String {
    let last = end.time.and_then(shown_moment);
    let upto = format!("the WAL that is stored ends at {}", end.lsn);
    match (wish.aim.target, last) {
        (Target::Time(_), Some(time)) => {
            format!("the last transaction that is stored ended at {time}, and none came later")
        }
        (Target::Time(_), None) => format!("no transaction that ended later is stored: {upto}"),
        (Target::Xid(_), _) => format!(
            "it did not end in the WAL that is stored, or is a subtransaction: name its top transaction; {upto}"
        ),
        (Target::Name(_), _) => format!("it is not in the WAL that is stored; {upto}"),
        (_, Some(time)) => format!("{upto}, the last transaction at {time}"),
        (_, None) => upto,
    }
}

/// `000000010000000000000004 to 000000010000000000000006 (3 segments)`.
fn missing(survey: &Survey, line: &Line, run: Run) -> String {
    let size = survey.segment_size;
    let parts = line.parts(run, size);
    let name = |timeline, number| SegmentName { timeline, number }.file_name(size);
    match (parts.first(), parts.last()) {
        (Some(first), Some(last)) if run.first < run.last => format!(
            "{} to {} ({} segments)",
            name(first.timeline, run.first),
            name(last.timeline, run.last),
            run.count()
        ),
        (Some(first), _) => format!("segment {}", name(first.timeline, run.first)),
        _ => format!("{} segments", run.count()),
    }
}

/// How many segments of a hole retention removed.
fn removed(survey: &Survey, line: &Line, hole: Run) -> u64 {
    let parts = line.parts(hole, survey.segment_size).into_iter();
    let common = parts.flat_map(|part| {
        let runs = survey.pruned.runs(part.timeline).iter();
        runs.map(move |run| (run.first.max(part.run.first), run.last.min(part.run.last)))
    });
    common.filter(|(first, last)| first <= last).map(|(first, last)| last - first + 1).sum()
}

/// What retention removed is gone for good, unless somebody has a copy.
fn by_retention(error: Error, survey: &Survey) -> Error {
    let when = survey.pruned.when();
    error.hint(format!(
        "Choose --target immediate for the end of the backup, or a target before what was removed: --target-lsn, \
         --target-time. Retention last removed WAL at {when}; a copy of the segments leads on: --keep-wal DIR.",
    ))
}

/// What can be reached from these backups: for each line and each part of it without a hole one window.
fn windows(survey: &Survey, candidates: &[Candidate<'_>], wal: &mut dyn Wal) -> Result<Vec<Window>> {
    let tips: BTreeSet<Timeline> =
        Line::all(survey).iter().map(Line::timeline).chain(candidates.iter().map(|c| c.timeline)).collect();
    let mut windows: Vec<Window> = Vec::new();
    for tip in tips {
        let line = Line::of(survey, tip);
        let mut known: Vec<Option<u64>> = Vec::new();
        // The oldest backup of a stretch opens the window.
        for candidate in candidates.iter().rev() {
            let size = candidate.record.wal_segment_size;
            if !line.history.reaches(candidate.timeline, candidate.stop) {
                continue;
            }
            let needed = candidate.first_needed(&line, size);
            let stretch = line.stretch_of(needed);
            let next = stretch.map_or(needed, |stretch| stretch.last() + 1);
            let key = stretch.map(Stretch::first);
            if next <= size.last_segment_before(candidate.stop) || (key.is_some() && known.contains(&key)) {
                continue;
            }
            known.push(key);
            let (mut to, mut end) = (None, None);
            if let Some(stretch) = stretch {
                let found = end_or_damage(wal, stretch, survey.segment_size)?;
                let last = wal.last_start(stretch)?.filter(|last| *last >= candidate.stop);
                to = last.map(|lsn| Moment { lsn, ..found });
                end = line.stretches.last().filter(|last| *last == stretch).map(|_| found.lsn);
            }
            let (from, from_time) = (candidate.stop, candidate.finished());
            let window = Window { line: line.shown(), from, from_time, to, end };
            // A backup's own timeline can be part of a longer line.
            if !windows.iter().any(|known| known.from == window.from && known.to == window.to) {
                windows.push(window);
            }
        }
    }
    Ok(windows)
}

/// The error for a timeline that nothing is known of.
pub fn no_timeline(number: Timeline, survey: &Survey, known: &[Timeline]) -> Error {
    let names: Vec<String> = known.iter().map(Timeline::to_string).collect();
    let error = match survey.histories.get(&number).and_then(|history| history.entries.last()) {
        Some(entry) => Error::new(
            ErrorKind::TargetUnreachable,
            format!(
                "timeline {number} cannot be followed: it began at {} on timeline {}, and none of its WAL is stored",
                entry.switch_lsn, entry.timeline
            ),
        ),
        None => Error::new(
            ErrorKind::TargetUnreachable,
            format!("timeline {number} cannot be followed: nothing of it is stored"),
        ),
    };
    error.hint(format!("Timelines with WAL or backups: {}.", names.join(", ")))
}
