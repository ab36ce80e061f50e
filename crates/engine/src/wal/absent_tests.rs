use super::*;
use crate::wal::get_fixture::{plain, store, tl};
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
    // A `.partial` is no later segment: it is what a promotion left of one that never became whole.
    let partial = place.archive().path("000000010000000100000400.partial").unwrap();
    place.archive().storage().create(&format!("{partial}.zst"), &b"x"[..]).unwrap();
    assert_eq!(look(&place, 1, 5001), Ok(Verdict::Absent));
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
    let look = |number: u32| history(&place.archive(), Timeline(number));
    store(&place, 1, 3);
    assert_eq!(look(1), Ok(Verdict::Absent), "timeline 1 never has one");
    assert_eq!(look(2), Ok(Verdict::Absent));
    store(&place, 2, 5);
    lost(look(2), &["00000002.history", "000000020000000000000005"]);
    plain(&place, "00000004.history", "1\t0/500000\tx\n3\t0/900000\tx\n");
    lost(look(3), &["00000003.history", "Timeline 4"]);
    assert_eq!(look(5), Ok(Verdict::Absent));
}

#[test]
fn absent_means_proven_absent_from_an_archive_that_is_there() {
    let place = Place::new();
    for verdict in [look(&place, 1, 1), history(&place.archive(), Timeline(2))] {
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
