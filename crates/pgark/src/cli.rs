//! Arguments and help.

use crate::commands::jobs::{self, JobsArgs};
use crate::commands::pins::{self, PinArgs};
use crate::commands::prune::{self, PruneArgs};
use crate::commands::wal_get::{self, WalGetArgs};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use pg_ark_contract::conversation::Level;
use pg_ark_contract::settings::Compression;
use pg_ark_contract::{ErrorKind, Lsn};
use pg_ark_engine::restore::{ArchiveMode, ConfigChoice, Target, TargetAction, TimelineChoice, target};
use std::path::PathBuf;

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "pgark",
    version,
    about = "Lists, verifies, prunes and restores pg_ark backups",
    max_term_width = 100
)]
#[command(
    long_about = "Lists, verifies, prunes and restores pg_ark backups with nothing but the repository: \
    the server that was backed up is not needed."
)]
pub struct Cli {
    /// URL of the repository, for example file:///backups
    #[arg(long, global = true, env = "PGARK_REPO", value_name = "URL", hide_env_values = true)]
    pub repo: Option<String>,
    /// Name of the cluster in the repository [default: the only one there]
    #[arg(long, global = true, env = "PGARK_CLUSTER", value_name = "NAME", hide_env_values = true)]
    pub cluster: Option<String>,
    /// Only the backups of this server, when the cluster has had several [default: all; for latest the newest]
    #[arg(long, global = true, value_name = "N")]
    pub system_identifier: Option<u64>,
    /// What to print: text for people, json with exact numbers for programs
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Form of what goes to stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables and lines with human units.
    Text,
    /// JSON with exact numbers.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the backups of a cluster, oldest first
    #[command(after_help = LIST_EXAMPLES)]
    List,
    /// Show all that is known about a backup
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// Name of the backup, or latest
        backup: String,
    },
    /// Look whether the repository and this machine are fit for a restore
    #[command(after_help = CHECK_EXAMPLES)]
    Check,
    /// Restore a cluster to the end of its WAL, or to any moment
    #[command(after_help = RESTORE_EXAMPLES)]
    Restore(RestoreArgs),
    /// Give a WAL file to a server in recovery, for its restore_command
    #[command(after_long_help = wal_get::long_help(), after_help = "See --help for the exit codes.")]
    WalGet(WalGetArgs),
    /// Check what is stored: is everything there, and as it was when it was stored?
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(VerifyArgs),
    /// Check the WAL archive: what it holds, what it lacks, what in it is damaged
    #[command(after_help = VERIFY_ARCHIVE_EXAMPLES)]
    VerifyArchive(VerifyArchiveArgs),
    /// Show from which moment to which the cluster can be restored
    #[command(after_help = WINDOWS_EXAMPLES)]
    Windows,
    /// Show what the servers' scheduled jobs did
    #[command(after_help = jobs::EXAMPLES)]
    Jobs(JobsArgs),
    /// Remove backups and WAL that the retention rules do not keep
    #[command(after_help = prune::EXAMPLES)]
    Prune(PruneArgs),
    /// Keep a backup until it is unpinned
    #[command(after_help = pins::PIN_EXAMPLES)]
    Pin(PinArgs),
    /// Let retention decide about a backup again
    #[command(after_help = pins::UNPIN_EXAMPLES)]
    Unpin {
        /// Name of the backup
        backup: String,
    },
    /// Store a WAL file, for the server's archive_command
    #[command(after_help = WAL_PUSH_EXAMPLES)]
    WalPush(WalPushArgs),
}

/// Arguments of `pgark verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Name of a backup, or latest [default: every complete backup, the WAL archive, the repository's own records]
    pub backup: Option<String>,
    /// How much is read
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t = LevelArg::Data)]
    pub level: LevelArg,
    /// Threads [default: one per core]
    #[arg(long, short = 'j', value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: Option<u16>,
}

/// How much is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LevelArg {
    /// Records; are the objects there, with their sizes? Seconds
    Record,
    /// Every object once: frames, files, manifest, WAL. About as long as zstd -t
    Data,
    /// And every page of every relation, every WAL record that the backup needs. A little longer
    Pages,
}

