//! What a logical backup has to know of its server: the socket, the port, the role that it is taken as, the programs.

use crate::postgres::{guc, process};
use crate::{settings, sql};
use pg_ark_contract::conversation::{LogicalChoice, LogicalTask};
use pg_ark_contract::{Error, ErrorKind, Result};
use std::path::Path;

/// The role that initdb makes (`BOOTSTRAP_SUPERUSERID`, catalog/pg_authid.dat): it may read everything, and is never dropped.
const BOOTSTRAP_SUPERUSER: &str = "SELECT rolname::text FROM pg_roles WHERE oid = 10";

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

/// The first folder with a socket of this server, absolute; empty when it has none.
fn socket_directory(data_directory: &str) -> String {
    let folders = guc::option(c"unix_socket_directories").unwrap_or_default();
    match first_of(&folders) {
        // Not a folder but a name in the kernel's own space of sockets.
        Some(folder) if folder.starts_with('@') => folder,
        // The server takes a relative one from its data directory, where it runs.
        Some(folder) => Path::new(data_directory).join(folder).display().to_string(),
        None => String::new(),
    }
}

/// The first name of a list as `SplitDirectoriesString` reads it (utils/adt/varlena.c): commas between names, blanks around
/// them do not count, and in double quotes a name is taken as it is, with each quote doubled.
fn first_of(list: &str) -> Option<String> {
    // The blanks of `scanner_isspace`.
    let blank = [' ', '\t', '\n', '\r', '\x0b', '\x0c'];
    let list = list.trim_start_matches(blank);
    let Some(quoted) = list.strip_prefix('"') else {
        let plain = list.split(',').next().unwrap_or_default().trim_end_matches(blank);
        return (!plain.is_empty()).then(|| plain.to_owned());
    };
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
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::first_of;

    #[test]
    fn the_first_folder_is_read_as_the_server_reads_it() {
        for (list, expected) in [
            ("/tmp", Some("/tmp")),
            ("  /var/run/postgresql , /tmp", Some("/var/run/postgresql")),
            ("/a b/c\t,/tmp", Some("/a b/c")),
            (r#""/with, comma" , /tmp"#, Some("/with, comma")),
            (r#""/with ""quotes""""#, Some(r#"/with "quotes""#)),
            (r#"  " /blank ""#, Some(" /blank ")),
            ("@abstract", Some("@abstract")),
            ("", None),
            (" \t ", None),
        ] {
            assert_eq!(first_of(list).as_deref(), expected, "{list}");
        }
    }
}
