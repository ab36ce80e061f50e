//! The archive of one cluster and system identifier: names of WAL files to objects and back. FORMAT.md, "WAL archive".

use super::index::{self, Index};
use super::object::ObjectReader;
use crate::codec::frame::FRAME_SIZE;
use crate::postgres::timeline::{TimelineHistory, history_file_name, timeline_of_history_file};
use crate::postgres::wal_segment::{
    self as segment, ExpectedSegment, LongHeader, SegmentName, check_first_page, check_first_page_on,
};
use crate::repository::{Cluster, Storage, layout};
use pg_ark_contract::settings::Codec;
use pg_ark_contract::{Error, ErrorKind, Result, SegmentSize, Timeline};
use std::collections::BTreeMap;

/// Most bytes of a timeline history file that are read: some 10,000 timelines.
pub const MAX_HISTORY: u64 = 1 << 20;
/// Most bytes of a backup history file that are read.
pub const MAX_BACKUP_HISTORY: u64 = 64 << 10;
/// Codecs that segments are stored with, the likeliest first.
const CODECS: [Codec; 3] = [Codec::Zstd, Codec::Lz4, Codec::Gzip];
/// Segments that are looked at for a header before the archive's segment size counts as unknown.
const SIZE_TRIES: u32 = 32;
/// Bytes of all histories together, and ancestors in them: those of 2800 promotions, in 160 MB.
const MOST_BYTES: u64 = 128 << 20;
const MOST_ENTRIES: usize = 4_000_000;
/// What a history counts that cannot be read.
const FAULT_BYTES: u64 = 64 << 10;
/// What to do about a damaged object.
const DAMAGED: &str = "The repository is damaged there. Get the object back from a copy.";
/// Name of the index of a folder.
pub const INDEX: &str = "index.jsonl";

/// What kind of file a name in `pg_wal` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalFile {
    /// A segment.
    Segment,
    /// A segment that a promotion left unfinished (`.partial`).
    Partial,
    /// A timeline history.
    History,
    /// A backup history (`.backup`).
    BackupHistory,
}

impl WalFile {
    /// The kind of file that `name` stands for; `None` for a name that is no WAL file's.
    pub fn of(name: &str) -> Option<Self> {
        Some(match name {
            _ if segment::is_segment(name) => WalFile::Segment,
            _ if segment::is_partial(name) => WalFile::Partial,
            _ if segment::is_history(name) => WalFile::History,
            _ if segment::is_backup_history(name) => WalFile::BackupHistory,
            _ => return None,
        })
    }
}

/// A stored file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Path in the repository.
    pub path: String,
    /// How it is stored.
    pub codec: Codec,
}

/// The archive of one cluster and system identifier.
#[derive(Debug, Clone)]
pub struct Archive {
    storage: Storage,
    cluster: String,
    system_identifier: u64,
}

/// What one folder of the archive holds: the segments of a timeline that share the middle part of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogFolder {
    /// Path in the repository.
    pub path: String,
    /// Last 8 digits of the segments' names, ascending, without repetition.
    pub segments: Vec<u32>,
    /// The same of those that are stored under more than one codec.
    pub twice: Vec<u32>,
    /// The same of `.partial` files.
    pub partials: Vec<u32>,
    /// Names of backup histories, ascending.
    pub backups: Vec<String>,
    /// Objects that have no place there: paths in the repository.
    pub strangers: Vec<String>,
}

impl Archive {
    /// The archive of `cluster` under `system_identifier`. Nothing is looked at.
    pub fn of(cluster: &Cluster, system_identifier: u64) -> Self {
        Archive { storage: cluster.storage().clone(), cluster: cluster.name().to_string(), system_identifier }
    }

    /// The archive of the cluster's newest system identifier; `None` for a cluster that has none.
    pub fn newest_of(cluster: &Cluster) -> Option<Self> {
        cluster.systems().last().map(|system| Archive::of(cluster, *system))
    }

    /// Where it is stored.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Whose WAL it holds.
    pub fn system_identifier(&self) -> u64 {
        self.system_identifier
    }

    /// `<cluster>/<system identifier>/wal`.
    pub fn folder(&self) -> String {
        layout::wal(&self.cluster, self.system_identifier)
    }

