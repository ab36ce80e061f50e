//! Tests of instants: texts that are refused, changes of the clock, and every instant against a slow, obvious search.

use super::*;
use chrono::{Datelike, Timelike};
use proptest::prelude::*;
use std::time::Instant;

fn at(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

fn schedule(text: &str, zone: &str) -> Schedule {
    Schedule::parse(text, zone).unwrap_or_else(|e| panic!("{text}: {e:?}"))
}

/// The first instants after `after`, as the clock on the wall shows them, with the offset.
fn walls(text: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let schedule = schedule(text, zone);
    let next = std::iter::successors(schedule.next(at(after)), |last| schedule.next(*last));
    let shown = |time: DateTime<Utc>| time.with_timezone(&schedule.zone).format("%m-%d %H:%M%:z").to_string();
    next.take(count).map(shown).collect()
}

#[test]
fn forms_that_everybody_knows() {
    for (text, first) in [
        ("30 2 * * *", "2026-11-22T02:30:00Z"),
        (" */15  * * * * ", "2026-11-22T00:15:00Z"),
        ("0 3 * * SUN", "2026-11-22T03:00:00Z"),
        ("0 3 * * 7", "2026-11-22T03:00:00Z"),
        ("0 3 * * mon-fri", "2026-11-23T03:00:00Z"),
        ("0 0 1 jan,JUL *", "2027-01-01T00:00:00Z"),
        // Either day, as every cron does.
        ("0 0 1 * FRI", "2026-11-27T00:00:00Z"),
        ("0 0 L * *", "2026-11-30T00:00:00Z"),
        ("0 0 * * 5L", "2026-11-27T00:00:00Z"),
        ("0 0 * * SUN#1", "2026-12-06T00:00:00Z"),
        ("0 0 29 2 *", "2028-02-29T00:00:00Z"),
        ("@hourly", "2026-11-22T01:00:00Z"),
        ("@daily", "2026-11-23T00:00:00Z"),
        ("@Midnight", "2026-11-23T00:00:00Z"),
        ("@weekly", "2026-11-29T00:00:00Z"),
        ("@monthly", "2026-12-01T00:00:00Z"),
        ("@yearly", "2027-01-01T00:00:00Z"),
        ("@annually", "2027-01-01T00:00:00Z"),
    ] {
        assert_eq!(schedule(text, "UTC").next(at("2026-11-22T00:00:00Z")), Some(at(first)), "{text}");
    }
}

#[test]
fn what_nobody_can_mean_is_refused_with_an_example() {
    let now = at("2026-11-22T00:00:00Z");
    for (text, why) in [
        ("", "0 fields"),
        ("* * * *", "4 fields"),
        ("0 0 2 * * *", "seconds"),
        ("0 0 2 * * * 2027", "7 fields"),
        ("@reboot", "no such word"),
        ("@daily @daily", "no such word"),
        ("60 * * * *", ""),
        ("0 24 * * *", ""),
        ("0 0 0 * *", ""),
        ("0 0 32 * *", ""),
        ("0 0 * 13 *", ""),
        ("0 0 * * 8", ""),
        ("*/0 * * * *", ""),
        ("5-1 * * * *", ""),
        ("0 0 * MON *", "\"MON\" is no month"),
        ("0 0 * * JAN", "\"JAN\" is no day of the week"),
        ("0 0 * JAN0 *", "is no month"),
        ("0 0 * * MONTUE", "is no day"),
        ("0 L * * *", "is no hour"),
        (", * * * *", "is no minute"),
        ("1,,2 * * * *", "is no minute"),
        ("0 02:00 * * *", "is no hour"),
        ("-1 * * * *", "is no minute"),
        ("0 99999999999999999999 * * *", "is no hour"),
        ("0 0 30 2 *", "never"),
        ("0 0 31 2,4,6,9,11 *", "never"),
        ("\u{1b}]0;x\u{7} * * * *", "is no minute"),
        ("٣ * * * *", "is no minute"),
        ("0 0 * * \u{17f}un", "is no day"),
        (&"1,".repeat(1000), "more than 200"),
    ] {
        let error = Schedule::chosen(text, "UTC", now).map(|_| ()).expect_err(text);
        assert_eq!(error.kind, ErrorKind::InvalidArgument);
        assert!(error.detail.as_deref().is_some_and(|detail| detail.contains(why)), "{text}: {error:?}");
        assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("30 2 * * *")));
        assert!(!error.to_string().contains(char::is_control), "{error:?}");
    }
    let error = Schedule::chosen("@daily", "Mars/Base", now).map(|_| ()).unwrap_err();
    assert!(error.message.contains("Mars/Base"), "{error:?}");
}

