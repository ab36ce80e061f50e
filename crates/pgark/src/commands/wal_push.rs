//! `pgark wal-push`: an `archive_command`. Stores one file of `pg_wal`, and others that wait while it is at it.

use crate::cli::{Cli, WalPushArgs};
use crate::{output, talk};
use pg_ark_contract::archiver::{LAST_FAILURE_PATH, LastFailure};
use pg_ark_contract::conversation::{ArchiveTask, Event};
use pg_ark_contract::{Error, ErrorKind, Result};
use pg_ark_engine::backup::begin::read_control_file;
use pg_ark_engine::postgres::control_file::{CONTROL_FILE, ControlFile};
use pg_ark_engine::repository::{Repository, catalog};
use pg_ark_engine::session::Session;
use pg_ark_engine::wal::ahead::was_there;
use pg_ark_engine::wal::archive::WalFile;
use pg_ark_engine::wal::archiver;
use std::path::{Path, PathBuf};

/// Stores the file; says nothing when it is stored.
pub fn run(cli: &Cli, arguments: &WalPushArgs) -> Result<()> {
    let (data_directory, file) = locate(&arguments.path)?;
    let result = push(cli, arguments, &data_directory, &file);
    // For ark.status; when it cannot be written, the server's log still says everything.
    let _ = match &result {
        Ok(()) => std::fs::remove_file(data_directory.join(LAST_FAILURE_PATH)),
        Err(error) => note(&data_directory, &file, error),
    };
    result
}

fn push(cli: &Cli, arguments: &WalPushArgs, data_directory: &Path, file: &str) -> Result<()> {
    let session = Session::new(|event| {
        if let Event::Warning { message, .. } = event {
            talk::warn(&message);
        }
    });
    let repository = super::repository(cli).map_err(was_there)?;
    let (control, _) = read_control_file(data_directory, &session)?;
    check_identity(cli, &control, data_directory)?;
    let cluster = match &cli.cluster {
        Some(name) if !name.is_empty() => name.clone(),
        _ => only_cluster(&repository, control.system_identifier)?,
    };
    let task = ArchiveTask {
        data_directory: data_directory.to_str().ok_or_else(|| not_utf8(data_directory))?.to_string(),
        server_version_num: control.server_major().unwrap_or(0) * 10_000,
        compression: arguments.compression,
        jobs: arguments.jobs.map_or(0, u32::from),
    };
    let route = archiver::open(repository.storage().url(), &cluster, &task, &session)?;
    archiver::push(&route, file, &session)
}

/// The data directory that a path in its `pg_wal` belongs to, and the file's name.
fn locate(path: &Path) -> Result<(PathBuf, String)> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if WalFile::of(name).is_none() {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("\"{}\" is not the path of a WAL file", path.display()),
        )
        .hint("Name a file of pg_wal: a segment, .partial, .history or .backup file. archive_command gives it as %p."));
    }
    let here = Path::new(".");
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(here);
    let above = match folder.parent().filter(|above| !above.as_os_str().is_empty()) {
        Some(above) => above.to_path_buf(),
        None if folder == here => PathBuf::from(".."),
        None => here.to_path_buf(),
    };
    // pg_wal may be a link, and the path the one behind it: then the server's working directory tells.
    for candidate in [above, here.to_path_buf()] {
        let same = match (candidate.join("pg_wal").canonicalize(), folder.canonicalize()) {
            (Ok(its), Ok(ours)) => its == ours,
            _ => false,
        };
        if same && is_file(&candidate.join(CONTROL_FILE))? {
            let absolute = candidate.canonicalize().ok().filter(|path| path.to_str().is_some());
            return Ok((absolute.unwrap_or(candidate), name.to_string()));
        }
    }
    Err(Error::new(
        ErrorKind::InvalidArgument,
        format!("\"{}\" is not in the pg_wal of a data directory", path.display()),
    )
    .hint("Set archive_command = 'pgark --repo URL --cluster NAME wal-push %p'; by hand, run it in the data directory."))
}

/// Whether there is such a file; a disk that fails does not say no.
fn is_file(path: &Path) -> Result<bool> {
    match std::fs::metadata(path) {
        Ok(meta) => Ok(meta.is_file()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io(format!("could not look at \"{}\"", path.display()), &e)),
    }
}

