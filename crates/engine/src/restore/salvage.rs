//! What becomes of an old server's WAL: what is saved, what recovery gets, what fills a hole of the archive, and what is
//! of no use. Decided before anything is touched; pure but for [`look`].

use super::facts::resolve;
use super::losses;
use super::old_wal::{self, Identity, Kept, OldWal, Source};
use super::request::Request;
use super::saved;
use super::target::Target;
use crate::postgres::wal_record::to_utc;
use crate::postgres::wal_segment::SegmentName;
use crate::repository::Record;
use crate::wal::survey::Run;
use crate::wal::{Archive, Line, Survey};
use pg_ark_contract::units::human_bytes;
use pg_ark_contract::{Lsn, Result, SegmentSize, Timeline};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Names that a text shows of each kind.
const SHOWN: usize = 3;

/// What becomes of an old server's WAL.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Salvage {
    /// Where it was looked for.
    pub sources: Vec<PathBuf>,
    /// Files that are saved first, since the restore removes them where they are.
    pub saved: Vec<String>,
    /// Their size.
    pub saved_bytes: u64,
    /// Files that the new server gets.
    pub fed: Vec<String>,
    /// Their size.
    pub fed_bytes: u64,
    /// Files that go into the archive, which lacks them in its middle.
    pub archived: Vec<String>,
    /// Files that the archive holds as `.partial`, and that the new server gets as the end of their timeline.
    pub completed: Vec<String>,
    /// Files that this recovery has no use for.
    pub unused: Vec<String>,
    /// End of the last whole record that recovery gets by this.
    pub end_lsn: Option<Lsn>,
    /// Time of the last commit in it: RFC 3339, UTC.
    pub last_transaction_at: Option<String>,
    /// What to do with each.
    #[serde(skip)]
    pub(super) files: Files,
}

/// Files by what is done with them.
#[derive(Debug, Clone, Default)]
pub(super) struct Files {
    pub save: Vec<Kept>,
    pub feed: Vec<Kept>,
    pub fill: Vec<Kept>,
    /// Names of those that are finished, so that they can be archived as they are.
    pub whole: BTreeSet<String>,
    /// Names of those whose `.partial` the archive has.
    pub done: BTreeSet<String>,
}

/// Looks where the request says, and where an earlier restore to the same place saved WAL, and for ends of timelines that
/// the archive holds as `.partial`. `None` when the request names no place and the archive holds no such end.
///
/// # Errors
/// See [`OldWal::look`]; `InvalidArgument` for a `--keep-wal` that is no folder.
pub fn look(
    request: &Request,
    identity: Identity,
    archive: &Archive,
    survey: &Survey,
) -> Result<Option<OldWal>> {
    let asked = request.replace || request.keep_wal.is_some();
    let sources = if asked { sources(request, identity)? } else { Vec::new() };
    let old = OldWal::look(&sources, identity, archive, survey)?;
    Ok(Some(old).filter(|old| asked || old.has_stored()))
}

/// Folders that the request names, and those of earlier restores.
fn sources(request: &Request, identity: Identity) -> Result<Vec<Source>> {
    let data = resolve(&request.pgdata)?;
    let waldir = request.waldir.as_deref().map(resolve).transpose()?;
    let doomed = |folder: &Path| {
        request.replace
            && (folder.starts_with(&data) || waldir.as_ref().is_some_and(|w| folder.starts_with(w)))
    };
    let mut folders: Vec<PathBuf> = saved::find(&data, identity.system_identifier)?.finished;
    folders.extend(request.keep_wal.as_deref().map(old_wal::folder_of).transpose()?);
    if request.replace {
        folders.extend(data.join("pg_wal").canonicalize());
        folders.extend(waldir.clone());
    }
    let mut sources: Vec<Source> = Vec::new();
    for folder in folders.into_iter().filter(|folder| folder.is_dir()) {
        if !sources.iter().any(|source| source.folder == folder) {
            sources.push(Source { doomed: doomed(&folder), folder });
        }
    }
    // Of equal files the first counts, and it is better to need no copy.
    sources.sort_by_key(|source| source.doomed);
    Ok(sources)
}

