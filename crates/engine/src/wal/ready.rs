//! Which files of `pg_wal` wait to be archived: the `.ready` files in `archive_status`, in the order in which the
//! server's archiver asks for them.
//!
//! Source: `pgarch_readyXlog` and `ready_file_comparator` in PostgreSQL's postmaster/pgarch.c: history files first,
//! then whatever is smaller by name. The folder can hold a hundred thousand entries, so it is read again only when the
//! names that are known run out, and never so often that reading it takes more than a tenth of the time.

use super::archive::WalFile;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Most names that are remembered; a backlog that is longer is read in several goes.
const MAX_KNOWN: usize = 4096;
/// Time between two readings, in multiples of what the first of them took.
const REST: u32 = 10;

/// What the server waits to have archived.
#[derive(Debug)]
pub struct Ready {
    folder: PathBuf,
    /// In the order of asking: false (a history file) before true.
    known: BTreeSet<(bool, String)>,
    /// When the folder was read, and how long that took.
    read: Option<(Instant, Duration)>,
}

impl Ready {
    /// Of this `pg_wal`. Nothing is looked at.
    pub fn of(pg_wal: &Path) -> Self {
        Ready { folder: pg_wal.join("archive_status"), known: BTreeSet::new(), read: None }
    }

    /// The next `count` files that wait after `asked` and that `is_taken` does not hold.
    ///
    /// What cannot be read is not there: looking ahead saves time, nothing else.
    pub fn after(&mut self, asked: &str, count: usize, is_taken: impl Fn(&str) -> bool) -> Vec<String> {
        if count == 0 {
            return Vec::new();
        }
        self.known.remove(&key(asked));
        if self.known.is_empty() && self.read.is_none_or(|(at, took)| at.elapsed() >= took * REST) {
            self.read(asked);
        }
        let mut next = Vec::new();
        while next.len() < count {
            let Some((_, name)) = self.known.pop_first() else { break };
            // The archiver may have been there meanwhile, or the server found that the file is not needed.
            if !is_taken(&name) && self.is_ready(&name) {
                next.push(name);
            }
        }
        next
    }

    /// Whether the server still waits for `name`.
    pub fn is_ready(&self, name: &str) -> bool {
        self.folder.join(format!("{name}.ready")).exists()
    }

    fn read(&mut self, asked: &str) {
        let begun = Instant::now();
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".ready")) else { continue };
            if WalFile::of(name).is_none() || name == asked {
                continue;
            }
            self.known.insert(key(name));
            if self.known.len() > MAX_KNOWN {
                self.known.pop_last();
            }
        }
        self.read = Some((begun, begun.elapsed()));
    }
}

fn key(name: &str) -> (bool, String) {
    (WalFile::of(name) != Some(WalFile::History), name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(number: u32) -> String {
        format!("0000000100000000{number:08X}")
    }

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("archive_status")).unwrap();
        for name in names {
            std::fs::write(dir.path().join("archive_status").join(name), b"").unwrap();
        }
        dir
    }

    #[test]
    fn files_come_in_the_order_of_the_archiver() {
        let dir = folder(&[
            "000000020000000000000005.ready",
            "000000010000000000000004.ready",
            "000000010000000000000003.done",
            "000000010000000000000005.partial.ready",
            "000000010000000000000004.00000028.backup.ready",
            "00000003.history.ready",
            "00000002.history.ready",
            "000000010000000000000002.ready",
            "nonsense.ready",
            "000000010000000000000009",
        ]);
        let mut ready = Ready::of(dir.path());
        let order = [
            "00000003.history",
            "000000010000000000000002",
            "000000010000000000000004",
            "000000010000000000000004.00000028.backup",
            "000000010000000000000005.partial",
            "000000020000000000000005",
        ];
        assert_eq!(ready.after("00000002.history", 100, |_| false), order);
        assert!(Ready::of(&dir.path().join("absent")).after("x", 5, |_| false).is_empty());
        let mut again = Ready::of(dir.path());
        assert_eq!(again.after("00000002.history", 2, |name| name == order[0]), order[1..3]);
    }

    #[test]
    fn what_is_done_meanwhile_is_not_given() {
        let dir = folder(&[]);
        let status = dir.path().join("archive_status");
        for number in 1..5 {
            std::fs::write(status.join(format!("{}.ready", segment(number))), b"").unwrap();
        }
        let mut ready = Ready::of(dir.path());
        assert_eq!(ready.after(&segment(1), 1, |_| false), [segment(2)]);
        std::fs::rename(
            status.join(format!("{}.ready", segment(3))),
            status.join(format!("{}.done", segment(3))),
        )
        .unwrap();
        assert_eq!(ready.after(&segment(2), 5, |_| false), [segment(4)]);
    }

    #[test]
    fn a_long_backlog_is_read_in_few_goes() {
        let dir = folder(&[]);
        let status = dir.path().join("archive_status");
        let count = MAX_KNOWN as u32 + 100;
        for number in 0..count {
            std::fs::write(status.join(format!("{}.ready", segment(number))), b"").unwrap();
        }
        let mut ready = Ready::of(dir.path());
        let mut seen = vec![segment(0)];
        let mut readings = 0;
        let mut last = None;
        while seen.len() < count as usize {
            let asked = seen.last().unwrap().clone();
            // It may be asked for again until it is time to read.
            let _ = std::fs::remove_file(status.join(format!("{asked}.ready")));
            seen.extend(ready.after(&asked, 1, |_| false));
            let at = ready.read.map(|(at, _)| at);
            readings += u32::from(at != last);
            last = at;
        }
        assert!(readings < 10, "{readings}");
        assert!(seen.is_sorted());
        assert_eq!(seen.len(), count as usize);
    }
}
