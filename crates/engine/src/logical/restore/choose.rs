//! Which logical backup is restored.

use super::request::LATEST;
use crate::logical::stored;
use crate::repository::{Cluster, Record};
use crate::restore::request::{by_end, newest_system, others_hint, usable};
use pg_ark_contract::conversation::BackupKind;
use pg_ark_contract::rows::BackupStatus;
use pg_ark_contract::{Error, ErrorKind, Result};

/// The logical backup called `name`, or the newest one for [`LATEST`], and its folder in the repository. Nothing in its record
/// leads out of that folder.
///
/// # Errors
/// `BackupNotFound`; `BackupNotUsable` for one that runs or failed; `InvalidArgument` for one that is not logical; `Corrupt`
/// for a record that contradicts itself.
pub fn choose(cluster: &Cluster, name: &str) -> Result<(Record, String)> {
    let (record, folder) = match name == LATEST {
        true => newest(cluster)?,
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

fn newest(cluster: &Cluster) -> Result<(Record, String)> {
    let mut records = newest_system(cluster)?.backups()?;
    records.retain(|r| r.status == BackupStatus::Complete && r.kind == BackupKind::Logical);
    by_end(&mut records);
    let Some(newest) = records.pop() else {
        let hint = others_hint(cluster);
        return Err(Error::new(
            ErrorKind::BackupNotFound,
            format!("cluster \"{}\" has no complete logical backup", cluster.name()),
        )
        .hint(hint.unwrap_or_else(|| {
            "\"pgark list\" shows what there is; ark.backup_start(kind => 'logical') takes one.".to_string()
        })));
    };
    cluster.backup(&newest.backup)
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
