//! One file per command: from arguments to the engine, and from its answer to stdout.

mod check;
pub mod jobs;
mod list;
pub mod pins;
pub mod prune;
pub mod recovery_args;
mod restore;
pub mod restore_args;
mod restore_fresh_text;
mod restore_into_text;
mod restore_logical;
mod restore_text;
mod restore_words;
mod show;
mod show_logical;
mod verify;
mod verify_archive;
pub mod wal_get;
mod wal_push;
mod windows;

use crate::cli::{Cli, Command};
use crate::talk;
use pg_ark_contract::{Error, ErrorKind, Result};
use pg_ark_engine::repository::{Cluster, Repository};
use std::process::ExitCode;

/// Does what the command line says; returns the exit code.
///
/// # Errors
/// What went wrong.
pub fn run(cli: &Cli) -> Result<ExitCode> {
    match &cli.command {
        Command::WalGet(arguments) => return Ok(wal_get::run(cli, arguments)),
        Command::List => list::run(&open(cli)?, cli.format),
        Command::Show { backup } => show::run(&open(cli)?, backup, cli.format),
        Command::Check => check::run(cli),
        Command::Verify(arguments) => verify::run(&open(cli)?, arguments, cli.format),
        Command::VerifyArchive(arguments) => verify_archive::run(&open(cli)?, arguments, cli.format),
        Command::Windows => windows::run(&open(cli)?, cli.format),
        Command::Jobs(arguments) => jobs::run(cli, &open(cli)?, arguments, cli.format),
        Command::Prune(arguments) => prune::run(cli, &open(cli)?, arguments, cli.format),
        Command::Pin(arguments) => pins::pin(&open(cli)?, arguments, cli.format),
        Command::Unpin { backup } => pins::unpin(&open(cli)?, backup, cli.format),
        Command::WalPush(arguments) => wal_push::run(cli, arguments),
        Command::Restore(arguments) => restore::run(&open(cli)?, arguments, cli.format),
    }
    .map(|()| ExitCode::SUCCESS)
}

/// The repository that the command line names.
fn repository(cli: &Cli) -> Result<Repository> {
    let url = cli.repo.as_deref().filter(|url| !url.is_empty()).ok_or_else(|| {
        Error::new(ErrorKind::RepositoryUnset, "no repository is named")
            .hint("Give --repo URL or set PGARK_REPO, for example --repo file:///backups.")
    })?;
    Repository::open(url)
}

/// The cluster that the command line names or means.
fn open(cli: &Cli) -> Result<Cluster> {
    let repository = repository(cli)?;
    let name = match &cli.cluster {
        Some(name) if !name.is_empty() => name.clone(),
        _ => default_cluster(repository.clusters()?)?,
    };
    let cluster = repository.cluster(&name)?;
    if let Some(damage) = cluster.damage() {
        talk::warn(&damage.to_string());
    }
    if !cluster.exists() {
        let names = repository.clusters()?;
        return Err(Error::new(
            ErrorKind::RepositoryNotFound,
            format!("the repository has no cluster \"{}\"", name.escape_debug()),
        )
        .hint(match names.is_empty() {
            true => "It has none yet: take a backup with ark.backup_start().".to_string(),
            false => format!("It has: {}.", names.join(", ")),
        }));
    }
    match cli.system_identifier {
        Some(system) => cluster.only_system(system),
        None => Ok(cluster),
    }
}

/// The only cluster; `main`, for want of another name, when there is none.
fn default_cluster(names: Vec<String>) -> Result<String> {
    match &names[..] {
        [only] => Ok(only.clone()),
        [] => Ok("main".to_string()),
        several => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("the repository has several clusters: {}", several.join(", ")),
        )
        .hint("Choose one with --cluster NAME or PGARK_CLUSTER.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_cluster() {
        let choose = |names: &[&str]| default_cluster(names.iter().map(|n| (*n).to_string()).collect());
        assert_eq!(choose(&["a"]).unwrap(), "a");
        assert_eq!(choose(&[]).unwrap(), "main");
        for several in [["a", "b"], ["a", "main"]] {
            let error = choose(&several).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidArgument);
            assert!(error.message.ends_with(&several.join(", ")), "{error}");
        }
    }
}
