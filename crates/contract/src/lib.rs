//! What both sides of the wall between server and data plane agree on.
//!
//! * [`conversation`]: the job, the replies and the events that the extension and the engine exchange.
//! * [`errors`]: the one error type, and the table kind -> SQLSTATE -> exit code.
//! * [`archiver`]: why the last WAL file failed, as a file beside the server's own.
//! * [`bytes`]: content in an encoding that nobody promises.
//! * [`units`]: LSN, timeline, WAL segment size, byte sizes.
//! * [`schedule`]: jobs, when they are due, what came of them.
//! * [`retention`]: what is kept, and the verdict on what is stored.
//! * [`settings`]: compression and checksum choices, and the catalogue of `pg_ark.*` settings.
//! * [`rows`]: the rows that SQL functions and `--format json` show.
//!
//! This crate knows serde and nothing else, so that the extension can link it without linking a
//! compressor, an object-store client or an async runtime.

pub mod archiver;
pub mod bytes;
pub mod conversation;
pub mod errors;
pub mod retention;
pub mod rows;
pub mod schedule;
pub mod settings;
pub mod units;

pub use bytes::Bytes;
pub use errors::{Error, ErrorKind, Result};
pub use units::{Lsn, SegmentSize, Timeline};

/// The version that library, engine and installed SQL must share.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
