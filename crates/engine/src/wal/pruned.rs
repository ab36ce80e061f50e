//! What retention removed from an archive (`pruned.json`; FORMAT.md, "Pruned"): a hole that was made on purpose is no
//! fault, and WAL that was removed is not WAL that was never written.
//!
//! It is written before anything is removed, so that a segment which it does not name and which is not there is lost. It
//! says nothing about segments that are there.

use super::archive::Archive;
use super::survey::{Run, joined};
use crate::postgres::timeline::{history_file_name, timeline_of_history_file};
use crate::postgres::wal_segment::SegmentName;
use crate::repository::layout;
use crate::repository::record::FORMAT;
use crate::repository::sealed;
use chrono::{DateTime, SecondsFormat, Utc};
use pg_ark_contract::{Error, ErrorKind, Result, SegmentSize, Timeline};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Runs and histories that are remembered, the newest ones: behind older ones nothing is stored any more.
const MOST: usize = 10_000;

/// What to do about a damaged file.
const DAMAGED: &str = "Get it back from a copy. Nothing is pruned before; if you remove it, holes that retention made are told as gaps.";

/// What retention removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// When it last did; none when it never did.
    pub at: Option<DateTime<Utc>>,
    /// Segments, as ascending runs.
    pub segments: BTreeMap<Timeline, Vec<Run>>,
    /// Timelines whose history files it removed.
    pub histories: BTreeSet<Timeline>,
    /// Fields of a later minor version.
    other: BTreeMap<String, Value>,
}

#[derive(Serialize, Deserialize)]
struct File {
    format: u32,
    pruned_at: DateTime<Utc>,
    segment_size: SegmentSize,
    segments: Vec<Names>,
    #[serde(default)]
    histories: Vec<String>,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

#[derive(Serialize, Deserialize)]
struct Names {
    first: String,
    last: String,
}

impl Pruned {
    /// Reads what retention removed from an archive whose segments have `size` bytes.
    ///
    /// # Errors
    /// `Corrupt` for a file that cannot be read as such; `FormatTooNew`; what the store said.
    pub fn load(archive: &Archive, size: SegmentSize) -> Result<Pruned> {
        let path = archive.pruned_path();
        match archive.storage().get(&path, layout::MAX_RECORD)? {
            None => Ok(Pruned::default()),
            Some(bytes) => {
                Pruned::parse(&bytes, &archive.storage().display(&path), size).map_err(|e| match e.kind {
                    ErrorKind::Corrupt => e.hint(DAMAGED),
                    _ => e,
                })
            }
        }
    }

    /// Reads the file that is shown as `path`. Segments of another size are left out: their numbers mean nothing.
    ///
    /// # Errors
    /// As [`Pruned::load`].
    pub fn parse(bytes: &[u8], path: &str, size: SegmentSize) -> Result<Pruned> {
        let (file, _): (File, _) = sealed::read(bytes, path)?;
        let bad = |name: &str| {
            Error::new(
                ErrorKind::Corrupt,
                format!("\"{path}\" is damaged: \"{}\" is no name in its place", name.escape_debug()),
            )
        };
        let mut segments: BTreeMap<Timeline, Vec<Run>> = BTreeMap::new();
        for names in file.segments.iter().filter(|_| file.segment_size == size) {
            let parse = |name: &str| SegmentName::parse(name, size).ok_or_else(|| bad(name));
            let (first, last) = (parse(&names.first)?, parse(&names.last)?);
            if first.timeline != last.timeline || first.number > last.number {
                return Err(bad(&names.last));
            }
            segments.entry(first.timeline).or_default().push(Run { first: first.number, last: last.number });
        }
        for runs in segments.values_mut() {
            *runs = joined(std::mem::take(runs));
        }
        let histories =
            file.histories.iter().map(|name| timeline_of_history_file(name).ok_or_else(|| bad(name)));
        let histories = histories.collect::<Result<_>>()?;
        Ok(Pruned { at: Some(file.pruned_at), segments, histories, other: file.other })
    }

