//! pg_ark: backs a PostgreSQL server up from inside the server.
//!
//! This library is the control plane. It starts and stops the backup, starts the engine (`pgark engine`), relays
//! progress, and decides; it moves no data itself, because a crash in a process that is attached to shared memory
//! makes the server restart every session.
//!
//! * [`settings`]: every `pg_ark.*` setting, defined from the contract's catalogue.
//! * [`api`]: the SQL functions, one file per subject.
//! * [`archive_module`]: what the archiver process does with a WAL file; [`archiving`]: who archives;
//!   [`last_failure`]: why it failed.
//! * [`workers`]: the background workers: the scheduler, and what runs backups and jobs.
//! * [`jobs`]: the table of scheduled jobs; [`not_begun`]: those that are due and cannot begin.
//! * [`engine`]: starts `pgark engine` and holds the conversation with it.
//! * [`translate`]: pg_ark's errors to PostgreSQL's, and back.
//! * [`sql`]: queries as values. * [`version`]: library, engine and SQL must be of one version.
//! * [`postgres`]: the only unsafe code, behind safe functions and guards.
//!
//! The library works without `shared_preload_libraries`: each process that needs it loads it.

#![deny(unsafe_code)]

pub mod api;
pub mod archive_module;
pub mod archiving;
pub mod engine;
pub mod jobs;
pub mod last_failure;
pub mod not_begun;
#[allow(unsafe_code)]
pub mod postgres;
pub mod settings;
pub mod sql;
pub mod translate;
pub mod version;
pub mod workers;

#[cfg(any(test, feature = "pg_test"))]
#[path = "../pg_test/mod.rs"]
pub mod pg_test;

use pgrx::prelude::*;

::pgrx::pg_module_magic!(name, version);

extension_sql_file!("../sql/schema.sql", name = "schema", bootstrap);
extension_sql_file!("../sql/status.sql", name = "status", requires = [server_status]);
extension_sql_file!("../sql/metrics.sql", name = "metrics", requires = [server_metrics]);
extension_sql_file!("../sql/schedule.sql", name = "schedule", requires = [server_jobs]);
extension_sql_file!("../sql/grants.sql", name = "grants", finalize);

/// Called by the server once per process, when it loads the library.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    settings::define();
    postgres::worker::register_scheduler();
}
