//! What lies in the folders above the backups and the archive and was not put there by pg_ark, and tickets of writers
//! and attempts at jobs, pins and policies that cannot be read.

use super::backup::wal::is_own;
use super::findings::{Finding, Findings};
use super::loose::of_error;
use crate::repository::lease::Lease;
use crate::repository::pins::Pin;
use crate::repository::record::parse_json;
use crate::repository::storage::PROBE;
use crate::repository::{Cluster, Storage, layout};
use crate::retention::policy_store;
use crate::schedule::runs::{self, Key};
use pg_ark_contract::rows::{FindingRow, Severity};
use pg_ark_contract::settings::is_name;
use pg_ark_contract::{ErrorKind, Result};

/// Largest ticket that is read, in bytes.
const MAX_TICKET: u64 = 64 << 10;
/// What a file system makes itself at its top.
const LOST_AND_FOUND: &str = "lost+found";
const TICKET: &str = "It says who writes backups: the next backup waits until it is some minutes old, then takes no notice. If no \
     backup of this cluster runs, remove it.";
const ATTEMPT: &str =
    "It says what came of a scheduled job, and counts as an attempt that failed. Remove it.";

const PIN: &str = "Its backup is kept all the same. Pin it again, or unpin it.";
const POLICY: &str = "The server writes it anew when it prunes; until then pgark prune wants options.";

/// Warnings about strangers, and about tickets, attempts, pins and retention.json that cannot be read.
///
/// # Errors
/// What the store said.
pub fn strangers(cluster: &Cluster) -> Result<Vec<FindingRow>> {
    let findings = Findings::default();
    let storage = cluster.storage();
    let is_cluster = |name: &str| {
        let record = storage.size(&layout::cluster_record(name));
        let is_system = |folder: &String| folder.parse::<u64>().is_ok();
        layout::check_cluster_name(name).is_ok()
            && (!matches!(record, Ok(None))
                || storage
                    .folders(name)
                    .is_ok_and(|folders| folders.is_empty() || folders.iter().any(is_system)))
    };
    let is_own_file = |name: &str| name == layout::REPOSITORY || name.starts_with(PROBE);
    look(storage, "", &findings, &is_own_file, &|name| name == LOST_AND_FOUND || is_cluster(name))?;
    let is_system = |name: &str| name.parse::<u64>().is_ok_and(|id| id.to_string() == name);
    look(
        storage,
        cluster.name(),
        &findings,
        &|name| matches!(name, "cluster.json" | layout::RETENTION),
        &|name| name == layout::RESERVE || is_system(name),
    )?;
    for system in cluster.systems() {
        let lease = layout::lease(cluster.name(), *system);
        let folder = format!("{}/{system}", cluster.name());
        let ticket = lease.rsplit('/').next().unwrap_or_default();
        let is_folder = |name: &str| matches!(name, "backups" | "jobs" | "pins" | "wal");
        look(storage, &folder, &findings, &|name| name.starts_with(ticket), &is_folder)?;
        tickets(storage, &folder, &lease, &findings)?;
        attempts(cluster, *system, &findings)?;
        pins(storage, cluster.name(), *system, &findings)?;
    }
    if let Err(error) = policy_store::load(cluster) {
        if !is_own(&error) && error.kind != ErrorKind::FormatTooNew {
            return Err(error);
        }
        let finding = of_error(layout::retention(cluster.name()), &error);
        findings.add(Finding { severity: Severity::Warning, ..finding }.hint(POLICY));
    }
    Ok(findings.into_rows(None, cluster.name(), &mut |_| None))
}

type IsOurs<'a> = dyn Fn(&str) -> bool + 'a;

fn look(
    storage: &Storage,
    folder: &str,
    findings: &Findings,
    is_file: &IsOurs<'_>,
    is_folder: &IsOurs<'_>,
) -> Result<()> {
    let (files, folders) = match (storage.files(folder), storage.folders(folder)) {
        (Ok(files), Ok(folders)) => (files, folders),
        (Err(error), _) | (_, Err(error)) if is_own(&error) => {
            findings.add(of_error(folder, &error));
            return Ok(());
        }
        (Err(error), _) | (_, Err(error)) => return Err(error),
    };
    let name = |path: &String| path.rsplit('/').next().unwrap_or_default().to_string();
    let files = files.iter().map(name).filter(|name| !is_file(name));
    for name in files.chain(folders.into_iter().filter(|name| !is_folder(name))) {
        let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        let finding = Finding::new(Severity::Warning, path, "was not stored by pg_ark");
        findings.add(finding.hint("Look what it is. pg_ark neither reads nor removes it."));
    }
    Ok(())
}

/// Pins that cannot be read, and what is none.
fn pins(storage: &Storage, cluster: &str, system: u64, findings: &Findings) -> Result<()> {
    let folder = layout::pins(cluster, system);
    let is_pin = |name: &str| name.strip_suffix(".json").is_some_and(layout::is_backup_name);
    look(storage, &folder, findings, &is_pin, &is_pin)?;
    let files = storage.files(&folder).unwrap_or_default();
    for path in files.into_iter().filter(|path| is_pin(path.rsplit('/').next().unwrap_or_default())) {
        let read = storage.get(&path, layout::MAX_RECORD).and_then(|bytes| match bytes {
            Some(bytes) => Pin::parse(&bytes, &storage.display(&path)).map(drop),
            None => Ok(()),
        });
        match read {
            Err(error) if is_own(&error) || error.kind == ErrorKind::FormatTooNew => {
                findings.add(Finding { severity: Severity::Warning, ..of_error(path, &error) }.hint(PIN));
            }
            other => other?,
        }
    }
    Ok(())
}

