//! `verify_archive`: what the archive holds, what it lacks, what in it is damaged.

use super::damage::Damage;
use super::evidence::{Evidence, size_in};
use super::{Watch, chains, deep, ranges};
use crate::repository::Record;
use crate::wal::archive::Archive;
use crate::wal::audit::{self, Extent, Remark};
use crate::wal::moments::Moments;
use crate::wal::survey::{Look, Run, Survey};
use pg_ark_contract::rows::ArchiveRow;
use pg_ark_contract::{Result, Timeline};

/// Ranges whose times are looked up; an archive that has more has more holes than anybody reads times for.
const MAX_TIMED: usize = 200;

/// How much is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Names, history files, and the index.
    Names,
    /// Every segment, with so many threads (0: one per core).
    Everything(usize),
}

/// What was found in an archive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// One for each gap-free range, gap, damaged segment, damaged history and stranger.
    pub rows: Vec<ArchiveRow>,
    /// What the indexes tell, and what is wrong with them.
    pub remarks: Vec<Remark>,
}

/// One row for each gap-free range, gap, damaged segment and stranger, and what else is not as it should be. An empty
/// archive has none, but for the WAL that complete backups need. That an index lacks something is no fault.
///
/// # Errors
/// As [`verify`].
pub fn verify_archive(
    archive: &Archive,
    records: &[Record],
    depth: Depth,
    watch: &dyn Watch,
) -> Result<Vec<ArchiveRow>> {
    let Verified { mut rows, remarks } = verify(archive, records, depth, false, watch)?;
    rows.extend(remarks.iter().map(|remark| ranges::remark_row(archive, remark)));
    Ok(rows)
}

/// As [`verify_archive`], with remarks apart; `absences`: also about indexes and lines that are not there.
///
/// # Errors
/// What the store said, or `watch` when it ended the work. Damage of what is stored is a row or a remark, not an error.
pub fn verify(
    archive: &Archive,
    records: &[Record],
    depth: Depth,
    absences: bool,
    watch: &dyn Watch,
) -> Result<Verified> {
    let check = || watch.check();
    let mut look = Look::take(archive, &check)?;
    if look.survey.is_empty() {
        look.survey.segment_size = size_in(records).unwrap_or(look.survey.segment_size);
    }
    let mut moments = Moments::new(archive, look.survey.segment_size).with_check(&check);
    let gone = moments.gone(&look.survey)?;
    let evidence = Evidence::weigh(&look.survey, gone, records);
    let extent = Extent { content: depth != Depth::Names, absences };
    let mut remarks = audit::audit(archive, &look.survey, extent, &check)?;
    let (mut damage, partials) = match depth {
        Depth::Names => (broken(&look.survey, &mut moments)?, Damage::default()),
        Depth::Everything(jobs) => {
            let found = deep::check(archive, &look, jobs, watch)?;
            remarks.extend(ranges::index_remarks(archive, &look.survey, &found.indexes));
            (found.segments, found.partials)
        }
    };
    let mut timed = 0;
    let mut times = |timeline: Timeline, run: Run| {
        timed += 1;
        if timed > MAX_TIMED { Ok((None, None)) } else { moments.times(timeline, run) }
    };
    let rows = ranges::rows(&look, &mut damage, &partials, &evidence, &mut times)?;
    Ok(Verified { rows, remarks })
}

/// What the index knows of damage: segments that must go on to their end, and did not when they were stored.
///
/// # Errors
/// What the store said.
pub(super) fn broken(survey: &Survey, moments: &mut Moments<'_>) -> Result<Damage> {
    let mut damage = Damage::default();
    let (chains, runs) = chains::chains(survey);
    for (chain, run) in runs {
        let Some(chain) = chains.get(chain) else { continue };
        let last = chain.is_end.then(|| chain.stretch.last());
        let names = (run.first..=run.last).filter(|number| Some(*number) != last);
        let names = names.filter_map(|number| chain.stretch.segment(number));
        moments.breaks(names)?.into_iter().for_each(|(name, why)| damage.add(name, why));
    }
    Ok(damage)
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
