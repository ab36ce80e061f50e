use super::super::fixture::{Fixture, Recipe};
use super::super::old_wal_fixture::{MB, Place, identity, run, size};
use super::*;
use crate::postgres::timeline::history_file_name;
use pg_ark_contract::ErrorKind;

/// A backup from segment 4 on; with its own WAL, or without.
fn record(included: bool) -> Record {
    let mut record = Fixture::new(&Recipe::default()).record;
    record.wal_segment_size = size();
    record.wal_included = included;
    record.timeline = Some(Timeline(1));
    record.start_lsn = Some(Lsn(4 * MB + 40));
    record.stop_lsn = Some(Lsn(5 * MB));
    record
}

/// The road of a restore to the end of timeline 1.
fn latest() -> Road<'static> {
    Road { timeline: Timeline(1), target: &Target::Latest, newest: true, data: Path::new("/data") }
}

/// Decides about a place for a backup.
fn try_decide(place: &Place, record: &Record, road: Road<'_>) -> (Result<Option<Salvage>>, Vec<String>) {
    let mut told = Vec::new();
    (decide(&place.look(), &place.survey(), record, &road, &mut told), told)
}

/// Decides about a place for a backup, along timeline 1.
fn decided(place: &Place, record: &Record, immediate: bool) -> (Salvage, Vec<String>) {
    let target = if immediate { &Target::Immediate } else { &Target::Latest };
    let (salvage, told) = try_decide(place, record, Road { target, ..latest() });
    (salvage.unwrap().unwrap(), told)
}

fn names(numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
    numbers.into_iter().map(|number| Place::name(number).file_name(size())).collect()
}

#[test]
fn what_continues_the_archive_is_saved_and_fed() {
    let place = Place::new(4);
    place.store(4, &place.segments[0]);
    (4..8).for_each(|number| place.leave(number));
    let (salvage, told) = decided(&place, &record(false), false);
    assert_eq!((&salvage.saved, &salvage.fed), (&names(5..8), &names(5..8)));
    assert!(
        salvage.archived.is_empty() && salvage.unused.is_empty() && told.is_empty(),
        "{salvage:?} {told:?}"
    );
    assert_eq!(salvage.end_lsn, Some(place.end));
    let whole: Vec<String> = salvage.files.whole.into_iter().collect();
    assert_eq!(whole, names(5..7), "the last one is not finished");
    assert_eq!(salvage.fed_bytes, 3 * MB);
}

#[test]
fn with_an_empty_archive_it_continues_what_the_backup_brings() {
    let place = Place::new(4);
    (5..8).for_each(|number| place.leave(number));
    let (salvage, told) = decided(&place, &record(true), false);
    assert_eq!((salvage.fed, told), (names(5..8), vec![]));
    let old = place.look();
    let all = joined(Some(&old), &place.survey(), &[record(true)]);
    assert_eq!((all.segment_size, &all.timelines[&Timeline(1)].runs[..]), (size(), &[run(5, 7)][..]));
    assert!(joined(Some(&old), &place.survey(), &[record(false)]).is_empty(), "nothing connects it");
}

#[test]
fn behind_a_gap_it_is_saved_and_not_fed_and_that_is_said() {
    let place = Place::new(5);
    place.store(4, &place.segments[0]);
    (6..9).for_each(|number| place.leave(number));
    // To the end of the WAL it is refused: the only server that has it would go.
    let error = try_decide(&place, &record(false), latest()).0.unwrap_err();
    assert_eq!(error.kind, ErrorKind::WalMissing);
    assert!(error.message.contains(&names([5])[0]) && error.hint.unwrap().contains("immediate"));
    let lsn = Target::Lsn(Lsn(4 * MB + 100_000));
    let (salvage, told) = try_decide(&place, &record(false), Road { target: &lsn, ..latest() });
    let salvage = salvage.unwrap().unwrap();
    assert_eq!((&salvage.saved, &salvage.unused), (&names(6..9), &names(6..9)));
    assert!(salvage.fed.is_empty() && salvage.end_lsn.is_none());
    let missing = names([5]).remove(0);
    assert!(
        told[0].contains("CANNOT be used") && told[0].contains(&format!("{missing} to {missing}")),
        "{told:?}"
    );
    // The choice of a target sees no hole that nobody can fill.
    let all = joined(Some(&place.look()), &place.survey(), &[record(false)]);
    assert_eq!(all.timelines[&Timeline(1)].runs, [run(4, 4)]);
}

