//! The values in a manifest: each read from tokens, checked, and refused with a reason.

use super::lexer::{Lexer, Token};
use super::{ChecksumAlgorithm, ManifestFile, WalRange, corrupt, unhex};
use chrono::NaiveDateTime;
use pg_ark_contract::errors::Result;
use pg_ark_contract::units::{Lsn, Timeline};
use std::io::Read;

/// A file's fields before they are checked against each other.
#[derive(Default)]
pub(super) struct RawFile {
    pub(super) path: Option<String>,
    pub(super) encoded_path: Option<String>,
    pub(super) size: Option<u64>,
    pub(super) modified: Option<String>,
    pub(super) algorithm: Option<String>,
    pub(super) checksum: Option<String>,
}

impl RawFile {
    /// Checks that all that is required is there, and that it agrees.
    pub(super) fn finish(self) -> Result<ManifestFile> {
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

pub(super) fn wal_range<R: Read>(lexer: &mut Lexer<R>) -> Result<WalRange> {
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
pub(super) fn next_object<R: Read>(lexer: &mut Lexer<R>, first: bool) -> Result<bool> {
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
pub(super) fn next_key<R: Read>(lexer: &mut Lexer<R>, first: &mut bool) -> Result<Option<String>> {
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

pub(super) fn key<R: Read>(lexer: &mut Lexer<R>) -> Result<String> {
    let key = string(lexer.next()?, "field name")?;
    expect(lexer, Token::Colon, "it is not valid JSON")?;
    Ok(key)
}

pub(super) fn expect<R: Read>(lexer: &mut Lexer<R>, token: Token, otherwise: &str) -> Result<()> {
    if lexer.next()? == token { Ok(()) } else { Err(corrupt(otherwise)) }
}

pub(super) fn set<T>(slot: &mut Option<T>, value: T, key: &str) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(corrupt(format_args!("{key} is there twice"))),
    }
}

pub(super) fn string(token: Token, what: &str) -> Result<String> {
    match token {
        Token::String(text) => Ok(text),
        _ => Err(corrupt(format_args!("a {what} is not a string"))),
    }
}

pub(super) fn number(token: Token, what: &str) -> Result<u64> {
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
pub(super) fn shown(text: &str) -> String {
    text.chars().take(200).flat_map(char::escape_debug).collect()
}
