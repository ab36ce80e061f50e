//! Days, weeks, months and years in a time zone: which period a moment lies in, and the backups that stand for periods.

use super::facts::Facts;
use chrono::{DateTime, Datelike, NaiveDate, Offset, TimeZone, Utc};
use chrono_tz::Tz;
use pg_ark_contract::retention::Policy;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::collections::BTreeMap;

/// The zone of a policy.
///
/// # Errors
/// `InvalidArgument` for a name that no zone has.
pub fn zone(name: &str) -> Result<Tz> {
    name.parse().map_err(|_| {
        let name: String = name.chars().take(100).flat_map(char::escape_debug).collect();
        Error::new(ErrorKind::InvalidArgument, format!("\"{name}\" is not the name of a time zone"))
            .hint("Write a name such as UTC or Europe/Berlin.")
    })
}

/// Numbers that are equal for moments of the same period, and ascend.
pub type Period = (i32, u32);

/// A rule: its name, the period of a date, and how many periods the policy keeps.
pub type Rule = (&'static str, fn(NaiveDate) -> Period, u32);

/// The rules of a policy.
pub fn rules(policy: &Policy) -> [Rule; 4] {
    [
        ("daily", |date| (date.year(), date.ordinal()), policy.daily),
        ("weekly", |date| (date.iso_week().year(), date.iso_week().week()), policy.weekly),
        ("monthly", |date| (date.year(), date.month()), policy.monthly),
        ("yearly", |date| (date.year(), 0), policy.yearly),
    ]
}

/// The date in a zone. The few moments at the ends of time whose local date cannot be told have that of UTC.
pub fn date(zone: Tz, time: DateTime<Utc>) -> NaiveDate {
    let utc = time.naive_utc();
    let offset = zone.offset_from_utc_datetime(&utc).fix();
    utc.checked_add_offset(offset).unwrap_or(utc).date()
}

/// The backup that stands for each of the newest `rule.2` periods that have one: the newest without damage, or else the
/// newest. `candidates` are ordered, oldest first.
pub fn chosen(facts: &Facts<'_>, candidates: &[usize], zone: Tz, rule: Rule) -> Vec<usize> {
    let (_, period, count) = rule;
    let mut chosen: BTreeMap<Period, usize> = BTreeMap::new();
    for &index in candidates {
        let Some(time) = facts.backup(index).stopped_at else { continue };
        let key = period(date(zone, time));
        let stays = |before: &usize| facts.is_clean(*before) && !facts.is_clean(index);
        if !chosen.get(&key).is_some_and(stays) {
            chosen.insert(key, index);
        }
    }
    chosen.into_values().rev().take(usize::try_from(count).unwrap_or(usize::MAX)).collect()
}
