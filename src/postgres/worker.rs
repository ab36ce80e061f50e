//! Background workers: registering one from a session, and what a worker does for itself at its start.

use super::guc;
use crate::workers::job;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::c_char;
use std::sync::atomic::{AtomicU8, Ordering};

/// What the postmaster starts for a backup: looked up by this name in the library.
// SAFETY: no other function of the process has this name.
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn pg_ark_backup_main(argument: pg_sys::Datum) {
    job::main(argument.value() as u32);
}

/// A worker that this session registered.
pub struct Handle(*mut pg_sys::BackgroundWorkerHandle);

/// What the postmaster says about a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It will be started.
    Waiting,
    /// It runs.
    Running,
    /// It ended, or could not be started.
    Ended,
}

impl Handle {
    /// Asks the postmaster for a worker that shows itself as `kind` and runs [`pg_ark_backup_main`]; None when every
    /// `max_worker_processes` slot is taken. The handle is valid in the current memory context.
    pub fn register(kind: &str, argument: u32) -> Option<Handle> {
        let mut worker = pg_sys::BackgroundWorker {
            bgw_flags: (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION) as i32,
            // Also on a standby.
            bgw_start_time: pg_sys::BgWorkerStartTime::BgWorkerStart_ConsistentState,
            bgw_restart_time: pg_sys::BGW_NEVER_RESTART,
            bgw_main_arg: pg_sys::Datum::from(argument),
            ..Default::default()
        };
        fill(&mut worker.bgw_name, kind);
        fill(&mut worker.bgw_type, kind);
        fill(&mut worker.bgw_library_name, "pg_ark");
        fill(&mut worker.bgw_function_name, "pg_ark_backup_main");
        let mut handle = std::ptr::null_mut();
        // SAFETY: the server copies `worker` and fills `handle` when it says true.
        unsafe {
            worker.bgw_notify_pid = pg_sys::MyProcPid;
            pg_sys::RegisterDynamicBackgroundWorker(&mut worker, &mut handle).then_some(Handle(handle))
        }
    }

    /// Is it alive?
    pub fn life(&self) -> Life {
        let mut pid = 0;
        // SAFETY: the handle is one that the server gave.
        match unsafe { pg_sys::GetBackgroundWorkerPid(self.0, &mut pid) } {
            pg_sys::BgwHandleStatus::BGWH_STARTED => Life::Running,
            pg_sys::BgwHandleStatus::BGWH_NOT_YET_STARTED => Life::Waiting,
            _ => Life::Ended,
        }
    }

    /// Asks the postmaster to end it.
    pub fn terminate(&self) {
        // SAFETY: the handle is one that the server gave.
        unsafe { pg_sys::TerminateBackgroundWorker(self.0) }
    }
}

fn fill<const N: usize>(target: &mut [c_char; N], text: &str) {
    for (target, byte) in target.iter_mut().zip(text.bytes().take(N - 1)) {
        *target = byte as c_char;
    }
}

const NO_STOP: u8 = 0;
const STOP_TERMINATE: u8 = 1;
const STOP_CANCEL: u8 = 2;

static STOP: AtomicU8 = AtomicU8::new(NO_STOP);

/// Why this worker was told to stop, in words for the record; None when it was not.
///
/// A stop also interrupts what the server does for us (a wait for a checkpoint, a query) with an ERROR, not with
/// FATAL: so destructors run, and the engine hears the reason.
pub fn stop_reason() -> Option<&'static str> {
    match STOP.load(Ordering::Relaxed) {
        STOP_TERMINATE => Some("stopped by ark.backup_stop, pg_terminate_backend or server shutdown"),
        STOP_CANCEL => Some("cancelled by pg_cancel_backend"),
        _ => None,
    }
}

/// Takes the worker's signals: SIGTERM and SIGINT stop it, SIGHUP reloads. Then lets them through.
pub fn take_signals() {
    // SAFETY: handlers are async-signal-safe functions with the signature that the server wants.
    unsafe {
        handle(pg_sys::SIGTERM as i32, on_terminate);
        handle(pg_sys::SIGINT as i32, on_cancel);
        handle(pg_sys::SIGHUP as i32, on_reload);
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

unsafe fn handle(signal: i32, handler: unsafe extern "C-unwind" fn(i32)) {
    // PostgreSQL 18 renamed the server's own pqsignal.
    // SAFETY: the caller's promise.
    #[cfg(not(feature = "pg18"))]
    unsafe {
        pg_sys::pqsignal(signal, Some(handler));
    }
    // SAFETY: the caller's promise.
    #[cfg(feature = "pg18")]
    unsafe {
        pg_sys::pqsignal_be(signal, Some(handler));
    }
}

unsafe extern "C-unwind" fn on_terminate(_signal: i32) {
    stop(STOP_TERMINATE);
}

unsafe extern "C-unwind" fn on_cancel(_signal: i32) {
    stop(STOP_CANCEL);
}

unsafe extern "C-unwind" fn on_reload(_signal: i32) {
    // SAFETY: the flag that the server's own handler sets (SignalHandlerForConfigReload).
    unsafe { (&raw mut pg_sys::ConfigReloadPending).write_volatile(1) }
    wake();
}

fn stop(why: u8) {
    STOP.store(why, Ordering::Relaxed);
    // SAFETY: flags that the server's own handler sets (StatementCancelHandler).
    unsafe {
        (&raw mut pg_sys::InterruptPending).write_volatile(1);
        (&raw mut pg_sys::QueryCancelPending).write_volatile(1);
    }
    wake();
}

fn wake() {
    // SAFETY: SetLatch may be called in a signal handler; errno is kept for the interrupted code.
    unsafe {
        let errno = *libc::__errno_location();
        pg_sys::SetLatch(pg_sys::MyLatch);
        *libc::__errno_location() = errno;
    }
}

/// Forgets that the running statement is to be cancelled, so that the worker can tidy up; [`stop_reason`] stays.
pub fn calm() {
    // SAFETY: a flag of this process.
    unsafe { (&raw mut pg_sys::QueryCancelPending).write_volatile(0) }
}

/// Connects this worker to the database with this OID as the bootstrap superuser, and stays that: whoever may
/// ALTER DATABASE may also have set a role or a session authorization for its sessions.
pub fn connect(database: u32) {
    // SAFETY: called once, first thing in a worker that was registered with a database connection. The bootstrap
    // superuser always exists, and a process that was authenticated as that user may become it again.
    unsafe {
        let database = pg_sys::Oid::from(database);
        pg_sys::BackgroundWorkerInitializeConnectionByOid(database, pg_sys::InvalidOid, 0);
        pg_sys::SetSessionAuthorization(pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID), true);
    }
    guc::set_for_process(c"role", "none");
}
