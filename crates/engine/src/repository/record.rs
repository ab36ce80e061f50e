//! `backup.json`: all that is known about one backup. FORMAT.md, section "Record".
//!
//! Fields that this version does not know are kept when a record is rewritten, and ignored otherwise. A record is sealed
//! ([`sealed`](super::sealed)); one without a seal is read, and known as such.

use super::layout;
use super::logical_record::LogicalRecord;
use super::sealed::{self, Seal};
use super::storage::{Storage, Stored};
use chrono::SecondsFormat;
use pg_ark_contract::conversation::BackupKind;
use pg_ark_contract::rows::{BackupRow, BackupStatus};
use pg_ark_contract::settings::{Checksum, Compression};
use pg_ark_contract::{Error, ErrorKind, Lsn, Result, SegmentSize, Timeline};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Major version of the format that this program writes, and the newest that it reads.
pub const FORMAT: u32 = 1;
/// A field of the record of a backup that retention removes.
pub const EXPIRING: &str = "expiring";

/// An object of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRecord {
    /// Name in the backup's folder.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// CRC-32C of the object's bytes, eight hexadecimal digits.
    pub crc32c: String,
}

impl ObjectRecord {
    /// Describes what was stored.
    pub fn new(stored: &Stored) -> Self {
        let name = stored.path.rsplit('/').next().unwrap_or_default().to_string();
        ObjectRecord { name, size: stored.size, crc32c: format!("{:08x}", stored.crc32c) }
    }
}

/// An archive: a tar, cut into frames, in one or more volumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveRecord {
    /// Name of the first volume: `base.tar.zst`.
    pub name: String,
    /// What it holds.
    pub content: ArchiveContent,
    /// Volumes in order, each at most `volume_size` bytes.
    pub volumes: Vec<ObjectRecord>,
    /// Number of frames.
    pub frames: u64,
    /// Size of the tar in bytes.
    pub tar_bytes: u64,
    /// The index: where frames and files begin. Losing it loses speed, not data.
    pub index: Option<ObjectRecord>,
}

/// What an archive holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArchiveContent {
    /// The main data directory.
    Base,
    /// The tablespace with this OID.
    Tablespace(u32),
    /// Content of `pg_wal`.
    Wal,
    /// Configuration files outside the data directory, by absolute path without the leading slash.
    Config,
}

impl ArchiveContent {
    /// What the name of such an archive begins with, up to `.tar`.
    pub fn stem(self) -> String {
        match self {
            ArchiveContent::Base => "base".to_string(),
            ArchiveContent::Tablespace(oid) => oid.to_string(),
            ArchiveContent::Wal => "pg_wal".to_string(),
            ArchiveContent::Config => "config".to_string(),
        }
    }
}

impl ArchiveRecord {
    /// Whether volumes and index have the names that follow from the archive's.
    pub fn names_fit(&self) -> bool {
        let index = self.index.as_ref().is_none_or(|index| index.name == format!("{}.index", self.name));
        let mut volumes = (0u32..).zip(&self.volumes);
        index && volumes.all(|(number, object)| object.name == layout::volume(&self.name, number))
    }
}

/// A tablespace outside the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablespaceRecord {
    /// OID.
    pub oid: u32,
    /// Where it was.
    pub path: String,
    /// Bytes of its files.
    pub data_bytes: u64,
}

/// The data directory as it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataDirectoryRecord {
    /// Absolute path.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Target of `pg_wal` when it was a link.
    pub wal_link: Option<String>,
}

/// Pages of one file whose checksum failed at the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageRecord {
    /// Path below the data directory.
    pub path: String,
    /// Schema and name of the relation, where they could be known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relation: Option<String>,
    /// Name of its database, where it could be known; none for shared relations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Block numbers in the relation's fork, at most the first 100.
    pub blocks: Vec<u32>,
    /// How many there are in all.
    pub damaged_pages: u64,
}

