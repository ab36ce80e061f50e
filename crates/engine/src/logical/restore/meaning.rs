//! What a statement of the globals is about. Only what `pg_dumpall --globals-only` writes has a meaning: the text comes from the
//! repository, and is run by a superuser, with `--into` on a server in use.
//!
//! Sources: dumpRoles, dumpRoleMembership, dumpRoleGUCPrivs, dumpTablespaces, dumpUserConfig (pg_dumpall.c); buildACLCommands,
//! makeAlterConfigCommand (dumputils.c).

use super::script::{Statement, Word};

/// Settings that the text begins with.
const SESSION: [&str; 4] = [
    "default_transaction_read_only",
    "client_encoding",
    "standard_conforming_strings",
    "escape_string_warning",
];

/// Words of `ALTER ROLE name WITH`. Not USER, which would make members.
const ATTRIBUTES: [&str; 21] = [
    "superuser",
    "nosuperuser",
    "inherit",
    "noinherit",
    "createrole",
    "nocreaterole",
    "createdb",
    "nocreatedb",
    "login",
    "nologin",
    "replication",
    "noreplication",
    "bypassrls",
    "nobypassrls",
    "connection",
    "limit",
    "password",
    "valid",
    "until",
    "null",
    "e",
];

/// Encodings that a server can have, without `-` and `_` (`pg_enc`, mb/pg_wchar.h): in them no byte of a letter is a quote or a
/// backslash. psql reads literals in the encoding that the text sets.
const SERVER_ENCODINGS: [&str; 35] = [
    "sqlascii",
    "eucjp",
    "euccn",
    "euckr",
    "euctw",
    "eucjis2004",
    "utf8",
    "muleinternal",
    "latin1",
    "latin2",
    "latin3",
    "latin4",
    "latin5",
    "latin6",
    "latin7",
    "latin8",
    "latin9",
    "latin10",
    "win1256",
    "win1258",
    "win866",
    "win874",
    "koi8r",
    "win1251",
    "win1252",
    "iso88595",
    "iso88596",
    "iso88597",
    "iso88598",
    "win1250",
    "win1253",
    "win1254",
    "win1255",
    "win1257",
    "koi8u",
];

/// The encoding whose names are read here as the server reads them.
const AS_HERE: &str = "utf8";

/// What a statement is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// The session alone.
    Session,
    /// The encoding of what follows; whether names in it are read here as the server reads them.
    Encoding {
        /// They are.
        as_here: bool,
    },
    /// How literals end.
    Literals,
    /// A new role.
    CreateRole(String),
    /// What a role is, its settings or its comment.
    Role(String),
    /// Settings of all roles.
    AllRoles,
    /// One role becomes a member of another.
    Membership {
        /// The one that has members.
        role: String,
        /// The member.
        member: String,
    },
    /// A new tablespace.
    CreateTablespace(String),
    /// Options, rights or comment of a tablespace.
    Tablespace(String),
    /// A right to set a parameter.
    Parameter {
        /// The parameter.
        name: String,
        /// Who gets the right.
        grantee: String,
    },
}

/// What the statement is about; `None` for what pg_dumpall does not write.
pub fn of(statement: &Statement) -> Option<Meaning> {
    let says = |at: usize, words: &[&str]| statement.says(at, words);
    let ends = |at: usize| statement.words.len() == at;
    let name = |at: usize| statement.name(at).map(str::to_string);
    let role = |at: usize| name(at).filter(|_| !is_whoever(statement, at));
    match statement.name(0).filter(|_| matches!(statement.words.first(), Some((Word::Plain(_), _))))? {
        "set" if says(1, &["session", "authorization"]) && ends(4) => name(3).map(|_| Meaning::Session),
        "set" => session(statement),
        "reset" if says(1, &["session", "authorization"]) && ends(3) => Some(Meaning::Session),
        "create" if says(1, &["role"]) && ends(3) => role(2).map(Meaning::CreateRole),
        "create" if says(1, &["tablespace"]) && says(3, &["owner"]) && says(5, &["location"]) => {
            name(2).map(Meaning::CreateTablespace)
        }
        "alter" if says(1, &["role", "all", "set"]) => Some(Meaning::AllRoles),
        "alter"
            if says(1, &["role"]) && (says(3, &["set"]) || (says(3, &["with"]) && attributes(statement))) =>
        {
            role(2).map(Meaning::Role)
        }
        "alter" if says(1, &["tablespace"]) && says(3, &["set"]) => name(2).map(Meaning::Tablespace),
        "comment" if says(1, &["on"]) && says(4, &["is"]) => object(statement, 2),
        "security" if says(1, &["label", "for"]) && says(4, &["on"]) && says(7, &["is"]) => {
            object(statement, 5)
        }
        "grant" if says(2, &["to"]) && (ends(4) || says(4, &["with"]) || says(4, &["granted"])) => {
            Some(Meaning::Membership { role: role(1)?, member: role(3)? })
        }
        "grant" | "revoke" => right(statement),
        _ => None,
    }
}

