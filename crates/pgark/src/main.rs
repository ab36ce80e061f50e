//! `pgark`: lists, shows and restores backups with nothing but the repository; and the engine behind the extension.
//!
//! * [`cli`]: arguments and help. * [`commands`]: one file per command. * [`output`]: what goes to stdout.
//! * [`talk`]: what goes to stderr, signals and progress. * [`engine_mode`]: the hidden `pgark engine`.
//! * [`child_mode`]: the hidden `pgark child`, which ties a program to the life of whoever started it.
//! * [`private`]: nothing that it writes or holds is for others.

mod child_mode;
mod cli;
mod commands;
mod engine_mode;
mod output;
mod private;
mod progress;
mod talk;

use std::ffi::OsStr;
use std::process::ExitCode;

fn main() -> ExitCode {
    private::begin();
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next();
    if first.as_deref() == Some(OsStr::new("child")) {
        return child_mode::run(arguments);
    }
    if first.as_deref() == Some(OsStr::new("engine")) && arguments.next().is_none() {
        return engine_mode::run();
    }
    commands::wal_get::guarded(|| commands::run(&cli::parse()).unwrap_or_else(|error| talk::fail(&error)))
}
