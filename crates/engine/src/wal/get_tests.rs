use super::*;
use crate::postgres::wal_fixture::SYSTEM_IDENTIFIER;
use crate::repository::Repository;
use crate::wal::get_fixture::{content, plain, store, store_as, tl};
use crate::wal::store_fixture::{Place, size};
use std::cell::Cell;
use std::os::unix::fs::PermissionsExt;

/// A server that asks, as PostgreSQL does.
struct Asker<'a> {
    place: &'a Place,
    data: PathBuf,
    system: Option<u64>,
    started: Cell<u32>,
}

impl<'a> Asker<'a> {
    fn new(place: &'a Place) -> Self {
        Asker { place, data: place.dir.path().join("data"), system: None, started: Cell::new(0) }
    }

    fn destination(&self) -> PathBuf {
        self.place.pg_wal().join("RECOVERYXLOG")
    }

    fn ask(&self, name: &str) -> Result<Answer> {
        let url = self.place.url();
        let open = || {
            let repository = Repository::open(&url)?;
            Ok((repository.id().to_string(), repository.cluster("main")?))
        };
        get(&Request {
            data: self.data.clone(),
            name,
            destination: self.destination(),
            system_identifier: self.system,
            spool: None,
            spool_bytes: 8 << 20,
            jobs: 2,
            origin: vec![&url, "main"],
            open: &open,
            start: &|| self.started.set(self.started.get() + 1),
        })
    }

    fn segment(&self, timeline: u32, number: u64) -> Result<Answer> {
        self.ask(&tl(timeline, number).file_name(size()))
    }

    /// A fault: its kind, and nothing at the destination.
    #[track_caller]
    fn fault(&self, name: &str) -> Error {
        let error = self.ask(name).unwrap_err();
        assert!(!self.destination().exists(), "{error}");
        let left = std::fs::read_dir(self.place.pg_wal()).unwrap().flatten();
        let left: Vec<_> =
            left.map(|entry| entry.file_name()).filter(|name| name != "archive_status").collect();
        assert!(left.is_empty(), "{left:?}");
        error
    }
}