impl From<LevelArg> for Level {
    fn from(argument: LevelArg) -> Self {
        match argument {
            LevelArg::Record => Level::Record,
            LevelArg::Data => Level::Data,
            LevelArg::Pages => Level::Pages,
        }
    }
}

/// Arguments of `pgark verify-archive`.
#[derive(Debug, Args)]
pub struct VerifyArchiveArgs {
    /// Read every segment and follow its records, instead of looking at names alone
    #[arg(long)]
    pub deep: bool,
    /// Threads that read [default: one per core]
    #[arg(long, short = 'j', value_name = "N", requires = "deep", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub jobs: Option<u16>,
}

/// Arguments of `pgark restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// Name of the backup, or latest
    #[arg(default_value = "latest")]
    pub backup: String,
    /// Data directory to make: absent, or an empty folder
    #[arg(long, short = 'D', value_name = "DIR")]
    pub pgdata: PathBuf,
    /// Put the tablespace that was at OLD at NEW; once for each. Others go back to their old places
    #[arg(long = "tablespace", short = 'T', value_name = "OLD=NEW", value_parser = parse_mapping)]
    pub tablespaces: Vec<(String, PathBuf)>,
    /// Put WAL into DIR and make pg_wal a link to it
    #[arg(long, value_name = "DIR")]
    pub waldir: Option<PathBuf>,
    /// Where configuration files from outside the data directory go [default: original when the data directory goes
    /// back to its old place and they can be written there (as root: all below /etc/postgresql), else pgdata]
    #[arg(long, value_enum)]
    pub config: Option<ConfigArg>,
    /// Threads [default: one per core]
    #[arg(long, short = 'j', value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: Option<u16>,
    /// Folder of the server's programs [default: where pgark is, else by pg_config, else Debian's]
    #[arg(long, value_name = "DIR")]
    pub bindir: Option<PathBuf>,
    /// Print what would be done, and do nothing
    #[arg(long, conflicts_with = "start")]
    pub dry_run: bool,
    /// Start the server and follow recovery to its end
    #[arg(long)]
    pub start: bool,
    /// Replace what stands at --pgdata; WAL there that the archive lacks is saved and used first
    #[arg(long)]
    pub replace: bool,
    /// Save and use WAL of the old pg_wal DIR that the archive lacks
    #[arg(long, value_name = "DIR")]
    pub keep_wal: Option<PathBuf>,
    /// Whether the restored server archives [default: off when the data directory goes to another place than its old
    /// one, where its origin may still run; else keep]
    #[arg(long, value_enum, value_name = "MODE")]
    pub archive_mode: Option<ArchiveModeArg>,
    /// Port of the restored server, kept in its postgresql.auto.conf: a copy beside its original needs one of its own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// After --start, gather statistics: vacuumdb --all --analyze-in-stages
    #[arg(long, requires = "start")]
    pub analyze: bool,
    /// Where recovery ends, and what comes then.
    #[command(flatten)]
    pub recovery: RecoveryArgs,
}

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
    /// Timeline to follow: latest, current (the backup's own), or a number
    #[arg(long, value_name = "TIMELINE", default_value = "latest", value_parser = parse_timeline)]
    pub target_timeline: TimelineChoice,
    /// What the server does at the target
    #[arg(long, value_enum, value_name = "ACTION", default_value_t = ActionArg::Promote)]
    pub target_action: ActionArg,
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

/// Whether the restored server archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ArchiveModeArg {
    /// As its origin did
    Keep,
    /// No
    Off,
}

impl From<ArchiveModeArg> for ArchiveMode {
    fn from(argument: ArchiveModeArg) -> Self {
        match argument {
            ArchiveModeArg::Keep => ArchiveMode::Keep,
            ArchiveModeArg::Off => ArchiveMode::Off,
        }
    }
}

