//! Disks that are full or fail: ENOSPC and EIO from every kind of call on every kind of file, one at a time.
//!
//! 1. A run under strace tells which calls the work makes on its files. strace counts calls by thread, so "the third"
//!    means the third of each thread.
//! 2. Each is made to fail once: by chance one of each kind in a short run, every one with `scripts/torture`.
//! 3. The work fails cleanly or passes; what is complete is whole; the next try works.

use crate::archiving::{object, switch_wal};
use crate::support::{Ready, pgark_of, ready, strays};
use pg_ark_testkit::strace::{Strace, Trace};
use pg_ark_testkit::{
    Chance, Cluster, Output, SHORT, Scratch, command, is_thorough, rounds, run, run_ok, wait_until,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Faults of each test where nobody asks for more.
const ROUNDS: usize = 8;
/// Calls that need room, and fail with both errors.
const WRITING: [&str; 11] = [
    "write",
    "pwrite64",
    "ftruncate",
    "fsync",
    "fdatasync",
    "syncfs",
    "rename",
    "renameat2",
    "linkat",
    "mkdir",
    "openat",
];
/// Calls that fail with EIO alone.
const READING: [&str; 5] = ["read", "pread64", "statx", "getdents64", "unlink"];

/// One call that fails.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Fault {
    call: &'static str,
    error: &'static str,
    when: usize,
}

impl Fault {
    /// strace's options for it.
    fn options(&self, log: &Path) -> Vec<String> {
        let Fault { call, error, when } = self;
        let mut options = tracing(call, log);
        options.extend(["-e".into(), format!("inject={call}:error={error}:when={when}")]);
        options
    }

    fn words(&self) -> &'static str {
        if self.error == "ENOSPC" { "No space left on device" } else { "Input/output error" }
    }

    /// Exit codes that fit: no space left; the repository unusable, reading or writing failed.
    fn codes(&self) -> &'static [i32] {
        if self.error == "ENOSPC" { &[10] } else { &[4, 12] }
    }
}

/// strace's options to record calls and the paths that they are about.
fn tracing(calls: &str, log: &Path) -> Vec<String> {
    let mut options: Vec<String> =
        ["-f", "-qq", "-y", "-s", "400", "-e", "signal=none"].map(String::from).into();
    options.extend(["-e".into(), format!("trace={calls}"), "-o".into(), log.display().to_string()]);
    options
}

fn all_calls() -> String {
    WRITING.iter().chain(&READING).copied().collect::<Vec<_>>().join(",")
}

/// The kind of file that a path names: names without what differs from file to file.
fn kind_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let plain = |c: char| if c.is_ascii_hexdigit() && !c.is_ascii_lowercase() { '0' } else { c };
    let mut kind: String = name.chars().map(plain).collect();
    while kind.contains("00") {
        kind = kind.replace("00", "0");
    }
    if kind.starts_with("probe-") { "probe".into() } else { kind }
}

