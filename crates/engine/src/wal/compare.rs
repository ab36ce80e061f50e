//! Compares files of `pg_wal` with what the archive holds under their names.
//!
//! A name alone proves nothing: a clone, or an old primary beside its promoted standby, writes other WAL under the same
//! names. [`own`] tells a waiting backup whether the archive holds this server's WAL.

use super::archive::{Archive, Found, WalFile};
use super::index;
use super::object::ObjectReader;
use super::store::{self, Source, located, open};
use crate::codec::frame::FRAME_SIZE;
use crate::postgres::wal_segment::{ExpectedSegment, check_first_page};
use pg_ark_contract::{Error, ErrorKind, Lsn, Result, Timeline};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// How a file of `pg_wal` stands to the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// The archive has nothing of the name.
    NotStored,
    /// The archive holds the same content.
    Equal,
    /// The archive holds something, and `pg_wal` no longer has the file.
    Gone,
}

/// Compares the file `name` of `pg_wal` with the archive. Of a segment that the server may still be receiving only
/// the first `until` bytes are compared.
///
/// # Errors
/// `WalConflict` when the archive holds other content; what the systems said.
pub fn own(archive: &Archive, source: &Source, name: &str, until: Option<u64>) -> Result<Own> {
    if !matches!(WalFile::of(name), Some(WalFile::Segment | WalFile::Partial)) {
        let Some(stored) = archive.read_plain(name)? else { return Ok(Own::NotStored) };
        return match store::read_plain(source, name) {
            Ok(content) => plain(archive, name, &content, &stored).map(|()| Own::Equal),
            Err(e) if e.kind == ErrorKind::WalMissing => Ok(Own::Gone),
            Err(e) => Err(e),
        };
    }
    let copies = archive.copies(name)?;
    if copies.is_empty() {
        return Ok(Own::NotStored);
    }
    let path = source.folder.join(name);
    let Some(before) = identity(&path)? else { return Ok(Own::Gone) };
    let expected = store::expected(archive, source, name)?;
    let compared = copies.iter().try_for_each(|copy| segment(archive, copy, &expected, name, &path, until));
    match compared {
        Ok(()) => Ok(Own::Equal),
        // The server renames a segment that it needs no more, and writes another one into it.
        Err(_) if identity(&path)? != Some(before) => Ok(Own::Gone),
        Err(e) => Err(e),
    }
}

/// Device and number of the file at `path`; `None` when there is none.
fn identity(path: &Path) -> Result<Option<(u64, u64)>> {
    match path.metadata() {
        Ok(meta) => Ok(Some((meta.dev(), meta.ino()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(format!("could not look at \"{}\"", path.display()), &e)),
    }
}

/// Fails unless the file at `path` has the content that is stored: the whole segment, or its first `until` bytes.
///
/// # Errors
/// `WalConflict` when it has not; `Corrupt` or `ForeignCluster` when one of them is no such segment; what the systems
/// said.
pub(super) fn segment(
    archive: &Archive,
    found: &Found,
    expected: &ExpectedSegment,
    name: &str,
    path: &Path,
    until: Option<u64>,
) -> Result<()> {
    let whole = expected.segment_size.bytes();
    let size = until.map_or(whole, |until| until.min(whole));
    let mut file = open(path)?;
    let mut ours = vec![0; FRAME_SIZE.min(whole as usize)];
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
            return Err(conflict(archive, name, &found.path, at + equal as u64, Some(expected)));
        }
        if got < want {
            let place = archive.storage().display(&found.path);
            let ends = at + got as u64;
            let error = Error::new(
                ErrorKind::Corrupt,
                format!("\"{place}\" is damaged: it ends after {ends} bytes of {whole}"),
            );
            return Err(ours_is_sound(error));
        }
        at += want as u64;
    }
    if size < whole {
        return Ok(());
    }
    match reader.read(&mut stored[..1]).map_err(ours_is_sound)? {
        0 => Ok(()),
        _ => Err(conflict(archive, name, &found.path, at, Some(expected))),
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

/// Fails unless a history or backup history file has the content that is stored.
///
/// # Errors
/// `WalConflict`; `Corrupt` when the index tells that it had this content once.
pub(super) fn plain(archive: &Archive, name: &str, content: &[u8], stored: &[u8]) -> Result<()> {
    if stored == content {
        return Ok(());
    }
    let path = archive.path(name)?;
    let known = index::beside(archive, name)?.and_then(|index| index.file(name));
    if let Some(why) = known.filter(|facts| facts.differs(content).is_none()).and_then(|f| f.differs(stored))
    {
        let message = format!("\"{}\" is damaged: it {why}", archive.storage().display(&path));
        return Err(ours_is_sound(Error::new(ErrorKind::Corrupt, message)));
    }
    let equal = content.iter().zip(stored).take_while(|(a, b)| a == b).count();
    Err(conflict(archive, name, &path, equal as u64, None))
}

/// The error for a name that the archive holds with other content: says where timelines part, and the way out.
fn conflict(
    archive: &Archive,
    name: &str,
    path: &str,
    offset: u64,
    segment: Option<&ExpectedSegment>,
) -> Error {
    let start = segment.map(|expected| expected.name.start(expected.segment_size));
    let lsn = start.map_or_else(String::new, |start| format!(", LSN {}", Lsn(start.0 + offset)));
    let place = archive.storage().display(path);
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
