//! Follows a server through recovery by what it shows on its own: its lock file and the title of its startup process.

use super::watch::{self, Watch};
use crate::postgres::control_file::{CONTROL_FILE, ControlFile, DbState};
use crate::postgres::wal_segment::SegmentName;
use pg_ark_contract::{Error, ErrorKind, Lsn, Result, SegmentSize};
use std::path::Path;
use std::process::Child;
use std::time::Duration;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

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

/// Waits until the server takes connections for reading and writing.
///
/// # Errors
/// `RecoveryFailed` when it ends, `Cancelled` when the user stops waiting.
pub fn until_ready(
    server: &mut Child,
    data: &Path,
    segment_size: SegmentSize,
    from: Lsn,
    to: Lsn,
    watch: &dyn Watch,
) -> Result<Lock> {
    let mut done = 0;
    let total = to.0.saturating_sub(from.0);
    loop {
        let ended = server.try_wait().map_err(|e| Error::io("could not wait for the server", &e))?;
        if let Some(status) = ended {
            return Err(Error::new(
                ErrorKind::RecoveryFailed,
                format!("the restored server ended ({status})"),
            ));
        }
        let lock =
            std::fs::read_to_string(data.join("postmaster.pid")).ok().and_then(|text| Lock::parse(&text));
        let ready = lock.filter(|lock| lock.pid == server.id() && lock.status == "ready");
        if let Some(lock) = ready.filter(|_| in_production(data)) {
            watch.advance(total.saturating_sub(done));
            return Ok(lock);
        }
        if let Some(lsn) = replayed(server.id(), segment_size) {
            let now = lsn.0.saturating_sub(from.0).min(total);
            watch.advance(now.saturating_sub(done));
            done = done.max(now);
        }
        watch::check(watch).map_err(|e| {
            e.hint("The restore is complete and the server goes on with recovery; pgark only stopped waiting for it.")
        })?;
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A hot standby calls itself ready too, while recovery goes on; the control file tells them apart.
fn in_production(data: &Path) -> bool {
    let control =
        std::fs::read(data.join(CONTROL_FILE)).ok().and_then(|bytes| ControlFile::parse(&bytes).ok());
    control.is_some_and(|control| control.state == DbState::InProduction)
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
    fn titles_tell_how_far_recovery_is() {
        let size = SegmentSize::new(16 << 20).unwrap();
        let title = "postgres: 15/main: startup recovering 000000010000000000000004\0\0";
        assert_eq!(segment_in_title(title, size), Some(Lsn(0x0400_0000)));
        assert_eq!(segment_in_title("postgres: startup recovering 0000", size), None);
        assert_eq!(segment_in_title("postgres: checkpointer", size), None);
    }
}
