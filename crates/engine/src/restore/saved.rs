//! The folder that keeps an old server's WAL: beside the data directory, complete and durable before anything of the
//! old place is touched, and left there after the restore.
//!
//! Its name is that of the data directory with [`INFIX`] and the time. Until it is complete it has [`UNFINISHED`] at its
//! end, so that a restore that was killed meanwhile is not taken for one that saved everything. Where the file system
//! allows it, files are linked and not copied: a disk that WAL filled up has no room for a second copy. The old name
//! goes soon after, and what the new server gets is always a copy: a server writes over the files of its pg_wal.
//! On a disk without any room even the note has to wait until the old place was cleared; a folder without one is known
//! by its segments.

use super::access::{Access, sync_folder};
use super::old_wal::Kept;
use super::watch::{self, Watch};
use crate::bounded;
use crate::postgres::wal_segment::LongHeader;
use crate::repository::catalog;
use crate::wal::archive::WalFile;
use pg_ark_contract::{Error, ErrorKind, Lsn, Result};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What the folder's name has behind that of the data directory.
pub const INFIX: &str = ".saved-wal-";
/// What it has at its end until everything is in it.
pub const UNFINISHED: &str = ".unfinished";
/// The file that says what is in it.
pub const NOTE: &str = "saved.json";
/// No note is larger: it has a line for each file.
const MAX_NOTE: u64 = 256 << 20;
/// Bytes copied at a time.
const CHUNK: usize = 1 << 20;

const ABOUT: &str = "WAL that pgark restore found in an old pg_wal and that the archive lacked. The restored server got \
    copies of what continues the archive. Remove this folder when the server is seen to be right. To use it in another \
    restore: pgark restore --keep-wal with this folder.";

/// Shows the bytes of a file in pieces.
pub type Show<'a> = dyn FnMut(&mut dyn FnMut(&[u8]) -> std::io::Result<()>) -> Result<()> + 'a;

/// What a folder of saved WAL says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// For people.
    pub about: String,
    /// The cluster in the repository.
    pub cluster: String,
    /// Whose WAL it is.
    pub system_identifier: String,
    /// RFC 3339, UTC.
    pub saved_at: String,
    /// Folders that it was in.
    pub from: Vec<PathBuf>,
    /// End of the last whole record.
    pub end_lsn: Option<Lsn>,
    /// The files, by name.
    pub files: Vec<SavedFile>,
}

/// A file of saved WAL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedFile {
    /// Its name in `pg_wal`.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

impl Note {
    /// The note about these files.
    pub fn new(cluster: &str, system_identifier: u64, files: &[&Kept], end_lsn: Option<Lsn>) -> Note {
        let mut from: Vec<PathBuf> =
            files.iter().filter_map(|kept| kept.path.parent().map(Path::to_path_buf)).collect();
        from.sort();
        from.dedup();
        Note {
            about: ABOUT.to_string(),
            cluster: cluster.to_string(),
            system_identifier: system_identifier.to_string(),
            saved_at: catalog::now(),
            from,
            end_lsn,
            files: files.iter().map(|k| SavedFile { name: k.name.clone(), bytes: k.bytes }).collect(),
        }
    }

    fn read(folder: &Path) -> Option<Note> {
        let path = folder.join(NOTE);
        let meta = std::fs::symlink_metadata(&path).ok()?;
        if !meta.is_file() || meta.len() > MAX_NOTE {
            return None;
        }
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }
}

/// What earlier restores saved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Folders that are complete.
    pub finished: Vec<PathBuf>,
    /// Folders that were not completed.
    pub unfinished: Vec<PathBuf>,
}

/// Looks beside the data directory for folders with WAL of this system identifier.
///
/// # Errors
/// What the system said.
pub fn find(data: &Path, system_identifier: u64) -> Result<Found> {
    let (Some(parent), Some(name)) = (data.parent(), data.file_name()) else { return Ok(Found::default()) };
    let mut found = Found::default();
    let failed = |e: std::io::Error| Error::io(format!("could not look at \"{}\"", parent.display()), &e);
    let entries = match std::fs::read_dir(parent) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        entries => entries.map_err(failed)?,
    };
    let beginning = [name.as_bytes(), INFIX.as_bytes()].concat();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_folder || !entry.file_name().as_bytes().starts_with(&beginning) {
            continue;
        }
        let ours = match Note::read(&entry.path()) {
            Some(note) => Some(note.system_identifier == system_identifier.to_string()),
            None => told_by_segments(&entry.path(), system_identifier),
        };
        match (entry.file_name().as_bytes().ends_with(UNFINISHED.as_bytes()), ours) {
            // One without a note is empty, or holds second names.
            (true, Some(true) | None) => found.unfinished.push(entry.path()),
            (false, Some(true)) => found.finished.push(entry.path()),
            _ => {}
        }
    }
    found.finished.sort();
    Ok(found)
}

