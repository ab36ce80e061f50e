use super::*;
use crate::wal::survey::Content;
use pg_ark_contract::{Error, ErrorKind};

const SIZE: u64 = 1 << 20;

fn lsn(segment: u64, offset: u64) -> Lsn {
    Lsn(segment * SIZE + offset)
}

fn survey(timelines: &[(u32, &[(u64, u64)])], histories: &[(u32, &str)]) -> Survey {
    let runs =
        |runs: &[(u64, u64)]| runs.iter().map(|(first, last)| Run { first: *first, last: *last }).collect();
    let content = |of: &[(u64, u64)]| Content { runs: runs(of), partials: Vec::new() };
    let history = |(timeline, text): &(u32, &str)| {
        (Timeline(*timeline), TimelineHistory::parse(Timeline(*timeline), text.as_bytes()).unwrap())
    };
    Survey {
        segment_size: SegmentSize::new(SIZE as u32).unwrap(),
        timelines: timelines.iter().map(|(t, of)| (Timeline(*t), content(of))).collect(),
        histories: histories.iter().map(history).collect(),
        strangers: Vec::new(),
        pruned: crate::wal::Pruned::default(),
    }
}

/// A backup whose WAL is not in it, finished at this second of 2000-01-01.
fn backup(name: &str, timeline: u32, start: Lsn, stop: Lsn, second: u32) -> Record {
    let mut record = Record::begun(name.to_string(), "main", 7);
    record.status = BackupStatus::Complete;
    record.timeline = Some(Timeline(timeline));
    record.start_lsn = Some(start);
    record.stop_lsn = Some(stop);
    record.finished_at = Some(format!("2000-01-01T00:00:{second:02}Z"));
    record
}

fn with_wal(record: Record) -> Record {
    Record { wal_included: true, ..record }
}

/// One commit in the middle of each segment, at as many seconds as the segment's number.
#[derive(Default)]
struct Clock {
    damaged: Vec<u64>,
    broken: Vec<u64>,
}

impl Clock {
    fn broken(&self) -> Damage {
        let mut damage = Damage::default();
        for number in &self.broken {
            damage.add(SegmentName { timeline: Timeline(1), number: *number }, "broken".into());
        }
        damage
    }
}

impl Times for Clock {
    fn end(&mut self, stretch: &Stretch) -> Result<Moment> {
        let last = stretch.last();
        match self.damaged.contains(&last) {
            true => Err(Error::new(ErrorKind::Corrupt, format!("segment {last} is damaged"))),
            false => Ok(Moment { lsn: lsn(last, SIZE / 2), time: Some(last as i64 * 1_000_000) }),
        }
    }

    fn last_before(&mut self, stretch: &Stretch, at: Lsn) -> Result<Option<i64>> {
        let commits = (stretch.first()..=stretch.last()).filter(|segment| lsn(*segment, SIZE / 2) <= at);
        Ok(commits.max().map(|segment| segment as i64 * 1_000_000))
    }
}

/// Rows as text: backup, timelines, LSNs as segment numbers, seconds, note.
fn shown(survey: &Survey, records: &[Record], clock: &mut Clock) -> Vec<String> {
    let second = |time: &Option<String>| time.as_deref().map_or("-", |t| &t[17..19]).to_string();
    let rows =
        windows(survey, records, &clock.broken(), &Evidence::default(), clock).unwrap().rows.into_iter().map(
            |row| {
                format!(
                    "{} {} {:.1}..{:.1} {}..{} {}",
                    row.backup,
                    row.timelines,
                    row.from_lsn.0 as f64 / SIZE as f64,
                    row.to_lsn.0 as f64 / SIZE as f64,
                    second(&row.from_time),
                    second(&row.to_time),
                    row.note
                )
            },
        );
    rows.collect()
}

const ENDS: &str = "the archive ends here";

#[test]
fn one_window_from_the_oldest_backup_to_the_end() {
    let survey = survey(&[(1, &[(2, 9)])], &[]);
    let backups =
        [backup("b", 1, lsn(5, 40), lsn(5, 500), 50), backup("a", 1, lsn(3, 40), lsn(4, 900_000), 51)];
    let expected = format!("a 1 4.9..9.5 04..09 {ENDS}");
    assert_eq!(shown(&survey, &backups, &mut Clock::default()), [expected]);
}

