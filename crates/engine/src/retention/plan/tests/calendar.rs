//! Days, weeks, months and years in time zones.

use super::repo::{Repo, at, days, full};
use crate::retention::model::StoredBackup;
use crate::retention::plan::plan;
use pg_ark_contract::ErrorKind;
use pg_ark_contract::retention::Policy;

/// Backups named by their times.
fn kept(policy: &Policy, times: &[&str]) -> Vec<String> {
    let backups: Vec<StoredBackup> =
        times.iter().enumerate().map(|(n, time)| full(time, at(time), n as u64 * 10)).collect();
    let shown = Repo::new(backups).wal(1, 0, 999).plan(policy, at("2030-01-01T00:00:00Z"));
    let by = |name: &&str| {
        let rule = shown.backup(name);
        ["daily", "weekly", "monthly", "yearly"].iter().any(|rule_name| rule.contains(rule_name))
    };
    shown.kept().into_iter().filter(by).map(str::to_owned).collect()
}

fn policy(daily: u32, weekly: u32, monthly: u32, yearly: u32, timezone: &str) -> Policy {
    Policy { daily, weekly, monthly, yearly, timezone: timezone.into(), ..days(0) }
}

#[test]
fn days_are_those_of_the_zone() {
    let times = ["2026-03-01T22:30:00Z", "2026-03-01T23:30:00Z", "2026-03-02T12:00:00Z"];
    assert_eq!(kept(&policy(9, 0, 0, 0, "UTC"), &times), [times[1], times[2]]);
    assert_eq!(kept(&policy(9, 0, 0, 0, "Europe/Berlin"), &times), [times[0], times[2]]);
    // UTC+14 and UTC-11.
    assert_eq!(kept(&policy(9, 0, 0, 0, "Pacific/Kiritimati"), &times), [times[1], times[2]]);
    assert_eq!(kept(&policy(9, 0, 0, 0, "Pacific/Pago_Pago"), &times), [times[1], times[2]]);
}

#[test]
fn a_day_of_23_or_25_hours_is_one_day() {
    // Clocks in Berlin went forward on 29 March 2026, and go back on 25 October.
    let spring =
        ["2026-03-28T22:59:59Z", "2026-03-28T23:00:00Z", "2026-03-29T21:59:59Z", "2026-03-29T22:00:00Z"];
    assert_eq!(kept(&policy(9, 0, 0, 0, "Europe/Berlin"), &spring), [spring[0], spring[2], spring[3]]);
    let autumn =
        ["2026-10-24T21:59:59Z", "2026-10-24T22:00:00Z", "2026-10-25T22:59:59Z", "2026-10-25T23:00:00Z"];
    assert_eq!(kept(&policy(9, 0, 0, 0, "Europe/Berlin"), &autumn), [autumn[0], autumn[2], autumn[3]]);
}

#[test]
fn a_day_that_a_zone_left_out_is_no_day() {
    // Samoa had no 30 December 2011.
    let times = ["2011-12-30T09:59:00Z", "2011-12-30T10:00:00Z"];
    assert_eq!(kept(&policy(2, 0, 0, 0, "Pacific/Apia"), &times), times);
    assert_eq!(kept(&policy(1, 0, 0, 0, "Pacific/Apia"), &times), [times[1]]);
}

#[test]
fn weeks_begin_on_monday_and_cross_years() {
    // 2020 had 53 weeks: the last one ended on Sunday, 3 January 2021.
    let times = [
        "2020-12-27T12:00:00Z", // Sunday of week 52
        "2020-12-28T12:00:00Z", // Monday of week 53
        "2021-01-03T12:00:00Z", // Sunday of week 53
        "2021-01-04T12:00:00Z", // Monday of week 1
    ];
    assert_eq!(kept(&policy(0, 9, 0, 0, "UTC"), &times), [times[0], times[2], times[3]]);
    // Week 1 of 2025 began in 2024: not the same as week 1 of 2024.
    let times = ["2024-01-02T12:00:00Z", "2024-12-30T12:00:00Z", "2025-01-05T12:00:00Z"];
    assert_eq!(kept(&policy(0, 9, 0, 0, "UTC"), &times), [times[0], times[2]]);
    assert_eq!(kept(&policy(0, 1, 0, 0, "UTC"), &times), [times[2]]);
}

#[test]
fn only_periods_that_have_a_backup_count() {
    let times =
        ["2024-02-29T12:00:00Z", "2025-02-28T12:00:00Z", "2025-02-28T13:00:00Z", "2028-02-01T00:00:00Z"];
    assert_eq!(kept(&policy(2, 0, 0, 0, "UTC"), &times), [times[2], times[3]]);
    assert_eq!(kept(&policy(0, 0, 3, 0, "UTC"), &times), [times[0], times[2], times[3]]);
    assert_eq!(kept(&policy(0, 0, 0, 2, "UTC"), &times), [times[2], times[3]]);
    assert_eq!(kept(&policy(0, 0, 0, u32::MAX, "UTC"), &times), [times[0], times[2], times[3]]);
}

#[test]
fn a_year_ends_with_its_zone() {
    let times = ["2026-12-31T23:30:00Z", "2027-01-01T00:30:00Z"];
    assert_eq!(kept(&policy(0, 0, 0, 9, "UTC"), &times), times);
    assert_eq!(kept(&policy(0, 0, 0, 9, "Europe/Berlin"), &times), [times[1]]);
    assert_eq!(kept(&policy(0, 0, 0, 9, "America/New_York"), &times), [times[1]]);
}

#[test]
fn a_period_prefers_what_has_no_damage() {
    let mut backups = vec![
        full("clean", at("2026-01-01T12:00:00Z"), 0),
        full("damaged", at("2026-01-02T12:00:00Z"), 10),
        full("february", at("2026-02-02T12:00:00Z"), 20),
        full("newest", at("2026-03-02T12:00:00Z"), 30),
    ];
    backups[1].damaged_pages = 1;
    backups[2].damaged_pages = 1;
    let monthly = policy(0, 0, 3, 0, "UTC");
    let shown = Repo::new(backups).wal(1, 0, 99).plan(&monthly, at("2030-01-01T00:00:00Z"));
    assert_eq!(shown.kept(), ["clean", "february", "newest"]);
    assert_eq!(shown.backup("clean"), "keep: monthly");
    assert_eq!(shown.backup("february"), "keep: monthly", "better than none");
}

#[test]
fn a_zone_that_is_none_is_refused() {
    for name in ["", "Europe/Nowhere", "+02:00", "Europe/Berlin; drop", &"x".repeat(100_000)] {
        let policy = Policy { timezone: name.to_owned(), ..days(1) };
        let error = plan(&Repo::default().0, &policy, at("2026-01-01T00:00:00Z")).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidArgument);
        assert!(error.message.len() < 500);
    }
}
