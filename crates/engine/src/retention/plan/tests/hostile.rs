//! Nonsense: nothing that a repository can hold makes the plan fail, and nothing makes it drop the last way back.

use super::repo::{at, day, lsn, size};
use super::world::Random;
use crate::postgres::timeline::{Entry, TimelineHistory};
use crate::retention::model::{BackupState, Plan, Stored, StoredBackup, StoredWal};
use crate::retention::plan::plan;
use crate::wal::survey::Run;
use chrono::{DateTime, TimeDelta, Utc};
use pg_ark_contract::conversation::BackupKind;
use pg_ark_contract::retention::{Policy, Verdict};
use pg_ark_contract::{Lsn, SegmentSize, Timeline};
use std::collections::BTreeMap;
use std::time::Instant;

fn time(random: &mut Random) -> DateTime<Utc> {
    match random.below(6) {
        0 => DateTime::<Utc>::MIN_UTC,
        1 => DateTime::<Utc>::MAX_UTC,
        2 => DateTime::<Utc>::MAX_UTC - TimeDelta::seconds(1),
        _ => day(0) + TimeDelta::hours(i64::try_from(random.below(100)).unwrap()),
    }
}

fn position(random: &mut Random) -> Lsn {
    match random.below(8) {
        0 => Lsn(0),
        1 => Lsn(u64::MAX),
        2 => Lsn(random.next()),
        _ => lsn(random.below(20)),
    }
}

fn number(random: &mut Random) -> u64 {
    match random.below(8) {
        0 => u64::MAX,
        1 => random.next(),
        _ => random.below(20),
    }
}

fn timeline(random: &mut Random) -> Timeline {
    Timeline(match random.below(12) {
        0 => 0,
        1 => u32::MAX,
        other => u32::try_from(other).unwrap() / 3,
    })
}

fn maybe<T>(random: &mut Random, make: impl Fn(&mut Random) -> T) -> Option<T> {
    if random.one_in(8) { None } else { Some(make(random)) }
}

fn state(random: &mut Random) -> BackupState {
    match random.below(12) {
        0 => BackupState::Broken("why".into()),
        1 => BackupState::Running,
        2 => BackupState::Failed,
        3 => BackupState::Expiring,
        4 if random.one_in(3) => BackupState::Unreadable,
        _ => BackupState::Good,
    }
}

fn names(random: &mut Random) -> Vec<String> {
    (0..random.below(4)).map(|_| random.pick(&["a", "b", "c\n", ""]).unwrap().to_string()).collect()
}

fn backup(random: &mut Random) -> StoredBackup {
    let kinds = [BackupKind::Full, BackupKind::Incremental, BackupKind::Incremental, BackupKind::Logical];
    StoredBackup {
        backup: format!("b{}", random.below(8)),
        system: random.below(3),
        kind: *random.pick(&kinds).unwrap(),
        state: state(random),
        parent: maybe(random, |random| format!("b{}", random.below(9))),
        pinned: random.one_in(9).then(|| "\u{0}\u{202e}; drop".into()),
        started_at: maybe(random, time),
        stopped_at: maybe(random, time),
        start_lsn: maybe(random, position),
        stop_lsn: maybe(random, position),
        timeline: maybe(random, timeline),
        wal_included: random.one_in(5),
        damaged_pages: if random.one_in(3) { u64::MAX } else { 0 },
        bytes: u64::MAX,
        databases: names(random),
        lacks: names(random),
    }
}

fn archive(random: &mut Random) -> StoredWal {
    let mut wal = StoredWal { segment_size: size(), ..StoredWal::default() };
    for _ in 0..random.below(5) {
        let run = |random: &mut Random| Run { first: number(random), last: number(random) };
        let runs = (0..random.below(4)).map(|_| run(random)).collect();
        wal.segments.insert(timeline(random), runs);
        wal.written_by.insert(timeline(random), time(random));
        let entry = |random: &mut Random| {
            let (timeline, switch_lsn) = (timeline(random), position(random));
            Entry { timeline, switch_lsn, reason: String::new() }
        };
        let entries = (0..random.below(4)).map(|_| entry(random)).collect();
        wal.histories.insert(timeline(random), TimelineHistory { timeline: timeline(random), entries });
    }
    wal
}

