//! Makes the museum of damage in `tests/museum`: `pristine`, a small repository that is whole, and beside it `exhibits`,
//! for each way to be broken the objects that differ. Run it to add an exhibit; what is there already stays as it is.
//!
//! ```text
//! cargo run -p pg_ark_engine --example make_museum -- crates/engine/tests/museum     # wants pg_ark installed
//! MUSEUM=overwrite cargo test -p pg_ark_engine --test museum                         # writes what readers say now
//! ```

mod dumps;
mod pristine;
mod recipes;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    let museum = std::env::args().nth(1).map(PathBuf::from).expect("usage: make_museum FOLDER");
    let whole = museum.join("pristine");
    if !whole.exists() {
        pristine::make(&whole);
    }
    for (name, recipe) in recipes::all(&whole) {
        let exhibit = museum.join("exhibits").join(&name);
        if exhibit.exists() {
            continue;
        }
        let copy = tempfile::tempdir().expect("a folder");
        copy_tree(&whole, copy.path());
        recipe(copy.path());
        keep(&whole, copy.path(), &exhibit);
        println!("{name}");
    }
}

/// Keeps what differs: changed and new objects in `objects`, the names of those that are gone in `removed`.
fn keep(whole: &Path, copy: &Path, exhibit: &Path) {
    let (before, after) = (names(whole), names(copy));
    let changed = |name: &&String| fs::read(whole.join(name)).ok() != fs::read(copy.join(name)).ok();
    for name in after.iter().filter(changed) {
        let to = exhibit.join("objects").join(name);
        fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        fs::copy(copy.join(name), to).expect("a copy");
    }
    let removed: Vec<&str> = before.difference(&after).map(String::as_str).collect();
    fs::create_dir_all(exhibit).expect("a folder");
    if !removed.is_empty() {
        fs::write(exhibit.join("removed"), format!("{}\n", removed.join("\n"))).expect("a file");
    }
}

/// Copies all files below a folder.
pub fn copy_tree(from: &Path, to: &Path) {
    for name in names(from) {
        let target = to.join(&name);
        fs::create_dir_all(target.parent().expect("a folder")).expect("a folder");
        fs::copy(from.join(&name), target).expect("a copy");
    }
}

/// Paths of all files below a folder.
pub fn names(folder: &Path) -> BTreeSet<String> {
    let files =
        walkdir::WalkDir::new(folder).into_iter().flatten().filter(|entry| entry.file_type().is_file());
    let name = |path: &Path| path.strip_prefix(folder).expect("below").to_str().expect("UTF-8").to_string();
    files.map(|entry| name(entry.path())).collect()
}
