//! Where timelines leave one another, and what a target means there.
//!
//! Behind a fork both timelines go on. A time between the fork and the first commit of the new timeline stops recovery at
//! the fork, although the old one has transactions up to that time; and WAL that a newer timeline began with was once
//! there, whether or not it is stored.

use super::choice::{Aim, Course, Wal};
use super::log::is_at;
use super::target::{Target, shown_moment};
use crate::wal::moments::is_damage;
use crate::wal::{Line, Survey};
use pg_ark_contract::{Error, ErrorKind, Lsn, Result, Timeline};

/// The last place where a timeline left this one.
pub fn left_at(survey: &Survey, timeline: Timeline) -> Option<(Timeline, Lsn)> {
    let entries = survey.histories.values().flat_map(|history| {
        let own = history.entries.iter().filter(|entry| entry.timeline == timeline);
        // What left it first: a grandchild's history names the same place.
        own.map(|entry| (history.timeline, entry.switch_lsn))
    });
    entries.max_by_key(|(child, lsn)| (*lsn, std::cmp::Reverse(*child)))
}

/// Refuses a time that ends at a fork, where an ancestor goes on with transactions up to it.
///
/// # Errors
/// `TargetUnreachable`; what the repository said.
pub fn check(survey: &Survey, course: &Course<'_>, aim: Aim<'_>, wal: &mut dyn Wal) -> Result<()> {
    let (Target::Time(_), Some(stop), Some(stretch)) = (aim.target, course.stop, &course.stretch) else {
        return Ok(());
    };
    let forks = course.line.history.entries.iter().filter(|fork| fork.switch_lsn <= stop.lsn);
    let forks: Vec<_> = forks.map(|fork| (fork.timeline, fork.switch_lsn)).collect();
    if forks.is_empty() {
        return Ok(());
    }
    let ours = wal.last_before(stretch, stop.lsn)?;
    for (timeline, fork) in forks {
        let theirs = match last_behind(survey, timeline, fork, aim, wal) {
            Err(e) if is_damage(&e) => None,
            theirs => theirs?,
        };
        if theirs > ours {
            return Err(refusal(course.line.timeline(), (timeline, fork), aim.target, ours, theirs));
        }
    }
    Ok(())
}

/// Time of the last commit of a timeline, up to the target, in what is stored of it behind a fork.
fn last_behind(
    survey: &Survey,
    timeline: Timeline,
    fork: Lsn,
    aim: Aim<'_>,
    wal: &mut dyn Wal,
) -> Result<Option<i64>> {
    let line = Line::of(survey, timeline);
    let first = survey.segment_size.segment_of(fork);
    let Some(stretch) = line.stretch_of(first) else { return Ok(None) };
    let upto = match wal.stop(stretch, first..=stretch.last(), fork, aim)? {
        Some(stop) => stop.lsn,
        None => wal.end(stretch)?.lsn,
    };
    match is_at(fork, upto) {
        true => Ok(None),
        false => wal.last_before(stretch, upto),
    }
}

fn refusal(
    followed: Timeline,
    (timeline, fork): (Timeline, Lsn),
    target: &Target,
    ours: Option<i64>,
    theirs: Option<i64>,
) -> Error {
    let shown = |time: Option<i64>| time.and_then(shown_moment).unwrap_or("an unknown time".to_string());
    Error::new(
        ErrorKind::TargetUnreachable,
        format!(
            "{} means two things: timeline {timeline} has transactions up to {} behind {fork}, where timeline {followed} \
             left it; timeline {followed} has none from there to that time, and would end with {}",
            target.shown(),
            shown(theirs),
            shown(ours)
        ),
    )
    .hint(format!(
        "--target-timeline {timeline} restores those transactions; --target-timeline {followed} ends where it began."
    ))
}
