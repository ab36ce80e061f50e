//! Reads every segment and follows its records: checksums of objects, first pages, the chain of records and their CRCs,
//! over the boundaries of segments and over timelines.
//!
//! Work is cut into runs of a few segments. Whoever reads a run also reads on in the next segment until the record that
//! crosses the boundary is whole and the first one behind it names it, so that runs are checked in parallel and no
//! boundary is left out. Segments that several lines of timelines share are read once, the one before a branch twice.
//! Every segment but the last of a line must hold records up to its end; the last may end anywhere, as recovery along
//! the line does, but not before where its records ended when it was stored, nor where those that follow are whole.

use super::Watch;
use super::backup::wal::is_own;
use super::chains::{Chain, chains};
use super::damage::Damage;
use super::ranges::text;
use super::twice;
use crate::postgres::wal_record::{Stop, WalReader};
use crate::postgres::wal_segment::{ExpectedSegment, SegmentName};
use crate::repository::layout;
use crate::wal::archive::Archive;
use crate::wal::moments::Moments;
use crate::wal::summary::{Summarizer, Summary};
use crate::wal::survey::{Look, Run, Survey};
use pg_ark_contract::{Error, ErrorKind, Result};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes of segments in one piece of work, at the most.
const CHUNK: u64 = 256 << 20;
/// Threads at the most.
const MAX_JOBS: usize = 64;

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Segments.
    pub segments: Damage,
    /// `.partial` segments.
    pub partials: Damage,
    /// Segments of which the index says what they do not.
    pub indexes: Damage,
}

/// One piece of work.
enum Work {
    /// Segments of a chain, by its position and their numbers.
    Run(usize, Run),
    Partial(SegmentName),
    Twice(SegmentName),
}

struct Checker<'a> {
    archive: &'a Archive,
    survey: &'a Survey,
    watch: &'a dyn Watch,
    chains: Vec<Chain>,
    findings: Mutex<Findings>,
}

