//! Frames: independent pieces of an archive, a few MiB of tar each, compressed and checksummed on their own.
//!
//! * [`frame`]: one frame in, one frame out, for each codec; and the stream of a whole archive.
//! * [`turn`]: the order in which parallel workers commit what they made.
//!
//! A frame never depends on another, so they are encoded and decoded in parallel; concatenated they are one stream
//! that `zstd -d`, `lz4 -d` or `gzip -d` reads.

pub mod frame;
pub mod turn;
