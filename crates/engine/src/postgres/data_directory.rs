//! What of a data directory belongs in a base backup.
//!
//! Source: `sendDir` in PostgreSQL's `backup/basebackup.c` with its lists `excludeDirContents` and `excludeFiles`
//! (the lists are the same in PostgreSQL 15 to 18; `.DS_Store` was added in a minor release). Where the rules look at a
//! name only, they hold in every directory, as they do there. Two names are ours: `backup_label.old` and
//! `tablespace_map.old`, leftovers that a restored server writes and never reads.
//!
//! Not decided here, because it needs more than a path:
//! * `global/pg_control` is kept, but must be the last file that a backup reads.
//! * A symbolic link is followed only as `pg_tblspc/<oid>`, `pg_wal` or an emptied directory; elsewhere PostgreSQL
//!   skips it with a warning, as it does with sockets and devices. Of what [`is_needed`] that would be a backup from
//!   which no server starts.
//! * In a tablespace only the server's own version directory counts: [`version_directory`].
//! * Log files stay, as with `pg_basebackup`.

use super::relation_file::{self, Fork};

/// What a backup does with an entry of the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Leaves it out, with all that is below it.
    Skip,
    /// Stores the directory, or the symbolic link to one, as an empty directory.
    EmptyDirectory,
    /// Stores it.
    Keep,
}

