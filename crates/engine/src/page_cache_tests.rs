use super::*;
use rustix::fs::fsync;
use std::process::Command;

const LEN: u64 = 8 << 20;

/// A file on a real disk, whole on it and not in the cache.
fn cold_file() -> (tempfile::TempDir, File) {
    // Beside the test program: /tmp may be memory.
    let here = std::env::current_exe().unwrap();
    let dir = tempfile::tempdir_in(here.parent().unwrap()).unwrap();
    let path = dir.path().join("file");
    let content: Vec<u8> = (0..LEN).map(content).collect();
    std::fs::write(&path, content).unwrap();
    let file = File::open(&path).unwrap();
    fsync(&file).unwrap();
    drop_written(&path);
    prepare(&file);
    assert_eq!(resident(&dir), 0, "this file system gives no pages back: run the tests on a disk");
    (dir, file)
}

fn content(at: u64) -> u8 {
    (at % 251) as u8 ^ (at >> 12) as u8
}

/// Bytes of the file that are in the cache, as the kernel says.
fn resident(dir: &tempfile::TempDir) -> u64 {
    let path = dir.path().join("file");
    let told = Command::new("fincore").args(["-b", "-n", "-r", "-o", "RES"]).arg(path).output();
    let told = told.expect("fincore of util-linux");
    String::from_utf8(told.stdout).unwrap().trim().parse().unwrap()
}

fn heat(file: &File, blocks: &[u64]) {
    for block in blocks {
        read_up_to(file, &mut [0; BLOCK as usize], block * BLOCK).unwrap();
    }
}

fn is_hot(file: &File, block: u64) -> bool {
    matches!(read_now(file, &mut [0; BLOCK as usize], block * BLOCK), Got::Bytes(n) if n as u64 == BLOCK)
}

/// Bytes that a machine short of memory may take back at any time.
const FEW: u64 = LEN / 50;

/// A machine that is busy for a moment may leave a few pages.
#[track_caller]
fn assert_cold(dir: &tempfile::TempDir) {
    let found = resident(dir);
    assert!(found <= UNIT, "{found} bytes are in the cache");
}

#[track_caller]
fn read(file: &File, range: Range<u64>) -> usize {
    let mut brought = Brought::default();
    let mut buffer = vec![0; (range.end - range.start) as usize];
    let read = brought.read(file, &mut buffer, range.start).unwrap();
    assert!(buffer[..read].iter().zip(range.start..).all(|(byte, at)| *byte == content(at)));
    brought.drop_behind(file);
    read
}

#[test]
fn cold_data_stay_cold() {
    let (dir, file) = cold_file();
    assert_eq!(read(&file, 0..LEN), LEN as usize);
    assert_cold(&dir);
    // In pieces, and beyond the end.
    for piece in 0..3 {
        let from = piece * (3 << 20);
        assert_eq!(read(&file, from..from + (3 << 20)) as u64, (LEN - from).min(3 << 20));
    }
    assert_cold(&dir);
    assert_eq!(read(&file, LEN..LEN + 5), 0);
}

#[test]
fn hot_data_stay_hot() {
    let (dir, file) = cold_file();
    heat(&file, &(0..LEN / BLOCK).collect::<Vec<_>>());
    assert!(resident(&dir) >= LEN - FEW, "{}", resident(&dir));
    assert_eq!(read(&file, 0..LEN), LEN as usize);
    assert!(resident(&dir) >= LEN - FEW, "{}", resident(&dir));
}

#[test]
fn each_block_stays_as_it_was() {
    let (dir, file) = cold_file();
    let hot: Vec<u64> =
        (0..LEN / BLOCK).filter(|block| block % 7 == 3 || (200..290).contains(block)).collect();
    heat(&file, &hot);
    let before = resident(&dir);
    assert!((0..=FEW).contains(&(hot.len() as u64 * BLOCK - before)), "{before}");
    for piece in 0..4 {
        read(&file, piece * (2 << 20)..(piece + 1) * (2 << 20));
    }
    let after = resident(&dir);
    assert!((before - FEW..=before + 2 * UNIT).contains(&after), "{after} instead of {before}");
    let lost = hot.iter().filter(|block| !is_hot(&file, **block)).count() as u64;
    assert!(lost <= FEW / BLOCK, "{lost} blocks");
}

#[test]
fn the_end_of_a_file_comes_and_goes_whole() {
    let (dir, file) = cold_file();
    std::fs::OpenOptions::new().write(true).open(dir.path().join("file")).unwrap().set_len(10_001).unwrap();
    fsync(&file).unwrap();
    for range in [0..10_001, 0..LEN, 8192..10_001] {
        // A look that comes late, on a busy machine, cannot tell: then a page may stay, but not each time.
        let left = (0..10).map(|_| {
            drop_written(&dir.path().join("file"));
            assert_eq!(read(&file, range.clone()) as u64, 10_001 - range.start);
            resident(&dir)
        });
        assert_eq!(left.min(), Some(0));
    }
}

#[test]
fn what_somebody_else_reads_is_dropped_behind_them() {
    let (dir, file) = cold_file();
    heat(&file, &(0..LEN / BLOCK).collect::<Vec<_>>());
    for range in [300..LEN / 2, LEN / 2 - 1..LEN, LEN - 1..u64::MAX, u64::MAX - 1..u64::MAX, 5..5] {
        drop_read(&file, range);
    }
    assert_eq!(resident(&dir), 0);
}

#[test]
fn a_file_that_is_written_leaves_the_cache() {
    let (dir, file) = cold_file();
    let path = dir.path().join("file");
    std::fs::write(&path, vec![7; LEN as usize]).unwrap();
    assert!(resident(&dir) >= LEN - FEW, "{}", resident(&dir));
    send_behind(&file, &(0..LEN));
    fsync(&file).unwrap();
    drop_written(&path);
    assert_eq!(resident(&dir), 0);
}

#[test]
fn a_file_system_that_cannot_tell_is_read_as_ever() {
    let status = File::open("/proc/self/status").unwrap();
    assert!(matches!(read_now(&status, &mut [0; 10], 0), Got::Unknown));
    let mut brought = Brought::default();
    let mut buffer = [0; 5];
    assert_eq!(brought.read(&status, &mut buffer, 0).unwrap(), 5);
    assert_eq!(&buffer, b"Name:");
    assert!(brought.ranges.is_empty());
}

#[test]
fn a_look_that_comes_late_takes_a_page_to_be_as_those_before_it() {
    let (soon, late) = (Instant::now() + 3600 * Duration::from_secs(1), Instant::now() - 2 * PROMPT);
    let mut brought = Brought::default();
    brought.judge(0..BLOCK, late);
    brought.add(BLOCK..NEAR + BLOCK);
    brought.judge(NEAR + BLOCK..NEAR + 2 * BLOCK, late);
    brought.judge(NEAR + 2 * BLOCK..NEAR + 3 * BLOCK, soon);
    brought.add(NEAR + 3 * BLOCK..NEAR + 4 * BLOCK);
    brought.judge(NEAR + 4 * BLOCK..NEAR + 5 * BLOCK, late);
    assert_eq!(brought.ranges, [BLOCK..NEAR + 2 * BLOCK, NEAR + 3 * BLOCK..NEAR + 4 * BLOCK]);
}
