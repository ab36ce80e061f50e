//! `pgark`: lists, shows and restores backups with nothing but the repository; and the engine behind the extension.
//!
//! * [`cli`]: arguments and help. * [`commands`]: one file per command. * [`output`]: what goes to stdout.
//! * [`talk`]: what goes to stderr, signals and progress. * [`engine_mode`]: the hidden `pgark engine`.
//! * [`private`]: nothing that it writes or holds is for others.

mod cli;
mod commands;
mod engine_mode;
mod output;
mod private;
mod progress;
mod talk;

use std::process::ExitCode;

fn main() -> ExitCode {
    private::begin();
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == "engine") && arguments.next().is_none() {
        return engine_mode::run();
    }
    commands::wal_get::guarded(|| commands::run(&cli::parse()).unwrap_or_else(|error| talk::fail(&error)))
}
