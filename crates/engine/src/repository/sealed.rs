//! The seal of a JSON record: a last member with the CRC-32C of everything before it. FORMAT.md, section "Seal".
//!
//! What: `,"crc32c": "1c2d3e4f"` on a line of its own, then `}`. Why so: the bytes before that line are what is checked,
//! so `head` and any CRC-32C tool can do it; the comma is part of the line, so that whoever changes a record on purpose
//! takes this line away and leaves a valid record without a seal. Such a record is accepted, but known as one.
//! Rejected: a checksum of the parsed values, which a second implementation could not repeat.

use super::record::{check_format, parse_json};
use pg_ark_contract::{Error, ErrorKind, Result};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

/// What stands before the checksum, from the beginning of the line.
const HEAD: &[u8] = b"  ,\"crc32c\": \"";
/// What stands after it, to the end of the file.
const TAIL: &[u8] = b"\"\n}\n";
/// Hexadecimal digits of a checksum.
const DIGITS: usize = 8;
/// Bytes of a seal: the line and the brace that closes the record.
const LEN: usize = HEAD.len() + DIGITS + TAIL.len();
/// Bytes of a seal that may be wrong before it counts as something else.
const MAX_WRONG: usize = 4;

/// Whether a record can prove itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seal {
    /// Its checksum is right.
    Sealed,
    /// It has none: it was written by an early version, or changed by hand.
    Unsealed,
}

/// Writes a record as JSON with a seal.
///
/// # Errors
/// `Internal` for what is no JSON object with members.
pub fn to_json(record: &impl Serialize) -> Result<Vec<u8>> {
    let json = serde_json::to_vec_pretty(record)
        .map_err(|e| Error::new(ErrorKind::Internal, "could not write a record as JSON").detail(e))?;
    seal(&json)
}

/// Seals a JSON object, which has at least one member.
///
/// # Errors
/// `Internal` for anything else.
pub fn seal(json: &[u8]) -> Result<Vec<u8>> {
    let body = json.trim_ascii_end().strip_suffix(b"}").map(<[u8]>::trim_ascii_end);
    let Some(body) = body.filter(|body| body.len() > 1) else {
        return Err(Error::new(ErrorKind::Internal, "only a JSON object with members can be sealed"));
    };
    let mut sealed = body.to_vec();
    sealed.push(b'\n');
    let crc = format!("{:08x}", crc32c::crc32c(&sealed));
    sealed.extend_from_slice(HEAD);
    sealed.extend_from_slice(crc.as_bytes());
    sealed.extend_from_slice(TAIL);
    Ok(sealed)
}

/// Checks the seal of the record at `path`, if it has one. Says nothing about the record itself.
///
/// # Errors
/// `Corrupt` when the seal is wrong or damaged, `FormatTooNew` when it may be that of a later format.
pub fn check(bytes: &[u8], path: &str) -> Result<Seal> {
    split(bytes, path).map(|(_, seal)| seal)
}

/// Reads the record at `path`: its seal, its format number, its content.
///
/// # Errors
/// `Corrupt` when the seal is wrong or the rest is no such record; `FormatTooNew`.
pub fn read<T: DeserializeOwned>(bytes: &[u8], path: &str) -> Result<(T, Seal)> {
    let (body, seal) = split(bytes, path)?;
    let whole;
    let json = match seal {
        Seal::Unsealed => body,
        Seal::Sealed => {
            whole = [body, b"}"].concat();
            &whole
        }
    };
    check_format(json, path)?;
    Ok((parse_json(json, path)?, seal))
}

/// What stands before the seal, or everything when there is none.
fn split<'a>(bytes: &'a [u8], path: &str) -> Result<(&'a [u8], Seal)> {
    if let Some((body, tail)) = bytes.len().checked_sub(LEN).and_then(|at| bytes.split_at_checked(at)) {
        let crc = format!("{:08x}", crc32c::crc32c(body));
        let right = [HEAD, crc.as_bytes(), TAIL].concat();
        if tail == right {
            return Ok((body, Seal::Sealed));
        }
        let fixed = tail.iter().zip(&right).enumerate().filter(|(at, _)| !is_digit(*at));
        if fixed.filter(|(_, (found, right))| found != right).count() <= MAX_WRONG {
            return Err(broken(path, "The checksum in its last line does not fit what stands before it."));
        }
    }
    #[derive(Deserialize)]
    struct Loose {
        crc32c: Option<IgnoredAny>,
    }
    // What is no JSON object is for the parser of the record to tell.
    if serde_json::from_slice::<Loose>(bytes).is_ok_and(|found| found.crc32c.is_some()) {
        check_format(bytes, path)?;
        return Err(broken(
            path,
            "Its seal is not the last line, as it was written: the file was formatted anew or cut.",
        ));
    }
    Ok((bytes, Seal::Unsealed))
}

