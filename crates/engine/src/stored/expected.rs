//! What the backup manifest says should be there, kept compactly: about 60 bytes for a file.

use super::objects::{ObjectReader, unwrap_io};
use crate::postgres::manifest::{ChecksumAlgorithm, Manifest, ManifestFile, WalRange};
use crate::repository::{Record, Storage};
use pg_ark_contract::{Error, ErrorKind, Result};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::OnceLock;

/// Checksum of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sum {
    /// The manifest has none.
    None,
    /// CRC-32C.
    Crc32c(u32),
    /// SHA-256, by number in [`Expected`].
    Sha256(u32),
}

/// A file that the manifest lists.
#[derive(Debug, Clone, Copy)]
pub struct ExpectedFile {
    path_at: u64,
    path_len: u16,
    /// Bytes.
    pub size: u64,
    /// Checksum of the content.
    pub sum: Sum,
}

/// Every file that the manifest lists, sorted by path.
#[derive(Debug, Default)]
pub struct Expected {
    paths: Vec<u8>,
    files: Vec<ExpectedFile>,
    sha256: Vec<[u8; 32]>,
    /// WAL that the backup needs, as the manifest says.
    pub wal_ranges: Vec<WalRange>,
    /// Files whose paths are not UTF-8, by what they look like.
    lossy: OnceLock<HashMap<String, usize>>,
}

impl Expected {
    /// Reads the manifest of a backup and copies it to `copy`.
    ///
    /// # Errors
    /// `Corrupt` when it is damaged or belongs to another cluster, `Unsupported` for a checksum this program cannot
    /// compute; what the store or `copy` said.
    pub fn load(storage: &Storage, folder: &str, record: &Record, copy: &mut dyn Write) -> Result<Self> {
        let object = record.manifest.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, format!("backup \"{}\" has no manifest", record.backup))
        })?;
        let mut expected = Expected::default();
        let input = Tee { input: ObjectReader::new(storage, folder, std::slice::from_ref(object)), copy };
        let mut input = Carried { input, error: None };
        let read = Manifest::read(&mut input, |file| expected.add(file));
        if let Some(error) = input.error.take() {
            return Err(error);
        }
        let manifest = read?;
        if manifest.system_identifier.is_some_and(|id| id.to_string() != record.system_identifier) {
            return Err(Error::new(ErrorKind::Corrupt, "the backup manifest belongs to another cluster"));
        }
        expected.wal_ranges = manifest.wal_ranges;
        expected.sort();
        Ok(expected)
    }

    /// Adds a file.
    ///
    /// # Errors
    /// `Unsupported` for a checksum this program cannot compute.
    pub fn add(&mut self, file: ManifestFile) -> Result<()> {
        let sum = match file.checksum.as_ref().map(|(algorithm, sum)| (*algorithm, &sum[..])) {
            None => Sum::None,
            Some((ChecksumAlgorithm::Crc32c, sum)) => {
                let bytes = sum.try_into().map_err(|_| self.bad_sum(&file))?;
                // The manifest shows the four bytes in memory order of a little-endian machine.
                Sum::Crc32c(u32::from_le_bytes(bytes))
            }
            Some((ChecksumAlgorithm::Sha256, sum)) => {
                self.sha256.push(sum.try_into().map_err(|_| self.bad_sum(&file))?);
                Sum::Sha256(self.sha256.len() as u32 - 1)
            }
            Some((other, _)) => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("the backup manifest uses {} checksums", other.name()),
                ));
            }
        };
        let path_len = u16::try_from(file.path.len()).map_err(|_| self.bad_sum(&file))?;
        self.files.push(ExpectedFile { path_at: self.paths.len() as u64, path_len, size: file.size, sum });
        self.paths.extend_from_slice(&file.path);
        Ok(())
    }

    /// Makes [`Expected::find`] work.
    pub fn sort(&mut self) {
        let paths = &self.paths;
        self.files.sort_unstable_by(|a, b| path_in(paths, a).cmp(path_in(paths, b)));
    }

    /// The number of the file at `path`.
    pub fn find(&self, path: &[u8]) -> Option<usize> {
        self.files.binary_search_by(|file| path_in(&self.paths, file).cmp(path)).ok()
    }

    /// The number of the only file whose path looks like `path` once bytes that are not UTF-8 are replaced.
    pub fn find_lossy(&self, path: &[u8]) -> Option<usize> {
        let lossy = self.lossy.get_or_init(|| {
            let odd = |number: &usize| std::str::from_utf8(self.path(*number)).is_err();
            let shown = |number: usize| (String::from_utf8_lossy(self.path(number)).into_owned(), number);
            let mut found = HashMap::new();
            for (shown, number) in (0..self.files.len()).filter(odd).map(shown) {
                let twice = found.contains_key(&shown);
                found.insert(shown, if twice { usize::MAX } else { number });
            }
            found
        });
        let number = *lossy.get(std::str::from_utf8(path).ok()?)?;
        (number < self.files.len()).then_some(number)
    }

    /// File number `number`.
    pub fn file(&self, number: usize) -> ExpectedFile {
        self.files[number]
    }

    /// Path of file number `number`.
    pub fn path(&self, number: usize) -> &[u8] {
        path_in(&self.paths, &self.files[number])
    }

    /// How many files there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// A SHA-256 by its number.
    pub fn sha256(&self, number: u32) -> [u8; 32] {
        self.sha256[number as usize]
    }

    fn bad_sum(&self, file: &ManifestFile) -> Error {
        let path = super::names::shown(&file.path);
        Error::new(ErrorKind::Corrupt, format!("the backup manifest has a malformed entry for \"{path}\""))
    }
}

fn path_in<'a>(paths: &'a [u8], file: &ExpectedFile) -> &'a [u8] {
    &paths[file.path_at as usize..file.path_at as usize + usize::from(file.path_len)]
}

/// Copies what is read.
struct Tee<'a, R> {
    input: R,
    copy: &'a mut dyn Write,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let len = self.input.read(buf)?;
        self.copy
            .write_all(&buf[..len])
            .map_err(|e| std::io::Error::other(Error::io("could not write the backup manifest", &e)))?;
        Ok(len)
    }
}

/// Keeps the first error with its kind, which `std::io` would hide.
struct Carried<R> {
    input: R,
    error: Option<Error>,
}

impl<R: Read> Read for Carried<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.input.read(buf).map_err(|e| {
            let error = unwrap_io("could not read the backup manifest", e);
            let io = std::io::Error::other(error.clone());
            self.error.get_or_insert(error);
            io
        })
    }
}
