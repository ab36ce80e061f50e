//! Programs of PostgreSQL's that never outlive who started them.
//!
//! What: a [`Keeper`] knows every program of one piece of work. When that is to stop it asks them to end (their signal handlers
//! cancel what runs in the server) and soon kills them. When this process itself is killed the kernel tells them: `pgark child`
//! asks for that signal and becomes the program. Why so: only the program itself can ask the kernel without unsafe code.
//! Rejected: `setpriv --pdeathsig`, which not every system has.

use crate::restore::access::Access;
use crate::restore::run_as::as_owner;
use bytes::Bytes;
use pg_ark_contract::{Error, ErrorKind, Result};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind as Io, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most bytes of output that are handed on at once.
const CHUNK: usize = 1 << 20;
/// How often somebody looks whether the work is to stop.
const LOOK: Duration = Duration::from_millis(50);
/// Time that a program has to end when it is asked to.
const PATIENCE: Duration = Duration::from_millis(300);
/// Most lines of a program that are remembered.
const MAX_LINES: usize = 50;
/// Longest line that is remembered, in bytes.
const MAX_LINE: u64 = 8 << 10;
/// The hidden command of `pgark` that becomes the program.
const WRAPPER: &str = "child";

/// Keeps the programs of one piece of work.
pub struct Keeper<'a> {
    stop: &'a (dyn Fn() -> Result<()> + Sync),
    running: Mutex<Vec<Pid>>,
    wrapper: Option<PathBuf>,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// With status 0.
    pub success: bool,
    /// Its status, when it was not killed by a signal.
    pub code: Option<i32>,
    /// `ended with status 1`, `was killed by signal 9`.
    pub status: String,
    /// The last lines of its stderr that are no chatter of `--verbose`: errors, warnings, and what belongs to them.
    pub errors: Vec<String>,
}

impl Ended {
    /// What it said, or how it ended when it said nothing.
    pub fn said(&self) -> String {
        if self.errors.is_empty() { format!("it {}", self.status) } else { self.errors.join("\n") }
    }
}

impl<'a> Keeper<'a> {
    /// Does `work`, whose programs end when `stop` fails, and at the end of `work` in any case.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn with<T>(
        stop: &(dyn Fn() -> Result<()> + Sync),
        work: impl FnOnce(&Keeper<'_>) -> Result<T>,
    ) -> Result<T> {
        let keeper = Keeper { stop, running: Mutex::new(Vec::new()), wrapper: wrapper() };
        let (alive, end) = channel::<()>();
        let watched = &keeper;
        std::thread::scope(|scope| {
            scope.spawn(move || watched.watch(&end));
            let result = work(&keeper);
            drop(alive);
            result
        })
    }

    /// A command for `program` with nothing of the environment but what it needs; as the owner of `access` when root asks.
    ///
    /// # Errors
    /// As [`as_owner`].
    pub fn command(&self, program: &Path, access: Option<&Access>) -> Result<Command> {
        let first = self.wrapper.as_deref().unwrap_or(program);
        let other = access.filter(|access| access.owner.is_some());
        let mut command = match other {
            Some(access) => as_owner(first, access)?,
            None => Command::new(first),
        };
        if self.wrapper.is_some() {
            // A change of user on the way makes somebody else its parent's child for a moment: then nobody is checked.
            let parent = if other.is_some() { 0 } else { std::process::id() };
            command.args([WRAPPER, "--parent", &parent.to_string()]).arg(program);
        }
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        command.env_clear().env("PATH", path).env("LC_ALL", "C");
        if let Some(home) = home() {
            command.env("HOME", home);
        }
        if let Some(zone) = std::env::var_os("TZ") {
            command.env("TZ", zone);
        }
        command.current_dir("/");
        Ok(command)
    }

    /// Runs a program; `chunk` gets what it writes, `line` each line of its stderr.
    ///
    /// # Errors
    /// Those of `chunk`, which end the program; the order to stop; `Io` when it cannot be started.
    pub fn read(
        &self,
        mut command: Command,
        chunk: &mut dyn FnMut(Bytes) -> Result<()>,
        line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Ended> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        self.run(command, line, |child| {
            let Some(mut out) = child.stdout.take() else { return Ok(()) };
            loop {
                let mut bytes = Vec::with_capacity(CHUNK);
                let read = (&mut out).take(CHUNK as u64).read_to_end(&mut bytes);
                read.map_err(|e| Error::io("could not read from a program", &e))?;
                if bytes.is_empty() {
                    return Ok(());
                }
                chunk(Bytes::from(bytes))?;
            }
        })
    }

