//! Arguments and help.

use crate::commands::jobs::{self, JobsArgs};
use crate::commands::pins::{self, PinArgs};
use crate::commands::prune::{self, PruneArgs};
use crate::commands::restore_args::{self, RestoreArgs};
use crate::commands::wal_get::{self, WalGetArgs};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use pg_ark_contract::ErrorKind;
use pg_ark_contract::conversation::Level;
use pg_ark_contract::settings::Compression;
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
        /// Name of the backup, latest, or latest-logical
        backup: String,
    },
    /// Look whether the repository and this machine are fit for a restore
    #[command(after_help = CHECK_EXAMPLES)]
    Check,
    /// Restore a cluster to any moment; or a logical backup, whole or in part
    #[command(after_help = restore_args::EXAMPLES)]
    Restore(Box<RestoreArgs>),
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
    /// Name of a backup, latest, or latest-logical [default: every complete backup, the WAL archive, the repository's own records]
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
    /// Every object once: frames, files, manifest, WAL; dumps are expanded. About as long as zstd -t
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
  The newest dumps, read by pg_restore to their end:
    pgark --repo file:///backups verify latest-logical
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

Every moment from FROM to TO can be restored with pgark restore --target-time. TO is the last commit that is stored.
A logical backup makes no window: it holds one moment of each database.";
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        assert!(exit_codes().contains("  14  the restore target exists and is not empty"));
    }
}
