//! Keeps to itself what this process holds: pages of a database, and what its environment says.

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit};

/// Makes everything that this process writes its owner's alone, and its memory nobody's: no core dump, no debugger and
/// no look into `/proc/PID/environ` by another process of the same user. Root can still look.
pub fn begin() {
    // Whatever the caller's umask.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    // It cannot fail for a value that the kernel knows. A program that this one starts begins anew: a server that a
    // restore starts dumps core where its administrator wants that.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// No core dump, said a second time: for a process that starts no server, because children inherit this.
pub fn no_core() {
    let maximum = rustix::process::getrlimit(Resource::Core).maximum;
    let _ = rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum });
}

/// Does what needs this process's own files in /proc, which belong to root while its memory is private.
pub fn with_own_proc<T>(work: impl FnOnce() -> T) -> T {
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable);
    let done = work();
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    done
}
