//! Queries as values, through SPI.
//!
//! Text comes in the encoding of the database, which need not be UTF-8: see [`crate::postgres::text`].
//!
//! Everything here but [`write`] only reads in SPI's sense (no transaction ID is assigned), so that it also runs on a
//! standby.

use crate::postgres::text::Text;
use pg_ark_contract::{Error, ErrorKind, Result};
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use serde::de::DeserializeOwned;

/// The first column of the first row, as text. Bytes that are no text are replaced.
///
/// # Errors
/// As [`columns`].
pub fn text(query: &str, parameters: &[&str]) -> Result<Option<String>> {
    let [first] = columns(query, parameters)?;
    Ok(first.map(|text| text.decode_lossily()))
}

/// The first columns of the first row, which are of type text, as the server holds them.
///
/// # Errors
/// `Internal` when SPI refuses the query. What the query itself raises is raised in the session.
pub fn columns<const N: usize>(query: &str, parameters: &[&str]) -> Result<[Option<Text>; N]> {
    let parameters: Vec<_> = parameters.iter().map(|value| Text::from(*value).into()).collect();
    Spi::connect(|client| first(client.select(query, Some(1), &parameters)?))
        .map_err(|error| failed(query, &error))
}

/// As [`text`], with parameters of any type.
///
/// # Errors
/// As [`columns`].
pub fn read(query: &str, parameters: Vec<DatumWithOid<'_>>) -> Result<Option<String>> {
    let [value] = Spi::connect(|client| first(client.select(query, Some(1), &parameters)?))
        .map_err(|error| failed(query, &error))?;
    Ok(value.map(|text: Text| text.decode_lossily()))
}

/// As [`read`], for a query that writes.
///
/// # Errors
/// As [`columns`].
pub fn write(query: &str, parameters: Vec<DatumWithOid<'_>>) -> Result<Option<String>> {
    let [value] = Spi::connect_mut(|client| first(client.update(query, None, &parameters)?))
        .map_err(|error| failed(query, &error))?;
    Ok(value.map(|text: Text| text.decode_lossily()))
}

fn first<const N: usize>(rows: spi::SpiTupleTable<'_>) -> spi::Result<[Option<Text>; N]> {
    let mut values = [const { None }; N];
    if !rows.is_empty() {
        let row = rows.first();
        for (ordinal, value) in (1..).zip(&mut values) {
            *value = row.get::<Text>(ordinal)?;
        }
    }
    Ok(values)
}

fn failed(query: &str, error: &spi::Error) -> Error {
    Error::new(ErrorKind::Internal, "a query of pg_ark failed").detail(format!("{error}: {query}"))
}

/// The first column of the first row, which is a JSON document.
///
/// # Errors
/// As [`text`], and `Internal` when the document is missing or has another shape.
pub fn json<T: DeserializeOwned>(query: &str, parameters: &[&str]) -> Result<T> {
    let document = text(query, parameters)?.unwrap_or_else(|| "null".into());
    serde_json::from_str(&document).map_err(|error| {
        Error::new(ErrorKind::Internal, "a query of pg_ark gave an unexpected answer")
            .detail(format!("{error}: {document}"))
    })
}
