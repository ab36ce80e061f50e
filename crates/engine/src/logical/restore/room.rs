//! Where a new cluster goes: what stands there, and whether there is room. Looks, and changes nothing.

use super::plan::{FreshPlan, PlannedTablespace, as_physical};
use super::request::FreshRequest;
use crate::repository::logical_record::{DatabaseRecord, LogicalRecord};
use crate::repository::record::TablespaceRecord;
use crate::repository::{Cluster, Record};
use crate::restore::access::Access;
use crate::restore::check::{self, Filesystem, Mapped};
use crate::restore::facts::{Facts, Folder, State};
use crate::restore::marker::MARKER;
use crate::restore::recorded_places;
use crate::restore::request::Request;
use crate::restore::run_as::as_owner;
use pg_ark_contract::units::human_bytes;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// What initdb makes (39 MB in PostgreSQL 18), and a few segments of WAL.
const NEW_CLUSTER: u64 = 64 << 20;
/// What an empty database takes.
const NEW_DATABASE: u64 = 8 << 20;

/// Longest place of a tablespace, in bytes: MAXPGPATH (1024, pg_config_manual.h) with what `CreateTableSpace` adds: slashes,
/// `PG_17_202406281`, three numbers of up to ten digits, and the name of a fork.
const LONGEST_LOCATION: usize = 1024 - 54;
/// Words for such a place.
const TARGET: &str = "the tablespace target";

/// What was found.
pub struct Found {
    /// About the places.
    pub facts: Facts,
    /// Tablespaces outside the data directory and where they go.
    pub mapped: Vec<Mapped>,
    /// The request as the checks of a physical restore take it.
    pub request: Request,
}

/// Looks at the places, and refuses those that are in use, not empty, not writable, or that no tablespace can have.
///
/// # Errors
/// As [`check::targets`] and [`check::map_tablespaces`]; `InvalidArgument`. `major` is the version of the new server.
pub fn look(
    cluster: &Cluster,
    record: &Record,
    logical: &LogicalRecord,
    request: &FreshRequest,
    major: u32,
) -> Result<Found> {
    let request = as_physical(request, request.tablespaces.clone());
    let with_places = Record { tablespaces: outside(logical), ..record.clone() };
    let mapped = check::map_tablespaces(&with_places, &request)?;
    mapped.iter().try_for_each(possible)?;
    let targets: Vec<PathBuf> = mapped.iter().map(|m| m.to.clone()).collect();
    let old_data = Path::new(&record.data_directory.path);
    let mut facts = Facts::collect(&request, &targets, &[], cluster.storage().folder(), old_data)?;
    for folder in &mut facts.tablespaces {
        if of_other_versions(folder, major) {
            folder.state = State::Empty;
        }
    }
    check::targets(&request, &facts).map_err(|error| match error.kind {
        ErrorKind::TargetNotEmpty => not_empty(error, &facts.data),
        _ => error,
    })?;
    recorded_places::check(&mapped, &request, &facts)?;
    Ok(Found { facts, mapped, request })
}

/// Refuses a place that `CREATE TABLESPACE` would refuse when all dumps wait for it (`CreateTableSpace`, commands/tablespace.c).
fn possible(mapped: &Mapped) -> Result<()> {
    check::one_line(TARGET, &mapped.to)?;
    let path = mapped.to.to_string_lossy();
    let why = match path.trim_end_matches('/') {
        path if path.contains('\'') => "has a single quote in its name",
        path if path.len() > LONGEST_LOCATION => "has too long a path",
        _ => return Ok(()),
    };
    Err(Error::new(
        ErrorKind::InvalidArgument,
        format!("{TARGET} \"{}\" {why}: PostgreSQL does not take it", path.escape_debug()),
    )
    .hint(format!("Name another place: --tablespace {}=NEW.", mapped.from.escape_debug())))
}

/// Refuses places of tablespaces that were filled since the plan was made: checking the dumps takes its time.
///
/// # Errors
/// `TargetNotEmpty`; what the system said.
pub fn still_free(plan: &FreshPlan) -> Result<()> {
    for place in plan.tablespaces.iter().filter_map(|tablespace| tablespace.to.as_deref()) {
        let folder = Folder::look(place)?;
        let free = matches!(folder.state, State::Absent | State::Empty);
        if !free && !of_other_versions(&folder, plan.server_major) {
            return Err(Error::new(
                ErrorKind::TargetNotEmpty,
                format!("{TARGET} \"{}\" is no empty folder any more", place.display()),
            )
            .detail("Something was written there since the restore was planned.")
            .hint("Look at what it holds, or name another folder."));
        }
    }
    Ok(())
}

/// Tablespaces that have a place of their own.
fn outside(logical: &LogicalRecord) -> Vec<TablespaceRecord> {
    let own_place = logical.tablespaces.iter().filter(|tablespace| !tablespace.location.is_empty());
    own_place
        .map(|t| TablespaceRecord { oid: t.oid, path: t.location.clone(), data_bytes: t.data_bytes })
        .collect()
}

