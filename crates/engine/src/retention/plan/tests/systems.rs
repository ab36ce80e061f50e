//! Several system identifiers: pg_upgrade, a cluster that was made anew.

use super::repo::{Repo, SYSTEM, day, days, full};
use crate::retention::model::StoredBackup;

const NEW: u64 = 99;
const OLD: u64 = 3;

fn of_new(backup: StoredBackup) -> StoredBackup {
    StoredBackup { system: NEW, ..backup }
}

fn of_old(backup: StoredBackup) -> StoredBackup {
    StoredBackup { system: OLD, ..backup }
}

fn upgraded(backups: impl IntoIterator<Item = StoredBackup>) -> Repo {
    let mut repo = Repo::new(backups).wal(1, 0, 99).wal_of(NEW, 1, 50);
    repo.0.systems = vec![SYSTEM, NEW];
    repo
}

#[test]
fn promise_4_after_pg_upgrade_the_old_system_stays_until_the_new_one_covers_the_window() {
    let backups = [
        full("old1", day(0), 10),
        full("old2", day(5), 40),
        of_new(full("new1", day(10), 5)),
        of_new(full("new2", day(12), 20)),
    ];
    let repo = upgraded(backups);
    let soon = repo.plan(&days(7), day(13));
    assert_eq!(soon.kept(), ["old2", "new1", "new2"]);
    assert_eq!(soon.wal(1), ["0-39 drop: no backup needs it", "40-99 keep: from old2 on"]);
    assert_eq!(soon.wal_of(NEW, 1), ["1-4 drop: no backup needs it", "5-50 keep: from new1 on"]);
    let later = repo.plan(&days(7), day(17));
    assert_eq!(later.kept(), ["new1", "new2"]);
    assert_eq!(later.wal(1), ["0-99 drop: no backup of its system is kept"]);
}

#[test]
fn promise_4_a_new_system_without_a_backup_keeps_everything_of_both() {
    let repo = upgraded([full("old1", day(0), 10), full("old2", day(5), 40)]);
    let shown = repo.plan(&days(7), day(90));
    assert_eq!(shown.kept(), ["old2"]);
    assert_eq!(shown.wal(1), ["0-39 drop: no backup needs it", "40-99 keep: from old2 on"]);
    assert_eq!(shown.wal_of(NEW, 1), ["1-50 keep: no good backup yet"]);
}

#[test]
fn the_old_systems_end_may_be_known_to_lie_inside_the_window() {
    let backups = [full("old", day(0), 10), of_new(full("new", day(10), 5))];
    // The old server went on for a while after the upgrade was tried.
    let repo = upgraded(backups).written_by(1, day(15));
    assert_eq!(repo.plan(&days(7), day(20)).kept(), ["old", "new"]);
    assert_eq!(repo.plan(&days(7), day(22)).kept(), ["new"]);
}

#[test]
fn calendars_and_counts_look_at_all_systems() {
    let mut policy = days(0);
    policy.min_full = 3;
    let backups = [
        full("old1", day(0), 10),
        full("old2", day(5), 40),
        of_new(full("new1", day(10), 5)),
        of_new(full("new2", day(12), 20)),
    ];
    let shown = upgraded(backups.clone()).plan(&policy, day(100));
    assert_eq!(shown.kept(), ["old2", "new1", "new2"]);
    assert_eq!(
        shown.wal(1),
        [
            "0-39 drop: no backup needs it",
            "40-41 keep: start to stop of old2",
            "42-99 drop: no backup needs it"
        ]
    );
    policy.min_full = 0;
    policy.monthly = 9;
    assert_eq!(upgraded(backups).plan(&policy, day(100)).kept(), ["new2"]);
}

#[test]
fn promise_4_the_newest_system_keeps_its_newest_backup_whatever_its_clock_said() {
    let backups = [of_new(full("new", day(0), 5)), full("old", day(5), 40)];
    assert_eq!(upgraded(backups).plan(&days(1), day(100)).kept(), ["new", "old"]);
    // Nor is it lost when it ends behind the place where the newest timeline begins.
    let backups = [full("new", day(0), 30), of_old(full("old", day(5), 40))];
    let mut repo =
        Repo::new(backups).wal(1, 0, 40).wal(2, 25, 60).history(2, &[(1, 25)]).written_by(1, day(1));
    repo.0.systems = vec![OLD, SYSTEM];
    let shown = repo.plan(&days(1), day(100));
    assert_eq!(shown.backup("new"), "keep: newest good backup");
    assert_eq!(shown.wal(1), ["0-29 drop: no backup needs it", "30-40 keep: from new on"]);
}

#[test]
fn promise_4_a_system_that_the_list_lacks_may_be_the_newest() {
    let mut repo = upgraded([full("old", day(0), 10), of_new(full("new", day(10), 5))]);
    repo.0.systems = vec![SYSTEM];
    let shown = repo.plan(&days(7), day(60));
    assert_eq!(shown.kept(), ["old", "new"]);
    repo.0.systems = vec![SYSTEM, NEW, SYSTEM];
    assert_eq!(repo.plan(&days(7), day(60)).kept(), ["old", "new"], "the old one came back");
}
