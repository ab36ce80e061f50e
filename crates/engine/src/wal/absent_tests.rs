use super::*;
use crate::wal::get_fixture::{plain, store, tl};
use crate::wal::index::Index;
use crate::wal::index_line::FileFacts;
use crate::wal::store_fixture::{Place, size};

fn look(place: &Place, timeline: u32, number: u64) -> Result<Verdict> {
    segment(&place.archive(), tl(timeline, number), size())
}

#[track_caller]
fn lost(verdict: Result<Verdict>, words: &[&str]) {
    let Verdict::Lost(error) = verdict.unwrap() else { panic!("it is not lost") };
    assert_eq!(error.kind, ErrorKind::WalMissing);
    assert!(error.hint.is_some());
    for word in words {
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
}

#[test]
fn absent_means_proven_absent_at_the_end_of_a_timeline() {
    let place = Place::new();
    for number in [3, 4, 5] {
        store(&place, 1, number);
    }
    assert_eq!(look(&place, 1, 6), Ok(Verdict::Absent));
    assert_eq!(look(&place, 1, 5000), Ok(Verdict::Absent), "beyond the folder");
    // A timeline that has nothing at all, as PostgreSQL asks for on its way through a history.
    assert_eq!(look(&place, 2, 6), Ok(Verdict::Absent));
    assert_eq!(look(&place, 1, 4), Ok(Verdict::Present), "it came after it was looked for");
}

#[test]
fn absent_means_proven_absent_not_a_gap() {
    let place = Place::new();
    for number in [3, 5, 5000] {
        store(&place, 1, number);
    }
    lost(look(&place, 1, 4), &["000000010000000000000004", "a later segment, 000000010000000000000005"]);
    // The later one is in the next folder.
    lost(look(&place, 1, 6), &["a later segment, 000000010000000100000388"]);
    lost(look(&place, 1, 1), &["000000010000000000000003"]);
    assert_eq!(look(&place, 1, 5001), Ok(Verdict::Absent));
    // A `.partial` is what a promotion left of a segment that never became whole; those before it did.
    let partial = place.archive().path("000000010000000100000389.partial").unwrap();
    let storage = place.archive().storage().clone();
    storage.create(&format!("{partial}.zst"), &b"x"[..]).unwrap();
    assert_eq!(look(&place, 1, 5001), Ok(Verdict::Absent));
    let partial = place.archive().path("00000001000000010000038A.partial").unwrap();
    storage.create(&format!("{partial}.zst"), &b"x"[..]).unwrap();
    lost(look(&place, 1, 5001), &["00000001000000010000038A.partial.zst"]);
}

/// A place with segments 3 to 5 of timeline 1, and the path of an object below the timeline's folder.
fn three() -> (Place, impl Fn(&str) -> std::path::PathBuf) {
    let place = Place::new();
    for number in [3, 4, 5] {
        store(&place, 1, number);
    }
    let root = place.repository.storage().folder().join(place.archive().folder());
    (place, move |path: &str| root.join(path))
}

#[test]
fn absent_means_proven_absent_without_a_trace() {
    const FIVE: &str = "00000001/00000000/000000010000000000000005";
    const BACKUP: &str = "000000010000000000000006.00000028.backup";
    let (place, path) = three();
    assert_eq!(look(&place, 1, 6), Ok(Verdict::Absent));
    std::fs::remove_file(path(&format!("{FIVE}.zst"))).unwrap();
    assert_eq!(look(&place, 1, 5), Ok(Verdict::Absent), "nothing is left of it");
    let line = r#"{"segment":"000000010000000000000005","commits":0,"first_time":null,"last_time":null,"#;
    let line = format!(
        r#"{line}"min_xid":null,"max_xid":null,"end_lsn":"0/500100","whole":true,"restore_points":[]}}"#
    );
    let index = path("00000001/00000000/index.jsonl");
    std::fs::write(index, format!("{{\"format\":1}}\n{line}\n")).unwrap();
    lost(look(&place, 1, 5), &["index.jsonl\" has its line", "000000010000000000000005"]);
    assert_eq!(look(&place, 1, 6), Ok(Verdict::Absent));
    // What a line says of other files counts as the files do.
    let partial = "000000010000000000000006.partial";
    for (file, number, is_lost) in
        [(partial, 6, false), (partial, 5, true), (BACKUP, 6, true), (BACKUP, 7, false)]
    {
        let (place, path) = three();
        let index = place.archive().index_path(Timeline(1), 0);
        let mut lines = Index::load(place.archive().storage(), &index, size()).unwrap();
        assert!(lines.insert_file(file, FileFacts::of(b"")));
        lines.save(place.archive().storage(), &index).unwrap();
        std::fs::remove_file(path(&format!("{FIVE}.zst"))).unwrap();
        match is_lost {
            true => lost(look(&place, 1, number), &["index.jsonl\" has its line", file]),
            false => assert_eq!(look(&place, 1, number), Ok(Verdict::Absent), "{file}"),
        }
    }
    // The newest segment is under a name that is not its own, or something else is under its name.
    for name in [
        format!("{FIVE}.zst.bak"),
        FIVE.to_string(),
        format!("{FIVE}.zst.part"),
        format!("{FIVE}.00000028.backup"),
        "00000001/00000000/000000010000000000000009.ZST".to_string(),
        "00000001/00000000/00000001000000000000000a.zst".to_string(),
        "00000001/00000000/00000001000000000000000b".to_string(),
        "00000001/00000001".to_string(),
        "00000001/00000000.old".to_string(),
        "00000001.tar".to_string(),
    ] {
        let (place, path) = three();
        std::fs::remove_file(path(&format!("{FIVE}.zst"))).unwrap();
        std::fs::write(path(&name), b"x").unwrap();
        let last = name.rsplit('/').next().unwrap().to_string();
        lost(look(&place, 1, 5), &[&last]);
    }
    for name in [format!("{FIVE}.zst"), "00000001.old".to_string(), "00000001/00000000.old".to_string()] {
        let (place, path) = three();
        let _ = std::fs::remove_file(path(&format!("{FIVE}.zst")));
        std::fs::create_dir(path(&name)).unwrap();
        lost(look(&place, 1, 5), &[name.rsplit('/').next().unwrap()]);
    }
    // What is older, or another timeline's, or nobody's, says nothing.
    let (place, path) = three();
    for name in [
        "00000001/00000000/000000010000000000000004.zst.bak",
        "00000001/00000000/000000010000000000000004.00000028.backup",
        "00000001/00000000/000000010000000000000006.partial.zst",
        "00000001/00000000/000000020000000000000009.zst",
        "00000001/00000000/lost+found",
        "00000001/README",
        "00000001.history.bak",
        "00000002.bak",
        "README",
    ] {
        std::fs::write(path(name), b"x").unwrap();
    }
    std::fs::write(path("00000001/00000000/index.jsonl"), b"damaged").unwrap();
    assert_eq!(look(&place, 1, 6), Ok(Verdict::Absent));
}

#[test]
fn absent_means_proven_absent_along_a_branch() {
    let place = Place::new();
    // Timeline 2 branches off in segment 5, timeline 3 in segment 8, whose segments are all lost.
    for number in [3, 4] {
        store(&place, 1, number);
    }
    for number in [5, 6] {
        store(&place, 2, number);
    }
    plain(&place, "00000002.history", "1\t0/500100\tx\n");
    plain(&place, "00000003.history", "1\t0/500100\tx\n2\t0/800000\tx\n");
    assert_eq!(look(&place, 1, 5), Ok(Verdict::Absent), "the branch is in this segment");
    assert_eq!(look(&place, 1, 9), Ok(Verdict::Absent));
    lost(look(&place, 1, 2), &["later segment"]);
    // Nothing of timeline 2 tells, but timeline 3 left it only behind segment 7.
    lost(look(&place, 2, 7), &["Timeline 3 branched off timeline 2 only at 0/800000"]);
    assert_eq!(look(&place, 2, 8), Ok(Verdict::Absent));
    // Before the segment in which it begins a timeline has nothing.
    assert_eq!(look(&place, 2, 4), Ok(Verdict::Absent));
    assert_eq!(look(&place, 3, 7), Ok(Verdict::Absent));
    assert_eq!(look(&place, 3, 8), Ok(Verdict::Absent));
    store(&place, 3, 9);
    lost(look(&place, 3, 8), &["later segment, 000000030000000000000009"]);
    // The folder of a timeline is lost with all that was in it.
    std::fs::remove_dir_all(
        place.repository.storage().folder().join(place.archive().timeline_folder(Timeline(1))),
    )
    .unwrap();
    lost(look(&place, 1, 4), &["branched off timeline 1 only at"]);
}

#[test]
fn absent_means_proven_absent_for_histories() {
    let place = Place::new();
    let look = |number: u32| history(&place.archive(), Timeline(number), size());
    store(&place, 1, 3);
    assert_eq!(look(1), Ok(Verdict::Absent), "timeline 1 never has one");
    assert_eq!(look(2), Ok(Verdict::Absent));
    store(&place, 2, 5);
    lost(look(2), &["00000002.history", "000000020000000000000005"]);
    plain(&place, "00000004.history", "1\t0/500000\tx\n3\t0/900000\tx\n");
    lost(look(3), &["00000003.history", "Timeline 4"]);
    assert_eq!(look(5), Ok(Verdict::Absent));
    assert_eq!(look(4), Ok(Verdict::Present), "it came after it was looked for");
}

#[test]
fn absent_means_proven_absent_for_the_first_missing_history() {
    let (place, path) = three();
    let look = |number: u32| history(&place.archive(), Timeline(number), size());
    // PostgreSQL looks no further than the first that is absent.
    plain(&place, "00000003.history", "1\t0/400000\tx\n");
    lost(look(2), &["00000002.history", "Timeline 3", "numbers are given in order"]);
    let Ok(Verdict::Lost(error)) = look(2) else { panic!() };
    assert!(error.hint.unwrap().contains("recovery_target_timeline = '3'"));
    assert_eq!(look(4), Ok(Verdict::Absent));
    plain(&place, "00000002.history", "1\t0/500100\tx\n");
    assert_eq!(look(4), Ok(Verdict::Absent));
    // An archiver that was killed leaves folders; a segment tells, and so does what has a history's name.
    std::fs::create_dir_all(path("00000006/00000000")).unwrap();
    assert_eq!(look(4), Ok(Verdict::Absent));
    for name in ["00000006/00000000/000000060000000000000009.zst", "00000004.history.bak", "0000000a.history"]
    {
        std::fs::write(path(name), b"x").unwrap();
        lost(look(4), &[name]);
        std::fs::remove_file(path(name)).unwrap();
    }
    std::fs::create_dir(path("00000005.history")).unwrap();
    lost(look(4), &["00000005.history"]);
}

#[test]
fn absent_means_proven_absent_for_the_history_of_a_promotion() {
    let (place, path) = three();
    let look = |number: u32| history(&place.archive(), Timeline(number), size());
    let partial = |name: &str| std::fs::write(path(name), b"x").unwrap();
    partial("00000001/00000000/000000010000000000000006.partial.zst");
    lost(look(2), &["000000010000000000000006.partial", "promotion"]);
    plain(&place, "00000002.history", "1\t0/600100\tx\n");
    assert_eq!(look(3), Ok(Verdict::Absent));
    store(&place, 2, 6);
    partial("00000002/00000000/000000020000000000000007.partial.zst");
    lost(look(3), &["000000020000000000000007.partial"]);
    // Two restores to the past, of which the second read a copy of the first one's segment.
    plain(&place, "00000003.history", "1\t0/600100\tx\n2\t0/700100\tx\n");
    assert_eq!(look(4), Ok(Verdict::Absent));
}

#[test]
fn absent_means_proven_absent_from_more_than_empty_folders() {
    let (place, path) = three();
    for entry in std::fs::read_dir(path("00000001/00000000")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert_eq!(look(&place, 1, 5).unwrap_err().kind, ErrorKind::RepositoryNotFound);
    std::fs::remove_dir(path("00000001/00000000")).unwrap();
    assert_eq!(look(&place, 1, 5).unwrap_err().kind, ErrorKind::RepositoryNotFound);
    // A folder on a disk that is not mounted.
    std::fs::remove_dir(path("00000001")).unwrap();
    plain(&place, "00000002.history", "1\t0/300000\tx\n");
    assert_eq!(look(&place, 1, 5), Ok(Verdict::Absent));
    std::os::unix::fs::symlink(path("unmounted"), path("00000001")).unwrap();
    look(&place, 1, 5).unwrap_err();
}

#[test]
fn absent_means_proven_absent_from_an_archive_that_is_there() {
    let place = Place::new();
    for verdict in [look(&place, 1, 1), history(&place.archive(), Timeline(2), size())] {
        let error = verdict.unwrap_err();
        assert_eq!(error.kind, ErrorKind::RepositoryNotFound);
        assert!(error.message.contains("/wal\""), "{error}");
    }
    plain(&place, "00000002.history", "1\t0/500000\tx\n");
    assert_eq!(look(&place, 1, 5), Ok(Verdict::Absent));
    lost(look(&place, 1, 4), &["Timeline 2"]);
    plain(&place, "00000003.history", "damaged");
    assert_eq!(look(&place, 1, 5).unwrap_err().kind, ErrorKind::Corrupt);
}

#[test]
fn promise_3_what_retention_removed_is_not_absent() {
    use crate::wal::survey::Run;
    let place = Place::new();
    for number in [8, 9] {
        store(&place, 1, number);
    }
    let mut pruned = Pruned::default();
    pruned.segments.insert(Timeline(1), vec![Run { first: 2, last: 7 }]);
    // Nothing of timeline 2 is left, nor of 3.
    pruned.segments.insert(Timeline(2), vec![Run { first: 10, last: 12 }]);
    pruned.histories.extend([Timeline(2), Timeline(3)]);
    pruned.save(&place.archive(), size()).unwrap();
    lost(look(&place, 1, 4), &["000000010000000000000004\" was removed by retention", "pruned.json"]);
    lost(look(&place, 2, 12), &["was removed by retention"]);
    lost(look(&place, 2, 9), &["is missing", "Retention removed 00000002000000000000000A"]);
    lost(history(&place.archive(), Timeline(3), size()), &["Retention removed 00000003.history"]);
    lost(history(&place.archive(), Timeline(2), size()), &["Retention removed 00000002.history"]);
    assert_eq!(look(&place, 1, 8), Ok(Verdict::Present));
    assert_eq!(look(&place, 1, 10), Ok(Verdict::Absent));
    assert_eq!(look(&place, 2, 13), Ok(Verdict::Absent));
    assert_eq!(history(&place.archive(), Timeline(4), size()), Ok(Verdict::Absent));
    // Damaged, it does not keep a recovery from its end.
    let path = place.repository.storage().folder().join(place.archive().pruned_path());
    std::fs::write(path, "{").unwrap();
    assert_eq!(look(&place, 1, 10), Ok(Verdict::Absent));
    lost(look(&place, 1, 4), &["is missing"]);
}