/// `CURRENT_USER` and the like, which are nobody's names without quotes.
fn is_whoever(statement: &Statement, at: usize) -> bool {
    let whoever = ["all", "current_user", "current_role", "session_user", "user", "public", "none"];
    whoever.iter().any(|word| statement.says(at, &[word]))
}

fn session(statement: &Statement) -> Option<Meaning> {
    let setting = statement.name(1).filter(|name| SESSION.contains(name))?;
    let value = match &statement.words[..] {
        [_, (Word::Plain(_), _), (Word::Sign(b'='), _), (Word::Literal(value) | Word::Plain(value), _)] => {
            value
        }
        _ => return None,
    };
    match setting {
        "client_encoding" => {
            let plain: String = value.chars().filter(|c| !matches!(c, '-' | '_')).collect();
            let plain = plain.to_ascii_lowercase();
            let as_here = plain == AS_HERE;
            SERVER_ENCODINGS.contains(&&plain[..]).then_some(Meaning::Encoding { as_here })
        }
        "standard_conforming_strings" => Some(Meaning::Literals),
        _ => Some(Meaning::Session),
    }
}

fn attributes(statement: &Statement) -> bool {
    statement.words.iter().skip(4).all(|(word, _)| match word {
        Word::Plain(word) => ATTRIBUTES.contains(&&word[..]),
        Word::Literal(_) => true,
        Word::Sign(sign) => *sign == b'-' || sign.is_ascii_digit(),
        Word::Quoted(_) => false,
    })
}

/// `ROLE name` or `TABLESPACE name`.
fn object(statement: &Statement, at: usize) -> Option<Meaning> {
    let name = statement.name(at + 1).map(str::to_string)?;
    match statement.says(at, &["role"]) {
        true => (!is_whoever(statement, at + 1)).then_some(Meaning::Role(name)),
        false => statement.says(at, &["tablespace"]).then_some(Meaning::Tablespace(name)),
    }
}

/// `GRANT rights ON TABLESPACE name TO role` and `GRANT rights ON PARAMETER name TO role`; or REVOKE and FROM.
fn right(statement: &Statement) -> Option<Meaning> {
    if let Some(at) = statement.behind(&["on", "tablespace"]) {
        let follows = statement.says(at + 1, &["to"]) || statement.says(at + 1, &["from"]);
        return statement.name(at).filter(|_| follows).map(|name| Meaning::Tablespace(name.to_string()));
    }
    let at = statement.behind(&["on", "parameter"])?;
    let is_end = |at: &usize| statement.says(*at, &["to"]) || statement.says(*at, &["from"]);
    let to = (at + 1..statement.words.len()).find(is_end)?;
    let mut name = String::new();
    for place in at..to {
        match &statement.words.get(place)?.0 {
            Word::Plain(part) | Word::Quoted(part) => name.push_str(part),
            Word::Sign(b'.') => name.push('.'),
            _ => return None,
        }
    }
    // One at a time.
    let ends = statement.words.len() == to + 2
        || statement.says(to + 2, &["with"])
        || statement.says(to + 2, &["granted"])
        || statement.says(to + 2, &["cascade"]);
    let grantee = statement.name(to + 1).filter(|_| ends)?;
    Some(Meaning::Parameter { name, grantee: grantee.to_string() })
}

#[cfg(test)]
mod tests {
    use super::super::script::statements;
    use super::*;

    fn meaning(text: &str) -> Option<Meaning> {
        of(&statements(text.as_bytes()).unwrap()[0])
    }

