//! Unpacks archives: in parallel where the index can be used, as one stream where it cannot.
//!
//! What: workers take frames by number; each fetches, checks and decodes its frame, waits for its turn to walk over
//! the tar headers in it, and then, outside the turn, writes the content by offset.
//! Why: decoding, checksums and writing are the work, and none of it has to be in order.
//! Memory: one stored and one decoded frame for each worker.

use super::access::Access;
use super::tree::{Roots, Tree, Write};
use super::watch::{self, Watch};
use crate::codec::frame::{self, Decoder};
use crate::codec::turn::Turns;
use crate::repository::layout;
use crate::repository::record::{ArchiveContent, ArchiveRecord};
use crate::repository::{Record, Storage};
use crate::stored::expected::Expected;
use crate::stored::fetch::fetch;
use crate::stored::index::{self, Frame};
use crate::stored::objects::{ObjectReader, unwrap_io};
use pg_ark_contract::settings::Codec;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of tar read at a time from an archive without an index.
const STREAM_CHUNK: usize = 1 << 20;

/// What to unpack, and where.
pub struct Unpack<'a> {
    /// The repository.
    pub storage: &'a Storage,
    /// The backup's folder in it.
    pub folder: &'a str,
    /// The backup.
    pub record: &'a Record,
    /// Where archives go.
    pub roots: &'a Roots,
    /// Owner and permissions.
    pub access: &'a Access,
    /// What must come.
    pub expected: &'a Expected,
    /// Threads.
    pub jobs: usize,
    /// Hears about progress.
    pub watch: &'a dyn Watch,
}

/// A frame and its archive's number in the record.
struct Job {
    archive: usize,
    frame: Frame,
}

impl Unpack<'_> {
    /// Unpacks everything but the configuration; returns the targets of tablespace links by OID.
    ///
    /// # Errors
    /// `Corrupt` for damage; `Cancelled`; what the store or the file systems said.
    pub fn run(&self) -> Result<BTreeMap<u32, Vec<u8>>> {
        let (jobs, streams) = self.sort_out()?;
        let tree = Tree::new(self.roots, self.access, self.expected);
        let mut tree = self.parallel(&jobs, tree)?;
        for archive in streams {
            self.stream(archive, &mut tree)?;
        }
        for volume in self.record.archives.iter().flat_map(|archive| &archive.volumes) {
            self.storage.read_whole(&format!("{}/{}", self.folder, volume.name));
        }
        tree.finish()
    }

    /// Frames of archives whose index is good, and archives whose index is not.
    fn sort_out(&self) -> Result<(Vec<Job>, Vec<&ArchiveRecord>)> {
        let mut jobs = Vec::new();
        let mut streams = Vec::new();
        for (number, archive) in self.record.archives.iter().enumerate() {
            if archive.content == ArchiveContent::Config {
                continue;
            }
            match index::load(self.storage, self.folder, archive)? {
                Ok(frames) => jobs.extend(frames.into_iter().map(|frame| Job { archive: number, frame })),
                Err(why) => {
                    self.watch.warn(&format!(
                        "the index of \"{}\" cannot be used, so it is read by one thread: {why}",
                        archive.name
                    ));
                    streams.push(archive);
                }
            }
        }
        Ok((jobs, streams))
    }

    fn parallel<'t>(&self, jobs: &[Job], tree: Tree<'t>) -> Result<Tree<'t>> {
        let turns = Turns::new(0, (tree, None));
        let next = AtomicUsize::new(0);
        let failure = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.clamp(1, jobs.len().max(1)) {
                scope.spawn(|| {
                    if let Err(error) = self.work(jobs, &next, &turns) {
                        turns.stop();
                        failure
                            .lock()
                            .unwrap_or_else(std::sync::PoisonError::into_inner)
                            .get_or_insert(error);
                    }
                });
            }
        });
        match failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(turns.into_inner().0),
        }
    }

    /// One worker, until there are no frames left or another worker failed.
    fn work(&self, jobs: &[Job], next: &AtomicUsize, turns: &Turns<(Tree<'_>, Option<usize>)>) -> Result<()> {
        let mut decoder = Decoder::new(self.codec())?;
        let mut raw = Vec::new();
        loop {
            watch::check(self.watch)?;
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(number) else { return Ok(()) };
            let archive = &self.record.archives[job.archive];
            self.fetch(archive, &job.frame, &mut decoder, &mut raw)?;
            let turn = turns.commit(number as u64, |(tree, current)| {
                if current.replace(job.archive) != Some(job.archive) {
                    tree.begin(archive.content, archive.tar_bytes)?;
                }
                tree.feed(&raw)
            });
            let Some(writes) = turn else { return Ok(()) };
            self.write(writes.map_err(|e| in_archive(archive, e))?, &raw)?;
            self.watch.advance(raw.len() as u64);
        }
    }

    fn fetch(
        &self,
        archive: &ArchiveRecord,
        frame: &Frame,
        decoder: &mut Decoder,
        raw: &mut Vec<u8>,
    ) -> Result<()> {
        let path = format!("{}/{}", self.folder, layout::volume(&archive.name, frame.volume));
        let fetched = fetch(self.storage, &path, frame, decoder, raw)?;
        fetched.map_err(|fault| fault.error(&self.storage.display(&path)))
    }

    fn write(&self, writes: Vec<Write>, raw: &[u8]) -> Result<()> {
        for write in writes {
            write.file.write(write.offset, &raw[write.range], self.access, self.expected)?;
        }
        Ok(())
    }

    /// Unpacks an archive as one stream.
    fn stream(&self, archive: &ArchiveRecord, tree: &mut Tree<'_>) -> Result<()> {
        tree.begin(archive.content, archive.tar_bytes)?;
        let what = format!("archive \"{}\" does not decode", archive.name);
        let objects = ObjectReader::new(self.storage, self.folder, &archive.volumes);
        let mut tar = frame::stream(self.codec(), objects).map_err(|e| unwrap_io(&what, e))?;
        let mut raw = Vec::with_capacity(STREAM_CHUNK);
        loop {
            watch::check(self.watch)?;
            raw.clear();
            tar.by_ref().take(STREAM_CHUNK as u64).read_to_end(&mut raw).map_err(|e| unwrap_io(&what, e))?;
            if raw.is_empty() {
                return Ok(());
            }
            let writes = tree.feed(&raw).map_err(|e| in_archive(archive, e))?;
            self.write(writes, &raw)?;
            self.watch.advance(raw.len() as u64);
        }
    }

    fn codec(&self) -> Codec {
        self.record.compression.codec
    }
}

fn in_archive(archive: &ArchiveRecord, error: Error) -> Error {
    match error.kind {
        ErrorKind::Corrupt => {
            Error { message: format!("archive \"{}\": {}", archive.name, error.message), ..error }
        }
        _ => error,
    }
}
