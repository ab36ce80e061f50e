//! Room that is kept for removing: `<cluster>/reserve/<n>`. FORMAT.md, section "Retention".
//!
//! What: some objects of no meaning. Whoever is to remove something and finds the disk full gives one of them up, tries again,
//! and makes them anew at the end. Why: removing begins with writing: the ticket of the lease, the marks of what goes. On a
//! disk without a free byte nothing could ever be removed. Several, because an archiver that waits for room may be faster.

use super::{Cluster, Storage, layout};
use pg_ark_contract::{Error, ErrorKind, Result};
use std::time::Duration;

/// Objects.
const PIECES: u32 = 8;
/// Bytes of each: more than a record, an index and a ticket have together.
const PIECE: usize = 512 << 10;
/// A file system may need a moment until what was removed is free.
const PAUSE: Duration = Duration::from_millis(100);

/// Makes what of the reserve is not there, as far as there is room. What stands against it is no reason to fail: without
/// a reserve everything works until the disk is full.
pub fn make(cluster: &Cluster) {
    let storage = cluster.storage();
    if !cluster.exists() {
        return;
    }
    for number in 1..=PIECES {
        let path = layout::reserve(cluster.name(), number);
        match storage.size(&path) {
            Ok(Some(size)) if size == PIECE as u64 => continue,
            Ok(_) if storage.free_bytes().is_none_or(|free| free > PIECE as u64) => {}
            _ => return,
        }
        if storage.put(&path, filling(number)).is_err() {
            return;
        }
    }
}

/// Does `work`; each time that it finds the disk full, a piece of the reserve is given up and it is done again. `pause`
/// sleeps, and fails when there is no more use in it.
///
/// # Errors
/// What `work` or `pause` said; `DiskFull` when there is nothing left to give up.
pub fn spend<T>(
    cluster: &Cluster,
    pause: &dyn Fn(Duration) -> Result<()>,
    work: impl Fn() -> Result<T>,
) -> Result<T> {
    let mut is_spent = false;
    let result = loop {
        match work() {
            Err(e) if e.kind == ErrorKind::DiskFull => match give_up(cluster) {
                true => is_spent = true,
                false => break Err(told(e, cluster.storage())),
            },
            other => break other,
        }
        pause(PAUSE)?;
    };
    if is_spent {
        make(cluster);
    }
    result
}

/// Removes a piece; says whether there was one that could be removed.
fn give_up(cluster: &Cluster) -> bool {
    let storage = cluster.storage();
    let mut pieces = (1..=PIECES).rev().map(|number| layout::reserve(cluster.name(), number));
    pieces.any(|path| matches!(storage.size(&path), Ok(Some(_))) && storage.delete(&path).is_ok())
}

fn told(error: Error, storage: &Storage) -> Error {
    error.hint(format!(
        "Before anything is removed, that is noted, which takes some kilobytes. Free so much where \"{}\" is, of other files than the repository's, then try again.",
        storage.folder().display()
    ))
}

/// What no file system makes smaller: the numbers of SplitMix64.
fn filling(seed: u32) -> Vec<u8> {
    let mut state = u64::from(seed);
    let numbers = std::iter::repeat_with(|| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).to_le_bytes()
    });
    numbers.take(PIECE / 8).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::Repository;
    use std::cell::Cell;

    fn cluster(dir: &tempfile::TempDir) -> Cluster {
        let (repository, _) =
            Repository::open_or_create(&format!("file://{}", dir.path().display())).unwrap();
        repository.cluster("main").unwrap()
    }

    fn pieces(cluster: &Cluster) -> usize {
        cluster.storage().files(&layout::reserves(cluster.name())).unwrap().len()
    }

    #[test]
    fn a_full_disk_costs_one_piece_after_the_other_and_they_are_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = cluster(&dir);
        make(&cluster);
        assert_eq!(pieces(&cluster), 0, "a cluster that was never seen stays unseen");
        cluster.remember_system(7, 150_000).unwrap();
        let cluster = Repository::open(cluster.storage().url()).unwrap().cluster("main").unwrap();
        make(&cluster);
        assert_eq!(pieces(&cluster), 8);
        assert_eq!(
            cluster.storage().list("main/reserve").unwrap().iter().map(|o| o.size).sum::<u64>(),
            4 << 20
        );

        let full = || Error::new(ErrorKind::DiskFull, "full");
        let (calls, pauses) = (Cell::new(0), Cell::new(0));
        let pause = |_| {
            pauses.set(pauses.get() + 1);
            Ok(())
        };
        let work = || {
            assert_eq!(pieces(&cluster), 8 - calls.get());
            calls.set(calls.get() + 1);
            if calls.get() < 4 { Err(full()) } else { Ok(calls.get()) }
        };
        assert_eq!(spend(&cluster, &pause, work).unwrap(), 4);
        assert_eq!((pauses.get(), pieces(&cluster)), (3, 8), "made again");

        // Another error is none of a disk, and costs nothing.
        let error = spend(&cluster, &pause, || Err::<(), _>(Error::new(ErrorKind::Busy, "x"))).unwrap_err();
        assert_eq!((error.kind, pauses.get()), (ErrorKind::Busy, 3));
        let left = Cell::new(9);
        let error = spend(&cluster, &pause, || {
            left.set(pieces(&cluster));
            Err::<(), _>(full())
        });
        let error = error.unwrap_err();
        assert_eq!((error.kind, left.get()), (ErrorKind::DiskFull, 0));
        assert!(error.hint.is_some_and(|hint| hint.contains("some kilobytes")));
    }

    #[test]
    fn what_fills_the_reserve_cannot_be_compressed() {
        let bytes = filling(1);
        assert_eq!(bytes.len(), PIECE);
        assert!(zstd::bulk::compress(&bytes, 3).unwrap().len() > PIECE * 99 / 100);
        assert_ne!(bytes, filling(2));
    }
}
