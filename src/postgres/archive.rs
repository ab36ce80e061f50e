//! The server's side of an archive module: its entry point, its callbacks, and what the archiver process is told.
//!
//! A callback must not raise: in PostgreSQL 15 and 16 an ERROR ends the archiver. So each runs inside
//! [`interrupts::catching`], which also takes panics, and in a memory context that is emptied afterwards: the archiver
//! calls back in contexts that live as long as it does.

use super::{guc, interrupts, latch};
use crate::{archive_module, translate};
use pg_ark_contract::Result;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::cell::Cell;
use std::ffi::{CStr, c_char};
use std::fs::File;
use std::io::Read;
use std::mem::offset_of;
use std::path::Path;

/// Gives the server our callbacks (`ArchiveModuleInit`, postmaster/pgarch.h).
// SAFETY: no other function of the process has this name: the server looks it up in this library alone.
#[cfg(feature = "pg15")]
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn _PG_archive_module_init(callbacks: *mut pg_sys::ArchiveModuleCallbacks) {
    // SAFETY: the server gives a pointer to its own record.
    if let Some(callbacks) = unsafe { callbacks.as_mut() } {
        callbacks.check_configured_cb = Some(check_configured);
        callbacks.archive_file_cb = Some(archive_file);
        callbacks.shutdown_cb = Some(shutdown);
    }
}

#[cfg(feature = "pg15")]
#[pg_guard]
extern "C-unwind" fn check_configured() -> bool {
    is_configured()
}

#[cfg(feature = "pg15")]
#[pg_guard]
extern "C-unwind" fn archive_file(file: *const c_char, _path: *const c_char) -> bool {
    store(file)
}

#[cfg(feature = "pg15")]
#[pg_guard]
extern "C-unwind" fn shutdown() {
    close();
}

/// Since PostgreSQL 16 callbacks have a state, and are returned (archive/archive_module.h, which pgrx does not bind).
#[cfg(not(feature = "pg15"))]
mod since_16 {
    use super::*;
    use std::ffi::c_void;

    /// `ArchiveModuleState`. Ours is kept by [`archive_module`].
    #[repr(C)]
    pub struct State {
        private_data: *mut c_void,
    }

    /// `ArchiveModuleCallbacks`.
    #[repr(C)]
    pub struct Callbacks {
        startup: Option<unsafe extern "C-unwind" fn(*mut State)>,
        check_configured: Option<unsafe extern "C-unwind" fn(*mut State) -> bool>,
        archive_file: Option<unsafe extern "C-unwind" fn(*mut State, *const c_char, *const c_char) -> bool>,
        shutdown: Option<unsafe extern "C-unwind" fn(*mut State)>,
    }

    static CALLBACKS: Callbacks = Callbacks {
        startup: None,
        check_configured: Some(check_configured),
        archive_file: Some(archive_file),
        shutdown: Some(shutdown),
    };

    /// Gives the server our callbacks (`ArchiveModuleInit`).
    // SAFETY: no other function of the process has this name: the server looks it up in this library alone.
    #[unsafe(no_mangle)]
    #[pg_guard]
    pub extern "C-unwind" fn _PG_archive_module_init() -> *const Callbacks {
        &raw const CALLBACKS
    }

    #[pg_guard]
    extern "C-unwind" fn check_configured(_state: *mut State) -> bool {
        is_configured()
    }

    #[pg_guard]
    extern "C-unwind" fn archive_file(_state: *mut State, file: *const c_char, _path: *const c_char) -> bool {
        store(file)
    }

    #[pg_guard]
    extern "C-unwind" fn shutdown(_state: *mut State) {
        close();
    }
}

fn is_configured() -> bool {
    called(false, || {
        let missing = archive_module::missing();
        if let Some(error) = &missing {
            explain(error);
        }
        missing.is_none()
    })
}

fn store(file: *const c_char) -> bool {
    called(false, || {
        if file.is_null() {
            return false;
        }
        // SAFETY: the server gives the name of a file as a C string, valid for the call.
        let file = unsafe { CStr::from_ptr(file) }.to_string_lossy();
        archive_module::archive(&file)
    })
}

fn close() {
    called((), archive_module::close);
}

thread_local! {
    static CONTEXT: Cell<pg_sys::MemoryContext> = const { Cell::new(std::ptr::null_mut()) };
}

