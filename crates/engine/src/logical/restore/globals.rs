//! Roles, memberships and tablespaces: the stored globals, what is left out or changed of them, and psql to run them.

use super::report::Problem;
use super::script::{self, Statement, Word};
use crate::logical::query::Server;
use crate::logical::stored::Dump;
use crate::repository::logical_record::LogicalRecord;
use crate::repository::{Record, Storage};
use crate::stored::objects::unwrap_io;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

/// Most bytes of globals: a hundred thousand roles take less.
const MAX_GLOBALS: u64 = 256 << 20;
/// Most errors that are told one by one.
const MAX_PROBLEMS: usize = 1000;
/// psql's status when it could not connect, or not go on (`EXIT_BADCONN`, src/bin/psql/settings.h).
const NO_CONNECTION: i32 = 2;
/// Comes first. Nothing but errors is told, and no literal ends where this program does not expect it.
const BEGIN: &[u8] = b"SET client_min_messages = error;\nSET standard_conforming_strings = on;\n";

/// What is left out of the globals, and what is changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Roles that are there and become what the backup says: only their CREATE is left out.
    pub created: BTreeSet<String>,
    /// Roles that are there and stay as they are.
    pub kept_roles: BTreeSet<String>,
    /// Tablespaces that are there and stay as they are.
    pub kept_tablespaces: BTreeSet<String>,
    /// New places of tablespaces, by name.
    pub places: BTreeMap<String, String>,
}

/// What psql is to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Script {
    /// The statements, in the encoding that they set.
    pub text: Vec<u8>,
    /// Roles that it creates.
    pub roles: Vec<String>,
    /// Tablespaces that it creates.
    pub tablespaces: Vec<String>,
    /// What stays as it is: `role "a"`, `tablespace "b"`.
    pub left_out: Vec<String>,
}

/// Reads the globals of the backup in `folder`; proved by their checksum. They are in the encoding of the server that they came
/// from.
///
/// # Errors
/// `Corrupt` when they are damaged or too large; what the store said.
pub fn read(storage: &Storage, folder: &str, record: &Record, logical: &LogicalRecord) -> Result<Vec<u8>> {
    let dump = Dump::globals(storage, folder, logical);
    let what = "the globals do not decode";
    let mut bytes = Vec::new();
    let mut reader = dump.decoded(record.compression.codec)?.take(MAX_GLOBALS + 1);
    reader.read_to_end(&mut bytes).map_err(|e| unwrap_io(what, e))?;
    if bytes.len() as u64 > MAX_GLOBALS {
        return Err(Error::new(ErrorKind::Corrupt, "the globals are larger than any could be"));
    }
    Ok(bytes)
}

/// What psql is to run of the globals.
///
/// # Errors
/// `Corrupt` for what pg_dumpall does not write.
pub fn script(text: &[u8], rules: &Rules) -> Result<Script> {
    let mut out = Script { text: BEGIN.to_vec(), ..Script::default() };
    for statement in script::statements(text)? {
        if let Some(what) = rules.keeps(&statement) {
            if !out.left_out.contains(&what) {
                out.left_out.push(what);
            }
            continue;
        }
        if statement.says(0, &["create", "role"]) {
            let name = statement.name(2).unwrap_or_default();
            if rules.created.contains(name) {
                continue;
            }
            out.roles.push(name.to_string());
        }
        // How literals end was settled when the text was cut.
        if statement.behind(&["standard_conforming_strings"]).is_some() {
            continue;
        }
        match rules.place(&statement) {
            Some((name, literal, place)) => {
                let part = |range: std::ops::Range<usize>| text.get(range).unwrap_or_default();
                out.text.extend_from_slice(part(statement.range.start..literal.start));
                let new = format!("E'{}'", place.replace('\\', "\\\\").replace('\'', "''"));
                out.text.extend_from_slice(new.as_bytes());
                out.text.extend_from_slice(part(literal.end..statement.range.end));
                out.tablespaces.push(name);
            }
            None => out.text.extend_from_slice(text.get(statement.range).unwrap_or_default()),
        }
        out.text.extend_from_slice(b";\n");
    }
    Ok(out)
}

