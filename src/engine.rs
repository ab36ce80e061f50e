//! Starts `pgark engine` and holds the conversation of [`pg_ark_contract::conversation`] with it.
//!
//! 1. [`Target::from_settings`] finds the program, the repository and the name of the cluster.
//! 2. [`Engine::start`] starts the program and queues the job for its stdin.
//! 3. [`Engine::poll`] waits for the next event on the latch and the pipe; the caller looks at interrupts in between.
//! 4. Dropping the [`Engine`] closes its stdin, which tells it to stop, gives it a moment, then kills and reaps it.
//!
//! [`ask`] does all of that for a job with one answer. No destructor runs when the server ends this process (FATAL,
//! postmaster death, `kill -9`): then the kernel closes the pipe, and the engine stops by itself.

mod program;
mod warnings;

pub use program::{Target, locate};

use crate::postgres::{interrupts, latch, process, progress};
use crate::settings;
use pg_ark_contract::conversation::{Answer, Event, Job, Reply, Task};
use pg_ark_contract::units::human_bytes;
use pg_ark_contract::{Error, ErrorKind, Result, VERSION};
use program::{INSTALL_HINT, command, ending, missing};
use std::io::{ErrorKind as Io, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, ExitStatus};
use std::time::{Duration, Instant};
use warnings::Warnings;

/// How long an engine that was told to stop may take: a session must end it within a second.
const GRACE: Duration = Duration::from_millis(800);
/// How long the first line may take: starting a program on a loaded machine.
const HELLO_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest line an engine may send: a list of some 100,000 backups fits.
const LINE_MAX: usize = 64 << 20;
/// Bytes taken from the pipe at once: the capacity of a pipe.
const READ_SIZE: usize = 64 << 10;
/// How long one wait for an event lasts.
const TICK: Duration = Duration::from_secs(1);
/// How soon to look again while the engine does not take what we write.
const RETRY_WRITE: Duration = Duration::from_millis(20);
/// How long the end of a killed engine is waited for: one that waits for a dead disk may not end at all.
const REAP_TIMEOUT: Duration = Duration::from_millis(500);

/// Runs a job with one answer, looking at interrupts while it waits.
///
/// # Errors
/// What the engine says, or what went wrong with it.
pub fn ask(target: &Target, task: Task) -> Result<Answer> {
    ask_within(target, task, None)
}

