//! Tests of the lease: contenders on one machine, on several, with clocks that are wrong, and killed at any point.

use super::*;
use crate::repository::process::machine_of;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Instant, SystemTime};

const PATH: &str = "main/1/lease.json";
/// How long the tests watch a silent lease.
const SHORT_WATCH: Duration = Duration::from_millis(300);

fn storage() -> (tempfile::TempDir, Storage) {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path());
    (dir, storage)
}

fn open(folder: &Path) -> Storage {
    Storage::open(&format!("file://{}", folder.display())).unwrap()
}

fn pause(time: Duration) -> Result<()> {
    std::thread::park_timeout(time);
    Ok(())
}

fn take(storage: &Storage, purpose: &str) -> Result<HeldLease> {
    enter(storage, PATH, Lease::new(purpose), &pause, SHORT_WATCH)
}

/// What a process on another machine would write, whose clock is wrong by so many seconds.
fn elsewhere(purpose: &str, clock_is_off_by: i64) -> Lease {
    let now = Utc::now() + chrono::Duration::seconds(clock_is_off_by);
    let expires_at = now + chrono::Duration::seconds(LIFETIME);
    Lease {
        machine: "elsewhere".into(),
        host: "db2".into(),
        acquired_at: now,
        expires_at,
        ..Lease::new(purpose)
    }
}

/// Puts a ticket that the store says is so many seconds old.
fn put(storage: &Storage, lease: &Lease, age: i64) -> PathBuf {
    let name = format!("{PATH}.{}", lease.token);
    storage.put(&name, to_json(lease).unwrap()).unwrap();
    let file = storage.folder().join(name);
    set_age(&file, age);
    file
}

fn set_age(file: &Path, age: i64) {
    let span = Duration::from_secs(age.unsigned_abs());
    let now = SystemTime::now();
    let time = if age < 0 { now + span } else { now - span };
    std::fs::File::options().append(true).open(file).unwrap().set_modified(time).unwrap();
}

fn count(storage: &Storage) -> usize {
    storage.list("").unwrap().len()
}

#[test]
fn one_holder_at_a_time() {
    let (_dir, storage) = storage();
    let held = take(&storage, "a").unwrap();
    let error = take(&storage, "b").err().unwrap();
    assert_eq!(error.kind, ErrorKind::Busy);
    held.renew().unwrap();
    assert_eq!(read(&storage, PATH).unwrap().unwrap().purpose, "a");
    assert!(held_for(&storage, PATH, "b").unwrap().is_none());
    drop(held);
    take(&storage, "b").unwrap();
    assert_eq!(count(&storage), 0, "no ticket, no probe stays behind");
}

#[test]
fn the_dead_hold_nothing() {
    let (_dir, storage) = storage();
    let dead = Lease { pid_start: 1, ..Lease::new("a") };
    put(&storage, &dead, 0);
    assert!(!read(&storage, PATH).unwrap().unwrap().is_alive(Utc::now()));
    let held = take(&storage, "b").unwrap();
    assert_eq!(count(&storage), 1);
    drop(held);
    put(&storage, &dead, 0);
    release_dead(&storage, PATH).unwrap();
    assert_eq!(count(&storage), 0);
}

