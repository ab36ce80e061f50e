use super::*;
use crate::verify::fixture::{SIZE, Stored, fill, size, wal_from};
use crate::wal::archive::INDEX;
use crate::wal::survey::Run;
use pg_ark_contract::Error;
use std::collections::BTreeMap;

const BACKUP: &str = "000000010000000000000004.00000028.backup";
const HISTORY: &str = "1\t0/500000\tno reason\n";

/// Segments 3 to 6 and a backup history with their index, a history with its own.
fn stored() -> Stored {
    let stored = Stored::new();
    let mut wal = wal_from(3);
    while wal.bytes.len() < 3 * SIZE as usize {
        fill(&mut wal);
        wal.commit(900, 1);
    }
    stored.put_wal(&wal);
    stored.index(&wal);
    stored.put_plain(&format!("00000001/00000000/{BACKUP}"), b"START WAL LOCATION\n");
    stored.put_plain("00000002.history", HISTORY.as_bytes());
    enter(&stored, BACKUP, b"START WAL LOCATION\n");
    enter(&stored, "00000002.history", HISTORY.as_bytes());
    stored
}

fn enter(stored: &Stored, name: &str, content: &[u8]) {
    let path = stored.archive.index_beside(name).unwrap();
    let mut index = Index::load(stored.archive.storage(), &path, size()).unwrap();
    assert!(index.insert_file(name, FileFacts::of(content)));
    index.save(stored.archive.storage(), &path).unwrap();
}

/// Severity, name of the object and finding of each remark.
fn audited(stored: &Stored, content: bool, absences: bool) -> Vec<String> {
    let survey = Survey::take(&stored.archive, &|| Ok(())).unwrap();
    assert_eq!(survey.strangers, Vec::<String>::new());
    let remarks = audit(&stored.archive, &survey, Extent { content, absences }, &|| Ok(())).unwrap();
    let shown = remarks.iter().map(|remark| {
        let name = remark.path.rsplit_once("/wal/").unwrap().1.rsplit('/').next().unwrap();
        let place = if remark.path.ends_with(&format!("wal/{INDEX}")) { "top " } else { "" };
        format!("{} {place}{name} {}", remark.severity.as_str(), remark.finding)
    });
    shown.collect()
}

fn path_of(stored: &Stored, name: &str) -> String {
    stored.archive.path(name).unwrap()
}

#[test]
fn what_is_as_it_was_stored_gives_no_remark() {
    assert_eq!(audited(&stored(), true, true), Vec::<String>::new());
    assert_eq!(audited(&Stored::new(), true, true), Vec::<String>::new());
}

#[test]
fn plain_files_that_are_gone_or_changed_are_told() {
    let stored = stored();
    let storage = stored.archive.storage();
    let put = |content: &[u8]| storage.put(&path_of(&stored, BACKUP), content.to_vec()).unwrap();
    put(b"START WAL LOCATIOM\n");
    assert_eq!(audited(&stored, false, false), Vec::<String>::new(), "the size is right");
    let [changed] = &audited(&stored, true, false)[..] else { panic!("one remark") };
    assert!(changed.starts_with(&format!("warning {BACKUP} is not what was stored")), "{changed}");
    put(b"START\n");
    assert_eq!(audited(&stored, false, false), [format!("warning {BACKUP} has 6 bytes instead of 19")]);
    storage.delete(&path_of(&stored, BACKUP)).unwrap();
    storage.delete(&path_of(&stored, "00000002.history")).unwrap();
    let gone = "is missing: the index says that it was stored";
    assert_eq!(
        audited(&stored, false, false),
        [format!("error 00000002.history {gone}"), format!("warning {BACKUP} {gone}")]
    );
}

#[test]
fn a_partial_that_is_gone_is_told() {
    let stored = stored();
    let partial = "000000010000000000000007.partial";
    enter(&stored, partial, b"");
    let gone = format!("warning {partial} is missing: the index says that it was stored");
    assert_eq!(audited(&stored, false, true), [gone]);
    let path = format!("{}.zst", path_of(&stored, partial));
    stored.archive.storage().put(&path, b"whatever".to_vec()).unwrap();
    assert_eq!(audited(&stored, true, true), Vec::<String>::new(), "whoever reads it tells");
}

