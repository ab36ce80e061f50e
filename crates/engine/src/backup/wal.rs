//! Copies the WAL that a backup needs into `pg_wal.tar`, segment by segment, as the server finishes them.
//!
//! What: the archive holds what pg_basebackup would put there: segments, an empty `archive_status/<segment>.done` for
//! each (so that a restored server does not archive them again), and the timeline's history.
//! Why: the slot that protects the segments is moved on after each, so that the server can recycle the rest.

use super::archive::ArchiveWriter;
use super::member::Attributes;
use super::serial::SerialWriter;
use crate::postgres::timeline::history_file_name;
use crate::postgres::wal_segment::{ExpectedSegment, SegmentName, check_first_page};
use crate::session::{Session, WalState};
use pg_ark_contract::conversation::Event;
use pg_ark_contract::settings::Compression;
use pg_ark_contract::{Error, ErrorKind, Lsn, Result, SegmentSize, Timeline};
use std::fs::File;
use std::io::ErrorKind as Io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Which WAL, and where it is.
pub struct WalSource {
    /// `pg_wal` of the server.
    pub folder: PathBuf,
    /// Where the backup starts.
    pub start: Lsn,
    /// The server's timeline.
    pub timeline: Timeline,
    /// Bytes in a segment.
    pub segment_size: SegmentSize,
    /// Identity of the cluster.
    pub system_identifier: u64,
    /// Major version of the server.
    pub server_major: u32,
}

/// Copies segments until the one that pg_backup_stop named is stored; returns the archive, ready to be finished.
///
/// # Errors
/// `WalMissing` when a segment is not there or not whole, `ServerNotReady` when the timeline changed meanwhile.
pub fn copy(
    source: &WalSource,
    archive: ArchiveWriter,
    compression: Compression,
    session: &Session,
) -> Result<ArchiveWriter> {
    let mut writer = SerialWriter::new(archive, compression, session)?;
    let size = source.segment_size;
    let mut number = size.segment_of(source.start);
    loop {
        let end = size.start_of(number + 1);
        let state = session.wait_for_wal(end)?;
        check_timeline(source, &state)?;
        if state.stop_lsn.is_some_and(|stop| number > size.last_segment_before(stop)) {
            break;
        }
        copy_segment(source, number, &mut writer)?;
        session.emit(Event::WalStored { lsn: end });
        number += 1;
    }
    copy_history(source, &mut writer)?;
    writer.end()
}

/// Sees to it that the server stays on its timeline, for a backup whose WAL the archive takes.
///
/// # Errors
/// `ServerNotReady` when the timeline changed.
pub fn watch(source: &WalSource, session: &Session) -> Result<()> {
    let size = source.segment_size;
    let mut number = size.segment_of(source.start);
    loop {
        let state = session.wait_for_wal(size.start_of(number + 1))?;
        check_timeline(source, &state)?;
        if state.stop_lsn.is_some() {
            return Ok(());
        }
        number = size.segment_of(state.flushed.unwrap_or_default()).max(number + 1);
    }
}

fn check_timeline(source: &WalSource, state: &WalState) -> Result<()> {
    match state.timeline {
        Some(now) if now != source.timeline => Err(Error::new(
            ErrorKind::ServerNotReady,
            format!("the server went from timeline {} to {now} while it was backed up", source.timeline),
        )
        .hint("Start the backup again.")),
        _ => Ok(()),
    }
}

fn copy_segment(source: &WalSource, number: u64, writer: &mut SerialWriter<'_>) -> Result<()> {
    let size = source.segment_size;
    let name = SegmentName { timeline: source.timeline, number };
    let file_name = name.file_name(size);
    let path = source.folder.join(&file_name);
    let mut file = open(&path)?;
    let meta =
        file.metadata().map_err(|e| Error::io(format!("could not look at \"{}\"", path.display()), &e))?;
    if meta.len() != size.bytes() {
        return Err(missing(&path, format!("it has {} bytes instead of {}", meta.len(), size.bytes())));
    }
    let mut first_page = [0; 512];
    file.read_exact_at(&mut first_page, 0)
        .map_err(|e| Error::io(format!("could not read \"{}\"", path.display()), &e))?;
    let expected = ExpectedSegment {
        name,
        segment_size: size,
        system_identifier: source.system_identifier,
        server_major: Some(source.server_major),
    };
    check_first_page(&first_page, &expected)?;
    let attributes = Attributes::of(&meta);
    let shown = path.display().to_string();
    writer.file(file_name.as_bytes(), size.bytes(), attributes, &mut file, &shown)?;
    done(&file_name, attributes, writer)
}

fn copy_history(source: &WalSource, writer: &mut SerialWriter<'_>) -> Result<()> {
    if source.timeline.0 <= 1 {
        return Ok(());
    }
    let name = history_file_name(source.timeline);
    let path = source.folder.join(&name);
    let mut file = open(&path)?;
    let meta =
        file.metadata().map_err(|e| Error::io(format!("could not look at \"{}\"", path.display()), &e))?;
    let attributes = Attributes::of(&meta);
    writer.file(name.as_bytes(), meta.len(), attributes, &mut file, &path.display().to_string())?;
    done(&name, attributes, writer)
}

fn done(name: &str, attributes: Attributes, writer: &mut SerialWriter<'_>) -> Result<()> {
    let path = format!("archive_status/{name}.done");
    writer.file(path.as_bytes(), 0, attributes, &mut std::io::empty(), &path)?;
    Ok(())
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| match e.kind() {
        Io::NotFound => missing(path, "it is not there".to_string()),
        _ => Error::io(format!("could not open \"{}\"", path.display()), &e),
    })
}

fn missing(path: &Path, why: String) -> Error {
    Error::new(ErrorKind::WalMissing, format!("WAL file \"{}\" cannot be used: {why}", path.display()))
        .hint("The backup needs every segment from its start to its end. Start it again; if this returns, look for what removes files from pg_wal.")
}
