//! The `pgark` program.

use crate::os::{command, server_user};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program, to be run as the server's OS user.
///
/// # Panics
/// See [`pgark_path`].
#[track_caller]
pub fn pgark() -> Command {
    command(pgark_path())
}

/// Where the program is: `$PGARK`, else the newest of `target/debug/pgark` and `target/release/pgark`.
///
/// # Panics
/// When it was not built, or the server's OS user cannot reach it.
#[track_caller]
pub fn pgark_path() -> PathBuf {
    let path = match std::env::var_os("PGARK") {
        Some(named) => PathBuf::from(named),
        None => newest_build(),
    };
    assert!(path.is_file(), "there is no {path:?}: build it (cargo build -p pgark) or set PGARK");
    let path = path.canonicalize().expect("path of an existing file");
    if server_user().is_some() {
        let closed = path.ancestors().find(|part| !others_may_pass(part));
        assert!(closed.is_none(), "user postgres may not pass {closed:?}: set PGARK to a copy it can run");
    }
    path
}

fn newest_build() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"));
    let built = |path: &PathBuf| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let mut builds = [target.join("debug/pgark"), target.join("release/pgark")];
    builds.sort_by_key(built);
    let [_, newest] = builds;
    newest
}

fn others_may_pass(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0)
}
