//! A clock that a test moves: time is injected, not slept.
//!
//! libfaketime (Debian's package `faketime`) stands before a program's clocks and adds what a file says. Everything that
//! is told of the file lives at the same moment: a server, the engines that it starts, `pgark` run by hand. Between two
//! moves the clock goes on like any other; what measures how long something takes (`CLOCK_MONOTONIC`) is left alone.
//!
//! The times of files are the file system's and stay true. So the clock begins in the past: then files seem new, as they
//! do to a host whose clock is behind its file server's, and nobody clears them away as leftovers of long ago.

use crate::os::{Scratch, chown_to_server};
use crate::tools::Pg;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The library that takes a lock around what it keeps: without, threads of one program disagree about the time.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// See the module.
#[derive(Debug, Clone)]
pub struct Clock(Arc<Files>);

#[derive(Debug)]
struct Files {
    scratch: Scratch,
    library: PathBuf,
}

impl Clock {
    /// A clock that shows the time of so long ago.
    ///
    /// # Panics
    /// When libfaketime is not installed.
    #[track_caller]
    pub fn behind(time: Duration) -> Clock {
        let clock = Clock(Arc::new(Files { scratch: Scratch::new("clock"), library: library() }));
        clock.set(unix_now() - seconds(time));
        clock
    }

    /// The time that it shows, in seconds since 1970.
    pub fn now(&self) -> i64 {
        let text = fs::read_to_string(self.file()).expect("the clock's file");
        unix_now() + text.trim().parse::<i64>().expect("seconds")
    }

    /// Moves it to a time in seconds since 1970.
    ///
    /// # Panics
    /// When that is later than the time of files: see the module.
    #[track_caller]
    pub fn set(&self, time: i64) {
        let offset = time - unix_now();
        assert!(offset <= 0, "{offset} s ahead of the time of files");
        // In one step, since it is read at any moment.
        let new = self.0.scratch.path().join("new");
        fs::write(&new, format!("{offset:+}\n")).expect("the clock's file");
        chown_to_server(&new);
        fs::rename(&new, self.file()).expect("the clock's file");
    }

    /// Moves it forward.
    ///
    /// # Panics
    /// As [`set`](Self::set).
    #[track_caller]
    pub fn advance(&self, time: Duration) {
        self.set(self.now() + seconds(time));
    }

    /// Lets a program live by this clock, with all that inherits its environment.
    pub fn apply<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        for (name, value) in self.environment() {
            command.env(name, value);
        }
        command
    }

    /// A program that runs `program` by this clock: for a caller who gives it an environment of his own, as a server does to
    /// its engine.
    pub fn program(&self, program: &Path) -> PathBuf {
        let path = self.0.scratch.path().join(program.file_name().expect("a program"));
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
        let mut script = String::from("#!/bin/sh\n");
        for (name, value) in self.environment() {
            script.push_str(&format!("export {name}={}\n", quoted(&value)));
        }
        script.push_str(&format!("exec {} \"$@\"\n", quoted(&program.display().to_string())));
        fs::write(&path, script).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
        path
    }

    /// Line of postgresql.conf that lets the server's engines live by this clock: servers clear their environment.
    pub(crate) fn engine_line(&self, pg: &Pg) -> String {
        format!("pg_ark.engine_path = '{}'", self.program(&pg.bindir().join("pgark")).display())
    }

    fn file(&self) -> PathBuf {
        self.0.scratch.path().join("offset")
    }

    fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("LD_PRELOAD", self.0.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string()),
            // A move acts at once, everywhere.
            ("FAKETIME_NO_CACHE", "1".into()),
            ("DONT_FAKE_MONOTONIC", "1".into()),
            ("NO_FAKE_STAT", "1".into()),
        ]
    }
}

#[track_caller]
fn library() -> PathBuf {
    let places = ["/usr/lib", "/usr/lib64", "/usr/local/lib"].into_iter().flat_map(|root| {
        let folders = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
        std::iter::once(PathBuf::from(root)).chain(folders).map(|folder| folder.join(LIBRARY))
    });
    let found = places.into_iter().find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("there is no {LIBRARY}: install Debian's package faketime (scripts/test does)")
    })
}

fn unix_now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs())
        .expect("seconds")
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).expect("seconds")
}
