//! Tables of what is stored, what is wished, and what comes of it. A segment has 1 MiB; LSNs are written as
//! segment.offset.

use super::*;
use crate::postgres::wal_record::to_utc;
use crate::wal::survey::Content;
use pg_ark_contract::rows::BackupStatus;

const SIZE: u64 = 1 << 20;

fn lsn(segment: u64, offset: u64) -> Lsn {
    Lsn(segment * SIZE + offset)
}

/// Something that a target can mean, by hand.
#[derive(Clone, Copy)]
enum What {
    Commit(u32, i64),
    Point(&'static str),
    Torn,
}

/// WAL by hand: what is on which timeline. Ends 100 bytes into the last segment of a stretch.
struct Written(Vec<(u32, Lsn, What)>);

impl Wal for Written {
    fn stop(
        &mut self,
        stretch: &Stretch,
        numbers: RangeInclusive<u64>,
        from: Lsn,
        aim: Aim<'_>,
    ) -> Result<Option<Moment>> {
        let end = self.end(stretch)?.lsn;
        if let Target::Lsn(lsn) = aim.target {
            return Ok((*lsn < end).then_some(Moment { lsn: *lsn, time: None }));
        }
        let fits = |what: What| match (aim.target, what) {
            (Target::Time(target), What::Commit(_, time)) => {
                let target = from_utc(*target);
                if aim.exclusive { time >= target } else { time > target }
            }
            (Target::Xid(target), What::Commit(xid, _)) => xid == *target,
            (Target::Name(target), What::Point(name)) => name == target,
            _ => false,
        };
        let found = self.0.iter().filter(|(timeline, at, what)| {
            let number = at.0 / SIZE;
            let file = stretch.segment(number);
            numbers.contains(&number)
                && *at >= from
                && file.is_some_and(|file| file.timeline.0 == *timeline)
                && fits(*what)
        });
        Ok(found.map(|(_, at, _)| *at).min().map(|lsn| Moment { lsn, time: None }))
    }

    fn end(&mut self, stretch: &Stretch) -> Result<Moment> {
        let lsn = lsn(stretch.last(), 100);
        let time = self.0.iter().filter_map(|(_, at, what)| match what {
            What::Commit(_, time) if *at < lsn => Some(*time),
            _ => None,
        });
        Ok(Moment { lsn, time: time.max() })
    }

    fn last_start(&mut self, stretch: &Stretch) -> Result<Option<Lsn>> {
        Ok(Some(lsn(stretch.last(), 90)))
    }

    fn torn(&mut self, stretch: &Stretch, numbers: Range<u64>) -> Result<Option<(SegmentName, String)>> {
        let torn =
            self.0.iter().filter(|(_, _, what)| matches!(what, What::Torn)).map(|(_, at, _)| at.0 / SIZE);
        let first = torn.filter(|number| numbers.contains(number)).min();
        Ok(first.and_then(|number| stretch.segment(number)).map(|name| (name, "by hand".to_string())))
    }

