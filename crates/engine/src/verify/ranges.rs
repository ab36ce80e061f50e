//! From what the archive holds to the rows of `verify_archive`. A pure function: listing, times and reading come in.

use super::damage::Damage;
use super::evidence::Evidence;
use super::windows::{missing, removed};
use crate::postgres::timeline::history_file_name;
use crate::postgres::wal_segment::SegmentName;
use crate::wal::archive::Archive;
use crate::wal::audit::Remark;
use crate::wal::moments::{is_damage, shown_time};
use crate::wal::survey::{Content, Look, Run, Survey};
use pg_ark_contract::rows::{ArchiveRow, ArchiveStatus, Severity};
use pg_ark_contract::{Error, Result, SegmentSize, Timeline};
use std::collections::{BTreeMap, BTreeSet};

/// Rows at the most. What is left out is counted in the last one.
pub const MAX_ROWS: usize = 10_000;

/// Indexes that are told to be wrong; whoever has more deletes them all.
const MAX_INDEX_ROWS: usize = 100;

/// The first and the last time in a run; fails with `Corrupt` when its first or last segment cannot be read.
pub type TimesOf<'a> = dyn FnMut(Timeline, Run) -> Result<(Option<i64>, Option<i64>)> + 'a;

/// A remark on each index that does not say what its segments do.
pub fn index_remarks(archive: &Archive, survey: &Survey, wrong: &Damage) -> Vec<Remark> {
    let per_log = (1 << 32) / survey.segment_size.bytes();
    let mut folders: BTreeMap<(Timeline, u32), (u64, String)> = BTreeMap::new();
    for timeline in survey.timelines.keys() {
        for (number, why) in wrong.of(*timeline, Run { first: 0, last: u64::MAX }) {
            let log = u32::try_from(number / per_log).unwrap_or(u32::MAX);
            let name = SegmentName { timeline: *timeline, number }.file_name(survey.segment_size);
            let first = || (0, format!("{name}: {}", why.unwrap_or("the index is wrong")));
            folders.entry((*timeline, log)).or_insert_with(first).0 += 1;
        }
    }
    let remark = |((timeline, log), (count, first)): ((Timeline, u32), (u64, String))| Remark {
        severity: Severity::Warning,
        timeline: Some(timeline),
        path: archive.index_path(timeline, log),
        finding: format!("does not say what the segments do, of {count} of them; {first}"),
        hint: "Delete it: what it says is then read from the segments.".to_string(),
    };
    folders.into_iter().take(MAX_INDEX_ROWS).map(remark).collect()
}

/// A remark as a row.
pub fn remark_row(archive: &Archive, remark: &Remark) -> ArchiveRow {
    let path = archive.storage().display(&remark.path);
    plain(ArchiveStatus::Damaged, remark.timeline, format!("\"{path}\" {}. {}", remark.finding, remark.hint))
}

/// The rows: timeline by timeline what is there and what is not, in the order of the segments, then what belongs to none.
///
/// # Errors
/// What `times` said, unless a segment itself is at fault.
pub fn rows(
    look: &Look,
    damage: &mut Damage,
    partials: &Damage,
    evidence: &Evidence,
    times: &mut TimesOf<'_>,
) -> Result<Vec<ArchiveRow>> {
    let survey = &look.survey;
    let gaps = &evidence.gaps;
    let mut rows = Vec::new();
    rows.extend(look.size.iter().chain(&look.pruned).map(|e| plain(ArchiveStatus::Damaged, None, text(e))));
    for (timeline, content) in &survey.timelines {
        rows.extend(no_history(look, *timeline, content));
        let mut own = Vec::new();
        for run in &content.runs {
            own.extend(runs(look, *timeline, *run, damage, times)?);
        }
        own.extend(
            gaps.get(timeline).into_iter().flatten().map(|gap| gap_row(survey, *timeline, *gap, evidence)),
        );
        own.extend(pruned_rows(survey, *timeline, evidence));
        own.sort_by(|a, b| (a.start_lsn, &a.first_segment).cmp(&(b.start_lsn, &b.first_segment)));
        rows.append(&mut own);
        for (number, why) in partials.of(*timeline, Run { first: 0, last: u64::MAX }) {
            let mut row =
                ranged(survey, *timeline, Run { first: number, last: number }, ArchiveStatus::Damaged);
            let name = row.first_segment.as_ref().map(|name| format!("{name}.partial"));
            (row.first_segment, row.last_segment) = (name.clone(), name);
            row.detail = why.map(str::to_string);
            rows.push(row);
        }
    }
    let unseen = gaps.iter().filter(|(timeline, _)| !survey.timelines.contains_key(timeline));
    rows.extend(unseen.flat_map(|(t, gaps)| gaps.iter().map(|gap| gap_row(survey, *t, *gap, evidence))));
    let unseen = evidence.pruned.keys().filter(|timeline| !survey.timelines.contains_key(timeline));
    rows.extend(unseen.flat_map(|timeline| pruned_rows(survey, *timeline, evidence)));
    let damaged = look.histories.iter();
    rows.extend(damaged.map(|(timeline, e)| plain(ArchiveStatus::Damaged, Some(*timeline), text(e))));
    rows.extend(strangers(look));
    Ok(cut(rows))
}

