//! Text of configuration files that move into the data directory. Pure: text in, text out.
//!
//! Include directives are led to where the included files go, and settings that name the old places are commented
//! out, so that `postgres -D` finds everything by itself, also after the data directory is moved again.

use std::path::{Component, Path, PathBuf};

/// Begins a line that was commented out.
pub const COMMENT: &str = "#pg_ark# ";
/// First line of a block that a restore wrote.
pub const BLOCK_BEGIN: &str = "# pg_ark restore: begin";
/// Last line of a block that a restore wrote.
pub const BLOCK_END: &str = "# pg_ark restore: end";

/// Settings that name places outside the configuration file itself.
const PLACES: [&str; 4] = ["data_directory", "hba_file", "ident_file", "external_pid_file"];

/// What an include directive includes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Include {
    /// A file.
    File,
    /// Every `*.conf` in a folder.
    Folder,
}

/// The key and value of a line: `key = 'value'`, `key value`, `key "value"`.
pub fn parse_line(line: &str) -> Option<(&str, String)> {
    let line = line.trim_start();
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.')))?;
    let (key, rest) = line.split_at(end);
    if key.is_empty() {
        return None;
    }
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    let value = match rest.chars().next()? {
        quote @ ('\'' | '"') => quoted(&rest[1..], quote)?,
        '#' => return None,
        _ => rest.split(|c: char| c.is_whitespace() || c == '#').next()?.to_string(),
    };
    Some((key, value))
}

/// Text up to the closing quote; a doubled quote, or one behind a backslash, is part of it.
fn quoted(text: &str, quote: char) -> Option<String> {
    let mut value = String::new();
    let mut chars = text.chars().peekable();
    loop {
        match chars.next()? {
            '\\' if quote == '\'' => value.push(chars.next()?),
            c if c == quote && chars.peek() == Some(&quote) => {
                chars.next();
                value.push(c);
            }
            c if c == quote => return Some(value),
            c => value.push(c),
        }
    }
}

/// The include directive on a line, and the path it names.
pub fn include(line: &str) -> Option<(Include, String)> {
    let (key, value) = parse_line(line)?;
    let kind = match key.to_ascii_lowercase().as_str() {
        "include" | "include_if_exists" => Include::File,
        "include_dir" => Include::Folder,
        _ => return None,
    };
    Some((kind, value))
}

/// Every folder that the text, a file in `folder`, includes.
pub fn included_folders(text: &[u8], folder: &Path) -> Vec<PathBuf> {
    let text = String::from_utf8_lossy(text);
    let folders = text.lines().filter_map(include).filter(|(kind, _)| *kind == Include::Folder);
    folders.map(|(_, path)| normal(&folder.join(path))).collect()
}

/// Rewrites the text of a file that was in `from` and goes to `to`. `moved` tells where an included path goes, `None`
/// if it stays. Returns the text and the settings that were commented out.
pub fn rewrite(
    text: &[u8],
    from: &Path,
    to: &Path,
    moved: &dyn Fn(Include, &Path) -> Option<PathBuf>,
) -> (Vec<u8>, Vec<String>) {
    let mut out = Vec::with_capacity(text.len() + 256);
    let mut commented = Vec::new();
    for line in text.split_inclusive(|b| *b == b'\n') {
        let shown = String::from_utf8_lossy(line);
        if let Some((kind, path)) = include(&shown) {
            let old = normal(&from.join(path));
            let new = match moved(kind, &old) {
                Some(new) => relative(to, &new),
                None => old,
            };
            let keyword = shown.trim_start().split(|c: char| !(c.is_ascii_alphabetic() || c == '_')).next();
            let quote = if to_is_conf(&shown) { '\'' } else { '"' };
            let mut path = new.display().to_string().replace(quote, &format!("{quote}{quote}"));
            if quote == '\'' {
                path = path.replace('\\', "\\\\");
            }
            out.extend_from_slice(COMMENT.as_bytes());
            out.extend_from_slice(shown.trim_end().as_bytes());
            out.extend_from_slice(
                format!("\n{} {quote}{path}{quote}\n", keyword.unwrap_or("include")).as_bytes(),
            );
            continue;
        }
        let place = parse_line(&shown)
            .and_then(|(key, _)| PLACES.iter().find(|place| place.eq_ignore_ascii_case(key)));
        if let Some(place) = place {
            commented.push((*place).to_string());
            out.extend_from_slice(COMMENT.as_bytes());
        }
        out.extend_from_slice(line);
    }
    (out, commented)
}

