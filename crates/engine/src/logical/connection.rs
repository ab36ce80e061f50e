//! How a server is reached: as libpq's connection texts, and what to say when it cannot be.

use pg_ark_contract::{Error, ErrorKind, Result};
use std::process::Command;

/// What of the environment names or proves who connects, where the user gave a connection text of his own.
const ENVIRONMENT: &str = "PG";

/// Sessions whose program was killed end by themselves, also while they wait for a lock: the server looks whether its client
/// is there (since PostgreSQL 14). The rest beats what the configuration, a role or a database sets: it must not end what is
/// asked, decide who asks or what a word of a dump means, make a question wait for other transactions, or forbid a restore to
/// write.
const OPTIONS_OF_ALL: &str = r"-c client_connection_check_interval=500 -c statement_timeout=0 -c lock_timeout=0 -c idle_session_timeout=0 -c idle_in_transaction_session_timeout=0 -c role=none -c client_min_messages=warning -c default_transaction_read_only=off -c default_transaction_deferrable=off -c default_transaction_isolation=read\ committed -c array_nulls=on -c transform_null_equals=off -c intervalstyle=postgres";
/// The same of what is a superuser's alone, for the server's own user: nor may a broken page read as an empty one, an index
/// need more room than it gets, or the warnings that are looked for be translated.
const OPTIONS_OF_SUPERUSER: &str =
    "-c lc_messages=C -c zero_damaged_pages=off -c ignore_checksum_failure=off -c temp_file_limit=-1";