#[test]
fn a_gap_of_the_archive_is_filled_there() {
    let place = Place::new(5);
    for number in [4, 7] {
        place.store(number, &place.segments[number as usize - 4]);
    }
    (5..9).for_each(|number| place.leave(number));
    let (salvage, told) = decided(&place, &record(false), false);
    assert_eq!((&salvage.archived, &salvage.fed, told), (&names(5..7), &names([8]), vec![]));
    let record = record(false);
    feed_into(&place, &salvage, &record);
    assert_eq!(place.survey().timelines[&Timeline(1)].runs, [run(4, 7)]);
}

fn feed_into(place: &Place, salvage: &Salvage, record: &Record) {
    super::super::feed::fill(&place.archive, &salvage.files.fill, &identity(), record.compression).unwrap();
}

#[test]
fn immediate_gets_only_histories() {
    let place = Place::new(3);
    place.store(4, &place.segments[0]);
    place.leave(5);
    place.write(&history_file_name(Timeline(2)), b"1\t0/650000\tx\n");
    let (salvage, _) = decided(&place, &record(false), true);
    assert_eq!((&salvage.fed, salvage.saved.len()), (&vec![history_file_name(Timeline(2))], 2));
    assert_eq!(salvage.unused, names([5]));
}

#[test]
fn where_a_followed_timeline_branched_off_the_old_segment_is_not_given() {
    let place = Place::new(4);
    place.store(4, &place.segments[0]);
    (5..8).for_each(|number| place.leave(number));
    place.write(&history_file_name(Timeline(2)), b"1\t0/680000\tx\n");
    let (salvage, told) = try_decide(&place, &record(false), Road { timeline: Timeline(2), ..latest() });
    let salvage = salvage.unwrap().unwrap();
    let [warning] = &told[..] else { panic!("one warning: {told:?}") };
    for words in ["1.0 MB", "0/680000", "last transaction at 2000-01-01", "\"/data.saved-wal-", "timeline 1 "]
    {
        assert!(warning.contains(words), "{words}: {warning}");
    }
    // 6 holds the branch: what the old server wrote behind it is another history.
    assert_eq!(salvage.fed, [names([5]), vec![history_file_name(Timeline(2))]].concat());
    assert_eq!(salvage.unused, names(6..8));
}

#[test]
fn nothing_is_looked_for_unless_asked_and_saved_wal_is_found_again() {
    let place = Place::new(3);
    place.store(4, &place.segments[0]);
    place.leave(5);
    let data = place.dir.path().join("data");
    let request = |replace, keep_wal: Option<PathBuf>| Request {
        pgdata: data.clone(),
        replace,
        keep_wal,
        ..Default::default()
    };
    let look = |request: &Request| look(request, identity(), &place.archive, &place.survey());
    assert!(look(&request(false, None)).unwrap().is_none());
    assert!(look(&request(true, None)).unwrap().unwrap().is_empty(), "there is no data directory");
    let old = look(&request(false, Some(place.folder()))).unwrap().unwrap();
    assert!(!old.files()[0].doomed);
    std::fs::create_dir(&data).unwrap();
    std::os::unix::fs::symlink(place.folder(), data.join("pg_wal")).unwrap();
    assert!(!look(&request(true, None)).unwrap().unwrap().files()[0].doomed, "a link leads out of it");
    std::fs::remove_file(data.join("pg_wal")).unwrap();
    std::fs::rename(place.folder(), data.join("pg_wal")).unwrap();
    let old = look(&request(true, None)).unwrap().unwrap();
    assert!(old.files()[0].doomed);
    let access = super::super::access::Access { owner: None, group_access: false };
    let note = saved::Note::new("main", identity().system_identifier, &old.files(), None);
    saved::save(&old.files(), &note, &data, &access, &super::super::watch::Silent).unwrap();
    assert!(!look(&request(true, None)).unwrap().unwrap().files()[0].doomed, "it is safe already");
    std::fs::remove_dir_all(&data).unwrap();
    assert_eq!(look(&request(true, None)).unwrap().unwrap().files().len(), 1);
}

