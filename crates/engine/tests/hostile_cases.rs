//! What a fuzzer found once (`scripts/fuzz`, `fuzz/cases/<target>/...`) stays found: each case goes through its reader again.
//! A reader that panics fails the test; so does one that takes long.

#[allow(missing_docs, dead_code)]
#[path = "../../../fuzz/src/readers/mod.rs"]
mod readers;

use readers::{READERS, run, samples};
use std::path::Path;
use std::time::{Duration, Instant};

/// No case is large, so no reader needs longer, on any machine.
const LONGEST: Duration = Duration::from_secs(10);

#[test]
fn what_was_found_once_is_read_without_harm() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/cases");
    let mut count = 0;
    for reader in READERS {
        for entry in std::fs::read_dir(cases.join(reader.name)).into_iter().flatten().flatten() {
            let begun = Instant::now();
            run(reader.name, &std::fs::read(entry.path()).unwrap());
            assert!(begun.elapsed() < LONGEST, "{} took {:?}", entry.path().display(), begun.elapsed());
            count += 1;
        }
    }
    let kept =
        walkdir::WalkDir::new(&cases).into_iter().flatten().filter(|e| e.file_type().is_file()).count();
    assert_eq!(count, kept, "each case lies in a folder that is named after a reader");
}

#[test]
fn every_reader_has_a_fuzz_target_and_reads_its_samples() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    for reader in READERS {
        let target = std::fs::read_to_string(fuzz.join(format!("targets/{}.rs", reader.name))).unwrap();
        assert!(target.contains(&format!("run(\"{}\"", reader.name)), "{}", reader.name);
        assert!(manifest.contains(&format!("name = \"{}\"", reader.name)), "{}", reader.name);
        samples::of(reader.name).iter().for_each(|sample| run(reader.name, sample));
    }
    assert_eq!(std::fs::read_dir(fuzz.join("targets")).unwrap().count(), READERS.len());
}
