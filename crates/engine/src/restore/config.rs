//! Configuration files from outside the data directory: where each goes, and putting it there.
//!
//! An existing file is never overwritten: equal content is left as it is, other content too, with a warning.

use super::access::{Access, NEW_FILE, sync_folder};
use super::config_archive::ConfigMember;
use super::config_text::{self, Include};
use super::request::ConfigChoice;
use super::watch::Watch;
use crate::repository::Record;
use pg_ark_contract::{Error, ErrorKind, Result};
use rustix::fs::Access as Permission;
use serde::Serialize;
use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown, lchown};
use std::path::{Path, PathBuf};

/// Folder in the data directory for included files.
const INCLUDED: &str = "pg_ark_config";
/// Names of the three files that a server looks for in its data directory, and the settings that lead elsewhere.
const ROLES: [(&str, &str); 3] =
    [("config_file", "postgresql.conf"), ("hba_file", "pg_hba.conf"), ("ident_file", "pg_ident.conf")];

/// What happens to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is written.
    Write,
    /// It is there already, with equal content.
    Same,
    /// Another file is there, which is left alone.
    KeepOther,
}

/// A configuration file and where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigFile {
    /// Where it was.
    pub from: PathBuf,
    /// Where it goes.
    pub to: PathBuf,
    /// What happens there.
    pub action: Action,
}

/// What happens to configuration from outside the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigPlan {
    /// Original, pgdata or skip.
    pub choice: ConfigChoice,
    /// The files.
    pub files: Vec<ConfigFile>,
    /// The main configuration file, when it is not the one in the data directory.
    pub main: Option<PathBuf>,
}

/// What stands at the old place of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OldPlace {
    /// What would happen to the member there.
    pub action: Action,
    /// Whether it can be written there.
    pub writable: bool,
}

/// Looks at the old place of each member.
pub fn survey(members: &[ConfigMember]) -> Vec<OldPlace> {
    members.iter().map(old_place).collect()
}

fn old_place(member: &ConfigMember) -> OldPlace {
    let action = match (&member.content, std::fs::read(&member.path)) {
        (None, _) if member.path.is_dir() => Action::Same,
        (Some(content), Ok(found)) if *content == found => Action::Same,
        _ if std::fs::symlink_metadata(&member.path).is_ok() => Action::KeepOther,
        _ => Action::Write,
    };
    let above = member.path.ancestors().skip(1).find(|p| p.exists()).unwrap_or(Path::new("/"));
    let writable = rustix::fs::access(above, Permission::WRITE_OK | Permission::EXEC_OK).is_ok();
    OldPlace { action, writable: writable || action != Action::Write }
}

/// Decides where each member goes. `data` is the new data directory, `moved` says that it is not the old one.
///
/// # Errors
/// `PermissionDenied` when the old places were asked for and cannot be written.
pub fn plan(
    record: &Record,
    members: &[ConfigMember],
    old_places: &[OldPlace],
    wanted: ConfigChoice,
    data: &Path,
    moved: bool,
) -> Result<ConfigPlan> {
    let unwritable =
        members.iter().zip(old_places).find(|(_, place)| !place.writable).map(|(member, _)| member);
    let choice = match (wanted, unwritable) {
        (ConfigChoice::Auto, None) if !moved => ConfigChoice::Original,
        (ConfigChoice::Auto, _) => ConfigChoice::Pgdata,
        (ConfigChoice::Original, Some(member)) => {
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                format!("configuration file \"{}\" cannot be written", member.path.display()),
            )
            .hint("Run pgark as root, or put configuration into the data directory with --config pgdata."));
        }
        (wanted, _) => wanted,
    };
    let main = role_path(record, members, 0);
    let file = |member: &ConfigMember, place: &OldPlace| match choice {
        ConfigChoice::Original => {
            ConfigFile { from: member.path.clone(), to: member.path.clone(), action: place.action }
        }
        _ => ConfigFile {
            from: member.path.clone(),
            to: place_in_data(record, members, &member.path, data),
            action: Action::Write,
        },
    };
    Ok(ConfigPlan {
        files: match choice {
            ConfigChoice::Skip => Vec::new(),
            _ => members.iter().zip(old_places).map(|(member, place)| file(member, place)).collect(),
        },
        main: match choice {
            ConfigChoice::Pgdata => None,
            ConfigChoice::Skip => main.filter(|path| path.exists()),
            _ => main,
        },
        choice,
    })
}

