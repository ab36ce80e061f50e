//! Restore: from a repository and an empty place to a data directory that a server starts from.
//!
//! 1. [`request`], [`target`]: what the user asked for. [`course`] looks at what is stored; [`choice`] finds the backup and
//!    the timeline that lead to the target, [`reach`] the place in the WAL where recovery stops, [`refusal`] says why not,
//!    [`passed_over`] which later backups cannot be used.
//! 2. [`facts`]: what this machine is like. [`check`], [`recorded_places`]: what is refused before anything is
//!    touched. [`warnings`]: what should be known before. [`plan`]: a value that says all that will happen; `--dry-run`
//!    shows it.
//! 3. [`run`] carries it out, one at a time ([`hold`]): [`unpack`] fetches frames in parallel, walks over the tar in their order
//!    ([`crate::stored`], [`tree`]), writes and proves files ([`out_file`], [`own_wal`]); [`link`],
//!    [`config`], [`config_places`] and [`recovery`] add what a server needs; everything is made durable.
//!    With `--replace` or `--keep-wal`, before that: [`old_wal`] and [`old_wal_end`] find what the archive lacks of an old
//!    pg_wal, [`salvage`] decides about it, [`losses`] says what is lost, [`saved`] keeps it, [`feed`] gives it to the new
//!    server; [`replace`], [`proof`] and [`in_use`] judge what stands at the old place, [`removal`] clears it;
//!    [`old_place`] does all that in its order.
//! 4. [`start`] starts the server and follows recovery ([`run_as`], [`follow`], [`ask`]); [`report`] says how far it came.
//!
//! *Target* of a restore: a folder that did not exist or was empty; of recovery: where it ends. *Marker*: the file that says "unfinished".
//! Nothing read from the repository is trusted: not names, not sizes, not checksums, not JSON. A restore never
//! overwrites a file, and an interrupted one leaves nothing that a server would start from.

pub mod access;
pub mod ask;
pub mod check;
pub mod choice;
pub mod config;
pub mod config_archive;
pub mod config_in_data;
pub mod config_places;
pub mod config_text;
pub mod course;
pub mod facts;
pub mod feed;
pub mod follow;
mod forks;
pub(crate) mod hold;
pub mod in_use;
mod judge;
pub mod link;
mod log;
pub mod losses;
pub mod marker;
pub mod old_place;
pub mod old_wal;
pub mod old_wal_end;
pub mod out_file;
mod own_wal;
pub mod owner;
mod passed_over;
pub mod plan;
pub(crate) mod port;
pub mod proof;
pub mod reach;
pub mod recorded_places;
pub mod recovery;
pub mod refusal;
pub mod removal;
pub mod replace;
pub mod report;
pub mod request;
pub mod run;
pub mod run_as;
pub mod salvage;
pub mod saved;
pub mod server;
pub mod start;
pub mod target;
pub mod tree;
pub mod unpack;
pub mod warnings;
pub mod watch;

pub use plan::{Plan, Prepared, prepare};
pub use request::{ArchiveMode, ConfigChoice, Request};
pub use run::{Restored, run};
pub use target::{Target, TargetAction, TimelineChoice};
pub use watch::{Stage, Watch};

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod old_wal_fixture;
#[cfg(test)]
mod tests;
