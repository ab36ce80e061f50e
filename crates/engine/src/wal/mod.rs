//! The WAL archive: storing, finding and giving back what a server wrote.
//!
//! * [`archive`]: names to objects and back; [`object`]: one stored file.
//! * [`store`]: `pg_wal` to archive, one file; never replaces an object, only compares ([`compare`]). [`archiver`]: what
//!   the server's archiver asks for, with [`ready`] (what waits), [`ahead`] (several threads, stored in order),
//!   [`histories`] (what nobody asks for) and [`keeper`] (the index,
//!   which [`completion`] completes).
//! * [`survey`]: what is there, as ranges; [`line`]: a timeline with its ancestors over it: where recovery finds every
//!   segment, and where it does not.
//! * [`get`]: archive to a server in recovery, one file, with [`absent`] (the proof that there is none) and
//!   [`traces`] (whatever speaks of it), [`spool`] and
//!   [`prefetch`] (segments fetched ahead), [`deliver`] (whole or not at all).
//! * [`summary`]: what one segment holds: commit times, restore points, its end; [`index`]: summaries kept beside the
//!   segments, which can be lost and made again, and checksums of histories, in lines ([`index_line`]) that have seals.
//!   [`audit`]: what they say against what is stored. [`moments`]: summaries from both; [`ends`]: times and ends of ranges;
//!   `breaks`: segments that were stored torn; `gone`: those that were stored and are not there; [`pruned`]: those that
//!   retention removed.
//!
//! *Line*: a timeline and its ancestors. *Stretch*: a gap-free part of a line. *Hole*: what is missing between two.
//! What is not there is never guessed from dates of files; an error of the repository is never "not there".

pub mod absent;
pub mod ahead;
pub mod archive;
pub mod archiver;
pub mod audit;
mod breaks;
pub mod compare;
pub mod completion;
pub mod deliver;
pub mod ends;
pub mod get;
#[cfg(test)]
pub(crate) mod get_fixture;
mod gone;
pub mod histories;
pub mod index;
pub mod index_line;
pub mod keeper;
pub mod line;
pub mod moments;
pub mod object;
pub mod prefetch;
pub mod pruned;
pub mod ready;
pub mod spool;
pub mod store;
#[cfg(test)]
pub(crate) mod store_fixture;
pub mod summary;
pub mod survey;
pub mod traces;

pub use archive::Archive;
pub use line::{Line, Stretch};
pub use pruned::Pruned;
pub use survey::Survey;