/// Tickets that are none.
fn tickets(storage: &Storage, folder: &str, lease: &str, findings: &Findings) -> Result<()> {
    for path in storage.files(folder).unwrap_or_default().into_iter().filter(|path| path.starts_with(lease)) {
        let read = storage.get(&path, MAX_TICKET).and_then(|bytes| match bytes {
            Some(bytes) => parse_json::<Lease>(&bytes, &storage.display(&path)).map(drop),
            None => Ok(()),
        });
        match read {
            Ok(()) => {}
            Err(error) if is_own(&error) => {
                let finding = Finding { severity: Severity::Warning, ..of_error(path, &error) };
                findings.add(finding.hint(TICKET));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Attempts at jobs that cannot be read.
fn attempts(cluster: &Cluster, system: u64, findings: &Findings) -> Result<()> {
    let (storage, jobs) = (cluster.storage(), layout::jobs(cluster.name(), system));
    look(storage, &jobs, findings, &|_| false, &is_name)?;
    for job in storage.folders(&jobs).unwrap_or_default().into_iter().filter(|job| is_name(job)) {
        let folder = format!("{jobs}/{job}");
        look(storage, &folder, findings, &|name| Key::from_name(name).is_some(), &|_| false)?;
        for key in runs::keys(storage, &folder).unwrap_or_default() {
            match runs::read(storage, &folder, key).map(|found| found.content) {
                Some(Err(error)) if is_own(&error) => {
                    let path = format!("{folder}/{}", key.name());
                    let finding = Finding { severity: Severity::Warning, ..of_error(path, &error) };
                    findings.add(finding.hint(ATTEMPT));
                }
                Some(Err(error)) => return Err(error),
                Some(Ok(_)) | None => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::Repository;

    #[test]
    fn whatever_pg_ark_did_not_store_is_named_and_so_is_a_broken_ticket() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file://{}", dir.path().display());
        let (repository, _) = Repository::open_or_create(&url).unwrap();
        let mut cluster = repository.cluster("main").unwrap();
        cluster.remember_system(7, 150_000).unwrap();
        for folder in
            ["lost+found", "main/7/backups", "main/7/jobs/daily full", "main/7/wal", "other/8", "new"]
        {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let told = || {
            let rows = strangers(&cluster).unwrap();
            assert!(rows.iter().all(|row| row.severity == Severity::Warning), "{rows:#?}");
            rows.into_iter().map(|row| row.object).collect::<Vec<_>>()
        };
        assert_eq!(told(), Vec::<String>::new());
        let strange = [
            "main/7/jobs/daily full/20261122T020000Z.1.json",
            "main/7/jobs/daily full/x",
            "main/7/jobs/x",
            "main/7/lease.json.x",
            "main/7/notes/n",
            "main/7/x",
            "main/old/x",
            "main/x",
            "misc/m/x",
            "x",
        ];
        for path in strange {
            std::fs::create_dir_all(dir.path().join(path).parent().unwrap()).unwrap();
            std::fs::write(dir.path().join(path), "{}").unwrap();
        }
        let folders = [
            "main/7/jobs/daily full/20261122T020000Z.1.json",
            "main/7/jobs/daily full/x",
            "main/7/jobs/x",
            "main/7/lease.json.x",
            "main/7/notes",
            "main/7/x",
            "main/old",
            "main/x",
            "misc",
            "x",
        ];
        assert_eq!(told(), folders);
    }

    #[test]
    fn pins_and_policies_that_cannot_be_read_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file://{}", dir.path().display());
        let (repository, _) = Repository::open_or_create(&url).unwrap();
        let mut cluster = repository.cluster("main").unwrap();
        cluster.remember_system(7, 150_000).unwrap();
        let storage = repository.storage();
        Pin::new(Some("audit")).save(storage, &layout::pin("main", 7, "20261122T020000Z-full")).unwrap();
        policy_store::save(&cluster, &pg_ark_contract::retention::Policy::default(), chrono::Utc::now())
            .unwrap();
        assert_eq!(strangers(&cluster).unwrap(), []);
        assert!(policy_store::load(&cluster).unwrap().is_some());
        let bad = layout::pin("main", 7, "20261123T020000Z-full");
        let stranger = format!("{}/notes", layout::pins("main", 7));
        for path in [&bad, &stranger, &layout::retention("main")] {
            storage.put(path, &b"{"[..]).unwrap();
        }
        let rows = strangers(&cluster).unwrap();
        assert!(rows.iter().all(|row| row.severity == Severity::Warning && row.hint.is_some()), "{rows:#?}");
        let objects: Vec<_> = rows.into_iter().map(|row| row.object).collect();
        assert_eq!(objects, [bad, stranger, layout::retention("main")]);
    }
}
