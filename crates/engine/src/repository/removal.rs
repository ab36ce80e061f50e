//! Removing what is stored, and the folders that this leaves empty. Nothing behind a link is ever removed, and nothing
//! that somebody else put there.

use super::storage::{Storage, is_staged};
use chrono::DateTime;
use pg_ark_contract::{Error, Result};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

impl Storage {
    /// Removes what is directly in `prefix`, no folder, and has a name that is `ours`; of staging files of dead writers the
    /// name is that of the object. Nothing is removed where `prefix` is a link; a link in it is removed itself.
    ///
    /// # Errors
    /// What the store said.
    pub fn remove_ours(&self, prefix: &str, ours: impl Fn(&str) -> bool) -> Result<()> {
        if self.is_link(prefix) {
            return Ok(());
        }
        let folder = self.folder().join(prefix);
        for path in self.files(prefix)? {
            if ours(path.rsplit('/').next().unwrap_or_default()) {
                self.delete(&path)?;
            }
        }
        let staged = |entry: &std::fs::DirEntry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            is_staged(&name) && name.rsplit_once('#').is_some_and(|(of, _)| ours(of))
        };
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten().filter(staged) {
            if entry.file_type().is_ok_and(|kind| !kind.is_dir())
                && self.pass("remove", &entry.path()).is_ok()
            {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    /// The first thing in the folder `prefix` that is not called `name`, nor a staging file of that.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn anything_but(&self, prefix: &str, name: &str) -> Result<Option<String>> {
        let folder = self.folder().join(prefix);
        let failed = |e: std::io::Error| Error::io(format!("could not list \"{}\"", folder.display()), &e);
        let entries = match self.pass("names", &folder).and_then(|()| std::fs::read_dir(&folder)) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        let is_own = |found: &String| {
            found == name || is_staged(found) && found.rsplit_once('#').is_some_and(|(of, _)| of == name)
        };
        Ok(names.into_iter().find(|found| !is_own(found)))
    }

    /// Removes the folder `prefix` when it holds nothing, or nothing but what a writer left that was killed while it
    /// wrote the object `name` in it. Anything else stays: somebody else put it there.
    pub fn remove_unborn(&self, prefix: &str, name: &str) {
        let folder = self.folder().join(prefix);
        let is_ours = |entry: &std::fs::DirEntry| {
            let staged = entry.file_name().to_str().is_some_and(|found| {
                is_staged(found) && found.rsplit_once('#').is_some_and(|(of, _)| of == name)
            });
            staged && entry.file_type().is_ok_and(|kind| kind.is_file())
        };
        if self.is_link(prefix) || self.pass("remove", &folder).is_err() {
            return;
        }
        let Ok(entries) = std::fs::read_dir(&folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
        else {
            return;
        };
        if entries.iter().all(is_ours) {
            // What cannot be removed stays for the next one. A folder that is not empty after all is not removed.
            entries.iter().for_each(|entry| drop(std::fs::remove_file(entry.path())));
            let _ = std::fs::remove_dir(&folder);
        }
    }

    /// Removes the folder `prefix` if it is empty, and no link; says whether it is gone.
    pub fn remove_empty(&self, prefix: &str) -> bool {
        let folder = self.folder().join(prefix);
        !self.is_link(prefix)
            && self.pass("remove", &folder).is_ok()
            && match std::fs::remove_dir(&folder) {
                Ok(()) => true,
                Err(e) => e.kind() == std::io::ErrorKind::NotFound,
            }
    }

    /// Removes everything below `prefix` but the objects in `keep`, staging files of dead writers included. A link is
    /// removed itself, and nothing where `prefix` is one: what it leads to may be anybody's.
    ///
    /// # Errors
    /// What the store said.
    pub fn remove_all(&self, prefix: &str, keep: &[&str]) -> Result<()> {
        if self.is_link(prefix) {
            return Ok(());
        }
        for entry in self.walk("list", &self.folder().join(prefix))? {
            // The local store knows no staging files of unfinished uploads ("name#1").
            let staged = entry.file_name().to_string_lossy().contains('#');
            match self.below(entry.path()).filter(|_| !staged) {
                Some(path) if keep.contains(&path.as_str()) => continue,
                Some(path) => self.delete(&path)?,
                None => {
                    let removed =
                        self.pass("remove", entry.path()).and_then(|()| std::fs::remove_file(entry.path()));
                    match removed {
                        // Two may clear up after a writer at the same time.
                        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                            let what = format!("could not remove \"{}\"", entry.path().display());
                            return Err(Error::io(what, &e));
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// Removes what an unfinished writer stored in `prefix` after the repository was removed, and every folder that
    /// this leaves empty, up to the repository's own: the place can then hold a repository again.
    pub fn remove_remains(&self, prefix: &str) {
        // What cannot be removed stays and is seen by whoever uses the place next.
        let _ = self.remove_all(prefix, &[]);
        let mut folder = self.folder().join(prefix);
        while folder != self.folder() {
            let _ = std::fs::remove_dir(&folder);
            if !folder.pop() {
                return;
            }
        }
    }

    /// Removes what writers that died left directly in `prefix`: staging files, and objects whose name `is_passing`,
    /// when they are older than `age` by the store's clock: by that of a host, which may be wrong, a writer that lives
    /// could lose what it writes. A file that cannot be removed stays, as do all where `prefix` is a link.
    pub fn sweep(&self, prefix: &str, age: Duration, is_passing: impl Fn(&str) -> bool) {
        if self.is_link(prefix) {
            return;
        }
        let candidate = |entry: std::fs::DirEntry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let meta = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
            let modified = DateTime::from_timestamp(meta.mtime(), 0)?;
            (is_staged(&name) || is_passing(&name)).then(|| (entry.path(), modified))
        };
        let entries = std::fs::read_dir(self.folder().join(prefix)).into_iter().flatten().flatten();
        let found: Vec<_> = entries.filter_map(candidate).collect();
        if found.is_empty() {
            return;
        }
        let Ok(now) = self.clock() else { return };
        for (path, modified) in found {
            let is_old = now.signed_duration_since(modified).to_std().is_ok_and(|elapsed| elapsed > age);
            if is_old && self.pass("remove", &path).is_ok() {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}
