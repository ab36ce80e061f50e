//! JSON tokens from a stream, with bounded memory, while the manifest's checksum is computed.
//!
//! The checksum at a manifest's end covers every line but the last. Where the last line begins is known only at
//! the end, so the running sum is remembered at each of the latest two line ends.

use super::corrupt;
use pg_ark_contract::errors::{Error, Result};
use sha2::{Digest, Sha256};
use std::io::Read;

/// Longest string or number, in bytes. A path in PostgreSQL has at most 1023 bytes, six characters each when escaped.
const LONGEST_TOKEN: usize = 64 << 10;
const BUFFER: usize = 64 << 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    ObjectStart,
    ObjectEnd,
    ArrayStart,
    ArrayEnd,
    Colon,
    Comma,
    String(String),
    /// As written.
    Number(String),
    /// `true`, `false`, `null`.
    Literal,
    End,
}

pub(super) struct Lexer<R> {
    input: R,
    buffer: Vec<u8>,
    at: usize,
    filled: usize,
    sum: Sha256,
    /// The sum at the latest line end, and at the one before.
    at_line_end: Option<Sha256>,
    before_last_line: Option<Sha256>,
    ends_with_newline: bool,
}

impl<R: Read> Lexer<R> {
    pub(super) fn new(input: R) -> Self {
        Lexer {
            input,
            buffer: vec![0; BUFFER],
            at: 0,
            filled: 0,
            sum: Sha256::new(),
            at_line_end: None,
            before_last_line: None,
            ends_with_newline: false,
        }
    }

    /// SHA-256 of all lines but the last, once [`Token::End`] was read.
    pub(super) fn sum_before_last_line(&self) -> Result<[u8; 32]> {
        let Some(sum) = &self.before_last_line else { return Err(corrupt("it has fewer than 2 lines")) };
        if !self.ends_with_newline {
            return Err(corrupt("its last line is not ended"));
        }
        Ok(sum.clone().finalize().into())
    }

    pub(super) fn next(&mut self) -> Result<Token> {
        loop {
            let Some(byte) = self.byte()? else { return Ok(Token::End) };
            return match byte {
                b' ' | b'\t' | b'\n' | b'\r' => continue,
                b'{' => Ok(Token::ObjectStart),
                b'}' => Ok(Token::ObjectEnd),
                b'[' => Ok(Token::ArrayStart),
                b']' => Ok(Token::ArrayEnd),
                b':' => Ok(Token::Colon),
                b',' => Ok(Token::Comma),
                b'"' => self.string(),
                b'-' | b'0'..=b'9' | b'a'..=b'z' => self.word(byte),
                other => Err(corrupt(format_args!("byte {other:#04x} is out of place"))),
            };
        }
    }

    fn byte(&mut self) -> Result<Option<u8>> {
        let byte = self.peek()?;
        self.at += usize::from(byte.is_some());
        Ok(byte)
    }

    fn peek(&mut self) -> Result<Option<u8>> {
        if self.at == self.filled {
            self.fill()?;
        }
        Ok(self.buffer[..self.filled].get(self.at).copied())
    }

    fn fill(&mut self) -> Result<()> {
        self.at = 0;
        self.filled = loop {
            match self.input.read(&mut self.buffer) {
                Ok(read) => break read.min(self.buffer.len()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.filled = 0;
                    return Err(Error::io("could not read the backup manifest", &error));
                }
            }
        };
        let read = &self.buffer[..self.filled];
        for part in read.split_inclusive(|byte| *byte == b'\n') {
            self.sum.update(part);
            self.ends_with_newline = part.ends_with(b"\n");
            if self.ends_with_newline {
                self.before_last_line = self.at_line_end.replace(self.sum.clone());
            }
        }
        Ok(())
    }

    /// The rest of a number or literal.
    fn word(&mut self, first: u8) -> Result<Token> {
        let mut word = String::from(char::from(first));
        while let Some(byte) = self.peek()? {
            if !(byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'+' | b'-')) {
                break;
            }
            if word.len() >= LONGEST_TOKEN {
                return Err(corrupt("a number is too long"));
            }
            word.push(char::from(byte));
            self.at += 1;
        }
        match word.as_str() {
            "true" | "false" | "null" => Ok(Token::Literal),
            _ if first.is_ascii_alphabetic() => Err(corrupt("it is not valid JSON")),
            _ => Ok(Token::Number(word)),
        }
    }

    /// The rest of a string.
    fn string(&mut self) -> Result<Token> {
        let mut text = Vec::new();
        loop {
            if text.len() >= LONGEST_TOKEN {
                return Err(corrupt("a string is too long"));
            }
            match self.byte()? {
                None => return Err(corrupt("it ends within a string")),
                Some(b'"') => break,
                Some(b'\\') => self.escape(&mut text)?,
                Some(control @ 0..=0x1f) => {
                    return Err(corrupt(format_args!("byte {control:#04x} is in a string")));
                }
                Some(byte) => text.push(byte),
            }
        }
        String::from_utf8(text).map(Token::String).map_err(|_| corrupt("a string is not UTF-8"))
    }

    fn escape(&mut self, text: &mut Vec<u8>) -> Result<()> {
        let plain = match self.byte()? {
            Some(same @ (b'"' | b'\\' | b'/')) => same,
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                let character = self.unicode_escape()?;
                text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(corrupt("a string has an unknown escape")),
        };
        text.push(plain);
        Ok(())
    }

    /// What follows `\u`: one UTF-16 unit, or a pair of surrogates.
    fn unicode_escape(&mut self) -> Result<char> {
        let first = self.four_digits()?;
        let second = match first {
            0xD800..=0xDBFF if self.byte()? == Some(b'\\') && self.byte()? == Some(b'u') => {
                Some(self.four_digits()?)
            }
            _ => None,
        };
        let units = [Some(first), second].into_iter().flatten();
        match char::decode_utf16(units).next() {
            Some(Ok(character)) => Ok(character),
            _ => Err(corrupt("a string has half a surrogate pair")),
        }
    }

    fn four_digits(&mut self) -> Result<u16> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.byte()?.and_then(|byte| char::from(byte).to_digit(16));
            let Some(digit) = digit else { return Err(corrupt("a string has a bad \\u escape")) };
            unit = unit << 4 | digit as u16;
        }
        Ok(unit)
    }
}
