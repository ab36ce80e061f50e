//! What retention knows about a repository, and what it decides. Values alone, no I/O: [`plan`](super::plan) is a pure
//! function from one to the other.

use crate::postgres::timeline::TimelineHistory;
use crate::wal::survey::Run;
use chrono::{DateTime, Utc};
use pg_ark_contract::conversation::BackupKind;
use pg_ark_contract::retention::Verdict;
use pg_ark_contract::{Lsn, SegmentSize, Timeline};
use std::collections::BTreeMap;

/// A repository's cluster, as far as retention looks at it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stored {
    /// System identifiers, newest last.
    pub systems: Vec<u64>,
    /// Every backup of every system, in any order.
    pub backups: Vec<StoredBackup>,
    /// The WAL of each system that has an archive.
    pub wal: BTreeMap<u64, StoredWal>,
}

/// Whether a backup can be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupState {
    /// Complete, its objects are there, its WAL from start to stop is there.
    Good,
    /// Complete, but something that it needs is missing: what.
    Broken(String),
    /// Its writer is alive, or may be.
    Running,
    /// It failed, and holds no data.
    Failed,
    /// Retention has begun to remove it.
    Expiring,
    /// Its record cannot be read: nobody knows what it needs.
    Unreadable,
}

/// A backup.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredBackup {
    /// Name.
    pub backup: String,
    /// System identifier.
    pub system: u64,
    /// Kind.
    pub kind: BackupKind,
    /// Can it be restored?
    pub state: BackupState,
    /// Name of its parent, of the same system.
    pub parent: Option<String>,
    /// Why it is pinned; an empty text when nobody said why. None: it is not.
    pub pinned: Option<String>,
    /// When it began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it was finished: by this, never by name, backups are ordered.
    pub stopped_at: Option<DateTime<Utc>>,
    /// Where recovery starts.
    pub start_lsn: Option<Lsn>,
    /// Recovery must reach this.
    pub stop_lsn: Option<Lsn>,
    /// Timeline at the start.
    pub timeline: Option<Timeline>,
    /// It carries its WAL from start to stop itself.
    pub wal_included: bool,
    /// Pages whose checksum failed at the source.
    pub damaged_pages: u64,
    /// Stored bytes.
    pub bytes: u64,
    /// Databases that a logical backup holds.
    pub databases: Vec<String>,
    /// Databases of the server that a logical backup does not hold: they failed, or were not asked for.
    pub lacks: Vec<String>,
}

/// The archive of one system.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StoredWal {
    /// Bytes in a segment.
    pub segment_size: SegmentSize,
    /// Stored segments of each timeline, as ascending runs.
    pub segments: BTreeMap<Timeline, Vec<Run>>,
    /// Stored histories.
    pub histories: BTreeMap<Timeline, TimelineHistory>,
    /// By when the last stored segment of a timeline was written: when it was stored, for example. Nobody needs the way
    /// to a timeline that ended before the window, unless it is the newest. Where it is not known, the way is kept.
    pub written_by: BTreeMap<Timeline, DateTime<Utc>>,
    /// When segments were stored, at most a day apart where segments were, in any order; none later than what follows it on
    /// its timeline.
    pub written: Vec<DateTime<Utc>>,
}

impl StoredWal {
    /// The oldest timeline that has segments and, though it branched off from another, no history.
    pub fn lost_history(&self) -> Option<Timeline> {
        let with_wal =
            self.segments.iter().filter(|(_, runs)| !runs.is_empty()).map(|(timeline, _)| *timeline);
        with_wal.filter(|timeline| timeline.0 > 1).find(|timeline| !self.histories.contains_key(timeline))
    }
}

/// The verdict on everything.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// One for each backup, by stop time, oldest first.
    pub backups: Vec<BackupVerdict>,
    /// Runs that cover every stored segment: by system, timeline, number.
    pub wal: Vec<WalVerdict>,
    /// One for each history.
    pub histories: Vec<HistoryVerdict>,
}

/// The verdict on a backup.
#[derive(Debug, Clone, PartialEq)]
pub struct BackupVerdict {
    /// Its place in [`Stored::backups`].
    pub index: usize,
    /// Keep or drop.
    pub verdict: Verdict,
    /// Every rule that keeps it, joined by `; `, or why none does.
    pub rule: String,
}

/// The verdict on a run of segments, and on the `.backup` and `.partial` files among them.
#[derive(Debug, Clone, PartialEq)]
pub struct WalVerdict {
    /// System identifier.
    pub system: u64,
    /// Timeline.
    pub timeline: Timeline,
    /// The segments.
    pub run: Run,
    /// Keep or drop.
    pub verdict: Verdict,
    /// The rule.
    pub rule: String,
}

/// The verdict on a timeline history.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryVerdict {
    /// System identifier.
    pub system: u64,
    /// Timeline.
    pub timeline: Timeline,
    /// Keep or drop.
    pub verdict: Verdict,
    /// The rule.
    pub rule: String,
}
