//! Reads the archives: frames in parallel where the index can be used, as one stream where it cannot.

use super::files::{Piece, SpoilOnPanic};
use super::places::Places;
use super::walk::{self, Walk};
use super::{Books, Subject, still_there, wal};
use crate::codec::frame::{self, Decoder};
use crate::codec::turn::Turns;
use crate::repository::layout;
use crate::repository::record::ArchiveRecord;
use crate::stored::faults::Fault;
use crate::stored::fetch::fetch;
use crate::stored::index::{self, Frame};
use crate::stored::objects::{ObjectReader, unwrap_io};
use crate::verify::findings::Finding;
use pg_ark_contract::rows::Severity;
use pg_ark_contract::{Error, Result};
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes of tar read at a time from an archive without an index.
const STREAM_CHUNK: usize = 1 << 20;
const HINT: &str =
    "The repository is damaged there. Restore another backup, or get the object back from a copy.";

/// A frame and its archive's number in the record.
struct Job {
    archive: usize,
    frame: Frame,
}

struct Reader<'a> {
    subject: &'a Subject<'a>,
    books: &'a Books,
    jobs: Vec<Job>,
    places: Mutex<Vec<Option<Places>>>,
    next: AtomicUsize,
}

/// Reads every archive. `volumes` are those of which something is known already; what is told of them is taken out.
///
/// # Errors
/// What the store or the watch said.
pub fn read(subject: &Subject<'_>, books: &Books, volumes: &mut BTreeMap<(usize, u32), Fault>) -> Result<()> {
    let mut reader =
        Reader { subject, books, jobs: Vec::new(), places: Mutex::default(), next: AtomicUsize::new(0) };
    let streams = reader.sort_out()?;
    let mut walk = reader.parallel(Walk::new(subject, books))?;
    for (number, archive) in streams {
        reader.stream(number, archive, &mut walk)?;
    }
    for volume in subject.record.archives.iter().flat_map(|archive| &archive.volumes) {
        subject.storage.read_whole(&subject.path(&volume.name));
    }
    walk.finish(volumes);
    Ok(())
}

impl<'a> Reader<'a> {
    /// Finds the frames of archives whose index is good; returns the archives whose index is not.
    fn sort_out(&mut self) -> Result<Vec<(usize, &'a ArchiveRecord)>> {
        let subject = self.subject;
        let mut streams = Vec::new();
        let mut all_places = Vec::new();
        for (number, archive) in subject.record.archives.iter().enumerate() {
            subject.watch.check()?;
            let mut places = Places::default();
            let expected = &self.books.expected;
            let mut on_file = |place| places.add(archive.content, place, expected);
            let loaded = index::load_files(subject.storage, subject.folder, archive, Some(&mut on_file));
            let loaded = match loaded {
                Err(error) if wal::is_own(&error) => {
                    still_there(subject.storage, &error)?;
                    Err(error.to_string())
                }
                loaded => loaded?,
            };
            match (loaded, &archive.index) {
                (Ok(frames), _) => {
                    self.jobs.extend(frames.into_iter().map(|frame| Job { archive: number, frame }));
                    all_places.push(Some(places));
                }
                (Err(why), index) => {
                    if let Some(index) =
                        index.as_ref().filter(|i| !subject.findings.knows(&subject.path(&i.name)))
                    {
                        subject.tell_index(&index.name, &format!("cannot be used: {why}"));
                    }
                    streams.push((number, archive));
                    all_places.push(None);
                }
            }
            subject.watch.advance(archive.index.as_ref().map_or(0, |index| index.size));
        }
        self.places = Mutex::new(all_places);
        Ok(streams)
    }

    fn parallel(&self, walk: Walk<'a>) -> Result<Walk<'a>> {
        let turns = Turns::new(0, walk);
        let failure: Mutex<Option<Error>> = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..self.subject.jobs.clamp(1, self.jobs.len().max(1)) {
                scope.spawn(|| {
                    let _stop = StopOnPanic(&turns);
                    if let Err(error) = self.work(&turns) {
                        turns.stop();
                        failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    }
                });
            }
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(turns.into_inner()),
        }
    }

