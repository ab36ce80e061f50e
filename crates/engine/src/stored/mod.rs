//! A stored backup, read back: what [`crate::restore`] and [`crate::verify`] share. Everything here is hostile input.
//!
//! * [`objects`]: objects as streams, each proved by the record.
//! * [`index`]: where the frames of an archive are.
//! * [`tar_reader`]: from bytes of tar to members; [`names`] judges what they are called.
//! * [`expected`]: what the backup manifest promises.

pub mod expected;
pub mod index;
pub mod names;
pub mod objects;
pub mod tar_reader;
