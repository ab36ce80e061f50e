//! A logical backup's way back.
//!
//! * [`request`]: what the user asked for; [`choose`]: the backup; [`report`]: what came of it.
//! * For both ways: [`globals`], whose text [`script`] cuts into statements that have a [`meaning`], and [`load`], one dump into a server.
//! * Into a cluster that it makes: [`plan`] looks ([`room`]) and refuses; [`fresh`] carries it out: [`initdb`], a server for the
//!   restore alone ([`private`]; [`full`]), all [`databases`], configuration ([`config_back`], [`settings`]), everything durable; [`start`].
//! * Into a running server: [`into`] looks and refuses, with a plan ([`into_plan`]), [`into_run`] carries it out; [`existing`] is
//!   what the server has already.
//!   Databases: [`whole`], [`made`]. Tables and schemas: [`find`], [`selection`], [`objects`], [`wanted`], [`objects_run`],
//!   [`use_list`]; what goes before: [`clean`], [`reach`], [`drops`]; under another name through a [`scratch`] database.

pub mod choose;
pub mod clean;
pub mod config_back;
pub mod databases;
pub mod drops;
pub mod existing;
pub mod find;
pub mod fresh;
mod full;
pub mod given;
pub mod globals;
pub mod initdb;
pub mod into;
pub mod into_plan;
pub mod into_run;
pub mod load;
pub mod made;
pub mod meaning;
pub mod money;
pub mod objects;
pub mod objects_run;
pub mod plan;
pub mod private;
pub mod reach;
pub mod report;
pub mod request;
pub mod room;
pub mod scratch;
pub mod script;
pub mod selection;
pub mod settings;
pub mod start;
pub mod use_list;
pub mod waiting;
pub mod wanted;
pub mod whole;

pub use choose::{choose, newest};
pub use fresh::run_fresh;
pub use into::{IntoPrepared, prepare_into};
pub use into_plan::{DatabaseStep, GlobalsStep, IntoPlan, ObjectsStep};
pub use into_run::run_into;
pub use plan::{FreshPlan, FreshPrepared, PlannedDatabase, PlannedTablespace, prepare_fresh};
pub use report::{LogicalRestored, Problem};
pub use request::{FreshRequest, IntoRequest, LATEST};
pub use start::{Running, start_fresh};
