//! A restore into a running server that waits for a lock: who holds it is told.
//!
//! What is replaced has to wait for whoever uses it, and all who come later wait behind. Rejected: `lock_timeout`, since nobody
//! knows how long a report may run that the restore is allowed to wait for.

use super::existing::literal;
use super::load::Load;
use crate::logical::query::Server;
use crate::logical::silence::HOLDERS;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// Time after which the server is asked, and asked again.
const PATIENCE: Duration = Duration::from_secs(10);

/// Does `work`; whoever holds it up for long is told, asked through database `through`.
pub fn told<T>(load: &Load<'_>, through: &str, work: impl FnOnce() -> T) -> T {
    let (alive, end) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || watch(load, through, &end));
        let result = work();
        drop(alive);
        result
    })
}

fn watch(load: &Load<'_>, through: &str, end: &Receiver<()>) {
    let mut known = Vec::new();
    while end.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
        // Who cannot be asked now is asked later.
        let holders = holders(&load.server, through);
        if holders.is_empty() || holders == known {
            continue;
        }
        load.watch.warn(&format!(
            "the restore waits for a lock that is held by {}. It goes on when that ends, and whoever needs the same waits behind it: see pg_stat_activity, and pg_prepared_xacts for prepared transactions.",
            holders.join(", ")
        ));
        known = holders;
    }
}

/// Who holds up sessions of this restore, which may wait for each other, too.
fn holders(server: &Server<'_>, through: &str) -> Vec<String> {
    let name = literal(server.connection.application());
    let question = format!(
        "SET statement_timeout = '5s'; SELECT {HOLDERS}
          WHERE w.application_name = {name} AND w.usename = session_user AND h.application_name IS DISTINCT FROM {name}"
    );
    server.json(through, &question).unwrap_or_default()
}