    /// Path of what tells what retention removed.
    pub fn pruned_path(&self) -> String {
        layout::pruned(&self.cluster, self.system_identifier)
    }

    /// Folder of the folders of `timeline`.
    pub fn timeline_folder(&self, timeline: Timeline) -> String {
        format!("{}/{:08X}", self.folder(), timeline.0)
    }

    /// Folder of the segments of `timeline` whose names have `log` in the middle.
    pub fn log_folder(&self, timeline: Timeline, log: u32) -> String {
        format!("{}/{log:08X}", self.timeline_folder(timeline))
    }

    /// Path of the index of such a folder.
    pub fn index_path(&self, timeline: Timeline, log: u32) -> String {
        format!("{}/{INDEX}", self.log_folder(timeline, log))
    }

    /// Path of the index of the folder that a WAL file is in.
    ///
    /// # Errors
    /// As [`Archive::path`].
    pub fn index_beside(&self, name: &str) -> Result<String> {
        let path = self.path(name)?;
        Ok(format!("{}/{INDEX}", path.rsplit_once('/').map_or("", |(folder, _)| folder)))
    }

    /// Path of a WAL file in the repository, without the suffix of a codec.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that is no WAL file's.
    pub fn path(&self, name: &str) -> Result<String> {
        match (WalFile::of(name), name.get(..8), name.get(8..16)) {
            (Some(WalFile::History), ..) => Ok(format!("{}/{name}", self.folder())),
            (Some(_), Some(timeline), Some(log)) => {
                Ok(format!("{}/{timeline}/{log}/{name}", self.folder()))
            }
            _ => Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("\"{}\" is not the name of a WAL file", name.escape_debug()),
            )
            .hint("Segments, .partial, .history and .backup files can be archived, such as 000000010000000000000004.")),
        }
    }

    /// Looks for a WAL file; `None` when the repository answered and it is not there.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that is no WAL file's; what the store said.
    pub fn find(&self, name: &str) -> Result<Option<Found>> {
        let path = self.path(name)?;
        let plain = matches!(WalFile::of(name), Some(WalFile::History | WalFile::BackupHistory));
        let codecs = if plain { &[Codec::None][..] } else { &CODECS[..] };
        for &codec in codecs {
            let path = format!("{path}{}", codec.suffix());
            if self.storage.size(&path)?.is_some() {
                return Ok(Some(Found { path, codec }));
            }
        }
        Ok(None)
    }

    /// Every object that holds a segment or `.partial`: more than one when servers with other codecs stored it.
    ///
    /// # Errors
    /// As [`Archive::find`].
    pub fn copies(&self, name: &str) -> Result<Vec<Found>> {
        let path = self.path(name)?;
        let mut copies = Vec::new();
        for codec in CODECS {
            let path = format!("{path}{}", codec.suffix());
            if self.storage.size(&path)?.is_some() {
                copies.push(Found { path, codec });
            }
        }
        Ok(copies)
    }

    /// Reads a stored segment or `.partial` and shows it to `sink` in pieces of a few MiB at the most. Its first page
    /// must be that of `expected`, its length that of a segment. Pieces before a fault was found have been shown.
    ///
    /// # Errors
    /// `Corrupt` or `ForeignCluster` when it is not what it should be; what the store or `sink` said.
    pub fn read_segment(
        &self,
        found: &Found,
        expected: &ExpectedSegment,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        self.read_segment_on(found, expected, None, sink)
    }

    /// As [`Archive::read_segment`]; where the history of its timeline is given, the first page must agree with it.
    ///
    /// # Errors
    /// As [`Archive::read_segment`].
    pub fn read_segment_on(
        &self,
        found: &Found,
        expected: &ExpectedSegment,
        history: Option<&TimelineHistory>,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let size = expected.segment_size.bytes();
        let mut reader = ObjectReader::open(&self.storage, &found.path, found.codec)?;
        let mut piece = vec![0; FRAME_SIZE.min(size as usize)];
        let mut total = 0u64;
        loop {
            let count = reader.read(&mut piece)?;
            if count == 0 {
                break;
            }
            let bytes = &piece[..count];
            if total == 0 {
                match history {
                    Some(history) => check_first_page_on(bytes, expected, history),
                    None => check_first_page(bytes, expected),
                }
                .map_err(|e| self.located(e, found))?;
            }
            total += count as u64;
            if total > size {
                break;
            }
            sink(bytes)?;
        }
        if total == size {
            return Ok(());
        }
        let amount =
            if total > size { format!("more than {size}") } else { format!("{total} instead of {size}") };
        Err(Error::new(
            ErrorKind::Corrupt,
            format!("\"{}\" is damaged: it holds {amount} bytes", self.storage.display(&found.path)),
        )
        .hint(DAMAGED))
    }

    fn located(&self, error: Error, found: &Found) -> Error {
        let place = format!("It is stored as \"{}\".", self.storage.display(&found.path));
        if error.detail.is_some() { error } else { error.detail(place) }
    }

    /// A history or backup history file; `None` when the repository answered and it is not there.
    ///
    /// # Errors
    /// `Corrupt` for one that is too large; what the store said.
    pub fn read_plain(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.storage.get(&self.path(name)?, MAX_HISTORY).map_err(|e| match e.kind {
            ErrorKind::Corrupt => e.hint(DAMAGED),
            _ => e,
        })
    }

    /// As [`Archive::read_plain`], of what was stored and nothing else, as far as the index knows. A history can be read
    /// as one.
    ///
    /// # Errors
    /// `Corrupt` for one that is not as it was when it was stored; what the store said.
    pub fn read_proven(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(bytes) = self.read_plain(name)? else { return Ok(None) };
        if let Some(timeline) = timeline_of_history_file(name) {
            self.parse_history(timeline, &bytes)?;
        }
        self.prove(name, &bytes, index::beside(self, name)?.as_ref())?;
        Ok(Some(bytes))
    }

    /// Fails when `index` says that a file had another content when it was stored.
    fn prove(&self, name: &str, bytes: &[u8], index: Option<&Index>) -> Result<()> {
        let Some(why) = index.and_then(|index| index.file(name)?.differs(bytes)) else { return Ok(()) };
        let place = self.storage.display(&self.path(name)?);
        Err(Error::new(ErrorKind::Corrupt, format!("\"{place}\" is damaged: it {why}")).hint(DAMAGED))
    }

    /// The history of `timeline`; `None` when there is no such file (timeline 1 never has one).
    ///
    /// # Errors
    /// `Corrupt` for a file that cannot be read as one, or is not what was stored; what the store said.
    pub fn history(&self, timeline: Timeline) -> Result<Option<TimelineHistory>> {
        self.history_on(timeline, self.history_index()?.as_ref())
    }

    /// As [`Archive::history`], with the index of the archive's folder at hand.
    ///
    /// # Errors
    /// As [`Archive::history`].
    pub fn history_on(&self, timeline: Timeline, index: Option<&Index>) -> Result<Option<TimelineHistory>> {
        Ok(self.sized_history(timeline, index)?.map(|(history, _)| history))
    }

    /// And the bytes of its file.
    fn sized_history(
        &self,
        timeline: Timeline,
        index: Option<&Index>,
    ) -> Result<Option<(TimelineHistory, u64)>> {
        let name = history_file_name(timeline);
        let Some(bytes) = self.read_plain(&name)? else { return Ok(None) };
        let history = self.parse_history(timeline, &bytes)?;
        self.prove(&name, &bytes, index)?;
        Ok(Some((history, bytes.len() as u64)))
    }

    /// One of many histories, as [`Archive::history_on`] reads it, without the reasons of its ancestors, which are for
    /// people.
    ///
    /// # Errors
    /// As [`Archive::history_on`]. `Unsupported` when `room` does not suffice for it.
    pub fn one_history(
        &self,
        timeline: Timeline,
        index: Option<&Index>,
        room: &mut Room,
    ) -> Result<Option<TimelineHistory>> {
        let found = self.sized_history(timeline, index);
        let (entries, bytes) = match &found {
            Ok(Some((history, bytes))) => (history.entries.len(), *bytes),
            // It is told about, which takes room too.
            _ => (0, FAULT_BYTES),
        };
        room.take(entries, bytes).map_err(|e| e.detail(self.storage.display(&self.folder())))?;
        Ok(found?.map(|(mut history, _)| {
            let ancestors = history.entries.len().saturating_sub(1);
            history.entries.iter_mut().take(ancestors).for_each(|entry| entry.reason = String::new());
            history
        }))
    }

    /// The index of the archive's folder, which knows the histories; `None` when it cannot be read.
    ///
    /// # Errors
    /// What the store said.
    pub fn history_index(&self) -> Result<Option<Index>> {
        index::beside(self, &history_file_name(Timeline(2)))
    }

    /// Reads what a stored history file holds.
    ///
    /// # Errors
    /// `Corrupt`, with the place of the object.
    pub fn parse_history(&self, timeline: Timeline, bytes: &[u8]) -> Result<TimelineHistory> {
        TimelineHistory::parse(timeline, bytes).map_err(|e| {
            let path = format!("{}/{}", self.folder(), history_file_name(timeline));
            let place = self.storage.display(&path);
            // A damaged file can hold anything: its line is no help.
            Error::new(ErrorKind::Corrupt, e.message)
                .detail(format!("It is stored as \"{place}\"."))
                .hint(DAMAGED)
        })
    }

    /// Timelines that have a folder of segments, ascending.
    ///
    /// # Errors
    /// What the store said.
    pub fn timelines(&self) -> Result<Vec<Timeline>> {
        let names = self.storage.folders(&self.folder())?;
        Ok(names.iter().filter_map(|n| hex_name(n)).filter(|n| *n > 0).map(Timeline).collect())
    }

    /// Every history file, and paths of objects beside them that are none.
    ///
    /// # Errors
    /// `Corrupt` for a history that cannot be read as one, or is not what was stored; `Unsupported` for more of them than
    /// fit into [`Room`]; what the store said.
    pub fn histories(&self) -> Result<(BTreeMap<Timeline, TimelineHistory>, Vec<String>)> {
        let mut histories = BTreeMap::new();
        let mut strangers = Vec::new();
        let index = self.history_index()?;
        let mut room = Room::default();
        for path in self.storage.files(&self.folder())? {
            let name = path.rsplit('/').next().unwrap_or_default();
            match timeline_of_history_file(name) {
                None if is_own_file(name) => {}
                None => strangers.push(path),
                Some(timeline) => {
                    if let Some(history) = self.one_history(timeline, index.as_ref(), &mut room)? {
                        histories.insert(timeline, history);
                    }
                }
            }
        }
        Ok((histories, strangers))
    }

    /// Logs of a timeline that have a folder, ascending.
    ///
    /// # Errors
    /// What the store said.
    pub fn logs(&self, timeline: Timeline) -> Result<Vec<u32>> {
        let names = self.storage.folders(&self.timeline_folder(timeline))?;
        Ok(names.iter().filter_map(|name| hex_name(name)).collect())
    }

    /// What is stored in one folder.
    ///
    /// # Errors
    /// What the store said.
    pub fn list(&self, timeline: Timeline, log: u32) -> Result<LogFolder> {
        let prefix = format!("{:08X}{log:08X}", timeline.0);
        let mut folder = LogFolder { path: self.log_folder(timeline, log), ..LogFolder::default() };
        for path in self.storage.files(&self.log_folder(timeline, log))? {
            let name = path.rsplit('/').next().unwrap_or_default();
            let stem = CODECS.iter().find_map(|codec| name.strip_suffix(codec.suffix())).unwrap_or(name);
            let low =
                name.strip_prefix(&prefix).and_then(|rest| u32::from_str_radix(rest.get(..8)?, 16).ok());
            match (WalFile::of(stem), low, stem.len() < name.len()) {
                (Some(WalFile::Segment), Some(low), true) => folder.segments.push(low),
                (Some(WalFile::Partial), Some(low), true) => folder.partials.push(low),
                (Some(WalFile::BackupHistory), Some(_), false) => folder.backups.push(name.to_string()),
                _ if name == INDEX => {}
                _ => folder.strangers.push(path),
            }
        }
        folder.segments.sort_unstable();
        folder.twice =
            folder.segments.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        folder.twice.dedup();
        folder.segments.dedup();
        folder.partials.sort_unstable();
        folder.partials.dedup();
        Ok(folder)
    }

    /// The newest segment of a timeline.
    ///
    /// # Errors
    /// What the store said.
    pub fn newest(&self, timeline: Timeline, size: SegmentSize) -> Result<Option<SegmentName>> {
        for log in self.logs(timeline)?.into_iter().rev() {
            if let Some(low) = self.list(timeline, log)?.segments.last() {
                return Ok(SegmentName::parse(&file_name(timeline, log, *low), size));
            }
        }
        Ok(None)
    }

    /// Size of the archive's segments, from the newest header that can be read and is this cluster's; `None` for an
    /// empty archive.
    ///
    /// # Errors
    /// `Corrupt` when none of the newest segments can be read; what the store said.
    pub fn segment_size(&self) -> Result<Option<SegmentSize>> {
        let mut fault = None;
        let mut tries = SIZE_TRIES;
        for timeline in self.timelines()?.into_iter().rev() {
            for log in self.logs(timeline)?.into_iter().rev() {
                for low in self.list(timeline, log)?.segments.into_iter().rev() {
                    match self.size_in_header(&file_name(timeline, log, low)) {
                        Ok(Some(size)) => return Ok(Some(size)),
                        Ok(None) => {}
                        Err(e) if matches!(e.kind, ErrorKind::Corrupt | ErrorKind::ForeignCluster) => {
                            fault.get_or_insert(e);
                        }
                        Err(e) => return Err(e),
                    }
                    tries -= 1;
                    if tries == 0 {
                        return fault.map_or(Ok(None), Err);
                    }
                }
            }
        }
        fault.map_or(Ok(None), Err)
    }

    /// Size of a segment as its header has it; `None` when it is not there.
    fn size_in_header(&self, name: &str) -> Result<Option<SegmentSize>> {
        let Some(found) = self.find(name)? else { return Ok(None) };
        let mut first = [0; 64];
        let count = ObjectReader::open(&self.storage, &found.path, found.codec)?.read(&mut first)?;
        let header = first.get(..count).unwrap_or_default();
        let header = LongHeader::parse(header).map_err(|e| self.located(e, &found))?;
        if header.system_identifier != self.system_identifier {
            let message =
                format!("WAL segment {name} belongs to system identifier {}", header.system_identifier);
            return Err(self.located(Error::new(ErrorKind::ForeignCluster, message), &found));
        }
        SegmentSize::new(header.segment_size).map(Some).map_err(|e| self.located(e, &found))
    }
}

