//! Configuration files from outside the data directory: where each goes. [`super::config_places`] puts them back where
//! they were, [`super::config_in_data`] into the data directory.

use super::access::Access;
use super::config_archive::ConfigMember;
use super::config_in_data;
use super::config_places;
use super::request::ConfigChoice;
use super::watch::Watch;
use crate::repository::Record;
use pg_ark_contract::{Error, ErrorKind, Result};
use rustix::fs::Access as Permission;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Folder in the data directory for included files.
const INCLUDED: &str = "pg_ark_config";
/// Where root puts files back without being told to: Debian's folder of what belongs to servers.
const OWN_PLACE: &str = "/etc/postgresql";
/// Names of the three files that a server looks for in its data directory, and the settings that lead elsewhere.
pub(crate) const ROLES: [(&str, &str); 3] =
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
    /// Whether it can be written there: by this user, and for root without following a symbolic link.
    pub writable: bool,
}

/// Where the restore goes, and who runs it.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The new data directory.
    pub data: &'a Path,
    /// It is not the old one.
    pub moved: bool,
    /// Root runs the restore.
    pub is_root: bool,
    /// Somebody but root will own what is restored.
    pub owned: bool,
}

/// Looks at the old place of each member.
pub fn survey(members: &[ConfigMember], is_root: bool) -> Vec<OldPlace> {
    members.iter().map(|member| old_place(member, is_root)).collect()
}

fn old_place(member: &ConfigMember, is_root: bool) -> OldPlace {
    let path = &member.path;
    let size = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|meta| meta.len());
    let action = match &member.content {
        None if path.is_dir() => Action::Same,
        // Read only what can be equal: the path may name a device or something huge.
        Some(content)
            if size == Some(content.len() as u64) && std::fs::read(path).is_ok_and(|r| r == *content) =>
        {
            Action::Same
        }
        _ if std::fs::symlink_metadata(path).is_ok() => Action::KeepOther,
        _ => Action::Write,
    };
    let above = path.ancestors().skip(1).find(|p| std::fs::symlink_metadata(p).is_ok());
    let above = above.unwrap_or(Path::new("/"));
    let straight = !is_root || above.canonicalize().is_ok_and(|real| real == above);
    let writable = straight && rustix::fs::access(above, Permission::WRITE_OK | Permission::EXEC_OK).is_ok();
    OldPlace { action, writable: writable || action != Action::Write }
}

/// Where configuration goes when the user left it open, and what to tell about that. Root puts files back only into
/// [`OWN_PLACE`]: elsewhere, in a folder of scripts for example, a file that the repository made up could do harm.
fn automatic(
    members: &[ConfigMember],
    places: &[OldPlace],
    target: Target<'_>,
) -> (ConfigChoice, Option<String>) {
    if target.moved || places.iter().any(|place| !place.writable) {
        return (ConfigChoice::Pgdata, None);
    }
    let own = |m: &ConfigMember| m.path.starts_with(OWN_PLACE) && m.path != Path::new(OWN_PLACE);
    match members.iter().find(|member| !own(member)) {
        _ if !target.is_root => (ConfigChoice::Original, None),
        None if target.owned || members.is_empty() => (ConfigChoice::Original, None),
        None => (ConfigChoice::Pgdata, None),
        Some(member) => {
            let told = format!(
                "configuration goes into the data directory, since \"{}\" is not below {OWN_PLACE} and root writes \
                 nowhere else unasked; if you trust the repository, --config original puts it back where it was",
                member.path.display()
            );
            (ConfigChoice::Pgdata, Some(told))
        }
    }
}

/// Decides where each member goes; what the user should know about that is added to `warnings`.
///
/// # Errors
/// `PermissionDenied` when the old places were asked for and cannot be written.
pub fn plan(
    record: &Record,
    members: &[ConfigMember],
    old_places: &[OldPlace],
    wanted: ConfigChoice,
    target: Target<'_>,
    warnings: &mut Vec<String>,
) -> Result<ConfigPlan> {
    let choice = match wanted {
        ConfigChoice::Auto => {
            let (choice, told) = automatic(members, old_places, target);
            warnings.extend(told);
            choice
        }
        ConfigChoice::Original => {
            check_original(members, old_places, target)?;
            wanted
        }
        ConfigChoice::Pgdata | ConfigChoice::Skip => wanted,
    };
    let main = role_path(record, members, 0);
    let file = |member: &ConfigMember, place: &OldPlace| match choice {
        ConfigChoice::Original => {
            ConfigFile { from: member.path.clone(), to: member.path.clone(), action: place.action }
        }
        _ => ConfigFile {
            from: member.path.clone(),
            to: place_in_data(record, members, &member.path, target.data),
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

fn check_original(members: &[ConfigMember], places: &[OldPlace], target: Target<'_>) -> Result<()> {
    let writes = |place: &&OldPlace| place.action == Action::Write;
    if target.is_root && !target.owned && places.iter().any(|place| writes(&place)) {
        return Err(Error::new(
            ErrorKind::PermissionDenied,
            "configuration files would belong to root, since there is no user who could own the server",
        )
        .hint(
            "Create the user postgres, or put configuration into the data directory with --config pgdata.",
        ));
    }
    match members.iter().zip(places).find(|(_, place)| !place.writable) {
        None => Ok(()),
        Some((member, _)) => Err(Error::new(
            ErrorKind::PermissionDenied,
            format!("configuration file \"{}\" cannot be written", member.path.display()),
        )
        .hint(match target.is_root {
            true => {
                "Its folder may be read-only or be reached through a symbolic link, which root does not follow. \
                 Put configuration into the data directory with --config pgdata."
            }
            false => "Run pgark as root, or put configuration into the data directory with --config pgdata.",
        })),
    }
}

/// Path of the member that plays role number `role`.
pub(super) fn role_path(record: &Record, members: &[ConfigMember], role: usize) -> Option<PathBuf> {
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
    place_apart(data, path)
}

/// Where a file or folder that plays no role of its own goes in the data directory.
pub(super) fn place_apart(data: &Path, path: &Path) -> PathBuf {
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
        ConfigChoice::Pgdata => config_in_data::apply(plan, record, members, data, access, watch),
        _ => config_places::apply(plan, members, data, access, watch, &record.data_directory.path),
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