    /// Runs a program that reads `input`; what it writes is thrown away.
    ///
    /// # Errors
    /// Those of `input`, which end the program; the order to stop; `Io` when it cannot be started.
    pub fn feed(
        &self,
        mut command: Command,
        input: &mut (dyn Read + Send),
        line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Ended> {
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        self.run(command, line, |child| {
            let Some(mut pipe) = child.stdin.take() else { return Ok(()) };
            let mut bytes = vec![0; CHUNK];
            loop {
                let count = match input.read(&mut bytes) {
                    Ok(count) => count,
                    Err(e) if e.kind() == Io::Interrupted => continue,
                    Err(e) => return Err(Error::io("could not read what a program is to read", &e)),
                };
                let Some(part) = bytes.get(..count).filter(|part| !part.is_empty()) else { return Ok(()) };
                match pipe.write_all(part) {
                    // It has read enough, or ended: its status tells.
                    Err(e) if e.kind() == Io::BrokenPipe => return Ok(()),
                    other => other.map_err(|e| Error::io("could not write to a program", &e))?,
                }
            }
        })
    }

    /// Runs a program and gives what it writes, at most `max` bytes.
    ///
    /// # Errors
    /// `Internal` when it writes more; the order to stop; `Io` when it cannot be started.
    pub fn output(&self, command: Command, max: usize) -> Result<(Vec<u8>, Ended)> {
        let mut all = Vec::new();
        let mut add = |bytes: Bytes| {
            all.extend_from_slice(&bytes);
            match all.len() > max {
                true => {
                    Err(Error::new(ErrorKind::Internal, format!("a program wrote more than {max} bytes")))
                }
                false => Ok(()),
            }
        };
        let ended = self.read(command, &mut add, &mut |_| {})?;
        Ok((all, ended))
    }

    fn run(
        &self,
        mut command: Command,
        line: &mut (dyn FnMut(&str) + Send),
        talk: impl FnOnce(&mut Child) -> Result<()>,
    ) -> Result<Ended> {
        (self.stop)()?;
        let shown = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| Error::io(format!("could not run \"{shown}\""), &e))?;
        let pid = Pid::from_child(&child);
        self.running().push(pid);
        let stderr = child.stderr.take();
        let (talked, errors) = std::thread::scope(|scope| {
            let lines = scope.spawn(|| stderr.map_or_else(Vec::new, |stderr| listen(stderr, line)));
            let talked = talk(&mut child);
            if talked.is_err() {
                let _ = child.kill();
            }
            // What it still wants to say or to hear, it says and hears to nobody.
            drop((child.stdin.take(), child.stdout.take()));
            (talked, lines.join().unwrap_or_default())
        });
        // It is no zombie's successor that is signalled: as long as nobody has waited for it, its number is its own.
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        self.running().retain(|other| *other != pid);
        let status = child.wait().map_err(|e| Error::io(format!("could not wait for \"{shown}\""), &e))?;
        (self.stop)()?;
        talked?;
        Ok(Ended { success: status.success(), code: status.code(), status: ending(status), errors })
    }

    /// Ends every program once the work is to stop.
    fn watch(&self, end: &Receiver<()>) {
        let mut asked: Option<Instant> = None;
        while end.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            if asked.is_none() && (self.stop)().is_ok() {
                continue;
            }
            let since = *asked.get_or_insert_with(Instant::now);
            let signal = if since.elapsed() < PATIENCE { Signal::TERM } else { Signal::KILL };
            for pid in self.running().iter() {
                let _ = kill_process(*pid, signal);
            }
        }
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Vec<Pid>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// This program, when it is `pgark`: a test's own program has no such command.
fn wrapper() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    (own.file_name()? == "pgark" && own.is_file()).then_some(own)
}

/// The home of the user that this process is, where `.pgpass` is looked for.
fn home() -> Option<PathBuf> {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
    user.map(|user| user.dir).or_else(|| std::env::var_os("HOME").map(PathBuf::from))
}

