//! Queries as values, through SPI.
//!
//! Everything here only reads in SPI's sense (no transaction ID is assigned), so that it also runs on a standby.

use pg_ark_contract::{Error, ErrorKind, Result};
use pgrx::prelude::*;
use serde::de::DeserializeOwned;

/// The first column of the first row, as text.
///
/// # Errors
/// `Internal` when SPI refuses the query. What the query itself raises is raised in the session.
pub fn text(query: &str, parameters: &[&str]) -> Result<Option<String>> {
    let parameters: Vec<_> = parameters.iter().map(|value| (*value).into()).collect();
    Spi::connect(|client| {
        let rows = client.select(query, Some(1), &parameters)?;
        if rows.is_empty() { Ok(None) } else { rows.first().get_one::<String>() }
    })
    .map_err(|error: spi::Error| {
        Error::new(ErrorKind::Internal, "a query of pg_ark failed").detail(format!("{error}: {query}"))
    })
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
