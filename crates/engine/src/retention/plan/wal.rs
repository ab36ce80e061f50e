//! The verdict on WAL and histories.

use super::backups::Kept;
use super::facts::{Facts, is_complete};
use super::lines::Lines;
use super::needs::{Need, Needs};
use super::window::Window;
use super::words;
use crate::retention::model::{BackupState, HistoryVerdict, StoredWal, WalVerdict};
use crate::wal::survey::{Run, joined};
use pg_ark_contract::Timeline;
use pg_ark_contract::conversation::BackupKind;
use pg_ark_contract::retention::Verdict;

/// The verdict on every stored segment and every history: by system, timeline, number.
pub fn judge(
    facts: &Facts<'_>,
    lines: &Lines<'_>,
    window: &Window,
    kept: &Kept,
) -> (Vec<WalVerdict>, Vec<HistoryVerdict>) {
    let (mut verdicts, mut histories) = (Vec::new(), Vec::new());
    for (&system, wal) in &facts.stored.wal {
        let needs = Needs::of(facts, lines, window, kept, (system, wal));
        let any_kept = facts.all().any(|index| facts.backup(index).system == system && kept.is(index));
        let from = verdicts.len();
        for (&timeline, runs) in &wal.segments {
            let runs = joined(runs.iter().copied().filter(|run| run.first <= run.last).collect());
            let Some(first) = runs.first() else { continue };
            let needed = needs.on(timeline, first.first);
            let unneeded = words::unneeded(any_kept);
            for (run, need) in cut(&runs, &needed) {
                let verdict = if need.is_some() { Verdict::Keep } else { Verdict::Drop };
                let rule = need.map_or(unneeded.to_owned(), |need| words::wal(facts, &need.why));
                verdicts.push(WalVerdict { system, timeline, run, verdict, rule });
            }
        }
        let segments: Option<Timeline> = verdicts
            .iter()
            .skip(from)
            .filter(|w: &&WalVerdict| w.verdict == Verdict::Keep)
            .map(|w| w.timeline)
            .min();
        histories.extend(of_histories(facts, kept, (system, wal), segments, any_kept));
    }
    (verdicts, histories)
}

/// Cuts runs where needs begin and end. Both ascend.
fn cut<'n>(runs: &[Run], needs: &'n [Need]) -> Vec<(Run, Option<&'n Need>)> {
    let mut pieces = Vec::new();
    let mut needs = needs.iter().peekable();
    for run in runs {
        let mut first = run.first;
        loop {
            while needs.next_if(|need| need.run.last < first).is_some() {}
            let (last, need) = match needs.peek() {
                Some(need) if need.run.first <= first => (need.run.last, Some(*need)),
                Some(need) => (need.run.first - 1, None),
                None => (run.last, None),
            };
            let last = last.min(run.last);
            pieces.push((Run { first, last }, need));
            if last == run.last {
                break;
            }
            first = last + 1;
        }
    }
    pieces
}

/// A server looks for newer timelines from its own number upwards, and stops at the first that has no history
/// (`findNewestTimeLine`, access/transam/timeline.c). So what is newer than anything that is kept stays.
fn of_histories(
    facts: &Facts<'_>,
    kept: &Kept,
    (system, wal): (u64, &StoredWal),
    segments: Option<Timeline>,
    any_kept: bool,
) -> Vec<HistoryVerdict> {
    let own = facts.all().filter(|index| facts.backup(*index).system == system && kept.is(*index));
    let bases = own.filter(|index| facts.backup(*index).kind != BackupKind::Logical);
    // One without a timeline may be on any.
    let timelines = bases.filter_map(|index| {
        let backup = facts.backup(index);
        let unknown =
            is_complete(backup) || matches!(backup.state, BackupState::Running | BackupState::Unreadable);
        backup.timeline.or(unknown.then_some(Timeline(0)))
    });
    let oldest = timelines.chain(segments).min();
    let newest = wal.histories.keys().next_back();
    let verdict = |timeline: &Timeline| {
        let (verdict, rule) = match oldest {
            _ if let Some(lost) = facts.lost_history(system) => (Verdict::Keep, words::lost_history(lost)),
            Some(oldest) if oldest <= *timeline => {
                (Verdict::Keep, "what is kept can lead to its timeline".to_owned())
            }
            Some(_) if newest == Some(timeline) => (Verdict::Keep, "newest timeline".to_owned()),
            None if facts.is_newest(system) => (Verdict::Keep, "no good backup yet".to_owned()),
            _ => (Verdict::Drop, words::unneeded(any_kept).to_owned()),
        };
        HistoryVerdict { system, timeline: *timeline, verdict, rule }
    };
    wal.histories.keys().map(verdict).collect()
}
