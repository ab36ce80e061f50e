//! Background workers.
//!
//! * [`job`]: runs one backup; started by `ark.backup_start`, one per backup.
//! * [`damage`]: what the log says about damaged pages.
//! * [`request`]: what the session hands to the worker.
//! * [`server`]: facts about the server, and the calls that a backup makes on it.

pub mod damage;
pub mod job;
pub mod request;
pub mod server;
