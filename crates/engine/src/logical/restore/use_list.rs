//! The file that tells pg_restore which entries it takes.

use pg_ark_contract::{Error, Result};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{OpenOptions, remove_file};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How a list's name begins and ends.
const NAME: (&str, &str) = ("pg_ark-", ".list");
/// Age at which a list is one that a killed restore left: pg_restore reads it when it starts.
const OLD: Duration = Duration::from_secs(24 * 60 * 60);

/// A private file that is removed when dropped.
#[derive(Debug)]
pub struct UseList(PathBuf);

impl UseList {
    /// Lists entries by their numbers, in this order (`SortTocFromFile`, pg_backup_archiver.c, reads nothing but the number).
    ///
    /// # Errors
    /// What the system said.
    pub fn new(ids: impl Iterator<Item = u32>) -> Result<UseList> {
        let folder = std::env::temp_dir();
        sweep(&folder);
        let path = folder.join(format!("{}{}{}", NAME.0, uuid::Uuid::new_v4(), NAME.1));
        let failed = |e: std::io::Error| Error::io(format!("could not write \"{}\"", path.display()), &e);
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        let list = UseList(path.clone());
        let mut seen = BTreeSet::new();
        let text: String = ids.filter(|id| seen.insert(*id)).map(|id| format!("{id};\n")).collect();
        file.write_all(text.as_bytes()).map_err(failed)?;
        Ok(list)
    }

    /// The option that names it.
    pub fn option(&self) -> OsString {
        let mut option = OsString::from("--use-list=");
        option.push(&self.0);
        option
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for UseList {
    fn drop(&mut self) {
        // Numbers of entries: nothing that anybody would miss or should not see.
        let _ = remove_file(&self.0);
    }
}

/// Removes what killed restores of the same user left; what cannot be removed is in nobody's way.
fn sweep(folder: &Path) {
    let user = nix::unistd::geteuid().as_raw();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.strip_prefix(NAME.0)?.strip_suffix(NAME.1));
        // A symbolic link is not followed.
        let Some(found) = id.filter(|id| is_id(id)).and_then(|_| entry.metadata().ok()) else { continue };
        let is_old = found.modified().is_ok_and(|time| time.elapsed().is_ok_and(|age| age > OLD));
        if found.is_file() && found.uid() == user && is_old {
            let _ = remove_file(entry.path());
        }
    }
}

/// As this program writes it: small letters, with hyphens.
fn is_id(text: &str) -> bool {
    uuid::Uuid::try_parse(text).is_ok_and(|id| id.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn old_lists_go_and_all_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let id = uuid::Uuid::new_v4();
        let named = |name: String, age: Duration| {
            let path = folder.path().join(name);
            let file = std::fs::File::create(&path).unwrap();
            file.set_modified(std::time::SystemTime::now() - age).unwrap();
            path
        };
        let old = named(format!("pg_ark-{id}.list"), OLD * 2);
        let others = [
            named(format!("pg_ark-{}.list", uuid::Uuid::new_v4()), OLD / 2),
            named(format!("pg_ark-{}.list", id.simple()), OLD * 2),
            named(format!("pg_ark-{id}.lists"), OLD * 2),
            named("pg_ark-mine.list".into(), OLD * 2),
        ];
        let linked = folder.path().join(format!("pg_ark-{}.list", uuid::Uuid::new_v4()));
        std::os::unix::fs::symlink(&others[3], &linked).unwrap();
        sweep(folder.path());
        assert!(!old.exists());
        assert!(others.iter().chain([&linked]).all(|path| path.exists()));
    }

    #[test]
    fn a_list_is_private_and_goes() {
        let list = UseList::new([3, 1, 3].into_iter()).unwrap();
        let path = list.path().to_path_buf();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "3;\n1;\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(list);
        assert!(!path.exists());
    }
}