    fn last_before(&mut self, stretch: &Stretch, lsn: Lsn) -> Result<Option<i64>> {
        let inside = |timeline: u32, at: Lsn| {
            at < lsn && stretch.segment(at.0 / SIZE).is_some_and(|file| file.timeline.0 == timeline)
        };
        let time = self.0.iter().filter_map(|(timeline, at, what)| match what {
            What::Commit(_, time) if inside(*timeline, *at) => Some(*time),
            _ => None,
        });
        Ok(time.max())
    }
}

fn survey(timelines: &[(u32, &[(u64, u64)])], histories: &[(u32, &[(u32, Lsn)])]) -> Survey {
    let content = |runs: &[(u64, u64)]| Content {
        runs: runs.iter().map(|(first, last)| Run { first: *first, last: *last }).collect(),
        partials: Vec::new(),
    };
    let history = |timeline: u32, entries: &[(u32, Lsn)]| {
        let text: String = entries.iter().map(|(parent, at)| format!("{parent}\t{at}\tx\n")).collect();
        TimelineHistory::parse(Timeline(timeline), text.as_bytes()).unwrap()
    };
    Survey {
        segment_size: SegmentSize::new(SIZE as u32).unwrap(),
        timelines: timelines.iter().map(|(t, runs)| (Timeline(*t), content(runs))).collect(),
        histories: histories.iter().map(|(t, entries)| (Timeline(*t), history(*t, entries))).collect(),
        strangers: Vec::new(),
        pruned: crate::wal::Pruned::default(),
    }
}

/// A backup from the beginning of a segment to 50 bytes into the last.
fn backup(name: &str, timeline: u32, segments: (u64, u64), finished: i64, included: bool) -> Record {
    let finished = to_utc(finished).map(super::super::target::shown_time);
    Record {
        status: BackupStatus::Complete,
        timeline: Some(Timeline(timeline)),
        start_lsn: Some(lsn(segments.0, 40)),
        stop_lsn: Some(lsn(segments.1, 50)),
        finished_at: finished,
        wal_included: included,
        wal_segment_size: SegmentSize::new(SIZE as u32).unwrap(),
        ..Record::begun(name.to_string(), "main", 1)
    }
}

/// Backup, timeline, where the target stops, where the WAL ends, remarks.
type Found = (String, u32, Option<Lsn>, Lsn, Vec<String>);

fn run(
    records: &[Record],
    survey: &Survey,
    events: &[(u32, Lsn, What)],
    target: Target,
    timeline: TimelineChoice,
) -> Result<Found> {
    let wish = Wish { aim: Aim { target: &target, exclusive: false }, timeline, named: records.len() == 1 };
    let course = choose(Stored { records, survey }, wish, &mut Written(events.to_vec()))?;
    let Course { record, line, stop, end, remarks, .. } = course;
    Ok((record.backup.clone(), line.timeline().0, stop.map(|stop| stop.lsn), end.lsn, remarks))
}

fn time(at: i64) -> Target {
    Target::Time(to_utc(at).unwrap())
}

/// The backup's name, or the error's kind and message.
fn name(found: Result<Found>) -> String {
    found.map_or_else(|e| format!("{:?}: {}", e.kind, e.message), |found| format!("{} {}", found.0, found.1))
}

const SECOND: i64 = 1_000_000;

/// Two backups on one timeline, segments 2 to 9, commits at 100 s to 800 s.
fn two() -> (Vec<Record>, Survey, Vec<(u32, Lsn, What)>) {
    let records =
        vec![backup("a", 1, (2, 2), 200 * SECOND, false), backup("b", 1, (5, 6), 600 * SECOND, false)];
    let events = (1..=8u32)
        .map(|n| (1, lsn(u64::from(n) + 1, 60), What::Commit(700 + n, i64::from(n) * 100 * SECOND)));
    (records, survey(&[(1, &[(2, 9)])], &[]), events.collect())
}

#[test]
fn the_newest_backup_that_ends_before_the_target() {
    let (records, survey, mut events) = two();
    events.push((1, lsn(4, 10), What::Point("early")));
    events.push((1, lsn(8, 10), What::Point("late")));
    for (target, expected) in [
        (Target::Latest, "b 1"),
        (Target::Immediate, "b 1"),
        (Target::Lsn(lsn(6, 50)), "b 1"),
        (Target::Lsn(lsn(6, 49)), "a 1"),
        (Target::Lsn(lsn(2, 50)), "a 1"),
        (
            Target::Lsn(lsn(2, 49)),
            "TargetUnreachable: LSN 0/200031 cannot be reached: it comes before the end of the oldest backup that leads there",
        ),
        (
            Target::Lsn(lsn(9, 100)),
            "TargetUnreachable: LSN 0/900064 cannot be reached: the WAL that is stored ends at 0/900064, the last transaction at 2000-01-01T00:13:20Z",
        ),
        // The commit at 600 s is in segment 7, behind the end of b.
        (time(599 * SECOND), "b 1"),
        (time(500 * SECOND), "b 1"),
        // The one at 500 s is in segment 6, but behind b's end.
        (time(450 * SECOND), "b 1"),
        // The one at 400 s is in segment 5, while b was taken.
        (time(399 * SECOND), "a 1"),
        (time(200 * SECOND), "a 1"),
        (
            time(99 * SECOND),
            "TargetUnreachable: time 2000-01-01T00:01:39Z cannot be reached: it comes before the end of the oldest backup that leads there",
        ),
        (
            time(801 * SECOND),
            "TargetUnreachable: time 2000-01-01T00:13:21Z cannot be reached: the last transaction that is stored ended at 2000-01-01T00:13:20Z, and none came later",
        ),
        // The last one: the server would not stop at it, and is told the last record.
        (time(800 * SECOND), "b 1"),
        (Target::Xid(706), "b 1"),
        (Target::Xid(704), "a 1"),
        (
            Target::Xid(999),
            "TargetUnreachable: transaction 999 cannot be reached: it did not end in the WAL that is stored, or is a subtransaction: name its top transaction; the WAL that is stored ends at 0/900064",
        ),
        (Target::Name("early".into()), "a 1"),
        (Target::Name("late".into()), "b 1"),
        (
            Target::Name("never".into()),
            "TargetUnreachable: restore point \"never\" cannot be reached: it is not in the WAL that is stored; the WAL that is stored ends at 0/900064",
        ),
    ] {
        assert_eq!(
            name(run(&records, &survey, &events, target.clone(), TimelineChoice::Latest)),
            expected,
            "{target:?}"
        );
    }
}

#[test]
fn a_time_before_the_backup_by_its_commits_not_by_its_clock() {
    // The clock of b says that it ended at 600 s; no commit came between 300 s and 700 s.
    let (records, survey, _) = two();
    let events =
        [(1, lsn(3, 0), What::Commit(701, 300 * SECOND)), (1, lsn(8, 0), What::Commit(702, 700 * SECOND))];
    let choose = |at| name(run(&records, &survey, &events, time(at), TimelineChoice::Latest));
    assert_eq!(choose(400 * SECOND), "b 1");
    // What b holds was committed by 300 s; a ended before, and nothing tells of what came before it but its clock.
    assert_eq!(choose(299 * SECOND), "a 1");
    assert!(choose(199 * SECOND).contains("comes before the end of the oldest backup"));
}

#[test]
fn the_same_name_twice_means_the_newest_that_can_be_met() {
    let (records, survey, _) = two();
    let points = [(1, lsn(4, 10), What::Point("p")), (1, lsn(8, 10), What::Point("p"))];
    let found = run(&records, &survey, &points, Target::Name("p".into()), TimelineChoice::Latest).unwrap();
    assert_eq!((&found.0[..], found.2), ("b", Some(lsn(8, 10))));
    // From the older backup the first one is met.
    let found =
        run(&records[..1], &survey, &points, Target::Name("p".into()), TimelineChoice::Latest).unwrap();
    assert_eq!((&found.0[..], found.2), ("a", Some(lsn(4, 10))));
}

#[test]
fn holes() {
    let (records, _, events) = two();
    let hole = survey(&[(1, &[(2, 7), (9, 9)])], &[]);
    for (target, expected) in [
        (
            Target::Latest,
            "TargetUnreachable: the end of the WAL cannot be reached: WAL is missing behind 0/700064 (2000-01-01T00:10:00Z): segment 000000010000000000000008",
        ),
        (Target::Immediate, "b 1"),
        (time(550 * SECOND), "b 1"),
        (
            time(650 * SECOND),
            "TargetUnreachable: time 2000-01-01T00:10:50Z cannot be reached: WAL is missing behind 0/700064 (2000-01-01T00:10:00Z): segment 000000010000000000000008",
        ),
        (Target::Lsn(lsn(7, 99)), "b 1"),
    ] {
        assert_eq!(
            name(run(&records, &hole, &events, target.clone(), TimelineChoice::Latest)),
            expected,
            "{target:?}"
        );
    }
    let error = run(&records, &hole, &events, Target::Latest, TimelineChoice::Latest).unwrap_err();
    let detail = error.detail.unwrap();
    assert_eq!(
        detail,
        "What can be reached: 0/200032 (2000-01-01T00:03:20Z) to 0/70005A (2000-01-01T00:10:00Z) on timeline 1."
    );
    // Inside the newest backup: the older one still leads to the hole.
    let inside = survey(&[(1, &[(2, 4), (6, 9)])], &[]);
    assert_eq!(name(run(&records, &inside, &events, time(250 * SECOND), TimelineChoice::Latest)), "a 1");
    assert!(
        name(run(&records, &inside, &events, Target::Latest, TimelineChoice::Latest))
            .contains("000000010000000000000005")
    );
    // A backup that brings its own WAL does not care for it.
    let own = vec![records[0].clone(), Record { wal_included: true, ..records[1].clone() }];
    let found = run(&own, &inside, &events, Target::Latest, TimelineChoice::Latest).unwrap();
    assert_eq!((&found.0[..], found.3), ("b", lsn(9, 100)));
}

#[test]
fn a_hole_that_retention_made_is_told_as_such() {
    let (records, _, events) = two();
    let mut pinned = survey(&[(1, &[(2, 2), (5, 9)])], &[]);
    let refused = |survey: &Survey, target: Target| {
        let error = run(&records[..1], survey, &events, target, TimelineChoice::Latest).unwrap_err();
        assert_eq!(error.kind, ErrorKind::TargetUnreachable);
        (error.message, error.hint.unwrap())
    };
    let lost = "WAL is missing behind 0/200064 (2000-01-01T00:01:40Z): \
                000000010000000000000003 to 000000010000000000000004 (2 segments)";
    let (message, hint) = refused(&pinned, Target::Latest);
    assert!(message.ends_with(lost) && hint.starts_with("Get the missing segments back"), "{message} {hint}");
    pinned.pruned.at = to_utc(900 * SECOND);
    pinned.pruned.segments.insert(Timeline(1), vec![Run { first: 0, last: 1 }, Run { first: 3, last: 3 }]);
    let (message, _) = refused(&pinned, Target::Latest);
    assert!(message.ends_with(&format!("{lost}, 1 of them removed by retention")), "{message}");
    pinned.pruned.segments.insert(Timeline(1), vec![Run { first: 3, last: 4 }]);
    for target in [Target::Latest, time(350 * SECOND), Target::Lsn(lsn(4, 10)), Target::Lsn(lsn(7, 0))] {
        let (message, hint) = refused(&pinned, target);
        let removed = "what followed 0/200064 (2000-01-01T00:01:40Z) was removed by retention: \
                       000000010000000000000003 to 000000010000000000000004 (2 segments)";
        assert!(message.ends_with(removed), "{message}");
        assert!(hint.starts_with("Choose --target immediate"), "{hint}");
        assert!(hint.contains("2000-01-01T00:15:00Z"), "{hint}");
    }
    let found = run(&records[..1], &pinned, &events, Target::Immediate, TimelineChoice::Latest);
    assert_eq!(name(found), "a 1");
}

#[test]
fn a_segment_that_ends_too_early_ends_recovery() {
    let (records, survey, mut events) = two();
    events.push((1, lsn(7, 50), What::Torn));
    let choose = |target: Target| name(run(&records, &survey, &events, target, TimelineChoice::Latest));
    assert_eq!(choose(Target::Immediate), "b 1");
    assert_eq!(choose(time(550 * SECOND)), "b 1");
    let torn = "cannot be reached: segment 000000010000000000000007 is damaged, and recovery would end there: by hand";
    assert!(choose(time(700 * SECOND)).ends_with(torn));
    assert!(choose(Target::Latest).ends_with(torn));
    // The last one ends where the WAL ends.
    events.pop();
    events.push((1, lsn(9, 50), What::Torn));
    assert_eq!(name(run(&records, &survey, &events, Target::Latest, TimelineChoice::Latest)), "b 1");
}

#[test]
fn a_backup_lacks_wal_of_its_own() {
    let records = vec![backup("a", 1, (2, 4), 200 * SECOND, false)];
    let survey = survey(&[(1, &[(2, 3)])], &[]);
    let error = run(&records, &survey, &[], Target::Latest, TimelineChoice::Latest).unwrap_err();
    assert_eq!(error.kind, ErrorKind::WalMissing);
    assert_eq!(
        error.message,
        "backup \"a\" needs WAL that is not in the archive: segment 000000010000000000000004"
    );
}

#[test]
fn backups_that_bring_their_own_wal() {
    let own = vec![backup("a", 1, (2, 4), 200 * SECOND, true)];
    let empty = Survey { segment_size: SegmentSize::default(), ..survey(&[], &[]) };
    let found = run(&own, &empty, &[], Target::Latest, TimelineChoice::Latest).unwrap();
    assert_eq!((found.2, found.3), (None, lsn(4, 50)));
    assert_eq!(
        run(&own, &empty, &[], Target::Immediate, TimelineChoice::Current).unwrap().2,
        Some(lsn(4, 50))
    );
    assert!(
        name(run(&own, &empty, &[], time(300 * SECOND), TimelineChoice::Latest))
            .starts_with("TargetUnreachable")
    );
    // Archiving began later, and segments 5 and 6 were never stored.
    let late = survey(&[(1, &[(7, 9)])], &[]);
    let refused = name(run(&own, &late, &[], Target::Latest, TimelineChoice::Latest));
    assert!(
        refused.ends_with("000000010000000000000005 to 000000010000000000000006 (2 segments)"),
        "{refused}"
    );
    // It was switched off before.
    let early = survey(&[(1, &[(1, 3)])], &[]);
    assert_eq!(run(&own, &early, &[], Target::Latest, TimelineChoice::Latest).unwrap().3, lsn(4, 50));
    // Only the clock tells whether a time came before the end of the backup.
    let next = survey(&[(1, &[(5, 9)])], &[]);
    let events = [(1, lsn(6, 0), What::Commit(9, 500 * SECOND))];
    assert_eq!(name(run(&own, &next, &events, time(300 * SECOND), TimelineChoice::Latest)), "a 1");
    assert!(
        name(run(&own, &next, &events, time(199 * SECOND), TimelineChoice::Latest))
            .contains("comes before the end")
    );
}

/// Timeline 2 left timeline 1 in segment 5; backups: a before, b on 1 after, c on 2.
fn branches() -> (Vec<Record>, Survey) {
    let records = vec![
        backup("a", 1, (2, 2), 100 * SECOND, false),
        backup("b", 1, (6, 6), 200 * SECOND, false),
        backup("c", 2, (7, 7), 300 * SECOND, false),
    ];
    let survey = survey(&[(1, &[(1, 8)]), (2, &[(5, 9)])], &[(2, &[(1, lsn(5, 10))])]);
    (records, survey)
}

#[test]
fn timelines() {
    let (records, survey) = branches();
    let number = |n| TimelineChoice::Number(Timeline(n));
    for (target, timeline, expected) in [
        (Target::Latest, TimelineChoice::Latest, "c 2"),
        (Target::Latest, TimelineChoice::Current, "c 2"),
        (Target::Latest, number(1), "b 1"),
        (Target::Latest, number(2), "c 2"),
        // b is not part of timeline 2.
        (Target::Lsn(lsn(6, 60)), TimelineChoice::Latest, "a 2"),
        (Target::Lsn(lsn(6, 60)), number(1), "b 1"),
        (
            Target::Latest,
            number(3),
            "TargetUnreachable: timeline 3 cannot be followed: nothing of it is stored",
        ),
    ] {
        assert_eq!(
            name(run(&records, &survey, &[], target.clone(), timeline)),
            expected,
            "{target:?} {timeline:?}"
        );
    }
    // Named backups.
    let found = run(&records[..1], &survey, &[], Target::Latest, TimelineChoice::Latest).unwrap();
    assert_eq!((found.1, found.4.len()), (2, 0));
    assert_eq!(name(run(&records[..1], &survey, &[], Target::Latest, TimelineChoice::Current)), "a 1");
    let found = run(&records[1..2], &survey, &[], Target::Latest, TimelineChoice::Latest).unwrap();
    assert_eq!(found.1, 1);
    assert!(found.4[0].contains("timeline 2 is the newest"), "{:?}", found.4);
    let refused = name(run(&records[1..2], &survey, &[], Target::Latest, number(2)));
    assert_eq!(
        refused,
        "TargetUnreachable: the end of the WAL cannot be reached: timeline 2 does not continue this backup (its history is 1,2)"
    );
}

#[test]
fn a_timeline_of_which_only_the_history_is_stored() {
    let (records, mut survey) = branches();
    survey.timelines.remove(&Timeline(2));
    let found = run(&records[..2], &survey, &[], Target::Latest, TimelineChoice::Latest).unwrap();
    assert_eq!((&found.0[..], found.1), ("b", 1));
    assert!(found.4[0].starts_with("timeline 2 began at 0/50000A"), "{:?}", found.4);
    let refused = name(run(&records[..2], &survey, &[], Target::Latest, TimelineChoice::Number(Timeline(2))));
    assert!(refused.contains("it began at 0/50000A on timeline 1"), "{refused}");
}

/// A restore to the past forked timeline 2 off at 5.10; its first commit came later than the last ones of timeline 1.
#[test]
fn a_time_between_a_fork_and_the_first_commit_behind_it_is_refused() {
    let (records, survey) = branches();
    let commit = |timeline, segment, at: i64| (timeline, lsn(segment, 60), What::Commit(9, at * SECOND));
    let events =
        [commit(1, 4, 150), commit(1, 5, 250), commit(1, 7, 260), commit(2, 8, 900), commit(2, 9, 950)];
    let choose = |at: i64, timeline| name(run(&records[..1], &survey, &events, time(at * SECOND), timeline));
    let number = |n| TimelineChoice::Number(Timeline(n));
    for at in [255, 265, 899] {
        let refused = choose(at, TimelineChoice::Latest);
        assert!(
            refused.contains("means two things: timeline 1 has transactions up to 2000-01-01T00:04:"),
            "{refused}"
        );
        assert!(refused.contains("0/50000A, where timeline 2 left it"), "{refused}");
    }
    // Whoever names the timeline means it.
    assert_eq!(choose(255, number(2)), "a 2");
    assert_eq!(choose(255, number(1)), "a 1");
    // Before the fork, and behind a commit of the new timeline, there is nothing to ask.
    assert_eq!(choose(149, TimelineChoice::Latest), "a 2");
    assert_eq!(choose(200, TimelineChoice::Latest), "a 2");
    assert_eq!(choose(920, TimelineChoice::Latest), "a 2");
    // Timeline 1 ended with the fork, as at a promotion.
    let ended = Survey { timelines: survey.timelines.clone(), ..survey.clone() };
    let shared = [commit(1, 4, 150), commit(2, 8, 900)];
    assert_eq!(name(run(&records[..1], &ended, &shared, time(500 * SECOND), TimelineChoice::Latest)), "a 2");
}

/// Timeline 2 began at 5.10, and timeline 1 is stored up to segment 4 only.
#[test]
fn the_known_end_is_never_before_a_fork() {
    let (records, mut survey) = branches();
    survey.timelines.remove(&Timeline(2));
    survey.timelines.get_mut(&Timeline(1)).unwrap().runs = vec![Run { first: 1, last: 4 }];
    let found = run(&records[..1], &survey, &[], Target::Latest, TimelineChoice::Latest).unwrap();
    assert_eq!((found.1, found.3, found.4.len()), (1, lsn(5, 10), 2));
    assert!(found.4[1].contains("ends before that, at 0/400064: transactions"), "{:?}", found.4);
    // Only who goes to the end misses it.
    let found = run(&records[..1], &survey, &[], Target::Lsn(lsn(3, 0)), TimelineChoice::Latest).unwrap();
    assert_eq!((found.3, found.4.len()), (lsn(4, 100), 1));
    // All of it is there.
    survey.timelines.get_mut(&Timeline(1)).unwrap().runs = vec![Run { first: 1, last: 5 }];
    let found = run(&records[..1], &survey, &[], Target::Latest, TimelineChoice::Latest).unwrap();
    assert_eq!((found.3, found.4.len()), (lsn(5, 100), 1));
}

#[test]
fn the_last_time_is_met_by_the_last_record() {
    let (records, survey, events) = two();
    let aim_time = time(800 * SECOND);
    for (exclusive, given, stop) in
        [(false, Some(Target::Lsn(lsn(9, 90))), lsn(9, 100)), (true, None, lsn(9, 60))]
    {
        let aim = Aim { target: &aim_time, exclusive };
        let wish = Wish { aim, timeline: TimelineChoice::Latest, named: false };
        let mut wal = Written(events.clone());
        let course = choose(Stored { records: &records, survey: &survey }, wish, &mut wal).unwrap();
        assert_eq!((course.given, course.stop.unwrap().lsn), (given, stop), "{exclusive}");
    }
    // What a refusal names as the end is met.
    let refused = run(&records, &survey, &events, Target::Xid(999), TimelineChoice::Latest).unwrap_err();
    let expected =
        "to 0/90005A (2000-01-01T00:13:20Z), and with --target latest to the end at 0/900064, on timeline 1.";
    assert!(refused.detail.as_ref().unwrap().ends_with(expected), "{refused:?}");
    assert_eq!(name(run(&records, &survey, &events, Target::Lsn(lsn(9, 90)), TimelineChoice::Latest)), "b 1");
}

#[test]
fn a_timeline_without_its_history_cannot_be_followed() {
    let (records, mut survey) = branches();
    survey.histories.clear();
    let refused = name(run(&records, &survey, &[], Target::Latest, TimelineChoice::Latest));
    assert!(refused.contains("00000002.history is not in the archive"), "{refused}");
}

#[test]
fn an_older_backup_is_not_read_twice() {
    struct Counting(Written, Vec<RangeInclusive<u64>>);
    impl Wal for Counting {
        fn stop(
            &mut self,
            s: &Stretch,
            n: RangeInclusive<u64>,
            f: Lsn,
            a: Aim<'_>,
        ) -> Result<Option<Moment>> {
            self.1.push(n.clone());
            self.0.stop(s, n, f, a)
        }
        fn end(&mut self, stretch: &Stretch) -> Result<Moment> {
            self.0.end(stretch)
        }
        fn last_start(&mut self, stretch: &Stretch) -> Result<Option<Lsn>> {
            self.0.last_start(stretch)
        }
        fn torn(&mut self, s: &Stretch, n: Range<u64>) -> Result<Option<(SegmentName, String)>> {
            self.0.torn(s, n)
        }
        fn last_before(&mut self, stretch: &Stretch, lsn: Lsn) -> Result<Option<i64>> {
            self.0.last_before(stretch, lsn)
        }
    }
    let (records, survey, events) = two();
    let target = Target::Xid(999);
    let wish = Wish {
        aim: Aim { target: &target, exclusive: false },
        timeline: TimelineChoice::Latest,
        named: false,
    };
    let mut wal = Counting(Written(events), Vec::new());
    choose(Stored { records: &records, survey: &survey }, wish, &mut wal).unwrap_err();
    assert_eq!(wal.1, [5..=9, 2..=5]);
}
