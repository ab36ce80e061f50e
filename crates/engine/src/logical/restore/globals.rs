//! Roles, memberships and tablespaces: the stored globals, what is left out or changed of them, and psql to run them.

use super::meaning::{self, Meaning};
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
/// Comes first. Nothing but errors is told, and no literal ends where this program does not expect it, whatever a role or a
/// connection text sets.
const BEGIN: &[u8] = b"SET client_encoding = 'UTF8';\nSET client_min_messages = error;\nSET standard_conforming_strings = on;\n";
/// Longest name: the server would cut a longer one, and mean another (`NAMEDATALEN`, pg_config_manual.h).
const MAX_NAME: usize = 63;

/// What is left out of the globals, and what is changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// The server is in use: nothing is said about what these statements do not make.
    pub in_use: bool,
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
    /// What stays as it is: `role "a"`, `tablespace "b"`, `settings of all roles`.
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
    let (mut made, mut left_out) = (Made::default(), BTreeSet::new());
    for statement in script::statements(text)? {
        let meaning = meaning::of(&statement)
            .ok_or_else(|| script::strange(text, statement.range.start, "is a statement"))?;
        if let Some(what) = rules.keeps(&statement, &meaning, &made) {
            if left_out.insert(what.clone()) {
                out.left_out.push(what);
            }
            continue;
        }
        match meaning {
            Meaning::CreateRole(name) if rules.created.contains(&name) => continue,
            Meaning::CreateRole(name) => {
                made.roles.insert(name.clone());
                out.roles.push(name);
            }
            Meaning::CreateTablespace(name) => {
                made.tablespaces.insert(name.clone());
                out.tablespaces.push(name);
            }
            // How literals end was settled when the text was cut.
            Meaning::Literals => continue,
            Meaning::Encoding { as_here } => made.is_read_otherwise = !as_here,
            _ => {}
        }
        match rules.place(&statement) {
            Some((literal, place)) => {
                let part = |range: std::ops::Range<usize>| text.get(range).unwrap_or_default();
                out.text.extend_from_slice(part(statement.range.start..literal.start));
                let new = format!("E'{}'", place.replace('\\', "\\\\").replace('\'', "''"));
                out.text.extend_from_slice(new.as_bytes());
                out.text.extend_from_slice(part(literal.end..statement.range.end));
            }
            None => out.text.extend_from_slice(text.get(statement.range).unwrap_or_default()),
        }
        out.text.extend_from_slice(b";\n");
    }
    Ok(out)
}

/// What the statements so far make, and how names are read.
#[derive(Default)]
struct Made {
    roles: BTreeSet<String>,
    tablespaces: BTreeSet<String>,
    /// The text is in an encoding in which the server reads other letters than this program.
    is_read_otherwise: bool,
}

impl Rules {
    /// What a statement is about, when that stays as it is.
    fn keeps(&self, statement: &Statement, meaning: &Meaning, made: &Made) -> Option<String> {
        if !self.in_use {
            return None;
        }
        if let Some(name) = self.uncertain(statement, made) {
            return Some(format!("what is called \"{}\", as far as it can be read", name.escape_debug()));
        }
        match meaning {
            Meaning::Session | Meaning::Encoding { .. } | Meaning::Literals => None,
            Meaning::AllRoles => Some("settings of all roles".to_string()),
            Meaning::CreateRole(name) => self.kept_roles.contains(name).then(|| format!("role \"{name}\"")),
            Meaning::Role(name) => (!made.roles.contains(name)).then(|| format!("role \"{name}\"")),
            Meaning::CreateTablespace(name) => {
                self.kept_tablespaces.contains(name).then(|| format!("tablespace \"{name}\""))
            }
            Meaning::Tablespace(name) => {
                (!made.tablespaces.contains(name)).then(|| format!("tablespace \"{name}\""))
            }
            // A role that is made may become a member; one that is there must not gain by it.
            Meaning::Membership { role, member } => {
                (!made.roles.contains(member)).then(|| match made.roles.contains(role) {
                    true => format!("membership of role \"{member}\" in role \"{role}\""),
                    false => format!("role \"{member}\""),
                })
            }
            Meaning::Parameter { name, grantee } => (!made.roles.contains(grantee))
                .then(|| format!("right of role \"{grantee}\" to parameter \"{name}\"")),
        }
    }

    /// A name that the server may read as another one that is there.
    fn uncertain<'a>(&self, statement: &'a Statement, made: &Made) -> Option<&'a str> {
        let there = || self.kept_roles.iter().chain(&self.kept_tablespaces);
        let mut names = (0..statement.words.len()).filter_map(|at| statement.name(at));
        names.find(|name| {
            let is_unread = !name.is_ascii() && (made.is_read_otherwise || name.contains('\u{fffd}'));
            name.len() > MAX_NAME || (is_unread && there().any(|there| !there.is_ascii()))
        })
    }

    /// Where the literal of a tablespace that a statement creates stands, and what it shall be. One inside the data directory has
    /// no place of its own (`allow_in_place_tablespaces`).
    fn place(&self, statement: &Statement) -> Option<(std::ops::Range<usize>, String)> {
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
        Some((range, place))
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
#[path = "globals_tests.rs"]
mod tests;
