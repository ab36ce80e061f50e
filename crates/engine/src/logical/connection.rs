//! How a server is reached: as libpq's connection texts, and what to say when it cannot be.

use pg_ark_contract::{Error, ErrorKind, Result};
use std::process::Command;

/// What of the environment names or proves who connects, where the user gave a connection text of his own.
const ENVIRONMENT: &str = "PG";

/// Sessions whose program was killed end by themselves, also while they wait for a lock: the server looks whether its client
/// is there (since PostgreSQL 14). The rest beats what the configuration, a role or a database sets: it must not end what is
/// asked, decide who asks or what a broken page reads as, make a question wait for other transactions, forbid a restore to
/// write, or translate the warnings that are looked for.
const OPTIONS: &str = r"-c client_connection_check_interval=500 -c statement_timeout=0 -c lock_timeout=0 -c idle_session_timeout=0 -c idle_in_transaction_session_timeout=0 -c role=none -c client_min_messages=warning -c lc_messages=C -c zero_damaged_pages=off -c ignore_checksum_failure=off -c default_transaction_read_only=off -c default_transaction_deferrable=off -c default_transaction_isolation=read\ committed";
/// Those of them that are no superuser's alone, where the user says how to connect; options of his own come later and count.
const OPTIONS_OF_ALL: &str = r"-c client_connection_check_interval=500 -c statement_timeout=0 -c lock_timeout=0 -c idle_session_timeout=0 -c idle_in_transaction_session_timeout=0 -c role=none -c client_min_messages=warning -c default_transaction_read_only=off -c default_transaction_deferrable=off -c default_transaction_isolation=read\ committed";
/// The same of settings that came later; an older server refuses whoever sets them. A login trigger is for others.
const OPTIONS_17: &str = " -c transaction_timeout=0 -c event_triggers=off";
/// The first version that knows those.
const WITH_TRANSACTION_TIMEOUT: u32 = 17;

/// What a server says that has no connection to give (`InitProcess`, proc.c; `InitPostgres`, postinit.c).
const CROWDED: [&str; 2] =
    ["FATAL:  sorry, too many clients already", "FATAL:  remaining connection slots are reserved"];
/// What is in the words of a server that does not believe who connects, or of libpq when it has no password
/// (`ClientAuthentication` and `auth_failed`, auth.c; `pg_fe_sendauth`, fe-auth.c).
const AUTHENTICATION: [&str; 5] = ["pg_hba.conf", "pg_ident.conf", "authentication", "password", "usermap"];

