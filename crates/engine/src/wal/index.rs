//! What is stored in one folder of the archive: `index.jsonl`, FORMAT.md "Index". Summaries of segments, size and
//! checksum of all other files.
//!
//! It saves reading the segments and is never the only place of a fact about them: it may be absent, old, or lack lines.
//! So a damaged line is left out and told, and two writers may overwrite each other's.

use super::archive::{Archive, WalFile};
use super::index_line::{self as line, End, FileFacts, FileLine, Head, LineSeal, SegmentLine};
use super::moments::is_unreadable;
use super::summary::Summary;
use crate::postgres::wal_segment::SegmentName;
use crate::repository::Storage;
use crate::repository::record::{FORMAT, check_format};
use pg_ark_contract::{ErrorKind, Result, SegmentSize};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;

/// Most bytes of an index: 4 KiB for each of the 4096 segments of 1 MiB that a folder can hold.
pub(super) const MAX_INDEX: u64 = 16 << 20;
/// Problems that are told.
const MAX_TOLD: usize = 5;
/// The first line of an index without seals.
const OLD_HEAD: &[u8] = b"{\"format\":1}";

/// What is stored in one folder.
#[derive(Debug, Clone)]
pub struct Index {
    size: SegmentSize,
    /// First 16 digits of the names in the folder; something else for the archive's own folder.
    folder: String,
    found: bool,
    summaries: BTreeMap<u64, (Summary, LineSeal)>,
    files: BTreeMap<String, FileFacts>,
    /// Sealed lines of a later version.
    others: Vec<Vec<u8>>,
    damaged: usize,
    problems: Vec<String>,
}

/// A line, as far as it can be read.
enum Line {
    Segment(Box<SegmentLine>),
    File(FileLine),
    End(End),
    /// Of a later version.
    Unknown,
}

/// What a line says about something that is stored.
enum Content {
    Segment(u64, Box<Summary>),
    File(String, FileFacts),
}

impl Index {
    /// Reads the index at `path` (`.../wal/00000001/00000000/index.jsonl`, or `.../wal/index.jsonl`) of an archive whose
    /// segments have `size` bytes. An absent one is empty.
    ///
    /// # Errors
    /// `FormatTooNew`; `Corrupt` when it is too large to be one; what the store said.
    pub fn load(storage: &Storage, path: &str, size: SegmentSize) -> Result<Self> {
        let mut index = Index::empty(path, size);
        if let Some(bytes) = storage.get(path, MAX_INDEX)? {
            index.found = true;
            index.read(&bytes, &storage.display(path))?;
        }
        Ok(index)
    }

    fn empty(path: &str, size: SegmentSize) -> Self {
        Index {
            size,
            folder: digits_of(path),
            found: false,
            summaries: BTreeMap::new(),
            files: BTreeMap::new(),
            others: Vec::new(),
            damaged: 0,
            problems: Vec::new(),
        }
    }

    fn read(&mut self, bytes: &[u8], shown: &str) -> Result<()> {
        let whole = bytes.strip_suffix(b"\n");
        let mut lines = (1..).zip(whole.unwrap_or(bytes).split(|byte| *byte == b'\n'));
        let is_sealed = match lines.next() {
            Some((_, head)) => self.read_head(head, shown)?,
            None => false,
        };
        if is_sealed && whole.is_none() {
            self.problem("its last line is cut".into());
        }
        let (mut count, mut end) = (0, None);
        for (number, line) in lines.filter(|(_, line)| is_sealed || !line.is_empty()) {
            match self.read_line(number, line, is_sealed) {
                Some(found) if end.is_none() => end = Some(found),
                Some(_) => self.problem(format!("line {number} is another last line")),
                None if end.is_some() => self.problem(format!("line {number} follows the last line")),
                None => count += 1,
            }
        }
        match end {
            Some(end) if end.lines != count => {
                self.problem(format!("it has {count} lines instead of {}", end.lines));
            }
            None if is_sealed => self.problem("its last line is missing".into()),
            _ => {}
        }
        Ok(())
    }

