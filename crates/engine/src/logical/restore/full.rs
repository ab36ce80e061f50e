//! Which of the places of a new cluster is full: each tablespace may be on a file system of its own.

use super::private::is_full;
use pg_ark_contract::{Error, ErrorKind};
use std::path::{Path, PathBuf};

/// Says of an error for lack of space where that was, and puts the words about it before those that came of it. `data`: the data
/// directory of the server that said them.
pub fn located(error: Error, data: &Path) -> Error {
    if error.kind != ErrorKind::DiskFull {
        return error;
    }
    let said = error.detail.clone().unwrap_or_default();
    let (about, rest): (Vec<&str>, Vec<&str>) = said.lines().partition(|line| is_full(line));
    let place = about.iter().find_map(|line| place(line, data));
    let place = place.map_or_else(String::new, |place| format!(" at \"{}\"", place.display()));
    let message = format!("no space left{place}: {}", error.message);
    let lines: Vec<&str> = about.into_iter().chain(rest).collect();
    Error { message, ..error }.detail(lines.join("\n"))
}

/// The folder on whose file system the file is that a line names: a server names its files from its data directory on
/// (`relpathbackend`, common/relpath.h), those of tablespaces by `pg_tblspc/OID`.
fn place(line: &str, data: &Path) -> Option<PathBuf> {
    // A table may be named before it.
    let file = line.rsplit('"').nth(1)?;
    let mut parts = file.split('/');
    let tablespace = (parts.next() == Some("pg_tblspc")).then(|| parts.next()).flatten();
    match tablespace.filter(|oid| oid.bytes().all(|b| b.is_ascii_digit())) {
        // One inside the data directory is no link.
        Some(oid) => {
            Some(std::fs::read_link(data.join("pg_tblspc").join(oid)).unwrap_or_else(|_| data.into()))
        }
        None => (!Path::new(file).is_absolute()).then(|| data.to_path_buf()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_that_is_full_is_named_first() {
        let data = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(data.path().join("pg_tblspc/9")).unwrap();
        std::os::unix::fs::symlink("/mnt/fast", data.path().join("pg_tblspc/16391")).unwrap();
        let told = |file: &str| {
            let detail = format!(
                "LOG:  first\nCOPY failed for table \"a\"b\": ERROR:  could not extend file \"{file}\": No space left on device\nLOG:  then"
            );
            let error = located(Error::new(ErrorKind::DiskFull, "it ended").detail(detail), data.path());
            assert!(error.detail.unwrap().starts_with("COPY failed"));
            error.message
        };
        assert_eq!(told("pg_tblspc/16391/PG_15_202209061/5/7"), "no space left at \"/mnt/fast\": it ended");
        let inside = format!("no space left at \"{}\": it ended", data.path().display());
        assert!(["base/5/7", "pg_tblspc/9/PG_15_202209061/5/7"].iter().all(|file| told(file) == inside));
        assert_eq!(told("/tmp/x"), "no space left: it ended");
        let other = Error::new(ErrorKind::Cancelled, "stopped").detail("x");
        assert_eq!(located(other.clone(), data.path()), other);
    }
}
