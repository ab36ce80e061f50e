//! Which WAL and which histories are kept, by examples.

use super::repo::{Repo, at, day, days, full};
use crate::retention::model::{BackupState, StoredBackup};
use pg_ark_contract::Timeline;
use pg_ark_contract::retention::Policy;

/// Why everything stays when the history of timeline 2 is missing.
const LOST: &str = "the history of timeline 2 is not in the archive: nobody knows what leads to it";

fn on(timeline: u32, backup: StoredBackup) -> StoredBackup {
    StoredBackup { timeline: Some(Timeline(timeline)), ..backup }
}

#[test]
fn wal_is_kept_from_the_windows_beginning_and_for_each_island() {
    let backups = [full("old", day(0), 10), full("base", day(40), 50), full("new", day(49), 70)];
    let policy = Policy { monthly: 12, ..days(7) };
    let shown = Repo::new(backups).wal(1, 0, 99).plan(&policy, day(50));
    assert_eq!(
        shown.wal(1),
        [
            "0-9 drop: no backup needs it",
            "10-11 keep: start to stop of old",
            "12-49 drop: no backup needs it",
            "50-99 keep: from base on",
        ]
    );
}

#[test]
fn islands_that_touch_are_told_together() {
    let backups = (0..6).map(|n| full(&format!("b{n}"), day(n * 40), u64::try_from(n).unwrap()));
    let policy = Policy { monthly: 99, ..days(0) };
    let shown = Repo::new(backups).wal(1, 0, 99).plan(&policy, day(990));
    assert_eq!(shown.wal(1), ["0-4 keep: start to stop of b0, b1, b2 and 2 more", "5-99 keep: from b5 on"]);
}

#[test]
fn a_gap_is_no_reason_to_keep_or_to_drop() {
    // After the gap only the broken backup begins, and inside the window a good one.
    let mut gap = full("gap", day(5), 29);
    gap.state = BackupState::Broken("WAL is missing".into());
    let backups = [full("a", day(0), 10), gap, full("c", day(9), 40)];
    let repo = Repo::new(backups).wal(1, 0, 29).wal(1, 35, 99);
    let shown = repo.plan(&days(3), day(10));
    assert_eq!(shown.kept(), ["a", "c"]);
    assert_eq!(
        shown.wal(1),
        ["0-9 drop: no backup needs it", "10-29 keep: from a on", "35-99 keep: from a on"]
    );
    assert_eq!(
        repo.plan(&days(3), day(12)).wal(1),
        ["0-29 drop: no backup needs it", "35-39 drop: no backup needs it", "40-99 keep: from c on"]
    );
}

#[test]
fn a_broken_backup_inside_the_window_keeps_what_follows_it() {
    let mut broken = full("broken", day(9), 20);
    broken.state = BackupState::Broken("WAL is missing".into());
    let shown = Repo::new([full("a", day(9), 40), broken]).wal(1, 0, 99).plan(&days(3), day(10));
    assert_eq!(shown.wal(1), ["0-19 drop: no backup needs it", "20-99 keep: from broken on"]);
}

#[test]
fn promise_4_without_a_good_backup_everything_stays() {
    let shown = Repo::new([]).wal(1, 3, 9).history(2, &[(1, 9)]).wal(2, 9, 12).plan(&days(1), day(50));
    assert_eq!(shown.wal(1), ["3-9 keep: no good backup yet"]);
    assert_eq!(shown.wal(2), ["9-12 keep: no good backup yet"]);
    assert_eq!(shown.histories(), [2]);
}

