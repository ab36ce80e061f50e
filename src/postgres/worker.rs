//! Background workers: the one that is there for as long as the server, those that are started when there is work,
//! and what a worker does for itself at its start and at its end.

use super::guc;
use super::process;
use crate::workers::{agenda, job, run, scheduler};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::{CStr, c_char};
use std::sync::atomic::{AtomicU8, Ordering};

/// Restarted by the postmaster when it ended in any other way than with status 0: seconds until then.
const RESTART_AFTER: i32 = 10;

/// What a worker does: a function that the postmaster's child looks up by name in the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// A backup that a session asked for.
    Backup,
    /// A scheduled run.
    Run,
    /// A look at what is due.
    Agenda,
}

impl Entry {
    fn function(self) -> &'static str {
        match self {
            Entry::Backup => "pg_ark_backup_main",
            Entry::Run => "pg_ark_run_main",
            Entry::Agenda => "pg_ark_agenda_main",
        }
    }
}

/// See [`Entry::Backup`].
// SAFETY: no other function of the process has this name.
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn pg_ark_backup_main(argument: pg_sys::Datum) {
    job::main(argument.value() as u32);
}

/// See [`Entry::Run`].
// SAFETY: no other function of the process has this name.
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn pg_ark_run_main(argument: pg_sys::Datum) {
    run::main(argument.value() as u32);
}

/// See [`Entry::Agenda`].
// SAFETY: no other function of the process has this name.
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn pg_ark_agenda_main(argument: pg_sys::Datum) {
    agenda::main(argument.value() as u32);
}

/// What the postmaster starts with the server.
// SAFETY: no other function of the process has this name.
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn pg_ark_scheduler_main(_argument: pg_sys::Datum) {
    scheduler::main();
    // A worker that ends with 0 never comes again; this one does, unless the server shuts down.
    // SAFETY: ends the process as FATAL does; no frame of this library is left that has something to tidy up.
    unsafe { pg_sys::proc_exit(1) };
}

/// Has the postmaster start the scheduler with the server and after each of its ends. Does nothing unless the library
/// is being preloaded; nor during pg_upgrade, whose servers must be left alone (`IsBinaryUpgrade`, as
/// `ApplyLauncherRegister` does).
pub fn register_scheduler() {
    // SAFETY: a plain read of the server's variable.
    if !process::is_preloading() || unsafe { pg_sys::IsBinaryUpgrade } {
        return;
    }
    let mut worker = described(scheduler::WORKER, "pg_ark_scheduler_main", 0);
    worker.bgw_restart_time = RESTART_AFTER;
    // SAFETY: the server copies `worker`.
    unsafe { pg_sys::RegisterBackgroundWorker(&mut worker) }
}

fn described(kind: &str, function: &str, argument: u32) -> pg_sys::BackgroundWorker {
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
    fill(&mut worker.bgw_function_name, function);
    worker
}

/// A worker that this process registered.
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
    /// Asks the postmaster for a worker that shows itself as `kind`; None when every `max_worker_processes` slot is
    /// taken. This process's latch is set when the worker starts and when it ends.
    pub fn register(kind: &str, entry: Entry, argument: u32) -> Option<Handle> {
        let mut worker = described(kind, entry.function(), argument);
        let mut handle = std::ptr::null_mut();
        // SAFETY: the server copies `worker` and fills `handle` when it says true, with memory that lives until the
        // handle is dropped.
        unsafe {
            worker.bgw_notify_pid = pg_sys::MyProcPid;
            let context = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
            let registered = pg_sys::RegisterDynamicBackgroundWorker(&mut worker, &mut handle);
            pg_sys::MemoryContextSwitchTo(context);
            registered.then(|| Handle(handle))
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

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: allocated by `register`, which makes no handle without it, in a context that is never reset; not used
        // after this.
        unsafe { pg_sys::pfree(self.0.cast()) }
    }
}

fn fill<const N: usize>(target: &mut [c_char; N], text: &str) {
    for (target, byte) in target.iter_mut().zip(text.bytes().take(N - 1)) {
        *target = byte as c_char;
    }
}

/// Process of the running worker that shows itself as `kind`. Needs no rights, unlike `pg_stat_activity`.
pub fn find(kind: &str) -> Option<u32> {
    // SAFETY: the entries are copies that belong to this process, and stay until its snapshot of activities is
    // dropped; the type is a string in a static buffer of the server.
    unsafe {
        (1..=pg_sys::pgstat_fetch_stat_numbackends()).find_map(|index| {
            #[cfg(feature = "pg15")]
            let entry = pg_sys::pgstat_fetch_stat_local_beentry(index);
            #[cfg(not(feature = "pg15"))]
            let entry = pg_sys::pgstat_get_local_beentry_by_index(index);
            let status = &entry.as_ref()?.backendStatus;
            if status.st_backendType != pg_sys::BackendType::B_BG_WORKER {
                return None;
            }
            let found = pg_sys::GetBackgroundWorkerTypeByPid(status.st_procpid);
            let is_kind = !found.is_null() && CStr::from_ptr(found).to_bytes() == kind.as_bytes();
            is_kind.then_some(status.st_procpid.cast_unsigned())
        })
    }
}

/// Has a process of this server read its configuration again; nothing happens when it is gone.
pub fn reload(pid: u32) {
    // SAFETY: the server's table says whether the number is one of its processes; every one of them takes SIGHUP.
    unsafe {
        if !pg_sys::BackendPidGetProc(pid.cast_signed()).is_null() {
            libc::kill(pid.cast_signed(), libc::SIGHUP);
        }
    }
}

/// Sets the latch of a process of this server; nothing happens when it is gone.
pub fn wake(pid: u32) {
    // SAFETY: the entry is in shared memory, which stays; at worst it is another process's by now, which looks around
    // and goes on.
    unsafe {
        if let Some(process) = pg_sys::BackendPidGetProc(pid.cast_signed()).as_mut() {
            pg_sys::SetLatch(&raw mut process.procLatch);
        }
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
    wake_here();
}

fn stop(why: u8) {
    STOP.store(why, Ordering::Relaxed);
    // SAFETY: flags that the server's own handler sets (StatementCancelHandler).
    unsafe {
        (&raw mut pg_sys::InterruptPending).write_volatile(1);
        (&raw mut pg_sys::QueryCancelPending).write_volatile(1);
    }
    wake_here();
}

fn wake_here() {
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

/// Connects this worker to no database: it sees what all databases share, and hinders no DROP and no RENAME of one.
pub fn connect_to_none() {
    // SAFETY: called once, first thing in a worker that was registered with a database connection; as
    // `ApplyLauncherMain` does.
    unsafe { pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0) }
}

/// True once [`connect`] is done.
pub fn is_connected() -> bool {
    // SAFETY: a plain read of this process's variable.
    unsafe { pg_sys::MyDatabaseId != pg_sys::InvalidOid }
}
