//! Units that cross the wall: LSN, timeline, WAL segment size, byte sizes.

use crate::errors::{Error, ErrorKind, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;

/// A position in the WAL, in bytes (`XLogRecPtr`, access/xlogdefs.h). Shown as `0/3000028`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        let bad = || {
            Error::new(ErrorKind::InvalidArgument, format!("\"{s}\" is not an LSN"))
                .hint("Write it as two hexadecimal numbers, for example 0/3000028.")
        };
        let part = |p: &str| -> Result<u64> {
            if p.is_empty() || p.len() > 8 || !p.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad());
            }
            u64::from_str_radix(p, 16).map_err(|_| bad())
        };
        let (high, low) = s.split_once('/').ok_or_else(bad)?;
        Ok(Lsn(part(high)? << 32 | part(low)?))
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// A timeline ID (`TimeLineID`, access/xlogdefs.h). Never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timeline(pub u32);

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Size of a WAL segment in bytes: a power of two from 1 MiB to 1 GiB (`IsValidWalSegSize`, access/xlog_internal.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct SegmentSize(u32);

impl Default for SegmentSize {
    /// 16 MiB (`DEFAULT_XLOG_SEG_SIZE`, pg_config_manual.h).
    fn default() -> Self {
        SegmentSize(16 << 20)
    }
}

impl SegmentSize {
    /// # Errors
    /// When `bytes` is not a power of two from 1 MiB to 1 GiB.
    pub fn new(bytes: u32) -> Result<Self> {
        if bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes) {
            Ok(SegmentSize(bytes))
        } else {
            Err(Error::new(ErrorKind::Corrupt, format!("{bytes} is not a valid WAL segment size")))
        }
    }

    /// Bytes in a segment.
    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }

    /// Number of the segment that holds `lsn` (`XLByteToSeg`).
    pub fn segment_of(self, lsn: Lsn) -> u64 {
        lsn.0 / self.bytes()
    }

    /// Number of the segment that holds the byte before `lsn` (`XLByteToPrevSeg`): the last one needed to reach `lsn`.
    pub fn last_segment_before(self, lsn: Lsn) -> u64 {
        lsn.0.saturating_sub(1) / self.bytes()
    }

    /// LSN of the first byte of segment `number`.
    pub fn start_of(self, number: u64) -> Lsn {
        Lsn(number.saturating_mul(self.bytes()))
    }
}

impl TryFrom<u32> for SegmentSize {
    type Error = Error;
    fn try_from(bytes: u32) -> Result<Self> {
        SegmentSize::new(bytes)
    }
}

impl From<SegmentSize> for u32 {
    fn from(size: SegmentSize) -> u32 {
        size.0
    }
}

/// A size for people: `512 bytes`, `37 MB`. Units are powers of 1024, as in `pg_size_pretty`.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["bytes", "kB", "MB", "GB", "TB", "PB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} bytes"),
        _ if value < 10.0 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsn_reads_what_it_shows() {
        for text in ["0/3000028", "16/B374D848", "FFFFFFFF/FFFFFFFF", "0/0"] {
            assert_eq!(text.parse::<Lsn>().unwrap().to_string(), text);
        }
        for text in ["", "/", "1", "0/", "/0", "0/123456789", "g/0", "0/0/0", "-1/0", "+1/0", " 0/0"] {
            assert!(text.parse::<Lsn>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn segments_are_counted_as_postgres_does() {
        let size = SegmentSize::new(16 << 20).unwrap();
        assert_eq!(size.segment_of(Lsn(0x0300_0028)), 3);
        assert_eq!(size.last_segment_before(Lsn(0x0400_0000)), 3);
        assert_eq!(size.last_segment_before(Lsn(0x0400_0001)), 4);
        assert_eq!(size.start_of(4), Lsn(0x0400_0000));
        assert!(SegmentSize::new(3 << 20).is_err());
        assert!(SegmentSize::new(0).is_err());
    }

    #[test]
    fn sizes_for_people() {
        assert_eq!(human_bytes(0), "0 bytes");
        assert_eq!(human_bytes(1536), "1.5 kB");
        assert_eq!(human_bytes(37 << 20), "37 MB");
    }
}
