use super::*;
use proptest::prelude::*;

/// As PostgreSQL 15 wrote it after two promotions.
const THREE: &str = "1\t0/3000148\tno recovery target specified\n\n2\t0/5000000\tat restore point \"x\"\n";

fn three() -> TimelineHistory {
    TimelineHistory::parse(Timeline(3), THREE.as_bytes()).unwrap()
}

#[test]
fn a_file_lists_the_ancestors() {
    let history = three();
    assert_eq!(history.entries.len(), 2);
    assert_eq!(
        history.entries[1],
        Entry {
            timeline: Timeline(2),
            switch_lsn: Lsn(0x0500_0000),
            reason: "at restore point \"x\"".into()
        }
    );
    assert_eq!(history.to_string(), THREE.replace("\n\n", "\n"));
}

#[test]
fn comments_and_spaces_mean_nothing() {
    let text = b"# made by hand\n\n  1   0/3000148\n\t2\t0/5000000\twhy\r\n#\n   \n";
    let history = TimelineHistory::parse(Timeline(3), text).unwrap();
    assert_eq!(history.entries.len(), 2);
    assert_eq!((history.entries[0].reason.as_str(), history.entries[1].reason.as_str()), ("", "why"));
    assert!(TimelineHistory::parse(Timeline(9), b"").unwrap().entries.is_empty());
    let latin1 = TimelineHistory::parse(Timeline(2), b"1\t0/1\tgr\xFC\xDFe\n").unwrap();
    assert_eq!(latin1.entries[0].switch_lsn, Lsn(1));
}

#[test]
fn malformed_files_are_refused() {
    for (text, part) in [
        ("x\t0/1\ty", "a line is not"),
        ("1", "a line is not"),
        ("1\t", "a line is not"),
        ("1\t0\ty", "a line is not"),
        ("1\t0/g\ty", "a line is not"),
        ("-1\t0/1\ty", "a line is not"),
        ("+1\t0/1\ty", "a line is not"),
        ("0\t0/1\ty", "a line is not"),
        ("4294967296\t0/1\ty", "a line is not"),
        ("1\t0/1\ta\n1\t0/2\tb", "do not ascend"),
        ("2\t0/1\ta\n1\t0/2\tb", "do not ascend"),
        ("3\t0/1\ta", "not older"),
        ("4\t0/1\ta", "not older"),
    ] {
        let error = TimelineHistory::parse(Timeline(3), text.as_bytes()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Corrupt);
        assert!(
            error.message.contains(part) && error.message.contains("00000003.history"),
            "{text}: {error}"
        );
    }
}

#[test]
fn a_position_lies_on_one_timeline() {
    let history = three();
    for (lsn, timeline) in
        [(0, 1), (0x0300_0147, 1), (0x0300_0148, 2), (0x04FF_FFFF, 2), (0x0500_0000, 3), (u64::MAX, 3)]
    {
        assert_eq!(history.timeline_of(Lsn(lsn)), Timeline(timeline), "{lsn:X}");
    }
    assert_eq!(TimelineHistory::without_ancestors(Timeline(1)).timeline_of(Lsn(5)), Timeline(1));
}

#[test]
fn ancestry_is_known_to_the_byte() {
    let history = three();
    assert!(history.contains(Timeline(1)) && history.contains(Timeline(3)) && !history.contains(Timeline(4)));
    assert_eq!(history.end_of(Timeline(2)), Some(Lsn(0x0500_0000)));
    assert_eq!((history.end_of(Timeline(3)), history.end_of(Timeline(4))), (None, None));
    assert!(history.reaches(Timeline(1), Lsn(0x0300_0148)));
    assert!(!history.reaches(Timeline(1), Lsn(0x0300_0149)));
    assert!(history.reaches(Timeline(3), Lsn(u64::MAX)));
    assert!(!history.reaches(Timeline(4), Lsn(0)));
}

#[test]
fn a_timeline_can_be_left_before_it_begins() {
    // Recovery along timeline 2 that stopped at 0/2000000, before timeline 2 branches off.
    let history = TimelineHistory::parse(Timeline(3), b"1\t0/3000000\ta\n2\t0/2000000\tb\n").unwrap();
    assert_eq!(history.timeline_of(Lsn(0x01FF_FFFF)), Timeline(1));
    assert_eq!(history.timeline_of(Lsn(0x0200_0000)), Timeline(3));
    assert_eq!(history.end_of(Timeline(1)), Some(Lsn(0x0200_0000)));
    assert!(!history.reaches(Timeline(1), Lsn(0x0250_0000)));
}

#[test]
fn the_wal_of_a_backup_may_span_timelines() {
    let range =
        |timeline, start, end| WalRange { timeline: Timeline(timeline), start: Lsn(start), end: Lsn(end) };
    let history = three();
    let (start, end) = (Lsn(0x0200_0028), Lsn(0x0600_0000));
    assert_eq!(
        history.wal_ranges(Timeline(1), start, end).unwrap(),
        [range(3, 0x0500_0000, end.0), range(2, 0x0300_0148, 0x0500_0000), range(1, start.0, 0x0300_0148)]
    );
    assert_eq!(history.wal_ranges(Timeline(3), start, end).unwrap(), [range(3, start.0, end.0)]);
    assert!(
        history.wal_ranges(Timeline(1), Lsn(0x0400_0000), end).is_err(),
        "timeline 1 ended before the start"
    );
    assert!(history.wal_ranges(Timeline(7), start, end).is_err());
}

#[test]
fn files_are_named_by_timeline() {
    assert_eq!(history_file_name(Timeline(0xAB)), "000000AB.history");
    assert_eq!(timeline_of_history_file("000000AB.history"), Some(Timeline(0xAB)));
    for name in [
        "00000000.history",
        "000000ab.history",
        "AB.history",
        "000000AB",
        "000000AB.history.done",
        "",
        "é000000.history",
    ] {
        assert_eq!(timeline_of_history_file(name), None, "{name}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), timeline: u32) {
        let _ = TimelineHistory::parse(Timeline(timeline), &bytes);
        let _ = timeline_of_history_file(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn what_is_written_is_read(lsns in proptest::collection::vec(any::<u64>(), 0..5), reason in "[a-z]([ -~]{0,20}[a-z])?", at: u64) {
        let entries: Vec<Entry> = lsns
            .iter()
            .enumerate()
            .map(|(i, lsn)| Entry { timeline: Timeline(i as u32 + 1), switch_lsn: Lsn(*lsn), reason: reason.clone() })
            .collect();
        let history = TimelineHistory { timeline: Timeline(lsns.len() as u32 + 1), entries };
        let read = TimelineHistory::parse(history.timeline, history.to_string().as_bytes()).unwrap();
        prop_assert_eq!(&read, &history);
        prop_assert!(history.contains(history.timeline_of(Lsn(at))));
    }
}
