//! Stores one file of `pg_wal`: looks at it, encodes it, creates its object, and never touches one that is there.

use super::archive::{Archive, Found, MAX_BACKUP_HISTORY, MAX_HISTORY, WalFile};
use super::object::{self, ObjectReader};
use super::summary::{Summarizer, Summary};
use crate::codec::frame::FRAME_SIZE;
use crate::postgres::timeline::{TimelineHistory, timeline_of_history_file};
use crate::postgres::wal_segment::{ExpectedSegment, SegmentName, check_first_page};
use bytes::Bytes;
use pg_ark_contract::settings::Compression;
use pg_ark_contract::{Error, ErrorKind, Lsn, Result, SegmentSize, Timeline};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The server whose WAL is stored.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its `pg_wal`.
    pub folder: PathBuf,
    /// Bytes in a segment, from its pg_control.
    pub segment_size: SegmentSize,
    /// Its major version, where known.
    pub server_major: Option<u32>,
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// False when the archive held it already, with equal content.
    pub created: bool,
    /// What a segment holds; `None` for other files, and for a segment that was there already.
    pub summary: Option<Summary>,
}

/// A file that was looked at and encoded, and is not stored yet.
#[derive(Debug)]
pub struct Prepared {
    name: String,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// The archive holds it, with equal content.
    None,
    Segment {
        /// Where it goes.
        target: Found,
        expected: ExpectedSegment,
        file: PathBuf,
        encoded: Bytes,
        summary: Option<Summary>,
    },
    Plain {
        path: String,
        content: Vec<u8>,
    },
}

impl Prepared {
    /// Name of the file.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Stores `name` durably. The archive may hold it already, if its content is equal.
///
/// # Errors
/// `InvalidArgument` for a name that is no WAL file's; `WalMissing` when the file is not in pg_wal; `Corrupt` or
/// `ForeignCluster` when it is not what its name says; `WalConflict` when the archive holds other content under the
/// name; what the systems said. The archive is unchanged then.
pub fn store(archive: &Archive, source: &Source, name: &str, compression: Compression) -> Result<Outcome> {
    let outcome = commit(archive, prepare(archive, source, name, compression)?)?;
    settle(archive, name)?;
    Ok(outcome)
}

/// The first half of [`store`]: reads, checks and encodes the file. Several may be prepared at the same time; each
/// holds no more memory than the file has bytes.
///
/// # Errors
/// As [`store`].
pub fn prepare(archive: &Archive, source: &Source, name: &str, compression: Compression) -> Result<Prepared> {
    let path = archive.path(name)?;
    let work = match WalFile::of(name) {
        Some(WalFile::Segment | WalFile::Partial) => segment(archive, source, name, path, compression)?,
        _ => plain(source, name, path)?,
    };
    Ok(Prepared { name: name.to_string(), work })
}

/// The second half of [`store`]: creates the object. It is durable then, if its folder is ([`settle`]).
///
/// # Errors
/// As [`store`].
pub fn commit(archive: &Archive, prepared: Prepared) -> Result<Outcome> {
    let (created, summary) = match prepared.work {
        Work::None => (false, None),
        Work::Plain { path, content } => (create_plain(archive, &prepared.name, &path, content)?, None),
        Work::Segment { target, expected, file, encoded, summary } => {
            // Somebody may have been faster: a standby with archive_mode = always, or a server that must not be.
            let there = match archive.find(&prepared.name)? {
                Some(found) => Some(found),
                None if archive.storage().create(&target.path, encoded)? => None,
                None => Some(target),
            };
            match there {
                None => (true, summary),
                Some(found) => {
                    compare_segment(archive, &found, &expected, &prepared.name, &file)?;
                    (false, None)
                }
            }
        }
    };
    Ok(Outcome { created, summary })
}

/// Makes the folders that lead to `name` durable: whoever made them may have been killed before.
///
/// # Errors
/// What the store said.
pub fn settle(archive: &Archive, name: &str) -> Result<()> {
    let path = archive.path(name)?;
    archive.storage().sync_folders(path.rsplit_once('/').map_or("", |(folder, _)| folder))
}

fn segment(
    archive: &Archive,
    source: &Source,
    name: &str,
    path: String,
    compression: Compression,
) -> Result<Work> {
    let size = source.segment_size;
    let file_path = source.folder.join(name);
    let parsed = name.get(..24).and_then(|stem| SegmentName::parse(stem, size)).ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidArgument,
            format!("\"{name}\" is not the name of a WAL segment of {} bytes", size.bytes()),
        )
    })?;
    let expected = ExpectedSegment {
        name: parsed,
        segment_size: size,
        system_identifier: archive.system_identifier(),
        server_major: source.server_major,
    };
    let mut file = open(&file_path)?;
    check_length(&file, &file_path, size)?;
    if let Some(found) = archive.find(name)? {
        compare_segment(archive, &found, &expected, name, &file_path)?;
        return Ok(Work::None);
    }
    let mut summarizer = Summarizer::new(parsed, size);
    let mut first = true;
    let encoded = object::encode(compression, &mut file, size.bytes(), &shown(&file_path), &mut |piece| {
        if std::mem::take(&mut first) {
            check_first_page(piece, &expected).map_err(|e| located(e, &file_path))?;
        }
        summarizer.feed(piece);
        Ok(())
    })?;
    let codec = object::compression(compression).codec;
    let target = Found { path: format!("{path}{}", codec.suffix()), codec };
    let summary = (WalFile::of(name) == Some(WalFile::Segment)).then(|| summarizer.finish());
    Ok(Work::Segment { target, expected, file: file_path, encoded, summary })
}

