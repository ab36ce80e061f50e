//! `wal-get`: gives one WAL file to a server in recovery, or says that it is absent, or fails.
//!
//! The three answers are kept apart with care, because PostgreSQL ends recovery and opens the server when a file is
//! absent. So an answer is [`Answer::Absent`] only after the proof in [`absent`]; whatever else keeps the file away is an
//! error. What is handed over has proved to be what its name says: its content by its checksums, its first page by the
//! server's system identifier, the timeline and the address.
//!
//! The way of a segment: from the spool when it was fetched ahead ([`spool`]), without a look at the repository; else
//! from the repository, and a process that fetches ahead is started ([`prefetch`]).

use super::absent::{self, Verdict};
use super::archive::{Archive, Found, MAX_HISTORY, WalFile};
use super::deliver::Delivery;
use super::object::ObjectReader;
use super::prefetch::{Ahead, Opened};
use super::spool::{self, Recovery, Spool};
use crate::postgres::control_file::{CONTROL_FILE, ControlFile};
use crate::postgres::timeline::{TimelineHistory, history_file_name, timeline_of_history_file};
use crate::postgres::wal_segment::{ExpectedSegment, LongHeader, SegmentName};
use crate::repository::Cluster;
use pg_ark_contract::{Error, ErrorKind, Result, SegmentSize, Timeline};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// An archiver that stores several segments at once may finish a later one first: so long a gap may be none.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time between two looks at what may be on its way.
const PAUSE: Duration = Duration::from_millis(100);
/// Looks at a control file that is being written.
const CONTROL_TRIES: u32 = 50;
/// Largest control file that is read: `PG_CONTROL_FILE_SIZE` (catalog/pg_control.h) is 8192.
const MAX_CONTROL: u64 = 1 << 16;
/// Room for so many segments, besides what recovery needs, is worth a process that fetches ahead.
const WORTH: u64 = 4;

/// The setting that says along which timeline a server recovers.
const TARGET_TIMELINE: &str = "recovery_target_timeline";
/// The file that is read last, and that a restore writes (`PG_AUTOCONF_FILENAME` in utils/guc.h).
const AUTO_CONF: &str = "postgresql.auto.conf";

/// A question of `restore_command`.
pub struct Request<'a> {
    /// The server's data directory; a folder that is none when somebody asks by hand.
    pub data: PathBuf,
    /// Name of the file.
    pub name: &'a str,
    /// Where it goes.
    pub destination: PathBuf,
    /// Whose WAL; must be the data directory's, if that is one.
    pub system_identifier: Option<u64>,
    /// Folder of spools, in place of one beside the destination.
    pub spool: Option<PathBuf>,
    /// Most bytes in the spool; 0 for none.
    pub spool_bytes: u64,
    /// Segments fetched ahead at the same time.
    pub jobs: usize,
    /// How the repository and the cluster were named.
    pub origin: Vec<&'a str>,
    /// Opens them.
    pub open: &'a (dyn Fn() -> Result<Opened> + Sync),
    /// Starts the process that fetches ahead.
    pub start: &'a dyn Fn(),
}

/// What became of the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The file is at its destination.
    Delivered,
    /// The archive does not have it, and proves that it need not.
    Absent,
}

