//! Logical backups: dumps by PostgreSQL's own programs, streamed into the repository, and their way back.
//!
//! * [`programs`]: the server's `pg_dump` and its kin. [`child`]: programs that never outlive who started them.
//!   [`connection`]: how a server is reached; [`query`]: facts that it tells through `psql`.
//! * Backup, in this order: [`facts`] asks the server, [`select`] decides which databases, [`run`] keeps the record and the
//!   threads, [`globals`] and [`database`] store a dump each in [`volumes`], [`progress`] knows how far they are, [`remarks`] hears
//!   their warnings. [`principals`]: roles that change meanwhile; [`room`]: connections that others need; [`silence`]: locks that
//!   others hold.
//!   [`check`]: whether all of that could be done now.
//! * [`toc`], [`contents`]: the table of contents of a dump. [`stored`]: a stored dump, read back and proved.
//! * [`restore`]: into a cluster that it makes, or into a running server.
//!
//! What: a stored dump is what `pg_dump --format=custom` wrote, byte by byte. Why: `pg_restore` alone reads it. Rejected: an own
//! format, the directory format (a folder for each database), and one more compressor around the dump.

pub mod check;
pub mod child;
pub mod connection;
pub mod contents;
pub mod database;
pub mod facts;
pub mod globals;
mod letters;
pub mod principals;
pub mod programs;
pub mod progress;
pub mod query;
pub mod remarks;
pub mod restore;
pub mod room;
pub mod run;
pub mod select;
pub mod silence;
pub mod stored;
pub mod toc;
pub mod volumes;

#[cfg(test)]
mod golden_dumps;