/// What to say of saved WAL that the request leaves alone.
pub fn remark(request: &Request, data: &Path, system_identifier: u64) -> Option<String> {
    if request.replace || request.keep_wal.is_some() {
        return None;
    }
    let folder = saved::find(data, system_identifier).ok()?.finished.pop()?;
    Some(format!(
        "an earlier restore saved WAL in \"{0}\", which is not used: --keep-wal \"{0}\" gives it to recovery",
        folder.display()
    ))
}

/// The survey with what of the old WAL is connected to the archive, or to the WAL that a backup brings.
pub fn joined(old: Option<&OldWal>, survey: &Survey, records: &[Record]) -> Survey {
    let Some(old) = old else { return survey.clone() };
    let all = old.joined(survey);
    let mut base = Survey { segment_size: all.segment_size, ..survey.clone() };
    let mut both = all.clone();
    for record in records {
        include(&mut base, record);
        include(&mut both, record);
    }
    let mut joined = Survey { segment_size: all.segment_size, ..survey.clone() };
    joined.histories.clone_from(&all.histories);
    for tail in &old.tails {
        // Every line that reads the tail's segments: its own, and those of timelines that branched off it.
        let lines = both.timelines.keys().map(|tip| Line::of(&both, *tip));
        let connected = lines.filter(|line| line.history.contains(tail.timeline)).any(|line| {
            line.stretch_of(tail.run.first).is_some_and(|stretch| {
                let mut names = stretch.pieces.iter().flat_map(|piece| {
                    let content = base.timelines.get(&piece.timeline);
                    content.into_iter().flat_map(|content| &content.runs).map(move |run| (piece.run, *run))
                });
                names.any(|(piece, run)| run.first <= piece.last && piece.first <= run.last)
            })
        });
        if connected {
            old_wal::add(joined.timelines.entry(tail.timeline).or_default(), tail.run);
        }
    }
    joined
}

/// Adds the WAL that a backup brings.
fn include(survey: &mut Survey, record: &Record) {
    let (Some(timeline), Some(start), Some(stop)) = (record.timeline, record.start_lsn, record.stop_lsn)
    else {
        return;
    };
    if record.wal_included && record.wal_segment_size == survey.segment_size && start <= stop {
        let (first, last) =
            (survey.segment_size.segment_of(start), survey.segment_size.last_segment_before(stop));
        if first <= last {
            old_wal::add(survey.timelines.entry(timeline).or_default(), Run { first, last });
        }
    }
}

/// Where recovery goes.
#[derive(Debug, Clone, Copy)]
pub struct Road<'a> {
    /// The timeline that it follows.
    pub timeline: Timeline,
    /// Where it ends.
    pub target: &'a Target,
    /// Nobody named the timeline.
    pub newest: bool,
    /// The data directory to make.
    pub data: &'a Path,
}