#[test]
fn the_plan_names_few_files_and_counts_many() {
    let many = names(1..6);
    assert_eq!(some_of(&many), format!("5 files: {} to {}", many[0], many[4]));
    assert_eq!(some_of(&many[..1]), format!("1 file: {}", many[0]));
}

/// An archive whose timeline ends in a `.partial`: segments 4 and 5, and 6 as a promotion left it.
fn promoted() -> Place {
    let place = Place::new(3);
    (4..6).for_each(|number| place.store(number, &place.segments[number as usize - 4]));
    place.store_partial(6, &place.segments[2]);
    place
}

#[test]
fn what_a_promotion_left_of_a_timeline_is_its_end() {
    let place = promoted();
    let nobody = Request { pgdata: place.dir.path().join("data"), ..Default::default() };
    let old = look(&nobody, identity(), &place.archive, &place.survey()).unwrap().unwrap();
    let all = joined(Some(&old), &place.survey(), &[record(false)]);
    assert_eq!(all.timelines[&Timeline(1)].runs, [run(4, 6)]);
    let mut told = Vec::new();
    let salvage = decide(&old, &place.survey(), &record(false), &latest(), &mut told).unwrap().unwrap();
    let partial = format!("{}.partial", names([6])[0]);
    assert_eq!((&salvage.fed, salvage.end_lsn), (&names([6]), Some(place.end)));
    assert_eq!((&salvage.completed[..], told), (&[partial][..], vec![]));
    assert!(salvage.saved.is_empty() && salvage.unused.is_empty() && salvage.files.whole.is_empty());
    // The new server gets it under the name that recovery asks for, and never makes another .partial of it.
    let wal = place.dir.path().join("new");
    std::fs::create_dir_all(wal.join("archive_status")).unwrap();
    let access = super::super::access::Access { owner: None, group_access: false };
    let status =
        |kept: &Kept| salvage.files.done.contains(&kept.name).then_some(super::super::feed::Status::Done);
    let silent = super::super::watch::Silent;
    let of = (&identity(), &place.archive);
    super::super::feed::put(&wal, &salvage.files.feed, &status, of, &access, &silent).unwrap();
    assert_eq!(std::fs::read(wal.join(&names([6])[0])).unwrap(), place.segments[2]);
    assert!(wal.join(format!("archive_status/{}.done", names([6])[0])).exists());
    // Along a timeline that goes on, nobody needs it.
    assert!(look(&nobody, identity(), &Place::new(1).archive, &Place::new(1).survey()).unwrap().is_none());
    let immediate = Road { target: &Target::Immediate, ..latest() };
    assert!(decide(&old, &place.survey(), &record(false), &immediate, &mut Vec::new()).unwrap().is_none());
}

#[test]
fn of_a_stored_end_and_an_old_segment_the_longer_wins() {
    let place = promoted();
    let mut half = place.segments[2].clone();
    half[100_000..].fill(0);
    place.write(&names([6])[0], &half);
    let old = place.look();
    assert!(old.segments[&Place::name(6)].stored.is_some() && old.tails[0].end == place.end);
    let place = Place { segments: place.segments.clone(), ..Place::new(3) };
    (4..6).for_each(|number| place.store(number, &place.segments[number as usize - 4]));
    place.store_partial(6, &half);
    place.leave(6);
    let old = place.look();
    assert!(old.segments[&Place::name(6)].stored.is_none() && old.tails[0].end == place.end);
    let (salvage, _) = decided(&place, &record(false), false);
    assert!(salvage.files.done.contains(&names([6])[0]), "its .partial would be refused");
}

#[test]
fn a_damaged_end_of_the_timeline_is_told_and_not_left_out() {
    let place = Place::new(3);
    place.store(4, &place.segments[0]);
    place.store_partial(5, &place.segments[1][..500_000]);
    let (salvage, _) = try_decide(&place, &record(false), latest());
    assert_eq!(salvage.unwrap_err().kind, ErrorKind::Corrupt);
    let lsn = Target::Lsn(Lsn(4 * MB + 100_000));
    try_decide(&place, &record(false), Road { target: &lsn, ..latest() }).0.unwrap();
}