/// Whether the segments in a folder are of this system identifier; `None` when none tells.
fn told_by_segments(folder: &Path, system_identifier: u64) -> Option<bool> {
    let mut ours = None;
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_str().and_then(WalFile::of) != Some(WalFile::Segment) {
            continue;
        }
        let mut first = Vec::new();
        let file = bounded::open_no_link(&entry.path());
        let read = file.and_then(|file| file.take(64).read_to_end(&mut first));
        if let (Ok(_), Ok(header)) = (read, LongHeader::parse(&first)) {
            ours = Some(ours.unwrap_or(true) && header.system_identifier == system_identifier);
        }
    }
    ours
}

/// Saves files durably beside the data directory; returns the folder, and whether its note is there too: on a full disk
/// it is not, and [`write_note`] has to follow.
///
/// # Errors
/// `DiskFull`, `Cancelled`, what the system said. Nothing is left then, and nothing but the new folder was touched.
pub fn save(
    files: &[&Kept],
    note: &Note,
    data: &Path,
    access: &Access,
    watch: &dyn Watch,
) -> Result<(PathBuf, bool)> {
    let (place, unfinished) = new_place(data)?;
    let shown = unfinished.display();
    access.create_folder(&unfinished).map_err(|e| {
        advised(Error::io(format!("could not create folder \"{shown}\" for the old server's WAL"), &e))
    })?;
    let fill = || -> Result<bool> {
        let noted = match write_note(&unfinished, note, access) {
            // A second name for a file needs no room.
            Err(error) if error.kind == ErrorKind::DiskFull => false,
            written => written.map(|()| true)?,
        };
        for kept in files {
            watch::check(watch)?;
            keep(kept, &unfinished.join(&kept.name), access)?;
        }
        sync_folder(&unfinished)
            .and_then(|()| std::fs::rename(&unfinished, &place))
            .and_then(|()| sync_folder(place.parent().unwrap_or(Path::new("/"))))
            .map_err(|e| Error::io(format!("could not finish \"{shown}\""), &e))?;
        Ok(noted)
    };
    match fill() {
        Ok(noted) => Ok((place, noted)),
        Err(error) => {
            remove(&unfinished, files.iter().map(|kept| &kept.name[..]));
            Err(advised(error))
        }
    }
}

/// Writes the note of a folder durably.
///
/// # Errors
/// `DiskFull`, what the system said. No part of it is left then.
pub fn write_note(folder: &Path, note: &Note, access: &Access) -> Result<()> {
    let json = serde_json::to_vec_pretty(note)
        .map_err(|e| Error::new(ErrorKind::Internal, "could not write the note").detail(e))?;
    let path = folder.join(NOTE);
    access.replace_file(&path, &json, 0o600).inspect_err(|_| {
        let _ = std::fs::remove_file(path.with_added_extension("pg_ark_new"));
    })
}

fn advised(error: Error) -> Error {
    match error.kind {
        ErrorKind::Cancelled => error.hint("Nothing of the old server was touched."),
        _ => error.hint(
            "Nothing of the old server was touched: its WAL has to be safe first. Make room there, or copy its pg_wal to \
             another disk and name the copy with --keep-wal.",
        ),
    }
}

/// A name that is free, and the one until everything is there.
fn new_place(data: &Path) -> Result<(PathBuf, PathBuf)> {
    let time = chrono::Utc::now().format("%Y%m%dT%H%M%SZ");
    for number in 1..1000 {
        let mut place = OsString::from(data);
        place.push(format!("{INFIX}{time}"));
        if number > 1 {
            place.push(format!("-{number}"));
        }
        let mut unfinished = place.clone();
        unfinished.push(UNFINISHED);
        let places = (PathBuf::from(place), PathBuf::from(unfinished));
        let free = |path: &Path| std::fs::symlink_metadata(path).is_err();
        if free(&places.0) && free(&places.1) {
            return Ok(places);
        }
    }
    Err(Error::new(ErrorKind::Io, format!("there are too many folders \"{}{INFIX}{time}\"", data.display())))
}

