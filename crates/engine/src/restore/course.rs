//! From a request to the backup, the timeline and the end of recovery: looks into the repository, and hands what it finds
//! to [`super::choice`].

use super::choice::{self, Aim, Stored, Wal, Wish};
use super::old_wal::{Identity, OldWal};
use super::passed_over;
use super::reach::Reach;
use super::recovery;
use super::request::{self, ArchiveMode, Request};
use super::salvage;
use super::target::{Target, TargetAction, shown_moment};
use crate::postgres::wal_segment::SegmentName;
use crate::repository::{Cluster, Record};
use crate::wal::moments::{Moment, Moments, is_damage, is_unreadable};
use crate::wal::{Archive, Stretch, Survey};
use pg_ark_contract::{Error, ErrorKind, Lsn, Result, Timeline};
use serde::Serialize;
use std::path::PathBuf;

/// What the repository holds for a request.
#[derive(Debug, Clone)]
pub struct Stock {
    /// Backups of one system identifier that can be restored; the named one alone, if one was named.
    pub records: Vec<Record>,
    /// Their system identifier.
    pub system_identifier: u64,
    /// Their WAL.
    pub archive: Archive,
    /// What is there of it.
    pub survey: Survey,
    /// What an old server left.
    pub old: Option<OldWal>,
    /// Both.
    joined: Survey,
    named: bool,
    /// What the user should know.
    told: Vec<String>,
}

/// A place in the WAL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Point {
    /// End of a record.
    pub lsn: Lsn,
    /// Time of the last transaction that ended up to there, where known: RFC 3339, UTC.
    pub time: Option<String>,
}

impl From<Moment> for Point {
    fn from(moment: Moment) -> Self {
        Point { lsn: moment.lsn, time: moment.time.and_then(shown_moment) }
    }
}

/// How far recovery goes, and along which way.
#[derive(Debug, Clone, Serialize)]
pub struct RecoveryPlan {
    /// Where it ends. A time is in UTC.
    pub target: Target,
    /// What the server is told instead, where it would not stop at that.
    pub given: Option<Target>,
    /// The target itself is left out.
    pub exclusive: bool,
    /// What the server does there.
    pub action: TargetAction,
    /// It becomes a standby instead, and goes on.
    pub standby: bool,
    /// The timeline that it follows.
    pub timeline: Timeline,
    /// That one with its ancestors, oldest first: `1,2`.
    pub timelines: String,
    /// The backup brings the WAL from its start to its end.
    pub wal_included: bool,
    /// The first segment that must come from the archive.
    pub first_segment: Option<String>,
    /// The last one.
    pub last_segment: Option<String>,
    /// How many.
    pub segments: u64,
    /// Where the target stops recovery; none at the end of the WAL.
    pub stop: Option<Point>,
    /// Where the WAL ends.
    pub end: Point,
    /// The server's `restore_command`.
    pub restore_command: String,
    /// The program that it runs.
    pub program: Option<PathBuf>,
    /// Statistics are gathered afterwards.
    pub analyze: bool,
    /// Whether the restored server archives.
    pub archive_mode: ArchiveMode,
    /// Port of the restored server; none: as its settings say.
    pub port: Option<u16>,
    /// What `wal_keep_size` is while the server recovers, in MB: it must not remove WAL that is only in its pg_wal.
    pub wal_keep_size: Option<u64>,
}

impl RecoveryPlan {
    /// A copy beside its origin does not archive, unless that was asked for.
    pub(super) fn for_copy(&mut self, request: &Request, is_copy: bool) {
        let usual = if is_copy { ArchiveMode::Off } else { ArchiveMode::Keep };
        self.archive_mode = request.archive_mode.unwrap_or(usual);
    }

    /// What recovery must reach: the target, or the end of the WAL.
    pub fn goal(&self) -> Lsn {
        self.stop.as_ref().map_or(self.end.lsn, |stop| stop.lsn)
    }
}

/// A backup, and the way from it.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The backup.
    pub record: Record,
    /// Its folder in the repository.
    pub folder: String,
    /// The way.
    pub recovery: RecoveryPlan,
    /// What the user should know.
    pub remarks: Vec<String>,
}

/// Looks at what the repository holds for the request.
///
/// # Errors
/// See [`request::named`] and [`request::complete`]; `InvalidArgument` for options that contradict each other; what the
/// store said.
pub fn look(cluster: &Cluster, request: &Request) -> Result<Stock> {
    check(request)?;
    let named = request.backup != "latest";
    let mut records = match named {
        true => vec![request::named(cluster, &request.backup)?],
        false => request::complete(cluster)?,
    };
    let system_identifier =
        records.first().and_then(|r| r.system_identifier.parse().ok()).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "the record of a backup has no valid system identifier")
        })?;
    let archive = Archive::of(cluster, system_identifier);
    let mut told = Vec::new();
    let taken = Survey::take(&archive, &|| Ok(()));
    if let (Err(error), Some(newest)) = (&taken, records.last())
        && is_unreadable(error)
        && needs_no_archive(newest, request)
    {
        told.push(without_archive(error));
        records.drain(..records.len() - 1);
    }
    let Some(newest) = records.last() else {
        return Err(Error::new(ErrorKind::BackupNotFound, "there is no complete backup"));
    };
    let mut survey = if told.is_empty() { taken? } else { Survey::empty(newest.wal_segment_size) };
    if survey.is_empty() {
        survey.segment_size = newest.wal_segment_size;
    }
    let identity = Identity {
        system_identifier,
        size: newest.wal_segment_size,
        server_major: newest.server_version_num / 10_000,
    };
    let old = salvage::look(request, identity, &archive, &survey)?;
    let joined = salvage::joined(old.as_ref(), &survey, &records);
    Ok(Stock { records, system_identifier, archive, survey, old, joined, named, told })
}

