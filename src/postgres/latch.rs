//! Waiting for this process's latch and a pipe together.

use pgrx::pg_sys;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A wait of ours found the latch set.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Sleeps until `pipe` can be read or is closed, the latch is set, or `timeout` is over. Ends the process when the
/// postmaster is gone. Does not look at interrupts: the caller does, with [`super::interrupts::check`].
pub fn wait_readable(pipe: BorrowedFd<'_>, timeout: Duration) {
    wait(pg_sys::WL_SOCKET_READABLE, pipe.as_raw_fd(), timeout);
}

/// Sleeps until the latch is set or `timeout` is over, as [`wait_readable`].
pub fn sleep(timeout: Duration) {
    wait(0, pg_sys::PGINVALID_SOCKET, timeout);
}

fn wait(socket_events: u32, socket: i32, timeout: Duration) {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH | socket_events;
    let milliseconds = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX).max(1);
    // SAFETY: MyLatch is this process's own latch, valid from the start of the process to its end; epoll and poll,
    // which the server uses, accept the read end of a pipe as well as a socket.
    unsafe {
        let happened = pg_sys::WaitLatchOrSocket(
            pg_sys::MyLatch,
            events as i32,
            socket,
            milliseconds,
            pg_sys::PG_WAIT_EXTENSION,
        );
        if happened & pg_sys::WL_LATCH_SET as i32 != 0 {
            pg_sys::ResetLatch(pg_sys::MyLatch);
            TAKEN.store(true, Ordering::Relaxed);
        }
    }
}

/// Sets the latch again when a wait of ours took it: for code that the server calls back and that waits on the latch
/// itself, for a wake-up that is not ours. The archiver would else end a minute late.
pub fn give_back() {
    if TAKEN.swap(false, Ordering::Relaxed) {
        // SAFETY: this process's own latch.
        unsafe { pg_sys::SetLatch(pg_sys::MyLatch) }
    }
}
