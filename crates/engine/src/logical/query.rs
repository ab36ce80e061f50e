//! Facts that a server tells through its own `psql`.

use super::child::{Ended, Keeper};
use super::connection::Connection;
use super::programs::Programs;
use crate::restore::access::Access;
use pg_ark_contract::{Error, ErrorKind, Result};
use serde::de::DeserializeOwned;

/// Longest answer, in bytes: sizes of a hundred thousand tables take less.
const MAX_ANSWER: usize = 256 << 20;
/// psql's status when it could not connect (`EXIT_BADCONN`, src/bin/psql/settings.h).
const NO_CONNECTION: i32 = 2;

/// Not by the environment, which a change of user would lose; and no setting of a role or a database decides which functions
/// are called.
const SETTINGS: &str = "SET client_encoding = 'UTF8'; SET search_path = pg_catalog, pg_temp";

/// Where a question goes.
#[derive(Clone, Copy)]
pub struct Server<'a> {
    /// Who keeps the programs.
    pub keeper: &'a Keeper<'a>,
    /// The programs.
    pub programs: &'a Programs,
    /// How it is reached.
    pub connection: &'a Connection,
    /// The user whose program it is, when root asks.
    pub access: Option<&'a Access>,
}

impl Server<'_> {
    /// The one value of JSON that `sql` gives in `database`.
    ///
    /// # Errors
    /// `ServerNotReady` when it cannot be reached; `ServerNotReady` with the server's words when it refuses; `Internal` for an
    /// answer of another shape.
    pub fn json<T: DeserializeOwned>(&self, database: &str, sql: &str) -> Result<T> {
        let answer = self.ask(database, sql)?;
        serde_json::from_slice(&answer).map_err(|e| {
            let shape = |text: &[u8]| String::from_utf8_lossy(text.get(..200).unwrap_or(text)).into_owned();
            if std::str::from_utf8(&answer).is_err() {
                let message = format!("a name in database \"{database}\" is no UTF-8");
                return Error::new(ErrorKind::Unsupported, message)
                    .hint("A logical backup keeps names as UTF-8: rename what has another encoding, or leave its database out.");
            }
            Error::new(ErrorKind::Internal, format!("the server's answer in database \"{database}\" is not understood"))
                .detail(format!("{e}: {}", shape(&answer)))
        })
    }

    /// Does `sql` in `database`.
    ///
    /// # Errors
    /// As [`Server::json`].
    pub fn run(&self, database: &str, sql: &str) -> Result<()> {
        self.ask(database, sql).map(|_| ())
    }

    fn ask(&self, database: &str, sql: &str) -> Result<Vec<u8>> {
        let mut command = self.keeper.command(&self.programs.path("psql"), self.access)?;
        self.connection.prepare(&mut command);
        command.args(["--no-psqlrc", "--no-align", "--tuples-only", "--quiet", "--set=ON_ERROR_STOP=1"]);
        command.arg(format!("--dbname={}", self.connection.to(database)));
        command.args(["--command", SETTINGS, "--command", sql]);
        let (answer, ended) = self.keeper.output(command, MAX_ANSWER)?;
        match ended.success {
            true => Ok(answer),
            false => Err(self.failure(database, &ended)),
        }
    }

    fn failure(&self, database: &str, ended: &Ended) -> Error {
        let said = ended.said();
        if ended.code == Some(NO_CONNECTION) {
            return self.connection.refused(database, &said);
        }
        Error::new(
            ErrorKind::ServerNotReady,
            format!("the server refused a question in database \"{database}\""),
        )
        .detail(said)
    }
}
