use super::*;
use crate::postgres::wal_fixture::SYSTEM_IDENTIFIER;
use crate::repository::Repository;
use crate::wal::get_fixture::{content, store, tl};
use crate::wal::store_fixture::{Place, size};
use pg_ark_testkit::{LONG, SHORT, wait_until};

fn ahead(place: &Place, number: u64, segments: u64) -> Ahead {
    let data = place.dir.path().join("data");
    std::fs::write(data.join("recovery.signal"), b"").unwrap();
    let pid = format!("{}\n/data\n1700000000\n5432\n", std::process::id());
    std::fs::write(data.join("postmaster.pid"), pid).unwrap();
    let recovery = Recovery::of(&data).unwrap();
    Ahead {
        spool: Spool::of(&place.pg_wal().join(".pg_ark_spool"), SYSTEM_IDENTIFIER, &recovery, &["x"]),
        data,
        recovery,
        asked: ExpectedSegment {
            name: tl(1, number),
            segment_size: size(),
            system_identifier: SYSTEM_IDENTIFIER,
            server_major: Some(15),
        },
        bytes: segments * size().bytes(),
        jobs: 2,
    }
}

/// Runs it while `during` lasts, then ends the recovery; fails unless it ends by itself and leaves nothing.
fn with(place: &Place, ahead: &Ahead, during: impl FnOnce()) {
    let url = place.url();
    let open = || {
        let repository = Repository::open(&url)?;
        Ok((repository.id().to_string(), repository.cluster("main")?))
    };
    std::thread::scope(|scope| {
        let process = scope.spawn(|| run(ahead, &open));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(during));
        let _ = std::fs::remove_file(ahead.data.join("recovery.signal"));
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
        wait_until("its end", SHORT, || process.is_finished());
        process.join().unwrap().unwrap();
    });
    assert!(!place.pg_wal().join(".pg_ark_spool").exists());
}

fn segments(ahead: &Ahead) -> Vec<String> {
    let entries = std::fs::read_dir(ahead.spool.folder()).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> =
        names.filter(|name| crate::postgres::wal_segment::is_segment(name)).collect();
    names.sort();
    names
}

fn names(timeline: u32, numbers: std::ops::RangeInclusive<u64>) -> Vec<String> {
    numbers.map(|number| tl(timeline, number).file_name(size())).collect()
}

#[test]
fn it_keeps_ahead_and_within_its_bound() {
    let place = Place::new();
    for number in 1..=9 {
        store(&place, 1, number);
    }
    for number in 5..=6 {
        store(&place, 2, number);
    }
    let ahead = ahead(&place, 1, 3);
    let destination = place.pg_wal().join("RECOVERYXLOG");
    with(&place, &ahead, || {
        wait_until("the first ones", LONG, || segments(&ahead) == names(1, 2..=4));
        for number in 2..=5 {
            let expected = ExpectedSegment { name: tl(1, number), ..ahead.asked };
            let name = expected.name.file_name(size());
            assert!(ahead.spool.take(&name, &expected, &destination));
            assert!(std::fs::read(&destination).unwrap() == content(1, number));
            assert!(ahead.spool.tell(&name));
            wait_until("the next one", LONG, || {
                let now = segments(&ahead);
                assert!(now.len() <= 3, "{now:?}");
                now == names(1, number + 1..=number + 3)
            });
        }
        // Back, as for the segment of the redo record; then to the end; then to another timeline.
        assert!(ahead.spool.tell(&tl(1, 3).file_name(size())));
        wait_until("those behind it", LONG, || segments(&ahead) == names(1, 4..=6));
        assert!(ahead.spool.tell(&tl(1, 8).file_name(size())));
        wait_until("the last one", LONG, || segments(&ahead) == names(1, 9..=9));
        assert!(ahead.spool.tell(&tl(2, 4).file_name(size())));
        wait_until("the other timeline", LONG, || segments(&ahead) == names(2, 5..=6));
        // What comes later is seen when somebody asks.
        store(&place, 2, 7);
        assert!(ahead.spool.tell(&tl(2, 5).file_name(size())));
        wait_until("the new one", LONG, || segments(&ahead) == names(2, 6..=7));
    });
}

#[test]
fn it_stops_before_what_is_not_there_or_not_sound() {
    let place = Place::new();
    for number in [2, 4, 5] {
        store(&place, 1, number);
    }
    let damaged = store(&place, 1, 6);
    std::fs::write(&damaged, b"nonsense").unwrap();
    let ahead = ahead(&place, 1, 8);
    with(&place, &ahead, || {
        wait_until("what is before the gap", LONG, || segments(&ahead).contains(&names(1, 2..=2)[0]));
        assert!(ahead.spool.tell(&tl(1, 3).file_name(size())));
        wait_until("what is behind it", LONG, || segments(&ahead) == names(1, 4..=5));
        assert!(ahead.spool.tell("nonsense"));
        assert!(ahead.spool.tell(&tl(1, 4).file_name(size())));
        wait_until("what was asked for is dropped", LONG, || segments(&ahead) == names(1, 5..=5));
    });
}

#[test]
fn it_does_not_begin_for_a_recovery_that_is_over() {
    let place = Place::new();
    store(&place, 1, 2);
    let mut old = ahead(&place, 1, 3);
    old.recovery.started += 1;
    let open = || -> Result<Opened> { panic!("nothing is opened") };
    assert_eq!(run(&old, &open).unwrap_err().kind, ErrorKind::ParentGone);
    assert!(!place.pg_wal().join(".pg_ark_spool").exists());
}
