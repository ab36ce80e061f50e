use super::*;
use crate::api::archiving::{Counted, Progress};
use crate::api::protection::{Now, Workers};
use crate::archiving::Settings;
use pg_ark_contract::conversation::BackupKind;
use pg_ark_contract::rows::{FutureBackups, MissingDump, WindowRow};
use pg_ark_contract::schedule::{JobSpec, JobState, RunId, RunRow, RunStatus};
use pg_ark_contract::{Error, ErrorKind, Lsn, Timeline};

const DAY: i64 = 86_400;

/// A server on which all is well. Times are ages in seconds.
fn well() -> Protection {
    let settings = Settings { mode: "on".into(), library: "pg_ark".into(), command: String::new() };
    let backup = serde_json::json!({
        "backup": "20261122T020000Z-full", "kind": "full", "status": "complete", "parent": null, "label": null,
        "pinned": false, "started_at": "7200", "finished_at": "3600", "start_lsn": null, "stop_lsn": null,
        "timeline": 1, "server_version": 150000, "data_bytes": 1, "stored_bytes": 1, "wal_included": false,
        "damaged_pages": 0, "error": null
    });
    let window = WindowRow {
        backup: "20261114T020000Z-full".into(),
        timelines: "1".into(),
        from_time: Some((8 * DAY).to_string()),
        to_time: Some("60".into()),
        from_lsn: Lsn(1),
        to_lsn: Lsn(9),
        note: String::new(),
    };
    Protection {
        progress: Progress {
            settings,
            counted: Counted::default(),
            last_failure: None,
            failing: false,
            waiting: 0,
        },
        last_stored: None,
        stored: StatusRow {
            last_backup: Some(serde_json::from_value(backup).expect("a row")),
            window: Some(window),
            first_backup_at: Some((20 * DAY).to_string()),
            pruned_at: Some("3600".into()),
            ..StatusRow::default()
        },
        now: Now { lsn: Lsn(9), timeline: Timeline(1), important: None },
        jobs: vec![job("nightly", JobKind::Full), job("prune", JobKind::Prune)],
        knows_jobs: true,
        workers: Workers { scheduler: true, scheduler_since: Some((30 * DAY).to_string()), backups: 0 },
        is_jobs_database: true,
        acts: true,
        preloaded: true,
        wanted: 7 * DAY as u64,
        version: None,
    }
}

fn job(name: &str, kind: JobKind) -> JobSpec {
    JobSpec {
        name: name.into(),
        kind,
        cron: "0 2 * * *".into(),
        timezone: "UTC".into(),
        enabled: true,
        since: (30 * DAY).to_string(),
        time_limit: 60,
        label: None,
        level: None,
        deep: false,
        logical: Default::default(),
    }
}

fn state(name: &str, failures: u32, error: Option<&str>) -> JobState {
    JobState {
        name: name.into(),
        error: error.map(|error| Error::new(ErrorKind::InvalidArgument, error)),
        due: None,
        next_run: None,
        running: None,
        last_run: None,
        failures,
    }
}

fn told(change: impl FnOnce(&mut Protection)) -> Vec<String> {
    let mut protection = well();
    change(&mut protection);
    problems(&protection, |at| at.parse().ok())
}

#[track_caller]
fn only(expected: &str, change: impl FnOnce(&mut Protection)) {
    let problems = told(change);
    assert!(problems.len() == 1 && problems[0].contains(expected), "\"{expected}\" expected: {problems:?}");
}

#[test]
fn nothing_is_wrong_where_all_is_well() {
    assert_eq!(told(|_| {}), [""; 0]);
}

#[test]
fn promise_6_an_archive_that_ends_too_early_is_told() {
    let stored =
        |last: Option<&str>| StatusRow { last_segment: last.map(str::to_string), ..StatusRow::default() };
    let archived = || Some("00000002000000010000000F".to_string());
    for (last, is_lost) in [
        (None, true),
        (Some("00000002000000010000000E"), true),
        (Some("0000000100000002000000FF"), true),
        (Some("00000002000000010000000F"), false),
        (Some("000000020000000100000010"), false),
        (Some("000000030000000100000001"), false),
    ] {
        assert_eq!(lost(&stored(last), archived()), archived().filter(|_| is_lost), "{last:?}");
        assert_eq!(lost(&stored(last), None), None, "counters that were reset tell nothing");
    }
}

