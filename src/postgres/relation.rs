//! Tables by name, and holding on to them.

use super::{interrupts, latch};
use pgrx::pg_sys;
use std::ffi::CString;
use std::time::{Duration, Instant};

/// How often a lock that somebody else holds is tried again.
const AGAIN: Duration = Duration::from_millis(20);

/// Keeps the relation with this OID from being dropped, renamed or changed until the transaction ends; waits for who does
/// that now, but not longer than `patience`: false then. Not by `lock_timeout`, which raises: a session could not go on.
/// An OID without a relation is locked too, which harms nobody.
pub fn lock_for_reading(relation: u32, patience: Duration) -> bool {
    let began = Instant::now();
    while relation != 0 && !try_lock(relation) {
        if began.elapsed() >= patience {
            return false;
        }
        latch::sleep(AGAIN);
        interrupts::check();
    }
    true
}

fn try_lock(relation: u32) -> bool {
    // SAFETY: the caller is in a transaction, which gives the lock back.
    unsafe {
        pg_sys::ConditionalLockRelationOid(
            pg_sys::Oid::from(relation),
            pg_sys::AccessShareLock as pg_sys::LOCKMODE,
        )
    }
}

/// OID of the relation that has this name now, whatever an older snapshot shows.
pub fn named(schema: &str, relation: &str) -> Option<u32> {
    let (schema, relation) = (CString::new(schema).ok()?, CString::new(relation).ok()?);
    // SAFETY: both strings end in a NUL; the caches are asked inside the caller's transaction.
    let found = unsafe {
        let schema = pg_sys::get_namespace_oid(schema.as_ptr(), true);
        if schema == pg_sys::InvalidOid {
            return None;
        }
        pg_sys::get_relname_relid(relation.as_ptr(), schema)
    };
    (found != pg_sys::InvalidOid).then(|| found.to_u32())
}
