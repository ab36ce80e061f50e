//! Whether a folder is the cluster's own, so that `--replace` may remove what is in it.
//!
//! A control file tells whose a data directory is. Where none can be read, the place counts: it is where the backup's
//! server was, or a restore of this cluster did not finish there, or its pg_wal holds the cluster's segments. The looks of
//! a data directory prove nothing, and then a file that no server makes is a reason to stop.

use super::removal::LOST_AND_FOUND;
use crate::bounded;
use crate::postgres::control_file::{CONTROL_FILE, ControlFile};
use crate::repository::Record;
use crate::wal::archive::WalFile;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

/// What a server, or a restore, makes at the top of a data directory (`subdirs` in initdb.c, miscadmin.h,
/// access/xlog.h, access/xlog_internal.h, postmaster/syslogger.h; a log collector's usual folders).
const OWN: [&str; 40] = [
    "PG_VERSION",
    "base",
    "global",
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_logical",
    "pg_multixact",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_tblspc",
    "pg_twophase",
    "pg_wal",
    "pg_xact",
    "postgresql.conf",
    "postgresql.auto.conf",
    "postgresql.auto.conf.tmp",
    "pg_hba.conf",
    "pg_ident.conf",
    "postmaster.pid",
    "postmaster.opts",
    "backup_label",
    "backup_label.old",
    "tablespace_map",
    "tablespace_map.old",
    "backup_manifest",
    "current_logfiles",
    "current_logfiles.tmp",
    "recovery.signal",
    "standby.signal",
    "promote",
    "logrotate",
    "log",
    "pg_log",
    LOST_AND_FOUND,
    super::marker::MARKER,
];

/// Proves that a data directory is the cluster's; says what its server was doing. `marked`: a restore of this cluster did
/// not finish there; `own_place`: it is where the backup's server was.
///
/// # Errors
/// `ForeignCluster`; `TargetNotEmpty` when there is no proof; what the system said.
pub fn data(data: &Path, marked: bool, own_place: bool, record: &Record) -> Result<Option<String>> {
    let control = bounded::read(&data.join(CONTROL_FILE), bounded::MAX_CONTROL)
        .ok()
        .and_then(|bytes| ControlFile::parse(&bytes).ok());
    if let Some(control) = control {
        return match control.system_identifier.to_string() == record.system_identifier {
            true => Ok(Some(control.state.name().to_string())),
            false => Err(foreign(data, control.system_identifier, record)),
        };
    }
    let failed = |e: std::io::Error| Error::io(format!("could not look at \"{}\"", data.display()), &e);
    let mut names = Vec::new();
    for entry in fs::read_dir(data).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name());
    }
    if marked || names.iter().all(|name| name == LOST_AND_FOUND || is_new_marker(name)) {
        return Ok(None);
    }
    let major = (record.server_version_num / 10_000).to_string();
    let version = bounded::text(&data.join("PG_VERSION"), bounded::MAX_LINES).unwrap_or_default();
    let fits = matches!(version.trim(), "") || version.trim() == major;
    let proved = has_own_wal(&data.join("pg_wal"), record)? || own_place;
    let strange = names.iter().find(|name| !is_own_name(name));
    let why = match strange {
        None if proved && fits => return Ok(None),
        Some(name) => format!("It holds \"{}\", which no server makes.", name.to_string_lossy()),
        None if !fits => format!("Its PG_VERSION is {}.", version.trim().escape_debug()),
        None => {
            "It is not where the backup's server was, and its pg_wal holds no WAL of the cluster.".to_string()
        }
    };
    Err(Error::new(
        ErrorKind::TargetNotEmpty,
        format!("what is in \"{}\" is not known to be the backup's cluster", data.display()),
    )
    .detail(format!("It has no {CONTROL_FILE} that can be read. {why}"))
    .hint("Move it away or name another folder; --replace removes nothing but the cluster itself."))
}

/// Whether it is the marker of a restore that ended before the marker had its name, and so before anything else.
fn is_new_marker(name: &OsStr) -> bool {
    name.to_str().and_then(|name| name.strip_suffix(".pg_ark_new")) == Some(super::marker::MARKER)
}

/// Whether PostgreSQL or a restore makes this at the top of a data directory.
fn is_own_name(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let stem = name.strip_suffix(".pg_ark_new").or_else(|| name.strip_suffix(".unused")).unwrap_or(name);
    OWN.contains(&stem)
}