#[test]
fn backups_that_cannot_be_used_begin_no_window() {
    let survey = survey(&[(1, &[(2, 9)])], &[]);
    let good = backup("a", 1, lsn(3, 40), lsn(4, 0), 50);
    let cases: [(&str, Record); 6] = [
        ("failed", Record { status: BackupStatus::Failed, ..good.clone() }),
        ("running", Record { status: BackupStatus::Running, ..good.clone() }),
        ("logical", Record { kind: BackupKind::Logical, ..good.clone() }),
        ("before the archive", backup("a", 1, lsn(1, 40), lsn(4, 0), 50)),
        ("behind the archive", backup("a", 1, lsn(9, 40), lsn(10, 40), 50)),
        ("not whole", backup("a", 1, lsn(9, 40), lsn(9, SIZE - 8), 50)),
    ];
    for (name, record) in cases {
        assert!(shown(&survey, &[record], &mut Clock::default()).is_empty(), "{name}");
    }
    assert_eq!(shown(&survey, &[good], &mut Clock::default()).len(), 1);
    let lost = backup("lost", 1, lsn(1, 40), lsn(4, 0), 50);
    let found =
        windows(&survey, &[lost], &Damage::default(), &Evidence::default(), &mut Clock::default()).unwrap();
    let remark = "backup \"lost\" cannot be recovered: its WAL from 0/100028 to 0/400000 on timeline 1 is not whole \
                  in the archive";
    assert_eq!(found.remarks, [remark]);
}

#[test]
fn a_hole_ends_a_window_and_says_so() {
    let survey = survey(&[(1, &[(2, 4), (7, 9), (11, 12)])], &[]);
    let backups = [backup("a", 1, lsn(2, 40), lsn(3, 0), 50), backup("b", 1, lsn(11, 40), lsn(11, 90), 51)];
    assert_eq!(
        shown(&survey, &backups, &mut Clock::default()),
        [
            "a 1 3.0..4.5 02..04 segments 000000010000000000000005 to 000000010000000000000006 of timeline 1 are missing",
            // No commit is known before it; nothing was committed since it was finished but at second 12.
            "b 1 11.0..12.5 12..12 the archive ends here",
        ]
    );
}

#[test]
fn a_promotion_and_an_old_primary_that_went_on() {
    let history = format!("1\t{}\tno recovery target specified\n", lsn(5, 96));
    let both = survey(&[(1, &[(2, 7)]), (2, &[(5, 6)])], &[(2, &history)]);
    let backups = [backup("a", 1, lsn(3, 40), lsn(3, 900_000), 50)];
    let branch = lsn(5, 96);
    assert_eq!(
        shown(&both, &backups, &mut Clock::default()),
        [
            format!(
                "a 1 3.9..7.5 03..07 the archive of timeline 1 ends here; timeline 2 goes on from {branch}"
            ),
            format!("a 1,2 3.9..6.5 03..06 {ENDS}"),
        ]
    );
    // Not on the line of timeline 2: it was taken after the branch.
    let late = [backup("late", 1, lsn(5, 40), lsn(5, 97), 50)];
    let rows = shown(&both, &late, &mut Clock::default());
    assert!(rows.len() == 1 && rows[0].starts_with("late 1 "), "{rows:?}");
    // A plain promotion: one line, one window.
    let plain = survey(&[(1, &[(2, 4)]), (2, &[(5, 6)])], &[(2, &history)]);
    let expected = format!("a 1,2 3.9..6.5 03..06 {ENDS}");
    assert_eq!(shown(&plain, &backups, &mut Clock::default()), [expected]);
}

#[test]
fn what_lines_share_is_one_window() {
    let history = format!("1\t{}\tx\n", lsn(8, 96));
    let survey = survey(&[(1, &[(2, 4), (7, 9)]), (2, &[(8, 8)])], &[(2, &history)]);
    let backups = [backup("a", 1, lsn(2, 40), lsn(3, 0), 50)];
    let rows = shown(&survey, &backups, &mut Clock::default());
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert!(rows[0].starts_with("a 1 3.0..4.5 02..04 segments "), "{rows:?}");
}

#[test]
fn a_hole_over_timelines_names_each() {
    let history = format!("1\t{}\tx\n", lsn(5, 96));
    let survey = survey(&[(1, &[(2, 3)]), (2, &[(7, 8)])], &[(2, &history)]);
    let backups = [backup("a", 1, lsn(2, 40), lsn(3, 0), 50)];
    assert_eq!(
        shown(&survey, &backups, &mut Clock::default()),
        ["a 1 3.0..3.5 02..03 segment 000000010000000000000004 of timeline 1 is missing; \
          segments 000000020000000000000005 to 000000020000000000000006 of timeline 2 are missing"]
    );
}

