//! PostgreSQL's own programs: where they are, and of which version.

use crate::restore::server::major_of;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a backup runs.
const OF_BACKUP: [&str; 3] = ["pg_dump", "pg_dumpall", "psql"];
/// What a restore runs.
const OF_RESTORE: [&str; 2] = ["pg_restore", "psql"];

/// Programs of one version, in one folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// The folder.
    pub bindir: PathBuf,
    /// Major version.
    pub major: u32,
    /// What the first of them says of itself: `pg_dump (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)`.
    pub version: String,
}

impl Programs {
    /// The programs of a server, which are beside its `postgres`.
    ///
    /// # Errors
    /// `ServerNotReady` when one of them is missing, cannot be run, or has another major version than the server.
    pub fn of_server(bindir: &Path, major: u32) -> Result<Programs> {
        let mut version = None;
        for program in OF_BACKUP {
            let path = bindir.join(program);
            let said = said(&path).map_err(|why| {
                Error::new(ErrorKind::ServerNotReady, format!("\"{}\" cannot be run", path.display()))
                    .detail(why)
                    .hint(format!("A logical backup is made by the server's own pg_dump, pg_dumpall and psql. Install them: Debian's package is postgresql-client-{major}."))
            })?;
            if major_of(&said) != Some(major) {
                let message = format!("\"{}\" is {said}, the server is PostgreSQL {major}", path.display());
                return Err(Error::new(ErrorKind::ServerNotReady, message)
                    .hint(format!("Install the programs of PostgreSQL {major} there.")));
            }
            version.get_or_insert(said);
        }
        Ok(Programs { bindir: bindir.to_path_buf(), major, version: version.unwrap_or_default() })
    }

    /// Programs that read a dump of PostgreSQL `at_least`, of the lowest such version: in `named` alone when given; else
    /// beside this program, by `pg_config`, or where Debian puts them.
    ///
    /// # Errors
    /// `VersionMismatch` when `named` holds older ones, `InvalidArgument` when it holds none, `Unsupported` when there are
    /// none on this machine.
    pub fn for_restore(named: Option<&Path>, at_least: u32) -> Result<Programs> {
        if let Some(bindir) = named {
            return match look(bindir) {
                Some(found) if found.major >= at_least => Ok(found),
                Some(found) => Err(Error::new(
                    ErrorKind::VersionMismatch,
                    format!(
                        "\"{}\" holds {}, which reads no dump of PostgreSQL {at_least}",
                        bindir.display(),
                        found.version
                    ),
                )
                .hint(format!("Name the bin folder of PostgreSQL {at_least} or newer."))),
                None => Err(Error::new(
                    ErrorKind::InvalidArgument,
                    format!("--bindir \"{}\" holds no pg_restore and psql that run", bindir.display()),
                )
                .hint("Name the folder that holds them, for example /usr/lib/postgresql/17/bin.")),
            };
        }
        let mut found: Vec<Programs> = places().iter().filter_map(|bindir| look(bindir)).collect();
        found.retain(|programs| programs.major >= at_least);
        // The first of equals: beside this program comes first.
        found.sort_by_key(|programs| programs.major);
        found.into_iter().next().ok_or_else(|| {
            let message = format!("no pg_restore of PostgreSQL {at_least} or newer was found on this machine");
            Error::new(ErrorKind::Unsupported, message).hint(format!(
                "Install postgresql-client-{at_least} or newer, or name the folder of the programs with --bindir."
            ))
        })
    }

    /// Path of a program.
    pub fn path(&self, program: &str) -> PathBuf {
        self.bindir.join(program)
    }
}

/// Folders that may hold the programs.
fn places() -> Vec<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|path| path.parent().map(Path::to_path_buf));
    let mut command = Command::new("pg_config");
    let configured = command.arg("--bindir").stdin(Stdio::null()).stderr(Stdio::null()).output().ok();
    let configured = configured.filter(|output| output.status.success());
    let configured = configured.and_then(|output| String::from_utf8(output.stdout).ok());
    let mut places: Vec<PathBuf> =
        beside.into_iter().chain(configured.map(|text| PathBuf::from(text.trim()))).collect();
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut debian: Vec<PathBuf> = debian.map(|entry| entry.path().join("bin")).collect();
    debian.sort();
    places.extend(debian);
    places
}

fn look(bindir: &Path) -> Option<Programs> {
    let mut versions = OF_RESTORE.iter().map(|program| said(&bindir.join(program)).ok());
    let version = versions.next()??;
    let major = major_of(&version)?;
    let all = versions.all(|version| version.as_deref().and_then(major_of) == Some(major));
    all.then(|| Programs { bindir: bindir.to_path_buf(), major, version })
}

/// `pg_dump (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)`, or why not.
fn said(program: &Path) -> std::result::Result<String, String> {
    let output = Command::new(program)
        .arg("--version")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .map_err(|e| e.to_string())?;
    if !output.status.success() {
        return Err(output.status.to_string());
    }
    let text = String::from_utf8(output.stdout).map_err(|e| e.to_string())?;
    Ok(text.lines().next().unwrap_or_default().trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = Programs::of_server(dir.path(), 15).unwrap_err();
        assert_eq!(error.kind, ErrorKind::ServerNotReady);
        assert!(error.message.contains("pg_dump") && error.hint.is_some(), "{error:?}");
        let error = Programs::for_restore(Some(dir.path()), 15).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidArgument);
        let error = Programs::for_restore(None, 999).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported);
    }
}
