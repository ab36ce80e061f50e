//! Tests of attempts in a repository: whatever lies there, whoever comes between, whatever the store does.

use super::*;
use crate::repository::Repository;
use crate::schedule;
use pg_ark_contract::schedule::MissedRuns;
use pg_ark_testkit::saboteur::{EIO, ENOSPC, Fault, Plan, Saboteur};
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;

const SYSTEM: u64 = 7;
const FOLDER: &str = "main/7/jobs/daily";

fn at(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

/// A time at which the run of the tests is due.
fn now() -> DateTime<Utc> {
    at("2026-11-22T02:00:10Z")
}

fn job() -> JobSpec {
    JobSpec {
        name: "daily".into(),
        kind: JobKind::Verify,
        cron: "0 2 * * *".into(),
        timezone: "UTC".into(),
        enabled: true,
        since: "2026-11-20T12:00:00Z".into(),
        time_limit: 3600,
        label: None,
        level: None,
        deep: false,
        logical: Default::default(),
    }
}

fn run(due_at: &str, attempt: u32) -> RunId {
    RunId { job: "daily".into(), due_at: due_at.into(), attempt }
}

fn first() -> RunId {
    run("2026-11-22T02:00:00Z", 1)
}

fn good() -> RunOutcome {
    RunOutcome { backup: None, result: Some("nothing found".into()), error: None }
}

fn bad() -> RunOutcome {
    RunOutcome {
        error: Some(Error::new(ErrorKind::Io, "x".repeat(100_000)).hint("\u{0}".repeat(100_000))),
        ..good()
    }
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Place { dir: tempfile::tempdir().unwrap() };
        Repository::open_or_create(&place.url()).unwrap();
        place
    }

    fn url(&self) -> String {
        format!("file://{}", self.dir.path().display())
    }

    fn cluster(&self) -> Cluster {
        Repository::open(&self.url()).unwrap().cluster("main").unwrap()
    }

    /// The cluster through a saboteur, who counts from here.
    fn sabotaged(&self, plan: &Arc<Plan>) -> Cluster {
        let (plan, gate) = (Arc::clone(plan), Arc::clone(plan));
        let storage = Storage::open(&self.url()).unwrap();
        let storage = storage
            .wrapped(|store| Saboteur::before(store, plan))
            .gated(move |call, path| gate.pass(call, &path.display().to_string()));
        Repository::on(storage).unwrap().cluster("main").unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        std::fs::create_dir_all(self.dir.path().join(FOLDER)).unwrap();
        self.dir.path().join(FOLDER).join(name)
    }

    fn names(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.dir.path().join(FOLDER)) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn history(&self, now: DateTime<Utc>) -> history::History {
        let cluster = self.cluster();
        history::of(&Judge::new(&cluster, SYSTEM, now), FOLDER, JobKind::Verify, None).unwrap()
    }

    fn due(&self, now: DateTime<Utc>) -> Option<RunId> {
        let agenda = schedule::agenda(Ok(self.cluster()), SYSTEM, &[job()], MissedRuns::Once, now);
        assert_eq!(agenda.error, None);
        assert_eq!(agenda.jobs[0].error, None);
        agenda.jobs[0].due.clone()
    }
}

fn begin_as(cluster: &Cluster, run: &RunId, pid: u32) -> Result<bool> {
    Ok(begin(cluster, SYSTEM, &job(), run, pid, now())?.0)
}

/// A process that can be ended.
struct Server(Child);

