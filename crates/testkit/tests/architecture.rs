//! Rules of the code base that the compiler does not know. They live here, where they link without a server.

use pg_ark_contract::ErrorKind;
use pg_ark_contract::settings::{CATALOGUE, Context};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const MAX_LINES: usize = 800;
/// The only places that may sleep, both in a loop that looks at another process, which wakes nobody.
const POLLING: [&str; 2] = ["crates/testkit/src/wait.rs", "crates/engine/src/restore/follow.rs"];

/// The only places that start programs: each by its path or name, with its arguments as they are.
const STARTING: [&str; 7] = [
    "crates/engine/src/logical/child.rs",
    "crates/engine/src/logical/programs.rs",
    "crates/engine/src/restore/run_as.rs",
    "crates/engine/src/restore/server.rs",
    "crates/pgark/src/child_mode.rs",
    "crates/pgark/src/commands/wal_get.rs",
    "src/engine/program.rs",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("root of the workspace")
}

/// Path below the root and text of every Rust file.
fn sources() -> Vec<(String, String)> {
    let root = root();
    let mut folders: Vec<PathBuf> = ["src", "crates", "pg_test", "bench"].map(|name| root.join(name)).into();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).expect("below the root").display().to_string();
                files.push((name, fs::read_to_string(&path).expect("a source file")));
            }
        }
    }
    assert!(files.len() > 20, "found only {} source files: this test looks in the wrong place", files.len());
    files.sort();
    files
}

/// Replaces comments and the content of literals by spaces; keeps lines.
fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let end = if rest.starts_with(b"//") {
            rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            find(rest, b"*/").map_or(rest.len(), |found| found + 2)
        } else if rest[0] == b'"' {
            string_end(rest)
        } else if let Some(hashes) = raw_string(rest).filter(|_| at == 0 || !is_word(bytes[at - 1])) {
            let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
            let open = hashes + 2;
            find(&rest[open..], &close).map_or(rest.len(), |found| open + found + close.len())
        } else if rest[0] == b'\'' && rest.get(1) != Some(&b'\\') && rest.get(2) == Some(&b'\'') {
            3
        } else if rest.starts_with(b"'\\") {
            2 + find(&rest[3..], b"'").map_or(0, |found| found + 2)
        } else {
            at += 1;
            continue;
        };
        code[at..at + end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        at += end;
    }
    String::from_utf8_lossy(&code).into_owned()
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn string_end(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// Number of hashes when a raw string begins here.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let rest = rest.strip_prefix(b"r")?;
    let hashes = rest.iter().take_while(|&&byte| byte == b'#').count();
    (rest.get(hashes) == Some(&b'"')).then_some(hashes)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|part| part == word)
}

fn dependencies(package: &str, options: &[&str]) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(root())
        .args(["tree", "--edges", "normal", "--prefix", "none", "--format", "{lib}", "-p", package])
        .args(options)
        .output()
        .expect("could not run cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_string)
        .collect()
}

#[track_caller]
fn assert_without(package: &str, forbidden: &[&str]) {
    let found = dependencies(package, &[]);
    assert!(found.len() > 1, "{package} seems to have no dependencies: {found:?}");
    let wrong: Vec<&&str> = forbidden.iter().filter(|name| found.contains(**name)).collect();
    assert!(wrong.is_empty(), "{package} must not link {wrong:?}");
}

#[test]
fn the_extension_cannot_reach_the_data_plane() {
    // What runs inside the server must not hold a compressor, an object-store client or an async runtime.
    assert_without(
        "pg_ark",
        &[
            "pg_ark_engine",
            "tokio",
            "object_store",
            "zstd",
            "zstd_sys",
            "zstd_safe",
            "lz4",
            "lz4_sys",
            "flate2",
        ],
    );
}

#[test]
fn the_engine_knows_neither_server_nor_command_line() {
    assert_without("pg_ark_engine", &["pgrx", "pgrx_pg_sys", "clap", "clap_builder"]);
    assert_without("pgark", &["pgrx", "pgrx_pg_sys"]);
}

#[test]
fn the_contract_knows_serde_alone() {
    let found = dependencies("pg_ark_contract", &["--depth", "1"]);
    assert_eq!(found, BTreeSet::from(["pg_ark_contract".to_string(), "serde".to_string()]));
}

