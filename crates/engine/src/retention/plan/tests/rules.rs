//! Each rule about backups, by examples.

use super::repo::{Repo, at, day, days, full, incremental, logical};
use crate::retention::model::{BackupState, StoredBackup};
use pg_ark_contract::retention::Policy;

/// One full backup a day, each in ten segments of its own: `b0`, `b1`, ...
fn daily(count: i64) -> Vec<StoredBackup> {
    let number = |n: i64| u64::try_from(n).unwrap();
    (0..count).map(|n| full(&format!("b{n}"), day(n), number(n) * 10)).collect()
}

fn broken(why: &str, backup: StoredBackup) -> StoredBackup {
    StoredBackup { state: BackupState::Broken(why.into()), ..backup }
}

fn damaged(backup: StoredBackup) -> StoredBackup {
    StoredBackup { damaged_pages: 3, ..backup }
}

fn pinned(reason: &str, backup: StoredBackup) -> StoredBackup {
    StoredBackup { pinned: Some(reason.into()), ..backup }
}

#[test]
fn the_window_is_reached_by_the_newest_backup_before_it() {
    let shown = Repo::new(daily(10)).wal(1, 0, 99).plan(&days(3), at("2026-01-10T12:00:00Z"));
    assert_eq!(shown.kept(), ["b6", "b7", "b8", "b9"]);
    assert_eq!(shown.backup("b5"), "drop: older than the window");
    assert_eq!(shown.backup("b6"), "keep: reaches the window's beginning");
    assert_eq!(shown.backup("b7"), "keep: window");
    assert_eq!(shown.backup("b9"), "keep: window; newest good backup; newest undamaged backup");
}

#[test]
fn a_backup_that_stopped_where_the_window_begins_reaches_it() {
    let shown = Repo::new(daily(10)).wal(1, 0, 99).plan(&days(3), day(9));
    assert_eq!(shown.kept(), ["b6", "b7", "b8", "b9"]);
    assert_eq!(shown.backup("b6"), "keep: reaches the window's beginning");
    let later = Repo::new(daily(10)).wal(1, 0, 99).plan(&days(3), at("2026-01-09T23:59:59Z"));
    assert_eq!(later.backup("b5"), "keep: reaches the window's beginning");
}

#[test]
fn promise_4_the_newest_good_backup_stays_however_old_it_is() {
    let mut backups = daily(3);
    backups.push(broken("WAL", full("late", day(3), 30)));
    let shown = Repo::new(backups).wal(1, 0, 99).plan(&days(0), day(4000));
    assert_eq!(shown.kept(), ["b2"]);
    assert_eq!(shown.backup("late"), "drop: older than the window, and not usable");
}

#[test]
fn promise_4_broken_backups_stay_while_there_is_no_good_one() {
    let shown = Repo::new([broken("base.tar.zst", full("only", day(0), 5))]).wal(1, 0, 9);
    let shown = shown.plan(&days(1), day(400));
    assert_eq!(
        shown.backup("only"),
        "keep: would reach the window's beginning if it were whole: base.tar.zst; no backup is good"
    );
    assert_eq!(shown.wal(1), ["0-9 keep: no good backup yet"]);
}

#[test]
fn promise_4_a_broken_backup_counts_for_nothing() {
    let mut backups = daily(10);
    backups[9] = broken("gone", backups[9].clone());
    backups[6] = broken("gone", backups[6].clone());
    let policy = Policy { min_full: 1, daily: 1, ..days(3) };
    let shown = Repo::new(backups).wal(1, 0, 99).plan(&policy, at("2026-01-10T12:00:00Z"));
    assert_eq!(shown.kept(), ["b5", "b7", "b8", "b9"]);
    assert_eq!(shown.backup("b9"), "keep: window");
    assert_eq!(
        shown.backup("b8"),
        "keep: window; newest good backup; newest undamaged backup; the newest full backup; daily"
    );
}

