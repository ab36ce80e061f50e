//! Steps of tests whose servers do things by themselves: jobs, what the repository remembers of them, and a clock that the
//! test moves.

use pg_ark_testkit::{Clock, Cluster, LONG, Repo, holds_within};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// A day.
pub const DAY: Duration = Duration::from_secs(86_400);
/// An hour.
pub const HOUR: Duration = Duration::from_secs(3600);

/// One attempt at a job, as its object in the repository says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    pub job: String,
    /// `2026-11-22T02:00:00Z`
    pub due_at: String,
    pub attempt: u64,
    pub status: String,
    pub backup: Option<String>,
    pub error: Option<String>,
    pub finished_at: Option<String>,
}

/// Every attempt that is remembered, by job and instant. Reads files, since it is asked many times; while it looks, one may
/// become too old to be kept, and a backup's folder may go.
#[track_caller]
pub fn runs(repo: &Repo) -> Vec<Run> {
    let inside = |folder: PathBuf| -> Vec<PathBuf> {
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    };
    let systems = inside(repo.path().join("main"));
    let jobs = systems.into_iter().flat_map(|system| inside(system.join("jobs")));
    let files = jobs.flat_map(inside).filter(|path| path.extension().is_some_and(|end| end == "json"));
    let texts = files.filter_map(|path| fs::read_to_string(path).ok());
    let mut runs: Vec<Run> = texts
        .map(|text| serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")))
        .map(|run| read(&run))
        .collect();
    runs.sort();
    runs
}

fn read(run: &Value) -> Run {
    let text = |name: &str| run[name].as_str().map(str::to_string);
    Run {
        job: text("job").expect("a job"),
        due_at: text("due_at").expect("an instant"),
        attempt: run["attempt"].as_u64().expect("a number"),
        status: text("status").expect("a status"),
        backup: text("backup"),
        error: run["error"]["message"].as_str().map(str::to_string),
        finished_at: text("finished_at"),
    }
}

/// The instant of a time in seconds since 1970, as runs name it.
pub fn instant(server: &Cluster, time: i64) -> String {
    server.psql(&format!(
        "SELECT to_char(to_timestamp({time}) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
    ))
}

/// Lets the schedulers look now: they wait by a clock that nobody moves.
pub fn wake(servers: &[&Cluster]) {
    servers.iter().filter(|server| server.pid().is_some()).for_each(|server| server.reload());
}

/// Waits until job `job` is done for the instant `due_at`. What failed is tried again after a pause, which the clock is moved
/// over.
///
/// # Panics
/// When it is not done in time.
#[track_caller]
pub fn wait_done(clock: &Clock, servers: &[&Cluster], repo: &Repo, job: &str, due_at: &str) -> Run {
    let mut done = None;
    let mut tries = 0;
    wake(servers);
    let ended = holds_within(LONG, || {
        let own: Vec<Run> =
            runs(repo).into_iter().filter(|run| run.job == job && run.due_at == due_at).collect();
        done = own.iter().find(|run| run.status == "done").cloned();
        let failed = own.iter().filter(|run| run.status == "failed").count();
        if done.is_none() && failed > tries && own.iter().all(|run| run.status == "failed") {
            tries = failed;
            clock.advance(Duration::from_secs(60 * (1 << failed.min(5)) + 5));
            wake(servers);
        }
        done.is_some()
    });
    let all = || runs(repo).into_iter().filter(|run| run.job == job).collect::<Vec<_>>();
    assert!(ended, "job \"{job}\" is not done for {due_at}: {:#?}", all());
    done.expect("just seen")
}

/// Fails when an instant of a job was done twice, or an attempt is there twice.
#[track_caller]
pub fn assert_no_doubles(repo: &Repo) {
    let all = runs(repo);
    for run in all.iter().filter(|run| run.status == "done") {
        let same =
            |other: &&Run| other.job == run.job && other.due_at == run.due_at && other.status == "done";
        let doubles: Vec<&Run> = all.iter().filter(same).collect();
        assert_eq!(doubles.len(), 1, "{doubles:#?}");
    }
}