#[test]
fn what_is_there_is_handed_over() {
    let place = Place::new();
    let asker = Asker::new(&place);
    store(&place, 1, 3);
    store(&place, 2, 6);
    plain(&place, "00000002.history", "1\t0/500100\tx\n");
    for (timeline, number) in [(1, 3), (2, 6), (1, 3)] {
        std::fs::write(asker.destination(), b"what was there before").unwrap();
        assert_eq!(asker.segment(timeline, number), Ok(Answer::Delivered));
        assert!(std::fs::read(asker.destination()).unwrap() == content(timeline, number));
        let mode = std::fs::metadata(asker.destination()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    assert_eq!(asker.ask("00000002.history"), Ok(Answer::Delivered));
    assert_eq!(std::fs::read(asker.destination()).unwrap(), b"1\t0/500100\tx\n");
    assert_eq!(asker.started.get(), 0, "no server recovers here");

    // By hand, in a folder that is no data directory.
    let elsewhere = Asker { data: place.dir.path().to_path_buf(), ..Asker::new(&place) };
    for system in [None, Some(SYSTEM_IDENTIFIER)] {
        let elsewhere = Asker { system, data: place.dir.path().to_path_buf(), ..Asker::new(&place) };
        std::fs::remove_file(asker.destination()).unwrap();
        assert_eq!(elsewhere.segment(1, 3), Ok(Answer::Delivered), "the cluster's newest");
    }
    assert!(std::fs::read(asker.destination()).unwrap() == content(1, 3));
    assert_eq!(elsewhere.segment(2, 7), Ok(Answer::Absent));
}

#[test]
fn absent_means_proven_absent_and_every_fault_is_one() {
    let place = Place::new();
    let asker = Asker::new(&place);
    let name = |number| tl(1, number).file_name(size());
    // No archive at all.
    assert_eq!(asker.fault(&name(1)).kind, ErrorKind::RepositoryNotFound);
    let damaged = store(&place, 1, 1);
    store(&place, 1, 3);
    assert_eq!(asker.segment(1, 4), Ok(Answer::Absent));
    assert_eq!(asker.ask("00000002.history"), Ok(Answer::Absent));
    assert_eq!(asker.ask("000000010000000000000003.partial"), Ok(Answer::Absent));
    let gap = asker.fault(&name(2));
    assert_eq!(gap.kind, ErrorKind::WalMissing);
    assert!(gap.to_string().contains("000000010000000000000003"), "{gap}");

    let whole = std::fs::read(&damaged).unwrap();
    for bytes in
        [&whole[..whole.len() / 2], &whole[..0], &b"nonsense"[..], &[whole.as_slice(), &whole].concat()]
    {
        std::fs::write(&damaged, bytes).unwrap();
        let error = asker.fault(&name(1));
        assert_eq!(error.kind, ErrorKind::Corrupt, "{error}");
    }
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    std::fs::write(&damaged, &flipped).unwrap();
    assert_eq!(asker.fault(&name(1)).kind, ErrorKind::Corrupt);
    std::fs::write(&damaged, &whole).unwrap();
    assert_eq!(asker.segment(1, 1), Ok(Answer::Delivered));
    std::fs::remove_file(asker.destination()).unwrap();

    // Sound objects under a wrong name.
    store_as(&place, 1, 6, &content(1, 7));
    assert_eq!(asker.fault(&name(6)).kind, ErrorKind::Corrupt);
    let mut foreign = content(1, 8);
    foreign[24..32].copy_from_slice(&7u64.to_le_bytes());
    store_as(&place, 1, 8, &foreign);
    assert_eq!(asker.fault(&name(8)).kind, ErrorKind::ForeignCluster);
    store_as(&place, 1, 9, &content(1, 9)[..1 << 19]);
    assert_eq!(asker.fault(&name(9)).kind, ErrorKind::Corrupt);
    plain(&place, "00000003.history", "damaged");
    assert_eq!(asker.fault("00000003.history").kind, ErrorKind::Corrupt);
    // A damaged history might tell that there is more.
    assert_eq!(asker.fault(&name(10)).kind, ErrorKind::Corrupt);

    for bad in
        ["", "x", "../000000010000000000000001", "00000001000000000000000a", "000000010000000000001000"]
    {
        assert_eq!(asker.fault(bad).kind, ErrorKind::InvalidArgument, "{bad}");
    }
    let other = Asker { system: Some(7), ..Asker::new(&place) };
    assert_eq!(other.fault(&name(1)).kind, ErrorKind::ForeignCluster);
    let folder = place.repository.storage().folder().to_path_buf();
    std::fs::rename(&folder, place.dir.path().join("away")).unwrap();
    assert_eq!(asker.fault(&name(11)).kind, ErrorKind::RepositoryNotFound);
    std::fs::write(place.dir.path().join("data/global/pg_control"), b"short").unwrap();
    assert_eq!(asker.fault(&name(1)).kind, ErrorKind::Corrupt);
}

#[test]
fn a_history_that_only_the_server_has_is_read_there() {
    let place = Place::new();
    let asker = Asker::new(&place);
    store(&place, 3, 8);
    assert_eq!(asker.fault("00000003.history").kind, ErrorKind::WalMissing);
    for (text, found) in [("", false), ("nonsense", false), ("1\t0/500100\tx\n", true)] {
        place.put("00000003.history", text.as_bytes());
        assert_eq!(asker.ask("00000003.history") == Ok(Answer::Absent), found, "{text}");
    }
}

#[test]
fn a_siblings_segment_is_not_handed_over() {
    let place = Place::new();
    let asker = Asker::new(&place);
    store_as(&place, 3, 5, &content(1, 5));
    store_as(&place, 3, 6, &content(2, 6));
    let name = |number| tl(3, number).file_name(size());
    assert_eq!(asker.segment(3, 6), Ok(Answer::Delivered), "its history is not known");
    std::fs::remove_file(asker.destination()).unwrap();
    plain(&place, "00000003.history", "1\t0/500100\tx\n");
    let error = asker.fault(&name(6));
    assert_eq!(error.kind, ErrorKind::Corrupt);
    assert!(error.message.contains("of timeline 2, by the history of timeline 3"), "{error}");
    assert_eq!(asker.segment(3, 5), Ok(Answer::Delivered));
    std::fs::remove_file(asker.destination()).unwrap();
    // The server's own, as it has it when the archive does not.
    store_as(&place, 4, 7, &content(3, 7));
    place.put("00000004.history", b"1\t0/500100\tx\n3\t0/700000\tx\n");
    let error = asker.ask(&tl(4, 7).file_name(size())).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt, "{error}");
}

#[test]
fn a_history_that_only_others_need_is_no_fault() {
    let place = Place::new();
    let asker = Asker::new(&place);
    store(&place, 1, 3);
    plain(&place, "00000003.history", "1\t0/300100\tx\n");
    let asked = |settings: &str, options: &str| {
        std::fs::write(asker.data.join("postgresql.auto.conf"), settings).unwrap();
        std::fs::write(asker.data.join("postmaster.opts"), options).unwrap();
        asker.ask("00000002.history").map_err(|e| e.kind)
    };
    let lost = Err(ErrorKind::WalMissing);
    assert_eq!(asked("", ""), lost);
    for settings in [
        "recovery_target_timeline = '3'\n",
        "recovery_target_timeline='latest'\n recovery_target_timeline 3 # of ours\n",
    ] {
        assert_eq!(asked(settings, "postgres \"-D\" \"x\""), Ok(Answer::Absent));
        assert_eq!(asked(settings, "postgres \"-c\" \"recovery_target_timeline=latest\""), lost);
    }
    for settings in [
        "recovery_target_timeline = '2'",
        "recovery_target_timeline = 'latest'",
        "recovery_target_timeline = '3'\nrecovery_target_timeline = 'current'",
        "#recovery_target_timeline = '3'",
    ] {
        assert_eq!(asked(settings, ""), lost, "{settings}");
    }
}

#[test]
fn a_damaged_history_says_where_it_is() {
    let place = Place::new();
    let asker = Asker::new(&place);
    store(&place, 1, 3);
    let bytes = [&[0xFF_u8; 300][..], b"\x07\n"].concat();
    let path = place.archive().path("00000002.history").unwrap();
    place.archive().storage().create(&path, bytes).unwrap();
    let shown = place.archive().storage().display(&path);
    for name in ["00000002.history".to_string(), tl(1, 4).file_name(size())] {
        let error = asker.fault(&name);
        assert!(error.to_string().contains(&shown) && error.to_string().is_ascii(), "{error}");
        assert!(error.hint.is_some());
    }
    let large = vec![b'#'; usize::try_from(MAX_HISTORY).unwrap() + 1];
    place.archive().storage().put(&path, large).unwrap();
    let error = asker.fault("00000002.history");
    assert!(error.message.contains(&shown) && error.hint.is_some(), "{error}");
}

#[test]
fn a_segment_that_comes_late_is_no_gap() {
    let place = Place::new();
    let asker = Asker::new(&place);
    store(&place, 1, 1);
    store(&place, 1, 3);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::park_timeout(Duration::from_millis(300));
            store(&place, 1, 2);
        });
        assert_eq!(asker.segment(1, 2), Ok(Answer::Delivered));
    });
    // A standby asks again by itself, and is not kept waiting.
    std::fs::write(asker.data.join("standby.signal"), b"").unwrap();
    store(&place, 1, 5);
    let begun = Instant::now();
    std::fs::remove_file(asker.destination()).unwrap();
    assert_eq!(asker.fault(&tl(1, 4).file_name(size())).kind, ErrorKind::WalMissing);
    assert!(begun.elapsed() < PATIENCE);
}

