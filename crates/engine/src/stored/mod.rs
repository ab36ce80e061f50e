//! A stored backup, read back: what [`crate::restore`] and [`crate::verify`] share. Everything here is hostile input.
//!
//! * [`objects`]: objects as streams, each proved by the record.
//! * [`index`]: where the frames of an archive are; [`fetch`]: one of them, proved and decoded.
//! * [`tar_reader`]: from bytes of tar to members; [`names`] judges what they are called.
//! * [`lost`]: backups whose record cannot be read.
//! * [`expected`]: what the backup manifest promises. [`faults`]: what can be wrong, in words.

pub mod expected;
pub mod faults;
pub mod fetch;
pub mod index;
pub mod lost;
pub mod names;
pub mod objects;
pub mod tar_reader;
