//! Starts the restored server as the owner of its data directory and follows recovery to its end.

use super::access::{Access, Owner};
use super::follow::{self, Lock};
use super::plan::Prepared;
use super::recovery;
use super::run::Restored;
use super::server::Server;
use super::watch::{Stage, Watch};
use crate::postgres::control_file::{CONTROL_FILE, ControlFile};
use crate::postgres::timeline::{TimelineHistory, history_file_name};
use pg_ark_contract::{Error, ErrorKind, Lsn, Result, Timeline};
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Name of the log in the data directory, where no better place is known.
const LOG: &str = "pg_ark_start.log";
/// Most bytes of a log that are looked at.
const LOG_TAIL: u64 = 256 << 10;

/// A server that has recovered and takes connections.
#[derive(Debug, Clone, Serialize)]
pub struct Started {
    /// Process of the server.
    pub pid: u32,
    /// When the origin was last known to run: RFC 3339, UTC.
    pub interrupted_at: Option<String>,
    /// Commit time of the last transaction that recovery replayed: RFC 3339, UTC.
    pub last_transaction_at: Option<String>,
    /// Why `last_transaction_at` is not known.
    pub last_transaction_note: Option<String>,
    /// The server's timeline.
    pub timeline: Timeline,
    /// Where recovery ended and the timeline begins.
    pub reached_lsn: Option<Lsn>,
    /// Where the backup ended.
    pub stop_lsn: Option<Lsn>,
    /// Port.
    pub port: u16,
    /// Folder of its socket; empty when it has none.
    pub socket_folder: String,
    /// File that the server's messages went to while it started.
    pub log: PathBuf,
}

/// Starts the server and waits until it takes connections; then removes what recovery alone needed.
///
/// # Errors
/// `RecoveryFailed` with the last lines of the log when the server ends; `Cancelled` when the user stops waiting;
/// `PermissionDenied` when there is no user to run it as.
pub fn start(prepared: &Prepared, restored: &Restored, watch: &dyn Watch) -> Result<Started> {
    let Prepared { plan, record, .. } = prepared;
    let data = &restored.data_directory;
    let server = plan.server.as_ref().ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, "no server that fits the backup was found")
            .hint("Name the folder of its programs with --bindir.")
    })?;
    let arguments = arguments(data, plan.config.main.as_deref())?;
    let log = log_path(data, plan.config.main.as_deref());
    let (log_file, log_begin) = open_log(&log, &plan.access)?;
    let program = server.bindir.join("postgres");
    let mut command = as_owner(&program, &plan.access)?;
    command.args(arguments).current_dir("/").stdin(Stdio::null());
    let second =
        log_file.try_clone().map_err(|e| Error::io(format!("could not open \"{}\"", log.display()), &e))?;
    command.stdout(log_file).stderr(second);
    let (from, to) = (record.start_lsn.unwrap_or_default(), record.stop_lsn.unwrap_or_default());
    watch.stage(Stage::Recover, to.0.saturating_sub(from.0));
    let mut child =
        command.spawn().map_err(|e| Error::io(format!("could not run \"{}\"", program.display()), &e))?;
    let followed = follow::until_ready(&mut child, data, record.wal_segment_size, from, to, watch);
    let lock = match followed {
        Ok(lock) => lock,
        Err(error) if error.kind == ErrorKind::RecoveryFailed => {
            return Err(failed(error, data, &log, log_begin));
        }
        Err(error) => return Err(error),
    };
    let report = report(server, prepared, restored, lock, child.id(), &log, log_begin)?;
    recovery::clean_up(data, &plan.access)?;
    Ok(report)
}

