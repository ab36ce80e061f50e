//! The file that tells pg_restore which entries it takes.

use pg_ark_contract::{Error, Result};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{OpenOptions, remove_file};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A private file that is removed when dropped.
#[derive(Debug)]
pub struct UseList(PathBuf);

impl UseList {
    /// Lists entries by their numbers, in this order (`SortTocFromFile`, pg_backup_archiver.c, reads nothing but the number).
    ///
    /// # Errors
    /// What the system said.
    pub fn new(ids: impl Iterator<Item = u32>) -> Result<UseList> {
        let path = std::env::temp_dir().join(format!("pg_ark-{}.list", uuid::Uuid::new_v4()));
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

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