/// postgresql.conf wants single quotes; pg_hba.conf and pg_ident.conf, which never use them, want double ones.
fn to_is_conf(line: &str) -> bool {
    line.contains('\'') || line.contains('=')
}

/// The block that ends a rewritten main file.
pub fn closing_block(origin: &Path, commented: &[String]) -> String {
    let mut block = format!("\n{BLOCK_BEGIN}\n# This file was {}.\n", origin.display());
    if !commented.is_empty() {
        block.push_str(&format!(
            "# Commented out with {:?}, because they named the old places: {}.\n",
            COMMENT.trim_end(),
            commented.join(", ")
        ));
    }
    block.push_str(BLOCK_END);
    block.push('\n');
    block
}

/// Removes `.` and resolves `..` by name.
pub fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// `path` as seen from folder `from`; both absolute.
fn relative(from: &Path, path: &Path) -> PathBuf {
    let common = from.components().zip(path.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().count() - common;
    let mut out: PathBuf = std::iter::repeat_n(Component::ParentDir, up).collect();
    out.extend(path.components().skip(common));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_the_server_reads_them() {
        let read = |line| parse_line(line).map(|(key, value)| (key.to_string(), value));
        let pair = |key: &str, value: &str| Some((key.to_string(), value.to_string()));
        assert_eq!(read("data_directory = '/a b'  # note"), pair("data_directory", "/a b"));
        assert_eq!(read("  Include_Dir 'conf.d'\n"), pair("Include_Dir", "conf.d"));
        assert_eq!(read("port=5433#x"), pair("port", "5433"));
        assert_eq!(read("a = 'it''s'"), pair("a", "it's"));
        assert_eq!(read("a = 'it\\'s'"), pair("a", "it's"));
        for line in ["", "# port = 1", "port", "a = 'open", "= 5"] {
            assert_eq!(read(line), None, "{line}");
        }
    }

    #[test]
    fn includes_are_led_to_their_new_place() {
        let text =
            b"port = 5432\ninclude_dir = 'conf.d'\ninclude 'extra.conf'\ninclude_if_exists '/etc/x.conf'\n\
            data_directory = '/var/lib/x'\n";
        let moved = |kind: Include, path: &Path| {
            (kind == Include::Folder || path.ends_with("extra.conf"))
                .then(|| Path::new("/data/pg_ark_config").join(path.strip_prefix("/").unwrap()))
        };
        let (out, commented) = rewrite(text, Path::new("/etc/pg"), Path::new("/data"), &moved);
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("\ninclude_dir 'pg_ark_config/etc/pg/conf.d'\n"), "{out}");
        assert!(out.contains("\ninclude 'pg_ark_config/etc/pg/extra.conf'\n"), "{out}");
        assert!(out.contains("\ninclude_if_exists '/etc/x.conf'\n"), "{out}");
        assert!(out.contains("\n#pg_ark# data_directory"), "{out}");
        assert_eq!(commented, ["data_directory"]);
        assert_eq!(included_folders(text, Path::new("/etc/pg")), [Path::new("/etc/pg/conf.d")]);
    }

    #[test]
    fn relative_paths() {
        let from = |a: &str, b: &str| relative(Path::new(a), Path::new(b)).display().to_string();
        assert_eq!(from("/data", "/data/x/y"), "x/y");
        assert_eq!(from("/data/x/y", "/data/z"), "../../z");
        assert_eq!(normal(Path::new("/a/./b/../c")), Path::new("/a/c"));
    }
}
