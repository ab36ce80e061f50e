//! Tests of targets as users write them.

use super::*;

fn utc(text: &str) -> String {
    parse_time(text).map_or_else(|e| e.to_string(), shown_time)
}

#[test]
fn times_with_a_zone_are_exact() {
    for (text, expected) in [
        ("2026-11-22 14:30:00+01", "2026-11-22T13:30:00Z"),
        ("2026-11-22T13:30:00Z", "2026-11-22T13:30:00Z"),
        ("2026-11-22t13:30z", "2026-11-22T13:30:00Z"),
        (" 2026-11-22  13:30:00.5 UTC ", "2026-11-22T13:30:00.500Z"),
        ("2026-11-22 13:30:00.123456 GMT", "2026-11-22T13:30:00.123456Z"),
        ("2026-11-22 14:30:00 +01:00", "2026-11-22T13:30:00Z"),
        ("2026-11-22 14:30:00-0530", "2026-11-22T20:00:00Z"),
        ("2026-11-22 14:30:00 Europe/Berlin", "2026-11-22T13:30:00Z"),
        ("2026-07-22 14:30:00 Europe/Berlin", "2026-07-22T12:30:00Z"),
        ("2026-11-22 24:00:00Z", "2026-11-23T00:00:00Z"),
        ("2026-12-31 23:59:60Z", "2027-01-01T00:00:00Z"),
        ("2026-1-2 3:04Z", "2026-01-02T03:04:00Z"),
    ] {
        assert_eq!(utc(text), expected, "{text}");
    }
}

#[test]
fn what_is_not_one_moment_is_refused() {
    for (text, why) in [
        ("2026-11-22 14:30:00 CST", "unique"),
        ("2026-11-22 14:30:00 CET", "unique"),
        ("2026-11-22 14:30:00 Europe/Nowhere", "unique"),
        ("2026-10-25 02:30:00 Europe/Berlin", "showed it twice"),
        ("2026-03-29 02:30:00 Europe/Berlin", "skipped"),
        ("2026-11-22 14:30:00+16", "zone"),
        ("2026-11-22 14:30:00+1:1", "zone"),
        ("2026-11-22 14:30:00.1234567Z", "decimals"),
        ("2026-11-22 25:00:00Z", "time of day"),
        ("2026-11-22 24:00:01Z", "time of day"),
        ("2026-02-30 14:00:00Z", "date"),
        ("22.11.2026 14:00:00Z", "date"),
        ("2026-11-22", "time of day"),
        ("yesterday", "date"),
        ("", "time of day"),
    ] {
        let shown = utc(text);
        assert!(shown.contains(why), "{text}: {shown}");
    }
}

#[test]
fn a_time_without_zone_is_shown_in_utc() {
    let error = parse_time("2026-11-22 14:30").unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidArgument);
    assert_eq!(error.message, "the time \"2026-11-22 14:30\" has no zone");
    assert!(error.hint.unwrap().starts_with("Write 2026-11-22T14:30:00Z if it is in UTC"));
}

#[test]
fn the_setting_names_its_zone() {
    let time = parse_time("2026-11-22 14:30:00.25+01").unwrap();
    assert_eq!(setting_time(time), "2026-11-22 13:30:00.250000+00");
}

#[test]
fn transactions_names_and_timelines() {
    assert_eq!(Target::xid("4711").unwrap(), Target::Xid(4711));
    assert_eq!(Target::xid("4294972007").unwrap(), Target::Xid(4711));
    for bad in ["", "0", "2", "-1", "+5", "x", "4294967296", "99999999999999999999"] {
        assert!(Target::xid(bad).is_err(), "{bad}");
    }
    assert!(Target::name("before 'it'").is_ok());
    for bad in ["", "a\nb", &"x".repeat(64)] {
        assert!(Target::name(bad).is_err(), "{bad}");
    }
    assert_eq!("7".parse::<TimelineChoice>().unwrap(), TimelineChoice::Number(Timeline(7)));
    assert_eq!("latest".parse::<TimelineChoice>().unwrap(), TimelineChoice::Latest);
    for bad in ["", "0", "-1", "newest", "4294967296"] {
        assert!(bad.parse::<TimelineChoice>().is_err(), "{bad}");
    }
}
