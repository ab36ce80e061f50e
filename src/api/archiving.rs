//! How archiving goes on this server: facts for `ark.check`, `ark.enable` and `ark.status`.

use super::list::time;
use crate::archiving::{Archiver, Settings};
use crate::postgres::wal;
use crate::{last_failure, sql};
use pg_ark_contract::Result;
use pg_ark_contract::archiver::LastFailure;
use pg_ark_contract::rows::{CheckRow, CheckStatus};
use pgrx::prelude::*;
use serde::Deserialize;

/// Segments that may wait before it is worth a remark: a gigabyte with segments of the usual size.
const MANY_SEGMENTS: u64 = 64;

/// What the server counts of archiving (`pg_stat_archiver`). Times as JSON has them.
#[derive(Debug, Default, Deserialize)]
pub struct Counted {
    /// The file that was archived last.
    pub last_archived_wal: Option<String>,
    /// When.
    pub last_archived_time: Option<String>,
    /// The file that failed last.
    pub last_failed_wal: Option<String>,
    /// When.
    pub last_failed_time: Option<String>,
}

/// How archiving goes.
#[derive(Debug)]
pub struct Progress {
    /// The settings.
    pub settings: Settings,
    /// The server's counters.
    pub counted: Counted,
    /// Why the last file failed, while that is not over.
    pub last_failure: Option<LastFailure>,
    /// The last file that was tried failed.
    pub failing: bool,
    /// Segments that wait to be archived.
    pub waiting: u64,
}

impl Progress {
    /// As it is now.
    ///
    /// # Errors
    /// `Internal` when the server's counters have an unexpected shape.
    pub fn read() -> Result<Progress> {
        let counted: Counted = sql::json(
            "SELECT row_to_json(a)::text FROM (SELECT last_archived_wal, last_archived_time, last_failed_wal, \
             last_failed_time FROM pg_stat_archiver) a",
            &[],
        )?;
        let archived = time(counted.last_archived_time.as_deref());
        let is_news =
            |at: Option<TimestampWithTimeZone>| at.is_some_and(|at| archived.is_none_or(|then| at > then));
        let archiver = Settings::read().archiver();
        let ours = archiver.is_ours();
        let counts = |failure: &LastFailure| concerns(archiver, failure, &is_waiting);
        let last_failure =
            last_failure::read().filter(|failure| counts(failure) && is_news(time(Some(&failure.at))));
        Ok(Progress {
            settings: Settings::read(),
            failing: last_failure.is_some() || ours && is_news(time(counted.last_failed_time.as_deref())),
            last_failure,
            counted,
            waiting: waiting(),
        })
    }

    /// Whether this server itself archives: a standby does only with `always`.
    pub fn works_here(&self) -> bool {
        self.settings.archiver().is_ours() && (!wal::in_recovery() || self.settings.mode == "always")
    }

    /// The last segment that our library stored, as far as the server knows. With a command the counters cannot tell
    /// whether it was ours that ran then.
    pub fn last_stored(&self) -> Option<String> {
        let ours = self.settings.archiver() == Archiver::Library && self.works_here();
        self.counted.last_archived_wal.clone().filter(|name| ours && is_segment(name.as_bytes()))
    }

    /// More segments wait than a busy server leaves behind for a moment.
    pub fn many_waiting(&self) -> bool {
        self.waiting >= MANY_SEGMENTS
    }
}

/// Whether a failure is that of this server's archiving, and not of a `pgark wal-push` by hand.
fn concerns(archiver: Archiver, failure: &LastFailure, is_waiting: &dyn Fn(&str) -> bool) -> bool {
    let is_its_own = match archiver {
        Archiver::Library => !failure.by_command,
        Archiver::Command => true,
        _ => false,
    };
    is_its_own && is_waiting(&failure.file)
}

/// Whether the server still wants a file to be archived.
fn is_waiting(file: &str) -> bool {
    let is_name = file.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.');
    is_name && std::path::Path::new(&format!("pg_wal/archive_status/{file}.ready")).exists()
}

