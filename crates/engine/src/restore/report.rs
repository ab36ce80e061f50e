//! What came of a recovery: how far it went, and whether that is as far as it had to go.

use super::ask::Asked;
use super::course::{Point, RecoveryPlan};
use super::follow::{Lock, Until};
use super::log::{self, Log};
use super::plan::Prepared;
use super::run::Restored;
use super::target::Target;
use crate::bounded;
use crate::postgres::control_file::{CONTROL_FILE, ControlFile, DbState};
use crate::postgres::timeline::{TimelineHistory, history_file_name};
use crate::wal::archive::MAX_HISTORY;
use pg_ark_contract::units::human_bytes;
use pg_ark_contract::{Error, ErrorKind, Lsn, Result, Timeline};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What the server has become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerState {
    /// It is a primary on a timeline of its own.
    Primary,
    /// It waits at the target, and lets clients read.
    Paused,
    /// It follows the archive, and lets clients read.
    Standby,
    /// It shut down at the target.
    Stopped,
}

/// A server that has recovered.
#[derive(Debug, Clone, Serialize)]
pub struct Started {
    /// What it is now.
    pub state: ServerState,
    /// Its process.
    pub pid: Option<u32>,
    /// When the origin was last known to run: RFC 3339, UTC.
    pub interrupted_at: Option<String>,
    /// Commit time of the last transaction that recovery replayed: RFC 3339, UTC.
    pub last_transaction_at: Option<String>,
    /// Why `last_transaction_at` is not known.
    pub last_transaction_note: Option<String>,
    /// What the server said about the place where it stopped.
    pub server_said: Option<String>,
    /// The timeline that recovery followed.
    pub followed_timeline: Timeline,
    /// The server's timeline now.
    pub timeline: Timeline,
    /// Where recovery ended, and a new timeline begins.
    pub reached_lsn: Option<Lsn>,
    /// Where the WAL ends, as it was known before.
    pub known_end: Point,
    /// Whether recovery went as far as it had to; `None` where that is not to be told, as of a standby.
    pub complete: Option<bool>,
    /// Why that is not known, where it should be.
    pub complete_note: Option<String>,
    /// Bytes of WAL between the place reached and the known end.
    pub not_replayed_bytes: Option<u64>,
    /// Where the backup ended.
    pub stop_lsn: Option<Lsn>,
    /// Port.
    pub port: Option<u16>,
    /// Folder of its socket; empty when it has none.
    pub socket_folder: Option<String>,
    /// File that the server's messages went to while it started.
    pub log: PathBuf,
    /// Whether statistics were gathered, if that was asked for.
    pub analyzed: Option<bool>,
    /// Why not.
    pub analyze_error: Option<String>,
}

impl Started {
    /// The error for a recovery that ended too early, with the server up.
    pub fn short(&self) -> Option<Error> {
        if self.complete != Some(false) {
            return None;
        }
        let reached = self.reached_lsn.map_or("an unknown place".to_string(), |lsn| lsn.to_string());
        let time =
            self.known_end.time.as_ref().map_or(String::new(), |time| format!(" (last transaction {time})"));
        let missing = self.not_replayed_bytes.map_or("some WAL".to_string(), human_bytes);
        Some(
            Error::new(
                ErrorKind::RecoveryShort,
                format!(
                    "recovery ended at {reached}, before the known end of the WAL at {}{time}: {missing} not replayed",
                    self.known_end.lsn
                ),
            )
            .hint(format!(
                "The server runs, and lacks transactions. Before it is used: stop it, look into \"{}\" and at \
                 \"pgark verify-archive\", mend what is wrong there, and restore again.",
                self.log.display()
            )),
        )
    }
}

