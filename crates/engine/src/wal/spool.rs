//! The spool of `wal-get`: segments that were fetched ahead, for one recovery of one cluster from one repository.
//!
//! ```text
//! pg_wal/.pg_ark_spool/                      or what --spool names
//!   <system identifier>-<pid>-<start>-<hash>/  pid and start of the postmaster; hash of how the repository was named
//!     lock                                     held by the process that fills it
//!     ask                                      a fifo: names of the segments that were asked for
//!     000000010000000000000004                 fetched and proved
//!     000000010000000000000005.part            being fetched; locked by who does it
//! ```
//!
//! The name is the key: a recovery that begins anew, another cluster or another repository has another spool. Whoever asks
//! for a segment takes it by renaming it. Nothing here is ever a reason to say that a segment is absent: what the spool
//! does not have is fetched from the repository.

use super::deliver::Delivery;
use crate::postgres::wal_segment::{ExpectedSegment, check_first_page};
use pg_ark_contract::{Error, ErrorKind, Result, SegmentSize};
use rustix::fs::{FileType, Mode, OFlags};
use sha2::{Digest, Sha256};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Folder of spools beside the files that are handed over.
pub const FOLDER: &str = ".pg_ark_spool";
/// Suffix of a segment that is being fetched.
const PART: &str = ".part";
/// Suffix of a file that is not yet locked.
const NEW: &str = ".new";
/// Bytes of a segment that are enough for its long header.
const HEADER: usize = 64;
/// Segments that must fit on the file system besides what is fetched ahead: recovery itself needs room.
const RESERVE: u64 = 8;

/// A running recovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// Process number of the postmaster.
    pub postmaster: i32,
    /// When it started, as postmaster.pid has it.
    pub started: u64,
}

impl Recovery {
    /// The recovery that runs in a data directory: its postmaster (`LOCK_FILE_LINE_PID` and `LOCK_FILE_LINE_START_TIME` in
    /// miscadmin.h), while one of the signal files (access/xlog.h) is there. `None` when there is none.
    pub fn of(data: &Path) -> Option<Self> {
        if !data.join("recovery.signal").exists() && !is_standby(data) {
            return None;
        }
        let mut text = String::new();
        File::open(data.join("postmaster.pid")).ok()?.take(4096).read_to_string(&mut text).ok()?;
        let mut lines = text.lines();
        let postmaster = lines.next()?.trim().parse().ok().filter(|pid: &i32| *pid > 0)?;
        Some(Recovery { postmaster, started: lines.nth(1)?.trim().parse().ok()? })
    }
}

/// Whether the server in a data directory is a standby: it never promotes itself, whatever it is told.
pub fn is_standby(data: &Path) -> bool {
    data.join("standby.signal").exists()
}

/// The spool of one recovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spool {
    base: PathBuf,
    folder: PathBuf,
}

