//! Starts the server of a cluster that a restore made.

use super::plan::FreshPrepared;
use crate::restore::follow::{self, Lock, Look, Road, Until};
use crate::restore::start::{failed, launch};
use crate::restore::watch::{Stage, Watch};
use pg_ark_contract::{Error, ErrorKind, Lsn, Result};
use serde::Serialize;
use std::path::PathBuf;

/// A server that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Running {
    /// Its process.
    pub pid: u32,
    /// Its port.
    pub port: u16,
    /// Folder of its socket; empty when it has none.
    pub socket_folder: String,
    /// File that its messages went to while it started.
    pub log: PathBuf,
}

/// Starts the server, and waits until it lets clients in.
///
/// # Errors
/// `RecoveryFailed` with the last lines of the log when it ends; `Cancelled` when the user stops waiting.
pub fn start_fresh(prepared: &FreshPrepared, watch: &dyn Watch) -> Result<Running> {
    let FreshPrepared { plan, record, .. } = prepared;
    let data = &plan.data_directory;
    watch.stage(Stage::Start, 0);
    let (mut child, log) = launch(&plan.server, data, plan.config.main.as_deref(), &plan.access)?;
    let road = Road { data, segment_size: record.wal_segment_size, from: Lsn::default(), to: Lsn::default() };
    let there = |_: &Lock| Look::There;
    match follow::until(Until::Primary, &mut child, &road, &there, watch) {
        Ok(Some(lock)) => {
            Ok(Running { pid: lock.pid, port: lock.port, socket_folder: lock.socket_folder, log: log.path })
        }
        Ok(None) => {
            let message = "the restored server stopped by itself";
            Err(failed(Error::new(ErrorKind::RecoveryFailed, message), data, &log))
        }
        Err(error) if error.kind == ErrorKind::RecoveryFailed && error.hint.is_none() => {
            Err(failed(error, data, &log))
        }
        Err(error) => Err(error),
    }
}
