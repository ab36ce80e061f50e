//! Where the index says that files begin, about 24 bytes for each. The walk is compared with it, and goes on by it
//! behind damage.

use crate::repository::record::ArchiveContent;
use crate::stored::expected::Expected;
use crate::stored::index::FilePlace;
use std::borrow::Cow;

/// The most files of an archive that the manifest does not list: WAL and configuration.
const MAX_UNLISTED: usize = 1 << 20;

/// The place of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// First byte of its content in the tar.
    pub at: u64,
    /// Bytes.
    pub size: u64,
    /// Which file.
    pub id: FileId,
}

/// Which file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileId {
    /// Its number in the manifest.
    Listed(u32),
    /// Its number among the names of an archive that the manifest does not list.
    Named(u32),
    /// The manifest should list it, and does not; or it lists several that look like it, and this is the number of the
    /// name among those of [`FileId::Named`].
    Unknown(u32),
}

/// The files of one archive.
#[derive(Debug, Default)]
pub struct Places {
    places: Vec<Place>,
    names: Vec<String>,
}

/// Path in the manifest of a member of an archive; none when the manifest lists nothing of the archive.
pub fn listed_path(content: ArchiveContent, member: &[u8]) -> Option<Cow<'_, [u8]>> {
    match content {
        ArchiveContent::Base => Some(Cow::Borrowed(member)),
        ArchiveContent::Tablespace(oid) => {
            Some(Cow::Owned([format!("pg_tblspc/{oid}/").as_bytes(), member].concat()))
        }
        ArchiveContent::Wal | ArchiveContent::Config => None,
    }
}

impl Places {
    /// Adds what a line of the index says.
    ///
    /// # Errors
    /// Why the index cannot be used.
    pub fn add(
        &mut self,
        content: ArchiveContent,
        place: FilePlace,
        expected: &Expected,
    ) -> Result<(), String> {
        if self.places.last().is_some_and(|last| place.at < last.at) {
            return Err("its files are not in order".into());
        }
        let most = match content {
            ArchiveContent::Base | ArchiveContent::Tablespace(_) if !expected.is_empty() => {
                expected.len().saturating_add(1000)
            }
            _ => MAX_UNLISTED,
        };
        if self.places.len() >= most {
            return Err("it lists too many files".into());
        }
        let id = match listed_path(content, place.file.as_bytes()).filter(|_| !expected.is_empty()) {
            Some(path) => {
                // Bytes that are not UTF-8 were replaced.
                let found = expected.find(&path).or_else(|| {
                    place.file.contains(char::REPLACEMENT_CHARACTER).then(|| expected.find_lossy(&path))?
                });
                match found.and_then(|number| u32::try_from(number).ok()) {
                    Some(number) => FileId::Listed(number),
                    None => FileId::Unknown(self.remember(place.file)),
                }
            }
            None => FileId::Named(self.remember(place.file)),
        };
        self.places.push(Place { at: place.at, size: place.size, id });
        Ok(())
    }

    fn remember(&mut self, name: String) -> u32 {
        self.names.push(name);
        u32::try_from(self.names.len() - 1).unwrap_or(u32::MAX)
    }

    /// Number of the first file that begins at `at` or behind it.
    pub fn first_from(&self, at: u64) -> usize {
        self.places.partition_point(|place| place.at < at)
    }

    /// File number `number`.
    pub fn get(&self, number: usize) -> Option<Place> {
        self.places.get(number).copied()
    }

    /// Files whose content begins between two bytes of the tar.
    pub fn between(&self, from: u64, to: u64) -> &[Place] {
        self.places.get(self.first_from(from)..self.first_from(to)).unwrap_or_default()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The name of a file in an archive that the manifest does not list.
    pub fn name(&self, number: u32) -> Option<&str> {
        self.names.get(number as usize).map(String::as_str)
    }
}
