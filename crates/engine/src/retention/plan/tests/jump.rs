//! What clocks that jump ahead drop.

use super::repo::{Repo, SYSTEM, day, days, full, logical};
use crate::retention::model::{BackupState, StoredBackup};
use chrono::TimeDelta;

#[test]
fn a_clock_that_jumped_ahead_empties_the_window_only_when_a_backup_has_stood_for_a_day() {
    let stored = |backups: Vec<StoredBackup>| {
        let mut repo = Repo::new(backups).wal(1, 0, 99);
        let wal = repo.0.wal.get_mut(&SYSTEM).unwrap();
        wal.written = (1..=10).map(day).collect();
        repo
    };
    let before =
        || (1..=10).map(|n| full(&format!("d{n}"), day(n), n.unsigned_abs() * 5)).collect::<Vec<_>>();
    let is_kept = |repo: &Repo, now| repo.plan(&days(3), now).kept().contains(&"d8");
    assert!(
        is_kept(&stored(before()), day(10)) && is_kept(&stored(before()), day(800)),
        "nothing is known since"
    );
    let (after, hour) = (day(800), TimeDelta::hours(1));
    let jumped = stored(before().into_iter().chain([full("new", after, 60)]).collect());
    let rule = jumped.plan(&days(3), after + hour).backup("d8");
    let told = "keep: window: nothing is known of a long time after 2026-01-11T00:00:00Z, and no backup has stood for a day since";
    assert_eq!(rule, told);
    assert!(is_kept(&jumped, after + hour * 23) && !is_kept(&jumped, after + hour * 24));
    // One that is no way back has not stood; nor has a dump.
    let mut broken = jumped.clone();
    broken.0.backups[10].state = BackupState::Broken("gone".into());
    assert!(is_kept(&broken, after + hour * 48));
    let dumped = stored(before().into_iter().chain([logical("new", after)]).collect());
    assert!(is_kept(&dumped, after + hour * 48));
    // What is stored since is no backup; where WAL is known of the time between, there was no jump.
    let mut known = stored(before());
    known.0.wal.get_mut(&SYSTEM).unwrap().written.extend((11..=20).map(day));
    assert!(!is_kept(&known, day(20)));
}

#[test]
fn dumps_that_go_on_without_wal_and_backups_are_kept_for_as_long_as_the_window() {
    let fulls = (1..=10).map(|n| full(&format!("d{n}"), day(n), n.unsigned_abs() * 5));
    let dumps = (11..=40).map(|n| logical(&format!("l{n}"), day(n)));
    let mut repo = Repo::new(fulls.chain(dumps)).wal(1, 0, 99);
    repo.0.wal.get_mut(&SYSTEM).unwrap().written = (1..=10).map(day).collect();
    let kept = repo.plan(&days(3), day(40));
    assert_eq!(kept.kept(), ["d7", "d8", "d9", "d10", "l38", "l39", "l40"]);
}

#[test]
fn a_backup_of_an_earlier_wrong_time_has_not_stood() {
    // After "wrong" the clock was set right; then it is wrong again.
    let before = (1..=3).map(|n| full(&format!("d{n}"), day(n), n.unsigned_abs() * 5));
    let since = (4..=6).map(|n| full(&format!("d{n}"), day(n), n.unsigned_abs() * 5 + 5));
    let backups: Vec<_> = before.chain([full("wrong", day(800), 20)]).chain(since).collect();
    let plan = |backups: &[StoredBackup], now| {
        let mut repo = Repo::new(backups.to_vec()).wal(1, 0, 99);
        repo.0.wal.get_mut(&SYSTEM).unwrap().written = (1..=6).map(day).collect();
        repo.plan(&days(3), now)
    };
    for now in [day(7), day(801), day(802), day(900)] {
        let plan = plan(&backups, now);
        assert!(["d4", "d5", "d6"].iter().all(|name| plan.kept().contains(name)), "{now}: {:?}", plan.kept());
    }
    let again: Vec<_> = backups.iter().cloned().chain([full("again", day(802), 60)]).collect();
    let is_kept = |hours| plan(&again, day(802) + TimeDelta::hours(hours)).kept().contains(&"d5");
    assert!(is_kept(23) && !is_kept(24));
}
