//! pg_ark's data plane: pure Rust, without pgrx, without a command line, without unsafe.
//!
//! * [`postgres`]: PostgreSQL's on-disk formats; bytes in, values out.
//! * [`codec`]: frames: compression and the order of parallel work.
//! * [`repository`]: storage, layout, record, lease.
//! * [`wal`]: the archive of WAL.
//! * [`stored`]: a stored backup, read back.
//! * [`page_cache`]: reads and writes files without taking the cache away from the server.
//! * [`names`]: from the path of a file to the relation's name, without a server.
//! * [`schedule`]: when jobs are due, and what came of them.
//! * [`retention`]: what is kept, and the removal of the rest.
//! * [`outlook`]: what surrounds a repository: space, clock, disks.
//! * [`logical`]: dumps of databases, by PostgreSQL's own programs, and their way back.
//! * [`backup`], [`restore`], [`verify`]: one folder per verb, one file per phase.
//!
//! Data flows one way: plan -> read -> encode -> store; and back: fetch -> decode -> unpack -> write.

pub mod backup;
pub mod bounded;
pub mod clocks;
pub mod codec;
pub mod jobs;
pub mod logical;
pub mod names;
pub mod outlook;
pub mod page_cache;
pub mod postgres;
pub mod repository;
pub mod restore;
pub mod retention;
pub mod schedule;
pub mod session;
pub mod stored;
pub mod verify;
pub mod wal;