/// Whether a byte of a seal belongs to the checksum.
fn is_digit(at: usize) -> bool {
    (HEAD.len()..HEAD.len() + DIGITS).contains(&at)
}

fn broken(path: &str, why: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("\"{path}\" was changed or is damaged: its seal is broken"))
        .detail(why)
        .hint(
            "Get the file back from a copy. Whoever changed it on purpose, or finds its content right, removes its line \
             with \"crc32c\": it is accepted then as a record without a seal.",
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn sealed() -> Vec<u8> {
        to_json(&json!({"format": 1, "name": "größe", "list": [1, {"crc32c": "00000000"}]})).unwrap()
    }

    fn read_value(bytes: &[u8]) -> Result<(Value, Seal)> {
        read(bytes, "place")
    }

    #[test]
    fn a_seal_is_a_line_of_its_own_and_comes_off() {
        let bytes = sealed();
        let text = std::str::from_utf8(&bytes).unwrap();
        let (body, _) = text.split_at(text.find("  ,\"crc32c\"").unwrap());
        assert!(text.ends_with(&format!("  ,\"crc32c\": \"{:08x}\"\n}}\n", crc32c::crc32c(body.as_bytes()))));
        let (value, seal) = read_value(&bytes).unwrap();
        assert_eq!((value.get("crc32c"), seal), (None, Seal::Sealed));
        assert_eq!(value["name"], "größe");
        // What a hand does that changes a record on purpose.
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("  ,")).collect();
        let (again, seal) = read_value(lines.join("\n").replace("größe", "x").as_bytes()).unwrap();
        assert_eq!((again["name"].as_str(), seal), (Some("x"), Seal::Unsealed));
        // Sealed anew, it is what it was.
        assert_eq!(seal_of(&value), bytes);
        assert!(seal_is_refused(b"{}") && seal_is_refused(b"[1]") && seal_is_refused(b""));
    }

    fn seal_of(value: &Value) -> Vec<u8> {
        to_json(value).unwrap()
    }

    fn seal_is_refused(json: &[u8]) -> bool {
        seal(json).is_err()
    }

    #[test]
    fn every_flipped_bit_and_every_cut_breaks_a_seal() {
        let bytes = sealed();
        for bit in 0..bytes.len() * 8 {
            let mut other = bytes.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            let error = check(&other, "place").unwrap_err();
            assert_eq!(error.kind, ErrorKind::Corrupt, "bit {bit}");
            assert!(error.message.contains("\"place\"") && error.hint.unwrap().contains("crc32c"));
        }
        for len in 0..bytes.len() {
            assert_eq!(read_value(&bytes[..len]).unwrap_err().kind, ErrorKind::Corrupt, "{len} bytes");
        }
    }

    #[test]
    fn a_record_that_was_formatted_anew_is_no_unsealed_one() {
        let value: Value = serde_json::from_slice(&sealed()).unwrap();
        for bytes in [serde_json::to_vec(&value).unwrap(), serde_json::to_vec_pretty(&value).unwrap()] {
            assert_eq!(read_value(&bytes).unwrap_err().kind, ErrorKind::Corrupt);
        }
        let later = br#"{"format": 2, "crc32c": {"of": "another kind"}}"#;
        assert_eq!(read_value(later).unwrap_err().kind, ErrorKind::FormatTooNew);
    }

    #[test]
    fn zeroed_bytes_and_a_lost_seal_are_not_sealed() {
        let bytes = sealed();
        for at in 0..bytes.len() - 4 {
            let mut other = bytes.clone();
            other[at..at + 4].fill(0);
            assert_eq!(read_value(&other).unwrap_err().kind, ErrorKind::Corrupt, "from {at}");
        }
        let lost = [&bytes[..bytes.len() - LEN], b"}"].concat();
        assert_eq!(read_value(&lost).unwrap().1, Seal::Unsealed);
    }

    proptest! {
        #[test]
        fn nothing_but_a_seal_of_ours_is_sealed(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200), at: usize, with in proptest::collection::vec(any::<u8>(), 1..40),
        ) {
            prop_assert!(!matches!(check(&bytes, "x"), Ok(Seal::Sealed)));
            let whole = sealed();
            let at = at % whole.len();
            let until = (at + with.len()).min(whole.len());
            let mut other = whole.clone();
            other.splice(at..until, with);
            if other != whole {
                prop_assert!(!matches!(check(&other, "x"), Ok(Seal::Sealed)));
            }
            bytes.splice(0..0, whole);
            let _ = read_value(&bytes);
        }
    }
}
