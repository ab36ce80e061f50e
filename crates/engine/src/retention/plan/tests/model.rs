//! Thousands of random histories: the plan says what the reference says, and loses nothing that it must not.

use super::reference::Slow;
use super::repo::pruned;
use super::world::World;
use crate::retention::model::{BackupState, Plan, Stored, StoredBackup, WalVerdict};
use crate::retention::plan::plan;
use crate::retention::safety;
use chrono::{DateTime, TimeDelta, Utc};
use pg_ark_contract::conversation::BackupKind;
use pg_ark_contract::retention::{Policy, Verdict};
use std::collections::BTreeSet;

/// Histories, and what happens in each.
const HISTORIES: u64 = 2500;
const STEPS: u64 = 26;

fn kept(plan: &Plan) -> BTreeSet<usize> {
    plan.backups.iter().filter(|v| v.verdict == Verdict::Keep).map(|v| v.index).collect()
}

fn names(stored: &Stored, indexes: &BTreeSet<usize>) -> BTreeSet<String> {
    indexes.iter().map(|index| stored.backups[*index].backup.clone()).collect()
}

/// Every stored segment, and whether it is kept.
fn segments(plan: &Plan) -> Vec<((u64, pg_ark_contract::Timeline, u64), bool)> {
    let of = |wal: &WalVerdict| {
        let (system, timeline, keep) = (wal.system, wal.timeline, wal.verdict == Verdict::Keep);
        (wal.run.first..=wal.run.last)
            .map(move |number| ((system, timeline, number), keep))
            .collect::<Vec<_>>()
    };
    plan.wal.iter().flat_map(of).collect()
}

/// All that there is to know about a plan that is wrong.
fn told(stored: &Stored, policy: &Policy, now: DateTime<Utc>, plan: &Plan) -> String {
    let mut told = format!("{policy:?}\nnow {now}, systems {:?}\n", stored.systems);
    for verdict in &plan.backups {
        let b = &stored.backups[verdict.index];
        let place = (
            b.system,
            b.timeline.map(|t| t.0),
            b.start_lsn.map(|l| l.0 >> 20),
            b.stop_lsn.map(|l| l.0 >> 20),
        );
        let what = (b.kind, &b.state, &b.parent, b.damaged_pages, b.wal_included);
        told += &format!(
            "{} {place:?} {what:?} {:?}: {}: {}\n",
            b.backup,
            b.stopped_at,
            verdict.verdict.as_str(),
            verdict.rule
        );
    }
    for (system, wal) in &stored.wal {
        for history in wal.histories.values() {
            told += &format!(
                "{system} history {}: {}\n",
                history.timeline,
                history.to_string().replace('\n', ", ")
            );
        }
        told += &format!("{system} written by {:?}, {:?}\n", wal.written_by, wal.written);
    }
    for w in &plan.wal {
        told += &format!(
            "{}/{} {}-{} {}: {}\n",
            w.system,
            w.timeline,
            w.run.first,
            w.run.last,
            w.verdict.as_str(),
            w.rule
        );
    }
    told
}

/// The plan is what the reference says.
fn same_as_reference(stored: &Stored, policy: &Policy, now: DateTime<Utc>, plan: &Plan) {
    let slow = Slow::new(stored, policy, now);
    let expected = slow.kept();
    let told = || told(stored, policy, now, plan);
    assert_eq!(names(stored, &kept(plan)), names(stored, &expected), "backups\n{}", told());
    let bases = slow.bases();
    for (segment, keep) in segments(plan) {
        assert_eq!(keep, slow.needs(&expected, &bases, segment), "segment {segment:?}\n{}", told());
    }
    for history in &plan.histories {
        let same = |system: u64| system == history.system;
        let by_backup = expected.iter().map(|index| &stored.backups[*index]).any(|backup| {
            let unknown = backup.timeline.is_none() && backup.kind != BackupKind::Logical;
            same(backup.system) && (unknown || backup.timeline.is_some_and(|t| t <= history.timeline))
        });
        let by_wal = plan
            .wal
            .iter()
            .any(|wal| same(wal.system) && wal.verdict == Verdict::Keep && wal.timeline <= history.timeline);
        assert!(history.verdict == Verdict::Keep || !(by_backup || by_wal), "{history:?}");
    }
    let judged: u64 = plan.wal.iter().map(|wal| wal.run.count()).sum();
    let held = stored.wal.values().flat_map(|wal| wal.segments.values().flatten());
    assert_eq!(judged, held.map(|run| run.count()).sum::<u64>(), "each segment is judged once");
    let order: Vec<usize> = plan.backups.iter().map(|verdict| verdict.index).collect();
    assert_eq!(order.iter().copied().collect::<BTreeSet<_>>().len(), stored.backups.len());
}

