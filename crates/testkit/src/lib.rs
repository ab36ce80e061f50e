//! Real clusters and repositories for tests.
//!
//! The kit drives PostgreSQL's own programs (`initdb`, `pg_ctl`, `psql`, `pgbench`, ...) as processes and links no
//! client library: what a test sees is what a user sees.
//!
//! * [`Pg`]: where the programs are, and their version. `PG_CONFIG` chooses another installation.
//! * [`Cluster`]: a server in a folder of its own; it is stopped and removed when dropped.
//! * [`Session`], [`SqlError`]: SQL in the background, and errors by SQLSTATE.
//! * [`Workload`]: pgbench in the background; [`Balances`]: the sums that it keeps equal.
//! * [`Repo`], [`pgark`]: a repository folder, and the companion program to read it with.
//! * [`forge`]: stored backups that are changed on purpose.
//! * [`PeakRss`], [`process`]: what a process weighs, who started whom.
//! * [`Tmpfs`]: a file system that fills up. [`saboteur`]: a store that fails at the n-th call.
//! * [`strace`], [`replay`]: what a program asked of the system, and what a power failure would leave of it.
//! * [`Clock`]: the time, moved by the test.
//! * [`wait_until`]: conditions instead of sleeps. [`Chance`], [`rounds`]: what is tried by chance, and how often.
//!
//! As root everything runs as the OS user `postgres`, because the server refuses to run as root; otherwise as the
//! caller. What is missing on the machine makes a test fail with a hint, never pass.
//! `PG_ARK_KEEP=1` keeps the folders for a look at them.

mod binary;
mod builder;
mod chance;
mod clock;
mod cluster;
mod compare;
pub mod forge;
mod os;
pub mod process;
pub mod replay;
mod repo;
pub mod saboteur;
mod sql;
pub mod strace;
mod tmpfs;
mod tools;
mod wait;
mod workload;

pub use binary::{pgark, pgark_path};
pub use builder::Builder;
pub use chance::{Chance, is_thorough, kill_after, passes, rounds};
pub use clock::Clock;
pub use cluster::{Cluster, StopMode};
pub use compare::{Balances, Checksums, assert_same_data};
pub use os::{Output, Scratch, as_server_user, chown_to_server, chown_tree_to_server, command, run, run_ok};
pub use process::{PeakRss, Process};
pub use repo::{Repo, file_url};
pub use sql::{Session, SqlAnswer, SqlError, SqlMessage};
pub use tmpfs::Tmpfs;
pub use tools::Pg;
pub use wait::{LONG, SHORT, holds_promptly, holds_within, wait_until};
pub use workload::Workload;