/// Removes an unfinished folder as far as its note tells what is in it, and of WAL what has another name; what else is
/// there stays.
pub fn remove_unfinished(folder: &Path) {
    let mut names: Vec<String> =
        Note::read(folder).map(|note| note.files).unwrap_or_default().into_iter().map(|f| f.name).collect();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let twice = std::fs::symlink_metadata(entry.path()).is_ok_and(|m| m.is_file() && m.nlink() > 1);
        names.extend(entry.file_name().into_string().ok().filter(|n| twice && WalFile::of(n).is_some()));
    }
    remove(folder, names.iter().map(String::as_str));
}

/// Removes a folder with these files and its note.
fn remove<'a>(folder: &Path, names: impl Iterator<Item = &'a str>) {
    for name in names.filter(|name| !name.contains('/') && *name != "..") {
        // What cannot be removed is in nobody's way: the folder keeps its name and is not used.
        let _ = std::fs::remove_file(folder.join(name));
    }
    let _ = std::fs::remove_file(folder.join(NOTE));
    let _ = std::fs::remove_file(folder.join(NOTE).with_added_extension("pg_ark_new"));
    let _ = std::fs::remove_dir(folder);
}

/// Gives a file a second name, or copies it where that is not possible.
fn keep(kept: &Kept, to: &Path, access: &Access) -> Result<()> {
    if std::fs::hard_link(&kept.path, to).is_ok() {
        return File::open(to)
            .and_then(|file| file.sync_all())
            .map_err(|e| Error::io(format!("could not sync \"{}\"", to.display()), &e));
    }
    copy(&kept.path, to, access)
}

/// Copies a file durably to one that must not exist, and reads it back.
///
/// # Errors
/// `DiskFull`, what the system said; `Io` when the copy reads back differently.
pub fn copy(from: &Path, to: &Path, access: &Access) -> Result<()> {
    // Root gives no file away that somebody put a link to in an old pg_wal.
    let open = bounded::open_no_link(from);
    let failed = |e: std::io::Error| {
        Error::io(format!("could not copy \"{}\" to \"{}\"", from.display(), to.display()), &e)
    };
    let mut source = open.map_err(failed)?;
    write(to, access, &mut |sink| sum(&mut source, sink).map(|_| ()).map_err(failed))
}

/// Writes a file that must not exist durably, with what `source` shows, and reads it back.
///
/// # Errors
/// `DiskFull`, what the system or `source` said; `Io` when the file reads back differently.
pub fn write(to: &Path, access: &Access, source: &mut Show<'_>) -> Result<()> {
    let failed = |e: std::io::Error| Error::io(format!("could not write \"{}\"", to.display()), &e);
    let mut file = access.create_file(to, 0o600).map_err(failed)?;
    let mut written = 0;
    source(&mut |piece| {
        written = crc32c::crc32c_append(written, piece);
        file.write_all(piece)
    })?;
    file.sync_all().map_err(failed)?;
    // Advice: the bytes come from the disk then, not from memory.
    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    let found = File::open(to).and_then(|mut file| sum(&mut file, &mut |_| Ok(()))).map_err(failed)?;
    match written == found {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::Io,
            format!("the copy \"{}\" is not what was written to it", to.display()),
        )
        .hint("The disk is not to be trusted. Use another one.")),
    }
}

fn sum(file: &mut File, sink: &mut dyn FnMut(&[u8]) -> std::io::Result<()>) -> std::io::Result<u32> {
    let (mut crc, mut buffer) = (0, vec![0; CHUNK]);
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => return Ok(crc),
            Ok(count) => count,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        let piece = buffer.get(..count).unwrap_or_default();
        crc = crc32c::crc32c_append(crc, piece);
        sink(piece)?;
    }
}

#[cfg(test)]
mod tests {
    use super::super::watch::Silent;
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const ACCESS: Access = Access { owner: None, group_access: false };

    fn kept(folder: &Path, name: &str) -> Kept {
        std::fs::write(folder.join(name), name.repeat(100_000)).unwrap();
        let bytes = name.len() as u64 * 100_000;
        Kept { name: name.into(), path: folder.join(name), bytes, doomed: true, stored: None }
    }

