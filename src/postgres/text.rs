//! Text in the encoding of the database, which need not be UTF-8, and its conversion.
//!
//! pgrx takes a `text` for UTF-8 and panics when it is not. Nothing here panics or raises: what cannot be converted is
//! refused or replaced. A database in `SQL_ASCII` holds bytes that nobody converts: UTF-8 is tried.

use pg_ark_contract::{Error, ErrorKind};
use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::datum::{Datum as BoxedDatum, UnboxDatum};
use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::prelude::*;
use pgrx::{direct_function_call_as_datum, varlena_to_byte_slice};
use std::ffi::CString;

/// The server's name for what Rust's strings are in.
const UTF8: i32 = pg_sys::pg_enc::PG_UTF8 as i32;
const SQL_ASCII: i32 = pg_sys::pg_enc::PG_SQL_ASCII as i32;
/// A conversion makes no more bytes than this of one (`MAX_CONVERSION_GROWTH`, mb/pg_wchar.h).
const GROWTH: usize = 4;

/// A `text` datum: the bytes as the database holds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(Vec<u8>);

impl Text {
    /// The bytes, whatever they mean.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The text, converted.
    ///
    /// # Errors
    /// `InvalidArgument` when the bytes are no text in the database's encoding, or cannot be written in UTF-8.
    pub fn decode(&self) -> pg_ark_contract::Result<String> {
        let (text, replaced) = decode(&self.0);
        if replaced {
            return Err(Error::new(ErrorKind::InvalidArgument, "invalid byte sequence in an argument")
                .detail(text)
                .hint("Give text that can be written in UTF-8; check client_encoding."));
        }
        Ok(text)
    }

    /// The text for people and for paths: bytes that are UTF-8 stay as they are, because paths are never converted;
    /// others are converted, or replaced.
    pub fn decode_lossily(&self) -> String {
        let mut text = String::with_capacity(self.0.len());
        for chunk in self.0.utf8_chunks() {
            text.push_str(chunk.valid());
            if !chunk.invalid().is_empty() {
                text.push_str(&decode(chunk.invalid()).0);
            }
        }
        text
    }
}

impl From<&str> for Text {
    /// What the database's encoding does not know becomes a question mark.
    fn from(text: &str) -> Text {
        let server = database_encoding();
        if text.is_ascii() || server == UTF8 || server == SQL_ASCII {
            return Text(text.into());
        }
        let skip = |rest: &[u8]| 1 + rest[1..].iter().take_while(|byte| **byte & 0xC0 == 0x80).count();
        Text(convert(text.as_bytes(), UTF8, server, b"?", skip).0)
    }
}

impl From<String> for Text {
    fn from(text: String) -> Text {
        Text::from(text.as_str())
    }
}

/// Text for a message, which pgrx takes in UTF-8 and the server in the database's encoding: where these differ, what
/// is not ASCII is escaped, as `\u{e9}`.
pub fn for_message(text: String) -> String {
    let server = database_encoding();
    if text.is_ascii() || server == UTF8 || server == SQL_ASCII {
        return text;
    }
    let escaped = |character: char| match character.is_ascii() {
        true => String::from(character),
        false => character.escape_unicode().to_string(),
    };
    text.chars().map(escaped).collect()
}

/// From the database's encoding; true when something had to be replaced.
fn decode(bytes: &[u8]) -> (String, bool) {
    let server = database_encoding();
    let (bytes, replaced) = if bytes.is_ascii() || server == UTF8 || server == SQL_ASCII {
        (bytes.to_vec(), false)
    } else {
        convert(bytes, server, UTF8, "\u{FFFD}".as_bytes(), |_| 1)
    };
    match String::from_utf8(bytes) {
        Ok(text) => (text, replaced),
        Err(error) => (String::from_utf8_lossy(error.as_bytes()).into_owned(), true),
    }
}

/// Converts what can be; for what cannot, puts `replacement` in place of as many bytes as `skip` says.
fn convert(
    mut source: &[u8],
    from: i32,
    to: i32,
    replacement: &[u8],
    skip: impl Fn(&[u8]) -> usize,
) -> (Vec<u8>, bool) {
    let (mut target, mut replaced) = (Vec::with_capacity(source.len()), false);
    let Some(procedure) = conversion(from, to) else { return (source.to_vec(), true) };
    while !source.is_empty() {
        let (converted, taken) = convert_some(procedure, from, to, source);
        target.extend_from_slice(&converted);
        source = &source[taken..];
        if !source.is_empty() {
            target.extend_from_slice(replacement);
            source = &source[skip(source).clamp(1, source.len())..];
            replaced = true;
        }
    }
    (target, replaced)
}

