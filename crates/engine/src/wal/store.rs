//! Stores one file of `pg_wal`: looks at it, encodes it, creates its object, and never touches one that is there.

use super::archive::{Archive, Found, MAX_BACKUP_HISTORY, MAX_HISTORY, WalFile};
use super::object::{self, ObjectReader};
use super::summary::{Summarizer, Summary};
use crate::codec::frame::FRAME_SIZE;
use crate::postgres::timeline::{TimelineHistory, timeline_of_history_file};
use crate::postgres::wal_segment::{ExpectedSegment, SegmentName, check_first_page};
use pg_ark_contract::settings::Compression;
use pg_ark_contract::{Error, ErrorKind, Result, SegmentSize, Timeline};
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

/// Stores `name` durably. The archive may hold it already, if its content is equal.
///
/// # Errors
/// `InvalidArgument` for a name that is no WAL file's; `WalMissing` when the file is not in pg_wal; `Corrupt` or
/// `ForeignCluster` when it is not what its name says; `WalConflict` when the archive holds other content under the
/// name; what the systems said. The archive is unchanged then.
pub fn store(archive: &Archive, source: &Source, name: &str, compression: Compression) -> Result<Outcome> {
    let path = archive.path(name)?;
    match WalFile::of(name) {
        Some(WalFile::Segment | WalFile::Partial) => segment(archive, source, name, &path, compression),
        _ => plain(archive, source, name, &path).map(|created| Outcome { created, summary: None }),
    }
}

fn segment(
    archive: &Archive,
    source: &Source,
    name: &str,
    path: &str,
    compression: Compression,
) -> Result<Outcome> {
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
        compare_segment(archive, &found, &expected, &mut file, name, &file_path)?;
        return Ok(Outcome { created: false, summary: None });
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
    if archive.storage().create(&format!("{path}{}", codec.suffix()), encoded)? {
        let summary = (WalFile::of(name) == Some(WalFile::Segment)).then(|| summarizer.finish());
        return Ok(Outcome { created: true, summary });
    }
    // Somebody was faster: a standby with archive_mode = always, or a server that must not be.
    let found = Found { path: format!("{path}{}", codec.suffix()), codec };
    compare_segment(archive, &found, &expected, &mut open(&file_path)?, name, &file_path)?;
    Ok(Outcome { created: false, summary: None })
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
    file: &mut File,
    name: &str,
    path: &Path,
) -> Result<()> {
    let mut ours = vec![0; FRAME_SIZE];
    let mut at = 0u64;
    let mut first = true;
    let mut reader = ObjectReader::open(archive.storage(), &found.path, found.codec)?;
    let mut stored = vec![0; FRAME_SIZE];
    while at < expected.segment_size.bytes() {
        let want = (expected.segment_size.bytes() - at).min(FRAME_SIZE as u64) as usize;
        file.read_exact(&mut ours[..want])
            .map_err(|e| Error::io(format!("could not read \"{}\"", path.display()), &e))?;
        if std::mem::take(&mut first) {
            check_first_page(&ours[..want], expected).map_err(|e| located(e, path))?;
        }
        let got = reader.read(&mut stored[..want])?;
        let equal = ours[..got].iter().zip(&stored[..got]).take_while(|(a, b)| a == b).count();
        if equal < want {
            return Err(conflict(archive, name, at + equal as u64));
        }
        at += want as u64;
    }
    if reader.read(&mut stored[..1])? > 0 {
        return Err(conflict(archive, name, at));
    }
    Ok(())
}

fn plain(archive: &Archive, source: &Source, name: &str, path: &str) -> Result<bool> {
    let file_path = source.folder.join(name);
    let history = timeline_of_history_file(name);
    let max = if history.is_some() { MAX_HISTORY } else { MAX_BACKUP_HISTORY };
    let mut content = Vec::new();
    open(&file_path)?
        .take(max + 1)
        .read_to_end(&mut content)
        .map_err(|e| Error::io(format!("could not read \"{}\"", file_path.display()), &e))?;
    if content.is_empty() || content.len() as u64 > max {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!("\"{}\" has {} bytes, which no such file has", file_path.display(), content.len()),
        ));
    }
    if let Some(timeline) = history {
        TimelineHistory::parse(timeline, &content).map_err(|e| located(e, &file_path))?;
    }
    if archive.storage().create(path, content.clone())? {
        return Ok(true);
    }
    let stored = archive.storage().get(path, MAX_HISTORY)?.unwrap_or_default();
    if stored == content {
        return Ok(false);
    }
    let equal = content.iter().zip(&stored).take_while(|(a, b)| a == b).count();
    Err(conflict(archive, name, equal as u64))
}

/// The error for a name that the archive holds with other content: says where timelines part, and the way out.
fn conflict(archive: &Archive, name: &str, offset: u64) -> Error {
    let place = match archive.find(name) {
        Ok(Some(found)) => archive.storage().display(&found.path),
        _ => archive.storage().display(&archive.folder()),
    };
    let error = Error::new(
        ErrorKind::WalConflict,
        format!("the archive holds other content under the name {name}; it differs from byte {offset} on"),
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
