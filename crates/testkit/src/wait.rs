//! Conditions instead of sleeps.

use crate::os::Scratch;
use std::fs::File;
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

/// For what should happen at once: a process ends, a row appears. Longer than that takes, because a shared machine's disk may
/// be slow.
pub const SHORT: Duration = Duration::from_secs(30);
/// For what takes work: a server starts, a backup completes. Generous, because a shared machine may be slow;
/// nothing waits longer than it has to.
pub const LONG: Duration = Duration::from_secs(300);

/// What is promised within a second, and half of one more.
const PROMPT: Duration = Duration::from_millis(1500);
/// So many small files are made durable, and so many processes started, in what is promised within a second.
const STEPS: u32 = 20;

const POLL: Duration = Duration::from_millis(10);

/// True as soon as `condition` holds, false when it does not within `timeout`. The condition is tried at least once.
pub fn holds_within(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + timeout;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(POLL);
    }
}

/// Returns as soon as `condition` holds.
///
/// # Panics
/// When it does not hold within `timeout`; `what` says what was waited for.
#[track_caller]
pub fn wait_until(what: &str, timeout: Duration, condition: impl FnMut() -> bool) {
    assert!(holds_within(timeout, condition), "not within {timeout:?}: {what}");
}

/// For what is promised within so many seconds: true as soon as `condition` holds, else false after half as much again and the
/// time that the machine takes for as many steps meanwhile. A machine whose disk or cores are busy with others is waited for,
/// and what hangs is found.
pub fn holds_promptly(seconds: u32, mut condition: impl FnMut() -> bool) -> bool {
    let folder = Scratch::new("prompt");
    let (begun, mut slowest) = (Instant::now(), Duration::ZERO);
    loop {
        if condition() {
            return true;
        }
        if begun.elapsed() >= (PROMPT + slowest * STEPS) * seconds {
            return false;
        }
        slowest = slowest.max(step(&folder));
        std::thread::sleep(POLL);
    }
}

/// Time for a file that is made durable and a process that does nothing.
fn step(folder: &Scratch) -> Duration {
    let begun = Instant::now();
    let file = File::create(folder.path().join("file"));
    file.and_then(|mut file| file.write_all(b"x").and_then(|()| file.sync_all())).expect("a file");
    Command::new("/bin/true").status().expect("a process");
    begun.elapsed()
}
