//! What a logical backup has to know of its server: the socket, the port, the role that it is taken as, the programs.

use crate::postgres::{guc, process};
use crate::{settings, sql};
use pg_ark_contract::conversation::{LogicalChoice, LogicalTask};
use pg_ark_contract::{Error, ErrorKind, Result};
use std::path::Path;

/// The role that initdb makes (`BOOTSTRAP_SUPERUSERID`, catalog/pg_authid.dat): it may read everything, and is never dropped.
const BOOTSTRAP_SUPERUSER: &str = "SELECT rolname::text FROM pg_roles WHERE oid = 10";

/// What `scanner_isspace` takes for blanks (parser/scansup.c).
const BLANK: [char; 6] = [' ', '\t', '\n', '\r', '\x0b', '\x0c'];

/// Facts for the engine; in a transaction.
///
/// # Errors
/// `Internal` when the server's answers have an unexpected shape; as [`settings::data_directory`].
pub fn task(choice: LogicalChoice) -> Result<LogicalTask> {
    let missing = |what: &str| Error::new(ErrorKind::Internal, format!("the server does not tell {what}"));
    let user = sql::text(BOOTSTRAP_SUPERUSER, &[])?.ok_or_else(|| missing("its bootstrap superuser"))?;
    let port = guc::option(c"port").and_then(|port| port.parse().ok()).ok_or_else(|| missing("its port"))?;
    let program = process::server_program();
    let bindir = program.parent().ok_or_else(|| missing("where its programs are"))?;
    Ok(LogicalTask {
        choice,
        socket_directory: socket_directory(&settings::data_directory()?),
        port,
        user,
        bindir: bindir.display().to_string(),
    })
}

/// The first folder with a socket of this server that a client can name, absolute; empty when it has none.
fn socket_directory(data_directory: &str) -> String {
    let folders = split(&guc::option(c"unix_socket_directories").unwrap_or_default());
    match usable(&folders) {
        // Not a folder but a name in the kernel's own space of sockets.
        Some(folder) if folder.starts_with('@') => folder.clone(),
        // The server takes a relative one from its data directory, where it runs.
        Some(folder) => Path::new(data_directory).join(folder).display().to_string(),
        None => String::new(),
    }
}

/// libpq takes a comma for the end of a host (`connectOptions2`, fe-connect.c). Where all have one, its error is the answer.
fn usable(folders: &[String]) -> Option<&String> {
    folders.iter().find(|folder| !folder.contains(',')).or(folders.first())
}

/// The names of a list as `SplitDirectoriesString` reads it (utils/adt/varlena.c): commas between names, blanks around them
/// do not count, and in double quotes a name is taken as it is, with each quote doubled. The server has read it before, so
/// that what has another form ends it.
fn split(list: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = list.trim_start_matches(BLANK);
    while !rest.is_empty() {
        let (name, after) = match rest.strip_prefix('"') {
            Some(quoted) => unquoted(quoted),
            None => {
                let (name, after) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
                (name.trim_end_matches(BLANK).to_owned(), after)
            }
        };
        names.push(name);
        let Some(next) = after.trim_start_matches(BLANK).strip_prefix(',') else { break };
        rest = next.trim_start_matches(BLANK);
    }
    names
}

/// The name up to the closing quote, and what comes after that.
fn unquoted(quoted: &str) -> (String, &str) {
    let mut name = String::new();
    let mut rest = quoted.chars();
    while let Some(character) = rest.next() {
        match character {
            '"' if rest.as_str().starts_with('"') => drop(rest.next()),
            '"' => break,
            _ => {}
        }
        name.push(character);
    }
    (name, rest.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_read_as_the_server_reads_them() {
        for (list, expected) in [
            ("/tmp", &["/tmp"][..]),
            ("  /var/run/postgresql , /tmp", &["/var/run/postgresql", "/tmp"]),
            ("/a b/c\t,/tmp", &["/a b/c", "/tmp"]),
            (r#""/with, comma" , /tmp"#, &["/with, comma", "/tmp"]),
            (r#""/with ""quotes""""#, &[r#"/with "quotes""#]),
            (r#"  " /blank ",x"#, &[" /blank ", "x"]),
            ("@abstract", &["@abstract"]),
            ("", &[]),
            (" \t ", &[]),
        ] {
            assert_eq!(split(list), expected, "{list}");
        }
    }

    #[test]
    fn a_folder_that_no_client_can_name_is_left_out() {
        let first = |list: &str| usable(&split(list)).cloned();
        assert_eq!(first(r#""/a,b", /tmp"#).as_deref(), Some("/tmp"));
        assert_eq!(first(r#""/a,b""#).as_deref(), Some("/a,b"));
        assert_eq!(first(""), None);
    }
}
