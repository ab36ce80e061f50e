//! Who archives this server's WAL: pg_ark, another program, or nobody.
//!
//! A backup that leans on the archive, `ark.check`, `ark.enable` and `ark.status` all ask here.

use crate::postgres::{guc, wal};
use crate::settings::is_our_library;
use pg_ark_contract::{Error, ErrorKind, Result};

/// PostgreSQL 15 ignores the command when a library is set; later ones refuse both (`HandlePgArchInterrupts`, pgarch.c).
const COMMAND_IS_IGNORED: bool = cfg!(feature = "pg15");

/// Who archives the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Archiver {
    /// `archive_library = 'pg_ark'`.
    Library,
    /// `archive_command` runs `pgark wal-push`.
    Command,
    /// Another library or command.
    Other,
    /// A library and a command are set, which PostgreSQL refuses since 16: nothing is archived.
    Both,
    /// `archive_mode` is on, but neither a library nor a command is set: WAL piles up.
    Unset,
    /// Nobody: `archive_mode` is off.
    Off,
}

impl Archiver {
    /// The word that `ark.status` shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Archiver::Library => "archive_library",
            Archiver::Command => "archive_command",
            Archiver::Other => "other",
            Archiver::Both => "both",
            Archiver::Unset => "unset",
            Archiver::Off => "off",
        }
    }

    /// True when the WAL goes to our repository.
    pub fn is_ours(self) -> bool {
        matches!(self, Archiver::Library | Archiver::Command)
    }
}

/// The server's settings about archiving.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// `archive_mode`.
    pub mode: String,
    /// `archive_library`.
    pub library: String,
    /// `archive_command`.
    pub command: String,
}

impl Settings {
    /// The settings as they act now. On a standby with `archive_mode = on` the primary archives, with the same
    /// settings as a rule.
    pub fn read() -> Settings {
        let value = |name| guc::option(name).unwrap_or_default();
        Settings {
            mode: value(c"archive_mode"),
            library: value(c"archive_library"),
            command: value(c"archive_command"),
        }
    }

    /// Who archives with these settings.
    pub fn archiver(&self) -> Archiver {
        if !matches!(self.mode.as_str(), "on" | "always") {
            return Archiver::Off;
        }
        match (self.library.is_empty(), self.command.is_empty()) {
            (true, true) => Archiver::Unset,
            (false, false) if !COMMAND_IS_IGNORED => Archiver::Both,
            (false, _) if is_our_library(&self.library) => Archiver::Library,
            (true, false) if self.command.contains("pgark") && self.command.contains("wal-push") => {
                Archiver::Command
            }
            _ => Archiver::Other,
        }
    }

    /// True when a library and a command are set.
    pub fn contradict(&self) -> bool {
        !self.library.is_empty() && !self.command.is_empty()
    }
}

/// Whether a backup stores the WAL that it needs itself: as it was asked, else when nothing of ours archives, and on a
/// standby, which ends no segment by itself and would wait for an idle primary.
///
/// # Errors
/// `ServerNotReady` when it shall not, but nothing of ours archives.
pub fn include_wal(asked: Option<bool>) -> Result<bool> {
    let archiver = Settings::read().archiver();
    if asked == Some(false) && !archiver.is_ours() {
        let message = "a backup without its WAL needs an archive, and pg_ark does not archive";
        return Err(Error::new(ErrorKind::ServerNotReady, message)
            .detail(format!("WAL is archived by: {}.", archiver.as_str()))
            .hint(
                "Leave include_wal out, or let pg_ark archive first: SELECT * FROM ark.check() says how.",
            ));
    }
    Ok(asked.unwrap_or_else(|| !archiver.is_ours() || wal::in_recovery()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archiver(mode: &str, library: &str, command: &str) -> Archiver {
        Settings { mode: mode.into(), library: library.into(), command: command.into() }.archiver()
    }

    #[test]
    fn settings_name_the_archiver() {
        use Archiver::{Both, Command, Library, Off, Other, Unset};
        let (both, other) = if COMMAND_IS_IGNORED { (Library, Other) } else { (Both, Both) };
        for (mode, library, command, expected) in [
            ("off", "pg_ark", "", Off),
            ("on", "pg_ark", "", Library),
            ("always", "pg_ark", "", Library),
            ("on", "$libdir/pg_ark", "", Library),
            ("on", "pg_ark.so", "", Library),
            ("on", "pg_ark", "cp %p /x/%f", both),
            ("on", "basic_archive", "", Other),
            ("on", "basic_archive", "pgark wal-push %p", other),
            ("on", "not_pg_ark", "", Other),
            ("on", "", "/usr/lib/postgresql/15/bin/pgark --repo file:///x wal-push %p", Command),
            ("on", "", "pgark wal-get %f %p", Other),
            ("on", "", "cp %p /x/%f", Other),
            ("on", "", "", Unset),
        ] {
            assert_eq!(archiver(mode, library, command), expected, "{mode} {library} {command}");
        }
    }
}
