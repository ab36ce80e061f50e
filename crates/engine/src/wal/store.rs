//! Stores one file of `pg_wal`: looks at it, encodes it, creates its object, and never touches one that is there.

use super::archive::{Archive, Found, MAX_BACKUP_HISTORY, MAX_HISTORY, WalFile};
use super::compare;
use super::index_line::FileFacts;
use super::object;
use super::summary::{Summarizer, Summary};
use crate::postgres::timeline::{TimelineHistory, timeline_of_history_file};
use crate::postgres::wal_segment::{ExpectedSegment, SegmentName, check_first_page};
use bytes::Bytes;
use pg_ark_contract::settings::Compression;
use pg_ark_contract::{Error, ErrorKind, Result, SegmentSize};
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
    /// What a history or backup history is, also when it was there already; what a `.partial` is.
    pub file: Option<FileFacts>,
}

impl Outcome {
    /// For a file that the archive held already.
    fn there() -> Self {
        Outcome { created: false, summary: None, file: None }
    }
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
    Segment(Box<NewSegment>),
    Plain {
        path: String,
        content: Vec<u8>,
    },
}

#[derive(Debug)]
struct NewSegment {
    /// Where it goes.
    target: Found,
    expected: ExpectedSegment,
    file: PathBuf,
    encoded: Bytes,
    summary: Option<Summary>,
    /// Of a `.partial`, which has no summary.
    facts: Option<FileFacts>,
}

impl NewSegment {
    /// Whether the archive holds it, with equal content.
    fn is_stored(&self, archive: &Archive, name: &str) -> Result<bool> {
        let copies = archive.copies(name)?;
        self.is_equal_to(archive, name, &copies)?;
        Ok(!copies.is_empty())
    }

    fn is_equal_to(&self, archive: &Archive, name: &str, copies: &[Found]) -> Result<()> {
        copies
            .iter()
            .try_for_each(|copy| compare::segment(archive, copy, &self.expected, name, &self.file, None))
    }
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
    let Prepared { name, work } = prepared;
    match work {
        Work::None => Ok(Outcome::there()),
        Work::Plain { path, content } => {
            let created = create_plain(archive, &name, &path, &content)?;
            Ok(Outcome { created, summary: None, file: Some(FileFacts::of(&content)) })
        }
        Work::Segment(segment) => {
            // Somebody may have been faster: a standby with archive_mode = always, or a server that must not be.
            if segment.is_stored(archive, &name)? {
                return Ok(Outcome { file: segment.facts, ..Outcome::there() });
            }
            create_segment(archive, &name, segment)
        }
    }
}

/// Creates the object of a segment that the archive lacked a moment ago. Each codec has a name of its own, so two
/// servers can both create theirs: who finds the other's beside his own takes his own back when they differ. Whoever
/// came first had looked before, so at least one of them finds the other.
fn create_segment(archive: &Archive, name: &str, segment: Box<NewSegment>) -> Result<Outcome> {
    let created = archive.storage().create(&segment.target.path, segment.encoded.clone())?;
    let others: Vec<Found> =
        archive.copies(name)?.into_iter().filter(|copy| !created || *copy != segment.target).collect();
    if !created && others.is_empty() {
        return Err(vanished(archive, &segment.target.path));
    }
    if let Err(e) = segment.is_equal_to(archive, name, &others) {
        if created {
            archive.storage().delete(&segment.target.path)?;
        }
        return Err(e);
    }
    Ok(Outcome { created, summary: segment.summary.filter(|_| created), file: segment.facts })
}

fn vanished(archive: &Archive, path: &str) -> Error {
    let place = archive.storage().display(path);
    Error::new(ErrorKind::Io, format!("\"{place}\" was there and cannot be found any more"))
        .hint("Look at what else removes files from the repository. The server tries again.")
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
    let expected = expected(archive, source, name)?;
    let mut file = open(&file_path)?;
    check_length(&file, &file_path, size)?;
    let copies = archive.copies(name)?;
    for copy in &copies {
        compare::segment(archive, copy, &expected, name, &file_path, None)?;
    }
    if !copies.is_empty() {
        return Ok(Work::None);
    }
    let is_partial = WalFile::of(name) == Some(WalFile::Partial);
    let mut summarizer = Summarizer::new(expected.name, size);
    let mut first = true;
    let mut crc = 0;
    let encoded = object::encode(compression, &mut file, size.bytes(), &shown(&file_path), &mut |piece| {
        if std::mem::take(&mut first) {
            check_first_page(piece, &expected).map_err(|e| located(e, &file_path))?;
        }
        summarizer.feed(piece);
        if is_partial {
            crc = crc32c::crc32c_append(crc, piece);
        }
        Ok(())
    })?;
    let codec = object::compression(compression).codec;
    let target = Found { path: format!("{path}{}", codec.suffix()), codec };
    let summary = (!is_partial).then(|| summarizer.finish());
    let facts = is_partial.then_some(FileFacts { size: size.bytes(), crc32c: crc });
    Ok(Work::Segment(Box::new(NewSegment { target, expected, file: file_path, encoded, summary, facts })))
}

/// What a segment or `.partial` of this name is to be.
pub(super) fn expected(archive: &Archive, source: &Source, name: &str) -> Result<ExpectedSegment> {
    let size = source.segment_size;
    let parsed = name.get(..24).and_then(|stem| SegmentName::parse(stem, size)).ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidArgument,
            format!("\"{name}\" is not the name of a WAL segment of {} bytes", size.bytes()),
        )
    })?;
    Ok(ExpectedSegment {
        name: parsed,
        segment_size: size,
        system_identifier: archive.system_identifier(),
        server_major: source.server_major,
    })
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

fn plain(source: &Source, name: &str, path: String) -> Result<Work> {
    let content = read_plain(source, name)?;
    if let Some(timeline) = timeline_of_history_file(name) {
        TimelineHistory::parse(timeline, &content).map_err(|e| located(e, &source.folder.join(name)))?;
    }
    Ok(Work::Plain { path, content })
}

/// A history or backup history file of pg_wal.
pub(super) fn read_plain(source: &Source, name: &str) -> Result<Vec<u8>> {
    let file_path = source.folder.join(name);
    let max = if WalFile::of(name) == Some(WalFile::History) { MAX_HISTORY } else { MAX_BACKUP_HISTORY };
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
    Ok(content)
}

fn create_plain(archive: &Archive, name: &str, path: &str, content: &[u8]) -> Result<bool> {
    if archive.storage().create(path, content.to_vec())? {
        return Ok(true);
    }
    match archive.storage().get(path, MAX_HISTORY)? {
        Some(stored) => compare::plain(archive, name, content, &stored).map(|()| false),
        None => Err(vanished(archive, path)),
    }
}

pub(super) fn open(path: &Path) -> Result<File> {
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

pub(super) fn located(error: Error, path: &Path) -> Error {
    if error.detail.is_some() { error } else { error.detail(format!("The file is \"{}\".", path.display())) }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
