//! `backup_manifest`: every file of a backup with size, time and checksum, and the WAL the backup needs.
//!
//! Sources: `backup/backup_manifest.c` writes it, `common/parse_manifest.c` and `pg_verifybackup` read it;
//! documented in "Backup Manifest Format" of PostgreSQL's manual. Version 1 belongs to PostgreSQL 13 to 16; version 2,
//! from 17 on, adds the system identifier.
//!
//! * [`ManifestWriter`] writes the same bytes as the server would, one file at a time.
//! * [`ManifestReader`] reads one file at a time. What it yields is proven only when [`ManifestReader::finish`] has
//!   compared the checksum at the manifest's end.
//!
//! Memory stays bounded: a token has at most 64 KiB, and eight bytes per file guard against a path that is there twice.

mod fields;
mod lexer;
mod reader;
mod writer;

pub use reader::{Manifest, ManifestFile, ManifestReader};
pub use writer::ManifestWriter;

use pg_ark_contract::errors::{Error, ErrorKind};
use pg_ark_contract::units::{Lsn, Timeline};

/// Name of the manifest beside a backup's files.
pub const BACKUP_MANIFEST: &str = "backup_manifest";

/// WAL of one timeline that a backup needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalRange {
    /// The timeline.
    pub timeline: Timeline,
    /// First byte needed.
    pub start: Lsn,
    /// First byte no longer needed.
    pub end: Lsn,
}

/// How a file's contents are summed up (`pg_checksum_type`, common/checksum_helper.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ChecksumAlgorithm {
    Crc32c,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl ChecksumAlgorithm {
    const ALL: [ChecksumAlgorithm; 5] = [
        ChecksumAlgorithm::Crc32c,
        ChecksumAlgorithm::Sha224,
        ChecksumAlgorithm::Sha256,
        ChecksumAlgorithm::Sha384,
        ChecksumAlgorithm::Sha512,
    ];

    /// The name in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            ChecksumAlgorithm::Crc32c => "CRC32C",
            ChecksumAlgorithm::Sha224 => "SHA224",
            ChecksumAlgorithm::Sha256 => "SHA256",
            ChecksumAlgorithm::Sha384 => "SHA384",
            ChecksumAlgorithm::Sha512 => "SHA512",
        }
    }

    /// Bytes in a checksum.
    pub fn length(self) -> usize {
        match self {
            ChecksumAlgorithm::Crc32c => 4,
            ChecksumAlgorithm::Sha224 => 28,
            ChecksumAlgorithm::Sha256 => 32,
            ChecksumAlgorithm::Sha384 => 48,
            ChecksumAlgorithm::Sha512 => 64,
        }
    }

    /// Reads a name; case does not matter, as in `pg_checksum_parse_type`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|own| own.name().eq_ignore_ascii_case(name))
    }
}

/// The bytes that stand for a CRC-32C in a manifest: the number as it lies in memory.
pub fn crc32c_bytes(crc: u32) -> [u8; 4] {
    crc.to_le_bytes()
}

fn corrupt(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the backup manifest is damaged: {what}"))
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|value| value as u8);
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
