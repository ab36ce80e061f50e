//! What came of a restore.

use pg_ark_contract::{Error, ErrorKind};
use serde::Serialize;
use std::path::PathBuf;

/// Something that could not be restored; the rest was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The database; none: the globals.
    pub database: Option<String>,
    /// What the program said.
    pub message: String,
}

/// What a restore made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LogicalRestored {
    /// The new data directory; none: it went into a running server.
    pub data_directory: Option<PathBuf>,
    /// Databases, by the names that they have now.
    pub databases: Vec<String>,
    /// Databases that were replaced by less than all of the backup and are kept, by the names that they have now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<String>,
    /// Tables and schemas, where not whole databases were asked for, by the names that they have now.
    pub objects: Vec<String>,
    /// What could not be restored.
    pub problems: Vec<Problem>,
}

impl LogicalRestored {
    /// The error of a restore that is not all that was asked for.
    pub fn short(&self) -> Option<Error> {
        let count = self.problems.len();
        let noun = if count == 1 { "error" } else { "errors" };
        (count > 0).then(|| {
            Error::new(ErrorKind::RestoreIncomplete, format!("the restore had {count} {noun}: not everything is there"))
                .hint("What was told above is missing or different; everything else was restored. Mend the cause, then restore again.")
        })
    }
}
