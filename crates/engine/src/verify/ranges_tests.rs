use super::*;
use crate::postgres::timeline::TimelineHistory;
use pg_ark_contract::ErrorKind;
use std::collections::BTreeMap;

const SIZE: u32 = 1 << 20;

fn look(timelines: &[(u32, &[(u64, u64)])], histories: &[(u32, &str)]) -> Look {
    let runs =
        |runs: &[(u64, u64)]| runs.iter().map(|(first, last)| Run { first: *first, last: *last }).collect();
    let content = |of: &[(u64, u64)]| Content { runs: runs(of), partials: Vec::new() };
    let history = |(timeline, text): &(u32, &str)| {
        (Timeline(*timeline), TimelineHistory::parse(Timeline(*timeline), text.as_bytes()).unwrap())
    };
    let survey = Survey {
        segment_size: SegmentSize::new(SIZE).unwrap(),
        timelines: timelines.iter().map(|(t, of)| (Timeline(*t), content(of))).collect(),
        histories: histories.iter().map(history).collect(),
        strangers: Vec::new(),
        pruned: crate::wal::Pruned::default(),
    };
    Look { survey, histories: Vec::new(), size: None, twice: Vec::new(), strangers: 0, pruned: None }
}

fn name(timeline: u32, number: u64) -> SegmentName {
    SegmentName { timeline: Timeline(timeline), number }
}

/// A commit in each segment, at as many microseconds as its number.
fn clock(_: Timeline, run: Run) -> Result<(Option<i64>, Option<i64>)> {
    Ok((Some(run.first as i64), Some(run.last as i64)))
}

fn seen(look: &Look) -> Evidence {
    Evidence::weigh(&look.survey, BTreeMap::new(), &[])
}

fn all(look: &Look, damage: &mut Damage) -> Vec<ArchiveRow> {
    rows(look, damage, &Damage::default(), &seen(look), &mut clock).unwrap()
}

/// Rows as text: timeline, segments by number, count, status.
fn shown(rows: &[ArchiveRow]) -> Vec<String> {
    let number = |name: &Option<String>| {
        let name = name.as_deref().unwrap_or("-");
        let low = name.get(16..).unwrap_or("-");
        u64::from_str_radix(low, 16).map_or(low.to_string(), |n| n.to_string())
    };
    let timeline = |row: &ArchiveRow| row.timeline.map_or("-".to_string(), |t| t.to_string());
    let line = |row: &ArchiveRow| {
        let (first, last) = (number(&row.first_segment), number(&row.last_segment));
        format!("{} {first}..{last} {} {}", timeline(row), row.segments, row.status.as_str())
    };
    rows.iter().map(line).collect()
}

#[test]
fn ranges_and_gaps_in_the_order_of_segments() {
    let rows = all(&look(&[(1, &[(3, 5), (8, 9)])], &[]), &mut Damage::default());
    assert_eq!(shown(&rows), ["1 3..5 3 ok", "1 6..7 2 gap", "1 8..9 2 ok"]);
    let first = &rows[0];
    assert_eq!(first.first_segment.as_deref(), Some("000000010000000000000003"));
    assert_eq!((first.start_lsn.unwrap().0, first.end_lsn.unwrap().0), (3 << 20, 6 << 20));
    assert_eq!(first.start_time.as_deref(), Some("2000-01-01T00:00:00.000003Z"));
    assert_eq!(first.end_time.as_deref(), Some("2000-01-01T00:00:00.000005Z"));
    assert_eq!(
        rows[1].detail.as_deref(),
        Some(
            "segments 000000010000000000000006 to 000000010000000000000007 of timeline 1 are missing: \
             later segments of the timeline are there"
        )
    );
}

#[test]
fn gaps_where_timelines_part() {
    let history = format!("1\t0/{:X}\tno recovery target specified\n", (6 << 20) + 96);
    // The old primary's last segments never came, nor the branch's first.
    let one = look(&[(1, &[(2, 3)]), (2, &[(7, 8)])], &[(2, &history)]);
    let rows = all(&one, &mut Damage::default());
    assert_eq!(shown(&rows), ["1 2..3 2 ok", "1 4..5 2 gap", "2 6..6 1 gap", "2 7..8 2 ok"]);
    let why = rows[1].detail.as_deref().unwrap();
    assert!(why.ends_with("timeline 2, which went on from it, is there"), "{why}");
    // The archive begins on the branch: older WAL may have been pruned.
    let pruned = all(&look(&[(2, &[(7, 8)])], &[(2, &history)]), &mut Damage::default());
    assert_eq!(shown(&pruned), ["2 7..8 2 ok"]);
    // Two lines with the same hole, of which one sees less.
    let two = look(&[(1, &[(2, 3), (8, 9)]), (2, &[(6, 7)])], &[(2, &history)]);
    let rows = all(&two, &mut Damage::default());
    assert_eq!(shown(&rows), ["1 2..3 2 ok", "1 4..7 4 gap", "1 8..9 2 ok", "2 6..7 2 ok"]);
    let note = rows[3].detail.as_deref().unwrap();
    assert_eq!(note, "goes on from timeline 1 at 0/600060");
    // A timeline between two of which nothing is there.
    let history = format!("1\t0/{:X}\tx\n2\t0/{:X}\ty\n", 5 << 20, 6 << 20);
    let rows = all(&look(&[(1, &[(2, 4)]), (3, &[(6, 6)])], &[(3, &history)]), &mut Damage::default());
    assert_eq!(shown(&rows), ["1 2..4 3 ok", "3 6..6 1 ok", "2 5..5 1 gap"]);
}

