//! A full backup. Data flows one way: plan -> read -> encode -> store.
//!
//! 1. [`begin`]: check the repository and the data directory, take the lease, write a record that says `running`.
//! 2. [`walk`]: find what belongs to the backup, as PostgreSQL's basebackup.c would.
//! 3. The server starts backup mode.
//! 4. [`wal`] copies segments as they finish, unless the server archives them; meanwhile [`copy`] runs threads that
//!    take frames from [`plan`], fill them ([`read`]: pages checked, files digested), encode them, and commit them in
//!    order to an [`archive`]. Tablespaces come first, then the data directory, `global/pg_control` last.
//! 5. The server ends backup mode; `backup_label` and `tablespace_map` become the last members.
//! 6. [`config`]: configuration files outside the data directory. [`archived`]: WAL that is not in the backup itself
//!    is waited for.
//! 7. [`finish`]: manifest, then the record says `complete`.
//!
//! Memory is bounded by threads x frame size, and by the names of the largest folder. A backup that fails is marked
//! so, and what it stored is removed.

pub mod archive;
pub mod archived;
pub mod begin;
pub mod books;
pub mod config;
pub mod copy;
pub mod finish;
pub mod includes;
pub mod member;
pub mod plan;
pub mod progress;
pub mod rate;
pub mod read;
pub mod run;
pub mod serial;
pub mod wal;
pub mod walk;

pub use begin::{free_space, system_of};
pub use finish::{end_dead, mark_failed};
pub use run::run;
