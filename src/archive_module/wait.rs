//! How long a file is waited for, and what ends the wait before an answer comes.

use super::{Refusal, Silence};
use crate::postgres::archive as server;
use pg_ark_contract::{Error, ErrorKind};
use std::time::{Duration, Instant};

/// An engine that says nothing at all for so long hangs. A segment of a gigabyte takes less on the slowest of lines.
const SILENCE: Duration = Duration::from_secs(600);
/// How long the shutdown of the server is held up by a file that does not get stored. It is there after the next start.
const SHUTDOWN: Duration = Duration::from_secs(10);
/// How long a file may take when the configuration waits to be read: the new one may name a repository that answers.
const RELOAD: Duration = Duration::from_secs(2);
/// How often the server's state is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A wait for one file.
pub(super) struct Wait {
    asked: Instant,
    heard: Instant,
    looked: Instant,
    /// When the shutdown of the server was seen.
    shutdown: Option<Instant>,
}

/// The end of a wait.
pub(super) struct Over {
    /// Why, for the caller.
    pub(super) silence: Silence,
    /// The server shuts down, and the next file need not be tried.
    pub(super) shutdown: bool,
}

impl Wait {
    pub(super) fn new() -> Wait {
        let now = Instant::now();
        Wait { asked: now, heard: now, looked: now, shutdown: None }
    }

    /// The engine said something, if not about this file.
    pub(super) fn heard(&mut self) {
        self.heard = Instant::now();
    }

    /// Whether the wait for `file` has to end.
    pub(super) fn over(&mut self, file: &str) -> Option<Over> {
        let over = |silence| Some(Over { silence, shutdown: false });
        let cancelled = |message| Error::new(ErrorKind::Cancelled, message).hint("It is tried again.");
        if server::told_to_stop() {
            return over(Silence::Kept(Refusal::Interrupted(cancelled("the archiver was told to stop"))));
        }
        if server::told_to_reload() && self.asked.elapsed() > RELOAD {
            let error = cancelled("the configuration is read again first");
            return over(Silence::Kept(Refusal::Interrupted(error)));
        }
        if self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            if server::server_shuts_down() {
                let since = *self.shutdown.get_or_insert(self.looked);
                if since.elapsed() >= SHUTDOWN {
                    return Some(Over { silence: Silence::Kept(Refusal::Failed(held_up())), shutdown: true });
                }
            }
        }
        if self.heard.elapsed() > SILENCE {
            let message = format!("the engine said nothing about \"{file}\" for {} s", SILENCE.as_secs());
            let error = Error::new(ErrorKind::Io, message).hint(
                "The repository may hang. Look at its storage; the engine is started again in the meantime.",
            );
            return over(Silence::Lost(error));
        }
        None
    }
}

fn held_up() -> Error {
    let message =
        format!("the repository did not take it within {} s while the server shuts down", SHUTDOWN.as_secs());
    Error::new(ErrorKind::Io, message)
        .hint("It stays in pg_wal and is archived after the next start. Look at the repository's storage.")
}
