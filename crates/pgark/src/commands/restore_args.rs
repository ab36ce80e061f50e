//! Arguments of `pgark restore`, and which of them fit the kind of the backup.

use super::recovery_args::RecoveryArgs;
use clap::{Args, ValueEnum};
use pg_ark_contract::{Error, ErrorKind, Result};
use pg_ark_engine::logical::restore::{FreshRequest, IntoRequest, LATEST};
use pg_ark_engine::restore::{ArchiveMode, ConfigChoice, Request, TargetAction, TimelineChoice};
use std::path::{Path, PathBuf};

/// Examples below the help.
pub const EXAMPLES: &str = "Examples:
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
  What does the newest logical backup hold?
    pgark --repo file:///backups restore latest-logical --pgdata /srv/new --dry-run
  All of it into a new cluster, of this version or a newer one:
    pgark --repo file:///backups restore latest-logical --pgdata /srv/new --port 5433 \\
        --bindir /usr/lib/postgresql/17/bin --start
  One database into a running server, under another name:
    pgark --repo file:///backups restore --into 'host=/run/postgresql' --database shop --as shop_old
  One table of it, beside the one that is there:
    pgark --repo file:///backups restore --into 'host=/run/postgresql' --database shop \\
        --table public.orders --as orders_old

The newest backup from which the target can be reached is chosen, unless one is named. A target
that cannot be reached is refused before anything is written; \"pgark windows\" shows what can be.
Nothing is overwritten but with --replace, and only what belongs to the cluster: otherwise the data
directory, --waldir and tablespace targets must be absent or empty. With --into nothing is dropped
but with --clean. An interrupted restore leaves a file pg_ark_restore.unfinished; a server does not
start from what it left.

A logical backup is chosen by its name, by latest-logical, or by --into. What of it could not be
restored is told, the rest is there, and the exit code is 31.";

/// What the names of logical backups end with.
const LOGICAL: &str = "-logical";
/// The word for the newest physical backup.
const LATEST_PHYSICAL: &str = "latest";

/// Arguments of `pgark restore`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("destination").required(true).args(["pgdata", "into"]))]
pub struct RestoreArgs {
    /// Name of the backup, latest, or latest-logical [default: latest; with --into latest-logical]
    pub backup: Option<String>,
    /// Data directory to make: absent, or an empty folder
    #[arg(long, short = 'D', value_name = "DIR")]
    pub pgdata: Option<PathBuf>,
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
    /// Print what would be done, and do nothing; of a logical backup also its contents, as pg_restore -l does
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
    /// What of a logical backup is restored, and where to.
    #[command(flatten)]
    pub logical: LogicalArgs,
    /// Where recovery ends, and what comes then.
    #[command(flatten)]
    pub recovery: RecoveryArgs,
}

/// What of a logical backup is restored, and where to.
#[derive(Debug, Args)]
#[command(next_help_heading = "Logical backups")]
pub struct LogicalArgs {
    /// Restore into this running server: 'host=/run/postgresql port=5433 dbname=shop', or postgresql://...
    #[arg(long, value_name = "CONNINFO")]
    pub into: Option<String>,
    /// Only this database; with --pgdata once for each [default: all; for --schema and --table the one that has them]
    #[arg(long, short = 'd', value_name = "NAME")]
    pub database: Vec<String>,
    /// Only this schema; once for each. It goes into the database that --into names, else into --database
    #[arg(long, short = 'n', value_name = "NAME")]
    pub schema: Vec<String>,
    /// Only this table, with its indexes, constraints, defaults, owned sequences, triggers, policies and privileges; once
    /// for each
    #[arg(long, short = 't', value_name = "[SCHEMA.]NAME")]
    pub table: Vec<String>,
    /// Restore the one database, schema or table under this name
    #[arg(long = "as", value_name = "NAME")]
    pub rename: Option<String>,
    /// Drop first what is there under the same name
    #[arg(long)]
    pub clean: bool,
}

/// What `pgark restore` is to do.
#[derive(Debug, Clone)]
pub enum Wish {
    /// A physical backup.
    Physical(Request),
    /// A logical backup, into a cluster that the restore makes.
    Fresh(FreshRequest),
    /// A logical backup, into a running server.
    Into(IntoRequest),
}

impl RestoreArgs {
    /// What is to be done, by the name of the backup and the destination.
    ///
    /// # Errors
    /// `InvalidArgument` for options that mean nothing there.
    pub fn wish(&self) -> Result<Wish> {
        let named = self.backup.as_deref();
        match (&self.logical.into, &self.pgdata) {
            (Some(conninfo), _) => self.running(named.unwrap_or(LATEST), conninfo).map(Wish::Into),
            (None, Some(pgdata)) => match named.unwrap_or(LATEST_PHYSICAL) {
                name if name.ends_with(LOGICAL) => self.fresh(name, pgdata).map(Wish::Fresh),
                name => self.physical(name, pgdata).map(Wish::Physical),
            },
            (None, None) => Err(Error::new(ErrorKind::InvalidArgument, "the restore has no destination")
                .hint("Give --pgdata DIR, or --into CONNINFO for a logical backup.")),
        }
    }