/// Arguments of `postgres`. A main file elsewhere is named, and cannot lead to another data directory.
fn arguments(data: &Path, main: Option<&Path>) -> Result<Vec<std::ffi::OsString>> {
    let setting = |name: &str, value: &Path| {
        let mut text = std::ffi::OsString::from(format!("{name}="));
        text.push(value);
        [std::ffi::OsString::from("-c"), text]
    };
    let mut arguments: Vec<std::ffi::OsString> = vec!["-D".into(), data.into()];
    // The restore made everything durable. Without this the server syncs each file again by itself.
    arguments.extend(["-c", "recovery_init_sync_method=syncfs"].map(Into::into));
    match main {
        Some(main) => {
            arguments.extend(setting("config_file", main));
            arguments.extend(setting("data_directory", data));
        }
        None if !data.join("postgresql.conf").exists() => {
            return Err(Error::new(
                ErrorKind::ServerNotReady,
                format!("there is no postgresql.conf in \"{}\"", data.display()),
            )
            .hint(
                "The restore itself is complete. Put a configuration there and start the server by hand.",
            ));
        }
        None => {}
    }
    Ok(arguments)
}

/// Debian's place for a cluster configured in /etc/postgresql/VERSION/NAME; otherwise a file in the data directory.
fn log_path(data: &Path, main: Option<&Path>) -> PathBuf {
    let debian = main.and_then(|main| {
        let mut parts = main.strip_prefix("/etc/postgresql").ok()?.iter().map(|part| part.to_str());
        let (version, name) = (parts.next()??, parts.next()??);
        Some(PathBuf::from(format!("/var/log/postgresql/postgresql-{version}-{name}.log")))
    });
    match debian {
        Some(path) if OpenOptions::new().append(true).open(&path).is_ok() => path,
        Some(path)
            if path.parent().is_some_and(|p| rustix::fs::access(p, rustix::fs::Access::WRITE_OK).is_ok()) =>
        {
            path
        }
        _ => data.join(LOG),
    }
}

/// Root appends to no file that somebody else's link leads to.
const NO_LINK: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;

fn open_log(path: &Path, access: &Access) -> Result<(File, u64)> {
    let open = || -> std::io::Result<(File, u64)> {
        let existed = path.exists();
        let file =
            OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(NO_LINK).open(path)?;
        if let (false, Some(owner)) = (existed, &access.owner) {
            fchown(&file, Some(owner.uid), Some(owner.gid))?;
        }
        let len = file.metadata()?.len();
        Ok((file, len))
    };
    open().map_err(|e| Error::io(format!("could not open log \"{}\"", path.display()), &e))
}

/// A command that runs `program` in a session of its own, so that no signal for this terminal reaches it, and as the
/// owner with all groups the owner has (a key file may be readable by one of them alone).
fn as_owner(program: &Path, access: &Access) -> Result<Command> {
    let mut words: Vec<std::ffi::OsString> = Vec::new();
    if tool("setsid") {
        words.push("setsid".into());
    }
    let root = rustix::process::geteuid().is_root();
    let owner = match &access.owner {
        Some(owner) if owner.uid != 0 => Some(owner),
        _ if root => {
            return Err(Error::new(ErrorKind::PermissionDenied, "a server cannot be run as root").hint(
                "The restore itself is complete. Give the files to the server's user and start it by hand.",
            ));
        }
        _ => None,
    };
    let with_tool = owner.filter(|owner| owner.user.is_some() && tool("setpriv"));
    if let Some(Owner { uid, gid, .. }) = with_tool {
        words.extend(["setpriv", "--init-groups", "--reset-env"].map(Into::into));
        words.extend([format!("--reuid={uid}"), format!("--regid={gid}"), "--".to_string()].map(Into::into));
    }
    words.push(program.into());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    if let (None, Some(owner)) = (with_tool, owner) {
        command.uid(owner.uid).gid(owner.gid);
    }
    Ok(command)
}

fn tool(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

fn failed(error: Error, data: &Path, log: &Path, begin: u64) -> Error {
    let mut text = tail(log, begin);
    let mut place = log.to_path_buf();
    // With logging_collector on, the reason is in the collector's file.
    if let Ok(current) = std::fs::read_to_string(data.join("current_logfiles"))
        && let Some(path) = current.lines().find_map(|line| line.strip_prefix("stderr "))
    {
        place = data.join(path);
        text.push_str(&tail(&place, 0));
    }
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(15)..].join("\n");
    error.detail(last).hint(format!(
        "The restored files are in \"{}\". The server's messages are in \"{}\".",
        data.display(),
        place.display()
    ))
}