#[test]
fn promise_4_a_broken_backup_that_alone_would_reach_the_window_stays() {
    // A segment of "b1" comes late: until it does, nothing reaches the window's beginning.
    let mut backups = daily(6);
    backups.drain(2..4);
    backups[0] = broken("its WAL is not whole", backups[0].clone());
    backups[1] = broken("its WAL is not whole", backups[1].clone());
    let repo = Repo::new(backups.clone()).wal(1, 0, 10).wal(1, 12, 99);
    let now = at("2026-01-06T12:00:00Z");
    let shown = repo.plan(&days(3), now);
    assert_eq!(shown.kept(), ["b1", "b4", "b5"]);
    assert_eq!(
        shown.backup("b1"),
        "keep: would reach the window's beginning if it were whole: its WAL is not whole"
    );
    let kept = ["0-9 drop: no backup needs it", "10-10 keep: from b1 on", "12-99 keep: from b1 on"];
    assert_eq!(shown.wal(1), kept);
    // A good one that is older does it, and so does a newer one when its time has come.
    backups[0].state = BackupState::Good;
    let shown = Repo::new(backups).wal(1, 0, 99).plan(&days(3), now);
    assert_eq!(shown.kept(), ["b0", "b4", "b5"]);
    assert_eq!(repo.plan(&days(3), day(8)).kept(), ["b5"]);
}

#[test]
fn promise_4_damage_never_leaves_only_damaged_backups() {
    let mut backups = daily(10);
    for late in &mut backups[5..] {
        late.damaged_pages = 1;
    }
    let shown = Repo::new(backups).wal(1, 0, 99).plan(&days(3), at("2026-01-10T12:00:00Z"));
    assert_eq!(shown.kept(), ["b4", "b6", "b7", "b8", "b9"]);
    assert_eq!(shown.backup("b4"), "keep: reaches the window's beginning; newest undamaged backup");
    assert_eq!(shown.backup("b9"), "keep: window; newest good backup");
    assert_eq!(shown.wal(1), ["0-39 drop: no backup needs it", "40-99 keep: from b4 on"]);
}

#[test]
fn so_many_full_backups_stay() {
    let backups = [
        full("f1", day(0), 0),
        incremental("i1", "f1", day(1), 10),
        full("f2", day(2), 20),
        incremental("i2", "f2", day(3), 30),
    ];
    let policy = Policy { min_full: 2, ..days(1) };
    let shown = Repo::new(backups).wal(1, 0, 99).plan(&policy, day(50));
    assert_eq!(shown.kept(), ["f1", "f2", "i2"]);
    assert_eq!(shown.backup("f1"), "keep: one of the newest 2 full backups");
    assert_eq!(shown.backup("f2"), "keep: one of the newest 2 full backups; parent of i2");
}

#[test]
fn promise_4_incrementals_live_and_die_with_their_parents() {
    let backups = [
        full("f", day(0), 0),
        incremental("i1", "f", day(1), 10),
        incremental("i2", "i1", day(2), 20),
        incremental("i3", "i1", day(3), 30),
        full("g", day(30), 40),
    ];
    let repo = Repo::new(backups).wal(1, 0, 99);
    let early = repo.plan(&days(28), day(30));
    assert_eq!(early.kept(), ["f", "i1", "i2", "i3", "g"]);
    assert_eq!(early.backup("i1"), "keep: parent of i2 and 1 more");
    let mut parts = repo.clone();
    parts.0.backups[3] = pinned("", parts.0.backups[3].clone());
    let shown = parts.plan(&days(1), day(60));
    assert_eq!(shown.kept(), ["f", "i1", "i3", "g"]);
    assert_eq!(shown.backup("i3"), "keep: pinned");
    assert_eq!(shown.backup("f"), "keep: parent of i1");
    assert_eq!(repo.plan(&days(1), day(60)).kept(), ["g"]);
}

