//! `backup_label` (and the backup history file, which has the same form) and `tablespace_map`.
//!
//! Sources: `build_backup_content` in `access/transam/xlogbackup.c` and `do_pg_backup_start` in `xlog.c` write them;
//! `read_backup_label` and `read_tablespace_map` in `xlogrecovery.c` read them. A server trusts `backup_label` over
//! `pg_control` when both are there, so restore must put back exactly what `pg_backup_stop` returned.

use pg_ark_contract::errors::{Error, ErrorKind, Result};
use pg_ark_contract::units::{Lsn, Timeline};
use std::fmt;

/// Name of the label below the data directory (`BACKUP_LABEL_FILE`, access/xlog.h).
pub const BACKUP_LABEL: &str = "backup_label";
/// Name of the map below the data directory (`TABLESPACE_MAP`, access/xlog.h).
pub const TABLESPACE_MAP: &str = "tablespace_map";

/// What a backup's label says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupLabel {
    /// Where replay begins.
    pub start_lsn: Lsn,
    /// Name of the WAL segment that holds it.
    pub start_file: String,
    /// Where the record of the backup's checkpoint begins.
    pub checkpoint: Lsn,
    /// `streamed` on every supported version.
    pub method: Option<String>,
    /// Where the backup was taken.
    pub from: Option<BackupFrom>,
    /// When it began, in the server's `log_timezone`; for people.
    pub start_time: Option<String>,
    /// The label given by whoever asked for it.
    pub label: Option<String>,
    /// Timeline on which it began.
    pub start_timeline: Option<Timeline>,
    /// Start and timeline of the backup it builds on, if it is incremental (PostgreSQL 17 on).
    pub incremental_from: Option<(Lsn, Timeline)>,
    /// Where it ended; only in a backup history file, as the next.
    pub stop_lsn: Option<Lsn>,
    /// Timeline on which it ended.
    pub stop_timeline: Option<Timeline>,
}

/// Kind of server that a backup was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupFrom {
    /// A server that accepted writes.
    Primary,
    /// A server in recovery.
    Standby,
}

impl BackupLabel {
    /// Reads a label or a backup history file. The first lines are required in PostgreSQL's order; unknown lines are
    /// ignored. Bytes that are not UTF-8 can be only in the label's text and are replaced there.
    ///
    /// # Errors
    /// `Corrupt` if a required line is missing, a value is malformed, a line is there twice, or the timeline is not the
    /// one in the segment's name.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let text = String::from_utf8_lossy(bytes);
        let lines = Lines { pairs: text.lines().filter_map(|line| line.split_once(": ")).collect() };
        if !text.starts_with("START WAL LOCATION: ") {
            return Err(corrupt(BACKUP_LABEL, "its first line is not START WAL LOCATION"));
        }
        let (start_lsn, start_file) = lines.required("START WAL LOCATION", location)?;
        let stop = lines.optional("STOP WAL LOCATION", location)?;
        let from = |text: &str| match text {
            "primary" | "master" => Some(BackupFrom::Primary),
            "standby" => Some(BackupFrom::Standby),
            _ => None,
        };
        let text = |value: &str| Some(value.to_owned());
        let base_lsn = lines.optional("INCREMENTAL FROM LSN", lsn)?;
        let base_timeline = lines.optional("INCREMENTAL FROM TLI", timeline)?;
        if base_lsn.is_some() != base_timeline.is_some() {
            return Err(corrupt(BACKUP_LABEL, "of INCREMENTAL FROM LSN and TLI only one is there"));
        }
        let label = BackupLabel {
            start_lsn,
            start_file,
            checkpoint: lines.required("CHECKPOINT LOCATION", lsn)?,
            method: lines.optional("BACKUP METHOD", text)?,
            from: lines.optional("BACKUP FROM", from)?,
            start_time: lines.optional("START TIME", text)?,
            label: lines.optional("LABEL", text)?,
            start_timeline: lines.optional("START TIMELINE", timeline)?,
            incremental_from: base_lsn.zip(base_timeline),
            stop_lsn: stop.map(|(lsn, _)| lsn),
            stop_timeline: lines.optional("STOP TIMELINE", timeline)?,
        };
        label.check_timeline()?;
        Ok(label)
    }

    fn check_timeline(&self) -> Result<()> {
        let of_file = self.start_file.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        match self.start_timeline {
            Some(timeline) if of_file != Some(timeline.0) => Err(corrupt(
                BACKUP_LABEL,
                format_args!("it began on timeline {timeline}, but in WAL segment {}", self.start_file),
            )),
            _ => Ok(()),
        }
    }
}

/// The lines that have the form `KEY: value`.
struct Lines<'a> {
    pairs: Vec<(&'a str, &'a str)>,
}

