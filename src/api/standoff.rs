//! A transaction that waits for a logical backup, and holds a lock that the backup waits for.
//!
//! What: while it waits, the session looks whether it holds up the backup's own sessions. Why: the wait is no lock, so the
//! server's deadlock detector does not see it, and both would wait for ever. Rejected: refusing `wait` in every transaction
//! block, since most hold nothing that pg_dump wants.

use crate::sql;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::time::{Duration, Instant};

/// How often a waiting session looks.
const EVERY: Duration = Duration::from_secs(1);

/// Cheap, and never from a snapshot of statistics.
const HOLDS_UP: &str = "SELECT count(*)::text FROM pg_locks WHERE NOT granted AND pid IS NOT NULL \
                        AND pg_backend_pid() = ANY (pg_blocking_pids(pid))";
/// A transaction sees the sessions that were there when it first looked (`pgstat_read_current_status`, backend_status.c).
const FORGET: &str = "SELECT pg_stat_clear_snapshot()::text";
/// Others may wait in between.
const HOLDS_UP_BACKUP: &str = "WITH RECURSIVE held(pid) AS (\
                                 SELECT pid FROM pg_stat_get_activity(NULL) WHERE application_name IN ('pg_ark', 'pg_ark ' || $1) \
                                 UNION SELECT unnest(pg_blocking_pids(pid)) FROM held) \
                               SELECT count(*)::text FROM held WHERE pid = pg_backend_pid()";

/// A session that waits for a backup.
pub struct Standoff {
    looked: Instant,
}

impl Standoff {
    /// The wait begins.
    pub fn begin() -> Self {
        Standoff { looked: Instant::now() }
    }

    /// Looks from time to time.
    ///
    /// # Errors
    /// `ServerNotReady` when the backup waits for this very transaction, which the error ends.
    pub fn check(&mut self, backup: &str) -> Result<()> {
        if self.looked.elapsed() < EVERY {
            return Ok(());
        }
        self.looked = Instant::now();
        if is_none(sql::text(HOLDS_UP, &[])?) {
            return Ok(());
        }
        sql::text(FORGET, &[])?;
        if is_none(sql::text(HOLDS_UP_BACKUP, &[backup])?) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::ServerNotReady,
            format!("backup {backup} waits for a lock that this transaction holds, and this transaction waits for the backup"),
        )
        .hint("The backup goes on when this transaction has ended. Commit before you start one, or do not wait for it."))
    }
}

fn is_none(count: Option<String>) -> bool {
    count.is_none_or(|count| count == "0")
}
