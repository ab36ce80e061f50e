//! `pgark engine`: the child process of a server. One job from stdin, events to stdout, then exit.
//!
//! It never outlives its parent: end of file on stdin, a signal, a broken stdout or the parent's death (which the
//! kernel reports as SIGTERM) order the work to stop; if cleaning up takes longer than [`GRACE`], it ends anyway.
//! What it leaves then is recognised by the next backup as left by a dead writer.

use pg_ark_contract::conversation::{Event, Job, Reply};
use pg_ark_contract::{Error, ErrorKind, VERSION};
use pg_ark_engine::jobs;
use pg_ark_engine::session::Session;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Time to mark the record and release the lease after an order to stop.
const GRACE: Duration = Duration::from_millis(700);
/// Longest line that is read from the server, in bytes: a tablespace_map is part of one.
const MAX_LINE: u64 = 64 << 20;
/// CPU priority of work in the background: the server's own processes come first. Its I/O class is set by the server,
/// which may make the call.
const NICE: i32 = 10;

/// Runs one job.
pub fn run() -> ExitCode {
    close_inherited();
    crate::private::no_core();
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    let session = Arc::new(Session::new(emit));
    session.emit(Event::Hello { version: VERSION.to_string() });
    let mut stdin = std::io::stdin().lock();
    let job: Job = match read_line(&mut stdin) {
        Ok(Some(job)) => job,
        Ok(None) => return ExitCode::from(ErrorKind::ParentGone.exit_code()),
        Err(error) => return fail(&session, error),
    };
    drop(stdin);
    if !is_parent(job.parent_pid) {
        return fail(&session, gone());
    }
    if let Err(error) = listen(&session, job.parent_pid) {
        return fail(&session, error);
    }
    if job.task.is_background() {
        let _ = rustix::process::nice(NICE);
    }
    match jobs::run(&job, &session) {
        Ok(answer) => {
            session.emit(Event::Done { answer });
            ExitCode::SUCCESS
        }
        Err(error) => fail(&session, error),
    }
}

fn fail(session: &Session, error: Error) -> ExitCode {
    let code = ExitCode::from(error.kind.exit_code());
    session.emit(Event::Failed { error });
    code
}

fn is_parent(pid: u32) -> bool {
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    parent == Some(pid)
}

/// Listens to the server and to signals while the job runs.
fn listen(session: &Arc<Session>, parent: u32) -> Result<(), Error> {
    let failed = |e: std::io::Error| Error::io("could not listen to the server", &e);
    let replies = Arc::clone(session);
    std::thread::Builder::new()
        .name("replies".into())
        .spawn(move || read_replies(&replies))
        .map_err(failed)?;
    let signals = Arc::clone(session);
    let mut caught =
        signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM]).map_err(failed)?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            // A reload of the server reaches its whole process group.
            for signal in caught.forever().filter(|s| *s != SIGHUP) {
                let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
                // The parent's death comes as a signal too.
                stop(
                    &signals,
                    match is_parent(parent) {
                        true => Error::new(ErrorKind::Cancelled, format!("the engine was stopped by {name}")),
                        false => gone(),
                    },
                );
            }
        })
        .map_err(failed)?;
    Ok(())
}

fn read_replies(session: &Session) {
    let mut stdin = std::io::stdin().lock();
    loop {
        match read_line::<Reply>(&mut stdin) {
            Ok(Some(reply)) => {
                let stops = matches!(reply, Reply::Stop { .. });
                session.deliver(reply);
                if stops {
                    end_soon();
                }
            }
            Ok(None) => return stop(session, gone()),
            Err(error) => return stop(session, error),
        }
    }
}

fn stop(session: &Session, reason: Error) {
    session.stop(reason);
    end_soon();
}

/// Ends the process after [`GRACE`], whatever it still does.
fn end_soon() {
    let _ = std::thread::Builder::new().name("end".into()).spawn(|| {
        std::thread::park_timeout(GRACE);
        std::process::exit(i32::from(ErrorKind::Cancelled.exit_code()));
    });
}

fn gone() -> Error {
    Error::new(ErrorKind::ParentGone, "the server process that asked for the work went away")
}

/// One line of JSON; `None` at the end of file.
fn read_line<T: serde::de::DeserializeOwned>(input: &mut impl BufRead) -> Result<Option<T>, Error> {
    let mut line = Vec::new();
    let read = std::io::Read::take(&mut *input, MAX_LINE)
        .read_until(b'\n', &mut line)
        .map_err(|e| Error::io("could not read from the server", &e))?;
    if read == 0 {
        return Ok(None);
    }
    serde_json::from_slice(&line).map(Some).map_err(|e| {
        Error::new(ErrorKind::VersionMismatch, "the server said something that this engine does not understand")
            .detail(e)
            .hint("pgark engine is started by the server; install library and engine together with scripts/install.")
    })
}

fn emit(event: Event) {
    let Ok(mut line) = serde_json::to_vec(&event) else { return };
    line.push(b'\n');
    let mut stdout = std::io::stdout().lock();
    if stdout.write_all(&line).and_then(|()| stdout.flush()).is_err() {
        // Nobody listens any more; end of file on stdin says the same and cleans up.
        end_soon();
    }
}

/// Closes what the server had open: sockets of clients, data files, pipes.
pub fn close_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<i32> = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|fd| *fd > 2) {
        let _ = nix::unistd::close(descriptor);
    }
}
