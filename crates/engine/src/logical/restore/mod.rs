//! A logical backup's way back.

pub mod report;
pub mod request;

pub use report::{LogicalRestored, Problem};
pub use request::{FreshRequest, IntoRequest, LATEST};
