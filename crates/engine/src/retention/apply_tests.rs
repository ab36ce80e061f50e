use super::*;
use crate::retention::fixture::{
    FAILED, INCREMENT, MONTHLY, NEWEST, OLD, Place, SEGMENTS, SYSTEM, WEEKLY, below, keeping, now, prune,
    store,
};
use crate::retention::model::BackupState;
use crate::retention::{pin, unpin};
use crate::verify::{self, Depth};
use crate::wal::absent::{self, Verdict as Absence};
use crate::wal::get_fixture::tl;
use crate::wal::store_fixture::size;
use pg_ark_contract::Timeline;
use pg_ark_contract::rows::ArchiveStatus;
use pg_ark_testkit::saboteur::{EIO, ENOSPC, Fault};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

type Tree = BTreeMap<String, Vec<u8>>;

/// Some backups beyond the window, each with its WAL, and everything from the last on.
const SOME: &[&str] = &[MONTHLY, WEEKLY, NEWEST];
/// The newest alone.
const ONE: &[&str] = &[NEWEST];
const FAULTS: [Fault; 5] =
    [Fault::Gone(EIO), Fault::Fail(EIO), Fault::Fail(ENOSPC), Fault::Tear, Fault::Deny];
/// Tests wait for disks.
const THREADS: usize = 8;
/// More calls than a prune makes.
const MANY: u64 = 3000;

