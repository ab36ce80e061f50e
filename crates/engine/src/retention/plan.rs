//! The verdict on everything that is stored. A pure function.

use super::model::{Plan, Stored};
use chrono::{DateTime, Utc};
use pg_ark_contract::retention::Policy;
use pg_ark_contract::{Error, ErrorKind, Result};

/// What `policy` keeps of `stored` at `now`.
///
/// # Errors
/// `InvalidArgument` for a time zone that is none.
pub fn plan(_stored: &Stored, _policy: &Policy, _now: DateTime<Utc>) -> Result<Plan> {
    Err(Error::new(ErrorKind::Unsupported, "retention is not available yet"))
}
