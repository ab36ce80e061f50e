//! Background workers.
//!
//! * [`scheduler`]: there for as long as the server; [`agenda`]: looks for it what is due; [`run`]: does what is due, and
//!   [`work`] is what that is.
//! * [`job`]: runs a backup that a session asked for. * [`backup`]: how one is taken, for whoever asked.
//! * [`wake`]: a change acts at once. * [`notice`]: NOTIFY.
//! * [`queue`]: what begins first. * [`problems`], [`refused`]: what keeps the scheduler from its work. * [`clock`], [`limit`]: times.
//! * [`damage`]: what the log says about damaged pages.
//! * [`request`]: what the session hands to the worker. * [`logical`]: what a logical backup has to know.
//! * [`server`]: the connection, facts about the server, and the calls that a backup makes on it.

pub mod agenda;
pub mod backup;
pub mod clock;
pub mod damage;
pub mod job;
pub mod limit;
pub mod logical;
pub mod notice;
pub mod problems;
pub mod queue;
pub mod refused;
pub mod request;
pub mod run;
pub mod scheduler;
pub mod server;
pub mod wake;
pub mod work;

pub use wake::wake_after_commit;