/// Hands on every line, and keeps the last that matter.
fn listen(stderr: impl Read, line: &mut (dyn FnMut(&str) + Send)) -> Vec<String> {
    let mut reader = BufReader::new(stderr);
    let mut kept = VecDeque::new();
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        match (&mut reader).take(MAX_LINE).read_until(b'\n', &mut bytes) {
            Ok(0) => return kept.into(),
            Err(e) if e.kind() == Io::Interrupted => continue,
            Err(_) => return kept.into(),
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_end();
        line(text);
        if !is_chatter(text) {
            if kept.len() == MAX_LINES {
                kept.pop_front();
            }
            kept.push_back(text.to_string());
        }
    }
}

/// What `--verbose` says: `pg_dump: reading extensions`, and no `pg_dump: error: ...` (`pg_log_generic_v`, common/logging.c).
fn is_chatter(line: &str) -> bool {
    let Some((program, rest)) = line.split_once(": ") else { return line.is_empty() };
    let is_program = matches!(program, "pg_dump" | "pg_dumpall" | "pg_restore" | "vacuumdb" | "initdb");
    is_program && !["error: ", "warning: ", "detail: ", "hint: "].iter().any(|word| rest.starts_with(word))
}

fn ending(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was killed by signal {signal}"),
        (None, Some(code)) => format!("ended with status {code}"),
        (None, None) => "ended in an unknown way".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn sh(keeper: &Keeper<'_>, script: &str) -> Command {
        let mut command = keeper.command(Path::new("/bin/sh"), None).unwrap();
        command.args(["-c", script]);
        command
    }

    #[test]
    fn streams_and_endings_are_told() {
        let run = Keeper::with(&|| Ok(()), |keeper| {
            let (out, ended) =
                keeper.output(sh(keeper, "seq 100000; echo pg_dump: a >&2; echo b >&2; exit 3"), 1 << 20)?;
            assert!(out.starts_with(b"1\n2\n") && out.ends_with(b"100000\n"));
            assert_eq!((ended.success, ended.code, ended.errors), (false, Some(3), vec!["b".to_string()]));
            let error = keeper.output(sh(keeper, "yes"), 10).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Internal);
            let (mut lines, mut input) = (Vec::new(), &b"a\nb\n"[..]);
            let ended =
                keeper.feed(sh(keeper, "cat >&2"), &mut input, &mut |line| lines.push(line.to_string()))?;
            assert!(ended.success && lines == ["a", "b"], "{ended:?} {lines:?}");
            // Who does not read is not waited for.
            let mut zeros = std::io::repeat(0);
            assert!(keeper.feed(sh(keeper, "exit 0"), &mut zeros, &mut |_| {})?.success);
            let (out, _) = keeper.output(sh(keeper, "env | cut -d= -f1 | sort | tr '\\n' ' '"), 1000)?;
            let names = String::from_utf8(out).unwrap();
            assert!(
                names.split(' ').all(|n| matches!(
                    n,
                    "" | "HOME" | "LC_ALL" | "OLDPWD" | "PATH" | "PWD" | "SHLVL" | "TZ" | "_"
                )),
                "{names}"
            );
            Ok(())
        });
        run.unwrap();
    }

    #[test]
    fn an_order_to_stop_ends_every_program() {
        let stopped = AtomicBool::new(false);
        let stop = || match stopped.load(Ordering::Relaxed) {
            true => Err(Error::new(ErrorKind::Cancelled, "enough")),
            false => Ok(()),
        };
        let result = Keeper::with(&stop, |keeper| {
            std::thread::scope(|scope| {
                // One that does as it is told, one that does not listen.
                let scripts = ["echo; exec sleep 1000", "trap '' TERM; echo; while :; do sleep 0.1; done"];
                let threads = scripts.map(|script| {
                    scope.spawn(move || {
                        let mut seen = |_| Ok(());
                        keeper.read(sh(keeper, script), &mut seen, &mut |_| {}).map(|_| ())
                    })
                });
                while keeper.running().len() < 2 {
                    std::thread::yield_now();
                }
                stopped.store(true, Ordering::Relaxed);
                for thread in threads {
                    assert_eq!(thread.join().unwrap().unwrap_err().message, "enough");
                }
                assert!(keeper.running().is_empty());
                assert_eq!(keeper.output(sh(keeper, "true"), 1).unwrap_err().kind, ErrorKind::Cancelled);
            });
            Ok(())
        });
        result.unwrap();
    }
}
