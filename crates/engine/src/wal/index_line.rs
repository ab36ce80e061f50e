//! Lines of an index and their seals: a last member with the CRC-32C of what stands before it. FORMAT.md, "Index".
//!
//! A line without a seal is read too: an early version wrote it. One whose seal is wrong says nothing.

use super::summary::{MAX_RESTORE_POINTS, RestorePoint, Summary};
use crate::postgres::wal_record::{from_utc, to_utc};
use crate::postgres::wal_segment::SegmentName;
use chrono::{DateTime, SecondsFormat, Utc};
use pg_ark_contract::{Error, ErrorKind, Lsn, Result, SegmentSize};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// What stands between a line and its checksum, and behind it.
const HEAD: &[u8] = b",\"crc32c\":\"";
const TAIL: &[u8] = b"\"}";
/// Hexadecimal digits of a checksum.
const DIGITS: usize = 8;
/// Bytes of a seal.
const LEN: usize = HEAD.len() + DIGITS + TAIL.len();
/// Bytes of a seal that may be wrong before it counts as something else.
const MAX_WRONG: usize = 3;
/// The member's name.
const MEMBER: &[u8] = b"\"crc32c\"";

/// The first line of an index.
#[derive(Serialize)]
pub struct Head {
    /// Major version of the format.
    pub format: u32,
}

/// The last line of an index.
#[derive(Debug, Serialize, Deserialize)]
pub struct End {
    /// Always true.
    pub end: bool,
    /// Lines between the first and this one.
    pub lines: usize,
}

/// A line about a segment.
#[derive(Serialize, Deserialize)]
pub struct SegmentLine {
    /// Its name.
    pub segment: String,
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

/// A line about a file that is no segment: a timeline history, a backup history, a `.partial`.
#[derive(Debug, Serialize, Deserialize)]
pub struct FileLine {
    /// Its name.
    pub file: String,
    size: u64,
    crc32c_of_file: String,
}

/// What such a file must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileFacts {
    /// Bytes.
    pub size: u64,
    /// CRC-32C of its content.
    pub crc32c: u32,
}

impl FileFacts {
    /// Of this content.
    pub fn of(content: &[u8]) -> Self {
        FileFacts { size: content.len() as u64, crc32c: crc32c::crc32c(content) }
    }

    /// What of `content` is not as it was when it was stored.
    pub fn differs(&self, content: &[u8]) -> Option<String> {
        let found = FileFacts::of(content);
        match *self == found {
            true => None,
            false if self.size != found.size => {
                Some(format!("has {} bytes instead of {}", found.size, self.size))
            }
            false => Some(format!(
                "is not what was stored: its CRC-32C is {:08x} instead of {:08x}",
                found.crc32c, self.crc32c
            )),
        }
    }
}

/// Whether a line can prove itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineSeal {
    /// Its checksum is right.
    Sealed,
    /// It has none.
    Unsealed,
    /// Its checksum is wrong, or damaged.
    Broken,
}

/// A line as it is written: sealed, with its line feed.
///
/// # Errors
/// `Internal`.
pub fn sealed(line: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line)
        .map_err(|e| Error::new(ErrorKind::Internal, "could not write a line of an index").detail(e))?;
    bytes.pop();
    let crc = format!("{:08x}", crc32c::crc32c(&bytes));
    bytes.extend_from_slice(HEAD);
    bytes.extend_from_slice(crc.as_bytes());
    bytes.extend_from_slice(TAIL);
    bytes.push(b'\n');
    Ok(bytes)
}

/// Checks the seal of a line, without its line feed. What is no JSON may count as unsealed: it does not parse either.
pub fn check(line: &[u8]) -> LineSeal {
    if let Some((body, seal)) = line.len().checked_sub(LEN).and_then(|at| line.split_at_checked(at)) {
        let crc = format!("{:08x}", crc32c::crc32c(body));
        let right = [HEAD, crc.as_bytes(), TAIL].concat();
        if seal == right {
            return LineSeal::Sealed;
        }
        let fixed = |at: &usize| !(HEAD.len()..HEAD.len() + DIGITS).contains(at);
        let wrong = seal.iter().zip(&right).enumerate().filter(|(at, (a, b))| fixed(at) && a != b);
        if wrong.count() <= MAX_WRONG {
            return LineSeal::Broken;
        }
    }
    #[derive(Deserialize)]
    struct Loose {
        crc32c: Option<IgnoredAny>,
    }
    let may_have_one = line.windows(MEMBER.len()).any(|word| word == MEMBER);
    match may_have_one && serde_json::from_slice::<Loose>(line).is_ok_and(|found| found.crc32c.is_some()) {
        true => LineSeal::Broken,
        false => LineSeal::Unsealed,
    }
}

