//! Commands, their output, and the OS user that servers run as.

use std::fmt;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// A command that takes longer is killed: a hanging test should fail, not stop the run.
const COMMAND_LIMIT: Duration = Duration::from_secs(900);

/// What a finished command left.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit status.
    pub status: ExitStatus,
    /// Standard output, invalid UTF-8 replaced.
    pub stdout: String,
    /// Standard error, invalid UTF-8 replaced.
    pub stderr: String,
    command: String,
}

impl Output {
    /// Exit code; 128 plus the signal's number when a signal ended it, as a shell reports it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Whether the exit code is 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// Standard output of a command that must have succeeded.
    ///
    /// # Panics
    /// With command and output when it failed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.success(), "{self}");
        self.stdout
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\nexit code {}\n--- stdout\n{}\n--- stderr\n{}",
            self.command,
            self.code(),
            self.stdout,
            self.stderr
        )
    }
}

/// User and group that servers run as: `postgres` when the tests run as root, else nobody but the caller.
///
/// # Panics
/// As root on a machine without the user `postgres`.
pub(crate) fn server_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let passwd = fs::read_to_string("/etc/passwd").expect("could not read /etc/passwd");
    let line = passwd.lines().find(|line| line.starts_with("postgres:")).expect(
        "there is no OS user \"postgres\", which servers run as when the tests run as root; \
         install PostgreSQL (scripts/install does) or run the tests as another user",
    );
    let mut fields =
        line.split(':').skip(2).map(|field| field.parse::<u32>().expect("number in /etc/passwd"));
    Some((fields.next().expect("uid"), fields.next().expect("gid")))
}

/// Makes the command run as the server's OS user, in a folder that this user may enter.
pub fn as_server_user(command: &mut Command) -> &mut Command {
    if let Some((uid, gid)) = server_user() {
        command.uid(uid).gid(gid).env("HOME", "/tmp").env("USER", "postgres");
    }
    command.current_dir("/tmp")
}

/// A command that runs as the server's OS user, in the C.UTF-8 locale and without the caller's `PG*` variables.
pub fn command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command.env("LC_ALL", "C.UTF-8").env("TZ", "UTC").stdin(Stdio::null());
    as_server_user(&mut command);
    command
}

/// Runs a command to its end and collects its output.
///
/// # Panics
/// When it cannot be started, or runs for more than 15 minutes.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    let shown = format!("{command:?}");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("could not run {shown}: {error}"));
    let pid = child.id();
    let (finished, watch) = mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if watch.recv_timeout(COMMAND_LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            crate::process::send_signal(pid, crate::process::KILL);
            return true;
        }
        false
    });
    let collect = |mut pipe: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // What was read before an error is worth more than the error.
            let _ = pipe.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let stdout = collect(Box::new(child.stdout.take().expect("piped")));
    let stderr = collect(Box::new(child.stderr.take().expect("piped")));
    let status = child.wait().unwrap_or_else(|error| panic!("could not wait for {shown}: {error}"));
    let stdout = stdout.join().expect("reader of stdout");
    let stderr = stderr.join().expect("reader of stderr");
    drop(finished);
    let hung = watchdog.join().expect("watchdog");
    let output = Output { status, stdout, stderr, command: shown };
    assert!(!hung, "killed after {COMMAND_LIMIT:?}: {output}");
    output
}

/// Runs a command that must succeed; returns its standard output.
///
/// # Panics
/// When it fails, with its output.
#[track_caller]
pub fn run_ok(command: &mut Command) -> String {
    run(command).ok()
}

/// Gives a file or folder to the server's OS user.
///
/// # Panics
/// When that is not possible.
#[track_caller]
pub fn chown_to_server(path: &Path) {
    if let Some((uid, gid)) = server_user() {
        chown(path, Some(uid), Some(gid)).unwrap_or_else(|e| panic!("could not chown {path:?}: {e}"));
    }
}

/// Gives a folder and all in it to the server's OS user.
///
/// # Panics
/// When that is not possible.
#[track_caller]
pub fn chown_tree_to_server(path: &Path) {
    if let Some((uid, gid)) = server_user() {
        run_ok(Command::new("chown").arg("-Rh").arg(format!("{uid}:{gid}")).arg(path));
    }
}

/// A folder below /tmp that belongs to the server's OS user and is removed when dropped. Its path is short,
/// because the path of a Unix socket may not exceed 107 bytes.
#[derive(Debug)]
pub struct Scratch(Option<tempfile::TempDir>);

impl Scratch {
    /// Makes one; `what` becomes part of its name.
    ///
    /// # Panics
    /// When the folder cannot be made.
    pub fn new(what: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix(&format!("pg_ark-{what}-"))
            .tempdir_in("/tmp")
            .unwrap_or_else(|e| panic!("could not make a folder in /tmp: {e}"));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod of a new folder");
        chown_to_server(dir.path());
        Scratch(Some(dir))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.0.as_ref().expect("taken only by drop").path()
    }

    /// Makes a folder in it that belongs to the server's OS user, mode 0700.
    ///
    /// # Panics
    /// When that is not possible.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir(&path).unwrap_or_else(|e| panic!("could not make {path:?}: {e}"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("chmod of a new folder");
        chown_to_server(&path);
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Some(dir) = self.0.take() else { return };
        if std::env::var_os("PG_ARK_KEEP").is_some() {
            eprintln!("kept: {}", dir.keep().display());
        } else if let Err(error) = dir.close() {
            eprintln!("could not remove a scratch folder: {error}");
        }
    }
}
