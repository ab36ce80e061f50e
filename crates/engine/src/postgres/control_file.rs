//! `global/pg_control`: who the cluster is, where its WAL begins, how its files are laid out.
//!
//! Source: `ControlFileData` and `CheckPoint` in PostgreSQL's `catalog/pg_control.h`. The field offsets were taken
//! from the headers of PostgreSQL 15, 17 and 18 with `offsetof`. Format 1300 belongs to PostgreSQL 13 to 16, 1700
//! to 17 and 1800 to 18. The three agree up to `data_checksum_version`; 1800 adds `default_char_signedness` behind
//! it, which moves the CRC, and puts the checkpoint's `wal_level` where there was padding.

use super::bytes::{array_at, u32_at, u64_at};
use pg_ark_contract::errors::{Error, ErrorKind, Result};
use pg_ark_contract::units::{Lsn, SegmentSize, Timeline};
use std::fmt;

/// Path of the control file below the data directory (`XLOG_CONTROL_FILE`, access/xlog_internal.h).
pub const CONTROL_FILE: &str = "global/pg_control";

/// What the server was doing when it last wrote the control file (`DBState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum DbState {
    StartingUp,
    ShutDown,
    ShutDownInRecovery,
    ShuttingDown,
    InCrashRecovery,
    InArchiveRecovery,
    InProduction,
}

impl DbState {
    const ALL: [DbState; 7] = [
        DbState::StartingUp,
        DbState::ShutDown,
        DbState::ShutDownInRecovery,
        DbState::ShuttingDown,
        DbState::InCrashRecovery,
        DbState::InArchiveRecovery,
        DbState::InProduction,
    ];

    /// The state in the words of `pg_controldata`.
    pub fn name(self) -> &'static str {
        match self {
            DbState::StartingUp => "starting up",
            DbState::ShutDown => "shut down",
            DbState::ShutDownInRecovery => "shut down in recovery",
            DbState::ShuttingDown => "shutting down",
            DbState::InCrashRecovery => "in crash recovery",
            DbState::InArchiveRecovery => "in archive recovery",
            DbState::InProduction => "in production",
        }
    }
}

impl fmt::Display for DbState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The contents of `pg_control` that backup, restore and verification need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlFile {
    /// `PG_CONTROL_VERSION`: 1300, 1700 or 1800.
    pub control_version: u32,
    /// `CATALOG_VERSION_NO`, part of the name of a tablespace's version directory.
    pub catalog_version: u32,
    /// Identity of the cluster, made by initdb.
    pub system_identifier: u64,
    /// What the server was doing.
    pub state: DbState,
    /// Last write of the control file, in seconds since 1970.
    pub time: i64,
    /// Where the latest checkpoint's record begins.
    pub checkpoint: Lsn,
    /// Where replay from that checkpoint begins.
    pub redo: Lsn,
    /// Timeline of the latest checkpoint.
    pub checkpoint_timeline: Timeline,
    /// Timeline before it; differs only if the checkpoint begins a timeline.
    pub checkpoint_previous_timeline: u32,
    /// Time of the latest checkpoint, in seconds since 1970.
    pub checkpoint_time: i64,
    /// `full_page_writes` at the latest checkpoint.
    pub full_page_writes: bool,
    /// Next transaction identifier with its epoch in the high half.
    pub next_xid: u64,
    /// Next object identifier.
    pub next_oid: u32,
    /// Recovery must reach this position before the cluster is consistent; 0/0 outside archive recovery.
    pub min_recovery_point: Lsn,
    /// Timeline of `min_recovery_point`, 0 outside archive recovery.
    pub min_recovery_timeline: u32,
    /// Redo position of the backup being recovered from; 0/0 otherwise.
    pub backup_start_point: Lsn,
    /// Where that backup ended, if it was taken from a standby; 0/0 otherwise.
    pub backup_end_point: Lsn,
    /// Whether recovery must see the backup's end record.
    pub backup_end_required: bool,
    /// 0 minimal, 1 replica, 2 logical (`WalLevel`, access/xlog.h).
    pub wal_level: i32,
    /// `wal_log_hints`.
    pub wal_log_hints: bool,
    /// `max_connections`; a hot standby needs at least this value, as with the next four.
    pub max_connections: i32,
    /// `max_worker_processes`.
    pub max_worker_processes: i32,
    /// `max_wal_senders`.
    pub max_wal_senders: i32,
    /// `max_prepared_transactions`.
    pub max_prepared_transactions: i32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_transaction: i32,
    /// `track_commit_timestamp`.
    pub track_commit_timestamp: bool,
    /// Bytes in a data page.
    pub block_size: u32,
    /// Pages in a segment file of a relation.
    pub relation_segment_blocks: u32,
    /// Bytes in a WAL page.
    pub wal_block_size: u32,
    /// Bytes in a WAL segment.
    pub wal_segment_size: SegmentSize,
    /// 0: data pages have no checksums.
    pub data_checksum_version: u32,
    /// Whether `char` is signed where the cluster was made; recorded from PostgreSQL 18 on.
    pub default_char_signedness: Option<bool>,
}

