//! The databases of this server: [`find`] for a process that is connected to none, [`named`] and [`own`] for one that is.

use super::transaction;
use pg_ark_contract::Result;
use pgrx::pg_sys;
use std::ffi::{CStr, CString};

/// `DATCONNLIMIT_INVALID_DB` (catalog/pg_database.h): a DROP DATABASE that was interrupted.
const INVALID: i32 = pg_sys::DATCONNLIMIT_INVALID_DB;

/// A database of this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Database {
    /// Its OID.
    pub oid: u32,
    /// It can be connected to.
    pub open: bool,
}

/// The database of this name; None when there is none. In a transaction of its own.
///
/// # Errors
/// What the server raises.
pub fn find(name: &str) -> Result<Option<Database>> {
    transaction::run(|| {
        // SAFETY: pg_database is shared, so that every process can read it, and is scanned without its index, as
        // `get_database_list` (postmaster/autovacuum.c) does: a process without a database cannot open one. A row is
        // used before the next is fetched; its first columns, up to the last one used, are of fixed length.
        unsafe {
            let lock = pg_sys::AccessShareLock as i32;
            let relation = pg_sys::table_open(pg_sys::DatabaseRelationId, lock);
            let scan = pg_sys::systable_beginscan(
                relation,
                pg_sys::InvalidOid,
                false,
                std::ptr::null_mut(),
                0,
                std::ptr::null_mut(),
            );
            let mut found = None;
            loop {
                let tuple = pg_sys::systable_getnext(scan);
                if tuple.is_null() {
                    break;
                }
                let row = pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_database>(tuple);
                if CStr::from_ptr((&raw const (*row).datname.data).cast()).to_bytes() == name.as_bytes() {
                    let open = (*row).datallowconn && (*row).datconnlimit != INVALID;
                    found = Some(Database { oid: (*row).oid.to_u32(), open });
                }
            }
            pg_sys::systable_endscan(scan);
            pg_sys::table_close(relation, lock);
            Ok(found)
        }
    })
}

/// OID of the database of this name; None when there is none. By the bytes of the name, as [`find`] does it.
pub fn named(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: reads the name; the process is connected to a database and in a transaction.
    let oid = unsafe { pg_sys::get_database_oid(name.as_ptr(), true) };
    (oid != pg_sys::InvalidOid).then(|| oid.to_u32())
}

/// OID of the database that this process is connected to.
pub fn own() -> u32 {
    // SAFETY: a plain read of the server's variable, which is set once.
    unsafe { pg_sys::MyDatabaseId.to_u32() }
}
