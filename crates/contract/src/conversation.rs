//! The conversation between the server and the engine.
//!
//! The engine is started as `pgark engine` with nothing else on its command line. It reads one [`Job`] as a line of
//! JSON from stdin and answers with [`Event`]s, one line of JSON each, on stdout; the first is always
//! [`Event::Hello`], the last is [`Event::Done`] or [`Event::Failed`]. While it works the server may send
//! [`Reply`] lines. End of file on stdin means "stop now". The engine's stderr goes to the server log.
//!
//! A backup runs like this:
//!
//! ```text
//! server                                   engine
//! Job { task: Backup } ------------------> checks the repository, takes the lease, writes a record `running`
//!                          <-------------- Hello, Started { backup }
//!                          <-------------- Need { BackupStart }
//! slot, pg_backup_start
//! Reply::BackupStarted   ----------------> copies tablespaces and data directory, WAL as it finishes
//! Reply::WalFlushed (every second) ------>
//!                          <-------------- Progress, FileDamaged, Warning, WalStored
//!                          <-------------- Need { BackupStop }
//! pg_backup_stop
//! Reply::BackupStopped   ----------------> backup_label, tablespace_map, pg_control, rest of WAL, manifest, record
//!                          <-------------- Done { answer: Answer::Backup }
//! ```
//!
//! The archiver's engine stays for as long as the archiver:
//!
//! ```text
//! server                                   engine
//! Job { task: Archive } -----------------> opens the repository
//!                          <-------------- Hello, Ready
//! Reply::Archive { file } ---------------> stores it, and those after it that are ready, several at once
//!                          <-------------- Archived { file } or ArchiveFailed { file, error }
//! end of file on stdin ------------------> ends
//! ```

use crate::bytes::Bytes;
use crate::errors::Error;
use crate::retention::{Policy, PruneRow};
use crate::rows::{ArchiveRow, BackupRow, CheckRow, FindingRow, StatusRow, WindowRow};
use crate::schedule::{JobSpec, JobState, MissedRuns, RunId, RunOutcome, RunRow};
use crate::settings::{Checksum, Compression};
use crate::units::{Lsn, Timeline};
use serde::{Deserialize, Serialize};

/// The first line on the engine's stdin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Version of the side that asks ([`crate::VERSION`]); an engine of another version refuses.
    pub version: String,
    /// Process that started the engine; the engine ends when it is no longer its parent.
    pub parent_pid: u32,
    /// URL of the repository: `file:///backups`.
    pub repository: String,
    /// Name of the cluster in the repository.
    pub cluster: String,
    /// The server used this repository before: where there is none it is away.
    #[serde(default)]
    pub known: bool,
    /// What to do.
    pub task: Task,
}

