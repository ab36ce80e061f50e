//! Transactions of an old server that a restore would lose: WAL behind a gap, and WAL behind the place where the timeline
//! that recovery follows branched off. Nobody may learn of it afterwards.

use super::old_wal::OldWal;
use super::old_wal_end::Tail;
use super::salvage::Road;
use super::saved::INFIX;
use super::target::{Target, shown_moment};
use crate::postgres::timeline::TimelineHistory;
use crate::postgres::wal_segment::SegmentName;
use crate::wal::{Line, Survey};
use pg_ark_contract::units::human_bytes;
use pg_ark_contract::{Error, ErrorKind, Lsn, Result, Timeline};
use std::collections::BTreeMap;
use std::path::Path;

/// Old WAL that would follow, were there not a gap before it. `next`: the segment behind what recovery gets; `start`:
/// where it begins.
///
/// # Errors
/// `WalMissing` when the end of the WAL is wanted and the restore removes the server that wrote it.
pub(super) fn behind_a_gap(
    old: &OldWal,
    both: &Survey,
    line: &Line,
    (next, start): (Option<u64>, u64),
    road: &Road<'_>,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let size = old.identity.size;
    let lost = old.tails.iter().filter(|tail| {
        let first = SegmentName { timeline: tail.timeline, number: tail.run.first };
        tail.run.first > start && !both.holds(first) && is_of_a_server(old, tail)
    });
    for tail in lost {
        let name = |number| SegmentName { timeline: tail.timeline, number }.file_name(size);
        let before = both.timelines.get(&tail.timeline).and_then(|content| {
            content.runs.iter().map(|run| run.last).filter(|last| *last < tail.run.first).max()
        });
        let missing = before.map(|last| last + 1).or(next).unwrap_or(start);
        let what = format!(
            "the old server's WAL from {} to {} CANNOT be used: what comes before it, {} to {}, is neither in the archive \
             nor in the old pg_wal",
            name(tail.run.first),
            name(tail.run.last),
            name(missing),
            name(tail.run.first.saturating_sub(1))
        );
        let doomed = old.doomed.iter().any(|name| tail.holds(*name));
        if doomed && *road.target == Target::Latest && is_ahead(tail, line, road, both) {
            return Err(refusal(what, tail));
        }
        warnings.push(format!("{what}. It is kept; transactions in it are not restored"));
    }
    Ok(())
}

/// Whether recovery to the end of the WAL should have read this.
fn is_ahead(tail: &Tail, line: &Line, road: &Road<'_>, both: &Survey) -> bool {
    match line.history.contains(tail.timeline) {
        true => {
            let left = line.history.end_of(tail.timeline);
            left.is_none_or(|left| tail.run.first <= both.segment_size.segment_of(left))
        }
        // The old server was on a newer timeline than all that is stored.
        false => road.newest && tail.timeline > road.timeline,
    }
}

fn refusal(what: String, tail: &Tail) -> Error {
    let time = tail.last_commit.and_then(shown_moment);
    let time = time.map_or_else(String::new, |time| format!(", the last of them at {time}"));
    Error::new(ErrorKind::WalMissing, what)
        .detail(format!(
            "The server that wrote it would be removed, and its transactions up to {} would not be restored{time}.",
            tail.end
        ))
        .hint(
            "Nothing was touched. Get the missing segments and name their folder with --keep-wal; or move the old data \
             directory away, where its server may still start, and restore without --replace, to the end of what connects; \
             or name a target before the gap, such as --target immediate, which accepts the loss.",
        )
}

/// Whether an old server wrote any of it, not the archive alone.
fn is_of_a_server(old: &OldWal, tail: &Tail) -> bool {
    old.segments.iter().any(|(name, kept)| kept.stored.is_none() && tail.holds(*name))
}

/// What to say about WAL that an old server wrote behind the place where recovery leaves its timeline.
pub(super) fn behind_the_fork(old: &OldWal, both: &Survey, line: &Line, data: &Path) -> Vec<String> {
    let mut ends: BTreeMap<Timeline, &Tail> = BTreeMap::new();
    for tail in old.tails.iter().filter(|tail| is_of_a_server(old, tail)) {
        let end = ends.entry(tail.timeline).or_insert(tail);
        if tail.end > end.end {
            *end = tail;
        }
    }
    ends.into_values().filter_map(|tail| about_fork(old, both, line, data, tail)).collect()
}

fn about_fork(old: &OldWal, both: &Survey, line: &Line, data: &Path, tail: &Tail) -> Option<String> {
    let fork = fork(&both.history(tail.timeline), &line.history).filter(|fork| tail.end > *fork)?;
    let time = tail.last_commit.and_then(shown_moment);
    let time = time.map_or_else(String::new, |time| format!(", its last transaction at {time}"));
    let place = match old.doomed.iter().any(|name| tail.holds(*name)) {
        true => format!("saved first, in \"{}{INFIX}...\"", data.display()),
        false => {
            let kept = old.segments.iter().find(|(name, kept)| kept.stored.is_none() && tail.holds(**name));
            let folder = kept.and_then(|(_, kept)| kept.path.parent()).unwrap_or(Path::new("/"));
            format!("kept in \"{}\"", folder.display())
        }
    };
    Some(format!(
        "{} OF THE OLD SERVER'S WAL ARE NOT RESTORED: it wrote timeline {} up to {}{time}, and recovery follows timeline \
         {}, which parts from it at {fork}. That WAL is {place}. --target-timeline {1} restores it instead",
        human_bytes(tail.end.0.saturating_sub(fork.0)),
        tail.timeline,
        tail.end,
        line.timeline()
    ))
}

/// Where two timelines part; `None` when they are one, or have nothing in common.
fn fork(one: &TimelineHistory, other: &TimelineHistory) -> Option<Lsn> {
    let ancestors = one.entries.iter().map(|entry| entry.timeline).chain([one.timeline]);
    let common = ancestors.filter(|timeline| other.contains(*timeline)).max()?;
    one.end_of(common).into_iter().chain(other.end_of(common)).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timelines_part_where_the_first_of_both_leaves_the_last_common_one() {
        let history =
            |timeline, text: &str| TimelineHistory::parse(Timeline(timeline), text.as_bytes()).unwrap();
        let one = TimelineHistory::without_ancestors(Timeline(1));
        let two = history(2, "1\t0/500000\tx\n");
        let three = history(3, "1\t0/400000\tx\n");
        let four = history(4, "1\t0/500000\tx\n2\t0/700000\tx\n");
        assert_eq!(fork(&one, &two), Some(Lsn(0x50_0000)));
        assert_eq!(fork(&two, &three), Some(Lsn(0x40_0000)));
        assert_eq!(fork(&two, &four), Some(Lsn(0x70_0000)));
        assert_eq!(fork(&four, &two), Some(Lsn(0x70_0000)));
        assert_eq!(fork(&one, &one), None);
        assert_eq!(fork(&one, &TimelineHistory::without_ancestors(Timeline(2))), None);
    }
}
