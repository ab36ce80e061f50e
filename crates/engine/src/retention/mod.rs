//! Retention: plan, show, apply.
//!
//! 1. [`gather`]: what is stored, as values ([`model`]).
//! 2. [`plan`]: the verdict on each backup, each run of WAL segments, each history: a pure function.
//! 3. [`apply`]: under the lease of every system, removes what has the verdict `drop`; can be killed anywhere and run again.
//! 4. [`pins`]: backups that nobody may remove.

pub mod apply;
pub mod gather;
pub mod model;
pub mod pins;
pub mod plan;

pub use apply::prune;
pub use pins::{pin, unpin};
