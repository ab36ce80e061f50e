//! Timeline history files: from which timelines, and where, a timeline branched off.
//!
//! Source: `readTimeLineHistory`, `writeTimeLineHistory`, `tliOfPointInHistory` in PostgreSQL's
//! `access/transam/timeline.c`, and `AddWALInfoToBackupManifest` in `backup/backup_manifest.c`. Each line of a
//! file names a parent timeline, the position where it was left, and a reason, oldest first; empty lines and lines that
//! begin with `#` mean nothing. Timeline 1 has no file.
//!
//! Positions need not ascend: a server that follows timeline 2 but stops before the branch to it writes a history in
//! which timeline 2 ends before it begins. So, as in PostgreSQL, the newest timeline that holds a position wins.

use super::manifest::WalRange;
use super::wal_segment::is_history;
use pg_ark_contract::errors::{Error, ErrorKind, Result};
use pg_ark_contract::units::{Lsn, Timeline};
use std::fmt;

/// A parent timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The timeline that was left.
    pub timeline: Timeline,
    /// Where it was left: the first position that is no longer on it.
    pub switch_lsn: Lsn,
    /// Why, for people.
    pub reason: String,
}

/// A timeline and its ancestors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineHistory {
    /// The timeline whose history this is.
    pub timeline: Timeline,
    /// Its ancestors, oldest first. Their numbers ascend and are below `timeline`.
    pub entries: Vec<Entry>,
}

impl TimelineHistory {
    /// The history of a timeline that has no history file.
    pub fn without_ancestors(timeline: Timeline) -> Self {
        TimelineHistory { timeline, entries: Vec::new() }
    }

    /// Reads the history file of `timeline`. Bytes that are not UTF-8 can be only in reasons and are replaced there.
    ///
    /// # Errors
    /// `Corrupt` if a line is malformed, or timeline numbers do not ascend up to `timeline`.
    pub fn parse(timeline: Timeline, bytes: &[u8]) -> Result<Self> {
        let bad = |line: &str, why: &str| {
            let line: String = line.chars().take(200).flat_map(char::escape_debug).collect();
            Error::new(ErrorKind::Corrupt, format!("{} is damaged: {why}", history_file_name(timeline)))
                .detail(format_args!("line \"{line}\""))
        };
        let mut entries: Vec<Entry> = Vec::new();
        for line in String::from_utf8_lossy(bytes).lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let entry =
                parse_line(line).ok_or_else(|| bad(line, "a line is not <timeline> <LSN> <reason>"))?;
            if entries.last().is_some_and(|last| entry.timeline <= last.timeline) {
                return Err(bad(line, "timelines do not ascend"));
            }
            if entry.timeline >= timeline {
                return Err(bad(line, "an ancestor is not older than the timeline"));
            }
            entries.push(entry);
        }
        Ok(TimelineHistory { timeline, entries })
    }

    /// The timelines, newest first, each with its first position and the first position after it.
    fn spans(&self) -> impl Iterator<Item = (Timeline, Lsn, Option<Lsn>)> + '_ {
        let start = |index: usize| match index {
            0 => Lsn(0),
            later => self.entries[later - 1].switch_lsn,
        };
        let tip = (self.timeline, start(self.entries.len()), None);
        let ancestors = self.entries.iter().enumerate().rev();
        std::iter::once(tip)
            .chain(ancestors.map(move |(i, entry)| (entry.timeline, start(i), Some(entry.switch_lsn))))
    }

    /// The timeline that holds the byte at `lsn`.
    pub fn timeline_of(&self, lsn: Lsn) -> Timeline {
        self.spans()
            .find(|(_, start, end)| *start <= lsn && end.is_none_or(|end| lsn < end))
            .map_or(self.timeline, |(timeline, _, _)| timeline)
    }

    /// Whether `timeline` is this one or an ancestor.
    pub fn contains(&self, timeline: Timeline) -> bool {
        self.spans().any(|(own, _, _)| own == timeline)
    }

    /// Where this history leaves `timeline`; `None` for the newest timeline and for one that it does not contain.
    pub fn end_of(&self, timeline: Timeline) -> Option<Lsn> {
        let from = self.entries.iter().position(|entry| entry.timeline == timeline)?;
        self.entries[from..].iter().map(|entry| entry.switch_lsn).min()
    }

    /// Whether WAL of `timeline` up to `lsn` (exclusive) is part of this history: a backup that ended there can be
    /// recovered along it.
    pub fn reaches(&self, timeline: Timeline, lsn: Lsn) -> bool {
        self.contains(timeline) && self.end_of(timeline).is_none_or(|end| lsn <= end)
    }

    /// The WAL from `start` on `start_timeline` to `end` on this timeline, newest first, as a manifest lists it.
    ///
    /// # Errors
    /// `Corrupt` if `start_timeline` is not an ancestor or was left before `start`.
    pub fn wal_ranges(&self, start_timeline: Timeline, start: Lsn, end: Lsn) -> Result<Vec<WalRange>> {
        let mut ranges = Vec::new();
        let mut upto = end;
        for (timeline, begin, left) in self.spans() {
            if left.is_some_and(|left| left < start) {
                continue;
            }
            if timeline == start_timeline {
                ranges.push(WalRange { timeline, start, end: upto });
                return Ok(ranges);
            }
            ranges.push(WalRange { timeline, start: begin, end: upto });
            upto = begin;
        }
        let message = format!(
            "timeline {start_timeline} at {start} is not in the history of timeline {}",
            self.timeline
        );
        Err(Error::new(ErrorKind::Corrupt, message))
    }
}

impl fmt::Display for TimelineHistory {
    /// Writes the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entries
            .iter()
            .try_for_each(|entry| writeln!(f, "{}\t{}\t{}", entry.timeline, entry.switch_lsn, entry.reason))
    }
}

fn parse_line(line: &str) -> Option<Entry> {
    let (timeline, rest) = line.split_once(char::is_whitespace)?;
    let rest = rest.trim_start();
    let (lsn, reason) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    if !timeline.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let timeline = Timeline(timeline.parse().ok().filter(|number| *number != 0)?);
    Some(Entry { timeline, switch_lsn: lsn.parse().ok()?, reason: reason.trim_start().to_owned() })
}

/// Name of a timeline's history file, such as `00000002.history` (`TLHistoryFileName`, access/xlog_internal.h).
pub fn history_file_name(timeline: Timeline) -> String {
    format!("{:08X}.history", timeline.0)
}

/// The timeline that a history file's name promises; `None` if the name is not one.
pub fn timeline_of_history_file(name: &str) -> Option<Timeline> {
    let digits = name.get(..8).filter(|_| is_history(name))?;
    u32::from_str_radix(digits, 16).ok().filter(|number| *number != 0).map(Timeline)
}

#[cfg(test)]
#[path = "timeline_tests.rs"]
mod tests;
