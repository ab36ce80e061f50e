//! How a server is reached: as libpq's connection texts, and what to say when it cannot be.

use pg_ark_contract::{Error, ErrorKind, Result};
use std::process::Command;

/// What of the environment names or proves who connects, where the user gave a connection text of his own.
const ENVIRONMENT: &str = "PG";

/// Sessions whose program was killed end by themselves, also while they wait for a lock: the server looks whether its client
/// is there (since PostgreSQL 14). A database's or a role's settings, which these beat, neither forbid a restore to write nor
/// end a statement of it.
const OPTIONS: &str = "-c client_connection_check_interval=500 -c default_transaction_read_only=off \
                       -c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0";

/// How a server is reached; which database is said at each use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Keywords and values without `dbname`, or a whole text of the user's.
    text: String,
    /// The role and the socket's folder, when it is the server's own socket.
    socket: Option<(String, String)>,
    /// Given by the user: libpq's environment counts.
    given: bool,
    database: Option<String>,
}

impl Connection {
    /// Through a server's Unix socket in `folder`.
    pub fn socket(folder: &str, port: u16, user: &str) -> Connection {
        let text = format!("host={} port={port} user={}", quoted(folder), quoted(user));
        Connection {
            text,
            socket: Some((user.to_string(), folder.to_string())),
            given: false,
            database: None,
        }
    }

    /// As the user says it: keywords and values, or a URI.
    ///
    /// # Errors
    /// `InvalidArgument` for a text that is neither.
    pub fn conninfo(text: &str) -> Result<Connection> {
        let text = text.trim();
        let database = match is_uri(text) {
            true => uri_database(text),
            false => {
                let words = keywords(text)?;
                words.into_iter().rfind(|(name, _)| name == "dbname").map(|(_, value)| value)
            }
        };
        Ok(Connection {
            text: text.to_string(),
            socket: None,
            given: true,
            database: database.filter(|name| !name.is_empty()),
        })
    }

    /// The database that the user's text names.
    pub fn database(&self) -> Option<&str> {
        self.database.as_deref()
    }

    /// For `--dbname=`: this server, database `database`. What comes last counts (`conninfo_array_parse`, fe-connect.c), so a
    /// URI is passed as it is when it names the database, and gets it as a parameter otherwise.
    pub fn to(&self, database: &str) -> String {
        if is_uri(&self.text) {
            let separator = if self.text.contains('?') { '&' } else { '?' };
            return format!("{}{separator}dbname={}", self.text, percent(database));
        }
        format!("{} dbname={}", self.text, quoted(database)).trim_start().to_string()
    }

    /// Lets a program connect without asking for a password; libpq's environment counts where the user named the server.
    pub fn prepare(&self, command: &mut Command) {
        if self.given {
            let ours = std::env::vars_os()
                .filter(|(name, _)| name.to_str().is_some_and(|name| name.starts_with(ENVIRONMENT)))
                .filter(|(name, _)| {
                    !matches!(name.to_str(), Some("PGARK_REPO" | "PGDATABASE" | "PGCLIENTENCODING"))
                });
            command.envs(ours);
        } else {
            command.env("PGAPPNAME", "pg_ark").env("PGOPTIONS", OPTIONS);
        }
        command.arg("--no-password");
    }

    /// The error of a program that could not connect; `said` are its words.
    pub fn refused(&self, database: &str, said: &str) -> Error {
        let (place, hint) = match &self.socket {
            Some((user, folder)) => (
                format!("through its socket in \"{folder}\" as role \"{user}\""),
                format!(
                    "A line \"local all {} peer\" in pg_hba.conf lets the server's own user in without a password when role and user have the same name (else a map in pg_ident.conf); or put the password into ~/.pgpass of that user. Then SELECT pg_reload_conf().",
                    identifier(user)
                ),
            ),
            None => (
                "as --into says".to_string(),
                "Check the connection text; a password comes from ~/.pgpass, PGPASSWORD or a service file."
                    .to_string(),
            ),
        };
        Error::new(
            ErrorKind::ServerNotReady,
            format!("could not connect to database \"{database}\" of the server {place}"),
        )
        .detail(said)
        .hint(hint)
    }
}

