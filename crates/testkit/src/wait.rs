//! Conditions instead of sleeps.

use std::time::{Duration, Instant};

/// For what should happen at once: a process ends, a row appears. Longer than that takes, because a shared machine's disk may
/// be slow.
pub const SHORT: Duration = Duration::from_secs(30);
/// For what takes work: a server starts, a backup completes. Generous, because a shared machine may be slow;
/// nothing waits longer than it has to.
pub const LONG: Duration = Duration::from_secs(300);

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
