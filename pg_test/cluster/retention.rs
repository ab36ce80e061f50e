//! Promise 4, never delete the last way back: prune beside everything else, again after every death, and on repositories in
//! which not all is well.

use crate::archiving::{archive_now, archiving, archiving_into, object, switch_wal};
use crate::scheduled::{DAY, HOUR};
use crate::support::{Ready, Running, fails_with, names_below};
use pg_ark_testkit::process::{CONTINUE, STOP, send_signal};
use pg_ark_testkit::{
    Chance, Clock, Cluster, LONG, Output, Repo, Scratch, chown_tree_to_server, command, file_url, kill_after,
    rounds, run, run_ok, wait_until,
};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server that archives, with a backup of each of some days, and the clock that made them old.
struct Aged {
    ready: Ready,
    clock: Clock,
    /// Oldest first.
    backups: Vec<String>,
    /// A moment of each day, behind its backup and `morning N`, before `evening N`.
    moments: Vec<String>,
}

/// Keeps two days.
const TWO_DAYS: [&str; 4] = ["--window", "2d", "--min-full", "1"];

fn aged(days: usize) -> Aged {
    let clock = Clock::behind(DAY * 40);
    let ready = archiving(Cluster::builder().wal_segment_mb(1).clock(&clock));
    ready.server.psql("CREATE TABLE diary (entry text, at timestamptz DEFAULT clock_timestamp())");
    let mut aged = Aged { ready, clock, backups: Vec::new(), moments: Vec::new() };
    (0..days).for_each(|_| aged.live());
    // A window then begins hours behind a backup, and not within the second in which it ended.
    aged.clock.advance(HOUR * 6);
    aged
}

impl Aged {
    /// One more day.
    #[track_caller]
    fn live(&mut self) {
        let backup = self.ready.take_backup();
        self.backups.push(backup);
        self.write_day();
    }

    /// One more day without a backup.
    #[track_caller]
    fn write_day(&mut self) {
        let (server, day) = (&self.ready.server, self.moments.len());
        server.psql(&format!("INSERT INTO diary VALUES ('morning {day}')"));
        let moment = server.psql("SELECT now()");
        self.clock.advance(HOUR);
        server.psql(&format!("INSERT INTO diary VALUES ('evening {day}')"));
        let segment = switch_wal(server);
        let done = server.data().join(format!("pg_wal/archive_status/{segment}.done"));
        wait_until("the day's WAL in the archive", LONG, || done.is_file());
        self.clock.date(self.ready.repo.path());
        self.clock.advance(DAY - HOUR);
        self.moments.push(moment);
    }

    /// Starts a backup that takes long; the archiver has an engine too.
    #[track_caller]
    fn start_slow(&self, rate: u32) -> Running {
        let server = &self.ready.server;
        let backup = server.psql(&format!("SET pg_ark.max_rate = {rate}; SELECT ark.backup_start()"));
        self.ready.wait_for_phase("streaming database files");
        let worker = self.ready.worker();
        let engines = server.processes("pgark engine");
        let own = engines.iter().find(|process| process.parent == worker).expect("its engine");
        Running { backup, worker, engine: own.pid }
    }

    fn pgark(&self) -> Command {
        let mut pgark = self.ready.pgark();
        self.clock.apply(&mut pgark);
        pgark
    }

    /// Runs `pgark prune`.
    fn try_prune(&self, arguments: &[&str]) -> Output {
        run(self.pgark().args(["--format", "json", "prune"]).args(arguments))
    }

    /// Prunes; returns what was dropped, by name.
    #[track_caller]
    fn prune(&self, arguments: &[&str]) -> BTreeSet<String> {
        verdicts(&self.try_prune(arguments).ok(), "drop")
    }

    /// Names of the complete backups, oldest first.
    fn complete(&self) -> Vec<String> {
        let listed = run(self.pgark().args(["--format", "json", "list"])).ok();
        let rows: Value = serde_json::from_str(&listed).expect("JSON");
        let rows = rows.as_array().expect("rows").iter().filter(|row| row["status"] == "complete");
        rows.map(|row| row["backup"].as_str().expect("a name").to_string()).collect()
    }

