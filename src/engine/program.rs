//! The program: where it is, how it is started, how it ended.

use crate::postgres::process;
use crate::settings;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// Words for every problem with the program itself.
pub(super) const INSTALL_HINT: &str =
    "Run scripts/install for this server, or set pg_ark.engine_path to the pgark program of this version.";

/// Which engine, and what it works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The program.
    pub program: PathBuf,
    /// URL of the repository.
    pub repository: String,
    /// Name of the cluster in it.
    pub cluster: String,
}

impl Target {
    /// The target that the settings name.
    ///
    /// # Errors
    /// `RepositoryUnset`, `EngineMissing`.
    pub fn from_settings() -> Result<Target> {
        Target::for_repository(settings::repository()?)
    }

    /// The target for another repository.
    ///
    /// # Errors
    /// `EngineMissing`; as [`settings::check_source`].
    pub fn for_repository(repository: String) -> Result<Target> {
        settings::check_source()?;
        Ok(Target { program: locate()?, repository, cluster: settings::cluster() })
    }
}

/// Path of the engine: `pg_ark.engine_path`, or `pgark` beside the running `postgres`.
///
/// # Errors
/// `EngineMissing` when there is no program that can be run.
pub fn locate() -> Result<PathBuf> {
    let path = match settings::engine_path() {
        Some(path) => PathBuf::from(path),
        None => process::server_program().with_file_name("pgark"),
    };
    if !path.is_absolute() {
        return Err(missing(&path, "pg_ark.engine_path is not an absolute path"));
    }
    match std::fs::metadata(&path) {
        Err(error) => Err(missing(&path, error)),
        Ok(found) if !found.is_file() => Err(missing(&path, "it is not a file")),
        Ok(found) if found.permissions().mode() & 0o111 == 0 => Err(missing(&path, "it is not executable")),
        Ok(found) if found.permissions().mode() & 0o002 != 0 => {
            Err(missing(&path, "everybody may change it"))
        }
        Ok(_) => Ok(path),
    }
}

pub(super) fn missing(path: &Path, why: impl std::fmt::Display) -> Error {
    let message = format!("the engine \"{}\" cannot be run", path.display());
    Error::new(ErrorKind::EngineMissing, message).detail(why).hint(INSTALL_HINT)
}

/// The command, with nothing of the server's environment but what a program needs. Plain enough for posix_spawn.
///
/// It gets a process group of its own: the server signals whole groups (statement_timeout, `pg_cancel_backend`,
/// `pg_terminate_backend`, shutdown), and the engine shall hear from us why it stops, not die of the signal first.
pub(super) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("engine").process_group(0).env_clear().env("LANG", "C.UTF-8").env("LC_ALL", "C.UTF-8");
    command.env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()));
    if let Some(zone) = std::env::var_os("TZ") {
        command.env("TZ", zone);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command
}

pub(super) fn ending(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was killed by signal {signal}"),
        (None, Some(code)) => format!("ended with status {code} and no answer"),
        (None, None) => "ended in an unknown way".into(),
    }
}
