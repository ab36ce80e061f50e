//! `pg_wal` and tablespace links: made last, so that nothing is ever written through one.

use super::access::{Access, NEW_FILE};
use super::check::Mapped;
use super::tree::Roots;
use crate::bounded;
use crate::postgres::backup_label::{TABLESPACE_MAP, format_tablespace_map, parse_tablespace_map};
use pg_ark_contract::{Error, Result};
use std::os::unix::fs::symlink;
use std::path::Path;

/// Makes `pg_wal` a folder with the subfolders that the server expects, or a link to one.
///
/// # Errors
/// What the system said.
pub fn wal(roots: &Roots, server_major: u32, access: &Access) -> Result<()> {
    let place = roots.data.join("pg_wal");
    if let Some(folder) = &roots.wal {
        link(folder, &place, access)?;
    }
    let summaries = (server_major >= 17).then_some("summaries");
    for name in ["", "archive_status"].into_iter().chain(summaries) {
        let folder = if name.is_empty() { place.clone() } else { place.join(name) };
        if !is_folder(&folder)? {
            access
                .create_folder(&folder)
                .map_err(|e| Error::io(format!("could not create folder \"{}\"", folder.display()), &e))?;
        }
    }
    Ok(())
}

fn is_folder(path: &Path) -> Result<bool> {
    match std::fs::metadata(path) {
        Ok(meta) => Ok(meta.is_dir()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io(format!("could not look at \"{}\"", path.display()), &e)),
    }
}

/// Links tablespaces to where they are now, and says so in `tablespace_map`, from which the server makes the links
/// again when recovery begins. Returns whether the map was changed.
///
/// # Errors
/// `Corrupt` for a damaged map; what the system said.
pub fn tablespaces(data: &Path, mapped: &[Mapped], access: &Access) -> Result<bool> {
    if mapped.is_empty() {
        return Ok(false);
    }
    let folder = data.join("pg_tblspc");
    if !is_folder(&folder)? {
        access
            .create_folder(&folder)
            .map_err(|e| Error::io(format!("could not create folder \"{}\"", folder.display()), &e))?;
    }
    for tablespace in mapped {
        link(&tablespace.to, &folder.join(tablespace.oid.to_string()), access)?;
    }
    let path = data.join(TABLESPACE_MAP);
    let bytes = match bounded::read(&path, bounded::MAX_TEXT) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        read => read.map_err(|e| Error::io(format!("could not read \"{}\"", path.display()), &e))?,
    };
    let mut entries = parse_tablespace_map(&bytes)?;
    let mut changed = false;
    for entry in &mut entries {
        if let Some(tablespace) = mapped.iter().find(|t| t.oid == entry.oid) {
            let to = tablespace.to.display().to_string();
            changed |= entry.path != to;
            entry.path = to;
        }
    }
    if changed {
        access.replace_file(&path, format_tablespace_map(&entries).as_bytes(), NEW_FILE)?;
    }
    Ok(changed)
}

fn link(target: &Path, place: &Path, access: &Access) -> Result<()> {
    symlink(target, place)
        .and_then(|()| access.give(place))
        .map_err(|e| Error::io(format!("could not create link \"{}\"", place.display()), &e))
}