    fn physical(&self, name: &str, pgdata: &Path) -> Result<Request> {
        refuse(
            &self.of_a_server(),
            "a physical backup is restored whole, into a data directory",
            "Of a logical backup, single databases can be restored with --pgdata, and schemas and tables with --into \
             CONNINFO: name one, or latest-logical. \"pgark list\" shows what there is.",
        )?;
        Ok(Request {
            backup: name.to_string(),
            pgdata: pgdata.to_path_buf(),
            tablespaces: self.tablespaces.clone(),
            waldir: self.waldir.clone(),
            config: self.config.map(Into::into).unwrap_or_default(),
            jobs: self.jobs.map_or(0, usize::from),
            bindir: self.bindir.clone(),
            start: self.start,
            target: self.recovery.target(),
            exclusive: self.recovery.exclusive,
            timeline: self.recovery.target_timeline.unwrap_or(TimelineChoice::Latest),
            action: self.recovery.target_action.map_or(TargetAction::Promote, Into::into),
            standby: self.recovery.standby,
            archive_mode: self.archive_mode.map(Into::into),
            port: self.port,
            analyze: self.analyze,
            replace: self.replace,
            keep_wal: self.keep_wal.clone(),
            program: None,
        })
    }

    fn fresh(&self, name: &str, pgdata: &Path) -> Result<FreshRequest> {
        refuse(&self.of_wal(), "a logical backup holds no WAL and no data files", NO_WAL)?;
        let databases = ("--database", !self.logical.database.is_empty());
        let other: Vec<_> = self.of_a_server().into_iter().filter(|option| *option != databases).collect();
        refuse(
            &other,
            "parts of a database go into a server that runs",
            "Say --into CONNINFO instead of --pgdata; or restore whole databases (--database), and take from them what you need.",
        )?;
        Ok(FreshRequest {
            backup: name.to_string(),
            pgdata: pgdata.to_path_buf(),
            databases: self.logical.database.clone(),
            tablespaces: self.tablespaces.clone(),
            config: self.config.map(Into::into).unwrap_or_default(),
            archive_mode: self.archive_mode.map(Into::into),
            bindir: self.bindir.clone(),
            port: self.port,
            start: self.start,
            jobs: self.jobs.map_or(0, usize::from),
        })
    }

    fn running(&self, name: &str, conninfo: &str) -> Result<IntoRequest> {
        if !name.ends_with(LOGICAL) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("--into takes a logical backup, and \"{}\" is a physical one", name.escape_debug()),
            )
            .hint("Leave the name out for the newest logical backup, or name one: \"pgark list\" shows them. A physical backup is restored with --pgdata."));
        }
        refuse(&self.of_wal(), "a logical backup holds no WAL and no data files", NO_WAL)?;
        refuse(
            &self.of_a_new_cluster(),
            "the server that --into names runs already, and keeps its settings",
            "Leave them out, or say --pgdata DIR instead of --into for a cluster of its own.",
        )?;
        if let [_, _, ..] = &self.logical.database[..] {
            return Err(Error::new(ErrorKind::InvalidArgument, "--into takes one --database")
                .hint("Call pgark restore once for each; without --database it restores all of them."));
        }
        Ok(IntoRequest {
            backup: name.to_string(),
            conninfo: conninfo.to_string(),
            database: self.logical.database.first().cloned(),
            schemas: self.logical.schema.clone(),
            tables: self.logical.table.clone(),
            rename: self.logical.rename.clone(),
            clean: self.logical.clean,
            bindir: self.bindir.clone(),
            jobs: self.jobs.map_or(0, usize::from),
        })
    }

    /// Options that choose parts of a logical backup, and whether each was given.
    fn of_a_server(&self) -> [(&'static str, bool); 5] {
        let LogicalArgs { into: _, database, schema, table, rename, clean } = &self.logical;
        [
            ("--database", !database.is_empty()),
            ("--schema", !schema.is_empty()),
            ("--table", !table.is_empty()),
            ("--as", rename.is_some()),
            ("--clean", *clean),
        ]
    }

    /// Options about WAL, recovery and what stands at the old place.
    fn of_wal(&self) -> Vec<(&'static str, bool)> {
        let mut options = vec![
            ("--waldir", self.waldir.is_some()),
            ("--replace", self.replace),
            ("--keep-wal", self.keep_wal.is_some()),
            ("--analyze", self.analyze),
        ];
        options.extend(self.recovery.given());
        options
    }

    /// Options about a cluster that is made.
    fn of_a_new_cluster(&self) -> [(&'static str, bool); 5] {
        [
            ("--tablespace", !self.tablespaces.is_empty()),
            ("--config", self.config.is_some()),
            ("--start", self.start),
            ("--archive-mode", self.archive_mode.is_some()),
            ("--port", self.port.is_some()),
        ]
    }
}

/// What to say about options that a dump has no use for.
const NO_WAL: &str = "Leave them out: it shows one moment of each database, and statistics are gathered without being asked for. For any \
     other moment restore a physical backup: \"pgark list\" shows them.";

/// Refuses options that were given and mean nothing here.
fn refuse(options: &[(&str, bool)], why: &str, hint: &str) -> Result<()> {
    let given: Vec<&str> = options.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
    match given.is_empty() {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("{} cannot be used here: {why}", given.join(", ")),
        )
        .hint(hint)),
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

/// `OLD=NEW`; an equals sign that belongs to a path is written `\=`, as in pg_basebackup.
fn parse_mapping(text: &str) -> std::result::Result<(String, PathBuf), String> {
    const EQUALS: char = '\u{0}';
    let hidden = text.replace("\\=", &EQUALS.to_string());
    let shown = |part: &str| part.replace(EQUALS, "=");
    match hidden.split_once('=') {
        Some((old, new)) if !old.is_empty() && !new.is_empty() => Ok((shown(old), PathBuf::from(shown(new)))),
        _ => Err("write it as OLD=NEW, for example /mnt/fast=/srv/fast".to_string()),
    }
}

#[cfg(test)]
#[path = "restore_args_tests.rs"]
mod tests;
