//! `pgark wal-get`: a `restore_command`. Exit codes are the answer, so nothing but the answer may decide them: not a
//! closed stderr, not a panic, not a mistake on the command line.
//!
//! PostgreSQL takes 1 to 125 for "there is no such file", and opens the server when recovery asked for the next segment
//! (`RestoreArchivedFile` in access/transam/xlogarchive.c). So 1 is said only when that is proved, and every fault is 200 and more.

use crate::cli::Cli;
use crate::output;
use clap::Args;
use pg_ark_contract::{Error, ErrorKind, Result};
use pg_ark_engine::wal::get::{self, Answer, Request};
use pg_ark_engine::wal::spool::is_standby;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

/// Set for the process that fetches ahead: as a restore_command `--ahead` would deliver nothing and say that it did.
const AHEAD: &str = "PGARK_AHEAD";
/// The name of the command.
const NAME: &str = "wal-get";
/// Segments that are fetched ahead at the same time when nothing is said, at least and at most: one per core. A single one
/// would leave its core idle while the disk writes.
const JOBS: (usize, usize) = (2, 8);
/// Priority of the process that fetches ahead: on few cores replay would wait for it otherwise.
const NICE: i32 = 10;

/// Arguments of `pgark wal-get`.
#[derive(Debug, Args)]
pub struct WalGetArgs {
    /// Name of the file: what restore_command gives as %f
    #[arg(value_name = "NAME")]
    name: String,
    /// Where it goes: what restore_command gives as %p
    #[arg(value_name = "DESTINATION")]
    destination: PathBuf,
    /// Most bytes that are fetched ahead during a recovery: 512MB, 2GB; 0 fetches nothing ahead
    #[arg(long, value_name = "SIZE", default_value = "512MB", value_parser = parse_size)]
    spool_size: u64,
    /// Folder for what is fetched ahead [default: .pg_ark_spool beside DESTINATION, which is quickest]
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
    /// Segments fetched ahead at the same time [default: one per core, at least 4]
    #[arg(long, short = 'j', value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
    /// Fetch what comes after NAME
    #[arg(long, hide = true)]
    ahead: bool,
}

/// Examples, and the complete table of exit codes.
pub fn long_help() -> String {
    let mut text = String::from(
        "Example, for postgresql.conf:
  restore_command = 'pgark --repo file:///backups --cluster main wal-get \"%f\" \"%p\"'

What is handed over was checked: its checksums, its length, and that its first page has the system
identifier, the timeline and the address that its name promises. While a server recovers, the segments
that follow are fetched ahead by a process of their own, which ends with the recovery.

Exit codes:
    0  the file is at DESTINATION
    1  proved: the archive does not have it, nor any WAL after it; recovery may end here
Faults, after which PostgreSQL stops and says so. On a standby, with standby.signal in the working
directory, they are told on stderr and answered with 1, and PostgreSQL asks again; but mistakes in
restore_command itself (202, 203) are not:",
    );
    for kind in ErrorKind::ALL {
        text.push_str(&format!("\n  {:>3}  {}", kind.wal_get_exit_code(), kind.meaning()));
    }
    text
}

/// Runs `run` so that a panic is no answer either, when the command line asks for `wal-get`.
pub fn guarded(run: impl FnOnce() -> ExitCode) -> ExitCode {
    match is_asked_for() {
        true => catch_unwind(AssertUnwindSafe(run))
            .unwrap_or_else(|_| ExitCode::from(ErrorKind::Internal.wal_get_exit_code())),
        false => run(),
    }
}

/// Tells a mistake on the command line, or what `--help` and `--version` ask for, and ends the process. A mistake in
/// `wal-get`, and in the data directory of a server in recovery anything, has a fault's code: PostgreSQL takes a file that
/// is not there after exit 0 for the end of the WAL, and meets a misspelt `wal-get` there.
pub fn usage(error: &clap::Error) -> ! {
    if (error.use_stderr() && is_asked_for()) || recovers() {
        let _ = error.print();
        std::process::exit(ErrorKind::InvalidArgument.wal_get_exit_code().into());
    }
    error.exit()
}

/// Whether this is the data directory of a server in recovery, where restore_command runs.
fn recovers() -> bool {
    ["recovery.signal", "standby.signal"].iter().any(|name| PathBuf::from(name).exists())
}

fn is_asked_for() -> bool {
    std::env::args_os().skip(1).any(|argument| argument == NAME)
}

/// Answers; what kept the file away is told on stderr.
pub fn run(cli: &Cli, arguments: &WalGetArgs) -> ExitCode {
    let answer = catch_unwind(AssertUnwindSafe(|| answer(cli, arguments)))
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "the program failed")));
    match answer {
        Ok(Answer::Delivered) => ExitCode::SUCCESS,
        Ok(Answer::Absent) => ExitCode::from(1),
        Err(error) => {
            tell(&arguments.name, &error);
            // Asking again mends no mistake in the settings.
            let mistaken = matches!(error.kind, ErrorKind::InvalidArgument | ErrorKind::RepositoryUnset);
            match is_standby(&PathBuf::from(".")) && !mistaken {
                true => ExitCode::from(1),
                false => ExitCode::from(error.kind.wal_get_exit_code()),
            }
        }
    }
}

