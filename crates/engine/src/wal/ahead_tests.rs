//! Tests of the threads that store.

use super::*;
use crate::wal::store_fixture::{Place, name, segment};
use std::sync::atomic::{AtomicUsize, Ordering};

fn route(place: &Place, jobs: usize) -> Route {
    Route {
        repository: place.repository.clone(),
        archive: place.archive(),
        source: place.source(),
        compression: Compression::default(),
        jobs,
    }
}

fn with<T>(route: &Route, body: impl FnOnce(&Ahead<'_>) -> T) -> T {
    let ahead = Ahead::new(route, &|_, _| ());
    std::thread::scope(|scope| {
        ahead.start(scope).unwrap();
        let result = body(&ahead);
        ahead.close();
        result
    })
}

fn ask(ahead: &Ahead<'_>, name: &str) -> Result<()> {
    ahead.submit(name);
    ahead.wait(&|| Ok(()))
}

#[test]
fn files_are_stored_in_order_whatever_the_number_of_threads() {
    for jobs in [1, 2, 7] {
        let place = Place::new();
        let names: Vec<String> = (1..=40).map(|number| place.segment(number)).collect();
        let route = route(&place, jobs);
        let order = Mutex::new(Vec::new());
        let stored = |name: &str, outcome: &Outcome| {
            assert_eq!(outcome.summary.as_ref().map(|summary| summary.commits), Some(1));
            order.lock().unwrap().push(name.to_string());
        };
        let ahead = Ahead::new(&route, &stored);
        std::thread::scope(|scope| {
            ahead.start(scope).unwrap();
            ahead.submit(&names[0]);
            ahead.extend(names[1..].to_vec());
            ahead.wait(&|| Ok(())).unwrap();
            assert!(ahead.room() < MAX_AHEAD);
            for name in &names[1..] {
                ask(&ahead, name).unwrap();
            }
            assert_eq!(ahead.room(), MAX_AHEAD);
            ahead.close();
        });
        assert_eq!(*order.lock().unwrap(), names);
        for number in 1..=40 {
            assert_eq!(place.stored(&name(number)).unwrap(), segment(number, 1));
        }
    }
}

#[test]
fn a_file_that_was_not_asked_for_fails_in_silence_and_nothing_passes_it() {
    let place = Place::new();
    let route = route(&place, 3);
    let names: Vec<String> = (1..=6).map(|number| place.segment(number)).collect();
    place.put(&names[2], b"short");
    with(&route, |ahead| {
        ahead.submit(&names[0]);
        ahead.extend(names[1..].to_vec());
        ahead.wait(&|| Ok(())).unwrap();
        ahead.drain();
        assert!(ahead.is_taken(&names[1]));
        assert!(!ahead.is_taken(&names[2]) && !ahead.is_taken(&names[3]), "forgotten");
        assert_eq!(place.stored(&names[3]), None, "a gap");
        ask(ahead, &names[1]).unwrap();
        assert_eq!(ask(ahead, &names[2]).unwrap_err().kind, ErrorKind::Corrupt);
        place.put(&names[2], &segment(3, 1));
        for name in &names[2..] {
            ask(ahead, name).unwrap();
        }
    });
}

#[test]
fn what_vanished_after_it_was_stored_is_stored_again() {
    let place = Place::new();
    let route = route(&place, 2);
    let names = [place.segment(1), place.segment(2)];
    with(&route, |ahead| {
        ahead.submit(&names[0]);
        ahead.extend(names[1..].to_vec());
        ahead.wait(&|| Ok(())).unwrap();
        ahead.drain();
        let path = route.archive.find(&names[1]).unwrap().unwrap().path;
        route.archive.storage().delete(&path).unwrap();
        ask(ahead, &names[1]).unwrap();
        assert!(place.stored(&names[1]).is_some());
    });
}

#[test]
fn a_repository_that_is_gone_or_another_is_not_filled() {
    let place = Place::new();
    let route = route(&place, 2);
    let root = place.repository.storage().folder().to_path_buf();
    let names = [place.segment(1), place.segment(2)];
    with(&route, |ahead| {
        ask(ahead, &names[0]).unwrap();
        // As an unmounted disk leaves its mount point.
        let away = place.dir.path().join("away");
        std::fs::rename(&root, &away).unwrap();
        std::fs::create_dir(&root).unwrap();
        let error = ask(ahead, &names[1]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::RepositoryNotFound, "{error}");
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
        Repository::open_or_create(&place.url()).unwrap();
        let error = ask(ahead, &names[1]).unwrap_err();
        assert!(error.message.contains("replaced by another"), "{error}");
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 1);
        std::fs::remove_dir_all(&root).unwrap();
        std::fs::rename(&away, &root).unwrap();
        ask(ahead, &names[1]).unwrap();
    });
}

#[test]
fn waiting_can_be_ended() {
    let place = Place::new();
    let route = route(&place, 1);
    let ahead = Ahead::new(&route, &|_, _| ());
    let looks = AtomicUsize::new(0);
    // No thread runs.
    ahead.submit(&place.segment(1));
    let stop = || match looks.fetch_add(1, Ordering::Relaxed) {
        0 => Ok(()),
        _ => Err(Error::new(ErrorKind::Cancelled, "stop")),
    };
    assert_eq!(ahead.wait(&stop).unwrap_err().kind, ErrorKind::Cancelled);
}

#[test]
fn large_segments_are_prepared_one_at_a_time_and_small_ones_by_all() {
    let place = Place::new();
    let mut route = route(&place, 8);
    let jobs_of = |route: &Route| {
        let mut state = State::default();
        for number in 0..20 {
            let slot = state.slot(&name(number));
            state.line.push_back(slot);
        }
        std::iter::from_fn(|| state.next_job(route)).count()
    };
    assert_eq!(jobs_of(&route), 8);
    for (size, jobs) in [(64 << 20, 4), (256 << 20, 1), (1 << 30, 1)] {
        route.source.segment_size = pg_ark_contract::SegmentSize::new(size).unwrap();
        assert_eq!(jobs_of(&route), jobs, "{size}");
    }
}
