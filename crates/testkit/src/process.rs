//! What /proc tells about processes.

use crate::wait::{LONG, holds_within};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// Cannot be caught: the process is gone at once.
pub const KILL: Signal = Signal::KILL;
/// What Ctrl-C sends.
pub const INTERRUPT: Signal = Signal::INT;
/// Ends a server in immediate mode.
pub const QUIT: Signal = Signal::QUIT;
/// Asks a process to end.
pub const TERMINATE: Signal = Signal::TERM;
/// Stops a process until [`CONTINUE`].
pub const STOP: Signal = Signal::STOP;
/// Continues a stopped process.
pub const CONTINUE: Signal = Signal::CONT;

/// A running process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its parent's number.
    pub parent: u32,
    /// Its command line, as `ps` shows it.
    pub title: String,
}

/// Every process that is not a zombie.
pub fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(read_process)
        .collect()
}

/// Children of `pid`, their children, and so on.
pub fn descendants(pid: u32) -> Vec<Process> {
    let all = all();
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        family.extend(all.iter().filter(|process| process.parent == parent).map(|process| process.pid));
        next += 1;
    }
    all.into_iter().filter(|process| process.pid != pid && family.contains(&process.pid)).collect()
}

/// True while the process runs; a zombie does not.
pub fn is_alive(pid: u32) -> bool {
    read_process(pid).is_some()
}

/// True when not even a zombie is left: PostgreSQL takes a zombie for a running postmaster.
pub fn is_reaped(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

/// Sends a signal; false when the process is gone.
pub fn send_signal(pid: u32, signal: Signal) -> bool {
    i32::try_from(pid).ok().and_then(Pid::from_raw).is_some_and(|pid| kill_process(pid, signal).is_ok())
}

/// Largest resident memory that the process has had so far, in bytes (`VmHWM`); none when it is gone.
pub fn peak_rss(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// True when a process works in a folder. pgark lets root alone look at it, so others ask with sudo.
///
/// # Panics
/// When neither root nor sudo can look.
pub fn works_in(pid: u32, folder: &Path) -> bool {
    let link = format!("/proc/{pid}/cwd");
    let found = match fs::read_link(&link) {
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            let asked = Command::new("sudo").args(["-n", "readlink", &link]).output();
            let asked = asked.unwrap_or_else(|e| panic!("run the tests as root, or install sudo: {e}"));
            PathBuf::from(OsStr::from_bytes(asked.stdout.trim_ascii_end()))
        }
        found => found.unwrap_or_default(),
    };
    found == folder
}

fn read_process(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // pid (name, which may hold spaces and parentheses) state parent ...
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    let parent = fields.next()?.parse().ok()?;
    let title = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let title = String::from_utf8_lossy(&title).replace('\0', " ").trim_end().to_string();
    Some(Process { pid, parent, title })
}

/// Watches the peak memory of a process until it ends.
#[derive(Debug)]
pub struct PeakRss {
    peak: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl PeakRss {
    /// Watches a process that runs already.
    pub fn watch(pid: u32) -> Self {
        Self::watch_when(move || Some(pid))
    }

    /// Watches the first process that `find` returns.
    pub fn watch_when(mut find: impl FnMut() -> Option<u32> + Send + 'static) -> Self {
        let peak = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (peak2, stop2) = (Arc::clone(&peak), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut pid = None;
            holds_within(LONG * 12, || {
                pid = pid.or_else(&mut find);
                let gone = match pid.map(peak_rss) {
                    Some(Some(bytes)) => {
                        peak2.fetch_max(bytes, Ordering::Relaxed);
                        false
                    }
                    Some(None) => true,
                    None => false,
                };
                gone || stop2.load(Ordering::Relaxed)
            });
        });
        PeakRss { peak, stop, thread: Some(thread) }
    }

    /// Stops watching; returns the peak in bytes.
    ///
    /// # Panics
    /// When the process was never seen.
    #[track_caller]
    pub fn finish(mut self) -> u64 {
        self.end();
        let peak = self.peak.load(Ordering::Relaxed);
        assert!(peak > 0, "the process whose memory should be watched was never seen");
        peak
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in the thread shows as a peak of 0.
            let _ = thread.join();
        }
    }
}

impl Drop for PeakRss {
    fn drop(&mut self) {
        self.end();
    }
}
