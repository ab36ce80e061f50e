use super::*;
use crate::postgres::wal_fixture::SYSTEM_IDENTIFIER;
use crate::wal::get_fixture::{content, tl};
use crate::wal::store_fixture::size;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

const NAME: &str = "000000010000000000000004";

fn recovery(started: u64) -> Recovery {
    Recovery { postmaster: 42, started }
}

fn expected() -> ExpectedSegment {
    ExpectedSegment {
        name: tl(1, 4),
        segment_size: size(),
        system_identifier: SYSTEM_IDENTIFIER,
        server_major: Some(15),
    }
}

fn put(filling: &Filling, name: &str, bytes: &[u8]) {
    let mut part = filling.begin(name).unwrap();
    part.write(bytes).unwrap();
    part.finish().unwrap();
}

#[test]
fn another_recovery_cluster_or_repository_has_another_spool() {
    let base = Path::new("/x");
    let spools = [
        Spool::of(base, 1, &recovery(1), &["a", "b"]),
        Spool::of(base, 2, &recovery(1), &["a", "b"]),
        Spool::of(base, 1, &recovery(2), &["a", "b"]),
        Spool::of(base, 1, &Recovery { postmaster: 43, started: 1 }, &["a", "b"]),
        Spool::of(base, 1, &recovery(1), &["ab", ""]),
        Spool::of(base, 1, &recovery(1), &["a", ""]),
    ];
    let names: std::collections::BTreeSet<&Path> = spools.iter().map(Spool::folder).collect();
    assert_eq!(names.len(), spools.len());
    assert!(names.iter().all(|path| is_key(path.file_name().unwrap().to_str().unwrap())));
    for other in ["", "data", "1-2-3", "1-2-x-0011223344556677", "1-2-3-4-0011223344556677"] {
        assert!(!is_key(other), "{other}");
    }
}

#[test]
fn what_is_whole_is_taken_once() {
    let folder = tempfile::tempdir().unwrap();
    let (base, destination) = (folder.path().join("s"), folder.path().join("RECOVERYXLOG"));
    let spool = Spool::of(&base, 1, &recovery(1), &[]);
    assert!(!spool.take(NAME, &expected(), &destination), "there is none");
    assert!(!spool.tell(NAME));
    let filling = spool.fill().unwrap().unwrap();
    assert!(spool.fill().unwrap().is_none(), "one fills it");
    assert!(!spool.tell(NAME), "nobody listens yet");
    put(&filling, NAME, &content(1, 4));
    assert!(spool.take(NAME, &expected(), &destination));
    assert!(std::fs::read(&destination).unwrap() == content(1, 4));
    assert_eq!(std::fs::metadata(&destination).unwrap().mode() & 0o777, 0o600);
    assert!(!spool.take(NAME, &expected(), &destination));

    // What is not what it should be is not handed over, and goes.
    std::fs::remove_file(&destination).unwrap();
    let mut foreign = content(1, 4);
    foreign[24] ^= 1;
    for bad in [&content(1, 5), &foreign, &content(1, 4)[..1000].to_vec(), &Vec::new()] {
        put(&filling, NAME, bad);
        assert!(!spool.take(NAME, &expected(), &destination));
        assert!(!spool.folder().join(NAME).exists() && !destination.exists());
    }

    let mut fifo = filling.listen().unwrap();
    assert!(spool.tell(NAME));
    let mut heard = [0; 100];
    let count = fifo.read(&mut heard).unwrap();
    assert_eq!(&heard[..count], format!("{NAME}\n").as_bytes());
    drop((fifo, filling));
    assert!(!base.exists(), "it goes with its process");
}

#[test]
fn a_segment_that_is_being_fetched_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let destination = folder.path().join("RECOVERYXLOG");
    let spool = Spool::of(&folder.path().join("s"), 1, &recovery(1), &[]);
    let filling = spool.fill().unwrap().unwrap();
    for dies in [false, true] {
        let mut part = filling.begin(NAME).unwrap();
        let taken = std::thread::scope(|scope| {
            let taker = scope.spawn(|| spool.take(NAME, &expected(), &destination));
            std::thread::park_timeout(Duration::from_millis(200));
            assert!(!taker.is_finished(), "it does not wait");
            part.write(&content(1, 4)).unwrap();
            match dies {
                true => drop(part),
                false => part.finish().unwrap(),
            }
            taker.join().unwrap()
        });
        assert_eq!(taken, !dies);
    }
}

#[test]
fn spools_of_the_dead_are_removed_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let of = |started| Spool::of(folder.path(), 1, &recovery(started), &[]);
    let (dead, alive, own) = (of(1), of(2), of(3));
    std::fs::create_dir(dead.folder()).unwrap();
    std::fs::write(dead.folder().join(NAME), b"x").unwrap();
    std::fs::write(dead.folder().join("lock"), b"").unwrap();
    std::fs::create_dir(folder.path().join("mine")).unwrap();
    let filled = alive.fill().unwrap().unwrap();
    let filling = own.fill().unwrap().unwrap();
    assert!(!dead.folder().exists() && alive.folder().exists() && folder.path().join("mine").exists());
    drop((filled, filling));
    assert!(folder.path().join("mine").exists());

    std::fs::create_dir(own.folder()).unwrap();
    std::fs::write(own.folder().join("lock"), b"").unwrap();
    own.sweep();
    assert!(!own.folder().exists());
}

#[test]
fn a_spool_that_others_can_write_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let destination = folder.path().join("RECOVERYXLOG");
    let spool = Spool::of(folder.path(), 1, &recovery(1), &[]);
    std::fs::create_dir(spool.folder()).unwrap();
    std::fs::write(spool.folder().join(NAME), content(1, 4)).unwrap();
    std::fs::set_permissions(spool.folder(), std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(!spool.take(NAME, &expected(), &destination));
    assert_eq!(spool.fill().err().unwrap().kind, ErrorKind::PermissionDenied);
    std::fs::set_permissions(spool.folder(), std::fs::Permissions::from_mode(0o700)).unwrap();
    assert!(spool.take(NAME, &expected(), &destination));
}

#[test]
fn a_recovery_is_that_of_a_running_postmaster() {
    let data = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(data.path().join(name), text).unwrap();
    put("postmaster.pid", "42\n/data\n1700000000\n5432\n");
    assert_eq!(Recovery::of(data.path()), None, "it does not recover");
    put("standby.signal", "");
    assert_eq!(Recovery::of(data.path()), Some(recovery(1_700_000_000)));
    for text in ["", "42\n", "x\n/data\n1\n", "-42\n/data\n1\n", "0\n/data\n1\n", "42\n/data\nx\n"] {
        put("postmaster.pid", text);
        assert_eq!(Recovery::of(data.path()), None, "{text}");
    }
}
