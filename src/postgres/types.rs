//! SQL types that pgrx does not know.

use pg_ark_contract::Lsn;
use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::datum::Datum as BoxedDatum;
use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::prelude::*;

/// `pg_lsn`.
#[derive(Debug, Clone, Copy)]
pub struct PgLsn(pub Lsn);

pgrx::impl_sql_translatable!(PgLsn, "pg_lsn");

impl IntoDatum for PgLsn {
    fn into_datum(self) -> Option<Datum> {
        // pg_lsn is a 64-bit value, passed as it is (utils/pg_lsn.h).
        Some(Datum::from(self.0.0))
    }

    fn type_oid() -> Oid {
        pg_sys::PG_LSNOID
    }
}

// SAFETY: the datum is the one of the SQL type that is declared above.
unsafe impl BoxRet for PgLsn {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> BoxedDatum<'fcx> {
        // SAFETY: a 64-bit value that is passed as it is.
        unsafe { fcinfo.return_raw_datum(Datum::from(self.0.0)) }
    }
}