impl Lines<'_> {
    fn optional<T>(&self, key: &str, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>> {
        let mut values = self.pairs.iter().filter(|(own, _)| *own == key).map(|(_, value)| *value);
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(corrupt(BACKUP_LABEL, format_args!("{key} is there twice")));
        }
        let value = value.trim_end_matches('\r');
        read(value)
            .map(Some)
            .ok_or_else(|| corrupt(BACKUP_LABEL, format_args!("{key} is \"{}\"", shown(value))))
    }

    fn required<T>(&self, key: &str, read: impl Fn(&str) -> Option<T>) -> Result<T> {
        self.optional(key, read)?.ok_or_else(|| corrupt(BACKUP_LABEL, format_args!("{key} is missing")))
    }
}

fn lsn(text: &str) -> Option<Lsn> {
    text.parse().ok()
}

fn timeline(text: &str) -> Option<Timeline> {
    let number = text.parse().ok().filter(|number| *number != 0)?;
    text.bytes().all(|b| b.is_ascii_digit()).then_some(Timeline(number))
}

/// `0/3000028 (file 000000010000000000000003)`.
fn location(text: &str) -> Option<(Lsn, String)> {
    let (position, file) = text.split_once(" (file ")?;
    let file = file.strip_suffix(')').filter(|name| super::wal_segment::is_segment(name))?;
    Some((lsn(position)?, file.to_owned()))
}

/// A tablespace outside the data directory, and where it is. A tablespace in place (a directory in `pg_tblspc` instead
/// of a link) is not in the map: its files belong to the data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablespaceEntry {
    /// OID of the tablespace, the name of its link in `pg_tblspc`.
    pub oid: u32,
    /// Target of the link.
    pub path: String,
}

/// Reads `tablespace_map`.
///
/// # Errors
/// `Corrupt` if a line is malformed or not ended, or an OID is there twice; `Unsupported` if a path is not UTF-8.
pub fn parse_tablespace_map(bytes: &[u8]) -> Result<Vec<TablespaceEntry>> {
    let mut entries: Vec<TablespaceEntry> = Vec::new();
    let mut line = Vec::new();
    let mut escaped = false;
    for byte in bytes.iter().copied() {
        match byte {
            b'\n' | b'\r' if !escaped => {
                if !line.is_empty() {
                    entries.push(map_line(&std::mem::take(&mut line))?);
                }
            }
            b'\\' if !escaped => escaped = true,
            other => {
                line.push(other);
                escaped = false;
            }
        }
    }
    if escaped || !line.is_empty() {
        return Err(corrupt(TABLESPACE_MAP, "its last line is not ended"));
    }
    let mut oids: Vec<u32> = entries.iter().map(|entry| entry.oid).collect();
    oids.sort_unstable();
    match oids.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(corrupt(TABLESPACE_MAP, format_args!("tablespace {} is there twice", pair[0]))),
        None => Ok(entries),
    }
}

fn map_line(line: &[u8]) -> Result<TablespaceEntry> {
    let line = std::str::from_utf8(line).map_err(|_| {
        Error::new(ErrorKind::Unsupported, "a tablespace's location is not UTF-8")
            .hint("Give the directory a name that is valid UTF-8.")
    })?;
    let entry = line.split_once(' ').and_then(|(oid, path)| {
        let digits = oid.bytes().all(|b| b.is_ascii_digit()) && !path.is_empty() && !path.contains('\0');
        let oid = oid.parse().ok().filter(|oid| digits && *oid != 0)?;
        Some(TablespaceEntry { oid, path: path.to_owned() })
    });
    entry.ok_or_else(|| corrupt(TABLESPACE_MAP, format_args!("\"{}\" is not <OID> <path>", shown(line))))
}

/// Writes `tablespace_map`: a line for each tablespace, with a backslash before line ends and backslashes in the path.
pub fn format_tablespace_map(entries: &[TablespaceEntry]) -> String {
    let mut text = String::new();
    for TablespaceEntry { oid, path } in entries {
        text.push_str(&format!("{oid} "));
        for character in path.chars() {
            if matches!(character, '\n' | '\r' | '\\') {
                text.push('\\');
            }
            text.push(character);
        }
        text.push('\n');
    }
    text
}

/// Text of the file, cut and escaped so that a hostile one can neither flood a message nor steer a terminal.
fn shown(text: &str) -> String {
    text.chars().take(200).flat_map(char::escape_debug).collect()
}

fn corrupt(file: &str, what: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, format!("{file} is damaged: {what}"))
}

#[cfg(test)]
#[path = "backup_label_tests.rs"]
mod tests;
