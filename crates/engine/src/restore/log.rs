//! The server's own messages: where they are, and what they tell. English only: it is the server's language that decides,
//! so nothing is concluded from a message that is not there.

use crate::bounded;
use pg_ark_contract::Lsn;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Most bytes of a log that are looked at.
const TAIL: u64 = 256 << 10;
/// Bytes of the usual page of WAL, and of the longest header of one (access/xlog_internal.h). No
/// record fits in between that one and the short one.
const PAGE: u64 = 8192;
const LONG_HEADER: u64 = 40;

/// The server's messages since it was started.
pub(crate) struct Log {
    /// The file.
    pub path: PathBuf,
    /// Bytes that were in it before.
    pub begin: u64,
}

impl Log {
    /// The end of what the server said before it had a log of its own.
    pub fn tail(&self) -> String {
        tail(&self.path, self.begin)
    }

    /// The log that `logging_collector` writes: the reason for an end is there.
    pub fn collected(data: &Path) -> Option<PathBuf> {
        let current = bounded::text(&data.join("current_logfiles"), bounded::MAX_LINES).ok()?;
        current.lines().find_map(|line| line.strip_prefix("stderr ")).map(|path| data.join(path))
    }

    /// What the server said since this start, wherever it went.
    pub fn since_start(&self, data: &Path) -> String {
        let mut text = self.tail();
        if let Some(path) = Log::collected(data) {
            // The file can be an old one that came with the backup. The server tells when it starts (PostmasterMain).
            let collected = tail(&path, 0);
            text.push_str(
                collected.rfind("starting PostgreSQL ").and_then(|at| collected.get(at..)).unwrap_or(""),
            );
        }
        text
    }
}

/// The last bytes of a file behind `begin`.
pub(super) fn tail(path: &Path, begin: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = bounded::open(path)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(begin.max(len.saturating_sub(TAIL))))?;
        let mut text = Vec::new();
        file.take(TAIL).read_to_end(&mut text)?;
        Ok(text)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

/// What it logged about the last transaction, in its own time zone.
pub(super) fn last_transaction(log: &str) -> Option<String> {
    after(log, "last completed transaction was at log time ")
}

/// `before commit of transaction 745, time 2026-11-22 13:30:00.5+00`: it stopped at its target.
pub(super) fn stopped(log: &str) -> Option<String> {
    after(log, "recovery stopping ")
}

/// It waits at its target (recoveryPausesHere in access/transam/xlogrecovery.c, at the end of recovery).
pub(super) fn waits(log: &str) -> bool {
    log.contains("pausing at the end of recovery")
}

/// The setting that is too low for what the original's was (RecoveryRequiresIntParameter): `max_connections = 20 is a
/// lower setting than on the primary server, where its value was 100.`
pub(super) fn too_low(log: &str) -> Option<String> {
    let line =
        log.lines().rev().find(|line| line.contains(" is a lower setting than on the primary server"))?;
    Some(line.split_once("DETAIL:").map_or(line, |(_, text)| text).trim().to_string())
}

fn after(log: &str, words: &str) -> Option<String> {
    log.lines().rev().find_map(|line| line.split_once(words)).map(|(_, rest)| rest.trim().to_string())
}

/// Whether recovery that replayed up to here is at that place: a record begins behind the header of its page.
pub(super) fn is_at(replayed: Lsn, goal: Lsn) -> bool {
    let header = if replayed.0.is_multiple_of(PAGE) { LONG_HEADER } else { 0 };
    replayed.0.saturating_add(header) >= goal.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_the_last_transaction_and_the_place() {
        let log = "x\n2026-01-01 LOG:  recovery stopping after restore point \"a\", time 2026-01-01 10:00:00+01\n\
                   2026-01-01 LOG:  last completed transaction was at log time 2026-01-01 10:00:00.5+01\ny\n";
        assert_eq!(last_transaction(log).unwrap(), "2026-01-01 10:00:00.5+01");
        assert_eq!(stopped(log).unwrap(), "after restore point \"a\", time 2026-01-01 10:00:00+01");
        assert_eq!(stopped("x"), None);
        assert!(!waits(log));
        assert!(waits("1 LOG:  pausing at the end of recovery\n"));
    }

    #[test]
    fn the_log_tells_which_setting_is_too_low() {
        let log = "1 WARNING:  hot standby is not possible because of insufficient parameter settings\n\
                   1 DETAIL:  max_connections = 20 is a lower setting than on the primary server, where its value was 30.\n\
                   1 LOG:  recovery has paused\n";
        let told =
            "max_connections = 20 is a lower setting than on the primary server, where its value was 30.";
        assert_eq!(too_low(log).unwrap(), told);
        assert_eq!(too_low("1 LOG:  recovery has paused\n"), None);
    }

    #[test]
    fn only_what_a_collected_log_says_since_the_start_counts() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log { path: dir.path().join("log"), begin: 3 };
        std::fs::write(&log.path, "oldnew\n").unwrap();
        assert_eq!(log.since_start(dir.path()), "new\n");
        std::fs::write(dir.path().join("current_logfiles"), "stderr collected\n").unwrap();
        std::fs::write(dir.path().join("collected"), "1 LOG:  recovery stopping before x\n").unwrap();
        assert_eq!(log.since_start(dir.path()), "new\n");
        std::fs::write(dir.path().join("collected"), "old\n1 LOG:  starting PostgreSQL 15\nmore\n").unwrap();
        assert_eq!(log.since_start(dir.path()), "new\nstarting PostgreSQL 15\nmore\n");
    }

    #[test]
    fn the_header_of_a_page_lies_between_two_records() {
        assert!(is_at(Lsn(0x100_0050), Lsn(0x100_0050)));
        assert!(!is_at(Lsn(0x100_0048), Lsn(0x100_0050)));
        assert!(is_at(Lsn(0x100_2000), Lsn(0x100_2018)));
        assert!(is_at(Lsn(0x100_0000), Lsn(0x100_0028)));
        assert!(!is_at(Lsn(0x100_2000), Lsn(0x100_2040)));
    }
}
