//! A program of which nothing is heard: whether it waits for a lock, and who holds that.
//!
//! A long ALTER TABLE or a forgotten prepared transaction may hold up a dump for hours; a bar that stands still does not say
//! so. Rejected: `lock_timeout`, since a backup that waits is better than none.

use super::run::Dumping;
use crate::repository::logical_record::DatabaseRecord;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Silence after which the server is asked, and asked again.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often somebody looks.
const LOOK: Duration = Duration::from_millis(500);

/// When something was heard last.
pub struct Silence {
    last: Mutex<Instant>,
}

impl Silence {
    /// Does `work` on a database; whoever holds it up for long is told once.
    pub fn with<T>(dumping: &Dumping<'_>, database: &DatabaseRecord, work: impl FnOnce(&Silence) -> T) -> T {
        let silence = Silence { last: Mutex::new(Instant::now()) };
        let (alive, end) = channel::<()>();
        let watched = &silence;
        std::thread::scope(|scope| {
            scope.spawn(move || watched.watch(dumping, database, &end));
            let result = work(watched);
            drop(alive);
            result
        })
    }

    /// Something was heard.
    pub fn heard(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn lasts(&self) -> Duration {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    fn watch(&self, dumping: &Dumping<'_>, database: &DatabaseRecord, end: &Receiver<()>) {
        while end.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            if self.lasts() < PATIENCE {
                continue;
            }
            // Who cannot be asked now is asked later.
            let holders: Vec<String> =
                dumping.server.json(dumping.asked, &question(dumping.name, database.oid)).unwrap_or_default();
            if !holders.is_empty() {
                let (name, holders) = (&database.name, holders.join(", "));
                let message =
                    format!("the dump of database \"{name}\" waits for a lock that is held by {holders}");
                let hint = "It goes on when that ends: see pg_stat_activity, and pg_prepared_xacts for prepared transactions.";
                dumping.session.warn(message, Some(hint.to_string()));
                return;
            }
            self.heard();
        }
    }
}

/// An array of who (`h`) holds up sessions (`w`); a prepared transaction has number 0 (`pg_blocking_pids`, lockfuncs.c). What is
/// told of others is ASCII, whatever they call themselves.
pub const HOLDERS: &str = "coalesce(jsonb_agg(DISTINCT CASE WHEN b.pid = 0 THEN 'a prepared transaction'
             ELSE format('process %s (%s, %s)', b.pid, coalesce(nullif(h.application_name, ''), h.backend_type, 'unknown'),
                         coalesce(h.state, 'at work')) END), '[]')::text
           FROM pg_stat_activity w CROSS JOIN unnest(pg_blocking_pids(w.pid)) AS b(pid) LEFT JOIN pg_stat_activity h ON h.pid = b.pid";

/// Who holds up the sessions of backup `name` in a database.
fn question(name: &str, oid: u32) -> String {
    format!(
        "SELECT {HOLDERS}
          WHERE w.datid = {oid} AND w.application_name IN ('pg_ark', 'pg_ark {name}')"
    )
}
