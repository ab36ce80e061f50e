//! The museum of damage: for each way to be broken a small repository, and beside it what every reader says about it. No
//! reader panics, none writes outside of what a restore was given.
//!
//! `museum/pristine` is whole. `museum/exhibits/NAME` holds the objects that differ in `objects`, names of those that are gone
//! in `removed`, and in `expected.txt` what readers say. `examples/make_museum.rs` makes exhibits; `MUSEUM=overwrite` writes what
//! readers say now.

#[path = "museum/readers.rs"]
mod readers;

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What hostile archives try to make.
const OUTSIDE: &str = "/tmp/pg_ark_museum_outside";

fn museum() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/museum")
}

fn exhibits() -> Vec<String> {
    let entries = fs::read_dir(museum().join("exhibits")).expect("the museum").flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Every file and link below a folder.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let all = walkdir::WalkDir::new(folder).into_iter().flatten();
    all.filter(|entry| !entry.file_type().is_dir()).map(walkdir::DirEntry::into_path).collect()
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).expect("below"));
        fs::create_dir_all(target.parent().expect("a folder")).expect("a folder");
        fs::copy(&file, &target).expect("a copy");
        // The server's user must be able to read it.
        fs::set_permissions(&target, Permissions::from_mode(0o644)).expect("a mode");
    }
}

/// Builds the repository of an exhibit; of none: the whole one.
fn build(exhibit: Option<&str>, repository: &Path) {
    copy(&museum().join("pristine"), repository);
    let Some(exhibit) = exhibit else { return };
    let folder = museum().join("exhibits").join(exhibit);
    copy(&folder.join("objects"), repository);
    for name in fs::read_to_string(folder.join("removed")).unwrap_or_default().lines() {
        fs::remove_file(repository.join(name)).unwrap_or_else(|e| panic!("{exhibit}: {name}: {e}"));
    }
}

/// What every reader says about an exhibit.
fn said(exhibit: Option<&str>) -> String {
    let room = tempfile::tempdir().expect("a folder");
    fs::set_permissions(room.path(), Permissions::from_mode(0o755)).expect("a mode");
    let (repository, target) = (room.path().join("repository"), room.path().join("target"));
    build(exhibit, &repository);
    let before = files(&repository);
    let text = readers::all(&repository, &target);
    assert_eq!(files(&repository), before, "{exhibit:?}: a reader wrote to the repository");
    for file in files(room.path()) {
        assert!(
            file.starts_with(&repository) || file.starts_with(&target),
            "{exhibit:?}: {file:?} was written"
        );
        let link = fs::read_link(&file).ok();
        assert!(link.is_none_or(|to| to.starts_with(&target)), "{exhibit:?}: {file:?} leads outside");
    }
    assert!(!Path::new(OUTSIDE).exists(), "{exhibit:?} wrote {OUTSIDE}");
    text
}

#[test]
fn a_whole_repository_has_no_findings() {
    let text = said(None);
    assert!(!text.contains("\n  error") && !text.contains("\n  warning"), "{text}");
    for line in ["verify record: nothing found", "verify data: nothing found", "verify pages: nothing found"]
    {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn every_exhibit_has_its_findings() {
    let overwrite = std::env::var_os("MUSEUM").is_some_and(|value| value == "overwrite");
    let (exhibits, next, faults) = (exhibits(), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let visit = || {
        while let Some(exhibit) = exhibits.get(next.fetch_add(1, Ordering::Relaxed)) {
            let text = said(Some(exhibit));
            let path = museum().join("exhibits").join(exhibit).join("expected.txt");
            if overwrite {
                fs::write(&path, &text).expect("the expectation");
            }
            let expected = fs::read_to_string(&path).unwrap_or_default();
            let fault = if text != expected {
                format!("{exhibit}: expected\n{expected}\nbut readers say\n{text}")
            } else if !is_found(exhibit, &text) {
                format!("{exhibit} is not found:\n{text}")
            } else {
                continue;
            };
            faults.lock().expect("no panic").push(fault);
        }
    };
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        (0..cores).for_each(|_| drop(scope.spawn(visit)));
    });
    let faults = faults.into_inner().expect("no panic");
    assert!(faults.is_empty(), "{} of {} exhibits:\n{}", faults.len(), exhibits.len(), faults.join("\n"));
}

/// Whether verify finds fault with an exhibit, at the level that can.
fn is_found(exhibit: &str, text: &str) -> bool {
    let level = match exhibit {
        // What every reader says of one that is whole.
        "logical_whole" => return true,
        "page_damaged_before_the_backup" => "pages",
        _ => "data",
    };
    !text.contains(&format!("verify {level}: nothing found"))
}
