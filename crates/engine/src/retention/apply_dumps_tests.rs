//! Logical backups are removed as others are: killed anywhere, no half of one counts, and a pin that came in time holds it.

use super::*;
use crate::retention::fixture::{NEW_DUMPS, OLD_DUMPS};

/// Everything but what failed, and the older dumps.
const KEEP: &[&str] = &[NEWEST, WEEKLY, MONTHLY, INCREMENT, NEW_DUMPS, OLD];

#[test]
fn promise_4_the_removal_of_dumps_that_is_stopped_anywhere_is_ended_by_the_next() {
    let original = Place::with_dumps();
    let before = original.tree();
    let after = undisturbed(&original, KEEP);
    assert!(!after.keys().any(|name| name.contains(OLD_DUMPS)), "no dump, no globals, no folder is left");
    assert!(after.keys().any(|name| name.ends_with(&format!("{NEW_DUMPS}/a%2Fb.dump"))));
    for fault in [Fault::Gone(EIO), Fault::Fail(ENOSPC)] {
        each(|number| {
            let place = original.copy();
            place.calls.strike_at(number, fault);
            let result = place.prune_sabotaged(KEEP);
            let Some(call) = place.calls.rest() else { return false };
            let said = result.err().map_or("it passed".to_string(), |e| e.to_string());
            let case = format!("call {number}, {call}, {fault:?}: {said}");
            assert_sound(&place, &before, KEEP, &case);
            place.prune(KEEP).unwrap_or_else(|e| panic!("{case}, then {e:?}"));
            assert_same(&place.tree(), &after, &case);
            true
        });
    }
}

#[test]
fn promise_4_a_pin_that_was_accepted_keeps_its_dumps_whenever_it_comes() {
    let original = Place::with_dumps();
    let before = original.tree();
    let (accepted, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    each(|number| {
        let place = original.copy();
        let answer = std::sync::Arc::new(Mutex::new(None));
        let (cluster, told) = (place.cluster(), std::sync::Arc::clone(&answer));
        place
            .calls
            .interrupt_at(number, move || *told.lock().unwrap() = Some(pin(&cluster, OLD_DUMPS, None)));
        let result = place.prune_sabotaged(KEEP);
        let Some(call) = place.calls.rest() else { return false };
        let case = format!("pinned before call {number}, {call}");
        result.unwrap_or_else(|e| panic!("{case}: {e:?}"));
        let mut keep = KEEP.to_vec();
        match answer.lock().unwrap().take().unwrap() {
            Ok(_) => {
                accepted.fetch_add(1, Ordering::SeqCst);
                keep.push(OLD_DUMPS);
            }
            Err(_) => {
                refused.fetch_add(1, Ordering::SeqCst);
                assert!(!place.states().contains_key(OLD_DUMPS), "{case}");
            }
        }
        assert_sound(&place, &before, &keep, &case);
        true
    });
    assert!(accepted.into_inner() > 10 && refused.into_inner() > 3);
}

#[test]
fn dumps_that_lack_anything_are_no_reason_to_drop_others() {
    let place = Place::with_dumps();
    for object in ["globals.sql.zst", "a%2Fb.dump", "app.dump.0001", "config.tar.zst"] {
        let file = place.folder(NEW_DUMPS).join(object);
        let bytes = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        let states = place.states();
        assert!(
            matches!(&states[NEW_DUMPS], BackupState::Broken(why) if why.contains(object)),
            "{object}: {states:?}"
        );
        assert_eq!(states[OLD_DUMPS], BackupState::Good);
        // The safety that every plan passes takes the older ones for the last now.
        let error = place.prune(KEEP).unwrap_err();
        assert!(error.message.contains("the newest good logical one"), "{error:?}");
        std::fs::write(&file, bytes).unwrap();
    }
    std::fs::remove_file(place.folder(NEW_DUMPS).join("config.tar.zst.index")).unwrap();
    assert_eq!(place.states()[NEW_DUMPS], BackupState::Good, "a backup does without indexes");
}
