//! Follows a server through recovery by what it shows on its own: its lock file, its control file and the title of its
//! startup process.

use super::watch::{self, Watch};
use crate::bounded;
use crate::postgres::control_file::{CONTROL_FILE, ControlFile, DbState};
use crate::postgres::wal_segment::SegmentName;
use pg_ark_contract::{Error, ErrorKind, Lsn, Result, SegmentSize};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Output};
use std::time::Duration;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Looks between two questions to a server that is up: each takes a connection.
const ASK_EVERY: u64 = 5;
/// Questions without an answer, while recovery shows no progress, after which a server that should pause is taken as it
/// is: 30 s.
const UNKNOWN: u32 = 60;
/// Questions after which a standby that does not get on is one that waits for more WAL: 10 s.
const WAITS: u32 = 20;
/// Most bytes of a program's words that are kept.
const MAX_WORDS: u64 = 64 << 10;

/// What the lock file of a server says (`postmaster.pid`, lines in miscadmin.h).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// Process of the server.
    pub pid: u32,
    /// Port.
    pub port: u16,
    /// Folder of its first socket; may be empty.
    pub socket_folder: String,
    /// `starting`, `stopping`, `ready` or `standby`.
    pub status: String,
}

impl Lock {
    /// Reads the text of a lock file; `None` while it is not complete.
    pub fn parse(text: &str) -> Option<Lock> {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        Some(Lock {
            pid: lines.first()?.parse().ok()?,
            port: lines.get(3)?.parse().ok()?,
            socket_folder: (*lines.get(4)?).to_string(),
            status: (*lines.get(7)?).to_string(),
        })
    }
}

/// What a server shall have become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// It takes connections for reading and writing.
    Primary,
    /// It waits at the target and takes connections for reading.
    Paused,
    /// It takes connections for reading, and goes on with recovery.
    Standby,
    /// It shut down at the target.
    Stopped,
}

/// Which server, and how far it has to go.
pub struct Road<'a> {
    /// Its data directory.
    pub data: &'a Path,
    /// Bytes in a segment.
    pub segment_size: SegmentSize,
    /// Where recovery starts.
    pub from: Lsn,
    /// Where it is expected to end.
    pub to: Lsn,
}

/// What a server in recovery answers that lets clients read.
pub enum Look {
    /// It is where it shall be.
    There,
    /// Recovery goes on; so far it is here.
    Onward(Lsn),
    /// It cannot be asked, and its log does not tell.
    Unknown,
    /// It will not get there.
    Stuck(Error),
}

/// Waits for that; returns the lock file of the server if it runs. `look` asks a server that lets clients read; one that
/// cannot be asked is not waited for without end.
///
/// # Errors
/// `RecoveryFailed` when it ends otherwise or does not go on; `Cancelled` when the user stops waiting.
pub fn until(
    until: Until,
    server: &mut Child,
    road: &Road<'_>,
    look: &dyn Fn(&Lock) -> Look,
    watch: &dyn Watch,
) -> Result<Option<Lock>> {
    let mut done = 0;
    let total = road.to.0.saturating_sub(road.from.0);
    let mut looks = 0u64;
    let mut still = Still::default();
    loop {
        let ended = server.try_wait().map_err(|e| Error::io("could not wait for the server", &e))?;
        if let Some(status) = ended {
            // A server that stops at its target by itself calls that a success.
            if until == Until::Stopped
                && status.success()
                && state(road.data) == Some(DbState::ShutDownInRecovery)
            {
                watch.advance(total.saturating_sub(done));
                return Ok(None);
            }
            return Err(Error::new(
                ErrorKind::RecoveryFailed,
                format!("the restored server ended ({status})"),
            ));
        }
        let lock = bounded::text(&road.data.join("postmaster.pid"), bounded::MAX_LINES).ok();
        let lock = lock.and_then(|text| Lock::parse(&text)).filter(|lock| lock.pid == server.id());
        // "standby" stands for a server in recovery that lets nobody in (hot_standby = off).
        let is_up =
            |lock: &Lock| lock.status == "ready" || (until == Until::Standby && lock.status == "standby");
        if let Some(lock) = lock.filter(is_up) {
            // A hot standby calls itself ready too, while recovery goes on; the control file tells them apart.
            let is_primary = state(road.data) == Some(DbState::InProduction);
            let is_there = match until {
                Until::Primary | Until::Stopped => is_primary,
                Until::Standby if lock.status == "standby" => true,
                Until::Standby | Until::Paused if is_primary => true,
                Until::Standby | Until::Paused if !looks.is_multiple_of(ASK_EVERY) => false,
                Until::Standby | Until::Paused => {
                    let segment = || replayed(server.id(), road.segment_size);
                    still.ends(until, look(&lock), segment)?
                }
            };
            if is_there {
                watch.advance(total.saturating_sub(done));
                return Ok(Some(lock));
            }
        }
        if let Some(lsn) = replayed(server.id(), road.segment_size) {
            let now = lsn.0.saturating_sub(road.from.0).min(total);
            watch.advance(now.saturating_sub(done));
            done = done.max(now);
        }
        watch::check(watch).map_err(|e| {
            e.hint("The restore is complete and the server goes on with recovery; pgark only stopped waiting for it.")
        })?;
        looks += 1;
        std::thread::sleep(LOOK_EVERY);
    }
}