#[test]
fn a_history_that_is_not_what_was_stored_is_refused() {
    let stored = stored();
    let path = path_of(&stored, "00000002.history");
    // It is a sound history all the same.
    stored.archive.storage().put(&path, HISTORY.replace('5', "4").into_bytes()).unwrap();
    let error = stored.archive.history(Timeline(2)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt);
    assert!(error.message.contains("00000002.history\" is damaged"), "{error}");
    assert!(stored.archive.histories().is_err() && Survey::take(&stored.archive, &|| Ok(())).is_err());
    // Without the index nothing speaks against it.
    stored.archive.storage().delete(&stored.archive.index_beside("00000002.history").unwrap()).unwrap();
    assert!(stored.archive.history(Timeline(2)).unwrap().is_some());
}

#[test]
fn damaged_and_lost_indexes_are_warnings() {
    let stored = stored();
    let storage = stored.archive.storage();
    let path = stored.archive.index_path(Timeline(1), 0);
    let whole = storage.get(&path, 1 << 20).unwrap().unwrap();
    let mut lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    lines.remove(3);
    storage.put(&path, lines.concat()).unwrap();
    assert_eq!(
        audited(&stored, false, true),
        [
            "warning index.jsonl is damaged: it has 4 lines instead of 5".to_string(),
            "warning index.jsonl has no line for 1 of 4 segments: 000000010000000000000004".to_string(),
        ]
    );
    assert_eq!(audited(&stored, false, false).len(), 1, "a missing line is no fault of the archive");
    storage.put(&path, whole[..whole.len() / 2].to_vec()).unwrap();
    assert!(audited(&stored, false, false)[0].contains("its last line is missing"));
    storage.delete(&path).unwrap();
    storage.delete(&stored.archive.index_beside("00000002.history").unwrap()).unwrap();
    let missing = "is missing: nothing tells what was stored in its folder";
    assert_eq!(
        audited(&stored, false, true),
        [format!("warning top index.jsonl {missing}"), format!("warning index.jsonl {missing}")]
    );
}

#[test]
fn the_newest_segments_need_no_line_yet() {
    let stored = stored();
    for number in 7..9 {
        stored.put(1, number, ".zst", &vec![0; SIZE as usize]);
    }
    assert_eq!(audited(&stored, false, true), Vec::<String>::new());
    let path = stored.archive.index_path(Timeline(1), 0);
    stored.archive.storage().delete(&path).unwrap();
    // An index may be about to be written; whoever waits for it can be stopped.
    let stop = || Err(Error::new(ErrorKind::Cancelled, "stop"));
    let survey = Survey::take(&stored.archive, &|| Ok(())).unwrap();
    let extent = Extent { content: false, absences: true };
    assert_eq!(audit(&stored.archive, &survey, extent, &stop).unwrap_err().kind, ErrorKind::Cancelled);
}

/// A prune notes what it removes, takes the lines out, then removes the files: killed or seen in between, nothing is missing.
#[test]
fn what_is_being_pruned_needs_no_line() {
    let stored = stored();
    let storage = stored.archive.storage();
    let before = Survey::take(&stored.archive, &|| Ok(())).unwrap();
    let note = |first, last| {
        let segments = BTreeMap::from([(Timeline(1), vec![Run { first, last }])]);
        let histories = BTreeSet::from([Timeline(2)]);
        let mut pruned = Pruned::default();
        (pruned.segments, pruned.histories) = (segments, histories);
        pruned.save(&stored.archive, size()).unwrap();
    };
    note(0, 5);
    let path = stored.archive.index_path(Timeline(1), 0);
    let mut index = Index::load(storage, &path, size()).unwrap();
    assert!(index.forget(|number| number <= 5, |_| true));
    index.save(storage, &path).unwrap();
    storage.delete(&stored.archive.index_beside("00000002.history").unwrap()).unwrap();
    assert_eq!(audited(&stored, false, true), Vec::<String>::new());
    // Also to whoever took the survey before anything was noted.
    let again = |extent| audit(&stored.archive, &before, extent, &|| Ok(())).unwrap();
    let extent = Extent { content: false, absences: true };
    assert_eq!(again(extent), []);
    // One that stays needs its line.
    note(0, 4);
    assert_eq!(
        audited(&stored, false, true),
        ["warning index.jsonl has no line for 1 of 2 segments: 000000010000000000000005"]
    );
    note(0, 6);
    storage.delete(&path).unwrap();
    assert_eq!(again(extent), []);
    // Files beside the segments whose lines a writer brought back.
    enter(&stored, BACKUP, b"START WAL LOCATION\n");
    enter(&stored, "00000002.history", HISTORY.as_bytes());
    storage.delete(&path_of(&stored, BACKUP)).unwrap();
    storage.delete(&path_of(&stored, "00000002.history")).unwrap();
    assert_eq!(again(extent), []);
}
