//! Whether a server uses a folder: what a lock file says is not enough before something is removed.
//!
//! A server that was killed can leave processes behind for a while, which still write; one whose data directory was
//! removed under it has no lock file any more; and a WAL folder or a tablespace may be another server's.

use crate::bounded;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// Line of `postmaster.pid` that names the shared memory (`LOCK_FILE_LINE_SHMEM_KEY`, utils/pidfile.h), from 0.
const SHARED_MEMORY_LINE: usize = 6;

/// A process of a server that works in one of these folders or has a file in one open. `data` is the data directory,
/// whose lock file leads to processes of other users, too.
pub fn by(data: &Path, folders: &[PathBuf]) -> Option<u32> {
    super::facts::running_server(data).or_else(|| attached(data)).or_else(|| with_files_in(folders))
}

/// The process that made the shared memory which the lock file names, while any process is attached to it.
fn attached(data: &Path) -> Option<u32> {
    let lock = bounded::text(&data.join("postmaster.pid"), bounded::MAX_LINES).ok()?;
    let id: i64 = lock.lines().nth(SHARED_MEMORY_LINE)?.split_whitespace().nth(1)?.parse().ok()?;
    in_table(&fs::read_to_string("/proc/sysvipc/shm").ok()?, id)
}

/// The creator of segment `id`, if anybody is attached to it, from the text of `/proc/sysvipc/shm`.
fn in_table(table: &str, id: i64) -> Option<u32> {
    let mut lines = table.lines();
    let columns: Vec<&str> = lines.next()?.split_whitespace().collect();
    let column = |name: &str| columns.iter().position(|column| *column == name);
    let (shmid, nattch, cpid) = (column("shmid")?, column("nattch")?, column("cpid")?);
    let row: Vec<i64> = lines
        .map(|line| line.split_whitespace().map(|field| field.parse().unwrap_or(-1)).collect::<Vec<i64>>())
        .find(|row| row.get(shmid) == Some(&id))?;
    let attached = row.get(nattch).is_some_and(|count| *count > 0);
    let creator = row.get(cpid).and_then(|pid| u32::try_from(*pid).ok());
    creator.filter(|_| attached)
}

/// Servers' processes whose working directory or open files lie in one of the folders. What may not be seen is not.
fn with_files_in(folders: &[PathBuf]) -> Option<u32> {
    let inside = |link: &Path| {
        fs::read_link(link).is_ok_and(|target| folders.iter().any(|folder| target.starts_with(folder)))
    };
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| is_server(*pid))
        .find(|pid| {
            let folder = PathBuf::from(format!("/proc/{pid}"));
            let files = fs::read_dir(folder.join("fd")).into_iter().flatten().flatten();
            inside(&folder.join("cwd")) || files.into_iter().any(|file| inside(&file.path()))
        })
}

/// A server's process, wherever it runs, whose data directory has a link to one of these folders or into it.
pub fn linked_to(folders: &[PathBuf]) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let servers = processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| is_server(*pid));
    let mut seen = Vec::new();
    for pid in servers {
        let work = PathBuf::from(format!("/proc/{pid}/cwd"));
        // All processes of a server work in its data directory.
        match fs::read_link(&work) {
            Ok(folder) if seen.contains(&folder) => continue,
            Ok(folder) => seen.push(folder),
            Err(_) => continue,
        }
        if leads_to(&work, folders) {
            return Some(pid);
        }
    }
    None
}

/// The server that runs in `data`, which other users' processes may hide, when it has such a link.
pub fn links_of(data: &Path, folders: &[PathBuf]) -> Option<u32> {
    super::facts::running_server(data).filter(|_| leads_to(data, folders))
}

/// Whether a data directory has a link to one of these folders.
fn leads_to(data: &Path, folders: &[PathBuf]) -> bool {
    let tablespaces = fs::read_dir(data.join("pg_tblspc")).into_iter().flatten().flatten();
    let links = tablespaces.map(|entry| entry.path()).chain([data.join("pg_wal")]);
    links
        .filter(|link| link.is_symlink())
        .filter_map(|link| link.canonicalize().ok())
        .any(|target| folders.iter().any(|folder| target.starts_with(folder) || folder.starts_with(&target)))
}

/// By its program, or where that may not be seen by its name.
fn is_server(pid: u32) -> bool {
    match fs::read_link(format!("/proc/{pid}/exe")) {
        // A program that was replaced meanwhile has " (deleted)" behind its name.
        Ok(program) => program
            .file_name()
            .and_then(OsStr::to_str)
            .is_some_and(|name| name == "postgres" || name.starts_with("postgres ")),
        Err(_) => fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "postgres"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attached_memory_is_found_in_the_table() {
        let table = "       key      shmid perms                  size  cpid  lpid nattch   uid\n\
                     1234          7   600                    56   311   312      2   999\n\
                     1235          8   600                    56   411   412      0   999\n";
        assert_eq!(in_table(table, 7), Some(311));
        assert_eq!(in_table(table, 8), None);
        assert_eq!(in_table(table, 9), None);
        for table in ["", "x", "shmid nattch cpid\n7", "shmid nattch cpid\n7 1 -5"] {
            assert_eq!(in_table(table, 7), None, "{table}");
        }
    }

    #[test]
    fn links_of_a_data_directory_lead_to_what_it_uses() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (data, fast) = (root.join("data"), root.join("fast"));
        std::fs::create_dir_all(data.join("pg_tblspc")).unwrap();
        std::fs::create_dir_all(data.join("pg_wal")).unwrap();
        std::fs::create_dir(&fast).unwrap();
        assert!(
            !leads_to(&data, std::slice::from_ref(&fast)) && !leads_to(&data, std::slice::from_ref(&data))
        );
        std::os::unix::fs::symlink(&fast, data.join("pg_tblspc/16400")).unwrap();
        assert!(leads_to(&data, std::slice::from_ref(&fast)) && !leads_to(&data, &[root.join("other")]));
        assert_eq!(links_of(&data, &[fast]), None, "nothing runs there");
    }

    #[test]
    fn nobody_uses_a_new_folder() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("postmaster.pid"), "999999999\n/x\n1\n5432\n/s\n*\n1 2\nready\n")
            .unwrap();
        assert_eq!(by(dir.path(), &[dir.path().to_path_buf()]), None);
    }
}