/// Calls of a run on files below these folders, by kind of call and file.
fn faults(trace: &Trace, roots: &[PathBuf]) -> BTreeMap<String, BTreeSet<Fault>> {
    let mut counts: BTreeMap<(u32, &str), usize> = BTreeMap::new();
    let mut found: BTreeMap<String, BTreeSet<Fault>> = BTreeMap::new();
    for call in &trace.calls {
        let count = counts.entry((call.thread, call.name.as_str())).or_default();
        *count += 1;
        let named = call.paths();
        let Some(path) = named.iter().find(|path| roots.iter().any(|root| path.starts_with(root))) else {
            continue;
        };
        let creates = call.argument(2).windows(7).any(|flag| flag == b"O_CREAT");
        let writes =
            WRITING.iter().find(|name| **name == call.name).filter(|name| **name != "openat" || creates);
        let reads = READING.iter().chain(&["openat"]).find(|name| **name == call.name);
        let errors: &[&'static str] = if writes.is_some() { &["ENOSPC", "EIO"] } else { &["EIO"] };
        let Some(name) = writes.or(reads) else { continue };
        for error in errors {
            let kind = format!("{name} {error} {}", kind_of(path));
            found.entry(kind).or_default().insert(Fault { call: name, error, when: *count });
        }
    }
    found
}

/// Those that are tried: all, or one of some kinds.
fn chosen(found: &BTreeMap<String, BTreeSet<Fault>>, chance: &mut Chance) -> Vec<Fault> {
    if is_thorough() {
        let all: BTreeSet<&Fault> = found.values().flatten().collect();
        return all.into_iter().cloned().collect();
    }
    let mut kinds: Vec<&BTreeSet<Fault>> = found.values().collect();
    let mut chosen = Vec::new();
    while chosen.len() < rounds(ROUNDS) && !kinds.is_empty() {
        let kind = kinds.swap_remove(chance.below(kinds.len() as u64) as usize);
        let of: Vec<&Fault> = kind.iter().collect();
        chosen.push((*chance.one(&of)).clone());
    }
    chosen
}

/// Paths that a fault hit.
fn hit(log: &Path) -> Vec<PathBuf> {
    if !log.exists() {
        return Vec::new();
    }
    let trace = Trace::read(log);
    trace.calls.iter().filter(|call| call.injected).flat_map(|call| call.paths()).collect()
}

/// What became of the faults of one test.
#[derive(Default)]
struct Tally {
    failed: usize,
    passed: usize,
    missed: usize,
    /// What was not told as it should be: all of a sweep, because the next is far.
    problems: BTreeSet<String>,
}

impl Tally {
    /// The work passed or failed at something that is no file of ours.
    fn count(&mut self, passed: bool, met: bool) {
        match (met, passed) {
            (false, _) => self.missed += 1,
            (true, true) => self.passed += 1,
            (true, false) => self.failed += 1,
        }
    }

    fn expect(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.problems.insert(what());
        }
    }

    /// The words must name the fault, a path and what to do.
    fn expect_clear(&mut self, fault: &Fault, text: &str, hits: &[PathBuf]) {
        let hint = text.to_lowercase().contains("hint:");
        let path = text.contains("\"/") || text.contains("file:///");
        // A look that fails may count as "not there", and what comes next then tells its own failure.
        let told = text.contains(fault.words()) || fault.call == "statx";
        self.expect(told, || format!("{fault:?} on {hits:?} is not told: {text}"));
        self.expect(path, || format!("{fault:?} on {hits:?}: no path is named: {text}"));
        self.expect(hint || fault.call == "statx", || format!("{fault:?} on {hits:?}: no hint: {text}"));
    }

    #[track_caller]
    fn tell(self, what: &str, kinds: usize, chance: &Chance) {
        let Tally { failed, passed, missed, problems } = self;
        println!(
            "I/O errors of {what} (seed {}): {failed} failed cleanly, {passed} passed all the same, {missed} met nothing, of \
             {kinds} kinds",
            chance.seed()
        );
        let all: Vec<String> = problems.into_iter().collect();
        assert!(all.is_empty(), "{} problems:\n{}", all.len(), all.join("\n\n"));
    }
}

/// Whether a fault met a file below the roots; programs open other files too.
fn met(hits: &[PathBuf], roots: &[PathBuf]) -> bool {
    hits.iter().any(|path| roots.iter().any(|root| path.starts_with(root)))
}

/// A server whose engine runs under strace.
struct Traced {
    ready: Ready,
    strace: Strace,
    scratch: Scratch,
}

impl Traced {
    fn new() -> Traced {
        let traced = Traced {
            ready: ready(Cluster::builder()),
            strace: Strace::new(),
            scratch: Scratch::new("faults"),
        };
        traced.undisturbed();
        let (server, path) = (&traced.ready.server, traced.script().display().to_string());
        server.configure(&[&format!("pg_ark.engine_path = '{path}'")]);
        server.reload();
        wait_until("the new engine_path", SHORT, || server.psql("SHOW pg_ark.engine_path") == path);
        traced
    }

    fn script(&self) -> PathBuf {
        self.scratch.path().join("engine.sh")
    }

    fn program(&self) -> PathBuf {
        pgark_of(self.ready.server.pg())
    }