#[test]
fn a_daily_run_comes_once_each_day_whatever_the_clock_does() {
    let berlin = |text: &str, after: &str| walls(text, "Europe/Berlin", after, 3);
    // 29 March 2026: from 02:00 to 03:00.
    assert_eq!(
        berlin("30 2 * * *", "2026-03-28T00:00:00Z"),
        ["03-28 02:30+01:00", "03-29 03:00+02:00", "03-30 02:30+02:00"]
    );
    // Two that become one.
    assert_eq!(
        berlin("0,30 2 * * *", "2026-03-28T01:15:00Z"),
        ["03-28 02:30+01:00", "03-29 03:00+02:00", "03-30 02:00+02:00"]
    );
    // 25 October 2026: from 03:00 back to 02:00.
    assert_eq!(
        berlin("30 2 * * *", "2026-10-24T00:00:00Z"),
        ["10-24 02:30+02:00", "10-25 02:30+02:00", "10-26 02:30+01:00"]
    );
    // Within the hour that comes again.
    assert_eq!(berlin("30 2 * * *", "2026-10-25T01:10:00Z")[0], "10-26 02:30+01:00");
    let last = schedule("30 2 * * *", "Europe/Berlin").last(at("2026-10-25T01:10:00Z"));
    assert_eq!(last, Some(at("2026-10-25T00:30:00Z")));
    // Midnight that is not there.
    assert_eq!(walls("@daily", "America/Havana", "2026-03-08T04:59:00Z", 1), ["03-08 01:00-04:00"]);
    // A day that was not there.
    assert_eq!(walls("0 5 30 12 *", "Pacific/Apia", "2011-12-29T12:00:00Z", 1), ["12-31 00:00+14:00"]);
}

#[test]
fn an_hourly_run_follows_the_hours_that_pass() {
    let berlin = |after: &str| walls("@hourly", "Europe/Berlin", after, 3);
    assert_eq!(
        berlin("2026-03-29T00:00:00Z"),
        ["03-29 03:00+02:00", "03-29 04:00+02:00", "03-29 05:00+02:00"]
    );
    assert_eq!(
        berlin("2026-10-24T23:00:00Z"),
        ["10-25 02:00+02:00", "10-25 02:00+01:00", "10-25 03:00+01:00"]
    );
}

#[test]
fn the_costliest_texts_cost_little() {
    let now = at("2026-03-29T00:00:00Z");
    let begun = Instant::now();
    for text in [
        "0 0 31 2,4,6,9,11 *",
        "* * 30 2 *",
        "* 0-22 30W 2 +1",
        "0-59 0-22 * * *",
        "* * * * *",
        "59 23 29 2 +1",
        "0 0 30W 2 +5#5",
    ] {
        let schedule = schedule(text, "Europe/Berlin");
        let _ = (schedule.next(now), schedule.last(now));
    }
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}

/// What a clock on the wall shows at each minute, in zones with and without changes, and around them.
const ZONES: [&str; 6] =
    ["UTC", "Europe/Berlin", "America/New_York", "America/Havana", "Australia/Lord_Howe", "Asia/Kathmandu"];
const CHANGES: [&str; 6] = [
    "2026-03-29T01:00:00Z",
    "2026-10-25T01:00:00Z",
    "2026-03-08T07:00:00Z",
    "2026-11-01T05:00:00Z",
    "2026-04-04T15:00:00Z",
    "2026-10-03T15:30:00Z",
];

/// Whether a wall time is one of a text whose fields are lists of numbers.
fn is_due(wall: NaiveDateTime, minutes: &[u32], hours: &[u32], days: &[u32]) -> bool {
    minutes.contains(&wall.minute())
        && hours.contains(&wall.hour())
        && days.contains(&wall.weekday().num_days_from_sunday())
}