fn tail(path: &Path, begin: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(begin.max(len.saturating_sub(LOG_TAIL))))?;
        let mut text = Vec::new();
        file.take(LOG_TAIL).read_to_end(&mut text)?;
        Ok(text)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

fn report(
    server: &Server,
    prepared: &Prepared,
    restored: &Restored,
    lock: Lock,
    pid: u32,
    log: &Path,
    log_begin: u64,
) -> Result<Started> {
    let data = &restored.data_directory;
    let path = data.join(CONTROL_FILE);
    let bytes =
        std::fs::read(&path).map_err(|e| Error::io(format!("could not read \"{}\"", path.display()), &e))?;
    let timeline = ControlFile::parse(&bytes)?.checkpoint_timeline;
    let history = std::fs::read(data.join("pg_wal").join(history_file_name(timeline))).ok();
    let history = history.and_then(|bytes| TimelineHistory::parse(timeline, &bytes).ok());
    let (last_transaction_at, last_transaction_note) =
        match last_transaction(server, &lock, &prepared.plan.access) {
            Ok(Some(time)) => (Some(time), None),
            Ok(None) => (None, Some("recovery replayed no transaction".to_string())),
            Err(why) => match logged_transaction(&tail(log, log_begin)) {
                Some(time) => (Some(time), None),
                None => (None, Some(format!("could not ask the server: {why}"))),
            },
        };
    let interrupted_at = chrono::DateTime::from_timestamp(restored.control_time, 0)
        .map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
    Ok(Started {
        pid,
        interrupted_at,
        last_transaction_at,
        last_transaction_note,
        timeline,
        reached_lsn: history.and_then(|h| h.entries.last().map(|entry| entry.switch_lsn)),
        stop_lsn: prepared.record.stop_lsn,
        port: lock.port,
        socket_folder: lock.socket_folder,
        log: log.to_path_buf(),
    })
}

/// Asks the server for the last replayed commit.
fn last_transaction(
    server: &Server,
    lock: &Lock,
    access: &Access,
) -> std::result::Result<Option<String>, String> {
    const QUERY: &str = "SELECT to_char(pg_last_xact_replay_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    let mut command = as_owner(&server.bindir.join("psql"), access).map_err(|e| e.to_string())?;
    let host = if lock.socket_folder.is_empty() { "localhost" } else { &lock.socket_folder };
    command.args(["-X", "-A", "-t", "-q", "-w", "-d", "postgres", "-h", host, "-p"]);
    command.arg(lock.port.to_string()).args(["-c", QUERY]).current_dir("/").stdin(Stdio::null());
    command.env("PGCONNECT_TIMEOUT", "5").env("PGOPTIONS", "");
    let output = command.output().map_err(|e| e.to_string())?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(why.lines().next().unwrap_or("psql failed").to_string());
    }
    let text = String::from_utf8_lossy(&output.stdout).trim().to_string();
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// What the server logged about it, in its own time zone.
fn logged_transaction(log: &str) -> Option<String> {
    log.lines()
        .rev()
        .find_map(|line| line.split_once("last completed transaction was at log time "))
        .map(|(_, time)| time.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_name_external_configuration() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(arguments(dir.path(), None).unwrap_err().kind, ErrorKind::ServerNotReady);
        std::fs::write(dir.path().join("postgresql.conf"), "").unwrap();
        assert_eq!(arguments(dir.path(), None).unwrap().len(), 4);
        let external = arguments(Path::new("/d"), Some(Path::new("/etc/p.conf"))).unwrap();
        assert_eq!(external[4..], ["-c", "config_file=/etc/p.conf", "-c", "data_directory=/d"]);
    }

    #[test]
    fn the_log_tells_the_last_transaction() {
        let log =
            "x\n2026-01-01 LOG:  last completed transaction was at log time 2026-01-01 10:00:00.5+01\ny\n";
        assert_eq!(logged_transaction(log).unwrap(), "2026-01-01 10:00:00.5+01");
    }
}