/// [`ask`] that gives up after `limit`.
///
/// # Errors
/// As [`ask`]; `EngineDied` when the limit is over.
pub fn ask_within(target: &Target, task: Task, limit: Option<Duration>) -> Result<Answer> {
    let mut engine = Engine::start(target, task)?;
    let mut title = None;
    let mut warnings = Warnings::default();
    loop {
        let left = limit.map(|limit| limit.saturating_sub(engine.started.elapsed()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(Error::new(ErrorKind::EngineDied, "the engine takes too long")
                .detail(match engine.started.elapsed().as_secs() {
                    0 => "It has no answer within a second.".to_string(),
                    seconds => format!("It has no answer after {seconds} s."),
                })
                .hint("The repository may hang: look at its storage."));
        }
        if interrupts::dying() {
            engine.close(); // FATAL runs no destructors, and an engine that hangs does not see its pipe closed.
        }
        interrupts::check();
        match engine.poll(left.unwrap_or(TICK).min(TICK))? {
            Some(Event::Done { answer }) => {
                warnings.end();
                return Ok(answer);
            }
            Some(Event::Failed { error }) => {
                warnings.end();
                return Err(error);
            }
            Some(Event::Warning { message, hint }) => warnings.pass(message, hint),
            Some(Event::Verified { done_bytes, total_bytes }) => {
                title.get_or_insert_with(progress::Title::start).show(&verified(done_bytes, total_bytes));
            }
            Some(_) | None => {}
        }
    }
}

/// `37 % of 2.0 GB verified`.
fn verified(done: u64, total: u64) -> String {
    let percent = (u128::from(done) * 100).checked_div(u128::from(total)).unwrap_or(100).min(100);
    format!("{percent} % of {} verified", human_bytes(total))
}

/// The error for an answer that does not belong to the question.
pub fn unexpected(answer: &Answer) -> Error {
    Error::new(ErrorKind::Internal, "the engine answered another question").detail(format!("{answer:?}"))
}

/// A running engine.
pub struct Engine {
    program: PathBuf,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    /// Bytes of `incoming` that hold no end of line.
    searched: usize,
    closed: bool,
    greeted: bool,
    started: Instant,
}

impl Engine {
    /// Starts the program with `task` as its job.
    ///
    /// # Errors
    /// `EngineMissing` when it cannot be started.
    pub fn start(target: &Target, task: Task) -> Result<Engine> {
        let mut command = command(&target.program);
        if task.is_logical() {
            // There .pgpass is looked for where the system's list of users has no such user.
            command.envs(std::env::var_os("HOME").map(|home| ("HOME", home)));
        }
        let mut child = command.spawn().map_err(|error| missing(&target.program, error))?;
        let pipes = (child.stdin.take(), child.stdout.take());
        let (Some(stdin), Some(stdout)) = pipes else {
            return Err(Error::new(ErrorKind::Internal, "the engine has no pipes"));
        };
        let mut engine = Engine {
            program: target.program.clone(),
            child,
            stdin: None,
            stdout,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            searched: 0,
            closed: false,
            greeted: false,
            started: Instant::now(),
        };
        for pipe in [stdin.as_fd(), engine.stdout.as_fd()] {
            process::set_nonblocking(pipe).map_err(|e| Error::io("could not prepare a pipe", &e))?;
        }
        engine.stdin = Some(stdin);
        if task.is_background() {
            // Before it gets its job: it has one thread yet, and the others will be as this one is.
            process::make_io_idle(engine.child.id());
        }
        engine.send(&Job {
            version: VERSION.into(),
            parent_pid: std::process::id(),
            repository: target.repository.clone(),
            cluster: target.cluster.clone(),
            known: settings::is_known(&target.repository),
            task,
        })?;
        Ok(engine)
    }

    /// Tells a running backup something. An engine that is gone is noticed by the next [`Engine::poll`].
    ///
    /// # Errors
    /// `Internal` when it cannot be written as JSON.
    pub fn reply(&mut self, reply: &Reply) -> Result<()> {
        self.send(reply)
    }

    fn send(&mut self, message: &impl serde::Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.outgoing, message).map_err(|error| {
            Error::new(ErrorKind::Internal, "could not write a line for the engine").detail(error)
        })?;
        self.outgoing.push(b'\n');
        self.flush();
        Ok(())
    }

    /// Writes what the pipe takes now. Errors are left to the reading side: it tells why the engine is gone.
    fn flush(&mut self) {
        let Some(stdin) = &mut self.stdin else { return };
        while !self.outgoing.is_empty() {
            match stdin.write(&self.outgoing) {
                Ok(count) => drop(self.outgoing.drain(..count)),
                Err(error) if error.kind() == Io::Interrupted => {}
                Err(error) if error.kind() == Io::WouldBlock => return,
                Err(_) => self.outgoing.clear(),
            }
        }
    }

    /// The next event, or None when none came before `timeout` or the latch was set. Does not look at interrupts.
    ///
    /// # Errors
    /// `EngineDied`, `VersionMismatch`, `EngineMissing` when the program is not our engine.
    pub fn poll(&mut self, timeout: Duration) -> Result<Option<Event>> {
        if let Some(event) = self.next_event()? {
            return Ok(Some(event));
        }
        if self.closed {
            return Err(self.died());
        }
        self.flush();
        let timeout = if self.outgoing.is_empty() { timeout } else { timeout.min(RETRY_WRITE) };
        latch::wait_readable(self.stdout.as_fd(), timeout);
        self.fill()?;
        if !self.greeted && self.started.elapsed() > HELLO_TIMEOUT {
            return Err(self.not_ours("it says nothing"));
        }
        self.next_event()
    }

    fn fill(&mut self) -> Result<()> {
        let mut bytes = [0; READ_SIZE];
        match self.stdout.read(&mut bytes) {
            Ok(0) => self.closed = true,
            Ok(count) => self.incoming.extend_from_slice(&bytes[..count]),
            Err(error) if matches!(error.kind(), Io::Interrupted | Io::WouldBlock) => {}
            Err(error) => return Err(Error::io("could not read from the engine", &error)),
        }
        if self.incoming.len() > LINE_MAX {
            return Err(Error::new(ErrorKind::Internal, "the engine sent a line that is too long"));
        }
        Ok(())
    }

    fn next_event(&mut self) -> Result<Option<Event>> {
        while let Some(line) = self.next_line() {
            let event = serde_json::from_slice::<Event>(&line);
            match event {
                Ok(Event::Hello { version }) if !self.greeted => {
                    if version != VERSION {
                        return Err(self.other_version(&version));
                    }
                    self.greeted = true;
                }
                Ok(event) if self.greeted => return Ok(Some(event)),
                _ if !self.greeted => {
                    let start = &line[..line.len().min(200)];
                    return Err(
                        self.not_ours(&format!("it says: {}", String::from_utf8_lossy(start).trim_end()))
                    );
                }
                Ok(_) => {}
                Err(error) => {
                    let message = "the engine sent a line that is not understood";
                    return Err(Error::new(ErrorKind::Internal, message).detail(error));
                }
            }
        }
        Ok(None)
    }

    fn next_line(&mut self) -> Option<Vec<u8>> {
        let Some(end) = self.incoming[self.searched..].iter().position(|byte| *byte == b'\n') else {
            self.searched = self.incoming.len();
            return None;
        };
        let line: Vec<u8> = self.incoming.drain(..=self.searched + end).collect();
        self.searched = 0;
        Some(line)
    }

    fn not_ours(&self, why: &str) -> Error {
        let message = format!("\"{}\" is not pg_ark's engine", self.program.display());
        Error::new(ErrorKind::EngineMissing, message).detail(why).hint(INSTALL_HINT)
    }

    fn other_version(&self, version: &str) -> Error {
        let program = self.program.display();
        let message = format!("the engine \"{program}\" has version {version}, the library has {VERSION}");
        Error::new(ErrorKind::VersionMismatch, message).hint(match settings::is_preloaded() {
            true => "Restart the server if pg_ark was upgraded since it started: shared_preload_libraries keeps the \
                     old library until then. Else run scripts/install for this server.",
            false => INSTALL_HINT,
        })
    }

    fn died(&mut self) -> Error {
        let status = self.close();
        let how = status.map_or_else(|| "ended in an unknown way".into(), ending);
        if !self.greeted && status.is_some_and(|status| status.code().is_some()) {
            return self.not_ours(&format!("it {how}"));
        }
        Error::new(ErrorKind::EngineDied, format!("the engine {how}"))
            .hint("The server log may hold what it said last. Try again; when it happens again, report it.")
    }

    /// Ends an engine that had its moment.
    pub fn kill(&mut self) {
        // Errors mean that it is gone already.
        let _ = self.child.kill();
    }

    /// Tells the engine to stop, gives it a moment, then kills it; reaps it in any case.
    fn close(&mut self) -> Option<ExitStatus> {
        self.stdin = None;
        let deadline = Instant::now() + GRACE;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < deadline => {}
                _ => break,
            }
            process::wait_for_exit(self.child.id(), deadline.saturating_duration_since(Instant::now()));
        }
        self.kill();
        process::wait_for_exit(self.child.id(), REAP_TIMEOUT);
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}