/// Path of the member that plays role number `role`.
fn role_path(record: &Record, members: &[ConfigMember], role: usize) -> Option<PathBuf> {
    let (setting, name) = ROLES[role];
    let files = || members.iter().filter(|m| m.content.is_some()).map(|m| m.path.clone());
    match record.server_settings.get(setting) {
        Some(path) => files().find(|p| p == Path::new(path)),
        None => files().find(|path| path.ends_with(name)),
    }
}

fn place_in_data(record: &Record, members: &[ConfigMember], path: &Path, data: &Path) -> PathBuf {
    for (role, (_, name)) in ROLES.iter().enumerate() {
        if role_path(record, members, role).as_deref() == Some(path) {
            return data.join(name);
        }
    }
    data.join(INCLUDED).join(path.strip_prefix("/").unwrap_or(path))
}

/// Puts every file where the plan says.
///
/// # Errors
/// What the system said.
pub fn apply(
    plan: &ConfigPlan,
    record: &Record,
    members: &[ConfigMember],
    data: &Path,
    access: &Access,
    watch: &dyn Watch,
) -> Result<()> {
    match plan.choice {
        ConfigChoice::Skip => Ok(()),
        ConfigChoice::Pgdata => into_data(plan, record, members, data, access, watch),
        _ => to_old_places(plan, members, data, access, watch, &record.data_directory.path),
    }
}

fn to_old_places(
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
            (Action::Write, None) => folder_above(&file.to.join("x"), member, access)?,
            (Action::Write, Some(content)) => {
                folder_above(&file.to, member, access)?;
                let mut content = content.clone();
                if moved && plan.main.as_ref() == Some(&file.to) {
                    let path = data.display().to_string().replace('\'', "''");
                    let (begin, end) = (config_text::BLOCK_BEGIN, config_text::BLOCK_END);
                    content.extend(format!("\n{begin}\ndata_directory = '{path}'\n{end}\n").into_bytes());
                }
                write_new(&file.to, &content, member, access)?;
            }
        }
        // An included folder that was empty is in no archive, but the server insists on it.
        for folder in included(member) {
            folder_above(&folder.join("x"), member, access)?;
        }
    }
    Ok(())
}

/// Folders that a member includes.
fn included(member: &ConfigMember) -> Vec<PathBuf> {
    match (&member.content, member.path.parent()) {
        (Some(content), Some(folder)) => config_text::included_folders(content, folder),
        _ => Vec::new(),
    }
}

fn into_data(
    plan: &ConfigPlan,
    record: &Record,
    members: &[ConfigMember],
    data: &Path,
    access: &Access,
    watch: &dyn Watch,
) -> Result<()> {
    let old_data = Path::new(&record.data_directory.path);
    let in_folder = |path: &Path| data.join(INCLUDED).join(path.strip_prefix("/").unwrap_or(path));
    let moved = |kind: Include, path: &Path| match path.strip_prefix(old_data) {
        Ok(below) => Some(data.join(below)),
        Err(_) if kind == Include::Folder => Some(in_folder(path)),
        Err(_) => plan.files.iter().find(|file| file.from == path).map(|file| file.to.clone()),
    };
    let main = role_path(record, members, 0);
    for (file, member) in plan.files.iter().zip(members) {
        let Some(content) = &member.content else {
            folders_in(data, &file.to, access)?;
            continue;
        };
        let (from, to) = (file.from.parent().unwrap_or(Path::new("/")), file.to.parent().unwrap_or(data));
        let (mut text, commented) = config_text::rewrite(content, from, to, &moved);
        if Some(&file.from) == main.as_ref() {
            text.extend(config_text::closing_block(&file.from, &commented).into_bytes());
        }
        folders_in(data, to, access)?;
        for folder in included(member) {
            if let Some(new) = moved(Include::Folder, &folder) {
                folders_in(data, &new, access)?;
            }
        }
        if std::fs::symlink_metadata(&file.to).is_ok() {
            let aside = file.to.with_added_extension("unused");
            std::fs::rename(&file.to, &aside)
                .map_err(|e| Error::io(format!("could not rename \"{}\"", file.to.display()), &e))?;
            watch.warn(&format!(
                "the data directory held a \"{}\" that the server did not use; it is \"{}\" now",
                file.to.display(),
                aside.display()
            ));
        }
        access.replace_file(&file.to, &text, member.mode)?;
    }
    Ok(())
}

