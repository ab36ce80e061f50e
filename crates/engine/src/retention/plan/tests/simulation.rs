//! A cluster that is backed up every night and pruned every hour for more than a year, with failovers and an upgrade.

use super::reference::Slow;
use super::repo::{day, lsn, pruned, size};
use super::world::{Moment, Random};
use crate::postgres::timeline::{Entry, TimelineHistory};
use crate::retention::model::{BackupState, Stored, StoredBackup, StoredWal};
use crate::retention::plan::plan;
use crate::wal::survey::{Run, joined};
use chrono::{DateTime, TimeDelta, Utc};
use pg_ark_contract::conversation::BackupKind;
use pg_ark_contract::retention::Policy;
use pg_ark_contract::{Lsn, Timeline};

const DAYS: i64 = 400;

/// A server that writes a segment an hour.
struct Server {
    stored: Stored,
    now: DateTime<Utc>,
    system: u64,
    timeline: u32,
    segment: u64,
    ancestors: Vec<Entry>,
    /// One an hour, while it is inside the window.
    moments: Vec<Moment>,
    random: Random,
    dropped: usize,
}

impl Server {
    fn new() -> Server {
        Server {
            stored: Stored { systems: vec![1], ..Stored::default() },
            now: day(0),
            system: 1,
            timeline: 1,
            segment: 1,
            ancestors: Vec::new(),
            moments: Vec::new(),
            random: Random(5),
            dropped: 0,
        }
    }

    fn archive(&mut self) -> &mut StoredWal {
        let empty = StoredWal { segment_size: size(), ..StoredWal::default() };
        self.stored.wal.entry(self.system).or_insert(empty)
    }

    fn hour(&mut self) {
        self.now += TimeDelta::hours(1);
        let (system, timeline) = (self.system, Timeline(self.timeline));
        self.moments.push(Moment { system, timeline, lsn: lsn(self.segment), time: self.now });
        let (now, run) = (self.now, Run { first: self.segment, last: self.segment });
        let wal = self.archive();
        let runs = wal.segments.entry(timeline).or_default();
        runs.push(run);
        *runs = joined(std::mem::take(runs));
        wal.written_by.insert(timeline, now);
        self.segment += 1;
    }

    /// Every sixth night something goes wrong; a full one on Sundays, an incremental one on other days.
    fn night(&mut self, number: i64) {
        let (start, name) = (self.segment, format!("d{number}"));
        self.hour();
        let of_system =
            |backup: &&StoredBackup| backup.system == self.system && backup.state == BackupState::Good;
        let parent = self.stored.backups.iter().rfind(of_system).map(|backup| backup.backup.clone());
        let parent = parent.filter(|_| number % 7 != 0);
        let kind = if parent.is_some() { BackupKind::Incremental } else { BackupKind::Full };
        let mut backup = super::repo::full(&name, self.now, start);
        (backup.kind, backup.parent, backup.system) = (kind, parent, self.system);
        (backup.timeline, backup.stop_lsn) = (Some(Timeline(self.timeline)), Some(Lsn(lsn(start).0 + 64)));
        match self.random.below(12) {
            0 => backup.state = BackupState::Failed,
            1 => backup.damaged_pages = 1,
            _ => {}
        }
        self.stored.backups.push(backup);
    }

    /// A standby that lagged by some hours is promoted; the old primary goes on for one.
    fn fail_over(&mut self) {
        let branch = self.segment - self.random.below(5);
        self.hour();
        let (timeline, switch_lsn) = (Timeline(self.timeline), lsn(branch));
        self.ancestors.retain(|entry| entry.switch_lsn <= switch_lsn);
        self.ancestors.push(Entry { timeline, switch_lsn, reason: String::new() });
        self.timeline += 1;
        self.segment = branch;
        let (timeline, entries) = (Timeline(self.timeline), self.ancestors.clone());
        self.archive().histories.insert(timeline, TimelineHistory { timeline, entries });
    }

    fn upgrade(&mut self) {
        self.system += 1;
        self.stored.systems.push(self.system);
        (self.timeline, self.ancestors) = (1, Vec::new());
    }

    fn prune(&mut self, policy: &Policy) {
        let plan = plan(&self.stored, policy, self.now).unwrap();
        let left = pruned(&self.stored, &plan);
        let window = TimeDelta::seconds(i64::try_from(policy.window).unwrap());
        let now = self.now;
        self.moments.retain(|moment| now - window < moment.time);
        self.dropped += self.stored.backups.len() - left.backups.len();
        self.stored = left;
    }

    fn segments(&self) -> u64 {
        let runs = self.stored.wal.values().flat_map(|wal| wal.segments.values().flatten());
        runs.map(Run::count).sum()
    }
}

#[test]
fn promise_4_a_year_of_hourly_prunes_keeps_every_moment_of_the_window_in_bounded_room() {
    let policy = Policy {
        window: 7 * 86_400,
        min_full: 2,
        daily: 10,
        weekly: 5,
        monthly: 12,
        yearly: 3,
        timezone: "Europe/Berlin".into(),
    };
    let mut server = Server::new();
    let (mut most_backups, mut most_segments) = (0, 0);
    let mut first_backup = None;
    for number in 0..DAYS {
        for hour in 0..24 {
            match hour {
                2 => server.night(number),
                13 if number % 45 == 44 => server.fail_over(),
                15 if number == 200 => server.upgrade(),
                _ => server.hour(),
            }
            server.prune(&policy);
        }
        let slow = Slow::new(&server.stored, &policy, server.now);
        first_backup = first_backup.or(server.stored.backups.first().and_then(|backup| backup.stopped_at));
        // On the day of an upgrade the new system has no backup before night comes; what a failover left behind, and
        // what was written before the first backup, was never recoverable.
        let lost = server.moments.iter().filter(|moment| {
            let has_base = first_backup.is_some_and(|first| first < moment.time);
            let is_upgrade = (200..=201).contains(&(moment.time - day(0)).num_days());
            has_base && !is_upgrade && !slow.restores(moment)
        });
        assert_eq!(lost.count(), 0, "day {number}");
        most_backups = most_backups.max(server.stored.backups.len());
        most_segments = most_segments.max(server.segments());
    }
    // 7 days, 12 months, 5 weeks, 10 days, the chains of a week below them; WAL of the window and of a chain before it.
    assert!(most_backups < 120, "{most_backups} backups");
    assert!(most_segments < 24 * 25, "{most_segments} segments");
    assert!(server.dropped > 250, "{} backups were dropped", server.dropped);
    let old = server.stored.backups.iter().filter(|backup| backup.system == 1).count();
    assert!((1..40).contains(&old), "{old} backups of the old system: months are kept over an upgrade");
}