/// Segments whose status file says that they are finished and not archived yet. Read as the archiver does, because
/// the server's function for it is not for everyone.
fn waiting() -> u64 {
    let Ok(folder) = std::fs::read_dir("pg_wal/archive_status") else { return 0 };
    folder.flatten().filter(|entry| is_ready_segment(entry.file_name().as_encoded_bytes())).count() as u64
}

/// A segment's name is 24 hexadecimal digits (`XLOG_FNAME_LEN`, access/xlog_internal.h).
fn is_ready_segment(name: &[u8]) -> bool {
    name.strip_suffix(b".ready").is_some_and(is_segment)
}

fn is_segment(name: &[u8]) -> bool {
    name.len() == 24 && name.iter().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'))
}

/// How archiving is turned on.
pub(super) const TURN_ON: &str = "ALTER SYSTEM SET archive_mode = 'on', then restart the server.";
const USE_OURS: &str = "ALTER SYSTEM SET archive_library = 'pg_ark', then SELECT pg_reload_conf().";
/// How pg_ark archives in place of another program.
pub(super) const USE_OURS_ONLY: &str = "ALTER SYSTEM SET archive_command = '', ALTER SYSTEM SET archive_library = 'pg_ark', then \
                             SELECT pg_reload_conf().";
const DROP_COMMAND: &str = "ALTER SYSTEM SET archive_command = '', then SELECT pg_reload_conf().";

/// Rows of `ark.check`.
///
/// # Errors
/// As [`Progress::read`].
pub fn checks() -> Result<Vec<CheckRow>> {
    let progress = Progress::read()?;
    let settings = &progress.settings;
    let row = |item: &str, status, detail: String, hint: Option<String>| CheckRow {
        item: item.into(),
        status,
        detail,
        hint,
    };
    let off = settings.archiver() == Archiver::Off;
    let mut rows = vec![row(
        "archive_mode",
        if off { CheckStatus::Warning } else { CheckStatus::Ok },
        settings.mode.clone(),
        off.then(|| format!("Without an archive only the ends of backups can be restored. {TURN_ON}")),
    )];
    let (item, status, detail, hint) = who(settings);
    rows.push(row(item, status, detail, hint));
    if progress.works_here() {
        rows.push(match &progress.last_failure {
            Some(LastFailure { file, at, error, .. }) => {
                let detail = format!("could not archive {file} at {at}: {error}");
                let hint = error.hint.clone().unwrap_or_else(|| "The server log says more.".into());
                row("archiver", CheckStatus::Error, detail, Some(hint))
            }
            None if progress.failing => {
                let file = progress.counted.last_failed_wal.clone().unwrap_or_default();
                let hint = Some("The server log says why.".into());
                row("archiver", CheckStatus::Error, format!("could not archive {file}"), hint)
            }
            None => {
                let last = progress.counted.last_archived_wal.clone();
                let detail =
                    last.map_or_else(|| "nothing archived yet".into(), |last| format!("last was {last}"));
                row("archiver", CheckStatus::Ok, detail, None)
            }
        });
        let many = progress.many_waiting();
        rows.push(row(
            "archive_lag",
            if many { CheckStatus::Warning } else { CheckStatus::Ok },
            format!("segments that wait to be archived: {}", progress.waiting),
            many.then(|| {
                "The repository is slow or archiving fails; pg_wal grows until it catches up.".into()
            }),
        ));
    }
    Ok(rows)
}

