//! A server for the restore alone: nobody else reaches it, and it dies with this process.
//!
//! It listens in a folder that only its user may enter. It writes nothing durably, since a restore that does not come to its end
//! leaves nothing anyhow. A thread of its own starts it and waits for it: the kernel ends a program with the thread that started
//! it.

use crate::bounded;
use crate::logical::child::{Ended, Keeper};
use crate::logical::connection::Connection;
use crate::restore::access::Access;
use pg_ark_contract::{Error, ErrorKind, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// The port is part of a socket's name, and no socket but its own is in its folder.
const PORT: u16 = 5432;
/// Name of the socket in its folder (`UNIXSOCK_PATH`, libpq/pqcomm.h).
const SOCKET: &str = ".s.PGSQL.5432";
/// Longest path of a socket: `sun_path` has 108 bytes with the one that ends it (unix(7)).
const MAX_SOCKET: usize = 107;
/// Folder for the socket in the data directory, where that path is short enough.
pub const SOCKETS: &str = "pg_ark.s";
/// What the server says once it lets clients in (`PostmasterStateMachine` and `process_pm_child_exit`, postmaster.c).
const READY: &str = "database system is ready to accept connections";
/// The words for a full disk: the system's (strerror(ENOSPC), untranslated), and the server's when a file got only a part of what
/// it was to get (`mdextend` and `mdwrite`, storage/smgr/md.c).
const FULL: [&str; 3] = ["No space left on device", "could not extend file", "Check free disk space"];
/// Lines of a log that hold a statement; where it goes on, a line begins with a tab.
const SPEAKS: [&str; 2] = ["STATEMENT:  ", "Failed process was running: "];
/// Time that a server has to end when the restore failed, before it is killed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections that every server has (`max_connections`, guc_tables.c).
const CONNECTIONS: usize = 100;
/// Connections beside those of pg_restore, whose programs have one more than they have jobs.
const SPARE: usize = 20;
/// Last lines of its log that are kept.
const LINES: usize = 20;
/// The file with the one rule of who may connect.
const HBA: &str = "pg_hba.conf";

/// What overrules the server's own configuration.
const SETTINGS: [&str; 19] = [
    "listen_addresses=",
    "unix_socket_permissions=0700",
    "log_destination=stderr",
    "lc_messages=C",
    "logging_collector=off",
    "log_min_error_statement=panic",
    "log_checkpoints=off",
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "archive_mode=off",
    "autovacuum=off",
    "restart_after_crash=off",
    "maintenance_work_mem=256MB",
    "allow_in_place_tablespaces=on",
    "max_logical_replication_workers=0",
    "pg_ark.repository=",
];

/// Where such a server is.
#[derive(Debug)]
pub struct Place {
    /// The folder of its socket.
    pub folder: PathBuf,
}

impl Place {
    /// The folder for a server whose data directory will be `data`: in there if a client can name the socket. Its path must be
    /// short, and without a comma: libpq takes that for the end of one host of several (`connectOptions2`, fe-connect.c), and
    /// would come to whatever server is at the first.
    pub fn of(data: &Path) -> Place {
        let inside = data.join(SOCKETS);
        let short = |folder: &Path| folder.join(SOCKET).as_os_str().len() <= MAX_SOCKET;
        let plain = |folder: &Path| folder.to_str().is_some_and(|text| !text.contains(','));
        let folder = match short(&inside) && plain(&inside) {
            true => inside,
            false => Path::new("/tmp").join(format!("pg_ark.{}", uuid::Uuid::new_v4().simple())),
        };
        Place { folder }
    }

    /// Makes it, for its owner alone.
    ///
    /// # Errors
    /// What the system said.
    pub fn create(&self, access: &Access) -> Result<()> {
        let private = Access { owner: access.owner.clone(), group_access: false };
        let create = || private.create_folder(&self.folder);
        create()
            .map_err(|e| Error::io(format!("could not create folder \"{}\"", self.folder.display()), &e))?;
        private.replace_file(&self.folder.join(HBA), b"local all all trust\n", 0o600)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A server to start.
pub struct Private<'a> {
    /// Folder of its programs.
    pub bindir: &'a Path,
    /// Its data directory.
    pub data: &'a Path,
    /// Where it listens.
    pub place: &'a Place,
    /// Who owns it.
    pub access: &'a Access,
    /// The role to connect as.
    pub user: &'a str,
    /// Its major version.
    pub major: u32,
    /// Most programs that connect to it at once, each with so many connections.
    pub jobs: usize,
    /// Libraries that it loads.
    pub libraries: &'a str,
    /// Raised when it ends by itself, so that its clients end, too.
    pub gone: &'a AtomicBool,
}

/// What the thread of the server tells.
enum Told {
    Ready,
    Ended(Result<Ended>, Vec<String>),
}

impl Private<'_> {
    /// Does `work` with the running server, and stops it: cleanly when the work is done, at once when it failed.
    ///
    /// # Errors
    /// `RecoveryFailed` with its last words when it does not start or ends early; those of `work`; the order to stop.
    pub fn with<T>(
        &self,
        stop: &(dyn Fn() -> Result<()> + Sync),
        work: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
        let socket = self.place.folder.to_str().unwrap_or_default();
        let connection = Connection::socket(socket, PORT, self.user).of_major(self.major).without_libraries();
        let (abandoned, asked) = (AtomicBool::new(false), AtomicBool::new(false));
        let give_up = || {
            stop()?;
            match abandoned.load(Ordering::Relaxed) {
                true => Err(Error::new(ErrorKind::Cancelled, "the server of the restore was stopped")),
                false => Ok(()),
            }
        };
        let (tell, hear) = channel();
        std::thread::scope(|scope| {
            scope.spawn(|| self.serve(&give_up, &asked, tell));
            if let Some(end) = self.until_ready(&hear) {
                return Err(end);
            }
            let result = work(&connection);
            asked.store(true, Ordering::Relaxed);
            if let Ok(Told::Ended(ended, lines)) = hear.try_recv() {
                return Err(self.failed("ended too early", ended, &lines));
            }
            let told = self.signal(if result.is_ok() { Signal::INT } else { Signal::QUIT });
            let end = match result.is_ok() && told {
                true => hear.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => hear.recv_timeout(PATIENCE),
            };
            abandoned.store(true, Ordering::Relaxed);
            let value = result?;
            match end {
                Ok(Told::Ended(Ok(ended), _)) if ended.success => Ok(value),
                Ok(Told::Ended(ended, lines)) => Err(self.failed("did not stop as it should", ended, &lines)),
                _ => Err(self.failed("did not stop as it should", stop().map(|()| unknown()), &[])),
            }
        })
    }

    /// Runs the server to its end.
    fn serve(&self, give_up: &(dyn Fn() -> Result<()> + Sync), asked: &AtomicBool, tell: Sender<Told>) {
        let mut lines = VecDeque::new();
        let ended = Keeper::with(give_up, |keeper| {
            let mut command = keeper.command(&self.bindir.join("postgres"), Some(self.access))?;
            command.args(self.arguments());
            let mut line = |line: &str| {
                if line.contains(READY) {
                    let _ = tell.send(Told::Ready);
                }
                // A statement may hold a password.
                if SPEAKS.iter().any(|words| line.contains(words)) || line.starts_with('\t') {
                    return;
                }
                if lines.len() == LINES {
                    lines.pop_front();
                }
                lines.push_back(line.to_string());
            };
            keeper.read(command, &mut |_| Ok(()), &mut line)
        });
        let _ = tell.send(Told::Ended(ended, lines.into()));
        // The reason is told before anybody ends for it.
        self.gone.fetch_or(!asked.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Waits until it lets clients in; gives the reason if it ended instead.
    fn until_ready(&self, hear: &Receiver<Told>) -> Option<Error> {
        match hear.recv() {
            Ok(Told::Ready) => None,
            Ok(Told::Ended(ended, lines)) => Some(self.failed("did not start", ended, &lines)),
            Err(_) => Some(self.failed("did not start", Ok(unknown()), &[])),
        }
    }

    fn failed(&self, what: &str, ended: Result<Ended>, lines: &[String]) -> Error {
        let status = match ended {
            Ok(ended) => ended.status,
            Err(error) => return error,
        };
        let message = format!("the server that the dumps go into {what}: it {status}");
        let kind = match lines.iter().any(|line| is_full(line)) {
            true => ErrorKind::DiskFull,
            false => ErrorKind::RecoveryFailed,
        };
        Error::new(kind, message)
            .detail(lines.join("\n"))
            .hint("Mend the cause, remove what the restore left, and try again.")
    }

    fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["-D".into(), self.data.into()];
        let mut set = |setting: OsString| arguments.extend([OsString::from("-c"), setting]);
        SETTINGS.iter().for_each(|setting| set(setting.into()));
        let mut hba = OsString::from("hba_file=");
        hba.push(self.place.folder.join(HBA));
        set(hba);
        let mut sockets = OsString::from("unix_socket_directories=");
        // A list, in which quotes keep a comma.
        sockets.push(format!("\"{}\"", self.place.folder.display().to_string().replace('"', "\"\"")));
        set(sockets);
        set(format!("port={PORT}").into());
        set(format!(
            "max_connections={}",
            CONNECTIONS.max(self.jobs.saturating_mul(2).saturating_add(SPARE))
        )
        .into());
        if !self.libraries.is_empty() {
            set(format!("shared_preload_libraries={}", self.libraries).into());
            // Libraries may start processes that connect to databases which are about to be dropped and made anew.
            set("max_worker_processes=0".into());
        }
        arguments
    }

    /// Signals the server, whose process the first line of its lock file names; whether there was one to signal.
    fn signal(&self, signal: Signal) -> bool {
        let lock = bounded::text(&self.data.join("postmaster.pid"), bounded::MAX_LINES).ok();
        let pid = lock.and_then(|text| text.lines().next()?.trim().parse().ok()).filter(|pid| *pid > 0);
        pid.and_then(Pid::from_raw).is_some_and(|pid| kill_process(pid, signal).is_ok())
    }
}

/// Whether a message tells of a full disk.
pub fn is_full(message: &str) -> bool {
    FULL.iter().any(|words| message.contains(words))
}

fn unknown() -> Ended {
    let (status, errors) = ("ended in an unknown way".to_string(), Vec::new());
    Ended { success: false, code: None, status, errors }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_have_short_paths() {
        let short = Place::of(Path::new("/srv/data"));
        assert_eq!(short.folder, Path::new("/srv/data/pg_ark.s"));
        let long = Place::of(&Path::new("/srv").join("x".repeat(100)));
        // A client would look for the server of another folder.
        assert!(Place::of(Path::new("/srv/run,x")).folder.starts_with("/tmp"));
        assert!(long.folder.starts_with("/tmp") && long.folder.join(SOCKET).as_os_str().len() <= MAX_SOCKET);
    }

    #[test]
    fn a_full_disk_is_known_by_the_words_of_the_server() {
        let block = "ERROR:  could not write block 12 in file \"base/1/2\": wrote only 4096 of 8192 bytes";
        assert!(is_full("2026-11-23 HINT:  Check free disk space.") && !is_full(block));
        assert!(is_full("PANIC:  could not write to file \"x\": No space left on device"));
    }

    #[test]
    fn only_its_owner_enters_the_place_of_the_server() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let place = Place::of(dir.path());
        place.create(&Access { owner: None, group_access: true }).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&place.folder), mode(&place.folder.join(HBA))), (0o700, 0o600));
        let folder = place.folder.clone();
        drop(place);
        assert!(!folder.exists());
    }
}
