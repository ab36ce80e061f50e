//! Removes WAL and histories of one archive.
//!
//! 1. `pruned.json` names what will be gone: from then on it is no gap, and no end of the WAL either.
//! 2. Segment by segment, oldest first, with the `.partial` and `.backup` files among them; of each folder the lines of the
//!    index first: a line about a file that is not there tells of a loss.
//! 3. Histories, their lines first. Folders that this leaves empty.
//!
//! The archiver may rewrite an index at the same time, and bring lines back. They are looked for once more when the
//! objects are gone; those that come later than that do no harm, because `pruned.json` names what they are about. Lines
//! of its own that it loses that way the archiver enters again when it is idle.

use super::gather::Beside;
use super::leases::Leases;
use super::model::{Plan, StoredWal};
use crate::postgres::timeline::{history_file_name, timeline_of_history_file};
use crate::postgres::wal_segment::SegmentName;
use crate::session::Session;
use crate::wal::Pruned;
use crate::wal::archive::{Archive, INDEX, WalFile, segment_of_object};
use crate::wal::index::Index;
use crate::wal::survey::{Run, joined};
use chrono::{DateTime, Utc};
use pg_ark_contract::retention::Verdict;
use pg_ark_contract::{ErrorKind, Result, SegmentSize, Timeline};
use std::collections::BTreeMap;

/// What is to be done in one archive.
pub(super) struct WalRemoval<'a> {
    archive: Archive,
    size: SegmentSize,
    /// Stored segments that go.
    dropped: BTreeMap<Timeline, Vec<Run>>,
    /// Stored segments that stay.
    kept: BTreeMap<Timeline, Vec<Run>>,
    /// What will have been removed.
    after: Pruned,
    beside: &'a Beside,
    histories: Vec<Timeline>,
}

impl<'a> WalRemoval<'a> {
    /// What `plan` says about the archive of a system.
    pub(super) fn of(archive: Archive, wal: &StoredWal, beside: &'a Beside, plan: &Plan) -> Self {
        let system = archive.system_identifier();
        let of = |verdict: Verdict| {
            let mut runs: BTreeMap<Timeline, Vec<Run>> = BTreeMap::new();
            for wal in plan.wal.iter().filter(|wal| wal.system == system && wal.verdict == verdict) {
                runs.entry(wal.timeline).or_default().push(wal.run);
            }
            runs.values_mut().for_each(|runs| *runs = joined(std::mem::take(runs)));
            runs
        };
        let own = plan.histories.iter().filter(|history| history.system == system);
        let histories: Vec<Timeline> =
            own.filter(|history| history.verdict == Verdict::Drop).map(|history| history.timeline).collect();
        let mut removal = WalRemoval {
            archive,
            size: wal.segment_size,
            dropped: of(Verdict::Drop),
            kept: of(Verdict::Keep),
            after: beside.pruned.clone(),
            beside,
            histories,
        };
        // What no verdict is about stays.
        for (timeline, runs) in &wal.segments {
            let dropped = removal.dropped.get(timeline).map_or(&[][..], Vec::as_slice);
            let stays = runs.iter().flat_map(|run| without(*run, dropped));
            let kept = removal.kept.entry(*timeline).or_default();
            kept.extend(stays);
            *kept = joined(std::mem::take(kept));
        }
        removal.foresee(wal);
        removal
    }

    /// What was removed and will be, without what is stored and stays. A hole beside what goes goes with it: recovery will not
    /// come to either of its ends.
    fn foresee(&mut self, wal: &StoredWal) {
        for (timeline, runs) in &self.dropped {
            let kept = self.kept.get(timeline).map_or(&[][..], Vec::as_slice);
            let zones = runs.iter().map(|run| zone(*run, kept));
            self.after.segments.entry(*timeline).or_default().extend(zones);
        }
        for (timeline, runs) in &mut self.after.segments {
            let kept = self.kept.get(timeline).map_or(&[][..], Vec::as_slice);
            *runs = joined(std::mem::take(runs)).into_iter().flat_map(|run| without(run, kept)).collect();
        }
        self.after.segments.retain(|_, runs| !runs.is_empty());
        self.after.histories.extend(&self.histories);
        let stays =
            |timeline: &Timeline| wal.histories.contains_key(timeline) && !self.histories.contains(timeline);
        self.after.histories.retain(|timeline| !stays(timeline));
    }