/// Whether all that a folder holds are folders of other servers: each version makes its own (`TABLESPACE_VERSION_DIRECTORY`,
/// common/relpath.h), and refuses one that is there.
fn of_other_versions(folder: &Folder, major: u32) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_server = |name: &str| {
        name.strip_prefix("PG_")
            .and_then(|rest| rest.split_once('_'))
            .is_some_and(|(other, catalog)| digits(other) && digits(catalog) && other != major.to_string())
    };
    let Ok(entries) = std::fs::read_dir(&folder.path) else { return false };
    matches!(folder.state, State::NotEmpty(_))
        && entries.flatten().all(|entry| entry.file_name().to_str().is_some_and(is_server))
}

fn not_empty(error: Error, data: &Folder) -> Error {
    match &data.unfinished {
        Some(marker) => {
            error.hint(format!(
                "A restore of backup \"{}\" did not finish there ({MARKER}). Remove what it left, then try again: {}.",
                marker.backup.escape_debug(),
                marker.shown()
            ))
        }
        None => error.hint("Move it away, or name another folder."),
    }
}

/// As root: whether the user who shall own the server comes to the places at all. It makes the cluster itself.
///
/// # Errors
/// `PermissionDenied` when not.
pub fn reachable(facts: &Facts, access: &Access) -> Result<()> {
    let Some(owner) = access.owner.as_ref().filter(|owner| owner.uid != 0) else { return Ok(()) };
    for folder in [&facts.data].into_iter().chain(&facts.tablespaces) {
        // A folder that is there is given to the user, one above it is not.
        let above = match folder.existing == folder.path {
            true => folder.path.parent().unwrap_or(&folder.path),
            false => &folder.existing,
        };
        let mut test = as_owner(Path::new("test"), access)?;
        let test = test.arg("-x").arg(above).current_dir("/").stdin(Stdio::null());
        if test.status().is_ok_and(|status| !status.success()) {
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                format!(
                    "the server's user {} cannot come to \"{}\"",
                    owner.user.clone().unwrap_or_else(|| owner.uid.to_string()),
                    folder.path.display()
                ),
            )
            .hint("Look at the permissions of every folder above it, or name another place."));
        }
    }
    Ok(())
}

/// Every tablespace and where it goes.
pub fn tablespaces(logical: &LogicalRecord, mapped: &[Mapped]) -> Vec<PlannedTablespace> {
    let place = |oid: u32| mapped.iter().find(|m| m.oid == oid).map(|m| m.to.clone());
    let planned = logical.tablespaces.iter().map(|t| PlannedTablespace {
        name: t.name.clone(),
        from: t.location.clone(),
        to: place(t.oid).filter(|_| !t.location.is_empty()),
    });
    planned.collect()
}

/// What the file system of the data directory must take at least. How much a dump becomes nobody knows before: dead rows are not
/// in it, and indexes are made anew. So only what surely does not fit is refused, and what may not is told.
pub fn filesystems(
    facts: &Facts,
    databases: &[&DatabaseRecord],
    data_bytes: u64,
    told: &mut Vec<String>,
) -> Vec<Filesystem> {
    let count = u64::try_from(databases.len()).unwrap_or(u64::MAX);
    let least = NEW_CLUSTER.saturating_add(NEW_DATABASE.saturating_mul(count));
    let free: u64 = {
        let mut devices: Vec<(u64, u64)> = vec![(facts.data.device, facts.data.free)];
        devices.extend(facts.tablespaces.iter().map(|folder| (folder.device, folder.free)));
        devices.sort_unstable();
        devices.dedup_by_key(|(device, _)| *device);
        devices.iter().fold(0, |sum: u64, (_, free)| sum.saturating_add(*free))
    };
    if data_bytes > free {
        told.push(format!(
            "the databases had {} when they were dumped, and {} are free: they may not fit",
            human_bytes(data_bytes),
            human_bytes(free)
        ));
    }
    check::filesystems(&[(&facts.data, least)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_no_tablespace_can_have_is_refused() {
        let place = |to: &str| possible(&Mapped { oid: 1, from: "/old".into(), to: to.into() });
        let refused = |to: &str| {
            let error = place(to).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidArgument);
            assert!(error.hint.is_some());
            error.message
        };
        let long = |bytes: usize| format!("/{}", "x".repeat(bytes - 1));
        assert!(
            refused("/it's").contains("single quote")
                && refused("/a\nb").contains("\"/a\\nb\" has a line feed")
        );
        assert!(refused(&long(971)).contains("too long"));
        for good in ["/a b", "/ä\"", &long(970), &format!("{}/", long(970))] {
            place(good).unwrap();
        }
    }

    #[test]
    fn a_tablespace_may_hold_what_other_versions_have_there() {
        let dir = tempfile::tempdir().unwrap();
        let look = || of_other_versions(&Folder::look(dir.path()).unwrap(), 17);
        assert!(!look(), "it is empty");
        std::fs::create_dir(dir.path().join("PG_15_202209061")).unwrap();
        assert!(look());
        std::fs::create_dir(dir.path().join("PG_17_202406281")).unwrap();
        assert!(!look(), "this version's");
        std::fs::remove_dir(dir.path().join("PG_17_202406281")).unwrap();
        std::fs::write(dir.path().join("notes"), "").unwrap();
        assert!(!look());
    }
}
