//! What `strace` writes about the system calls of a program, read back.
//!
//! Reads the output of `strace -f -y -o FILE`: one line for each call, or two where another thread came between
//! (`<unfinished ...>`, `<... resumed>`).

use crate::os::{Scratch, command, run_ok, server_user};
use std::collections::HashMap;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAM: &str = "/usr/bin/strace";
/// Gives a program rights that its user does not have.
const SETCAP: &str = "/usr/sbin/setcap";
/// Longest text of a call that is recorded: more than any piece that is written at once.
const TEXT_MAX: &str = "67108864";
const UNFINISHED: &[u8] = b" <unfinished ...>";

/// A call and its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Thread that called.
    pub thread: u32,
    /// Name of the call: `openat`.
    pub name: String,
    /// Its arguments as strace shows them.
    pub arguments: Vec<Vec<u8>>,
    /// What it returned: negative for an error, `None` when it did not return.
    pub result: Option<i64>,
    /// The error's name: `ENOSPC`.
    pub error: Option<String>,
    /// strace made the error up.
    pub injected: bool,
    /// What stands behind a returned file descriptor.
    pub returned_path: Option<PathBuf>,
}

/// Something that happened, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The call with this number was entered.
    Entered(usize),
    /// The call with this number returned.
    Returned(usize),
    /// A thread ended: the exit code of its process, or 128 plus a signal's number.
    Ended {
        /// Its number.
        thread: u32,
        /// How.
        code: i32,
    },
}

/// Calls, and the order in which they were entered and returned.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// By number.
    pub calls: Vec<Call>,
    /// In order.
    pub events: Vec<Event>,
}

impl Call {
    /// An argument as text; empty when there is none.
    pub fn argument(&self, number: usize) -> &[u8] {
        self.arguments.get(number).map_or(&[], Vec::as_slice)
    }

    /// A quoted argument, decoded.
    pub fn text(&self, number: usize) -> Option<Vec<u8>> {
        unquote(self.argument(number))
    }

    /// A number.
    pub fn number(&self, number: usize) -> Option<i64> {
        leading_number(self.argument(number))
    }

    /// The path behind a file descriptor: `3</path>`.
    pub fn path_of(&self, number: usize) -> Option<PathBuf> {
        path_behind(self.argument(number))
    }

    /// A path argument, below the folder that the argument before it stands for where it is relative.
    pub fn path(&self, folder: Option<usize>, number: usize) -> Option<PathBuf> {
        let named = PathBuf::from(std::ffi::OsString::from_vec(self.text(number)?));
        Some(match folder.and_then(|folder| self.path_of(folder)) {
            Some(folder) => folder.join(named),
            None => named,
        })
    }

    /// Every path that it names, by name or by file descriptor.
    pub fn paths(&self) -> Vec<PathBuf> {
        let count = self.arguments.len();
        let by_name = (0..count).filter(|n| self.name != "write" || *n == 0).filter_map(|number| {
            let folder = number.checked_sub(1);
            self.argument(number).starts_with(b"\"").then(|| self.path(folder, number)).flatten()
        });
        let by_number = (0..count).filter_map(|number| self.path_of(number));
        by_name.chain(by_number).collect()
    }

    /// It returned without an error.
    pub fn succeeded(&self) -> bool {
        self.result.is_some_and(|result| result >= 0)
    }
}