/// What is left of the bounds for histories that are read together: an archive may hold any number of them.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    bytes: u64,
    entries: usize,
}

impl Default for Room {
    fn default() -> Self {
        Room::new(MOST_BYTES, MOST_ENTRIES)
    }
}

impl Room {
    /// For so many bytes of files, and so many ancestors in them.
    pub fn new(bytes: u64, entries: usize) -> Self {
        Room { bytes, entries }
    }

    fn take(&mut self, entries: usize, bytes: u64) -> Result<()> {
        match (self.entries.checked_sub(entries), self.bytes.checked_sub(bytes)) {
            (Some(entries), Some(bytes)) => *self = Room { bytes, entries },
            _ => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "the archive holds more timeline histories than can be read",
                )
                .hint(
                    "Look at its .history files, and move those away that no cluster of this name wrote.",
                ));
            }
        }
        Ok(())
    }
}

/// The segment that an object belongs to, by its name, and what it holds: the segment, its `.partial`, a backup history.
pub fn segment_of_object(name: &str, size: SegmentSize) -> Option<(SegmentName, WalFile)> {
    let stem = CODECS.iter().find_map(|codec| name.strip_suffix(codec.suffix()));
    let kind = WalFile::of(stem.unwrap_or(name))?;
    let is_plain = kind == WalFile::BackupHistory;
    let segment = SegmentName::parse(name.get(..24)?, size)?;
    (is_plain != stem.is_some() && kind != WalFile::History).then_some((segment, kind))
}

/// Whether a file in the archive's own folder is about others.
pub(super) fn is_own_file(name: &str) -> bool {
    name == INDEX || name == layout::PRUNED
}

/// Name of a segment's file from its three parts.
fn file_name(timeline: Timeline, log: u32, low: u32) -> String {
    format!("{:08X}{log:08X}{low:08X}", timeline.0)
}

/// A folder's name: 8 hexadecimal digits.
pub(super) fn hex_name(name: &str) -> Option<u32> {
    let plain = name.len() == 8 && name.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
    if plain { u32::from_str_radix(name, 16).ok() } else { None }
}
