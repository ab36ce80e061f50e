//! The leases of every system of a cluster, held while something is removed: no backup begins, finishes or is removed by
//! somebody else meanwhile.

use crate::repository::Cluster;
use crate::repository::lease::{self, HeldLease, RENEW_EVERY};
use crate::session::Session;
use pg_ark_contract::{ErrorKind, Result};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// What the tickets say that is done.
const PURPOSE: &str = "prune";

/// Held leases. Dropped, they are released.
pub(super) struct Leases<'a> {
    held: Vec<HeldLease>,
    session: &'a Session,
}

impl<'a> Leases<'a> {
    /// Takes the lease of each system that has a folder, in the order of their numbers, as everybody does who takes
    /// more than one.
    ///
    /// # Errors
    /// `Busy`, naming who holds one; what the store said. Those that were taken are released.
    pub(super) fn take(cluster: &Cluster, session: &'a Session) -> Result<Self> {
        let folders = cluster.storage().folders(cluster.name())?;
        let mut systems = cluster.systems().to_vec();
        systems.retain(|system| folders.contains(&system.to_string()));
        systems.sort_unstable();
        let mut held = Vec::new();
        for system in systems {
            let path = cluster.lease_path(system);
            held.push(lease::acquire(cluster.storage(), &path, PURPOSE, &|time| session.pause(time))?);
        }
        Ok(Leases { held, session })
    }

    /// Does `work` and renews the leases meanwhile. A lost one stops it.
    pub(super) fn keep<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let (alive, end) = channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(|| self.renew(end));
            let result = work();
            drop(alive);
            result
        })
    }

    fn renew(&self, end: Receiver<()>) {
        while end.recv_timeout(Duration::from_secs(RENEW_EVERY)) == Err(RecvTimeoutError::Timeout) {
            for lease in &self.held {
                // A store that fails for a moment is no reason; a lease that somebody else may take is.
                if let Err(e) = lease.renew()
                    && (matches!(e.kind, ErrorKind::Busy | ErrorKind::Corrupt) || lease.is_expired())
                {
                    return self.session.stop(e);
                }
            }
        }
    }

    /// Fails when there is no more use in going on: the work was stopped, or a lease ran out.
    ///
    /// # Errors
    /// The reason; `Busy` for a lease.
    pub(super) fn check(&self) -> Result<()> {
        self.session.check()?;
        self.held.iter().filter(|lease| lease.is_expired()).try_for_each(HeldLease::renew)
    }

    /// Fails unless every lease is held now, and for a while from now on.
    ///
    /// # Errors
    /// As [`HeldLease::prove`].
    pub(super) fn prove(&self) -> Result<()> {
        self.session.check()?;
        self.held.iter().try_for_each(HeldLease::prove)
    }
}