/// What the engine is asked to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Create the repository where there is none yet, or open it, and prove that it can be written.
    Open {
        /// The server's data directory: a repository inside it is refused.
        data_directory: String,
        /// The server's system identifier: it is told when the cluster is another's.
        #[serde(default)]
        system_identifier: Option<u64>,
    },
    /// Answer with [`Answer::Backups`], oldest first.
    List,
    /// Answer with [`Answer::Record`].
    Show {
        /// Name of the backup.
        backup: String,
    },
    /// Answer with [`Answer::Checks`]: what the engine can tell about the repository.
    Check {
        /// The server's data directory.
        data_directory: String,
        /// The server's system identifier.
        #[serde(default)]
        system_identifier: Option<u64>,
    },
    /// Answer with [`Answer::Checks`]: whether logical backups can be taken. Looks at no repository.
    CheckLogical {
        /// How the server is reached; its choice does not count.
        logical: LogicalTask,
        /// `server_version_num`.
        server_version_num: u32,
        /// The jobs that take logical backups.
        jobs: Vec<JobSpec>,
    },
    /// Take a backup.
    Backup(Box<BackupTask>),
    /// Store WAL files as they are asked for, until stdin ends. The only task that has no [`Answer`].
    Archive(ArchiveTask),
    /// Answer with [`Answer::Archive`]: what the archive holds, what it lacks, what in it is damaged.
    VerifyArchive {
        /// The system identifier to look at; none: the cluster's newest.
        system_identifier: Option<u64>,
        /// Read every segment and follow its records.
        deep: bool,
    },
    /// Answer with [`Answer::Findings`]: what of the stored backups is not as it should be.
    Validate {
        /// Name of the backup; none: every complete backup, the archive and the repository's own records.
        backup: Option<String>,
        /// How much is read.
        level: Level,
        /// The system identifier to look at; none: every one that the cluster has had.
        system_identifier: Option<u64>,
        /// Threads; 0 means one per core.
        jobs: u32,
        /// What the server knows to be stored: then its loss is found though nothing in the repository tells of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        archived: Option<Archived>,
    },
    /// Answer with [`Answer::Windows`].
    Windows {
        /// The system identifier to look at; none: the cluster's newest.
        system_identifier: Option<u64>,
    },
    /// Answer with [`Answer::Status`], also when the repository gives no answer.
    Status {
        /// The system identifier to look at; none: the cluster's newest.
        system_identifier: Option<u64>,
        /// The server's jobs, whose state is told as [`Task::Agenda`] does.
        #[serde(default)]
        jobs: Vec<JobSpec>,
        /// As in [`Task::Agenda`].
        #[serde(default)]
        missed_runs: MissedRuns,
    },
    /// The engine that wrote a backup is dead: mark the record as failed, remove what it left, release its lease.
    Abandon {
        /// Name of the backup; none when the engine died before it told one: then whatever a dead writer left.
        backup: Option<String>,
        /// Why it failed, as `list_backups` shows it.
        reason: String,
    },
    /// Answer with [`Answer::Agenda`]: what is due, and when the next thing is.
    Agenda {
        /// The server's system identifier.
        system_identifier: u64,
        /// The server's jobs.
        jobs: Vec<JobSpec>,
        /// What becomes of instants that passed.
        missed_runs: MissedRuns,
    },
    /// Answer with [`Answer::Instants`]: checks a cron text and a time zone. Looks at no repository.
    Cron {
        /// As in [`JobSpec`].
        cron: String,
        /// As in [`JobSpec`].
        timezone: String,
    },
    /// Answer with [`Answer::RunBegun`]: makes the attempt's object, in the name of the process that asks
    /// ([`Job::parent_pid`]).
    RunBegin {
        /// The server's system identifier.
        system_identifier: u64,
        /// The job.
        job: Box<JobSpec>,
        /// The attempt.
        run: RunId,
    },
    /// Answer with [`Answer::RunEnded`]: writes down how an attempt ended, and removes what is too old to be shown.
    RunEnd {
        /// The server's system identifier.
        system_identifier: u64,
        /// The attempt.
        run: RunId,
        /// How it ended.
        outcome: RunOutcome,
    },
    /// Answer with [`Answer::Runs`], newest first.
    Runs {
        /// The server's system identifier; none: every one of the cluster.
        system_identifier: Option<u64>,
        /// Of this job alone.
        job: Option<String>,
        /// At most so many of each job.
        limit: u32,
    },
    /// Answer with [`Answer::Pruned`]: the verdict on everything that is stored; with `apply`, what was dropped is gone.
    Prune {
        /// What is kept.
        policy: Policy,
        /// Do it. Needs the lease.
        apply: bool,
        /// That of the server that asks: one that is not the cluster's newest is refused to apply it.
        #[serde(default)]
        system_identifier: Option<u64>,
    },
    /// Answer with [`Answer::Pinned`]: keeps a backup until it is unpinned.
    Pin {
        /// Name of the backup.
        backup: String,
        /// Why, as `list_backups` shows it.
        reason: Option<String>,
    },
    /// Answer with [`Answer::Pinned`].
    Unpin {
        /// Name of the backup.
        backup: String,
    },
}

impl Task {
    /// Whether it reads or writes much and nobody waits for it as for a query: then it gets what processor and disks
    /// have left.
    pub fn is_background(&self) -> bool {
        match self {
            Task::Backup(_) | Task::VerifyArchive { deep: true, .. } | Task::Prune { .. } => true,
            Task::Validate { level, .. } => *level > Level::Record,
            _ => false,
        }
    }

    /// Whether it connects to the server as a client.
    pub fn is_logical(&self) -> bool {
        match self {
            Task::Backup(task) => task.logical.is_some(),
            Task::CheckLogical { .. } => true,
            _ => false,
        }
    }
}

/// The last file that a server counts as archived by pg_ark (`pg_stat_archiver`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archived {
    /// The server's system identifier.
    pub system_identifier: u64,
    /// Name of the file.
    pub file: String,
}

/// Kind of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupKind {
    /// Everything.
    Full,
    /// What changed since a parent backup.
    Incremental,
    /// A dump of databases.
    Logical,
}

impl BackupKind {
    /// The word used in names, records and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            BackupKind::Full => "full",
            BackupKind::Incremental => "incremental",
            BackupKind::Logical => "logical",
        }
    }

    /// Whether it holds the cluster's files, so that WAL brings it to any moment after it. A dump shows its databases at
    /// the moments when they were dumped, and no other.
    pub fn is_physical(self) -> bool {
        self != BackupKind::Logical
    }
}

/// How much `ark.validate` and `pgark verify` read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Records, and whether the objects are there with their sizes.
    Record,
    /// Every object, every checksum, and every record of the WAL that the backup needs.
    Data,
    /// And every page of every relation.
    Pages,
}