#[test]
fn promise_4_a_failover_keeps_both_branches_while_they_are_inside_the_window() {
    // Timeline 2 begins in segment 60; the old primary wrote on until 65.
    let backups =
        [full("a", day(0), 10), full("b", day(5), 30), full("c", day(8), 50), on(2, full("d", day(10), 70))];
    let repo = Repo::new(backups).wal(1, 0, 65).wal(2, 60, 99).history(2, &[(1, 60)]).written_by(1, day(9));
    let shown = repo.plan(&days(3), day(10));
    assert_eq!(shown.kept(), ["b", "c", "d"]);
    assert_eq!(shown.wal(1), ["0-29 drop: no backup needs it", "30-65 keep: from b on"]);
    assert_eq!(shown.wal(2), ["60-99 keep: from b on"]);
    assert_eq!(shown.histories(), [2]);
    // The way into the window leads over timeline 1 up to the branch. What the old primary wrote on is not inside.
    let later = repo.plan(&days(3), at("2026-01-13T12:00:00Z"));
    assert_eq!(later.kept(), ["c", "d"]);
    assert_eq!(
        later.wal(1),
        ["0-49 drop: no backup needs it", "50-60 keep: from c on", "61-65 drop: no backup needs it"]
    );
    let last = repo.plan(&days(3), day(13));
    assert_eq!(last.kept(), ["d"]);
    assert_eq!(last.wal(1), ["0-65 drop: no backup needs it"]);
    assert_eq!(last.wal(2), ["60-69 drop: no backup needs it", "70-99 keep: from d on"]);
    assert_eq!(last.histories(), [2], "timeline 2 is where the cluster is");
}

#[test]
fn promise_4_a_standby_that_lagged_needs_an_older_backup() {
    // "b" ends behind the place where timeline 2 begins, so only "a" leads to it.
    let backups = [full("a", day(0), 10), full("b", day(5), 30)];
    let repo = Repo::new(backups).wal(1, 0, 40).wal(2, 25, 60).history(2, &[(1, 25)]).written_by(1, day(5));
    let shown = repo.plan(&days(3), day(20));
    assert_eq!(shown.backup("a"), "keep: reaches the window's beginning");
    assert_eq!(shown.backup("b"), "keep: newest good backup; newest undamaged backup");
    assert_eq!(
        shown.wal(1),
        [
            "0-9 drop: no backup needs it",
            "10-25 keep: from a on",
            "26-29 drop: no backup needs it",
            "30-40 keep: from b on"
        ]
    );
    assert_eq!(shown.wal(2), ["25-60 keep: from a on"]);
}

#[test]
fn a_timeline_that_ended_long_ago_holds_nothing_back() {
    // Somebody recovered to segment 15, looked, and left timeline 2 to itself.
    let backups = [full("a", day(0), 10), full("b", day(50), 30), on(3, full("c", day(60), 70))];
    let repo = |told: bool| {
        let repo = Repo::new(backups.clone()).wal(1, 0, 60).wal(2, 15, 20).wal(3, 60, 90);
        let repo = repo.history(2, &[(1, 15)]).history(3, &[(1, 60)]);
        if told { repo.written_by(1, day(55)).written_by(2, day(1)).written_by(3, day(80)) } else { repo }
    };
    let shown = repo(true).plan(&days(7), day(80));
    assert_eq!(shown.kept(), ["c"]);
    assert_eq!(shown.wal(2), ["15-20 drop: no backup needs it"]);
    assert_eq!(shown.histories(), [3]);
    // Where nobody knows when it ended, the way to it stays, and no more than that.
    let shown = repo(false).plan(&days(7), day(80));
    assert_eq!(shown.kept(), ["a", "b", "c"]);
    assert_eq!(
        shown.wal(1),
        [
            "0-9 drop: no backup needs it",
            "10-15 keep: from a on",
            "16-29 drop: no backup needs it",
            "30-60 keep: from b on"
        ]
    );
    assert_eq!(shown.wal(3), ["60-69 drop: no backup needs it", "70-90 keep: from c on"]);
}

#[test]
fn promise_4_a_timeline_without_its_history_may_come_from_anywhere() {
    let backups = [full("a", day(0), 10), full("b", day(20), 30)];
    let repo = Repo::new(backups).wal(1, 0, 40).wal(2, 5, 60);
    let shown = repo.plan(&days(3), day(21));
    assert_eq!(shown.kept(), ["a", "b"]);
    assert_eq!(shown.wal(2), [format!("5-60 keep: {LOST}")]);
}

