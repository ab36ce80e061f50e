//! Which logical backup is restored.

use super::request::LATEST;
use crate::logical::stored;
use crate::repository::{Cluster, Record};
use crate::restore::request::{by_end, newest_system, others_hint, usable};
use crate::stored::lost;
use pg_ark_contract::conversation::BackupKind;
use pg_ark_contract::rows::BackupStatus;
use pg_ark_contract::{Error, ErrorKind, Result};

/// The logical backup called `name`, or the newest one for [`LATEST`], and its folder in the repository. Nothing in its record
/// leads out of that folder.
///
/// # Errors
/// `BackupNotFound`; `BackupNotUsable` for one that runs or failed; `InvalidArgument` for one that is not logical; `Corrupt`
/// for a record that contradicts itself; for [`LATEST`] where later ones cannot be used, why.
pub fn choose(cluster: &Cluster, name: &str) -> Result<(Record, String)> {
    let (record, folder) = match name == LATEST {
        true => latest(cluster)?,
        false => cluster.backup(name)?,
    };
    if record.kind != BackupKind::Logical {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("backup \"{}\" is {}, not logical", record.backup, record.kind.as_str()),
        )
        .hint("Name a logical backup, or latest-logical: \"pgark list\" shows them. A physical one has no databases to choose from."));
    }
    usable(&record)?;
    stored::check(&record)?;
    Ok((record, folder))
}

/// The newest one, unless that is not the latest.
fn latest(cluster: &Cluster) -> Result<(Record, String)> {
    let (system, name) = newest(cluster)?;
    let lost = lost::later(cluster, system, &name)?;
    if !lost.is_empty() {
        let remedy = format!("To restore the older backup all the same, name it: pgark restore {name}.");
        return Err(lost::not_the_latest(&name, &lost, "", &remedy));
    }
    cluster.clone().only_system(system)?.backup(&name)
}

/// Name and system identifier of the newest complete one, also where later ones cannot be used.
///
/// # Errors
/// `BackupNotFound` when there is none; when there are some that cannot be read, why; what the store said.
pub fn newest(cluster: &Cluster) -> Result<(u64, String)> {
    let ours = newest_system(cluster)?;
    let mut records = ours.backups()?;
    records.retain(|r| r.status == BackupStatus::Complete && r.kind == BackupKind::Logical);
    by_end(&mut records);
    let Some(newest) = records.pop() else {
        let hint = others_hint(cluster);
        if let Some(error) = lost::instead(&ours, true, hint.as_deref())? {
            return Err(error);
        }
        return Err(Error::new(
            ErrorKind::BackupNotFound,
            format!("cluster \"{}\" has no complete logical backup", cluster.name()),
        )
        .hint(hint.unwrap_or_else(|| {
            "\"pgark list\" shows what there is; ark.backup_start(kind => 'logical') takes one.".to_string()
        })));
    };
    let system = ours.systems().last().copied().unwrap_or_default();
    Ok((system, newest.backup))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::logical_fixture::{Dumped, NAME};

    fn kind(dumped: &Dumped, name: &str) -> ErrorKind {
        choose(&dumped.cluster, name).unwrap_err().kind
    }

    #[test]
    fn the_newest_one_or_the_named_one() {
        let mut dumped = Dumped::new("zstd:1", 1 << 20);
        for name in [LATEST, NAME] {
            let (record, folder) = choose(&dumped.cluster, name).unwrap();
            assert_eq!((&record.backup[..], folder), (NAME, dumped.folder.clone()));
        }
        for name in ["20000101T000000Z-logical", "latest", "../x"] {
            assert_eq!(kind(&dumped, name), ErrorKind::BackupNotFound, "{name}");
        }
        dumped.record.status = BackupStatus::Failed;
        dumped.record.error = Some("no".into());
        dumped.save();
        assert_eq!(kind(&dumped, NAME), ErrorKind::BackupNotUsable);
        assert_eq!(kind(&dumped, LATEST), ErrorKind::BackupNotFound);
    }

    #[test]
    fn promise_6_a_later_dump_whose_record_is_damaged_is_not_passed_over_in_silence() {
        let dumped = Dumped::new("zstd:1", 1 << 20);
        let system = dumped.cluster.systems()[0];
        let storage = dumped.cluster.storage();
        // Later ones of the other class change nothing.
        for (other, refused) in [("20990101T000000Z-full", false), ("20990102T000000Z-logical", true)] {
            let folder = dumped.cluster.backup_folder(system, other);
            storage.put(&format!("{folder}/backup.json"), &b"{"[..]).unwrap();
            match choose(&dumped.cluster, LATEST) {
                Ok((record, _)) => assert!(!refused && record.backup == NAME),
                Err(e) => {
                    assert!(refused && e.kind == ErrorKind::Corrupt && e.message.contains(other), "{e}");
                    assert!(e.hint.unwrap().contains(NAME));
                }
            }
        }
        assert_eq!(newest(&dumped.cluster).unwrap(), (system, NAME.to_string()));
        assert_eq!(choose(&dumped.cluster, NAME).unwrap().0.backup, NAME);
        storage.delete(&format!("{}/backup.json", dumped.folder)).unwrap();
        let error = choose(&dumped.cluster, LATEST).unwrap_err();
        assert!(error.kind == ErrorKind::Corrupt && error.to_string().contains("backup.json"), "{error}");
    }

    #[test]
    fn a_record_that_leads_elsewhere_is_refused() {
        let mut dumped = Dumped::new("zstd:1", 1 << 20);
        dumped.logical().databases[0].volumes[0].name = "../../../pgark.json".into();
        dumped.save();
        assert_eq!(kind(&dumped, NAME), ErrorKind::Corrupt);
        dumped.record.kind = BackupKind::Full;
        dumped.save();
        assert_eq!(kind(&dumped, NAME), ErrorKind::InvalidArgument, "it says that it is physical");
    }
}