impl FileLine {
    /// About a file.
    pub fn of(name: &str, facts: FileFacts) -> Self {
        FileLine { file: name.to_string(), size: facts.size, crc32c_of_file: format!("{:08x}", facts.crc32c) }
    }

    /// What it says; `None` when that can be nothing.
    pub fn facts(&self) -> Option<FileFacts> {
        let crc32c = u32::from_str_radix(&self.crc32c_of_file, 16).ok()?;
        (format!("{crc32c:08x}") == self.crc32c_of_file).then_some(FileFacts { size: self.size, crc32c })
    }
}

impl SegmentLine {
    /// About the segment of this name.
    pub fn of(segment: String, summary: &Summary) -> Self {
        let points = summary.restore_points.iter().map(|point| PointLine {
            name: point.name.clone(),
            lsn: point.lsn,
            time: shown(point.time).unwrap_or_default(),
        });
        SegmentLine {
            segment,
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

    /// The segment and what it holds; `None` for a line that cannot be true.
    pub fn parse(self, size: SegmentSize) -> Option<(SegmentName, Summary)> {
        let name = SegmentName::parse(&self.segment, size)?;
        let within = name.start(size)..=name.next().start(size);
        if !within.contains(&self.end_lsn) || self.restore_points.len() > MAX_RESTORE_POINTS {
            return None;
        }
        let points = self
            .restore_points
            .into_iter()
            .map(|point| Some(RestorePoint { time: read(&point.time)?, name: point.name, lsn: point.lsn }));
        let time = |text: Option<String>| match text {
            Some(text) => read(&text).map(Some),
            None => Some(None),
        };
        let (first_time, last_time) = range(time(self.first_time)?, time(self.last_time)?)?;
        let (min_xid, max_xid) = range(self.min_xid, self.max_xid)?;
        let summary = Summary {
            commits: self.commits,
            first_time,
            last_time,
            min_xid,
            max_xid,
            restore_points: points.collect::<Option<_>>()?,
            more_restore_points: self.more_restore_points,
            end: self.end_lsn,
            first_record: self.first_lsn,
            whole: self.whole,
        };
        Some((name, summary))
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

fn shown(time: i64) -> Option<String> {
    to_utc(time).map(|time| time.to_rfc3339_opts(SecondsFormat::Micros, true))
}

fn read(text: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| from_utc(time.with_timezone(&Utc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Vec<u8> {
        let facts = FileFacts { size: 41, crc32c: 7 };
        sealed(&FileLine::of("00000002.history", facts)).unwrap()
    }

    #[test]
    fn a_seal_is_the_last_member() {
        let text = String::from_utf8(line()).unwrap();
        let body = r#"{"file":"00000002.history","size":41,"crc32c_of_file":"00000007""#;
        let crc = crc32c::crc32c(body.as_bytes());
        assert_eq!(text, format!("{body},\"crc32c\":\"{crc:08x}\"}}\n"));
        let read: FileLine = serde_json::from_str(&text).unwrap();
        assert_eq!(read.facts(), Some(FileFacts { size: 41, crc32c: 7 }));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_breaks_a_line() {
        let line = line();
        let line = line.trim_ascii_end();
        assert_eq!(check(line), LineSeal::Sealed);
        for bit in 0..line.len() * 8 {
            let mut other = line.to_vec();
            other[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(check(&other), LineSeal::Broken, "bit {bit}");
        }
        for len in 0..line.len() {
            let cut = &line[..len];
            assert!(check(cut) != LineSeal::Sealed && serde_json::from_slice::<FileLine>(cut).is_err());
        }
    }

    #[test]
    fn a_line_without_a_seal_is_told_from_one_whose_seal_moved() {
        assert_eq!(check(br#"{"format":1}"#), LineSeal::Unsealed);
        assert_eq!(check(br#"{"name":"a\"crc32c"}"#), LineSeal::Unsealed);
        assert_eq!(check(br#"{"crc32c":"00000000","format":1,"more":"to come"}"#), LineSeal::Broken);
    }
}
