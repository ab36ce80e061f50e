//! Who acts: primary and standby on one repository, with one schedule, before and after a promotion.

use crate::scheduled::{DAY, assert_no_doubles, instant, runs, wait_done};
use crate::support::Ready;
use pg_ark_testkit::{Clock, Cluster, LONG, Repo, wait_until};

/// A primary whose schedule has a nightly backup, and its standby.
struct Pair {
    ready: Ready,
    standby: Cluster,
    clock: Clock,
}

/// `run_on` is that of both servers.
fn pair(run_on: &str) -> Pair {
    let clock = Clock::behind(DAY * 20);
    clock.set(clock.now() - clock.now() % 86_400 + 12 * 3600);
    let builder = Cluster::builder().wal_segment_mb(1).clock(&clock);
    let server = builder
        .conf("shared_preload_libraries = 'pg_ark'")
        .conf("archive_mode = on")
        .conf("archive_library = 'pg_ark'")
        // A checkpoint of so small a server keeps nothing for a standby that is slow for once.
        .conf("wal_keep_size = '64MB'")
        .conf(&format!("pg_ark.run_on = '{run_on}'"))
        .start();
    let repo = Repo::new();
    server.psql("CREATE EXTENSION pg_ark");
    let standby = server.create_standby(&[]);
    for server in [&server, &standby] {
        server.psql(&format!("SELECT * FROM ark.enable('{}')", repo.url()));
    }
    server.psql("SELECT ark.schedule('nightly', '0 2 * * *')");
    server.wait_for_standby(&standby);
    Pair { ready: Ready { server, repo }, standby, clock }
}

impl Pair {
    /// Waits for the next night's backup; says whether a standby took it.
    #[track_caller]
    fn night(&self, servers: &[&Cluster], asked: &Cluster) -> bool {
        let midnight = self.clock.now() - self.clock.now() % 86_400 + 86_400;
        self.clock.date(self.ready.repo.path());
        self.clock.set(midnight + 2 * 3600 + 60);
        let due = instant(asked, midnight + 2 * 3600);
        let run = wait_done(&self.clock, servers, &self.ready.repo, "nightly", &due);
        let backup = run.backup.expect("a backup");
        assert_no_doubles(&self.ready.repo);
        asked.psql(&format!("SELECT ark.show('{backup}') ->> 'from_standby'")) == "true"
    }
}

/// Who takes the backups of some nights, before and after the primary is gone.
#[track_caller]
fn assert_takers(run_on: &str, expected: Option<bool>) {
    let pair = pair(run_on);
    for _ in 0..3 {
        let by_standby = pair.night(&[&pair.ready.server, &pair.standby], &pair.ready.server);
        assert!(expected.is_none_or(|expected| by_standby == expected), "by a standby: {by_standby}");
    }
    pair.ready.server.wait_for_standby(&pair.standby);
    pair.ready.server.destroy();
    pair.standby.promote();
    if run_on == "standby" {
        // Nobody told the new primary to act.
        return;
    }
    for _ in 0..2 {
        assert!(!pair.night(&[&pair.standby], &pair.standby), "nobody but the new primary is there");
    }
    let running = || runs(&pair.ready.repo).iter().any(|run| run.status == "running");
    wait_until("the end of every run", LONG, || !running());
    pair.clock.date(pair.ready.repo.path());
}

#[test]
fn the_primary_acts_and_its_successor_goes_on() {
    assert_takers("primary", Some(false));
}

#[test]
fn a_standby_acts() {
    assert_takers("standby", Some(true));
}

#[test]
fn of_all_servers_one_acts() {
    assert_takers("any", None);
}