impl Level {
    /// Every level, from the quickest to the most thorough.
    pub const ALL: &'static [Level] = &[Level::Record, Level::Data, Level::Pages];

    /// The word used in SQL and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Record => "record",
            Level::Data => "data",
            Level::Pages => "pages",
        }
    }
}

/// Facts and choices for one backup, collected by the server before it begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackupTask {
    /// Kind of backup.
    pub kind: BackupKind,
    /// The user's label; at most 1024 bytes, one line.
    pub label: Option<String>,
    /// The server's data directory, absolute.
    pub data_directory: String,
    /// `server_version_num`, for instance 150018.
    pub server_version_num: u32,
    /// `server_version`, for instance `15.18 (Debian 15.18-0+deb12u1)`.
    pub server_version: String,
    /// From `pg_control_system()`; the engine refuses a data directory whose pg_control says otherwise.
    pub system_identifier: u64,
    /// True on a standby.
    pub in_recovery: bool,
    /// Absolute paths of `config_file`, `hba_file`, `ident_file` and every file they include.
    /// The engine leaves those below the data directory out of a physical backup, which has them anyway; a logical one stores all.
    pub config_files: Vec<String>,
    /// Settings that a restore wants to know (`shared_preload_libraries`, `data_checksums`, ...), name and value.
    pub server_settings: Vec<(String, String)>,
    /// Codec and level.
    pub compression: Compression,
    /// Checksum of each file in the manifest.
    pub checksum: Checksum,
    /// Worker threads; 0 means one per core.
    pub jobs: u32,
    /// Bytes read per second at the most; 0 means no limit.
    pub max_rate: u64,
    /// Largest object in bytes.
    pub volume_size: u64,
    /// Store the WAL that the backup needs in `pg_wal.tar`. Otherwise the backup is complete only when the archive
    /// holds it.
    pub include_wal: bool,
    /// Seconds without any news from the archive after which a backup that waits for its WAL fails.
    pub archive_wait: u32,
    /// For [`BackupKind::Logical`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logical: Option<LogicalTask>,
}

/// What a logical backup dumps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogicalChoice {
    /// Databases by name; none: every one but `template0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub databases: Option<Vec<String>>,
    /// Databases that are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_databases: Vec<String>,
    /// The backup becomes complete without databases that could not be dumped, and names them.
    #[serde(default)]
    pub skip_failed: bool,
}

/// Facts and choices for a logical backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogicalTask {
    /// What is dumped.
    pub choice: LogicalChoice,
    /// The first of `unix_socket_directories`; empty when the server has none.
    pub socket_directory: String,
    /// `port`.
    pub port: u16,
    /// Name of the bootstrap superuser, the role that the dump is taken as.
    pub user: String,
    /// Folder of the server's own programs, where its `pg_dump` is.
    pub bindir: String,
}

/// Facts and choices for the archiver's engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArchiveTask {
    /// The server's data directory, absolute.
    pub data_directory: String,
    /// `server_version_num`.
    pub server_version_num: u32,
    /// Codec and level.
    pub compression: Compression,
    /// Segments stored at the same time at the most; 0 means one per core.
    pub jobs: u32,
}

/// What the server tells a running backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// pg_backup_start returned.
    BackupStarted {
        /// Where the backup starts.
        start_lsn: Lsn,
        /// The server's timeline.
        timeline: Timeline,
    },
    /// WAL is durable up to here (on a standby: received and replayed), so that segments before it are finished.
    WalFlushed {
        /// Durable up to this LSN.
        lsn: Lsn,
        /// The server's timeline now.
        timeline: Timeline,
    },
    /// pg_backup_stop returned.
    BackupStopped {
        /// WAL up to here makes the backup consistent.
        stop_lsn: Lsn,
        /// The server's timeline now.
        timeline: Timeline,
        /// Content of `backup_label`, byte by byte: paths and labels are in no particular encoding.
        backup_label: Bytes,
        /// Content of `tablespace_map`; empty when there are no tablespaces.
        tablespace_map: Bytes,
    },
    /// Store this file of `pg_wal`; answered with [`Event::Archived`] or [`Event::ArchiveFailed`].
    Archive {
        /// Name: a segment, `.partial`, `.history` or `.backup` file.
        file: String,
    },
    /// From now on read at most so many bytes per second; 0: no limit.
    MaxRate {
        /// Bytes per second.
        bytes: u64,
    },
    /// Stop, and record this reason.
    Stop {
        /// Why, as `list_backups` shows it.
        reason: String,
    },
}

/// What the engine asks the server for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// Call pg_backup_start and answer with [`Reply::BackupStarted`].
    BackupStart,
    /// Call pg_backup_stop and answer with [`Reply::BackupStopped`].
    BackupStop,
}