impl Trace {
    /// Reads what strace wrote.
    ///
    /// # Panics
    /// When a line is none that strace writes.
    #[track_caller]
    pub fn parse(output: &[u8]) -> Trace {
        let mut trace = Trace::default();
        let mut open: HashMap<u32, (usize, Vec<u8>)> = HashMap::new();
        for line in output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            trace.line(line, &mut open);
        }
        trace
    }

    /// Reads a file that strace wrote.
    ///
    /// # Panics
    /// When it cannot be read.
    #[track_caller]
    pub fn read(path: &Path) -> Trace {
        Trace::parse(&std::fs::read(path).unwrap_or_else(|e| panic!("{path:?}: {e}")))
    }

    fn line(&mut self, line: &[u8], open: &mut HashMap<u32, (usize, Vec<u8>)>) {
        let shown = || String::from_utf8_lossy(&line[..line.len().min(300)]).into_owned();
        let digits = line.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let thread: u32 =
            std::str::from_utf8(&line[..digits]).ok().and_then(|t| t.parse().ok()).expect("a thread");
        let rest = line[digits..].trim_ascii_start();
        if let Some(text) = rest.strip_prefix(b"+++ ") {
            let code = ending(text).unwrap_or_else(|| panic!("no ending: {}", shown()));
            return self.events.push(Event::Ended { thread, code });
        }
        if rest.starts_with(b"--- ") {
            return;
        }
        if let Some(resumed) = rest.strip_prefix(b"<... ") {
            let from = find(resumed, b" resumed>").unwrap_or_else(|| panic!("not resumed: {}", shown())) + 9;
            let (number, mut text) =
                open.remove(&thread).unwrap_or_else(|| panic!("never entered: {}", shown()));
            text.extend_from_slice(&resumed[from..]);
            self.calls[number] = call(thread, &text).unwrap_or_else(|| panic!("no call: {}", shown()));
            return self.events.push(Event::Returned(number));
        }
        let number = self.calls.len();
        self.events.push(Event::Entered(number));
        if let Some(text) = rest.strip_suffix(UNFINISHED) {
            self.calls.push(call(thread, text).unwrap_or_else(|| panic!("no call: {}", shown())));
            open.insert(thread, (number, text.to_vec()));
            return;
        }
        self.calls.push(call(thread, rest).unwrap_or_else(|| panic!("no call: {}", shown())));
        self.events.push(Event::Returned(number));
    }
}

/// `exited with 0 +++`, `killed by SIGKILL +++`.
fn ending(text: &[u8]) -> Option<i32> {
    match text.strip_prefix(b"exited with ") {
        Some(code) => leading_number(code).map(|code| code as i32),
        None => text.starts_with(b"killed by ").then_some(137),
    }
}

/// `openat(AT_FDCWD</tmp>, "x", O_RDONLY) = 3</tmp/x>`; what is behind the arguments may be missing.
fn call(thread: u32, text: &[u8]) -> Option<Call> {
    let start = find(text, b"(")?;
    let name = std::str::from_utf8(&text[..start]).ok()?.to_string();
    let (arguments, end) = split(&text[start + 1..]);
    let behind = text.get(start + 1 + end..).unwrap_or_default();
    let outcome = find(behind, b"= ").map_or(&[][..], |at| &behind[at + 2..]);
    let result = leading_number(outcome);
    let words: Vec<&str> = std::str::from_utf8(outcome).unwrap_or_default().split_whitespace().collect();
    let error = words.get(1).filter(|_| result == Some(-1)).map(ToString::to_string);
    let injected = outcome.ends_with(b"(INJECTED)");
    Some(Call { thread, name, arguments, result, error, injected, returned_path: path_behind(outcome) })
}

