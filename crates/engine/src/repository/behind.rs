//! What is stored does not stay in the page cache: a backup is larger than memory, and nobody reads it soon.

use super::storage::is_staged;
use crate::page_cache;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Bytes between two orders to the kernel.
const EVERY: u64 = 32 << 20;
/// Bytes behind the last one that may still be on their way to the disk.
const UNDER_WAY: u64 = 256 << 20;
/// Most staging files of one object that are looked at: its own, and some of writers that died.
const MAX_STAGED: usize = 8;

/// Follows an object that is being written.
pub struct Behind {
    /// Where it will be.
    place: PathBuf,
    /// The files that it may be written to: the local store tells no name.
    staged: Vec<File>,
    sent: u64,
}

impl Behind {
    /// Nothing is written yet.
    pub fn new(place: PathBuf) -> Self {
        Behind { place, staged: Vec::new(), sent: 0 }
    }

    /// The object is written up to `size` bytes: sends them to the disk, and forgets those that are there.
    pub fn reached(&mut self, size: u64) {
        if size < self.sent.saturating_add(EVERY) {
            return;
        }
        if self.staged.is_empty() {
            self.staged = staged(&self.place);
        }
        let range = self.sent.saturating_sub(UNDER_WAY)..size;
        self.staged.iter().for_each(|file| page_cache::send_behind(file, &range));
        self.sent = size;
    }

    /// The object is in its place, and durable.
    pub fn finished(self) {
        page_cache::drop_written(&self.place);
    }
}

/// The staging files ("name#1") of the object that will be at `place`.
fn staged(place: &Path) -> Vec<File> {
    let (Some(folder), Some(object)) = (place.parent(), place.file_name().and_then(|name| name.to_str()))
    else {
        return Vec::new();
    };
    let is_its = |entry: &std::fs::DirEntry| {
        let name = entry.file_name();
        let name = name.to_str().filter(|name| is_staged(name));
        name.and_then(|name| name.rsplit_once('#')).is_some_and(|(of, _)| of == object)
            && entry.file_type().is_ok_and(|kind| kind.is_file())
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(is_its).take(MAX_STAGED).filter_map(|entry| File::open(entry.path()).ok()).collect()
}
