//! Interrupts of this process, and catching what the server raises.

use crate::translate;
use pg_ark_contract::Result;
use pgrx::pg_sys;
use pgrx::{PgTryBuilder, check_for_interrupts};
use std::panic::AssertUnwindSafe;

/// Cancel, statement_timeout, terminate: raises ERROR (destructors run) or ends the process with FATAL (they do not).
pub fn check() {
    check_for_interrupts!();
}

/// True when the next [`check`] will end this session.
pub fn dying() -> bool {
    // SAFETY: a read of a flag that signal handlers set.
    unsafe { (&raw const pg_sys::ProcDiePending).read_volatile() != 0 }
}

/// Runs `body` and gives what it raised as an error. For background workers only: a session must let the server
/// handle what was raised. Does not end a transaction; see [`super::transaction::run`].
///
/// # Errors
/// What `body` returned, or raised.
pub fn catching<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    PgTryBuilder::new(AssertUnwindSafe(body))
        .catch_others(|caught| Err(translate::from_caught(&caught)))
        .execute()
}