/// How long nothing moved.
#[derive(Default)]
struct Still {
    at: Option<Lsn>,
    asked: u32,
}

impl Still {
    /// Whether the waiting is over.
    fn ends(&mut self, until: Until, look: Look, segment: impl Fn() -> Option<Lsn>) -> Result<bool> {
        let (at, most) = match look {
            Look::There => return Ok(true),
            Look::Stuck(error) => return Err(error),
            // It tells itself when it pauses.
            Look::Onward(_) if until == Until::Paused => return Ok(false),
            Look::Onward(lsn) => (Some(lsn), WAITS),
            Look::Unknown if until == Until::Standby => (segment(), WAITS),
            Look::Unknown => (segment(), UNKNOWN),
        };
        self.asked = if self.at == at { self.asked + 1 } else { 0 };
        self.at = at;
        Ok(self.asked >= most)
    }
}

/// Waits for a program of which little is expected on stderr.
///
/// # Errors
/// `Cancelled` when the user stops waiting; the program is ended then.
pub fn until_ended(mut child: Child, watch: &dyn Watch) -> Result<Output> {
    let failed = |e: std::io::Error| Error::io("could not wait for a program", &e);
    // Its words are read beside, so that it never waits for a reader.
    let errors = child.stderr.take().map(|mut pipe| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = pipe.by_ref().take(MAX_WORDS).read_to_end(&mut text);
            let _ = std::io::copy(&mut pipe, &mut std::io::sink());
            text
        })
    });
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if let Err(error) = watch::check(watch) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(error.hint("The server is restored and runs; only gathering statistics was stopped."));
        }
        std::thread::sleep(LOOK_EVERY);
    };
    let stderr = errors.and_then(|reader| reader.join().ok()).unwrap_or_default();
    Ok(Output { status, stdout: Vec::new(), stderr })
}

/// What the control file says of a server.
fn state(data: &Path) -> Option<DbState> {
    let bytes = bounded::read(&data.join(CONTROL_FILE), bounded::MAX_CONTROL).ok()?;
    ControlFile::parse(&bytes).ok().map(|control| control.state)
}

/// Where the segment begins that the server's startup process says it replays.
fn replayed(server: u32, segment_size: SegmentSize) -> Option<Lsn> {
    let children = std::fs::read_to_string(format!("/proc/{server}/task/{server}/children")).ok()?;
    children.split_whitespace().find_map(|pid| {
        let title = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        segment_in_title(&String::from_utf8_lossy(&title), segment_size)
    })
}

/// `postgres: main: startup recovering 000000010000000000000004`.
fn segment_in_title(title: &str, segment_size: SegmentSize) -> Option<Lsn> {
    let (_, rest) = title.split_once("startup recovering ")?;
    SegmentName::parse(rest.get(..24)?, segment_size).map(|name| name.start(segment_size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_files_are_read() {
        let text = "123\n/data\n1700000000\n5433\n/run/postgresql\nlocalhost\n  1 2\nready   \n";
        let lock = Lock::parse(text).unwrap();
        assert_eq!((lock.pid, lock.port, &lock.status[..]), (123, 5433, "ready"));
        assert_eq!(Lock::parse("123\n/data\n"), None);
        assert_eq!(Lock::parse(""), None);
    }

    #[test]
    fn a_server_that_cannot_be_asked_is_never_taken_for_one_at_its_target() {
        let segment = |at| move || Some(Lsn(at));
        let mut still = Still::default();
        assert!(still.ends(Until::Paused, Look::There, segment(0)).unwrap());
        let asked =
            (0..).take_while(|_| !still.ends(Until::Paused, Look::Unknown, segment(0)).unwrap()).count();
        assert_eq!(asked, UNKNOWN as usize);
        // Progress begins it anew.
        assert!(!still.ends(Until::Paused, Look::Unknown, segment(1)).unwrap());
        // One that answers is waited for.
        let onward = |until| {
            let mut still = Still::default();
            (0..10_000).take_while(|_| !still.ends(until, Look::Onward(Lsn(7)), segment(0)).unwrap()).count()
        };
        assert_eq!(onward(Until::Paused), 10_000);
        assert_eq!(onward(Until::Standby), WAITS as usize);
        let stuck = Look::Stuck(Error::new(ErrorKind::RecoveryFailed, "stuck"));
        assert!(still.ends(Until::Standby, stuck, segment(1)).is_err());
    }

    #[test]
    fn titles_tell_how_far_recovery_is() {
        let size = SegmentSize::new(16 << 20).unwrap();
        let title = "postgres: 15/main: startup recovering 000000010000000000000004\0\0";
        assert_eq!(segment_in_title(title, size), Some(Lsn(0x0400_0000)));
        assert_eq!(segment_in_title("postgres: startup recovering 0000", size), None);
        assert_eq!(segment_in_title("postgres: checkpointer", size), None);
    }
}
