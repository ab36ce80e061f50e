//! A logical backup's way back.

pub mod globals;
pub mod load;
pub mod report;
pub mod request;
pub mod script;
pub mod selection;

pub use report::{LogicalRestored, Problem};
pub use request::{FreshRequest, IntoRequest, LATEST};
