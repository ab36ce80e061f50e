//! `verify_archive`: what the archive holds, what it lacks, what in it is damaged.

use super::ranges::{self, Damage};
use super::{Watch, deep};
use crate::wal::archive::Archive;
use crate::wal::moments::Moments;
use crate::wal::survey::{Look, Run};
use pg_ark_contract::rows::ArchiveRow;
use pg_ark_contract::{Result, Timeline};

/// Ranges whose times are looked up; an archive that has more has more holes than anybody reads times for.
const MAX_TIMED: usize = 1000;

/// How much is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Names, history files, and the index.
    Names,
    /// Every segment, with so many threads (0: one per core).
    Everything(usize),
}

/// One row for each gap-free range, gap, damaged segment and stranger. An empty archive has none.
///
/// # Errors
/// What the store said, or `watch` when it ended the work. Damage of what is stored is a row, not an error.
pub fn verify_archive(archive: &Archive, depth: Depth, watch: &dyn Watch) -> Result<Vec<ArchiveRow>> {
    let check = || watch.check();
    let look = Look::take(archive, &check)?;
    let (mut damage, partials) = match depth {
        Depth::Names => (Damage::default(), Damage::default()),
        Depth::Everything(jobs) => {
            let found = deep::check(archive, &look, jobs, watch)?;
            (found.segments, found.partials)
        }
    };
    let mut moments = Moments::new(archive, look.survey.segment_size).with_check(&check);
    let mut timed = 0;
    let mut times = |timeline: Timeline, run: Run| {
        timed += 1;
        if timed > MAX_TIMED { Ok((None, None)) } else { moments.times(timeline, run) }
    };
    ranges::rows(&look, &mut damage, &partials, &mut times)
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
