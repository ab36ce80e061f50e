//! Sixty days of a server that is left alone, lived through in minutes: the clock is moved, nobody sleeps.

use crate::archiving::{archive_now, archiving};
use crate::scheduled::{DAY, HOUR, assert_no_doubles, instant, runs, wait_done};
use crate::support::{Ready, Restored, pgark};
use pg_ark_testkit::{Chance, Clock, Cluster, LONG, Repo, Scratch, StopMode, Workload, run, wait_until};
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// Simulated days.
const DAYS: i64 = 60;
/// Every so many of them all is looked at.
const CHECK_EVERY: i64 = 6;
/// What retention keeps, in seconds.
const WINDOW: i64 = 7 * 86_400;

#[test]
fn time_is_injected_into_server_engines_and_pgark() {
    let clock = Clock::behind(DAY * 61);
    let ready = archiving(Cluster::builder().wal_segment_mb(1).clock(&clock));
    let server = &ready.server;
    server.psql("CREATE TABLE moments (what text, at timestamptz DEFAULT clock_timestamp())");
    let mut moments = Vec::new();
    for what in ["one", "two", "three"] {
        let backup = ready.take_backup();
        let named = server.psql("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')");
        assert!(backup.starts_with(&named), "{backup} on {named}");
        server.psql(&format!("INSERT INTO moments VALUES ('{what}')"));
        moments.push(server.psql("SELECT now()"));
        archive_now(&ready);
        clock.advance(DAY);
    }
    let windows =
        "SELECT to_time - from_time BETWEEN '2 days' AND '2 days 1 min' FROM ark.recovery_windows()";
    assert_eq!(server.psql(windows), "t", "{}", server.psql("SELECT * FROM ark.recovery_windows()"));
    let age = "SELECT last_backup_age BETWEEN '1 day' AND '1 day 1 min' FROM ark.status";
    assert_eq!(server.psql(age), "t");
    let mut list = ready.pgark();
    let listed = run(clock.apply(list.arg("list"))).ok();
    assert_eq!(listed.lines().count(), 4, "{listed}");
    let copy = restore_at(&ready, &clock, &moments[1]);
    assert_eq!(copy.server.psql("SELECT string_agg(what, ',' ORDER BY at) FROM moments"), "one,two");
}

/// A copy of the server as it was at a moment.
#[track_caller]
fn restore_at(ready: &Ready, clock: &Clock, moment: &str) -> Restored {
    let folder = Scratch::new("restored");
    let data = folder.path().join("data");
    let mut pgark = ready.pgark();
    pgark.args(["restore", "--target-time", moment, "--pgdata"]).arg(&data);
    run(clock.apply(&mut pgark)).ok();
    let server = Cluster::open_restored_with(ready.server.pg(), &data);
    server.start();
    wait_until("the end of recovery", LONG, || server.psql("SELECT pg_is_in_recovery()") == "f");
    Restored { server, folder }
}

/// A server that protects itself, and somebody who writes into it all the time.
struct Life {
    ready: Ready,
    clock: Clock,
    chance: Chance,
    load: Option<Workload>,
    /// Midnight before it began, in seconds since 1970.
    dawn: i64,
    /// Stored bytes at each check since the first window was full.
    sizes: Vec<u64>,
}

#[test]
fn sixty_days_of_a_server_that_is_left_alone() {
    let mut life = Life::begin();
    for day in 0..DAYS {
        life.live_until(day, HOUR * 14);
        match day {
            9 => life.interrupted(|server| server.restart()),
            20 => life.interrupted(|server| {
                server.kill9();
                server.start();
            }),
            28 => life.sleep_through_the_night(day),
            38 => life.fail_over(),
            _ => {}
        }
        life.live_until(day + 1, HOUR * 2);
        if (day + 1) % CHECK_EVERY == 0 {
            life.check(day + 1);
        }
    }
    life.look_back();
}