/// When all configuration is in the data directory but names places of the old one, those lines are commented out.
///
/// # Errors
/// What the system said.
pub fn detach(
    record: &Record,
    members: &[ConfigMember],
    data: &Path,
    access: &Access,
    watch: &dyn Watch,
) -> Result<()> {
    if role_path(record, members, 0).is_some() {
        return Ok(());
    }
    let path = data.join(ROLES[0].1);
    let Ok(text) = std::fs::read(&path) else { return Ok(()) };
    let old_data = Path::new(&record.data_directory.path);
    let moved = |_: Include, path: &Path| path.strip_prefix(old_data).ok().map(|below| data.join(below));
    let (new, commented) = config_text::rewrite(&text, old_data, data, &moved);
    if commented.is_empty() {
        return Ok(());
    }
    watch.warn(&format!(
        "commented out in \"{}\", because they name places of the old data directory: {}",
        path.display(),
        commented.join(", ")
    ));
    access.replace_file(&path, &new, NEW_FILE)
}

/// Creates the folders below the data directory that lead to `folder`, itself included.
fn folders_in(data: &Path, folder: &Path, access: &Access) -> Result<()> {
    if folder == data || folder.is_dir() || !folder.starts_with(data) {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        folders_in(data, parent, access)?;
    }
    access
        .create_folder(folder)
        .map_err(|e| Error::io(format!("could not create folder \"{}\"", folder.display()), &e))
}

/// Creates the folders above `path` where they are missing, as a package manager would: open to all, owned as the file.
fn folder_above(path: &Path, member: &ConfigMember, access: &Access) -> Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    if folder.is_dir() {
        return Ok(());
    }
    folder_above(folder, member, access)?;
    let create = || -> std::io::Result<()> {
        DirBuilder::new().mode(0o755).create(folder)?;
        std::fs::set_permissions(folder, Permissions::from_mode(0o755))?;
        let (uid, gid) = owner_of(member, access);
        lchown(folder, uid, gid)?;
        sync_folder(folder.parent().unwrap_or(Path::new("/")))
    };
    create().map_err(|e| Error::io(format!("could not create folder \"{}\"", folder.display()), &e))
}

fn write_new(path: &Path, content: &[u8], member: &ConfigMember, access: &Access) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(member.mode).open(path)?;
        file.set_permissions(Permissions::from_mode(member.mode))?;
        let (uid, gid) = owner_of(member, access);
        fchown(&file, uid, gid)?;
        file.write_all(content)?;
        file.sync_all()?;
        sync_folder(path.parent().unwrap_or(Path::new("/")))
    };
    write().map_err(|e| Error::io(format!("could not write \"{}\"", path.display()), &e))
}

/// As root, root's files stay root's and all others go to the server's owner.
fn owner_of(member: &ConfigMember, access: &Access) -> (Option<u32>, Option<u32>) {
    match &access.owner {
        Some(_) if member.uid == 0 => (Some(0), Some(if member.gid == 0 { 0 } else { member.gid })),
        Some(owner) => (Some(owner.uid), Some(owner.gid)),
        None => (None, None),
    }
}