impl ControlFile {
    /// Reads the file's bytes; what follows the structure is padding and is ignored.
    ///
    /// # Errors
    /// `Unsupported` for a format or machine that pg_ark does not know; `Corrupt` if the file is short, its CRC-32C
    /// does not match, or a value is impossible.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let control_version = u32_at(bytes, 8).ok_or_else(|| short(bytes))?;
        let crc_at = crc_offset(control_version)?;
        let stored = u32_at(bytes, crc_at).ok_or_else(|| short(bytes))?;
        let computed = crc32c::crc32c(&bytes[..crc_at]);
        if stored != computed {
            return Err(corrupt(format!("its checksum is {computed:08X}, not {stored:08X}"))
                .hint("A copy made while the server wrote the file can be torn: read it again."));
        }
        let file = Self::fields(bytes, control_version).ok_or_else(|| short(bytes))??;
        file.check(bytes)?;
        Ok(file)
    }

    /// `None` when the bytes are too short.
    fn fields(bytes: &[u8], control_version: u32) -> Option<Result<Self>> {
        let lsn = |at| u64_at(bytes, at).map(Lsn);
        let int = |at| array_at(bytes, at).map(i32::from_le_bytes);
        let time = |at| array_at(bytes, at).map(i64::from_le_bytes);
        let flag = |at| bytes.get(at).map(|b: &u8| *b != 0);
        let state = u32_at(bytes, 16)?;
        let Some(state) = DbState::ALL.get(state as usize).copied() else {
            return Some(Err(corrupt(format!("{state} is not a cluster state"))));
        };
        let wal_segment_size = match SegmentSize::new(u32_at(bytes, 228)?) {
            Ok(size) => size,
            Err(error) => return Some(Err(corrupt(error))),
        };
        Some(Ok(ControlFile {
            control_version,
            catalog_version: u32_at(bytes, 12)?,
            system_identifier: u64_at(bytes, 0)?,
            state,
            time: time(24)?,
            checkpoint: lsn(32)?,
            redo: lsn(40)?,
            checkpoint_timeline: Timeline(u32_at(bytes, 48)?),
            checkpoint_previous_timeline: u32_at(bytes, 52)?,
            full_page_writes: flag(56)?,
            next_xid: u64_at(bytes, 64)?,
            next_oid: u32_at(bytes, 72)?,
            checkpoint_time: time(104)?,
            min_recovery_point: lsn(136)?,
            min_recovery_timeline: u32_at(bytes, 144)?,
            backup_start_point: lsn(152)?,
            backup_end_point: lsn(160)?,
            backup_end_required: flag(168)?,
            wal_level: int(172)?,
            wal_log_hints: flag(176)?,
            max_connections: int(180)?,
            max_worker_processes: int(184)?,
            max_wal_senders: int(188)?,
            max_prepared_transactions: int(192)?,
            max_locks_per_transaction: int(196)?,
            track_commit_timestamp: flag(200)?,
            block_size: u32_at(bytes, 216)?,
            relation_segment_blocks: u32_at(bytes, 220)?,
            wal_block_size: u32_at(bytes, 224)?,
            wal_segment_size,
            data_checksum_version: u32_at(bytes, 252)?,
            default_char_signedness: if control_version >= 1800 { Some(flag(256)?) } else { None },
        }))
    }

    /// Refuses values that no server writes, so that the rest of the engine may divide by them.
    fn check(&self, bytes: &[u8]) -> Result<()> {
        let float = array_at(bytes, 208).map(f64::from_le_bytes);
        if u32_at(bytes, 204) != Some(8) || float != Some(1_234_567.0) {
            return Err(unsupported("it was written by a machine with another alignment or float format"));
        }
        if self.checkpoint_timeline.0 == 0 {
            return Err(corrupt("the checkpoint's timeline is 0"));
        }
        let pages = [("page", self.block_size, 32 << 10), ("WAL page", self.wal_block_size, 64 << 10)];
        for (what, size, most) in pages {
            if !size.is_power_of_two() || !(1 << 10..=most).contains(&size) {
                return Err(corrupt(format!("{size} is not a valid {what} size")));
            }
        }
        if self.relation_segment_blocks == 0 {
            return Err(corrupt("a relation's segment has 0 pages"));
        }
        Ok(())
    }

    /// Major version of the server that wrote the file: `None` if the catalog version is not a released one.
    pub fn server_major(&self) -> Option<u32> {
        // CATALOG_VERSION_NO (catalog/catversion.h) does not change within a major version once that is released.
        match (self.control_version, self.catalog_version) {
            (1300, 202_209_061) => Some(15),
            (1300, 202_307_071) => Some(16),
            (1700, _) => Some(17),
            (1800, _) => Some(18),
            _ => None,
        }
    }

    /// Whether data pages carry checksums.
    pub fn has_page_checksums(&self) -> bool {
        self.data_checksum_version != 0
    }
}

/// Where the CRC-32C of everything before it lies.
fn crc_offset(control_version: u32) -> Result<usize> {
    match control_version {
        1300 | 1700 => Ok(288),
        1800 => Ok(292),
        0 => Err(corrupt("its format version is 0")),
        swapped if swapped % 0x1_0000 == 0 => {
            Err(unsupported("it was written by a machine with another byte order"))
        }
        other => Err(unsupported(format!("its format version is {other}"))),
    }
}

fn short(bytes: &[u8]) -> Error {
    corrupt(format!("it has only {} bytes", bytes.len()))
}

fn corrupt(what: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the control file ({CONTROL_FILE}) is damaged: {what}"))
}

fn unsupported(what: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Unsupported, format!("the control file ({CONTROL_FILE}) is not supported: {what}"))
        .hint("pg_ark reads clusters of PostgreSQL 15, 16, 17 and 18 on little-endian 64-bit machines.")
}

#[cfg(test)]
#[path = "control_file_tests.rs"]
mod tests;
