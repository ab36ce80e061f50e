//! What goes to stderr, and the signals that ask to stop.

use crate::output;
use pg_ark_contract::{Error, ErrorKind, Result};
use pg_ark_engine::session::Session;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Tells text on stderr, made printable: what a repository holds may be part of it.
pub fn say(text: &str) {
    eprintln!("{}", output::printable(text));
}

/// Tells an error and its hint; returns its exit code.
pub fn fail(error: &Error) -> ExitCode {
    say(&output::indented(&format!("error: {}", error.message), 7));
    if let Some(detail) = &error.detail {
        say(&format!("detail: {}", output::indented(detail, 8)));
    }
    if let Some(hint) = &error.hint {
        say(&output::indented(&format!("hint: {hint}"), 6));
    }
    ExitCode::from(error.kind.exit_code())
}

/// Tells a warning.
pub fn warn(message: &str) {
    say(&output::indented(&format!("warning: {message}"), 9));
}

/// Becomes true when the user or the system asks to stop; a second signal ends the process at once.
///
/// # Errors
/// When the signals cannot be caught.
pub fn stop_flag() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let code = i32::from(ErrorKind::Cancelled.exit_code());
        signal_hook::flag::register_conditional_shutdown(signal, code, Arc::clone(&flag))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)))
            .map_err(|e| Error::io("could not catch signals", &e))?;
    }
    Ok(flag)
}

/// Stops the work of `session` when the user or the system asks to stop; a second signal ends the process at once.
///
/// # Errors
/// When the signals cannot be caught.
pub fn stop_session(session: &Arc<Session>) -> Result<()> {
    let caught = |e: std::io::Error| Error::io("could not catch signals", &e);
    let seen = Arc::new(AtomicBool::new(false));
    let code = i32::from(ErrorKind::Cancelled.exit_code());
    let all = [SIGHUP, SIGINT, SIGTERM];
    for signal in all {
        signal_hook::flag::register_conditional_shutdown(signal, code, Arc::clone(&seen)).map_err(caught)?;
        signal_hook::flag::register(signal, Arc::clone(&seen)).map_err(caught)?;
    }
    let mut signals = signal_hook::iterator::Signals::new(all).map_err(caught)?;
    let session = Arc::clone(session);
    let wait = move || {
        for signal in signals.forever() {
            let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
            session.stop(Error::new(ErrorKind::Cancelled, format!("stopped by {name}")));
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).map(drop).map_err(caught)
}