#[test]
fn a_ticket_that_cannot_be_read_counts_by_its_age() {
    let outside = tempfile::NamedTempFile::new().unwrap();
    type Make<'a> = &'a dyn Fn(&Path);
    let make: [(&str, Make<'_>); 4] = [
        ("nonsense", &|at| std::fs::write(at, b"nonsense").unwrap()),
        ("huge", &|at| std::fs::File::create(at).unwrap().set_len(1 << 40).unwrap()),
        ("link", &|at| std::os::unix::fs::symlink(outside.path(), at).unwrap()),
        ("fifo", &|at| {
            rustix::fs::mknodat(rustix::fs::CWD, at, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap()
        }),
    ];
    for (case, make) in make {
        let (dir, storage) = storage();
        std::fs::create_dir_all(dir.path().join("main/1")).unwrap();
        let at = dir.path().join(format!("{PATH}.x"));
        make(&at);
        let error = take(&storage, "b").err().unwrap();
        assert_eq!(error.kind, ErrorKind::Busy, "{case}");
        let hint = error.hint.unwrap();
        assert!(hint.contains("remove the file") && hint.contains("minutes"), "{case}: {hint}");
        let old = rustix::fs::Timespec { tv_sec: Utc::now().timestamp() - 400, tv_nsec: 0 };
        let times = rustix::fs::Timestamps { last_access: old, last_modification: old };
        rustix::fs::utimensat(rustix::fs::CWD, &at, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
        drop(take(&storage, "b").unwrap_or_else(|e| panic!("{case}: {e:?}")));
        assert!(at.symlink_metadata().is_err() && outside.path().exists(), "{case}");
    }
}

#[test]
fn a_machine_that_is_not_known_is_nobodys() {
    let known = |boot, namespace: &str| machine_of(boot, Path::new(namespace), "db1");
    assert_eq!((known("", "pid:[1]"), known("a\n", "")), (String::new(), String::new()));
    assert_ne!(known("a\n", "pid:[1]"), machine_of("a\n", Path::new("pid:[1]"), "db2"));
}

/// What a living holder on another machine may look like, whatever its clock and ours say.
#[test]
fn clocks_that_are_wrong_by_minutes_take_nothing_from_the_living() {
    let (_dir, storage) = storage();
    for off in [-3600, -600, 0, 600, 3600] {
        for age in [-300, 0, 30, 350] {
            let file = put(&storage, &elsewhere("20260101T000000Z-full", off), age);
            let error = take(&storage, "b").err().unwrap();
            assert_eq!(error.kind, ErrorKind::Busy, "off by {off}, {age} seconds old");
            assert!(
                error.message.contains("db2") && error.message.contains("20260101T000000Z-full"),
                "{error}"
            );
            assert!(error.hint.unwrap().contains("minutes"));
            std::fs::remove_file(file).unwrap();
        }
    }
    // A reader whose clock is ahead by ten minutes still sees it run; one whose clock is behind too.
    put(&storage, &elsewhere("a", 0), 0);
    let lease = read(&storage, PATH).unwrap().unwrap();
    for off in [-600, 0, 600] {
        assert!(lease.is_alive(Utc::now() + chrono::Duration::seconds(off)));
    }
    assert!(!lease.is_alive(Utc::now() + chrono::Duration::seconds(LIFETIME + READER_SKEW + 1)));
}

#[test]
fn only_a_backup_is_to_be_stopped_as_one() {
    let (_dir, storage) = storage();
    for (purpose, is_backup) in [("20260101T000000Z-full", true), ("prune", false)] {
        let hint = |lease: &Lease| busy(&storage, lease).hint.unwrap();
        let own = Lease::new(purpose);
        held().insert(own.token.clone());
        for hint in [hint(&own), hint(&elsewhere(purpose, 0))] {
            assert_eq!(hint.contains("ark.backup_stop"), is_backup, "{hint}");
            assert!(hint.starts_with("Wait"), "{hint}");
        }
    }
}

#[test]
fn a_silent_lease_of_another_machine_is_taken_over() {
    let (_dir, storage) = storage();
    // Old by the store's clock; or from the future, since that clock was set back.
    for (off, age) in [(-600, 370), (0, 370), (600, 370), (0, -3600), (0, 100_000)] {
        put(&storage, &elsewhere("a", off), age);
        let begun = Instant::now();
        let held = take(&storage, "b").unwrap();
        assert!(begun.elapsed() >= SHORT_WATCH, "it was watched");
        assert_eq!(count(&storage), 1);
        drop(held);
    }
}

#[test]
fn a_sign_of_life_keeps_an_old_lease() {
    let (_dir, storage) = storage();
    // The store's clock was set forward by ten minutes; then the holder renews.
    let mut lease = elsewhere("a", 0);
    let file = put(&storage, &lease, 600);
    let looks = AtomicUsize::new(0);
    let renewing = |time: Duration| {
        if looks.fetch_add(1, Ordering::Relaxed) == 2 {
            let mut lease = lease.clone();
            lease.expires_at += chrono::Duration::seconds(1);
            put(&storage, &lease, 600);
        }
        pause(time.min(Duration::from_millis(20)))
    };
    let enter = |pause: &dyn Fn(Duration) -> Result<()>| {
        enter(&storage, PATH, Lease::new("b"), pause, Duration::from_secs(20))
    };
    assert_eq!(enter(&renewing).err().unwrap().kind, ErrorKind::Busy);
    assert!(looks.load(Ordering::Relaxed) >= 3 && file.exists());
    // Whoever is told to stop while it watches, stops.
    lease.token = "other".into();
    put(&storage, &lease, 600);
    let stop = |_| Err(Error::new(ErrorKind::Cancelled, "enough"));
    assert_eq!(enter(&stop).err().unwrap().kind, ErrorKind::Cancelled);
}

#[test]
fn a_lost_lease_is_noticed() {
    let (_dir, storage) = storage();
    let held = take(&storage, "a").unwrap();
    storage.delete(&held.lock().lease.path.clone()).unwrap();
    assert_eq!(held.renew().unwrap_err().kind, ErrorKind::Busy);
    assert_eq!(held.prove().unwrap_err().kind, ErrorKind::Busy);
    assert!(held.is_expired());
    assert_eq!(count(&storage), 0, "it does not come back");
}

#[test]
fn a_holder_that_was_away_for_too_long_gives_up() {
    let (_dir, storage) = storage();
    let held = take(&storage, "a").unwrap();
    held.lock().proved = boot_time() - VALID - Duration::from_secs(1);
    assert!(held.is_expired());
    assert_eq!(held.prove().unwrap_err().kind, ErrorKind::Busy);
    drop(held);
    let held = take(&storage, "a").unwrap();
    held.lock().proved = boot_time() - VALID + Duration::from_secs(30);
    held.prove().unwrap();
    assert!(!held.is_expired());
}

#[test]
fn of_those_that_come_together_one_holds() {
    let (_dir, storage) = storage();
    let (inside, most, taken) = (AtomicI64::new(0), AtomicI64::new(0), AtomicUsize::new(0));
    let stop = Instant::now() + Duration::from_secs(3);
    std::thread::scope(|scope| {
        for number in 0..6 {
            let (storage, inside, most, taken) = (&storage, &inside, &most, &taken);
            scope.spawn(move || {
                while Instant::now() < stop {
                    match take(storage, &number.to_string()) {
                        Ok(held) => {
                            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            taken.fetch_add(1, Ordering::Relaxed);
                            std::thread::yield_now();
                            inside.fetch_sub(1, Ordering::SeqCst);
                            drop(held);
                        }
                        Err(e) => assert_eq!(e.kind, ErrorKind::Busy, "{e}"),
                    }
                }
            });
        }
    });
    assert_eq!(most.load(Ordering::SeqCst), 1, "two held it at the same time");
    assert!(taken.load(Ordering::Relaxed) > 20, "nobody got on: {taken:?}");
    assert_eq!(count(&storage), 0);
}

/// The folder of the test below, in the processes that it starts.
const FOLDER: &str = "PG_ARK_TEST_LEASE_FOLDER";

/// Takes the lease again and again, until it is killed. A file lock, which ends with its process, shows whether another
/// holds the lease too.
#[test]
fn contender() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let storage = open(&folder.join("repository"));
    loop {
        let held = match take(&storage, "a") {
            Ok(held) => held,
            Err(e) => {
                note(&folder, if e.kind == ErrorKind::Busy { "busy" } else { "fault" });
                continue;
            }
        };
        let lock = std::fs::File::options().append(true).open(folder.join("lock")).unwrap();
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => note(&folder, "held"),
            Err(_) => note(&folder, "overlap"),
        }
        std::thread::park_timeout(Duration::from_millis(u64::from(std::process::id() % 7)));
        drop(lock);
        drop(held);
    }
}

/// A line in a file of notes; appended in one write, so that lines stay whole.
fn note(folder: &Path, what: &str) {
    use std::io::Write;
    let mut notes = std::fs::File::options().append(true).open(folder.join("notes")).unwrap();
    notes.write_all(format!("{what}\n").as_bytes()).unwrap();
}

#[test]
fn contenders_that_are_killed_at_any_point_never_leave_two_holders() {
    const CONTENDERS: usize = 4;
    const KILLS: usize = 60;
    let dir = tempfile::tempdir().unwrap();
    for name in ["lock", "notes"] {
        std::fs::write(dir.path().join(name), b"").unwrap();
    }
    let start = || -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["repository::lease::tests::contender", "--exact", "--nocapture"])
            .env(FOLDER, dir.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let notes = || std::fs::read_to_string(dir.path().join("notes")).unwrap();
    let times = |what: &str| notes().lines().filter(|line| *line == what).count();
    let mut children: Vec<Child> = (0..CONTENDERS).map(|_| start()).collect();
    for kill in 0..KILLS {
        // Some while they hold it, some while they want it: each after another number of acquisitions.
        let until = times("held") + kill % 3;
        let deadline = Instant::now() + Duration::from_secs(20);
        while times("held") < until {
            assert!(Instant::now() < deadline, "nobody takes the lease of the dead");
            std::thread::park_timeout(Duration::from_millis(1));
        }
        let mut victim = std::mem::replace(&mut children[kill % CONTENDERS], start());
        victim.kill().unwrap();
        victim.wait().unwrap();
    }
    for mut child in children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!((times("overlap"), times("fault")), (0, 0));
    assert!(times("held") > KILLS / 2, "{} times held", times("held"));
    drop(take(&open(&dir.path().join("repository")), "last").unwrap());
}
