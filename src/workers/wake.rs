//! Waking the scheduler, so that a change acts at once.
//!
//! The signal is SIGHUP: every process of the server takes it for "read the configuration again", so that it does no
//! harm whomever it reaches; the scheduler looks at its jobs then, too.

use super::scheduler;
use crate::postgres::worker;
use pg_ark_contract::Result;
use pgrx::{PgXactCallbackEvent, register_xact_callback};

/// Has the scheduler look at its jobs once the current transaction is committed. Does nothing where none runs.
///
/// # Errors
/// None so far.
pub fn wake_after_commit() -> Result<()> {
    if let Some(pid) = worker::find(scheduler::WORKER) {
        register_xact_callback(PgXactCallbackEvent::Commit, move || worker::reload(pid));
    }
    Ok(())
}