    #[test]
    fn what_was_saved_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let files = [kept(&data, "a"), kept(&data, "b")];
        let files: Vec<&Kept> = files.iter().collect();
        let note = Note::new("main", 7, &files, Some(Lsn(5)));
        let (first, noted) = save(&files, &note, &data, &ACCESS, &Silent).unwrap();
        let (second, _) = save(&files, &note, &data, &ACCESS, &Silent).unwrap();
        assert!(noted);
        assert_ne!(first, second);
        assert_eq!(find(&data, 7).unwrap().finished, [first.clone(), second]);
        assert_eq!(find(&data, 8).unwrap(), Found::default(), "of another cluster");
        assert_eq!(find(&dir.path().join("dat"), 7).unwrap(), Found::default());
        assert_eq!(first.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::remove_dir_all(&data).unwrap();
        assert_eq!(std::fs::read(first.join("b")).unwrap(), b"b".repeat(100_000));
        assert_eq!(Note::read(&first).unwrap(), note);
    }

    #[test]
    fn a_failed_save_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let mut files = [kept(&data, "a"), kept(&data, "b")];
        files[1].path = data.join("gone");
        let files: Vec<&Kept> = files.iter().collect();
        let note = Note::new("main", 7, &files, None);
        let error = save(&files, &note, &data, &ACCESS, &Silent).unwrap_err();
        assert!(error.hint.unwrap().contains("Nothing of the old server was touched"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_unfinished_folder_goes_and_what_is_strange_in_it_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (data, folder) = (dir.path().join("data"), dir.path().join("data.saved-wal-x.unfinished"));
        std::fs::create_dir(&folder).unwrap();
        let mut file = kept(&folder, "a");
        file.name = "../data".into();
        let note = Note::new("main", 7, &[&kept(&folder, "b"), &file], None);
        std::fs::write(folder.join(NOTE), serde_json::to_vec(&note).unwrap()).unwrap();
        std::fs::write(&data, "mine").unwrap();
        assert_eq!(find(&data, 7).unwrap(), Found { finished: vec![], unfinished: vec![folder.clone()] });
        remove_unfinished(&folder);
        assert!(folder.join("a").exists() && !folder.join("b").exists() && data.exists());
        // One that was killed before it wrote its note; a new one does not trip over it.
        std::fs::remove_file(folder.join("a")).unwrap();
        assert_eq!(find(&data, 7).unwrap().unfinished, std::slice::from_ref(&folder));
        let (place, unfinished) = new_place(&data).unwrap();
        std::fs::create_dir(&unfinished).unwrap();
        assert_ne!(new_place(&data).unwrap().0, place);
        remove_unfinished(&folder);
        assert!(!folder.exists());
    }

    #[test]
    fn a_folder_that_a_full_disk_left_without_a_note_is_known_by_its_segments() {
        let dir = tempfile::tempdir().unwrap();
        let (data, folder) = (dir.path().join("data"), dir.path().join("data.saved-wal-x"));
        std::fs::create_dir(&folder).unwrap();
        let place = super::super::old_wal_fixture::Place::new(1);
        let name = "000000010000000000000004";
        std::fs::write(folder.join(name), &place.segments[0]).unwrap();
        let own = place.archive.system_identifier();
        assert_eq!(find(&data, own).unwrap().finished, std::slice::from_ref(&folder));
        assert_eq!(find(&data, 8).unwrap(), Found::default());
        // Killed before it had its name: what has no other name stays.
        let unfinished = dir.path().join("data.saved-wal-x.unfinished");
        std::fs::rename(&folder, &unfinished).unwrap();
        remove_unfinished(&unfinished);
        assert!(unfinished.join(name).exists());
        std::fs::hard_link(unfinished.join(name), dir.path().join(name)).unwrap();
        remove_unfinished(&unfinished);
        assert!(!unfinished.exists() && dir.path().join(name).exists());
    }

    #[test]
    fn a_copy_is_a_file_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let file = kept(dir.path(), "a");
        let to = dir.path().join("copy");
        copy(&file.path, &to, &ACCESS).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), std::fs::read(&file.path).unwrap());
        assert_eq!((to.metadata().unwrap().nlink(), to.metadata().unwrap().mode() & 0o777), (1, 0o600));
        assert!(copy(&file.path, &to, &ACCESS).is_err(), "it never replaces");
        std::os::unix::fs::symlink(&file.path, dir.path().join("link")).unwrap();
        assert!(
            copy(&dir.path().join("link"), &dir.path().join("other"), &ACCESS).is_err(),
            "it follows no link"
        );
    }
}