fn stored(random: &mut Random) -> Stored {
    Stored {
        systems: (0..random.below(4)).map(|_| random.below(3)).collect(),
        backups: (0..random.below(12)).map(|_| backup(random)).collect(),
        wal: (0..random.below(3)).map(|system| (system, archive(random))).collect(),
    }
}

fn policy(random: &mut Random) -> Policy {
    let few = |random: &mut Random| {
        if random.one_in(9) { u32::MAX } else { u32::try_from(random.below(3)).unwrap() }
    };
    Policy {
        window: if random.one_in(5) { u64::MAX - random.below(3) } else { random.below(400_000) },
        min_full: few(random),
        daily: few(random),
        weekly: few(random),
        monthly: few(random),
        yearly: few(random),
        timezone: "Pacific/Kiritimati".into(),
    }
}

fn is_kept(plan: &Plan, index: usize) -> bool {
    plan.backups.iter().any(|verdict| verdict.index == index && verdict.verdict == Verdict::Keep)
}

/// What holds for any plan about anything.
fn is_sane(stored: &Stored, plan: &Plan) {
    let mut judged: Vec<usize> = plan.backups.iter().map(|verdict| verdict.index).collect();
    judged.sort_unstable();
    assert_eq!(judged, (0..stored.backups.len()).collect::<Vec<_>>());
    assert!(plan.backups.iter().all(|verdict| !verdict.rule.is_empty()));
    for (index, backup) in stored.backups.iter().enumerate() {
        let must = matches!(backup.state, BackupState::Running | BackupState::Unreadable);
        assert!(is_kept(plan, index) || !must && backup.pinned.is_none(), "{backup:?}");
        let is_parent = |child: &StoredBackup| {
            child.system == backup.system && child.parent.as_ref() == Some(&backup.backup)
        };
        let child =
            stored.backups.iter().enumerate().find(|(i, child)| is_kept(plan, *i) && is_parent(child));
        assert!(is_kept(plan, index) || child.is_none(), "{backup:?} is the parent of {child:?}");
    }
    let full = |backup: &StoredBackup| {
        let (start, stop, timeline) = (backup.start_lsn, backup.stop_lsn, backup.timeline);
        let placed = start.is_some() && start <= stop && timeline.is_some_and(|timeline| timeline.0 > 0);
        backup.kind == BackupKind::Full && backup.state == BackupState::Good && placed
    };
    for clean in [false, true] {
        let way = |backup: &StoredBackup| full(backup) && (!clean || backup.damaged_pages == 0);
        let some = stored.backups.iter().any(way);
        let left =
            stored.backups.iter().enumerate().any(|(index, backup)| is_kept(plan, index) && way(backup));
        assert!(left || !some, "no good backup is left");
    }
    let mut covered: BTreeMap<(u64, Timeline), u128> = BTreeMap::new();
    for wal in &plan.wal {
        assert!(wal.run.first <= wal.run.last);
        *covered.entry((wal.system, wal.timeline)).or_default() +=
            u128::from(wal.run.last - wal.run.first) + 1;
    }
    for (system, wal) in &stored.wal {
        for (timeline, runs) in &wal.segments {
            let mut runs: Vec<Run> = runs.iter().copied().filter(|run| run.first <= run.last).collect();
            runs.sort_by_key(|run| run.first);
            let (mut count, mut upto) = (0, 0);
            for run in runs {
                let (first, end) = (u128::from(run.first).max(upto), u128::from(run.last) + 1);
                count += end.saturating_sub(first);
                upto = end.max(upto);
            }
            assert_eq!(covered.get(&(*system, *timeline)).copied().unwrap_or_default(), count);
        }
    }
}

#[test]
fn promise_4_nonsense_neither_fails_nor_drops_the_last_way_back() {
    for seed in 0..20_000 {
        let mut random = Random(seed);
        let (stored, policy, now) = (stored(&mut random), policy(&mut random), time(&mut random));
        let done = std::panic::catch_unwind(|| {
            let plan = plan(&stored, &policy, now).unwrap();
            is_sane(&stored, &plan);
        });
        assert!(done.is_ok(), "seed {seed}: {policy:?} at {now}\n{stored:#?}");
    }
}

