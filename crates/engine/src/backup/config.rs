//! Configuration files that live outside the data directory, into `config.tar`; for a logical backup, those inside it too.
//!
//! The server names `config_file`, `hba_file`, `ident_file` and what they include; beside a `postgresql.conf` in
//! Debian's layout lie `environment`, `pg_ctl.conf`, `start.conf` and `conf.d`, without which pg_ctlcluster does not
//! start the cluster, so they come too. Includes are followed here once more ([`super::includes`]), because the server
//! does not name an included file that sets nothing, and does not start without it.

use super::archive::ArchiveWriter;
use super::includes;
use super::member::Attributes;
use super::serial::SerialWriter;
use crate::bounded;
use crate::session::Session;
use pg_ark_contract::settings::Compression;
use pg_ark_contract::{Error, Result};
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Files beside `postgresql.conf` that Debian's postgresql-common keeps there.
const COMPANIONS: [&str; 3] = ["environment", "pg_ctl.conf", "start.conf"];
/// No configuration file is larger than this, in bytes; a larger one is left out with a warning.
pub const MAX_CONFIG: u64 = 16 << 20;

/// The file that ALTER SYSTEM writes (`PG_AUTOCONF_FILENAME`, utils/guc.h).
const AUTO_CONF: &str = "postgresql.auto.conf";

/// The files to store, absolute, sorted; none of them below the data directory.
pub fn plan(named: &[String], data_directory: &Path) -> Vec<PathBuf> {
    let home = data_directory.canonicalize().unwrap_or_else(|_| data_directory.to_path_buf());
    let outside = |path: &PathBuf| {
        // A link in the data directory to a file elsewhere is stored under the file's own name.
        path.canonicalize().map(|real| !real.starts_with(&home)).unwrap_or(false)
    };
    let real = |path: PathBuf| {
        if path.starts_with(data_directory) || path.starts_with(&home) {
            path.canonicalize().unwrap_or(path)
        } else {
            path
        }
    };
    let files = everywhere(named).into_iter().filter(outside).map(real);
    files.collect::<BTreeSet<_>>().into_iter().collect()
}

/// The files that a backup without a data directory stores, absolute, sorted: wherever they live, by the names that the
/// server has for them.
pub fn plan_all(named: &[String], data_directory: &Path) -> Vec<PathBuf> {
    let mut files = everywhere(named);
    files.insert(data_directory.join(AUTO_CONF));
    files.into_iter().filter(|path| path.is_file()).collect()
}

/// The named files, what they include, and their companions.
fn everywhere(named: &[String]) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for path in named.iter().map(PathBuf::from).filter(|p| p.is_absolute()) {
        let folder = path.parent().unwrap_or(Path::new("/"));
        if path.file_name().is_some_and(|n| n == "postgresql.conf") {
            files.extend(COMPANIONS.iter().map(|name| folder.join(name)).filter(|p| p.is_file()));
            let included = walkdir::WalkDir::new(folder.join("conf.d")).into_iter().filter_map(|e| e.ok());
            files.extend(included.filter(|e| e.path().is_file()).map(|e| e.into_path()));
        }
        includes::follow(&path, &mut seen);
        files.insert(path);
    }
    files.extend(seen);
    files
}

/// Stores the files; returns the archive, ready to be finished, and the paths stored.
///
/// # Errors
/// What the store said. A file that cannot be read is left out with a warning: the data is worth more.
pub fn store(
    files: &[PathBuf],
    archive: ArchiveWriter,
    compression: Compression,
    session: &Session,
) -> Result<(ArchiveWriter, Vec<String>)> {
    let mut writer = SerialWriter::new(archive, compression, session)?;
    let mut stored = Vec::new();
    for path in files {
        let (content, attributes) = match read(path) {
            Ok(read) => read,
            Err(e) => {
                session.warn(
                    format!("configuration file \"{}\" is not in the backup: {e}", path.display()),
                    Some("Let the server's user read it, or keep a copy of it yourself.".to_string()),
                );
                continue;
            }
        };
        let member = path.strip_prefix("/").unwrap_or(path);
        let shown = path.display().to_string();
        let size = content.len() as u64;
        writer.file(member.as_os_str().as_bytes(), size, attributes, &mut &content[..], &shown)?;
        stored.push(shown);
    }
    Ok((writer.end()?, stored))
}

fn read(path: &Path) -> Result<(Vec<u8>, Attributes)> {
    let failed = |e: &std::io::Error| Error::io(format!("could not read \"{}\"", path.display()), e);
    let mut file = bounded::open(path).map_err(|e| failed(&e))?;
    let meta = file.metadata().map_err(|e| failed(&e))?;
    if meta.len() > MAX_CONFIG {
        return Err(Error::new(
            pg_ark_contract::ErrorKind::Unsupported,
            format!("\"{}\" has {} bytes", path.display(), meta.len()),
        ));
    }
    let mut content = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut content).map_err(|e| failed(&e))?;
    Ok((content, Attributes::of(&meta)))
}