/// Answers the question.
///
/// # Errors
/// Whatever kept the file away: `InvalidArgument` for a name that is no WAL file's; `WalMissing` when it must have been
/// there; `RepositoryNotFound` when there is no archive at all; `ForeignCluster` and `Corrupt` for one that is not what it
/// should be; `DiskFull` and others for the destination.
pub fn get(request: &Request<'_>) -> Result<Answer> {
    let name = request.name;
    let kind = WalFile::of(name).ok_or_else(|| no_name(name))?;
    let control = read_control(&request.data)?;
    let system = system_identifier(control.as_ref(), request.system_identifier)?;
    let ahead = control.as_ref().and_then(|control| ahead(request, kind, control));
    if let Some(ahead) = &ahead
        && ahead.spool.take(name, &ahead.asked, &request.destination)
    {
        if !ahead.spool.tell(name) && is_worth_it(ahead, || archive(request, system)) {
            (request.start)();
        }
        return Ok(Answer::Delivered);
    }
    let told = ahead.as_ref().is_some_and(|ahead| ahead.spool.tell(name));
    let (id, archive) = archive(request, system)?;
    let size = control.as_ref().map(|control| control.wal_segment_size);
    let judge = || match judge(&archive, kind, name, size)? {
        Verdict::Lost(_) if own_history(&request.data, name).is_some() => Ok(Verdict::Absent),
        Verdict::Lost(_) if is_only_for_others(&request.data, name) => Ok(Verdict::Absent),
        verdict => Ok(verdict),
    };
    let Some(found) = find(&archive, name, &request.data, &judge)? else {
        confirm(request, &id, system)?;
        // Of a recovery's end also: the last that it asks for is a history.
        if let Some((spool, _)) = control.as_ref().and_then(|control| spool(request, control)) {
            spool.sweep();
        }
        return Ok(Answer::Absent);
    };
    if let Some(ahead) = ahead.as_ref().filter(|_| !told)
        && is_worth_it(ahead, || Ok((id, archive.clone())))
    {
        (request.start)();
    }
    let deliver = || deliver(request, &archive, &found, kind, control.as_ref());
    match (deliver(), &ahead) {
        // What was fetched ahead must not keep recovery from going on.
        (Err(e), Some(ahead)) if e.kind == ErrorKind::DiskFull => {
            ahead.spool.clear();
            deliver()?;
        }
        (other, _) => other?,
    }
    Ok(Answer::Delivered)
}

/// What is to be fetched ahead for a question; `None` unless a server in recovery asks for a segment.
pub fn ahead(request: &Request<'_>, kind: WalFile, control: &ControlFile) -> Option<Ahead> {
    let size = control.wal_segment_size;
    if kind != WalFile::Segment {
        return None;
    }
    let (spool, recovery) = spool(request, control)?;
    let asked = ExpectedSegment {
        name: SegmentName::parse(request.name, size)?,
        segment_size: size,
        system_identifier: control.system_identifier,
        server_major: control.server_major(),
    };
    Some(Ahead {
        data: request.data.clone(),
        spool,
        recovery,
        asked,
        bytes: request.spool_bytes,
        jobs: request.jobs,
    })
}

/// The spool of the recovery that asks; `None` when nobody recovers there, or nothing is to be fetched ahead.
fn spool(request: &Request<'_>, control: &ControlFile) -> Option<(Spool, Recovery)> {
    if request.spool_bytes < control.wal_segment_size.bytes() {
        return None;
    }
    let recovery = Recovery::of(&request.data)?;
    let folder = request.destination.parent().filter(|folder| !folder.as_os_str().is_empty())?;
    if folder.canonicalize().ok()? != request.data.join("pg_wal").canonicalize().ok()? {
        return None;
    }
    let base = request.spool.clone().unwrap_or_else(|| folder.join(spool::FOLDER));
    Some((Spool::of(&base, control.system_identifier, &recovery, &request.origin), recovery))
}

/// Fetches ahead for the question of `request`, which was answered already, until recovery is over.
///
/// # Errors
/// What kept it from beginning; nobody needs to hear.
pub fn fetch_ahead(request: &Request<'_>) -> Result<()> {
    let control = read_control(&request.data)?;
    match control.as_ref().and_then(|control| ahead(request, WalFile::Segment, control)) {
        Some(ahead) => super::prefetch::run(&ahead, request.open),
        None => Ok(()),
    }
}

/// Whether the next segment is there and has room. A fault is met again by whoever asks for it.
fn is_worth_it(ahead: &Ahead, archive: impl FnOnce() -> Result<(String, Archive)>) -> bool {
    let size = ahead.asked.segment_size;
    let next = ahead.asked.name.next().file_name(size);
    ahead.spool.has_room(WORTH, size)
        && archive().is_ok_and(|(_, archive)| matches!(archive.find(&next), Ok(Some(_))))
}

/// The archive that is asked, and the UUID of its repository.
fn archive(request: &Request<'_>, system: Option<u64>) -> Result<(String, Archive)> {
    let (id, cluster) = (request.open)()?;
    let system = system.or_else(|| cluster.systems().last().copied()).ok_or_else(|| no_cluster(&cluster))?;
    Ok((id, Archive::of(&cluster, system)))
}