fn answer(cli: &Cli, arguments: &WalGetArgs) -> Result<Answer> {
    let open = || {
        let repository = super::repository(cli).map_err(away)?;
        let name = match &cli.cluster {
            Some(name) if !name.is_empty() => name.clone(),
            _ => super::default_cluster(repository.clusters()?)?,
        };
        let cluster = repository.cluster(&name)?;
        Ok((repository.id().to_string(), cluster))
    };
    let given = [cli.repo.as_deref(), cli.cluster.as_deref()];
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let request = Request {
        data: std::env::current_dir().unwrap_or_else(|_| PathBuf::from(".")),
        name: &arguments.name,
        destination: arguments.destination.clone(),
        system_identifier: cli.system_identifier,
        spool: arguments.spool.clone(),
        spool_bytes: arguments.spool_size,
        jobs: arguments.jobs.map_or(cores.clamp(JOBS.0, JOBS.1), usize::from),
        origin: given.into_iter().map(Option::unwrap_or_default).collect(),
        open: &open,
        start: &|| start(cli, arguments),
    };
    if arguments.ahead {
        if std::env::var_os(AHEAD).is_none() {
            let message = "--ahead delivers nothing: wal-get uses it for itself";
            return Err(
                Error::new(ErrorKind::InvalidArgument, message).hint("Leave it out of restore_command.")
            );
        }
        detach();
        // Nobody listens, and nobody needs to: what could not be fetched ahead is fetched when it is asked for.
        let _ = get::fetch_ahead(&request);
        return Ok(Answer::Delivered);
    }
    get::get(&request)
}

/// Whoever recovers had a repository: to make an empty one in its place would be the wrong way out.
fn away(error: Error) -> Error {
    match error.kind {
        ErrorKind::RepositoryNotFound => {
            error.hint("If it was there before, mount it or bring it back; else check --repo (PGARK_REPO).")
        }
        _ => error,
    }
}

/// Starts the process that fetches ahead. It has none of the server's pipes: PostgreSQL would wait for it.
fn start(cli: &Cli, arguments: &WalGetArgs) {
    let Ok(program) = std::env::current_exe() else { return };
    let mut command = Command::new(program);
    command.env(AHEAD, "1");
    for (option, value) in [("--repo", &cli.repo), ("--cluster", &cli.cluster)] {
        if let Some(value) = value {
            command.arg(option).arg(value);
        }
    }
    if let Some(system) = cli.system_identifier {
        command.arg("--system-identifier").arg(system.to_string());
    }
    command.args([NAME, "--ahead", "--spool-size", &arguments.spool_size.to_string()]);
    if let Some(folder) = &arguments.spool {
        command.arg("--spool").arg(folder);
    }
    if let Some(jobs) = arguments.jobs {
        command.arg("--jobs").arg(jobs.to_string());
    }
    command.arg("--").arg(&arguments.name).arg(&arguments.destination);
    // It is nobody's child as soon as this process ends, so nobody has to wait for it. Without it recovery is slower.
    let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
}

/// Leaves the server's process group, whose signals are not meant for this process, and its files.
fn detach() {
    let _ = rustix::process::setsid();
    // Replay comes first. A session is scheduled as a group, whose own priority counts (sched(7), autogroup).
    let _ = rustix::process::nice(NICE);
    let _ = crate::private::with_own_proc(|| std::fs::write("/proc/self/autogroup", NICE.to_string()));
    crate::engine_mode::close_inherited();
}

/// Tells an error in one line, and its hint. A stderr that is closed changes nothing.
fn tell(name: &str, error: &Error) {
    let line = |text: String| output::printable(&text).replace('\n', " ");
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(stderr, "{}", line(format!("error: wal-get {name}: {error}")));
    if let Some(hint) = &error.hint {
        let _ = writeln!(stderr, "{}", line(format!("hint: {hint}")));
    }
}

/// A size in bytes, kB, MB, GB or TB, in powers of 1024 as in postgresql.conf.
fn parse_size(text: &str) -> std::result::Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "kB" => 10,
        "MB" => 20,
        "GB" => 30,
        "TB" => 40,
        _ => return Err("write it in B, kB, MB, GB or TB, for example 512MB".to_string()),
    };
    let number: u64 =
        number.parse().map_err(|_| "write it as a number and a unit, for example 512MB".to_string())?;
    number.checked_mul(1 << shift).ok_or_else(|| "it is too large".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [("0", 0), ("17", 17), ("512MB", 512 << 20), ("2 GB", 2 << 30), ("1kB", 1024)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "MB", "1mb", "-1", "1.5GB", "99999999TB", "1 MBx", "é"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_fault_has_its_code_in_the_help() {
        let help = long_help();
        for kind in ErrorKind::ALL {
            assert!(kind.wal_get_exit_code() > 200);
            assert!(
                help.contains(&format!("\n  {}  {}", kind.wal_get_exit_code(), kind.meaning())),
                "{kind:?}"
            );
        }
    }
}
