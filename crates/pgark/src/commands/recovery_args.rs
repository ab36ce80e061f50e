//! Arguments of `pgark restore` that say where recovery ends, and what comes then.

use clap::{Args, ValueEnum};
use pg_ark_contract::{Error, Lsn};
use pg_ark_engine::restore::{Target, TargetAction, TimelineChoice, target};

/// Where recovery ends, and what comes then.
#[derive(Debug, Args)]
#[command(next_help_heading = "Recovery")]
pub struct RecoveryArgs {
    /// The end of the archive, or the end of the backup [default: latest]
    #[arg(long, value_enum, value_name = "WHERE", group = "where")]
    pub target: Option<TargetArg>,
    /// A time with its zone: 2026-11-22 14:30:00+01, 2026-11-22T13:30:00Z, 2026-11-22 14:30 Europe/Berlin
    #[arg(long, value_name = "TIME", group = "where", value_parser = parse_time)]
    pub target_time: Option<Target>,
    /// A position in the WAL, such as 0/3000028
    #[arg(long, value_name = "LSN", group = "where", value_parser = parse_lsn)]
    pub target_lsn: Option<Target>,
    /// The end of this transaction
    #[arg(long, value_name = "XID", group = "where", value_parser = parse_xid)]
    pub target_xid: Option<Target>,
    /// The restore point of this name
    #[arg(long, value_name = "NAME", group = "where", value_parser = parse_name)]
    pub target_name: Option<Target>,
    /// Stop just before the target: for a time, LSN or XID
    #[arg(long, conflicts_with_all = ["target", "target_name"])]
    pub exclusive: bool,
    /// Timeline to follow: latest, current (the backup's own), or a number [default: latest]
    #[arg(long, value_name = "TIMELINE", value_parser = parse_timeline)]
    pub target_timeline: Option<TimelineChoice>,
    /// What the server does at the target [default: promote]
    #[arg(long, value_enum, value_name = "ACTION")]
    pub target_action: Option<ActionArg>,
    /// Make a standby, which follows the archive and its origin until it is promoted
    #[arg(long, conflicts_with_all = ["where", "exclusive", "target_action", "target_timeline"])]
    pub standby: bool,
}

impl RecoveryArgs {
    /// Where recovery ends.
    pub fn target(&self) -> Target {
        let named = [&self.target_time, &self.target_lsn, &self.target_xid, &self.target_name];
        match (named.into_iter().flatten().next(), self.target) {
            (Some(target), _) => target.clone(),
            (None, Some(TargetArg::Immediate)) => Target::Immediate,
            (None, _) => Target::Latest,
        }
    }

    /// Those of these options that were given.
    pub fn given(&self) -> [(&'static str, bool); 9] {
        [
            ("--target", self.target.is_some()),
            ("--target-time", self.target_time.is_some()),
            ("--target-lsn", self.target_lsn.is_some()),
            ("--target-xid", self.target_xid.is_some()),
            ("--target-name", self.target_name.is_some()),
            ("--exclusive", self.exclusive),
            ("--target-timeline", self.target_timeline.is_some()),
            ("--target-action", self.target_action.is_some()),
            ("--standby", self.standby),
        ]
    }
}

/// An end that needs no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TargetArg {
    /// The end of the archive
    Latest,
    /// The end of the backup
    Immediate,
}

/// What the server does at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ActionArg {
    /// Become a server of its own
    Promote,
    /// Wait, and let clients read
    Pause,
    /// Shut down
    Shutdown,
}

impl From<ActionArg> for TargetAction {
    fn from(argument: ActionArg) -> Self {
        match argument {
            ActionArg::Promote => TargetAction::Promote,
            ActionArg::Pause => TargetAction::Pause,
            ActionArg::Shutdown => TargetAction::Shutdown,
        }
    }
}

/// An error of ours in clap's form, its hint on a line of its own.
fn in_clap(error: Error) -> String {
    match error.hint {
        Some(hint) => format!("{}\n  hint: {hint}", error.message),
        None => error.message,
    }
}

fn parse_time(text: &str) -> std::result::Result<Target, String> {
    target::parse_time(text).map(Target::Time).map_err(in_clap)
}

fn parse_lsn(text: &str) -> std::result::Result<Target, String> {
    text.parse::<Lsn>().map(Target::Lsn).map_err(in_clap)
}

fn parse_xid(text: &str) -> std::result::Result<Target, String> {
    Target::xid(text).map_err(in_clap)
}

fn parse_name(text: &str) -> std::result::Result<Target, String> {
    Target::name(text).map_err(in_clap)
}

fn parse_timeline(text: &str) -> std::result::Result<TimelineChoice, String> {
    text.parse().map_err(in_clap)
}