/// Collects the facts.
pub(super) fn build(
    prepared: &Prepared,
    restored: &Restored,
    until: Until,
    lock: Option<&Lock>,
    asked: &Asked<'_>,
    log: &Log,
) -> Result<Started> {
    let plan = &prepared.plan.recovery;
    let data = &restored.data_directory;
    let control = control(data)?;
    let state = match (lock, until) {
        (None, _) => ServerState::Stopped,
        (_, Until::Standby) => ServerState::Standby,
        _ if control.state == DbState::InProduction => ServerState::Primary,
        _ => ServerState::Paused,
    };
    let timeline = match state {
        ServerState::Primary => control.checkpoint_timeline,
        _ => Timeline(control.min_recovery_timeline.max(control.checkpoint_timeline.0)),
    };
    let reached_lsn = match (state, lock) {
        (ServerState::Primary, _) => branch(data, timeline),
        (_, Some(lock)) => asked.progress(lock).ok().map(|(lsn, _)| lsn),
        (_, None) => Some(control.min_recovery_point).filter(|lsn| lsn.0 > 0),
    };
    let text = log.since_start(data);
    let (last_transaction_at, last_transaction_note) = last_transaction(lock, asked, &text);
    let interrupted_at = chrono::DateTime::from_timestamp(restored.control_time, 0)
        .map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
    let (complete, complete_note) = complete(plan, state, reached_lsn, &text);
    Ok(Started {
        state,
        pid: lock.map(|lock| lock.pid),
        interrupted_at,
        last_transaction_at,
        last_transaction_note,
        server_said: log::stopped(&text),
        followed_timeline: plan.timeline,
        timeline,
        not_replayed_bytes: reached_lsn.map(|reached| plan.end.lsn.0.saturating_sub(reached.0)),
        reached_lsn,
        known_end: plan.end.clone(),
        complete,
        complete_note,
        stop_lsn: prepared.record.stop_lsn,
        port: lock.map(|lock| lock.port),
        socket_folder: lock.map(|lock| lock.socket_folder.clone()),
        log: log.path.clone(),
        analyzed: None,
        analyze_error: None,
    })
}

/// Whether recovery went as far as it had to, or why that is not known.
fn complete(
    plan: &RecoveryPlan,
    state: ServerState,
    reached: Option<Lsn>,
    words: &str,
) -> (Option<bool>, Option<String>) {
    match (&plan.target, state) {
        (Target::Latest, ServerState::Primary) => (reached.map(|reached| reached >= plan.end.lsn), None),
        (Target::Latest, _) => (None, None),
        // It ends in failure when it does not meet a target.
        (_, ServerState::Primary) => (Some(true), None),
        _ if reached.is_some_and(|reached| log::is_at(reached, plan.goal())) => (Some(true), None),
        _ if log::stopped(words).is_some() => (Some(true), None),
        _ => (None, Some("the server could not be asked, and its log does not tell".to_string())),
    }
}

fn control(data: &Path) -> Result<ControlFile> {
    let path = data.join(CONTROL_FILE);
    let bytes = bounded::read(&path, bounded::MAX_CONTROL)
        .map_err(|e| Error::io(format!("could not read \"{}\"", path.display()), &e))?;
    ControlFile::parse(&bytes)
}

/// Where a timeline branched off its parent.
fn branch(data: &Path, timeline: Timeline) -> Option<Lsn> {
    let bytes = bounded::read(&data.join("pg_wal").join(history_file_name(timeline)), MAX_HISTORY).ok()?;
    let history = TimelineHistory::parse(timeline, &bytes).ok()?;
    history.entries.last().map(|entry| entry.switch_lsn)
}

/// Time of the last replayed transaction, or why it is not known.
fn last_transaction(lock: Option<&Lock>, asked: &Asked<'_>, words: &str) -> (Option<String>, Option<String>) {
    let answer = match lock {
        Some(lock) => asked.last_transaction(lock),
        None => Err("it does not run".to_string()),
    };
    match answer {
        Ok(Some(time)) => (Some(time), None),
        Ok(None) => (None, Some("recovery replayed no transaction".to_string())),
        Err(why) => match log::last_transaction(words) {
            Some(time) => (Some(time), None),
            None => (None, Some(format!("could not ask the server: {why}"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_at_its_target_is_complete() {
        let plan = RecoveryPlan {
            stop: Some(Point { lsn: Lsn(100), time: None }),
            ..super::super::recovery::tests::plan(Target::Immediate)
        };
        let complete = |state, reached: Option<u64>, words| complete(&plan, state, reached.map(Lsn), words).0;
        let stopped = "1 LOG:  recovery stopping after reaching consistency\n";
        assert_eq!(complete(ServerState::Paused, Some(100), ""), Some(true));
        assert_eq!(complete(ServerState::Paused, Some(99), ""), None);
        assert_eq!(complete(ServerState::Paused, None, ""), None);
        assert_eq!(complete(ServerState::Paused, None, stopped), Some(true));
        assert_eq!(complete(ServerState::Stopped, Some(99), ""), None);
        assert_eq!(complete(ServerState::Primary, None, ""), Some(true));
    }
}
