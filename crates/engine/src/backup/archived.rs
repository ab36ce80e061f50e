//! Waits until the archive holds the WAL that a backup needs: before that it is not restorable, so not complete.

use crate::postgres::timeline::history_file_name;
use crate::postgres::wal_segment::SegmentName;
use crate::repository::layout;
use crate::session::Session;
use crate::wal::Archive;
use pg_ark_contract::{Error, ErrorKind, Lsn, Result, SegmentSize, Timeline};
use std::time::{Duration, Instant};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Timelines whose newest segment is looked at: a backlog of the archiver can be of older ones.
const LOOK_BACK: usize = 4;

/// The WAL that a backup needs.
#[derive(Debug, Clone, Copy)]
pub struct Needed {
    /// Where the backup starts.
    pub start: Lsn,
    /// Where it ends.
    pub stop: Lsn,
    /// The timeline of both.
    pub timeline: Timeline,
    /// Bytes in a segment.
    pub size: SegmentSize,
    /// It was taken from a standby, which ends no segment by itself.
    pub from_standby: bool,
}

/// Waits until the archive holds all of it. `news` is called when something came.
///
/// # Errors
/// `WalMissing` when nothing came for as long as `patience`, saying what is missing; `RepositoryNotFound` when the
/// repository vanished; when ordered to stop.
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
        // A store that fails for a moment is no reason to throw the backup away.
        let looked = look(archive, needed, &mut number);
        if matches!(looked, Ok(true)) {
            return Ok(());
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
            return Err(missing(archive, needed, patience));
        }
        session.pause(LOOK.min(patience))?;
    }
}

impl Needed {
    fn first(&self) -> u64 {
        self.size.segment_of(self.start)
    }

    fn last(&self) -> u64 {
        self.size.last_segment_before(self.stop).max(self.first())
    }

    fn name(&self, number: u64) -> String {
        SegmentName { timeline: self.timeline, number }.file_name(self.size)
    }

    /// The history file, without which nothing tells how the timeline came about.
    fn history(&self) -> Option<String> {
        (self.timeline.0 > 1).then(|| history_file_name(self.timeline))
    }
}

/// Moves `number` on to the first segment that is missing; true when nothing is.
fn look(archive: &Archive, needed: &Needed, number: &mut u64) -> Result<bool> {
    while *number <= needed.last() {
        if archive.find(&needed.name(*number))?.is_none() {
            return Ok(false);
        }
        *number += 1;
    }
    match needed.history() {
        Some(history) => Ok(archive.find(&history)?.is_some()),
        None => Ok(true),
    }
}

/// The newest segments of the last timelines: they move while the archiver works off what lies before the backup.
fn newest(archive: &Archive, needed: &Needed) -> Vec<SegmentName> {
    let timelines = archive.timelines().unwrap_or_default();
    let last = timelines.into_iter().filter(|timeline| *timeline <= needed.timeline).rev().take(LOOK_BACK);
    last.filter_map(|timeline| archive.newest(timeline, needed.size).ok().flatten()).collect()
}

fn missing(archive: &Archive, needed: &Needed, patience: Duration) -> Error {
    let absent: Vec<String> = (needed.first()..=needed.last())
        .map(|number| needed.name(number))
        .filter(|name| matches!(archive.find(name), Ok(None)))
        .collect();
    let what = match (&absent[..], needed.history()) {
        ([], history) => history.unwrap_or_default(),
        ([only], _) => format!("segment {only}"),
        ([first, ..], _) => {
            let all = needed.last() - needed.first() + 1;
            format!("{} of {all} segments, the first of them {first}", absent.len())
        }
    };
    let newest = match archive.newest(needed.timeline, needed.size) {
        Ok(Some(newest)) => format!("the newest segment there is {}", newest.file_name(needed.size)),
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
mod tests {
    use super::*;
    use crate::wal::store::store;
    use crate::wal::store_fixture::{Place, name, segment, size};
    use pg_ark_contract::settings::Compression;
    use std::cell::Cell;

    fn put(place: &Place, number: u64) {
        place.segment(number);
        store(&place.archive(), &place.source(), &name(number), Compression::default()).unwrap();
    }

    fn needed(start: u64, stop: u64) -> Needed {
        let (start, stop) = (size().start_of(start), size().start_of(stop));
        Needed { start, stop, timeline: Timeline(1), size: size(), from_standby: false }
    }

    fn wait_for(place: &Place, needed: &Needed, patience: u64) -> Result<()> {
        let session = Session::new(|_| ());
        wait(&place.archive(), needed, Duration::from_millis(patience), &session, &|| ())
    }

    #[test]
    fn nothing_but_every_segment_and_the_history_is_enough() {
        let place = Place::new();
        for number in [3, 4, 6] {
            put(&place, number);
        }
        wait_for(&place, &needed(3, 5), 0).unwrap();
        let partial = format!("{}.partial", name(5));
        place.put(&partial, &segment(5, 1));
        store(&place.archive(), &place.source(), &partial, Compression::default()).unwrap();
        let error = wait_for(&place, &needed(3, 7), 0).unwrap_err();
        assert_eq!(error.kind, ErrorKind::WalMissing);
        assert!(error.message.ends_with("segment 000000010000000000000005"), "{error}");
        assert!(error.detail.unwrap().contains("newest segment there is 000000010000000000000006"));
        let error = wait_for(&place, &needed(4, 20), 0).unwrap_err();
        assert!(
            error.message.contains("14 of 16 segments, the first of them 000000010000000000000005"),
            "{error}"
        );
        put(&place, 5);
        wait_for(&place, &needed(3, 7), 0).unwrap();
        let other = Needed { timeline: Timeline(2), ..needed(3, 7) };
        let error = wait_for(&place, &other, 0).unwrap_err();
        assert!(error.detail.unwrap().contains("no segment of timeline 2"));
    }

    #[test]
    fn every_segment_that_comes_renews_the_patience() {
        let place = Place::new();
        let session = Session::new(|_| ());
        let needed = needed(8, 10);
        let came = Cell::new(3);
        // The archiver works off what lies before the backup.
        let news = || {
            if came.get() < 10 {
                put(&place, came.replace(came.get() + 1));
            }
        };
        wait(&place.archive(), &needed, Duration::from_secs(2), &session, &news).unwrap();
        assert_eq!(came.get(), 10);
    }

    #[test]
    fn a_stop_and_a_vanished_repository_end_the_waiting() {
        let place = Place::new();
        let session = Session::new(|_| ());
        let stop = || session.stop(Error::new(ErrorKind::Cancelled, "stop"));
        let patience = Duration::from_secs(60);
        let error = wait(&place.archive(), &needed(1, 2), patience, &session, &stop).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Cancelled);
        std::fs::remove_dir_all(place.repository.storage().folder()).unwrap();
        let error = wait_for(&place, &needed(1, 2), 60_000).unwrap_err();
        assert_eq!(error.kind, ErrorKind::RepositoryNotFound);
    }
}
