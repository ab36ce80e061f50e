//! The server's programs: where they are, and what they lack.

use crate::repository::Record;
use pg_ark_contract::{Error, ErrorKind, Result};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// An installed server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Server {
    /// Folder of its programs.
    pub bindir: PathBuf,
    /// `PostgreSQL 15.18 (Debian 15.18-0+deb12u1)`.
    pub version: String,
}

/// Finds a server of this major version: in `named` alone when given; else beside this program, by `pg_config`, or
/// where Debian puts it.
///
/// # Errors
/// `VersionMismatch` when `named` holds another version, `Unsupported` when there is none.
pub fn find(named: Option<&Path>, major: u32) -> Result<Server> {
    if let Some(bindir) = named {
        return match look(bindir) {
            Some(server) if major_of(&server.version) == Some(major) => Ok(server),
            Some(server) => Err(Error::new(
                ErrorKind::VersionMismatch,
                format!(
                    "\"{}\" holds {}, and the backup is of PostgreSQL {major}",
                    bindir.display(),
                    server.version
                ),
            )
            .hint(format!("Name the bin folder of a PostgreSQL {major}."))),
            None => Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("--bindir \"{}\" holds no postgres program that runs", bindir.display()),
            )
            .hint("Name the folder that holds postgres, for example /usr/lib/postgresql/15/bin.")),
        };
    }
    let debian = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
    let mut found = usual_places().into_iter().chain([debian]).filter_map(|bindir| look(&bindir));
    let fitting = found.find(|server| major_of(&server.version) == Some(major));
    fitting.ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, format!("no PostgreSQL {major} was found on this machine"))
            .hint(format!("Install PostgreSQL {major}, or name the folder of its programs with --bindir."))
    })
}

/// Finds the server of the lowest major version that is at least this one, with what fills a new cluster: in `named` alone
/// when given; else where [`find`] looks.
///
/// # Errors
/// `Unsupported` when `named` holds an older one, or there is none; `InvalidArgument` when `named` holds none.
pub fn find_at_least(named: Option<&Path>, major: u32) -> Result<(Server, u32)> {
    let whole = |bindir: &Path| {
        let server = look(bindir)?;
        let found = major_of(&server.version)?;
        let has = |program| bindir.join(program).is_file();
        ["initdb", "pg_restore", "psql", "vacuumdb"].into_iter().all(has).then_some((server, found))
    };
    if let Some(bindir) = named {
        return match whole(bindir) {
            Some((server, found)) if found >= major => Ok((server, found)),
            Some((server, _)) => Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "\"{}\" holds {}, and a dump of PostgreSQL {major} goes into that version or a newer one",
                    bindir.display(),
                    server.version
                ),
            )
            .hint(format!("Name the bin folder of a PostgreSQL {major} or newer."))),
            None => Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "--bindir \"{}\" does not hold postgres, initdb, pg_restore, psql and vacuumdb",
                    bindir.display()
                ),
            )
            .hint("Name the folder that holds them, for example /usr/lib/postgresql/17/bin.")),
        };
    }
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut debian: Vec<PathBuf> = debian.map(|entry| entry.path().join("bin")).collect();
    debian.sort();
    let mut found: Vec<(Server, u32)> =
        usual_places().into_iter().chain(debian).filter_map(|bindir| whole(&bindir)).collect();
    found.retain(|(_, found)| *found >= major);
    // The first of equals: beside this program comes first.
    found.sort_by_key(|(_, found)| *found);
    found.into_iter().next().ok_or_else(|| {
        Error::new(
            ErrorKind::Unsupported,
            format!("no PostgreSQL {major} or newer was found on this machine"),
        )
        .hint(format!(
            "Install PostgreSQL {major} or newer, or name the folder of its programs with --bindir."
        ))
    })
}

/// Beside this program, and where `pg_config` says.
fn usual_places() -> Vec<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|path| path.parent().map(Path::to_path_buf));
    let configured = output(Path::new("pg_config"), "--bindir").map(PathBuf::from);
    beside.into_iter().chain(configured).collect()
}

fn look(bindir: &Path) -> Option<Server> {
    let version = output(&bindir.join("postgres"), "--version")?;
    Some(Server {
        bindir: bindir.to_path_buf(),
        version: version.trim_start_matches("postgres ").to_string(),
    })
}

/// The major version in what a program says for `--version`: `postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)` is 15.
pub fn major_of(version: &str) -> Option<u32> {
    let number = version.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn output(program: &Path, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).stdin(Stdio::null()).output().ok()?;
    if !output.status.success() {
        return None;
    }
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_string())
}

/// Libraries that the server loads when it starts and that are not installed.
pub fn missing_libraries(server: &Server, record: &Record) -> Vec<String> {
    let Some(folder) = library_folder(server) else { return Vec::new() };
    let values = ["shared_preload_libraries", "archive_library"].map(|name| record.server_settings.get(name));
    let mut missing: Vec<String> =
        values.into_iter().flatten().flat_map(|list| absent(&folder, list)).collect();
    missing.retain(|name| !name.contains('/'));
    missing.dedup();
    missing
}

/// Databases whose sessions load libraries that are not installed, each with them.
pub fn closed_databases(server: &Server, record: &Record) -> Vec<(String, Vec<String>)> {
    let Some(folder) = library_folder(server) else { return Vec::new() };
    let databases = record.logical.iter().flat_map(|logical| &logical.databases);
    let closed = databases.map(|database| {
        let of_all = database.settings.iter().filter(|setting| setting.role.is_none());
        let lists = of_all.filter(|setting| setting.name == "session_preload_libraries");
        (database.name.clone(), lists.flat_map(|setting| absent(&folder, &setting.value)).collect::<Vec<_>>())
    });
    closed.filter(|(_, libraries)| !libraries.is_empty()).collect()
}

fn library_folder(server: &Server) -> Option<PathBuf> {
    let folder = output(&server.bindir.join("pg_config"), "--pkglibdir").map(PathBuf::from);
    // Debian and source builds alike keep lib beside bin.
    folder.or_else(|| Some(server.bindir.parent()?.join("lib")).filter(|path| path.is_dir()))
}

/// The libraries of a list that are not installed.
fn absent(folder: &Path, list: &str) -> Vec<String> {
    let names = list.split(',').map(|name| name.trim().trim_matches(['"', '\'']));
    let files = names.map(|name| name.trim_start_matches("$libdir/").trim_end_matches(".so"));
    let missing = files.filter(|file| !file.is_empty() && !folder.join(format!("{file}.so")).exists());
    missing.map(str::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        for (text, major) in [
            ("pg_dump (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)", Some(15)),
            ("(PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Some(15)),
            ("pg_restore (PostgreSQL) 18beta2", Some(18)),
            ("psql (EnterpriseDB) 17.1.0", Some(17)),
            ("PostgreSQL", None),
            ("", None),
        ] {
            assert_eq!(major_of(text), major, "{text}");
        }
    }

    #[test]
    fn a_folder_without_a_server_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(find(Some(dir.path()), 15).unwrap_err().kind, ErrorKind::InvalidArgument);
    }
}