#[test]
fn a_server_in_recovery_has_the_next_segments_fetched() {
    let place = Place::new();
    let asker = Asker::new(&place);
    for number in [1, 2] {
        store(&place, 1, number);
    }
    let file = |name: &str, text: &str| std::fs::write(asker.data.join(name), text).unwrap();
    file("recovery.signal", "");
    assert_eq!(asker.segment(1, 1), Ok(Answer::Delivered));
    assert_eq!(asker.started.get(), 0, "no server runs");
    file("postmaster.pid", &format!("{}\n/data\n1700000000\n5432\n", std::process::id()));
    assert_eq!(asker.segment(1, 1), Ok(Answer::Delivered));
    assert_eq!(asker.started.get(), 1);
    assert_eq!(asker.segment(1, 2), Ok(Answer::Delivered));
    assert_eq!(asker.started.get(), 1, "there is no next one");
    std::fs::remove_file(asker.data.join("recovery.signal")).unwrap();
    assert_eq!(asker.segment(1, 1), Ok(Answer::Delivered));
    assert_eq!(asker.started.get(), 1);
}

/// Enters a history in the index, as whoever stored it did.
fn enter(place: &Place, name: &str, content: &str) {
    let archive = place.archive();
    let path = archive.index_beside(name).unwrap();
    let mut index = crate::wal::index::Index::load(archive.storage(), &path, size()).unwrap();
    assert!(index.insert_file(name, crate::wal::index_line::FileFacts::of(content.as_bytes())));
    index.save(archive.storage(), &path).unwrap();
}