/// `host=localhost` and the like; `postgres://...` is a URI.
fn is_uri(text: &str) -> bool {
    text.starts_with("postgresql://") || text.starts_with("postgres://")
}

/// The path of a URI, or its parameter `dbname`, which comes later and counts.
fn uri_database(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("://")?;
    let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let named =
        parameters.split('&').filter_map(|word| word.split_once('=')).rfind(|(name, _)| *name == "dbname");
    let path = place.split_once('/').map(|(_, path)| path);
    named.map(|(_, value)| value).or(path).map(unpercent)
}

fn unpercent(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()).filter(|_| first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn percent(text: &str) -> String {
    let letter = |byte: u8| match byte {
        b if b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.') => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    text.bytes().map(letter).collect()
}

/// A value of a connection text (`conninfo_parse`, fe-connect.c): in quotes, with backslashes before quotes and backslashes.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A role's name as pg_hba.conf has it.
fn identifier(name: &str) -> String {
    match name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        true => name.to_string(),
        false => format!("\"{name}\""),
    }
}

/// The keywords and values of a connection text.
fn keywords(text: &str) -> Result<Vec<(String, String)>> {
    let bad = || {
        Error::new(ErrorKind::InvalidArgument, format!("\"{}\" is no connection text", text.escape_debug()))
            .hint("Give libpq's keywords, as in \"host=/run/postgresql port=5432 user=postgres\", or a URI, as in postgresql://user@host:5432.")
    };
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or_else(bad)?;
        let name = name.trim();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(bad());
        }
        let after = after.trim_start();
        let is_quoted = after.starts_with('\'');
        let (mut value, mut end, mut escaped) = (String::new(), None, false);
        for (place, letter) in after.char_indices().skip(usize::from(is_quoted)) {
            match letter {
                _ if escaped => {
                    escaped = false;
                    value.push(letter);
                }
                '\\' => escaped = true,
                '\'' if is_quoted => {
                    end = Some(place + 1);
                    break;
                }
                letter if !is_quoted && letter.is_whitespace() => {
                    end = Some(place);
                    break;
                }
                letter => value.push(letter),
            }
        }
        if end.is_none() && is_quoted {
            return Err(bad());
        }
        found.push((name.to_string(), value));
        rest = end.and_then(|end| after.get(end..)).unwrap_or_default().trim_start();
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_need_no_luck() {
        let connection = Connection::socket("/run/a b", 5433, "o'b\\x");
        assert_eq!(connection.to("it's"), r"host='/run/a b' port=5433 user='o\'b\\x' dbname='it\'s'");
        let connection = Connection::conninfo("host=h  dbname = 'a \\'b' user=x").unwrap();
        assert_eq!(connection.database(), Some("a 'b"));
        assert!(connection.to("n").ends_with(" dbname='n'"));
        let connection = Connection::conninfo("postgresql://u@h:1/a%20b?sslmode=prefer").unwrap();
        assert_eq!(connection.database(), Some("a b"));
        assert_eq!(connection.to("c/ü"), "postgresql://u@h:1/a%20b?sslmode=prefer&dbname=c%2F%C3%BC");
        assert_eq!(Connection::conninfo("").unwrap().to("x"), "dbname='x'");
        assert_eq!(Connection::conninfo("postgres://h").unwrap().database(), None);
        assert_eq!(Connection::conninfo("postgres://h/%").unwrap().database(), Some("%"));
    }

    #[test]
    fn what_is_no_connection_text_is_refused() {
        for text in ["mydb", "host", "=x", "host='open", "a b=c"] {
            let error = Connection::conninfo(text).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidArgument, "{text}");
        }
    }
}