/// The record of one backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Major version of the format.
    pub format: u32,
    /// Name.
    pub backup: String,
    /// Kind.
    pub kind: BackupKind,
    /// `running` until every byte is durable.
    pub status: BackupStatus,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<String>,
    /// The parent of an incremental backup.
    #[serde(default)]
    pub parent: Option<String>,
    /// The user's label.
    #[serde(default)]
    pub label: Option<String>,
    /// Never pruned. As a reader sees it: a pin is an object of its own.
    #[serde(default)]
    pub pinned: bool,
    /// Why it is pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin_reason: Option<String>,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// RFC 3339, UTC.
    #[serde(default)]
    pub finished_at: Option<String>,
    /// Version of the program that wrote it.
    pub written_by: String,
    /// Host it was written on.
    #[serde(default)]
    pub host: String,
    /// Name of the cluster.
    pub cluster: String,
    /// System identifier, a decimal string since JSON readers round large numbers.
    pub system_identifier: String,
    /// `server_version_num`.
    pub server_version_num: u32,
    /// `server_version`.
    pub server_version: String,
    /// Taken from a standby.
    #[serde(default)]
    pub from_standby: bool,
    /// Where recovery starts.
    #[serde(default)]
    pub start_lsn: Option<Lsn>,
    /// Recovery must reach this.
    #[serde(default)]
    pub stop_lsn: Option<Lsn>,
    /// Timeline at the start.
    #[serde(default)]
    pub timeline: Option<Timeline>,
    /// Bytes in a WAL segment.
    pub wal_segment_size: SegmentSize,
    /// Bytes in a page.
    pub block_size: u32,
    /// The cluster has data checksums.
    pub data_checksums: bool,
    /// Codec and level.
    pub compression: Compression,
    /// Checksum of files in the manifest.
    pub checksum: Checksum,
    /// WAL from start to stop is in `pg_wal.tar`.
    #[serde(default)]
    pub wal_included: bool,
    /// Bytes of source data.
    #[serde(default)]
    pub data_bytes: u64,
    /// Bytes of all objects but this record.
    #[serde(default)]
    pub stored_bytes: u64,
    /// Files in the manifest.
    #[serde(default)]
    pub files: u64,
    /// Archives, in the order in which they were written.
    #[serde(default)]
    pub archives: Vec<ArchiveRecord>,
    /// The manifest.
    #[serde(default)]
    pub manifest: Option<ObjectRecord>,
    /// Tablespaces outside the data directory.
    #[serde(default)]
    pub tablespaces: Vec<TablespaceRecord>,
    /// Places of tablespaces that were created while it was taken: recovery creates them there again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub new_tablespaces: Vec<String>,
    /// The data directory.
    pub data_directory: DataDirectoryRecord,
    /// Absolute paths of the files in `config.tar`.
    #[serde(default)]
    pub config_files: Vec<String>,
    /// Settings that a restore wants to know.
    #[serde(default)]
    pub server_settings: BTreeMap<String, String>,
    /// Pages whose checksum failed at the source, in all.
    #[serde(default)]
    pub damaged_pages: u64,
    /// Damaged files, at most the first 1000.
    #[serde(default)]
    pub damage: Vec<DamageRecord>,
    /// Remarks made while it was taken.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The record itself cannot be read, and why; everything else is made up.
    #[serde(skip)]
    pub unreadable: Option<Error>,
    /// It was read without a seal: nothing but its content speaks for it.
    #[serde(skip)]
    pub unsealed: bool,
    /// What a logical backup holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logical: Option<LogicalRecord>,
    /// Fields of a later minor version.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

impl Record {
    /// Reads the record of the backup in `folder`; `None` when there is none.
    ///
    /// # Errors
    /// `FormatTooNew` for a later major format, `Corrupt` for what is no record, has a broken seal, or is the record of
    /// another backup: whoever acts on it must act where it is stored.
    pub fn load(storage: &Storage, folder: &str) -> Result<Option<Record>> {
        let path = format!("{folder}/{}", layout::RECORD);
        let Some(bytes) = storage.get(&path, layout::MAX_RECORD)? else { return Ok(None) };
        let shown = storage.display(&path);
        let (record, seal): (Record, Seal) = sealed::read(&bytes, &shown)?;
        let mut names = folder.rsplit('/');
        let (name, system) = (names.next().unwrap_or_default(), names.nth(1));
        let other = if record.backup != name {
            format!("backup \"{}\"", record.backup.escape_debug())
        } else if system.is_some_and(|system| system != record.system_identifier) {
            format!("a backup of system identifier \"{}\"", record.system_identifier.escape_debug())
        } else {
            return Ok(Some(Record { unsealed: seal == Seal::Unsealed, ..record }));
        };
        Err(Error::new(ErrorKind::Corrupt, format!("\"{shown}\" is the record of {other}"))
            .hint("Look who put it there. Get the right one back from a copy."))
    }

