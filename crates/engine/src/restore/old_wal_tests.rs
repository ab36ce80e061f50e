use super::super::old_wal_fixture::{MB, Place, identity, run, size};
use super::*;
use crate::postgres::wal_fixture::WalWriter;
use pg_ark_contract::Lsn;
use proptest::prelude::*;

#[test]
fn what_the_archive_lacks_is_followed_to_the_last_whole_record() {
    let place = Place::new(4);
    place.store(4, &place.segments[0]);
    (4..8).for_each(|number| place.leave(number));
    let old = place.look();
    assert_eq!(old.segments.len(), 3);
    let [tail] = old.tails[..] else { panic!("one tail: {:?}", old.tails) };
    assert_eq!((tail.run, tail.end, old.warnings.len()), (run(5, 7), place.end, 0), "{old:?}");
    assert!(tail.last_commit.unwrap() > 10);
    let joined = old.joined(&place.survey());
    assert_eq!(joined.timelines[&Timeline(1)].runs, [run(4, 7)]);
    assert!(old.usable(Place::name(7)).is_some() && old.usable(Place::name(4)).is_none());
}

#[test]
fn an_empty_archive_takes_the_size_of_segments_from_the_server() {
    let place = Place::new(2);
    place.leave(5);
    let joined = place.look().joined(&place.survey());
    assert_eq!(joined.segment_size, size());
    assert_eq!(joined.timelines[&Timeline(1)].runs, [run(5, 5)]);
}

#[test]
fn recycled_short_empty_and_strange_files_are_not_wal() {
    let place = Place::new(3);
    place.leave(4);
    let name = |number| Place::name(number).file_name(size());
    place.write(&name(9), &place.segments[0]);
    place.write(&name(5), &place.segments[1][..1000]);
    place.write(&name(6), &vec![0; MB as usize]);
    place.write(&name(7), b"");
    place.write("000000010000000000000008.00000028.backup", b"x");
    place.write("xlogtemp.17", &place.segments[1]);
    place.write("00000001000000000000FFFF", &place.segments[1]);
    std::fs::create_dir(place.folder().join("archive_status")).unwrap();
    std::fs::create_dir(place.folder().join(name(10))).unwrap();
    std::os::unix::fs::symlink("/dev/zero", place.folder().join(name(11))).unwrap();
    let old = place.look();
    assert_eq!(old.files().iter().map(|kept| &kept.name[..]).collect::<Vec<_>>(), [name(4)]);
}

#[test]
fn records_that_break_off_end_what_is_promised() {
    let place = Place::new(4);
    (4..8).for_each(|number| place.leave(number));
    let mut broken = place.segments[1].clone();
    broken[300_000] ^= 1;
    place.write(&Place::name(5).file_name(size()), &broken);
    let old = place.look();
    assert_eq!(old.segments.len(), 4, "all of it is saved");
    assert_eq!(old.tails[0].run, run(4, 5));
    assert!(old.tails[0].end < Lsn(5 * MB + 300_000) && old.tails[0].end > Lsn(5 * MB + 280_000));
    assert!(old.warnings[0].starts_with("2 old segments are not used"), "{:?}", old.warnings);
}

#[test]
fn behind_damage_nothing_is_shown_to_those_who_look_for_a_target() {
    let place = Place::new(3);
    place.store(4, &place.segments[0]);
    place.leave(5);
    let whole = place.look().tails[0].end;
    let mut broken = place.segments[1].clone();
    broken[300_000..300_008].iter_mut().for_each(|byte| *byte ^= 0xff);
    place.write(&Place::name(5).file_name(size()), &broken);
    let old = place.look();
    let end = old.tails[0].end;
    assert!(old.tails[0].broken && end < Lsn(5 * MB + 300_000) && whole > end);
    let mut shown = Vec::new();
    old.read(Place::name(5), &mut |bytes| shown.extend_from_slice(bytes)).unwrap().unwrap();
    let good = (end.0 - 5 * MB) as usize;
    assert_eq!((shown.len(), &shown[..good]), (MB as usize, &broken[..good]));
    assert!(shown[good..].iter().all(|byte| *byte == 0));
    assert!(old.read(Place::name(4), &mut |_| {}).is_none());
    // A hole of the archive is not filled with it.
    place.store(6, &place.segments[2]);
    assert!(place.look().tails.is_empty(), "{:?}", place.look().tails);
}