#[test]
fn a_timeline_without_history_and_one_whose_history_is_damaged() {
    let mut look = look(&[(1, &[(2, 3)]), (2, &[(4, 5)]), (3, &[(6, 7)])], &[]);
    look.histories.push((Timeline(3), Error::new(ErrorKind::Corrupt, "00000003.history is damaged")));
    let rows = all(&look, &mut Damage::default());
    assert_eq!(
        shown(&rows),
        ["1 2..3 2 ok", "2 4..5 2 no_history", "2 4..5 2 ok", "3 6..7 2 ok", "3 -..- 0 damaged"]
    );
    assert!(rows[1].detail.as_deref().unwrap().starts_with("00000002.history is not in the archive"));
}

#[test]
fn damaged_segments_are_no_part_of_a_range() {
    let mut damage = Damage::default();
    for number in [2, 5, 6, 9] {
        damage.add(name(1, number), format!("why {number}"));
        damage.add(name(1, number), "a later reason".into());
    }
    let rows = all(&look(&[(1, &[(2, 9)])], &[]), &mut damage);
    let expected = [
        "1 2..2 1 damaged",
        "1 3..4 2 ok",
        "1 5..5 1 damaged",
        "1 6..6 1 damaged",
        "1 7..8 2 ok",
        "1 9..9 1 damaged",
    ];
    assert_eq!(shown(&rows), expected);
    assert_eq!(rows[0].detail.as_deref(), Some("why 2"));
}

#[test]
fn an_end_that_cannot_be_read_is_damage_without_a_deep_check() {
    let mut times = |timeline: Timeline, run: Run| match [run.first, run.last].contains(&9) {
        true => Err(Error::new(ErrorKind::Corrupt, "segment 9 is damaged")),
        false => clock(timeline, run),
    };
    let look = look(&[(1, &[(2, 9)])], &[]);
    let rows = rows(&look, &mut Damage::default(), &Damage::default(), &seen(&look), &mut times).unwrap();
    assert_eq!(shown(&rows), ["1 2..8 7 ok", "1 9..9 1 damaged"]);
    assert_eq!(rows[1].detail.as_deref(), Some("segment 9 is damaged"));
    let mut broken = |_: Timeline, _: Run| Err(Error::new(ErrorKind::Io, "broken"));
    let error = super::rows(&look, &mut Damage::default(), &Damage::default(), &seen(&look), &mut broken)
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Io);
    // Damage that nobody can find again ends too.
    let mut asked = 0;
    let mut fickle = |timeline: Timeline, run: Run| {
        asked += 1;
        if asked == 1 { Err(Error::new(ErrorKind::Corrupt, "once")) } else { clock(timeline, run) }
    };
    let rows =
        super::rows(&look, &mut Damage::default(), &Damage::default(), &seen(&look), &mut fickle).unwrap();
    assert_eq!(shown(&rows), ["1 2..9 8 ok"]);
}

#[test]
fn more_damage_than_anybody_reads_is_counted() {
    let mut damage = Damage::default();
    (0..3000).for_each(|number| damage.add(name(1, number), "bad".into()));
    let rows = all(&look(&[(1, &[(0, 3500)])], &[]), &mut damage);
    assert_eq!(rows.len(), 1002);
    assert_eq!(shown(&rows[1000..]), ["1 1000..2999 2000 damaged", "1 3000..3500 501 ok"]);
    assert_eq!(damage.count(), 3000);
}

#[test]
fn rows_without_end_are_cut() {
    let runs: Vec<(u64, u64)> = (0..MAX_ROWS as u64).map(|n| (2 * n, 2 * n)).collect();
    let rows = all(&look(&[(1, &runs)], &[]), &mut Damage::default());
    assert_eq!(rows.len(), MAX_ROWS);
    let last = rows.last().unwrap();
    assert_eq!(last.status, ArchiveStatus::Gap);
    assert_eq!(last.detail.as_deref(), Some("10000 more rows, 5000 of them faults, are left out"));
}

#[test]
fn partials_strangers_and_an_unknown_size() {
    let mut look = look(&[(1, &[(2, 3)])], &[]);
    look.survey.strangers = vec!["main/7/wal/x".into(), "main/7/wal/y".into()];
    look.strangers = 5;
    look.twice = vec![name(1, 2)];
    look.size = Some(Error::new(ErrorKind::Corrupt, "no header"));
    let mut partials = Damage::default();
    partials.add(name(1, 4), "bad".into());
    let rows = rows(&look, &mut Damage::default(), &partials, &seen(&look), &mut clock).unwrap();
    let statuses: Vec<_> = rows.iter().map(|row| row.status.as_str()).collect();
    assert_eq!(statuses, ["damaged", "ok", "damaged", "stranger", "stranger", "stranger"]);
    assert_eq!(rows[1].detail.as_deref(), Some("1 segment is stored twice, under two codecs"));
    assert_eq!(rows[2].first_segment.as_deref(), Some("000000010000000000000004.partial"));
    assert_eq!(rows[3].detail.as_deref(), Some("not stored by pg_ark: main/7/wal/x"));
    assert_eq!(rows[5].detail.as_deref(), Some("3 more objects that pg_ark did not store"));
}