    /// Entries that a restore with these options brings back.
    #[track_caller]
    fn restored(&self, options: &[&str]) -> Vec<String> {
        let folder = Scratch::new("restored");
        let data = folder.path().join("data");
        run(self.pgark().arg("restore").args(options).arg("--pgdata").arg(&data)).ok();
        let copy = Cluster::open_restored_with(self.ready.server.pg(), &data);
        copy.start();
        wait_until("the end of recovery", LONG, || copy.psql("SELECT pg_is_in_recovery()") == "f");
        entries(&copy)
    }

    /// Fails unless the last entry comes back, and what is left is sound.
    #[track_caller]
    fn assert_way_back(&self) {
        assert_eq!(self.restored(&[]), entries(&self.ready.server));
        run(self.pgark().arg("verify")).ok();
        run(self.pgark().args(["verify-archive", "--deep"])).ok();
    }

    /// Fails unless a moment of `day` comes back as it was.
    #[track_caller]
    fn assert_moment(&self, day: usize) {
        let restored = self.restored(&["--target-time", &self.moments[day]]);
        assert_eq!(restored.last(), Some(&format!("morning {day}")), "{restored:?}");
    }
}

fn entries(server: &Cluster) -> Vec<String> {
    server.psql("SELECT entry FROM diary ORDER BY at").lines().map(str::to_string).collect()
}

/// Names in a JSON answer of prune that have this verdict.
#[track_caller]
fn verdicts(json: &str, verdict: &str) -> BTreeSet<String> {
    let rows: Value = serde_json::from_str(json).unwrap_or_else(|e| panic!("{e}: {json}"));
    let rows = rows.as_array().expect("rows").iter().filter(|row| row["verdict"] == verdict);
    rows.map(|row| row["object"].as_str().expect("a name").to_string()).collect()
}

#[test]
fn smoke_what_the_window_needs_stays_and_the_rest_goes() {
    let aged = aged(5);
    let plan = aged.prune(&[&TWO_DAYS[..], &["--dry-run"]].concat());
    assert_eq!(aged.complete(), aged.backups, "a dry run removes nothing");
    assert_eq!(aged.prune(&TWO_DAYS), plan, "what was shown is what was done");
    // The last but one leads to the beginning of the window.
    assert_eq!(aged.complete(), aged.backups[3..]);
    let first: &str = &aged.backups[0];
    assert!(
        plan.contains(first) && plan.iter().any(|name| name.contains("..") || name.len() == 24),
        "{plan:?}"
    );
    assert!(names_below(aged.ready.repo.path()).iter().all(|name| !name.contains(first)));
    assert_eq!(aged.prune(&TWO_DAYS), BTreeSet::new(), "a second one finds nothing to do");
    aged.assert_way_back();
    (3..5).for_each(|day| aged.assert_moment(day));
    let pruned = "SELECT count(*) > 0 FROM ark.verify_archive() WHERE status = 'pruned'";
    assert_eq!(
        aged.ready.server.psql(pruned),
        "t",
        "{}",
        aged.ready.server.psql("SELECT * FROM ark.verify_archive()")
    );
}

#[test]
fn promise_4_never_delete_the_last_way_back() {
    let mut aged = aged(1);
    (0..3).for_each(|_| aged.write_day());
    // A newer one that failed is no way back.
    let running = aged.start_slow(1024);
    send_signal(running.engine, pg_ark_testkit::process::KILL);
    wait_until("its end", LONG, || aged.ready.backup_row("status", &running.backup) == "failed");
    aged.clock.advance(DAY * 20);
    for nothing in
        [&["--window", "0d", "--min-full", "0"][..], &["--window", "1h", "--min-full", "0"], &TWO_DAYS]
    {
        let dropped = aged.prune(nothing);
        assert!(!dropped.contains(&aged.backups[0]), "{dropped:?}");
        assert_eq!(aged.complete(), aged.backups);
    }
    aged.assert_way_back();
    aged.assert_moment(2);

    // Nor is one whose data is gone: the older one stays.
    aged.live();
    aged.clock.advance(DAY * 10);
    let newest = aged.backups[1].clone();
    std::fs::remove_file(aged.ready.backup_folder(&newest).join("base.tar.zst")).expect("its data");
    let dropped = aged.prune(&["--window", "1h", "--min-full", "0"]);
    assert!(!dropped.contains(&aged.backups[0]), "{dropped:?}");
    let oldest = aged.backups[0].clone();
    assert_eq!(aged.restored(&[&oldest]), entries(&aged.ready.server));
}

