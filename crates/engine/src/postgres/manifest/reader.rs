//! Reads a manifest file by file, and trusts nothing in it.

use super::fields::{RawFile, expect, key, next_key, next_object, number, set, shown, string, wal_range};
use super::lexer::{Lexer, Token};
use super::{ChecksumAlgorithm, WalRange, corrupt, unhex};
use pg_ark_contract::errors::Result;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::Read;

/// Most WAL ranges that a manifest may list: one for each timeline passed while a backup ran.
const MOST_RANGES: usize = 1 << 16;

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestFile {
    /// Path below the data directory. Never empty or absolute, without `.` and `..`, without zero bytes.
    pub path: Vec<u8>,
    /// Bytes.
    pub size: u64,
    /// Last change in seconds since 1970, if the manifest says so legibly.
    pub modified: Option<i64>,
    /// Checksum of the contents, as long as its algorithm demands.
    pub checksum: Option<(ChecksumAlgorithm, Vec<u8>)>,
}

/// What a manifest says beside its files. Only a manifest whose checksum matched gives one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// 1 or 2.
    pub version: u32,
    /// Identity of the cluster; from version 2 on.
    pub system_identifier: Option<u64>,
    /// WAL that the backup needs, in the manifest's order: newest timeline first.
    pub wal_ranges: Vec<WalRange>,
    /// How many files it lists.
    pub files: u64,
}

impl Manifest {
    /// Reads a whole manifest and gives each file to `on_file` as it comes.
    ///
    /// # Errors
    /// See [`ManifestReader::next_file`] and [`ManifestReader::finish`]; or the first error of `on_file`.
    pub fn read(input: impl Read, mut on_file: impl FnMut(ManifestFile) -> Result<()>) -> Result<Self> {
        let mut reader = ManifestReader::new(input)?;
        while let Some(file) = reader.next_file()? {
            on_file(file)?;
        }
        reader.finish()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    BetweenFields,
    InFiles {
        first: bool,
    },
    AfterEnd,
    /// After an error nothing may look like success any more.
    Failed,
}

/// Reads a manifest from a stream. As an iterator it yields the files.
pub struct ManifestReader<R> {
    lexer: Lexer<R>,
    place: Place,
    manifest: Manifest,
    seen: HashSet<String>,
    paths: HashSet<u64>,
    hasher: RandomState,
}

impl<R: Read> ManifestReader<R> {
    /// Reads the version.
    ///
    /// # Errors
    /// `Corrupt` if the manifest does not begin with a known version; otherwise what reading reports.
    pub fn new(input: R) -> Result<Self> {
        let mut lexer = Lexer::new(input);
        expect(&mut lexer, Token::ObjectStart, "it is not a JSON object")?;
        let version = "PostgreSQL-Backup-Manifest-Version".to_owned();
        expect(&mut lexer, Token::String(version), "its version is not first")?;
        expect(&mut lexer, Token::Colon, "it is not valid JSON")?;
        let version = number(lexer.next()?, "version")?;
        if !(1..=2).contains(&version) {
            return Err(corrupt(format_args!("{version} is not a known version")));
        }
        let manifest =
            Manifest { version: version as u32, system_identifier: None, wal_ranges: Vec::new(), files: 0 };
        Ok(ManifestReader {
            lexer,
            place: Place::BetweenFields,
            manifest,
            seen: HashSet::new(),
            paths: HashSet::new(),
            hasher: RandomState::new(),
        })
    }

    /// 1 or 2.
    pub fn version(&self) -> u32 {
        self.manifest.version
    }

    /// Identity of the cluster, if it has been read: PostgreSQL writes it before the files.
    pub fn system_identifier(&self) -> Option<u64> {
        self.manifest.system_identifier
    }

    /// The next file; `None` when the manifest is at its end and its checksum matched.
    ///
    /// # Errors
    /// `Corrupt` if the manifest is malformed, lists a path twice or a path that could lead outside the data directory,
    /// or its checksum does not match; otherwise what reading reports.
    pub fn next_file(&mut self) -> Result<Option<ManifestFile>> {
        let next = self.advance();
        if next.is_err() {
            self.place = Place::Failed;
        }
        next
    }

