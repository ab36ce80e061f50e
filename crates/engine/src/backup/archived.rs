//! Waits until the archive holds the WAL that a backup needs: before that it is not restorable, so not complete.
//!
//! That names are there is not enough: another server may have stored them, a clone beside its origin for one. So what
//! `pg_wal` still has is compared, and what it has no longer must have left it archived, without a `.ready` file.

use crate::postgres::timeline::history_file_name;
use crate::postgres::wal_segment::SegmentName;
use crate::repository::layout;
use crate::session::Session;
use crate::wal::Archive;
use crate::wal::archive::WalFile;
use crate::wal::compare::{self, Own};
use crate::wal::ready::Ready;
use crate::wal::store::Source;
use pg_ark_contract::archiver::{LAST_FAILURE_MAX, LAST_FAILURE_PATH, LastFailure};
use pg_ark_contract::{Error, ErrorKind, Lsn, Result, Timeline};
use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Timelines whose newest segment is looked at: a backlog of the archiver can be of older ones.
const LOOK_BACK: usize = 4;

/// The WAL that a backup needs.
#[derive(Debug, Clone)]
pub struct Needed {
    /// Where the backup starts.
    pub start: Lsn,
    /// Where it ends.
    pub stop: Lsn,
    /// The timeline of both.
    pub timeline: Timeline,
    /// The server's WAL.
    pub source: Source,
    /// The server's data directory, where its archiver leaves why it failed.
    pub data_directory: PathBuf,
    /// It was taken from a standby, which ends no segment by itself and writes no backup history file.
    pub from_standby: bool,
}

/// Waits until the archive holds all of it. `news` is called when something came.
///
/// # Errors
/// `WalConflict` when the archive holds another server's WAL in its place, or refuses this server's; `WalMissing` when
/// nothing came for as long as `patience`, saying what is missing; `RepositoryNotFound` when the repository vanished;
/// when ordered to stop.
pub fn wait(
    archive: &Archive,
    needed: &Needed,
    patience: Duration,
    session: &Session,
    news: &dyn Fn(),
) -> Result<()> {
    let mut number = needed.first();
    let mut last_seen = None;
    let mut last_news = Instant::now();
    loop {
        // A store that fails for a moment is no reason to throw the backup away. Other WAL stays other WAL.
        let looked = look(archive, needed, &mut number, session).and_then(|complete| match complete {
            false => refused(archive, needed).map(|()| false),
            true => Ok(true),
        });
        session.check()?;
        match looked {
            Ok(true) => return Ok(()),
            Err(e) if e.kind == ErrorKind::WalConflict => return Err(e),
            _ => {}
        }
        if matches!(archive.storage().size(layout::REPOSITORY), Ok(None)) {
            let url = archive.storage().url();
            return Err(Error::new(ErrorKind::RepositoryNotFound, format!("repository \"{url}\" vanished")));
        }
        let seen = (number, newest(archive, needed));
        if last_seen.as_ref() != Some(&seen) {
            last_seen = Some(seen);
            last_news = Instant::now();
            news();
        }
        if last_news.elapsed() >= patience {
            looked?;
            return Err(missing(archive, needed, number, patience));
        }
        session.pause(LOOK.min(patience))?;
    }
}

impl Needed {
    fn first(&self) -> u64 {
        self.source.segment_size.segment_of(self.start)
    }

    fn last(&self) -> u64 {
        self.source.segment_size.last_segment_before(self.stop).max(self.first())
    }

    fn name(&self, number: u64) -> String {
        SegmentName { timeline: self.timeline, number }.file_name(self.source.segment_size)
    }

    /// The history file, without which nothing tells how the timeline came about, and the backup history file that a
    /// primary writes at the end (`BackupHistoryFileName`, access/xlog_internal.h).
    fn others(&self) -> Vec<String> {
        let history = (self.timeline.0 > 1).then(|| history_file_name(self.timeline));
        let offset = self.start.0 % self.source.segment_size.bytes();
        let backup = (!self.from_standby).then(|| format!("{}.{offset:08X}.backup", self.name(self.first())));
        history.into_iter().chain(backup).collect()
    }

    /// How much of a segment is compared: a standby may still be receiving the last one. `None`: all of it.
    fn until(&self, number: u64) -> Option<u64> {
        let start = self.source.segment_size.start_of(number);
        (self.from_standby && number == self.last()).then(|| self.stop.0.saturating_sub(start.0))
    }