#[test]
fn promise_4_a_clock_that_is_ahead_of_the_repositorys_removes_nothing() {
    let aged = aged(4);
    let archive = aged.ready.repo.path().join("main");
    let stored = || names_below(&archive);
    let (before, right) = (stored(), aged.clock.now());
    aged.clock.set_ahead(DAY * 700);
    // What is shown would be wrong, and is told to be.
    let plan = aged.try_prune(&[&TWO_DAYS[..], &["--dry-run"]].concat());
    assert!(plan.stderr.contains("nothing is removed by a clock that is ahead"), "{plan}");
    assert!(!plan.ok().is_empty());
    let refused = fails_with(aged.pgark().arg("prune").args(TWO_DAYS), 22);
    assert!(refused.stderr.contains("this machine's clock says 2028-"), "{refused}");
    let error = aged.ready.server.try_psql("SELECT ark.prune(false)").expect_err("a refusal");
    assert_eq!(error.sqlstate(), "55000", "{error}");
    assert!(error.hint().contains("Set this machine's clock right"), "{error}");
    assert_eq!(stored(), before);
    // Machines may differ a little.
    aged.clock.set_ahead(HOUR / 2);
    aged.try_prune(&["--window", "90d", "--min-full", "1"]).ok();
    aged.clock.set(right);
    assert_eq!(aged.complete(), aged.backups);
    assert!(aged.prune(&TWO_DAYS).contains(&aged.backups[0]));
    aged.assert_way_back();
}

#[test]
fn promise_4_a_clock_that_jumps_ahead_with_the_repositorys_does_not_empty_the_window() {
    let aged = aged(4);
    // The first of these leads to the window's beginning.
    let window = &aged.backups[1..];
    let holds = || {
        let complete = aged.complete();
        window.iter().all(|backup| complete.contains(backup))
    };
    aged.clock.advance(DAY * 30);
    aged.prune(&TWO_DAYS);
    assert!(holds());
    // What was missed is made up at once: a backup, and a prune.
    let made_up = aged.ready.take_backup();
    aged.clock.date(aged.ready.repo.path());
    aged.clock.advance(HOUR * 22);
    aged.prune(&TWO_DAYS);
    assert!(holds());
    aged.assert_moment(2);
    // Nobody minded for a day.
    aged.clock.advance(HOUR * 3);
    assert!(aged.prune(&TWO_DAYS).contains(&window[0]));
    assert!(aged.complete().contains(&made_up));
}

#[test]
fn a_prune_gives_way_to_a_backup_that_runs() {
    let mut aged = aged(4);
    aged.clock.advance(HOUR * 12);
    let running = aged.start_slow(2048);
    let refused = fails_with(aged.pgark().arg("prune").args(TWO_DAYS), 9);
    assert!(refused.stderr.contains(&running.backup), "{refused}");
    assert_eq!(aged.complete(), aged.backups, "nothing was removed");
    let plan = aged.try_prune(&[&TWO_DAYS[..], &["--dry-run"]].concat()).ok();
    assert!(verdicts(&plan, "keep").contains(&running.backup), "{plan}");
    aged.ready.server.psql("INSERT INTO diary VALUES ('while it ran')");
    archive_now(&aged.ready);
    aged.ready.wait_for_end(&running);
    assert!(aged.prune(&TWO_DAYS).contains(&aged.backups[0]));
    aged.backups.push(running.backup);
    // The new one is young: the window still begins before it.
    assert_eq!(aged.complete(), aged.backups[2..]);
    aged.assert_way_back();
}

/// A program that is stopped in the middle of what it reads.
fn frozen(mut command: Command, until: impl Fn() -> bool) -> Child {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("pgark");
    let ended = |child: &mut Child| child.try_wait().expect("a status").is_some();
    wait_until("the middle of it", LONG, || until() || ended(&mut child));
    if ended(&mut child) {
        panic!("it was too fast: {:?}", child.wait_with_output());
    }
    send_signal(child.id(), STOP);
    child
}