#[test]
fn an_incremental_without_a_good_parent_is_not_good() {
    let of = |parent: StoredBackup| {
        let backups = [full("old", day(0), 0), parent, incremental("i", "f", day(2), 20)];
        let shown = Repo::new(backups).wal(1, 0, 99).plan(&days(1), day(90));
        shown.kept().iter().map(|name| name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(of(full("f", day(1), 10)), ["f", "i"]);
    assert_eq!(of(broken("gone", full("f", day(1), 10))), ["old"]);
    assert_eq!(of(full("other", day(1), 10)), ["other"]);
    assert_eq!(of(incremental("f", "i", day(1), 10)), ["old"], "a circle");
    assert_eq!(of(incremental("f", "f", day(1), 10)), ["old"], "its own parent");
}

#[test]
fn a_pin_keeps_with_its_reason() {
    let mut backups = daily(3);
    backups[0] = pinned("audit 2026", backups[0].clone());
    let shown = Repo::new(backups).wal(1, 0, 99).plan(&days(1), day(90));
    assert_eq!(shown.kept(), ["b0", "b2"]);
    assert_eq!(shown.backup("b0"), "keep: pinned: audit 2026");
    assert_eq!(
        shown.wal(1),
        ["0-1 keep: start to stop of b0", "2-19 drop: no backup needs it", "20-99 keep: from b2 on"]
    );
}

#[test]
fn what_runs_and_what_nobody_can_read_stays() {
    let state = |name: &str, state| {
        let unknown = (None, None, None, None);
        let (stopped_at, start_lsn, stop_lsn, timeline) = unknown;
        StoredBackup { state, stopped_at, start_lsn, stop_lsn, timeline, ..full(name, day(0), 0) }
    };
    let backups = |state| [full("b", day(0), 10), full("c", day(1), 20), state];
    let running = Repo::new(backups(state("r", BackupState::Running))).wal(1, 0, 99).plan(&days(1), day(9));
    assert_eq!(running.backup("r"), "keep: running");
    assert_eq!(running.kept(), ["c", "r"]);
    assert_eq!(running.wal(1), ["0-99 keep: r is running"]);
    let lost = Repo::new(backups(state("x", BackupState::Unreadable))).wal(1, 0, 99).plan(&days(1), day(9));
    assert_eq!(lost.backup("x"), "keep: its record cannot be read");
    assert_eq!(lost.wal(1), ["0-99 keep: the record of x cannot be read"]);
    let begun = StoredBackup {
        state: BackupState::Running,
        stopped_at: None,
        stop_lsn: None,
        ..full("r", day(1), 5)
    };
    let begun = Repo::new(backups(begun)).wal(1, 0, 99).plan(&days(1), day(9));
    assert_eq!(begun.wal(1), ["0-4 drop: no backup needs it", "5-99 keep: from r on"]);
}

#[test]
fn failures_are_shown_for_a_while() {
    let failed = |name: &str, time| StoredBackup { state: BackupState::Failed, ..full(name, time, 0) };
    let backups = [failed("f1", day(0)), failed("f2", day(4)), full("b", day(10), 10)];
    let repo = Repo::new(backups).wal(1, 0, 99);
    assert_eq!(repo.plan(&days(1), day(10)).kept(), ["f2", "b"], "for a week at least");
    assert_eq!(repo.plan(&days(1), day(10)).backup("f2"), "keep: failed lately");
    assert_eq!(repo.plan(&days(1), day(10)).backup("f1"), "drop: failed");
    assert_eq!(repo.plan(&days(12), day(11)).kept(), ["f1", "f2", "b"]);
}

#[test]
fn what_is_being_removed_goes_on_being_removed() {
    let expiring = |backup| StoredBackup { state: BackupState::Expiring, ..backup };
    let backups = [expiring(full("e", day(9), 0)), full("b", day(10), 10)];
    let shown = Repo::new(backups).wal(1, 0, 99).plan(&days(7), day(10));
    assert_eq!(shown.backup("e"), "drop: its removal has begun");
    let pin = pinned("mine", expiring(full("e", day(9), 0)));
    let shown = Repo::new([pin, full("b", day(10), 10)]).wal(1, 0, 99).plan(&days(7), day(10));
    assert_eq!(shown.backup("e"), "keep: pinned: mine");
}

#[test]
fn promise_4_a_clock_that_was_set_back_loses_nothing() {
    // b2 and b3 were taken while the clock was a year ahead.
    let mut backups = daily(12);
    for ahead in &mut backups[2..4] {
        ahead.stopped_at = ahead.stopped_at.map(|time| time + chrono::TimeDelta::days(365));
    }
    let repo = Repo::new(backups).wal(1, 0, 119);
    let soon = Repo::new(repo.0.backups[..6].to_vec()).wal(1, 0, 59).plan(&days(3), day(5));
    assert_eq!(soon.kept(), ["b1", "b4", "b5", "b2", "b3"]);
    assert_eq!(soon.backup("b2"), "keep: window: it stopped in the future");
    // They stay until their time has passed, but the WAL that followed them does not.
    let late = repo.plan(&Policy { min_full: 2, ..days(3) }, day(11));
    assert_eq!(late.kept(), ["b8", "b9", "b10", "b11", "b2", "b3"]);
    assert_eq!(
        late.wal(1),
        [
            "0-19 drop: no backup needs it",
            "20-21 keep: start to stop of b2",
            "22-29 drop: no backup needs it",
            "30-31 keep: start to stop of b3",
            "32-79 drop: no backup needs it",
            "80-119 keep: from b8 on",
        ]
    );
    assert!(late.backup("b10").contains("one of the newest 2 full backups"), "the future is no reason");
}

#[test]
fn promise_4_a_clock_that_is_set_back_a_little_loses_no_moment() {
    // The clock was set back by five hours after "b". Moments before "b" are inside the window, and so are some after "c".
    let backups = [
        full("a", at("2026-01-01T00:00:00Z"), 0),
        full("b", at("2026-01-01T10:00:00Z"), 10),
        full("c", at("2026-01-01T07:00:00Z"), 20),
        full("d", at("2026-01-01T20:00:00Z"), 30),
    ];
    let shown = Repo::new(backups).wal(1, 0, 99).plan(&days(1), at("2026-01-02T08:00:00Z"));
    assert_eq!(shown.kept(), ["a", "c", "b", "d"]);
    assert_eq!(shown.backup("a"), "keep: reaches the window's beginning");
    assert_eq!(shown.backup("c"), "keep: reaches the window's beginning");
}

#[test]
fn one_whose_time_is_not_known_stays() {
    let mut backups = daily(4);
    backups[1].stopped_at = None;
    let shown = Repo::new(backups).wal(1, 0, 99).plan(&days(1), day(90));
    assert_eq!(shown.kept(), ["b3", "b1"]);
    assert_eq!(shown.backup("b1"), "keep: window: when it stopped is not known");
    assert_eq!(shown.wal(1)[1], "10-11 keep: start to stop of b1");
}

#[test]
fn logical_backups_are_a_class_of_their_own() {
    let mut backups = daily(10);
    backups.extend((0..5).map(|n| logical(&format!("l{n}"), day(n))));
    let policy = Policy { min_full: 2, monthly: 1, ..days(3) };
    let shown = Repo::new(backups).wal(1, 0, 99).plan(&policy, at("2026-01-10T12:00:00Z"));
    let logical: Vec<_> = shown.kept().into_iter().filter(|name| name.starts_with('l')).collect();
    assert_eq!(logical, ["l3", "l4"]);
    assert_eq!(
        shown.backup("l4"),
        "keep: newest good backup; newest undamaged backup; one of the newest 2 logical backups; monthly"
    );
    assert_eq!(shown.backup("b6"), "keep: reaches the window's beginning");
}

/// A logical backup with these databases and without those.
fn dumps(name: &str, number: i64, databases: &[&str], lacks: &[&str]) -> StoredBackup {
    let owned = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    StoredBackup { databases: owned(databases), lacks: owned(lacks), ..logical(name, day(number)) }
}

#[test]
fn promise_4_the_last_good_dump_of_a_database_stays_while_newer_backups_lack_it() {
    let mut backups = vec![
        dumps("old", 0, &["app", "little", "shop"], &[]),
        dumps("whole", 1, &["app", "little", "shop"], &[]),
        dumps("missing", 2, &["little", "shop"], &["app"]),
        dumps("again", 3, &["little", "shop"], &["app"]),
        dumps("little", 4, &["little"], &["app", "shop"]),
    ];
    let shown = Repo::new(backups.clone()).plan(&days(1), day(90));
    assert_eq!(shown.kept(), ["whole", "again", "little"]);
    assert_eq!(shown.backup("whole"), "keep: newest good dump of database \"app\"");
    assert_eq!(shown.backup("again"), "keep: newest good dump of database \"shop\"");
    // Copies that break one after another: no good one is left, and nobody knows which dump of them is not whole.
    backups[1].state = BackupState::Broken("gone".into());
    assert_eq!(Repo::new(backups.clone()).plan(&days(1), day(90)).kept(), ["old", "again", "little"]);
    backups[0].state = BackupState::Broken("gone".into());
    let shown = Repo::new(backups).plan(&days(1), day(90));
    assert_eq!(shown.kept(), ["old", "whole", "again", "little"]);
    assert_eq!(shown.backup("old"), "keep: no good backup has a dump of database \"app\"");
}

#[test]
fn a_database_that_was_dropped_is_not_kept_for_ever() {
    let backups = [
        dumps("with", 0, &["app", "gone"], &[]),
        dumps("without", 1, &["app"], &["gone"]),
        dumps("after", 2, &["app"], &[]),
    ];
    let shown = Repo::new(backups).plan(&days(1), day(90));
    assert_eq!(shown.kept(), ["after"]);
}

#[test]
fn dumps_of_one_database_do_not_stand_for_those_of_all() {
    let mut backups: Vec<_> = (0..9).map(|n| dumps(&format!("all{n}"), n, &["app", "little"], &[])).collect();
    for n in 0..9 {
        let mut little = dumps(&format!("little{n}"), n, &["little"], &["app"]);
        little.stopped_at = Some(day(n) + chrono::TimeDelta::hours(5));
        backups.push(little);
    }
    let policy = Policy { min_full: 2, daily: 3, ..days(1) };
    let shown = Repo::new(backups).plan(&policy, day(90));
    assert_eq!(shown.kept(), ["all6", "little6", "all7", "little7", "all8", "little8"]);
    assert_eq!(
        shown.backup("all7"),
        "keep: one of the newest 2 logical backups that hold one of its databases; daily"
    );
}

#[test]
fn each_of_two_servers_of_one_name_keeps_its_own_dumps() {
    let of_other = |backup| StoredBackup { system: 8, ..backup };
    let backups = [
        dumps("a1", 0, &["app"], &[]),
        of_other(dumps("b1", 1, &["app"], &[])),
        of_other(dumps("b2", 2, &["app"], &[])),
        dumps("a2", 3, &["little"], &["app"]),
    ];
    let shown = Repo::new(backups).plan(&days(1), day(90));
    assert_eq!(shown.kept(), ["a1", "a2"]);
}

#[test]
fn pins_hold_dumps_and_dumps_hold_no_wal() {
    let mut backups = daily(10);
    let mut pinned = logical("l0", day(0));
    pinned.pinned = Some(String::new());
    let broken = StoredBackup { state: BackupState::Broken("gone".into()), ..logical("l7", day(7)) };
    let unreadable = StoredBackup { state: BackupState::Unreadable, ..logical("l1", day(1)) };
    let running = StoredBackup { state: BackupState::Running, stopped_at: None, ..logical("l9", day(9)) };
    backups.extend([pinned, logical("l2", day(2)), logical("l3", day(3)), broken, unreadable, running]);
    let policy = Policy { min_full: 1, ..days(1) };
    let repo = || Repo::new(backups.clone()).wal(1, 0, 99);
    let shown = repo().plan(&policy, at("2026-01-10T12:00:00Z"));
    let kept: Vec<_> = shown.kept().into_iter().filter(|name| name.starts_with('l')).collect();
    assert_eq!(kept, ["l0", "l1", "l3", "l9"], "the newest good one, and what nobody may judge");
    let without = Repo::new(daily(10)).wal(1, 0, 99).plan(&policy, at("2026-01-10T12:00:00Z"));
    assert_eq!(shown.wal(1), without.wal(1));
}

#[test]
fn a_damaged_newest_backup_keeps_the_newest_without_damage() {
    let mut backups = daily(5);
    backups[4] = damaged(backups[4].clone());
    let shown = Repo::new(backups).wal(1, 0, 99).plan(&days(1), day(90));
    assert_eq!(shown.kept(), ["b3", "b4"]);
}

#[test]
fn an_empty_repository_has_an_empty_plan() {
    let shown = Repo::default().plan(&days(1), day(0));
    assert!(shown.plan.backups.is_empty() && shown.plan.wal.is_empty() && shown.plan.histories.is_empty());
}