    /// Writes the record durably into `folder`, sealed.
    ///
    /// # Errors
    /// What the store said.
    pub fn save(&self, storage: &Storage, folder: &str) -> Result<()> {
        storage.put(&format!("{folder}/{}", layout::RECORD), sealed::to_json(self)?)
    }

    /// Stands for a backup whose record cannot be read.
    pub fn unreadable(backup: &str, cluster: &str, system_identifier: u64, why: Error) -> Self {
        let (stamp, kind) = backup.split_once('-').unwrap_or_default();
        let started = chrono::NaiveDateTime::parse_from_str(stamp, "%Y%m%dT%H%M%SZ").ok();
        Record {
            kind: match kind {
                "incremental" => BackupKind::Incremental,
                "logical" => BackupKind::Logical,
                _ => BackupKind::Full,
            },
            status: BackupStatus::Failed,
            error: Some(format!("its record cannot be read: {why}")),
            started_at: started
                .map_or(String::new(), |t| t.and_utc().to_rfc3339_opts(SecondsFormat::Secs, true)),
            unreadable: Some(why),
            ..Record::begun(backup.to_string(), cluster, system_identifier)
        }
    }

    /// A record that knows nothing yet but whose it is.
    pub fn begun(backup: String, cluster: &str, system_identifier: u64) -> Self {
        Record {
            format: FORMAT,
            backup,
            kind: BackupKind::Full,
            status: BackupStatus::Running,
            error: None,
            parent: None,
            label: None,
            pinned: false,
            pin_reason: None,
            started_at: String::new(),
            finished_at: None,
            written_by: String::new(),
            host: String::new(),
            cluster: cluster.to_string(),
            system_identifier: system_identifier.to_string(),
            server_version_num: 0,
            server_version: String::new(),
            from_standby: false,
            start_lsn: None,
            stop_lsn: None,
            timeline: None,
            wal_segment_size: SegmentSize::default(),
            block_size: 0,
            data_checksums: false,
            compression: Compression::default(),
            checksum: Checksum::default(),
            wal_included: false,
            data_bytes: 0,
            stored_bytes: 0,
            files: 0,
            archives: Vec::new(),
            manifest: None,
            tablespaces: Vec::new(),
            new_tablespaces: Vec::new(),
            data_directory: DataDirectoryRecord::default(),
            config_files: Vec::new(),
            server_settings: BTreeMap::new(),
            damaged_pages: 0,
            damage: Vec::new(),
            warnings: Vec::new(),
            unreadable: None,
            unsealed: false,
            logical: None,
            other: BTreeMap::new(),
        }
    }

    /// Whether retention has begun to remove it: it says `failed`, and still lists its objects, so that it can be made
    /// complete again as long as they are there.
    pub fn is_expiring(&self) -> bool {
        self.status == BackupStatus::Failed && self.other.get(EXPIRING).is_some_and(|value| value == true)
    }

    /// The row that `list_backups` shows.
    pub fn row(&self) -> BackupRow {
        let done = self.status == BackupStatus::Complete;
        BackupRow {
            backup: self.backup.clone(),
            kind: self.kind,
            status: self.status,
            parent: self.parent.clone(),
            label: self.label.clone(),
            pinned: self.pinned,
            pin_reason: self.pin_reason.clone(),
            started_at: self.started_at.clone(),
            finished_at: self.finished_at.clone(),
            start_lsn: self.start_lsn,
            stop_lsn: self.stop_lsn,
            timeline: self.timeline,
            server_version: self.server_version_num,
            data_bytes: done.then_some(self.data_bytes),
            stored_bytes: done.then_some(self.stored_bytes),
            wal_included: self.wal_included,
            damaged_pages: self.damaged_pages,
            error: self.error.clone(),
            contents: self.logical.as_ref().map(LogicalRecord::contents),
        }
    }

    /// The archive with this content.
    pub fn archive(&self, content: ArchiveContent) -> Option<&ArchiveRecord> {
        self.archives.iter().find(|a| a.content == content)
    }
}

/// Parses JSON from the repository.
///
/// # Errors
/// `Corrupt`, naming `path`.
pub fn parse_json<T: serde::de::DeserializeOwned>(bytes: &[u8], path: &str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| not_json(path, &e))
}