fn list(numbers: &[u32]) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// Every instant from `from` in so many minutes, by looking at each minute.
fn obvious(
    zone: Tz,
    from: DateTime<Utc>,
    span: i64,
    is_due: &dyn Fn(NaiveDateTime) -> bool,
) -> Vec<DateTime<Utc>> {
    let wall = |time: DateTime<Utc>| time.with_timezone(&zone).naive_local();
    let mut instants = Vec::new();
    // The latest that was shown: what comes again is not later.
    let mut latest = wall(from - Duration::days(2));
    for minute in -2 * 24 * 60..=span {
        let time = from + Duration::minutes(minute);
        let shown = wall(time);
        let passed =
            std::iter::successors(Some(latest + Duration::minutes(1)), |at| Some(*at + Duration::minutes(1)));
        let passed: Vec<_> = passed.take_while(|at| *at <= shown).collect();
        if passed.into_iter().any(is_due) && minute >= 0 {
            instants.push(time);
        }
        latest = latest.max(shown);
    }
    instants
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn every_instant_is_found_and_no_other(
        zone in 0..ZONES.len(),
        change in 0..CHANGES.len(),
        before in 0..2000_i64,
        minutes in proptest::collection::btree_set(0..60_u32, 1..4),
        hours in proptest::collection::btree_set(0..24_u32, 1..20),
        days in proptest::collection::btree_set(0..7_u32, 1..8),
    ) {
        let [minutes, hours, days] = [minutes, hours, days].map(|set| set.into_iter().collect::<Vec<u32>>());
        let text = format!("{} {} * * {}", list(&minutes), list(&hours), list(&days));
        let schedule = schedule(&text, ZONES[zone]);
        let (from, span) = (at(CHANGES[change]) - Duration::minutes(before), 3 * 24 * 60);
        let wanted = obvious(schedule.zone, from, span, &|wall| is_due(wall, &minutes, &hours, &days));
        let until = from + Duration::minutes(span);
        let next = std::iter::successors(schedule.next(from - Duration::seconds(1)), |last| schedule.next(*last));
        let found: Vec<_> = next.take_while(|time| *time <= until).collect();
        prop_assert_eq!(&found, &wanted, "{} in {}", text, ZONES[zone]);
        // Backwards, from each minute.
        for minute in (0..=span).step_by(7) {
            let now = from + Duration::minutes(minute) + Duration::milliseconds(500);
            if let Some(last) = wanted.iter().rfind(|time| **time <= now) {
                prop_assert_eq!(schedule.last(now), Some(*last), "{} in {} at {}", text, ZONES[zone], now);
            }
        }
    }

    #[test]
    fn an_hourly_text_finds_every_match_both_ways(
        zone in 0..ZONES.len(), change in 0..CHANGES.len(), before in 0..600_i64, minute in 0..60_u32,
    ) {
        let schedule = schedule(&format!("{minute} * * * *"), ZONES[zone]);
        let (from, span) = (at(CHANGES[change]) - Duration::minutes(before), 12 * 60);
        let shows = |time: &DateTime<Utc>| time.with_timezone(&schedule.zone).minute() == minute;
        let wanted: Vec<_> = (1..=span).map(|at| from + Duration::minutes(at)).filter(shows).collect();
        let until = from + Duration::minutes(span);
        let next = std::iter::successors(schedule.next(from), |last| schedule.next(*last));
        let found: Vec<_> = next.take_while(|time| *time <= until).collect();
        prop_assert_eq!(&found, &wanted);
        for pair in wanted.windows(2) {
            prop_assert_eq!(schedule.last(pair[1] - Duration::seconds(1)), Some(pair[0]));
            prop_assert_eq!(schedule.last(pair[1]), Some(pair[1]));
        }
    }

    #[test]
    fn no_text_breaks_anything(text in "[0-9*/,#LW?+@A-Za-z -]{0,40}|.{0,60}", zone in "(Europe/Berlin|UTC|.{0,20})") {
        let now = at("2026-11-22T12:34:56Z");
        if let Ok(schedule) = Schedule::chosen(&text, &zone, now) {
            let next = schedule.next(now).unwrap();
            prop_assert!(next > now);
            prop_assert!(schedule.last(next).unwrap() == next);
            prop_assert!(schedule.last(now).is_none_or(|last| last <= now));
        }
    }
}
