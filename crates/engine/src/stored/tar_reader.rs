//! Reads a tar that comes in pieces, cut anywhere, and trusts nothing in it.
//!
//! What: a state machine that is fed bytes and tells of members and of where their content lies in those bytes.
//! Why: frames are decoded in parallel; only this walk over the headers has to happen in order, and it copies nothing.
//! Rejected: the `tar` crate's reader, which pulls content through `Read` and so serialises and copies it.
//!
//! Known are what pg_ark and pg_basebackup write: ustar and GNU headers, GNU long names (`L`, `K`), regular files,
//! directories, symbolic links. Anything else is damage. Names are judged elsewhere ([`super::names`]).

use pg_ark_contract::{Error, ErrorKind, Result};
use std::ops::Range;

const BLOCK: usize = 512;
/// Longest path or link target in bytes: PATH_MAX of Linux.
const LONGEST_NAME: u64 = 4096;

/// Kind of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link to this target.
    Link(Vec<u8>),
}

/// A member's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Path as written, a directory's without its trailing slash.
    pub path: Vec<u8>,
    /// Kind.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Bytes of content.
    pub size: u64,
    /// Byte of the tar with which the content begins.
    pub content_at: u64,
}

/// Hears what a [`TarReader`] finds.
pub trait Sink {
    /// A member begins; if it is a file of more than 0 bytes, its content follows.
    ///
    /// # Errors
    /// Ends the reading.
    fn member(&mut self, member: Member) -> Result<()>;

    /// `range` of the bytes being fed is the content of the latest member from byte `offset` on.
    ///
    /// # Errors
    /// Ends the reading.
    fn content(&mut self, offset: u64, range: Range<usize>) -> Result<()>;
}

enum State {
    /// Collecting a header block; the count is of whole zero blocks before it.
    Header { zero_blocks: u32 },
    /// Collecting a long name; the bytes left include no padding.
    LongName { link: bool, left: u64, padding: u64 },
    /// Inside a file's content.
    Content { offset: u64, left: u64, padding: u64 },
    /// Skipping bytes up to the next block.
    Padding { left: u64 },
    /// After the end: only zeros may follow.
    End,
}

/// The state machine.
pub struct TarReader {
    state: State,
    block: Vec<u8>,
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    name: Vec<u8>,
    position: u64,
}

impl Default for TarReader {
    fn default() -> Self {
        Self::new()
    }
}

impl TarReader {
    /// At the beginning of a tar.
    pub fn new() -> Self {
        TarReader {
            state: State::Header { zero_blocks: 0 },
            block: Vec::with_capacity(BLOCK),
            long_path: None,
            long_link: None,
            name: Vec::new(),
            position: 0,
        }
    }

    /// Goes on in the middle of a tar: at byte `position`, where the content of a member of `size` bytes begins.
    pub fn at_content(position: u64, size: u64) -> Self {
        let state = match size {
            0 => State::Header { zero_blocks: 0 },
            left => State::Content { offset: 0, left, padding: padding_of(size) },
        };
        TarReader { state, position, ..TarReader::new() }
    }

    /// Whether the next byte is content of a member.
    pub fn is_in_content(&self) -> bool {
        matches!(self.state, State::Content { .. })
    }

    /// Leaves out `bytes` of the tar if they are inside the content of one member and not its last; says whether it did.
    pub fn skip(&mut self, bytes: u64) -> bool {
        match &mut self.state {
            State::Content { offset, left, .. } if *left > bytes => {
                *offset += bytes;
                *left -= bytes;
                self.position += bytes;
                true
            }
            _ => false,
        }
    }

