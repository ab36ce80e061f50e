//! The recovery target: what the user wrote, made exact.
//!
//! Times are read as PostgreSQL reads them (`DecodeDateTime` in utils/adt/datetime.c) where they are plain: ISO date,
//! time, and a zone. A time without zone means one thing here and another on the server, so it is refused; so is an
//! abbreviation such as `CST`, of which several are in use.

use crate::postgres::wal_record::to_utc;
use chrono::{DateTime, Local, NaiveDate, NaiveDateTime, SecondsFormat, TimeDelta, TimeZone, Utc};
use pg_ark_contract::{Error, ErrorKind, Lsn, Result, Timeline};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// Most bytes in the name of a restore point (`MAXFNAMELEN` - 1, access/xlog_internal.h).
const MAX_NAME: usize = 63;
/// The first transaction ID that a transaction can have (`FirstNormalTransactionId`, access/transam.h).
const FIRST_XID: u32 = 3;

/// Where recovery shall end.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "value")]
pub enum Target {
    /// At the end of the archive.
    #[default]
    Latest,
    /// At the end of the backup.
    Immediate,
    /// At the last commit of this time or before it.
    Time(DateTime<Utc>),
    /// At the first record that begins here or later.
    Lsn(Lsn),
    /// At the end of this transaction.
    Xid(u32),
    /// At this restore point.
    Name(String),
}

impl Target {
    /// The target that stands for the end of a named transaction. The epoch of a 64-bit number is left out, as the
    /// server does (`check_recovery_target_xid` in access/transam/xlogrecovery.c).
    ///
    /// # Errors
    /// `InvalidArgument` for what no transaction can have.
    pub fn xid(text: &str) -> Result<Target> {
        let number = text.parse::<u64>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
        let xid = number.map(|number| (number & u64::from(u32::MAX)) as u32).filter(|xid| *xid >= FIRST_XID);
        xid.map(Target::Xid).ok_or_else(|| {
            invalid(format!("\"{}\" is not the ID of a transaction", text.escape_debug()))
                .hint("Write it as pg_current_xact_id() shows it, for example 4711.")
        })
    }

    /// The target that stands for a restore point.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that no restore point can have.
    pub fn name(text: &str) -> Result<Target> {
        let fits = !text.is_empty() && text.len() <= MAX_NAME && !text.contains(['\0', '\n', '\r']);
        if fits {
            return Ok(Target::Name(text.to_string()));
        }
        Err(invalid(format!("\"{}\" is not the name of a restore point", text.escape_debug()))
            .hint(format!("Such names have 1 to {MAX_NAME} bytes, as pg_create_restore_point() takes them.")))
    }

    /// Whether `--exclusive` has a meaning for it (`recovery_target_inclusive`).
    pub fn may_exclude(&self) -> bool {
        matches!(self, Target::Time(_) | Target::Lsn(_) | Target::Xid(_))
    }

    /// What it is, for messages: `time 2026-11-22T13:30:00Z`.
    pub fn shown(&self) -> String {
        match self {
            Target::Latest => "the end of the WAL".to_string(),
            Target::Immediate => "the end of the backup".to_string(),
            Target::Time(time) => format!("time {}", shown_time(*time)),
            Target::Lsn(lsn) => format!("LSN {lsn}"),
            Target::Xid(xid) => format!("transaction {xid}"),
            Target::Name(name) => format!("restore point \"{}\"", name.escape_debug()),
        }
    }
}

/// Which timeline recovery follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimelineChoice {
    /// The newest of the archive that continues the backup.
    #[default]
    Latest,
    /// The backup's own.
    Current,
    /// This one.
    Number(Timeline),
}

impl FromStr for TimelineChoice {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let number = || text.parse().ok().filter(|n| *n > 0 && text.bytes().all(|b| b.is_ascii_digit()));
        match text {
            "latest" => Ok(TimelineChoice::Latest),
            "current" => Ok(TimelineChoice::Current),
            _ => number().map(|n| TimelineChoice::Number(Timeline(n))).ok_or_else(|| {
                invalid(format!("\"{}\" is not a timeline", text.escape_debug()))
                    .hint("Write latest, current, or a number above 0.")
            }),
        }
    }
}

/// What the server does when it has reached the target (`recovery_target_action`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetAction {
    /// It becomes a primary on a timeline of its own.
    #[default]
    Promote,
    /// It waits, and takes connections that read.
    Pause,
    /// It shuts down.
    Shutdown,
}

impl TargetAction {
    /// The value of the setting.
    pub fn as_str(self) -> &'static str {
        match self {
            TargetAction::Promote => "promote",
            TargetAction::Pause => "pause",
            TargetAction::Shutdown => "shutdown",
        }
    }
}

/// A time as it is shown everywhere: RFC 3339, UTC, with as many digits as it needs.
pub fn shown_time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// The same for microseconds since 2000-01-01 UTC.
pub fn shown_moment(time: i64) -> Option<String> {
    to_utc(time).map(shown_time)
}

/// A time as the server's setting takes it, whatever its `DateStyle` and `TimeZone`.
pub fn setting_time(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S%.6f+00").to_string()
}