/// Decides. `None` when nobody asked and recovery gets nothing.
///
/// # Errors
/// `WalMissing` when the end of the WAL is wanted, and the restore would remove a server whose own WAL does not connect
/// with what is stored; `Corrupt` when the end of the timeline is damaged.
pub fn decide(
    old: &OldWal,
    survey: &Survey,
    record: &Record,
    road: &Road<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<Salvage>> {
    let (timeline, immediate) = (road.timeline, *road.target == Target::Immediate);
    let size = old.identity.size;
    let records = std::slice::from_ref(record);
    let mut both = joined(Some(old), survey, records);
    include(&mut both, record);
    let line = Line::of(&both, timeline);
    let start = size.segment_of(record.start_lsn.unwrap_or_default());
    let newest = Line::of(&Survey { segment_size: size, ..survey.clone() }, timeline)
        .stretches
        .last()
        .map(|s| s.last());
    let stretch = line.stretch_of(start).filter(|_| !immediate);
    let names = stretch
        .into_iter()
        .flat_map(|stretch| (start..=stretch.last()).filter_map(|number| stretch.segment(number)));
    let (mut files, mut last) = (Files::default(), None);
    for name in names {
        let Some(kept) = old.usable(name) else { continue };
        if kept.stored.is_none() && is_whole(old, name, size) {
            files.whole.insert(kept.name.clone());
        }
        if survey.timelines.get(&name.timeline).is_some_and(|content| content.partials.contains(&name.number))
        {
            files.done.insert(kept.name.clone());
        }
        match newest {
            Some(newest) if name.number < newest && kept.stored.is_none() => files.fill.push(kept.clone()),
            _ => files.feed.push(kept.clone()),
        }
        last = Some(name);
    }
    for (timeline, (kept, _)) in &old.histories {
        files.whole.insert(kept.name.clone());
        let stored = survey.timelines.get(timeline).is_some_and(|content| !content.runs.is_empty());
        if stored { files.fill.push(kept.clone()) } else { files.feed.push(kept.clone()) }
    }
    files.save = old.files().into_iter().filter(|kept| kept.doomed).cloned().collect();
    let used: BTreeSet<&str> = files.feed.iter().chain(&files.fill).map(|kept| &kept.name[..]).collect();
    let unused: Vec<String> = old
        .files()
        .iter()
        .filter(|kept| !used.contains(&kept.name[..]))
        .map(|kept| kept.name.clone())
        .collect();
    warnings.extend(old.warnings.iter().cloned());
    if !immediate {
        let next = stretch.map(|stretch| stretch.last() + 1);
        let end = SegmentName { timeline, number: next.unwrap_or(start) };
        if let Some(error) = old.damaged.get(&end).filter(|_| *road.target == Target::Latest) {
            return Err(error.clone());
        }
        losses::behind_a_gap(old, &both, &line, (next, start), road, warnings)?;
        warnings.extend(losses::behind_the_fork(old, &both, &line, road.data));
    }
    if old.sources.is_empty() && files.feed.is_empty() && files.fill.is_empty() {
        return Ok(None);
    }
    let completed = files.feed.iter().filter(|kept| kept.stored.is_some());
    let completed = completed.map(|kept| format!("{}.partial", kept.name)).collect();
    let tail = last.and_then(|last| old.tails.iter().find(|tail| tail.holds(last)));
    Ok(Some(Salvage {
        sources: old.sources.iter().map(|source| source.folder.clone()).collect(),
        saved_bytes: bytes(&files.save),
        saved: named(&files.save),
        fed_bytes: bytes(&files.feed),
        fed: named(&files.feed),
        archived: named(&files.fill),
        completed,
        unused,
        end_lsn: tail.map(|tail| tail.end),
        last_transaction_at: tail
            .and_then(|tail| to_utc(tail.last_commit?))
            .map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)),
        files,
    }))
}

/// Whether a segment is finished: its last byte is behind the end of what was written.
fn is_whole(old: &OldWal, name: SegmentName, size: SegmentSize) -> bool {
    old.tails.iter().any(|tail| tail.holds(name) && tail.end >= name.next().start(size))
}

fn named(files: &[Kept]) -> Vec<String> {
    files.iter().map(|kept| kept.name.clone()).collect()
}

fn bytes(files: &[Kept]) -> u64 {
    files.iter().fold(0, |sum, kept| sum.saturating_add(kept.bytes))
}

impl Salvage {
    /// What `wal_keep_size` must be while the server recovers, in MB; `None` when it gets nothing.
    pub(super) fn keep_size(&self, size: SegmentSize) -> Option<u64> {
        (!self.files.feed.is_empty()).then(|| super::feed::keep_size(&self.files.feed, size))
    }

    /// Lines of a plan.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut add = |what: &str, names: &[String], more: String| {
            if !names.is_empty() {
                lines.push(format!("Old WAL:  {what} {}{more}", some_of(names)));
            }
        };
        add("saves first", &self.saved, format!(" ({})", human_bytes(self.saved_bytes)));
        let end = self.end_lsn.map_or_else(String::new, |end| format!("; it ends at {end}"));
        add("gives to recovery", &self.fed, end);
        add("takes for the end of the timeline", &self.completed, String::new());
        add("stores in the archive's gaps", &self.archived, String::new());
        add("has no use for", &self.unused, String::new());
        if lines.is_empty() {
            let places: Vec<String> = self.sources.iter().map(|path| path.display().to_string()).collect();
            lines.push(match places.is_empty() {
                true => "Old WAL:  none was found".to_string(),
                false => format!("Old WAL:  the archive has all that is in {}", places.join(", ")),
            });
        }
        lines
    }
}

/// `3 files: a, b, c`, or the first and the last of many.
fn some_of(names: &[String]) -> String {
    let many = if names.len() == 1 { "file" } else { "files" };
    match names {
        [first, .., last] if names.len() > SHOWN => format!("{} {many}: {first} to {last}", names.len()),
        _ => format!("{} {many}: {}", names.len(), names.join(", ")),
    }
}

#[cfg(test)]
#[path = "salvage_tests.rs"]
mod tests;