    /// One worker, until there are no frames left or another worker failed.
    fn work(&self, turns: &Turns<Walk<'a>>) -> Result<()> {
        let subject = self.subject;
        let mut decoder = Decoder::new(subject.record.compression.codec)?;
        let mut raw = Vec::new();
        loop {
            subject.watch.check()?;
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = self.jobs.get(number) else { return Ok(()) };
            let Some(archive) = subject.record.archives.get(job.archive) else { return Ok(()) };
            let fetched = self.fetch(archive, &job.frame, &mut decoder, &mut raw)?;
            let turn = turns.commit(number as u64, |walk| {
                walk.enter(job.archive, archive, || self.places_of(job.archive));
                match fetched {
                    Ok(()) => walk.feed(&raw),
                    Err(fault) => {
                        walk.skip(&job.frame, fault);
                        Vec::new()
                    }
                }
            });
            let Some(pieces) = turn else { return Ok(()) };
            self.look(&pieces, &raw);
            subject.watch.advance(u64::from(job.frame.stored));
        }
    }

    fn places_of(&self, archive: usize) -> Option<Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).get_mut(archive)?.take()
    }

    fn fetch(
        &self,
        archive: &ArchiveRecord,
        frame: &Frame,
        decoder: &mut Decoder,
        raw: &mut Vec<u8>,
    ) -> Result<std::result::Result<(), Fault>> {
        let path = self.subject.path(&layout::volume(&archive.name, frame.volume));
        match fetch(self.subject.storage, &path, frame, decoder, raw) {
            Err(error) if wal::is_own(&error) => {
                still_there(self.subject.storage, &error)?;
                let to = frame.offset.saturating_add(u64::from(frame.stored));
                Ok(Err(Fault::frames(frame.offset, to, &error.to_string())))
            }
            fetched => fetched,
        }
    }

    fn look(&self, pieces: &[Piece], raw: &[u8]) {
        let _spoil = SpoilOnPanic(pieces);
        for piece in pieces {
            let bytes = raw.get(piece.range.clone()).unwrap_or_default();
            if let Some(verdict) = piece.file.look(piece, bytes, &self.books.expected) {
                walk::tell(self.subject, &piece.file, verdict, self.books.wal.as_ref());
            }
        }
    }

    /// Reads an archive as one stream.
    fn stream(&self, number: usize, archive: &ArchiveRecord, walk: &mut Walk<'a>) -> Result<()> {
        let subject = self.subject;
        walk.enter(number, archive, || None);
        let mut objects = ObjectReader::new(subject.storage, subject.folder, &archive.volumes);
        let read = self.stream_of(archive, &mut objects, walk);
        subject.watch.advance(archive.volumes.iter().fold(0, |sum: u64, v| sum.saturating_add(v.size)));
        let Err(error) = read else { return Ok(()) };
        let at = objects.current().min(archive.volumes.len().saturating_sub(1));
        let file = walk.file().map(<[u8]>::to_vec);
        walk.give_up();
        let is_known = self.books.volumes.contains(&(number, u32::try_from(at).unwrap_or(u32::MAX)));
        let name = archive.volumes.get(at).map_or(&archive.name, |volume| &volume.name);
        if is_known && wal::is_own(&error) {
            return Ok(());
        }
        subject.tolerate(error, |error| {
            let finding = Finding::new(Severity::Error, subject.path(name), error.to_string()).hint(HINT);
            file.map_or(finding.clone(), |file| finding.file(&file))
        })
    }

    fn stream_of(
        &self,
        archive: &ArchiveRecord,
        objects: &mut ObjectReader<'_>,
        walk: &mut Walk<'a>,
    ) -> Result<()> {
        let what = format!("archive \"{}\" does not decode", archive.name);
        let codec = self.subject.record.compression.codec;
        let mut tar = frame::stream(codec, objects).map_err(|e| unwrap_io(&what, e))?;
        let mut raw = Vec::with_capacity(STREAM_CHUNK);
        let mut left = archive.tar_bytes.saturating_add(1);
        loop {
            self.subject.watch.check()?;
            raw.clear();
            let len = left.min(STREAM_CHUNK as u64);
            tar.by_ref().take(len).read_to_end(&mut raw).map_err(|e| unwrap_io(&what, e))?;
            // What is longer than the record says may have no end.
            if raw.is_empty() {
                return Ok(());
            }
            left -= raw.len() as u64;
            let pieces = walk.feed(&raw);
            self.look(&pieces, &raw);
        }
    }
}

/// A worker that panics would let the others wait for its turn for ever.
struct StopOnPanic<'a, 'w>(&'a Turns<Walk<'w>>);

impl Drop for StopOnPanic<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}