fn check_length(file: &File, path: &Path, size: SegmentSize) -> Result<()> {
    let meta =
        file.metadata().map_err(|e| Error::io(format!("could not look at \"{}\"", path.display()), &e))?;
    if meta.len() == size.bytes() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Corrupt,
        format!("\"{}\" has {} bytes, a WAL segment has {}", path.display(), meta.len(), size.bytes()),
    )
    .hint("It is not what the server wrote. Look at what else writes into pg_wal."))
}

/// Fails unless the file has the content that is stored.
fn compare_segment(
    archive: &Archive,
    found: &Found,
    expected: &ExpectedSegment,
    name: &str,
    path: &Path,
) -> Result<()> {
    let size = expected.segment_size.bytes();
    let mut file = open(path)?;
    let mut ours = vec![0; FRAME_SIZE.min(size as usize)];
    let mut stored = vec![0; ours.len()];
    let mut at = 0u64;
    let mut reader =
        ObjectReader::open(archive.storage(), &found.path, found.codec).map_err(ours_is_sound)?;
    while at < size {
        let want = (size - at).min(ours.len() as u64) as usize;
        let (ours, stored) = (&mut ours[..want], &mut stored[..want]);
        file.read_exact(ours).map_err(|e| Error::io(format!("could not read \"{}\"", path.display()), &e))?;
        if at == 0 {
            check_first_page(ours, expected).map_err(|e| located(e, path))?;
        }
        let got = reader.read(stored).map_err(ours_is_sound)?;
        let equal = ours.iter().zip(&stored[..got]).take_while(|(a, b)| a == b).count();
        if equal < got {
            return Err(conflict(archive, name, at + equal as u64, Some(expected)));
        }
        if got < want {
            let place = archive.storage().display(&found.path);
            let ends = at + got as u64;
            let error = Error::new(
                ErrorKind::Corrupt,
                format!("\"{place}\" is damaged: it ends after {ends} bytes of {size}"),
            );
            return Err(ours_is_sound(error));
        }
        at += want as u64;
    }
    match reader.read(&mut stored[..1]).map_err(ours_is_sound)? {
        0 => Ok(()),
        _ => Err(conflict(archive, name, at, Some(expected))),
    }
}

