//! The port of the restored server: a copy beside its original would use the same one, and end at once.

use super::facts;
use super::follow::Lock;
use super::request::Request;
use crate::bounded;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

/// Refuses what a server that is to be started could not do: to listen where another one does. `original` is the old data
/// directory, unless the restore goes back to it.
///
/// # Errors
/// `InvalidArgument`.
pub fn check(request: &Request, original: Option<&Path>) -> Result<()> {
    let refused =
        |message: String, hint: &str| Err(Error::new(ErrorKind::InvalidArgument, message).hint(hint));
    if !request.start {
        return Ok(());
    }
    match (request.port, original.and_then(running)) {
        (Some(port), _) if is_taken(port) => {
            refused(format!("port {port} is in use"), "Name another one with --port.")
        }
        // Where it listens on a socket alone, no port is taken, but the socket is: the copy's settings name the same folder.
        (Some(port), Some(lock)) if port == lock.port => refused(
            format!("the original server runs (process {}) and listens on port {port}", lock.pid),
            "Name another one with --port. Or leave out --start.",
        ),
        (None, Some(lock)) => refused(
            format!(
                "the original server runs (process {}) and listens on port {}, which the copy's settings name too",
                lock.pid, lock.port
            ),
            "Give the copy a port of its own: --port N. Or leave out --start.",
        ),
        _ => Ok(()),
    }
}

/// The server that runs in a data directory.
fn running(data: &Path) -> Option<Lock> {
    facts::running_server(data)?;
    Lock::parse(&bounded::text(&data.join("postmaster.pid"), bounded::MAX_LINES).ok()?)
}

fn is_taken(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err_and(|e| e.kind() == std::io::ErrorKind::AddrInUse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_another_server_uses_is_refused() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken = listener.local_addr().unwrap().port();
        let request = |start, port| Request { start, port, ..Request::default() };
        assert_eq!(check(&request(true, Some(taken)), None).unwrap_err().kind, ErrorKind::InvalidArgument);
        assert!(check(&request(false, Some(taken)), None).is_ok());
        // This process stands for the original: its working directory is that server's data directory.
        let folder = std::env::current_dir().unwrap();
        let lock = folder.join("postmaster.pid");
        assert!(!lock.exists());
        std::fs::write(&lock, format!("{}\n/x\n1\n5432\n/s\n*\n1 2\nready\n", std::process::id())).unwrap();
        let beside = check(&request(true, None), Some(&folder));
        let same_port = check(&request(true, Some(5432)), Some(&folder));
        let own_port = check(&request(true, Some(free())), Some(&folder));
        std::fs::remove_file(&lock).unwrap();
        assert!(beside.unwrap_err().message.contains("listens on port 5432"));
        // Nobody listens there but on a socket.
        assert_eq!(same_port.unwrap_err().kind, ErrorKind::InvalidArgument);
        assert!(own_port.is_ok());
        assert!(check(&request(true, None), Some(&folder)).is_ok(), "it does not run");
    }

    fn free() -> u16 {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
    }
}
