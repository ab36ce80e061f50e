//! `pgark pin` and `pgark unpin`: backups that nobody may remove.

use crate::cli::Format;
use crate::output;
use clap::Args;
use pg_ark_contract::{Error, ErrorKind, Result};
use pg_ark_engine::repository::Cluster;
use pg_ark_engine::restore::request::complete;
use pg_ark_engine::retention;
use serde::Serialize;

/// Examples below the help of pin.
pub const PIN_EXAMPLES: &str = "Examples:
  Keep the last backup before the upgrade until somebody unpins it:
    pgark --repo file:///backups pin latest --reason 'before the upgrade to 16'
  What is pinned?
    pgark --repo file:///backups --format json list | jq '.[] | select(.pinned)'

Kept are the backup and the WAL that makes it consistent: it can be restored as it was
when it was taken (--target immediate). To keep every moment after it too, make the window longer.
Pinning again replaces the reason.";

/// Examples below the help of unpin.
pub const UNPIN_EXAMPLES: &str = "Examples:
  pgark --repo file:///backups unpin 20261122T020000Z-full

The next prune may then remove it, when no other rule keeps it.";

/// Arguments of `pgark pin`.
#[derive(Debug, Args)]
pub struct PinArgs {
    /// Name of the backup, or latest
    pub backup: String,
    /// Why, for whoever asks later: list and prune show it
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// What `--format json` prints.
#[derive(Serialize)]
struct Report<'a> {
    backup: &'a str,
    pinned: bool,
    changed: bool,
}

/// Pins a backup.
pub fn pin(cluster: &Cluster, arguments: &PinArgs, format: Format) -> Result<()> {
    let backup = match &arguments.backup[..] {
        "latest" => latest(cluster)?,
        name => name.to_string(),
    };
    let changed = retention::pin(cluster, &backup, arguments.reason.as_deref())?;
    tell(&Report { backup: &backup, pinned: true, changed }, format)
}

/// Takes the pin away.
pub fn unpin(cluster: &Cluster, backup: &str, format: Format) -> Result<()> {
    let changed = retention::unpin(cluster, backup)?;
    tell(&Report { backup, pinned: false, changed }, format)
}

/// The complete backup that finished last.
fn latest(cluster: &Cluster) -> Result<String> {
    complete(cluster)?.pop().map(|record| record.backup).ok_or_else(|| {
        Error::new(
            ErrorKind::BackupNotFound,
            format!("cluster \"{}\" has no complete backup", cluster.name()),
        )
        .hint("Take one with ark.backup_start().")
    })
}

fn tell(report: &Report<'_>, format: Format) -> Result<()> {
    match format {
        Format::Json => output::json(report),
        Format::Text => output::lines(&format!(
            "{} {}",
            report.backup,
            match (report.pinned, report.changed) {
                (true, true) => "is pinned: prune keeps it",
                (true, false) => "was pinned already; the reason is the new one",
                (false, true) => "is no longer pinned",
                (false, false) => "was not pinned",
            }
        )),
    }
}