#[test]
fn the_order_of_a_listing_changes_nothing() {
    for seed in 0..2000 {
        let mut random = Random(seed);
        let mut stored = stored(&mut random);
        stored.backups.iter_mut().enumerate().for_each(|(n, backup)| backup.backup = format!("b{n}"));
        let (policy, now) = (policy(&mut random), time(&mut random));
        let said = |stored: &Stored| {
            let plan = plan(stored, &policy, now).unwrap();
            let name = |index: usize| stored.backups[index].backup.clone();
            let backups: Vec<_> =
                plan.backups.iter().map(|v| (name(v.index), v.verdict, v.rule.clone())).collect();
            (backups, plan.wal.len(), plan.histories)
        };
        let mut turned = stored.clone();
        turned.backups.reverse();
        let (before, after) = (said(&stored), said(&turned));
        let verdicts = |said: &[(String, Verdict, String)]| -> BTreeMap<String, Verdict> {
            said.iter().map(|(name, verdict, _)| (name.clone(), *verdict)).collect()
        };
        assert_eq!(verdicts(&before.0), verdicts(&after.0), "seed {seed}");
        assert_eq!(before.2, after.2, "seed {seed}");
    }
}

#[test]
fn ten_thousand_backups_and_a_million_segments_take_moments() {
    let began = Instant::now();
    let mut stored = Stored { systems: vec![1], ..Stored::default() };
    for number in 0..10_000_u32 {
        let stopped_at = at("2020-01-01T00:00:00Z") + TimeDelta::hours(i64::from(number) * 6);
        let mut backup = super::repo::full(&format!("b{number}"), stopped_at, u64::from(number) * 100);
        (backup.system, backup.timeline) = (1, Some(Timeline(1 + number / 100)));
        // Chains of a hundred, and one of them goes through them all.
        if number % 100 > 0 {
            (backup.kind, backup.parent) = (BackupKind::Incremental, Some(format!("b{}", number - 1)));
        }
        backup.pinned = (number % 500 == 0).then(String::new);
        stored.backups.push(backup);
    }
    let mut wal = StoredWal { segment_size: SegmentSize::new(1 << 20).unwrap(), ..StoredWal::default() };
    let mut entries: Vec<Entry> = Vec::new();
    for number in 1..=100_u32 {
        let first = u64::from(number - 1) * 10_000;
        let runs = (0..5000).map(|n| Run { first: first + n * 2, last: first + n * 2 });
        wal.segments.insert(Timeline(number), runs.collect());
        let written_by = at("2020-01-01T00:00:00Z") + TimeDelta::hours(i64::from(number) * 600);
        wal.written_by.insert(Timeline(number), written_by);
        wal.histories.insert(
            Timeline(number),
            TimelineHistory { timeline: Timeline(number), entries: entries.clone() },
        );
        entries.push(Entry {
            timeline: Timeline(number),
            switch_lsn: lsn(first + 9999),
            reason: String::new(),
        });
    }
    stored.wal.insert(1, wal);
    let policy = Policy { daily: 30, weekly: 10, monthly: 24, yearly: 10, ..Policy::default() };
    let plan = plan(&stored, &policy, at("2026-11-22T00:00:00Z")).unwrap();
    assert!(plan.backups.iter().any(|verdict| verdict.verdict == Verdict::Drop));
    assert!(plan.wal.len() >= 500_000);
    assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
}

#[test]
fn a_circle_or_a_chain_of_ten_thousand_parents_is_followed() {
    let chain = |last: Option<&str>| -> Vec<StoredBackup> {
        (0..10_000)
            .map(|n| {
                let parent = if n == 0 { last.map(str::to_owned) } else { Some(format!("b{}", n - 1)) };
                let kind = if parent.is_some() { BackupKind::Incremental } else { BackupKind::Full };
                let number = u64::try_from(n).unwrap();
                let own = super::repo::full(&format!("b{n}"), day(0) + TimeDelta::minutes(n), number);
                StoredBackup { kind, parent, ..own }
            })
            .collect()
    };
    let kept = |backups: Vec<StoredBackup>| {
        let shown = super::repo::Repo::new(backups).plan(&super::repo::days(0), day(900));
        shown.kept().len()
    };
    assert_eq!(kept(chain(None)), 10_000, "parents of the newest");
    assert_eq!(kept(chain(Some("b9999"))), 10_000, "none is good, so all that is broken stays");
}