impl Rules {
    /// What a statement is about, when that stays as it is.
    fn keeps(&self, statement: &Statement) -> Option<String> {
        let role = |name: &str| self.kept_roles.contains(name).then(|| format!("role \"{name}\""));
        let first = |words: &[&str]| words.iter().any(|word| statement.says(0, &[word]));
        let tablespace =
            |name: &str| self.kept_tablespaces.contains(name).then(|| format!("tablespace \"{name}\""));
        if first(&["create", "alter"]) {
            return match statement.says(1, &["role"]) {
                true => statement.name(2).and_then(role),
                false if statement.says(1, &["tablespace"]) => statement.name(2).and_then(tablespace),
                false => None,
            };
        }
        if !first(&["comment", "security", "grant", "revoke"]) {
            return None;
        }
        if let Some(at) = statement.behind(&["on", "tablespace"]) {
            return statement.name(at).and_then(tablespace);
        }
        if let Some(at) = statement.behind(&["on", "role"]) {
            return statement.name(at).and_then(role);
        }
        // GRANT a TO b: both stay as they are, and so does what one is to the other.
        let is_membership = statement.says(0, &["grant"]) && statement.says(2, &["to"]);
        statement.name(1).filter(|_| is_membership).and_then(role)?;
        statement.name(3).and_then(role)
    }

    /// The name of the tablespace that a statement creates, where its literal stands, and what it shall be. One inside the data
    /// directory has no place of its own (`allow_in_place_tablespaces`).
    fn place(&self, statement: &Statement) -> Option<(String, std::ops::Range<usize>, String)> {
        let name = statement.name(2).filter(|_| statement.says(0, &["create", "tablespace"]))?;
        let at = statement.behind(&["location"])?;
        let literal = |at: usize| match statement.words.get(at) {
            Some((Word::Literal(value), range)) => Some((value.clone(), range.clone())),
            _ => None,
        };
        let (old, range) = match literal(at) {
            Some(found) => found,
            // E'...'
            None => {
                let (value, range) = literal(at + 1)?;
                (value, statement.words.get(at)?.1.start..range.end)
            }
        };
        let place = match self.places.get(name) {
            Some(place) => place.clone(),
            None if old.starts_with('/') => old,
            None => String::new(),
        };
        Some((name.to_string(), range, place))
    }
}

/// Runs the statements in database `database`; what fails is told, and the rest goes on.
///
/// # Errors
/// `ServerNotReady` when the server cannot be reached or goes away; the order to stop.
pub fn run(server: &Server<'_>, database: &str, script: &Script) -> Result<Vec<Problem>> {
    let mut command = server.keeper.command(&server.programs.path("psql"), server.access)?;
    server.connection.prepare(&mut command);
    command.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--file=-"]);
    command.arg(format!("--dbname={}", server.connection.to(database)));
    let mut heard = Heard::default();
    let ended = server.keeper.feed(command, &mut &script.text[..], &mut |line| heard.line(line))?;
    // psql's last words may quote a statement with a password: only what was understood is told.
    let said =
        |heard: &Heard| heard.problems.last().map_or_else(|| ended.status.clone(), |p| p.message.clone());
    match ended.code {
        Some(0) => Ok(heard.finish()),
        Some(NO_CONNECTION) if heard.problems.is_empty() => {
            Err(server.connection.refused(database, &ended.said()))
        }
        _ => Err(Error::new(ErrorKind::ServerNotReady, "psql could not run the globals to their end")
            .detail(said(&heard))),
    }
}

/// What psql said.
#[derive(Default)]
struct Heard {
    problems: Vec<Problem>,
    more: usize,
}

impl Heard {
    /// `psql:<stdin>:12: ERROR:  role "a" already exists`, then lines that belong to it. Where the server speaks another
    /// language the word differs; only errors are told at all.
    fn line(&mut self, line: &str) {
        if let Some((_, said)) = line.strip_prefix("psql:<stdin>:").and_then(|rest| rest.split_once(": ")) {
            let message = said.split_once(":  ").map_or(said, |(_, message)| message).to_string();
            match self.problems.len() < MAX_PROBLEMS {
                true => self.problems.push(Problem { database: None, message }),
                false => self.more += 1,
            }
        } else if let (Some(detail), Some(last)) = (line.strip_prefix("DETAIL:  "), self.problems.last_mut())
            && self.more == 0
        {
            last.message.push_str(&format!(" ({detail})"));
        }
    }