    /// Reads the next bytes of the tar.
    ///
    /// # Errors
    /// `Corrupt` for what is no tar of ours; or what `sink` answered.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut impl Sink) -> Result<()> {
        let mut at = 0;
        while at < bytes.len() {
            let used = self.step(bytes, at, sink)?;
            at += used;
            self.position += used as u64;
        }
        Ok(())
    }

    /// Proves that the tar came to its end.
    ///
    /// # Errors
    /// `Corrupt` when it was cut off.
    pub fn finish(&self) -> Result<()> {
        match self.state {
            State::End => Ok(()),
            _ => Err(self.damaged("it is cut off")),
        }
    }

    /// Consumes at least one of `bytes[at..]`, which are not empty; returns how many.
    fn step(&mut self, bytes: &[u8], at: usize, sink: &mut impl Sink) -> Result<usize> {
        let rest = &bytes[at..];
        match &mut self.state {
            State::Header { zero_blocks } => {
                let zero_blocks = *zero_blocks;
                let used = rest.len().min(BLOCK - self.block.len());
                self.block.extend_from_slice(&rest[..used]);
                if self.block.len() == BLOCK {
                    self.state = self.header(zero_blocks, sink)?;
                    self.block.clear();
                }
                Ok(used)
            }
            State::LongName { link, left, padding } => {
                let used = clip(*left, rest);
                self.name.extend_from_slice(&rest[..used]);
                *left -= used as u64;
                if *left == 0 {
                    let (link, padding) = (*link, *padding);
                    self.end_of_name(link)?;
                    self.state = skip(padding);
                }
                Ok(used)
            }
            State::Content { offset, left, padding } => {
                let used = clip(*left, rest);
                sink.content(*offset, at..at + used)?;
                *offset += used as u64;
                *left -= used as u64;
                if *left == 0 {
                    self.state = skip(*padding);
                }
                Ok(used)
            }
            State::Padding { left } => {
                let used = clip(*left, rest);
                *left -= used as u64;
                if *left == 0 {
                    self.state = State::Header { zero_blocks: 0 };
                }
                Ok(used)
            }
            State::End => match rest.iter().all(|b| *b == 0) {
                true => Ok(rest.len()),
                false => Err(self.damaged("something follows its end")),
            },
        }
    }

    /// Judges the collected block.
    fn header(&mut self, zero_blocks: u32, sink: &mut impl Sink) -> Result<State> {
        if self.block.iter().all(|b| *b == 0) {
            if self.long_path.is_some() || self.long_link.is_some() {
                return Err(self.damaged("a long name belongs to no member"));
            }
            return Ok(if zero_blocks == 0 { State::Header { zero_blocks: 1 } } else { State::End });
        }
        if zero_blocks > 0 {
            return Err(self.damaged("a member follows a zero block"));
        }
        self.check_sum()?;
        let size = self.number(124..136)?;
        let padding = padding_of(size);
        let kind = match self.block[156] {
            b'0' | 0 => Kind::File,
            b'5' => Kind::Directory,
            b'2' => Kind::Link(self.long_link.take().unwrap_or_else(|| text(&self.block[157..257]).to_vec())),
            kind @ (b'L' | b'K') => {
                if size == 0 || size > LONGEST_NAME + 1 {
                    return Err(self.damaged(format_args!("a long name has {size} bytes")));
                }
                self.name.clear();
                return Ok(State::LongName { link: kind == b'K', left: size, padding });
            }
            other => return Err(self.damaged(format_args!("a member has the unknown type {other:#04x}"))),
        };
        if self.long_link.is_some() || (kind != Kind::File && size != 0) {
            return Err(self.damaged("a member's header contradicts itself"));
        }
        let member = self.member(kind, size)?;
        sink.member(member)?;
        Ok(if size > 0 { State::Content { offset: 0, left: size, padding } } else { skip(0) })
    }

    fn member(&mut self, kind: Kind, size: u64) -> Result<Member> {
        let mut path = match self.long_path.take() {
            Some(path) => path,
            None => self.short_path(),
        };
        if kind == Kind::Directory && path.ends_with(b"/") {
            path.pop();
        }
        let id = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Ok(Member {
            path,
            kind,
            mode: (self.number(100..108)? & 0o7777) as u32,
            uid: id(self.number(108..116)?),
            gid: id(self.number(116..124)?),
            size,
            // The last byte of the header was read in the step that began inside its last block.
            content_at: (self.position / BLOCK as u64 + 1).saturating_mul(BLOCK as u64),
        })
    }

    /// The name field, behind the prefix field of a ustar header.
    fn short_path(&self) -> Vec<u8> {
        let name = text(&self.block[..100]);
        let prefix = text(&self.block[345..500]);
        if &self.block[257..263] == b"ustar\0" && !prefix.is_empty() {
            [prefix, b"/", name].concat()
        } else {
            name.to_vec()
        }
    }

    fn end_of_name(&mut self, link: bool) -> Result<()> {
        let name = text(&self.name).to_vec();
        let place = if link { &mut self.long_link } else { &mut self.long_path };
        if name.is_empty() || place.replace(name).is_some() {
            return Err(self.damaged("a member has two long names, or an empty one"));
        }
        Ok(())
    }

    fn check_sum(&self) -> Result<()> {
        let stated = self.number(148..156)?;
        let sum = |bytes: &[u8]| bytes.iter().map(|b| u64::from(*b)).sum::<u64>();
        let computed = sum(&self.block[..148]) + 8 * u64::from(b' ') + sum(&self.block[156..]);
        match stated == computed {
            true => Ok(()),
            false => Err(self.damaged("the checksum of a header does not match")),
        }
    }

    /// An octal number, or a binary one where the first bit is set.
    fn number(&self, field: Range<usize>) -> Result<u64> {
        let bytes = &self.block[field];
        let bad = || self.damaged("a header has a malformed number");
        if bytes[0] & 0x80 != 0 {
            let (high, low) = bytes.split_at(bytes.len().saturating_sub(8));
            if high.iter().any(|b| *b & 0x7F != 0) || (high.is_empty() && bytes[0] & 0x7F != 0) {
                return Err(bad());
            }
            let value = low.iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
            let value = if high.is_empty() { value & !(0x80 << 56) } else { value };
            return if value > i64::MAX as u64 { Err(bad()) } else { Ok(value) };
        }
        let digits = bytes.iter().skip_while(|b| **b == b' ').take_while(|b| !matches!(b, b' ' | 0));
        digits.copied().try_fold(0u64, |n, b| match b {
            b'0'..=b'7' => Ok(n << 3 | u64::from(b - b'0')),
            _ => Err(bad()),
        })
    }

    fn damaged(&self, what: impl std::fmt::Display) -> Error {
        let block = self.position / BLOCK as u64 * BLOCK as u64;
        Error::new(ErrorKind::Corrupt, format!("the tar is damaged near byte {block}: {what}"))
    }
}

fn padding_of(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

fn skip(padding: u64) -> State {
    if padding > 0 { State::Padding { left: padding } } else { State::Header { zero_blocks: 0 } }
}

fn clip(left: u64, rest: &[u8]) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(rest.len())
}

/// Bytes up to the first zero.
fn text(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or_default()
}

#[cfg(test)]
#[path = "tar_reader_tests.rs"]
mod tests;