/// The server's conversion; none outside a transaction, where catalogues cannot be read.
fn conversion(from: i32, to: i32) -> Option<Oid> {
    // SAFETY: reads the catalogue inside the caller's transaction.
    let found = unsafe {
        if !pg_sys::IsTransactionState() {
            return None;
        }
        pg_sys::FindDefaultConversionProc(from, to)
    };
    (found != pg_sys::InvalidOid).then_some(found)
}

/// The beginning of `source` that can be converted, and how many bytes that were.
fn convert_some(procedure: Oid, from: i32, to: i32, source: &[u8]) -> (Vec<u8>, usize) {
    let mut target = vec![0_u8; (source.len() + 1) * GROWTH + 1];
    let (Ok(size), Ok(room)) = (i32::try_from(source.len()), i32::try_from(target.len())) else {
        return (Vec::new(), 0);
    };
    // SAFETY: sizes are those of the buffers, and the server writes no more than `room` bytes, with a NUL at the end.
    // It only reads the source, and with noError it raises nothing about what it finds there.
    let taken = unsafe {
        let (source, target) = (source.as_ptr().cast_mut(), target.as_mut_ptr());
        pg_sys::pg_do_encoding_conversion_buf(procedure, from, to, source, size, target, room, true)
    };
    let end = target.iter().position(|byte| *byte == 0).unwrap_or(target.len());
    target.truncate(end);
    (target, usize::try_from(taken).unwrap_or(0).min(source.len()))
}

fn database_encoding() -> i32 {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::GetDatabaseEncoding() }
}

pgrx::impl_sql_translatable!(Text, "text");

impl FromDatum for Text {
    unsafe fn from_polymorphic_datum(datum: Datum, is_null: bool, _type: Oid) -> Option<Text> {
        if is_null {
            return None;
        }
        // SAFETY: the caller's promise: the datum is a text. Its bytes are copied before anything frees them.
        unsafe {
            let plain = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
            Some(Text(varlena_to_byte_slice(plain).to_vec()))
        }
    }
}

// SAFETY: the type borrows nothing from the datum.
unsafe impl UnboxDatum for Text {
    type As<'src> = Text;
    unsafe fn unbox<'src>(datum: BoxedDatum<'src>) -> Text
    where
        Self: 'src,
    {
        // SAFETY: the caller's promise: the datum is a text and not null.
        unsafe { Text::from_polymorphic_datum(datum.sans_lifetime(), false, pg_sys::TEXTOID) }
            .unwrap_or(Text(Vec::new()))
    }
}

impl IntoDatum for Text {
    fn into_datum(self) -> Option<Datum> {
        let size = i32::try_from(self.0.len()).ok()?;
        // SAFETY: the server copies as many bytes as there are into the current memory context.
        let text = unsafe { pg_sys::cstring_to_text_with_len(self.0.as_ptr().cast(), size) };
        Some(Datum::from(text))
    }

    fn type_oid() -> Oid {
        pg_sys::TEXTOID
    }
}

// SAFETY: the argument is of the SQL type that is declared above.
unsafe impl<'fcx> ArgAbi<'fcx> for Text {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Text {
        // SAFETY: the caller's promise. Arguments that may be null are declared as Option.
        unsafe { arg.unbox_arg_using_from_datum() }.unwrap_or(Text(Vec::new()))
    }
}

// SAFETY: the datum is the one of the SQL type that is declared above.
unsafe impl BoxRet for Text {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> BoxedDatum<'fcx> {
        match self.into_datum() {
            // SAFETY: a text in the current memory context.
            Some(datum) => unsafe { fcinfo.return_raw_datum(datum) },
            None => fcinfo.return_null(),
        }
    }
}

/// A `jsonb`.
#[derive(Debug)]
pub struct Document(pub serde_json::Value);

pgrx::impl_sql_translatable!(Document, "jsonb");

impl IntoDatum for Document {
    fn into_datum(self) -> Option<Datum> {
        let text = CString::new(Text::from(self.0.to_string()).0).ok()?;
        // SAFETY: jsonb_in takes a C string in the database's encoding and gives a jsonb.
        unsafe { direct_function_call_as_datum(pg_sys::jsonb_in, &[Some(Datum::from(text.as_ptr()))]) }
    }

    fn type_oid() -> Oid {
        pg_sys::JSONBOID
    }
}

// SAFETY: the datum is the one of the SQL type that is declared above.
unsafe impl BoxRet for Document {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> BoxedDatum<'fcx> {
        match self.into_datum() {
            // SAFETY: a jsonb in the current memory context.
            Some(datum) => unsafe { fcinfo.return_raw_datum(datum) },
            None => fcinfo.return_null(),
        }
    }
}
