//! What a session hands to the worker it starts.
//!
//! The choices are the session's (a superuser may `SET pg_ark.compression` for one backup). Facts about the server are
//! collected by the worker, which may read what the caller may not; so are the settings that belong to the server
//! (repository, cluster, engine), so that no session can have a backup filed elsewhere.

use crate::settings;
use pg_ark_contract::conversation::{BackupKind, LogicalChoice};
use pg_ark_contract::settings::{Checksum, Compression};
use pg_ark_contract::{Error, ErrorKind, Result, VERSION};
use serde::{Deserialize, Serialize};

/// One backup, as it was asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// Version of the library that the session has loaded.
    pub version: String,
    /// Kind of backup.
    pub kind: BackupKind,
    /// The user's label.
    pub label: Option<String>,
    /// Checkpoint at once, not spread out.
    pub fast: bool,
    /// OID of the database that the worker connects to; 0 where it is connected already.
    pub database: u32,
    /// Codec and level.
    pub compression: Compression,
    /// Checksum of each file.
    pub checksum: Checksum,
    /// Threads, 0 for one per core.
    pub jobs: u32,
    /// Bytes per second, 0 for no limit.
    pub max_rate: u64,
    /// Largest object in bytes.
    pub volume_size: u64,
    /// Store the WAL in the backup itself; none: when nothing of ours archives it.
    pub include_wal: Option<bool>,
    /// Seconds without news from the archive after which a backup that leans on it fails.
    pub archive_wait: u32,
    /// What a logical backup dumps.
    pub logical: LogicalChoice,
}

/// The part that every version of the library can read.
#[derive(Deserialize)]
struct Envelope {
    version: String,
}

impl Request {
    /// A backup of everything, as the settings say that backups are taken; for a worker that is connected.
    ///
    /// # Errors
    /// `InvalidArgument` for settings that cannot be.
    pub fn from_settings(kind: BackupKind) -> Result<Request> {
        Ok(Request {
            version: VERSION.into(),
            kind,
            label: None,
            fast: true,
            database: 0,
            compression: settings::compression()?,
            checksum: settings::checksum()?,
            jobs: settings::jobs(),
            max_rate: settings::max_rate(),
            volume_size: settings::volume_size(),
            include_wal: None,
            archive_wait: settings::archive_wait(),
            logical: LogicalChoice::default(),
        })
    }

    /// Reads what a session wrote.
    ///
    /// # Errors
    /// `VersionMismatch` when the library was replaced since the session loaded it.
    pub fn parse(text: &[u8]) -> Result<Request> {
        let bad = |error| Error::new(ErrorKind::Internal, "the request is not understood").detail(error);
        let session = serde_json::from_slice::<Envelope>(text).map_err(bad)?.version;
        if session != VERSION {
            let message =
                format!("this session has loaded version {session} of pg_ark, the server now has {VERSION}");
            return Err(Error::new(ErrorKind::VersionMismatch, message).hint("Reconnect, then try again."));
        }
        serde_json::from_slice(text).map_err(bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_of_another_version_says_what_to_do() {
        let error = Request::parse(br#"{"version":"0.0.9","unknown":1}"#).expect_err("another version");
        assert_eq!(error.kind, ErrorKind::VersionMismatch);
        assert!(error.hint.is_some());
        assert_eq!(Request::parse(b"{}").expect_err("no version").kind, ErrorKind::Internal);
    }
}