/// The way out of a damaged object whose content is at hand.
fn ours_is_sound(error: Error) -> Error {
    match error.kind {
        ErrorKind::Corrupt => error.hint(
            "Remove the damaged object: pg_wal still holds the file, and it is stored again. Then run verify-archive.",
        ),
        _ => error,
    }
}

fn plain(source: &Source, name: &str, path: String) -> Result<Work> {
    let file_path = source.folder.join(name);
    let history = timeline_of_history_file(name);
    let max = if history.is_some() { MAX_HISTORY } else { MAX_BACKUP_HISTORY };
    let mut content = Vec::new();
    open(&file_path)?
        .take(max + 1)
        .read_to_end(&mut content)
        .map_err(|e| Error::io(format!("could not read \"{}\"", file_path.display()), &e))?;
    if content.is_empty() || content.len() as u64 > max {
        let amount = if content.is_empty() { "no".to_string() } else { format!("more than {max}") };
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!("\"{}\" has {amount} bytes, which no such file has", file_path.display()),
        )
        .hint("It is not what the server wrote. Look at what else writes into pg_wal."));
    }
    if let Some(timeline) = history {
        TimelineHistory::parse(timeline, &content).map_err(|e| located(e, &file_path))?;
    }
    Ok(Work::Plain { path, content })
}

fn create_plain(archive: &Archive, name: &str, path: &str, content: Vec<u8>) -> Result<bool> {
    if archive.storage().create(path, content.clone())? {
        return Ok(true);
    }
    let stored = archive.storage().get(path, MAX_HISTORY)?.unwrap_or_default();
    if stored == content {
        return Ok(false);
    }
    let equal = content.iter().zip(&stored).take_while(|(a, b)| a == b).count();
    Err(conflict(archive, name, equal as u64, None))
}

/// The error for a name that the archive holds with other content: says where timelines part, and the way out.
fn conflict(archive: &Archive, name: &str, offset: u64, segment: Option<&ExpectedSegment>) -> Error {
    let start = segment.map(|expected| expected.name.start(expected.segment_size));
    let lsn = start.map_or_else(String::new, |start| format!(", LSN {}", Lsn(start.0 + offset)));
    let place = match archive.find(name) {
        Ok(Some(found)) => archive.storage().display(&found.path),
        _ => archive.storage().display(&archive.folder()),
    };
    let error = Error::new(
        ErrorKind::WalConflict,
        format!(
            "the archive holds other content under the name {name}; it differs from byte {offset}{lsn} on"
        ),
    );
    let mut detail = format!("It is stored as \"{place}\".");
    for fork in forks(archive, name) {
        detail.push(' ');
        detail.push_str(&fork);
    }
    error.detail(detail).hint(
        "Two servers write this timeline: a clone beside its origin, or an old primary beside the standby that was \
         promoted. Stop the one that shall not go on (nothing it wrote is lost: its WAL stays in its pg_wal). To keep \
         both, give this server its own pg_ark.cluster; or restore it again, so that it chooses a timeline of its own.",
    )
}

/// Where the timeline of `name` began and where others left it, in words.
fn forks(archive: &Archive, name: &str) -> Vec<String> {
    let number = name.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let (Some(timeline), Ok((histories, _))) = (number.map(Timeline), archive.histories()) else {
        return Vec::new();
    };
    let mut forks = Vec::new();
    for (other, history) in histories {
        let Some(last) = history.entries.last() else { continue };
        if other == timeline || last.timeline == timeline {
            forks.push(format!(
                "Timeline {other} branched off timeline {} at {} ({}).",
                last.timeline, last.switch_lsn, last.reason
            ));
        }
    }
    forks
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::new(
            ErrorKind::WalMissing,
            format!("\"{}\" is not there", path.display()),
        )
        .hint(
            "The server asked for a file that pg_wal does not hold. Look for what removes files from pg_wal.",
        ),
        _ => Error::io(format!("could not open \"{}\"", path.display()), &e),
    })
}

fn located(error: Error, path: &Path) -> Error {
    if error.detail.is_some() { error } else { error.detail(format!("The file is \"{}\".", path.display())) }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