impl Life {
    fn begin() -> Life {
        let clock = Clock::behind(DAY * u32::try_from(DAYS + 2).expect("days"));
        let dawn = clock.now() - clock.now() % 86_400;
        clock.set(dawn + 12 * 3600);
        let server = Cluster::builder().wal_segment_mb(1).clock(&clock).start();
        let repo = Repo::new();
        server.psql("CREATE EXTENSION pg_ark");
        server.psql(&format!("SELECT * FROM ark.enable('{}', protect => true)", repo.url()));
        server.restart();
        server.psql("CREATE TABLE moments (at timestamptz DEFAULT clock_timestamp())");
        server.psql(
            "CREATE TABLE churn AS SELECT i, 0 AS v, repeat('x', 200) AS t FROM generate_series(1, 500) i",
        );
        let ready = Ready { server, repo };
        let (chance, load) = (Chance::new(), None);
        let mut life = Life { ready, clock, chance, load, dawn, sizes: Vec::new() };
        life.write();
        // One that was just protected does not wait for the night.
        let first = || runs(&life.ready.repo).into_iter().find(|run| run.job == "daily full");
        wait_until("the first backup", LONG, || first().is_some_and(|run| run.status == "done"));
        life
    }

    /// Starts to write; also what is not there any more.
    fn write(&mut self) {
        let script = self.ready.server.base().join("write.sql");
        let text = "\\set i random(1, 500)\nINSERT INTO moments DEFAULT VALUES;\nUPDATE churn SET v = v + 1 WHERE i = :i;\n";
        fs::write(&script, text).expect("a script");
        let script = script.display().to_string();
        let arguments = ["-n", "-R", "20", "-T", "3600", "-f", &script];
        self.load = Some(self.ready.server.pgbench_background(&arguments));
    }

    /// Lets time pass until `hour` of a day, and waits until all is done that was due.
    #[track_caller]
    fn live_until(&mut self, day: i64, hour: Duration) {
        let time = self.dawn + day * 86_400 + i64::try_from(hour.as_secs()).expect("seconds");
        if time <= self.clock.now() {
            return;
        }
        self.clock.date(self.ready.repo.path());
        self.clock.set(time + 60);
        let (server, repo) = (&self.ready.server, &self.ready.repo);
        if time % 86_400 == 2 * 3600 {
            wait_done(&self.clock, &[server], repo, "daily full", &instant(server, time));
        }
        wait_done(&self.clock, &[server], repo, "prune", &instant(server, time));
    }

    /// Something befalls the server, which throws out its clients.
    fn interrupted(&mut self, what: impl FnOnce(&Cluster)) {
        drop(self.load.take());
        what(&self.ready.server);
        self.write();
    }

    /// The server is down when its backup is due, and makes up for it when it is there again.
    #[track_caller]
    fn sleep_through_the_night(&mut self, day: i64) {
        let night = self.dawn + (day + 1) * 86_400 + 2 * 3600;
        let clock = self.clock.clone();
        self.interrupted(|server| {
            server.stop(StopMode::Fast);
            clock.set(night + 3 * 3600);
            server.start();
        });
        let (server, repo) = (&self.ready.server, &self.ready.repo);
        wait_done(&self.clock, &[server], repo, "daily full", &instant(server, night));
    }

    /// The primary and its disk are gone; a standby takes over. Nobody does anything about backups.
    fn fail_over(&mut self) {
        let standby = self.ready.server.create_standby(&[]);
        drop(self.load.take());
        self.ready.server.wait_for_standby(&standby);
        archive_now(&self.ready);
        self.ready.server.destroy();
        standby.promote();
        self.ready.server = standby;
        self.write();
    }