fn check_identity(cli: &Cli, control: &ControlFile, data_directory: &Path) -> Result<()> {
    match cli.system_identifier {
        Some(wanted) if wanted != control.system_identifier => Err(Error::new(
            ErrorKind::ForeignCluster,
            format!(
                "\"{}\" has system identifier {}, not {wanted}",
                data_directory.display(),
                control.system_identifier
            ),
        )
        .hint("Leave --system-identifier out: wal-push reads it from pg_control.")),
        _ => Ok(()),
    }
}

/// The only cluster, if it is this server's already: a wrong guess would take another server's name from it.
fn only_cluster(repository: &Repository, system: u64) -> Result<String> {
    let names = repository.clusters()?;
    let why = match &names[..] {
        [] => "the repository has no cluster yet".to_string(),
        [only] if repository.cluster(only)?.systems().contains(&system) => return Ok(only.clone()),
        [only] => format!("the repository's only cluster, \"{only}\", is that of another server"),
        several => format!("the repository has several clusters: {}", several.join(", ")),
    };
    Err(Error::new(ErrorKind::InvalidArgument, why).hint(
        "Name this server's with --cluster NAME or PGARK_CLUSTER, as pg_ark.cluster does; it is created when it is new.",
    ))
}

fn not_utf8(path: &Path) -> Error {
    let shown = output::printable(&path.to_string_lossy());
    Error::new(ErrorKind::InvalidArgument, format!("\"{shown}\" is not valid UTF-8"))
        .hint("Run wal-push in the data directory, with a relative path, as archive_command does.")
}

/// Leaves the reason where `ark.status` finds it.
fn note(data_directory: &Path, file: &str, error: &Error) -> std::io::Result<()> {
    let failure =
        LastFailure { file: file.to_string(), at: catalog::now(), error: error.clone(), by_command: true };
    let path = data_directory.join(LAST_FAILURE_PATH);
    let new = path.with_extension("json.new");
    std::fs::write(&new, serde_json::to_vec(&failure)?).and_then(|()| std::fs::rename(&new, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: &str = "000000010000000000000001";

    fn data_directory(at: &Path) {
        std::fs::create_dir_all(at.join("global")).unwrap();
        std::fs::write(at.join(CONTROL_FILE), b"").unwrap();
    }

    #[test]
    fn the_data_directory_is_above_pg_wal() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        data_directory(&root.join("data"));
        std::fs::create_dir(root.join("data/pg_wal")).unwrap();
        let path = root.join("data/pg_wal").join(SEGMENT);
        assert_eq!(locate(&path).unwrap(), (root.join("data"), SEGMENT.to_string()));
        // Behind a link there is no data directory, and the working directory is none.
        data_directory(&root.join("other"));
        std::fs::create_dir_all(root.join("disk/wal")).unwrap();
        std::os::unix::fs::symlink(root.join("disk/wal"), root.join("other/pg_wal")).unwrap();
        assert_eq!(locate(&root.join("other/pg_wal").join(SEGMENT)).unwrap().0, root.join("other"));
        for bad in [root.join("disk/wal").join(SEGMENT), root.join("data").join(SEGMENT), SEGMENT.into()] {
            assert_eq!(locate(&bad).unwrap_err().kind, ErrorKind::InvalidArgument, "{bad:?}");
        }
        for bad in ["/x/pg_wal/archive_status", "/", "", "..", "pg_wal/00000001000000000000000g"] {
            assert_eq!(locate(Path::new(bad)).unwrap_err().kind, ErrorKind::InvalidArgument, "{bad:?}");
        }
    }

    #[test]
    fn no_cluster_is_guessed() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file://{}", dir.path().display());
        let (repository, _) = Repository::open_or_create(&url).unwrap();
        let refused = |part: &str| {
            let error = only_cluster(&repository, 7).unwrap_err();
            assert!(error.message.contains(part) && error.hint.unwrap().contains("--cluster"), "{part}");
        };
        refused("no cluster yet");
        repository.cluster("other").unwrap().remember_system(8, 150_000).unwrap();
        refused("another server");
        repository.cluster("other").unwrap().remember_system(7, 150_000).unwrap();
        assert_eq!(only_cluster(&repository, 7).unwrap(), "other");
        repository.cluster("third").unwrap().remember_system(9, 150_000).unwrap();
        refused("other, third");
    }
}