/// Looks for the file until it is there, or proven absent, or a gap stays one.
fn find(
    archive: &Archive,
    name: &str,
    data: &Path,
    judge: &dyn Fn() -> Result<Verdict>,
) -> Result<Option<Found>> {
    // A standby asks again by itself.
    let patience = if spool::is_standby(data) { Duration::ZERO } else { PATIENCE };
    let begun = Instant::now();
    loop {
        if let Some(found) = archive.find(name)? {
            return Ok(Some(found));
        }
        match judge()? {
            Verdict::Absent => return Ok(None),
            Verdict::Present | Verdict::Lost(_) if begun.elapsed() < patience => {}
            Verdict::Lost(error) => return Err(error),
            Verdict::Present => {
                let message = format!("{name} is in the archive's listing and cannot be found");
                return Err(Error::new(ErrorKind::Io, message).hint("Look at the repository's storage."));
            }
        }
        std::thread::park_timeout(PAUSE);
    }
}

fn judge(archive: &Archive, kind: WalFile, name: &str, size: Option<SegmentSize>) -> Result<Verdict> {
    let size = || match size {
        Some(size) => Ok(size),
        None => archive.segment_size().map(Option::unwrap_or_default),
    };
    match (kind, timeline_of_history_file(name)) {
        (WalFile::Segment, _) => {
            let size = size()?;
            absent::segment(archive, segment_name(name, size)?, size)
        }
        (WalFile::History, Some(timeline)) => absent::history(archive, timeline, size()?),
        // Nothing follows from these: PostgreSQL never asks for them.
        _ => absent::any_wal(archive).map(|()| Verdict::Absent),
    }
}

/// The sound history in pg_wal of this file name. PostgreSQL reads it there when the archive does not have it
/// (`readTimeLineHistory` in timeline.c), as in a cluster that was promoted before it archived here.
fn own_history(data: &Path, name: &str) -> Option<TimelineHistory> {
    let timeline = timeline_of_history_file(name)?;
    let mut content = Vec::new();
    let file = File::open(data.join("pg_wal").join(name)).ok()?;
    file.take(MAX_HISTORY).read_to_end(&mut content).ok()?;
    TimelineHistory::parse(timeline, &content).ok().filter(|history| !history.entries.is_empty())
}

/// Whether PostgreSQL has no use of its own for a history: it recovers along a higher timeline that was named by number
/// (`restoreTimeLineHistoryFiles` in timeline.c fetches all between for the standbys behind it).
fn is_only_for_others(data: &Path, name: &str) -> bool {
    let Some(timeline) = timeline_of_history_file(name) else { return false };
    // A setting on the server's command line goes before those in files.
    let options = std::fs::read_to_string(data.join("postmaster.opts")).unwrap_or_default();
    let settings = std::fs::read_to_string(data.join(AUTO_CONF)).unwrap_or_default();
    !options.contains(TARGET_TIMELINE) && target_timeline(&settings).is_some_and(|target| target > timeline)
}

/// The last number that a configuration file sets recovery_target_timeline to.
fn target_timeline(settings: &str) -> Option<Timeline> {
    let mut values = settings.lines().filter_map(|line| {
        let rest = line.trim_start().strip_prefix(TARGET_TIMELINE)?.trim_start();
        Some(rest.strip_prefix('=').unwrap_or(rest))
    });
    values.next_back()?.split('#').next()?.trim().trim_matches('\'').parse().ok().map(Timeline)
}

/// The history of a segment's timeline, if it is known: the one that the server recovers by, which it keeps in pg_wal
/// when it had it from the archive, or the archive's. Timeline 1 has none, and needs none.
///
/// # Errors
/// What the store said; a damaged one is an unknown one.
pub fn history_of(archive: &Archive, data: &Path, timeline: Timeline) -> Result<Option<TimelineHistory>> {
    if timeline.0 <= 1 {
        return Ok(None);
    }
    if let Some(history) = own_history(data, &history_file_name(timeline)) {
        return Ok(Some(history));
    }
    match archive.history(timeline) {
        Err(e) if e.kind == ErrorKind::Corrupt => Ok(None),
        other => Ok(other?.filter(|history| !history.entries.is_empty())),
    }
}

/// Fails unless the repository is still the one that was asked: it may have been unmounted meanwhile.
fn confirm(request: &Request<'_>, id: &str, system: Option<u64>) -> Result<()> {
    let (now, archive) = archive(request, system)?;
    if now != id {
        let message = "another repository took the place of the one that was asked";
        return Err(Error::new(ErrorKind::RepositoryNotFound, message).hint("Check what is mounted there."));
    }
    absent::any_wal(&archive)
}

