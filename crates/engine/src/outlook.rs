//! Rows of `ark.check` about what surrounds a repository: how long its space lasts, whether its clock and the server's
//! agree, and which disks would be lost together.

use crate::backup;
use crate::clocks::{self, Clocks};
use crate::repository::{Cluster, Record, Storage};
use crate::verify;
use crate::wal::archive::Archive;
use chrono::{DateTime, TimeDelta, Utc};
use pg_ark_contract::rows::{BackupStatus, CheckRow, CheckStatus, FutureBackups};
use pg_ark_contract::units::human_bytes;
use pg_ark_contract::{Error, Result};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Days that are looked back at, and that the space should last.
const DAYS: i64 = 7;
/// Folders of WAL that are looked at: 2048 segments of the usual size.
const MAX_FOLDERS: usize = 8;
/// Tablespaces that are named.
const MAX_NAMED: usize = 3;

fn row(item: &str, status: CheckStatus, detail: String, hint: Option<&str>) -> CheckRow {
    CheckRow { item: item.into(), status, detail, hint: hint.map(str::to_string) }
}

fn failed(item: &str, error: &Error) -> CheckRow {
    row(item, CheckStatus::Error, error.to_string(), error.hint.as_deref())
}

/// Whether the repository has room for the next backup, and for how many days. None where nobody knows how much is free.
pub fn space(
    cluster: Option<&Cluster>,
    storage: &Storage,
    records: &[Record],
    now: DateTime<Utc>,
) -> Option<CheckRow> {
    let daily = cluster.map_or(Ok(0), |cluster| daily(cluster, records, now));
    space_row(backup::free_space(storage), last(records), daily)
}

fn last(records: &[Record]) -> Option<u64> {
    // The next of either class must fit: dumps take less than the files.
    let last = |physical: bool| {
        let fits = |record: &&Record| {
            record.status == BackupStatus::Complete && record.kind.is_physical() == physical
        };
        records.iter().rfind(fits).map(|last| last.stored_bytes)
    };
    last(true).max(last(false))
}

/// `last` is what the last backup took, `daily` what is added each day, in bytes.
fn space_row(free: Result<Option<u64>>, last: Option<u64>, daily: Result<u64>) -> Option<CheckRow> {
    let item = "repository space";
    let (free, daily) = match (free, daily) {
        (Err(e), _) | (_, Err(e)) => return Some(failed(item, &e)),
        (Ok(free), Ok(daily)) => (free?, daily),
    };
    let shown = human_bytes(free);
    if let Some(last) = last.filter(|last| free < *last) {
        return Some(row(
            item,
            CheckStatus::Warning,
            format!("{shown} free, and the last backup took {}", human_bytes(last)),
            Some("Free some space there, or move the repository: the next backup may not fit."),
        ));
    }
    let Some(days) = free.checked_div(daily) else {
        return Some(row(item, CheckStatus::Ok, format!("{shown} free"), None));
    };
    let rate = format!("backups and WAL add {} a day", human_bytes(daily));
    let is_short = days < DAYS.unsigned_abs();
    Some(row(
        item,
        if is_short { CheckStatus::Warning } else { CheckStatus::Ok },
        match days {
            0 => format!("{shown} free, less than {rate}"),
            1 => format!("{shown} free, enough for a day: {rate}"),
            _ => format!("{shown} free, enough for {days} days: {rate}"),
        },
        is_short.then_some(
            "Add space, keep less (pg_ark.retention_window), or see that something is pruned: SELECT * FROM ark.prune().",
        ),
    ))
}

/// Bytes that were added per day in the last week.
fn daily(cluster: &Cluster, records: &[Record], now: DateTime<Utc>) -> Result<u64> {
    let since = now - TimeDelta::days(DAYS);
    let recent =
        records.iter().filter(|record| record.status == BackupStatus::Complete).filter_map(|record| {
            let began = DateTime::parse_from_rfc3339(&record.started_at).ok()?.with_timezone(&Utc);
            (began > since && began <= now).then_some((began, record.stored_bytes))
        });
    let (mut first, mut backups) = (None, 0u64);
    for (began, bytes) in recent {
        backups = backups.saturating_add(bytes);
        first = Some(first.map_or(began, |first: DateTime<Utc>| first.min(began)));
    }
    // The time after the last counts too: the next has not begun.
    let of_backups = per_day(backups, first, now);
    let Some(archive) = Archive::newest_of(cluster) else { return Ok(of_backups) };
    Ok(of_backups.saturating_add(wal_per_day(&archive, since, now)?))
}

/// From the newest folders of the newest timelines.
fn wal_per_day(archive: &Archive, since: DateTime<Utc>, now: DateTime<Utc>) -> Result<u64> {
    let (mut bytes, mut first, mut left) = (0u64, None, MAX_FOLDERS);
    for timeline in archive.timelines()?.into_iter().rev() {
        for log in archive.logs(timeline)?.into_iter().rev() {
            if left == 0 {
                return Ok(per_day(bytes, first, now));
            }
            left -= 1;
            for object in archive.storage().list(&archive.log_folder(timeline, log))? {
                let Some(stored) = archive.storage().changed(&object.path)? else { continue };
                if stored > since && stored <= now {
                    bytes = bytes.saturating_add(object.size);
                    first = Some(first.map_or(stored, |first: DateTime<Utc>| first.min(stored)));
                }
            }
        }
    }
    Ok(per_day(bytes, first, now))
}

