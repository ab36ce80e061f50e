//! The summaries of the segments in one folder of the archive: `index.jsonl`, FORMAT.md "Index".
//!
//! It saves reading the segments and is never the only place of a fact: it may be absent, old, or lack lines. So a
//! damaged line is left out and counted, and two writers may overwrite each other's.

use super::summary::{MAX_RESTORE_POINTS, RestorePoint, Summary};
use crate::postgres::wal_record::{from_utc, to_utc};
use crate::postgres::wal_segment::SegmentName;
use crate::repository::Storage;
use crate::repository::record::{FORMAT, check_format};
use chrono::{DateTime, SecondsFormat, Utc};
use pg_ark_contract::{Error, ErrorKind, Lsn, Result, SegmentSize};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most bytes of an index: 4 KiB for each of the 4096 segments of 1 MiB that a folder can hold.
pub(super) const MAX_INDEX: u64 = 16 << 20;

/// The summaries of the segments in one folder.
#[derive(Debug, Clone)]
pub struct Index {
    size: SegmentSize,
    /// First 16 digits of the names in the folder.
    folder: String,
    summaries: BTreeMap<u64, Summary>,
    damaged: usize,
}

#[derive(Serialize)]
struct Head {
    format: u32,
}

#[derive(Serialize, Deserialize)]
struct Line {
    segment: String,
    commits: u64,
    first_time: Option<String>,
    last_time: Option<String>,
    min_xid: Option<u32>,
    max_xid: Option<u32>,
    #[serde(default)]
    first_lsn: Option<Lsn>,
    end_lsn: Lsn,
    whole: bool,
    restore_points: Vec<PointLine>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    more_restore_points: bool,
}

#[derive(Serialize, Deserialize)]
struct PointLine {
    name: String,
    lsn: Lsn,
    time: String,
}

impl Index {
    /// Reads the index at `path` (`.../wal/00000001/00000000/index.jsonl`) of an archive whose segments have `size`
    /// bytes. An absent one is empty.
    ///
    /// # Errors
    /// `FormatTooNew`; `Corrupt` when it is too large to be one; what the store said.
    pub fn load(storage: &Storage, path: &str, size: SegmentSize) -> Result<Self> {
        let mut index = Index { size, folder: digits_of(path), summaries: BTreeMap::new(), damaged: 0 };
        let Some(bytes) = storage.get(path, MAX_INDEX)? else { return Ok(index) };
        let mut lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        match lines.next().map(|head| check_format(head, &storage.display(path))) {
            Some(Err(e)) if e.kind == ErrorKind::FormatTooNew => return Err(e),
            Some(Err(_)) => index.damaged += 1,
            Some(Ok(())) | None => {}
        }
        for line in lines {
            let parsed = serde_json::from_slice::<Line>(line).ok().and_then(|line| index.parse(line));
            match parsed {
                Some((number, summary)) => drop(index.summaries.insert(number, summary)),
                None => index.damaged += 1,
            }
        }
        Ok(index)
    }

    /// What is known about segment `number`.
    pub fn get(&self, number: u64) -> Option<&Summary> {
        self.summaries.get(&number)
    }

    /// Remembers what a segment holds; one that does not belong to the folder is left out.
    pub fn insert(&mut self, name: SegmentName, summary: Summary) {
        if name.file_name(self.size).starts_with(&self.folder) {
            self.summaries.insert(name.number, summary);
        }
    }

    /// Lines that were left out when it was read.
    pub fn damaged(&self) -> usize {
        self.damaged
    }

    /// Numbers of the segments that it knows, and what they hold, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Summary)> {
        self.summaries.iter().map(|(number, summary)| (*number, summary))
    }

    /// Writes it to `path`, replacing any other. Lines beyond the size that [`Index::load`] takes are left out.
    ///
    /// # Errors
    /// What the store said.
    pub fn save(&self, storage: &Storage, path: &str) -> Result<()> {
        let mut bytes = line_of(&Head { format: FORMAT })?;
        for (number, summary) in &self.summaries {
            let line = line_of(&self.line(*number, summary))?;
            if (bytes.len() + line.len()) as u64 <= MAX_INDEX {
                bytes.extend_from_slice(&line);
            }
        }
        storage.put(path, bytes)
    }

    fn line(&self, number: u64, summary: &Summary) -> Line {
        let per_log = (1 << 32) / self.size.bytes();
        let points = summary.restore_points.iter().map(|point| PointLine {
            name: point.name.clone(),
            lsn: point.lsn,
            time: shown(point.time).unwrap_or_default(),
        });
        Line {
            segment: format!("{}{:08X}", self.folder, number % per_log),
            commits: summary.commits,
            first_time: summary.first_time.and_then(shown),
            last_time: summary.last_time.and_then(shown),
            min_xid: summary.min_xid,
            max_xid: summary.max_xid,
            first_lsn: summary.first_record,
            end_lsn: summary.end,
            whole: summary.whole,
            restore_points: points.collect(),
            more_restore_points: summary.more_restore_points,
        }
    }

    /// `None` for a line that cannot be true, or belongs elsewhere.
    fn parse(&self, line: Line) -> Option<(u64, Summary)> {
        let name = SegmentName::parse(&line.segment, self.size)?;
        let within = name.start(self.size)..=name.next().start(self.size);
        let belongs = line.segment.starts_with(&self.folder) && within.contains(&line.end_lsn);
        if !belongs || line.restore_points.len() > MAX_RESTORE_POINTS {
            return None;
        }
        let points = line
            .restore_points
            .into_iter()
            .map(|point| Some(RestorePoint { time: read(&point.time)?, name: point.name, lsn: point.lsn }));
        let time = |text: Option<String>| match text {
            Some(text) => read(&text).map(Some),
            None => Some(None),
        };
        let (first_time, last_time) = range(time(line.first_time)?, time(line.last_time)?)?;
        let (min_xid, max_xid) = range(line.min_xid, line.max_xid)?;
        let summary = Summary {
            commits: line.commits,
            first_time,
            last_time,
            min_xid,
            max_xid,
            restore_points: points.collect::<Option<_>>()?,
            more_restore_points: line.more_restore_points,
            end: line.end_lsn,
            first_record: line.first_lsn,
            whole: line.whole,
        };
        Some((name.number, summary))
    }
}

/// Both ends of a range or neither; `None` for anything else.
fn range<T: PartialOrd>(first: Option<T>, last: Option<T>) -> Option<(Option<T>, Option<T>)> {
    match (&first, &last) {
        (None, None) => Some((first, last)),
        (Some(from), Some(to)) if from <= to => Some((first, last)),
        _ => None,
    }
}

/// Timeline and log of the folder that holds `path`, as the names in it begin.
fn digits_of(path: &str) -> String {
    let mut folders = path.rsplit('/').skip(1);
    let (log, timeline) = (folders.next().unwrap_or_default(), folders.next().unwrap_or_default());
    format!("{timeline}{log}")
}

fn shown(time: i64) -> Option<String> {
    to_utc(time).map(|time| time.to_rfc3339_opts(SecondsFormat::Micros, true))
}

fn read(text: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| from_utc(time.with_timezone(&Utc)))
}

fn line_of(line: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line)
        .map_err(|e| Error::new(ErrorKind::Internal, "could not write a line of an index").detail(e))?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