/// Whether a `pg_wal` holds segments of the cluster.
fn has_own_wal(wal: &Path, record: &Record) -> Result<bool> {
    let mut own = false;
    for entry in fs::read_dir(wal).into_iter().flatten().flatten() {
        if entry.file_name().to_str().and_then(WalFile::of) == Some(WalFile::Segment) {
            own |= belongs(&entry.path(), record)?;
        }
    }
    Ok(own)
}

fn foreign(path: &Path, found: u64, record: &Record) -> Error {
    Error::new(
        ErrorKind::ForeignCluster,
        format!(
            "\"{}\" holds the cluster with system identifier {found}, the backup is of {}",
            path.display(),
            record.system_identifier
        ),
    )
    .hint("Name the folder of the cluster that the backup is of, or an empty one.")
}

/// Proves that a folder holds the cluster's WAL and nothing else. `known`: a link or a marker leads to it.
///
/// # Errors
/// `ForeignCluster`; `TargetNotEmpty` when there is no proof, or something else is in it; what the system said.
pub fn wal(folder: &Path, known: bool, record: &Record) -> Result<()> {
    let failed = |e: std::io::Error| Error::io(format!("could not look at \"{}\"", folder.display()), &e);
    let mut own = 0;
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if !is_wal_name(&name) {
            return Err(not_ours("the WAL folder", folder, &name));
        }
        if name.to_str().and_then(WalFile::of) == Some(WalFile::Segment) {
            own += u64::from(belongs(&entry.path(), record)?);
        }
    }
    match known || own > 0 {
        true => Ok(()),
        false => Err(not_ours("the WAL folder", folder, OsStr::new("files that tell no system identifier"))),
    }
}

/// Whether a segment tells the cluster's identifier.
fn belongs(path: &Path, record: &Record) -> Result<bool> {
    let mut first = Vec::new();
    let read = bounded::open(path)
        .and_then(|file| std::io::Read::read_to_end(&mut std::io::Read::take(file, 64), &mut first));
    if read.is_err() {
        return Ok(false);
    }
    match crate::postgres::wal_segment::LongHeader::parse(&first) {
        Ok(header) if header.system_identifier.to_string() != record.system_identifier => {
            Err(foreign(path, header.system_identifier, record))
        }
        Ok(_) => Ok(true),
        Err(_) => Ok(false),
    }
}

fn not_ours(what: &str, folder: &Path, example: &OsStr) -> Error {
    Error::new(
        ErrorKind::TargetNotEmpty,
        format!("{what} \"{}\" is not known to be the backup's cluster's alone", folder.display()),
    )
    .detail(format!("It holds \"{}\".", example.to_string_lossy()))
    .hint("Move that away or name another folder; --replace removes nothing but the cluster itself.")
}

/// Names that a server has in `pg_wal`.
fn is_wal_name(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    WalFile::of(name).is_some()
        || [LOST_AND_FOUND, "archive_status", "summaries", "RECOVERYXLOG", "RECOVERYHISTORY"].contains(&name)
        || name.starts_with("xlogtemp.")
        || name.strip_suffix(".deleted").is_some_and(|stem| WalFile::of(stem).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_pg_wal() {
        for name in
            ["000000010000000000000004", "00000002.history", "archive_status", "xlogtemp.12", "RECOVERYXLOG"]
        {
            assert!(is_wal_name(OsStr::new(name)), "{name}");
        }
        for name in ["letter", "pg_wal", "000000010000000000000004.bak", "base"] {
            assert!(!is_wal_name(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn the_unnamed_marker_of_a_restore() {
        assert!(is_new_marker(OsStr::new("pg_ark_restore.unfinished.pg_ark_new")));
        for name in ["pg_ark_restore.unfinished", "postgresql.conf.pg_ark_new", ".pg_ark_new"] {
            assert!(!is_new_marker(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn names_at_the_top_of_a_data_directory() {
        for name in ["base", "postgresql.conf.unused", "pg_ark_restore.unfinished", "backup_label.old"] {
            assert!(is_own_name(OsStr::new(name)), "{name}");
        }
        for name in ["thesis.tex", "base.bak", "server.key", ".ssh", "old.unused"] {
            assert!(!is_own_name(OsStr::new(name)), "{name}");
        }
    }
}
