//! What can be wrong with what is stored, in words that restore and verify share.

use pg_ark_contract::{Error, ErrorKind};

const OBJECT: &str =
    "The repository is damaged there. Restore another backup, or get the object back from a copy.";
const FILE: &str = "The backup is damaged there. Restore another backup.";

/// A fault of one object, or of one file in a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong, behind the name of the object: "is missing".
    pub what: String,
    /// How that shows.
    pub detail: Option<String>,
    /// What to do.
    pub hint: &'static str,
}

impl Fault {
    fn of(hint: &'static str, what: impl Into<String>) -> Self {
        Fault { what: what.into(), detail: None, hint }
    }

    /// An object is not there.
    pub fn missing() -> Self {
        Fault::of(OBJECT, "is missing")
    }

    /// An object, or a file, is shorter or longer than it was.
    pub fn size(found: u64, stated: u64) -> Self {
        Fault::of(OBJECT, format!("has {found} bytes instead of {stated}"))
    }

    /// The checksum of a whole object differs.
    pub fn changed() -> Self {
        Fault::of(OBJECT, "is not what was stored: its checksum differs")
    }

    /// Frames between two bytes of a volume are damaged.
    pub fn frames(from: u64, to: u64, why: &str) -> Self {
        let what = format!("is damaged between bytes {from} and {to}");
        Fault { detail: Some(why.to_string()), ..Fault::of(OBJECT, what) }
    }

    /// An object is damaged as `error` says.
    pub fn other(error: &Error) -> Self {
        Fault { detail: error.detail.clone(), ..Fault::of(OBJECT, error.message.clone()) }
    }

    /// A file of the manifest is in no archive.
    pub fn file_missing() -> Self {
        Fault::of(FILE, "is missing: the backup manifest lists it, and no archive holds it")
    }

    /// A file in an archive is not in the manifest.
    pub fn file_extra() -> Self {
        Fault::of(FILE, "is not listed in the backup manifest")
    }

    /// A file is in the archives more than once.
    pub fn file_twice() -> Self {
        Fault::of(FILE, "is there twice")
    }

    /// A file has another size than the manifest says.
    pub fn file_size(found: u64, stated: u64) -> Self {
        Fault::of(FILE, format!("has {found} bytes, and {stated} in the backup manifest"))
    }

    /// The checksum of a file differs.
    pub fn file_changed() -> Self {
        Fault::of(FILE, "is not what the backup manifest says: its checksum differs")
    }

    /// The fault in one sentence, without the name of the object.
    pub fn sentence(&self) -> String {
        match &self.detail {
            Some(detail) => format!("{}: {detail}", self.what),
            None => self.what.clone(),
        }
    }

    /// The error that ends a restore: the same words behind the name of the object.
    pub fn error(&self, object: &str) -> Error {
        let error = Error::new(ErrorKind::Corrupt, format!("\"{object}\" {}", self.what)).hint(self.hint);
        match &self.detail {
            Some(detail) => error.detail(detail),
            None => error,
        }
    }
}

/// Why a frame that reads is no frame.
pub const FRAME_CHECKSUM: &str = "the checksum of a frame does not match";