#[test]
fn a_restore_that_reads_while_prune_removes_is_right_or_refused() {
    let mut aged = aged(4);
    // Large enough that a restore is seen at it.
    aged.ready
        .server
        .psql("CREATE TABLE large AS SELECT i, md5(i::text) AS t FROM generate_series(1, 400000) i");
    aged.live();
    let folder = Scratch::new("restored");
    for (number, backup, goes) in [(0, &aged.backups[0], true), (1, &aged.backups[4], false)] {
        let data = folder.path().join(format!("data {number}"));
        let mut restore = aged.pgark();
        restore.args(["restore", backup, "--target", "immediate", "--pgdata"]).arg(&data);
        let begun = data.join("base");
        let child = frozen(restore, || begun.is_dir());
        let dropped = aged.prune(&TWO_DAYS);
        assert_eq!(dropped.contains(backup), goes, "{dropped:?}");
        send_signal(child.id(), CONTINUE);
        let ended = child.wait_with_output().expect("pgark");
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        if ended.status.success() {
            let copy = Cluster::open_restored_with(aged.ready.server.pg(), &data);
            copy.start();
            wait_until("the end of recovery", LONG, || copy.psql("SELECT pg_is_in_recovery()") == "f");
            copy.amcheck();
        } else {
            assert!(goes, "a backup that stayed could not be restored: {said}");
            assert!(said.contains("error:") && said.contains(&backup[..]), "{said}");
            let copy = Cluster::open_restored_with(aged.ready.server.pg(), &data);
            assert!(!copy.try_start().success(), "half a restore starts");
        }
    }
    aged.assert_way_back();
}

#[test]
fn a_verification_that_reads_while_prune_removes_finds_no_fault_in_what_stays() {
    let mut aged = aged(5);
    aged.live();
    let mut verify = aged.pgark();
    verify.args(["--format", "json", "verify", "--jobs", "1"]);
    let began = Instant::now();
    let child = frozen(verify, || began.elapsed() > Duration::from_millis(60));
    let dropped = aged.prune(&TWO_DAYS);
    assert!(!dropped.is_empty());
    send_signal(child.id(), CONTINUE);
    let ended = child.wait_with_output().expect("pgark");
    let found: Value = serde_json::from_slice(&ended.stdout).unwrap_or(Value::Null);
    let kept = aged.complete();
    for finding in found.as_array().into_iter().flatten() {
        let of = finding["backup"].as_str().unwrap_or_default();
        assert!(!kept.iter().any(|backup| backup == of), "{finding}");
    }
    aged.assert_way_back();
}

#[test]
fn of_two_prunes_at_once_nothing_goes_that_one_alone_would_have_left() {
    let aged = aged(5);
    let plan = aged.prune(&[&TWO_DAYS[..], &["--dry-run"]].concat());
    let start = || {
        let mut prune = aged.pgark();
        prune
            .args(["--format", "json", "prune"])
            .args(TWO_DAYS)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        prune.spawn().expect("pgark")
    };
    let both = [start(), start()].map(|child| child.wait_with_output().expect("pgark"));
    let codes = both.each_ref().map(|ended| ended.status.code());
    assert!(codes.iter().all(|code| matches!(code, Some(0 | 9))) && codes.contains(&Some(0)), "{both:?}");
    for ended in both.iter().filter(|ended| ended.status.success()) {
        let dropped = verdicts(&String::from_utf8_lossy(&ended.stdout), "drop");
        assert!(dropped.is_subset(&plan), "{dropped:?} {plan:?}");
    }
    assert_eq!(aged.complete(), aged.backups[3..]);
    aged.assert_way_back();
}

#[test]
fn two_servers_prune_at_once() {
    let mut aged = aged(4);
    aged.ready.server.configure(&["pg_ark.retention_window = '2d'", "pg_ark.retention_min_full = 1"]);
    aged.ready.server.reload();
    let standby = aged.ready.server.create_standby(&[]);
    aged.ready.server.wait_for_standby(&standby);
    for _ in 0..3 {
        let sessions = [&aged.ready.server, &standby].map(|server| {
            server.psql_background("SELECT object FROM ark.prune(dry_run => false) WHERE verdict = 'drop'")
        });
        for ended in sessions.map(|session| session.wait()) {
            match ended {
                Ok(_) => {}
                Err(error) => assert_eq!(error.sqlstate(), "55006", "{error}"),
            }
        }
        aged.live();
        aged.ready.server.wait_for_standby(&standby);
        aged.assert_moment(aged.moments.len() - 2);
    }
    aged.ready.server.psql("SELECT * FROM ark.prune(dry_run => false)");
    assert_eq!(standby.psql("SELECT count(*) FROM ark.prune() WHERE verdict = 'drop'"), "0");
    let first = aged.backups[0].clone();
    assert!(!aged.complete().contains(&first));
    aged.assert_way_back();
}