/// Refuses a format that is newer than this program.
///
/// # Errors
/// `FormatTooNew`, or `Corrupt` when there is no format number.
pub fn check_format(bytes: &[u8], path: &str) -> Result<()> {
    #[derive(Deserialize)]
    struct Head {
        format: Option<u64>,
    }
    match parse_json::<Head>(bytes, path)?.format {
        Some(format) if format == u64::from(FORMAT) => Ok(()),
        Some(format) if format > u64::from(FORMAT) => Err(Error::new(
            ErrorKind::FormatTooNew,
            format!("\"{path}\" has format {format}; this program reads up to {FORMAT}"),
        )
        .hint("Use a newer pg_ark with this repository.")),
        _ => Err(Error::new(ErrorKind::Corrupt, format!("\"{path}\" has no valid format number"))
            .hint(DAMAGED_HINT)),
    }
}

const DAMAGED_HINT: &str = "Look at the storage below the repository. What is whole can be read with tar and a decompressor, or pg_restore for dumps (FORMAT.md).";

/// A character for people: one that could steer a terminal or begin a line is escaped.
fn plain(character: char) -> impl Iterator<Item = char> {
    let escaped = character.is_control().then(|| character.escape_default());
    escaped.into_iter().flatten().chain((!character.is_control()).then_some(character))
}

/// The error for a file that holds something else.
fn not_json(path: &str, e: &serde_json::Error) -> Error {
    // It may quote the file.
    let why: String = e.to_string().chars().take(500).flat_map(plain).collect();
    Error::new(ErrorKind::Corrupt, format!("\"{path}\" is not what it should be"))
        .detail(why)
        .hint(DAMAGED_HINT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const FOLDER: &str = "main/7/backups/20261122T020000Z-full";

    #[test]
    fn what_a_message_quotes_steers_no_terminal() {
        let (_dir, storage) = storage();
        for field in ["status", "kind", "start_lsn", "checksum"] {
            let mut record = json!(Record {
                started_at: "x".into(),
                ..Record::begun("20261122T020000Z-full".into(), "main", 7)
            });
            record[field] = json!("\u{1b}]0;x\u{7}\nerror: 0/0");
            storage.put(&format!("{FOLDER}/backup.json"), record.to_string().into_bytes()).unwrap();
            let error = Record::load(&storage, FOLDER).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Corrupt);
            assert!(!error.to_string().contains(char::is_control), "{error:?}");
        }
    }

    fn storage() -> (tempfile::TempDir, Storage) {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(&format!("file://{}", dir.path().display())).unwrap();
        (dir, storage)
    }

    fn begun() -> Record {
        Record::begun("20261122T020000Z-full".into(), "main", 7)
    }

    #[test]
    fn unknown_fields_are_kept_and_sealed_anew() {
        let (_dir, storage) = storage();
        let path = format!("{FOLDER}/{}", layout::RECORD);
        let mut plain = serde_json::to_value(begun()).unwrap();
        plain["later"] = json!({"a": [1]});
        storage.put(&path, serde_json::to_vec(&plain).unwrap()).unwrap();
        let mut record = Record::load(&storage, FOLDER).unwrap().unwrap();
        assert!(record.unsealed);
        record.label = Some("a".into());
        record.save(&storage, FOLDER).unwrap();
        for _ in 0..2 {
            let again = Record::load(&storage, FOLDER).unwrap().unwrap();
            assert!(!again.unsealed && again.label.as_deref() == Some("a"));
            assert_eq!(again.other, BTreeMap::from([("later".to_string(), json!({"a": [1]}))]));
            again.save(&storage, FOLDER).unwrap();
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_in_a_record_is_found() {
        let (_dir, storage) = storage();
        begun().save(&storage, FOLDER).unwrap();
        let path = format!("{FOLDER}/{}", layout::RECORD);
        let bytes = storage.get(&path, layout::MAX_RECORD).unwrap().unwrap();
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1 << (at % 8);
            let error = sealed::read::<Record>(&other, &path).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Corrupt, "byte {at}");
            assert!(error.message.contains(layout::RECORD), "byte {at}: {error}");
        }
        storage.put(&path, bytes[..bytes.len() / 2].to_vec()).unwrap();
        assert_eq!(Record::load(&storage, FOLDER).unwrap_err().kind, ErrorKind::Corrupt);
    }
}
