//! Traces of WAL in an archive: whatever speaks of a segment or a timeline, also when the object itself is gone, was
//! renamed, unpacked beside its place, or has a folder in its place.
//!
//! Why: "not there" ends a recovery, so it takes more than a name that is not found ([`absent`](super::absent)). Names are
//! judged by their first digits, in either case; the index of a folder speaks of what was stored there. What is older than
//! the asked segment says nothing.

use super::archive::{Archive, INDEX, WalFile, hex_name};
use super::index::Index;
use super::pruned::Pruned;
use crate::postgres::timeline::history_file_name;
use crate::postgres::wal_segment::SegmentName;
use pg_ark_contract::settings::Codec;
use pg_ark_contract::{ErrorKind, Result, SegmentSize, Timeline};

/// What speaks of WAL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trace {
    /// A segment.
    Segment(SegmentName),
    /// Something else, by its place in the repository as a user would name it.
    Object(String),
    /// A line of an index: the file, and the index's place.
    Line(String, String),
    /// Retention removed the file; where that is told.
    Pruned(String, String),
}

impl Trace {
    /// What it tells.
    pub fn why(&self, size: SegmentSize) -> String {
        match self {
            Trace::Segment(name) => format!("The archive has a later segment, {}.", name.file_name(size)),
            Trace::Object(place) => format!("There is \"{place}\"."),
            Trace::Line(file, index) => format!("{file} was stored: \"{index}\" has its line."),
            Trace::Pruned(file, place) => format!("Retention removed {file}: \"{place}\" says so."),
        }
    }
}

/// Something in a folder.
struct Entry {
    name: String,
    is_folder: bool,
}

impl Entry {
    /// The number that the name begins with.
    fn number(&self) -> Option<u32> {
        digits(&self.name, 0)
    }

    /// Whether it is a folder with such a name and nothing more.
    fn is_proper_folder(&self) -> bool {
        self.is_folder && hex_name(&self.name).is_some()
    }
}

/// The first trace of the segment or a later one of its timeline; the search ends with the first folder that has one.
/// Then comes what `pruned` tells.
///
/// # Errors
/// What the store said.
pub fn of_segment(
    archive: &Archive,
    name: SegmentName,
    size: SegmentSize,
    pruned: &Pruned,
) -> Result<Option<Trace>> {
    let show = |folder: &str, entry: &Entry| {
        Ok(Some(Trace::Object(archive.storage().display(&format!("{folder}/{}", entry.name)))))
    };
    let per_log = (1 << 32) / size.bytes();
    let folder = archive.folder();
    for entry in entries(archive, &folder)? {
        let rest = entry.name.get(8..).unwrap_or_default().to_ascii_lowercase();
        let strange = !entry.is_proper_folder() && !rest.starts_with(".history");
        if strange && entry.number() == Some(name.timeline.0) {
            return show(&folder, &entry);
        }
    }
    let folder = archive.timeline_folder(name.timeline);
    for entry in entries(archive, &folder)? {
        let later = entry.number().is_some_and(|log| u64::from(log) >= name.number / per_log);
        if !entry.is_proper_folder() && later {
            return show(&folder, &entry);
        }
    }
    let logs = archive.logs(name.timeline)?;
    for log in logs.into_iter().filter(|log| u64::from(*log) >= name.number / per_log) {
        if let Some(trace) = in_log(archive, name, log, size)? {
            return Ok(Some(trace));
        }
    }
    Ok(pruned.next(name).map(|later| Trace::Pruned(later.file_name(size), pruned_place(archive))))
}

fn pruned_place(archive: &Archive) -> String {
    archive.storage().display(&archive.pruned_path())
}

/// What retention removed; when that cannot be read it says nothing.
///
/// # Errors
/// What the store said.
pub fn pruned(archive: &Archive, size: SegmentSize) -> Result<Pruned> {
    match Pruned::load(archive, size) {
        Err(e) if matches!(e.kind, ErrorKind::Corrupt | ErrorKind::FormatTooNew) => Ok(Pruned::default()),
        loaded => loaded,
    }
}