    /// Whether the archive holds this server's file of this name.
    fn is_held(&self, archive: &Archive, name: &str, until: Option<u64>) -> Result<bool> {
        Ok(match compare::own(archive, &self.source, name, until)? {
            Own::NotStored => false,
            Own::Equal => true,
            Own::Gone => !self.waits(name),
        })
    }

    /// Whether the server still waits to have the file archived.
    fn waits(&self, name: &str) -> bool {
        Ready::of(&self.source.folder).is_ready(name)
    }
}

/// Moves `number` on to the first segment that is missing; true when nothing is.
fn look(archive: &Archive, needed: &Needed, number: &mut u64, session: &Session) -> Result<bool> {
    while *number <= needed.last() {
        session.check()?;
        if !needed.is_held(archive, &needed.name(*number), needed.until(*number))? {
            return Ok(false);
        }
        *number += 1;
    }
    for name in needed.others() {
        if !needed.is_held(archive, &name, None)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Fails when the archiver was refused because the archive holds other content, and still would be: then nothing comes
/// any more.
fn refused(archive: &Archive, needed: &Needed) -> Result<()> {
    let Some(failure) = last_failure(needed) else { return Ok(()) };
    let LastFailure { file, error, .. } = failure;
    if error.kind != ErrorKind::WalConflict || WalFile::of(&file).is_none() || !needed.waits(&file) {
        return Ok(());
    }
    compare::own(archive, &needed.source, &file, None).map(drop)
}

/// What the archiver left; `None` when it works, or what lies there is not understood.
fn last_failure(needed: &Needed) -> Option<LastFailure> {
    let mut json = Vec::new();
    let file = std::fs::File::open(needed.data_directory.join(LAST_FAILURE_PATH)).ok()?;
    file.take(LAST_FAILURE_MAX).read_to_end(&mut json).ok()?;
    serde_json::from_slice(&json).ok()
}

/// The newest segments of the last timelines: they move while the archiver works off what lies before the backup.
fn newest(archive: &Archive, needed: &Needed) -> Vec<SegmentName> {
    let size = needed.source.segment_size;
    let timelines = archive.timelines().unwrap_or_default();
    let last = timelines.into_iter().filter(|timeline| *timeline <= needed.timeline).rev().take(LOOK_BACK);
    last.filter_map(|timeline| archive.newest(timeline, size).ok().flatten()).collect()
}

/// The error when nothing came any more; everything before segment `number` is there.
fn missing(archive: &Archive, needed: &Needed, number: u64, patience: Duration) -> Error {
    let size = needed.source.segment_size;
    let absent: Vec<String> = (number..=needed.last())
        .map(|number| needed.name(number))
        .filter(|name| matches!(archive.find(name), Ok(None)))
        .collect();
    let what = match &absent[..] {
        [] if number <= needed.last() => format!("segment {}", needed.name(number)),
        [] => {
            let lacks = |name: &String| !needed.is_held(archive, name, None).unwrap_or(false);
            needed.others().into_iter().find(lacks).unwrap_or_default()
        }
        [only] => format!("segment {only}"),
        [first, ..] => {
            let all = needed.last() - needed.first() + 1;
            format!("{} of {all} segments, the first of them {first}", absent.len())
        }
    };
    let newest = match archive.newest(needed.timeline, size) {
        Ok(Some(newest)) => format!("the newest segment there is {}", newest.file_name(size)),
        Ok(None) => format!("there is no segment of timeline {}", needed.timeline),
        Err(e) => e.to_string(),
    };
    Error::new(ErrorKind::WalMissing, format!("the archive lacks WAL that the backup needs: {what}"))
        .detail(format!("Nothing came for {} seconds; {newest}.", patience.as_secs()))
        .hint(match needed.from_standby {
            true => {
                "A standby ends no segment by itself: call pg_switch_wal() on the primary or set archive_timeout there, \
                 and see whether it archives to this repository and cluster. Or back up with include_wal => true."
            }
            false => {
                "See pg_stat_archiver and ark.check() for why the server does not archive. pg_ark.archive_wait says how \
                 long a backup waits; include_wal => true does without the archive."
            }
        })
}

#[cfg(test)]
#[path = "archived_tests.rs"]
mod tests;
