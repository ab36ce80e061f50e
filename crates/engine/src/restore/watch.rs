//! How a restore talks to whoever runs it: progress out, "stop" in.

use pg_ark_contract::{Error, ErrorKind, Result};

/// Part of a restore, in the order in which they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// What is stored is proved; counted in stored bytes.
    Check,
    /// Archives are unpacked; counted in bytes of tar.
    Unpack,
    /// Dumps are restored; counted in stored bytes.
    Load,
    /// Everything is made durable; not counted.
    Sync,
    /// The server starts; not counted.
    Start,
    /// The server replays WAL; counted in bytes of WAL.
    Recover,
    /// Statistics are gathered; not counted.
    Analyze,
}

/// Hears from a restore. Called from several threads.
pub trait Watch: Sync {
    /// A stage begins; `total` is 0 when it is not counted.
    fn stage(&self, stage: Stage, total: u64);
    /// So much more of the stage is done.
    fn advance(&self, amount: u64);
    /// Something that the user should know; the work goes on.
    fn warn(&self, message: &str);
    /// Whether to stop.
    fn stopped(&self) -> bool;
}

/// Ends the work when the user asked for that.
///
/// # Errors
/// `Cancelled`.
pub fn check(watch: &dyn Watch) -> Result<()> {
    match watch.stopped() {
        true => Err(Error::new(ErrorKind::Cancelled, "the restore was cancelled")),
        false => Ok(()),
    }
}

/// Hears nothing and never stops.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Watch for Silent {
    fn stage(&self, _: Stage, _: u64) {}
    fn advance(&self, _: u64) {}
    fn warn(&self, _: &str) {}
    fn stopped(&self) -> bool {
        false
    }
}
