//! A server in a folder of its own.

use crate::builder::{Builder, append_lines};
use crate::clock::Clock;
use crate::os::{Output, Scratch, run, run_ok};
use crate::process::{self, KILL, Process, send_signal};
use crate::tools::Pg;
use crate::wait::{LONG, SHORT, wait_until};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How a server is stopped, as in `pg_ctl stop -m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Ends sessions, writes a checkpoint.
    Fast,
    /// Ends at once; the next start recovers.
    Immediate,
    /// Waits for sessions to end.
    Smart,
}

/// A data directory and its server. Dropping it stops the server and removes the folder.
#[derive(Debug)]
pub struct Cluster {
    pg: Pg,
    data: PathBuf,
    config_dir: Option<PathBuf>,
    socket_dir: PathBuf,
    port: u16,
    /// Options that overrule the configuration file, for a data directory that was another server's.
    server_options: String,
    /// The clock that it lives by; none: the machine's.
    pub(crate) clock: Option<Clock>,
    // Last, so that the folder goes after the server.
    scratch: Scratch,
}

impl Cluster {
    /// A new cluster with options.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// A new cluster with the default options, started.
    #[track_caller]
    pub fn start_new() -> Cluster {
        Builder::new().start()
    }

    pub(crate) fn new(
        pg: Pg,
        scratch: Scratch,
        data: PathBuf,
        config_dir: Option<PathBuf>,
        socket_dir: PathBuf,
    ) -> Self {
        let (port, server_options) = (5432, String::new());
        Cluster { pg, data, config_dir, socket_dir, port, server_options, clock: None, scratch }
    }

    /// A handle for a server on a data directory that exists, for instance a restored one. When a server runs there
    /// already, the handle is for that one; otherwise [`start`](Self::start) gives it a socket of its own, so that it
    /// runs beside the server that it is a copy of. Dropping the handle stops the server and leaves the directory.
    ///
    /// # Panics
    /// When the server's `postmaster.pid` cannot be understood.
    #[track_caller]
    pub fn open_restored(data: &Path) -> Cluster {
        Self::open_restored_with(&Pg::find(), data)
    }

    /// [`open_restored`](Self::open_restored) for another installation.
    ///
    /// # Panics
    /// When the server's `postmaster.pid` cannot be understood.
    #[track_caller]
    pub fn open_restored_with(pg: &Pg, data: &Path) -> Cluster {
        let scratch = Scratch::new("pg");
        let socket_dir = scratch.folder("s");
        let mut cluster = Cluster::new(pg.clone(), scratch, data.to_path_buf(), None, socket_dir);
        if cluster.is_up() {
            let lines = cluster.postmaster_file();
            cluster.port = lines[3].parse().expect("port in postmaster.pid");
            cluster.socket_dir = PathBuf::from(&lines[4]);
        } else {
            cluster.server_options =
                format!("-c unix_socket_directories='{}' -c port=5432", cluster.socket_dir.display());
        }
        cluster
    }

    /// Lets the server live by a clock from its next start on.
    pub fn set_clock(&mut self, clock: &Clock) {
        self.clock = Some(clock.clone());
    }

    /// The installation it runs with.
    pub fn pg(&self) -> &Pg {
        &self.pg
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Folder that holds the data directory and everything else of this cluster; room for a test's own files.
    pub fn base(&self) -> &Path {
        self.scratch.path()
    }

    /// Folder of its socket: the `host` of a client.
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// Its port, which is part of the socket's name.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Path of its log.
    pub fn log_path(&self) -> PathBuf {
        self.scratch.path().join("log")
    }

    /// All that the server has logged; empty before the first start.
    pub fn log(&self) -> String {
        fs::read(self.log_path())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// One of PostgreSQL's client programs with host and port set, to be run as the server's OS user.
    #[track_caller]
    pub fn client(&self, name: &str) -> Command {
        let mut command = self.pg.tool(name);
        command.env("PGHOST", &self.socket_dir).env("PGPORT", self.port.to_string());
        command.env("PGUSER", "postgres").env("PGCONNECT_TIMEOUT", "30");
        command
    }

    /// Starts the server and waits until it accepts connections.
    ///
    /// # Panics
    /// When it does not start, with the end of its log.
    #[track_caller]
    pub fn start(&self) {
        let output = self.try_start();
        assert!(output.success(), "the server did not start: {output}\n--- log\n{}", self.log_tail());
        // pg_ctl also returns while a server with hot_standby = off recovers.
        wait_until("the end of recovery", LONG, || self.pid().is_none() || self.is_up());
    }

    /// Tries to start the server; for tests of what must fail.
    pub fn try_start(&self) -> Output {
        let folder = self.config_dir.as_ref().unwrap_or(&self.data);
        let mut pg_ctl = self.pg.tool("pg_ctl");
        pg_ctl.args(["start", "-w", "-s", "-t", "300"]).arg("-D").arg(folder).arg("-l").arg(self.log_path());
        if !self.server_options.is_empty() {
            pg_ctl.arg("-o").arg(&self.server_options);
        }
        // pg_ctl too: it waits for a server that began after it.
        if let Some(clock) = &self.clock {
            clock.apply(&mut pg_ctl);
        }
        run(&mut pg_ctl)
    }

    /// Stops the server and waits until it is gone.
    ///
    /// # Panics
    /// When it does not stop.
    #[track_caller]
    pub fn stop(&self, mode: StopMode) {
        let output = self.try_stop(mode);
        assert!(output.success(), "the server did not stop: {output}\n--- log\n{}", self.log_tail());
    }

    fn try_stop(&self, mode: StopMode) -> Output {
        let mode = match mode {
            StopMode::Fast => "fast",
            StopMode::Immediate => "immediate",
            StopMode::Smart => "smart",
        };
        run(self
            .pg
            .tool("pg_ctl")
            .args(["stop", "-w", "-s", "-t", "300", "-m", mode])
            .arg("-D")
            .arg(&self.data))
    }

    /// Stops the server in fast mode and starts it again.
    #[track_caller]
    pub fn restart(&self) {
        self.stop(StopMode::Fast);
        self.start();
    }

    /// Makes the server read its configuration again.
    #[track_caller]
    pub fn reload(&self) {
        run_ok(self.pg.tool("pg_ctl").args(["reload", "-s"]).arg("-D").arg(&self.data));
    }

    /// Adds lines to postgresql.conf; [`reload`](Self::reload) or [`restart`](Self::restart) makes them act.
    #[track_caller]
    pub fn configure(&self, lines: &[&str]) {
        let file = self.config_dir.as_ref().unwrap_or(&self.data).join("postgresql.conf");
        append_lines(&file, &lines.iter().map(ToString::to_string).collect::<Vec<_>>());
    }

    /// Kills the postmaster with signal 9 and waits until it and its children are gone.
    ///
    /// # Panics
    /// When it does not run, or a child does not notice.
    #[track_caller]
    pub fn kill9(&self) {
        let pid = self.pid().expect("there is no server to kill");
        let children = process::descendants(pid);
        assert!(send_signal(pid, KILL), "could not kill the postmaster");
        wait_until("the end of a killed postmaster and its children", SHORT, || {
            process::is_reaped(pid) && children.iter().all(|child| !process::is_alive(child.pid))
        });
    }

    /// PID of the postmaster; none when it does not run.
    pub fn pid(&self) -> Option<u32> {
        let text = fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        let pid = text.lines().next()?.trim().parse().ok()?;
        // The file outlives a killed server, and its number may be another process's by now.
        let title = process::all().into_iter().find(|process| process.pid == pid)?.title;
        title.contains("postgres").then_some(pid)
    }

    /// True when the server runs and accepts connections.
    pub fn is_up(&self) -> bool {
        self.pid().is_some() && self.postmaster_file().get(7).is_some_and(|state| state == "ready")
    }

    /// Lines of postmaster.pid (miscadmin.h, LOCK_FILE_LINE_*), trimmed.
    fn postmaster_file(&self) -> Vec<String> {
        let text = fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        text.lines().map(|line| line.trim().to_string()).collect()
    }

    /// The server's processes and what they started, whose title contains `part`: `walwriter`, `pgark engine`. A child that has
    /// its parent's title is about to become another program, and is none of them.
    pub fn processes(&self, part: &str) -> Vec<Process> {
        let Some(pid) = self.pid() else { return Vec::new() };
        let mut found = process::descendants(pid);
        found.retain(|process| process.title.contains(part));
        let is_new = |new: &Process| found.iter().any(|p| p.pid == new.parent && p.title == new.title);
        found.iter().filter(|process| !is_new(process)).cloned().collect()
    }

    /// PIDs of [`processes`](Self::processes).
    pub fn pids(&self, part: &str) -> Vec<u32> {
        self.processes(part).into_iter().map(|process| process.pid).collect()
    }

    /// Makes a folder beside the data directory, with a tablespace in it; returns the folder.
    #[track_caller]
    pub fn create_tablespace(&self, name: &str) -> PathBuf {
        let folder = self.scratch.folder(&format!("tablespace {name}"));
        let location = folder.display().to_string().replace('\'', "''");
        self.psql(&format!("CREATE TABLESPACE \"{name}\" LOCATION '{location}'"));
        folder
    }

    /// Kills the server and removes its data directory, its WAL and its tablespaces; returns what was removed.
    ///
    /// # Panics
    /// When something cannot be removed.
    #[track_caller]
    pub fn destroy(&self) -> Vec<PathBuf> {
        if self.pid().is_some() {
            self.kill9();
        }
        let mut folders: Vec<PathBuf> = fs::read_dir(self.data.join("pg_tblspc"))
            .expect("pg_tblspc")
            .flatten()
            .filter_map(|link| fs::read_link(link.path()).ok())
            .chain(fs::read_link(self.data.join("pg_wal")).ok())
            .collect();
        folders.push(self.data.clone());
        for folder in &folders {
            fs::remove_dir_all(folder).unwrap_or_else(|e| panic!("could not remove {folder:?}: {e}"));
        }
        folders
    }

    /// Makes a standby of this server with pg_basebackup and starts it; `settings` are lines of its postgresql.conf.
    #[track_caller]
    pub fn create_standby(&self, settings: &[&str]) -> Cluster {
        let scratch = Scratch::new("pg");
        let data = scratch.path().join("data");
        let mut copy = self.client("pg_basebackup");
        copy.args(["-R", "-X", "stream", "-c", "fast", "-N", "-D"]).arg(&data);
        let links = self.psql("SELECT pg_tablespace_location(oid) FROM pg_tablespace");
        for (number, location) in links.lines().filter(|line| line.starts_with('/')).enumerate() {
            let target = scratch.path().join(format!("tablespace {number}"));
            copy.arg("-T").arg(format!("{}={}", location.replace('=', "\\="), target.display()));
        }
        run_ok(&mut copy);
        let socket_dir = scratch.folder("s");
        let mut lines = vec![format!("unix_socket_directories = '{}'", socket_dir.display())];
        lines.extend(settings.iter().map(ToString::to_string));
        append_lines(&data.join("postgresql.conf"), &lines);
        let mut standby = Cluster::new(self.pg.clone(), scratch, data, None, socket_dir);
        standby.clock = self.clock.clone();
        standby.start();
        standby
    }

    /// Waits until a standby has replayed all that this server has written.
    #[track_caller]
    pub fn wait_for_standby(&self, standby: &Cluster) {
        let lsn = self.psql("SELECT pg_current_wal_flush_lsn()");
        wait_until("the standby to catch up", LONG, || {
            standby.psql(&format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'")) == "t"
        });
    }

    /// Makes a standby a primary and waits until it is one.
    #[track_caller]
    pub fn promote(&self) {
        run_ok(self.pg.tool("pg_ctl").args(["promote", "-w", "-s", "-t", "300"]).arg("-D").arg(&self.data));
    }

    /// Fails unless pg_amcheck finds every table and index of every database sound. An installation without contrib
    /// (the PostgreSQL 16 that scripts/postgres-versions unpacks) reads every row with pg_dumpall instead.
    #[track_caller]
    pub fn amcheck(&self) {
        if self.psql("SELECT count(*) FROM pg_available_extensions WHERE name = 'amcheck'") == "0" {
            assert_eq!(
                self.pg.major(),
                16,
                "contrib is missing: install postgresql-contrib for {:?}",
                self.pg
            );
            run_ok(self.client("pg_dumpall").args(["--no-sync", "--file"]).arg(self.base().join("dump.sql")));
            return;
        }
        run_ok(self.client("pg_amcheck").args([
            "--all",
            "--install-missing",
            "--heapallindexed",
            "--jobs=2",
        ]));
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the server in {:?}\n{}", self.data, self.log_tail());
        }
        if self.pid().is_some() {
            let output = self.try_stop(StopMode::Immediate);
            if !output.success() {
                eprintln!("{output}");
            }
        }
    }
}