    /// Whether there is anything to do.
    pub(super) fn is_needed(&self) -> bool {
        let leftover = |(timeline, number): &(Timeline, u64)| self.goes(*timeline, *number);
        !self.dropped.is_empty()
            || !self.histories.is_empty()
            || self.after != self.beside.pruned
            || self.beside.files.iter().any(leftover)
            || self.beside.hollow.iter().any(|(timeline, log)| self.meets(*timeline, *log))
            || self.beside.empty.iter().any(|timeline| !self.after.runs(*timeline).is_empty())
    }

    /// Whether a `.partial` or `.backup` file of this segment goes: with the segments around it, and with the last one before
    /// it when nothing of its timeline stays behind that.
    fn goes(&self, timeline: Timeline, number: u64) -> bool {
        let is_kept = |number: u64| {
            let mut kept = self.kept.get(&timeline).into_iter().flatten();
            kept.any(|run| (run.first..=run.last).contains(&number))
        };
        let ends = |before: u64| {
            let kept = self.kept.get(&timeline).and_then(|runs| runs.last());
            self.after.holds(timeline, before) && kept.is_none_or(|run| run.last < before)
        };
        !is_kept(number) && (self.after.holds(timeline, number) || number.checked_sub(1).is_some_and(ends))
    }

    /// Whether something of a folder was removed, or goes.
    fn meets(&self, timeline: Timeline, log: u32) -> bool {
        let per_log = (1u64 << 32) / self.size.bytes();
        let first = u64::from(log) * per_log;
        // A `.partial` may follow what was removed.
        let runs = self.after.runs(timeline).iter();
        runs.clone().any(|run| run.first < first + per_log && first <= run.last.saturating_add(1))
    }

    /// Does it. `now` is noted.
    ///
    /// # Errors
    /// What the store said; `Busy` when a lease is lost.
    pub(super) fn run(mut self, leases: &Leases<'_>, session: &Session, now: DateTime<Utc>) -> Result<()> {
        if !self.is_needed() {
            return Ok(());
        }
        leases.prove()?;
        if !self.dropped.is_empty() || !self.histories.is_empty() || self.after != self.beside.pruned {
            self.after.at = Some(now);
            self.after.save(&self.archive, self.size)?;
        }
        let storage = self.archive.storage();
        for timeline in self.archive.timelines()? {
            let folder = self.archive.timeline_folder(timeline);
            if self.after.runs(timeline).is_empty() {
                continue;
            }
            for log in self.archive.logs(timeline)?.into_iter().filter(|log| self.meets(timeline, *log)) {
                let below = self.archive.log_folder(timeline, log);
                if let Some(link) = [&folder, &below].into_iter().find(|folder| storage.is_link(folder)) {
                    let what = format!("\"{}\" is a link: nothing in it is removed", storage.display(link));
                    session.warn(what, Some("Look what it leads to.".into()));
                    continue;
                }
                self.folder(timeline, log, leases)?;
            }
            storage.remove_empty(&folder);
        }
        self.remove_histories(leases)
    }

    fn folder(&self, timeline: Timeline, log: u32, leases: &Leases<'_>) -> Result<()> {
        leases.check()?;
        let storage = self.archive.storage();
        let folder = self.archive.log_folder(timeline, log);
        let (mut gone, mut stay) = (Vec::new(), 0);
        for path in storage.files(&folder)? {
            let name = path.rsplit('/').next().unwrap_or_default();
            match segment_of_object(name, self.size).filter(|(of, _)| of.timeline == timeline) {
                Some((of, kind)) if self.is_dropped(of, kind) => gone.push(path),
                Some(_) => stay += 1,
                None => {}
            }
        }
        let index = self.archive.index_path(timeline, log);
        self.forget(&index, stay == 0)?;
        for path in &gone {
            leases.check()?;
            storage.delete(path)?;
        }
        if !gone.is_empty() {
            self.forget(&index, stay == 0)?;
        }
        storage.remove_empty(&folder);
        Ok(())
    }

