//! Copies one folder tree into one archive with many threads.
//!
//! Each thread takes the next frame from the planner, fills and encodes it, and commits it in its turn. The first
//! error stops all.

use super::archive::{ArchiveWriter, EncodedFrame};
use super::books::Books;
use super::plan::Planner;
use super::progress::Progress;
use super::read::{Filler, ReadRules};
use super::walk::Walk;
use crate::codec::frame::Encoder;
use crate::codec::turn::Turns;
use crate::session::Session;
use pg_ark_contract::settings::Compression;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::sync::{Mutex, PoisonError};

/// What every thread needs.
pub struct Copier<'a> {
    /// Threads.
    pub jobs: usize,
    /// Codec and level.
    pub compression: Compression,
    /// How files are read.
    pub rules: ReadRules,
    /// The conversation.
    pub session: &'a Session,
    /// How far it is.
    pub progress: &'a Progress<'a>,
}

/// What is committed in order.
struct Output {
    archive: ArchiveWriter,
    books: Books,
}

/// A thread that panics would let the others wait for its turn for ever.
struct StopOnPanic<'a>(&'a Turns<Output>);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

impl Copier<'_> {
    /// Copies what `walk` finds into `archive` and enters it into `books`.
    ///
    /// # Errors
    /// The first error of any thread.
    pub fn copy(
        &self,
        walk: Walk<'_>,
        archive: ArchiveWriter,
        books: Books,
    ) -> Result<(ArchiveWriter, Books)> {
        let first = archive.next_frame();
        let planner = Mutex::new(Planner::new(walk, first));
        let turns = Turns::new(first, Output { archive, books });
        let failure: Mutex<Option<Error>> = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..self.jobs {
                scope.spawn(|| {
                    if let Err(e) = self.work(&planner, &turns) {
                        failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
                        turns.stop();
                    }
                });
            }
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(e) => Err(e),
            None => {
                let Output { archive, books } = turns.into_inner();
                Ok((archive, books))
            }
        }
    }

    fn work(&self, planner: &Mutex<Planner<'_>>, turns: &Turns<Output>) -> Result<()> {
        let _stop = StopOnPanic(turns);
        let mut filler = Filler::new(self.rules, self.progress);
        let mut encoder = Encoder::new(self.compression)?;
        loop {
            self.session.check()?;
            let Some(plan) = planner.lock().unwrap_or_else(PoisonError::into_inner).next_frame()? else {
                return Ok(());
            };
            let filled = filler.fill(&plan)?;
            let frame = if filled.used == 0 {
                None
            } else {
                let stored = encoder.encode(filler.bytes())?;
                let crc = crc32c::crc32c(&stored);
                Some(EncodedFrame { stored, crc, raw: filled.used })
            };
            let committed = turns.commit(plan.number, |output| {
                if let Some(frame) = frame {
                    output.archive.append(frame)?;
                }
                for piece in &filled.pieces {
                    if piece.first {
                        output.archive.note_file(&piece.file.member, piece.content.start, piece.file.size)?;
                    }
                    output.books.enter(piece, &filler.bytes()[piece.content.clone()], self.session)?;
                }
                Ok(())
            });
            self.progress.add(plan.data_bytes);
            committed.unwrap_or_else(|| Err(Error::new(ErrorKind::Cancelled, "another thread failed")))?;
        }
    }
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;