#[test]
fn a_backup_with_its_own_wal_leads_into_the_archive_or_stands_alone() {
    let stop = lsn(4, 500);
    let own = with_wal(backup("own", 1, lsn(3, 40), stop, 59));
    let standby = Record { from_standby: true, ..own.clone() };
    let alone = |second| {
        format!(
            "own 1 4.0..4.0 {second}..{second} only the backup itself: the archive does not hold the WAL that follows it"
        )
    };
    // First segment of the archive, from a primary, from a standby.
    let cases = [
        (4, format!("own 1 4.0..9.5 09..09 {ENDS}"), format!("own 1 4.0..9.5 09..09 {ENDS}")),
        (5, format!("own 1 4.0..9.5 09..09 {ENDS}"), alone(59)),
        (6, alone(59), alone(59)),
    ];
    for (first, primary, from_standby) in cases {
        let survey = survey(&[(1, &[(first, 9)])], &[]);
        assert_eq!(shown(&survey, std::slice::from_ref(&own), &mut Clock::default()), [primary], "{first}");
        assert_eq!(shown(&survey, std::slice::from_ref(&standby), &mut Clock::default()), [from_standby]);
    }
    let empty = survey(&[], &[]);
    assert_eq!(shown(&empty, &[own], &mut Clock::default()), [alone(59)]);
}

#[test]
fn a_backup_inside_a_window_that_an_older_one_began_has_no_row() {
    let survey = survey(&[(1, &[(2, 9)])], &[]);
    let backups =
        [backup("a", 1, lsn(2, 40), lsn(3, 0), 50), with_wal(backup("own", 1, lsn(5, 40), lsn(5, 90), 51))];
    let rows = shown(&survey, &backups, &mut Clock::default());
    assert!(rows.len() == 1 && rows[0].starts_with("a "), "{rows:?}");
}

#[test]
fn damage_at_the_end_moves_the_end() {
    let survey = survey(&[(1, &[(2, 9)])], &[]);
    let backups = [backup("a", 1, lsn(2, 40), lsn(3, 0), 50)];
    let mut clock = Clock { damaged: vec![9, 8], ..Clock::default() };
    assert_eq!(shown(&survey, &backups, &mut clock), ["a 1 3.0..7.5 02..07 segment 8 is damaged"]);
    let mut clock = Clock { damaged: (0..20).collect(), ..Clock::default() };
    assert!(shown(&survey, &backups, &mut clock).is_empty());
}

#[test]
fn records_that_break_off_end_a_window() {
    let survey = survey(&[(1, &[(2, 9)])], &[]);
    let backups = [backup("a", 1, lsn(2, 40), lsn(3, 0), 50), backup("b", 1, lsn(7, 40), lsn(7, 90), 51)];
    // At the very end they may.
    let mut clock = Clock { broken: vec![5, 9], ..Clock::default() };
    assert_eq!(
        shown(&survey, &backups, &mut clock),
        [
            "a 1 3.0..5.5 02..05 segment 000000010000000000000005: broken",
            "b 1 7.0..9.5 06..09 the archive ends here",
        ]
    );
    // A backup whose own WAL breaks off is none.
    let mut clock = Clock { broken: vec![2], ..Clock::default() };
    let across = [backup("a", 1, lsn(2, 40), lsn(3, 0), 50)];
    assert_eq!(shown(&survey, &across, &mut clock), Vec::<String>::new());
}

#[test]
fn windows_are_sorted_by_time() {
    let survey = survey(&[(1, &[(2, 3), (5, 6)]), (7, &[(1, 2)])], &[]);
    let backups = [
        backup("c", 1, lsn(5, 40), lsn(5, 900_000), 50),
        backup("b", 1, lsn(2, 40), lsn(2, 900_000), 50),
        backup("a", 7, lsn(1, 40), lsn(1, 900_000), 50),
    ];
    let rows = shown(&survey, &backups, &mut Clock::default());
    let names: Vec<_> = rows.iter().map(|row| &row[..1]).collect();
    assert_eq!(names, ["a", "b", "c"], "{rows:?}");
}

#[test]
fn a_fault_of_the_store_is_an_error() {
    struct Broken;
    impl Times for Broken {
        fn end(&mut self, _: &Stretch) -> Result<Moment> {
            Err(Error::new(ErrorKind::Io, "broken"))
        }
        fn last_before(&mut self, _: &Stretch, _: Lsn) -> Result<Option<i64>> {
            Ok(None)
        }
    }
    let survey = survey(&[(1, &[(2, 9)])], &[]);
    let backups = [backup("a", 1, lsn(2, 40), lsn(3, 0), 50)];
    assert_eq!(
        windows(&survey, &backups, &Damage::default(), &Evidence::default(), &mut Broken).unwrap_err().kind,
        ErrorKind::Io
    );
    assert_eq!(
        windows(&survey, &[], &Damage::default(), &Evidence::default(), &mut Broken).unwrap(),
        Windows::default()
    );
}
