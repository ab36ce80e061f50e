//! `ark.validate`: what of the stored backups is not as it should be, asked of the engine.

use super::archiving::Progress;
use super::list;
use crate::engine::{self, Target};
use crate::postgres::text::Text;
use crate::postgres::wal;
use crate::{settings, translate, version};
use pg_ark_contract::conversation::{Answer, Archived, BackupKind, Level, Task};
use pg_ark_contract::rows::FindingRow;
use pg_ark_contract::{Error, ErrorKind, Result};
use pgrx::prelude::*;

/// Characters that a message shows of a name that is none.
const NAME_SHOWN: usize = 64;

/// One row for each thing that is not as it should be; none: all is well. Without a name every complete backup is
/// looked at, and the archive.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)] // The columns of DESIGN's SQL surface.
pub fn validate(
    backup: default!(Option<Text>, "NULL"),
    level: default!(Option<Text>, "'data'"),
) -> TableIterator<
    'static,
    (
        name!(backup, Option<Text>),
        name!(severity, Text),
        name!(object, Text),
        name!(finding, Text),
        name!(hint, Option<Text>),
    ),
> {
    version::require();
    let rows = translate::or_raise(task(backup, level).and_then(findings));
    TableIterator::new(rows.into_iter().map(|row| {
        (
            row.backup.map(Text::from),
            row.severity.as_str().into(),
            row.object.into(),
            row.finding.into(),
            row.hint.map(Text::from),
        )
    }))
}

fn task(backup: Option<Text>, level: Option<Text>) -> Result<Task> {
    let backup = backup.map(|backup| list::name(Some(backup)).and_then(check_name)).transpose()?;
    let file = if backup.is_none() { Progress::read()?.last_stored() } else { None };
    Ok(Task::Validate {
        // NULL is the default, as it is for the backup.
        level: level.map_or(Ok(Level::Data), |level| parse_level(&level.decode()?))?,
        backup,
        archived: file.map(|file| Archived { system_identifier: wal::system_identifier(), file }),
        // As list_backups does: also what the cluster was before an upgrade.
        system_identifier: None,
        jobs: settings::jobs(),
    })
}

fn findings(task: Task) -> Result<Vec<FindingRow>> {
    match engine::ask(&Target::from_settings()?, task)? {
        Answer::Findings(rows) => Ok(rows),
        other => Err(engine::unexpected(&other)),
    }
}

/// The level that a caller named.
///
/// # Errors
/// `InvalidArgument` for a word that is none.
pub(super) fn parse_level(level: &str) -> Result<Level> {
    Level::ALL.iter().copied().find(|known| known.as_str() == level).ok_or_else(|| {
        Error::new(ErrorKind::InvalidArgument, format!("unknown level: \"{}\"", level.escape_debug())).hint(
            "The levels are record (what is there), data (every byte of it) and pages (every page of every relation \
             too).",
        )
    })
}

/// A name that no backup can have is a mistake, whatever the repository holds: `20261122T020000Z-full`.
///
/// # Errors
/// `InvalidArgument` for such a name.
pub(super) fn check_name(name: String) -> Result<String> {
    let kinds = [BackupKind::Full, BackupKind::Incremental, BackupKind::Logical];
    let is_name = name.split_once('-').is_some_and(|(stamp, kind)| {
        let shape: String = stamp.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        shape == "00000000T000000Z" && kinds.iter().any(|known| known.as_str() == kind)
    });
    if is_name {
        return Ok(name);
    }
    let shown: String = name.chars().take(NAME_SHOWN).collect();
    Err(Error::new(
        ErrorKind::InvalidArgument,
        format!("\"{}\" is not a backup's name", shown.escape_debug()),
    )
    .hint("ark.list_backups() shows the names; without one every backup is looked at."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_words() {
        for level in Level::ALL {
            assert_eq!(parse_level(level.as_str()), Ok(*level));
        }
        for bad in ["", "DATA", "all", "data "] {
            let error = parse_level(bad).unwrap_err();
            assert!(error.kind == ErrorKind::InvalidArgument && error.hint.is_some(), "{bad}");
        }
    }

    #[test]
    fn names_have_one_form() {
        for kind in ["full", "incremental", "logical"] {
            assert!(check_name(format!("20261122T020000Z-{kind}")).is_ok(), "{kind}");
        }
        for bad in
            ["x", "..", "20261122T020000Z", "20261122T020000Z-full/..", "20261122t020000z-full", "-full"]
        {
            assert_eq!(check_name(bad.into()).unwrap_err().kind, ErrorKind::InvalidArgument, "{bad}");
        }
    }
}
