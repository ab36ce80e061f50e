use super::*;
use crate::postgres::wal_fixture::WalWriter;
use crate::verify::fixture::{SIZE, Stored, fill, name, size, wal_from};
use pg_ark_contract::rows::ArchiveStatus;
use pg_ark_contract::{Error, ErrorKind};
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts bytes; ends the work after some calls.
struct Ear {
    total: AtomicU64,
    done: AtomicU64,
    calls_left: AtomicU64,
}

fn ear() -> Ear {
    Ear { total: AtomicU64::new(0), done: AtomicU64::new(0), calls_left: AtomicU64::new(u64::MAX) }
}

impl Watch for Ear {
    fn check(&self) -> Result<()> {
        match self.calls_left.fetch_sub(1, Ordering::Relaxed) {
            0 => Err(Error::new(ErrorKind::Cancelled, "stop")),
            _ => Ok(()),
        }
    }
    fn total(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }
    fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Segments 3 to 8, whose records cross every boundary; the last one ends early.
fn wal() -> WalWriter {
    let mut wal = wal_from(3);
    for number in 3..8 {
        wal.commit(900 + number, i64::from(number) * 1_000_000);
        while wal.bytes.len() < (number as usize - 2) * SIZE as usize - 100_000 {
            wal.fill_page(0);
        }
        wal.record(10, 0, 5, &vec![number as u8; 150_000]);
    }
    wal.commit(999, 9_000_000);
    wal
}

fn bytes_of(wal: &WalWriter, number: u64) -> Vec<u8> {
    let from = (number * SIZE - wal.start.0) as usize;
    wal.segments()[from..from + SIZE as usize].to_vec()
}

/// Rows as text: timeline, segments, status; those of a deep check must not depend on the number of threads.
#[track_caller]
fn deep(stored: &Stored) -> Vec<String> {
    let check = |jobs| verify_archive(&stored.archive, &[], Depth::Everything(jobs), &ear()).unwrap();
    let rows = check(1);
    assert_eq!(check(3), rows);
    shown(&rows)
}

fn shallow(stored: &Stored) -> Vec<String> {
    shown(&verify_archive(&stored.archive, &[], Depth::Names, &ear()).unwrap())
}

fn shown(rows: &[ArchiveRow]) -> Vec<String> {
    let line = |row: &ArchiveRow| {
        let (first, last) = (row.first_segment.as_deref().unwrap(), row.last_segment.as_deref().unwrap());
        let (first, last) = (first[16..].trim_start_matches('0'), last[16..].trim_start_matches('0'));
        let detail = match row.status {
            ArchiveStatus::Damaged => format!(" {}", row.detail.as_deref().unwrap()),
            _ => String::new(),
        };
        format!("{} {first}..{last} {}{detail}", row.timeline.unwrap(), row.status.as_str())
    };
    rows.iter().map(line).collect()
}

/// Fails unless the one damaged segment is `number`, and says `part` of why.
#[track_caller]
fn only_damaged(rows: &[String], number: u64, part: &str) {
    let damaged: Vec<&String> = rows.iter().filter(|row| row.contains("damaged")).collect();
    let [row] = &damaged[..] else { panic!("one damaged segment: {rows:?}") };
    assert!(row.starts_with(&format!("1 {number}..{number} damaged")) && row.contains(part), "{part}: {row}");
    let total: usize = rows.len();
    assert_eq!(total, if [3, 8].contains(&number) { 2 } else { 3 }, "{rows:?}");
}

#[test]
fn a_healthy_archive_is_read_to_its_last_byte() {
    let stored = Stored::new();
    stored.put_wal(&wal());
    let ear = ear();
    let rows = verify_archive(&stored.archive, &[], Depth::Everything(0), &ear).unwrap();
    assert_eq!(shown(&rows), ["1 3..8 ok"]);
    assert_eq!(rows[0].start_time.as_deref(), Some("2000-01-01T00:00:03.000000Z"));
    assert_eq!(rows[0].end_time.as_deref(), Some("2000-01-01T00:00:09.000000Z"));
    assert_eq!(ear.total.into_inner(), 6 * SIZE);
    assert_eq!(ear.done.into_inner(), 6 * SIZE);
    assert_eq!(deep(&stored), shallow(&stored));
    assert!(shallow(&Stored::new()).is_empty() && deep(&Stored::new()).is_empty());
}

#[test]
fn damage_is_loud_objects() {
    let wal = wal();
    let other = |number: u64| bytes_of(&wal, number);
    let foreign = |number: u64| {
        let mut bytes = bytes_of(&wal, number);
        bytes[24] ^= 1;
        bytes
    };
    for number in [3, 5, 6, 8] {
        let path = format!("00000001/00000000/{}.zst", name(1, number).file_name(size()));
        let stored = || {
            let stored = Stored::new();
            stored.put_wal(&wal);
            stored
        };
        let healthy = stored();
        let object = format!("{}/{path}", healthy.archive.folder());
        let encoded = healthy.archive.storage().get(&object, SIZE).unwrap().unwrap();
        let is_end = [3, 8].contains(&number);

        // Names alone tell nothing, but the ends of a range are read for their times.
        let flipped = stored();
        let mut bytes = encoded.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        flipped.put_plain(&path, &bytes);
        only_damaged(&deep(&flipped), number, "does not decode");
        assert_eq!(shallow(&flipped).len(), if is_end { 2 } else { 1 });

        let truncated = stored();
        truncated.put_plain(&path, &encoded[..encoded.len() - 9]);
        only_damaged(&deep(&truncated), number, "damaged");

        let short = stored();
        short.put(1, number, ".zst", &bytes_of(&wal, number)[..1000]);
        only_damaged(&deep(&short), number, "holds 1000 instead of 1048576 bytes");

        let strange = stored();
        strange.put(1, number, ".zst", &foreign(number));
        only_damaged(&deep(&strange), number, "belongs to system identifier");

        let swapped = stored();
        swapped.put(1, number, ".zst", &other(if number == 5 { 6 } else { 5 }));
        if number != 5 {
            only_damaged(&deep(&swapped), number, "its first page is the one of 0/500000");
        }
    }
}

#[test]
fn damage_is_loud_records() {
    let wal = wal();
    // A byte of a record that lies in the middle of segment 5, stored with checksums that agree.
    let stored = Stored::new();
    stored.put_wal(&wal);
    let mut bytes = bytes_of(&wal, 5);
    bytes[500_000] ^= 4;
    stored.put(1, 5, ".zst", &bytes);
    only_damaged(&deep(&stored), 5, "its records end at 0/57");
    assert_eq!(shallow(&stored), ["1 3..8 ok"]);
    // A byte of a record that begins in segment 4 and ends in segment 5: either can be at fault.
    for (number, at) in [(4u64, SIZE as usize - 100), (5, 1000)] {
        let stored = Stored::new();
        stored.put_wal(&wal);
        let mut bytes = bytes_of(&wal, number);
        bytes[at] ^= 4;
        stored.put(1, number, ".zst", &bytes);
        only_damaged(&deep(&stored), 4, "the record goes on in 000000010000000000000005");
    }
}

#[test]
fn damage_is_loud_wal_of_another_course() {
    // Both are valid; they part in segment 4. Segment 6 comes from the other one.
    let ours = wal();
    let mut theirs = wal_from(3);
    for number in 3..8 {
        theirs.commit(900 + number, 5);
        while theirs.bytes.len() < (number as usize - 2) * SIZE as usize - 300_000 {
            theirs.fill_page(0);
        }
        theirs.record(10, 0, 5, &vec![number as u8; 400_000]);
    }
    let stored = Stored::new();
    stored.put_wal(&ours);
    stored.put(1, 6, ".zst", &bytes_of(&theirs, 6));
    let rows = deep(&stored);
    let damaged: Vec<_> = rows.iter().filter(|row| row.contains("damaged")).collect();
    // The chain breaks where it comes, and where it leaves.
    assert_eq!(damaged.len(), 2, "{rows:?}");
    assert!(damaged.iter().all(|row| row.contains("begins with") || row.contains("goes on")), "{rows:?}");
}

#[test]
fn damage_is_loud_segments_that_end_early() {
    let wal = wal();
    for number in 3..8 {
        let stored = Stored::new();
        stored.put_wal(&wal);
        let mut bytes = bytes_of(&wal, number);
        bytes[600_000..].fill(0);
        stored.put(1, number, ".zst", &bytes);
        only_damaged(&deep(&stored), number, "its records end at");
    }
    // Stored like that, the index knows it.
    let mut torn = wal_from(3);
    (0..100).for_each(|_| torn.fill_page(0));
    torn.bytes.resize(SIZE as usize, 0);
    let mut next = wal_from(4);
    next.commit(900, 10);
    torn.bytes.extend_from_slice(&next.bytes);
    let stored = Stored::new();
    stored.put_wal(&torn);
    assert_eq!(shallow(&stored), ["1 3..4 ok"]);
    stored.index(&torn);
    let rows = shallow(&stored);
    assert!(rows[0].starts_with("1 3..3 damaged its records end at 0/3C8000"), "{rows:?}");
    // The last one may, unless it went on when it was stored.
    let stored = Stored::new();
    let mut longer = wal_from(3);
    (0..200).for_each(|_| longer.fill_page(0));
    stored.put_wal(&longer);
    assert_eq!(deep(&stored), ["1 3..4 ok"]);
    let mut bytes = bytes_of(&longer, 4);
    bytes[100_000..].fill(0);
    stored.put(1, 4, ".zst", &bytes);
    assert_eq!(deep(&stored), ["1 3..4 ok"]);
    stored.index(&longer);
    let rows = deep(&stored);
    assert!(rows[1].contains("when it was stored they went on to"), "{rows:?}");
}

#[test]
fn damage_is_loud_a_last_segment_that_does_not_follow() {
    // Both are valid; records end with segment 3, and segment 4 comes from another course, without a record that crosses.
    let course = |first: usize| {
        let mut wal = wal_from(3);
        wal.record(10, 0, 5, &vec![1; first]);
        fill(&mut wal);
        wal.commit(900, 1);
        wal.commit(901, 2);
        wal
    };
    let (ours, mut theirs) = (course(10), course(20));
    let last_of = |wal: &WalWriter| wal.previous;
    assert_eq!(last_of(&ours), last_of(&theirs));
    let stored = Stored::new();
    stored.put_wal(&ours);
    assert_eq!(deep(&stored), ["1 3..4 ok"]);
    theirs = wal_from(4);
    theirs.previous = ours.start.0 + 8;
    theirs.commit(900, 1);
    stored.put(1, 4, ".zst", &theirs.segments());
    let rows = deep(&stored);
    assert!(rows[1].starts_with("1 4..4 damaged its records end at 0/400028"), "{rows:?}");
    // Nothing at all is written in it: so it may end.
    theirs.bytes.truncate(40);
    stored.put(1, 4, ".zst", &theirs.segments());
    assert_eq!(deep(&stored), ["1 3..4 ok"]);
    // A record that crosses goes on otherwise.
    let crossing = |filler: u8| {
        let mut wal = wal_from(3);
        while wal.bytes.len() < SIZE as usize - 20_000 {
            wal.fill_page(0);
        }
        wal.record(10, 0, 5, &[filler; 60_000]);
        wal
    };
    let stored = Stored::new();
    stored.put_wal(&crossing(1));
    assert_eq!(deep(&stored), ["1 3..4 ok"]);
    stored.put(1, 4, ".zst", &bytes_of(&crossing(2), 4));
    let rows = deep(&stored);
    assert!(rows[0].contains("damaged its records end at 0/3F"), "{rows:?}");
}

#[test]
fn a_lost_newest_segment_is_a_gap_when_the_index_names_it() {
    let stored = Stored::new();
    stored.put_wal(&wal());
    let found = stored.archive.find(&name(1, 8).file_name(size())).unwrap().unwrap();
    let lose = || stored.archive.storage().delete(&found.path).unwrap();
    stored.index(&wal());
    assert_eq!(deep(&stored), ["1 3..8 ok"]);
    lose();
    assert_eq!(shallow(&stored), ["1 3..7 ok", "1 8..8 gap"]);
    let rows = verify_archive(&stored.archive, &[], Depth::Names, &ear()).unwrap();
    let detail = rows[1].detail.as_deref().unwrap();
    assert!(detail.ends_with("is missing: the index says that it was stored"), "{detail}");
}

/// What a deep check tells when the sealed line of the last segment was written with another content.
fn told_of_a_lie(lie: impl Fn(&mut crate::wal::summary::Summary)) -> String {
    let stored = Stored::new();
    stored.put_wal(&wal());
    stored.index(&wal());
    let path = stored.archive.index_path(Timeline(1), 0);
    let mut index = crate::wal::index::Index::load(stored.archive.storage(), &path, size()).unwrap();
    let mut summary = index.get(8).unwrap().clone();
    lie(&mut summary);
    index.insert(name(1, 8), summary);
    index.save(stored.archive.storage(), &path).unwrap();
    let rows = verify_archive(&stored.archive, &[], Depth::Everything(2), &ear()).unwrap();
    assert_eq!(rows[0].end_time.as_deref(), Some("2000-01-01T00:00:09.000000Z"));
    let [_, wrong] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(wrong.status, ArchiveStatus::Damaged);
    assert_eq!(shallow(&stored), ["1 3..8 ok"]);
    wrong.detail.clone().unwrap()
}

#[test]
fn a_deep_check_tells_an_index_that_is_wrong() {
    let detail = told_of_a_lie(|summary| summary.last_time = Some(i64::from(u32::MAX)));
    assert!(detail.contains("index.jsonl\" does not say") && detail.contains("of 1 of them"), "{detail}");
    assert!(detail.contains("the times of its transactions"), "{detail}");
    assert!(told_of_a_lie(|summary| summary.commits += 1).contains("its transactions"));
    assert!(told_of_a_lie(|summary| summary.max_xid = Some(u32::MAX)).contains("its transactions"));
    assert!(told_of_a_lie(|summary| summary.end.0 -= 8).contains("where its records end"));
    assert!(told_of_a_lie(|summary| summary.first_record = None).contains("its first record"));
    assert!(told_of_a_lie(|summary| summary.more_restore_points = true).contains("its restore points"));
}

#[test]
fn a_damaged_line_of_an_index_is_told_and_the_segment_speaks_for_itself() {
    let stored = Stored::new();
    stored.put_wal(&wal());
    stored.index(&wal());
    let path = stored.archive.index_path(Timeline(1), 0);
    let index = stored.archive.storage().get(&path, 1 << 20).unwrap().unwrap();
    // The number of the last segment, which would be one that is gone.
    let at = index.windows(24).rposition(|name| name == b"000000010000000000000008").unwrap() + 23;
    let mut flipped = index.clone();
    flipped[at] ^= 1;
    stored.archive.storage().put(&path, flipped).unwrap();
    for depth in [Depth::Names, Depth::Everything(1)] {
        let found = verify(&stored.archive, &[], depth, true, &ear()).unwrap();
        assert_eq!(found.rows.len(), 1, "{found:?}");
        assert_eq!(found.rows[0].end_time.as_deref(), Some("2000-01-01T00:00:09.000000Z"));
        let [remark] = &found.remarks[..] else { panic!("{found:?}") };
        assert_eq!(remark.severity, pg_ark_contract::rows::Severity::Warning);
        assert!(remark.path == path && remark.finding.contains("line 7 is damaged"), "{remark:?}");
    }
    let rows = verify_archive(&stored.archive, &[], Depth::Names, &ear()).unwrap();
    assert_eq!(
        rows.iter().map(|row| row.status).collect::<Vec<_>>(),
        [ArchiveStatus::Ok, ArchiveStatus::Damaged]
    );
}

#[test]
fn a_switch_ends_a_segment() {
    let stored = Stored::new();
    let mut wal = wal_from(3);
    for time in 1..5 {
        wal.commit(900, time);
        wal.switch();
    }
    wal.commit(901, 9);
    stored.put_wal(&wal);
    assert_eq!(deep(&stored), ["1 3..7 ok"]);
}

/// Timeline 1 has segments 3 to 5, timeline 2 leaves it in segment 5 and has 5 and 6.
fn promoted() -> Stored {
    let stored = Stored::new();
    // No record is unfinished where the timelines part.
    let mut wal = wal_from(3);
    while wal.bytes.len() < SIZE as usize * 2 + 100_000 {
        wal.fill_page(0);
    }
    let left = wal.at();
    for number in [3, 4] {
        stored.put(1, number, ".zst", &bytes_of(&wal, number));
    }
    let mut one = wal_from(3);
    (one.bytes, one.previous) = (wal.bytes.clone(), wal.previous);
    one.commit(700, 7);
    stored.put(1, 5, ".zst", &bytes_of(&one, 5));
    wal.timeline = 2;
    wal.commit(800, 8);
    fill(&mut wal);
    wal.commit(801, 9);
    for number in [5, 6] {
        stored.put(2, number, ".zst", &bytes_of(&wal, number));
    }
    let history = format!("1\t{}\tno recovery target specified\n", pg_ark_contract::Lsn(left));
    stored.put_plain("00000002.history", history.as_bytes());
    stored
}

#[test]
fn records_are_followed_over_timelines() {
    let stored = promoted();
    assert_eq!(deep(&stored), ["1 3..5 ok", "2 5..6 ok"]);
    // The branch begins with other WAL than its parent: the join is broken, each alone is whole.
    let mut other = wal_from(5);
    other.timeline = 2;
    fill(&mut other);
    stored.put(2, 5, ".zst", &bytes_of(&other, 5));
    let rows = deep(&stored);
    assert!(
        rows.iter().any(|row| row.contains("2 5..5 damaged") || row.contains("1 4..4 damaged")),
        "{rows:?}"
    );
}

#[test]
fn a_segment_of_a_sibling_is_damage() {
    let stored = promoted();
    let segment = |timeline: u32| {
        let mut wal = wal_from(6);
        wal.timeline = timeline;
        wal.commit(801, 9);
        wal.segments()
    };
    // Timeline 3 leaves timeline 1 where timeline 2 does.
    let history = stored.archive.read_plain("00000002.history").unwrap().unwrap();
    stored.put_plain("00000003.history", &history);
    let branch = stored.archive.find("000000020000000000000005").unwrap().unwrap();
    let branch = stored.archive.storage().get(&branch.path, SIZE).unwrap().unwrap();
    let path = format!("{}/00000003/00000000/000000030000000000000005.zst", stored.archive.folder());
    stored.archive.storage().put(&path, branch.to_vec()).unwrap();
    stored.put(3, 6, ".zst", &segment(3));
    let of_three =
        |rows: &[String]| rows.iter().filter(|row| row.starts_with('3')).cloned().collect::<Vec<_>>();
    let sound = |rows: &[String]| !rows.iter().any(|row| row.contains("first page is of timeline"));
    assert!(sound(&deep(&stored)));
    stored.put(3, 6, ".zst", &segment(2));
    let rows = of_three(&deep(&stored));
    assert!(
        rows.iter().any(|row| row.contains("3 6..6 damaged") && row.contains("is of timeline 2")),
        "{rows:?}"
    );
}

#[test]
fn partials_and_segments_under_two_codecs() {
    let wal = wal();
    let stored = Stored::new();
    stored.put_wal(&wal);
    stored.put(1, 9, ".partial.zst", &bytes_of(&wal, 8));
    let rows = deep(&stored);
    assert!(rows[1].contains("its first page is the one of 0/800000, not 0/900000"), "{rows:?}");
    stored
        .archive
        .storage()
        .delete(&format!(
            "{}/00000001/00000000/000000010000000000000009.partial.zst",
            stored.archive.folder()
        ))
        .unwrap();
    stored.put(1, 8, ".partial.zst", &bytes_of(&wal, 8));
    stored.put(1, 4, ".lz4", &bytes_of(&wal, 4));
    assert_eq!(deep(&stored), ["1 3..8 ok"]);
    let mut other = bytes_of(&wal, 4);
    other[700_000] ^= 1;
    stored.put(1, 4, ".lz4", &other);
    only_damaged(&deep(&stored), 4, "differ from byte 700000 on");
    assert_eq!(shallow(&stored), ["1 3..8 ok"]);
}

#[test]
fn an_order_to_stop_and_a_repository_that_goes_away() {
    let stored = Stored::new();
    stored.put_wal(&wal());
    for calls in [0, 3, 7] {
        let ear = Ear { calls_left: AtomicU64::new(calls), ..ear() };
        let error = verify_archive(&stored.archive, &[], Depth::Everything(2), &ear).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Cancelled, "{calls}");
    }
    let storage = stored.archive.storage().clone();
    struct Leaving(crate::repository::Storage);
    impl Watch for Leaving {
        fn check(&self) -> Result<()> {
            Ok(())
        }
        fn total(&self, _: u64) {
            let root = self.0.folder();
            std::fs::rename(root, root.with_extension("away")).unwrap();
        }
    }
    let error =
        verify_archive(&stored.archive, &[], Depth::Everything(2), &Leaving(storage.clone())).unwrap_err();
    assert_eq!(error.kind, ErrorKind::RepositoryUnusable, "{error}");
    std::fs::rename(storage.folder().with_extension("away"), storage.folder()).unwrap();
}
