//! Owner and permissions of everything that a restore creates.

use pg_ark_contract::{Error, Result};
use serde::Serialize;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown, lchown};
use std::path::Path;

/// Mode of a file that the restore itself makes: the group reads it where it may read the backup's own.
pub const NEW_FILE: u32 = 0o640;

/// Who owns what is created, and whether the group may read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Access {
    /// User and group to give everything to; none: whoever runs the restore.
    pub owner: Option<Owner>,
    /// Folders get 0750 and files that had it keep 0640; otherwise 0700 and 0600.
    pub group_access: bool,
}

/// A user and a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// Numeric user.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Name of the user, when it has one.
    pub user: Option<String>,
}

impl Access {
    /// Permission bits of a folder.
    pub fn folder_mode(&self) -> u32 {
        if self.group_access { 0o750 } else { 0o700 }
    }

    /// Permission bits of a file that had `mode`.
    pub fn file_mode(&self, mode: u32) -> u32 {
        if self.group_access { 0o600 | mode & 0o040 } else { 0o600 }
    }

    /// Creates a file that must not exist.
    ///
    /// # Errors
    /// What the system said, `AlreadyExists` included.
    pub fn create_file(&self, path: &Path, mode: u32) -> std::io::Result<File> {
        let mode = self.file_mode(mode);
        let file = OpenOptions::new().write(true).read(true).create_new(true).mode(mode).open(path)?;
        // The umask may have cut the group's bit.
        if mode != 0o600 {
            file.set_permissions(Permissions::from_mode(mode))?;
        }
        if let Some(owner) = &self.owner {
            fchown(&file, Some(owner.uid), Some(owner.gid))?;
        }
        Ok(file)
    }

    /// Creates a folder that must not exist.
    ///
    /// # Errors
    /// What the system said, `AlreadyExists` included.
    pub fn create_folder(&self, path: &Path) -> std::io::Result<()> {
        DirBuilder::new().mode(0o700).create(path)?;
        self.adopt_folder(path)
    }

    /// Gives a folder that is ours its mode and owner.
    ///
    /// # Errors
    /// What the system said.
    pub fn adopt_folder(&self, path: &Path) -> std::io::Result<()> {
        std::fs::set_permissions(path, Permissions::from_mode(self.folder_mode()))?;
        self.give(path)
    }

    /// Gives a path, or the link itself if it is one, to the owner.
    ///
    /// # Errors
    /// What the system said.
    pub fn give(&self, path: &Path) -> std::io::Result<()> {
        match &self.owner {
            Some(owner) => lchown(path, Some(owner.uid), Some(owner.gid)),
            None => Ok(()),
        }
    }

    /// Writes a small file whole, replacing any other, durably: temporary name, fsync, rename, fsync of the folder.
    ///
    /// # Errors
    /// What the system said.
    pub fn replace_file(&self, path: &Path, content: &[u8], mode: u32) -> Result<()> {
        let shown = path.display();
        let temporary = path.with_added_extension("pg_ark_new");
        let write = || -> std::io::Result<()> {
            match std::fs::remove_file(&temporary) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let mut file = self.create_file(&temporary, mode)?;
            std::io::Write::write_all(&mut file, content)?;
            file.sync_all()?;
            std::fs::rename(&temporary, path)?;
            sync_folder(path.parent().unwrap_or(Path::new("/")))
        };
        write().map_err(|e| {
            // No room for half a file; one that has its name by now is not there.
            let _ = std::fs::remove_file(&temporary);
            Error::io(format!("could not write \"{shown}\""), &e)
        })
    }
}

/// Makes the names in a folder durable.
///
/// # Errors
/// What the system said.
pub fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}
