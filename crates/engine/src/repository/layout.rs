//! Names of everything in a repository. FORMAT.md, section "Layout".

use chrono::{DateTime, Utc};
use pg_ark_contract::conversation::BackupKind;
use pg_ark_contract::settings::is_name;
use pg_ark_contract::{Error, ErrorKind, Result};

/// The repository's own record.
pub const REPOSITORY: &str = "pgark.json";
/// The record of a backup, in its folder.
pub const RECORD: &str = "backup.json";
/// PostgreSQL's manifest, in a backup's folder.
pub const MANIFEST: &str = "backup_manifest";
/// What retention removed, in the folder of an archive.
pub const PRUNED: &str = "pruned.json";
/// What is kept, in a cluster's folder.
pub const RETENTION: &str = "retention.json";
/// Room for removing, a folder in a cluster's folder.
pub const RESERVE: &str = "reserve";

/// Largest JSON record that is read, in bytes.
pub const MAX_RECORD: u64 = 8 << 20;

/// `<cluster>/cluster.json`.
pub fn cluster_record(cluster: &str) -> String {
    format!("{cluster}/cluster.json")
}

/// `<cluster>/<system identifier>/backups`.
pub fn backups(cluster: &str, system_identifier: u64) -> String {
    format!("{cluster}/{system_identifier}/backups")
}

/// `<cluster>/<system identifier>/wal`.
pub fn wal(cluster: &str, system_identifier: u64) -> String {
    format!("{cluster}/{system_identifier}/wal")
}

/// `<cluster>/<system identifier>/wal/pruned.json`: what retention removed.
pub fn pruned(cluster: &str, system_identifier: u64) -> String {
    format!("{}/{PRUNED}", wal(cluster, system_identifier))
}

/// `<cluster>/<system identifier>/pins`.
pub fn pins(cluster: &str, system_identifier: u64) -> String {
    format!("{cluster}/{system_identifier}/pins")
}

/// `<cluster>/<system identifier>/pins/<backup>.json`.
pub fn pin(cluster: &str, system_identifier: u64, backup: &str) -> String {
    format!("{}/{backup}.json", pins(cluster, system_identifier))
}

/// `<cluster>/retention.json`: what is kept.
pub fn retention(cluster: &str) -> String {
    format!("{cluster}/{RETENTION}")
}

/// `<cluster>/reserve`.
pub fn reserves(cluster: &str) -> String {
    format!("{cluster}/{RESERVE}")
}

/// `<cluster>/reserve/<n>`: room for removing.
pub fn reserve(cluster: &str, number: u32) -> String {
    format!("{}/{number}", reserves(cluster))
}

/// `<cluster>/<system identifier>/jobs`.
pub fn jobs(cluster: &str, system_identifier: u64) -> String {
    format!("{cluster}/{system_identifier}/jobs")
}

/// `<cluster>/<system identifier>/lease.json`.
pub fn lease(cluster: &str, system_identifier: u64) -> String {
    format!("{cluster}/{system_identifier}/lease.json")
}

/// What the name of a database's dump ends with.
pub const DUMP: &str = ".dump";
/// Roles, memberships, tablespaces and settings of roles, before the ending of the codec.
pub const GLOBALS: &str = "globals.sql";

/// Name of a backup that starts at `time`: `20261122T020000Z-full`.
pub fn backup_name(time: DateTime<Utc>, kind: BackupKind) -> String {
    format!("{}-{}", time.format("%Y%m%dT%H%M%SZ"), kind.as_str())
}

/// Whether something of a repository may be called `name` in its folder `prefix`; generous where names are many.
pub fn may_hold(prefix: &str, name: &str) -> bool {
    let number = |name: &str| name.parse().is_ok_and(|id: u64| id.to_string() == name);
    let folders: Vec<&str> = prefix.split('/').filter(|folder| !folder.is_empty()).collect();
    match folders[..] {
        [] => name == REPOSITORY || check_cluster_name(name).is_ok(),
        [_] => matches!(name, "cluster.json" | RETENTION) || number(name),
        [_, _] => matches!(name, "backups" | "jobs" | "pins" | "wal") || name.starts_with("lease.json"),
        [_, _, "backups"] => is_backup_name(name),
        [_, _, "jobs"] => is_name(name),
        // One attempt that cannot be read stops nothing.
        [_, _, "jobs", ..] => false,
        [_, _, "wal"] => {
            matches!(name, "index.jsonl" | PRUNED) || name.bytes().take(8).all(|b| b.is_ascii_hexdigit())
        }
        _ => true,
    }
}