    /// The next engine is started by this script.
    fn set(&self, script: &str) {
        let new = self.scratch.path().join("engine.new");
        fs::write(&new, script).expect("a script");
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("its mode");
        fs::rename(&new, self.script()).expect("its name");
    }

    fn undisturbed(&self) {
        self.set(&format!("#!/bin/sh\nexec '{}' \"$@\"\n", self.program().display()));
    }

    fn under(&self, options: impl Fn(&Path) -> Vec<String>) {
        self.set(&self.strace.wrapper(&options(&self.scratch.path().join("log-{}")), &self.program()));
    }

    /// What engines left since the last time.
    fn logs(&self) -> Vec<PathBuf> {
        let entries =
            fs::read_dir(self.scratch.path()).expect("the folder").flatten().map(|entry| entry.path());
        entries.filter(|path| kind_of(path).starts_with("log-")).collect()
    }

    fn forget(&self) {
        self.logs().iter().for_each(|log| fs::remove_file(log).expect("a log"));
    }
}

/// Fails unless every backup that says `complete` is whole; returns their names.
#[track_caller]
fn assert_complete_is_whole(ready: &Ready, label: &str) -> Vec<String> {
    let complete = ready.server.psql("SELECT backup FROM ark.list_backups() WHERE status = 'complete'");
    let names: Vec<String> = complete.lines().map(str::to_string).collect();
    for name in names.iter().rev().take(2) {
        let verified = run(ready.pgark().args(["verify", name]));
        assert!(verified.success(), "{label}: {verified}");
    }
    names
}

#[test]
fn a_backup_whose_disk_fails_is_told_and_nothing_false_is_complete() {
    let traced = Traced::new();
    let ready = &traced.ready;
    let roots = [ready.repo.path().to_path_buf(), ready.server.data().to_path_buf()];
    traced.under(|log| tracing(&all_calls(), log));
    let whole = ready.take_backup();
    traced.undisturbed();
    let engine = traced.logs().into_iter().max_by_key(|log| fs::metadata(log).map_or(0, |meta| meta.len()));
    let found = faults(&Trace::read(&engine.expect("a log")), &roots);
    let (mut chance, mut tally) = (Chance::new(), Tally::default());
    for (number, fault) in chosen(&found, &mut chance).iter().enumerate() {
        traced.forget();
        traced.under(|log| fault.options(log));
        let answer = ready.try_backup("wait => true");
        ready.assert_nothing_left_behind();
        traced.undisturbed();
        let hits: Vec<PathBuf> = traced.logs().iter().flat_map(|log| hit(log)).collect();
        let label = format!("{fault:?} on {hits:?}");
        let complete = assert_complete_is_whole(ready, &label);
        assert!(complete.contains(&whole), "{label}: the earlier backup is gone");
        match answer {
            Ok(name) => {
                assert!(complete.contains(&name), "{label}: {name} is not complete");
                tally.count(true, met(&hits, &roots));
            }
            Err(error) if met(&hits, &roots) => {
                tally.expect_clear(fault, &error.to_string(), &hits);
                let states = if fault.error == "ENOSPC" { &["53100"][..] } else { &["58030"] };
                tally.expect(states.contains(&error.sqlstate()), || format!("{label}: {error}"));
                tally.count(false, true);
            }
            Err(_) => tally.count(false, false),
        }
        if !is_thorough() || number % 10 == 0 {
            let again = ready.take_backup();
            assert!(assert_complete_is_whole(ready, &label).contains(&again));
        }
    }
    ready.take_backup();
    assert_old_strays_go(ready);
    tally.tell("backup", found.len(), &chance);
}

/// Fails unless what was left goes when it is old.
#[track_caller]
fn assert_old_strays_go(ready: &Ready) {
    for stray in strays(ready.repo.path()) {
        run_ok(command("/usr/bin/touch").args(["-d", "2 hours ago"]).arg(ready.repo.path().join(stray)));
    }
    ready.take_backup();
    assert_eq!(strays(ready.repo.path()), Vec::<String>::new());
}

/// Runs pgark, each time under strace with other options.
struct Runner<'a> {
    ready: &'a Ready,
    strace: Strace,
    scratch: Scratch,
}