/// Libraries that a session would load at its beginning, or be refused.
const WITHOUT_LIBRARIES: &str = "-c session_preload_libraries= -c local_preload_libraries=";
/// The same of settings that came later; an older server refuses whoever sets them. A login trigger is for others.
const OPTIONS_17: &str = "-c transaction_timeout=0 -c event_triggers=off";
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
    /// More options, which count: the user's own where he says how to connect.
    options: String,
    /// They are for libpq's environment, which a service file beats.
    by_environment: bool,
    /// The server's major version, 0 when it is not known.
    major: u32,
    /// `lc_monetary` of its sessions, where not their own.
    monetary: Option<String>,
    /// What its sessions are called, where the user gives them no name by a service file.
    application: String,
    /// libpq finds the database: this one where nothing names another.
    fallback: Option<String>,
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
            options: String::new(),
            by_environment: false,
            major: 0,
            monetary: None,
            application: "pg_ark".to_string(),
            fallback: None,
        }
    }

    /// With sessions that load no libraries of their own accord: what a database or a role asks for may not be installed.
    pub fn without_libraries(self) -> Connection {
        Connection { options: WITHOUT_LIBRARIES.to_string(), ..self }
    }

    /// With sessions that read and write money as those of this locale do.
    pub fn with_monetary(&self, locale: &str) -> Connection {
        Connection { monetary: Some(locale.to_string()), ..self.clone() }
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
        let mut text = text.trim().to_string();
        if is_uri(&text) {
            text.truncate(text.trim_end_matches(['?', '&']).len());
        } else if text.ends_with('=') {
            text.push_str("''"); // Else it would swallow what follows.
        }
        let text = text.as_str();
        let words = if is_uri(text) { uri_words(text) } else { keywords(text)? };
        let last =
            |wanted: &str| words.iter().rfind(|(name, _)| name == wanted).map(|(_, value)| value.clone());
        let (database, options) = (last("dbname"), last("options"));
        let named = last("application_name").or_else(|| std::env::var("PGAPPNAME").ok());
        // A service file may have options: what stands in the text would beat them.
        let service = last("service").or_else(|| std::env::var("PGSERVICE").ok()).is_some();
        let by_environment = service && options.is_none();
        let own = || format!("pgark {}", uuid::Uuid::new_v4().simple());
        Ok(Connection {
            text: text.to_string(),
            socket: None,
            given: true,
            database: database.filter(|name| !name.is_empty()),
            options: options.or_else(|| std::env::var("PGOPTIONS").ok()).unwrap_or_default(),
            major: 0,
            monetary: None,
            by_environment,
            application: named.filter(|name| !name.is_empty()).unwrap_or_else(own),
            fallback: None,
        })
    }

    /// The database that the user's text names.
    pub fn database(&self) -> Option<&str> {
        self.database.as_deref()
    }

    /// The same, to the database that a service file or the environment names, else to `fallback`.
    pub fn found_by_libpq(&self, fallback: &str) -> Connection {
        Connection { fallback: Some(fallback.to_string()), ..self.clone() }
    }

    /// What its sessions are called (`application_name`).
    pub fn application(&self) -> &str {
        &self.application
    }

    /// For `--dbname=`: this server, database `database`. What comes last counts (`conninfo_parse` and `conninfo_uri_parse`,
    /// fe-connect.c), so it stands behind what the user's text says.
    pub fn to(&self, database: &str) -> String {
        // Not by the environment, which a change of user loses.
        let options = (!self.by_environment).then(|| ("options", self.options()));
        let database = self.fallback.is_none().then(|| ("dbname", database.to_string()));
        let mut text = self.text.clone();
        for (name, value) in options.into_iter().chain(database) {
            text.push_str(&match is_uri(&text) {
                true if text.contains('?') => format!("&{name}={}", percent(&value)),
                true => format!("?{name}={}", percent(&value)),
                false => format!(" {name}={}", quoted(&value)),
            });
        }
        text.trim_start().to_string()
    }

    /// What sessions are told (`pg_split_opts`, postinit.c); what the user says comes later and counts.
    fn options(&self) -> String {
        let mut options = OPTIONS_OF_ALL.to_string();
        let mut add = |more: &str| options.extend([" ", more]);
        if !self.given {
            add(OPTIONS_OF_SUPERUSER);
            if self.major >= WITH_TRANSACTION_TIMEOUT {
                add(OPTIONS_17);
            }
        }
        if let Some(locale) = &self.monetary {
            let mut escaped = String::new();
            for letter in locale.chars() {
                if letter.is_whitespace() || letter == '\\' {
                    escaped.push('\\');
                }
                escaped.push(letter);
            }
            add(&format!("-c lc_monetary={escaped}"));
        }
        if !self.options.is_empty() {
            add(&self.options);
        }
        options
    }

    /// Lets a program connect without asking for a password; libpq's environment counts where the user named the server.
    pub fn prepare(&self, command: &mut Command) {
        if self.given {
            let ours = std::env::vars_os()
                .filter(|(name, _)| name.to_str().is_some_and(|name| name.starts_with(ENVIRONMENT)))
                .filter(|(name, _)| {
                    let theirs = ["PGARK_REPO", "PGDATABASE", "PGCLIENTENCODING", "PGOPTIONS"];
                    !name.to_str().is_some_and(|name| theirs.contains(&name))
                });
            command.envs(ours);
            if self.by_environment {
                command.env("PGOPTIONS", self.options());
            }
            if let Some(fallback) = &self.fallback {
                let named = std::env::var("PGDATABASE").ok().filter(|name| !name.is_empty());
                command.env("PGDATABASE", named.as_ref().unwrap_or(fallback));
            }
        }
        command.env("PGAPPNAME", &self.application);
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
        if said.contains("unsupported startup parameter") {
            return Some("Connect to the server itself, not through a pooler.".to_string());
        }
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

/// The parameters of a URI; its path, a `dbname`, comes first, and what comes later counts.
fn uri_words(text: &str) -> Vec<(String, String)> {
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let path = place.split_once('/').map(|(_, path)| ("dbname", path));
    let named = parameters.split('&').filter_map(|word| word.split_once('='));
    path.into_iter().chain(named).map(|(name, value)| (unpercent(name), unpercent(value))).collect()
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
        assert!(text.ends_with(" -c temp_file_limit=-1' dbname='it\\'s'"), "{text}");
        assert!(text.contains(r"default_transaction_isolation=read\\ committed "), "{text}");
        let connection = Connection::conninfo("host=h  dbname = 'a \\'b' user=x").unwrap();
        assert_eq!(connection.database(), Some("a 'b"));
        assert!(connection.to("n").ends_with(" dbname='n'"));
        let connection = Connection::conninfo("postgresql://u@h:1/a%20b?sslmode=prefer").unwrap();
        assert_eq!(connection.database(), Some("a b"));
        let text = connection.to("c/ü");
        assert!(text.starts_with("postgresql://u@h:1/a%20b?sslmode=prefer&options=-c%20client_"), "{text}");
        assert!(text.ends_with("&dbname=c%2F%C3%BC"), "{text}");
        let text = Connection::conninfo("").unwrap().to("x");
        assert!(text.starts_with("options='-c ") && text.ends_with(" dbname='x'"), "{text}");
        assert_eq!(Connection::conninfo("postgres://h").unwrap().database(), None);
        assert_eq!(Connection::conninfo("postgres://h/%").unwrap().database(), Some("%"));
        assert_eq!(Connection::conninfo("postgres://h/a?dbname=b").unwrap().database(), Some("b"));
        let service = Connection::conninfo("postgres:///?service=st").unwrap();
        assert_eq!(service.database(), None);
        assert!(service.to("x").ends_with("&dbname=x"));
        assert!(!service.found_by_libpq("x").to("x").contains("dbname"));
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
        let options = Connection::conninfo("host=h").unwrap().options();
        assert!(options.contains("default_transaction_read_only=off") && !options.contains("zero_damaged"));
        // What the user says comes last, and counts.
        for (text, whole) in [
            ("postgres://h/d?", "postgres://h/d?options="),
            ("postgres://h/d?user=x&", "postgres://h/d?user=x&options="),
            ("host=h password=", "host=h password='' options='-c "),
            ("service=s", "service=s dbname='x'"),
            ("postgres:///?service=s", "postgres:///?service=s&dbname=x"),
        ] {
            let text = Connection::conninfo(text).unwrap().to("x");
            assert!(text.starts_with(whole), "{text}");
        }
        for text in ["host=h options='-c work_mem=5MB'", "postgres://h/d?options=-c%20work_mem%3D5MB&user=x"]
        {
            let connection = Connection::conninfo(text).unwrap().with_monetary(r"a b\c");
            let options = connection.options();
            assert!(options.ends_with(r" -c lc_monetary=a\ b\\c -c work_mem=5MB"), "{options}");
        }
    }

    #[test]
    fn what_is_no_connection_text_is_refused() {
        for text in ["mydb", "host", "=x", "host='open", "a b=c"] {
            let error = Connection::conninfo(text).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidArgument, "{text}");
        }
    }
}