    /// Writes it, durably.
    ///
    /// # Errors
    /// What the store said.
    pub fn save(&self, archive: &Archive, size: SegmentSize) -> Result<()> {
        let name = |timeline: Timeline, number| SegmentName { timeline, number }.file_name(size);
        let all = self.segments.iter().flat_map(|(timeline, runs)| runs.iter().map(|run| (*timeline, *run)));
        let mut segments: Vec<Names> = all
            .map(|(timeline, run)| Names { first: name(timeline, run.first), last: name(timeline, run.last) })
            .collect();
        segments.drain(..segments.len().saturating_sub(MOST));
        let left_out = self.histories.len().saturating_sub(MOST);
        let file = File {
            format: FORMAT,
            pruned_at: self.at.unwrap_or_else(Utc::now),
            segment_size: size,
            segments,
            histories: self
                .histories
                .iter()
                .skip(left_out)
                .map(|timeline| history_file_name(*timeline))
                .collect(),
            other: self.other.clone(),
        };
        archive.storage().put(&archive.pruned_path(), sealed::to_json(&file)?)
    }

    /// The runs of a timeline.
    pub fn runs(&self, timeline: Timeline) -> &[Run] {
        self.segments.get(&timeline).map_or(&[], Vec::as_slice)
    }

    /// Whether retention removed a segment, if it is not there.
    pub fn holds(&self, timeline: Timeline, number: u64) -> bool {
        self.runs(timeline).iter().any(|run| (run.first..=run.last).contains(&number))
    }

    /// The first segment that it removed from here on.
    pub fn next(&self, name: SegmentName) -> Option<SegmentName> {
        let run = self.runs(name.timeline).iter().find(|run| run.last >= name.number)?;
        Some(SegmentName { number: run.first.max(name.number), ..name })
    }

    /// When, for people.
    pub fn when(&self) -> String {
        self.at.map_or_else(|| "before".into(), |at| at.to_rfc3339_opts(SecondsFormat::Secs, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::store_fixture::{Place, name, size};

    #[test]
    fn what_was_removed_is_written_and_read_again() {
        let place = Place::new();
        let archive = place.archive();
        assert_eq!(Pruned::load(&archive, size()).unwrap(), Pruned::default());
        let run = |first, last| Run { first, last };
        let pruned = Pruned {
            at: Some(DateTime::from_timestamp(1_795_000_000, 0).unwrap()),
            segments: BTreeMap::from([(Timeline(1), vec![run(2, 4), run(6, 5000)])]),
            histories: BTreeSet::from([Timeline(2), Timeline(3)]),
            other: BTreeMap::from([("later".into(), Value::Bool(true))]),
        };
        pruned.save(&archive, size()).unwrap();
        let read = Pruned::load(&archive, size()).unwrap();
        assert_eq!(read, pruned);
        for (number, there) in
            [(1, false), (2, true), (4, true), (5, false), (6, true), (5000, true), (5001, false)]
        {
            assert_eq!(read.holds(Timeline(1), number), there, "{number}");
            assert!(!read.holds(Timeline(2), number));
        }
        let next = |number| read.next(SegmentName { timeline: Timeline(1), number }).map(|name| name.number);
        assert_eq!([next(0), next(3), next(5), next(5001)], [Some(2), Some(3), Some(6), None]);
        // Numbers of segments of another size mean nothing.
        assert!(Pruned::load(&archive, SegmentSize::default()).unwrap().segments.is_empty());
    }

    #[test]
    fn nonsense_is_damage() {
        let body = |segments: &str, histories: &str| {
            let size = size().bytes();
            let text = format!(
                "{{\"format\":1,\"pruned_at\":\"2026-11-22T02:00:00Z\",\"segment_size\":{size},\"segments\":[{segments}],\"histories\":[{histories}]}}"
            );
            Pruned::parse(text.as_bytes(), "pruned.json", size_of())
        };
        fn size_of() -> SegmentSize {
            size()
        }
        let pair = |first: &str, last: &str| format!("{{\"first\":\"{first}\",\"last\":\"{last}\"}}");
        assert!(body(&pair(&name(3), &name(4)), "\"00000002.history\"").is_ok());
        let other = name(4).replacen("00000001", "00000002", 1);
        for (segments, histories) in [
            (pair(&name(4), &name(3)), ""),
            (pair(&name(3), &other), ""),
            (pair("x", &name(3)), ""),
            (pair("", "\\u001b]0;x\\u0007"), ""),
            (String::new(), "\"../x\""),
        ] {
            let error = body(&segments, histories).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Corrupt);
            assert!(!error.to_string().contains(char::is_control), "{error:?}");
        }
    }
}