#[test]
fn unsafe_code_stays_in_one_room() {
    let mut wrong = Vec::new();
    for (name, text) in sources().iter().filter(|(name, _)| !name.starts_with("src/postgres/")) {
        for (number, line) in code_only(text).lines().enumerate() {
            if has_word(line, "unsafe") {
                wrong.push(format!("{name}:{}", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "unsafe code outside src/postgres/: {wrong:?}");
}

#[test]
fn no_shell_is_ever_involved() {
    let shipped = |name: &str| {
        (name.starts_with("src/") || name.starts_with("crates/"))
            && !name.starts_with("crates/testkit/")
            && !name.contains("/tests/")
            && !name.ends_with("_tests.rs")
    };
    let all = sources();
    let mut starting = BTreeSet::new();
    let mut wrong = Vec::new();
    for (name, text) in all.iter().filter(|(name, _)| shipped(name)) {
        // Tests may: they stand behind everything else.
        let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let code = code_only(text);
        if ["Command::new", "posix_spawn", "execv"].iter().any(|call| code.contains(call)) {
            starting.insert(name.as_str());
        }
        for (number, (line, code)) in text.lines().zip(code.lines()).enumerate() {
            let shell = ["\"sh\"", "/sh\"", "\"bash\"", "/bash\""].iter().any(|shell| line.contains(shell));
            if shell || ["libc::system", "libc::popen", "libc::fork"].iter().any(|call| code.contains(call)) {
                wrong.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(starting, BTreeSet::from(STARTING), "who starts programs: look at it well, then list it");
}

#[test]
fn no_source_file_is_too_long() {
    let long: Vec<String> = sources()
        .iter()
        .map(|(name, text)| (name, text.lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(name, lines)| format!("{name}: {lines} lines"))
        .collect();
    assert!(long.is_empty(), "longer than {MAX_LINES} lines: {long:?}");
}

#[test]
fn nothing_is_left_for_later_and_nothing_sleeps() {
    // In pieces, so that this file does not hold them.
    let notes = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let macros = [concat!("to", "do!"), concat!("unimpl", "emented!"), concat!("#[ig", "nore")];
    let sleep = concat!("thread::", "sleep");
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        for (number, (line, code)) in text.lines().zip(code_only(&text).lines()).enumerate() {
            let slept = !POLLING.contains(&name.as_str()) && code.contains(sleep);
            let left =
                notes.iter().any(|word| has_word(line, word)) || macros.iter().any(|m| code.contains(m));
            if left || slept {
                wrong.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The README's table between two markers must be what the code says; `PG_ARK_BLESS=1` writes it.
#[track_caller]
fn assert_table(marker: &str, table: &str) {
    let path = root().join("README.md");
    let readme = fs::read_to_string(&path).expect("README.md");
    let (open, close) = (format!("<!-- {marker} -->\n"), format!("<!-- /{marker} -->"));
    let start = readme.find(&open).unwrap_or_else(|| panic!("README.md has no {open}")) + open.len();
    let end = start + readme[start..].find(&close).unwrap_or_else(|| panic!("README.md has no {close}"));
    if std::env::var_os("PG_ARK_BLESS").is_some() {
        fs::write(&path, format!("{}{table}{}", &readme[..start], &readme[end..])).expect("README.md");
    } else {
        let hint = "run this test alone with PG_ARK_BLESS=1 and --test-threads=1";
        assert_eq!(&readme[start..end], table, "README.md differs from the code ({marker}): {hint}");
    }
}

/// Functions that tell of another version in their answer, because they say what is wrong with the server.
const TELL_THE_VERSION: [&str; 3] = ["check", "server_metrics", "server_status"];

#[test]
fn every_sql_function_asks_for_its_version_first() {
    let mut seen = 0;
    for (path, text) in sources().iter().filter(|(path, _)| path.starts_with("src/api/")) {
        for declared in text.split("#[pg_extern").skip(1) {
            let (_, rest) = declared.split_once("pub fn ").unwrap_or_else(|| panic!("{path}: no function"));
            let name = rest.split('(').next().unwrap_or_default();
            let (_, body) = rest.split_once("{\n").unwrap_or_else(|| panic!("{path}: {name} has no body"));
            let asks = body.trim_start().starts_with("version::require();");
            assert_eq!(asks, !TELL_THE_VERSION.contains(&name), "{path}: {name}");
            seen += 1;
        }
    }
    assert!(seen > 15, "found only {seen} functions: this test looks in the wrong place");
}

#[test]
fn the_readme_shows_every_setting() {
    let mut table = String::from("| setting | default | takes effect | meaning | why this default |\n");
    table.push_str("|---|---|---|---|---|\n");
    for setting in CATALOGUE {
        let default = match setting.default {
            "" => "(empty)".to_string(),
            text => format!("`{text}`"),
        };
        let context = match setting.context {
            Context::Sighup => "reload",
            Context::Suset => "reload, or per session by a superuser",
        };
        let (name, help, why) = (setting.name, setting.help, setting.why);
        table.push_str(&format!("| `{name}` | {default} | {context} | {help} | {why} |\n"));
    }
    assert_table("settings", &table);
}

#[test]
fn the_readme_shows_every_exit_code() {
    let mut table = String::from("| exit code | SQLSTATE | meaning |\n|---|---|---|\n| 0 | | done |\n");
    for kind in ErrorKind::ALL {
        table.push_str(&format!("| {} | `{}` | {} |\n", kind.exit_code(), kind.sqlstate(), kind.meaning()));
    }
    assert_table("exit codes", &table);
}

#[test]
fn the_readme_shows_every_exit_code_of_wal_get() {
    let mut table = String::from("| exit code of `wal-get` | meaning |\n|---|---|\n");
    table.push_str("| 0 | the file is where PostgreSQL wants it |\n");
    table.push_str("| 1 | proved: the archive does not have it, nor any WAL after it |\n");
    for kind in ErrorKind::ALL {
        table.push_str(&format!("| {} | {} |\n", kind.wal_get_exit_code(), kind.meaning()));
    }
    assert_table("wal-get exit codes", &table);
}

#[test]
fn comments_and_literals_are_not_code() {
    let text = "a // unsafe\n/* unsafe\n*/ b \"un\\\"safe unsafe\" r#\"unsafe\"# 'x' '\\'' <'a> c";
    let code = code_only(text);
    assert!(!has_word(&code, "unsafe") && ["a", "b", "c"].iter().all(|word| has_word(&code, word)), "{code}");
    assert_eq!(code.lines().count(), text.lines().count());
    assert!(has_word("x = unsafe{}", "unsafe") && !has_word("forbid(unsafe_code)", "unsafe"));
}