/// Part of a backup, in the order in which they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Sizes are added up.
    Estimate,
    /// Files are copied.
    Copy,
    /// Waiting for, or copying, the last WAL.
    Wal,
    /// Manifest and record are written.
    Finish,
}

/// One line from the engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Always first.
    Hello {
        /// The engine's [`crate::VERSION`].
        version: String,
    },
    /// The lease is taken and the record says `running`.
    Started {
        /// Name of the backup.
        backup: String,
    },
    /// The engine waits for the server.
    Need(Need),
    /// How far it is; at most a few per second.
    Progress {
        /// Part of the backup.
        phase: Phase,
        /// Bytes of source data done.
        done_bytes: u64,
        /// Bytes of source data in all, as planned.
        total_bytes: u64,
        /// Tablespaces done.
        done_tablespaces: u32,
        /// Tablespaces in all, the main data directory included.
        total_tablespaces: u32,
    },
    /// A file has pages whose checksum fails.
    FileDamaged {
        /// Path below the data directory.
        path: String,
        /// Schema and name of the relation, where they could be known: `public.orders`.
        relation: Option<String>,
        /// Name of its database, where it could be known; none for shared relations.
        database: Option<String>,
        /// Block numbers in the relation's fork, at most the first 100.
        blocks: Vec<u32>,
        /// How many blocks there are in all.
        damaged_pages: u64,
    },
    /// Something that the user should know; the work goes on.
    Warning {
        /// What.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// How much of what [`Task::Validate`] or a deep [`Task::VerifyArchive`] reads is done; at most a few per second.
    Verified {
        /// Stored bytes read.
        done_bytes: u64,
        /// Stored bytes to read in all.
        total_bytes: u64,
    },
    /// Segments before this LSN are stored in the backup: the slot may advance.
    WalStored {
        /// Stored up to here.
        lsn: Lsn,
    },
    /// The archiver's engine has opened the repository and takes files.
    Ready,
    /// The file is stored and durable.
    Archived {
        /// Its name.
        file: String,
    },
    /// The file is not stored; it can be asked for again.
    ArchiveFailed {
        /// Its name.
        file: String,
        /// Why.
        error: Error,
    },
    /// The work is done.
    Done {
        /// The result.
        answer: Answer,
    },
    /// The work failed; nothing complete was left behind.
    Failed {
        /// Why.
        error: Error,
    },
}

/// Result of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// For [`Task::Open`].
    Opened {
        /// True when it was created now.
        created: bool,
        /// The repository's UUID.
        id: String,
        /// Why the cluster is not the server's: it is another's, or was taken over.
        #[serde(default)]
        foreign: Option<Error>,
    },
    /// For [`Task::List`].
    Backups(Vec<BackupRow>),
    /// For [`Task::Show`]: `backup.json` as it stands in the repository, with `status` as it is now.
    Record {
        /// JSON text.
        json: String,
    },
    /// For [`Task::Check`] and [`Task::CheckLogical`].
    Checks(Vec<CheckRow>),
    /// For [`Task::Backup`]: the backup is complete.
    Backup(Box<BackupRow>),
    /// For [`Task::Abandon`].
    Abandoned,
    /// For [`Task::VerifyArchive`].
    Archive(Vec<ArchiveRow>),
    /// For [`Task::Validate`], sorted by backup and object.
    Findings(Vec<FindingRow>),
    /// For [`Task::Windows`].
    Windows(Vec<WindowRow>),
    /// For [`Task::Status`].
    Status(Box<StatusRow>),
    /// For [`Task::Agenda`], in the order of the jobs.
    Agenda {
        /// Each job's state.
        jobs: Vec<JobState>,
        /// When to ask again at the latest, because something becomes due: RFC 3339, UTC.
        wake_at: Option<String>,
        /// Why the repository could not be asked: then nothing is due, and only [`JobState::next_run`] is known.
        error: Option<Error>,
    },
    /// For [`Task::Cron`].
    Instants {
        /// The next few: RFC 3339, UTC.
        next: Vec<String>,
        /// The time zone's name as its database spells it.
        timezone: String,
    },
    /// For [`Task::RunBegin`].
    RunBegun {
        /// False: somebody else made the attempt, or the job is already running. Nothing is to be done.
        begun: bool,
        /// Why not.
        why: Option<String>,
    },
    /// For [`Task::RunEnd`].
    RunEnded,
    /// For [`Task::Runs`].
    Runs(Vec<RunRow>),
    /// For [`Task::Prune`]: backups by stop time, then WAL and histories.
    Pruned(Vec<PruneRow>),
    /// For [`Task::Pin`] and [`Task::Unpin`].
    Pinned {
        /// False: it was so already.
        changed: bool,
    },
}