/// Runs `work` for every number from 1 until it says that there are no more.
fn each(work: impl Fn(u64) -> bool + Sync) {
    let (next, ended) = (AtomicU64::new(1), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while !ended.load(Ordering::SeqCst) {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    assert!(number < MANY, "it never ends");
                    if !work(number) {
                        ended.store(true, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    assert!(next.into_inner() > 20, "hardly a call was struck");
}

fn undisturbed(original: &Place, keep: &'static [&'static str]) -> Tree {
    let place = original.copy();
    place.prune(keep).unwrap();
    place.tree()
}

#[track_caller]
fn assert_same(found: &Tree, expected: &Tree, case: &str) {
    let more = |one: &Tree, other: &Tree| {
        one.keys().filter(|name| !other.contains_key(*name)).cloned().collect::<Vec<_>>()
    };
    let (left, lost) = (more(found, expected), more(expected, found));
    assert!(left.is_empty() && lost.is_empty(), "{case}: left {left:?}, lost {lost:?}");
    for (name, bytes) in found {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(*bytes == expected[name], "{case}: {name}:\n{}\n{}", text(bytes), text(&expected[name]));
    }
}

/// Fails unless what is kept is as it was, nothing that lacks anything counts as complete, no hole is told as a fault, and
/// nothing that was removed looks as if it had never been there.
#[track_caller]
fn assert_sound(place: &Place, before: &Tree, keep: &[&str], case: &str) {
    let now = place.tree();
    for backup in keep {
        let folder = place.folder(backup);
        assert_eq!(below(&now, &folder), below(before, &folder), "{case}: {backup}");
    }
    for (backup, state) in place.states() {
        assert!(
            !matches!(state, BackupState::Broken(_)),
            "{case}: {backup} counts as complete and is {state:?}"
        );
        assert!(!keep.contains(&&backup[..]) || state == BackupState::Good, "{case}: {backup} is {state:?}");
    }
    let cluster = place.cluster();
    let rows = verify::archive_rows(&cluster, None, Depth::Names, &Session::new(|_| ()));
    let rows = rows.unwrap_or_else(|e| panic!("{case}: {e:?}"));
    let faults: Vec<_> = rows.iter().filter(|row| row.status.is_fault()).collect();
    assert!(faults.is_empty(), "{case}: {faults:#?}");
    let archive = place.archive();
    for (timeline, first, last) in SEGMENTS {
        for number in first..=last {
            let name = tl(timeline, number);
            if archive.find(&name.file_name(size())).unwrap().is_none() {
                let verdict = absent::segment(&archive, name, size()).unwrap();
                let Absence::Lost(error) = verdict else { panic!("{case}: {name:?} is {verdict:?}") };
                assert!(error.message.contains("removed by retention"), "{case}: {error:?}");
            }
        }
    }
}

#[test]
fn promise_4_a_prune_that_is_stopped_anywhere_keeps_what_it_must_and_is_ended_by_the_next() {
    let original = Place::new();
    let before = original.tree();
    for keep in [SOME, ONE] {
        let after = undisturbed(&original, keep);
        // A death leaves what it leaves; the others are tried with one of the plans.
        let faults = if keep == SOME { &FAULTS[..] } else { &FAULTS[..1] };
        for (kind, &fault) in faults.iter().enumerate() {
            let told = AtomicU64::new(0);
            each(|number| {
                // Every call is struck with the first, one in four with the others.
                if kind > 0 && number > 12 && number % 4 != kind as u64 % 4 && number < 300 {
                    return true;
                }
                let place = original.copy();
                place.calls.strike_at(number, fault);
                let result = place.prune_sabotaged(keep);
                let Some(call) = place.calls.rest() else { return false };
                told.fetch_add(u64::from(result.is_err()), Ordering::SeqCst);
                let said = result.err().map_or("it passed".to_string(), |e| e.to_string());
                let case = format!("call {number}, {call}, {fault:?}: {said}");
                assert_sound(&place, &before, keep, &case);
                place.prune(keep).unwrap_or_else(|e| panic!("{case}, then {e:?}"));
                assert_same(&place.tree(), &after, &case);
                true
            });
            assert!(told.into_inner() > 0, "{fault:?} was never told");
        }
    }
}

#[test]
fn what_is_dropped_goes_and_a_second_prune_finds_nothing_to_do() {
    let place = Place::new();
    let before = place.tree();
    let dry = keeping_rows(&place, SOME, false);
    assert_same(&place.tree(), &before, "a dry run");
    let rows = keeping_rows(&place, SOME, true);
    assert_eq!(rows, dry, "a dry run says what is done");
    assert_sound(&place, &before, SOME, "done");
    let names: Vec<String> = place.states().into_keys().collect();
    assert_eq!(names, [MONTHLY, WEEKLY, NEWEST]);
    for gone in [OLD, INCREMENT, FAILED] {
        assert!(!place.folder(gone).exists(), "{gone}");
        assert!(rows.iter().any(|row| row.object == gone && row.verdict == Verdict::Drop), "{rows:#?}");
    }
    let wal: Vec<_> = rows.iter().filter(|row| row.kind == PruneObject::Wal).collect();
    assert!(wal.iter().all(|row| (row.bytes > Some(0)) == (row.verdict == Verdict::Drop)), "{wal:#?}");
    // The file of a dropped segment is gone, that of a kept one is there.
    let archive = place.archive();
    let backup = |number| format!("{}.00000028.backup", tl(1, number).file_name(size()));
    assert!(archive.find(&backup(4089)).unwrap().is_none() && archive.find(&backup(4097)).unwrap().is_some());
    // Nothing of timeline 1 stays behind 4099, so its `.partial` goes too.
    assert!(archive.find(&format!("{}.partial", tl(1, 4100).file_name(size()))).unwrap().is_none());
    assert!(!place.dir.path().join(archive.timeline_folder(Timeline(2))).exists(), "an empty folder");
    let after = place.tree();
    // Nobody takes a lease for nothing.
    place.calls.rest();
    let storage = place.sabotaged().unwrap();
    prune(&storage, SOME).unwrap();
    assert_same(&place.tree(), &after, "again");
    let session = Session::new(|_| ());
    let findings = verify::archive_rows(&place.cluster(), None, Depth::Names, &session).unwrap();
    assert!(findings.iter().all(|row| !row.status.is_fault()), "{findings:#?}");
    let pruned: Vec<_> = findings.iter().filter(|row| row.status == ArchiveStatus::Pruned).collect();
    assert!(pruned.len() >= 4 && pruned.iter().all(|row| row.detail.is_some()), "{pruned:#?}");
    // A window ends where retention cut it, and says so.
    let windows = verify::windows_of(&place.cluster(), None, &session).unwrap();
    let monthly = windows.rows.iter().find(|row| row.backup == MONTHLY).unwrap();
    assert!(monthly.note.contains("retention removed segment 000000010000000100000000"), "{windows:#?}");
}

#[test]
fn what_killed_writers_left_in_the_archive_goes_with_a_prune() {
    let place = Place::new();
    let left = place.dir.path().join(format!("{}#1", place.archive().pruned_path()));
    let file = std::fs::File::create(&left).unwrap();
    file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(7200)).unwrap();
    place.prune(SOME).unwrap();
    assert!(!left.exists());
}

fn keeping_rows(place: &Place, keep: &[&str], apply: bool) -> Vec<PruneRow> {
    let planner = |stored: &Stored| Ok(keeping(stored, keep));
    prune_by(&place.cluster(), &planner, apply, now(), &Session::new(|_| ())).unwrap()
}

#[test]
fn promise_4_a_pin_that_was_accepted_keeps_its_backup_whenever_it_comes() {
    let original = Place::new();
    let before = original.tree();
    let (accepted, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    for backup in [OLD, INCREMENT] {
        each(|number| {
            let place = original.copy();
            let answer = std::sync::Arc::new(Mutex::new(None));
            let (cluster, told) = (place.cluster(), std::sync::Arc::clone(&answer));
            place.calls.interrupt_at(number, move || {
                *told.lock().unwrap() = Some(pin(&cluster, backup, Some("for the auditors")));
            });
            let result = place.prune_sabotaged(SOME);
            let Some(call) = place.calls.rest() else { return false };
            let case = format!("{backup} pinned before call {number}, {call}");
            result.unwrap_or_else(|e| panic!("{case}: {e:?}"));
            let mut keep = SOME.to_vec();
            match answer.lock().unwrap().take().unwrap() {
                Ok(changed) => {
                    assert!(changed, "{case}");
                    accepted.fetch_add(1, Ordering::SeqCst);
                    keep.push(OLD);
                    keep.extend((backup == INCREMENT).then_some(INCREMENT));
                    let (record, _) = place.cluster().backup(backup).unwrap();
                    assert_eq!(record.pin_reason.as_deref(), Some("for the auditors"), "{case}");
                }
                Err(e) => {
                    refused.fetch_add(1, Ordering::SeqCst);
                    use ErrorKind::{BackupNotFound, BackupNotUsable};
                    assert!(matches!(e.kind, BackupNotFound | BackupNotUsable), "{case}: {e:?}");
                    assert!(!place.states().contains_key(backup), "{case}");
                }
            }
            assert_sound(&place, &before, &keep, &case);
            let after = place.tree();
            place.prune(SOME).unwrap();
            assert_same(&place.tree(), &after, &case);
            true
        });
    }
    assert!(accepted.into_inner() > 10 && refused.into_inner() > 10);
}

#[test]
fn promise_4_a_pin_is_not_lost_when_the_prune_that_met_it_is_killed() {
    let original = Place::new();
    let before = original.tree();
    let full = |place: &Place| place.folder(INCREMENT).join("backup.json");
    each(|number| {
        let place = original.copy();
        // Killed at each call, and pinned when the record says already what is to come.
        place.calls.strike_at(number, Fault::Gone(EIO));
        let _ = place.prune_sabotaged(SOME);
        let Some(call) = place.calls.rest() else { return false };
        let case = format!("call {number}, {call}");
        let is_whole = full(&place).exists() && place.folder(INCREMENT).join("base.tar.zst").exists();
        let pins = place.dir.path().join(format!("main/{SYSTEM}/pins"));
        std::fs::create_dir_all(&pins).unwrap();
        // A pin that came in time, as far as its writer could see.
        if is_whole && place.folder(INCREMENT).join("backup_manifest").exists() {
            std::fs::write(pins.join(format!("{INCREMENT}.json")), "a pin, damaged").unwrap();
            place.prune(SOME).unwrap_or_else(|e| panic!("{case}, then {e:?}"));
            assert_sound(&place, &before, &[MONTHLY, WEEKLY, NEWEST, OLD, INCREMENT], &case);
        }
        true
    });
}

#[path = "apply_dumps_tests.rs"]
mod dumps;

#[test]
fn two_prunes_at_once_do_the_work_of_one() {
    let original = Place::new();
    let (before, after) = (original.tree(), undisturbed(&original, SOME));
    let busy = AtomicU64::new(0);
    each(|number| {
        let place = original.copy();
        let other = std::sync::Arc::new(Mutex::new(None));
        let (cluster, told) = (place.cluster(), std::sync::Arc::clone(&other));
        place.calls.interrupt_at(number, move || *told.lock().unwrap() = Some(prune(&cluster, SOME)));
        let result = place.prune_sabotaged(SOME);
        let Some(call) = place.calls.rest() else { return false };
        let case = format!("another before call {number}, {call}");
        for result in [result, other.lock().unwrap().take().unwrap()] {
            if let Err(e) = result {
                assert!(e.kind == ErrorKind::Busy && e.message.contains("prune"), "{case}: {e:?}");
                busy.fetch_add(1, Ordering::SeqCst);
            }
        }
        assert_sound(&place, &before, SOME, &case);
        place.prune(SOME).unwrap();
        assert_same(&place.tree(), &after, &case);
        true
    });
    assert!(busy.into_inner() > 10);
}

#[test]
fn promise_4_hostile_content_makes_retention_lose_nothing() {
    use std::os::unix::fs::symlink;
    let place = Place::new();
    let root = place.dir.path().to_path_buf();
    // On the same file system.
    let elsewhere = tempfile::tempdir_in(root.parent().unwrap()).unwrap();
    std::fs::write(elsewhere.path().join("precious"), "p").unwrap();
    // In the folder of a backup that goes: a file, a folder, links, a fifo.
    let folder = place.folder(OLD);
    std::fs::write(folder.join("notes.txt"), "mine").unwrap();
    std::fs::create_dir(folder.join("base.tar.zst.0002")).unwrap();
    symlink(elsewhere.path().join("precious"), folder.join("base.tar.zst.0003")).unwrap();
    symlink(elsewhere.path(), folder.join("link")).unwrap();
    // A backup behind a link, and a folder of the archive.
    let moved = elsewhere.path().join("moved");
    std::fs::rename(place.folder(INCREMENT), &moved).unwrap();
    symlink(&moved, place.folder(INCREMENT)).unwrap();
    let archive = place.archive();
    let (timeline, wal) = (root.join(archive.timeline_folder(Timeline(2))), elsewhere.path().join("wal"));
    std::fs::rename(&timeline, &wal).unwrap();
    symlink(&wal, &timeline).unwrap();
    // Among the segments.
    let log = root.join(archive.log_folder(Timeline(1), 0));
    std::fs::write(log.join("000000010000000000000FF8"), "unpacked").unwrap();
    std::fs::write(log.join("notes.txt"), "mine").unwrap();
    let fifo = log.join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let before = place.tree();
    let session = Session::new(|_| ());
    let planner = |stored: &Stored| {
        // One whose folder is a link counts as pinned.
        let linked = stored.backups.iter().find(|backup| backup.backup == INCREMENT).unwrap();
        assert!(linked.pinned.as_ref().is_some_and(|why| why.contains("link")), "{linked:?}");
        let mut plan = keeping(stored, SOME);
        // Whatever a plan says about it.
        let old = stored.backups.iter().position(|backup| backup.backup == OLD).unwrap();
        let verdict = plan.backups.iter_mut().find(|verdict| verdict.index == old).unwrap();
        assert_eq!(verdict.verdict, Verdict::Keep, "a parent");
        verdict.verdict = Verdict::Drop;
        Ok(plan)
    };
    let error = prune_by(&place.cluster(), &planner, true, now(), &session).unwrap_err();
    assert!(error.kind == ErrorKind::Internal && error.message.contains(OLD), "{error:?}");
    assert_same(&place.tree(), &before, "refused");
    // Without the child the parent goes, and the rest is left.
    std::fs::remove_file(place.folder(INCREMENT)).unwrap();
    place.prune(SOME).unwrap();
    for left in ["notes.txt", "base.tar.zst.0002", "link", "backup.json"] {
        assert!(std::fs::symlink_metadata(folder.join(left)).is_ok(), "{left}");
    }
    let (record, _) = place.cluster().backup(OLD).unwrap();
    assert!(record.error.as_ref().is_some_and(|e| e.contains("base.tar.zst.0002")), "{:?}", record.error);
    for gone in
        ["base.tar.zst", "base.tar.zst.0001", "base.tar.zst.0003", "base.tar.zst.index", "backup_manifest"]
    {
        assert!(std::fs::symlink_metadata(folder.join(gone)).is_err(), "{gone}");
    }
    assert!(elsewhere.path().join("precious").exists() && moved.join("base.tar.zst").exists());
    assert!(walkdir::WalkDir::new(&wal).into_iter().flatten().count() > 5, "behind a link");
    for left in ["000000010000000000000FF8", "notes.txt", "fifo"] {
        assert!(std::fs::symlink_metadata(log.join(left)).is_ok(), "{left}");
    }
    let after = place.tree();
    place.prune(SOME).unwrap();
    assert_same(&place.tree(), &after, "again");
    // Once somebody has looked, it goes.
    for left in ["notes.txt", "link"] {
        std::fs::remove_file(folder.join(left)).unwrap();
    }
    std::fs::remove_dir(folder.join("base.tar.zst.0002")).unwrap();
    place.prune(SOME).unwrap();
    assert!(!folder.exists());
}

#[test]
fn promise_4_what_cannot_be_read_is_kept_with_all_wal() {
    let original = Place::new();
    let full = original.tree();
    for damage in ["damaged", "without a record"] {
        let place = original.copy();
        let record = place.folder(OLD).join("backup.json");
        match damage {
            "damaged" => std::fs::write(&record, "{").unwrap(),
            _ => std::fs::remove_file(&record).unwrap(),
        }
        let kept = below(&place.tree(), &place.folder(OLD));
        place.prune(SOME).unwrap();
        let after = place.tree();
        assert_eq!(below(&after, &place.folder(OLD)), kept, "{damage}");
        let segments =
            |tree: &Tree| tree.keys().filter(|name| name.ends_with(".zst") && name.contains("/wal/")).count();
        assert_eq!(segments(&after), segments(&full), "{damage}");
    }
    // An incremental one may need any other.
    let place = original.copy();
    std::fs::write(place.folder(INCREMENT).join("backup.json"), "{").unwrap();
    place.prune(ONE).unwrap();
    let kept: Vec<String> = place.states().into_keys().collect();
    assert_eq!(kept, [OLD, INCREMENT, MONTHLY, WEEKLY, NEWEST]);
    // A history that cannot be read: nothing is judged.
    let place = original.copy();
    let path = place.dir.path().join(place.archive().path("00000003.history").unwrap());
    std::fs::write(path, "nonsense").unwrap();
    let before = place.tree();
    let error = place.prune(SOME).unwrap_err();
    assert!(error.kind == ErrorKind::Corrupt && error.message.contains("00000003.history"), "{error:?}");
    assert!(error.hint.is_some_and(|hint| hint.contains("nothing is removed")));
    assert_same(&place.tree(), &before, "a damaged history");
    // The order of the systems: a dry run goes by their folders, and only shows.
    let place = original.copy();
    std::fs::write(place.dir.path().join("main/cluster.json"), "{").unwrap();
    let before = place.tree();
    let error = place.prune(SOME).unwrap_err();
    assert!(error.kind == ErrorKind::Corrupt && error.message.contains("cluster.json"), "{error:?}");
    assert!(error.hint.is_some_and(|hint| hint.contains("nothing is removed")));
    keeping_rows(&place, SOME, false);
    assert_same(&place.tree(), &before, "a damaged cluster.json");
}

#[test]
fn promise_4_a_record_that_ends_before_it_begins_is_no_good_backup() {
    let place = Place::new();
    let cluster = place.cluster();
    let folder = cluster.backup_folder(SYSTEM, NEWEST);
    let good = Record::load(cluster.storage(), &folder).unwrap().unwrap();
    for wal_included in [false, true] {
        for (start, stop) in [(good.stop_lsn, good.start_lsn), (good.start_lsn, good.start_lsn)] {
            let mut record = Record { wal_included, start_lsn: start, stop_lsn: stop, ..good.clone() };
            let mut wal = record.archives[0].clone();
            wal.content = crate::repository::record::ArchiveContent::Wal;
            record.archives.extend(wal_included.then_some(wal));
            record.save(cluster.storage(), &folder).unwrap();
            let state = place.states().remove(NEWEST);
            assert!(matches!(&state, Some(BackupState::Broken(why)) if why.contains("ends at")), "{state:?}");
        }
    }
    good.save(cluster.storage(), &folder).unwrap();
    assert_eq!(place.states().remove(NEWEST), Some(BackupState::Good));
}

#[test]
fn a_living_holder_of_the_lease_is_named() {
    let place = Place::new();
    let before = place.tree();
    let cluster = place.cluster();
    let pause = |_| Ok(());
    let path = cluster.lease_path(SYSTEM);
    let held =
        crate::repository::lease::acquire(cluster.storage(), &path, "20261122T020000Z-full", &pause).unwrap();
    let error = place.prune(SOME).unwrap_err();
    assert!(error.kind == ErrorKind::Busy && error.message.contains("20261122T020000Z-full"), "{error:?}");
    // A dry run needs no lease.
    keeping_rows(&place, SOME, false);
    drop(held);
    assert_same(&place.tree(), &before, "busy");
    // A lease that is lost while backups are removed ends the work.
    let folder = place.dir.path().join(format!("main/{SYSTEM}"));
    each(|number| {
        let place = place.copy();
        let folder = place.dir.path().join(folder.strip_prefix(folder.ancestors().nth(2).unwrap()).unwrap());
        place.calls.interrupt_at(number, move || {
            for entry in std::fs::read_dir(&folder).unwrap().flatten() {
                if entry.file_name().to_string_lossy().starts_with("lease.json") {
                    std::fs::remove_file(entry.path()).unwrap();
                }
            }
        });
        let result = place.prune_sabotaged(SOME);
        let Some(call) = place.calls.rest() else { return false };
        if let Err(e) = result {
            assert_eq!(e.kind, ErrorKind::Busy, "call {number}, {call}: {e:?}");
        }
        assert_sound(&place, &before, SOME, &call);
        true
    });
}

#[test]
fn pins_come_and_go() {
    let place = Place::new();
    let cluster = place.cluster();
    assert!(pin(&cluster, OLD, Some("audit 2026")).unwrap());
    assert!(!pin(&cluster, OLD, None).unwrap(), "it is pinned already");
    assert!(pin(&cluster, MONTHLY, Some("kept")).unwrap());
    let shown = || {
        let records = cluster.backups().unwrap().into_iter().filter(|record| record.pinned);
        records.map(|record| (record.backup, record.pin_reason)).collect::<Vec<_>>()
    };
    assert_eq!(shown(), [(OLD.to_string(), None), (MONTHLY.to_string(), Some("kept".to_string()))]);
    assert_eq!(cluster.backup(MONTHLY).unwrap().0.pin_reason.as_deref(), Some("kept"));
    place.prune(ONE).unwrap();
    assert_eq!(place.states().into_keys().collect::<Vec<_>>(), [OLD, MONTHLY, NEWEST]);
    assert!(unpin(&cluster, OLD).unwrap() && !unpin(&cluster, OLD).unwrap());
    place.prune(ONE).unwrap();
    assert_eq!(place.states().into_keys().collect::<Vec<_>>(), [MONTHLY, NEWEST]);
    let kind = |result: Result<bool>| result.unwrap_err().kind;
    assert_eq!(kind(pin(&cluster, OLD, None)), ErrorKind::BackupNotFound);
    assert_eq!(kind(unpin(&cluster, "../x")), ErrorKind::BackupNotFound);
    assert_eq!(kind(pin(&cluster, MONTHLY, Some("two\nlines"))), ErrorKind::InvalidArgument);
    // Anything that stands in the place of a pin is one.
    let folder = place.dir.path().join(format!("main/{SYSTEM}/pins"));
    std::fs::write(folder.join(format!("{NEWEST}.json")), "{").unwrap();
    std::fs::create_dir(folder.join(format!("{WEEKLY}.json"))).unwrap();
    assert_eq!(shown().len(), 2, "{:?}", shown());
}

#[test]
fn wal_that_comes_back_is_removed_again() {
    let place = Place::new();
    place.prune(SOME).unwrap();
    let after = place.tree();
    // A server that was behind stores what it had, with the line.
    store(&place.archive(), 1, 4091);
    store(&place.archive(), 2, 4102);
    assert_sound(&place, &after, SOME, "it came back");
    place.prune(SOME).unwrap();
    assert_same(&place.tree(), &after, "and went");
}