/// True for the words of a program that found every connection of the server taken.
pub fn is_crowded(said: &str) -> bool {
    CROWDED.iter().any(|words| said.contains(words))
}

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
    /// The server's major version, 0 when it is not known.
    major: u32,
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
            major: 0,
        }
    }

    /// To a server of this major version, which may know more settings.
    pub fn of_major(self, major: u32) -> Connection {
        Connection { major, ..self }
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
            major: 0,
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
        // Not by the environment, which a change of user loses.
        let options = match self.given {
            true => String::new(),
            false => format!(" options={}", quoted(&self.options())),
        };
        format!("{}{options} dbname={}", self.text, quoted(database)).trim_start().to_string()
    }

    /// What sessions of the server's own user are told.
    fn options(&self) -> String {
        let later = if self.major >= WITH_TRANSACTION_TIMEOUT { OPTIONS_17 } else { "" };
        format!("{OPTIONS}{later}")
    }

    /// Lets a program connect without asking for a password; libpq's environment counts where the user named the server.
    pub fn prepare(&self, command: &mut Command) {
        if self.given {
            let ours = std::env::vars_os()
                .filter(|(name, _)| name.to_str().is_some_and(|name| name.starts_with(ENVIRONMENT)))
                .filter(|(name, _)| {
                    !matches!(name.to_str(), Some("PGARK_REPO" | "PGDATABASE" | "PGCLIENTENCODING"))
                });
            let theirs = std::env::var("PGOPTIONS").unwrap_or_default();
            command.envs(ours).env("PGOPTIONS", format!("{OPTIONS_OF_ALL} {theirs}"));
        } else {
            command.env("PGAPPNAME", "pg_ark");
        }
        command.arg("--no-password");
    }

    /// The error of a program that could not connect; `said` are its words.
    pub fn refused(&self, database: &str, said: &str) -> Error {
        let place = match &self.socket {
            Some((user, folder)) => format!("through its socket in \"{folder}\" as role \"{user}\""),
            None => "as --into says".to_string(),
        };
        let error = Error::new(
            ErrorKind::ServerNotReady,
            format!("could not connect to database \"{database}\" of the server {place}"),
        )
        .detail(said);
        match self.remedy(said) {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    /// What helps, when the words tell.
    fn remedy(&self, said: &str) -> Option<String> {
        if is_crowded(said) {
            return Some("Lower pg_ark.jobs, or raise max_connections.".to_string());
        }
        let is_absent = said.contains("database \"") && said.contains("\" does not exist");
        if self.socket.is_none() && is_absent {
            return Some(
                "Make it first with CREATE DATABASE, or name another with dbname= in the connection text."
                    .to_string(),
            );
        }
        let Some((user, _)) = &self.socket else {
            let text =
                "Check the connection text; a password comes from ~/.pgpass, PGPASSWORD or a service file.";
            return Some(text.to_string());
        };
        AUTHENTICATION.iter().any(|word| said.contains(word)).then(|| format!(
            "A line \"local all {} peer\" in pg_hba.conf lets the server's own user in without a password when role and user have the same name (else a map in pg_ident.conf); or put the password into ~/.pgpass of that user. Then SELECT pg_reload_conf().",
            identifier(user)
        ))
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
        let text = Connection::socket("/run/a b", 5433, "o'b\\x").to("it's");
        assert!(text.starts_with(r"host='/run/a b' port=5433 user='o\'b\\x' options='-c "), "{text}");
        assert!(text.ends_with(r"default_transaction_isolation=read\\ committed' dbname='it\'s'"), "{text}");
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
    fn a_hint_fits_what_the_server_said() {
        let connection = Connection::socket("/run", 5432, "postgres");
        let hint = |said: &str| connection.refused("app", said).hint.unwrap_or_default();
        for said in [
            "FATAL:  no pg_hba.conf entry for host \"[local]\", user \"postgres\"",
            "FATAL:  Peer authentication failed for user \"postgres\"",
            "fe_sendauth: no password supplied",
        ] {
            assert!(hint(said).contains("local all postgres peer"), "{said}");
        }
        for said in [
            "FATAL:  role \"postgres\" is not permitted to log in",
            "FATAL:  could not access file \"nonexist\": No such file or directory",
            "FATAL:  database \"app\" does not exist",
        ] {
            assert_eq!(hint(said), "", "{said}");
        }
        assert!(hint("FATAL:  sorry, too many clients already").contains("pg_ark.jobs"));
        let connection = Connection::conninfo("host=h").unwrap();
        assert!(connection.refused("app", "no route").hint.unwrap().contains("connection text"));
    }

    #[test]
    fn only_a_server_that_knows_a_setting_is_told_it() {
        let options = |major: u32| Connection::socket("/run", 5432, "postgres").of_major(major).to("app");
        for (major, knows) in [(0, false), (16, false), (17, true), (18, true)] {
            assert_eq!(options(major).contains("event_triggers"), knows, "{major}");
            assert!(options(major).contains("-c role=none "), "{major}");
        }
    }

    #[test]
    fn a_server_that_the_user_names_is_told_what_any_role_may_say() {
        let mut command = Command::new("true");
        Connection::conninfo("host=h").unwrap().prepare(&mut command);
        let mut set = command.get_envs().filter(|(name, _)| *name == "PGOPTIONS");
        let options = set.next().unwrap().1.unwrap().to_str().unwrap().to_string();
        assert!(options.contains("default_transaction_read_only=off") && !options.contains("zero_damaged"));
    }

    #[test]
    fn what_is_no_connection_text_is_refused() {
        for text in ["mydb", "host", "=x", "host='open", "a b=c"] {
            let error = Connection::conninfo(text).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidArgument, "{text}");
        }
    }
}