    fn is_dropped(&self, of: SegmentName, kind: WalFile) -> bool {
        let mut runs = self.dropped.get(&of.timeline).into_iter().flatten();
        match kind {
            WalFile::Segment => runs.any(|run| (run.first..=run.last).contains(&of.number)),
            _ => self.goes(of.timeline, of.number),
        }
    }

    /// Takes lines about what goes out of an index; the whole index when nothing of its folder stays, and it speaks of nothing
    /// else.
    fn forget(&self, path: &str, is_last: bool) -> Result<()> {
        let storage = self.archive.storage();
        let mut index = match Index::load(storage, path, self.size) {
            // It helps nobody; the archiver makes it anew, if there is anything left to tell.
            Err(e) if e.kind == ErrorKind::Corrupt => return storage.delete(path),
            loaded => loaded?,
        };
        let Some(timeline) = timeline_of_index(path).filter(|_| index.is_there()) else { return Ok(()) };
        let segment = |number| self.after.holds(timeline, number);
        let file = |name: &str| {
            let of = segment_of_object(name, self.size).or_else(|| partial(name, self.size));
            of.is_some_and(|(of, kind)| of.timeline == timeline && self.is_dropped(of, kind))
        };
        let is_changed = index.forget(segment, file);
        let is_empty = index.iter().next().is_none() && index.files().next().is_none();
        match is_last && is_empty {
            true => storage.delete(path),
            false if is_changed => index.save(storage, path),
            false => Ok(()),
        }
    }

    fn remove_histories(&self, leases: &Leases<'_>) -> Result<()> {
        // A line that came back is about one that was removed before.
        let is_gone =
            |name: &str| timeline_of_history_file(name).is_some_and(|t| self.after.histories.contains(&t));
        if self.after.histories.is_empty() {
            return Ok(());
        }
        leases.check()?;
        let storage = self.archive.storage();
        let path = format!("{}/{INDEX}", self.archive.folder());
        let forget = || match Index::load(storage, &path, self.size) {
            // Nothing would prove those that stay any more.
            Err(e) if e.kind == ErrorKind::Corrupt => Ok(()),
            Err(e) => Err(e),
            Ok(mut index) => match index.forget(|_| false, is_gone) {
                true => index.save(storage, &path),
                false => Ok(()),
            },
        };
        forget()?;
        for timeline in &self.histories {
            leases.check()?;
            storage.delete(&format!("{}/{}", self.archive.folder(), history_file_name(*timeline)))?;
        }
        if self.histories.is_empty() { Ok(()) } else { forget() }
    }
}

/// A run that goes, with the holes on both sides of it, up to what stays.
fn zone(run: Run, kept: &[Run]) -> Run {
    let before = kept.iter().rev().find(|kept| kept.last < run.first);
    let after = kept.iter().find(|kept| run.last < kept.first);
    Run {
        first: before.map_or(run.first, |kept| kept.last + 1),
        last: after.map_or(run.last, |kept| kept.first - 1),
    }
}

/// The parts of a run that are in none of `known`, which ascend.
fn without(run: Run, known: &[Run]) -> Vec<Run> {
    let mut parts = Vec::new();
    let mut first = run.first;
    for known in known.iter().filter(|known| known.last >= run.first && known.first <= run.last) {
        if known.first > first {
            parts.push(Run { first, last: known.first - 1 });
        }
        match known.last.checked_add(1) {
            Some(next) => first = first.max(next),
            None => return parts,
        }
    }
    if first <= run.last {
        parts.push(Run { first, last: run.last });
    }
    parts
}

/// Lines name `.partial` files without the suffix of a codec.
fn partial(name: &str, size: SegmentSize) -> Option<(SegmentName, WalFile)> {
    let kind = WalFile::of(name).filter(|kind| *kind == WalFile::Partial)?;
    Some((SegmentName::parse(name.get(..24)?, size)?, kind))
}

/// The timeline of the folder that holds an index.
fn timeline_of_index(path: &str) -> Option<Timeline> {
    let digits = path.rsplit('/').nth(2)?;
    u32::from_str_radix(digits, 16).ok().filter(|timeline| *timeline > 0).map(Timeline)
}
