//! Exit codes of `pgark wal-get` are answers: nothing but the answer decides them. PostgreSQL takes 1 to 125 for "there is
//! no such file".

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SYSTEM: &str = "7710997216315519387";
const SEGMENT: &str = "000000010000000000000004";

/// A folder to work in, with a repository whose archive holds a history and nothing else.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        let place = Place(tempfile::tempdir().expect("a folder"));
        let wal = place.path("repository/main").join(SYSTEM).join("wal");
        std::fs::create_dir_all(&wal).expect("a folder");
        std::fs::create_dir(place.path("work")).expect("a folder");
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/golden/v1/zstd/pgark.json");
        std::fs::copy(golden, place.path("repository/pgark.json")).expect("a record");
        std::fs::write(wal.join("00000002.history"), "1\t0/5000100\tno reason\n").expect("a history");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn pgark(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgark"));
        command
            .env_remove("PGARK_CLUSTER")
            .env("PGARK_REPO", format!("file://{}", self.path("repository").display()));
        command.current_dir(self.path("work")).args(arguments);
        command
    }

    /// The exit code, which is the same whatever becomes of what is said; and what is said.
    #[track_caller]
    fn code(&self, arguments: &[&str]) -> (i32, String) {
        let full = || Stdio::from(File::create("/dev/full").expect("/dev/full"));
        let told = self.pgark(arguments).output().expect("pgark runs");
        let code = |mut command: Command| command.status().expect("pgark runs").code();
        let mut deaf = self.pgark(arguments);
        deaf.stdout(full()).stderr(full());
        assert_eq!(code(deaf), told.status.code(), "with a full disk behind stderr");
        let mut closed = Command::new("sh");
        closed.current_dir(self.path("work")).args([
            "-c",
            "exec \"$@\" >&- 2>&-",
            "sh",
            env!("CARGO_BIN_EXE_pgark"),
        ]);
        closed.env("PGARK_REPO", format!("file://{}", self.path("repository").display())).args(arguments);
        assert_eq!(code(closed), told.status.code(), "with stderr closed");
        (told.status.code().expect("an exit code"), String::from_utf8(told.stderr).expect("UTF-8"))
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str], code: i32, words: &[&str]) {
        let (found, stderr) = self.code(arguments);
        assert_eq!(found, code, "{arguments:?}: {stderr}");
        for word in words {
            assert!(stderr.contains(word), "\"{word}\" expected: {stderr}");
        }
        assert_eq!(
            std::fs::read_dir(self.path("work"))
                .expect("a folder")
                .flatten()
                .filter(|e| e.file_name() == "y")
                .count(),
            0
        );
    }
}

#[test]
fn the_answer_alone_decides_the_exit_code() {
    let place = Place::new();
    assert_eq!(place.code(&["wal-get", "00000002.history", "there"]), (0, String::new()));
    assert_eq!(std::fs::read(place.path("work/there")).expect("a history"), b"1\t0/5000100\tno reason\n");
    // Timeline 2 branched off in segment 5.
    assert_eq!(place.code(&["wal-get", "000000010000000000000005", "y"]), (1, String::new()));
    assert_eq!(place.code(&["wal-get", "00000003.history", "y"]), (1, String::new()));
    place.fails(
        &["wal-get", SEGMENT, "y"],
        219,
        &["error: wal-get 0000", "is missing", "Timeline 2", "\nhint: "],
    );
    place.fails(&["wal-get", "00000002.history", "no/such/y"], 212, &["no/such/.y.pg_ark", "\nhint: "]);
    place.fails(&["wal-get", "00000002.history", "."], 202, &["error: ", "\nhint: "]);
    place.fails(&["--system-identifier", "7", "wal-get", SEGMENT, "y"], 205, &["system identifier 7"]);
    place.fails(&["--cluster", "other", "wal-get", SEGMENT, "y"], 205, &["\"other\""]);
    place.fails(
        &["--repo", "file:///nowhere/at/all", "wal-get", SEGMENT, "y"],
        205,
        &["no repository", "mount it"],
    );
    place.fails(&["--repo", "", "wal-get", SEGMENT, "y"], 203, &["--repo"]);
}

#[test]
fn mistakes_are_faults() {
    let place = Place::new();
    for arguments in [
        &["wal-get"][..],
        &["wal-get", SEGMENT],
        &["wal-get", SEGMENT, "y", "z"],
        &["wal-get", "--what", SEGMENT, "y"],
        &["wal-get", "--spool-size", "1 parsec", SEGMENT, "y"],
        &["--system-identifier", "x", "wal-get", SEGMENT, "y"],
        &["wal-get", "nonsense", "y"],
        &["wal-get", "", "y"],
        &["wal-get", "../00000002.history", "y"],
    ] {
        place.fails(arguments, 202, &["error: "]);
    }
    place.fails(&["walget", SEGMENT, "y"], 2, &["error: "]);
    // In the data directory of a server in recovery a misspelt wal-get would end it.
    std::fs::write(place.path("work/recovery.signal"), "").expect("a file");
    place.fails(&["walget", SEGMENT, "y"], 202, &["error: "]);
}

#[test]
fn what_delivers_nothing_is_no_success_where_a_server_recovers() {
    let place = Place::new();
    // PostgreSQL takes a file that is not there after exit 0 for the end of the WAL.
    place.fails(&["wal-get", "--ahead", SEGMENT, "y"], 202, &["--ahead", "hint: "]);
    for arguments in [&["--version", "wal-get", SEGMENT, "y"][..], &["wal-get", "--help"], &["--help"]] {
        let code = |place: &Place| place.pgark(arguments).output().expect("pgark runs").status.code();
        let _ = std::fs::remove_file(place.path("work/recovery.signal"));
        assert_eq!(code(&place), Some(0), "a human may ask");
        for signal in ["recovery.signal", "standby.signal"] {
            std::fs::write(place.path("work").join(signal), "").expect("a file");
            assert_eq!(code(&place), Some(202), "{arguments:?}");
            std::fs::remove_file(place.path("work").join(signal)).expect("a file");
        }
    }
}

#[test]
fn a_standby_is_told_to_ask_again() {
    let place = Place::new();
    std::fs::write(place.path("work/standby.signal"), "").expect("a file");
    place.fails(&["wal-get", SEGMENT, "y"], 1, &["error: wal-get 0000", "is missing", "hint: "]);
    place.fails(&["--repo", "file:///nowhere/at/all", "wal-get", SEGMENT, "y"], 1, &["no repository"]);
    // Asking again mends no restore_command.
    place.fails(&["wal-get", SEGMENT], 202, &["error: "]);
    place.fails(&["wal-get", "nonsense", "y"], 202, &["error: "]);
    place.fails(&["--repo", "", "wal-get", SEGMENT, "y"], 203, &["--repo"]);
}