impl<'a> Runner<'a> {
    fn new(ready: &'a Ready) -> Self {
        Runner { ready, strace: Strace::new(), scratch: Scratch::new("faults") }
    }

    fn log(&self) -> PathBuf {
        self.scratch.path().join("log")
    }

    fn run(&self, options: &[String], arguments: &dyn Fn(&mut Command)) -> Output {
        // Absent when nothing is recorded.
        let _ = fs::remove_file(self.log());
        let mut strace = self.strace.command(options, &pgark_of(self.ready.server.pg()));
        strace.args(["--repo", &self.ready.repo.url()]);
        arguments(&mut strace);
        run(&mut strace)
    }

    /// The faults that an undisturbed run can meet.
    fn faults(
        &self,
        arguments: &dyn Fn(&mut Command),
        roots: &[PathBuf],
    ) -> BTreeMap<String, BTreeSet<Fault>> {
        self.run(&tracing(&all_calls(), &self.log()), arguments).ok();
        faults(&Trace::read(&self.log()), roots)
    }

    /// Runs with a fault; returns what was hit.
    fn fail(&self, fault: &Fault, arguments: &dyn Fn(&mut Command)) -> (Output, Vec<PathBuf>) {
        let output = self.run(&fault.options(&self.log()), arguments);
        (output, hit(&self.log()))
    }
}

#[test]
fn a_restore_whose_disk_fails_is_told_does_not_start_and_can_be_repeated() {
    let ready = ready(Cluster::builder());
    ready.take_backup();
    let runner = Runner::new(&ready);
    let place = Scratch::new("target");
    let data = place.path().join("data");
    let restore = |pgark: &mut Command| {
        pgark.args(["restore", "latest", "--jobs", "2", "--pgdata"]).arg(&data);
    };
    let roots = [place.path().to_path_buf(), ready.repo.path().to_path_buf()];
    let found = runner.faults(&restore, &roots);
    let verified = || {
        let ignored = ["-i", "postgresql.conf", "-i", "pg_ark_restore.unfinished"];
        run_ok(ready.server.pg().tool("pg_verifybackup").arg("-n").args(ignored).arg(&data));
    };
    let (mut chance, mut tally) = (Chance::new(), Tally::default());
    for (number, fault) in chosen(&found, &mut chance).iter().enumerate() {
        // Absent after a fault that came early.
        let _ = fs::remove_dir_all(&data);
        let (output, hits) = runner.fail(fault, &restore);
        let label = format!("{fault:?} on {hits:?}: {output}");
        match output.code() {
            0 => {
                verified();
                assert!(!data.join("pg_ark_restore.unfinished").exists(), "{label}");
                tally.count(true, met(&hits, &roots));
                continue;
            }
            code if met(&hits, &roots) => {
                tally.expect(fault.codes().contains(&code), || label.clone());
                tally.expect_clear(fault, &output.stderr, &hits);
                tally.count(false, true);
            }
            _ => tally.count(false, false),
        }
        let startable = data.join("global/pg_control").exists();
        if startable {
            // The last steps: all is there, and the marker could not be removed, or a folder not be synced.
            verified();
        }
        if !is_thorough() || number % 10 == 0 {
            run(ready.pgark().args(["restore", "latest", "--replace", "--pgdata"]).arg(&data)).ok();
            verified();
        }
    }
    tally.tell("restore", found.len(), &chance);
}

/// A server that keeps its segments and does not archive.
fn keeping() -> Ready {
    let builder = Cluster::builder().wal_segment_mb(1).conf("wal_keep_size = '4GB'");
    ready(builder.conf("archive_mode = on").conf("archive_command = '/bin/false'"))
}

/// One more segment.
fn segment(server: &Cluster) -> String {
    server.psql("SELECT pg_logical_emit_message(false, 'fill', repeat(md5(random()::text), 20000))");
    switch_wal(server)
}