/// The row about who archives. What is set while archive_mode is off counts as well: it acts after the restart.
fn who(settings: &Settings) -> (&'static str, CheckStatus, String, Option<String>) {
    use CheckStatus::{Error, Ok, Warning};
    let on = Settings { mode: "on".into(), ..settings.clone() };
    let (library, command) = (settings.library.clone(), settings.command.clone());
    match on.archiver() {
        Archiver::Library if settings.contradict() => {
            let detail = "archive_command is set as well, and ignored".into();
            ("archive_library", Warning, detail, Some(DROP_COMMAND.into()))
        }
        Archiver::Both => {
            let detail = "archive_command is set as well, so nothing is archived".into();
            ("archive_library", Error, detail, Some(USE_OURS_ONLY.into()))
        }
        Archiver::Library => ("archive_library", Ok, library, None),
        Archiver::Command => ("archive_command", Ok, command, None),
        Archiver::Unset | Archiver::Off => {
            let status = if settings.archiver() == Archiver::Off { Warning } else { Error };
            ("archive_library", status, "nothing archives".into(), Some(USE_OURS.into()))
        }
        Archiver::Other => {
            let detail = if library.is_empty() { command } else { library };
            let hint = format!("Another program archives the WAL. For pg_ark: {USE_OURS_ONLY}");
            ("archive_library", Warning, detail, Some(hint))
        }
    }
}

/// What is left to do by hand before pg_ark archives: items and statements.
pub fn left_to_do() -> Vec<(&'static str, String)> {
    let settings = Settings::read();
    let mut rows = Vec::new();
    let (item, status, _, hint) = who(&settings);
    if status != CheckStatus::Ok {
        let only = if settings.contradict() || !settings.command.is_empty() {
            ""
        } else {
            " Leave archive_command empty: PostgreSQL 16 and later refuse both, 15 ignores the command."
        };
        rows.push((item, format!("{}{only}", hint.unwrap_or_default())));
    }
    if settings.archiver() == Archiver::Off {
        rows.push(("archive_mode", TURN_ON.into()));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_finished_segments_wait() {
        assert!(is_ready_segment(b"00000001000000000000000A.ready"));
        for name in ["00000001000000000000000A.done", "00000002.history.ready", ".ready", "x"] {
            assert!(!is_ready_segment(name.as_bytes()), "{name}");
        }
        let backup = b"000000010000000000000004.00000028.backup.ready";
        assert!(!is_ready_segment(backup) && !is_ready_segment(b"000000010000000000000004.partial.ready"));
    }

    #[test]
    fn a_push_by_hand_is_no_failure_of_the_server() {
        let failure = |by_command| LastFailure {
            file: "000000010000000000000004".into(),
            at: String::new(),
            error: pg_ark_contract::Error::new(pg_ark_contract::ErrorKind::DiskFull, "full"),
            by_command,
        };
        let cases = [
            (Archiver::Library, false, true, true),
            (Archiver::Library, true, true, false),
            (Archiver::Library, false, false, false),
            (Archiver::Command, true, true, true),
            (Archiver::Command, true, false, false),
            (Archiver::Other, true, true, false),
        ];
        for (archiver, by_command, waits, expected) in cases {
            let found = concerns(archiver, &failure(by_command), &|_| waits);
            assert_eq!(found, expected, "{archiver:?} {by_command} {waits}");
        }
    }

    #[test]
    fn each_thing_that_is_left_says_what_to_do() {
        let settings = |mode: &str, library: &str, command: &str| Settings {
            mode: mode.into(),
            library: library.into(),
            command: command.into(),
        };
        for (mode, library, command, item, ok) in [
            ("off", "", "", "archive_library", false),
            ("off", "pg_ark", "", "archive_library", true),
            ("on", "pg_ark", "", "archive_library", true),
            ("on", "pg_ark", "cp %p /x", "archive_library", false),
            ("on", "", "pgark wal-push %p", "archive_command", true),
            ("on", "", "cp %p /x", "archive_library", false),
            ("on", "", "", "archive_library", false),
        ] {
            let (found, status, _, hint) = who(&settings(mode, library, command));
            assert_eq!(
                (found, status == CheckStatus::Ok, hint.is_none()),
                (item, ok, ok),
                "{mode} {library} {command}"
            );
        }
    }
}
