//! Values of type money, whose text in a dump depends on `lc_monetary` (`cash_in` and `cash_out`, cash.c).
//!
//! What: the record tells under which locale they were written, and they are read under the same. Why: "$ 12,34" is 12.34 for one
//! locale and 1234.00 for another. Rejected: dumps written under C, which public tools alone would then read wrongly.

use super::existing::literal;
use crate::logical::connection::Connection;
use crate::logical::query::Server;
use crate::repository::logical_record::DatabaseRecord;
use pg_ark_contract::{Error, ErrorKind, Result};

/// How the dump of a database is loaded.
pub fn connection(connection: &Connection, database: &DatabaseRecord) -> Connection {
    match &database.lc_monetary {
        Some(locale) => connection.with_monetary(locale),
        None => connection.clone(),
    }
}

/// That the server knows the locales of these databases; asked through database `through`, before anything is changed.
///
/// # Errors
/// `Unsupported` when it does not know one; as [`Server::run`].
pub fn check<'d>(
    server: &Server<'_>,
    through: &str,
    databases: impl Iterator<Item = &'d DatabaseRecord>,
) -> Result<()> {
    for database in databases {
        let Some(locale) = &database.lc_monetary else { continue };
        let sql = format!("SELECT set_config('lc_monetary', {}, true)", literal(locale));
        server.run(through, &sql).map_err(|error| match error.detail {
            Some(said) if error.kind == ErrorKind::ServerNotReady && said.contains("lc_monetary") => Error::new(
                ErrorKind::Unsupported,
                format!(
                    "database \"{}\" has columns of type money, written under locale \"{locale}\", which the server does not have",
                    database.name
                ),
            )
            .detail(said)
            .hint("Install that locale on the server's machine (on Debian: dpkg-reconfigure locales), then restore again."),
            detail => Error { detail, ..error },
        })?;
    }
    Ok(())
}
