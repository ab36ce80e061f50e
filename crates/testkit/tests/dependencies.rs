//! What is linked: licences, sources, bans and doubles, as `deny.toml` says. cargo-deny checks the same and known
//! vulnerabilities too, but needs to be installed and needs a network; this needs neither.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("root of the workspace")
}

fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output =
        Command::new(cargo).current_dir(root()).args(arguments).output().expect("could not run cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Every package of `Cargo.lock`: those of tests and of other platforms too.
fn packages() -> Vec<Value> {
    let metadata: Value =
        serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--locked"])).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages").clone();
    assert!(packages.len() > 100, "{} packages", packages.len());
    packages
}

fn text<'a>(package: &'a Value, field: &str) -> &'a str {
    package[field].as_str().unwrap_or_default()
}

/// The texts of a list in deny.toml, or of the field `name` of its tables.
fn policy(list: &str) -> Vec<String> {
    let file = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
    let begin = format!("\n{list} = [");
    let rest = file.split_once(&begin).unwrap_or_else(|| panic!("deny.toml has no list {list}")).1;
    let lines = rest.split_once("]\n").expect("an end of the list").0.split('\n');
    let texts = lines.flat_map(|line| line.split('"').nth(1).map(str::to_string));
    let texts: Vec<String> = texts.collect();
    assert!(!texts.is_empty(), "deny.toml: {list} is empty");
    texts
}

/// Whether an SPDX expression can be fulfilled with the allowed licences. `/` is an old way to write OR; AND binds
/// tighter than OR, and parentheses tighter than both.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let fulfilled = any(&words, &mut at, allowed);
    fulfilled && at == words.len()
}

fn any(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut fulfilled = all(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        fulfilled |= all(words, at, allowed);
    }
    fulfilled
}

fn all(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut fulfilled = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        fulfilled &= one(words, at, allowed);
    }
    fulfilled
}

fn one(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let Some(&word) = words.get(*at) else { return false };
    *at += 1;
    if word == "(" {
        let fulfilled = any(words, at, allowed);
        let closed = words.get(*at) == Some(&")");
        *at += 1;
        return fulfilled && closed;
    }
    let mut license = word.to_string();
    if words.get(*at) == Some(&"WITH") {
        license = format!("{word} WITH {}", words.get(*at + 1).unwrap_or(&""));
        *at += 2;
    }
    allowed.contains(&license)
}

#[test]
fn every_licence_is_allowed() {
    let allowed = policy("allow");
    let wrong: Vec<String> = packages()
        .iter()
        .filter(|package| !is_allowed(text(package, "license"), &allowed))
        .map(|package| format!("{}: \"{}\"", text(package, "name"), text(package, "license")))
        .collect();
    assert!(wrong.is_empty(), "not in deny.toml: {wrong:?}");
}

#[test]
fn everything_comes_from_crates_io() {
    let registry = "registry+https://github.com/rust-lang/crates.io-index";
    let wrong: Vec<String> = packages()
        .iter()
        .filter(|package| match package["source"].as_str() {
            Some(source) => source != registry,
            // The workspace's own, below its root.
            None => !Path::new(text(package, "manifest_path")).starts_with(root()),
        })
        .map(|package| format!("{}: {}", text(package, "name"), package["source"]))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn nothing_is_linked_that_is_banned() {
    let banned = policy("deny");
    assert!(banned.contains(&"openssl-sys".to_string()), "{banned:?}");
    let found: Vec<String> = packages()
        .iter()
        .map(|package| text(package, "name").to_string())
        .filter(|name| banned.contains(name))
        .collect();
    assert!(found.is_empty(), "banned by deny.toml: {found:?}");
}

#[test]
fn pgark_links_one_version_of_each_crate() {
    let tree =
        cargo(&["tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "none", "-p", "pgark"]);
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in tree.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(version)) = (words.next(), words.next()) else { continue };
        let known = versions.entry(name).or_default();
        if !known.contains(&version) {
            known.push(version);
        }
    }
    assert!(versions.len() > 20, "{versions:?}");
    versions.retain(|_, versions| versions.len() > 1);
    assert!(versions.is_empty(), "{versions:?}");
}

#[test]
fn expressions_are_understood() {
    let allowed = ["MIT", "X WITH Y"].map(String::from);
    for good in ["MIT", "GPL-3.0 OR MIT", "GPL-3.0/MIT", "(MIT OR A) AND MIT", "X WITH Y", "A AND B OR MIT"] {
        assert!(is_allowed(good, &allowed), "{good}");
    }
    for bad in ["", "A", "MIT AND A", "(MIT", "X", "X WITH Z", "MIT MIT", "A OR B AND MIT"] {
        assert!(!is_allowed(bad, &allowed), "{bad}");
    }
}