fn deliver(
    request: &Request<'_>,
    archive: &Archive,
    found: &Found,
    kind: WalFile,
    control: Option<&ControlFile>,
) -> Result<()> {
    let (name, destination) = (request.name, request.destination.as_path());
    if matches!(kind, WalFile::History | WalFile::BackupHistory) {
        let vanished = || {
            Error::new(
                ErrorKind::Io,
                format!("\"{}\" vanished while it was read", archive.storage().display(&found.path)),
            )
        };
        let content = archive.read_proven(name)?.ok_or_else(vanished)?;
        let mut delivery = Delivery::begin(destination)?;
        delivery.write(&content)?;
        return delivery.finish();
    }
    let size = match control {
        Some(control) => control.wal_segment_size,
        None => size_of(archive, found)?,
    };
    let expected = ExpectedSegment {
        name: segment_name(name, size)?,
        segment_size: size,
        system_identifier: archive.system_identifier(),
        server_major: control.and_then(ControlFile::server_major),
    };
    let mut delivery = Delivery::begin(destination)?;
    let history = history_of(archive, &request.data, expected.name.timeline)?;
    archive.read_segment_on(found, &expected, history.as_ref(), &mut |piece| delivery.write(piece))?;
    delivery.finish()
}

/// Size of a stored segment as its own header has it.
fn size_of(archive: &Archive, found: &Found) -> Result<SegmentSize> {
    let mut first = [0; 64];
    let count = ObjectReader::open(archive.storage(), &found.path, found.codec)?.read(&mut first)?;
    let header = LongHeader::parse(first.get(..count).unwrap_or_default()).map_err(|e| Error {
        detail: Some(format!("It is \"{}\".", archive.storage().display(&found.path))),
        ..e
    })?;
    SegmentSize::new(header.segment_size)
}

/// The segment of a segment's or `.partial` file's name.
fn segment_name(name: &str, size: SegmentSize) -> Result<SegmentName> {
    name.get(..24).and_then(|stem| SegmentName::parse(stem, size)).ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidArgument,
            format!("\"{}\" is not the name of a WAL segment of {} bytes", name.escape_debug(), size.bytes()),
        )
    })
}

/// Whose WAL is asked for, as far as it is known without the repository.
fn system_identifier(control: Option<&ControlFile>, given: Option<u64>) -> Result<Option<u64>> {
    match (control, given) {
        (Some(control), Some(given)) if control.system_identifier != given => Err(Error::new(
            ErrorKind::ForeignCluster,
            format!(
                "this server has system identifier {}, restore_command names {given}",
                control.system_identifier
            ),
        )
        .hint("Correct restore_command: WAL of one cluster must not be replayed in another.")),
        (Some(control), _) => Ok(Some(control.system_identifier)),
        (None, given) => Ok(given),
    }
}

/// The control file of a data directory; `None` for a folder that is none. A server writes it while it is read.
fn read_control(data: &Path) -> Result<Option<ControlFile>> {
    let path = data.join(CONTROL_FILE);
    let failed = |e: std::io::Error| Error::io(format!("could not read \"{}\"", path.display()), &e);
    let mut tries = 0;
    loop {
        let mut bytes = Vec::new();
        match File::open(&path) {
            Ok(file) => file.take(MAX_CONTROL).read_to_end(&mut bytes).map_err(failed)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        tries += 1;
        match ControlFile::parse(&bytes) {
            Err(e) if e.kind == ErrorKind::Corrupt && tries < CONTROL_TRIES => {
                std::thread::park_timeout(Duration::from_millis(10));
            }
            other => return other.map(Some),
        }
    }
}

fn no_name(name: &str) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        format!("\"{}\" is not the name of a WAL file", name.escape_debug()),
    )
    .hint("restore_command passes it as %f: wal-get \"%f\" \"%p\".")
}

fn no_cluster(cluster: &Cluster) -> Error {
    Error::new(
        ErrorKind::RepositoryNotFound,
        format!("the repository has no cluster \"{}\"", cluster.name().escape_debug()),
    )
    .hint("Check --repo and --cluster; \"pgark check\" shows what there is.")
}

#[cfg(test)]
#[path = "get_tests.rs"]
mod tests;
