use super::*;
use crate::wal::survey::Content;

const SIZE: u32 = 1 << 20;

fn lsn(segment: u64, offset: u64) -> Lsn {
    Lsn(segment * u64::from(SIZE) + offset)
}

fn survey(timelines: &[(u32, &[(u64, u64)])], histories: &[(u32, &str)]) -> Survey {
    let content = |runs: &[(u64, u64)]| Content {
        runs: runs.iter().map(|(first, last)| Run { first: *first, last: *last }).collect(),
        partials: Vec::new(),
    };
    let history = |(timeline, text): &(u32, &str)| {
        let timeline = Timeline(*timeline);
        (timeline, TimelineHistory::parse(timeline, text.as_bytes()).unwrap())
    };
    Survey {
        segment_size: SegmentSize::new(SIZE).unwrap(),
        timelines: timelines.iter().map(|(t, runs)| (Timeline(*t), content(runs))).collect(),
        histories: histories.iter().map(history).collect(),
        strangers: Vec::new(),
        pruned: crate::wal::Pruned::default(),
    }
}

/// Timelines, stretches as first..last, holes as timeline:first..last.
fn shape(line: &Line) -> (String, Vec<String>, Vec<String>) {
    let stretches = line.stretches.iter().map(|s| format!("{}..{}", s.first(), s.last())).collect();
    let hole = |h: &Hole| format!("{}:{}..{}", h.timeline, h.run.first, h.run.last);
    (line.shown(), stretches, line.holes.iter().map(hole).collect())
}

fn text(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_string()).collect()
}

#[test]
fn one_timeline_with_a_hole() {
    let lines = Line::all(&survey(&[(1, &[(3, 5), (8, 9)])], &[]));
    assert_eq!(lines.len(), 1);
    assert_eq!(shape(&lines[0]), ("1".to_string(), text(&["3..5", "8..9"]), text(&["1:6..7"])));
    let stretch = lines[0].stretch_of(4).unwrap();
    assert!(stretch.holds(lsn(3, 40), lsn(6, 0), SegmentSize::new(SIZE).unwrap()));
    assert!(!stretch.holds(lsn(3, 40), lsn(6, 1), SegmentSize::new(SIZE).unwrap()));
    assert!(lines[0].stretch_of(6).is_none());
}

#[test]
fn a_promotion_continues_the_line() {
    let history = format!("1\t{}\tno recovery target specified\n", lsn(5, 100));
    // The old timeline's last segment was stored as .partial, the new one begins with its copy.
    let survey = survey(&[(1, &[(2, 4)]), (2, &[(5, 7)])], &[(2, &history)]);
    let lines = Line::all(&survey);
    assert_eq!(lines.len(), 1);
    assert_eq!(shape(&lines[0]), ("1,2".to_string(), text(&["2..7"]), vec![]));
    let stretch = &lines[0].stretches[0];
    assert_eq!(stretch.segment(4).unwrap().timeline, Timeline(1));
    assert_eq!(stretch.segment(5).unwrap().timeline, Timeline(2));
}

#[test]
fn a_restore_to_the_past_leaves_two_lines() {
    let history = format!("1\t{}\tbefore 2026-01-01\n", lsn(4, 100));
    let survey = survey(&[(1, &[(2, 6)]), (2, &[(4, 5)])], &[(2, &history)]);
    let shapes: Vec<_> = Line::all(&survey).iter().map(shape).collect();
    assert_eq!(
        shapes,
        [("1".to_string(), text(&["2..6"]), vec![]), ("1,2".to_string(), text(&["2..5"]), vec![])]
    );
    assert_eq!(Line::of(&survey, Timeline(2)).stretches[0].segment(4).unwrap().timeline, Timeline(2));
}

#[test]
fn wal_that_the_old_primary_never_archived_is_a_hole() {
    let history = format!("1\t{}\tno recovery target specified\n", lsn(6, 100));
    let survey = survey(&[(1, &[(2, 3)]), (2, &[(6, 7)])], &[(2, &history)]);
    let lines = Line::all(&survey);
    assert_eq!(lines.len(), 1);
    assert_eq!(shape(&lines[0]), ("1,2".to_string(), text(&["2..3", "6..7"]), text(&["1:4..5"])));
}

#[test]
fn a_branch_at_a_boundary_and_one_before_its_parent() {
    let history = format!("1\t{}\tx\n", lsn(5, 0));
    let two = survey(&[(1, &[(2, 4)]), (2, &[(5, 5)])], &[(2, &history)]);
    assert_eq!(shape(&Line::all(&two)[0]), ("1,2".to_string(), text(&["2..5"]), vec![]));
    // A server that follows timeline 2 but stops before its branch (see postgres/timeline.rs): its own file of the
    // segment in which it left is read, for it has begun by then.
    let history = format!("1\t{}\tx\n2\t{}\ty\n", lsn(5, 9), lsn(4, 9));
    let three = survey(&[(1, &[(2, 4)]), (3, &[(4, 6)])], &[(3, &history)]);
    let line = Line::of(&three, Timeline(3));
    assert_eq!(shape(&line), ("1,2,3".to_string(), text(&["2..6"]), vec![]));
    let stretch = &line.stretches[0];
    assert_eq!([3, 4].map(|number| stretch.segment(number).unwrap().timeline), [Timeline(1), Timeline(3)]);
}

#[test]
fn a_hole_over_several_timelines_has_parts() {
    let history = format!("1\t{}\tx\n2\t{}\ty\n", lsn(6, 9), lsn(8, 9));
    let survey = survey(&[(1, &[(2, 3)]), (3, &[(10, 11)])], &[(3, &history)]);
    let lines = Line::all(&survey);
    assert_eq!(lines.len(), 1);
    let parts = lines[0].parts(lines[0].holes[0].run, survey.segment_size);
    let parts: Vec<_> = parts.iter().map(|p| (p.timeline.0, p.run.first, p.run.last)).collect();
    assert_eq!(parts, [(1, 4, 5), (2, 6, 7), (3, 8, 9)]);
}

#[test]
fn a_timeline_of_which_only_a_partial_segment_is_there_continues_nothing() {
    let history = format!("1\t{}\tx\n", lsn(5, 9));
    let mut survey = survey(&[(1, &[(2, 4)]), (2, &[])], &[(2, &history)]);
    survey.timelines.get_mut(&Timeline(2)).unwrap().partials.push(5);
    let shapes: Vec<_> = Line::all(&survey).iter().map(shape).collect();
    assert_eq!(shapes, [("1".to_string(), text(&["2..4"]), vec![])]);
}

#[test]
fn an_empty_archive_has_no_lines() {
    assert!(Line::all(&survey(&[], &[])).is_empty());
    assert!(survey(&[(1, &[])], &[]).is_empty());
}