/// The backup brings all the WAL that is wished.
fn needs_no_archive(record: &Record, request: &Request) -> bool {
    let old_wal = request.replace || request.keep_wal.is_some();
    request.target == Target::Immediate && record.wal_included && !old_wal
}

fn without_archive(error: &Error) -> String {
    let detail = error.detail.as_deref().map(|detail| format!(" {detail}")).unwrap_or_default();
    format!(
        "the WAL archive cannot be read, and is not asked, because the backup brings its own WAL: {}.{detail} The restored \
         server chooses its new timeline without it: if the archive has that timeline already, the server cannot archive \
         there",
        error.message
    )
}

/// Refuses options that contradict each other.
fn check(request: &Request) -> Result<()> {
    let invalid = |message: &str, hint: &str| Err(Error::new(ErrorKind::InvalidArgument, message).hint(hint));
    let follows = matches!(request.target, Target::Latest);
    if request.exclusive && !request.target.may_exclude() {
        return invalid(
            "--exclusive needs a time, an LSN or a transaction",
            "Leave it out, or name such a target.",
        );
    }
    if follows && request.action != TargetAction::Promote {
        return invalid(
            "--target-action pause and shutdown need a target",
            "At the end of the WAL a server always becomes a primary. Name a target, or use --standby.",
        );
    }
    if request.standby && !follows {
        return invalid("a standby has no target", "Leave out --standby, or the target.");
    }
    if request.analyze && (request.standby || request.action != TargetAction::Promote) {
        return invalid(
            "--analyze needs a server that can be written",
            "Leave it out, and let it be a primary: neither --standby nor --target-action.",
        );
    }
    Ok(())
}

/// Whether the target comes once more. Damage behind the place where recovery stops does not matter.
fn again(wal: &mut Reach<'_>, stretch: &Stretch, stop: Lsn, aim: Aim<'_>) -> Result<bool> {
    let first = wal.size().segment_of(stop);
    match wal.stop(stretch, first..=stretch.last(), stop, aim) {
        Err(e) if is_damage(&e) => Ok(false),
        found => Ok(found?.is_some()),
    }
}

/// Chooses the backup and the way.
///
/// # Errors
/// See [`choice::choose`] and [`passed_over::check`].
pub fn choose(stock: &Stock, cluster: &Cluster, request: &Request) -> Result<Chosen> {
    let size = stock.joined.segment_size;
    let mut wal = Reach::new(Moments::new(&stock.archive, size), stock.old.as_ref(), size);
    let aim = Aim { target: &request.target, exclusive: request.exclusive };
    let wish = Wish { aim, timeline: request.timeline, named: stock.named };
    let stored = Stored { records: &stock.records, survey: &stock.joined };
    let mut course = choice::choose(stored, wish, &mut wal)?;
    if !stock.named {
        let passed = passed_over::check(cluster, stock.system_identifier, &course, &request.target)?;
        course.remarks.extend(passed);
    }
    let record = course.record;
    let first = choice::Candidate::of(record).map_or(0, |c| c.first_needed(&course.line, size));
    let goal = course.stop.map_or(course.end.lsn, |stop| stop.lsn);
    // The end that is known can lie behind what is stored.
    let stored = course.stretch.as_ref().map_or(0, |stretch| stretch.last());
    let last = size.last_segment_before(goal).min(stored);
    let named = |number: u64| {
        let segment = course.stretch.as_ref().filter(|_| number <= last).and_then(|s| s.segment(number));
        segment.map(|name: SegmentName| name.file_name(size))
    };
    let needed = named(first).is_some();
    // Where nothing is archived the backup's own WAL is all there is, and nothing has to be asked.
    let (program, restore_command) =
        match stock.survey.is_empty() && stock.survey.histories.is_empty() && !request.standby {
            true => (None, recovery::NO_ARCHIVE.to_string()),
            false => {
                let program = recovery::program(request)?;
                let command = recovery::command(&program, cluster, stock.system_identifier)?;
                (Some(program), command)
            }
        };
    let mut remarks = stock.told.clone();
    remarks.extend(course.remarks);
    if let (Target::Name(name), Some(stop), Some(stretch)) = (&request.target, course.stop, &course.stretch)
        && again(&mut wal, stretch, stop.lsn, aim)?
    {
        remarks.push(format!(
            "restore point \"{}\" is met at {}, the first of that name behind the backup",
            name.escape_debug(),
            stop.lsn
        ));
    }
    Ok(Chosen {
        folder: cluster.backup_folder(stock.system_identifier, &record.backup),
        recovery: RecoveryPlan {
            target: request.target.clone(),
            given: course.given,
            exclusive: request.exclusive,
            action: request.action,
            standby: request.standby,
            timeline: course.line.timeline(),
            timelines: course.line.shown(),
            wal_included: record.wal_included,
            first_segment: named(first),
            last_segment: if needed { named(last) } else { None },
            segments: if needed { last - first + 1 } else { 0 },
            stop: course.stop.map(Point::from),
            end: course.end.into(),
            restore_command,
            program,
            analyze: request.analyze,
            archive_mode: ArchiveMode::Keep,
            port: request.port,
            wal_keep_size: None,
        },
        record: record.clone(),
        remarks,
    })
}
