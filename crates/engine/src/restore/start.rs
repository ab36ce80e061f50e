//! Starts the restored server as the owner of its data directory and follows recovery to its end.

use super::access::Access;
use super::ask::Asked;
use super::course::RecoveryPlan;
use super::follow::{self, Road, Until};
use super::plan::Prepared;
use super::recovery;
use super::report;
pub use super::report::{ServerState, Started};
use super::run::Restored;
use super::run_as::as_owner;
use super::target::TargetAction;
use super::watch::{Stage, Watch};
use pg_ark_contract::{Error, ErrorKind, Result};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Name of the log in the data directory, where no better place is known.
const LOG: &str = "pg_ark_start.log";
/// Most bytes of a log that are looked at.
const LOG_TAIL: u64 = 256 << 10;

/// Starts the server and follows recovery to its end; then removes what recovery alone needed, if it is over.
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
    let log = Log { path: log, begin: log_begin };
    let program = server.bindir.join("postgres");
    let mut command = as_owner(&program, &plan.access)?;
    command.args(arguments).current_dir("/").stdin(Stdio::null());
    let second = log_file
        .try_clone()
        .map_err(|e| Error::io(format!("could not open \"{}\"", log.path.display()), &e))?;
    command.stdout(log_file).stderr(second);
    let road = Road {
        data,
        segment_size: record.wal_segment_size,
        from: record.start_lsn.unwrap_or_default(),
        to: plan.recovery.goal(),
    };
    watch.stage(Stage::Recover, road.to.0.saturating_sub(road.from.0));
    let mut child =
        command.spawn().map_err(|e| Error::io(format!("could not run \"{}\"", program.display()), &e))?;
    let asked = Asked { server, access: &plan.access };
    let until = until(&plan.recovery);
    let lock = match follow::until(until, &mut child, &road, &|lock| asked.is_paused(lock), watch) {
        Ok(lock) => lock,
        Err(error) if error.kind == ErrorKind::RecoveryFailed => {
            return Err(failed(error, data, &log));
        }
        Err(error) => return Err(error),
    };
    let mut started = report::build(prepared, restored, until, lock.as_ref(), &asked, &log)?;
    if started.state == ServerState::Primary {
        recovery::clean_up(data, &plan.access)?;
    }
    if let (true, ServerState::Primary, Some(lock)) = (plan.recovery.analyze, started.state, &lock) {
        watch.stage(Stage::Analyze, 0);
        started.analyze_error = asked.analyze(lock, watch)?;
        started.analyzed = Some(started.analyze_error.is_none());
    }
    Ok(started)
}

fn until(plan: &RecoveryPlan) -> Until {
    match plan.action {
        _ if plan.standby => Until::Standby,
        TargetAction::Promote => Until::Primary,
        TargetAction::Pause => Until::Paused,
        TargetAction::Shutdown => Until::Stopped,
    }
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

/// The server's messages since it was started.
pub(super) struct Log {
    /// The file.
    pub path: PathBuf,
    /// Bytes that were in it before.
    pub begin: u64,
}

impl Log {
    /// The end of what the server said.
    pub fn tail(&self) -> String {
        tail(&self.path, self.begin)
    }
}

fn failed(error: Error, data: &Path, log: &Log) -> Error {
    let mut text = log.tail();
    let mut place = log.path.clone();
    // With logging_collector on, the reason is in the collector's file.
    if let Ok(current) = std::fs::read_to_string(data.join("current_logfiles"))
        && let Some(path) = current.lines().find_map(|line| line.strip_prefix("stderr "))
    {
        place = data.join(path);
        text.push_str(&tail(&place, 0));
    }
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n");
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
}
