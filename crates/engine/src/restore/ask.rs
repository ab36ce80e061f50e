//! Asks a server that was just started, with its own programs and as its owner.

use super::access::Access;
use super::follow::{self, Lock};
use super::run_as::as_owner;
use super::server::Server;
use super::watch::Watch;
use pg_ark_contract::{Lsn, Result};
use std::process::{Command, Stdio};

/// A server, and how to reach it.
pub struct Asked<'a> {
    /// Its programs.
    pub server: &'a Server,
    /// Its owner.
    pub access: &'a Access,
}

impl Asked<'_> {
    /// The one value that a query gives; `None` for NULL. Else psql's words.
    fn value(&self, lock: &Lock, query: &str) -> std::result::Result<Option<String>, String> {
        let mut command =
            as_owner(&self.server.bindir.join("psql"), self.access).map_err(|e| e.to_string())?;
        command.args(["-X", "-A", "-t", "-q", "-w", "-d", "postgres"]);
        command.args(address(lock)).args(["-c", query]);
        let output = quiet(&mut command).output().map_err(|e| e.to_string())?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(why.lines().next().unwrap_or("psql failed").to_string());
        }
        let text = String::from_utf8_lossy(&output.stdout).trim().to_string();
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// Time of the last replayed commit: RFC 3339, UTC.
    ///
    /// # Errors
    /// psql's words.
    pub fn last_transaction(&self, lock: &Lock) -> std::result::Result<Option<String>, String> {
        self.value(
            lock,
            "SELECT to_char(pg_last_xact_replay_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
        )
    }

    /// End of the last replayed record.
    pub fn replayed(&self, lock: &Lock) -> Option<Lsn> {
        self.value(lock, "SELECT pg_last_wal_replay_lsn()").ok()??.parse().ok()
    }

    /// How far recovery is, and whether it is paused there.
    ///
    /// # Errors
    /// psql's words.
    pub fn progress(&self, lock: &Lock) -> std::result::Result<(Lsn, bool), String> {
        let query = "SELECT pg_last_wal_replay_lsn() || ' ' || pg_get_wal_replay_pause_state()";
        let answer = self.value(lock, query)?.unwrap_or_default();
        let (lsn, state) = answer.split_once(' ').unwrap_or_default();
        let lsn = lsn.parse().map_err(|_| format!("it answered \"{}\"", answer.escape_debug()))?;
        Ok((lsn, state == "paused"))
    }

    /// Gathers statistics of all databases, coarse ones first. Says why that failed.
    ///
    /// # Errors
    /// `Cancelled` when the user stops waiting.
    pub fn analyze(&self, lock: &Lock, watch: &dyn Watch) -> Result<Option<String>> {
        let mut command = as_owner(&self.server.bindir.join("vacuumdb"), self.access)?;
        command.args(["--all", "--analyze-in-stages", "--no-password"]).args(address(lock));
        let output = match quiet(&mut command).stdout(Stdio::null()).stderr(Stdio::piped()).spawn() {
            Ok(child) => follow::until_ended(child, watch)?,
            Err(e) => return Ok(Some(format!("could not run vacuumdb: {e}"))),
        };
        if output.status.success() {
            return Ok(None);
        }
        let why = String::from_utf8_lossy(&output.stderr);
        Ok(Some(why.lines().last().unwrap_or("vacuumdb failed").to_string()))
    }
}

/// Options that lead to the server. psql and vacuumdb are told the database they connect to by themselves.
fn address(lock: &Lock) -> [String; 4] {
    let host = if lock.socket_folder.is_empty() { "localhost" } else { &lock.socket_folder };
    ["-h".to_string(), host.to_string(), "-p".to_string(), lock.port.to_string()]
}

fn quiet(command: &mut Command) -> &mut Command {
    command.current_dir("/").stdin(Stdio::null()).env("PGCONNECT_TIMEOUT", "5").env("PGOPTIONS", "")
}