/// Whether `name` has the form of a backup's name; nothing else is ever joined to a path.
pub fn is_backup_name(name: &str) -> bool {
    let Some((stamp, kind)) = name.split_once('-') else { return false };
    let bytes = stamp.as_bytes();
    let digits = |range: std::ops::Range<usize>| bytes[range].iter().all(u8::is_ascii_digit);
    bytes.len() == 16
        && digits(0..8)
        && bytes[8] == b'T'
        && digits(9..15)
        && bytes[15] == b'Z'
        && matches!(kind, "full" | "incremental" | "logical")
}

/// Name of volume `number` of an archive: the archive's own name, then `.0001`, `.0002`, ...
pub fn volume(archive: &str, number: u32) -> String {
    if number == 0 { archive.to_string() } else { format!("{archive}.{number:04}") }
}

/// Name of the dump of a database: its own name and `.dump`, where every byte but ASCII letters, digits, `_`, `-` and `.` is
/// `%` and two hexadecimal digits, and so is a `.` at the beginning.
pub fn dump_name(database: &str) -> String {
    let plain = |place: usize, byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') || byte == b'.' && place > 0
    };
    let letters = database.bytes().enumerate().map(|(place, byte)| match plain(place, byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    letters.chain([DUMP.to_string()]).collect()
}

/// Whether `name` is that of a dump, or of the globals, its volumes included.
fn is_dump_object(name: &str) -> bool {
    let number = |text: &str| text.len() >= 4 && text.bytes().all(|b| b.is_ascii_digit());
    let whole = match name.rsplit_once('.') {
        Some((whole, last)) if number(last) => whole,
        _ => name,
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'%');
    let is_globals =
        whole.strip_prefix(GLOBALS).is_some_and(|codec| matches!(codec, "" | ".zst" | ".lz4" | ".gz"));
    is_globals
        || whole
            .strip_suffix(DUMP)
            .is_some_and(|stem| !stem.is_empty() && !stem.starts_with('.') && stem.bytes().all(plain))
}

/// Whether `name` has the form of an object of a backup, its record aside: the manifest, a volume or an index of an archive,
/// a dump.
pub fn is_backup_object(name: &str) -> bool {
    if is_dump_object(name) {
        return true;
    }
    let number = |text: &str| text.len() >= 4 && text.bytes().all(|b| b.is_ascii_digit());
    let archive = match name.rsplit_once('.') {
        Some((archive, last)) if last == "index" || number(last) => archive,
        _ => name,
    };
    let tar =
        [".zst", ".lz4", ".gz"].iter().find_map(|suffix| archive.strip_suffix(suffix)).unwrap_or(archive);
    let stem = tar.strip_suffix(".tar").unwrap_or_default();
    let is_oid = !stem.is_empty() && stem.bytes().all(|b| b.is_ascii_digit());
    name == MANIFEST || is_oid || matches!(stem, "base" | "pg_wal" | "config")
}

/// Checks a cluster's name, which becomes a folder.
///
/// # Errors
/// `InvalidArgument` for what [`is_name`] does not take.
pub fn check_cluster_name(name: &str) -> Result<()> {
    if is_name(name) {
        return Ok(());
    }
    let shown: String = name.chars().take(100).flat_map(char::escape_debug).collect();
    Err(Error::new(ErrorKind::InvalidArgument, format!("invalid cluster name \"{shown}\""))
        .hint("Use up to 63 bytes of letters, digits, spaces, \"-\", \"_\" and \".\"; set pg_ark.cluster or --cluster."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backup_names() {
        let time = DateTime::parse_from_rfc3339("2026-11-22T02:00:00Z").unwrap().to_utc();
        let name = backup_name(time, BackupKind::Full);
        assert_eq!(name, "20261122T020000Z-full");
        assert!(is_backup_name(&name));
        for bad in [
            "",
            "..",
            "20261122T020000Z-",
            "20261122T020000Z-x",
            "20261122T020000Z-full/..",
            "é0261122T02000Z-full",
        ] {
            assert!(!is_backup_name(bad), "{bad}");
        }
    }

    #[test]
    fn objects_of_backups() {
        for good in
            ["backup_manifest", "base.tar", "base.tar.zst.0001", "16400.tar.gz", "pg_wal.tar.lz4.index"]
        {
            assert!(is_backup_object(good), "{good}");
        }
        for bad in [
            "backup.json",
            "base",
            "base.tar.xz",
            "notes.tar",
            ".tar",
            "base.tar.zst.1",
            "base.tar/x",
            "16x.tar",
        ] {
            assert!(!is_backup_object(bad), "{bad}");
        }
    }

    #[test]
    fn cluster_names() {
        for good in ["main", "größe 2", "a.b-c_d"] {
            check_cluster_name(good).unwrap();
        }
        for bad in ["", ".", "..", "a/b", "a\0", "a\nb", " a", "a#1", &"x".repeat(64)] {
            assert!(check_cluster_name(bad).is_err(), "{bad:?}");
        }
    }
}
