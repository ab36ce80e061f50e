//! Tables by name, and holding on to them.

use pgrx::pg_sys;
use std::ffi::CString;

/// Keeps the relation with this OID from being dropped, renamed or changed until the transaction ends; waits for who does
/// that now. An OID without a relation is locked too, which harms nobody.
pub fn lock_for_reading(relation: u32) {
    if relation == 0 {
        return;
    }
    // SAFETY: the caller is in a transaction, which gives the lock back.
    unsafe {
        pg_sys::LockRelationOid(pg_sys::Oid::from(relation), pg_sys::AccessShareLock as pg_sys::LOCKMODE);
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