    /// Whether the lines have seals.
    fn read_head(&mut self, head: &[u8], shown: &str) -> Result<bool> {
        let seal = line::check(head);
        match check_format(head, shown) {
            Err(e) if e.kind == ErrorKind::FormatTooNew && seal != LineSeal::Broken => return Err(e),
            Ok(()) if seal == LineSeal::Sealed || head == OLD_HEAD => {}
            _ => self.problem("line 1 is damaged".into()),
        }
        Ok(seal == LineSeal::Sealed)
    }

    /// Remembers what a line says; one that can only be the last is returned.
    fn read_line(&mut self, number: usize, bytes: &[u8], is_sealed: bool) -> Option<End> {
        let seal = line::check(bytes);
        let parsed = match seal {
            LineSeal::Sealed => parse(bytes),
            // The lines of an index have seals or have none.
            LineSeal::Unsealed if !is_sealed => parse(bytes).filter(|line| matches!(line, Line::Segment(_))),
            LineSeal::Unsealed | LineSeal::Broken => None,
        };
        let content = match parsed {
            Some(Line::Segment(line)) => self.segment(*line),
            Some(Line::File(line)) => self.file_of(&line),
            Some(Line::End(end)) => return Some(end),
            Some(Line::Unknown) => {
                self.problem(format!("line {number} is of a kind that this version does not know"));
                self.others.push(bytes.to_vec());
                return None;
            }
            None => None,
        };
        let again = match content {
            Some(Content::Segment(key, summary)) => self.summaries.insert(key, (*summary, seal)).is_some(),
            Some(Content::File(name, facts)) => self.files.insert(name, facts).is_some(),
            None => {
                self.problem(format!("line {number} is damaged"));
                false
            }
        };
        if again {
            self.problem(format!("line {number} repeats another"));
        }
        None
    }

    fn segment(&self, line: SegmentLine) -> Option<Content> {
        let belongs = line.segment.starts_with(&self.folder);
        let (name, summary) = line.parse(self.size).filter(|_| belongs)?;
        Some(Content::Segment(name.number, Box::new(summary)))
    }

    fn file_of(&self, line: &FileLine) -> Option<Content> {
        let facts = line.facts().filter(|_| self.may_hold(&line.file))?;
        Some(Content::File(line.file.clone(), facts))
    }

    /// Whether a file of this name has a line of its kind in the folder.
    fn may_hold(&self, name: &str) -> bool {
        match WalFile::of(name) {
            Some(WalFile::BackupHistory | WalFile::Partial) => name.starts_with(&self.folder),
            Some(WalFile::History) => !is_log_folder(&self.folder),
            _ => false,
        }
    }

    /// What is known about segment `number`.
    pub fn get(&self, number: u64) -> Option<&Summary> {
        self.summaries.get(&number).map(|(summary, _)| summary)
    }

    /// Whether the line of segment `number` has a seal.
    pub fn is_sealed(&self, number: u64) -> bool {
        self.summaries.get(&number).is_some_and(|(_, seal)| *seal == LineSeal::Sealed)
    }

    /// What a file that is no segment must be.
    pub fn file(&self, name: &str) -> Option<FileFacts> {
        self.files.get(name).copied()
    }

    /// The files that it knows, by name.
    pub fn files(&self) -> impl Iterator<Item = (&str, FileFacts)> {
        self.files.iter().map(|(name, facts)| (&name[..], *facts))
    }

    /// Remembers what a segment holds; one that does not belong to the folder is left out.
    pub fn insert(&mut self, name: SegmentName, summary: Summary) {
        if name.file_name(self.size).starts_with(&self.folder) {
            self.summaries.insert(name.number, (summary, LineSeal::Sealed));
        }
    }

    /// Remembers a file that is no segment, if it belongs to the folder; says whether that is new.
    pub fn insert_file(&mut self, name: &str, facts: FileFacts) -> bool {
        self.may_hold(name) && self.files.insert(name.to_string(), facts) != Some(facts)
    }

