//! What a server is to the cluster whose name it uses.
//!
//! A cluster has one system identifier at a time, and another one after pg_upgrade or initdb. Two servers that live and share
//! a name look the same: the second takes the name over with its first backup or segment. So it is told before, and the
//! first one is told after; its backups and its prunes are refused.

use super::catalog::{self, Cluster};
use super::layout;
use pg_ark_contract::{Error, ErrorKind, Result};

/// A server's system identifier among those of the cluster.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// It is the newest, or the cluster is nobody's yet, or its record is damaged and nobody knows.
    Newest,
    /// The cluster is another's, and this one was never seen: it takes the name over with the first thing that it stores.
    Unseen(Error),
    /// Another one has taken the name over.
    Superseded(Error),
}

impl Standing {
    /// That of `system_identifier`.
    ///
    /// # Errors
    /// What the store said.
    pub fn of(cluster: &Cluster, system_identifier: u64) -> Result<Self> {
        if cluster.damage().is_some() {
            return Ok(Standing::Newest);
        }
        let record = catalog::load_cluster(cluster.storage(), cluster.name())?;
        let known = record.map_or_else(Vec::new, |record| record.systems);
        let own = system_identifier.to_string();
        let is_newest = known.last().is_some_and(|newest| newest.system_identifier == own);
        let newest = known.last().map(|newest| newest.system_identifier.clone());
        if !is_newest && known.iter().any(|system| system.system_identifier == own) {
            let error = superseded(cluster, &newest.unwrap_or_default());
            return Ok(Standing::Superseded(error));
        }
        let newest = newest.or_else(|| match cluster.systems().contains(&system_identifier) {
            // Without a record, a folder is all there is.
            true => None,
            false => cluster.systems().last().map(u64::to_string),
        });
        Ok(match newest {
            Some(newest) if !is_newest => Standing::Unseen(unseen(cluster, &newest, &own)),
            _ => Standing::Newest,
        })
    }

    /// Refuses a server that is not the cluster's newest: it must not judge what belongs to another.
    ///
    /// # Errors
    /// `ForeignCluster`.
    pub fn must_be_newest(self) -> Result<()> {
        match self {
            Standing::Newest => Ok(()),
            Standing::Unseen(error) | Standing::Superseded(error) => Err(error),
        }
    }

    /// Why it is not the cluster's newest.
    pub fn remark(self) -> Option<Error> {
        self.must_be_newest().err()
    }
}

fn unseen(cluster: &Cluster, newest: &str, own: &str) -> Error {
    Error::new(
        ErrorKind::ForeignCluster,
        format!(
            "cluster \"{}\" is that of system identifier {newest}, this server's is {own}",
            cluster.name()
        ),
    )
    .detail("The first backup or WAL segment of this server makes the name its own; the other server is then refused.")
    .hint("After pg_upgrade or initdb that is right: take a backup with ark.backup_start. When the other server still runs, give this one a name of its own first: set pg_ark.cluster.")
}

/// The error for a server whose cluster has become that of `newest`.
pub(super) fn superseded(cluster: &Cluster, newest: &str) -> Error {
    let record = cluster.storage().display(&layout::cluster_record(cluster.name()));
    Error::new(
        ErrorKind::ForeignCluster,
        format!("cluster \"{}\" has meanwhile become that of system identifier {newest}", cluster.name()),
    )
    .hint(format!(
        "Give each server a name of its own: set pg_ark.cluster. If the other server is gone for good, remove its entry from \"{record}\", and the line with \"crc32c\", which fits no more."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::Repository;

    fn standing(url: &str, system: u64) -> Standing {
        Standing::of(&Repository::open(url).unwrap().cluster("main").unwrap(), system).unwrap()
    }

    #[test]
    fn the_newest_is_told_from_one_before_it_and_from_a_stranger() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file://{}", dir.path().display());
        let (repository, _) = Repository::open_or_create(&url).unwrap();
        assert_eq!(standing(&url, 7), Standing::Newest, "nobody's yet");
        let mut cluster = repository.cluster("main").unwrap();
        cluster.remember_system(7, 150_000).unwrap();
        assert_eq!(standing(&url, 7), Standing::Newest);
        let Standing::Unseen(error) = standing(&url, 8) else { panic!("never seen") };
        assert_eq!(error.kind, ErrorKind::ForeignCluster);
        assert!(error.message.contains("identifier 7,") && error.message.ends_with(" 8"), "{error}");
        cluster.remember_system(8, 150_000).unwrap();
        assert_eq!(standing(&url, 8), Standing::Newest);
        let Standing::Superseded(error) = standing(&url, 7) else { panic!("it was the newest once") };
        assert_eq!(error, cluster.remember_system(7, 150_000).unwrap_err(), "as a backup of it says");
        assert!(standing(&url, 7).must_be_newest().is_err() && standing(&url, 9).must_be_newest().is_err());

        // Without the record folders are all that is known; a damaged one says nothing.
        repository.storage().put("main/7/wal/x", &b""[..]).unwrap();
        repository.storage().delete("main/cluster.json").unwrap();
        assert_eq!(standing(&url, 7), Standing::Newest);
        assert!(matches!(standing(&url, 8), Standing::Unseen(_)));
        repository.storage().put("main/cluster.json", &b"{}"[..]).unwrap();
        assert_eq!(standing(&url, 8), Standing::Newest);
    }
}
