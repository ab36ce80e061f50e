//! Timeline histories that the server never asks to have archived: those of promotions before it began to archive here.
//!
//! A promotion queues its history file only where archiving is on (`XLogArchiveNotify` in `writeTimeLineHistory`,
//! access/transam/timeline.c). Without it nothing tells how the segments of its timeline continue those before.

use super::ahead::{Route, check_repository, remove_from_nowhere};
use super::compare::{self, Own};
use super::index_line::FileFacts;
use super::keeper::Keeper;
use super::store::{self, Outcome};
use crate::postgres::timeline::{history_file_name, timeline_of_history_file};
use crate::session::Session;
use pg_ark_contract::{Error, ErrorKind, Result, Timeline};

/// Most histories that are looked at, the newest ones: each holds those of its ancestors.
const MOST: usize = 256;

/// Whether the archive needs no history to know the timeline of `file`, or holds it.
pub fn is_known(route: &Route, file: &str) -> bool {
    let timeline = file.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).map(Timeline);
    let Some(timeline) = timeline.filter(|timeline| timeline.0 > 1) else { return true };
    matches!(route.archive.find(&history_file_name(timeline)), Ok(Some(_)))
}

/// Stores the histories of `pg_wal` that the archive lacks, and lets `keeper` know of all that both hold. What cannot be
/// stored is a warning: the file that was asked for is another.
pub fn store_missing(route: &Route, keeper: &Keeper<'_>, session: &Session) {
    for timeline in timelines(route) {
        if session.check().is_err() {
            return;
        }
        let name = history_file_name(timeline);
        match store_one(route, &name) {
            Ok(Some(outcome)) => keeper.enter(&name, &outcome),
            Ok(None) => {}
            // That is told for the file that was asked for.
            Err(e) if e.kind == ErrorKind::RepositoryNotFound => return,
            Err(e) => warn(session, &name, e),
        }
    }
}

fn warn(session: &Session, name: &str, error: Error) {
    let detail = error.detail.as_deref().map(|detail| format!(". {detail}")).unwrap_or_default();
    let message = format!("could not store \"{name}\" of pg_wal: {}{detail}", error.message);
    session.warn(message, error.hint);
}

/// Timelines that have a history in `pg_wal`, ascending. What cannot be read has none.
fn timelines(route: &Route) -> Vec<Timeline> {
    let entries = std::fs::read_dir(&route.source.folder).into_iter().flatten().flatten();
    let mut found: Vec<Timeline> =
        entries.filter_map(|entry| timeline_of_history_file(entry.file_name().to_str()?)).collect();
    found.sort_unstable();
    found.split_off(found.len().saturating_sub(MOST))
}

/// What the archive holds now; `None` when the server removed its file.
fn store_one(route: &Route, name: &str) -> Result<Option<Outcome>> {
    match compare::own(&route.archive, &route.source, name, None)? {
        Own::NotStored => {}
        Own::Gone => return Ok(None),
        Own::Equal => {
            let content = route.archive.read_plain(name)?;
            let file = content.map(|content| FileFacts::of(&content));
            return Ok(Some(Outcome { created: false, summary: None, file }));
        }
    }
    check_repository(&route.repository)?;
    let outcome = match store::store(&route.archive, &route.source, name, route.compression) {
        // The server removed it meanwhile.
        Err(e) if e.kind == ErrorKind::WalMissing => return Ok(None),
        stored => stored?,
    };
    // Below the mount point of a repository that was unmounted in between there must be nothing.
    check_repository(&route.repository).inspect_err(|e| {
        if outcome.created
            && e.kind == ErrorKind::RepositoryNotFound
            && let Ok(path) = route.archive.path(name)
        {
            remove_from_nowhere(route.archive.storage(), &path);
        }
    })?;
    Ok(Some(outcome))
}
