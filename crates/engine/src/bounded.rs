//! Files that somebody else may have made: opened only when they are files, read only so far.
//!
//! Why: who opens a fifo waits for its writer for ever, and a backup may hold a `pg_control` of a terabyte of zeros in a few
//! megabytes. Every reader of a data directory, old or restored, goes through here unless it reads a stream anyway.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Read, Result};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Most bytes of a control file that are looked at; a server writes 8 KiB (`PG_CONTROL_FILE_SIZE`, catalog/pg_control.h).
pub const MAX_CONTROL: u64 = 64 << 10;
/// Most bytes of a configuration file, or of any other text that a server reads whole.
pub const MAX_TEXT: u64 = 64 << 20;
/// Most bytes of a file of a few lines, such as `postmaster.pid`.
pub const MAX_LINES: u64 = 64 << 10;

/// Opens a file for reading. Links are followed.
///
/// # Errors
/// What the system said; `InvalidInput` for anything but a file.
pub fn open(path: &Path) -> Result<File> {
    open_with(path, rustix::fs::OFlags::NONBLOCK)
}

/// As [`open`], but a link is not followed.
///
/// # Errors
/// As [`open`].
pub fn open_no_link(path: &Path) -> Result<File> {
    open_with(path, rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW)
}

fn open_with(path: &Path, flags: rustix::fs::OFlags) -> Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(Error::new(ErrorKind::InvalidInput, "it is not a file")),
    }
}

/// A whole file.
///
/// # Errors
/// As [`open`]; `InvalidData` for one of more than `max` bytes.
pub fn read(path: &Path, max: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > max {
        true => Err(Error::new(ErrorKind::InvalidData, format!("it has more than {max} bytes"))),
        false => Ok(bytes),
    }
}

/// A whole file of text.
///
/// # Errors
/// As [`read`]; `InvalidData` for bytes that are not UTF-8.
pub fn text(path: &Path, max: u64) -> Result<String> {
    String::from_utf8(read(path, max)?).map_err(|e| Error::new(ErrorKind::InvalidData, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode};

    #[test]
    fn only_files_are_opened_and_only_so_far() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        std::os::unix::fs::symlink(at("fifo"), at("link")).unwrap();
        for name in ["fifo", "link"] {
            assert_eq!(open(&at(name)).unwrap_err().kind(), ErrorKind::InvalidInput, "{name}");
        }
        for name in ["/dev/zero", "/"] {
            assert_eq!(open(Path::new(name)).unwrap_err().kind(), ErrorKind::InvalidInput, "{name}");
        }
        std::fs::write(at("text"), "12345").unwrap();
        assert_eq!(text(&at("text"), 5).unwrap(), "12345");
        assert_eq!(read(&at("text"), 4).unwrap_err().kind(), ErrorKind::InvalidData);
        std::os::unix::fs::symlink(at("text"), at("other")).unwrap();
        assert_eq!(read(&at("other"), 5).unwrap(), b"12345");
        assert!(open_no_link(&at("other")).is_err() && open_no_link(&at("text")).is_ok());
        // Zeros that take no room.
        File::create(at("sparse")).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(read(&at("sparse"), 1 << 20).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
