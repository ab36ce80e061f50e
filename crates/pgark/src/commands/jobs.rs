//! `pgark jobs`: what the servers' schedules did, as the repository remembers it.

use crate::cli::{Cli, Format};
use crate::{output, talk};
use chrono::{DateTime, Utc};
use clap::Args;
use pg_ark_contract::Result;
use pg_ark_contract::schedule::RunRow;
use pg_ark_engine::repository::Cluster;
use pg_ark_engine::schedule;

/// Examples below the help.
pub const EXAMPLES: &str = "Examples:
  pgark --repo file:///backups jobs
  The last run of each job:
    pgark --repo file:///backups jobs --limit 1
  What failed, for programs:
    pgark --repo file:///backups --format json jobs | jq '.[] | select(.status == \"failed\")'

The server is not needed: an attempt at a job is written down in the repository before it begins.
When a job is next due only the server knows: ark.jobs.";

/// Arguments of `pgark jobs`.
#[derive(Debug, Args)]
pub struct JobsArgs {
    /// Name of a job [default: all]
    pub job: Option<String>,
    /// At most so many runs of each job, the newest ones
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
}

/// Prints the runs of each job, newest first.
pub fn run(cli: &Cli, cluster: &Cluster, arguments: &JobsArgs, format: Format) -> Result<()> {
    let job = arguments.job.as_deref();
    let rows = schedule::runs(cluster, cli.system_identifier, job, arguments.limit)?;
    match format {
        Format::Json => output::json(&rows)?,
        Format::Text if rows.is_empty() => talk::say(&match job {
            Some(job) => format!("job \"{job}\" of cluster \"{}\" has no runs", cluster.name()),
            None => format!("cluster \"{}\" has no runs of jobs", cluster.name()),
        }),
        Format::Text => output::lines(&text(&rows))?,
    }
    Ok(())
}

/// A table for each job, by name.
fn text(rows: &[RunRow]) -> String {
    let mut jobs: Vec<&str> = rows.iter().map(|row| &row.id.job[..]).collect();
    jobs.sort_unstable();
    jobs.dedup();
    let table = |job: &&str| {
        let runs: Vec<&RunRow> = rows.iter().filter(|row| row.id.job == *job).collect();
        let kind = runs.first().map_or("", |row| row.kind.as_str());
        format!("{job} ({kind}):\n{}", table(&runs))
    };
    jobs.iter().map(table).collect::<Vec<_>>().join("\n\n")
}

fn table(runs: &[&RunRow]) -> String {
    let cells = |row: &&RunRow| {
        [
            output::time(&row.id.due_at),
            row.id.attempt.to_string(),
            row.status.as_str().to_string(),
            output::time(&row.started_at),
            took(row).unwrap_or_default(),
        ]
    };
    let notes: Vec<String> = runs.iter().map(|row| note(row)).collect();
    let lines: Vec<_> = runs.iter().map(cells).zip(notes.iter().map(|note| &note[..])).collect();
    output::told(&["DUE (UTC)", "TRY", "STATUS", "STARTED (UTC)", "TOOK", "WHAT CAME OF IT"], &lines)
}

/// The error, the backup, the result; of a run that goes on, where.
fn note(row: &RunRow) -> String {
    let error = row.error.as_ref().map(ToString::to_string);
    let host = row.finished_at.is_none().then(|| format!("on {}", row.host));
    let parts = [error, row.backup.clone(), row.result.clone(), host];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// `5 s`, `3 min`, `2 h 5 min`; none while it runs.
fn took(row: &RunRow) -> Option<String> {
    let time = |text: &str| text.parse::<DateTime<Utc>>().ok();
    let took = time(row.finished_at.as_deref()?)?.signed_duration_since(time(&row.started_at)?);
    Some(match (took.num_hours(), took.num_minutes() % 60, took.num_seconds().max(0)) {
        (1.., minutes, _) => format!("{} h {minutes} min", took.num_hours()),
        (_, 3.., _) => format!("{} min", took.num_minutes()),
        (_, _, seconds) => format!("{seconds} s"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_ark_contract::schedule::{JobKind, RunId, RunStatus};
    use pg_ark_contract::{Error, ErrorKind};

    fn run(job: &str, due_at: &str, finished_at: Option<&str>) -> RunRow {
        RunRow {
            id: RunId { job: job.into(), due_at: due_at.into(), attempt: 1 },
            kind: JobKind::Full,
            status: RunStatus::Done,
            started_at: "2026-11-22T02:00:01Z".into(),
            finished_at: finished_at.map(Into::into),
            host: "db1".into(),
            backup: Some("20261122T020001Z-full".into()),
            result: None,
            error: None,
        }
    }

    #[test]
    fn each_job_has_a_table_that_keeps_its_width_and_loses_nothing() {
        let mut failed = run("nightly", "2026-11-23T02:00:00Z", Some("2026-11-23T02:00:02Z"));
        failed.started_at = "2026-11-23T02:00:01Z".into();
        failed.status = RunStatus::Failed;
        failed.backup = None;
        failed.error = Some(Error::new(ErrorKind::DiskFull, "word ".repeat(40).trim()));
        let done = run("nightly", "2026-11-22T02:00:00Z", Some("2026-11-22T02:04:01Z"));
        let prune = RunRow {
            kind: JobKind::Prune,
            result: Some("nothing to remove".into()),
            backup: None,
            ..run("hourly", "2026-11-22T02:00:00Z", None)
        };
        let shown = text(&[failed, done, prune]);
        assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");
        assert_eq!(shown.matches("word").count(), 40);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], "hourly (prune):");
        assert_eq!(
            lines[2],
            "2026-11-22 02:00:00  1    done    2026-11-22 02:00:01        nothing to remove; on db1"
        );
        assert_eq!(lines[4], "nightly (full):");
        let last = "2026-11-22 02:00:00  1    done    2026-11-22 02:00:01  4 min  20261122T020001Z-full";
        assert_eq!(*lines.last().unwrap(), last);
    }

    #[test]
    fn times_are_told_shortly() {
        let took = |finished: &str| took(&run("x", "", Some(finished))).unwrap();
        assert_eq!(took("2026-11-22T02:00:02Z"), "1 s");
        assert_eq!(took("2026-11-22T02:03:00Z"), "179 s");
        assert_eq!(took("2026-11-22T02:03:01Z"), "3 min");
        assert_eq!(took("2026-11-22T04:05:01Z"), "2 h 5 min");
        assert_eq!(took("2026-11-22T01:00:00Z"), "0 s", "a clock that was set back");
        assert_eq!(super::took(&run("x", "", Some("yesterday"))), None);
    }
}