#[test]
fn backups_and_windows() {
    only("there is no complete backup", |p| p.stored.last_backup = None);
    let future = || {
        let (backup, finished_at) = ("20280329T010959Z-full".into(), "2028-03-29T01:10:00Z".into());
        Some(FutureBackups { backup, finished_at, others: 0 })
    };
    only(
        "backup 20280329T010959Z-full says that it finished at 2028-03-29T01:10:00Z, in the future: the clock was or is wrong",
        |p| p.stored.future = future(),
    );
    let alone = told(|p| (p.stored.last_backup, p.stored.future) = (None, future()));
    assert_eq!(alone.len(), 2, "{alone:?}");
    assert_eq!(alone[0], "there is no complete backup but of the future");
    only("has become another's: nothing of this server is stored there", |p| {
        p.stored.foreign = Some(Error::new(ErrorKind::ForeignCluster, "it has become another's"));
    });
    only("holds 2 damaged pages", |p| p.stored.last_backup.as_mut().expect("one").damaged_pages = 2);
    only("nothing after 60 can be restored: a hole", |p| p.stored.gap = Some("a hole".into()));
    let late = |p: &mut Protection| {
        p.stored.window.as_mut().expect("one").from_time = Some((2 * DAY).to_string());
    };
    only("window begins only at 172800, though pg_ark.retention_window is 7 days", late);
    assert_eq!(
        told(|p| {
            late(p);
            p.stored.first_backup_at = Some((3 * DAY).to_string());
        }),
        [""; 0],
        "young"
    );
    assert_eq!(
        told(|p| {
            late(p);
            p.stored.partial = true;
        }),
        [""; 0],
        "not all was looked at"
    );
    assert_eq!(
        told(|p| {
            late(p);
            p.wanted = 0;
        }),
        [""; 0],
        "no window is asked for"
    );
    only("archive has timeline 2, this server is on 1", |p| {
        p.stored.last_segment = Some("000000020000000000000003".into());
    });
}

#[test]
fn who_does_what_is_scheduled() {
    only("no scheduler runs: the server log says why it ended", |p| p.workers.scheduler = false);
    only("no scheduler runs: shared_preload_libraries lacks pg_ark", |p| {
        (p.workers.scheduler, p.preloaded) = (false, false);
    });
    assert_eq!(
        told(|p| {
            p.workers.scheduler = false;
            p.jobs.clear();
        }),
        [""; 0],
        "nothing to do"
    );
    assert_eq!(
        told(|p| {
            p.workers.scheduler = false;
            p.acts = false;
        }),
        [""; 0],
        "a standby"
    );
    only("are not run", |p| p.is_jobs_database = false);
    only("job nightly failed 3 times", |p| p.stored.jobs = vec![state("nightly", 3, None)]);
    only("job nightly: no such zone", |p| p.stored.jobs = vec![state("nightly", 0, Some("no such zone"))]);
    assert_eq!(
        told(|p| {
            p.stored.jobs = vec![state("nightly", 3, None)];
            p.jobs[0].enabled = false;
        }),
        [""; 0]
    );
    let many = told(|p| {
        p.jobs = (0..5).map(|n| job(&n.to_string(), JobKind::Verify)).collect();
        p.stored.jobs = (0..5).map(|n| state(&n.to_string(), 1, None)).collect();
    });
    assert_eq!((many.len(), &many[3][..]), (4, "2 more jobs fail"));
}