/// The trace of the least segment in one folder; what is no segment counts only when there is none.
fn in_log(archive: &Archive, name: SegmentName, log: u32, size: SegmentSize) -> Result<Option<Trace>> {
    let folder = archive.log_folder(name.timeline, log);
    let mut segments: Vec<u64> = Vec::new();
    let mut object = None;
    for entry in entries(archive, &folder)? {
        let Some(number) = segment_number(&entry.name, name.timeline, size) else { continue };
        if number < name.number {
            continue;
        }
        if !entry.is_folder && is_segment_object(&entry.name) {
            segments.push(number);
        // A promotion leaves `.partial` of a segment that never became whole. It tells that those before did.
        } else if number > name.number || !is_partial(&entry.name) {
            object.get_or_insert_with(|| {
                Trace::Object(archive.storage().display(&format!("{folder}/{}", entry.name)))
            });
        }
    }
    if let Some(&number) = segments.iter().min() {
        return Ok(Some(Trace::Segment(SegmentName { number, ..name })));
    }
    if object.is_some() {
        return Ok(object);
    }
    let path = archive.index_path(name.timeline, log);
    let index = match Index::load(archive.storage(), &path, size) {
        // What it says can be lost; that it cannot be read says nothing.
        Err(e) if matches!(e.kind, ErrorKind::Corrupt | ErrorKind::FormatTooNew) => return Ok(None),
        other => other?,
    };
    let place = || archive.storage().display(&path);
    if let Some(number) = index.iter().map(|(number, _)| number).find(|number| *number >= name.number) {
        return Ok(Some(Trace::Line(SegmentName { number, ..name }.file_name(size), place())));
    }
    let is_later = |file: &&str| {
        let number = segment_number(file, name.timeline, size);
        number > Some(name.number) || number == Some(name.number) && !is_partial(file)
    };
    let file = index.files().map(|(file, _)| file).find(is_later);
    Ok(file.map(|file| Trace::Line(file.to_string(), place())))
}

/// The first trace of the timeline or a higher one, histories in their place aside. A line of the index about one that
/// is not in its place is a trace.
///
/// # Errors
/// What the store said.
pub fn of_timeline(archive: &Archive, timeline: Timeline, pruned: &Pruned) -> Result<Option<Trace>> {
    let storage = archive.storage();
    let folder = archive.folder();
    let index = archive.history_index()?;
    let known = index.iter().flat_map(|index| index.files().map(|(file, _)| file));
    let mut later = known.filter(|file| digits(file, 0) >= Some(timeline.0));
    if let Some(file) = later.next() {
        let place = storage.display(&archive.index_beside(file)?);
        return Ok(Some(Trace::Line(file.to_string(), place)));
    }
    for entry in entries(archive, &folder)? {
        let Some(number) = entry.number().filter(|number| *number >= timeline.0) else { continue };
        if !entry.is_proper_folder() {
            let is_history = !entry.is_folder && WalFile::of(&entry.name) == Some(WalFile::History);
            match is_history {
                true => continue,
                false => {
                    return Ok(Some(Trace::Object(storage.display(&format!("{folder}/{}", entry.name)))));
                }
            }
        }
        let below = archive.timeline_folder(Timeline(number));
        for log in entries(archive, &below)? {
            // An archiver that was killed can leave a folder without anything.
            let inside = match log.is_proper_folder() {
                true => entries(archive, &format!("{below}/{}", log.name))?.into_iter().map(Some).next(),
                false => log.number().map(|_| None),
            };
            if let Some(inside) = inside {
                let inside = inside.map_or(String::new(), |entry| format!("/{}", entry.name));
                let place = storage.display(&format!("{below}/{}{inside}", log.name));
                return Ok(Some(Trace::Object(place)));
            }
        }
    }
    let later = pruned.histories.range(timeline..).next();
    Ok(later.map(|later| Trace::Pruned(history_file_name(*later), pruned_place(archive))))
}

fn entries(archive: &Archive, folder: &str) -> Result<Vec<Entry>> {
    let folders = archive.storage().folders(folder)?;
    let mut entries: Vec<Entry> = folders.into_iter().map(|name| Entry { name, is_folder: true }).collect();
    for path in archive.storage().files(folder)? {
        let name = path.rsplit('/').next().unwrap_or_default().to_string();
        entries.push(Entry { name, is_folder: false });
    }
    Ok(entries)
}

/// The segment of a timeline that a name begins with, whatever follows.
fn segment_number(name: &str, timeline: Timeline, size: SegmentSize) -> Option<u64> {
    let stem = name.get(..24).filter(|_| name != INDEX)?.to_ascii_uppercase();
    SegmentName::parse(&stem, size).filter(|found| found.timeline == timeline).map(|found| found.number)
}

fn is_segment_object(name: &str) -> bool {
    let codecs = [Codec::Zstd, Codec::Lz4, Codec::Gzip];
    codecs.iter().any(|codec| {
        name.strip_suffix(codec.suffix()).is_some_and(|stem| WalFile::of(stem) == Some(WalFile::Segment))
    })
}

fn is_partial(name: &str) -> bool {
    name.get(24..).is_some_and(|rest| rest.to_ascii_lowercase().starts_with(".partial"))
}

/// The number that 8 digits of a name stand for, in either case.
fn digits(name: &str, at: usize) -> Option<u32> {
    let digits = name.get(at..at + 8).filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u32::from_str_radix(digits, 16).ok()
}
