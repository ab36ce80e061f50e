//! Tests of the archiver's engine, without a server.

use super::*;
use crate::postgres::wal_segment::SegmentName;
use crate::wal::index::{self, Index};
use crate::wal::index_line::FileFacts;
use crate::wal::store_fixture::{Place, name, size};
use pg_ark_contract::Error;
use pg_ark_contract::conversation::Reply;
use pg_ark_testkit::{SHORT, wait_until};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

/// A running engine.
struct Engine {
    session: Arc<Session>,
    events: Mutex<Receiver<Event>>,
    thread: Option<std::thread::JoinHandle<Error>>,
}

impl Engine {
    fn start(place: &Place, jobs: u32) -> Self {
        let (sender, events) = channel();
        let session = Arc::new(Session::new(move |event| sender.send(event).unwrap_or_default()));
        let (url, task, ours) = (place.url(), place.task(jobs), Arc::clone(&session));
        let thread = std::thread::spawn(move || match run(&url, "main", &task, &ours) {
            Err(reason) => reason,
        });
        let engine = Engine { session, events: Mutex::new(events), thread: Some(thread) };
        assert_eq!(engine.next(), Event::Ready);
        engine
    }

    fn next(&self) -> Event {
        self.events.lock().unwrap().recv_timeout(SHORT).expect("an event")
    }

    fn ask(&self, file: &str) -> std::result::Result<(), Error> {
        self.session.deliver(Reply::Archive { file: file.into() });
        match self.next() {
            Event::Archived { file: stored } if stored == file => Ok(()),
            Event::ArchiveFailed { file: failed, error } if failed == file => Err(error),
            other => panic!("{other:?}"),
        }
    }

    fn stop(mut self) {
        self.session.stop(Error::new(ErrorKind::ParentGone, "gone"));
        let reason = self.thread.take().unwrap().join().unwrap();
        assert_eq!(reason.kind, ErrorKind::ParentGone);
    }
}

fn indexed(place: &Place) -> Vec<u64> {
    let archive = place.archive();
    let path = archive.index_path(pg_ark_contract::Timeline(1), 0);
    Index::load(archive.storage(), &path, size()).unwrap().iter().map(|(number, _)| number).collect()
}

fn archived(place: &Place, name: &str) {
    let status = place.pg_wal().join("archive_status");
    std::fs::rename(status.join(format!("{name}.ready")), status.join(format!("{name}.done"))).unwrap();
}

#[test]
fn files_that_wait_are_stored_before_they_are_asked_for() {
    let place = Place::new();
    let names: Vec<String> = (1..=100).map(|number| place.segment(number)).collect();
    let engine = Engine::start(&place, 2);
    engine.ask(&names[0]).unwrap();
    archived(&place, &names[0]);
    wait_until("the look-ahead", SHORT, || place.stored(&names[20]).is_some());
    for name in &names[1..] {
        engine.ask(name).unwrap();
        archived(&place, name);
    }
    wait_until("the index", SHORT, || indexed(&place).len() == 100);
    engine.stop();
    assert!(place.objects().iter().all(|name| !name.contains('#')), "{:?}", place.objects());
}

#[test]
fn no_more_than_some_are_stored_ahead() {
    let place = Place::new();
    let names: Vec<String> = (1..=200).map(|number| place.segment(number)).collect();
    let engine = Engine::start(&place, 4);
    engine.ask(&names[0]).unwrap();
    let stored = || place.objects().iter().filter(|name| name.ends_with(".zst")).count();
    wait_until("the look-ahead", SHORT, || stored() >= 60);
    engine.stop();
    assert!(stored() <= 1 + super::super::ahead::MAX_AHEAD, "{}", stored());
}

#[test]
fn the_index_is_written_when_the_engine_is_stopped_and_completed_after_it_was_killed() {
    let place = Place::new();
    let names: Vec<String> = (1..=30).map(|number| place.segment(number)).collect();
    // As a killed engine leaves them.
    for name in &names[..29] {
        super::super::store::store(&place.archive(), &place.source(), name, Default::default()).unwrap();
        archived(&place, name);
    }
    assert!(indexed(&place).is_empty());
    let engine = Engine::start(&place, 2);
    engine.ask(&names[29]).unwrap();
    wait_until("the completed index", SHORT, || indexed(&place).len() == 30);
    let last = place.segment(31);
    engine.ask(&last).unwrap();
    engine.stop();
    assert_eq!(indexed(&place), (1..=31).collect::<Vec<u64>>());
}