/// Reads everything with `jobs` threads (0: one per core).
///
/// # Errors
/// What `watch` said when it ended the work; `RepositoryUnusable` when the repository went away meanwhile.
pub fn check(archive: &Archive, look: &Look, jobs: usize, watch: &dyn Watch) -> Result<Findings> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = if jobs == 0 { cores } else { jobs }.clamp(1, MAX_JOBS);
    let survey = &look.survey;
    let (chains, runs) = chains(survey);
    let work = cut(&runs, look, jobs);
    let size = survey.segment_size.bytes();
    let partials: usize = survey.timelines.values().map(|content| content.partials.len()).sum();
    let segments: u64 = runs.iter().map(|(_, run)| run.count()).sum();
    watch.total(segments.saturating_add(partials as u64).saturating_mul(size));
    let checker = Checker { archive, survey, watch, chains, findings: Mutex::default() };
    let next = AtomicUsize::new(0);
    let ended = AtomicBool::new(false);
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(work.len()) {
            scope.spawn(|| {
                while let Some(one) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if ended.load(Ordering::Relaxed) {
                        return;
                    }
                    if let Err(e) = checker.work(one) {
                        ended.store(true, Ordering::Relaxed);
                        failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
                    }
                }
            });
        }
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(checker.findings.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

/// Pieces of work that are small enough to keep every thread busy to the end.
fn cut(runs: &[(usize, Run)], look: &Look, jobs: usize) -> Vec<Work> {
    let all: u64 = runs.iter().map(|(_, run)| run.count()).sum();
    let most = (CHUNK / look.survey.segment_size.bytes()).max(1);
    let each = (all / (4 * jobs as u64)).clamp(1, most);
    let mut work = Vec::new();
    for (chain, run) in runs {
        let mut first = run.first;
        while first <= run.last {
            let last = run.last.min(first.saturating_add(each - 1));
            work.push(Work::Run(*chain, Run { first, last }));
            first = last + 1;
        }
    }
    for (timeline, content) in &look.survey.timelines {
        let named = |number: &u64| Work::Partial(SegmentName { timeline: *timeline, number: *number });
        work.extend(content.partials.iter().map(named));
    }
    work.extend(look.twice.iter().copied().map(Work::Twice));
    work
}

impl Checker<'_> {
    fn work(&self, work: &Work) -> Result<()> {
        match work {
            Work::Run(chain, run) => self.chains.get(*chain).map_or(Ok(()), |chain| self.run(chain, *run)),
            Work::Partial(name) => {
                let file_name = format!("{}.partial", name.file_name(self.survey.segment_size));
                match self.read(*name, &file_name, &mut |bytes| self.advance(bytes)) {
                    Ok(()) => Ok(()),
                    Err(e) => self.fault(e, |findings, why| findings.partials.add(*name, why)),
                }
            }
            Work::Twice(name) => {
                let found = twice::compare(self.archive, &name.file_name(self.survey.segment_size), &|| {
                    self.watch.check()
                });
                match found {
                    Ok(None) => Ok(()),
                    Ok(Some(why)) => {
                        self.findings().segments.add(*name, why);
                        Ok(())
                    }
                    Err(e) => self.fault(e, |findings, why| findings.segments.add(*name, why)),
                }
            }
        }
    }

    /// Follows the records of a run, and on into the segment behind it.
    fn run(&self, chain: &Chain, run: Run) -> Result<()> {
        let size = self.survey.segment_size;
        let mut reader: Option<WalReader> = None;
        let mut moments = Moments::new(self.archive, size);
        for number in run.first..=run.last {
            let Some(name) = chain.stretch.segment(number) else { continue };
            let mut summarizer = Summarizer::new(name, size);
            let mut wal = reader.take().unwrap_or_else(|| WalReader::new(name.start(size), size, true));
            let read = self.read(name, &name.file_name(size), &mut |bytes| {
                wal.feed(bytes, &mut |_| {});
                summarizer.feed(bytes);
                self.advance(bytes)
            });
            let may_end = chain.is_end && number == chain.stretch.last();
            if read.is_ok() && (may_end || wal.stopped().is_none()) {
                self.judge_index(name, &mut moments, &summarizer.finish())?;
            }
            match (read, wal.stopped()) {
                (Err(e), _) => self.fault(e, |findings, why| findings.segments.add(name, why))?,
                (Ok(()), None) => reader = Some(wal),
                (Ok(()), Some(stop)) if may_end => {
                    self.judge_end(chain, name, stop)?;
                }
                (Ok(()), Some(stop)) => self.broken(chain, number, stop),
            }
        }
        reader.map_or(Ok(()), |reader| self.read_on(chain, run.last, reader))
    }

    /// Reads on behind a run until its last record is whole and the one that follows names it.
    fn read_on(&self, chain: &Chain, last: u64, mut wal: WalReader) -> Result<()> {
        let size = self.survey.segment_size;
        let boundary = size.start_of(last.saturating_add(1));
        for number in last.saturating_add(1)..=chain.stretch.last() {
            let Some(name) = chain.stretch.segment(number) else { return Ok(()) };
            let mut enough = false;
            let read = self.read(name, &name.file_name(size), &mut |bytes| {
                wal.feed(bytes, &mut |record| enough |= record.start >= boundary);
                match enough || wal.stopped().is_some() {
                    true => Err(Error::new(ErrorKind::Internal, "enough was read")),
                    false => Ok(()),
                }
            });
            match (read, wal.stopped()) {
                _ if enough => return Ok(()),
                // Recovery along the line may end there too.
                (_, Some(stop)) if chain.is_end && number == chain.stretch.last() => {
                    return self.judge_end(chain, name, stop);
                }
                (_, Some(stop)) => {
                    self.broken(chain, number, stop);
                    return Ok(());
                }
                (Ok(()), None) => {}
                // Whoever reads that segment tells what is wrong with it.
                (Err(e), None) => return self.fault(e, |_, _| {}),
            }
        }
        Ok(())
    }

    /// Remembers where and why the records of segment `number` break off.
    fn broken(&self, chain: &Chain, number: u64, stop: &Stop) {
        let size = self.survey.segment_size;
        let at = size.segment_of(stop.lsn).clamp(chain.stretch.first(), number);
        let Some(name) = chain.stretch.segment(at) else { return };
        let mut why = format!("its records end at {}: {}", stop.lsn, stop.why);
        if at != number
            && let Some(other) = chain.stretch.segment(number)
        {
            why.push_str(&format!(" (the record goes on in {})", other.file_name(size)));
        }
        self.findings().segments.add(name, why);
    }

    /// Records end in the last segment of a line. They may, but not where the segment alone goes on, nor before where
    /// they ended when it was stored.
    fn judge_end(&self, chain: &Chain, name: SegmentName, stop: &Stop) -> Result<()> {
        let size = self.survey.segment_size;
        let start = name.start(size);
        let mut alone = WalReader::new(start, size, true);
        let read = self.read(name, &name.file_name(size), &mut |bytes| {
            alone.feed(bytes, &mut |_| {});
            Ok(())
        });
        // Whoever reads that segment tells what is wrong with it.
        if let Err(e) = read {
            return self.fault(e, |_, _| {});
        }
        // A record that begins before it is not whole, or what follows does not name that record.
        if stop.lsn <= start || alone.end().is_some_and(|end| end > stop.lsn) {
            self.broken(chain, name.number, stop);
            return Ok(());
        }
        let Some(stored) = Moments::new(self.archive, size).known(name)? else { return Ok(()) };
        if stored.end > stop.lsn || stored.whole {
            let went = if stored.whole { size.start_of(name.number + 1) } else { stored.end };
            let why = format!(
                "its records end at {}: {}; when it was stored they went on to {went}",
                stop.lsn, stop.why
            );
            self.findings().segments.add(name, why);
        }
        Ok(())
    }

    /// Where the index knows a segment, it must say what was read. That records went on when it was stored is judged with
    /// the segment.
    fn judge_index(&self, name: SegmentName, moments: &mut Moments<'_>, read: &Summary) -> Result<()> {
        let Some(index) = moments.known(name)? else { return Ok(()) };
        if index.end > read.end || index.whole && !read.whole {
            return Ok(());
        }
        let times = |summary: &Summary| (summary.first_time, summary.last_time);
        let points = |summary: &Summary| (summary.restore_points.clone(), summary.more_restore_points);
        let counts = |summary: &Summary| (summary.commits, summary.min_xid, summary.max_xid);
        // Lines without a seal may lack it.
        let lacks_first = index.first_record.is_none() && !moments.is_sealed(name);
        let why = match () {
            () if times(&index) != times(read) => "the times of its transactions",
            () if index.end != read.end || index.whole != read.whole => "where its records end",
            () if points(&index) != points(read) => "its restore points",
            () if counts(&index) != counts(read) => "its transactions",
            () if index.first_record != read.first_record && !lacks_first => "its first record",
            () => return Ok(()),
        };
        self.findings().indexes.add(name, format!("the index is wrong about {why}"));
        Ok(())
    }

    fn read(
        &self,
        name: SegmentName,
        file_name: &str,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        self.watch.check()?;
        let expected = ExpectedSegment {
            name,
            segment_size: self.survey.segment_size,
            system_identifier: self.archive.system_identifier(),
            server_major: None,
        };
        let found = self.archive.find(file_name)?.ok_or_else(|| {
            Error::new(
                ErrorKind::WalMissing,
                format!("{file_name} was there when the archive was listed, and is gone"),
            )
        })?;
        let history = self.survey.histories.get(&name.timeline);
        self.archive.read_segment_on(&found, &expected, history, &mut |bytes| {
            self.watch.check()?;
            sink(bytes)
        })
    }

    fn advance(&self, bytes: &[u8]) -> Result<()> {
        self.watch.advance(bytes.len() as u64);
        Ok(())
    }

    /// Remembers an error that concerns one segment; passes on one that concerns the work, or a repository that is gone.
    fn fault(&self, error: Error, add: impl FnOnce(&mut Findings, String)) -> Result<()> {
        if !is_own(&error) {
            return Err(error);
        }
        if self.archive.storage().size(layout::REPOSITORY)?.is_none() {
            let url = self.archive.storage().url();
            return Err(Error::new(
                ErrorKind::RepositoryUnusable,
                format!("repository \"{url}\" went away while it was read"),
            )
            .detail(error)
            .hint("Look whether its disk is mounted, then try again."));
        }
        add(&mut self.findings(), text(&error));
        Ok(())
    }

    fn findings(&self) -> MutexGuard<'_, Findings> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
