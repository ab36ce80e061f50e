//! The SQL functions, one file per subject.
//!
//! Each function translates: arguments to a job of the engine or to a request for a worker, and the answer to rows.
//! Each fixes its search_path, so that nothing a caller creates is used in its place. Rights are in `sql/grants.sql`.

use std::time::Duration;

/// How long the engine may take for a question that a view asks: it shall answer while the repository hangs.
const PATIENCE: Duration = Duration::from_secs(5);

pub mod agenda;
pub mod archiving;
pub mod backup;
pub mod check;
pub mod enable;
pub mod health;
pub mod list;
pub mod logical;
pub mod metrics;
pub mod protect;
pub mod protection;
pub mod retention;
pub mod schedule;
pub mod scheduling;
pub mod standoff;
pub mod status;
pub mod validate;
pub mod waiting;
pub mod wal;