#[test]
fn lost_indexes_are_made_anew_however_many_segments_they_name() {
    const SEGMENTS: u64 = 600;
    const HISTORY: &[u8] = b"1\t0/100000\tno reason\n";
    let place = Place::new();
    for number in 1..=SEGMENTS {
        let name = place.segment(number);
        super::super::store::store(&place.archive(), &place.source(), &name, Default::default()).unwrap();
        archived(&place, &name);
    }
    let archive = place.archive();
    // One that cannot be read keeps none of the others out.
    let broken = archive.find(&name(SEGMENTS - 9)).unwrap().unwrap().path;
    archive.storage().put(&broken, b"broken".to_vec()).unwrap();
    archive.storage().put(&archive.path("00000002.history").unwrap(), HISTORY.to_vec()).unwrap();
    let engine = Engine::start(&place, 2);
    engine.ask(&place.segment(SEGMENTS + 1)).unwrap();
    wait_until("all lines", pg_ark_testkit::LONG, || indexed(&place).len() as u64 == SEGMENTS);
    assert!(!indexed(&place).contains(&(SEGMENTS - 9)));
    assert_eq!(line(&place, "00000002.history"), Some(FileFacts::of(HISTORY)), "the server has it no more");
    engine.stop();
}

#[test]
fn a_repository_that_comes_late_is_used_then() {
    let place = Place::new();
    let (root, away) = (place.dir.path().join("backups"), place.dir.path().join("away"));
    std::fs::rename(&root, &away).unwrap();
    let file = place.segment(1);
    let engine = Engine::start(&place, 1);
    let is_away = |file: &str| {
        let error = engine.ask(file).unwrap_err();
        assert_eq!(error.kind, ErrorKind::RepositoryNotFound);
        // Whoever makes one below the mount point hides the one that is away.
        let hint = error.hint.unwrap();
        assert!(hint.contains("mount it") && !hint.contains("ark.enable"), "{hint}");
        assert!(!root.exists());
    };
    for _ in 0..2 {
        is_away(&file);
    }
    std::fs::rename(&away, &root).unwrap();
    engine.ask(&file).unwrap();
    std::fs::rename(&root, &away).unwrap();
    let next = place.segment(2);
    for _ in 0..3 {
        is_away(&next);
    }
    std::fs::rename(&away, &root).unwrap();
    engine.ask(&next).unwrap();
    engine.stop();
}

#[test]
fn a_name_that_another_server_took_is_refused() {
    let place = Place::new();
    let file = place.segment(1);
    let engine = Engine::start(&place, 1);
    engine.ask(&file).unwrap();
    engine.stop();
    place.repository.cluster("main").unwrap().remember_system(8, 150_000).unwrap();
    let engine = Engine::start(&place, 1);
    assert_eq!(engine.ask(&file).unwrap_err().kind, ErrorKind::ForeignCluster);
    engine.stop();
}

#[test]
fn a_failure_is_told_for_the_file_that_was_asked_for_alone() {
    let place = Place::new();
    let names: Vec<String> = (1..=5).map(|number| place.segment(number)).collect();
    place.put(&names[1], b"short");
    let engine = Engine::start(&place, 3);
    engine.ask(&names[0]).unwrap();
    assert_eq!(engine.ask(&names[1]).unwrap_err().kind, ErrorKind::Corrupt);
    assert_eq!(engine.ask("nonsense").unwrap_err().kind, ErrorKind::InvalidArgument);
    assert_eq!(engine.ask(&name(9)).unwrap_err().kind, ErrorKind::WalMissing);
    for number in 1..=4 {
        place.segment(number);
    }
    for name in &names[1..] {
        engine.ask(name).unwrap();
    }
    engine.stop();
}

#[test]
fn wal_push_stores_its_file_and_as_many_more_as_there_are_threads() {
    let place = Place::new();
    let names: Vec<String> = (1..=5).map(|number| place.segment(number)).collect();
    let session = Session::new(|event| panic!("{event:?}"));
    let route = open(&place.url(), "main", &place.task(3), &session).unwrap();
    push(&route, &names[0], &session).unwrap();
    let stored: Vec<bool> = names.iter().map(|name| place.stored(name).is_some()).collect();
    assert_eq!(stored, [true, true, true, false, false]);
    assert_eq!(indexed(&place), [1, 2, 3]);
    for name in &names[1..] {
        push(&route, name, &session).unwrap();
    }
    assert_eq!(push(&route, &name(9), &session).unwrap_err().kind, ErrorKind::WalMissing);
}

#[test]
fn the_keeper_makes_a_damaged_index_anew() {
    let place = Place::new();
    let archive = place.archive();
    let path = archive.index_path(pg_ark_contract::Timeline(1), 0);
    archive.storage().put(&path, vec![b'x'; 20 << 20]).unwrap();
    let engine = Engine::start(&place, 1);
    engine.ask(&place.segment(1)).unwrap();
    wait_until("the index", SHORT, || {
        archive.storage().size(&path).unwrap().is_some_and(|bytes| bytes < 1000) && indexed(&place) == [1]
    });
    engine.stop();
    assert!(SegmentName::parse(&name(1), size()).is_some());
}

#[test]
fn files_that_are_never_asked_for_take_no_room_for_ever() {
    let place = Place::new();
    let names: Vec<String> = (1..=150).map(|number| place.segment(number)).collect();
    let engine = Engine::start(&place, 2);
    engine.ask(&names[0]).unwrap();
    let ahead = super::super::ahead::MAX_AHEAD;
    wait_until("the look-ahead", SHORT, || place.stored(&names[ahead - 1]).is_some());
    // Somebody takes them out of the server's queue.
    for name in &names[..ahead] {
        archived(&place, name);
    }
    for name in &names[ahead..2 * ahead] {
        engine.ask(name).unwrap();
        archived(&place, name);
    }
    wait_until("the look-ahead to go on", SHORT, || place.stored(&names[149]).is_some());
    engine.stop();
}

