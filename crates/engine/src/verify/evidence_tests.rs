use super::*;
use crate::postgres::timeline::TimelineHistory;
use crate::wal::survey::Content;
use pg_ark_contract::Lsn;

const SIZE: u64 = 1 << 20;

fn run(first: u64, last: u64) -> Run {
    Run { first, last }
}

/// Timelines with their runs and `.partial` segments; histories with parent and segment in which it was left.
fn survey(timelines: &[(u32, &[Run], &[u64])], histories: &[(u32, u32, u64)]) -> Survey {
    let content =
        |runs: &[Run], partials: &[u64]| Content { runs: runs.to_vec(), partials: partials.to_vec() };
    let history = |(timeline, parent, segment): &(u32, u32, u64)| {
        let text = format!("{parent}\t{}\tx\n", Lsn(segment * SIZE + 96));
        (Timeline(*timeline), TimelineHistory::parse(Timeline(*timeline), text.as_bytes()).unwrap())
    };
    Survey {
        segment_size: SegmentSize::new(SIZE as u32).unwrap(),
        timelines: timelines
            .iter()
            .map(|(t, runs, partials)| (Timeline(*t), content(runs, partials)))
            .collect(),
        histories: histories.iter().map(history).collect(),
        strangers: Vec::new(),
        pruned: crate::wal::Pruned::default(),
    }
}

fn backup(timeline: u32, first: u64, last: u64) -> Record {
    Record {
        status: BackupStatus::Complete,
        timeline: Some(Timeline(timeline)),
        start_lsn: Some(Lsn(first * SIZE + 40)),
        stop_lsn: Some(Lsn(last * SIZE + 500)),
        wal_segment_size: SegmentSize::new(SIZE as u32).unwrap(),
        ..Record::begun("a".into(), "main", 7)
    }
}

/// Gaps as timeline, first and last segment.
#[track_caller]
fn gaps(survey: &Survey, indexed: &[(u32, Run)], records: &[Record], expected: &[(u32, u64, u64)]) {
    let indexed = indexed.iter().map(|(timeline, run)| (Timeline(*timeline), vec![*run])).collect();
    let evidence = Evidence::weigh(survey, indexed, records);
    let found: Vec<_> = evidence
        .gaps
        .iter()
        .flat_map(|(timeline, runs)| runs.iter().map(|run| (timeline.0, run.first, run.last)))
        .collect();
    assert_eq!(found, expected);
    for (timeline, first, last) in expected {
        assert_eq!(evidence.gap_at(Timeline(*timeline), *first), Some(run(*first, *last)));
    }
}

#[test]
fn a_lost_end_is_a_gap() {
    let one = survey(&[(1, &[run(1, 3)], &[])], &[]);
    gaps(&one, &[], &[], &[]);
    gaps(&one, &[(1, run(4, 4))], &[], &[(1, 4, 4)]);
    gaps(&one, &[(1, run(6, 6))], &[], &[(1, 4, 6)]);
    gaps(&one, &[(2, run(6, 6))], &[], &[(2, 6, 6)]);
    // What a backup needs.
    gaps(&one, &[], &[backup(1, 2, 3)], &[]);
    gaps(&one, &[], &[backup(1, 3, 4)], &[(1, 4, 4)]);
    gaps(&one, &[], &[backup(1, 5, 6)], &[(1, 4, 6)]);
    let evidence = Evidence::weigh(&one, BTreeMap::new(), &[backup(1, 5, 6)]);
    assert_eq!(evidence.why(Timeline(1), run(4, 6)), ["backup \"a\" needs WAL of it"]);
    let unfinished = Record { status: BackupStatus::Failed, ..backup(1, 5, 6) };
    gaps(&one, &[], &[unfinished, Record { wal_included: true, ..backup(1, 5, 6) }], &[]);
    // An empty archive.
    let none = survey(&[], &[]);
    gaps(&none, &[], &[backup(1, 5, 6)], &[(1, 5, 6)]);
}

#[test]
fn what_went_on_from_it_was_there() {
    let partial = survey(&[(1, &[run(1, 3)], &[5])], &[]);
    gaps(&partial, &[], &[], &[(1, 4, 4)]);
    let sound = survey(&[(1, &[run(1, 4)], &[5])], &[(2, 1, 5)]);
    gaps(&sound, &[], &[], &[]);
    // Timeline 2 left no segment yet, but it was left in segment 5.
    let left = survey(&[(1, &[run(1, 3)], &[])], &[(2, 1, 5)]);
    gaps(&left, &[], &[], &[(1, 4, 4)]);
    // Back to the past: the parent went on.
    let past = survey(&[(1, &[run(1, 9)], &[])], &[(2, 1, 5)]);
    gaps(&past, &[], &[], &[]);
}

#[test]
fn a_timeline_of_which_nothing_is_left_is_a_gap() {
    let two = survey(&[(2, &[run(5, 7)], &[])], &[(2, 1, 5)]);
    gaps(&two, &[], &[], &[]);
    gaps(&two, &[], &[backup(1, 2, 2)], &[(1, 2, 4)]);
    // A backup that ends in the segment in which its timeline was left finds that segment on the next one.
    let left = survey(&[(1, &[run(2, 4)], &[]), (2, &[run(5, 7)], &[])], &[(2, 1, 5)]);
    let crossing = Record { stop_lsn: Some(Lsn(5 * SIZE + 90)), ..backup(1, 4, 5) };
    gaps(&left, &[], &[crossing], &[]);
}

#[test]
fn what_retention_removed_is_no_gap_unless_a_backup_needs_it() {
    let mut one = survey(&[(1, &[run(2, 3), run(9, 12)], &[])], &[(2, 1, 13)]);
    gaps(&one, &[], &[], &[(1, 4, 8)]);
    one.pruned.segments.insert(Timeline(1), vec![run(1, 1), run(4, 6)]);
    gaps(&one, &[], &[], &[(1, 7, 8)]);
    one.pruned.segments.insert(Timeline(1), vec![run(1, 1), run(4, 8)]);
    gaps(&one, &[], &[], &[]);
    // A writer brought a line back.
    gaps(&one, &[(1, run(5, 5))], &[], &[]);
    let size = one.segment_size;
    let evidence = Evidence::weigh(&one, BTreeMap::new(), &[]);
    assert_eq!(evidence.pruned[&Timeline(1)], [run(1, 1), run(4, 8)]);
    assert!(evidence.absence(Timeline(1), run(4, 8), size).starts_with("retention removed segments"));
    assert!(evidence.absence(Timeline(1), run(13, 13), size).ends_with("is missing"));
    // What a backup needs is lost, whoever removed it.
    gaps(&one, &[], &[backup(1, 3, 4)], &[(1, 4, 4)]);
    let evidence = Evidence::weigh(&one, BTreeMap::new(), &[backup(1, 3, 4)]);
    assert_eq!(evidence.pruned[&Timeline(1)], [run(1, 1), run(5, 8)]);
    // It says nothing about what is there.
    one.pruned.segments.insert(Timeline(1), vec![run(1, 10)]);
    let evidence = Evidence::weigh(&one, BTreeMap::new(), &[]);
    assert_eq!(evidence.pruned[&Timeline(1)], [run(1, 1), run(4, 8)]);
}
