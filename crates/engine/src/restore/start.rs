//! Starts the restored server as the owner of its data directory and follows recovery to its end.

use super::access::Access;
use super::ask::Asked;
use super::course::RecoveryPlan;
use super::follow::{self, Lock, Look, Road, Until};
use super::log::{self, Log};
use super::plan::{Plan, Prepared};
use super::recovery;
use super::report;
pub use super::report::{ServerState, Started};
use super::run::Restored;
use super::run_as::as_owner;
use super::server::Server;
use super::target::TargetAction;
use super::watch::{Stage, Watch};
use pg_ark_contract::{Error, ErrorKind, Lsn, Result};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

/// Name of the log in the data directory, where no better place is known.
const LOG: &str = "pg_ark_start.log";

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
    let road = Road {
        data,
        segment_size: record.wal_segment_size,
        from: record.start_lsn.unwrap_or_default(),
        to: plan.recovery.goal(),
    };
    watch.stage(Stage::Recover, road.to.0.saturating_sub(road.from.0));
    let (mut child, log) = launch(server, data, plan.config.main.as_deref(), &plan.access)?;
    let asked = Asked { server, access: &plan.access };
    let until = until(&plan.recovery);
    let look = |lock: &Lock| {
        let look = place(until, asked.progress(lock).ok(), road.to, &log.since_start(data));
        if let Look::Stuck(error) = look { Look::Stuck(stuck(error, plan, lock, &log)) } else { look }
    };
    let lock = match follow::until(until, &mut child, &road, &look, watch) {
        Ok(lock) => lock,
        Err(error) if error.kind == ErrorKind::RecoveryFailed && error.hint.is_none() => {
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

/// Starts the server of a data directory, with the file that its messages go to.
///
/// # Errors
/// As [`start`].
pub(crate) fn launch(
    server: &Server,
    data: &Path,
    main: Option<&Path>,
    access: &Access,
) -> Result<(Child, Log)> {
    let arguments = arguments(data, main)?;
    let log = log_path(data, main);
    let (log_file, log_begin) = open_log(&log, access)?;
    let log = Log { path: log, begin: log_begin };
    let program = server.bindir.join("postgres");
    let mut command = as_owner(&program, access)?;
    command.args(arguments).current_dir("/").stdin(Stdio::null());
    let second = log_file
        .try_clone()
        .map_err(|e| Error::io(format!("could not open \"{}\"", log.path.display()), &e))?;
    command.stdout(log_file).stderr(second);
    let child =
        command.spawn().map_err(|e| Error::io(format!("could not run \"{}\"", program.display()), &e))?;
    Ok((child, log))
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

/// Where a server is that lets clients read, by what it answers: how far it is and whether it is paused; else by its log.
fn place(until: Until, answer: Option<(Lsn, bool)>, goal: Lsn, words: &str) -> Look {
    let pauses = until == Until::Paused;
    let too_low = || log::too_low(words);
    let stuck = |message: String| Look::Stuck(Error::new(ErrorKind::RecoveryFailed, message));
    match answer {
        Some((replayed, true)) if pauses && log::is_at(replayed, goal) => Look::There,
        Some((replayed, true)) => match too_low() {
            Some(setting) => stuck(format!("recovery paused at {replayed}, before {goal}: {setting}")),
            None if pauses && log::stopped(words).is_some() => Look::There,
            None => stuck(format!("recovery paused at {replayed}, before {goal}")),
        },
        Some((replayed, false)) if !pauses && log::is_at(replayed, goal) => Look::There,
        Some((replayed, false)) => Look::Onward(replayed),
        None if pauses && log::waits(words) && log::stopped(words).is_some() => Look::There,
        None => match too_low() {
            Some(setting) => stuck(format!("recovery paused before {goal}: {setting}")),
            None => Look::Unknown,
        },
    }
}

/// What to do with a server that waits for its settings.
fn stuck(error: Error, plan: &Plan, lock: &Lock, log: &Log) -> Error {
    let data = &plan.data_directory;
    let main = plan.config.main.clone().unwrap_or_else(|| data.join("postgresql.conf"));
    error.hint(format!(
        "The server runs (process {}) and waits. Raise the setting in \"{}\" to what its original had, and restart \
         the server: recovery goes on. Its messages are in \"{}\".",
        lock.pid,
        main.display(),
        Log::collected(data).unwrap_or_else(|| log.path.clone()).display()
    ))
}

/// Adds what the server said.
pub(crate) fn failed(error: Error, data: &Path, log: &Log) -> Error {
    let mut text = log.tail();
    let mut place = log.path.clone();
    // With logging_collector on, the reason is in the collector's file.
    if let Some(collected) = Log::collected(data) {
        place = collected;
        text.push_str(&log::tail(&place, 0));
    }
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n");
    error.detail(last).hint(format!(
        "The restored files are in \"{}\". The server's messages are in \"{}\".",
        data.display(),
        place.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STOPPED: &str = "1 LOG:  recovery stopping before commit of transaction 7, time x\n";
    const WAITS: &str = "1 LOG:  pausing at the end of recovery\n";
    const TOO_LOW: &str = "1 DETAIL:  max_connections = 20 is a lower setting than on the primary server, where its value was 30.\n";

    fn placed(until: Until, answer: Option<(u64, bool)>, words: &str) -> String {
        match place(until, answer.map(|(lsn, paused)| (Lsn(lsn), paused)), Lsn(100), words) {
            Look::There => "there".to_string(),
            Look::Onward(lsn) => format!("onward {lsn}"),
            Look::Unknown => "unknown".to_string(),
            Look::Stuck(error) => error.message,
        }
    }

    #[test]
    fn a_pause_counts_only_at_the_target() {
        let placed = |answer, words: &str| placed(Until::Paused, answer, words);
        assert_eq!(placed(Some((100, true)), ""), "there");
        assert_eq!(placed(Some((100, false)), ""), "onward 0/64");
        assert_eq!(placed(Some((99, true)), STOPPED), "there");
        assert!(placed(Some((99, true)), TOO_LOW).contains("max_connections = 20 is a lower setting"));
        assert_eq!(placed(Some((99, true)), ""), "recovery paused at 0/63, before 0/64");
        // It cannot be asked.
        assert_eq!(placed(None, ""), "unknown");
        assert_eq!(placed(None, STOPPED), "unknown");
        assert_eq!(placed(None, &format!("{STOPPED}{WAITS}")), "there");
        assert!(placed(None, TOO_LOW).contains("max_connections = 20 is a lower setting"));
    }

    #[test]
    fn a_standby_is_waited_for_up_to_the_known_end() {
        let placed = |answer, words: &str| placed(Until::Standby, answer, words);
        assert_eq!(placed(Some((100, false)), ""), "there");
        assert_eq!(placed(Some((99, false)), ""), "onward 0/63");
        assert!(placed(Some((99, true)), TOO_LOW).contains("max_connections = 20 is a lower setting"));
        assert_eq!(placed(None, ""), "unknown");
    }

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
