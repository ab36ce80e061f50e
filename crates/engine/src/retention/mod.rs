//! Retention: plan, show, apply.
//!
//! 1. [`gather`]: what is stored, as values ([`model`]).
//! 2. [`plan`]: the verdict on each backup, each run of WAL segments, each history: a pure function.
//! 3. [`apply`]: under the lease of every system (`leases`), removes what has the verdict `drop` (`removal`, `wal_removal`);
//!    can be killed anywhere and run again. [`safety`] looks at every plan before that. `rows`: the plan, for people.
//! 4. [`pins`]: backups that nobody may remove. [`policy_store`]: what the server keeps, for who works without it.

pub mod apply;
#[cfg(test)]
mod fixture;
pub mod gather;
mod leases;
pub mod model;
pub mod pins;
pub mod plan;
pub mod policy_store;
mod removal;
mod rows;
pub mod safety;
mod wal_removal;
mod written;

pub use apply::{prune, prune_at};
pub use pins::{pin, unpin};