#[test]
fn histories_from_before_the_server_archived_are_stored_too() {
    let place = Place::new();
    let history = |timeline: u32| -> Vec<u8> {
        (1..timeline).flat_map(|n| format!("{n}\t0/{n}00000\tno reason\n").into_bytes()).collect()
    };
    place.put("00000002.history", &history(2));
    place.put("00000003.history", &history(3));
    place.put("00000004.history", b"nonsense\n");
    place.put("0000000A.history.tmp", &history(2));
    let engine = Engine::start(&place, 1);
    engine.session.deliver(Reply::Archive { file: place.segment(1) });
    let Event::Warning { message, .. } = engine.next() else { panic!("a warning") };
    assert!(message.contains("00000004.history"), "{message}");
    assert_eq!(engine.next(), Event::Archived { file: name(1) });
    let read = |name: &str| place.archive().read_plain(name).unwrap();
    assert_eq!(read("00000002.history"), Some(history(2)));
    assert_eq!(read("00000003.history"), Some(history(3)));
    assert_eq!(read("00000004.history"), None);
    engine.stop();
    // Another server's is not replaced, and keeps no file from being stored.
    std::fs::remove_file(place.pg_wal().join("00000004.history")).unwrap();
    place.put("00000003.history", &history(2));
    let engine = Engine::start(&place, 1);
    engine.session.deliver(Reply::Archive { file: place.segment(2) });
    let Event::Warning { message, hint } = engine.next() else { panic!("a warning") };
    assert!(message.contains("00000003.history") && message.contains("other content"), "{message}");
    assert!(hint.is_some());
    assert_eq!(engine.next(), Event::Archived { file: name(2) });
    assert_eq!(read("00000003.history"), Some(history(3)));
    engine.stop();
}

#[test]
fn wal_push_stores_the_histories_that_its_file_needs() {
    let place = Place::new();
    let session = Session::new(|event| panic!("{event:?}"));
    let route = open(&place.url(), "main", &place.task(1), &session).unwrap();
    place.put("00000002.history", b"1\t0/100000\tno reason\n");
    push(&route, &place.segment(1), &session).unwrap();
    let stored = || place.archive().find("00000002.history").unwrap().is_some();
    assert!(!stored(), "timeline 1 has none");
    let file = name(2).replacen("00000001", "00000002", 1);
    let mut wal = crate::wal::store_fixture::segment(2, 1);
    // Timeline of the first page (XLogPageHeaderData, access/xlog_internal.h).
    wal[4] = 2;
    place.put(&file, &wal);
    push(&route, &file, &session).unwrap();
    assert!(stored());
}

/// What the index beside a file that is stored as it is says about it.
fn line(place: &Place, name: &str) -> Option<FileFacts> {
    index::beside(&place.archive(), name).unwrap().and_then(|index| index.file(name))
}

#[test]
fn promise_6_histories_and_backup_histories_have_lines_that_prove_them() {
    const HISTORY: (&str, &[u8]) = ("00000002.history", b"1\t0/100000\tno reason\n");
    let place = Place::new();
    let backup = (&format!("{}.00000028.backup", name(1))[..], &b"START WAL LOCATION: 0/100028\n"[..]);
    for (file, content) in [HISTORY, backup] {
        place.put(file, content);
    }
    let engine = Engine::start(&place, 1);
    engine.ask(&place.segment(1)).unwrap();
    engine.ask(backup.0).unwrap();
    wait_until("the lines", SHORT, || line(&place, HISTORY.0).is_some() && line(&place, backup.0).is_some());
    engine.stop();
    for (file, content) in [HISTORY, backup] {
        assert_eq!(line(&place, file), Some(FileFacts::of(content)));
    }
    assert_eq!(indexed(&place), [1]);
    // Two writers may overwrite each other's lines.
    let storage = place.repository.storage();
    storage.delete(&place.archive().index_beside(HISTORY.0).unwrap()).unwrap();
    let engine = Engine::start(&place, 1);
    engine.ask(&place.segment(2)).unwrap();
    wait_until("the line", SHORT, || line(&place, HISTORY.0) == Some(FileFacts::of(HISTORY.1)));
    engine.stop();
    // The server's own copy shows which of two is damaged.
    let session = Session::new(|_| ());
    let route = open(&place.url(), "main", &place.task(1), &session).unwrap();
    for (file, content) in [HISTORY, backup] {
        storage.put(&place.archive().path(file).unwrap(), content[..9].to_vec()).unwrap();
        let error = push(&route, file, &session).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Corrupt, "{file}: {error}");
        assert!(error.hint.unwrap().contains("stored again"));
        storage.delete(&place.archive().path(file).unwrap()).unwrap();
        push(&route, file, &session).unwrap();
        assert_eq!(place.archive().read_proven(file).unwrap().as_deref(), Some(content));
    }
}
