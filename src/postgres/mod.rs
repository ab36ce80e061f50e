//! The room for unsafe code: everything that calls the server directly, behind safe functions and guards.
//!
//! * [`archive`]: the entry point and the callbacks of the archive module.
//! * [`database`]: the databases of this server, for a process that is connected to none.
//! * [`guc`]: settings with check hooks, reading and writing the server's configuration.
//! * [`interrupts`]: cancel, terminate, and catching what the server raises.
//! * [`latch`]: waiting for this process's latch and a pipe together.
//! * [`relation`]: tables by name.
//! * [`transaction`]: transactions of a background worker.
//! * [`worker`]: registering, connecting and signalling background workers.
//! * [`shared`]: the shared memory between a session and the worker it started.
//! * [`wal`]: positions in the WAL.
//! * [`progress`]: `pg_stat_progress_basebackup`, `pg_stat_activity`, and what `ps` shows.
//! * [`process`]: the server's program and its user; the time; pipes that do not block.
//! * [`text`]: text in the encoding of the database.
//! * [`types`]: SQL types that pgrx does not know.
//!
//! Two rules. The server raises ERROR by longjmp; pgrx turns that into a Rust panic at each call, so destructors run.
//! FATAL ends the process without running them: what must not outlive the process is tied to a file descriptor or to
//! the server's own exit callbacks, never to a destructor alone. The caller of every function here is the process's
//! one thread: the server starts no other, and neither does this library.

pub mod archive;
pub mod database;
pub mod guc;
pub mod interrupts;
pub mod latch;
pub mod process;
pub mod progress;
pub mod relation;
pub mod shared;
pub mod text;
pub mod transaction;
pub mod types;
pub mod wal;
pub mod worker;