/// Reads a time: `2026-11-22 14:30:00+01`, `2026-11-22T13:30:00Z`, `2026-11-22 14:30 Europe/Berlin`.
///
/// # Errors
/// `InvalidArgument` for what is no time, has no zone, or one that is not unique.
pub fn parse_time(text: &str) -> Result<DateTime<Utc>> {
    let bad = |why: &str| {
        invalid(format!("\"{}\" is not a time: {why}", text.escape_debug())).hint(
            "Write it as 2026-11-22 14:30:00+01, 2026-11-22T13:30:00Z or 2026-11-22 14:30 Europe/Berlin.",
        )
    };
    let trimmed = text.trim();
    let (date, rest) =
        trimmed.split_once([' ', 'T', 't']).ok_or_else(|| bad("a date and a time of day are needed"))?;
    let date = parse_date(date).ok_or_else(|| bad("the date is not YYYY-MM-DD"))?;
    let rest = rest.trim_start();
    let clock = rest.find(|c: char| !(c.is_ascii_digit() || c == ':' || c == '.')).unwrap_or(rest.len());
    let (clock, zone) = rest.split_at(clock);
    let clock = parse_clock(clock)
        .ok_or_else(|| bad("the time of day is not HH:MM:SS, or has more than 6 decimals"))?;
    let local = date.and_time(chrono::NaiveTime::MIN).checked_add_signed(clock);
    let local = local.ok_or_else(|| bad("it is out of range"))?;
    match zone.trim() {
        "" => Err(without_zone(trimmed, local)),
        zone => parse_zone(zone, local).map_err(|why| bad(&why)),
    }
}

fn parse_date(text: &str) -> Option<NaiveDate> {
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts[..] else { return None };
    if year.len() != 4 || month.len() > 2 || day.len() > 2 {
        return None;
    }
    NaiveDate::from_ymd_opt(number(year)? as i32, number(month)?, number(day)?)
}

/// Time since midnight. As in PostgreSQL 24:00:00 is the next midnight, and second 60 the next minute.
fn parse_clock(text: &str) -> Option<TimeDelta> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let parts: Vec<&str> = clock.split(':').collect();
    let (hour, minute, second) = match parts[..] {
        [hour, minute] if !text.contains('.') => (hour, minute, "0"),
        [hour, minute, second] => (hour, minute, second),
        _ => return None,
    };
    if [hour, minute, second].iter().any(|part| part.len() > 2) || fraction.len() > 6 {
        return None;
    }
    let (hour, minute, second) = (number(hour)?, number(minute)?, number(second)?);
    let micros = i64::from(number(&format!("{fraction:0<6}"))?);
    let whole = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
    let fits = minute < 60 && second <= 60 && (hour < 24 || (whole == 86_400 && micros == 0));
    fits.then(|| TimeDelta::seconds(whole) + TimeDelta::microseconds(micros))
}

fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// The moment at which clocks of `zone` show `local`; else why there is none.
fn parse_zone(zone: &str, local: NaiveDateTime) -> std::result::Result<DateTime<Utc>, String> {
    if ["z", "utc", "gmt"].contains(&zone.to_ascii_lowercase().as_str()) {
        return Ok(local.and_utc());
    }
    if zone.starts_with(['+', '-']) {
        let offset = parse_offset(zone).ok_or("the zone is not +HH, +HH:MM or +HHMM")?;
        return local.checked_sub_signed(offset).map(|t| t.and_utc()).ok_or("it is out of range".to_string());
    }
    // Names without a slash are abbreviations, which several places share, or old names of rules.
    let named = zone.contains('/').then(|| zone.parse::<chrono_tz::Tz>().ok()).flatten();
    let Some(named) = named else {
        return Err(format!("\"{}\" is not a zone that is unique", zone.escape_debug()));
    };
    match named.from_local_datetime(&local) {
        chrono::LocalResult::Single(time) => Ok(time.to_utc()),
        chrono::LocalResult::Ambiguous(first, second) => Err(format!(
            "clocks there showed it twice, at {} and at {}",
            shown_time(first.to_utc()),
            shown_time(second.to_utc())
        )),
        chrono::LocalResult::None => Err("clocks there skipped it".to_string()),
    }
}

/// `+01`, `-05:30`, `+0530`; at most 15:59:59 away from UTC (`MAX_TZDISP_HOUR`, datatype/timestamp.h).
fn parse_offset(text: &str) -> Option<TimeDelta> {
    let (sign, digits) = text.split_at(1);
    let (hours, minutes) = match digits.split_once(':') {
        Some((hours, minutes)) if minutes.len() == 2 => (hours, minutes),
        Some(_) => return None,
        None if digits.len() == 4 => digits.split_at(2),
        None => (digits, "0"),
    };
    let (hours, minutes) = (number(hours).filter(|_| (1..=2).contains(&hours.len()))?, number(minutes)?);
    let seconds = i64::from(hours) * 3600 + i64::from(minutes) * 60;
    let fits = hours < 16 && minutes < 60;
    fits.then(|| TimeDelta::seconds(if sign == "-" { -seconds } else { seconds }))
}

fn without_zone(text: &str, local: NaiveDateTime) -> Error {
    let mut hint = format!("Write {} if it is in UTC", shown_time(local.and_utc()));
    // What clocks of this machine showed then, in UTC.
    if let chrono::LocalResult::Single(time) = Local.from_local_datetime(&local)
        && time.offset().local_minus_utc() != 0
    {
        let offset = time.format("%:z");
        hint.push_str(&format!(", {} if it is this machine's ({offset})", shown_time(time.to_utc())));
    }
    invalid(format!("the time \"{}\" has no zone", text.escape_debug())).hint(format!("{hint}."))
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
