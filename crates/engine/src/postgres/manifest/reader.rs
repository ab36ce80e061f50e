//! Reads a manifest file by file, and trusts nothing in it.

use super::lexer::{Lexer, Token};
use super::{ChecksumAlgorithm, WalRange, corrupt, unhex};
use chrono::NaiveDateTime;
use pg_ark_contract::errors::Result;
use pg_ark_contract::units::{Lsn, Timeline};
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
    InFiles { first: bool },
    AfterEnd,
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
        loop {
            match self.place {
                Place::AfterEnd => return Ok(None),
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
        let next = self.next_file();
        if next.is_err() {
            self.place = Place::AfterEnd;
        }
        next.transpose()
    }
}

#[derive(Default)]
struct RawFile {
    path: Option<String>,
    encoded_path: Option<String>,
    size: Option<u64>,
    modified: Option<String>,
    algorithm: Option<String>,
    checksum: Option<String>,
}

impl RawFile {
    fn finish(self) -> Result<ManifestFile> {
        let path = match (self.path, self.encoded_path) {
            (Some(path), None) => path.into_bytes(),
            (None, Some(encoded)) => {
                unhex(&encoded).ok_or_else(|| corrupt("an encoded path is not hexadecimal"))?
            }
            (None, None) => return Err(corrupt("a file has no path")),
            (Some(_), Some(_)) => return Err(corrupt("a file has two paths")),
        };
        let name = || shown(&String::from_utf8_lossy(&path));
        let inside = |part: &[u8]| !matches!(part, b"" | b"." | b"..");
        if path.contains(&0) || !path.split(|byte| *byte == b'/').all(inside) {
            return Err(corrupt(format_args!("\"{}\" is not a path below the data directory", name())));
        }
        let size = self.size.ok_or_else(|| corrupt(format_args!("\"{}\" has no size", name())))?;
        let checksum = match (self.algorithm, self.checksum) {
            (None, None) => None,
            (None, Some(_)) => {
                return Err(corrupt(format_args!("\"{}\" has a checksum without algorithm", name())));
            }
            (Some(algorithm), checksum) => {
                let algorithm = ChecksumAlgorithm::parse(&algorithm).ok_or_else(|| {
                    corrupt(format_args!("\"{}\" is not a checksum algorithm", shown(&algorithm)))
                })?;
                let bytes =
                    checksum.and_then(|text| unhex(&text)).filter(|sum| sum.len() == algorithm.length());
                let bytes =
                    bytes.ok_or_else(|| corrupt(format_args!("\"{}\" has a malformed checksum", name())))?;
                Some((algorithm, bytes))
            }
        };
        let modified = self.modified.and_then(|text| {
            let time = NaiveDateTime::parse_from_str(&text, "%Y-%m-%d %H:%M:%S GMT").ok()?;
            Some(time.and_utc().timestamp())
        });
        Ok(ManifestFile { path, size, modified, checksum })
    }
}

fn wal_range<R: Read>(lexer: &mut Lexer<R>) -> Result<WalRange> {
    let (mut timeline, mut start, mut end) = (None, None, None);
    let mut first = true;
    while let Some(key) = next_key(lexer, &mut first)? {
        let value = lexer.next()?;
        match key.as_str() {
            "Timeline" => set(&mut timeline, number(value, "timeline")?, &key)?,
            "Start-LSN" => set(&mut start, lsn(value)?, &key)?,
            "End-LSN" => set(&mut end, lsn(value)?, &key)?,
            other => {
                return Err(corrupt(format_args!("a WAL range has an unknown field \"{}\"", shown(other))));
            }
        }
    }
    let timeline = timeline.and_then(|number| u32::try_from(number).ok()).filter(|number| *number != 0);
    match (timeline, start, end) {
        (Some(timeline), Some(start), Some(end)) => Ok(WalRange { timeline: Timeline(timeline), start, end }),
        _ => Err(corrupt("a WAL range lacks timeline, start or end")),
    }
}

/// Whether another object of a list follows; it has then been entered.
fn next_object<R: Read>(lexer: &mut Lexer<R>, first: bool) -> Result<bool> {
    let token = match lexer.next()? {
        Token::ArrayEnd => return Ok(false),
        Token::Comma if !first => lexer.next()?,
        token if first => token,
        _ => return Err(corrupt("a list is malformed")),
    };
    if token == Token::ObjectStart {
        Ok(true)
    } else {
        Err(corrupt("a list holds something else than objects"))
    }
}

/// The next key of an object, with the colon behind it read; `None` at the object's end.
fn next_key<R: Read>(lexer: &mut Lexer<R>, first: &mut bool) -> Result<Option<String>> {
    let token = match lexer.next()? {
        Token::ObjectEnd => return Ok(None),
        Token::Comma if !*first => lexer.next()?,
        token if *first => token,
        _ => return Err(corrupt("an object is malformed")),
    };
    *first = false;
    let key = string(token, "field name")?;
    expect(lexer, Token::Colon, "it is not valid JSON")?;
    Ok(Some(key))
}

fn key<R: Read>(lexer: &mut Lexer<R>) -> Result<String> {
    let key = string(lexer.next()?, "field name")?;
    expect(lexer, Token::Colon, "it is not valid JSON")?;
    Ok(key)
}

fn expect<R: Read>(lexer: &mut Lexer<R>, token: Token, otherwise: &str) -> Result<()> {
    if lexer.next()? == token { Ok(()) } else { Err(corrupt(otherwise)) }
}

fn set<T>(slot: &mut Option<T>, value: T, key: &str) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(corrupt(format_args!("{key} is there twice"))),
    }
}

fn string(token: Token, what: &str) -> Result<String> {
    match token {
        Token::String(text) => Ok(text),
        _ => Err(corrupt(format_args!("a {what} is not a string"))),
    }
}

fn number(token: Token, what: &str) -> Result<u64> {
    let number = match token {
        Token::Number(text) => text.parse().ok(),
        _ => None,
    };
    number.ok_or_else(|| corrupt(format_args!("a {what} is not a whole number")))
}

fn lsn(token: Token) -> Result<Lsn> {
    let text = string(token, "LSN")?;
    text.parse().map_err(|_| corrupt(format_args!("\"{}\" is not an LSN", shown(&text))))
}

/// Text from the manifest, cut so that a hostile one cannot flood a message.
fn shown(text: &str) -> String {
    text.chars().take(200).flat_map(char::escape_debug).collect()
}