#[test]
fn what_does_not_follow_the_archive_is_not_joined() {
    let place = Place::new(3);
    let mut other = WalWriter::new(Lsn(4 * MB), size());
    while other.bytes.len() < MB as usize - 100_000 {
        other.record(10, 0, 5, &[9; 3000]);
    }
    // Nothing in common: the chain of records tells.
    place.store(4, &other.segments());
    (5..7).for_each(|number| place.leave(number));
    let old = place.look();
    assert!(old.tails.is_empty() && old.segments.len() == 2, "{:?}", old.tails);
    // With the segment itself, its content does.
    place.leave(4);
    let old = place.look();
    assert!(old.tails.is_empty() && old.segments.len() == 3, "{:?}", old.tails);
    assert!(old.warnings[0].contains("other WAL than the old server from 0/4"), "{:?}", old.warnings);
    assert_eq!(old.joined(&place.survey()).timelines[&Timeline(1)].runs, [run(4, 4)]);
}

#[test]
fn a_segment_that_was_not_finished_is_no_other_history() {
    let place = Place::new(3);
    place.store(4, &place.segments[0]);
    let mut half = place.segments[0].clone();
    half[500_000..].fill(0);
    place.write(&Place::name(4).file_name(size()), &half);
    let old = place.look();
    assert!(old.warnings.is_empty() && old.is_empty(), "{old:?}");
}

#[test]
fn never_write_into_what_is_not_ours_the_wal_of_another_cluster_is_refused() {
    let place = Place::new(2);
    place.leave(4);
    let mut foreign = place.segments[1].clone();
    foreign[24] ^= 1;
    place.write(&Place::name(5).file_name(size()), &foreign);
    assert_eq!(place.try_look().unwrap_err().kind, ErrorKind::ForeignCluster);
}

#[test]
fn of_two_files_of_one_name_the_longer_wins() {
    let place = Place::new(1);
    place.leave(4);
    let saved = place.dir.path().join("saved");
    std::fs::create_dir(&saved).unwrap();
    let mut short = place.segments[0].clone();
    short[100_000..].fill(0);
    let name = Place::name(4).file_name(size());
    let sources = [
        Source { folder: saved.clone(), doomed: false },
        Source { folder: place.folder(), doomed: true },
        Source { folder: saved.clone(), doomed: false },
    ];
    let look = |content: &[u8]| {
        std::fs::write(saved.join(&name), content).unwrap();
        let old = OldWal::look(&sources, identity(), &place.archive, &place.survey()).unwrap();
        (old.tails[0].end, old.segments[&Place::name(4)].doomed)
    };
    assert_eq!(look(&short), (place.end, true));
    assert_eq!(look(&place.segments[0]), (place.end, false), "of equals the one that stays");
}

#[test]
fn histories_are_kept_and_another_of_the_same_timeline_is_told() {
    let place = Place::new(1);
    place.write("00000002.history", b"1\t0/500000\tx\n");
    place.write("00000003.history", b"nonsense\n");
    let old = place.look();
    assert_eq!(old.histories.keys().copied().collect::<Vec<_>>(), [Timeline(2)]);
    assert!(old.warnings[0].contains("00000003.history"), "{:?}", old.warnings);
    assert!(old.joined(&place.survey()).histories.contains_key(&Timeline(2)));
    let path = place.archive.path("00000002.history").unwrap();
    place.archive.storage().create(&path, b"1\t0/400000\tx\n".to_vec()).unwrap();
    let old = place.look();
    assert!(old.histories.is_empty());
    assert!(old.warnings.iter().any(|w| w.contains("another 00000002.history")), "{:?}", old.warnings);
}

#[test]
fn a_data_directory_stands_for_its_pg_wal() {
    let place = Place::new(1);
    assert_eq!(folder_of(&place.folder()).unwrap(), place.folder().canonicalize().unwrap());
    let data = place.dir.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    std::os::unix::fs::symlink(place.folder(), data.join("pg_wal")).unwrap();
    assert_eq!(folder_of(&data).unwrap(), data.canonicalize().unwrap());
    std::fs::write(data.join("PG_VERSION"), "15\n").unwrap();
    assert_eq!(folder_of(&data).unwrap(), place.folder().canonicalize().unwrap());
    assert_eq!(folder_of(&data.join("x")).unwrap_err().kind, ErrorKind::InvalidArgument);
}

#[test]
fn runs_are_merged() {
    let mut content = Content::default();
    for (first, last) in [(5, 6), (1, 2), (8, 9), (7, 7), (2, 3)] {
        add(&mut content, run(first, last));
    }
    assert_eq!(content.runs, [run(1, 3), run(5, 9)]);
    add(&mut content, run(u64::MAX, u64::MAX));
    assert_eq!(content.runs.len(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn no_content_of_a_segment_makes_it_panic(at in 0usize..(1 << 20), bytes in prop::collection::vec(any::<u8>(), 1..64)) {
        let place = Place::new(2);
        place.leave(5);
        let mut damaged = place.segments[0].clone();
        let end = (at + bytes.len()).min(damaged.len());
        damaged[at..end].copy_from_slice(&bytes[..end - at]);
        place.write(&Place::name(4).file_name(size()), &damaged);
        let _ = place.try_look();
    }
}