/// Arguments of `pgark wal-push`.
#[derive(Debug, Args)]
pub struct WalPushArgs {
    /// Path of the file in pg_wal: what archive_command gives as %p
    pub path: PathBuf,
    /// Files stored at the same time: others that wait are stored with it [default: one per core]
    #[arg(long, short = 'j', value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: Option<u16>,
    /// How segments are compressed: zstd:N, gzip:N or lz4
    #[arg(long, value_name = "CODEC", default_value = "zstd:1", value_parser = parse_compression)]
    pub compression: Compression,
}

/// Where external configuration goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ConfigArg {
    /// Where they were
    Original,
    /// Into the data directory, with the lines that name old places commented out
    Pgdata,
    /// Nowhere
    Skip,
}

impl From<ConfigArg> for ConfigChoice {
    fn from(argument: ConfigArg) -> Self {
        match argument {
            ConfigArg::Original => ConfigChoice::Original,
            ConfigArg::Pgdata => ConfigChoice::Pgdata,
            ConfigArg::Skip => ConfigChoice::Skip,
        }
    }
}

const LIST_EXAMPLES: &str = "Examples:
  pgark --repo file:///backups list
  pgark --repo file:///backups --format json list | jq '.[-1].backup'";
const SHOW_EXAMPLES: &str = "Examples:
  pgark --repo file:///backups show latest
  pgark --repo file:///backups --format json show 20261122T020000Z-full | jq .archives";
const WAL_PUSH_EXAMPLES: &str = "Examples:
  In postgresql.conf, instead of archive_library = 'pg_ark':
    archive_mode = on
    archive_command = 'pgark --repo file:///backups --cluster main wal-push %p'
  By hand, in the data directory:
    pgark --repo file:///backups --cluster main wal-push pg_wal/000000010000000000000004

The repository must exist: ark.enable creates it. A new cluster is created when it is named.
Exits 0, and says nothing, only when the file is stored durably. Nothing that is stored is ever
replaced: a file that is there already is fine when it is equal, else it is refused (27).
On a standby with archive_mode = always the same command stores to the same cluster.";
const CHECK_EXAMPLES: &str = "Examples:
  pgark --repo file:///backups check";
const VERIFY_EXAMPLES: &str = "Examples:
  Everything that is stored, once a week:
    pgark --repo file:///backups verify
  The newest backup and the WAL that it needs, each night:
    pgark --repo file:///backups verify latest
  Is everything there? Every few minutes, it reads names and records alone:
    pgark --repo file:///backups verify --level record
  What is wrong, for programs:
    pgark --repo file:///backups --format json verify | jq -r '.[] | .severity + \" \" + .object'

The server is not needed, and nothing is written. Each level holds the one before. With page
checksums, level pages also tells what was damaged before it was backed up.

Exit code: 0 nothing was found, 19 WAL is missing and nothing else is wrong, 13 anything else was
found, 7 or 8 there is no such backup or it is not complete, 17 stopped by a signal.";
const VERIFY_ARCHIVE_EXAMPLES: &str = "Examples:
  Is there a gap, a timeline without history, something that does not belong there?
    pgark --repo file:///backups verify-archive
  Can every segment be read, and does every record follow the one before?
    pgark --repo file:///backups verify-archive --deep
  What is wrong, for programs:
    pgark --repo file:///backups --format json verify-archive | jq '.[] | select(.status != \"ok\")'

Exit code: 0 all is well, 19 there are gaps and nothing else is wrong, 13 anything else.";
const WINDOWS_EXAMPLES: &str = "Examples:
  pgark --repo file:///backups windows
  How far back, and how far forward?
    pgark --repo file:///backups --format json windows | jq '[.[0].from_time, .[-1].to_time]'