/// Nothing that counts is lost when the plan is carried out.
fn loses_nothing(world: &World, policy: &Policy, plan: &Plan, left: &Stored) {
    let (before, after) = (Slow::new(&world.stored, policy, world.now), Slow::new(left, policy, world.now));
    let begins = world.now - TimeDelta::seconds(i64::try_from(policy.window).unwrap());
    for moment in world.moments.iter().filter(|moment| begins < moment.time && moment.time <= world.now) {
        assert!(!before.restores(moment) || after.restores(moment), "{moment:?} is lost");
    }
    // A history that is lost may be brought back: then what leads to its timeline must still be there.
    let mended = [&world.stored, left].map(|stored| world.mended(stored, &world.stored));
    let [then, now] = mended.each_ref().map(|stored| Slow::new(stored, policy, world.now));
    for moment in world.moments.iter().filter(|moment| begins < moment.time && moment.time <= world.now) {
        assert!(!then.restores(moment) || now.restores(moment), "{moment:?} is lost with a history");
    }
    let kept = kept(plan);
    for (place, &index) in kept.iter().enumerate() {
        assert!(
            !before.is_whole(index) || after.is_whole(place),
            "{:?} is lost",
            world.stored.backups[index]
        );
    }
    let some = |slow: &Slow<'_>, count: usize| {
        [true, false].map(|physical| {
            let own = |index: &usize| slow.is_logical(*index) != physical;
            let any = |is: &dyn Fn(usize) -> bool| (0..count).filter(own).any(is);
            (any(&|index| slow.is_good(index)), any(&|index| slow.is_clean(index)))
        })
    };
    let counts = (world.stored.backups.len(), left.backups.len());
    assert_eq!(some(&before, counts.0), some(&after, counts.1), "the last good or undamaged backup is lost");
    // An incremental backup without its parents is told as broken where backups are gathered.
    let mut gathered = world.stored.clone();
    for (index, backup) in gathered.backups.iter_mut().enumerate() {
        if backup.state == BackupState::Good && !before.is_good(index) {
            backup.state = BackupState::Broken("its parent".into());
        }
    }
    safety::check(&gathered, plan).unwrap();
}

/// What a kept logical backup lacks is held by another that is kept, if a good one held it.
fn no_last_dump_is_lost(before: &Stored, left: &Stored) {
    let is_good =
        |backup: &&StoredBackup| backup.kind == BackupKind::Logical && backup.state == BackupState::Good;
    let holds = |stored: &Stored, name: &String| {
        stored.backups.iter().filter(is_good).any(|backup| backup.databases.contains(name))
    };
    let listers = left.backups.iter().filter(is_good);
    for name in listers.flat_map(|backup| &backup.lacks) {
        assert!(!holds(before, name) || holds(left, name), "the last good dump of {name} is lost");
    }
}

/// Dumps neither keep nor drop a physical backup or WAL. That they were taken shows only that an older system's server was
/// there.
fn dumps_change_nothing(stored: &Stored, policy: &Policy, now: DateTime<Utc>, with: &Plan) {
    let mut physical = stored.clone();
    physical.backups.retain(|backup| backup.kind.is_physical());
    let without = plan(&physical, policy, now).unwrap();
    let of = |stored: &Stored, plan: &Plan| -> BTreeSet<(u64, String)> {
        let kept = kept(plan).into_iter().map(|index| &stored.backups[index]);
        kept.filter(|b| b.kind.is_physical()).map(|b| (b.system, b.backup.clone())).collect()
    };
    let (with_dumps, alone) = (of(stored, with), of(&physical, &without));
    let [kept_with, kept_alone] =
        [with, &without].map(|plan| segments(plan).into_iter().filter(|(_, keep)| *keep).collect::<Vec<_>>());
    match stored.systems.len() {
        0 | 1 => assert!(with_dumps == alone && kept_with == kept_alone, "dumps change what is kept"),
        _ => {
            assert!(alone.is_subset(&with_dumps), "a dump drops a backup");
            assert!(kept_alone.iter().all(|segment| kept_with.contains(segment)), "a dump drops WAL");
        }
    }
}

