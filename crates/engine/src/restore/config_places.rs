//! Configuration files back where they were.
//!
//! Root writes here what a repository says, so little is left to the repository: nothing belongs to root, nothing can
//! be executed, nothing existing is changed, and no symbolic link is followed. An existing file is never overwritten:
//! equal content is left as it is, other content too, with a warning.

use super::access::Access;
use super::config::{Action, ConfigPlan};
use super::config_archive::ConfigMember;
use super::config_text;
use super::watch::Watch;
use pg_ark_contract::{Error, Result};
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

/// Bits that a file may have: never to be executed, nor written by anyone but its owner.
const FILE_BITS: u32 = 0o644;
/// Folders are open to all, as a package manager makes them.
const FOLDER_MODE: u32 = 0o755;

/// Puts every file back where it was.
///
/// # Errors
/// What the system said; a symbolic link on the way is an error.
pub fn apply(
    plan: &ConfigPlan,
    members: &[ConfigMember],
    data: &Path,
    access: &Access,
    watch: &dyn Watch,
    old_data: &str,
) -> Result<()> {
    let moved =
        Path::new(old_data) != data && Path::new(old_data).canonicalize().ok().as_deref() != Some(data);
    for (file, member) in plan.files.iter().zip(members) {
        match (file.action, &member.content) {
            (Action::Same, _) => {}
            (Action::KeepOther, _) => watch
                .warn(&format!("\"{}\" differs from the backup's and was left as it is", file.to.display())),
            (Action::Write, None) => create_folder(&file.to, access)?,
            (Action::Write, Some(content)) => {
                let mut content = content.clone();
                if moved && plan.main.as_ref() == Some(&file.to) {
                    let path = data.display().to_string().replace('\'', "''");
                    let (begin, end) = (config_text::BLOCK_BEGIN, config_text::BLOCK_END);
                    content.extend(format!("\n{begin}\ndata_directory = '{path}'\n{end}\n").into_bytes());
                }
                write_new(&file.to, &content, member.mode, access)?;
            }
        }
    }
    include_folders(members, access, watch)
}

/// Creates the empty folders that members include: they are in no archive, but the server insists on them.
fn include_folders(members: &[ConfigMember], access: &Access, watch: &dyn Watch) -> Result<()> {
    let missing = members.iter().flat_map(included).filter(|folder| !folder.is_dir());
    for folder in missing {
        // The text of a file may name any place; only those beside files that the plan showed are made.
        let beside = |member: &ConfigMember| member.path.parent().is_some_and(|p| folder.starts_with(p));
        if members.iter().any(beside) {
            create_folder(&folder, access)?;
        } else {
            watch.warn(&format!(
                "the configuration includes \"{}\", which is not there: create it before the server starts",
                folder.display()
            ));
        }
    }
    Ok(())
}

/// Folders that a member includes.
pub(super) fn included(member: &ConfigMember) -> Vec<PathBuf> {
    match (&member.content, member.path.parent()) {
        (Some(content), Some(folder)) => config_text::included_folders(content, folder),
        _ => Vec::new(),
    }
}

fn create_folder(path: &Path, access: &Access) -> Result<()> {
    open_folder(path, access)
        .map(drop)
        .map_err(|e| Error::io(format!("could not create folder \"{}\"", path.display()), &e))
}

/// Writes a file that must not exist, and makes it durable.
pub(super) fn write_new(path: &Path, content: &[u8], mode: u32, access: &Access) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::INVAL.into());
        };
        let folder = open_folder(folder, access)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(&folder, name, flags, Mode::RUSR | Mode::WUSR)?);
        file.write_all(content)?;
        give(&file, access)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(0o600 | mode & FILE_BITS))?;
        file.sync_all()?;
        sync(&folder)
    };
    write().map_err(|e| Error::io(format!("could not write \"{}\"", path.display()), &e))
}

/// Opens a folder by its absolute path, step by step from the root, and creates what is missing on the way. Who may
/// give files away (root) follows no link: whoever owns a folder on the way could lead it anywhere.
fn open_folder(path: &Path, access: &Access) -> std::io::Result<OwnedFd> {
    let mut flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut folder = rustix::fs::openat(CWD, "/", flags, Mode::empty())?;
    if access.owner.is_some() {
        flags |= OFlags::NOFOLLOW;
    }
    for component in path.components() {
        let name = match component {
            Component::RootDir => continue,
            Component::Normal(name) => name,
            _ => return Err(Errno::INVAL.into()),
        };
        folder = match rustix::fs::openat(&folder, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => {
                rustix::fs::mkdirat(&folder, name, Mode::RWXU)?;
                let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let new = rustix::fs::openat(&folder, name, flags, Mode::empty())?;
                rustix::fs::fchmod(&new, Mode::from_raw_mode(FOLDER_MODE))?;
                give(&new, access)?;
                sync(&folder)?;
                new
            }
            opened => opened?,
        };
    }
    Ok(folder)
}

fn give(file: impl std::os::fd::AsFd, access: &Access) -> std::io::Result<()> {
    match &access.owner {
        Some(owner) => {
            let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
            Ok(rustix::fs::fchown(file, Some(uid), Some(gid))?)
        }
        None => Ok(()),
    }
}

/// Makes the names in a folder durable.
fn sync(folder: &OwnedFd) -> std::io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::fsync(rustix::fs::openat(folder, ".", flags, Mode::empty())?)?)
}

#[cfg(test)]
#[path = "config_places_tests.rs"]
mod tests;
