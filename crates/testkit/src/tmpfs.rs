//! A file system that fills up.

use crate::os::{Scratch, run, run_ok, server_user};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tmpfs of limited size that belongs to the server's OS user; unmounted when dropped.
#[derive(Debug)]
pub struct Tmpfs {
    path: PathBuf,
    _scratch: Scratch,
}

impl Tmpfs {
    /// Mounts one of `bytes`.
    ///
    /// # Panics
    /// When the tests do not run as root: only root may mount.
    pub fn new(bytes: u64) -> Self {
        let (uid, gid) =
            server_user().expect("a test that fills a file system must mount one: run the tests as root");
        let scratch = Scratch::new("tmpfs");
        let path = scratch.folder("mount");
        let options = format!("size={bytes},mode=0700,uid={uid},gid={gid}");
        run_ok(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "pg_ark-test"]).arg(&path));
        Tmpfs { path, _scratch: scratch }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Changes its size.
    ///
    /// # Panics
    /// When that is not possible.
    pub fn resize(&self, bytes: u64) {
        let options = format!("remount,size={bytes}");
        run_ok(Command::new("mount").args(["-o", &options]).arg(&self.path));
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: a process that a failing test left behind must not keep the mount.
        let output = run(Command::new("umount").arg("--lazy").arg(&self.path));
        if !output.success() {
            eprintln!("{output}");
        }
    }
}
