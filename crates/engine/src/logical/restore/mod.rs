//! A logical backup's way back.
//!
//! * [`request`]: what the user asked for; [`choose`]: the backup; [`report`]: what came of it.
//! * For both ways: [`globals`], whose text [`script`] cuts into statements, and [`load`], one dump into a server.
//! * Into a cluster that it makes: [`plan`] looks ([`room`]) and refuses; [`fresh`] carries it out: [`initdb`], a server for the
//!   restore alone ([`private`]), all [`databases`], configuration ([`config_back`], [`settings`]), everything durable; [`start`].

pub mod choose;
pub mod config_back;
pub mod databases;
pub mod fresh;
pub mod globals;
pub mod initdb;
pub mod load;
pub mod plan;
pub mod private;
pub mod report;
pub mod request;
pub mod room;
pub mod script;
pub mod selection;
pub mod settings;
pub mod start;

pub use choose::choose;
pub use fresh::run_fresh;
pub use plan::{FreshPlan, FreshPrepared, PlannedDatabase, PlannedTablespace, prepare_fresh};
pub use report::{LogicalRestored, Problem};
pub use request::{FreshRequest, IntoRequest, LATEST};
pub use start::{Running, start_fresh};