impl Spool {
    /// The spool below `base` for a recovery of `system_identifier`. `origin`: how the repository and the cluster were
    /// named. Nothing is looked at.
    pub fn of(base: &Path, system_identifier: u64, recovery: &Recovery, origin: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in origin {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        let hash: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let Recovery { postmaster, started } = recovery;
        let folder = base.join(format!("{system_identifier}-{postmaster}-{started}-{hash}"));
        Spool { base: base.to_path_buf(), folder }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Hands a segment over, if it is here and is what it should be; waits for one that is being fetched. False: fetch it.
    pub fn take(&self, name: &str, expected: &ExpectedSegment, destination: &Path) -> bool {
        if !self.is_ours() {
            return false;
        }
        let path = self.folder.join(name);
        if !path.exists()
            && let Some(part) = open(&self.part(name))
        {
            // It is locked by who fetches it, and released when it is done or its process dead.
            let _ = part.lock();
        }
        let Some(file) = open(&path) else { return false };
        if !is_sound(&file, expected) {
            let _ = std::fs::remove_file(&path);
            return false;
        }
        match std::fs::rename(&path, destination) {
            Ok(()) => true,
            Err(e) if e.kind() == std::io::ErrorKind::CrossesDevices => {
                let copied = copy(file, destination).is_ok();
                let _ = std::fs::remove_file(&path);
                copied
            }
            Err(_) => false,
        }
    }

    /// Tells the process that fills the spool which segment is asked for; false when there is none.
    pub fn tell(&self, name: &str) -> bool {
        if !self.is_ours() {
            return false;
        }
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        // Without a reader this fails.
        let Ok(fifo) = rustix::fs::open(self.fifo(), flags, Mode::empty()) else { return false };
        let is_fifo =
            rustix::fs::fstat(&fifo).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_fifo());
        is_fifo && File::from(fifo).write_all(format!("{name}\n").as_bytes()).is_ok()
    }

    /// Whether there is room to fetch `segments` ahead and leave what recovery needs.
    pub fn has_room(&self, segments: u64, size: SegmentSize) -> bool {
        let Some(place) = self.folder.ancestors().find(|folder| folder.exists()) else { return false };
        let Ok(stat) = rustix::fs::statvfs(place) else { return false };
        stat.f_bavail.saturating_mul(stat.f_frsize) / size.bytes() >= RESERVE + segments
    }

    /// Gives back the room of what was fetched ahead.
    pub fn clear(&self) {
        if self.is_ours() {
            for name in
                names(&self.folder).into_iter().filter(|name| !matches!(name.as_str(), "lock" | "ask"))
            {
                let _ = std::fs::remove_file(self.folder.join(name));
            }
        }
    }

    /// Whether the folder is there and nobody else can write into it: what it holds goes into the server.
    fn is_ours(&self) -> bool {
        let uid = rustix::process::geteuid().as_raw();
        std::fs::symlink_metadata(&self.folder)
            .is_ok_and(|meta| meta.is_dir() && meta.uid() == uid && meta.mode() & 0o022 == 0)
    }

    fn fifo(&self) -> PathBuf {
        self.folder.join("ask")
    }

    fn part(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}{PART}"))
    }

    /// Makes the spool and takes it; `None` when another process fills it. Spools whose process is dead are removed.
    ///
    /// # Errors
    /// What the system said.
    pub fn fill(&self) -> Result<Option<Filling>> {
        let failed =
            |e: std::io::Error| Error::io(format!("could not use \"{}\"", self.folder.display()), &e);
        // The folder may be removed by one that ends, until the lock is held on a file that is still there.
        loop {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(failed)?;
            if !self.is_ours() {
                if !self.folder.exists() {
                    continue;
                }
                let message = format!("\"{}\" can be written by others", self.folder.display());
                return Err(Error::new(ErrorKind::PermissionDenied, message));
            }
            let lock = match create(&self.folder.join("lock"), false) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                other => other.map_err(failed)?,
            };
            if lock.try_lock().is_err() {
                return Ok(None);
            }
            let held = lock.metadata().map_err(failed)?;
            if std::fs::symlink_metadata(self.folder.join("lock")).is_ok_and(|now| now.ino() == held.ino()) {
                self.remove_dead(Some(&self.folder));
                return Ok(Some(Filling { spool: self.clone(), _lock: lock }));
            }
        }
    }

    /// Removes what processes that were killed left here. At the end of the WAL nobody comes to do so later.
    pub fn sweep(&self) {
        self.remove_dead(None);
        let _ = std::fs::remove_dir(&self.base);
    }

    /// Removes spools that nobody fills.
    fn remove_dead(&self, but: Option<&Path>) {
        for name in names(&self.base) {
            let folder = self.base.join(&name);
            if Some(folder.as_path()) == but || !is_key(&name) {
                continue;
            }
            let lock = open(&folder.join("lock"));
            let dead = match &lock {
                // Held until the folder is gone: who begins meanwhile makes it anew.
                Some(lock) => lock.try_lock().is_ok(),
                None => !folder.join("lock").exists(),
            };
            if dead {
                let _ = std::fs::remove_dir_all(&folder);
            }
        }
    }
}

/// A spool that this process fills. Dropped, it is removed.
pub struct Filling {
    spool: Spool,
    _lock: File,
}

