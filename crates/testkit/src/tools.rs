//! Where PostgreSQL's programs are.

use crate::os::{command, run, run_ok};
use std::path::{Path, PathBuf};
use std::process::Command;

const INSTALL_HINT: &str = "install a server with its development files (scripts/install does), \
                            or name its pg_config in the environment variable PG_CONFIG";

/// One installation of PostgreSQL.
#[derive(Debug, Clone)]
pub struct Pg {
    bindir: PathBuf,
    version: u32,
}

impl Pg {
    /// The installation that tests use: `$PG_CONFIG`, else the `pg_config` on PATH, else Debian's PostgreSQL 15.
    ///
    /// # Panics
    /// When there is none, or one without a server.
    pub fn find() -> Pg {
        if let Some(named) = std::env::var_os("PG_CONFIG") {
            return Pg::at(Path::new(&named));
        }
        // PATH may lead to a pg_config of the client library alone.
        let on_path = std::env::var_os("PATH").map(|path| {
            std::env::split_paths(&path).map(|dir| dir.join("pg_config")).find(|file| file.is_file())
        });
        let debian = PathBuf::from("/usr/lib/postgresql/15/bin/pg_config");
        let candidates: Vec<PathBuf> = on_path.flatten().into_iter().chain([debian]).collect();
        for candidate in &candidates {
            if candidate.is_file() && bindir_of(candidate).join("postgres").is_file() {
                return Pg::at(candidate);
            }
        }
        panic!("found no PostgreSQL server (looked at {candidates:?}): {INSTALL_HINT}");
    }

    /// The installation that `pg_config` describes.
    ///
    /// # Panics
    /// When `pg_config` cannot be run or there is no server beside it.
    pub fn at(pg_config: &Path) -> Pg {
        assert!(pg_config.is_file(), "there is no {pg_config:?}: {INSTALL_HINT}");
        let bindir = bindir_of(pg_config);
        let server = bindir.join("postgres");
        assert!(server.is_file(), "there is no server {server:?}: {INSTALL_HINT}");
        // "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"
        let text = run_ok(command(server).arg("--version"));
        let number = text.split_whitespace().nth(2).unwrap_or_else(|| panic!("unexpected version: {text}"));
        let digits = |part: &str| -> u32 {
            part.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0)
        };
        let mut parts = number.split('.');
        let major = digits(parts.next().unwrap_or_default());
        let minor = digits(parts.next().unwrap_or_default());
        assert!(major >= 15, "{pg_config:?} belongs to PostgreSQL {number}, pg_ark needs 15 or newer");
        Pg { bindir, version: major * 10_000 + minor }
    }

    /// `server_version_num`, for instance 150018.
    pub fn version_num(&self) -> u32 {
        self.version
    }

    /// Major version, for instance 15.
    pub fn major(&self) -> u32 {
        self.version / 10_000
    }

    /// Folder of the programs.
    pub fn bindir(&self) -> &Path {
        &self.bindir
    }

    /// One of PostgreSQL's programs, to be run as the server's OS user.
    ///
    /// # Panics
    /// When the installation does not have it.
    pub fn tool(&self, name: &str) -> Command {
        let path = self.bindir.join(name);
        assert!(path.is_file(), "there is no {path:?}: {INSTALL_HINT}");
        command(path)
    }
}

fn bindir_of(pg_config: &Path) -> PathBuf {
    let output = run(command(pg_config).arg("--bindir"));
    PathBuf::from(output.ok().trim())
}
