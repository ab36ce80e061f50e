use super::*;
use crate::retention::fixture::{INCREMENT, MONTHLY, NEWEST, OLD, Place, WEEKLY, keeping};
use crate::retention::gather::gather;
use pg_ark_contract::conversation::BackupKind;

/// What the repository holds and a sound plan for it, changed; what the refusal says.
#[track_caller]
fn refused(place: &Place, change: impl FnOnce(&mut Stored, &mut Plan), words: &str) {
    let mut stored = gather(&place.cluster(), &|| Ok(())).unwrap();
    let mut plan = keeping(&stored, &[MONTHLY, WEEKLY, NEWEST]);
    check(&stored, &plan).unwrap();
    change(&mut stored, &mut plan);
    let error = check(&stored, &plan).unwrap_err();
    assert!(error.kind == ErrorKind::Internal && error.message.contains(words), "{words}: {error:?}");
}

fn drop_backup(stored: &Stored, plan: &mut Plan, name: &str, verdict: Verdict) {
    let index = stored.backups.iter().position(|backup| backup.backup == name).unwrap();
    plan.backups.iter_mut().find(|v| v.index == index).unwrap().verdict = verdict;
}

fn backup<'a>(stored: &'a mut Stored, name: &str) -> &'a mut StoredBackup {
    stored.backups.iter_mut().find(|backup| backup.backup == name).unwrap()
}

#[test]
fn promise_4_a_plan_that_takes_the_last_way_back_is_refused() {
    let place = Place::new();
    refused(&place, |stored, plan| drop_backup(stored, plan, NEWEST, Verdict::Drop), "the newest good one");
    refused(
        &place,
        |stored, plan| {
            backup(stored, NEWEST).damaged_pages = 1;
            drop_backup(stored, plan, WEEKLY, Verdict::Drop);
        },
        "without damaged pages",
    );
    refused(
        &place,
        |stored, plan| {
            backup(stored, WEEKLY).pinned = Some(String::new());
            drop_backup(stored, plan, WEEKLY, Verdict::Drop);
        },
        "which is pinned",
    );
    refused(&place, |stored, plan| drop_backup(stored, plan, INCREMENT, Verdict::Keep), "the parent of");
    // Dumps are no way back to a moment, and the last of them are one to what they hold.
    let as_dumps = |stored: &mut Stored, name: &str| backup(stored, name).kind = BackupKind::Logical;
    refused(
        &place,
        |stored, plan| {
            as_dumps(stored, WEEKLY);
            drop_backup(stored, plan, WEEKLY, Verdict::Drop);
        },
        "the newest good logical one",
    );
    refused(
        &place,
        |stored, plan| {
            as_dumps(stored, WEEKLY);
            drop_backup(stored, plan, NEWEST, Verdict::Drop);
        },
        "the newest good one",
    );
    let lacks = |stored: &mut Stored, name: &str| {
        as_dumps(stored, name);
        backup(stored, name).lacks = vec!["app".into()];
    };
    refused(
        &place,
        |stored, plan| {
            as_dumps(stored, MONTHLY);
            backup(stored, MONTHLY).databases = vec!["app".into()];
            lacks(stored, WEEKLY);
            drop_backup(stored, plan, MONTHLY, Verdict::Drop);
        },
        "the newest good dump of database \"app\"",
    );
    for (state, words) in
        [(BackupState::Running, "is running"), (BackupState::Unreadable, "cannot be judged")]
    {
        refused(&place, |stored, _| backup(stored, OLD).state = state, words);
    }
    refused(&place, |_, plan| plan.backups.push(plan.backups[0].clone()), "something twice");
    refused(&place, |_, plan| plan.backups[0].index = 99, "not there");
}

#[test]
fn promise_4_a_plan_that_takes_wal_of_what_is_kept_is_refused() {
    let place = Place::new();
    let drop_run = |plan: &mut Plan, number: u64| {
        let wal = plan.wal.iter_mut().find(|wal| (wal.run.first..=wal.run.last).contains(&number)).unwrap();
        assert_eq!(wal.verdict, Verdict::Keep);
        wal.verdict = Verdict::Drop;
    };
    for number in [4094, 4097, 4105] {
        refused(&place, |_, plan| drop_run(plan, number), "WAL of timeline");
    }
    // One that carries its WAL does without.
    let mut stored = gather(&place.cluster(), &|| Ok(())).unwrap();
    backup(&mut stored, MONTHLY).wal_included = true;
    let mut plan = keeping(&stored, &[MONTHLY, WEEKLY, NEWEST]);
    drop_run(&mut plan, 4094);
    check(&stored, &plan).unwrap();
    let third = |plan: &mut Plan| {
        plan.histories.iter_mut().find(|h| h.timeline.0 == 3).unwrap().verdict = Verdict::Drop
    };
    refused(&place, |_, plan| third(plan), "the history of timeline 3");
    // What cannot be read may need any.
    refused(
        &place,
        |stored, plan| {
            backup(stored, OLD).state = BackupState::Unreadable;
            drop_backup(stored, plan, OLD, Verdict::Keep);
        },
        "WAL of timeline",
    );
}

#[test]
fn promise_4_a_plan_that_drops_anything_beside_a_lost_history_is_refused() {
    let place = Place::new();
    let newest = |plan: &Plan| plan.wal.iter().map(|wal| wal.timeline).max().unwrap();
    // Without its history any backup and any WAL may lead there.
    refused(
        &place,
        |stored, plan| {
            let (tip, wal) = (newest(plan), stored.wal.values_mut().next_back().unwrap());
            wal.histories.remove(&tip);
            plan.histories.retain(|history| history.timeline != tip);
        },
        "whose history is not in the archive",
    );
}
