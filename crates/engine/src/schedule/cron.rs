//! When a cron text is due: its instants in a time zone.
//!
//! What: five fields, or `@hourly` and its like, read by the croner crate. Texts that it would read in a way that nobody
//! meant ("MON" as a month, a field that matches nothing) are refused before.
//! Changes of the clock: an instant in an hour that does not exist is due when the clock goes on, one in an hour that
//! comes twice is due the first time. Only a text that is due in every hour of the day follows the hours that pass.
//! Why: a daily backup runs once each day, whatever the clock does.

use super::zone;
use chrono::{DateTime, Duration, NaiveDateTime, Offset, SubsecRound, TimeZone, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use pg_ark_contract::{Error, ErrorKind, Result};

/// Longest text that is read, in bytes.
const MAX_TEXT: usize = 200;
/// No clock was ever changed by more, in minutes (Samoa left out a day).
const LARGEST_CHANGE: i64 = 25 * 60;
/// More instants of one text than a clock can pass over or repeat: one each minute.
const MOST_REPEATED: usize = LARGEST_CHANGE as usize + 60;

const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
const FIELDS: [&str; 5] = ["minute", "hour", "day of the month", "month", "day of the week"];
const EXAMPLES: &str = "Give minute, hour, day of the month, month and day of the week: \"30 2 * * *\" is daily at 02:30, \
     \"0 3 * * SUN\" Sundays at 03:00, \"*/15 * * * *\" every 15 minutes. Or @hourly, @daily, @weekly, @monthly, @yearly.";

/// A cron text in its time zone.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    zone: Tz,
    /// Due in every hour of the day.
    every_hour: bool,
}

impl Schedule {
    /// Reads a cron text and the name of a time zone.
    ///
    /// # Errors
    /// `InvalidArgument` for what cannot be understood, with an example. A text that never comes is understood.
    pub fn parse(text: &str, timezone: &str) -> Result<Self> {
        if text.len() > MAX_TEXT {
            return Err(wrong(text, &format!("It has {} bytes, more than {MAX_TEXT}.", text.len())));
        }
        let fields = fields(text)?;
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(&fields.join(" ")).map_err(|e| wrong(text, &e.to_string()))?;
        let every_hour = cron.pattern.hours.values().len() == 24;
        Ok(Schedule { cron, zone: zone::find(timezone)?, every_hour })
    }

    /// As [`Schedule::parse`], for a text that somebody chooses now.
    ///
    /// # Errors
    /// As [`Schedule::parse`]; a text that never comes.
    pub fn chosen(text: &str, timezone: &str, now: DateTime<Utc>) -> Result<Self> {
        let schedule = Self::parse(text, timezone)?;
        match schedule.next(now) {
            Some(_) => Ok(schedule),
            None => Err(wrong(text, "It never comes: no month has such a day.")),
        }
    }

    /// The time zone's name.
    pub fn timezone(&self) -> &'static str {
        self.zone.name()
    }

    /// The first instant after `after`; `None` when there is none.
    pub fn next(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let after = after.trunc_subsecs(0);
        let local = after.with_timezone(&self.zone);
        if self.every_hour {
            return Some(self.cron.find_next_occurrence(&local, false).ok()?.to_utc());
        }
        // What the clock on the wall has passed is not later.
        let mut wall = local.naive_local();
        for _ in 0..MOST_REPEATED {
            wall = self.cron.find_next_occurrence(&wall, false).ok()?;
            let instant = self.instant(wall)?;
            // In an hour that comes twice, one that was due the first time is not due again.
            if instant > after {
                return Some(instant);
            }
        }
        None
    }

    /// The last instant up to `until`; `None` when there is none.
    pub fn last(&self, until: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let until = until.trunc_subsecs(0);
        let local = until.with_timezone(&self.zone);
        if self.every_hour {
            return Some(self.cron.find_previous_occurrence(&local, true).ok()?.to_utc());
        }
        // The wall may have shown a later time already, if it was put back.
        let offset = |time: DateTime<Tz>| time.offset().fix().local_minus_utc();
        let before = local.checked_sub_signed(Duration::minutes(LARGEST_CHANGE))?;
        let put_back = offset(before).saturating_sub(offset(local)).max(0);
        let mut wall = local.naive_local().checked_add_signed(Duration::seconds(i64::from(put_back) + 1))?;
        for _ in 0..MOST_REPEATED {
            wall = self.cron.find_previous_occurrence(&wall, false).ok()?;
            let instant = self.instant(wall)?;
            if instant <= until {
                return Some(instant);
            }
        }
        None
    }

    /// When the clock on the wall shows `wall` for the first time, or passes over it. Never goes back as `wall` goes on.
    fn instant(&self, wall: NaiveDateTime) -> Option<DateTime<Utc>> {
        (0..=LARGEST_CHANGE).find_map(|minutes| {
            let shown = wall.checked_add_signed(Duration::minutes(minutes))?;
            Some(self.zone.from_local_datetime(&shown).earliest()?.to_utc())
        })
    }
}

/// The five fields of a text, in capital letters.
fn fields(text: &str) -> Result<Vec<String>> {
    let text_in_capitals = text.trim().to_ascii_uppercase();
    let plain = match &text_in_capitals[..] {
        "@HOURLY" => "0 * * * *",
        "@DAILY" | "@MIDNIGHT" => "0 0 * * *",
        "@WEEKLY" => "0 0 * * 0",
        "@MONTHLY" => "0 0 1 * *",
        "@YEARLY" | "@ANNUALLY" => "0 0 1 1 *",
        word if word.starts_with('@') => return Err(wrong(text, "There is no such word.")),
        other => other,
    };
    let fields: Vec<String> = plain.split_ascii_whitespace().map(str::to_string).collect();
    match fields.len() {
        5 => {}
        6 => return Err(wrong(text, "It has six fields: seconds are not supported.")),
        many => return Err(wrong(text, &format!("It has {many} fields, not five."))),
    }
    for ((at, field), name) in fields.iter().enumerate().zip(FIELDS) {
        if let Some(bad) = field.split(',').find(|item| !is_item(at, item)) {
            return Err(wrong(text, &format!("\"{}\" is no {name}.", bad.escape_debug())));
        }
    }
    Ok(fields)
}

/// Whether one item of a list looks like what field `at` may hold; the numbers themselves are for the parser.
fn is_item(at: usize, item: &str) -> bool {
    // The day of the week that must be, beside the day of the month.
    let item = if at == 4 { item.strip_prefix('+').unwrap_or(item) } else { item };
    item.split(['-', '/', '#']).all(|word| {
        let is_number = |text: &str| matches!(text.len(), 1..=2) && text.bytes().all(|b| b.is_ascii_digit());
        let is_day = |text: &str| is_number(text) || DAYS.contains(&text);
        is_number(word)
            || word == "*"
            || match at {
                2 => matches!(word, "?" | "L" | "LW") || word.strip_suffix('W').is_some_and(is_number),
                3 => MONTHS.contains(&word),
                4 => matches!(word, "?" | "L") || is_day(word) || word.strip_suffix('L').is_some_and(is_day),
                _ => false,
            }
    })
}

fn wrong(text: &str, why: &str) -> Error {
    let shown: String = text.chars().take(MAX_TEXT).flat_map(char::escape_debug).collect();
    Error::new(ErrorKind::InvalidArgument, format!("invalid cron text \"{shown}\""))
        .detail(why)
        .hint(EXAMPLES)
}

#[cfg(test)]
#[path = "cron_tests.rs"]
mod tests;