/// Carried out, the plan drops nothing more; and as time goes on nothing comes back.
fn is_settled(world: &World, policy: &Policy, plan_now: &Plan, left: &Stored) {
    let again = plan(left, policy, world.now).unwrap();
    let dropped = |plan: &Plan| {
        plan.backups.iter().any(|v| v.verdict == Verdict::Drop)
            || plan.wal.iter().any(|v| v.verdict == Verdict::Drop)
            || plan.histories.iter().any(|v| v.verdict == Verdict::Drop)
    };
    assert!(!dropped(&again), "the second run drops more: {again:#?}");
    let ahead = world.stored.backups.iter().any(|b| b.stopped_at.is_some_and(|time| time > world.now));
    if world.odd_clock && ahead {
        return;
    }
    let by_then = world.now + TimeDelta::hours(30);
    // A time of which nothing is known opens: what the window held before it is kept, if it is there yet.
    if Slow::new(&world.stored, policy, by_then).judged_at() < by_then {
        return;
    }
    let later = plan(&world.stored, policy, by_then).unwrap();
    assert!(kept(&later).is_subset(&kept(plan_now)), "a backup comes back");
    let gone: BTreeSet<_> = segments(plan_now).into_iter().filter(|(_, keep)| !keep).collect();
    for (segment, keep) in segments(&later) {
        assert!(!keep || !gone.contains(&(segment, false)), "segment {segment:?} comes back");
    }
}

/// What keeps more after a jump of clocks keeps all that is kept without one.
fn a_jump_drops_nothing_more(stored: &Stored, policy: &Policy, now: DateTime<Utc>, with: &Plan) {
    let mut silent = stored.clone();
    silent.wal.values_mut().for_each(|wal| wal.written.clear());
    let without = plan(&silent, policy, now).unwrap();
    assert!(kept(&without).is_subset(&kept(with)), "a backup is dropped by the rule of jumps");
    let [with, without] = [with, &without].map(|plan| segments(plan).into_iter().collect::<BTreeSet<_>>());
    assert!(without.iter().all(|segment| !segment.1 || with.contains(segment)), "WAL is dropped by it");
}

/// A history with its prunes; says how many of them looked at a jump of clocks.
fn live(seed: u64) -> usize {
    let mut jumps = 0;
    let mut world = World::new(seed);
    let policy = world.policy();
    for _ in 0..STEPS {
        world.step();
        if !world.random.one_in(6) {
            continue;
        }
        let plan = plan(&world.stored, &policy, world.now).unwrap();
        same_as_reference(&world.stored, &policy, world.now, &plan);
        dumps_change_nothing(&world.stored, &policy, world.now, &plan);
        a_jump_drops_nothing_more(&world.stored, &policy, world.now, &plan);
        let left = pruned(&world.stored, &plan);
        loses_nothing(&world, &policy, &plan, &left);
        no_last_dump_is_lost(&world.stored, &left);
        is_settled(&world, &policy, &plan, &left);
        jumps += usize::from(Slow::new(&world.stored, &policy, world.now).judged_at() < world.now);
        world.stored = left;
    }
    jumps
}

#[test]
fn promise_4_no_history_loses_a_way_back() {
    let mut jumps = 0;
    for seed in 0..HISTORIES {
        let lived = std::panic::catch_unwind(|| live(seed));
        assert!(lived.is_ok(), "history {seed}");
        jumps += lived.unwrap_or_default();
    }
    assert!(jumps > 100, "clocks hardly jump: {jumps}");
}
