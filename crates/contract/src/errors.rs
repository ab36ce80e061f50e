//! The one error type of pg_ark.
//!
//! Rules: the message says what happened and to which path, LSN or setting; the hint says what to do next;
//! the detail holds the cause as the system told it. An error is logged where it is handled, not where it passes.
//! [`ErrorKind`] is closed: each kind has one SQLSTATE and one exit code, and this file is the only table of them.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Linux's number for "Input/output error" (`asm-generic/errno-base.h`); std has no name for it.
const EIO: i32 = 5;
const DEVICE_FAILED: &str =
    "The disk or the connection to it failed. Look into the system's log (dmesg), then try again.";

/// Result with pg_ark's error.
pub type Result<T> = std::result::Result<T, Error>;

macro_rules! kinds {
    ($($kind:ident $state:literal $code:literal $meaning:literal;)*) => {
        /// What kind of thing went wrong. Decides SQLSTATE and exit code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum ErrorKind { $(#[doc = $meaning] $kind,)* }

        impl ErrorKind {
            /// Every kind, in the order of the table.
            pub const ALL: &'static [ErrorKind] = &[$(ErrorKind::$kind,)*];

            /// SQLSTATE (PostgreSQL's errcodes.txt).
            pub fn sqlstate(self) -> &'static str { match self { $(ErrorKind::$kind => $state,)* } }

            /// Exit code of `pgark`.
            pub fn exit_code(self) -> u8 { match self { $(ErrorKind::$kind => $code,)* } }

            /// Exit code of `pgark wal-get`: above 125, which PostgreSQL takes for a fault and never for "not there"
            /// (`RestoreArchivedFile` in access/transam/xlogarchive.c).
            pub fn wal_get_exit_code(self) -> u8 { 200 + self.exit_code() }

            /// One line for `--help` and the README.
            pub fn meaning(self) -> &'static str { match self { $(ErrorKind::$kind => $meaning,)* } }
        }
    };
}

kinds! {
    Internal "XX000" 1 "unexpected condition inside pg_ark: please report it";
    InvalidArgument "22023" 2 "a parameter or option is not valid";
    RepositoryUnset "55000" 3 "no repository is configured";
    RepositoryUnusable "58030" 4 "the repository cannot be used: not a directory, not writable, or in the wrong place";
    RepositoryNotFound "58P01" 5 "there is no repository, or no such cluster in it";
    FormatTooNew "0A000" 6 "the repository has a newer format than this program reads";
    BackupNotFound "42704" 7 "there is no such backup";
    BackupNotUsable "55000" 8 "the backup is running or failed and cannot be used";
    Busy "55006" 9 "another writer is at work there";
    DiskFull "53100" 10 "no space left";
    PermissionDenied "42501" 11 "permission denied";
    Io "58030" 12 "reading or writing failed";
    Corrupt "XX001" 13 "stored data is damaged";
    TargetNotEmpty "58P02" 14 "the restore target exists and is not empty";
    ServerRunning "55006" 15 "a server is running in the data directory";
    NotEnoughSpace "53100" 16 "the target has less free space than needed";
    Cancelled "57014" 17 "cancelled";
    ParentGone "57P01" 18 "the server that asked for the work went away";
    WalMissing "58P01" 19 "WAL that is needed is not there";
    EngineMissing "58P01" 20 "the pgark program was not found or cannot be run";
    VersionMismatch "55000" 21 "library, engine and SQL have different versions";
    ServerNotReady "55000" 22 "the server's settings or state do not allow the operation";
    EngineDied "58000" 23 "the engine ended without an answer";
    RecoveryFailed "58000" 24 "the restored server did not start";
    ForeignCluster "55000" 25 "the data belongs to another cluster (system identifier differs)";
    Unsupported "0A000" 26 "not supported for this server or backup";
    WalConflict "55000" 27 "the archive holds other WAL under the same name";
    TargetUnreachable "22023" 28 "the recovery target cannot be reached with what is stored";
    RecoveryShort "58000" 29 "recovery ended before the known end of the WAL";
    DumpFailed "58000" 30 "a database could not be dumped";
    RestoreIncomplete "58000" 31 "parts of a logical backup could not be restored";
}

/// An error with fixed fields, the same in SQL, on the terminal and on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// Decides SQLSTATE and exit code.
    pub kind: ErrorKind,
    /// What happened, to what.
    pub message: String,
    /// The cause as the system told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Error {
    /// An error with neither detail nor hint.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), detail: None, hint: None }
    }

    /// Adds what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    pub fn detail(mut self, detail: impl fmt::Display) -> Self {
        self.detail = Some(detail.to_string());
        self
    }

    /// Translates an I/O error on `what` (for instance `could not read "/x"`), keeping the system's words as detail.
    pub fn io(what: impl Into<String>, source: &std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        // An error of ours that passed through a std::io interface comes out as it went in.
        if let Some(ours) = source.get_ref().and_then(|e| e.downcast_ref::<Error>()) {
            return ours.clone();
        }
        let (kind, hint) = match source.kind() {
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => {
                (ErrorKind::DiskFull, Some("Free some space there, then try again."))
            }
            Io::PermissionDenied | Io::ReadOnlyFilesystem => (
                ErrorKind::PermissionDenied,
                Some("Check the owner and the permissions of the path and of every folder above it."),
            ),
            _ if os_error(source) == Some(EIO) => (ErrorKind::Io, Some(DEVICE_FAILED)),
            _ => (ErrorKind::Io, None),
        };
        Error { kind, message: what.into(), detail: Some(source.to_string()), hint: hint.map(Into::into) }
    }
}

/// The system's number for an error, also where a library wrapped it.
fn os_error(error: &std::io::Error) -> Option<i32> {
    let mut number = error.raw_os_error();
    let mut inside = error.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static));
    while let (None, Some(inner)) = (number, inside) {
        number = inner.downcast_ref::<std::io::Error>().and_then(os_error);
        inside = inner.source();
    }
    number
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_distinct_and_below_the_shells_own() {
        let mut seen = std::collections::BTreeSet::new();
        for kind in ErrorKind::ALL {
            assert!(seen.insert(kind.exit_code()), "{kind:?} shares its exit code");
            assert!((1..126).contains(&kind.exit_code()));
            assert_eq!(kind.sqlstate().len(), 5);
        }
    }

    #[test]
    fn a_full_disk_is_told_from_other_io_errors() {
        let full = std::io::Error::from_raw_os_error(28);
        assert_eq!(Error::io("could not write \"/x\"", &full).kind, ErrorKind::DiskFull);
        let failed = Error::io("could not write \"/x\"", &std::io::Error::from_raw_os_error(5));
        assert!(failed.kind == ErrorKind::Io && failed.hint.is_some());
        let wrapped = std::io::Error::other(std::io::Error::from_raw_os_error(5));
        assert!(Error::io("could not list \"/x\"", &wrapped).hint.is_some());
        let denied = std::io::Error::from_raw_os_error(13);
        assert_eq!(Error::io("could not write \"/x\"", &denied).kind, ErrorKind::PermissionDenied);
    }
}