#[track_caller]
fn assert_stored(ready: &Ready, segment: &str, label: &str) {
    let stored = object(ready, segment).unwrap_or_else(|| panic!("{label}: {segment} is not stored"));
    let output = command("zstd").args(["-d", "-c", "-q"]).arg(&stored).output().expect("zstd");
    let original = fs::read(ready.server.data().join("pg_wal").join(segment)).expect("a kept segment");
    assert!(output.status.success() && output.stdout == original, "{label}: {segment} is stored differently");
}

#[test]
fn wal_push_whose_disk_fails_says_so_and_stores_all_or_nothing() {
    let ready = keeping();
    let server = &ready.server;
    let runner = Runner::new(&ready);
    let roots = [ready.repo.path().to_path_buf(), server.data().to_path_buf()];
    let push = |name: String| {
        let path = server.data().join("pg_wal").join(name);
        move |pgark: &mut Command| {
            pgark.args(["--cluster", "main", "wal-push"]).arg(&path);
        }
    };
    runner.run(&tracing("none", &runner.log()), &push(segment(server))).ok();
    let found = runner.faults(&push(segment(server)), &roots);
    let (mut chance, mut tally) = (Chance::new(), Tally::default());
    let mut told = Vec::new();
    for fault in chosen(&found, &mut chance) {
        let name = segment(server);
        let (output, hits) = runner.fail(&fault, &push(name.clone()));
        let label = format!("{fault:?} on {hits:?}: {output}");
        match output.code() {
            0 => {
                assert_stored(&ready, &name, &label);
                tally.count(true, met(&hits, &roots));
            }
            code if met(&hits, &roots) => {
                tally.expect(fault.codes().contains(&code), || label.clone());
                tally.expect_clear(&fault, &output.stderr, &hits);
                tally.count(false, true);
            }
            _ => tally.count(false, false),
        }
        if object(&ready, &name).is_some() {
            assert_stored(&ready, &name, &label);
        }
        runner.run(&tracing("none", &runner.log()), &push(name.clone())).ok();
        assert_stored(&ready, &name, &label);
        told.push(name);
    }
    told.iter().for_each(|name| assert_stored(&ready, name, "at the end"));
    run(ready.pgark().args(["verify-archive", "--deep"])).ok();
    tally.tell("wal-push", found.len(), &chance);
}

#[test]
fn wal_get_whose_disk_fails_never_says_that_a_segment_is_not_there() {
    let ready = keeping();
    let server = &ready.server;
    let runner = Runner::new(&ready);
    let names: Vec<String> = (0..3).map(|_| segment(server)).collect();
    for name in &names {
        let path = server.data().join("pg_wal").join(name);
        run(ready.pgark().args(["--cluster", "main", "wal-push"]).arg(path)).ok();
    }
    let place = Scratch::new("wal");
    let target = place.path().join("RECOVERYXLOG");
    let get = |pgark: &mut Command| {
        pgark.args(["--cluster", "main", "wal-get", &names[1]]).arg(&target);
    };
    let roots = [ready.repo.path().to_path_buf(), place.path().to_path_buf()];
    let found = runner.faults(&get, &roots);
    let original = fs::read(server.data().join("pg_wal").join(&names[1])).expect("a kept segment");
    let (mut chance, mut tally) = (Chance::new(), Tally::default());
    for fault in chosen(&found, &mut chance) {
        // Absent after a fault.
        let _ = fs::remove_file(&target);
        let (output, hits) = runner.fail(&fault, &get);
        let label = format!("{fault:?} on {hits:?}: {output}");
        match output.code() {
            0 => {
                assert!(fs::read(&target).is_ok_and(|content| content == original), "{label}");
                tally.count(true, met(&hits, &roots));
            }
            code if met(&hits, &roots) => {
                tally.expect(fault.codes().contains(&(code - 200)), || label.clone());
                tally.expect_clear(&fault, &output.stderr, &hits);
                tally.count(false, true);
            }
            code => {
                assert!(code > 125, "{label}");
                tally.count(false, false);
            }
        }
        let _ = fs::remove_file(&target);
        runner.run(&tracing("none", &runner.log()), &get).ok();
        assert!(fs::read(&target).is_ok_and(|content| content == original), "{label}");
    }
    tally.tell("wal-get", found.len(), &chance);
}