/// The rows of a run that the archive holds: without its damaged segments, and those one by one.
fn runs(
    look: &Look,
    timeline: Timeline,
    run: Run,
    damage: &mut Damage,
    times: &mut TimesOf<'_>,
) -> Result<Vec<ArchiveRow>> {
    let survey = &look.survey;
    let mut rows = Vec::new();
    let mut first = run.first;
    loop {
        let next = damage.of(timeline, Run { first, last: run.last }).next().map(|(number, _)| number);
        let good = Run { first, last: next.map_or(run.last, |number| number.saturating_sub(1)) };
        if next != Some(first) {
            match times(timeline, good) {
                Ok(found) => rows.push(ok_row(look, timeline, good, found)),
                Err(e) if is_damage(&e) && find_bad_end(timeline, good, damage, times) => continue,
                Err(e) if is_damage(&e) => rows.push(ok_row(look, timeline, good, (None, None))),
                Err(e) => return Err(e),
            }
        }
        let Some(bad) = next else { return Ok(rows) };
        let last = bad_run(damage, timeline, bad, run.last);
        let mut row = ranged(survey, timeline, Run { first: bad, last }, ArchiveStatus::Damaged);
        let why = damage.why(SegmentName { timeline, number: bad }).map(str::to_string);
        row.detail = why.or_else(|| Some("damaged, as the segments that are named".into()));
        rows.push(row);
        if last >= run.last {
            return Ok(rows);
        }
        first = last + 1;
    }
}

/// Asks for the first and the last segment alone; says whether one of them is damaged.
fn find_bad_end(timeline: Timeline, run: Run, damage: &mut Damage, times: &mut TimesOf<'_>) -> bool {
    let before = damage.count();
    for number in BTreeSet::from([run.first, run.last]) {
        if let Err(e) = times(timeline, Run { first: number, last: number }) {
            damage.add(SegmentName { timeline, number }, text(&e));
        }
    }
    damage.count() > before
}

/// The last of the damaged segments that share a row with `bad`: those without a reason of their own do.
fn bad_run(damage: &Damage, timeline: Timeline, bad: u64, last: u64) -> u64 {
    let mut end = bad;
    for (number, why) in damage.of(timeline, Run { first: bad, last }) {
        if number == bad && why.is_some() {
            return bad;
        }
        if why.is_some() || number > end.saturating_add(1) {
            return end;
        }
        end = number;
    }
    end
}

fn ok_row(
    look: &Look,
    timeline: Timeline,
    run: Run,
    (first, last): (Option<i64>, Option<i64>),
) -> ArchiveRow {
    let survey = &look.survey;
    let mut row = ranged(survey, timeline, run, ArchiveStatus::Ok);
    row.start_time = first.and_then(shown_time);
    row.end_time = last.and_then(shown_time);
    let mut notes = Vec::new();
    let parent = survey.histories.get(&timeline).and_then(|history| history.entries.last());
    if let Some(parent) = parent.filter(|p| survey.segment_size.segment_of(p.switch_lsn) == run.first) {
        notes.push(format!("goes on from timeline {} at {}", parent.timeline, parent.switch_lsn));
    }
    let twice =
        look.twice.iter().filter(|n| n.timeline == timeline && (run.first..=run.last).contains(&n.number));
    match twice.count() {
        0 => {}
        1 => notes.push("1 segment is stored twice, under two codecs".to_string()),
        count => notes.push(format!("{count} segments are stored twice, under two codecs")),
    }
    row.detail = (!notes.is_empty()).then(|| notes.join("; "));
    row
}

