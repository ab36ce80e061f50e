//! `pgark child` ties a program to the life of whoever started it.

use pg_ark_testkit::process::is_alive;
use pg_ark_testkit::wait_until;
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const PGARK: &str = env!("CARGO_BIN_EXE_pgark");

fn run(arguments: &[&str]) -> Output {
    Command::new(PGARK).arg("child").args(arguments).output().expect("pgark runs")
}

#[test]
fn the_program_ends_when_its_parent_is_killed() {
    let script = "\"$0\" child --parent $$ sh -c 'echo $$; exec sleep 600' & wait";
    let mut parent =
        Command::new("sh").args(["-c", script, PGARK]).stdout(Stdio::piped()).spawn().expect("a shell");
    let mut line = String::new();
    BufReader::new(parent.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    let child: u32 = line.trim().parse().expect("a process id");
    assert!(is_alive(child));
    parent.kill().expect("it was alive");
    parent.wait().expect("it ends");
    wait_until("the program's end", Duration::from_secs(10), || !is_alive(child));
}

#[test]
fn nothing_is_started_for_a_parent_that_is_gone() {
    let refused = run(&["--parent", "1", "echo", "started"]);
    assert_eq!(refused.status.code(), Some(i32::from(pg_ark_contract::ErrorKind::ParentGone.exit_code())));
    assert!(refused.stdout.is_empty());
    let unchecked = run(&["--parent", "0", "echo", "started"]);
    assert_eq!(unchecked.stdout, b"started\n");
    let own = std::process::id().to_string();
    assert_eq!(run(&["--parent", &own, "echo", "started"]).stdout, b"started\n");
}

#[test]
fn the_program_gets_its_arguments_its_memory_and_its_signals() {
    let told = run(&["sh", "-c", "echo \"$@\"; exit 7", "sh", "--parent", "-x", "a b"]);
    assert_eq!((told.status.code(), &told.stdout[..]), (Some(7), &b"--parent -x a b\n"[..]));
    let status = String::from_utf8(run(&["cat", "/proc/self/status"]).stdout).expect("text");
    // SIGPIPE, which Rust's own programs ignore, is bit 12.
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("a mask").trim();
    assert_eq!(u64::from_str_radix(ignored, 16).expect("a number") & (1 << 12), 0, "{status}");
}

#[test]
fn what_cannot_be_started_is_told() {
    let missing = run(&["/nowhere/pg_dump"]);
    assert_eq!(missing.status.code(), Some(126));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("could not start /nowhere/pg_dump"));
    for wrong in [&[][..], &["--parent"], &["--parent", "x", "echo"]] {
        assert_eq!(run(wrong).status.code(), Some(2), "{wrong:?}");
    }
}
