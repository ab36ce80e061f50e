//! The server's program and its user; pipes that do not block.

use std::ffi::{CStr, c_char};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;

/// Path of the running `postgres` program.
pub fn server_program() -> PathBuf {
    // SAFETY: my_exec_path is a C string in a fixed buffer, set once by the postmaster (miscadmin.h).
    let path = unsafe { CStr::from_ptr((&raw const pgrx::pg_sys::my_exec_path).cast::<c_char>()) };
    PathBuf::from(path.to_string_lossy().into_owned())
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
