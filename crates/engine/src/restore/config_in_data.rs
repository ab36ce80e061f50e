//! Configuration files from outside the data directory, moved into it.

use super::access::{Access, NEW_FILE};
use super::config::{ConfigPlan, ROLES, place_apart, role_path};
use super::config_archive::ConfigMember;
use super::config_places::included;
use super::config_text::{self, Include};
use super::watch::Watch;
use crate::bounded;
use crate::repository::Record;
use pg_ark_contract::{Error, Result};
use std::path::Path;

/// Puts every file into the data directory, and leads what they include there.
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
    let old_data = Path::new(&record.data_directory.path);
    let moved = |kind: Include, path: &Path| match path.strip_prefix(old_data) {
        Ok(below) => Some(data.join(below)),
        Err(_) if kind == Include::Folder => Some(place_apart(data, path)),
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

/// When all configuration is in the data directory but names places of the old one, those lines are commented out. Returns whether there were any.
///
/// # Errors
/// What the system said.
pub fn detach(
    record: &Record,
    members: &[ConfigMember],
    data: &Path,
    access: &Access,
    watch: &dyn Watch,
) -> Result<bool> {
    if role_path(record, members, 0).is_some() {
        return Ok(false);
    }
    let path = data.join(ROLES[0].1);
    let Ok(text) = bounded::read(&path, bounded::MAX_TEXT) else { return Ok(false) };
    let old_data = Path::new(&record.data_directory.path);
    let moved = |_: Include, path: &Path| path.strip_prefix(old_data).ok().map(|below| data.join(below));
    let (new, commented) = config_text::rewrite(&text, old_data, data, &moved);
    if commented.is_empty() {
        return Ok(false);
    }
    watch.warn(&format!(
        "commented out in \"{}\", because they name places of the old data directory: {}",
        path.display(),
        commented.join(", ")
    ));
    access.replace_file(&path, &new, NEW_FILE)?;
    Ok(true)
}

/// Creates the folders below the data directory that lead to `folder`, itself included.
pub(crate) fn folders_in(data: &Path, folder: &Path, access: &Access) -> Result<()> {
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