#[test]
fn a_gap_takes_nothing_with_it() {
    let mut aged = aged(3);
    // PostgreSQL reads ahead of what it replays, into the segments behind the one that holds the target.
    let filler = "CREATE TABLE filler AS SELECT i, md5(i::text) FROM generate_series(1, 30000) i";
    aged.ready.server.psql(filler);
    archive_now(&aged.ready);
    let lost = archive_now(&aged.ready);
    (0..2).for_each(|_| aged.live());
    std::fs::remove_file(object(&aged.ready, &lost).expect("a stored segment")).expect("a gap");
    let dropped = aged.prune(&["--window", "3d", "--min-full", "1"]);
    assert!(dropped.contains(&aged.backups[0]), "{dropped:?}");
    // On both sides of the gap, what could be reached can be reached.
    (2..5).for_each(|day| aged.assert_moment(day));
    assert_eq!(aged.restored(&[]), entries(&aged.ready.server));
    let faults = aged
        .ready
        .server
        .psql("SELECT status FROM ark.verify_archive() WHERE status NOT IN ('ok', 'pruned')");
    assert_eq!(faults, "gap", "what retention removed is none, what was lost is one");
}

#[test]
fn a_pinned_backup_stays_with_the_wal_that_makes_it_whole() {
    let aged = aged(6);
    let pinned = aged.backups[0].clone();
    run(aged.pgark().args(["pin", &pinned, "--reason", "before the upgrade"])).ok();
    let list = run(aged.pgark().arg("list")).ok();
    assert!(list.contains("pinned:"), "{list}");
    let kept = run(aged.pgark().arg("prune").args(TWO_DAYS)).ok();
    assert!(kept.contains("pinned: before the upgrade"), "{kept}");
    assert_eq!(aged.complete(), [std::slice::from_ref(&pinned), &aged.backups[4..]].concat());
    aged.assert_way_back();
    assert_eq!(aged.restored(&[&pinned, "--target", "immediate"]), Vec::<String>::new());
    // Behind it there is a hole: nobody is led into it.
    let moment = ["--target-time", &aged.moments[1]];
    fails_with(aged.pgark().arg("restore").args(moment).args(["--pgdata", "/tmp/never made"]), 28);
    run(aged.pgark().args(["unpin", &pinned])).ok();
    assert!(aged.prune(&TWO_DAYS).contains(&pinned));
    assert_eq!(aged.complete(), aged.backups[4..]);
    aged.assert_way_back();
}

#[test]
fn a_newer_timeline_needs_the_older_one_until_the_window_has_passed_it() {
    let mut aged = aged(4);
    let standby = aged.ready.server.create_standby(&[]);
    aged.ready.server.wait_for_standby(&standby);
    archive_now(&aged.ready);
    aged.ready.server.destroy();
    standby.promote();
    aged.ready.server = standby;
    // The window reaches back over the promotion, and no backup of the new timeline is there yet.
    aged.write_day();
    aged.prune(&TWO_DAYS);
    aged.assert_moment(3);
    aged.assert_way_back();
    (0..4).for_each(|_| aged.live());
    let dropped = aged.prune(&TWO_DAYS);
    assert!(dropped.contains(&aged.backups[3]), "{dropped:?}");
    aged.assert_moment(aged.moments.len() - 2);
    aged.assert_way_back();
    let left = names_below(aged.ready.repo.path());
    assert!(!left.iter().any(|name| name.contains("/wal/00000001/") && name.ends_with(".zst")), "{left:?}");
}