    fn advance(&mut self) -> Result<Option<ManifestFile>> {
        loop {
            match self.place {
                Place::AfterEnd => return Ok(None),
                Place::Failed => return Err(corrupt("reading it has failed before")),
                Place::BetweenFields => self.field()?,
                Place::InFiles { first } => match next_object(&mut self.lexer, first)? {
                    false => self.place = Place::BetweenFields,
                    true => {
                        self.place = Place::InFiles { first: false };
                        return self.file().map(Some);
                    }
                },
            }
        }
    }

    /// Reads what is left, and proves all that was read by the checksum at the end.
    ///
    /// # Errors
    /// As [`next_file`](Self::next_file).
    pub fn finish(mut self) -> Result<Manifest> {
        while self.next_file()?.is_some() {}
        Ok(self.manifest)
    }

    /// One field of the manifest itself, behind an earlier one.
    fn field(&mut self) -> Result<()> {
        match self.lexer.next()? {
            Token::Comma => {}
            Token::End => return Err(corrupt("it ends too early")),
            Token::ObjectEnd => return Err(corrupt("it has no checksum")),
            _ => return Err(corrupt("it is not valid JSON")),
        }
        let key = key(&mut self.lexer)?;
        if !self.seen.insert(key.clone()) {
            return Err(corrupt(format_args!("it has {key} twice")));
        }
        match key.as_str() {
            "System-Identifier" => {
                self.manifest.system_identifier = Some(number(self.lexer.next()?, "system identifier")?);
            }
            "Files" => {
                expect(&mut self.lexer, Token::ArrayStart, "its files are not a list")?;
                self.place = Place::InFiles { first: true };
            }
            "WAL-Ranges" => self.wal_ranges()?,
            "Manifest-Checksum" => self.checksum()?,
            // The name is shown no longer than a real one could be.
            other => return Err(corrupt(format_args!("it has an unknown field \"{}\"", shown(other)))),
        }
        Ok(())
    }

    fn checksum(&mut self) -> Result<()> {
        let stated = unhex(&string(self.lexer.next()?, "checksum")?).filter(|sum| sum.len() == 32);
        let stated = stated.ok_or_else(|| corrupt("its own checksum is malformed"))?;
        expect(&mut self.lexer, Token::ObjectEnd, "its checksum is not last")?;
        expect(&mut self.lexer, Token::End, "something follows it")?;
        if self.lexer.sum_before_last_line()?[..] != stated[..] {
            return Err(corrupt("its checksum does not match"));
        }
        self.place = Place::AfterEnd;
        Ok(())
    }

    fn wal_ranges(&mut self) -> Result<()> {
        expect(&mut self.lexer, Token::ArrayStart, "its WAL ranges are not a list")?;
        while next_object(&mut self.lexer, self.manifest.wal_ranges.is_empty())? {
            if self.manifest.wal_ranges.len() == MOST_RANGES {
                return Err(corrupt("it has too many WAL ranges"));
            }
            let range = wal_range(&mut self.lexer)?;
            self.manifest.wal_ranges.push(range);
        }
        Ok(())
    }

    fn file(&mut self) -> Result<ManifestFile> {
        let mut raw = RawFile::default();
        let mut first = true;
        while let Some(key) = next_key(&mut self.lexer, &mut first)? {
            let value = self.lexer.next()?;
            match key.as_str() {
                "Path" => set(&mut raw.path, string(value, "path")?, &key)?,
                "Encoded-Path" => set(&mut raw.encoded_path, string(value, "path")?, &key)?,
                "Size" => set(&mut raw.size, number(value, "file size")?, &key)?,
                "Last-Modified" => set(&mut raw.modified, string(value, "time")?, &key)?,
                "Checksum-Algorithm" => set(&mut raw.algorithm, string(value, "checksum algorithm")?, &key)?,
                "Checksum" => set(&mut raw.checksum, string(value, "checksum")?, &key)?,
                other => {
                    return Err(corrupt(format_args!("a file has an unknown field \"{}\"", shown(other))));
                }
            }
        }
        let file = raw.finish()?;
        // The hasher's keys are random, so nobody can make two paths collide; by chance it takes billions of files.
        if !self.paths.insert(self.hasher.hash_one(&file.path)) {
            return Err(corrupt(format_args!(
                "it lists \"{}\" twice",
                shown(&String::from_utf8_lossy(&file.path))
            )));
        }
        self.manifest.files += 1;
        Ok(file)
    }
}

impl<R: Read> Iterator for ManifestReader<R> {
    type Item = Result<ManifestFile>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.place == Place::Failed {
            return None;
        }
        self.next_file().transpose()
    }
}
