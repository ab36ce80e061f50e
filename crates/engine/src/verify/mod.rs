//! What can be recovered, and what in the archive stands in the way.
//!
//! * [`archive`]: `verify_archive`: ranges, gaps, damage, strangers. [`ranges`] makes its rows from facts, [`deep`] reads
//!   every segment, [`twice`] compares segments that are stored under two codecs.
//! * [`windows`]: `recovery_windows`: from which moment to which, and why each window ends.
//! * [`status`]: the last backup and the end of the archive.
//!
//! A *range* is a gap-free run of segments of one timeline. Damage of what is stored is a row; an error is what keeps the
//! work itself from being done. Nothing is written.

pub mod archive;
pub mod deep;
#[cfg(test)]
pub(crate) mod fixture;
pub mod ranges;
pub mod status;
pub mod twice;
pub mod windows;

pub use archive::{Depth, verify_archive};
pub use windows::windows;

use crate::session::Session;
use pg_ark_contract::Result;

/// Whoever waits for the work: hears how far it is, and can end it.
pub trait Watch: Sync {
    /// Called within every frame.
    ///
    /// # Errors
    /// The reason to stop.
    fn check(&self) -> Result<()>;

    /// There are so many bytes of WAL to read.
    fn total(&self, _bytes: u64) {}

    /// So many more bytes were read.
    fn advance(&self, _bytes: u64) {}
}

impl Watch for Session {
    fn check(&self) -> Result<()> {
        Session::check(self)
    }
}