fn gap_row(survey: &Survey, timeline: Timeline, gap: Run, evidence: &Evidence) -> ArchiveRow {
    let mut row = ranged(survey, timeline, gap, ArchiveStatus::Gap);
    let content = survey.timelines.get(&timeline);
    let mut why = Vec::new();
    if content.and_then(Content::newest).is_some_and(|newest| newest > gap.last) {
        why.push("later segments of the timeline are there".to_string());
    } else {
        let descends = |other: &&Timeline| survey.history(**other).end_of(timeline).is_some();
        let known = survey.timelines.keys().chain(survey.histories.keys()).find(descends);
        why.extend(known.map(|after| format!("timeline {after}, which went on from it, is there")));
        let partial =
            content.and_then(|content| content.partials.iter().find(|partial| **partial > gap.last));
        let name = |number: &u64| SegmentName { timeline, number: *number }.file_name(survey.segment_size);
        why.extend(
            partial.map(|number| format!("{}.partial, which went on from it, is there", name(number))),
        );
    }
    why.extend(evidence.why(timeline, gap));
    row.detail = Some(format!("{}: {}", missing(timeline, gap, survey.segment_size), why.join("; ")));
    row
}

fn pruned_rows(survey: &Survey, timeline: Timeline, evidence: &Evidence) -> Vec<ArchiveRow> {
    let row = |run: &Run| ArchiveRow {
        detail: Some(removed(timeline, *run, survey.segment_size)),
        ..ranged(survey, timeline, *run, ArchiveStatus::Pruned)
    };
    evidence.pruned.get(&timeline).into_iter().flatten().map(row).collect()
}

fn no_history(look: &Look, timeline: Timeline, content: &Content) -> Option<ArchiveRow> {
    let damaged = look.histories.iter().any(|(other, _)| *other == timeline);
    let run = Run { first: content.runs.first()?.first, last: content.newest()? };
    if timeline.0 <= 1 || damaged || look.survey.histories.contains_key(&timeline) {
        return None;
    }
    let mut row = ranged(&look.survey, timeline, run, ArchiveStatus::NoHistory);
    row.segments = content.runs.iter().map(Run::count).sum();
    row.detail = Some(format!(
        "{} is not in the archive: from which timeline this one came is not known, and recovery cannot follow it",
        history_file_name(timeline)
    ));
    Some(row)
}

/// Before the path of an object that has no place in an archive.
pub(super) const STRANGER: &str = "not stored by pg_ark: ";

fn strangers(look: &Look) -> Vec<ArchiveRow> {
    let shown = |path: &String| format!("{STRANGER}{path}");
    let mut rows: Vec<ArchiveRow> =
        look.survey.strangers.iter().map(|path| plain(ArchiveStatus::Stranger, None, shown(path))).collect();
    let more = look.strangers.saturating_sub(rows.len() as u64);
    if more > 0 {
        rows.push(plain(
            ArchiveStatus::Stranger,
            None,
            format!("{more} more objects that pg_ark did not store"),
        ));
    }
    rows
}

/// A row for segments of a timeline.
fn ranged(survey: &Survey, timeline: Timeline, run: Run, status: ArchiveStatus) -> ArchiveRow {
    let size: SegmentSize = survey.segment_size;
    let name = |number| Some(SegmentName { timeline, number }.file_name(size));
    ArchiveRow {
        timeline: Some(timeline),
        first_segment: name(run.first),
        last_segment: name(run.last),
        start_lsn: Some(size.start_of(run.first)),
        end_lsn: Some(size.start_of(run.last.saturating_add(1))),
        start_time: None,
        end_time: None,
        segments: run.count(),
        status,
        detail: None,
    }
}

/// A row for what is no range.
fn plain(status: ArchiveStatus, timeline: Option<Timeline>, detail: String) -> ArchiveRow {
    ArchiveRow {
        timeline,
        first_segment: None,
        last_segment: None,
        start_lsn: None,
        end_lsn: None,
        start_time: None,
        end_time: None,
        segments: 0,
        status,
        detail: Some(detail),
    }
}

/// At most [`MAX_ROWS`] rows; the last counts what is left out.
fn cut(mut rows: Vec<ArchiveRow>) -> Vec<ArchiveRow> {
    if rows.len() <= MAX_ROWS {
        return rows;
    }
    let left: Vec<ArchiveRow> = rows.drain(MAX_ROWS - 1..).collect();
    let worst = left.iter().map(|row| row.status).find(|status| *status == ArchiveStatus::Damaged);
    let worst = worst.or_else(|| left.iter().map(|row| row.status).find(|status| status.is_fault()));
    let faults = left.iter().filter(|row| row.status.is_fault()).count();
    let status = worst.unwrap_or(ArchiveStatus::Ok);
    rows.push(plain(
        status,
        None,
        format!("{} more rows, {faults} of them faults, are left out", left.len()),
    ));
    rows
}

/// An error on one line.
pub(super) fn text(error: &Error) -> String {
    error.to_string().replace('\n', " ")
}

#[cfg(test)]
#[path = "ranges_tests.rs"]
mod tests;