/// What was added since `first`, at least a day ago.
fn per_day(bytes: u64, first: Option<DateTime<Utc>>, now: DateTime<Utc>) -> u64 {
    let day = TimeDelta::days(1).num_seconds();
    let span = first.map_or(day, |first| (now - first).num_seconds().max(day));
    u64::try_from(u128::from(bytes) * day.unsigned_abs() as u128 / span.unsigned_abs() as u128)
        .unwrap_or(u64::MAX)
}

/// Whether the store's clock and this machine's agree: leases, retention and schedules compare times of both. And whether
/// backups say that they were finished in the future. None where there is nothing to tell: what cannot be written is another
/// row's matter.
pub fn clock(storage: &Storage, records: &[Record], now: DateTime<Utc>) -> Option<CheckRow> {
    let agree = Clocks::read(storage, Utc::now()).ok().map(clock_row);
    let Some(future) = verify::status::future(records, now).map(|found| future_row(&found)) else {
        return agree;
    };
    let Some(more) = agree.filter(|row| row.status != CheckStatus::Ok) else { return Some(future) };
    let detail = format!("{}; {}", future.detail, more.detail);
    // What is refused comes first.
    let told = if more.status == CheckStatus::Error { more } else { future };
    Some(CheckRow { detail, ..told })
}

fn clock_row(clocks: Clocks) -> CheckRow {
    let skew = clocks.ahead.saturating_abs();
    if skew <= clocks::MAX_SKEW {
        return row("clock", CheckStatus::Ok, "the repository's and the server's agree".into(), None);
    }
    // What prune says, which is refused.
    if let Err(error) = clocks.may_judge_age() {
        return failed("clock", &error);
    }
    let where_to = if clocks.ahead < 0 { "ahead of" } else { "behind" };
    row(
        "clock",
        CheckStatus::Warning,
        format!("the repository's clock is {skew} s {where_to} the server's"),
        Some("Keep the clocks of both machines right (chrony, ntpd): leases and retention go by them."),
    )
}

fn future_row(found: &FutureBackups) -> CheckRow {
    let hint = "Set the clock right (chrony, ntpd). If it is right now, take a backup: retention keeps those of the future \
                until their time has come, unless somebody removes their folders by hand, those of their incremental \
                backups with them.";
    row("clock", CheckStatus::Warning, found.to_string(), Some(hint))
}

/// Whether the disk of the data directory holds the repository too.
pub fn device(storage: &Storage, data_directory: &Path) -> Option<CheckRow> {
    let same = device_of(storage.folder())? == device_of(data_directory)?;
    let hint = "Put the repository on another disk, best on another machine (a network file system).";
    Some(match same {
        false => row("repository device", CheckStatus::Ok, "not that of the data directory".into(), None),
        true => row(
            "repository device",
            CheckStatus::Warning,
            "the data directory's: who loses that disk loses the server and its backups".into(),
            Some(hint),
        ),
    })
}

/// Whether tablespaces lie where they should not: inside the data directory, or on the repository's disk. None without any.
pub fn tablespaces(storage: &Storage, data_directory: &Path) -> Option<CheckRow> {
    let places: Vec<PathBuf> = std::fs::read_dir(data_directory.join("pg_tblspc"))
        .ok()?
        .flatten()
        // One that lies in pg_tblspc itself belongs there (allow_in_place_tablespaces).
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()))
        .filter_map(|entry| entry.path().canonicalize().ok())
        .collect();
    let (data, disk) = (data_directory.canonicalize().ok()?, device_of(storage.folder()));
    let on_data = device_of(&data) == disk;
    let inside = places.iter().filter(|place| place.starts_with(&data));
    // Where the data directory is on it too, that has been said.
    let beside = places.iter().filter(|place| disk.is_some() && !on_data && device_of(place) == disk);
    let of = |what: &str, places: Vec<&PathBuf>| {
        let names: Vec<_> =
            places.iter().take(MAX_NAMED).map(|place| format!("\"{}\"", place.display())).collect();
        let more = places.len().saturating_sub(MAX_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        (!places.is_empty()).then(|| format!("{what}: {}{more}", names.join(", ")))
    };
    let found: Vec<_> =
        [of("inside the data directory", inside.collect()), of("on the repository's disk", beside.collect())]
            .into_iter()
            .flatten()
            .collect();
    match (places.len(), found.is_empty()) {
        (0, _) => None,
        (1, true) => Some(row("tablespaces", CheckStatus::Ok, "1, outside the data directory".into(), None)),
        (n, true) => {
            Some(row("tablespaces", CheckStatus::Ok, format!("{n}, outside the data directory"), None))
        }
        (_, false) => Some(row(
            "tablespaces",
            CheckStatus::Warning,
            found.join("; "),
            Some(
                "PostgreSQL warns of tablespaces inside the data directory, and tools copy them twice; one beside the \
                 repository is lost with it. Move them: ALTER TABLE ... SET TABLESPACE, or a new location while the server \
                 is stopped.",
            ),
        )),
    }
}

fn device_of(path: &Path) -> Option<u64> {
    path.metadata().ok().map(|meta| meta.dev())
}

#[cfg(test)]
#[path = "outlook_tests.rs"]
mod tests;