#[test]
fn backups_that_come_late_and_nothing_that_prunes() {
    let daily = |p: &mut Protection| p.stored.periods = vec![Some(DAY as u64), Some(3600)];
    let old = |p: &mut Protection, age: i64| {
        p.stored.last_backup.as_mut().expect("one").finished_at = Some(age.to_string());
    };
    assert_eq!(
        told(|p| {
            daily(p);
            old(p, 2 * DAY);
        }),
        [""; 0]
    );
    only("the last backup is 2 days old, and job nightly is due every 24 hours", |p| {
        daily(p);
        old(p, 2 * DAY + 1);
    });
    assert_eq!(
        told(|p| {
            daily(p);
            old(p, 3 * DAY);
            p.jobs[0].since = DAY.to_string();
        }),
        [""; 0],
        "new"
    );
    only("no job prunes", |p| {
        p.jobs.pop();
        p.stored.pruned_at = None;
    });
    assert_eq!(told(|p| drop(p.jobs.pop())), [""; 0], "somebody prunes by hand");
    assert_eq!(
        told(|p| {
            p.jobs.clear();
            p.stored.pruned_at = None;
        }),
        [""; 0],
        "nothing is scheduled"
    );
}

#[test]
fn a_logical_backup_makes_no_server_look_protected() {
    let logical = |p: &mut Protection, age: i64| {
        let mut row = p.stored.last_backup.clone().expect("one");
        (row.kind, row.finished_at) = (BackupKind::Logical, Some(age.to_string()));
        p.stored.last_logical = Some(row);
        p.jobs.push(job("dumps", JobKind::Logical));
        p.stored.periods = vec![Some(DAY as u64), Some(3600), Some(DAY as u64)];
    };
    assert_eq!(told(|p| logical(p, DAY)), [""; 0]);
    only("no complete backup but logical ones", |p| {
        logical(p, 60);
        p.stored.last_backup = None;
    });
    only("the last backup is 3 days old, and job nightly is due every 24 hours", |p| {
        logical(p, 60);
        p.stored.last_backup.as_mut().expect("one").finished_at = Some((3 * DAY).to_string());
    });
    only("the last logical backup is 3 days old, and job dumps is due every 24 hours", |p| {
        logical(p, 3 * DAY)
    });
    only("no scheduled job takes full backups, and the last one is 8 days old", |p| {
        logical(p, 60);
        p.jobs.remove(0);
        p.stored.last_backup.as_mut().expect("one").finished_at = Some((8 * DAY).to_string());
    });
    assert_eq!(
        told(|p| {
            logical(p, 3 * DAY);
            p.jobs.pop();
        }),
        [""; 0],
        "by hand"
    );
}

#[test]
fn dumps_of_one_database_hide_no_other() {
    let missing = |count: usize| -> Vec<MissingDump> {
        let of = |number| MissingDump {
            database: format!("app{number}"),
            backup: "20261122T020000Z-logical".into(),
            reason: "it refuses connections".into(),
        };
        (0..count).map(of).collect()
    };
    only("20261122T020000Z-logical is without database \"app0\": it refuses connections", |p| {
        p.stored.missing_dumps = missing(1);
    });
    let five = told(|p| p.stored.missing_dumps = missing(5));
    assert_eq!((five.len(), &five[3][..]), (4, "2 more databases have no dump of late"));
    let done = |(name, ended): (&str, i64)| JobState {
        last_run: run(ended + 60, Some(ended)),
        ..state(name, 0, None)
    };
    let two_jobs = |p: &mut Protection, nightly: i64| {
        let mut row = p.stored.last_backup.clone().expect("one");
        (row.kind, row.finished_at) = (BackupKind::Logical, Some("60".into()));
        p.stored.last_logical = Some(row);
        p.jobs.extend([job("all", JobKind::Logical), job("little", JobKind::Logical)]);
        p.stored.periods = vec![Some(DAY as u64), Some(3600), Some(DAY as u64), Some(3600)];
        p.stored.jobs = [("all", nightly), ("little", 60)].map(done).into();
    };
    assert_eq!(told(|p| two_jobs(p, DAY)), [""; 0]);
    only("the last logical backup of job all is 3 days old, and it is due every 24 hours", |p| {
        two_jobs(p, 3 * DAY)
    });
}

