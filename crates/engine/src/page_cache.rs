//! Reads and writes files without taking the page cache away from the server.
//!
//! What: pages that were in the cache stay there; those that we brought in are dropped when they were used. What was
//! there, the kernel says itself: a read with RWF_NOWAIT (preadv2(2)) gives what the cache holds, and asks the disk for
//! the rest without waiting. In the moment after it, pages that came from the disk are still under way, so a look at
//! each block tells them from those that were there. A look that comes late, because the processor did something else,
//! tells nothing: then a page counts as one that was there, unless those before it were not.
//! Why not POSIX_FADV_SEQUENTIAL: the kernel would read ahead, beyond what we know of. POSIX_FADV_RANDOM makes it bring
//! in what is asked for and nothing else; we ask for much at once instead.
//! Rejected: O_DIRECT, which would read from disk what is in memory; mincore(2) and cachestat(2), which no safe
//! interface offers; RWF_DONTCACHE (Linux 6.14), which most servers do not have yet.
//! A file system without RWF_NOWAIT (NFS, say) is read as ever.

use rustix::fs::{Advice, OFlags, fadvise};
use rustix::io::{Errno, IoSliceMut, ReadWriteFlags, preadv2};
use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes asked for with one call: the largest request that all common disks take as one.
const UNIT: u64 = 256 << 10;
/// Bytes looked at one by one where not everything is there: what PostgreSQL reads at once.
const BLOCK: u64 = 8 << 10;
/// Bytes in the smallest page of memory.
const PAGE: u64 = 4 << 10;
/// How soon after the question a page cannot have come from a disk: some time less than disks take for a [`UNIT`].
const PROMPT: Duration = Duration::from_micros(100);
/// Bytes not in the cache before a page that make it likely that it was not there either.
const NEAR: u64 = 16 * BLOCK;

/// Says that `file` will be read with [`Brought::read`].
pub fn prepare(file: &File) {
    advise(file, &(0..u64::MAX), Advice::Random);
}

/// What was brought into the cache, as ranges of bytes of one file.
#[derive(Debug, Default)]
pub struct Brought {
    ranges: Vec<Range<u64>>,
    /// Bytes since the last that was in the cache.
    cold: u64,
}

/// What a read that does not wait gave.
enum Got {
    Bytes(usize),
    NotThere,
    Unknown,
}

impl Brought {
    /// Reads until the buffer is full or the file ends; returns how much was read.
    ///
    /// # Errors
    /// As read(2).
    pub fn read(&mut self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut late: Vec<Range<u64>> = Vec::new();
        let (mut at, mut end) = (0, buffer.len());
        let (mut step, mut asked) = (UNIT, Instant::now());
        while at < end {
            let from = offset + at as u64;
            if from.is_multiple_of(UNIT) {
                (step, asked) = (UNIT, Instant::now());
            }
            let mut stop = end.min(at + (step - from % step) as usize);
            match read_now(file, &mut buffer[at..stop], from) {
                Got::Bytes(0) => end = at,
                Got::Bytes(n) => {
                    self.judge(from..from + n as u64, asked);
                    at += n;
                }
                Got::NotThere => {
                    step = BLOCK;
                    stop = end.min(at + (step - from % step) as usize);
                    self.add(from..offset + stop as u64);
                    join(&mut late, at as u64..stop as u64);
                    at = stop;
                }
                Got::Unknown => {
                    end = at + read_up_to(file, &mut buffer[at..end], from)?;
                    break;
                }
            }
        }
        for range in late {
            let (from, stop) = (range.start as usize, end.min(range.end as usize));
            let read = read_up_to(file, &mut buffer[from..stop], offset + range.start)?;
            if read < stop - from {
                return Ok(from + read); // It was cut meanwhile.
            }
        }
        Ok(end)
    }

    /// Enters a range that is in the cache, `asked` for at that time.
    fn judge(&mut self, range: Range<u64>, asked: Instant) {
        match asked.elapsed() > PROMPT && self.cold >= NEAR {
            true => self.add(range),
            false => self.cold = 0,
        }
    }

    fn add(&mut self, range: Range<u64>) {
        self.cold += range.end - range.start;
        join(&mut self.ranges, range);
    }

    /// Drops it from the cache. Changed pages stay until they are written.
    pub fn drop_behind(self, file: &File) {
        self.ranges.into_iter().for_each(|range| drop_read(file, range));
    }
}

/// Drops a range from the cache that was read, also what was there before: for files of which the server reads none.
pub fn drop_read(file: &File, range: Range<u64>) {
    // A page of which we read a part came whole.
    let whole =
        range.start - range.start % PAGE..range.end.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
    advise(file, &whole, Advice::DontNeed);
}

/// Drops a file that was written from the cache; what is not on disk yet is sent there.
pub fn drop_written(path: &Path) {
    // Whatever took its place is not waited for.
    let open = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path);
    if let Ok(file) = open {
        advise(&file, &(0..u64::MAX), Advice::DontNeed);
    }
}

/// Sends a range that was written to the disk, without waiting, and drops what arrived there.
pub fn send_behind(file: &File, range: &Range<u64>) {
    advise(file, range, Advice::DontNeed);
}

/// Reads until the buffer is full or the file ends; returns how much was read.
///
/// # Errors
/// As read(2).
pub fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

fn read_now(file: &File, buffer: &mut [u8], offset: u64) -> Got {
    loop {
        match preadv2(file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT) {
            Ok(n) => return Got::Bytes(n),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Got::NotThere,
            // No such call, flag or right; or an error that a plain read tells.
            Err(_) => return Got::Unknown,
        }
    }
}

/// It is advice: what the kernel does not take is left.
fn advise(file: &File, range: &Range<u64>, advice: Advice) {
    let len = (range.end < u64::MAX).then(|| range.end.saturating_sub(range.start));
    if len != Some(0) {
        let _ = fadvise(file, range.start, len.and_then(NonZeroU64::new), advice);
    }
}

fn join(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => ranges.push(range),
    }
}

#[cfg(test)]
#[path = "page_cache_tests.rs"]
mod tests;
