//! Which files a configuration file includes.
//!
//! `postgresql.conf` and, from PostgreSQL 16 on, `pg_hba.conf` and `pg_ident.conf` know `include`, `include_if_exists` and
//! `include_dir` (utils/misc/guc-file.l, libpq/hba.c); `pg_hba.conf` also knows `@file` in the place of a name.
//! Relative paths begin at the folder of the file that includes.

use super::config::MAX_CONFIG;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// PostgreSQL refuses deeper nesting (`CONF_FILE_MAX_DEPTH`, utils/conffiles.h).
const MAX_DEPTH: usize = 10;

/// Adds to `found` the files that `file` includes, and those that they include.
pub fn follow(file: &Path, found: &mut BTreeSet<PathBuf>) {
    follow_to(file, found, MAX_DEPTH);
}

fn follow_to(file: &Path, found: &mut BTreeSet<PathBuf>, depth: usize) {
    let small = std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_CONFIG);
    let Some(text) = small.then(|| std::fs::read(file).ok()).flatten() else { return };
    let folder = file.parent().unwrap_or(Path::new("/"));
    for line in String::from_utf8_lossy(&text).lines() {
        for path in named_in(line, folder) {
            if path.is_file() && found.insert(path.clone()) && depth > 0 {
                follow_to(&path, found, depth - 1);
            }
        }
    }
}

/// The files that a line includes.
fn named_in(line: &str, folder: &Path) -> Vec<PathBuf> {
    let line = line.trim_start();
    let word = line.split(|c: char| c.is_whitespace() || c == '=').next().unwrap_or_default();
    match word.to_ascii_lowercase().as_str() {
        "include" | "include_if_exists" => {
            argument(&line[word.len()..]).map(|p| folder.join(p)).into_iter().collect()
        }
        "include_dir" => argument(&line[word.len()..]).map_or_else(Vec::new, |p| files_in(&folder.join(p))),
        _ if line.starts_with('#') => Vec::new(),
        _ => line
            .split(|c: char| c.is_whitespace() || c == ',')
            .take_while(|token| !token.starts_with('#'))
            .filter_map(|token| token.strip_prefix('@'))
            .map(|name| folder.join(name.trim_matches('"')))
            .collect(),
    }
}

/// The value after a keyword: quoted or one word.
fn argument(rest: &str) -> Option<String> {
    let rest = rest.trim_start().trim_start_matches('=').trim_start();
    let mut characters = rest.chars();
    let quote = characters.next().filter(|c| matches!(c, '\'' | '"'));
    let Some(quote) = quote else {
        let word = rest.split(|c: char| c.is_whitespace() || c == '#').next()?;
        return (!word.is_empty()).then(|| word.to_string());
    };
    let mut value = String::new();
    let mut characters = characters.peekable();
    while let Some(c) = characters.next() {
        if c == quote {
            // A doubled quote is one.
            if characters.next_if_eq(&quote).is_none() {
                return (!value.is_empty()).then_some(value);
            }
        }
        value.push(c);
    }
    None
}

/// What `include_dir` reads: files whose names end in `.conf` and do not begin with a dot.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(|e| e.ok());
    let wanted = |path: &PathBuf| {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        name.ends_with(".conf") && !name.starts_with('.')
    };
    entries.map(|e| e.path()).filter(wanted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn includes_are_followed_wherever_they_lead() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("conf.d")).unwrap();
        for (name, text) in [
            (
                "postgresql.conf",
                "# include 'no.conf'\ninclude 'it''s.conf' # x\n include_dir = 'conf.d'\ninclude_if_exists gone.conf\n",
            ),
            ("it's.conf", "INCLUDE = other.conf\n"),
            ("other.conf", "include 'postgresql.conf'\n"),
            ("no.conf", ""),
            ("conf.d/1.conf", ""),
            ("conf.d/.2.conf", ""),
            ("conf.d/3.off", ""),
            ("pg_hba.conf", "local @names,x all peer # @no.conf\n"),
            ("names", "a\n"),
        ] {
            std::fs::write(at(name), text).unwrap();
        }
        let mut found = BTreeSet::new();
        follow(&at("postgresql.conf"), &mut found);
        follow(&at("pg_hba.conf"), &mut found);
        let expected = ["conf.d/1.conf", "it's.conf", "names", "other.conf", "postgresql.conf"].map(at);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_panic(line in "\\PC*", rest in "[ ='\"a#@,]*") {
            named_in(&line, Path::new("/x"));
            named_in(&format!("include{rest}"), Path::new("/x"));
            named_in(&format!("include_dir {rest}"), Path::new("/nowhere"));
        }
    }
}
