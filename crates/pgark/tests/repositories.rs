//! Repositories with several clusters, several system identifiers, and records that somebody tampered with.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SYSTEM: &str = "7710997216315519387";
const BACKUP: &str = "20261122T140921Z-full";

/// A copy of the golden repository.
struct Copy(tempfile::TempDir);

impl Copy {
    fn new() -> Copy {
        let copy = Copy(tempfile::tempdir().expect("a folder"));
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/golden/v1/zstd");
        copy_folder(&golden, copy.0.path());
        copy
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Changes the text of the record in a system's folder.
    fn change_record(&self, system: &str, from: &str, to: &str) {
        let path = self.path(&format!("main/{system}/backups/{BACKUP}/backup.json"));
        let text = std::fs::read_to_string(&path).expect("a record");
        assert!(text.contains(from), "{text}");
        std::fs::write(path, text.replace(from, to)).expect("a record");
    }

    /// Exit code, stdout and stderr.
    fn pgark(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgark"));
        command.env_remove("PGARK_CLUSTER").env("PGARK_REPO", format!("file://{}", self.0.path().display()));
        let Output { status, stdout, stderr } = command.args(arguments).output().expect("pgark runs");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (status.code().expect("an exit code"), text(stdout), text(stderr))
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).expect("a copy")),
        }
    }
}

#[test]
fn one_of_several_clusters_must_be_chosen() {
    let copy = Copy::new();
    copy_folder(&copy.path("main"), &copy.path("other"));
    let (code, out, error) = copy.pgark(&["list"]);
    assert_eq!((code, &out[..]), (2, ""));
    assert!(error.contains("several clusters: main, other") && error.contains("--cluster"), "{error}");
    assert_eq!(copy.pgark(&["--cluster", "main", "list"]).0, 0);
}

#[test]
fn a_system_identifier_narrows_what_is_seen() {
    let copy = Copy::new();
    copy_folder(&copy.path(&format!("main/{SYSTEM}")), &copy.path("main/7"));
    copy.change_record("7", SYSTEM, "7");
    let (_, list, _) = copy.pgark(&["list"]);
    for system in ["7", SYSTEM] {
        assert!(list.contains(&format!("System identifier {system} (PostgreSQL 15.20):\n")), "{list}");
        let (code, shown, _) = copy.pgark(&["--system-identifier", system, "show", BACKUP]);
        assert_eq!(code, 0);
        assert!(shown.contains(&format!("System identifier:  {system}\n")), "{shown}");
        let (_, list, _) = copy.pgark(&["--system-identifier", system, "list"]);
        assert_eq!(list.lines().count(), 2, "{list}");
    }
    let (code, _, error) = copy.pgark(&["show", BACKUP]);
    assert_eq!(code, 2);
    assert!(error.contains("--system-identifier"), "{error}");
    // The newest is the last one in the cluster's record.
    let (_, latest, _) = copy.pgark(&["show", "latest"]);
    assert!(latest.contains(&format!("System identifier:  {SYSTEM}\n")), "{latest}");
    let (_, plan, _) = copy.pgark(&["restore", "--pgdata", "/nonexistent/data", "--dry-run"]);
    assert!(plan.contains(SYSTEM), "{plan}");
}

#[test]
fn promise_7_a_terminal_gets_no_orders_from_a_record() {
    let copy = Copy::new();
    let hostile = "\\u001b]0;x\\u0007\\u009b2J\\u202egpj\\nStatus: complete";
    copy.change_record(SYSTEM, "golden zstd:9", hostile);
    copy.change_record(SYSTEM, "\"15.20\"", &format!("\"{hostile}\""));
    copy.change_record(SYSTEM, "\"warnings\": []", &format!("\"warnings\": [\"{hostile}\"]"));
    let restore = ["restore", "--pgdata", "/nonexistent/data", "--dry-run"];
    for arguments in [&["list"][..], &["show", "latest"], &restore] {
        for format in ["text", "json"] {
            let (code, out, error) = copy.pgark(&[&["--format", format], arguments].concat());
            assert_eq!(code, 0, "{error}");
            let harmful = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
            assert!(!out.contains(harmful) && !error.contains(harmful), "{out:?} {error:?}");
            assert!(!out.lines().any(|line| line.starts_with("Status: complete")), "{out}");
            assert!(format == "text" || out.contains("\\u009b"), "{out}");
        }
    }
}
