//! Steps of tests whose servers archive: settings for archiving and restoring, and waiting for the archive.

use crate::support::{Ready, enabled, pgark_of};
use pg_ark_testkit::{Builder, Cluster, LONG, Pg, Repo, wait_until};
use std::path::PathBuf;

/// Starts a server whose archive module stores WAL in a new repository.
#[track_caller]
pub fn archiving(builder: Builder) -> Ready {
    archiving_into(builder, Repo::new())
}

/// [`archiving`] with a repository that exists.
#[track_caller]
pub fn archiving_into(builder: Builder, repo: Repo) -> Ready {
    let builder = builder.conf("archive_mode = on").conf("archive_library = 'pg_ark'");
    enabled(builder.start(), repo)
}

/// Starts a server that archives by `archive_command = 'pgark ... wal-push %p'`.
#[track_caller]
pub fn archiving_by_command(builder: Builder) -> Ready {
    let ready = enabled(builder.conf("archive_mode = on").start(), Repo::new());
    ready.server.configure(&[&archive_command(ready.server.pg(), &ready.repo)]);
    ready.server.reload();
    ready
}

/// Line of postgresql.conf that archives by a command.
pub fn archive_command(pg: &Pg, repo: &Repo) -> String {
    let pgark = pgark_of(pg);
    format!("archive_command = '{} --repo {} --cluster main wal-push %p'", pgark.display(), repo.url())
}

/// Line of postgresql.conf that restores from the archive.
pub fn restore_command(pg: &Pg, repo: &Repo) -> String {
    let pgark = pgark_of(pg);
    format!(
        "restore_command = '{} --repo {} --cluster main wal-get \"%f\" \"%p\"'",
        pgark.display(),
        repo.url()
    )
}

/// Ends the current segment after one more record; returns its name.
#[track_caller]
pub fn switch_wal(server: &Cluster) -> String {
    server.psql("SELECT pg_logical_emit_message(false, 'pg_ark', 'x')");
    server.psql("SELECT pg_walfile_name(pg_switch_wal())")
}

/// Ends the current segment and waits until the server was told that it is stored; returns its name.
#[track_caller]
pub fn archive_now(ready: &Ready) -> String {
    let segment = switch_wal(&ready.server);
    let done = ready.server.data().join(format!("pg_wal/archive_status/{segment}.done"));
    wait_until(&format!("{segment} in the archive"), LONG, || done.is_file());
    assert!(object(ready, &segment).is_some(), "{segment} is done and not stored");
    segment
}

/// Waits until the archive holds a file.
#[track_caller]
pub fn wait_archived(ready: &Ready, file: &str) {
    wait_until(&format!("{file} in the archive"), LONG, || object(ready, file).is_some());
}

/// Where the archive holds a file; none when it does not.
pub fn object(ready: &Ready, file: &str) -> Option<PathBuf> {
    let wal = wal_folder(ready)?;
    let folder = match file.ends_with(".history") {
        true => wal,
        false => wal.join(&file[..8]).join(&file[8..16]),
    };
    ["", ".zst", ".lz4", ".gz"]
        .iter()
        .map(|suffix| folder.join(format!("{file}{suffix}")))
        .find(|path| path.is_file())
}

/// The folder `wal` of the repository's only system identifier; none before anything is stored.
pub fn wal_folder(ready: &Ready) -> Option<PathBuf> {
    let systems = std::fs::read_dir(ready.repo.path().join("main")).ok()?;
    systems.flatten().map(|system| system.path().join("wal")).find(|wal| wal.is_dir())
}