#[test]
fn a_server_without_jobs_that_take_backups_is_told_once_its_last_backup_is_old() {
    let without = |p: &mut Protection, days: i64| {
        p.jobs.retain(|job| job.kind == JobKind::Prune);
        p.stored.last_backup.as_mut().expect("one").finished_at = Some((days * DAY + 1).to_string());
    };
    only("no scheduled job takes full backups, and the last one is 7 days old", |p| without(p, 7));
    only("no scheduled job takes full backups", |p| {
        without(p, 7);
        p.wanted = 0;
    });
    only("no scheduled job takes full backups", |p| {
        p.stored.last_backup.as_mut().expect("one").finished_at = Some((8 * DAY).to_string());
        p.jobs[0].enabled = false;
    });
    for change in [
        (|p| p.preloaded = false) as fn(&mut Protection),
        |p| p.acts = false,
        |p| p.knows_jobs = false,
        |p| p.is_jobs_database = false,
    ] {
        let said = told(|p| {
            without(p, 8);
            p.jobs.clear();
            change(p);
        });
        assert_eq!(said, ["the last backup is 8 days old"]);
    }
    assert_eq!(told(|p| without(p, 6)), [""; 0], "by hand, once a week");
    assert_eq!(
        told(|p| {
            without(p, 1);
            p.wanted = 3600;
        }),
        [""; 0],
        "by hand, each night"
    );
}

fn run(began: i64, ended: Option<i64>) -> Option<RunRow> {
    Some(RunRow {
        id: RunId { job: "any".into(), due_at: began.to_string(), attempt: 1 },
        kind: JobKind::Full,
        status: if ended.is_some() { RunStatus::Done } else { RunStatus::Running },
        started_at: began.to_string(),
        finished_at: ended.map(|ended| ended.to_string()),
        host: String::new(),
        backup: None,
        result: None,
        error: None,
    })
}

#[test]
fn a_job_that_never_gets_its_turn_is_told() {
    // Hourly, due again since ten minutes, for five hours without a run.
    let starved = |p: &mut Protection| {
        let due = RunId { job: "prune".into(), due_at: "600".into(), attempt: 1 };
        let next_run = Some("600".to_string());
        let prune = JobState {
            due: Some(due),
            next_run,
            last_run: run(18_000, Some(18_000)),
            ..state("prune", 0, None)
        };
        p.stored.jobs = vec![state("nightly", 0, None), prune];
        p.stored.periods = vec![Some(DAY as u64), Some(3600)];
    };
    only("job prune has been due for 4 hours and has not begun", starved);
    only("job prune has been due for 4 hours", |p| {
        starved(p);
        (p.stored.jobs[0].running, p.workers.backups) = (run(12_000, None), 1);
    });
    for (why, change) in [
        (
            "a backup that began before",
            (|p| p.stored.jobs[0].running = run(13_000, None)) as fn(&mut Protection),
        ),
        ("it has just ended", |p| p.stored.jobs[0].last_run = run(13_000, Some(60))),
        ("one by hand", |p| p.workers.backups = 1),
        ("the server was down", |p| p.workers.scheduler_since = Some("60".into())),
        ("not due", |p| p.stored.jobs[1].due = None),
        ("it runs", |p| p.stored.jobs[1].running = run(60, None)),
        ("a standby", |p| p.acts = false),
    ] {
        let said = told(|p| {
            starved(p);
            change(p);
        });
        assert_eq!(said, [""; 0], "{why}");
    }
}

#[test]
fn what_the_repository_does_not_say_is_not_made_up() {
    only("away", |p| {
        p.stored = StatusRow {
            error: Some(Error::new(ErrorKind::RepositoryNotFound, "away")),
            ..StatusRow::default()
        };
    });
    only("library", |p| p.version = Some(Error::new(ErrorKind::VersionMismatch, "library")));
}

#[test]
fn spans_are_for_people() {
    let spans = [1, 119, 120, 7_199, 7_200, 172_799, 172_800].map(span);
    assert_eq!(
        spans,
        ["1 second", "119 seconds", "2 minutes", "119 minutes", "2 hours", "47 hours", "2 days"]
    );
}
