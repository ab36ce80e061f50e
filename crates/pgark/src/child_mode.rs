//! `pgark child [--parent PID] PROGRAM ARGS...`: becomes a program that ends when whoever started it does.
//!
//! The kernel sends SIGTERM to it when the thread that started it is gone (`PR_SET_PDEATHSIG`, which lasts over an exec that
//! changes no user). A parent that was gone before that is told by its process id: then nothing is started. 0, and no
//! `--parent`, mean that another program stands between the two, and nothing is compared.

use crate::talk;
use pg_ark_contract::{Error, ErrorKind, Result};
use rustix::process::Signal;
use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// What shells return for a program that cannot be started.
const NOT_STARTED: u8 = 126;

/// Becomes the program; returns only when that cannot be.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match become_program(arguments) {
        Ok(never) => match never {},
        Err(error) => {
            talk::fail(&error);
            ExitCode::from(match error.kind {
                ErrorKind::Io => NOT_STARTED,
                kind => kind.exit_code(),
            })
        }
    }
}

fn become_program(mut arguments: impl Iterator<Item = OsString>) -> Result<Infallible> {
    let mut first = arguments.next();
    let mut parent = 0;
    if first.as_deref() == Some(OsStr::new("--parent")) {
        parent = process_id(arguments.next())?;
        first = arguments.next();
    }
    let program = first.ok_or_else(|| invalid("no program is named"))?;
    // From here on the parent's death is told; one that came earlier is seen by what comes next.
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|e| Error::io("could not ask the kernel to tell of the parent's end", &e.into()))?;
    if parent != 0 && parent_id() != Some(parent) {
        return Err(Error::new(ErrorKind::ParentGone, "the process that asked for the work went away"));
    }
    // Signals and the privacy of this process's memory begin anew there.
    let failed = Command::new(&program).args(arguments).exec();
    Err(Error { kind: ErrorKind::Io, ..Error::io(format!("could not start {}", program.display()), &failed) })
}

fn process_id(text: Option<OsString>) -> Result<u32> {
    let number = text.as_deref().and_then(OsStr::to_str).and_then(|text| text.parse().ok());
    number.ok_or_else(|| invalid("--parent needs a process id"))
}

fn parent_id() -> Option<u32> {
    rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs())
}

fn invalid(message: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("pgark child: {message}"))
        .hint("pgark itself calls it: pgark child --parent PID PROGRAM ARGUMENTS.")
}