#[test]
fn promise_3_a_history_that_the_index_names_and_is_gone_is_a_fault() {
    const HISTORY: &str = "1\t0/400000\tno reason\n";
    let place = Place::new();
    store(&place, 1, 3);
    let asker = Asker::new(&place);
    assert_eq!(asker.ask("00000002.history").unwrap(), Answer::Absent);
    enter(&place, "00000002.history", HISTORY);
    let error = asker.fault("00000002.history");
    assert_eq!(error.kind, ErrorKind::WalMissing);
    assert!(error.detail.unwrap().contains("index.jsonl\" has its line"));
    assert_eq!(asker.ask("00000003.history").unwrap(), Answer::Absent);
    enter(&place, "00000003.history", HISTORY);
    assert_eq!(asker.fault("00000003.history").kind, ErrorKind::WalMissing);
    plain(&place, "00000002.history", HISTORY);
    assert_eq!(asker.ask("00000002.history").unwrap(), Answer::Delivered);
    // A damaged index is as good as none.
    std::fs::remove_file(asker.destination()).unwrap();
    let path = place.archive().index_beside("00000003.history").unwrap();
    place.archive().storage().put(&path, &b"{\"format\":1}\n{"[..]).unwrap();
    assert_eq!(asker.ask("00000003.history").unwrap(), Answer::Absent);
}

#[test]
fn promise_3_a_history_with_a_flipped_bit_is_not_handed_over() {
    const HISTORY: &str = "1\t0/400000\tno reason\n";
    let place = Place::new();
    store(&place, 1, 3);
    plain(&place, "00000002.history", &HISTORY.replace('4', "5"));
    let asker = Asker::new(&place);
    // It reads well, and nothing else speaks against it.
    assert_eq!(asker.ask("00000002.history").unwrap(), Answer::Delivered);
    std::fs::remove_file(asker.destination()).unwrap();
    enter(&place, "00000002.history", HISTORY);
    let error = asker.fault("00000002.history");
    assert_eq!(error.kind, ErrorKind::Corrupt);
    assert!(error.message.contains("is not what was stored"), "{error}");
}