/// Directories whose contents the server removes or rebuilds when it starts (`excludeDirContents`): temporary statistics
/// (also of extensions), replication slots, dynamic shared memory, notifications, serializable transactions, exported
/// snapshots, subtransactions. The directories themselves must exist.
const EMPTIED: [&str; 7] =
    ["pg_stat_tmp", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_subtrans"];

/// Files left out wherever they are (`excludeFiles`): half-written configuration, the state of the running server,
/// and what belongs to a backup this server was made from.
const LEFT_OUT: [&str; 8] = [
    "postgresql.auto.conf.tmp",
    "current_logfiles.tmp",
    "backup_label",
    "tablespace_map",
    "backup_manifest",
    "postmaster.pid",
    "postmaster.opts",
    ".DS_Store",
];

/// Beginnings of names left out wherever they are: sort and hash files (`PG_TEMP_FILE_PREFIX`, storage/fd.h), and the
/// relation cache with its own temporary files (`RELCACHE_INIT_FILENAME`, utils/relcache.h).
const LEFT_OUT_PREFIXES: [&str; 2] = ["pgsql_tmp", "pg_internal.init"];

/// What the server leaves of a backup's own files once it has read them (`BACKUP_LABEL_OLD`, `TABLESPACE_MAP_OLD`,
/// access/xlog.h). PostgreSQL's own backups carry them on.
const LEFTOVERS: [&str; 2] = ["backup_label.old", "tablespace_map.old"];

/// Without these a server does not start, or lacks data: `subdirs` in initdb.c, and the version file.
const NEEDED: [&str; 12] = [
    "PG_VERSION",
    "base",
    "global",
    "pg_commit_ts",
    "pg_logical",
    "pg_multixact",
    "pg_replslot",
    "pg_stat",
    "pg_tblspc",
    "pg_twophase",
    "pg_wal",
    "pg_xact",
];

/// Whether a server could not do without `path`, an entry that is kept: one of its own folders, or anything below one.
pub fn is_needed(path: &str) -> bool {
    path.split('/').next().is_some_and(|first| NEEDED.contains(&first))
}

/// Judges the entry at `path`, relative to the data directory, with `/` between names. A tablespace's files are
/// below `pg_tblspc/<oid>`. A name that is not UTF-8 may be given with its bad bytes replaced: no rule can match those.
///
/// `sibling` tells whether the directory also holds a file of that name; it is asked only about `<relfilenode>_init`,
/// which marks an unlogged relation.
pub fn judge(path: &str, sibling: impl FnOnce(&str) -> bool) -> Entry {
    if let Some(below) = path.strip_prefix("pg_wal/") {
        return match below {
            "archive_status" | "summaries" => Entry::EmptyDirectory,
            _ => Entry::Skip,
        };
    }
    if path == "pg_wal" {
        return Entry::EmptyDirectory;
    }
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    if directory.split('/').any(|above| is_left_out(above) || EMPTIED.contains(&above)) {
        return Entry::Skip;
    }
    if is_left_out(name) || LEFTOVERS.contains(&path) || is_left_out_relation(directory, name, sibling) {
        return Entry::Skip;
    }
    if EMPTIED.contains(&name) { Entry::EmptyDirectory } else { Entry::Keep }
}

fn is_left_out(name: &str) -> bool {
    LEFT_OUT.contains(&name) || LEFT_OUT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Temporary relations, which live in database directories only, and every fork but init of unlogged relations:
/// recovery makes those from the init fork.
fn is_left_out_relation(directory: &str, name: &str, sibling: impl FnOnce(&str) -> bool) -> bool {
    let database = is_database_directory(directory);
    if database && relation_file::is_temporary(name) {
        return true;
    }
    if !database && directory != "global" {
        return false;
    }
    match relation_file::parse_file_name(name) {
        None | Some((_, Fork::Init, _)) => false,
        Some((relfilenode, _, _)) => sibling(&format!("{relfilenode}_init")),
    }
}

/// `base/<oid>` or `pg_tblspc/<oid>/PG_<major>_<catalog version>/<oid>`.
fn is_database_directory(path: &str) -> bool {
    let is_oid = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let mut parts = path.split('/');
    let found = match parts.next() {
        Some("base") => parts.next().is_some_and(is_oid),
        Some("pg_tblspc") => {
            parts.next().is_some_and(is_oid)
                && parts.next().is_some_and(relation_file::is_version_directory)
                && parts.next().is_some_and(is_oid)
        }
        _ => false,
    };
    found && parts.next().is_none()
}

/// Directories that a backup makes below the empty `pg_wal`, whether or not the server has them: PostgreSQL 17 added
/// `summaries`.
pub fn wal_subdirectories(server_major: u32) -> &'static [&'static str] {
    if server_major >= 17 {
        &["pg_wal/archive_status", "pg_wal/summaries"]
    } else {
        &["pg_wal/archive_status"]
    }
}

/// Name of the directory that a server keeps in each tablespace (`TABLESPACE_VERSION_DIRECTORY`, common/relpath.h).
/// Others beside it belong to other servers that share the location.
pub fn version_directory(server_major: u32, catalog_version: u32) -> String {
    format!("PG_{server_major}_{catalog_version}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn alone(path: &str) -> Entry {
        judge(path, |_| false)
    }

    #[test]
    fn files_of_the_running_server_are_left_out() {
        for path in [
            "postmaster.pid",
            "postmaster.opts",
            "backup_label",
            "backup_label.old",
            "tablespace_map",
            "tablespace_map.old",
            "backup_manifest",
            "current_logfiles.tmp",
            "postgresql.auto.conf.tmp",
            "global/pg_internal.init",
            "base/5/pg_internal.init.1234",
            "base/pgsql_tmp",
            "base/pgsql_tmp/pgsql_tmp1.0",
            "pg_tblspc/16400/PG_15_202209061/pgsql_tmp",
            "base/5/t3_16384",
            "base/5/t3_16384_fsm.1",
            ".DS_Store",
            "pg_tblspc/16400/PG_15_202209061/5/t3_16384",
            "pg_wal/000000010000000000000001",
            "pg_wal/archive_status/000000010000000000000001.done",
            "pg_stat_tmp/global.stat",
            "pg_replslot/s/state",
        ] {
            assert_eq!(alone(path), Entry::Skip, "{path}");
        }
    }

    #[test]
    fn directories_that_must_exist_are_kept_empty() {
        for path in [
            "pg_wal",
            "pg_wal/archive_status",
            "pg_wal/summaries",
            "pg_stat_tmp",
            "pg_replslot",
            "pg_dynshmem",
            "pg_notify",
            "pg_serial",
            "pg_snapshots",
            "pg_subtrans",
        ] {
            assert_eq!(alone(path), Entry::EmptyDirectory, "{path}");
        }
        assert_eq!(wal_subdirectories(16), ["pg_wal/archive_status"]);
        assert_eq!(wal_subdirectories(17), ["pg_wal/archive_status", "pg_wal/summaries"]);
    }

    #[test]
    fn the_rest_is_kept() {
        for path in [
            "PG_VERSION",
            "global",
            "global/pg_control",
            "base/5/1259",
            "base/5",
            "pg_xact/0000",
            "pg_logical",
            "log/x.log",
            "postgresql.auto.conf",
            "current_logfiles",
            "t3_16384",
            "global/t3_16384",
            "mine/t3_16384",
            "pg_stat/pgstat.stat",
            "backup_label_of_mine",
            "mine/backup_label.old",
            "mine/pg_wal",
            "pg_tblspc/16400",
            "pg_walx",
            "",
        ] {
            assert_eq!(alone(path), Entry::Keep, "{path}");
        }
    }

    #[test]
    fn a_server_needs_its_own_folders() {
        for path in
            ["PG_VERSION", "pg_xact", "base/5", "base/5/1259", "global/pg_filenode.map", "pg_tblspc/x"]
        {
            assert!(is_needed(path), "{path}");
        }
        for path in ["", "server.key", "log", "mine/base", "based", "PG_VERSION.old"] {
            assert!(!is_needed(path), "{path}");
        }
    }

    #[test]
    fn of_unlogged_relations_only_the_init_fork_is_kept() {
        let unlogged = |name: &str| {
            assert_eq!(name, "16384_init");
            true
        };
        for directory in ["base/5", "pg_tblspc/16400/PG_15_202209061/5", "global"] {
            for name in ["16384", "16384.1", "16384_fsm", "16384_vm.2"] {
                assert_eq!(
                    judge(&format!("{directory}/{name}"), unlogged),
                    Entry::Skip,
                    "{directory}/{name}"
                );
            }
            assert_eq!(judge(&format!("{directory}/16384_init"), |_| true), Entry::Keep);
        }
        assert_eq!(judge("mine/16384", |_| true), Entry::Keep);
        assert_eq!(judge("base/5/PG_VERSION", |_| true), Entry::Keep);
    }

    #[test]
    fn a_tablespace_has_one_directory_for_each_version() {
        assert_eq!(version_directory(15, 202_209_061), "PG_15_202209061");
    }

    proptest! {
        #[test]
        fn any_path_is_judged_without_panic(path in "\\PC*", sibling: bool) {
            let _ = judge(&path, |_| sibling);
        }
    }
}