    #[test]
    fn what_pg_dumpall_writes_has_a_meaning() {
        let name = |name: &str| name.to_string();
        for (text, expected) in [
            ("SET default_transaction_read_only = off;", Meaning::Session),
            ("SET client_encoding = 'UTF8';", Meaning::Encoding { as_here: true }),
            ("SET client_encoding = 'EUC_JIS_2004';", Meaning::Encoding { as_here: false }),
            ("SET client_encoding = 'SQL_ASCII';", Meaning::Encoding { as_here: false }),
            ("SET standard_conforming_strings = on;", Meaning::Literals),
            ("SET escape_string_warning = off;", Meaning::Session),
            ("SET SESSION AUTHORIZATION \"a b\";", Meaning::Session),
            ("RESET SESSION AUTHORIZATION;", Meaning::Session),
            ("CREATE ROLE \"current_user\";", Meaning::CreateRole(name("current_user"))),
            (
                "ALTER ROLE a WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB LOGIN NOREPLICATION NOBYPASSRLS CONNECTION LIMIT -1 PASSWORD E'md5\\\\' VALID UNTIL 'infinity';",
                Meaning::Role(name("a")),
            ),
            ("ALTER ROLE a SET search_path TO 'a', 'b c';", Meaning::Role(name("a"))),
            ("ALTER ROLE ALL SET work_mem TO '3MB';", Meaning::AllRoles),
            ("ALTER ROLE \"all\" SET work_mem TO '3MB';", Meaning::Role(name("all"))),
            ("COMMENT ON ROLE a IS 'x';", Meaning::Role(name("a"))),
            ("SECURITY LABEL FOR p ON ROLE a IS 'x';", Meaning::Role(name("a"))),
            ("SECURITY LABEL FOR p ON TABLESPACE t IS 'x';", Meaning::Tablespace(name("t"))),
            (
                "GRANT a TO b WITH ADMIN OPTION, INHERIT TRUE GRANTED BY postgres;",
                Meaning::Membership { role: name("a"), member: name("b") },
            ),
            ("GRANT a TO b;", Meaning::Membership { role: name("a"), member: name("b") }),
            ("CREATE TABLESPACE t OWNER a LOCATION '/x';", Meaning::CreateTablespace(name("t"))),
            ("ALTER TABLESPACE t SET (random_page_cost='1');", Meaning::Tablespace(name("t"))),
            ("GRANT ALL ON TABLESPACE t TO a WITH GRANT OPTION;", Meaning::Tablespace(name("t"))),
            ("REVOKE ALL ON TABLESPACE t FROM PUBLIC;", Meaning::Tablespace(name("t"))),
            (
                "GRANT SET,ALTER SYSTEM ON PARAMETER pg_ark.label TO PUBLIC;",
                Meaning::Parameter { name: name("pg_ark.label"), grantee: name("public") },
            ),
            (
                "REVOKE ALL ON PARAMETER work_mem FROM a;",
                Meaning::Parameter { name: name("work_mem"), grantee: name("a") },
            ),
        ] {
            assert_eq!(meaning(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn promise_7_nothing_else_has() {
        for text in [
            "SET client_encoding = 'SJIS';",
            "SET client_encoding = 'Shift-JIS-2004';",
            "SET client_encoding = 'big5';",
            "SET client_encoding = GBK;",
            "SET client_encoding TO 'UTF8';",
            "SET \"client_encoding\" = 'SJIS';",
            "SET NAMES 'SJIS';",
            "SET LOCAL client_encoding = 'SJIS';",
            "SET work_mem = '1GB';",
            "RESET client_encoding;",
            "RESET ALL;",
            "SELECT set_config('client_encoding', 'SJIS', false);",
            "DO 'x';",
            "COPY pg_class TO PROGRAM 'x';",
            "DROP DATABASE shop;",
            "DROP ROLE a;",
            "\"create\" ROLE a;",
            "CREATE DATABASE x;",
            "CREATE USER x;",
            "CREATE EXTENSION x;",
            "CREATE ROLE a ROLE bob;",
            "CREATE ROLE U&\"a\";",
            "CREATE ROLE current_user;",
            "ALTER SYSTEM SET archive_command = 'x';",
            "ALTER DATABASE shop SET work_mem = '1MB';",
            "ALTER ROLE a WITH SUPERUSER USER bob;",
            "ALTER ROLE a RENAME TO b;",
            "ALTER ROLE a IN DATABASE shop SET work_mem TO '1MB';",
            "ALTER ROLE CURRENT_USER WITH PASSWORD 'x';",
            "ALTER ROLE session_user SET work_mem TO '1MB';",
            "ALTER TABLESPACE t RENAME TO u;",
            "COMMENT ON DATABASE shop IS 'x';",
            "COMMENT ON ROLE current_user IS 'x';",
            "GRANT a, b TO c;",
            "GRANT a TO b, bob;",
            "GRANT a TO current_user;",
            "GRANT SELECT ON TABLE t TO a;",
            "REVOKE a FROM b;",
            "GRANT SET ON PARAMETER work_mem TO a, bob;",
            "GRANT SET ON PARAMETER work_mem, x TO a;",
        ] {
            assert_eq!(meaning(text), None, "{text}");
        }
    }
}