    /// Leaves out the lines about segments and other files that are `gone`; says whether there were any.
    pub fn forget(&mut self, segment: impl Fn(u64) -> bool, file: impl Fn(&str) -> bool) -> bool {
        let before = self.summaries.len() + self.files.len();
        self.summaries.retain(|number, _| !segment(*number));
        self.files.retain(|name, _| !file(name));
        self.summaries.len() + self.files.len() < before
    }

    /// Whether there is such an object.
    pub fn is_there(&self) -> bool {
        self.found
    }

    /// Faults of its lines, the first few, in words; and how many there are.
    pub fn problems(&self) -> (&[String], usize) {
        (&self.problems, self.damaged)
    }

    /// Numbers of the segments that it knows, and what they hold, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Summary)> {
        self.summaries.iter().map(|(number, (summary, _))| (*number, summary))
    }

    /// Writes it to `path`, replacing any other. Lines beyond the size that [`Index::load`] takes are left out.
    ///
    /// # Errors
    /// What the store said.
    pub fn save(&self, storage: &Storage, path: &str) -> Result<()> {
        let per_log = (1 << 32) / self.size.bytes();
        let mut bytes = line::sealed(&Head { format: FORMAT })?;
        let mut lines = 0;
        // Room for the last line.
        let mut add = |line: &[u8]| {
            if (bytes.len() + line.len()) as u64 + 100 <= MAX_INDEX {
                bytes.extend_from_slice(line);
                lines += 1;
            }
        };
        for (name, facts) in &self.files {
            add(&line::sealed(&FileLine::of(name, *facts))?);
        }
        for (number, (summary, _)) in &self.summaries {
            let name = format!("{}{:08X}", self.folder, number % per_log);
            add(&line::sealed(&SegmentLine::of(name, summary))?);
        }
        for other in &self.others {
            add(&[&other[..], b"\n"].concat());
        }
        bytes.extend_from_slice(&line::sealed(&End { end: true, lines })?);
        storage.put(path, bytes)
    }

    fn problem(&mut self, what: String) {
        self.damaged += 1;
        if self.problems.len() < MAX_TOLD {
            self.problems.push(what);
        }
    }
}

/// Reads the index of the folder that a file is stored in as it is; one that cannot be read is as good as none.
///
/// # Errors
/// `InvalidArgument` for a name that is no WAL file's; what the store said.
pub fn beside(archive: &Archive, name: &str) -> Result<Option<Index>> {
    // Lines about segments, which alone depend on this, are of no interest.
    match Index::load(archive.storage(), &archive.index_beside(name)?, SegmentSize::default()) {
        Err(e) if is_unreadable(&e) => Ok(None),
        loaded => loaded.map(Some),
    }
}

/// Reads a line whose seal does not speak against it; `None` when it is of a known kind, and cannot be true.
fn parse(bytes: &[u8]) -> Option<Line> {
    #[derive(Deserialize)]
    struct Kind {
        format: Option<IgnoredAny>,
        segment: Option<IgnoredAny>,
        file: Option<IgnoredAny>,
        end: Option<bool>,
    }
    if let Ok(line) = serde_json::from_slice(bytes) {
        return Some(Line::Segment(Box::new(line)));
    }
    match serde_json::from_slice(bytes).ok()? {
        Kind { format: None, segment: None, file: Some(_), .. } => {
            serde_json::from_slice(bytes).ok().map(Line::File)
        }
        Kind { format: None, segment: None, file: None, end: Some(true) } => {
            serde_json::from_slice(bytes).ok().map(Line::End)
        }
        Kind { format: None, segment: None, file: None, end: None } => Some(Line::Unknown),
        _ => None,
    }
}

/// Timeline and log of the folder that holds `path`, as the names in it begin.
fn digits_of(path: &str) -> String {
    let mut folders = path.rsplit('/').skip(1);
    let (log, timeline) = (folders.next().unwrap_or_default(), folders.next().unwrap_or_default());
    format!("{timeline}{log}")
}

fn is_log_folder(digits: &str) -> bool {
    digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
