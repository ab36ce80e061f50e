//! Judges the names in a tar before anything is created by them.

use super::tar_reader::{Kind, Member};
use crate::postgres::relation_file::is_version_directory;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Longest component of a path in bytes (NAME_MAX).
const LONGEST_COMPONENT: usize = 255;
/// Longest path in bytes (PATH_MAX with its zero).
const LONGEST_PATH: usize = 4095;

/// The path of a member: relative, of plain components only.
///
/// # Errors
/// `Corrupt` for a path that could lead anywhere but below the folder it is extracted to.
pub fn safe_path(path: &[u8]) -> Result<PathBuf> {
    let plain = |part: &[u8]| {
        !part.is_empty()
            && part != b"."
            && part != b".."
            && part.len() <= LONGEST_COMPONENT
            && !part.contains(&0)
    };
    if path.len() <= LONGEST_PATH && path.split(|b| *b == b'/').all(plain) {
        Ok(PathBuf::from(OsStr::from_bytes(path)))
    } else {
        Err(hostile(path, "its name is not a plain relative path"))
    }
}

/// The OID of the tablespace whose link this path is: `pg_tblspc/16400`.
pub fn tablespace_link(path: &Path) -> Option<u32> {
    let name = path.strip_prefix("pg_tblspc").ok()?.to_str()?;
    oid(name)
}

/// The OID of the tablespace that this path lies in or is: `pg_tblspc/16400/...`.
pub fn tablespace_of(path: &Path) -> Option<u32> {
    let below = path.strip_prefix("pg_tblspc").ok()?;
    oid(below.components().next()?.as_os_str().to_str()?)
}

/// Whether this path of a tablespace's archive is, or is in, the folder that a server makes there: `PG_15_202209061`.
pub fn in_version_folder(path: &Path) -> bool {
    let first = path.components().next().and_then(|first| first.as_os_str().to_str());
    first.is_some_and(is_version_directory)
}

fn oid(name: &str) -> Option<u32> {
    let plain = !name.starts_with('0') && name.bytes().all(|b| b.is_ascii_digit());
    if plain { name.parse().ok() } else { None }
}

/// Refuses a link that is not a tablespace's; returns its OID.
///
/// # Errors
/// `Corrupt`.
pub fn check_link(member: &Member, path: &Path) -> Result<Option<u32>> {
    match (&member.kind, tablespace_link(path)) {
        (Kind::Link(_), Some(oid)) => Ok(Some(oid)),
        (Kind::Link(_), None) => Err(hostile(&member.path, "it is a link where none belongs")),
        _ => Ok(None),
    }
}

/// A path for people, cut and escaped so that a hostile one can neither flood a message nor steer a terminal.
pub fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).chars().take(300).flat_map(char::escape_debug).collect()
}

/// An error about a member.
pub fn hostile(path: &[u8], why: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("an archive holds \"{}\": {why}", shown(path)))
        .hint("The archive is damaged or was made to do harm. Restore another backup.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_relative_paths_pass() {
        for good in ["PG_VERSION", "base/5/1259", "größe 1/a", "..a", "a.."] {
            safe_path(good.as_bytes()).unwrap();
        }
        let long = "x".repeat(256);
        let deep = "x/".repeat(2048) + "x";
        for bad in
            ["", "/", "/etc/passwd", "..", "../x", "a/../b", "a//b", "./a", "a/.", "a/", "a\0b", &long, &deep]
        {
            assert_eq!(safe_path(bad.as_bytes()).unwrap_err().kind, ErrorKind::Corrupt, "{bad:?}");
        }
    }

    #[test]
    fn tablespaces_are_told_by_their_oid() {
        assert_eq!(tablespace_link(Path::new("pg_tblspc/16400")), Some(16400));
        for other in
            ["pg_tblspc", "pg_tblspc/x", "pg_tblspc/016400", "pg_tblspc/16400/x", "16400", "a/pg_tblspc/1"]
        {
            assert_eq!(tablespace_link(Path::new(other)), None, "{other}");
        }
        assert_eq!(tablespace_of(Path::new("pg_tblspc/16400/PG_15_1/5/1")), Some(16400));
        assert_eq!(tablespace_of(Path::new("pg_tblspc")), None);
        for inside in ["PG_15_202209061", "PG_15_202209061/5/16401"] {
            assert!(in_version_folder(Path::new(inside)), "{inside}");
        }
        for beside in ["x.conf", "PG_15/5", "5/PG_15_202209061"] {
            assert!(!in_version_folder(Path::new(beside)), "{beside}");
        }
    }
}