#[test]
fn after_an_upgrade_the_old_server_stays_restorable_until_the_new_one_covers_the_window() {
    let old = aged(4);
    let (clock, entries_of_old) = (old.clock.clone(), entries(&old.ready.server));
    let old_backups = old.backups.clone();
    old.ready.server.stop(pg_ark_testkit::StopMode::Fast);
    // What pg_upgrade leaves: the same cluster, another system identifier.
    let Aged { ready: Ready { repo, server: _gone }, .. } = old;
    let ready = archiving_into(Cluster::builder().wal_segment_mb(1).clock(&clock), repo);
    ready.server.psql("CREATE TABLE diary (entry text, at timestamptz DEFAULT clock_timestamp())");
    let mut new = Aged { ready, clock, backups: Vec::new(), moments: Vec::new() };
    let newest = old_backups[3].clone();
    new.live();
    new.prune(&TWO_DAYS);
    assert!(new.complete().contains(&newest), "{:?}", new.complete());
    let system = run(new.pgark().args(["--format", "json", "show", &newest])).ok();
    let system: Value = serde_json::from_str(&system).expect("JSON");
    let system = system["system_identifier"].as_str().expect("an identifier").to_string();
    assert_eq!(new.restored(&["--system-identifier", &system]), entries_of_old);
    (0..4).for_each(|_| new.live());
    new.prune(&TWO_DAYS);
    assert!(!new.complete().contains(&newest), "{:?}", new.complete());
    new.assert_way_back();
}

/// A copy of a repository, to be pruned in its place.
fn copy_of(repo: &Repo) -> Scratch {
    let copy = Scratch::new("pruned");
    run_ok(Command::new("cp").arg("-a").arg(repo.path()).arg(copy.path().join("repository")));
    chown_tree_to_server(&copy.path().join("repository"));
    copy
}

#[test]
fn a_prune_that_is_killed_at_any_moment_and_run_again_ends_in_the_same_state() {
    let aged = aged(6);
    run(aged.pgark().args(["pin", &aged.backups[0]])).ok();
    // The archiver writes its index when it has nothing else to do.
    let index = || names_below(aged.ready.repo.path()).iter().any(|name| name.ends_with("0000/index.jsonl"));
    wait_until("the index of the archive", LONG, index);
    let prune = |copy: &Scratch| {
        let mut prune = command(crate::support::pgark_of(aged.ready.server.pg()));
        aged.clock.apply(&mut prune);
        prune.arg("--repo").arg(file_url(&copy.path().join("repository"))).arg("prune").args(TWO_DAYS);
        prune.stdout(Stdio::null()).stderr(Stdio::null());
        prune
    };
    let whole = copy_of(&aged.ready.repo);
    let began = Instant::now();
    assert!(prune(&whole).status().expect("pgark").success());
    let usual = began.elapsed();
    let expected = names_below(&whole.path().join("repository"));
    let mut chance = Chance::new();
    let mut killed = 0;
    for round in 0..rounds(20) {
        let copy = copy_of(&aged.ready.repo);
        let mut deaths = 0;
        // Some are killed again while they make up for it.
        while deaths <= round % 3 {
            let mut child = prune(&copy).spawn().expect("pgark");
            if kill_after(&mut child, chance.moment(usual)).is_some() {
                break;
            }
            deaths += 1;
        }
        killed += deaths;
        let folder = copy.path().join("repository");
        let mut list = command(crate::support::pgark_of(aged.ready.server.pg()));
        aged.clock.apply(&mut list);
        let listed = run(list.arg("--repo").arg(file_url(&folder)).args(["verify", "latest"]));
        assert!(listed.success(), "after {deaths} deaths: {listed}");
        assert!(prune(&copy).status().expect("pgark").success());
        // What a prune was just writing, or looked at the clock with: the next backup removes it.
        let is_kept = |name: &String| !name.contains('#') && !name.starts_with("probe-");
        let left: Vec<String> = names_below(&folder).into_iter().filter(is_kept).collect();
        assert_eq!(left, expected, "after {deaths} deaths");
        let mut verify = command(crate::support::pgark_of(aged.ready.server.pg()));
        aged.clock.apply(&mut verify);
        run(verify.arg("--repo").arg(file_url(&folder)).arg("verify")).ok();
    }
    assert!(killed > 0, "every prune was faster than its death");
    println!("{killed} prunes were killed");
}
