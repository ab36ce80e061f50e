//! Several system identifiers: pg_upgrade, a cluster that was made anew.

use super::repo::{Repo, SYSTEM, day, days, full};
use crate::retention::model::{BackupState, StoredBackup};

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
fn promise_4_an_older_system_that_lives_on_keeps_its_newest_backup_and_its_wal() {
    // Two servers were given one name. The new one is backed up; the old one's backups are refused, its WAL still comes.
    let backups = [full("old1", day(0), 10), full("old2", day(5), 40)];
    let new = (6..30).map(|n| of_new(full(&format!("new{n}"), day(n), 5)));
    let mut repo = upgraded(backups.into_iter().chain(new)).wal(2, 30, 60).history(2, &[(1, 30)]);
    repo = repo.written_by(1, day(5)).written_by(2, day(29));
    let living = "newest good backup of an older system that wrote inside the window";
    let shown = repo.plan(&days(7), day(30));
    assert_eq!(shown.backup("old2"), format!("keep: {living}"));
    assert_eq!(shown.backup("old1"), "keep: reaches the window's beginning");
    assert_eq!(shown.wal(2), ["30-60 keep: from old1 on"]);
    assert_eq!(repo.plan(&days(7), day(37)).backup("old2"), "drop: older than the window");
    assert_eq!(repo.plan(&days(7), day(37)).wal(2), ["30-60 drop: no backup of its system is kept"]);
    // A failed backup is a sign of life as well, and without any good one all WAL stays.
    repo = repo.written_by(2, day(5));
    let failed = StoredBackup { state: BackupState::Failed, ..full("failed", day(28), 70) };
    repo.0.backups.push(failed);
    assert_eq!(repo.plan(&days(7), day(30)).backup("old2"), format!("keep: {living}"));
    repo.0.backups.retain(|backup| !backup.backup.starts_with("old"));
    let rule = "an older system wrote inside the window, and nothing leads here";
    assert_eq!(repo.plan(&days(7), day(30)).wal(2), [format!("30-60 keep: {rule}")]);
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