/// Runs the body of a callback. What it raises is `otherwise`: it has warned already of what can be told.
fn called<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    // SAFETY: the context is made once, below one that lives as long as the process; it is left before it is emptied.
    let before = unsafe {
        if CONTEXT.get().is_null() {
            CONTEXT.set(pg_sys::AllocSetContextCreateInternal(
                pg_sys::TopMemoryContext,
                c"pg_ark archiver".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            ));
        }
        pg_sys::MemoryContextSwitchTo(CONTEXT.get())
    };
    let value = interrupts::catching(|| Ok(body())).unwrap_or(otherwise);
    latch::give_back();
    // SAFETY: as above.
    unsafe {
        pg_sys::MemoryContextSwitchTo(before);
        pg_sys::MemoryContextReset(CONTEXT.get());
    }
    value
}

/// Hands the server a reason for its own message.
#[cfg(any(feature = "pg17", feature = "pg18"))]
fn explain(error: &pg_ark_contract::Error) {
    use std::cell::RefCell;
    use std::ffi::CString;
    unsafe extern "C" {
        /// archive/archive_module.h
        static mut arch_module_check_errdetail_string: *mut c_char;
    }
    thread_local! {
        static REASON: RefCell<CString> = RefCell::default();
    }
    let Ok(text) = CString::new(archive_module::in_words(error)) else { return };
    REASON.with_borrow_mut(|reason| {
        *reason = text;
        // SAFETY: the server clears the pointer before it asks, reads it right after, changes and frees nothing. The
        // text stays until there is another one.
        unsafe { arch_module_check_errdetail_string = reason.as_ptr().cast_mut() }
    });
}

/// The server has no place for a reason yet: a WARNING of our own, once for each reason.
#[cfg(not(any(feature = "pg17", feature = "pg18")))]
fn explain(error: &pg_ark_contract::Error) {
    archive_module::warn_once(error);
}

/// True when the archiver was told to stop (SIGTERM), which the server itself does not do: the machine goes down.
pub fn told_to_stop() -> bool {
    // SAFETY: a read of a flag that a signal handler sets (postmaster/interrupt.h).
    unsafe { (&raw const pg_sys::ShutdownRequestPending).read_volatile() != 0 }
}

/// True when the configuration is to be read again, which the archiver does between two files.
pub fn told_to_reload() -> bool {
    // SAFETY: as above.
    unsafe { (&raw const pg_sys::ConfigReloadPending).read_volatile() != 0 }
}

/// Does what other processes wait for: DROP DATABASE and DROP TABLESPACE wait until every process has let go of its
/// files. The archiver does it between two files, which may be long.
///
/// # Errors
/// What the server raises.
pub fn let_others_go_on() -> Result<()> {
    // SAFETY: a read of a flag that a signal handler sets; the archiver itself calls the function when it is set.
    interrupts::catching(|| unsafe {
        if (&raw const pg_sys::ProcSignalBarrierPending).read_volatile() != 0 {
            pg_sys::ProcessProcSignalBarrier();
        }
        Ok(())
    })
}

/// Ends this process when it is the archiver; the postmaster starts another one. The archiver itself does the same when
/// archive_library changes, because a library cannot be unloaded.
pub fn end_archiver(why: &str) {
    // SAFETY: a read of a variable of this process; proc_exit runs the server's own callbacks and does not return.
    unsafe {
        if pg_sys::MyBackendType == pg_sys::BackendType::B_ARCHIVER {
            translate::log(why);
            pg_sys::proc_exit(0);
        }
    }
}

/// True when `pg_control` says that the server shuts down: nothing but the archiver keeps it from ending then.
pub fn server_shuts_down() -> bool {
    use pg_sys::DBState::{DB_SHUTDOWNED, DB_SHUTDOWNED_IN_RECOVERY, DB_SHUTDOWNING};
    // The state is an enum, four bytes in the order of the machine (catalog/pg_control.h).
    const AT: usize = offset_of!(pg_sys::ControlFileData, state);
    let mut bytes = [0; AT + size_of::<u32>()];
    // The server runs in its data directory. It writes these bytes at once, within one sector.
    let read = File::open(Path::new("global/pg_control")).and_then(|mut file| file.read_exact(&mut bytes));
    let Some(state) = bytes.last_chunk().map(|state| u32::from_ne_bytes(*state)) else { return false };
    read.is_ok() && [DB_SHUTDOWNED, DB_SHUTDOWNED_IN_RECOVERY, DB_SHUTDOWNING].contains(&state)
}

/// `server_version_num`, which may be of a later minor version than the library was built for.
pub fn server_version_num() -> u32 {
    guc::option(c"server_version_num").and_then(|text| text.parse().ok()).unwrap_or(pg_sys::PG_VERSION_NUM)
}
