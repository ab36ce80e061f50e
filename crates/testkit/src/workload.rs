//! pgbench, in the foreground and in the background.

use crate::Cluster;
use crate::os::{Output, run};
use crate::process::{self, TERMINATE, send_signal};
use crate::wait::{LONG, wait_until};
use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Child, Stdio};

impl Cluster {
    /// Runs pgbench in database `postgres`: `["-i", "-s", "10"]`, `["-t", "100"]`; returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn pgbench(&self, arguments: &[&str]) -> String {
        let output: Output = run(self.client("pgbench").args(arguments).arg("postgres"));
        output.ok()
    }

    /// Starts pgbench in the background.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn pgbench_background(&self, arguments: &[&str]) -> Workload {
        let log = tempfile::tempfile().expect("could not make a temporary file");
        let copy = || Stdio::from(log.try_clone().expect("could not duplicate a file"));
        let child = self
            .client("pgbench")
            .args(arguments)
            .arg("postgres")
            .stdout(copy())
            .stderr(copy())
            .spawn()
            .expect("could not start pgbench");
        Workload { child, log }
    }
}

/// pgbench in the background. Killed when dropped.
#[derive(Debug)]
pub struct Workload {
    child: Child,
    log: File,
}

impl Workload {
    /// True until pgbench ends; it ends early when the server closes its connections.
    pub fn is_running(&mut self) -> bool {
        process::is_alive(self.child.id()) && matches!(self.child.try_wait(), Ok(None))
    }

    /// What it has printed so far, errors included.
    pub fn log(&mut self) -> String {
        let mut text = Vec::new();
        let read = self.log.rewind().and_then(|()| self.log.read_to_end(&mut text));
        read.expect("could not read pgbench's output");
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Ends it and waits until its sessions can write no more.
    ///
    /// # Panics
    /// When it had ended by itself, which means that its clients failed.
    #[track_caller]
    pub fn stop(mut self, cluster: &Cluster) {
        assert!(self.is_running(), "pgbench ended by itself:\n{}", self.log());
        // A shell that runs the tests in the background has them ignore SIGINT.
        send_signal(self.child.id(), TERMINATE);
        wait_until("the end of pgbench", LONG, || !self.is_running());
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'";
        wait_until("the end of pgbench's sessions", LONG, || cluster.psql(sessions) == "0");
    }

    /// Waits for its end; returns what it printed.
    ///
    /// # Panics
    /// When it failed.
    #[track_caller]
    pub fn wait(mut self) -> String {
        wait_until("the end of pgbench", LONG, || !self.is_running());
        let status = self.child.wait().expect("status of pgbench");
        let log = self.log();
        assert!(status.success(), "pgbench failed:\n{log}");
        log
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