Every moment from FROM to TO can be restored with pgark restore --target-time. TO is the last commit that is stored.";
const RESTORE_EXAMPLES: &str = "Examples:
  See what would happen:
    pgark --repo file:///backups restore --pgdata /var/lib/postgresql/15/main --dry-run
  The disk is gone: restore all that is stored, and start the server:
    pgark --repo file:///backups restore --pgdata /var/lib/postgresql/15/main --start
  The data directory is damaged, pg_wal is not: back to the last commit:
    pgark --repo file:///backups restore --pgdata /var/lib/postgresql/15/main --replace --start
  A table was dropped: a copy as it was before, to look into:
    pgark --repo file:///backups restore --pgdata /srv/copy --config pgdata \\
        --target-time '2026-11-22 14:30:00 Europe/Berlin' --target-action pause
  A copy of a backup beside the original:
    pgark --repo file:///backups restore 20261122T020000Z-full --pgdata /srv/copy \\
        --tablespace /mnt/fast=/srv/copy_fast --config pgdata --target immediate

The newest backup from which the target can be reached is chosen, unless one is named. A target that cannot be reached is
refused before anything is written; \"pgark windows\" shows what can be.
Nothing is overwritten but with --replace, and only what belongs to the cluster: otherwise the data directory, --waldir and
tablespace targets must be absent or empty.
An interrupted restore leaves a file pg_ark_restore.unfinished; a server does not start from what it left.";

/// Reads the command line; on `--help` and on mistakes this ends the process.
pub fn parse() -> Cli {
    let command = Cli::command().after_long_help(exit_codes()).after_help("See --help for the exit codes.");
    let read = command.try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    read.unwrap_or_else(|e| wal_get::usage(&e))
}

/// The table of exit codes, from the one table of errors.
fn exit_codes() -> String {
    let mut text = String::from("Exit codes:\n   0  done");
    for kind in ErrorKind::ALL {
        text.push_str(&format!("\n  {:>2}  {}", kind.exit_code(), kind.meaning()));
    }
    text
}

fn parse_compression(text: &str) -> Result<Compression, String> {
    text.parse().map_err(|e: pg_ark_contract::Error| match e.hint {
        Some(hint) => format!("{}. {hint}", e.message),
        None => e.message,
    })
}

/// `OLD=NEW`; an equals sign that belongs to a path is written `\=`, as in pg_basebackup.
fn parse_mapping(text: &str) -> Result<(String, PathBuf), String> {
    const EQUALS: char = '\u{0}';
    let hidden = text.replace("\\=", &EQUALS.to_string());
    let shown = |part: &str| part.replace(EQUALS, "=");
    match hidden.split_once('=') {
        Some((old, new)) if !old.is_empty() && !new.is_empty() => Ok((shown(old), PathBuf::from(shown(new)))),
        _ => Err("write it as OLD=NEW, for example /mnt/fast=/srv/fast".to_string()),
    }
}

/// An error of ours in clap's form, its hint on a line of its own.
fn in_clap(error: pg_ark_contract::Error) -> String {
    match error.hint {
        Some(hint) => format!("{}\n  hint: {hint}", error.message),
        None => error.message,
    }
}

fn parse_time(text: &str) -> Result<Target, String> {
    target::parse_time(text).map(Target::Time).map_err(in_clap)
}

fn parse_lsn(text: &str) -> Result<Target, String> {
    text.parse::<Lsn>().map(Target::Lsn).map_err(in_clap)
}

fn parse_xid(text: &str) -> Result<Target, String> {
    Target::xid(text).map_err(in_clap)
}

fn parse_name(text: &str) -> Result<Target, String> {
    Target::name(text).map_err(in_clap)
}

fn parse_timeline(text: &str) -> Result<TimelineChoice, String> {
    text.parse().map_err(in_clap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        assert!(exit_codes().contains("  14  the restore target exists and is not empty"));
    }

    #[test]
    fn mappings() {
        assert_eq!(parse_mapping("/a=/b").unwrap(), ("/a".to_string(), PathBuf::from("/b")));
        assert_eq!(parse_mapping("/a\\=b=/c\\=d").unwrap(), ("/a=b".to_string(), PathBuf::from("/c=d")));
        for bad in ["", "/a", "=/b", "/a="] {
            assert!(parse_mapping(bad).is_err(), "{bad}");
        }
    }
}
