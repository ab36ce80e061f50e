//! The version guard: library, engine and installed SQL of one version, or an error that says what to do.
//!
//! The engine says its version first ([`crate::engine`]). The SQL's is what `pg_extension` holds: files can be newer than
//! the SQL of a database (until ALTER EXTENSION UPDATE), and than the library of a process that loaded it before they came.

use crate::{settings, sql, translate};
use pg_ark_contract::{Error, ErrorKind, Result, VERSION};
use pgrx::prelude::*;

/// Version of the library that this session uses. Scripts of the extension ask it before anything else.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
pub fn library_version() -> String {
    VERSION.into()
}

/// Raises [`check`]'s error. Every SQL function begins with it, but for those that tell it in their answer.
pub fn require() {
    translate::or_raise(check());
}

/// Whether the SQL of this database is of the library's version.
///
/// # Errors
/// `VersionMismatch` with what to do; `Internal` when the server refuses the question.
pub fn check() -> Result<()> {
    match sql::text("SELECT extversion FROM pg_extension WHERE extname = 'pg_ark'", &[])? {
        Some(installed) if installed != VERSION => Err(mismatch(&installed, settings::is_preloaded())),
        _ => Ok(()),
    }
}

fn mismatch(installed: &str, is_preloaded: bool) -> Error {
    let shown = installed.escape_debug();
    let message = format!("the SQL of pg_ark has version {shown}, the library has {VERSION}");
    Error::new(ErrorKind::VersionMismatch, message).hint(match numbers(installed) > numbers(VERSION) {
        false => "Run ALTER EXTENSION pg_ark UPDATE in this database.",
        true if is_preloaded => {
            "Restart the server: shared_preload_libraries keeps the library that was installed when it started. If that \
             does not help, run scripts/install for this server."
        }
        true => {
            "Reconnect: this session has loaded an older library. If that does not help, run scripts/install for this \
             server."
        }
    })
}

/// What to compare versions by; what is no number counts as none.
fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mismatch_says_what_to_do() {
        for (installed, is_preloaded, expected) in [
            ("0.1.0", false, "ALTER EXTENSION pg_ark UPDATE"),
            ("0.1.0", true, "ALTER EXTENSION pg_ark UPDATE"),
            ("99.0.0", false, "Reconnect"),
            ("99.0.0", true, "Restart"),
            ("nonsense", true, "ALTER EXTENSION pg_ark UPDATE"),
        ] {
            let error = mismatch(installed, is_preloaded);
            assert_eq!(error.kind, ErrorKind::VersionMismatch);
            assert!(error.message.contains(installed) && error.message.contains(VERSION), "{error:?}");
            assert!(
                error.hint.as_ref().is_some_and(|hint| hint.starts_with(expected) || hint.contains(expected)),
                "{error:?}"
            );
        }
        assert!(numbers("0.10.0") > numbers("0.9.9") && numbers("1.0") > numbers("0.99.99"));
    }
}
