//! Tests of what a reader makes of attempts: those of other machines, those whose backup is there, and the first backup.

use super::*;
use crate::repository::{Repository, Storage, sealed};
use crate::schedule;
use chrono::SubsecRound;
use pg_ark_contract::conversation::BackupKind;
use pg_ark_contract::schedule::{JobSpec, MissedRuns};
use std::path::Path;
use std::time::SystemTime;

const SYSTEM: u64 = 7;
const LEASE: &str = "main/7/lease.json.token";

fn job(kind: JobKind) -> JobSpec {
    JobSpec {
        name: "x".into(),
        kind,
        cron: "0 2 * * *".into(),
        timezone: "UTC".into(),
        enabled: true,
        since: "2026-11-20T12:00:00Z".into(),
        time_limit: 7200,
        label: None,
        level: None,
        deep: false,
        logical: Default::default(),
    }
}

struct Place {
    dir: tempfile::TempDir,
    /// When the attempts begin. Files are as old as they are, so it is now.
    now: DateTime<Utc>,
}

impl Place {
    fn new() -> Self {
        let place = Place { dir: tempfile::tempdir().unwrap(), now: Utc::now() };
        Repository::open_or_create(&place.url()).unwrap();
        place
    }

    fn url(&self) -> String {
        format!("file://{}", self.dir.path().display())
    }

    fn storage(&self) -> Storage {
        Storage::open(&self.url()).unwrap()
    }

    fn cluster(&self) -> Cluster {
        Repository::open(&self.url()).unwrap().cluster("main").unwrap()
    }

    /// An attempt by a process of this host and machine.
    fn attempt(&self, kind: JobKind, host: &str, machine: &str) {
        let key = Key { due: self.now.trunc_subsecs(0), attempt: 1 };
        let run = key.run("x");
        assert!(
            runs::begin(&self.cluster(), SYSTEM, &job(kind), &run, std::process::id(), self.now).unwrap().0
        );
        let path = self.storage().files("main/7/jobs/x").unwrap().pop().unwrap();
        let bytes = self.storage().get(&path, 1 << 20).unwrap().unwrap();
        let (mut record, _) = sealed::read::<RunRecord>(&bytes, &path).unwrap();
        (record.host, record.machine) = (host.into(), machine.into());
        self.storage().put(&path, sealed::to_json(&record).unwrap()).unwrap();
    }

    /// What the attempt is some minutes later.
    fn status_after(&self, kind: JobKind, minutes: i64) -> RunStatus {
        let cluster = self.cluster();
        let judge = Judge::new(&cluster, SYSTEM, self.now + Duration::minutes(minutes));
        of(&judge, "main/7/jobs/x", kind, None).unwrap().newest.unwrap().status
    }

    /// A ticket of the lease that was renewed so many seconds before now.
    fn ticket(&self, host: &str, age: i64) {
        let lease = serde_json::json!({
            "format": 1, "token": "token", "purpose": "x", "host": host, "machine": "elsewhere", "pid": 1, "pid_start": 1,
            "acquired_at": self.now, "expires_at": self.now,
        });
        self.storage().put(LEASE, lease.to_string().into_bytes()).unwrap();
        set_age(&self.dir.path().join(LEASE), age);
    }

    fn backup(&self, begun: DateTime<Utc>, status: BackupStatus, kind: BackupKind, host: &str) -> String {
        let name = layout::backup_name(begun, kind);
        let mut record = Record::begun(name.clone(), "main", SYSTEM);
        (record.kind, record.status, record.host) = (kind, status, host.into());
        (record.started_at, record.finished_at) = (text(begun), Some(text(begun + Duration::minutes(10))));
        record.save(&self.storage(), &format!("main/7/backups/{name}")).unwrap();
        name
    }
}

/// Makes a file so many seconds old; one from the future when it is negative.
fn set_age(file: &Path, age: i64) {
    let (now, span) = (SystemTime::now(), std::time::Duration::from_secs(age.unsigned_abs()));
    let time = if age < 0 { now + span } else { now - span };
    std::fs::File::options().append(true).open(file).unwrap().set_modified(time).unwrap();
}

#[test]
fn a_check_on_another_machine_goes_on_until_its_time_is_over() {
    for kind in [JobKind::Verify, JobKind::VerifyArchive] {
        let place = Place::new();
        place.attempt(kind, "db2", "elsewhere");
        for (minutes, status) in [
            (-30, RunStatus::Running),
            (1, RunStatus::Running),
            (119, RunStatus::Running),
            (121, RunStatus::Failed),
        ] {
            assert_eq!(place.status_after(kind, minutes), status, "after {minutes} minutes");
        }
    }
    // A host of this name that is another machine now was started again.
    let place = Place::new();
    place.attempt(JobKind::Verify, &process::host_name(), "boot before/pid:[1]/x");
    assert_eq!(place.status_after(JobKind::Verify, 1), RunStatus::Running);
    assert_eq!(place.status_after(JobKind::Verify, 3), RunStatus::Failed);
}