    fn finish(mut self) -> Vec<Problem> {
        if self.more > 0 {
            self.problems.push(Problem { database: None, message: format!("{} more errors", self.more) });
        }
        self.problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "SET default_transaction_read_only = off;\nSET standard_conforming_strings = off;\n\
        CREATE ROLE postgres;\nALTER ROLE postgres WITH SUPERUSER;\nCREATE ROLE a;\nALTER ROLE a WITH PASSWORD 'x';\n\
        CREATE ROLE \"B b\";\nALTER ROLE a SET work_mem TO '1MB';\nGRANT a TO \"B b\" GRANTED BY postgres;\n\
        GRANT a TO c;\nCOMMENT ON ROLE a IS 'x';\n\
        CREATE TABLESPACE fast OWNER a LOCATION '/old/fast';\nALTER TABLESPACE fast SET (random_page_cost='1');\n\
        GRANT ALL ON TABLESPACE fast TO a;\nCREATE TABLESPACE slow OWNER a LOCATION E'/old/sl\\\\ow';\n\
        CREATE TABLESPACE inside OWNER a LOCATION 'pg_tblspc/16400';\n";

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn tablespaces_go_elsewhere_and_the_first_role_is_there() {
        let places = [("fast".to_string(), "/new/it's".to_string())].into();
        let rules = Rules { created: set(&["postgres"]), places, ..Rules::default() };
        let script = script(TEXT.as_bytes(), &rules).unwrap();
        let text = String::from_utf8(script.text).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            !lines.contains(&"CREATE ROLE postgres;")
                && lines.contains(&"ALTER ROLE postgres WITH SUPERUSER;")
        );
        assert!(lines.contains(&"CREATE TABLESPACE fast OWNER a LOCATION E'/new/it''s';"), "{lines:?}");
        assert!(lines.contains(&"CREATE TABLESPACE slow OWNER a LOCATION E'/old/sl\\\\ow';"), "{lines:?}");
        assert!(lines.contains(&"CREATE TABLESPACE inside OWNER a LOCATION E'';"), "{lines:?}");
        assert!(!text.contains("strings = off"));
        assert_eq!(script.roles, ["a", "B b"]);
        assert_eq!(script.tablespaces, ["fast", "slow", "inside"]);
        assert!(script.left_out.is_empty());
    }

    #[test]
    fn what_is_there_stays_as_it_is() {
        let rules =
            Rules { kept_roles: set(&["a", "B b"]), kept_tablespaces: set(&["fast"]), ..Rules::default() };
        let script = script(TEXT.as_bytes(), &rules).unwrap();
        let text = String::from_utf8(script.text).unwrap();
        assert_eq!(script.left_out, ["role \"a\"", "role \"B b\"", "tablespace \"fast\""]);
        assert_eq!(script.roles, ["postgres"]);
        assert!(!text.contains("ROLE a") && !text.contains("fast"), "{text}");
        assert!(text.contains("GRANT a TO c;"), "a new role becomes a member");
    }

    #[test]
    fn other_encodings_pass_byte_by_byte() {
        let text = b"SET client_encoding = 'LATIN1';\nCREATE ROLE \"b\xe9b\xe9\";\nCOMMENT ON ROLE a IS 'gr\xf6\xdfer';\n";
        let script = script(text, &Rules::default()).unwrap();
        assert!(script.text.ends_with(text), "{}", String::from_utf8_lossy(&script.text));
    }

    #[test]
    fn errors_are_heard_without_the_statement() {
        let mut heard = Heard::default();
        for line in [
            "psql:<stdin>:3: ERROR:  directory \"/x\" does not exist",
            "DETAIL:  Look there.",
            "LINE 1: ALTER ROLE a PASSWORD 'secret'",
            "psql:<stdin>:9: FEHLER:  Rolle existiert",
        ] {
            heard.line(line);
        }
        let messages: Vec<String> = heard.finish().into_iter().map(|p| p.message).collect();
        assert_eq!(messages, ["directory \"/x\" does not exist (Look there.)", "Rolle existiert"]);
    }
}
