//! Writes a manifest, byte for byte as the server does.

use super::{WalRange, hex};
use chrono::DateTime;
use pg_ark_contract::errors::{Error, ErrorKind, Result};
use pg_ark_contract::units::{Lsn, Timeline};
use sha2::{Digest, Sha256};
use std::io::Write;

/// Writes a manifest while the backup runs: first every file, then the WAL ranges, then [`finish`](Self::finish).
pub struct ManifestWriter<W: Write> {
    out: W,
    sum: Sha256,
    line: String,
    files: u64,
    ranges: u64,
}

impl<W: Write> ManifestWriter<W> {
    /// Begins a manifest of version 1 (PostgreSQL 15 and 16) or 2 (from 17 on). Version 1 does not hold the
    /// system identifier.
    ///
    /// # Errors
    /// `Unsupported` for another version; otherwise what writing to `out` reports.
    pub fn new(out: W, version: u32, system_identifier: u64) -> Result<Self> {
        let mut writer = ManifestWriter { out, sum: Sha256::new(), line: String::new(), files: 0, ranges: 0 };
        let identity = match version {
            1 => String::new(),
            2 => format!("\"System-Identifier\": {system_identifier},\n"),
            other => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("there is no manifest version {other}"),
                ));
            }
        };
        writer.line =
            format!("{{ \"PostgreSQL-Backup-Manifest-Version\": {version},\n{identity}\"Files\": [");
        writer.flush_line()?;
        Ok(writer)
    }

    /// Adds a file: its path below the data directory, size in bytes, last change in seconds since 1970, and its
    /// checksum with the name of the algorithm (for CRC-32C see [`crc32c_bytes`](super::crc32c_bytes)).
    ///
    /// # Errors
    /// `InvalidArgument` if the path holds a zero byte, `Internal` after a WAL range; otherwise what writing reports.
    pub fn file(
        &mut self,
        path: &[u8],
        size: u64,
        mtime: i64,
        checksum: Option<(&str, &[u8])>,
    ) -> Result<()> {
        if self.ranges > 0 {
            return Err(Error::new(
                ErrorKind::Internal,
                "a file was added to the manifest after its WAL ranges",
            ));
        }
        if path.contains(&0) {
            return Err(Error::new(ErrorKind::InvalidArgument, "a path in the manifest holds a zero byte"));
        }
        self.line.push_str(if self.files == 0 { "\n" } else { ",\n" });
        match std::str::from_utf8(path) {
            Ok(text) => {
                self.line.push_str("{ \"Path\": ");
                push_json_string(&mut self.line, text);
            }
            Err(_) => {
                self.line.push_str("{ \"Encoded-Path\": \"");
                self.line.push_str(&hex(path));
                self.line.push('"');
            }
        }
        // A time that the calendar cannot hold is not a reason to fail: no reader uses it.
        let modified = DateTime::from_timestamp(mtime, 0).unwrap_or_default().format("%Y-%m-%d %H:%M:%S");
        self.line.push_str(&format!(", \"Size\": {size}, \"Last-Modified\": \"{modified} GMT\""));
        if let Some((algorithm, bytes)) = checksum {
            let sum = hex(bytes);
            self.line
                .push_str(&format!(", \"Checksum-Algorithm\": \"{algorithm}\", \"Checksum\": \"{sum}\""));
        }
        self.line.push_str(" }");
        self.files += 1;
        self.flush_line()
    }

    /// Adds WAL that the backup needs; newest timeline first, as [`TimelineHistory::wal_ranges`] gives them.
    ///
    /// [`TimelineHistory::wal_ranges`]: crate::postgres::timeline::TimelineHistory::wal_ranges
    ///
    /// # Errors
    /// What writing reports.
    pub fn wal_range(&mut self, timeline: Timeline, start: Lsn, end: Lsn) -> Result<()> {
        self.line.push_str(if self.ranges == 0 { "\n],\n\"WAL-Ranges\": [\n" } else { ",\n" });
        self.line.push_str(&format!(
            "{{ \"Timeline\": {timeline}, \"Start-LSN\": \"{start}\", \"End-LSN\": \"{end}\" }}"
        ));
        self.ranges += 1;
        self.flush_line()
    }

    /// Adds several ranges.
    ///
    /// # Errors
    /// What writing reports.
    pub fn wal_ranges(&mut self, ranges: &[WalRange]) -> Result<()> {
        ranges.iter().try_for_each(|range| self.wal_range(range.timeline, range.start, range.end))
    }

    /// Ends the manifest with the checksum of all that was written, flushes, and gives the output back.
    ///
    /// # Errors
    /// `Internal` if no WAL range was added; otherwise what writing reports.
    pub fn finish(mut self) -> Result<W> {
        if self.ranges == 0 {
            return Err(Error::new(ErrorKind::Internal, "the manifest has no WAL range"));
        }
        self.line.push_str("\n],\n");
        self.flush_line()?;
        let sum = hex(&self.sum.finalize_reset());
        self.line = format!("\"Manifest-Checksum\": \"{sum}\"}}\n");
        self.flush_line()?;
        self.out.flush().map_err(|e| Error::io("could not write the backup manifest", &e))?;
        Ok(self.out)
    }

    fn flush_line(&mut self) -> Result<()> {
        self.sum.update(self.line.as_bytes());
        let written = self.out.write_all(self.line.as_bytes());
        self.line.clear();
        written.map_err(|e| Error::io("could not write the backup manifest", &e))
    }
}

/// A JSON string as `escape_json` (utils/adt/json.c) writes it.
fn push_json_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
}