    /// Is every moment of the window there? One of them, by chance, is really restored.
    #[track_caller]
    fn check(&mut self, day: i64) {
        archive_now(&self.ready);
        let server = &self.ready.server;
        let show = |query: &str| server.psql(query);
        let faults = "SELECT * FROM ark.verify_archive() WHERE status NOT IN ('ok', 'pruned')";
        assert_eq!(show(faults), "", "day {day}");
        assert_eq!(show("SELECT health FROM ark.status"), "ok", "day {day}");
        // Records and this clock count in whole seconds.
        let begin = (self.clock.now() + 2 - WINDOW).max(self.dawn + 13 * 3600);
        let covered = format!(
            "SELECT count(*) FROM ark.recovery_windows() WHERE from_time <= to_timestamp({begin}) \
             AND to_time >= (SELECT max(at) FROM moments) - interval '1 minute'"
        );
        assert_ne!(show(&covered), "0", "day {day}: {}", show("SELECT * FROM ark.recovery_windows()"));
        if day > 8 {
            self.sizes.push(size(&self.ready.repo));
            let backups = show("SELECT count(*) FROM ark.list_backups()");
            assert!(backups.parse::<u32>().expect("a count") <= 10, "day {day}: {backups} backups");
        }
        let end: i64 =
            show("SELECT floor(extract(epoch FROM max(at))) - 1 FROM moments").parse().expect("a time");
        let moment = match self.chance.below(3) {
            0 => begin,
            _ => begin + self.chance.below(u64::try_from(end - begin).expect("a window")).cast_signed(),
        };
        self.assert_restorable(moment);
    }

    /// Restores to a moment and compares: what was written until then is there, and nothing that came later.
    #[track_caller]
    fn assert_restorable(&self, moment: i64) {
        let server = &self.ready.server;
        let text = instant(server, moment);
        let copy = restore_at(&self.ready, &self.clock, &text);
        let rows = |server: &Cluster, until: i64| {
            server.psql(&format!("SELECT count(*), max(at) FROM moments WHERE at <= to_timestamp({until})"))
        };
        // A row says when its statement ran; its commit came a little later.
        assert_eq!(rows(&copy.server, moment - 2), rows(server, moment - 2), "{text}");
        let later = format!("SELECT count(*) FROM moments WHERE at > to_timestamp({moment})");
        assert_eq!(copy.server.psql(&later), "0", "{text}");
        copy.server.psql("SELECT sum(v) FROM churn");
    }

    /// Nothing was left out or done twice, the repository did not grow, and all of it is sound.
    #[track_caller]
    fn look_back(&mut self) {
        drop(self.load.take());
        let (server, repo) = (&self.ready.server, &self.ready.repo);
        assert_no_doubles(repo);
        let mut days: BTreeMap<String, usize> = BTreeMap::new();
        for run in runs(repo).into_iter().filter(|run| run.job == "daily full" && run.status == "done") {
            *days.entry(run.due_at).or_default() += 1;
        }
        let nights = (1..=DAYS).map(|day| instant(server, self.dawn + day * 86_400 + 2 * 3600));
        let missing: Vec<String> = nights.filter(|night| days.get(night) != Some(&1)).collect();
        assert!(missing.is_empty(), "{missing:?} of {days:?}");
        let (first, last) = (self.sizes.iter().min(), self.sizes.iter().max());
        assert!(first.zip(last).is_some_and(|(least, most)| *most < 2 * *least), "{:?}", self.sizes);
        let mut verify = pgark(server.pg(), repo);
        run(self.clock.apply(verify.arg("verify"))).ok();
        let mut deep = pgark(server.pg(), repo);
        run(self.clock.apply(deep.args(["verify-archive", "--deep"]))).ok();
        println!("{} runs are remembered, {:?} bytes", runs(repo).len(), self.sizes);
    }
}

/// Bytes of a repository.
fn size(repo: &Repo) -> u64 {
    let files = crate::support::names_below(repo.path());
    files.iter().filter_map(|name| fs::metadata(repo.path().join(name)).ok()).map(|meta| meta.len()).sum()
}
