//! The server's program and its user; the time; pipes that do not block; children and how they are served.

use std::ffi::{CStr, OsStr, c_char};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Path of the running `postgres` program.
pub fn server_program() -> PathBuf {
    // SAFETY: my_exec_path is a C string in a fixed buffer, set once by the postmaster (miscadmin.h).
    let path = unsafe { CStr::from_ptr((&raw const pgrx::pg_sys::my_exec_path).cast::<c_char>()) };
    PathBuf::from(OsStr::from_bytes(path.to_bytes()))
}

/// True while the postmaster loads the libraries of `shared_preload_libraries`: every process will have this one.
pub fn is_preloading() -> bool {
    // SAFETY: a plain read of the server's variable (miscadmin.h).
    unsafe { pgrx::pg_sys::process_shared_preload_libraries_in_progress }
}

/// Name of the operating system user that runs the server.
pub fn server_user() -> Option<String> {
    // SAFETY: getpwuid gives null or a record in a static buffer, which this one-threaded process copies at once.
    unsafe {
        let record = libc::getpwuid(libc::geteuid());
        if record.is_null() || (*record).pw_name.is_null() {
            return None;
        }
        Some(CStr::from_ptr((*record).pw_name).to_string_lossy().into_owned())
    }
}

/// The time now: RFC 3339 in UTC, with microseconds.
pub fn utc_now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = libc::time_t::try_from(since.as_secs()).unwrap_or_default();
    // SAFETY: a record of plain numbers, for which zeros are valid; gmtime_r fills it.
    let time = unsafe {
        let mut time: libc::tm = std::mem::zeroed();
        libc::gmtime_r(&seconds, &mut time);
        time
    };
    let date = format!("{:04}-{:02}-{:02}", time.tm_year + 1900, time.tm_mon + 1, time.tm_mday);
    let micros = since.subsec_micros();
    format!("{date}T{:02}:{:02}:{:02}.{micros:06}Z", time.tm_hour, time.tm_min, time.tm_sec)
}

/// Reads and writes on this end of a pipe return at once.
///
/// # Errors
/// When the kernel refuses.
pub fn set_nonblocking(pipe: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as it is borrowed.
    unsafe {
        let flags = libc::fcntl(pipe.as_raw_fd(), libc::F_GETFL);
        if flags < 0 || libc::fcntl(pipe.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// `IOPRIO_WHO_PROCESS`, `IOPRIO_CLASS_IDLE` and `IOPRIO_CLASS_SHIFT` of the kernel (linux/ioprio.h).
const IOPRIO_WHO_PROCESS: libc::c_long = 1;
const IOPRIO_CLASS_IDLE: libc::c_long = 3;
const IOPRIO_CLASS_SHIFT: u32 = 13;

/// Lets the disks serve child `pid`, which nobody reaped yet, when nobody else wants them; threads that it starts from
/// now on too.
///
/// Not the lowest best-effort level instead: mq-deadline knows classes alone. None starves for ever: mq-deadline
/// serves what waited for 10 s (`prio_aging_expire`), bfq the idle class every 200 ms (`BFQ_CL_IDLE_TIMEOUT`), and
/// `none` and kyber know no classes.
pub fn make_io_idle(pid: u32) {
    let priority = IOPRIO_CLASS_IDLE << IOPRIO_CLASS_SHIFT;
    // SAFETY: a plain system call without pointers. A kernel or a sandbox that refuses it leaves the class as it was.
    unsafe {
        libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, libc::c_long::from(pid), priority);
    }
}

/// How soon to look again on a kernel without pidfd_open (before 5.3).
const LOOK_AGAIN_MS: i32 = 5;

/// Returns when child `pid`, which nobody reaped yet, ended; or earlier: after `timeout`, or by a signal.
pub fn wait_for_exit(pid: u32, timeout: Duration) {
    let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX).max(1);
    // SAFETY: plain system calls; a descriptor that the kernel gave is owned here and closed at the end.
    unsafe {
        let raw = libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0);
        if raw < 0 {
            libc::poll(std::ptr::null_mut(), 0, milliseconds.min(LOOK_AGAIN_MS));
            return;
        }
        let child = OwnedFd::from_raw_fd(raw as i32);
        let mut entry = libc::pollfd { fd: child.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        libc::poll(&mut entry, 1, milliseconds);
    }
}
