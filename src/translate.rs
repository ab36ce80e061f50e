//! The one place where pg_ark's errors become PostgreSQL's, and PostgreSQL's become ours.
//!
//! The SQLSTATE of each kind stands in [`pg_ark_contract::errors`]. SQL gets message, detail and hint.

use crate::postgres::text::for_message;
use pg_ark_contract::{Error, ErrorKind, Result};
use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::{PgLogLevel, PgSqlErrorCode};

/// PostgreSQL packs a SQLSTATE as five characters of six bits (`MAKE_SQLSTATE`, utils/elog.h).
pub fn pack_sqlstate(state: &str) -> i32 {
    state.bytes().rev().fold(0, |packed, byte| (packed << 6) | i32::from(byte.wrapping_sub(b'0') & 0x3F))
}

fn report(error: &Error, message: String) -> ErrorReport {
    let code = PgSqlErrorCode::from(pack_sqlstate(error.kind.sqlstate()));
    let mut report = ErrorReport::new(code, for_message(message), "pg_ark");
    if let Some(detail) = &error.detail {
        report = report.set_detail(for_message(detail.clone()));
    }
    if let Some(hint) = &error.hint {
        report = report.set_hint(for_message(hint.clone()));
    }
    report
}

/// Gives the value, or raises the error in the calling session.
pub fn or_raise<T>(result: Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => {
            report(&error, error.message.clone()).report(PgLogLevel::ERROR);
            unreachable!("an ERROR does not return")
        }
    }
}

/// A WARNING: to the client of a session, to the server log from a worker.
pub fn warn(message: impl Into<String>, hint: Option<String>) {
    let mut report = ErrorReport::new(PgSqlErrorCode::ERRCODE_WARNING, for_message(message.into()), "pg_ark");
    if let Some(hint) = hint {
        report = report.set_hint(for_message(hint));
    }
    report.report(PgLogLevel::WARNING);
}

/// A WARNING that carries an error: `context: message`.
pub fn warn_error(context: &str, error: &Error) {
    report(error, format!("{context}: {}", error.message)).report(PgLogLevel::WARNING);
}

/// One line for the server log.
pub fn log(message: impl Into<String>) {
    ErrorReport::new(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, for_message(message.into()), "pg_ark")
        .report(PgLogLevel::LOG);
}

/// What PostgreSQL raised, as one of ours: the message, detail and hint stay as they are.
pub fn from_caught(caught: &CaughtError) -> Error {
    let (CaughtError::PostgresError(raised)
    | CaughtError::ErrorReport(raised)
    | CaughtError::RustPanic { ereport: raised, .. }) = caught;
    use PgSqlErrorCode as Code;
    let kind = match raised.sql_error_code() {
        Code::ERRCODE_QUERY_CANCELED | Code::ERRCODE_ADMIN_SHUTDOWN => ErrorKind::Cancelled,
        Code::ERRCODE_INSUFFICIENT_PRIVILEGE => ErrorKind::PermissionDenied,
        Code::ERRCODE_DISK_FULL => ErrorKind::DiskFull,
        Code::ERRCODE_IO_ERROR => ErrorKind::Io,
        Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
        | Code::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED
        | Code::ERRCODE_OBJECT_IN_USE => ErrorKind::ServerNotReady,
        Code::ERRCODE_FEATURE_NOT_SUPPORTED => ErrorKind::Unsupported,
        _ => ErrorKind::Internal,
    };
    Error {
        kind,
        message: raised.message().to_owned(),
        detail: raised.detail().map(str::to_owned),
        hint: raised.hint().map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_sqlstate_that_postgres_knows() {
        for kind in ErrorKind::ALL {
            let packed = pack_sqlstate(kind.sqlstate());
            assert_eq!(PgSqlErrorCode::from(packed) as i32, packed, "{kind:?}");
        }
        assert_eq!(pack_sqlstate("22023"), PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE as i32);
    }
}