/// Splits at commas outside quotes and brackets; returns where the closing parenthesis is, or the end.
fn split(text: &[u8]) -> (Vec<Vec<u8>>, usize) {
    let mut arguments = Vec::new();
    let (mut depth, mut start, mut at) = (0, 0, 0);
    let mut quoted = false;
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'(' | b'[' | b'{' | b'<' => depth += 1,
            b']' | b'}' | b'>' if depth > 0 => depth -= 1,
            b')' if depth == 0 => break,
            b')' => depth -= 1,
            b',' if depth == 0 => {
                arguments.push(text[start..at].trim_ascii().to_vec());
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    let last = text[start..at.min(text.len())].trim_ascii();
    if !last.is_empty() {
        arguments.push(last.to_vec());
    }
    (arguments, at)
}

/// The text between quotes, escapes resolved as strace makes them; `None` when it was cut off or is none.
pub fn unquote(text: &[u8]) -> Option<Vec<u8>> {
    let inner = text.strip_prefix(b"\"")?;
    let mut bytes = Vec::with_capacity(inner.len());
    let mut at = 0;
    loop {
        let byte = *inner.get(at)?;
        at += 1;
        match byte {
            // Three dots behind the quote mean that it was cut off.
            b'"' => return inner[at..].is_empty().then_some(bytes),
            b'\\' => {
                let escape = *inner.get(at)?;
                at += 1;
                bytes.push(match escape {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    b'v' => 0x0b,
                    b'f' => 0x0c,
                    b'0'..=b'7' => {
                        let mut value = u32::from(escape - b'0');
                        for _ in 0..2 {
                            let Some(digit @ b'0'..=b'7') = inner.get(at) else { break };
                            value = value * 8 + u32::from(digit - b'0');
                            at += 1;
                        }
                        value as u8
                    }
                    other => other,
                });
            }
            other => bytes.push(other),
        }
    }
}

fn leading_number(text: &[u8]) -> Option<i64> {
    let sign = usize::from(text.first() == Some(&b'-'));
    let digits = text[sign..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&text[..sign + digits]).ok()?.parse().ok()
}

fn path_behind(text: &[u8]) -> Option<PathBuf> {
    let start = find(text, b"</")?;
    // Nothing but a descriptor may stand before it.
    let plain = text[..start].iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let end = find(text, b">")?;
    let path = text.get(start + 1..end)?;
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    plain.then(|| PathBuf::from(std::ffi::OsString::from_vec(path.to_vec())))
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// Options of strace that record these calls of a program and its threads, with all that they write, into a file.
pub fn recording(calls: &str, into: &Path) -> Vec<String> {
    let mut options: Vec<String> =
        ["-f", "-qq", "-y", "--seccomp-bpf", "-s", TEXT_MAX].map(String::from).into();
    options.extend(["-e".into(), format!("trace={calls}"), "-e".into(), "signal=none".into()]);
    options.extend(["-o".into(), into.display().to_string()]);
    options
}

/// strace, fit to trace pgark as the server's OS user: pgark closes its memory to others of that user, so a copy of
/// strace gets the right to look at it all the same. Removed when dropped.
#[derive(Debug)]
pub struct Strace {
    program: PathBuf,
    _scratch: Scratch,
}

impl Strace {
    /// Makes the copy.
    ///
    /// # Panics
    /// When strace or setcap is not installed, or the tests do not run as root: only root may give that right.
    #[track_caller]
    pub fn new() -> Strace {
        assert!(Path::new(PROGRAM).is_file(), "there is no {PROGRAM}: install it (Debian's package strace)");
        assert!(
            Path::new(SETCAP).is_file(),
            "there is no {SETCAP}: install it (Debian's package libcap2-bin)"
        );
        let user = server_user();
        assert!(
            user.is_some(),
            "a test that traces pgark must be allowed to look into it: run the tests as root"
        );
        let scratch = Scratch::new("strace");
        let program = scratch.path().join("strace");
        std::fs::copy(PROGRAM, &program).unwrap_or_else(|e| panic!("could not copy {PROGRAM}: {e}"));
        run_ok(Command::new(SETCAP).arg("cap_sys_ptrace,cap_dac_read_search=ep").arg(&program));
        Strace { program, _scratch: scratch }
    }

    /// `strace OPTIONS PROGRAM`, to be run as the server's OS user; the caller adds the program's arguments.
    pub fn command(&self, options: &[String], program: &Path) -> Command {
        let mut strace = command(&self.program);
        strace.args(options).arg(program);
        strace
    }

    /// A shell script that a server can start instead of its engine: the engine under strace, which stays in the
    /// background, so that the engine is the server's own child. Each run writes a file of its own: `{}` in the options is
    /// its number.
    pub fn wrapper(&self, options: &[String], program: &Path) -> String {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
        let options: Vec<String> =
            options.iter().map(|option| quoted(option).replace("{}", r#"'"$$"'"#)).collect();
        let [strace, program] = [&self.program, program].map(|path| quoted(&path.display().to_string()));
        format!("#!/bin/sh\nexec {strace} -D {} {program} \"$@\"\n", options.join(" "))
    }
}

impl Default for Strace {
    fn default() -> Self {
        Strace::new()
    }
}

#[cfg(test)]
#[path = "strace_tests.rs"]
mod tests;
