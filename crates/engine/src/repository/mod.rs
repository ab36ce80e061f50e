//! The repository: where everything is stored (FORMAT.md is its specification).
//!
//! * [`storage`]: objects in a directory or an object store; the only place that knows `object_store`. [`removal`]: what
//!   goes beyond the removal of an object.
//! * `behind`: what is stored does not stay in the page cache.
//! * [`layout`]: names of everything in a repository.
//! * [`record`]: `backup.json`, all that is known about one backup.
//!   [`logical_record`]: the part of it that a logical backup has.
//! * [`pins`]: backups that retention never removes.
//! * [`sealed`]: how a record proves that it is what was written.
//! * [`lease`]: one writer per cluster.
//! * [`reserve`]: room that is kept for removing when the disk is full.
//! * [`process`]: which process wrote something, and whether it is still there.
//! * [`access`]: whether others may change what is stored.
//! * [`standing`]: whether a cluster is still that of a server.
//! * [`catalog`]: opening a repository, finding clusters and backups, judging their state.
//!
//! Nothing read from here is trusted: sizes are bounded, names are checked, JSON may be anything.

pub mod access;
mod behind;
pub mod catalog;
pub mod layout;
pub mod lease;
pub mod logical_record;
pub mod pins;
pub mod process;
pub mod record;
pub mod removal;
pub mod reserve;
pub mod sealed;
pub mod standing;
pub mod storage;

pub use catalog::{Cluster, Repository};
pub use record::Record;
pub use storage::Storage;