#[test]
fn a_backup_on_another_machine_goes_on_while_its_host_holds_the_lease() {
    for kind in [JobKind::Full, JobKind::Prune] {
        let place = Place::new();
        place.attempt(kind, "db2", "elsewhere");
        assert_eq!(place.status_after(kind, 1), RunStatus::Running, "it does not hold it yet");
        assert_eq!(place.status_after(kind, 3), RunStatus::Failed);
        place.ticket("db3", 0);
        assert_eq!(place.status_after(kind, 3), RunStatus::Failed, "another host's");
        place.ticket("db2", 0);
        assert_eq!(place.status_after(kind, 3), RunStatus::Running);
        // As long as it is renewed.
        place.ticket("db2", -300 * 60);
        assert_eq!(place.status_after(kind, 300), RunStatus::Running);
        assert_eq!(place.status_after(kind, 330), RunStatus::Failed);
        // Nobody knows whose it is.
        std::fs::write(place.dir.path().join(LEASE), "nonsense").unwrap();
        assert_eq!(place.status_after(kind, 3), RunStatus::Running);
        assert_eq!(place.status_after(kind, 30), RunStatus::Failed);
    }
}

#[test]
fn an_attempt_whose_backup_is_complete_is_done_though_nobody_wrote_it_down() {
    let minute = Duration::minutes(1);
    for (case, after, status, kind, host, is_done) in [
        ("its own", minute, BackupStatus::Complete, BackupKind::Full, "db2", true),
        ("one before it", -minute, BackupStatus::Complete, BackupKind::Full, "db2", false),
        ("another host's", minute, BackupStatus::Complete, BackupKind::Full, "db3", false),
        ("one that failed", minute, BackupStatus::Failed, BackupKind::Full, "db2", false),
        ("one that goes on", minute, BackupStatus::Running, BackupKind::Full, "db2", false),
        ("dumps", minute, BackupStatus::Complete, BackupKind::Logical, "db2", false),
    ] {
        let place = Place::new();
        place.attempt(JobKind::Incremental, "db2", "elsewhere");
        let backup = place.backup(place.now + after, status, kind, host);
        std::fs::create_dir_all(place.dir.path().join("main/7/backups/99999999T999999Z-full")).unwrap();
        let later = place.now + Duration::minutes(20);
        let cluster = place.cluster();
        let history =
            of(&Judge::new(&cluster, SYSTEM, later), "main/7/jobs/x", JobKind::Incremental, None).unwrap();
        let newest = history.newest.unwrap();
        assert_eq!((newest.status == RunStatus::Done, history.failures == 0), (is_done, is_done), "{case}");
        assert_eq!(newest.row.backup, is_done.then_some(backup), "{case}");
        assert_eq!(newest.row.error.is_none(), is_done, "{case}");
    }
    // Only what takes a backup.
    let place = Place::new();
    place.attempt(JobKind::Prune, "db2", "elsewhere");
    place.backup(place.now + minute, BackupStatus::Complete, BackupKind::Full, "db2");
    assert_eq!(place.status_after(JobKind::Prune, 3), RunStatus::Failed);
}

#[test]
fn the_first_backup_is_due_at_once_unless_there_is_one() {
    let begun = Utc::now() - Duration::days(1);
    let due = |place: &Place| {
        let jobs = [job(JobKind::Verify), JobSpec { name: "daily".into(), ..job(JobKind::Full) }];
        let agenda = schedule::agenda(Ok(place.cluster()), SYSTEM, &jobs, MissedRuns::Skip, place.now);
        assert_eq!(agenda.error, None);
        agenda.jobs[1].due.as_ref().is_some_and(|run| run.due_at == "2026-11-20T12:00:00Z")
    };
    let place = Place::new();
    assert!(due(&place), "the repository has never seen the cluster");
    place.backup(begun, BackupStatus::Failed, BackupKind::Full, "db2");
    place.backup(begun, BackupStatus::Complete, BackupKind::Logical, "db2");
    let damaged = place.backup(begun + Duration::minutes(1), BackupStatus::Complete, BackupKind::Full, "db2");
    std::fs::write(place.dir.path().join(format!("main/7/backups/{damaged}/backup.json")), "{").unwrap();
    assert!(due(&place), "none from which the server can be restored");
    let running = layout::backup_name(begun + Duration::minutes(2), BackupKind::Full);
    place.backup(begun + Duration::minutes(2), BackupStatus::Running, BackupKind::Full, "db2");
    assert!(due(&place), "its writer is gone");
    place.ticket("db2", 0);
    let ticket = std::fs::read_to_string(place.dir.path().join(LEASE)).unwrap();
    std::fs::write(place.dir.path().join(LEASE), ticket.replace("\"x\"", &format!("\"{running}\""))).unwrap();
    assert!(!due(&place), "one is running");
    std::fs::remove_file(place.dir.path().join(LEASE)).unwrap();
    place.backup(begun - Duration::minutes(1), BackupStatus::Complete, BackupKind::Full, "db2");
    assert!(!due(&place), "there is one");
    // Another system's counts for nothing: a server that was upgraded, or made anew.
    let jobs = [job(JobKind::Full)];
    let agenda = schedule::agenda(Ok(place.cluster()), 8, &jobs, MissedRuns::Skip, place.now);
    assert!(agenda.jobs[0].due.is_some());
}
