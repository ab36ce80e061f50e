//! A clock that a test moves: time is injected, not slept.
//!
//! A small library (`clock.c`) stands before a program's clock and adds what a file says. Everything that is told of the
//! file lives at the same moment: a server, the engines that it starts, `pgark` run by hand. Between two moves the clock goes
//! on like any other; what measures how long something takes (`CLOCK_MONOTONIC`) is left alone. libfaketime will not do: it
//! shows the true time in signal handlers, in which PostgreSQL 15 starts background workers.
//!
//! The times of files are the file system's and stay true until [`Clock::date`] changes them. So the clock begins in the
//! past: then files seem new, as they do to a host whose clock is behind its file server's, and nobody clears them away as
//! leftovers of long ago.

use crate::os::{Scratch, chown_to_server, run_ok};
use crate::tools::Pg;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Source of the library.
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/clock.c");

/// See the module.
#[derive(Debug, Clone)]
pub struct Clock(Arc<Files>);

#[derive(Debug)]
struct Files {
    scratch: Scratch,
    /// Seconds that are added to the true time, eight bytes in the machine's order.
    offset: fs::File,
}

impl Clock {
    /// A clock that shows the time of so long ago.
    ///
    /// # Panics
    /// When there is no C compiler.
    #[track_caller]
    pub fn behind(time: Duration) -> Clock {
        let scratch = Scratch::new("clock");
        run_ok(Command::new("cc").args(["-shared", "-fPIC", "-O2", "-o"]).arg(library(&scratch)).arg(SOURCE));
        chown_to_server(&library(&scratch));
        let path = offset(&scratch);
        let offset = fs::File::options().read(true).write(true).create_new(true).open(&path);
        let clock = Clock(Arc::new(Files { scratch, offset: offset.expect("the clock's file") }));
        chown_to_server(&path);
        clock.set(unix_now() - seconds(time));
        clock
    }

    /// The time that it shows, in seconds since 1970.
    pub fn now(&self) -> i64 {
        let mut bytes = [0; 8];
        self.0.offset.read_exact_at(&mut bytes, 0).expect("the clock's file");
        unix_now() + i64::from_ne_bytes(bytes)
    }

    /// Moves it to a time in seconds since 1970.
    ///
    /// # Panics
    /// When that is later than the time of files: see the module.
    #[track_caller]
    pub fn set(&self, time: i64) {
        let offset = time - unix_now();
        assert!(offset <= 0, "{offset} s ahead of the time of files");
        self.0.offset.write_all_at(&offset.to_ne_bytes(), 0).expect("the clock's file");
    }

    /// Moves it ahead of the time of files, as a machine's clock that is wrong may be.
    pub fn set_ahead(&self, time: Duration) {
        self.0.offset.write_all_at(&seconds(time).to_ne_bytes(), 0).expect("the clock's file");
    }

    /// Moves it forward.
    ///
    /// # Panics
    /// As [`set`](Self::set).
    #[track_caller]
    pub fn advance(&self, time: Duration) {
        self.set(self.now() + seconds(time));
    }

    /// Gives every file below a folder that is newer than this clock the clock's time, as if the file system lived by it too.
    /// Files that go meanwhile are left alone.
    pub fn date(&self, folder: &Path) {
        let now = UNIX_EPOCH + Duration::from_secs(self.now().unsigned_abs());
        let mut folders = vec![folder.to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let Ok(meta) = entry.metadata() else { continue };
                if meta.is_dir() {
                    folders.push(entry.path());
                } else if meta.modified().is_ok_and(|time| time > now) {
                    let _ = fs::File::open(entry.path()).and_then(|file| file.set_modified(now));
                }
            }
        }
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
        let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', "'\\''"));
        let mut script = String::from("#!/bin/sh\n");
        for (name, value) in self.environment() {
            script.push_str(&format!("export {name}={}\n", quoted(&value)));
        }
        script.push_str(&format!("exec {} \"$@\"\n", quoted(program)));
        fs::write(&path, script).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
        path
    }

    /// Line of postgresql.conf that lets the server's engines live by this clock: servers clear their environment.
    pub(crate) fn engine_line(&self, pg: &Pg) -> String {
        format!("pg_ark.engine_path = '{}'", self.program(&pg.bindir().join("pgark")).display())
    }

    fn environment(&self) -> [(&'static str, PathBuf); 2] {
        let scratch = &self.0.scratch;
        [("LD_PRELOAD", library(scratch)), ("PG_ARK_TEST_CLOCK", offset(scratch))]
    }
}

fn library(scratch: &Scratch) -> PathBuf {
    scratch.path().join("clock.so")
}

fn offset(scratch: &Scratch) -> PathBuf {
    scratch.path().join("offset")
}

fn unix_now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs())
        .expect("seconds")
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).expect("seconds")
}
