//! Where catalogs are read.

use super::Layout;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Reads files by their path below the data directory.
pub trait Source {
    /// Up to `len` bytes from byte `offset` on, fewer only at the file's end. None when the file is not there or cannot
    /// be read, which is no error: then there are no names.
    fn read(&mut self, path: &str, offset: u64, len: usize) -> Option<Vec<u8>>;

    /// The layout as it is known from elsewhere, for when `pg_control` cannot be read.
    fn layout(&self) -> Option<Layout> {
        None
    }
}

/// A data directory; its server may run.
pub struct DataDirectory {
    root: PathBuf,
}

impl DataDirectory {
    /// The data directory at `root`.
    pub fn new(root: &Path) -> Self {
        DataDirectory { root: root.to_path_buf() }
    }
}

impl Source for DataDirectory {
    fn read(&mut self, path: &str, offset: u64, len: usize) -> Option<Vec<u8>> {
        let read = || {
            let mut file = File::open(self.root.join(path))?;
            if !file.metadata()?.is_file() {
                return Err(ErrorKind::InvalidInput.into());
            }
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = Vec::new();
            file.take(len as u64).read_to_end(&mut bytes)?;
            Ok::<_, std::io::Error>(bytes)
        };
        read().ok()
    }
}
