//! Transactions of a background worker.

use super::interrupts;
use pg_ark_contract::Result;
use pgrx::pg_sys;

/// Runs `body` in a transaction of its own. What the server raises ends the transaction and comes back as an error.
/// Must not be called inside another transaction.
///
/// # Errors
/// What `body` returned, or the server raised.
pub fn run<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    let result = interrupts::catching(|| {
        // SAFETY: the worker is connected to a database and is in no transaction.
        unsafe {
            pg_sys::SetCurrentStatementStartTimestamp();
            pg_sys::StartTransactionCommand();
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        }
        let value = body()?;
        // SAFETY: the snapshot and the transaction are those begun above.
        unsafe {
            pg_sys::PopActiveSnapshot();
            pg_sys::CommitTransactionCommand();
        }
        Ok(value)
    });
    if result.is_err() {
        abort();
    }
    result
}

/// Ends what is left of a transaction after an error, as PostgresMain does between two commands.
fn abort() {
    // SAFETY: AbortCurrentTransaction may be called in any state; a slot that a failed call held is given back as
    // PostgresMain would; memory of the transaction is gone, so the current context must be a lasting one.
    unsafe {
        pg_sys::AbortCurrentTransaction();
        if !pg_sys::MyReplicationSlot.is_null() {
            pg_sys::ReplicationSlotRelease();
        }
        pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
    }
}
