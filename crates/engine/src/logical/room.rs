//! Connections of the server: a backup takes no more than its share, and waits while others have them all.

use super::connection::is_crowded;
use crate::session::Session;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::time::{Duration, Instant};

/// Time between two attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// Time after which a server without a free connection is given up.
const LIMIT: Duration = Duration::from_secs(300);

/// How many dumps may run at once, of `wanted`, in a server that gives `connections` to everybody: its programs come as the
/// superuser, for whom no reserve holds.
pub fn share(wanted: usize, connections: u64) -> usize {
    wanted.min(usize::try_from(connections / 2).unwrap_or(usize::MAX)).max(1)
}

/// Waits for a free connection.
pub struct Room<'a> {
    session: &'a Session,
    since: Option<Instant>,
}

impl<'a> Room<'a> {
    /// Nobody waits yet.
    pub fn new(session: &'a Session) -> Self {
        Room { session, since: None }
    }

    /// True after a while, when `said` are the words of a program that got no connection: it is to try again.
    ///
    /// # Errors
    /// The order to stop; `ServerNotReady` when there was none for too long.
    pub fn wait(&mut self, said: &str) -> Result<bool> {
        if !is_crowded(said) {
            return Ok(false);
        }
        if self.since.is_none() {
            let message = "every connection of the server is taken: the backup waits for one";
            self.session.warn(message, Some("Lower pg_ark.jobs, or raise max_connections.".to_string()));
        }
        if self.since.get_or_insert_with(Instant::now).elapsed() >= LIMIT {
            let message = format!("every connection of the server was taken for {} s", LIMIT.as_secs());
            return Err(Error::new(ErrorKind::ServerNotReady, message)
                .detail(said)
                .hint("Lower pg_ark.jobs, or raise max_connections."));
        }
        self.session.pause(PAUSE)?;
        Ok(true)
    }
}

/// Asks again as long as the server has no free connection.
///
/// # Errors
/// Those of `ask`; as [`Room::wait`].
pub fn patiently<T>(session: &Session, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let mut room = Room::new(session);
    loop {
        match ask() {
            Err(e) if room.wait(&e.to_string())? => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_takes_its_share() {
        assert_eq!([share(64, 97), share(4, 97), share(64, 1), share(64, 0), share(0, 97)], [48, 4, 1, 1, 1]);
    }

    #[test]
    fn only_a_full_server_is_asked_again() {
        let session = Session::new(|_| {});
        let mut left = 2;
        let answer = patiently(&session, || {
            left -= 1;
            let error =
                Error::new(ErrorKind::ServerNotReady, "no").detail("FATAL:  sorry, too many clients already");
            if left > 0 { Err(error) } else { Ok(left) }
        });
        assert_eq!((answer.unwrap(), session.warnings().len()), (0, 1));
        let mut asked = 0;
        let answer: Result<()> = patiently(&session, || {
            asked += 1;
            Err(Error::new(ErrorKind::ServerNotReady, "FATAL:  the role may not log in"))
        });
        assert!(answer.is_err() && asked == 1);
    }
}
