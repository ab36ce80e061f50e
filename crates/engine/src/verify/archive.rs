//! `verify_archive`: what the archive holds, what it lacks, what in it is damaged.

use super::damage::Damage;
use super::evidence::{Evidence, size_in};
use super::{Watch, chains, deep, ranges};
use crate::repository::Record;
use crate::wal::archive::Archive;
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

/// One row for each gap-free range, gap, damaged segment and stranger. An empty archive has none, but for the WAL that
/// complete backups need.
///
/// # Errors
/// What the store said, or `watch` when it ended the work. Damage of what is stored is a row, not an error.
pub fn verify_archive(
    archive: &Archive,
    records: &[Record],
    depth: Depth,
    watch: &dyn Watch,
) -> Result<Vec<ArchiveRow>> {
    let check = || watch.check();
    let mut look = Look::take(archive, &check)?;
    if look.survey.is_empty() {
        look.survey.segment_size = size_in(records).unwrap_or(look.survey.segment_size);
    }
    let mut moments = Moments::new(archive, look.survey.segment_size).with_check(&check);
    let gone = moments.gone(&look.survey)?;
    let evidence = Evidence::weigh(&look.survey, gone, records);
    let mut indexes = Vec::new();
    let (mut damage, partials) = match depth {
        Depth::Names => (broken(&look.survey, &mut moments)?, Damage::default()),
        Depth::Everything(jobs) => {
            let found = deep::check(archive, &look, jobs, watch)?;
            indexes = ranges::index_rows(archive, &look.survey, &found.indexes);
            (found.segments, found.partials)
        }
    };
    let mut timed = 0;
    let mut times = |timeline: Timeline, run: Run| {
        timed += 1;
        if timed > MAX_TIMED { Ok((None, None)) } else { moments.times(timeline, run) }
    };
    let mut rows = ranges::rows(&look, &mut damage, &partials, &evidence, &mut times)?;
    rows.extend(indexes);
    Ok(rows)
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