impl Filling {
    /// Makes the fifo and opens it for reading, without ever seeing its end.
    ///
    /// # Errors
    /// What the system said.
    pub fn listen(&self) -> Result<File> {
        let path = self.spool.fifo();
        let failed =
            |e: rustix::io::Errno| Error::io(format!("could not make \"{}\"", path.display()), &e.into());
        let _ = std::fs::remove_file(&path);
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .map_err(failed)?;
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(File::from(rustix::fs::open(&path, flags, Mode::empty()).map_err(failed)?))
    }

    /// Names of the segments that are complete, and removes what a dead process left of others.
    pub fn found(&self) -> Vec<String> {
        let (whole, rest): (Vec<String>, Vec<String>) = names(&self.spool.folder)
            .into_iter()
            .filter(|name| !matches!(name.as_str(), "lock" | "ask"))
            .partition(|name| crate::postgres::wal_segment::is_segment(name));
        rest.iter().for_each(|name| self.remove(name));
        whole
    }

    /// Removes a file.
    pub fn remove(&self, name: &str) {
        let _ = std::fs::remove_file(self.spool.folder.join(name));
    }

    /// Begins a segment: from now on whoever wants it waits until the file is finished or dropped.
    ///
    /// # Errors
    /// What the system said.
    pub fn begin(&self, name: &str) -> std::io::Result<Part> {
        // It gets its name when it is locked.
        let new = self.spool.folder.join(format!("{name}{NEW}"));
        let file = create(&new, true)?;
        file.lock()?;
        let path = self.spool.part(name);
        std::fs::rename(new, &path)?;
        Ok(Part { file, path, finished: self.spool.folder.join(name) })
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.spool.folder);
        // Fails while another recovery has a spool there.
        let _ = std::fs::remove_dir(&self.spool.base);
    }
}

/// A segment that is being fetched.
pub struct Part {
    file: File,
    path: PathBuf,
    finished: PathBuf,
}

impl Part {
    /// Appends bytes.
    ///
    /// # Errors
    /// What the system said.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all(bytes)
            .map_err(|e| Error::io(format!("could not write \"{}\"", self.path.display()), &e))
    }

    /// Makes the segment one that can be taken. It is on disk then, so that PostgreSQL does not wait for that.
    ///
    /// # Errors
    /// What the system said.
    pub fn finish(self) -> Result<()> {
        self.file
            .sync_data()
            .and_then(|()| std::fs::rename(&self.path, &self.finished))
            .map_err(|e| Error::io(format!("could not write \"{}\"", self.finished.display()), &e))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After `finish` the name is free already.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn is_sound(mut file: &File, expected: &ExpectedSegment) -> bool {
    let mut first = [0; HEADER];
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.len() == expected.segment_size.bytes())
        && file.read_exact(&mut first).is_ok()
        && check_first_page(&first, expected).is_ok()
}

/// Copies a segment whose spool is on another file system.
fn copy(file: File, destination: &Path) -> Result<()> {
    let mut delivery = Delivery::begin(destination)?;
    let mut piece = vec![0; 1 << 20];
    let failed = |e: std::io::Error| Error::io("could not read the spool", &e);
    std::io::Seek::rewind(&mut &file).map_err(failed)?;
    loop {
        match (&file).read(&mut piece).map_err(failed)? {
            0 => return delivery.finish(),
            count => delivery.write(piece.get(..count).unwrap_or_default())?,
        }
    }
}

fn open(path: &Path) -> Option<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open(path).ok()
}

fn create(path: &Path, empty: bool) -> std::io::Result<File> {
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    OpenOptions::new().write(true).create(true).truncate(empty).mode(0o600).custom_flags(flags).open(path)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Whether a name has the form of a spool's: `--spool` may name a folder that holds other things.
fn is_key(name: &str) -> bool {
    let parts: Vec<&str> = name.split('-').collect();
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match &parts[..] {
        [numbers @ .., hash] => {
            numbers.len() == 3
                && numbers.iter().all(|part| number(part))
                && hash.len() == 16
                && hash.bytes().all(|b| b.is_ascii_hexdigit())
        }
        [] => false,
    }
}

#[cfg(test)]
#[path = "spool_tests.rs"]
mod tests;