impl Server {
    fn start() -> Self {
        Server(Command::new("sleep").arg("1000").spawn().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn an_attempt_begins_once_runs_ends_and_is_told() {
    let place = Place::new();
    let cluster = place.cluster();
    assert!(!cluster.exists());
    assert_eq!(place.due(now()), Some(first()));
    let own = std::process::id();
    assert_eq!(begin(&cluster, SYSTEM, &job(), &first(), own, now()).unwrap(), (true, None));
    let (begun, why) = begin(&cluster, SYSTEM, &job(), &first(), own, now()).unwrap();
    assert!(!begun && why.is_some());
    let (begun, why) = begin(&cluster, SYSTEM, &job(), &run("2026-11-22T03:00:00Z", 1), own, now()).unwrap();
    assert!(!begun && why.unwrap().contains("goes on"));
    assert_eq!(place.due(now() + Duration::days(2)), None, "it goes on");
    let later = now() + Duration::minutes(5);
    end(&cluster, SYSTEM, &first(), &bad(), later).unwrap();
    let seen = place.history(later);
    assert_eq!((seen.failures, seen.newest.unwrap().status), (1, RunStatus::Failed));
    assert_eq!(place.due(later), None, "after a pause");
    assert_eq!(place.due(later + Duration::minutes(1)), Some(run("2026-11-22T02:00:00Z", 2)));
    assert!(begin(&cluster, SYSTEM, &job(), &run("2026-11-22T02:00:00Z", 2), own, later).unwrap().0);
    end(&cluster, SYSTEM, &run("2026-11-22T02:00:00Z", 2), &good(), later).unwrap();
    // To write it down again changes nothing.
    end(&cluster, SYSTEM, &run("2026-11-22T02:00:00Z", 2), &bad(), later).unwrap();
    assert_eq!((place.history(later).failures, place.due(later + Duration::hours(20))), (0, None));
    let rows = schedule::runs(&place.cluster(), Some(SYSTEM), None, 10).unwrap();
    let told: Vec<_> = rows.iter().map(|row| (row.id.attempt, row.status, row.result.is_some())).collect();
    assert_eq!(told, [(2, RunStatus::Done, true), (1, RunStatus::Failed, true)]);
    assert!(rows[1].error.as_ref().unwrap().message.len() <= MAX_TEXT);
    assert_eq!(schedule::runs(&place.cluster(), None, Some("daily"), 1).unwrap().len(), 1);
    assert_eq!(schedule::runs(&place.cluster(), None, Some("other"), 1).unwrap(), []);
    assert!(schedule::runs(&place.cluster(), None, Some("../x"), 1).is_err());
}

#[test]
fn a_run_that_is_none_is_refused() {
    let place = Place::new();
    for run in [
        run("2026-11-22T02:00:00Z", 0),
        run("yesterday\n", 1),
        run("9999-11-22T02:00:00Z", 1),
        RunId { job: "other".into(), ..first() },
    ] {
        let error = begin(&place.cluster(), SYSTEM, &job(), &run, 1, now()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidArgument, "{run:?}");
    }
    let job = JobSpec { name: "../x".into(), ..job() };
    let run = RunId { job: "../x".into(), ..first() };
    assert!(begin(&place.cluster(), SYSTEM, &job, &run, 1, now()).is_err());
    assert!(end(&place.cluster(), SYSTEM, &run, &good(), now()).is_err());
    assert_eq!(end(&place.cluster(), SYSTEM, &first(), &good(), now()).unwrap_err().kind, ErrorKind::Corrupt);
    assert_eq!(place.names(), Vec::<String>::new());
}

#[test]
fn a_run_whose_process_is_gone_has_failed_and_is_made_again() {
    let place = Place::new();
    let server = Server::start();
    assert!(begin_as(&place.cluster(), &first(), server.0.id()).unwrap());
    assert_eq!(place.due(now() + Duration::hours(1)), None);
    drop(server);
    let rows = schedule::runs(&place.cluster(), None, None, 10).unwrap();
    assert_eq!((rows[0].status, rows[0].finished_at.is_some()), (RunStatus::Failed, false));
    assert!(rows[0].error.as_ref().unwrap().message.contains("gone"));
    let again = place.due(now() + Duration::minutes(1)).unwrap();
    assert_eq!(again.attempt, 2);
    let own = std::process::id();
    assert!(begin(&place.cluster(), SYSTEM, &job(), &again, own, now() + Duration::minutes(1)).unwrap().0);
    assert_eq!(place.history(now()).failures, 1, "the one before failed");
}

#[test]
fn only_the_newest_are_kept_and_none_of_a_clock_that_was_wrong() {
    let place = Place::new();
    for minute in 0..130 {
        let due = now() - Duration::minutes(minute + 1);
        std::fs::write(place.file(&Key { due, attempt: 1 }.name()), "x").unwrap();
    }
    for year in ["2031", "9999"] {
        std::fs::write(place.file(&format!("{year}1122T020000Z.1.json")), "x").unwrap();
    }
    std::fs::write(place.file("notes"), "x").unwrap();
    assert_eq!(place.due(now()), Some(first()), "the future blocks nothing");
    assert!(begin_as(&place.cluster(), &first(), std::process::id()).unwrap());
    end(&place.cluster(), SYSTEM, &first(), &good(), now()).unwrap();
    let left: Vec<Key> = place.names().iter().filter_map(|name| Key::from_name(name)).collect();
    assert_eq!(left.len(), KEEP);
    assert!(left.iter().all(|key| key.due > now() - Duration::minutes(101) && key.due <= now()));
    assert!(place.names().contains(&"notes".to_string()));
}

#[test]
fn an_object_that_cannot_be_read_is_a_failed_attempt_and_stops_nothing() {
    let whole = {
        let place = Place::new();
        assert!(begin_as(&place.cluster(), &first(), std::process::id()).unwrap());
        std::fs::read(place.file("20261122T020000Z.1.json")).unwrap()
    };
    let outside = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(outside.path(), &whole).unwrap();
    type Make<'a> = &'a dyn Fn(&Path);
    let link = |to: &Path, at: &Path| std::os::unix::fs::symlink(to, at).unwrap();
    let other = |from: &str, to: &str| {
        String::from_utf8(whole.clone()).unwrap().replace(from, to).replace("  ,\"crc32c\"", "")
    };
    let unsealed = |text: String| {
        text.lines().filter(|line| !line.contains("crc32c") && !line.starts_with(": \"")).collect::<String>()
    };
    let make: [(&str, Make<'_>); 12] = [
        ("nothing", &|at| std::fs::write(at, b"").unwrap()),
        ("nonsense", &|at| std::fs::write(at, b"nonsense").unwrap()),
        ("half", &|at| std::fs::write(at, &whole[..whole.len() / 2]).unwrap()),
        ("a flipped bit", &|at| {
            let mut bytes = whole.clone();
            bytes[40] ^= 1;
            std::fs::write(at, bytes).unwrap();
        }),
        ("another job's", &|at| std::fs::write(at, unsealed(other("\"daily\"", "\"weekly\""))).unwrap()),
        ("another attempt's", &|at| {
            std::fs::write(at, unsealed(other("\"attempt\": 1", "\"attempt\": 2"))).unwrap()
        }),
        ("a later format", &|at| {
            std::fs::write(at, unsealed(other("\"format\": 1", "\"format\": 2"))).unwrap()
        }),
        ("huge", &|at| std::fs::File::create(at).unwrap().set_len(1 << 40).unwrap()),
        ("a link", &|at| link(outside.path(), at)),
        ("a lost link", &|at| link(Path::new("/nowhere/at/all"), at)),
        ("a link to itself", &|at| link(at, at)),
        ("a fifo", &|at| {
            rustix::fs::mknodat(rustix::fs::CWD, at, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        }),
    ];
    for (case, make) in make {
        let place = Place::new();
        make(&place.file("20261122T020000Z.1.json"));
        // One that can be read is behind it.
        std::fs::write(
            place.file("20261121T020000Z.3.json"),
            unsealed(
                other("2026-11-22T02", "2026-11-21T02")
                    .replace("\"attempt\": 1", "\"attempt\": 3")
                    .replace("running", "done"),
            ),
        )
        .unwrap();
        let seen = place.history(now());
        assert_eq!(
            (seen.newest.as_ref().unwrap().status, seen.failures),
            (RunStatus::Failed, 1),
            "{case}: {seen:#?}"
        );
        // No later than an hour after it was written, however that is.
        let later = Utc::now().max(now()) + Duration::hours(2);
        let due = place.due(later).unwrap_or_else(|| panic!("{case}: nothing is due"));
        let own = std::process::id();
        assert!(begin(&place.cluster(), SYSTEM, &job(), &due, own, later).unwrap().0, "{case}");
        end(&place.cluster(), SYSTEM, &due, &good(), later).unwrap();
        assert_eq!(place.due(later), None, "{case}");
        let rows = schedule::runs(&place.cluster(), None, None, 10).unwrap();
        assert_eq!(rows.len(), 3, "{case}: {rows:#?}");
        assert_eq!(
            std::fs::read(outside.path()).unwrap(),
            whole,
            "{case}: nothing is written through a link"
        );
    }
}

#[test]
fn one_job_that_cannot_be_seen_delays_no_other() {
    let place = Place::new();
    std::fs::create_dir_all(place.dir.path().join("main/7/jobs")).unwrap();
    std::os::unix::fs::symlink("/nowhere/at/all", place.dir.path().join("main/7/jobs/lost")).unwrap();
    let jobs = [JobSpec { name: "lost".into(), ..job() }, job()];
    let agenda = schedule::agenda(Ok(place.cluster()), SYSTEM, &jobs, MissedRuns::Once, now());
    assert_eq!(agenda.error, None);
    assert!(
        agenda.jobs[0].error.is_some() && agenda.jobs[0].due.is_none() && agenda.jobs[0].next_run.is_some()
    );
    assert_eq!(agenda.jobs[1].due, Some(first()));
    // All of them: then it is the repository.
    let agenda = schedule::agenda(Ok(place.cluster()), SYSTEM, &jobs[..1], MissedRuns::Once, now());
    assert!(agenda.error.is_some() && agenda.jobs[0].error.is_none());
    let away = Err(Error::new(ErrorKind::RepositoryNotFound, "away"));
    let agenda = schedule::agenda(away.clone(), SYSTEM, &jobs, MissedRuns::Once, now());
    assert_eq!(agenda.error, away.err());
    for state in agenda.jobs {
        assert_eq!(
            (state.error, state.due, state.next_run.as_deref()),
            (None, None, Some("2026-11-23T02:00:00Z"))
        );
    }
}

/// Whatever one server does while another begins an attempt, at each of its calls: never do both run, and never is
/// anything done twice.
#[test]
fn whoever_comes_between_one_gives_way() {
    let own = std::process::id();
    let others = [
        first(),
        run("2026-11-22T02:00:00Z", 2),
        run("2026-11-22T01:00:00Z", 1),
        run("2026-11-22T02:00:05Z", 1),
    ];
    let mut times = [0, 0];
    for other in &others {
        for ends in [false, true] {
            for number in 1.. {
                let place = Place::new();
                let plan = Plan::new();
                let cluster = place.sabotaged(&plan);
                let (sound, run) = (place.cluster(), other.clone());
                let (tell, told) = std::sync::mpsc::channel();
                let between = move || {
                    let begun = begin_as(&sound, &run, own).unwrap();
                    if begun && ends {
                        end(&sound, SYSTEM, &run, &good(), now()).unwrap();
                    }
                    tell.send(begun).unwrap();
                };
                // A store's call waits for no other in the same thread.
                plan.interrupt_at(number, || std::thread::spawn(between).join().unwrap());
                let mine = begin_as(&cluster, &first(), own).unwrap();
                let Some(call) = plan.rest() else { break };
                let theirs = told.recv().unwrap();
                let case = format!("{other:?} before call {number}, {call}, ends: {ends}");
                times[usize::from(mine)] += 1;
                // What ended before may be followed by something newer.
                let is_older = Key::of(other).unwrap() < Key::of(&first()).unwrap();
                assert!(!(mine && theirs) || (ends && is_older), "{case}: both");
                // A server that gives way leaves nothing.
                let running =
                    place.history(now()).newest.filter(|newest| newest.status == RunStatus::Running);
                assert_eq!(running.is_some(), mine || (theirs && !ends), "{case}");
            }
        }
    }
    assert!(times[0] > 5 && times[1] > 5, "{times:?}");
}

/// Whatever the store does while an attempt begins or ends: no attempt is made twice, and the job goes on.
#[test]
fn a_store_that_fails_never_leads_to_two_runs_of_one_attempt() {
    for fault in [Fault::Fail(EIO), Fault::Fail(ENOSPC), Fault::Tear, Fault::Deny, Fault::Gone(EIO)] {
        let mut failed = 0;
        for number in 1.. {
            let place = Place::new();
            let plan = Plan::new();
            let server = Server::start();
            let cluster = place.sabotaged(&plan);
            plan.strike_at(number, fault);
            let mut begun = Vec::new();
            let mut outcome = begin_as(&cluster, &first(), server.0.id());
            if matches!(outcome, Ok(true)) {
                begun.push(Key::of(&first()).unwrap());
                outcome = end(&cluster, SYSTEM, &first(), &good(), now()).map(|()| true);
            }
            let struck = plan.rest();
            drop(server);
            let case = format!("call {number}, {struck:?}, {fault:?}: {outcome:?}");
            let is_done = place.history(now()).newest.is_some_and(|newest| newest.status == RunStatus::Done);
            assert!(is_done || outcome.is_err() || struck.is_some(), "{case}");
            assert!(is_done || begun.is_empty() || outcome.is_err(), "{case}: it was told to be done");
            failed += usize::from(outcome.is_err());
            // The next look of a sound server, and the one after its run.
            let later = now() + Duration::minutes(2);
            if let Some(due) = place.due(later) {
                assert!(!is_done, "{case}: again");
                let own = std::process::id();
                assert!(begin(&place.cluster(), SYSTEM, &job(), &due, own, later).unwrap().0, "{case}");
                begun.push(Key::of(&due).unwrap());
                end(&place.cluster(), SYSTEM, &due, &good(), later).unwrap();
            }
            assert_eq!(place.due(later + Duration::hours(2)), None, "{case}");
            let mut once = begun.clone();
            once.dedup();
            assert_eq!(once, begun, "{case}: twice");
            if struck.is_none() {
                break;
            }
        }
        assert!(failed > 2, "{fault:?} was never met");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn whatever_lies_in_a_jobs_folder_ends_no_schedule(
        files in proptest::collection::vec(
            ("(20261121T0[0-9]0000Z|[0-9]{8}T[0-9]{6}Z|.{0,20})[.]([0-9]{1,11}|.{0,3})[.]json", proptest::collection::vec(any::<u8>(), 0..300), 0..4_usize),
            0..6,
        ),
    ) {
        let place = Place::new();
        let server = Server::start();
        assert!(begin_as(&place.cluster(), &run("2026-11-21T02:00:00Z", 1), server.0.id()).unwrap());
        drop(server);
        let good = std::fs::read(place.file("20261121T020000Z.1.json")).unwrap();
        for (name, noise, kind) in &files {
            if name.contains('/') || name.contains('\0') {
                continue;
            }
            let mut bytes = good.clone();
            match kind {
                0 => bytes = noise.clone(),
                1 => bytes.truncate(noise.len()),
                2 => noise.iter().enumerate().for_each(|(at, byte)| bytes[at * 7 % good.len()] ^= byte & 3),
                _ => bytes.extend(noise),
            }
            // A name may be too long, or one that is there.
            let _ = std::fs::write(place.file(name), bytes);
        }
        let known = place.history(now());
        prop_assert!(known.newest.is_some());
        let rows = schedule::runs(&place.cluster(), None, None, 100).unwrap();
        // One that cannot be read is shown beside one that can.
        let keys = keys(place.cluster().storage(), FOLDER).unwrap();
        prop_assert!(rows.is_empty() || rows.len() == keys.len());
        // Whatever is there, in a few days it is due.
        let later = Utc::now().max(now()) + Duration::days(3);
        prop_assert!(place.due(later).is_some());
    }
}

/// The folder of the test below, in the processes that it starts.
const CONTEST: &str = "PG_ARK_TEST_RUNS_FOLDER";

/// Time runs so much faster in the contest.
fn fast_now(begun: std::time::SystemTime) -> DateTime<Utc> {
    let passed = begun.elapsed().unwrap_or_default();
    now() + Duration::seconds(i64::try_from(passed.as_millis()).unwrap())
}

/// A server: it does what is due, until it is killed.
#[test]
fn contender() {
    let Some(folder) = std::env::var_os(CONTEST).map(PathBuf::from) else { return };
    let begun = std::fs::metadata(folder.join("lock")).unwrap().modified().unwrap();
    let url = format!("file://{}", folder.join("repository").display());
    let cluster = || Repository::open(&url).unwrap().cluster("main").unwrap();
    let jobs = [JobSpec { cron: "* * * * *".into(), ..job() }];
    let own = std::process::id();
    for turn in 0_u32.. {
        let agenda = schedule::agenda(Ok(cluster()), SYSTEM, &jobs, MissedRuns::Once, fast_now(begun));
        if let Some(error) = agenda.error {
            note(&folder, &format!("fault {error}"));
        }
        let Some(run) = &agenda.jobs[0].due else { continue };
        match begin(&cluster(), SYSTEM, &jobs[0], run, own, fast_now(begun)) {
            Ok((true, _)) => {}
            Ok((false, _)) => continue,
            Err(e) => {
                note(&folder, &format!("fault {e}"));
                continue;
            }
        }
        let lock = std::fs::File::options().append(true).open(folder.join("lock")).unwrap();
        let is_alone = rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok();
        note(
            &folder,
            &format!("{} {}.{}", if is_alone { "begun" } else { "overlap" }, run.due_at, run.attempt),
        );
        std::thread::park_timeout(std::time::Duration::from_millis(u64::from(turn % 5 * 10)));
        drop(lock);
        let outcome = if turn % 3 == 0 { bad() } else { good() };
        match end(&cluster(), SYSTEM, run, &outcome, fast_now(begun)) {
            Ok(()) => {
                note(&folder, &format!("{} {}", if turn % 3 == 0 { "failed" } else { "done" }, run.due_at))
            }
            Err(e) => note(&folder, &format!("fault {e}")),
        }
    }
}

/// A line in a file of notes; appended in one write, so that lines stay whole.
fn note(folder: &Path, what: &str) {
    use std::io::Write;
    let mut notes = std::fs::File::options().append(true).open(folder.join("notes")).unwrap();
    notes.write_all(format!("{what}\n").as_bytes()).unwrap();
}

#[test]
fn servers_that_are_killed_at_any_point_never_run_an_attempt_twice() {
    const CONTENDERS: usize = 4;
    const KILLS: usize = 40;
    let dir = tempfile::tempdir().unwrap();
    Repository::open_or_create(&format!("file://{}", dir.path().join("repository").display())).unwrap();
    for name in ["lock", "notes"] {
        std::fs::write(dir.path().join(name), b"").unwrap();
    }
    let start = || -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["schedule::runs::tests::contender", "--exact", "--nocapture"])
            .env(CONTEST, dir.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let notes = || std::fs::read_to_string(dir.path().join("notes")).unwrap();
    let mut children: Vec<Child> = (0..CONTENDERS).map(|_| start()).collect();
    let count = |what: &str| notes().lines().filter(|line| line.starts_with(what)).count();
    for kill in 0..KILLS {
        let until = count("begun") + 1 + kill % 2;
        pg_ark_testkit::wait_until("the next attempt", std::time::Duration::from_secs(30), || {
            count("begun") >= until
        });
        let mut victim = std::mem::replace(&mut children[kill % CONTENDERS], start());
        victim.kill().unwrap();
        victim.wait().unwrap();
    }
    for mut child in children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let notes = notes();
    assert_eq!((count("overlap"), count("fault")), (0, 0), "{notes}");
    let mut begun: Vec<&str> = notes.lines().filter(|line| line.starts_with("begun")).collect();
    let all = begun.len();
    begun.sort_unstable();
    begun.dedup();
    assert_eq!(begun.len(), all, "an attempt was made twice: {notes}");
    let mut done: Vec<&str> = notes.lines().filter(|line| line.starts_with("done")).collect();
    let all = done.len();
    done.sort_unstable();
    done.dedup();
    assert!(done.len() == all && all > 5, "an instant was done twice, or none: {notes}");
    assert!(count("failed") > 3, "{notes}");
}
