use super::*;
use pg_ark_contract::schedule::{JobState, RunId, RunRow, RunStatus};
use pg_ark_contract::{Error, ErrorKind};

fn job(name: &str, kind: JobKind) -> JobSpec {
    JobSpec {
        name: name.into(),
        kind,
        cron: "@daily".into(),
        timezone: "UTC".into(),
        enabled: true,
        since: "2026-11-22T02:00:00Z".into(),
        time_limit: 60,
        label: None,
        level: None,
        deep: false,
        logical: Default::default(),
    }
}

fn state(name: &str) -> JobState {
    JobState {
        name: name.into(),
        error: None,
        due: None,
        next_run: Some("2026-11-23T02:00:00Z".into()),
        running: None,
        last_run: None,
        failures: 0,
    }
}

fn failed(name: &str) -> JobState {
    let run = RunRow {
        id: RunId { job: name.into(), due_at: "2026-11-22T02:00:00Z".into(), attempt: 3 },
        kind: JobKind::Full,
        status: RunStatus::Failed,
        started_at: "2026-11-22T02:00:00Z".into(),
        finished_at: Some("2026-11-22T02:00:01Z".into()),
        host: "db1".into(),
        backup: None,
        result: None,
        error: Some(Error::new(ErrorKind::DiskFull, "no space left").hint("Make room.")),
    };
    JobState { last_run: Some(run), failures: 3, ..state(name) }
}

fn agenda(jobs: Vec<JobSpec>, states: Vec<JobState>) -> Agenda {
    Agenda { jobs, states, error: None }
}

#[test]
fn a_scheduler_that_is_missing_is_an_error_only_when_something_is_to_be_done() {
    let jobs = [job("a", JobKind::Full)];
    let off = [JobSpec { enabled: false, ..job("a", JobKind::Full) }];
    let status = |runs, jobs: &[JobSpec]| process(runs, jobs).map(|row| (row.status, row.hint.is_some()));
    assert_eq!(status(Some(true), &jobs), Some((CheckStatus::Ok, false)));
    assert_eq!(status(Some(false), &jobs), Some((CheckStatus::Error, true)));
    assert_eq!(status(Some(false), &off), Some((CheckStatus::Warning, true)));
    assert_eq!(status(None, &jobs), None, "a role that may not see it");
}

#[test]
fn every_server_says_whether_it_acts() {
    for (choice, standby, acts) in [
        (RunOn::Primary, false, true),
        (RunOn::Primary, true, false),
        (RunOn::Standby, true, true),
        (RunOn::Standby, false, false),
        (RunOn::Any, true, true),
    ] {
        let detail = run_on(choice, standby).detail;
        assert_eq!(detail.contains("runs the jobs"), acts, "{detail}");
    }
}

#[test]
fn a_job_that_fails_is_told_with_its_reason() {
    let both = vec![job("a", JobKind::Full), job("b", JobKind::Prune)];
    let rows = jobs(&agenda(both.clone(), vec![failed("a"), state("b")]));
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!((rows[0].item.as_str(), rows[0].status), ("job a", CheckStatus::Error));
    assert!(rows[0].detail.contains("3 times: no space left"), "{rows:?}");
    assert_eq!(rows[0].hint.as_deref(), Some("Make room."));
    let rows = jobs(&agenda(both, vec![state("a"), state("b")]));
    assert_eq!((rows.len(), rows[0].status), (1, CheckStatus::Ok), "{rows:?}");
    assert!(rows[0].detail.contains("2 enabled, next at 2026-11-23"), "{rows:?}");
}

#[test]
fn jobs_that_take_no_backup_are_not_enough() {
    let off = JobSpec { enabled: false, ..job("a", JobKind::Full) };
    for list in [vec![], vec![off], vec![job("b", JobKind::Prune)], vec![job("c", JobKind::Logical)]] {
        let rows = jobs(&agenda(list, vec![]));
        assert_eq!(rows[0].status, CheckStatus::Warning, "{rows:?}");
        assert!(rows[0].hint.as_deref().is_some_and(|hint| hint.contains("ark.schedule")), "{rows:?}");
    }
}

#[test]
fn a_repository_that_is_away_is_no_fault_of_the_jobs() {
    let error = Some(Error::new(ErrorKind::Io, "gone"));
    let rows = jobs(&Agenda { error, ..agenda(vec![job("a", JobKind::Full)], vec![state("a")]) });
    assert_eq!((rows.len(), rows[0].status), (1, CheckStatus::Warning), "{rows:?}");
    assert!(rows[0].hint.is_some());
}