#[test]
fn promise_4_a_newest_timeline_that_lost_its_history_keeps_all_that_may_lead_to_it() {
    // Timeline 2 begins in segment 25: "b" stopped behind that, so "a" alone leads there.
    let backups = [full("a", day(0), 10), full("b", day(5), 30)];
    let repo = |history: &[u32]| {
        let repo = Repo::new(backups.clone()).wal(1, 0, 40).wal(2, 25, 60);
        let repo = repo.written_by(1, day(5)).written_by(2, day(20));
        history.iter().fold(repo, |repo, timeline| repo.history(*timeline, &[(1, 25)]))
    };
    for now in [day(20), day(900)] {
        let shown = repo(&[]).plan(&days(3), now);
        assert_eq!(shown.backup("a"), format!("keep: {LOST}"));
        assert_eq!(shown.wal(1), [format!("0-40 keep: {LOST}")]);
        assert_eq!(shown.wal(2), [format!("25-60 keep: {LOST}")]);
    }
    let mended = repo(&[2]).plan(&days(3), day(20));
    assert_eq!(mended.wal(2), ["25-60 keep: from a on"]);
    // A timeline of which nothing is stored leads nowhere.
    let shown = Repo::new(backups.clone()).wal(1, 0, 40).plan(&days(3), day(900));
    assert_eq!(shown.kept(), ["b"]);
    // Nor is an older timeline's history without worth: it leads to backups as well.
    let three = repo(&[]).wal(3, 60, 70).history(3, &[(1, 25), (2, 60)]);
    assert_eq!(three.plan(&days(3), day(900)).kept(), ["a", "b"]);
    assert_eq!(three.plan(&days(3), day(900)).histories(), [3]);
}

#[test]
fn wal_that_is_newer_than_the_newest_backup_stays_though_nothing_leads_to_it() {
    // The only backup ends behind the place where timeline 2 begins.
    let repo = Repo::new([full("b", day(5), 30)]).wal(1, 0, 40).wal(2, 25, 60).history(2, &[(1, 25)]);
    let shown = repo.plan(&days(1), day(50));
    assert_eq!(shown.wal(2), ["25-60 keep: newer than the newest backup"]);
    assert_eq!(shown.wal(1), ["0-29 drop: no backup needs it", "30-40 keep: from b on"]);
}

#[test]
fn histories_stay_as_long_as_anything_can_lead_to_them() {
    let backups = [on(3, full("c", day(60), 70)), on(3, full("d", day(80), 90))];
    let repo = Repo::new(backups).wal(3, 60, 99).history(2, &[(1, 15)]);
    let repo = repo.history(3, &[(1, 15), (2, 60)]).history(4, &[(3, 95)]);
    let shown = repo.plan(&days(7), day(81));
    assert_eq!(shown.histories(), [3, 4], "a server probes upwards without a gap");
    let mut pinned = repo.clone();
    pinned.0.backups.push(StoredBackup { pinned: Some(String::new()), ..full("p", day(0), 1) });
    assert_eq!(pinned.plan(&days(7), day(81)).histories(), [2, 3, 4]);
}

#[test]
fn backups_that_carry_their_wal_need_no_archive() {
    let own = |backup| StoredBackup { wal_included: true, ..backup };
    let backups = [own(full("a", day(0), 10)), own(full("b", day(1), 20)), own(full("c", day(9), 30))];
    let shown = Repo::new(backups).plan(&days(3), day(10));
    assert_eq!(shown.kept(), ["b", "c"]);
}

#[test]
fn promise_4_a_timeline_may_be_left_before_it_began() {
    // A standby that followed timeline 2 was promoted before it came to where timeline 2 began: "b" is not on its line.
    let backups = [full("a", day(0), 10), full("b", day(5), 30)];
    let repo = Repo::new(backups).wal(1, 0, 40).wal(2, 40, 45).wal(3, 25, 60);
    let repo = repo.history(2, &[(1, 40)]).history(3, &[(1, 40), (2, 25)]);
    let repo = repo.written_by(1, day(5)).written_by(2, day(6)).written_by(3, day(20));
    let shown = repo.plan(&days(3), day(20));
    assert_eq!(shown.backup("a"), "keep: reaches the window's beginning");
    assert_eq!(shown.wal(3), ["25-60 keep: from a on"]);
    assert_eq!(shown.wal(1)[1], "10-25 keep: from a on");
}
